"""The loaders: torch's batches, in order, ahead of the loop, and no process left."""

import gc
import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Timer
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ChainDataset, DataLoader, get_worker_info

import ui_segmentation_system as ui

# The longest wait, in seconds, for a loop that hangs; passing tests never reach it.
PATIENCE = 120
Patch = pytest.MonkeyPatch
# What a test changes in the module reaches a worker by fork only.
prefetch = partial(ui.PrefetchDataLoader, multiprocessing_context="fork")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """End a test that hangs; refuse one that leaves a process behind."""

    def give_up(*_: Any) -> NoReturn:
        pytest.fail(f"still waiting after {PATIENCE} s")

    # A shell's background makes programs deaf to Ctrl+C.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarmed = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, alarmed)
    signal.signal(signal.SIGINT, interrupted)
    left = multiprocessing.active_children()
    for child in left:
        child.kill()
    assert not left


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE / 2
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@dataclass
class Made:
    """What a function makes of a number, noted in a log; one waits until a gate is."""

    make: Callable[[int], Any]
    length: int = 6
    folder: Path | None = None
    gated: int | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if self.folder:
            with open(self.folder / "log", "a") as file:
                file.write(f"{index}\n")
        if index == self.gated:
            wait_until((self.folder / "gate").exists)
        return self.make(index)

    def asked(self) -> list[int]:
        log = self.folder / "log"
        return [*map(int, log.read_text().split())] if log.exists() else []


def draw(index: int) -> ui.Sample:
    """A sample of random numbers of each kind."""
    drawn = [index, random.random(), np.random.rand()]
    target = torch.tensor(drawn, dtype=torch.float64)
    return ui.Sample(torch.rand(1, 2, 2) + index, target)


def two_epochs(kind: Any, dataset: Any, *options: str, **settings: Any) -> list[Any]:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    settings |= dict.fromkeys(options, True)
    if "generator" in options:
        settings["generator"] = torch.Generator().manual_seed(3)
    loader = kind(dataset, **settings)
    batches = [*loader, *loader]
    assert len(batches) == 2 * len(loader)
    return batches


def check_equal(first: list[ui.Sample], second: list[ui.Sample]) -> None:
    for batch, twin in zip(first, second, strict=True):
        assert type(batch) is type(twin) is ui.Sample
        assert all(map(torch.equal, batch, twin))


@pytest.mark.parametrize("workers", [None, 0, 1, 3])
@pytest.mark.parametrize("options", ["", "shuffle", "drop_last", "shuffle generator"])
@pytest.mark.parametrize("sizes", [(12, 4), (13, 5)])
def test_batches_are_those_of_torch(sizes: Any, options: str, workers: Any) -> None:
    own, torchs = ui.NaiveDataLoader, DataLoader
    if workers is not None:
        own = partial(prefetch, num_workers=np.int64(workers))
    if workers:
        torchs = partial(torchs, num_workers=workers, multiprocessing_context="fork")
    dataset, flags = Made(draw, sizes[0]), options.split()
    ours = two_epochs(own, dataset, *flags, batch_size=np.int64(sizes[1]))
    check_equal(ours, two_epochs(torchs, dataset, *flags, batch_size=sizes[1]))


def test_draws_differ_by_worker_and_epoch() -> None:
    options = {"batch_size": 2, "num_workers": 2}
    drawn = two_epochs(prefetch, Made(draw, 8), "shuffle", **options)
    images, targets = map(torch.cat, zip(*drawn, strict=True))
    for numbers in (images[:, 0, 0, 0] % 1, targets[:, 1], targets[:, 2]):
        assert len(set(numbers.tolist())) == 16


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_draws_are_those_of_a_fork_however_it_starts(method: str) -> None:
    epochs = []
    for way in (method, "fork"):
        torch.manual_seed(5)
        options = {"num_workers": 2, "multiprocessing_context": way}
        epochs.append([*ui.PrefetchDataLoader(Made(draw, 4), 2, **options)])
    check_equal(*epochs)


def test_a_worker_knows_what_torch_tells_it_and_shares_its_batch() -> None:
    def tell(_: int) -> torch.Tensor:
        info, seed = get_worker_info(), torch.initial_seed()
        known = [info.id, info.num_workers, len(info.dataset), info.seed - seed]
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return torch.tensor([*known, torch.get_num_threads(), ignored])

    batches = list(prefetch(Made(tell), 1, 4))
    assert torch.cat(batches).tolist() == [[n % 4, 4, 6, 0, 1, 1] for n in range(6)]
    assert all(batch.is_shared() for batch in batches)


@pytest.mark.parametrize("kind", [ui.NaiveDataLoader, prefetch])
def test_loops_over_one_loader_are_independent(kind: Any) -> None:
    loader = kind(range(6), 2)
    batches = [[0, 1], [2, 3], [4, 5]]
    pairs = [(outer.tolist(), inner.tolist()) for outer in loader for inner in loader]
    assert pairs == list(itertools.product(batches, batches))
    assert all(torch.equal(*both) for both in zip(loader, loader, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_samples_are_asked_for_once_an_epoch(tmp_path: Path, num_workers: int) -> None:
    dataset = Made(int, 10, tmp_path)
    before = torch.get_rng_state()
    loader = prefetch(dataset, 1, num_workers, shuffle=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert not multiprocessing.active_children() and dataset.asked() == []
    for _ in range(2):
        assert sorted(map(int, loader)) == sorted(dataset.asked()) == list(range(10))
        next(iter(loader))  # left early: nothing of it comes in the next epoch
        (tmp_path / "log").unlink()


def test_all_comes_in_order_though_it_is_not_made_so(tmp_path: Path) -> None:
    def make(index: int) -> int:
        if index == 3:
            (tmp_path / "gate").touch()
        return index

    dataset = Made(make, 8, tmp_path, gated=2)
    assert list(map(int, prefetch(dataset, 1, 2))) == list(range(8))


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 3), (2, 2), (2, 50)])
def test_workers_run_to_the_bound(tmp_path: Path, workers: int, ahead: int) -> None:
    dataset = Made(int, 20, tmp_path)
    batches = iter(prefetch(dataset, 2, workers, ahead))
    for given in range(10):
        bound = min(given + workers * ahead, 10) * 2
        wait_until(lambda bound=bound: len(dataset.asked()) >= bound)
        time.sleep(0.3 if given < 2 else 0)
        assert len(dataset.asked()) == bound
        next(batches)
    assert next(batches, None) is None


def test_workers_are_processes_no_more_than_batches() -> None:
    dataset = Made(lambda _: os.getpid())
    batches = iter(prefetch(dataset, 2, 8))
    started = {worker.pid for worker in multiprocessing.active_children()}
    assert {pid for batch in batches for pid in batch.tolist()} == started
    assert len(started) == 3
    (here,) = prefetch(dataset, 6, 0)
    assert here.tolist() == [os.getpid()] * 6


def test_no_batch_is_kept() -> None:
    batches = iter(prefetch(range(2), 1, 2))
    batch = weakref.ref(next(batches))
    assert batch() is None and list(batches) == [1]


class Prefixed(Exception):
    # Each time that it is made of its message, the message grows.
    def __init__(self, file: str) -> None:
        super().__init__(f"no such file: {file}")


def throw(error: Exception) -> NoReturn:
    raise error


kill_oneself = partial(signal.raise_signal, signal.SIGKILL)


def die_slowly() -> None:
    """Die as the system lets die: files close first, the cause is told later."""
    os.closerange(3, 256)
    time.sleep(0.3)
    kill_oneself()


KILLED = "worker 1 of the loader was killed by signal 9 during an epoch;"
ENDED = "worker 1 of the loader ended with code 0 during an epoch;"


@pytest.mark.parametrize(
    ("fail", "kind", "message", "note"),
    [
        (partial(throw, ValueError("5 is bad")), ValueError, "5 is bad", "in throw"),
        (Path("none.png").read_bytes, FileNotFoundError, "[Errno 2]", "in read_bytes"),
        (Lock, TypeError, "cannot pickle", "_worker_loop"),
        (partial(throw, KeyError(Lock())), RuntimeError, "KeyError: <unlocked", ""),
        (partial(throw, Prefixed("a")), RuntimeError, "Prefixed: no such file: a", ""),
        (partial(throw, StopIteration("x")), RuntimeError, "generator raised", ": x"),
        (kill_oneself, RuntimeError, KILLED, ""),
        (die_slowly, RuntimeError, KILLED, ""),
        (partial(sys.exit, 0), RuntimeError, ENDED, ""),
    ],
)
def test_what_ends_a_worker_is_raised_in_its_turn(
    fail: Callable[[], Any], kind: type[Exception], message: str, note: str
) -> None:
    dataset = Made(lambda index: fail() if index == 5 else index, 8)
    batches = iter(prefetch(dataset, 1, 2, prefetch_batches=3, collate_fn=list))
    if message in (KILLED, ENDED) and fail is not die_slowly:
        wait_until(lambda: len(multiprocessing.active_children()) == 1)
    # What it had made before is handed out all the same.
    assert list(itertools.islice(batches, 5)) == [[0], [1], [2], [3], [4]]
    with pytest.raises(kind) as caught:
        next(batches)
    assert caught.type is kind and str(caught.value).startswith(message)
    notes = getattr(caught.value.__cause__ or caught.value, "__notes__", [])
    assert note in "".join(notes) and len(notes) <= 1
    assert not note or notes[0].startswith("In a worker of the loader:\n")
    assert not multiprocessing.active_children() and next(batches, None) is None


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_a_worker_killed_while_it_works_or_sends(tmp_path: Path, size: int) -> None:
    dataset = Made(lambda _: b"x" * size, 6, tmp_path, gated=None if size else 1)
    batches = iter(prefetch(dataset, 1, 2, collate_fn=list))
    assert next(batches) == [b"x" * size]
    wait_until(lambda: 1 in dataset.asked())
    victim = max(multiprocessing.active_children(), key=lambda worker: worker.pid)
    timer = Timer(0.3, victim.kill)
    timer.start()
    if size:  # else the loop waits for the worker meanwhile
        timer.join()
    with pytest.raises(RuntimeError, match=KILLED):
        next(batches)


@pytest.mark.parametrize("size", [1, 1_000_000])
@pytest.mark.parametrize("leave", [id, next, list, lambda it: (c := [it]).append(c)])
def test_workers_end_by_themselves(leave: Any, size: int, monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "GRACE", PATIENCE)
    # Some of it goes through shared memory, some through the pipe.
    dataset = Made(lambda _: (torch.zeros(size), b"x" * size))
    batches = iter(prefetch(dataset, 1, 2, collate_fn=list))
    workers = multiprocessing.active_children()
    leave(batches)
    assert bool(multiprocessing.active_children()) is not (leave is list)
    del batches
    gc.collect()
    assert not multiprocessing.active_children()
    assert [worker.exitcode for worker in workers] == [0, 0]
    names = tuple(f"torch_{worker.pid}_" for worker in workers)
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(names)]


def test_a_worker_told_to_end_makes_no_more(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "GRACE", PATIENCE)
    dataset = Made(int, 18, tmp_path, gated=2)
    batches = iter(prefetch(dataset, 1, 2, prefetch_batches=6))
    assert int(next(batches)) == 0
    wait_until(lambda: {2, 11} <= {*dataset.asked()})
    Timer(1, (tmp_path / "gate").touch).start()
    del batches
    assert not {4, 6} & {*dataset.asked()}


def test_workers_that_hang_are_ended(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "GRACE", 0.5)

    def hang(index: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(10 * PATIENCE if index else 0)
        return index

    next(iter(prefetch(Made(hang), 1, 2)))
    assert not multiprocessing.active_children()


def run_apart(folder: Path, act: Callable[..., None], *words: Any) -> tuple[Any, int]:
    """What a process tells last, and its exit code; all of it goes without a word.

    When it tells a function, as os.kill, that interrupts it a moment later.
    """

    def run() -> None:
        os.setsid()
        os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = sys.__stderr__  # pytest's own goes elsewhere
        try:
            act(tell, *words)
        except KeyboardInterrupt:
            os._exit(130 + len(multiprocessing.active_children()))

    told, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run)
    process.start()
    tell.close()
    message = None
    with pytest.raises(EOFError):  # when nobody is left who has inherited the pipe
        while told.poll(PATIENCE / 4):
            message = told.recv()
            if callable(message):
                time.sleep(0.2)
                message(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert (folder / "stderr").read_text() == ""
    return message, process.exitcode


def test_a_forked_child_that_drops_the_iterator_ends_no_worker(tmp_path: Path) -> None:
    batches = iter(prefetch(range(6), 1, 2))
    assert run_apart(tmp_path, lambda _: batches.close()) == (None, 0)
    assert list(map(int, batches)) == [0, 1, 2, 3, 4, 5]


def loop(tell: Any, dataset: Made, send: Any) -> None:
    """Be interrupted in the loop's body, while it waits, or while workers start."""
    ui.GRACE = 0.2 if dataset.gated else PATIENCE
    if not send:  # what runs between a fork and the program loses a KeyboardInterrupt
        interrupt = partial(signal.raise_signal, signal.SIGINT)
        os.register_at_fork(after_in_parent=interrupt, after_in_child=interrupt)
    for batch in prefetch(dataset, 1, 2):
        if int(batch) == (dataset.gated or 1) - 1:
            tell.send(send)
            time.sleep(0 if dataset.gated else 10 * PATIENCE)


@pytest.mark.parametrize("send", [os.kill, os.killpg, None])
@pytest.mark.parametrize("gated", [None, 3])
def test_an_interrupted_loop_ends(tmp_path: Path, send: Any, gated: int | None) -> None:
    dataset = Made(int, 9, tmp_path, gated)
    assert run_apart(tmp_path, loop, dataset, send) == (send, 130)


def loop_and_die(_: Any, dataset: Made) -> None:
    batches = iter(prefetch(dataset, 1, 3, collate_fn=list))
    wait_until(lambda: len(dataset.asked()) >= 3)
    time.sleep(0.3)
    kill_oneself()
    next(batches)


@pytest.mark.parametrize("size", [1, 1_000_000])  # more than a pipe holds
def test_workers_vanish_when_their_parent_is_killed(tmp_path: Path, size: int) -> None:
    dataset = Made(lambda _: "x" * size, 90, tmp_path)
    assert run_apart(tmp_path, loop_and_die, dataset) == (None, -signal.SIGKILL)


def keep_all(tell: Any, way: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    if way == "file_system":
        torch.multiprocessing.set_sharing_strategy(way)
    keep = torch.clone if way == "clone" else torch.detach
    try:
        tell.send(len([keep(batch) for batch in prefetch(range(600), 2)]))
    except RuntimeError as error:
        tell.send(str(error))


@pytest.mark.parametrize("way", ["detach", "clone", "file_system"])
def test_too_many_open_files_and_the_ways_out(tmp_path: Path, way: str) -> None:
    told, exitcode = run_apart(tmp_path, keep_all, way)
    assert exitcode == 0 and (told == 300) is (way != "detach")
    named = ("too many open files", "ulimit -n", "clone()", '("file_system")')
    assert told == 300 or all(name in told for name in named)


SCRIPT = """
import time, ui_segmentation_system as ui

class Slow(list):
    def __getitem__(self, index):
        time.sleep(600 if index == 2 else 0)
        return index

for dataset in (range(4), Slow(range(4))):
    loader = ui.PrefetchDataLoader(dataset, 1, multiprocessing_context="WAY")
    try:
        batches = iter(loader)
        print(int(next(batches)), int(next(batches)))
    except TypeError as error:
        print(error)
"""


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_program_without_a_file_may_end_amid_an_epoch(way: str) -> None:
    command = [sys.executable, "-c", SCRIPT.replace("WAY", way)]
    folder = Path(ui.__file__).parent
    # It returns when the last worker has let go of its output.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    refused = "Slow is defined in a notebook cell, where a new process cannot find it;"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"0 1\n{'0 1' if way == 'fork' else refused}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: expected .*1 or more"),
        ({"batch_size": True}, "batch_size True: expected a whole number"),
        ({"dataset": []}, r"len\(dataset\) 0: expected .*1 or more"),
        ({"batch_size": 5, "drop_last": True}, r"dataset\) 4: expected .*5 or more"),
        ({"dataset": ChainDataset([])}, "dataset ChainDataset: expected"),
        ({"dataset": {1, 2}}, "dataset set: expected .*__getitem__"),
        ({"num_workers": -1}, "num_workers -1: expected .*0 or more"),
        ({"num_workers": 1.0}, "num_workers 1.0: expected a whole number"),
        ({"prefetch_batches": 0}, "prefetch_batches 0: expected .*1 to 100"),
        ({"prefetch_batches": 101}, "prefetch_batches 101: expected .*1 to 100"),
        ({"multiprocessing_context": "thread"}, "'thread': expected .*fork"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ui.PrefetchDataLoader(**{"dataset": range(4), **settings})


@pytest.mark.parametrize("dtypes", ["float32", "int64", "bool uint8", "int8 int16"])
@pytest.mark.parametrize("shape", [(), (1,), (5,)])
def test_pad_collate_pads_below_and_on_the_right(shape: Any, dtypes: str) -> None:
    dtypes = [getattr(torch, name) for name in dtypes.split()]
    sizes = [(4, 7), (6, 2), (5, 5)]
    images = [torch.rand(3, *size) for size in sizes]
    targets = [torch.ones(*shape, *size).to(dtypes[0]) for size in sizes]
    samples = list(zip(images, targets, strict=True))
    (batch,) = prefetch(samples, 3, collate_fn=ui.pad_collate)
    image = torch.zeros(3, 3, 6, 7)
    target = torch.full((3, *shape, 6, 7), ui.IGNORE_INDEX)
    for number, (height, width) in enumerate(sizes):
        image[number, :, :height, :width] = images[number]
        target[number, ..., :height, :width] = 1
    assert type(batch) is ui.Sample and torch.equal(batch.image, image)
    assert torch.equal(batch.target, target.to(dtypes[-1]))


def test_pad_collate_leaves_numbers_and_refuses_what_it_cannot_pad() -> None:
    image = torch.ones(3, 2, 5)
    padded, target = ui.pad_collate([(image, 7), (image[:, 1:], np.int64(0))])
    assert padded.shape == (2, 3, 2, 5)
    assert torch.equal(target, torch.tensor([7, 0]))
    picture = Image.new("RGB", (5, 2))
    for wrong in ((picture, 1), (image, image[:, 1:]), (image, image[0, 0, 0])):
        with pytest.raises(ValueError, match=r"got \[.*expected tensors of one height"):
            ui.pad_collate([(image, 7), wrong])


def test_a_dataset_that_grows_is_read_to_its_end() -> None:
    numbers = [0, 1, 2, 3]
    loader = ui.NaiveDataLoader(numbers, 2)
    numbers += [4, 5, 6]
    assert len(loader) == 4
    assert torch.cat([*loader]).tolist() == numbers
