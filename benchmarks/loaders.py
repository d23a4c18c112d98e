"""Race `ui.PrefetchDataLoader` against torch's DataLoader, two worker processes each.

python -m benchmarks.loaders           # minutes

Equal settings, equal datasets, whole epochs from the start of the workers to their end:
the pairs of test_inputs/ (256x224), and some of them enlarged to 1920x1080 in a
temporary folder. CPU time is that of this process and its workers together.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import multiprocessing
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks.measure import (
    PICTURES,
    check_rounds,
    markdown_table,
    paragraph,
    relative,
    relative_cpu,
    run_command,
)

BATCH_SIZE = 4
NUM_WORKERS = 2
PREFETCH = 2
METHOD = "fork"
# How often an epoch holds each picture, so that starting workers is little of it.
SMALL_REPEATS, LARGE_REPEATS = 8, 2
LARGE = (1080, 1920)
NUM_LARGE = 24
# So many float32 of three channels fit on a page of memory of 4 KiB.
STRIDE = 256
TORCH, OURS, COPIES = "torch's", "`PrefetchDataLoader`", "the same, pickled copies"
GOALS = ["goal", "0.90 or more", "1.30 or less", "", "", "under 1"]
LEAD = "`PrefetchDataLoader` against torch's `DataLoader`, two workers each:"

Loader = Iterable[ui.Sample]
Makers = Mapping[str, Callable[[Dataset], Loader]]
Epochs = Mapping[str, Sequence["Epoch"]]


class Epoch(NamedTuple):
    """What one pass through a dataset took, in seconds.

    cpu: of this process and its workers. wall: until no worker is left. first: until
    the first batch came. end: from the last batch until no worker is left.
    """

    num_samples: int
    cpu: float
    wall: float
    first: float
    end: float


def cpu_seconds() -> float:
    """Take the CPU time so far of this process and of its children that are gone."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def touch(batch: ui.Sample) -> int:
    """Read a value of each page, so that no copy is put off; gives the batch's size."""
    for part in batch:
        part[..., ::STRIDE].sum()
    return len(batch.image)


def go_through(loader: Loader) -> Epoch:
    """Take every batch once, wait for the workers to go, and say what it took."""
    cpu, begin = cpu_seconds(), time.perf_counter()
    num_samples, first, last = 0, 0.0, begin
    for batch in loader:
        first = first or time.perf_counter() - begin
        num_samples += touch(batch)
        last = time.perf_counter()
    for worker in multiprocessing.active_children():
        worker.join()
    gone = time.perf_counter()
    return Epoch(num_samples, cpu_seconds() - cpu, gone - begin, first, gone - last)


class CopyingLoader(ui.PrefetchDataLoader):
    """The module's loader, but batches are copied through the pipe: numpy arrays."""

    def __iter__(self) -> Iterator[ui.Sample]:
        batches = super().__iter__()  # here, so that the workers start
        return (ui.Sample(*map(torch.from_numpy, batch)) for batch in batches)


def stack_arrays(samples: Sequence[ui.Sample]) -> ui.Sample:
    """Collate as the default does, but to numpy arrays."""
    return ui.Sample(
        *(torch.stack(parts).numpy() for parts in zip(*samples, strict=True))
    )


def torch_loader(dataset: Dataset) -> DataLoader:
    return DataLoader(
        dataset,
        BATCH_SIZE,
        num_workers=NUM_WORKERS,
        prefetch_factor=PREFETCH,
        multiprocessing_context=METHOD,
    )


def our_loader(dataset: Dataset) -> ui.PrefetchDataLoader:
    return ui.PrefetchDataLoader(
        dataset, BATCH_SIZE, NUM_WORKERS, PREFETCH, multiprocessing_context=METHOD
    )


def copying_loader(dataset: Dataset) -> CopyingLoader:
    return CopyingLoader(
        dataset,
        BATCH_SIZE,
        NUM_WORKERS,
        PREFETCH,
        stack_arrays,
        multiprocessing_context=METHOD,
    )


SMALL_RACE: Makers = {TORCH: torch_loader, OURS: our_loader}
LARGE_RACE: Makers = {**SMALL_RACE, COPIES: copying_loader}


def large_pictures(folder: Path) -> ui.UIImageMaskDataset:
    """Enlarge some of the project's pairs into PNG files of a folder."""
    pairs = ui.UIImageMaskDataset(PICTURES, ui.ImageTargetResize(LARGE))
    for index in range(0, len(pairs), len(pairs) // NUM_LARGE)[:NUM_LARGE]:
        image, target = pairs[index]
        image.save(folder / f"{index}_input.png")
        target.save(folder / f"{index}_target.png")
    return ui.UIImageMaskDataset(folder, ui.ImageTargetToTensor())


def race(makers: Makers, dataset: Dataset, rounds: int) -> dict[str, list[Epoch]]:
    """Run an epoch of each loader a round, in the other order every second round.

    Raises ValueError without rounds.
    """
    check_rounds(rounds)
    epochs: dict[str, list[Epoch]] = {name: [] for name in makers}
    with tqdm(total=rounds * len(makers), desc="racing") as bar:
        for number in range(rounds):
            for name in list(makers)[:: -1 if number % 2 else 1]:
                epochs[name].append(go_through(makers[name](dataset)))
                bar.update()
    return epochs


def relative_speed(epochs: Epochs, base: str) -> dict[str, float]:
    """Divide throughputs by those of `base` in the same round; median over rounds."""
    return relative(epochs, base, lambda epoch, unit: unit.wall / epoch.wall)


def rows(pictures: str, epochs: Epochs) -> list[list[str]]:
    """Give a row per loader: ratios to torch's, then samples and seconds."""
    speeds, costs = relative_speed(epochs, TORCH), relative_cpu(epochs, TORCH)
    return [
        [
            f"{pictures}, {name}",
            f"{speeds[name]:.2f}",
            f"{costs[name]:.2f}",
            f"{median(epoch.num_samples / epoch.wall for epoch in taken):.0f}",
            f"{median(epoch.first for epoch in taken):.2f}",
            f"{max(epoch.end for epoch in taken):.2f}",
        ]
        for name, taken in epochs.items()
    ]


def table(small: Epochs, large: Epochs) -> str:
    """Draw the table: a row per kind of picture and loader, and one of the goals."""
    header = ["loader", "throughput", "CPU", "samples a second", "first batch", "end"]
    body = [*rows("256x224", small), *rows("1920x1080", large), GOALS]
    return markdown_table(header, body)


def note(large: Epochs) -> str:
    """Say what the columns are, and what shared memory is worth."""
    speed, cost = relative_speed(large, COPIES), relative_cpu(large, COPIES)
    return paragraph(
        f"Batches of {BATCH_SIZE}, {PREFETCH} of them ahead a worker, `{METHOD}`. "
        "Throughput and CPU (of all processes): of whole "
        "epochs, relative to torch's in the same round. Seconds: until the first batch "
        "came, and from the last until no worker was left (the longest of "
        f"{len(large[OURS])}). Shared memory against pickled copies through the pipe: "
        f"{speed[OURS]:.2f} times the throughput for {cost[OURS]:.2f} of the CPU."
    )


def make_text(options: argparse.Namespace) -> str:
    """Race on small pictures, then on large ones: the table with its lead and note."""
    pictures = ui.UIImageMaskDataset(PICTURES, ui.ImageTargetToTensor())
    small = race(SMALL_RACE, ConcatDataset([pictures] * SMALL_REPEATS), options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        pictures = large_pictures(Path(folder))
        dataset = ConcatDataset([pictures] * LARGE_REPEATS)
        large = race(LARGE_RACE, dataset, options.rounds)
    return f"{LEAD}\n\n{table(small, large)}\n\n{note(large)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and with --write put it into the README."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loaders", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed epochs of each")
    return run_command(parser, argv, "loaders", make_text)


if __name__ == "__main__":
    sys.exit(main())
