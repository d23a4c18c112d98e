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
from conftest import MakePairs, Refused
from PIL import Image

import ui_segmentation_system as ui

MODULE = Path(ui.__file__)
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "-b", "2")
COLUMNS = {"epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"}
# A rate that moves no float32 weight.
NO_RATE = ("-lr", "1e-30")
# The longest wait, in seconds, for a process that hangs; passing runs never reach it.
PATIENCE = 120

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


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


def same_weights(first: Path, second: Path) -> bool:
    one, other = (read(path / "last.ckpt")["state_dict"] for path in (first, second))
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) for name in one
    )


def log_of(folder: Path) -> str:
    return (folder / "log.csv").read_text()


def same_run(first: Path, second: Path) -> bool:
    return same_weights(first, second) and log_of(first) == log_of(second)


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
        rows = list(csv.DictReader(log_of(folder).splitlines()))
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
def interrupt(monkeypatch: Patch) -> Callable[..., Path]:
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


# Checkpoints


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def save_trap(path: Path, folder: Path, raw: bool = False) -> None:
    """Write a checkpoint that carries code; raw: as a bare pickle."""
    checkpoint = {"state_dict": {}, "hyper_parameters": {"loss": Trap(folder)}}
    if raw:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)


def test_checkpoints_hold_plain_values(finished: Path) -> None:
    assert {"epoch", "optimizer_states", "callbacks"} <= read(
        finished / "last.ckpt"
    ).keys()
    assert read(finished / "best.ckpt")["hyper_parameters"]["max_features"] == 16


def test_the_trap_snaps_where_code_is_run(tmp_path: Path) -> None:
    save_trap(tmp_path / "trap.ckpt", tmp_path / "sprung")
    torch.load(tmp_path / "trap.ckpt", weights_only=False)
    assert (tmp_path / "sprung").is_dir()


@pytest.mark.parametrize("raw", [False, True])
def test_code_in_a_checkpoint_is_not_run(
    raw: bool, finished: Path, tmp_path: Path, refused: Refused
) -> None:
    trap, sprung = finished / "last.ckpt", tmp_path / "sprung"
    save_trap(trap, sprung, raw)
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


def test_a_checkpoint_cut_anywhere_is_refused(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "best.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    for length in (0, 1, 2, 4, 30, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.ckpt: damaged, cut short"):
            ui.load_system(path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"hello, I am a text", b"state_dict", b"GIF89a", b"a\n", b'{"a": 1}'),
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"\x80\x02"),
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.ckpt: .*no checkpoint; expected"):
        ui.load_system(path)


def test_no_bytes_make_loading_fail_otherwise(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "noise.ckpt"
    for _ in range(300):
        path.write_bytes(rng.randbytes(rng.randrange(40)))
        with pytest.raises(ValueError, match=r"noise\.ckpt"):
            ui.load_system(path)


def test_a_flipped_byte_is_refused_or_harmless(finished: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    whole = (finished / "best.ckpt").read_bytes()
    path = tmp_path / "flipped.ckpt"
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            ui.load_system(path)
        except ValueError as error:
            assert "flipped.ckpt" in str(error)


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
    yield "another size", own | {"hyper_parameters": hyper | {"max_features": 32}}
    yield (
        "a size that is none",
        own | {"hyper_parameters": hyper | {"max_features": -1}},
    )
    yield "a key less", own | {"state_dict": {k: state[k] for k in state if k != first}}
    yield "a key more", own | {"state_dict": state | {"extra": state[first]}}


def test_checkpoints_of_other_models_are_refused(
    finished: Path, tmp_path: Path, refused: Refused
) -> None:
    for what, checkpoint in other_models(read(finished / "best.ckpt")):
        path = tmp_path / f"{what}.ckpt"
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            ui.load_system(path)
        words = ("predict", "-c", path, tmp_path / "pairs", "-o", tmp_path / "out")
        assert str(path) in refused(*words)


def test_a_run_does_not_go_on_from_another_checkpoint(
    finished: Path, refused: Refused
) -> None:
    last = finished / "last.ckpt"
    own = read(last)
    rest = {
        "the best": read(finished / "best.ckpt"),
        "bare": {key: own[key] for key in ("state_dict", "hyper_parameters")},
        "no loops": {key: own[key] for key in own if key != "loops"},
    }
    for checkpoint in (*dict(other_models(own)).values(), *rest.values()):
        torch.save(checkpoint, last)
        assert str(last) in refused("train", "--resume", finished)


# One seed, one result


def test_a_seed_fixes_a_run(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(6)
    seeds = {"a": 3, "b": 3, "c": 4}
    runs = [train(pairs, tmp_path / name, "--seed", seeds[name]) for name in seeds]
    assert same_run(runs[0], runs[1])
    assert contents(runs[0] / "epochs") == contents(runs[1] / "epochs")
    assert not same_weights(runs[0], runs[2])


# Killed


def train_and_die(words: list[str], moves: int, before: bool) -> None:
    """Run a command that is killed at a move of a file into place.

    moves: how many such moves it lives to see; before: killed before the last of them.
    """
    move = Path.replace
    count = itertools.count(1)

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


@pytest.fixture(scope="module")
def processes() -> Any:
    """Give processes that have the module imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([ui.__name__])
    return context


def next_words(runs: Path, pairs: Path, epochs: int) -> list[str]:
    """Go on with the run, or start one if none got as far as its settings."""
    started = sorted(path.parent for path in runs.glob("*/settings.json"))
    if started:
        return ["train", "--resume", str(started[-1])]
    options = ("-d", str(pairs), "-o", str(runs), *SMALL)
    return ["train", *options, "--max-epochs", str(epochs)]


def finish(context: Any, words: list[str]) -> None:
    process = context.Process(target=main, args=(words,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0


def check_killed(runs: Path) -> None:
    for folder in runs.glob("*"):
        check_whole(folder)


def only_run(runs: Path) -> Path:
    [folder] = (path.parent for path in runs.glob("*/settings.json"))
    return folder


def test_a_run_killed_at_any_file_ends_as_it_would_have(
    make_pairs: MakePairs, tmp_path: Path, processes: Any
) -> None:
    pairs, runs = make_pairs(6), tmp_path / "runs"
    runs.mkdir()
    codes = []
    for moves, before in itertools.product(range(1, 8), (True, False)):
        words = next_words(runs, pairs, epochs=8)
        process = processes.Process(target=train_and_die, args=(words, moves, before))
        process.start()
        process.join(PATIENCE)
        codes.append(process.exitcode)
        check_killed(runs)
    assert codes.count(-signal.SIGKILL) >= 10 and set(codes) <= {-signal.SIGKILL, 0}
    finish(processes, next_words(runs, pairs, epochs=8))
    assert same_run(only_run(runs), train(pairs, tmp_path / "whole", epochs=8))


def count_files(runs: Path) -> int:
    """Count whole files; those beside, which come and go, are hidden."""
    return sum(not path.name.startswith(".") for path in runs.rglob("*.*"))


def kill_after(process: Any, runs: Path, first_files: int, seconds: float) -> None:
    """Kill a process some moments after it wrote so many files, if it still runs."""
    before = count_files(runs)
    while process.is_alive() and count_files(runs) < before + first_files:
        time.sleep(0.005)
    process.join(seconds)
    process.kill()
    process.join()


def test_a_run_killed_ten_times_ends_as_it_would_have(
    make_pairs: MakePairs, tmp_path: Path, processes: Any
) -> None:
    pairs, runs = make_pairs(6), tmp_path / "runs"
    runs.mkdir()
    rng = random.Random(0)
    # Start-up, the first epoch, then anywhere: 1 file is the settings, 2 an epoch.
    for first_files in (0, 0, 1, 1, 2, 1, 1, 2, 1, 0):
        words = next_words(runs, pairs, epochs=24)
        process = processes.Process(target=main, args=(words,))
        process.start()
        kill_after(process, runs, first_files, rng.uniform(0, 0.3))
        check_killed(runs)
    finish(processes, next_words(runs, pairs, epochs=24))
    assert same_run(only_run(runs), train(pairs, tmp_path / "whole", epochs=24))


# Interrupted and resumed


def test_ctrl_c_says_how_to_go_on(
    make_pairs: MakePairs,
    tmp_path: Path,
    interrupt: Callable[..., Path],
    capsys: Capture,
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "my runs", 1)
    printed = capsys.readouterr().out
    assert f"train --resume '{folder}'" in printed
    check_whole(folder)
    assert read(folder / "last.ckpt")["epoch"] == 0
    assert run("train", "--resume", folder) == 0
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=3))


def test_ctrl_c_in_the_first_epoch(
    make_pairs: MakePairs, tmp_path: Path, interrupt: Callable[..., Path]
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "runs", 0)
    assert not (folder / "last.ckpt").exists()
    assert run("train", "--resume", folder) == 0
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
    "words",
    [
        ("--no-augment",),
        ("--overfit-num", 6),
        ("--num-workers", 1),
        ("--weights",),
        (*NO_RATE, "--patience", 3),
    ],
)
def test_a_resumed_run_ends_as_it_would_have(
    words: tuple[Any, ...],
    make_pairs: MakePairs,
    tmp_path: Path,
    interrupt: Callable[..., Path],
) -> None:
    pairs = make_pairs(6)
    if words == ("--weights",):
        learnt = train(pairs, tmp_path / "learnt", epochs=1)
        words = ("--weights", learnt / "best.ckpt")
    whole = train(pairs, tmp_path / "whole", *words, epochs=6)
    folder = interrupt(pairs, tmp_path / "runs", 2, *words, epochs=6)
    assert run("train", "--resume", folder) == 0
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


def test_the_machine_may_change(
    make_pairs: MakePairs, tmp_path: Path, interrupt: Callable[..., Path]
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "runs", 1, "--no-augment")
    assert run("train", "--resume", folder, "--num-workers", 1) == 0
    whole = train(pairs, tmp_path / "whole", "--no-augment", epochs=3)
    assert same_run(folder, whole)


@pytest.mark.parametrize(
    "words", [("-b", 4), ("-lr", 1), ("--seed", 1), ("-d", "other"), ("--no-augment",)]
)
def test_the_settings_of_a_run_may_not_change(
    words: tuple[Any, ...], finished: Path, refused: Refused
) -> None:
    before = contents(finished)
    message = refused("train", "--resume", finished, *words)
    assert "the run's own settings" in message and "--weights" in message
    assert contents(finished) == before


@pytest.mark.parametrize("name", ["nowhere", "pairs"])
def test_only_a_run_can_be_resumed(
    name: str, finished: Path, tmp_path: Path, refused: Refused
) -> None:
    message = refused("train", "--resume", tmp_path / name)
    assert str(tmp_path / name / "settings.json") in message


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", "\0\1", "{}", '{"batch_size": "4"}'),
        *('{"image_size": 32}', '{"image_size": ["a"]}', '{"dataset": 3}'),
    ],
)
def test_damaged_settings_are_refused(
    text: str, finished: Path, refused: Refused
) -> None:
    path = finished / "settings.json"
    path.write_text(text)
    assert str(path) in refused("train", "--resume", finished)


def change_settings(folder: Path, **changes: Any) -> None:
    path = folder / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_unknown_setting_names_the_nearest(finished: Path, refused: Refused) -> None:
    change_settings(finished, bach_size=4)
    message = refused("train", "--resume", finished)
    assert "'bach_size' is unknown; did you mean batch_size?" in message


def test_a_schedule_is_not_stretched(finished: Path, refused: Refused) -> None:
    before = contents(finished)
    change_settings(finished, max_epochs=9)
    message = refused("train", "--resume", finished)
    assert "was to train for 2 steps, the Trainer for 9" in message
    assert contents(finished)["last.ckpt"] == before["last.ckpt"]


# Disk full, no number


def fail_to_save(error: Exception, from_call: int) -> Callable[..., None]:
    """Make a torch.save that writes half a file and raises, from some call on."""
    save, count = torch.save, itertools.count(1)

    def half(checkpoint: Any, path: Path, *rest: Any) -> None:
        save(checkpoint, path, *rest)
        if next(count) >= from_call:
            os.truncate(path, os.path.getsize(path) // 2)
            raise error

    return half


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
    interrupt: Callable[..., Path],
    monkeypatch: Patch,
) -> None:
    pairs = make_pairs(4)
    folder = interrupt(pairs, tmp_path / "runs", 1)
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail_to_save(error, 1))
        message = refused("train", "--resume", folder)
    assert re.search(r"(best|last)\.ckpt", message)
    after = contents(folder)
    assert after["last.ckpt"] == before["last.ckpt"]
    assert after["best.ckpt"] == before["best.ckpt"]
    assert not [name for name in after if name.endswith(".part")]
    assert run("train", "--resume", folder) == 0
    assert same_run(folder, train(pairs, tmp_path / "whole", epochs=3))


def test_a_checkpoint_goes_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "last.ckpt", tmp_path / "file" / "a" / "b.ckpt"):
        with pytest.raises(OSError, match=rf"^{re.escape(str(path))}: could not be"):
            ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)


def test_a_checkpoint_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    ui.SafeCheckpointIO().save_checkpoint({"a": 1}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}


def test_a_loss_that_is_no_number_ends_the_run(
    make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    options = ("-d", make_pairs(4), "-o", tmp_path / "runs", *SMALL)
    message = refused("train", *options, "-lr", "1e30")
    assert "nan in epoch 1" in message and "learning rate" in message
    assert not list(tmp_path.glob("runs/*/*.ckpt"))


@pytest.mark.parametrize("part", ["training_step", "validation_step"])
def test_no_number_in_a_later_epoch_keeps_the_earlier(
    part: str,
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: Patch,
) -> None:
    loss = ui.UISegmentationSystem.loss

    def broken(self: ui.UISegmentationSystem, *arguments: Any) -> torch.Tensor:
        fitting = self._trainer is not None  # weights are tried before
        late = fitting and self.trainer.current_epoch == 2
        late = late and self.training == (part[0] == "t")
        return loss(self, *arguments) * (np.nan if late else 1)

    monkeypatch.setattr(ui.UISegmentationSystem, "loss", broken)
    options = ("-d", make_pairs(4), "-o", tmp_path / "runs", *SMALL)
    message = refused("train", *options, "--max-epochs", 4)
    assert "nan in epoch 3" in message
    folder = tmp_path / "runs" / "001"
    check_whole(folder)
    last = read(folder / "last.ckpt")
    assert last["epoch"] == 1 and len(log_of(folder).splitlines()) == 3
    assert all(value.isfinite().all() for value in last["state_dict"].values())


# Two processes


def run_with_children(*words: Any) -> tuple[int, str, str]:
    """Run a process and all that it starts; gives its code and texts.

    A process left behind keeps the pipes open: TimeoutExpired, and all are ended.
    """
    process = subprocess.Popen(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(log_of(folder).splitlines()))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="built without it")
def test_two_processes_learn_as_well_as_one(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs, runs = make_pairs(10), tmp_path / "two"
    options = ("-d", pairs, *TINY, "--max-epochs", 20, "-lr", 0.02, "--no-augment")
    words = (*options, "-b", 2, "-o", runs, "--devices", 2, "--strategy", "ddp")
    code, out, err = run_with_children(sys.executable, MODULE, "train", *words)
    assert code == 0, err
    assert out.count("best val_iou") == 1
    assert [path.name for path in runs.iterdir()] == ["001"]
    check_whole(runs / "001")
    assert run("train", *options, "-b", 4, "-o", tmp_path / "one") == 0
    logs = [rows_of(tmp_path / name / "001") for name in ("one", "two")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for log in logs:
        scores = [float(row["val_iou"]) for row in log]
        assert scores[0] < 0.5 and max(scores) > 0.8
