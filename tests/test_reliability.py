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
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import ui_segmentation_system as ui
from tests.conftest import MakePairs, Refused, file_bytes

MODULE = Path(ui.__file__)
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "-b", "2")
COLUMNS = {"epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"}
# The least rate that is taken; scores stay as they are.
NO_RATE = ("-lr", "1e-9")
# The longest wait, in seconds, for a process that hangs; passing runs never reach it.
PATIENCE = 120
RUNS, RUN = Path("runs"), Path("runs/001")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Interrupt = Callable[..., None]


def main(words: list[str]) -> int:
    """Run a command on one thread: another number of threads changes the last bits."""
    torch.set_num_threads(1)
    return ui.main(words)


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def train(pairs: Path, *words: Any, epochs: int = 2, runs: Path | str = RUNS) -> Path:
    """Train to the end in a new folder of runs; gives the folder of the run."""
    options = ("-d", pairs, "-o", runs, *SMALL, "--max-epochs", epochs)
    assert run("train", *options, *words) == 0
    return Path(runs, "001")


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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
def place(monkeypatch: Patch, tmp_path: Path) -> Iterator[None]:
    """Work in an empty folder; take back a run's seeds and its deaf Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    listener = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, listener)


@pytest.fixture
def pairs(make_pairs: MakePairs) -> Path:
    return make_pairs(4)


@pytest.fixture
def interrupt(pairs: Path, monkeypatch: Patch) -> Interrupt:
    """Give a function that trains and presses Ctrl-C in the epoch after `done`."""

    def start(done: int, *words: Any, epochs: int = 3, runs: Path | str = RUNS) -> None:
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

    return start


@pytest.fixture
def finished(pairs: Path) -> Path:
    """The folder of a run of two epochs."""
    return train(pairs)


# ---- checkpoints


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("raw", [False, True])
def test_code_in_a_checkpoint_is_not_run(
    raw: bool, pairs: Path, finished: Path, refused: Refused
) -> None:
    trap, sprung = finished / "last.ckpt", Path("sprung")
    checkpoint = {"state_dict": {}, "hyper_parameters": {"loss": Trap()}}
    torch.save(checkpoint, trap)
    torch.load(trap, weights_only=False)
    sprung.rmdir()  # so the trap works where code is run
    if raw:
        trap.write_bytes(pickle.dumps(checkpoint, protocol=2))
    for load in (ui.load_system, ui.SafeCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match="possibly code"):
            load(trap)
    for words in (
        ("predict", "-c", trap, pairs, "-o", "out"),
        ("train", "--resume", finished),
        ("train", "-d", pairs, "-o", "new", *SMALL, "--weights", trap),
    ):
        message = refused(*words)
        assert str(trap) in message and "possibly code" in message
    assert names(Path()) == ["pairs", "runs"]


def test_damaged_and_foreign_files_are_no_checkpoints(finished: Path) -> None:
    whole, rng = (finished / "best.ckpt").read_bytes(), random.Random(0)
    foreign = [
        *(whole[:n] for n in (0, 1, 2, 4, 30, 1000, len(whole) // 2, len(whole) - 1)),
        *(b"hello, I am a text", b"state_dict", b"GIF89a", b"a\n", b'{"a": 1}'),
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"\x80\x02"),
        *(rng.randbytes(rng.randrange(40)) for _ in range(300)),
    ]
    path = Path("other.ckpt")
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
    yield from {"a state dict": foreign, "a list": [1, 2]}.items()
    yield "no settings", {"state_dict": state}
    for name, changed in {
        "other weights": {"state_dict": foreign},
        "other settings": {"hyper_parameters": {"in_channels": 3}},
        "settings that are none": {"hyper_parameters": [3]},
        "weights that are none": {"state_dict": 7},
        "a size of 32": {"hyper_parameters": hyper | {"max_features": 32}},
        "a size of -1": {"hyper_parameters": hyper | {"max_features": -1}},
        "a key less": {"state_dict": {k: state[k] for k in state if k != first}},
        "a key more": {"state_dict": state | {"network.extra": state[first]}},
    }.items():
        yield name, own | changed


def test_other_models_are_refused(finished: Path, refused: Refused) -> None:
    own, best = (read(finished / name) for name in ("last.ckpt", "best.ckpt"))
    last = finished / "last.ckpt"
    for what, checkpoint in other_models(best):
        path = Path(f"{what}.ckpt")
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            ui.load_system(path)
        assert str(path) in refused("predict", "-c", path, "pairs", "-o", "out")
    rate = {"hyper_parameters": own["hyper_parameters"] | {"learning_rate": 1.0}}
    bare = {key: own[key] for key in ("state_dict", "hyper_parameters")}
    no_loops = {key: own[key] for key in own if key != "loops"}
    no_run = (best, bare, no_loops, own | rate)
    for checkpoint in (*dict(other_models(own)).values(), *no_run):
        torch.save(checkpoint, last)
        assert str(last) in refused("train", "--resume", finished)


def test_runs_of_version_0_1_go_on(pairs: Path, interrupt: Interrupt) -> None:
    """They lack settings, and what a system knows of classes."""
    interrupt(1)
    for path in RUN.glob("*.ckpt"):
        checkpoint = read(path)
        for key in ("class_names", "class_values", "num_out_channels", "network"):
            del checkpoint["hyper_parameters"][key]
        torch.save(checkpoint, path)
    settings = json.loads((RUN / "settings.json").read_text())
    for key in ("classes", "missing", "cache"):
        del settings[key]
    (RUN / "settings.json").write_text(json.dumps(settings))
    words = ("-c", RUN / "best.ckpt", pairs / "1_input.png", "-o", "out")
    assert run("predict", *words) == 0
    assert run("train", "--resume", RUN) == 0
    assert same_run(RUN, train(pairs, epochs=3, runs="whole"))


def test_a_seed_fixes_a_run(make_pairs: MakePairs) -> None:
    pairs = make_pairs(6)
    one, same = (train(pairs, "--seed", 3, runs=name) for name in ("a", "b"))
    assert same_run(one, same)
    assert file_bytes(one / "epochs") == file_bytes(same / "epochs")
    assert not same_run(one, train(pairs, "--seed", 4))


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


def test_a_run_killed_at_any_file_ends_as_it_would_have(make_pairs: MakePairs) -> None:
    context = multiprocessing.get_context("forkserver")
    pairs, runs, codes = make_pairs(6), RUNS.absolute(), []
    words = ["train", "-d", str(pairs), "-o", str(runs), *SMALL, "--max-epochs", "6"]
    # By turns killed before the move and after it, then never.
    for moves in (1, 2, 3, 4, 5, 6, 999):
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
    [settings] = runs.glob("*/settings.json")
    assert same_run(settings.parent, train(pairs, epochs=6, runs="whole"))


# ---- interrupted and resumed


@pytest.mark.parametrize("done", [0, 1])
def test_ctrl_c_says_how_to_go_on(
    done: int, pairs: Path, interrupt: Interrupt, capsys: Capture
) -> None:
    interrupt(done, runs="my runs")
    folder = Path("my runs/001")
    assert f"train --resume '{folder}'" in capsys.readouterr().out
    check_whole(folder)
    assert (folder / "last.ckpt").exists() == (done > 0)
    # A checkpoint of the run stands for it, also one that is not there yet.
    assert run("train", "--resume", folder / "last.ckpt") == 0
    assert same_run(folder, train(pairs, epochs=3))


def test_ctrl_c_while_the_folder_is_examined(monkeypatch: Patch) -> None:
    press = Mock(side_effect=lambda *_, **__: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(ui, "check_pairs", press)
    try:
        code = run("train", "-d", "pairs")
    except KeyboardInterrupt:  # pytest itself would end with it
        code = -1
    assert code == 130


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("--overfit-num", 6), ()),
        (("--num-workers", 1), ()),
        (("--weights",), ()),
        (("--optimizer", "adam", "--loss", "bce"), ()),
        ((*NO_RATE, "--patience", 3), ()),
        (("--classes", 0, 255), ()),
        (("--no-augment",), ("--num-workers", 1, "--no-cache")),
    ],
)
def test_a_resumed_run_ends_as_it_would_have(
    words: tuple, changes: tuple, pairs: Path, interrupt: Interrupt
) -> None:
    if words == ("--weights",):
        words = ("--weights", train(pairs, epochs=1, runs="learnt") / "best.ckpt")
    whole = train(pairs, *words, epochs=6, runs="whole")
    interrupt(2, *words, epochs=6)
    if "--weights" in words:  # the run's own are all that is needed
        words[1].unlink()
    assert run("train", "--resume", RUN, *changes) == 0
    assert same_run(RUN, whole)


def test_a_run_goes_on_where_its_pictures_have_moved(
    pairs: Path, interrupt: Interrupt, refused: Refused
) -> None:
    lines = [f"{path.name},{path.name}\n" for path in pairs.glob("*_input.png")]
    table = pairs / "scenes.csv"
    table.write_text("".join(["image,scene\n", *lines]))
    whole = train(pairs, "--scenes", table, epochs=2, runs="whole")
    interrupt(1, "--scenes", table, epochs=2)
    moved = pairs.rename(pairs.with_name("moved"))
    command = "train", "--resume", RUN, "-d", moved
    assert f"{table}: there is no such table of scenes" in refused(*command)
    assert run(*command, "--scenes", moved / table.name) == 0
    assert same_run(RUN, whole)


def test_a_run_does_not_go_on_with_other_pictures(
    pairs: Path, interrupt: Interrupt, refused: Refused
) -> None:
    interrupt(1)
    before = file_bytes(RUN)
    for path in pairs.iterdir():
        path.rename(path.with_name(f"0{path.name}"))
    message = refused("train", "--resume", RUN)
    assert re.search(r"pairs: validates on other images .*, 0\d_.*same names", message)
    assert file_bytes(RUN) == before


@pytest.mark.parametrize("words", [(), (*NO_RATE, "--patience", 1)])
def test_resuming_a_finished_run_says_its_result_again(
    words: tuple[Any, ...], pairs: Path, capsys: Capture
) -> None:
    train(pairs, *words, epochs=4)
    said = capsys.readouterr().out
    before = file_bytes(RUN)
    assert run("train", "--resume", RUN) == 0
    assert capsys.readouterr().out == said
    after = file_bytes(RUN)
    assert after.keys() == before.keys()
    for name in ("log.csv", "best.ckpt"):
        assert after[name] == before[name]


def test_what_cannot_be_resumed_is_refused(
    interrupt: Interrupt, refused: Refused
) -> None:
    interrupt(1)
    before = file_bytes(RUN)
    for words in (
        *(("-b", 4), ("-lr", 1), ("--seed", 1), ("--no-augment",)),
        ("--classes", 0, 255),
    ):
        message = refused("train", "--resume", RUN, *words)
        assert "the run's own settings" in message and "--weights" in message
    message = refused("train", "--resume", RUN, "-d", "other")
    assert "other: there is no such folder" in message and file_bytes(RUN) == before
    for name in ("nowhere", "pairs"):
        assert f"{name}/settings.json" in refused("train", "--resume", name)
    path = RUN / "settings.json"
    settings = json.loads(path.read_text())
    # A OneCycle schedule is not stretched, nor cut by other devices or batches.
    steps = "3 steps, the Trainer for [^3].*devices"
    for change, told in (
        ({"max_epochs": 9}, steps),
        ({"batch_size": 1}, steps),
        ({"overfit_num": 8}, "validates on other images"),
    ):
        path.write_text(json.dumps(settings | change))
        assert re.search(told, refused("train", "--resume", RUN))
    for text in (
        *("", "{", "[]", "null", "3", "\0\1", "{}", '{"batch_size": "4"}'),
        *('{"image_size": 32}', '{"image_size": ["a"]}', '{"dataset": 3}'),
        *('{"fast": "no"}', '{"foreground": [3]}', '{"max_epochs": 2.5}'),
        json.dumps(settings | {"bach_size": 4}),
    ):
        path.write_text(text)
        message = refused("train", "--resume", RUN)
        assert f"{path}: missing, damaged or of ano" in message
    assert "'bach_size'" in message
    path.write_bytes(before["settings.json"])
    assert file_bytes(RUN) == before


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
    pairs: Path,
    refused: Refused,
    interrupt: Interrupt,
    monkeypatch: Patch,
) -> None:
    interrupt(1)
    before, save = file_bytes(RUN), torch.save

    def half(checkpoint: Any, path: Path, *rest: Any) -> None:
        save(checkpoint, path, *rest)
        os.truncate(path, os.path.getsize(path) // 2)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        message = refused("train", "--resume", RUN)
    assert re.search(r"(best|last)\.ckpt", message) and "disk full" in message
    after = file_bytes(RUN)
    for name in ("last.ckpt", "best.ckpt"):
        assert after[name] == before[name]
    assert not [name for name in after if name.endswith(".part")]
    assert run("train", "--resume", RUN) == 0
    assert same_run(RUN, train(pairs, epochs=3, runs="whole"))


def test_where_a_checkpoint_goes() -> None:
    Path("file").touch()
    for path in (Path("file/last.ckpt"), Path("file/a/b.ckpt")):
        with pytest.raises(OSError, match=rf"^{re.escape(str(path))}: could not be"):
            ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)
    path = Path("version_0/checkpoints/last.ckpt")
    ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)
    assert read(path) == {"a": 1}


@pytest.mark.parametrize("part", ["training_step", "validation_step"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was(
    part: str, epoch: int, pairs: Path, refused: Refused, monkeypatch: Patch
) -> None:
    loss = ui.UISegmentationSystem.loss

    def broken(self: ui.UISegmentationSystem, *arguments: Any) -> torch.Tensor:
        fits = self._trainer is not None  # its weights are tried when it is made
        now = fits and self.trainer.current_epoch == epoch
        now = now and self.training == (part[0] == "t")
        return loss(self, *arguments) * (np.nan if now else 1)

    monkeypatch.setattr(ui.UISegmentationSystem, "loss", broken)
    message = refused("train", "-d", pairs, "-o", RUNS, *SMALL, "--max-epochs", 4)
    assert f"nan in epoch {epoch + 1}" in message and "learning rate" in message
    check_whole(RUN)
    if epoch == 0:
        assert names(RUN) == ["epochs", "settings.json"]
        return
    last = read(RUN / "last.ckpt")
    assert last["epoch"] == 1 and len(rows_of(RUN)) == 2
    assert all(value.isfinite().all() for value in last["state_dict"].values())


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
def test_two_processes_learn_as_well_as_one(make_pairs: MakePairs) -> None:
    options = ("-d", make_pairs(10), *TINY, "--max-epochs", 20, "-lr", 0.1)
    options += ("--no-augment",)
    process = start_two(*options, "-b", 2, "-o", RUNS)
    out, err = end_of(process)
    assert process.returncode == 0, err
    assert out.count("best val_iou") == 1
    assert names(RUNS) == ["001"]
    check_whole(RUN)
    assert run("train", *options, "-b", 4, "-o", "one") == 0
    logs = [rows_of(folder) for folder in (RUN, Path("one/001"))]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for log in logs:
        scores = [float(row["val_iou"]) for row in log]
        assert scores[0] < 0.5 and max(scores) > 0.8


@distributed
@pytest.mark.parametrize(
    ("started", "number", "to_second", "codes"),
    [  # while the second is still importing, and in the midst of training
        ("settings.json", signal.SIGINT, False, [130]),
        ("epochs/*.png", signal.SIGTERM, False, [-signal.SIGTERM]),
        ("epochs/*.png", signal.SIGTERM, True, [128 + signal.SIGTERM, -signal.SIGTERM]),
    ],
)
def test_a_signal_to_one_ends_both(
    started: str, number: int, to_second: bool, codes: list[int], make_pairs: MakePairs
) -> None:
    options = ("-d", make_pairs(8), "-o", RUNS, *TINY, "--max-epochs", 100_000)
    process = start_two(*options, "-b", 1)
    while process.poll() is None and not [*RUN.glob(started)]:
        time.sleep(0.01)
    hit = process.pid
    if to_second:
        listed = subprocess.run(["ps", "--ppid", str(hit), "-o", "pid="], **PIPED)
        [hit] = map(int, listed.stdout.split())
    os.kill(hit, number)
    out, _ = end_of(process)
    assert process.returncode in codes
    assert names(RUNS) == ["001"]
    told = to_second or number == signal.SIGINT
    assert out.count(f"train --resume {RUN}") == told
