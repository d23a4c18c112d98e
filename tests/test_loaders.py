"""The loaders: torch's batches, in order, ahead of the loop, and no process left."""

import gc
import itertools
import json
import multiprocessing
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

import ui_segmentation_system as ui

# The longest wait, in seconds, for a loop that hangs; passing tests never reach it.
PATIENCE = 60
# How long workers are watched for work that nobody asked for.
WATCH = 0.3

Loader = ui.NaiveDataLoader
Patch = pytest.MonkeyPatch

# What a test changes in the module reaches a worker by fork only.
prefetch = partial(ui.PrefetchDataLoader, multiprocessing_context="fork")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """End a test that hangs; refuse one that leaves a process behind.

    Ctrl+C is heard: a shell's background makes programs deaf to it.
    """
    alarmed = signal.signal(signal.SIGALRM, _give_up)
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, alarmed)
    signal.signal(signal.SIGINT, interrupted)
    assert end_children() == 0


def _give_up(*_: Any) -> NoReturn:
    pytest.fail(f"still waiting after {PATIENCE} s")


def end_children() -> int:
    """Kill what is left of the workers; gives how many there were."""
    left = multiprocessing.active_children()
    for child in left:
        child.kill()
        child.join()
    return len(left)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


# Datasets stand here, not in the tests: a spawned worker looks them up by their names.


class Augmented:
    """Samples that draw from each of the three kinds of random numbers."""

    def __init__(self, length: int, numpy: bool = False) -> None:
        self.length = length
        self.numpy = numpy

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ui.Sample:
        drawn = np.random.rand() if self.numpy else 0.0
        target = torch.tensor([index, random.random(), drawn], dtype=torch.float64)
        return ui.Sample(torch.rand(1, 2, 2) + index, target)


class Asked:
    """The numbers from 0; each that is asked for becomes a line of the log."""

    def __init__(self, length: int, log: Path) -> None:
        self.length = length
        self.log = log

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        with open(self.log, "a") as file:
            file.write(f"{index}\n")
        return index

    def asked(self) -> list[int]:
        lines = self.log.read_text().split() if self.log.exists() else []
        return [int(line) for line in lines]


class Gated(Asked):
    """One sample waits until a file is there; the log tells that it waits."""

    def __init__(self, length: int, log: Path, gate: Path, at: int = 0) -> None:
        super().__init__(length, log)
        self.gate = gate
        self.at = at

    def __getitem__(self, index: int) -> int:
        super().__getitem__(index)
        if index == self.at:
            wait_until(self.gate.exists)
        return index


class LateFirst(Asked):
    """The first sample is ready only after all that the other worker may make."""

    def __getitem__(self, index: int) -> int:
        if index == 0:
            wait_until(lambda: {1, 3} <= set(self.asked()))
        return super().__getitem__(index)


class Failing:
    """The numbers 0 to 7, where some fail."""

    def __init__(self, fail: Callable[[], Any], at: int = 5) -> None:
        self.fail = fail
        self.at = at

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.fail() if index == self.at else index


class Made:
    """What a function makes of the number of the sample."""

    def __init__(self, make: Callable[[int], Any], length: int = 6) -> None:
        self.make = make
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


# The batches of torch's DataLoader


def two_epochs(kind: Callable[..., Any], dataset: Any, **settings: Any) -> list[Any]:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    loader = kind(dataset, **settings)
    return [list(loader), list(loader)]


def equal(first: Any, second: Any) -> bool:
    """Whether batches of `Augmented` are equal to the last bit, epoch by epoch."""
    for one, other in zip(first, second, strict=True):
        for batch, twin in zip(one, other, strict=True):
            assert type(batch) is type(twin) is ui.Sample
            if not all(map(torch.equal, batch, twin)):
                return False
    return True


def our_loader(dataset: Any, num_workers: int = 0, **settings: Any) -> Loader:
    if num_workers:
        return prefetch(dataset, num_workers=num_workers, **settings)
    return ui.NaiveDataLoader(dataset, **settings)


def torch_loader(dataset: Any, num_workers: int = 0, **settings: Any) -> DataLoader:
    context = "fork" if num_workers else None
    return DataLoader(
        dataset, num_workers=num_workers, multiprocessing_context=context, **settings
    )


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("length", "batch_size"), [(12, 4), (13, 5)])
def test_batches_are_those_of_torch(
    length: int, batch_size: int, drop_last: bool, shuffle: bool, num_workers: int
) -> None:
    settings = dict(batch_size=batch_size, drop_last=drop_last, shuffle=shuffle)
    settings["num_workers"] = num_workers
    ours = two_epochs(our_loader, Augmented(length), **settings)
    assert equal(ours, two_epochs(torch_loader, Augmented(length), **settings))
    assert not equal(ours[:1], ours[1:])
    assert len(ours[0]) == len(torch_loader(Augmented(length), **settings))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("length", "batch_size"), [(1, 1), (1, 3), (5, 1), (8, 8)])
def test_few_samples_give_the_batches_of_torch(
    length: int, batch_size: int, num_workers: int
) -> None:
    settings = dict(batch_size=batch_size, num_workers=num_workers, shuffle=True)
    ours = two_epochs(our_loader, Augmented(length), **settings)
    assert equal(ours, two_epochs(torch_loader, Augmented(length), **settings))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_generator_of_ones_own_gives_the_batches_of_torch(num_workers: int) -> None:
    def epochs(kind: Callable[..., Any]) -> list[Any]:
        generator = torch.Generator().manual_seed(3)
        settings = dict(batch_size=2, shuffle=True, num_workers=num_workers)
        return two_epochs(kind, Augmented(7), generator=generator, **settings)

    ours = epochs(our_loader)
    assert equal(ours, epochs(torch_loader))
    own = [batch.target[:, 0].tolist() for batch in ours[0]]
    settings = dict(batch_size=2, shuffle=True, num_workers=num_workers)
    common = two_epochs(our_loader, Augmented(7), **settings)[0]
    assert own != [batch.target[:, 0].tolist() for batch in common]


# Random numbers in workers


def check_draws() -> None:
    """No number comes twice, whoever drew it, in whichever epoch; a seed repeats it."""
    dataset = Augmented(8, numpy=True)
    epochs, again = (
        two_epochs(prefetch, dataset, batch_size=2, num_workers=2) for _ in range(2)
    )
    assert equal(epochs, again)
    batches = list(itertools.chain(*epochs))
    for numbers in (
        torch.cat([batch.image[:, 0, 0, 0] % 1 for batch in batches]),
        torch.cat([batch.target[:, 1] for batch in batches]),
        torch.cat([batch.target[:, 2] for batch in batches]),
    ):
        assert len(set(numbers.tolist())) == 16


SEEDINGS = [(torch, "manual_seed"), (random, "seed"), (np.random, "seed")]


def test_workers_and_epochs_draw_different_numbers_the_same_seed_the_same() -> None:
    check_draws()


@pytest.mark.parametrize(("owner", "name"), SEEDINGS)
def test_unseeded_workers_are_caught(monkeypatch: Patch, owner: Any, name: str) -> None:
    seed = getattr(owner, name)
    here = os.getpid()

    def seed_here_only(number: int) -> None:
        if os.getpid() == here:
            seed(number)

    monkeypatch.setattr(owner, name, seed_here_only)
    with pytest.raises(AssertionError):
        check_draws()


@pytest.mark.parametrize(("owner", "name"), SEEDINGS)
def test_one_seed_for_all_workers_is_caught(
    monkeypatch: Patch, owner: Any, name: str
) -> None:
    seed = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda number: seed(number // 1000))
    with pytest.raises(AssertionError):
        check_draws()


def test_one_seed_for_all_epochs_is_caught(monkeypatch: Patch) -> None:
    start = ui.NaiveDataLoader._start_epoch
    monkeypatch.setattr(
        ui.NaiveDataLoader, "_start_epoch", lambda self: (7, start(self)[1])
    )
    with pytest.raises(AssertionError):
        check_draws()


# Iterating


class OneIterator(ui.NaiveDataLoader):
    """The known wrong version: the loader is its own iterator."""

    def __iter__(self) -> Iterator[Any]:
        self.batches = getattr(self, "batches", None) or super().__iter__()
        return self.batches


def check_independent(loader: Loader) -> None:
    batches = [[0, 1], [2, 3], [4, 5]]
    pairs = [(outer.tolist(), inner.tolist()) for outer in loader for inner in loader]
    assert pairs == list(itertools.product(batches, batches))
    assert all(torch.equal(*both) for both in zip(loader, loader, strict=True))
    assert [batch.tolist() for batch in loader] == batches
    assert len(loader) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loops_over_one_loader_are_independent(num_workers: int) -> None:
    check_independent(prefetch(range(6), 2, num_workers))


def test_naive_loops_are_independent_and_one_iterator_is_caught() -> None:
    check_independent(ui.NaiveDataLoader(range(6), 2))
    with pytest.raises(AssertionError):
        check_independent(OneIterator(range(6), 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_nothing_is_done_before_the_loop(tmp_path: Path, num_workers: int) -> None:
    before = torch.get_rng_state()
    dataset = Asked(4, tmp_path / "log")
    prefetch(dataset, 1, num_workers, shuffle=True)
    assert not multiprocessing.active_children()
    assert torch.equal(torch.get_rng_state(), before)
    assert dataset.asked() == []


def check_once(loader: Loader) -> None:
    """Each sample is asked for once an epoch, and nothing comes from the last one."""
    for _ in range(2):
        loader.dataset.log.unlink(missing_ok=True)
        assert [int(batch) for batch in loader] == list(range(len(loader)))
        assert sorted(loader.dataset.asked()) == list(range(len(loader)))
        for batch in loader:
            assert batch == 0
            break


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_samples_are_asked_for_once_an_epoch_after_a_break_too(
    tmp_path: Path, num_workers: int
) -> None:
    check_once(prefetch(Asked(10, tmp_path / "log"), 1, num_workers))


def test_samples_made_twice_or_left_over_are_caught(tmp_path: Path) -> None:
    class Twice(Asked):
        def __getitem__(self, index: int) -> int:
            super().__getitem__(index)
            return super().__getitem__(index)

    with pytest.raises(AssertionError):
        check_once(prefetch(Twice(4, tmp_path / "log"), 1, 2))
    with pytest.raises(AssertionError):
        check_once(OneIterator(Asked(4, tmp_path / "log"), 1))


def test_batches_come_in_order_though_made_out_of_order(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    loader = prefetch(LateFirst(8, tmp_path / "log"), 1, 2)
    assert [int(batch) for batch in loader] == list(range(8))
    monkeypatch.setattr(  # the known wrong version: first come, first served
        ui._Epoch, "_wait_for", lambda self, _: self._crew.receive()[1]
    )
    (tmp_path / "log").unlink()
    batches = [int(batch) for batch in loader]
    assert batches != sorted(batches) == list(range(8))


# Ahead of the loop, to the bound and no further


def check_bound(loader: Loader, bound: int, seconds: float = PATIENCE) -> None:
    """Samples are asked for up to `bound` batches ahead of the loop, never beyond."""
    dataset, size = loader.dataset, loader.batch_sampler.batch_size
    batches = iter(loader)
    for given in range(len(loader)):
        ahead = min(given + bound, len(loader)) * size
        wait_until(lambda ahead=ahead: len(dataset.asked()) >= ahead, seconds)
        time.sleep(WATCH if given < 2 else 0)
        assert len(dataset.asked()) == ahead
        next(batches)
    assert next(batches, None) is None


@pytest.mark.parametrize(
    ("num_workers", "prefetch_batches"), [(1, 1), (1, 3), (2, 2), (3, 1)]
)
def test_workers_run_ahead_to_the_bound_and_no_further(
    tmp_path: Path, num_workers: int, prefetch_batches: int
) -> None:
    dataset = Asked(20, tmp_path / "log")
    loader = prefetch(dataset, 2, num_workers, prefetch_batches)
    check_bound(loader, num_workers * prefetch_batches)


def test_no_work_ahead_or_too_much_is_caught(tmp_path: Path) -> None:
    for number, prefetch_batches in enumerate((1, 3, 50)):
        dataset = Asked(40, tmp_path / str(number))
        with pytest.raises(AssertionError):
            check_bound(prefetch(dataset, 2, 2, prefetch_batches), 4, seconds=1)
    dataset = Asked(40, tmp_path / "naive")
    with pytest.raises(AssertionError, match="never happened"):
        check_bound(ui.NaiveDataLoader(dataset, 2), 4, seconds=1)


def test_more_workers_than_batches_start_only_as_many_as_there_are_batches() -> None:
    batches = iter(prefetch(range(5), 2, 8))
    assert len(multiprocessing.active_children()) == 3
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_without_workers_batches_are_made_in_this_process() -> None:
    loader = prefetch(Made(lambda _: os.getpid()), 2, 0)
    for batch in loader:
        assert batch.tolist() == [os.getpid()] * 2
        assert not multiprocessing.active_children()
    workers = {int(pid) for batch in prefetch(loader.dataset, 2, 2) for pid in batch}
    assert len(workers) == 2
    assert os.getpid() not in workers


# Waiting costs nothing


def cost_of_waiting() -> float:
    """CPU seconds of this process and its workers while a sample takes two seconds."""

    def spent() -> float:
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + workers.ru_utime + workers.ru_stime

    before = spent()
    dataset = Made(lambda index: time.sleep(0 if index else 2) or index)
    assert len(list(prefetch(dataset, 1, 2))) == 6
    return spent() - before


def test_waiting_takes_no_cpu_time_and_spinning_is_caught(monkeypatch: Patch) -> None:
    blocking = cost_of_waiting()
    assert blocking < 0.5

    def spin(things: list[Any], timeout: float | None = None) -> list[Any]:
        while not (ready := connection.wait(things, 0)):
            pass
        return ready

    monkeypatch.setattr(ui, "wait_for_any", spin)
    assert cost_of_waiting() > 2 * max(blocking, 0.25)


# Errors in workers


class Odd(Exception):
    """Its constructor wants two arguments, its pickle holds one."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__(f"{file} is odd at {line}")


class Prefixed(Exception):
    """Each time that it is made of its message, the message grows."""

    def __init__(self, file: str) -> None:
        super().__init__(f"no such file: {file}")


class Holding(Exception):
    """Holds what no pickle can."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class MyStop(StopIteration):
    pass


def raise_value_error() -> NoReturn:
    raise ValueError("sample 5 is bad")


def raise_key_error() -> NoReturn:
    raise KeyError("size", 5)


def raise_file_not_found() -> NoReturn:
    Path("no/such/file.png").read_bytes()
    raise AssertionError


def raise_decode_error() -> NoReturn:
    json.loads("{")
    raise AssertionError


def raise_from() -> NoReturn:
    try:
        raise_key_error()
    except KeyError as error:
        raise ValueError("told by another error") from error


def raise_odd() -> NoReturn:
    raise Odd("5.png", 3)


def raise_prefixed() -> NoReturn:
    raise Prefixed("5.png")


def raise_holding() -> NoReturn:
    raise Holding("held fast")


def raise_stop_iteration() -> NoReturn:
    raise StopIteration("nothing more")


def raise_my_stop() -> NoReturn:
    raise MyStop("nothing more")


def no_pickle() -> Any:
    return threading.Lock()


def caught_in_worker(
    fail: Callable[[], Any], kind: type[BaseException] = Exception
) -> BaseException:
    """The error that a loop meets; sees to what comes before and after it."""
    batches = iter(prefetch(Failing(fail), 1, 2, collate_fn=list))
    before = []
    with pytest.raises(kind) as caught:
        for batch in batches:
            before += batch
    assert before == [0, 1, 2, 3, 4]
    assert not multiprocessing.active_children()
    assert next(batches, None) is None
    return caught.value


@pytest.mark.parametrize(
    "fail",
    [
        raise_value_error,
        raise_key_error,
        raise_file_not_found,
        raise_decode_error,
        raise_from,
    ],
)
def test_errors_of_workers_keep_type_message_and_traceback(
    fail: Callable[[], Any],
) -> None:
    with pytest.raises(Exception) as expected:
        fail()
    error = caught_in_worker(fail)
    assert type(error) is expected.type
    assert (str(error), error.args) == (str(expected.value), expected.value.args)
    told = "".join(error.__notes__)
    assert f"in {fail.__name__}" in told
    assert Path(__file__).name in told
    assert told.count("Traceback") == 1 + (fail is raise_from)


@pytest.mark.parametrize(
    ("fail", "name", "message"),
    [
        (raise_odd, "Odd", "5.png is odd at 3"),
        (raise_prefixed, "Prefixed", "no such file: 5.png"),
        (raise_holding, "Holding", "held fast"),
        (raise_stop_iteration, "StopIteration", "nothing more"),
        (raise_my_stop, "MyStop", "nothing more"),
    ],
)
def test_errors_that_cannot_travel_are_told(
    fail: Callable[[], Any], name: str, message: str
) -> None:
    told = caught_in_worker(fail)
    assert type(told) is RuntimeError or str(told) == message
    assert not isinstance(told, StopIteration)
    assert (name in str(told) or type(told).__name__ == name) and message in str(told)
    assert f"in {fail.__name__}" in "".join(told.__notes__)
    assert f"{name}" in "".join(told.__notes__)
    assert "no such file: no such" not in str(told)


def test_stop_iteration_let_through_is_caught(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "_portable", lambda error: error)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        caught_in_worker(raise_stop_iteration)


def test_a_batch_that_cannot_be_pickled_is_an_error() -> None:
    assert "pickle" in str(caught_in_worker(no_pickle, TypeError))


def test_errors_of_collate_fn_and_without_workers_are_raised_as_they_are() -> None:
    def collate(samples: list[int]) -> NoReturn:
        raise ValueError(f"cannot stack {samples}")

    for num_workers in (0, 2):
        with pytest.raises(ValueError, match=r"cannot stack \[0, 1\]"):
            list(prefetch(range(4), 2, num_workers, collate_fn=collate))
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(prefetch(Failing(raise_stop_iteration), 2, num_workers))


def test_of_two_errors_the_first_in_order_is_raised(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def make(index: int) -> int:
        if index == 2:
            wait_until(gate.exists)
        if index == 3:
            gate.touch()
        if index > 1:
            raise ValueError(f"sample {index}")
        return index

    batches = iter(prefetch(Made(make), 1, 2))
    assert [int(next(batches)), int(next(batches))] == [0, 1]
    with pytest.raises(ValueError, match="sample 2"):
        next(batches)


def kill_oneself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_slowly() -> NoReturn:
    """Die as the system lets die: files close first, the cause is told later."""
    os.closerange(3, 256)
    time.sleep(0.3)
    kill_oneself()


@pytest.mark.parametrize(
    ("fail", "how"),
    [
        (kill_oneself, "killed by signal 9"),
        (die_slowly, "killed by signal 9"),
        (partial(os._exit, 3), "ended with code 3"),
        (partial(sys.exit, 4), "ended with code 4"),
    ],
)
def test_a_worker_that_dies_is_an_error_that_names_it(
    fail: Callable[[], Any], how: str
) -> None:
    batches = iter(prefetch(Failing(fail), 1, 2, collate_fn=list))
    with pytest.raises(RuntimeError, match=f"worker 1 .*{how}"):
        list(batches)
    assert not multiprocessing.active_children()
    assert next(batches, None) is None


def test_a_worker_killed_from_outside_while_the_loop_waits_is_an_error(
    tmp_path: Path,
) -> None:
    dataset = Gated(6, tmp_path / "log", tmp_path / "gate", at=1)
    batches = iter(prefetch(dataset, 1, 2))
    assert int(next(batches)) == 0
    wait_until(lambda: 1 in dataset.asked())
    victim = max(multiprocessing.active_children(), key=lambda worker: worker.pid)
    threading.Timer(0.3, victim.kill).start()
    with pytest.raises(RuntimeError, match=r"worker 1 .*killed by signal 9"):
        next(batches)


# The end: nothing is left


def leave_by_break(loader: Loader) -> None:
    for _ in loader:
        break


def leave_by_error(loader: Loader) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            _ = 1 / 0


def leave_by_forgetting(loader: Loader) -> None:
    batches = iter(loader)
    next(batches)


def leave_before_the_first_batch(loader: Loader) -> None:
    iter(loader)


def leave_in_a_cycle(loader: Loader) -> None:
    cycle: list[Any] = [iter(loader)]
    cycle.append(cycle)
    del cycle
    gc.collect()


def leave_by_closing_a_generator(loader: Loader) -> None:
    with closing(batch for batch in loader) as batches:
        next(batches)


def leave_at_the_end(loader: Loader) -> None:
    batches = iter(loader)
    assert len(list(batches)) == len(loader)
    assert not multiprocessing.active_children()  # though `batches` is still held


LEAVINGS = [
    leave_by_break,
    leave_by_error,
    leave_by_forgetting,
    leave_before_the_first_batch,
    leave_in_a_cycle,
    leave_by_closing_a_generator,
    leave_at_the_end,
]


@pytest.mark.parametrize("leave", LEAVINGS)
def test_workers_end_by_themselves_however_the_loop_is_left(
    leave: Callable[[Loader], None], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(ui, "GRACE", PATIENCE)
    workers = []
    start = FORK.Process.start

    def note(self: Any) -> None:
        start(self)
        workers.append(self)

    monkeypatch.setattr(FORK.Process, "start", note)
    leave(prefetch(range(12), 2, 2))
    assert not multiprocessing.active_children()
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_an_iterator_that_does_not_end_its_workers_is_caught(
    monkeypatch: Patch,
) -> None:
    monkeypatch.setattr(ui, "_end", lambda *_: None)
    with pytest.raises(AssertionError):
        leave_at_the_end(prefetch(range(12), 2, 2))
    end_children()


def test_a_worker_told_to_stop_leaves_what_waits(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(ui, "GRACE", PATIENCE)
    dataset = Gated(9, tmp_path / "log", tmp_path / "gate", at=1)
    batches = iter(prefetch(dataset, 1, 1, prefetch_batches=6))
    assert int(next(batches)) == 0
    wait_until(lambda: 1 in dataset.asked())
    threading.Timer(1, dataset.gate.touch).start()
    del batches
    assert dataset.asked() == [0, 1]


def test_workers_that_hang_are_ended(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "GRACE", 0.1)

    def hang(index: int) -> int:
        if index:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(10 * PATIENCE)
        return index

    leave_by_break(prefetch(Made(hang), 1, 2))
    assert not multiprocessing.active_children()


def test_leaving_while_requests_fill_their_pipe_does_not_hang(
    monkeypatch: Patch,
) -> None:
    monkeypatch.setattr(ui, "GRACE", 0.1)
    monkeypatch.setattr(ui, "_work", lambda *_: time.sleep(10 * PATIENCE))
    press = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    with pytest.raises(KeyboardInterrupt):
        next(iter(prefetch(range(400_000), 10_000, 1, 8)))
    press.join()
    assert not multiprocessing.active_children()


# Other processes that loop: interrupted, killed, at their end


class Other:
    """A process with a loop of its own, in a session of its own."""

    def __init__(self, act: Callable[..., None], folder: Path, *words: Any) -> None:
        self.errors = folder / "stderr"
        self.errors.touch()
        self.alive, lifeline = FORK.Pipe(duplex=False)
        self.told, tell = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=self._act, args=(act, tell, *words))
        self.process.start()
        lifeline.close()
        tell.close()

    def _act(self, act: Callable[..., None], tell: Any, *words: Any) -> None:
        os.setsid()
        os.dup2(os.open(self.errors, os.O_WRONLY | os.O_APPEND), 2)
        sys.stderr = sys.__stderr__  # pytest's own goes elsewhere
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            act(tell, *words)
        except KeyboardInterrupt:
            os._exit(130 + len(multiprocessing.active_children()))

    def check_gone(self) -> None:
        """It and all its workers are gone, without a word."""
        gone = connection.wait([self.alive], PATIENCE / 4)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        assert gone, "a worker is left"
        assert self.errors.read_text() == ""


def loop_and_wait(tell: Any, dataset: Any, batch_is_slow: bool) -> None:
    for batch in prefetch(dataset, 1, 2, collate_fn=list):
        wait_until(lambda: len(dataset.asked()) >= 4)
        tell.send(batch)
        if not batch_is_slow:
            time.sleep(10 * PATIENCE)


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("batch_is_slow", [False, True])
def test_an_interrupted_loop_ends_without_a_word_of_its_workers(
    tmp_path: Path, monkeypatch: Patch, send: Any, batch_is_slow: bool
) -> None:
    monkeypatch.setattr(ui, "GRACE", 0.2 if batch_is_slow else PATIENCE)
    slow = 3 if batch_is_slow else None
    dataset = Gated(9, tmp_path / "log", tmp_path / "gate", slow)
    other = Other(loop_and_wait, tmp_path, dataset, batch_is_slow)
    for _ in range(3 if batch_is_slow else 1):
        other.told.recv()
    time.sleep(0.2)  # a sign of the loop's wait could come before the wait only
    send(other.process.pid, signal.SIGINT)
    other.check_gone()
    assert other.process.exitcode == 130


class Listening(Gated):
    """The known wrong version: workers hear of Ctrl+C themselves."""

    def __getitem__(self, index: int) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return super().__getitem__(index)


def test_workers_that_listen_to_interrupts_are_caught(tmp_path: Path) -> None:
    dataset = Listening(9, tmp_path / "log", tmp_path / "gate", None)
    other = Other(loop_and_wait, tmp_path, dataset, False)
    other.told.recv()
    os.killpg(other.process.pid, signal.SIGINT)
    with pytest.raises(AssertionError, match="Traceback"):
        other.check_gone()


def test_workers_interrupted_at_their_birth_work_on(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    work = ui._work

    def interrupted(*words: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        work(*words)

    monkeypatch.setattr(ui, "_work", interrupted)
    assert [int(batch) for batch in prefetch(range(4), 1, 2)] == [0, 1, 2, 3]


def loop_interrupted_while_it_forks(tell: Any) -> None:
    """What runs between a fork and the program swallows a KeyboardInterrupt."""
    os.register_at_fork(after_in_parent=partial(signal.raise_signal, signal.SIGINT))
    for batch in prefetch(range(400), 1, 2):
        tell.send(int(batch))


def test_an_interrupt_while_workers_start_is_not_lost(tmp_path: Path) -> None:
    other = Other(loop_interrupted_while_it_forks, tmp_path)
    other.check_gone()
    assert other.process.exitcode == 130


def loop_and_die(tell: Any, dataset: Any, prefetch_batches: int, is_ready: Any) -> None:
    batches = iter(prefetch(dataset, 1, 3, prefetch_batches, collate_fn=list))
    wait_until(is_ready)
    time.sleep(WATCH)
    os.kill(os.getpid(), signal.SIGKILL)
    next(batches)


def test_workers_vanish_when_their_parent_is_killed(tmp_path: Path) -> None:
    dataset = Asked(90, tmp_path / "log")
    ready = partial(_has_asked, dataset, 6)
    Other(loop_and_die, tmp_path, dataset, 2, ready).check_gone()


def _has_asked(dataset: Asked, number: int) -> bool:
    return len(dataset.asked()) >= number


class Long(Asked):
    """Samples whose pickles just fit into the pipe; 64 KiB hold 16 of them."""

    def __getitem__(self, index: int) -> Any:
        super().__getitem__(index)
        return str(index) + "x" * 3800


def test_workers_vanish_when_their_parent_is_killed_and_the_pipe_is_full(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(ui, "WHOLE_MESSAGE", 4000)  # else hundreds find a place
    dataset = Long(90, tmp_path / "log")
    ready = partial(_has_asked, dataset, 17)  # and one of them waits for a place
    Other(loop_and_die, tmp_path, dataset, 20, ready).check_gone()


AT_EXIT = """
import time
import ui_segmentation_system as ui

class Slow:
    def __len__(self):
        return 9
    def __getitem__(self, index):
        time.sleep(600 if index == 3 else 0)
        return index

if __name__ == "__main__":
    batches = iter(ui.PrefetchDataLoader(Slow(), 1, 2, multiprocessing_context="fork"))
    print(next(batches), next(batches))
"""


def test_a_program_may_end_with_an_iterator_open(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(AT_EXIT)
    done = subprocess.run(  # returns when the last worker has let go of its stdout
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(ui.__file__).parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "tensor([0]) tensor([1])\n"


# Ways to start workers


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_way_to_start_workers_gives_equal_batches(method: str) -> None:
    def epoch(way: str) -> list[Any]:
        torch.manual_seed(8)
        loader = ui.PrefetchDataLoader(
            Augmented(9, numpy=True), 2, 2, shuffle=True, multiprocessing_context=way
        )
        return list(loader)

    assert equal([epoch(method)], [epoch("fork")])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("where", ["dataset", "collate_fn"])
def test_what_cannot_be_sent_to_a_new_process_is_refused(
    method: str, where: str
) -> None:
    settings: dict[str, Any] = {"dataset": range(4)}
    settings[where] = Made(lambda index: index) if where == "dataset" else lambda x: x
    loader = ui.PrefetchDataLoader(**settings, multiprocessing_context=method)
    with pytest.raises(TypeError, match=r"cannot be sent to a worker.*of a module"):
        iter(loader)
    assert not multiprocessing.active_children()


# Large batches


def test_large_tensors_and_arrays_arrive_equal_and_in_order() -> None:
    def make(index: int) -> tuple[Any, ...]:
        numbers = np.random.default_rng(index).random((400, 1000))  # 3.2 MB
        return index, torch.from_numpy(numbers), numbers, str(index) * 100_000

    batches = list(prefetch(Made(make), 2, 2, collate_fn=list))
    for index, sample in enumerate(sample for batch in batches for sample in batch):
        number, tensor, array, text = make(index)
        assert (sample[0], sample[3]) == (number, text)
        assert torch.equal(sample[1], tensor) and np.array_equal(sample[2], array)
    assert index == 5


def test_hundreds_of_small_tensors_in_a_batch_arrive() -> None:
    dataset = Made(lambda index: torch.tensor([index, -index]), 600)
    batches = prefetch(dataset, 200, 2, prefetch_batches=1, collate_fn=list)
    rows = torch.stack([sample for batch in batches for sample in batch])
    assert torch.equal(rows[:, 0], torch.arange(600))
    assert torch.equal(rows[:, 1], -torch.arange(600))


def longest_message(log: Path) -> int:
    """Bytes of the longest of the messages that workers send, as they log them."""
    dataset = Made(lambda index: "x" * 500 * index, 40)
    texts = [batch[0] for batch in prefetch(dataset, 1, 2, collate_fn=list)]
    assert texts == [dataset[index] for index in range(40)]
    return max(int(line) for line in log.read_text().split())


def test_no_message_is_longer_than_goes_into_a_pipe_in_one_piece(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    log = tmp_path / "log"
    send_bytes = connection.Connection.send_bytes

    def note(self: Any, message: Any, *words: Any) -> None:
        with open(log, "a") as file:
            file.write(f"{len(message)}\n")
        send_bytes(self, message, *words)

    monkeypatch.setattr(connection.Connection, "send_bytes", note)
    header = 4
    assert longest_message(log) <= ui.WHOLE_MESSAGE <= select.PIPE_BUF - header
    monkeypatch.setattr(ui, "WHOLE_MESSAGE", float("inf"))
    assert longest_message(log) > select.PIPE_BUF


def test_full_pipes_of_requests_and_results_do_not_hang() -> None:
    dataset = Made(int, 300_000)
    batches = prefetch(dataset, 1500, 2, 32, collate_fn=lambda some: "x" * 3800)
    assert sum(len(batch) for batch in batches) == 200 * 3800


# Settings


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


class CountedStream(Stream):
    def __len__(self) -> int:
        return 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: expected 1 or more"),
        ({"batch_size": -1}, "batch_size -1: expected 1 or more"),
        ({"batch_size": 2.5}, "batch_size 2.5: expected a whole number"),
        ({"batch_size": True}, "batch_size True: expected a whole number"),
        ({"dataset": []}, "the dataset has 0 samples"),
        ({"dataset": [1, 2], "batch_size": 3, "drop_last": True}, "batch_size 3.* 2 "),
        ({"dataset": Stream()}, "dataset of type Stream"),
        ({"dataset": CountedStream()}, "dataset of type CountedStream"),
        ({"dataset": 7}, "dataset of type int"),
        ({"num_workers": -1}, "num_workers -1: expected 0 or more"),
        ({"num_workers": 1.0}, "num_workers 1.0: expected a whole number"),
        ({"prefetch_batches": 0}, "prefetch_batches 0: expected 1 or more"),
        ({"prefetch_batches": 101}, "prefetch_batches 101: expected 100 or fewer"),
        ({"prefetch_batches": None}, "prefetch_batches None: expected a whole"),
        ({"multiprocessing_context": "thread"}, "'thread': expected .*fork"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    settings = {"dataset": range(4), **settings}
    with pytest.raises(ValueError, match=message):
        ui.PrefetchDataLoader(**settings)
    own = {"num_workers", "prefetch_batches", "multiprocessing_context"}
    if not own & set(settings):
        with pytest.raises(ValueError, match=message):
            ui.NaiveDataLoader(**settings)


# Padding


def test_pad_collate_pads_below_and_on_the_right() -> None:
    sizes = [(4, 7), (6, 2), (5, 5)]
    samples = [
        ui.Sample(torch.rand(3, *size) + 0.1, torch.ones(1, *size)) for size in sizes
    ]
    image, target = ui.pad_collate(samples)
    assert image.shape == (3, 3, 6, 7) and target.shape == (3, 1, 6, 7)
    for number, (height, width) in enumerate(sizes):
        inside = torch.zeros(6, 7, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal(image[number][:, :height, :width], samples[number].image)
        assert (image[number][:, ~inside] == 0).all()
        assert torch.equal(target[number, 0] == 1, inside)
        assert torch.equal(target[number, 0] == 255, ~inside)


def test_pad_collate_keeps_targets_of_classes_and_layers_what_they_are() -> None:
    sizes = [(2, 3), (4, 1)]
    for shape, dtype in (((), torch.int64), ((5,), torch.float32)):
        samples = [
            ui.Sample(torch.rand(3, *size), torch.ones(*shape, *size).to(dtype))
            for size in sizes
        ]
        batch = ui.pad_collate(samples)
        assert type(batch) is ui.Sample
        assert batch.target.dtype == dtype
        assert batch.target.shape == (2, *shape, 4, 3)
        assert set(batch.target.unique().tolist()) == {1, ui.IGNORE_INDEX}


def test_pad_collate_leaves_numbers_numbers() -> None:
    samples = [(torch.ones(3, 2, 5), 7), (torch.ones(3, 4, 3), 0)]
    image, target = ui.pad_collate(samples)
    assert image.shape == (2, 3, 4, 5)
    assert torch.equal(target, torch.tensor([7, 0]))


def test_pad_collate_wants_tensors() -> None:
    picture = Image.new("RGB", (4, 3))
    with pytest.raises(ValueError, match="got Image: expected tensors; give the datas"):
        ui.pad_collate([(torch.ones(3, 2, 5), 7), (picture, 1)])


def test_pad_collate_in_workers() -> None:
    def make(index: int) -> ui.Sample:
        return ui.Sample(torch.ones(3, 2 + index, 3), torch.ones(1, 2 + index, 3))

    batches = prefetch(Made(make), 2, 2, collate_fn=ui.pad_collate)
    assert [tuple(batch.image.shape) for batch in batches] == [
        (2, 3, height, 3) for height in (3, 5, 7)
    ]
