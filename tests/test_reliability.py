"""Runs killed, interrupted or short of disk; checkpoints not to be trusted."""

import csv
import errno
import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import ui_segmentation_system as ui
from tests.conftest import MakePairs, Refused

MODULE = Path(ui.__file__)
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "-b", "2")
COLUMNS = {"epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"}
# The least rate that is taken; scores stay as they are.
NO_RATE = ("-lr", "1e-9")
# The longest wait, in seconds, for a process that hangs; passing runs never reach it.
PATIENCE = 120

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Interrupt = Callable[..., Path]


def main(words: list[str]) -> int:
    """Run a command on one thread: another number of threads changes the last bits."""
    torch.set_num_threads(1)
    return ui.main(words)


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def train(pairs: Path, runs: Path, *words: Any, epochs: int = 2) -> Path:
    """Train to the end in a new folder of runs; gives the folder of the run."""
    options = ("-d", pairs, "-o", runs, *SMALL, "--max-epochs", epochs)
    assert run("train", *options, *words) == 0
    return runs / "001"


def read(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def log_of(folder: Path) -> str:
    return (folder / "log.csv").read_text()


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(log_of(folder).splitlines()))


def same_run(first: Path, second: Path) -> bool:
    one, other = (read(path / "last.ckpt")["state_dict"] for path in (first, second))
    same = one.keys() == other.keys() and log_of(first) == log_of(second)
    return same and all(torch.equal(one[name], other[name]) for name in one)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_whole(folder: Path) -> None:
    """Open every file that a run left under its final name."""
    for path in folder.glob("**/*.ckpt"):
        assert read(path)["state_dict"]
    for path in folder.glob("**/*.png"):
        Image.open(path).load()
    if (folder / "settings.json").exists():
        assert json.loads((folder / "settings.json").read_text())["max_features"] == 16
    if (folder / "log.csv").exists():
        rows = rows_of(folder)
        assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
        assert all(set(row) == COLUMNS and float(row["val_iou"]) >= 0 for row in rows)


@pytest.fixture(autouse=True)
def environment(monkeypatch: Patch) -> Iterator[None]:
    """Take back what a run leaves in its process: seeds and a deaf Ctrl-C."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    listener = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, listener)


@pytest.fixture
def interrupt(monkeypatch: Patch) -> Interrupt:
    """Give a function that trains and presses Ctrl-C in the epoch after `done`."""

    def start(pairs: Path, runs: Path, done: int, *words: Any, epochs: int = 3) -> Path:
        begin = ui.RunFolder.on_train_batch_start

        def press(self: ui.RunFolder, *arguments: Any) -> None:
            if len(self.rows) == done:
                signal.raise_signal(signal.SIGINT)
            begin(self, *arguments)

        options = ("-d", pairs, "-o", runs, *SMALL, "--max-epochs", epochs)
        with monkeypatch.context() as patch:
            patch.setattr(ui.RunFolder, "on_train_batch_start", press)
            assert run("train", *options, *words) == 130
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return runs / "001"

    return start


@pytest.fixture
def finished(make_pairs: MakePairs, tmp_path: Path) -> Path:
    """The folder of a run of two epochs."""
    return train(make_pairs(4), tmp_path / "runs")


# ---- checkpoints


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("raw", [False, True])
def test_code_in_a_checkpoint_is_not_run(
    raw: bool, finished: Path, tmp_path: Path, refused: Refused
) -> None:
    trap, sprung = finished / "last.ckpt", tmp_path / "sprung"
    checkpoint = {"state_dict": {}, "hyper_parameters": {"loss": Trap(sprung)}}
    torch.save(checkpoint, trap)
    torch.load(trap, weights_only=False)
    sprung.rmdir()  # so the trap works where code is run
    if raw:
        trap.write_bytes(pickle.dumps(checkpoint, protocol=2))
    for load in (ui.load_system, ui.SafeCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match="possibly code"):
            load(trap)
    pairs = tmp_path / "pairs"
    for words in (
        ("predict", "-c", trap, pairs, "-o", tmp_path / "out"),
        ("train", "--resume", finished),
        ("train", "-d", pairs, "-o", tmp_path / "new", *SMALL, "--weights", trap),
    ):
        message = refused(*words)
        assert str(trap) in message and "possibly code" in message
    assert not sprung.exists()
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


def test_damaged_and_foreign_files_are_no_checkpoints(
    finished: Path, tmp_path: Path
) -> None:
    whole, rng = (finished / "best.ckpt").read_bytes(), random.Random(0)
    foreign = [
        *(whole[:n] for n in (0, 1, 2, 4, 30, 1000, len(whole) // 2, len(whole) - 1)),
        *(b"hello, I am a text", b"state_dict", b"GIF89a", b"a\n", b'{"a": 1}'),
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"\x80\x02"),
        *(rng.randbytes(rng.randrange(40)) for _ in range(300)),
    ]
    path = tmp_path / "other.ckpt"
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.ckpt: .*not a checkpoint"):
            ui.load_system(path)
    for _ in range(100):  # a flipped byte is refused, or harmless
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            ui.load_system(path)
        except ValueError as error:
            assert "other.ckpt" in str(error)


def other_models(own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Checkpoints that are sound but not of this module's network."""
    state, hyper = own["state_dict"], own["hyper_parameters"]
    foreign = torchvision.models.squeezenet1_1(weights=None).state_dict()
    first = next(iter(state))
    yield "a state dict", foreign
    yield "a list", [1, 2]
    yield "other weights", own | {"state_dict": foreign}
    yield "other settings", own | {"hyper_parameters": {"in_channels": 3}}
    yield "no settings", {"state_dict": state}
    yield "settings that are none", own | {"hyper_parameters": [3]}
    yield "weights that are none", own | {"state_dict": 7}
    for number in (32, -1):
        sized = own | {"hyper_parameters": hyper | {"max_features": number}}
        yield f"a size of {number}", sized
    yield "a key less", own | {"state_dict": {k: state[k] for k in state if k != first}}
    yield "a key more", own | {"state_dict": state | {"network.extra": state[first]}}


def test_other_models_are_refused(
    finished: Path, tmp_path: Path, refused: Refused
) -> None:
    own, best = (read(finished / name) for name in ("last.ckpt", "best.ckpt"))
    last = finished / "last.ckpt"
    for what, checkpoint in other_models(best):
        path = tmp_path / f"{what}.ckpt"
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            ui.load_system(path)
        words = ("predict", "-c", path, tmp_path / "pairs", "-o", tmp_path / "out")
        assert str(path) in refused(*words)
    no_run = {
        "best": best,
        "bare": {key: own[key] for key in ("state_dict", "hyper_parameters")},
        "no loops": {key: own[key] for key in own if key != "loops"},
        "another rate": own
        | {"hyper_parameters": own["hyper_parameters"] | {"learning_rate": 1.0}},
    }
    for checkpoint in (*dict(other_models(own)).values(), *no_run.values()):
        torch.save(checkpoint, last)
        assert str(last) in refused("train", "--resume", finished)


def test_runs_of_version_0_1_go_on(
    make_pairs: MakePairs, tmp_path: Path, interrupt: Interrupt
) -> None:
    """They lack settings, and what a system knows of classes."""
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "runs", 1)
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = read(folder / name)
        for key in ("class_names", "class_values", "num_out_channels", "network"):
            del checkpoint["hyper_parameters"][key]
        torch.save(checkpoint, folder / name)
    settings = json.loads((folder / "settings.json").read_text())
    for key in ("classes", "missing", "cache"):
        del settings[key]
    (folder / "settings.json").write_text(json.dumps(settings))
    picture = next(pairs.glob("*_input.png"))
    words = ("predict", "-c", folder / "best.ckpt", picture, "-o", tmp_path / "out")
    assert run(*words) == 0
    assert run("train", "--resume", folder) == 0
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=3))


def test_a_seed_fixes_a_run(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(6)
    one, same, other = (
        train(pairs, tmp_path / name, "--seed", seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert same_run(one, same)
    assert contents(one / "epochs") == contents(same / "epochs")
    assert not same_run(one, other)


# ---- killed


def train_and_die(words: list[str], moves: int, before: bool) -> None:
    """Run a command that is killed at a move of a file into place.

    moves: how many such moves it lives to see; before: killed before the last of them.
    """
    move, count = Path.replace, itertools.count(1)

    def replace(self: Path, target: Path) -> Path:
        is_last = next(count) == moves
        if is_last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        moved = move(self, target)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = replace
    main(words)


def test_a_run_killed_at_any_file_ends_as_it_would_have(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([ui.__name__])
    pairs, runs = make_pairs(6), tmp_path / "runs"
    codes = []
    # By turns killed before the move and after it, then never.
    for moves in (1, 2, 3, 4, 5, 6, 999):
        words = ["train", "-d", str(pairs), "-o", str(runs), *SMALL]
        words += ["--max-epochs", "6"]
        for settings in runs.glob("*/settings.json"):  # go on, if it got as far
            words = ["train", "--resume", str(settings.parent)]
        given = words, moves, moves % 2 == 1
        process = context.Process(target=train_and_die, args=given)
        process.start()
        process.join(PATIENCE)
        codes.append(process.exitcode)
        for folder in runs.glob("*"):
            check_whole(folder)
    assert codes == [-signal.SIGKILL] * 6 + [0]
    [folder] = (path.parent for path in runs.glob("*/settings.json"))
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=6))


# ---- interrupted and resumed


@pytest.mark.parametrize("done", [0, 1])
def test_ctrl_c_says_how_to_go_on(
    done: int,
    make_pairs: MakePairs,
    tmp_path: Path,
    interrupt: Interrupt,
    capsys: Capture,
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "my runs", done)
    assert f"train --resume '{folder}'" in capsys.readouterr().out
    check_whole(folder)
    assert (folder / "last.ckpt").exists() == (done > 0)
    # A checkpoint of the run stands for it, also one that is not there yet.
    assert run("train", "--resume", folder / "last.ckpt") == 0
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=3))


def test_ctrl_c_while_the_folder_is_examined(
    make_pairs: MakePairs, tmp_path: Path, monkeypatch: Patch
) -> None:
    def press(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ui, "check_pairs", press)
    try:
        code = run("train", "-d", make_pairs(2), "-o", tmp_path / "runs")
    except KeyboardInterrupt:  # pytest itself would end with it
        code = -1
    assert code == 130


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("--overfit-num", 6), ()),
        (("--num-workers", 1), ()),
        (("--weights",), ()),
        ((*NO_RATE, "--patience", 3), ()),
        (("--classes", 0, 255), ()),
        (("--no-augment",), ("--num-workers", 1, "--no-cache")),
    ],
)
def test_a_resumed_run_ends_as_it_would_have(
    words: tuple[Any, ...],
    changes: tuple[Any, ...],
    make_pairs: MakePairs,
    tmp_path: Path,
    interrupt: Interrupt,
) -> None:
    pairs = make_pairs(6)
    if words == ("--weights",):
        learnt = train(pairs, tmp_path / "learnt", epochs=1)
        words = ("--weights", learnt / "best.ckpt")
    whole = train(pairs, tmp_path / "whole", *words, epochs=6)
    folder = interrupt(pairs, tmp_path / "runs", 2, *words, epochs=6)
    assert run("train", "--resume", folder, *changes) == 0
    assert same_run(folder, whole)


@pytest.mark.parametrize("words", [(), (*NO_RATE, "--patience", 1)])
def test_resuming_a_finished_run_says_its_result_again(
    words: tuple[str, ...], make_pairs: MakePairs, tmp_path: Path, capsys: Capture
) -> None:
    folder = train(make_pairs(4), tmp_path / "runs", *words, epochs=4)
    said = capsys.readouterr().out
    before = contents(folder)
    assert run("train", "--resume", folder) == 0
    assert capsys.readouterr().out == said
    after = contents(folder)
    assert after.keys() == before.keys()
    assert after["log.csv"] == before["log.csv"]
    assert after["best.ckpt"] == before["best.ckpt"]


def test_what_cannot_be_resumed_is_refused(
    make_pairs: MakePairs, tmp_path: Path, interrupt: Interrupt, refused: Refused
) -> None:
    folder = interrupt(make_pairs(4), tmp_path / "runs", 1)
    before = contents(folder)
    for words in (
        *(("-b", 4), ("-lr", 1), ("--seed", 1), ("-d", "other"), ("--no-augment",)),
        ("--classes", 0, 255),
    ):
        message = refused("train", "--resume", folder, *words)
        assert "the run's own settings" in message and "--weights" in message
    for name in ("nowhere", "pairs"):
        message = refused("train", "--resume", tmp_path / name)
        assert str(tmp_path / name / "settings.json") in message
    path = folder / "settings.json"
    settings = json.loads(path.read_text())
    # A OneCycle schedule is not stretched, nor cut by other devices or batches.
    for change in ({"max_epochs": 9}, {"batch_size": 1}, {"overfit_num": 8}):
        path.write_text(json.dumps(settings | change))
        message = refused("train", "--resume", folder)
        assert re.search("3 steps, the Trainer for [^3].*devices", message)
    for text in (
        *("", "{", "[]", "null", "3", "\0\1", "{}", '{"batch_size": "4"}'),
        *('{"image_size": 32}', '{"image_size": ["a"]}', '{"dataset": 3}'),
        *('{"fast": "no"}', '{"foreground": [3]}', '{"max_epochs": 2.5}'),
    ):
        path.write_text(text)
        assert f"{path}: missing or damaged" in refused("train", "--resume", folder)
    path.write_text(json.dumps(settings | {"bach_size": 4}))
    message = refused("train", "--resume", folder)
    assert f"{path}: missing or damaged" in message and "'bach_size'" in message
    path.write_bytes(before["settings.json"])
    assert contents(folder) == before


# ---- disk full, no number


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("PytorchStreamWriter failed writing file data/3"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_a_full_disk_costs_no_checkpoint(
    error: Exception,
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
    interrupt: Interrupt,
    monkeypatch: Patch,
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "runs", 1)
    before, save = contents(folder), torch.save

    def half(checkpoint: Any, path: Path, *rest: Any) -> None:
        save(checkpoint, path, *rest)
        os.truncate(path, os.path.getsize(path) // 2)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        message = refused("train", "--resume", folder)
    assert re.search(r"(best|last)\.ckpt", message) and "disk full" in message
    after = contents(folder)
    assert after["last.ckpt"] == before["last.ckpt"]
    assert after["best.ckpt"] == before["best.ckpt"]
    assert not [name for name in after if name.endswith(".part")]
    assert run("train", "--resume", folder) == 0
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=3))


def test_where_a_checkpoint_goes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "last.ckpt", tmp_path / "file" / "a" / "b.ckpt"):
        with pytest.raises(OSError, match=rf"^{re.escape(str(path))}: could not be"):
            ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)
    path = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}


@pytest.mark.parametrize("part", ["training_step", "validation_step"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was(
    part: str,
    epoch: int,
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: Patch,
) -> None:
    loss = ui.UISegmentationSystem.loss

    def broken(self: ui.UISegmentationSystem, *arguments: Any) -> torch.Tensor:
        fits = self._trainer is not None  # its weights are tried when it is made
        now = fits and self.trainer.current_epoch == epoch
        now = now and self.training == (part[0] == "t")
        return loss(self, *arguments) * (np.nan if now else 1)

    monkeypatch.setattr(ui.UISegmentationSystem, "loss", broken)
    options = ("-d", make_pairs(4), "-o", tmp_path / "runs", *SMALL)
    message = refused("train", *options, "--max-epochs", 4)
    assert f"nan in epoch {epoch + 1}" in message and "learning rate" in message
    folder = tmp_path / "runs" / "001"
    check_whole(folder)
    if epoch == 0:
        assert names(folder) == ["epochs", "settings.json"]
        return
    last = read(folder / "last.ckpt")
    assert last["epoch"] == 1 and len(rows_of(folder)) == 2
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- two processes

distributed = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch was built without it"
)


PIPED = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def start_two(*words: Any) -> subprocess.Popen:
    """Train with two processes, in a session of their own."""
    command = [sys.executable, MODULE, "train", *words, "--devices", 2]
    command += ["--strategy", "ddp"]
    return subprocess.Popen(list(map(str, command)), start_new_session=True, **PIPED)


def end_of(process: subprocess.Popen) -> tuple[str, str]:
    """Wait for a process and all that it started; gives what they printed.

    A process left behind keeps the pipes open: TimeoutExpired, and all are ended.
    """
    try:
        return process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@distributed
def test_two_processes_learn_as_well_as_one(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs, runs = make_pairs(10), tmp_path / "two"
    options = ("-d", pairs, *TINY, "--max-epochs", 20, "-lr", 0.1, "--no-augment")
    process = start_two(*options, "-b", 2, "-o", runs)
    out, err = end_of(process)
    assert process.returncode == 0, err
    assert out.count("best val_iou") == 1
    assert names(runs) == ["001"]
    check_whole(runs / "001")
    assert run("train", *options, "-b", 4, "-o", tmp_path / "one") == 0
    logs = [rows_of(tmp_path / name / "001") for name in ("one", "two")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for log in logs:
        scores = [float(row["val_iou"]) for row in log]
        assert scores[0] < 0.5 and max(scores) > 0.8


@distributed
@pytest.mark.parametrize(
    ("started", "number", "code"),
    [  # while the second is still importing, and in the midst of training
        ("001/settings.json", signal.SIGINT, 130),
        ("001/epochs/*.png", signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_a_signal_to_the_first_ends_both(
    started: str, number: int, code: int, make_pairs: MakePairs, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    options = ("-d", make_pairs(8), "-o", runs, *TINY, "--max-epochs", 100_000)
    process = start_two(*options, "-b", 1)
    while process.poll() is None and not [*runs.glob(started)]:
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = end_of(process)
    assert process.returncode == code
    assert names(runs) == ["001"]
    resume = f"train --resume {runs / '001'}"
    assert out.count(resume) == (number == signal.SIGINT)


@distributed
def test_a_signal_to_the_second_ends_both(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    options = ("-d", make_pairs(8), "-o", runs, *TINY, "--max-epochs", 100_000)
    process = start_two(*options, "-b", 1)
    while process.poll() is None and not [*runs.glob("001/epochs/*.png")]:
        time.sleep(0.01)
    listed = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], **PIPED)
    [second] = listed.stdout.split()
    os.kill(int(second), signal.SIGTERM)
    out, _ = end_of(process)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert f"train --resume {runs / '001'}" in out
