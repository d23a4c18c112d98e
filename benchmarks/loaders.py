"""Race `ui.PrefetchDataLoader` against torch's DataLoader, two worker processes each.

python -m benchmarks.loaders           # minutes
"""

import argparse
import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import multiprocessing
from torch.utils.data import ConcatDataset, DataLoader, Dataset

import ui_segmentation_system as ui
from benchmarks import measure

SETTINGS = {"batch_size": 4, "num_workers": 2, "multiprocessing_context": "fork"}
PREFETCH = 2  # batches ahead, a worker
# How often an epoch holds each picture, so that starting workers is little of it.
SMALL_REPEATS, LARGE_REPEATS = 8, 2
LARGE, NUM_LARGE = (1080, 1920), 24
# So many float32 of three channels fit on a page of memory of 4 KiB.
STRIDE = 256
TORCH, OURS, COPIES = "torch's", "`PrefetchDataLoader`", "the same, pickled copies"
HEADER = ["loader", "throughput", "CPU", "samples a second", "first batch", "end"]
GOALS = ["goal", "0.90 or more", "1.30 or less", "", "", "under 1"]


class Epoch(NamedTuple):
    """What one pass through a dataset took, in seconds."""

    cpu: float  # of this process and its workers
    wall: float  # until no worker is left
    first: float  # until the first batch came
    end: float  # from the last batch until no worker is left


def run_epoch(loader: Iterable[ui.Sample]) -> Epoch:
    """Take every batch once, wait for the workers to go, and tell what it took."""
    cpu, begin, first = measure.cpu_seconds(), time.perf_counter(), 0.0
    for batch in loader:
        first = first or time.perf_counter() - begin
        for part in batch:  # a value of each page, so that no copy is put off
            part[..., ::STRIDE].sum()
        last = time.perf_counter()
    for worker in multiprocessing.active_children():
        worker.join()
    gone, cpu = time.perf_counter(), measure.cpu_seconds() - cpu
    return Epoch(cpu, gone - begin, first, gone - last)


def collate_arrays(samples: Sequence[ui.Sample]) -> ui.Sample:
    """Collate to NumPy arrays, which go through the pipe pickled whole."""
    kinds = zip(*samples, strict=True)
    return ui.Sample(*(torch.stack(parts).numpy() for parts in kinds))


PREFETCHING = partial(ui.PrefetchDataLoader, prefetch_batches=PREFETCH, **SETTINGS)
LOADERS: dict[str, Callable[[Dataset], Iterable[ui.Sample]]] = {
    TORCH: partial(DataLoader, prefetch_factor=PREFETCH, **SETTINGS),
    OURS: PREFETCHING,
    COPIES: partial(PREFETCHING, collate_fn=collate_arrays),
}


def wait_a_second(timeout: float | None) -> str:
    """Wait for a batch that comes after a second; after a time-out, ask again."""
    batches: queue.Queue[str] = queue.Queue()
    threading.Timer(1, batches.put, ["batch"]).start()
    while True:
        with contextlib.suppress(queue.Empty):
            return batches.get(timeout=timeout)


def add_up() -> int:
    """Add the numbers below ten million: work that only Python does."""
    total = 0
    for number in range(10_000_000):
        total += number
    return total


def add_up_twice(pool: type[Executor], num_workers: int) -> None:
    """Add up twice in a new pool of threads or processes."""
    with pool(num_workers) as executor:
        for _ in range(2):
            executor.submit(add_up)


def make_text(options: argparse.Namespace) -> str:
    """Race on small pictures, then on large ones: the table. Then wait, then add up."""
    small = ui.UIImageMaskDataset(measure.PICTURES, ui.ImageTargetToTensor())
    pairs = ui.UIImageMaskDataset(measure.PICTURES, ui.ImageTargetResize(LARGE))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(0, len(pairs), len(pairs) // NUM_LARGE)[:NUM_LARGE]:
            for name, picture in zip(("input", "target"), pairs[index], strict=True):
                picture.save(Path(folder, f"{index}_{name}.png"))
        large = ui.UIImageMaskDataset(folder, ui.ImageTargetToTensor())
        for size, dataset, names in (
            ("256x224", ConcatDataset([small] * SMALL_REPEATS), (TORCH, OURS)),
            ("1920x1080", ConcatDataset([large] * LARGE_REPEATS), LOADERS),
        ):
            loaders = {name: LOADERS[name](dataset) for name in names}
            tasks = {n: partial(run_epoch, loader) for n, loader in loaders.items()}
            epochs = measure.run_in_turn(tasks, options.rounds)
            speeds = measure.ratios(epochs, TORCH, lambda epoch: 1 / epoch.wall)
            for name, cpu in measure.ratios(epochs, TORCH).items():
                epoch = measure.medians(epochs[name])
                last = max(epoch.end for epoch in epochs[name])
                row = [f"{size}, {name}", f"{speeds[name]:.2f}", f"{cpu:.2f}"]
                row += [f"{len(dataset) / epoch.wall:.0f}", f"{epoch.first:.2f}"]
                rows.append([*row, f"{last:.2f}"])
    spin, sleep = (measure.cost_of(partial(wait_a_second, t)).cpu for t in (0, None))
    pools = [(ThreadPoolExecutor, 1), (ThreadPoolExecutor, 2), (ProcessPoolExecutor, 2)]
    tasks = {p: partial(measure.cost_of, partial(add_up_twice, *p)) for p in pools}
    sums = measure.run_in_turn(tasks, options.rounds)
    walls = measure.ratios(sums, pools[0], lambda cost: cost.wall)
    _, threads, processes = walls.values()
    return (
        f"{measure.markdown_table(HEADER, [*rows, GOALS])}\n\nA second of waiting "
        f"costs {spin:.2f} CPU seconds with a time-out of 0, {sleep:.4f} without one.\n"
        f"Two sums take {threads:.2f} times as long in two threads as one after the "
        f"other, and {processes:.2f} times as\nlong in two processes."
    )


if __name__ == "__main__":
    measure.run_command("loaders", __doc__, make_text, 7)
