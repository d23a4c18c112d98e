"""What lesson 08 imports: datasets for worker processes, and a drawing of their work.

They stand in a file because a process that starts anew finds a class by importing it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch

import ui_segmentation_system as ui

# Seconds that a sample of the diary takes, and that "training" takes for a batch.
SAMPLE_SECONDS = 0.02
STEP_SECONDS = 0.03


class Dice:
    """Four samples, each two random numbers: torch's, and its own generator's."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[float, float]:
        return float(torch.rand(())), float(self.own.random())


class Diary:
    """24 slow samples, each saying which process made it, from when to when."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        start = time.perf_counter()
        time.sleep(SAMPLE_SECONDS)
        return os.getpid(), start, time.perf_counter()


class Entry(NamedTuple):
    """A batch: who made it, its samples' times, when it was wanted, when it came."""

    worker: int
    starts: list[float]
    ends: list[float]
    wanted: float
    came: float


def watch(num_workers: int) -> list[Entry]:
    """Load the diary in batches of two and "train" on each for a moment."""
    entries = []
    wanted = time.perf_counter()
    for workers, starts, ends in ui.PrefetchDataLoader(Diary(), 2, num_workers):
        came = time.perf_counter()
        made = int(workers[0]), starts.tolist(), ends.tolist()
        entries.append(Entry(*made, wanted, came))
        time.sleep(STEP_SECONDS)
        wanted = time.perf_counter()
    return entries


def draw(books: Mapping[int, Sequence[Entry]]) -> None:
    """Draw entries by number of workers: who was busy when, a colour for each batch."""
    size = (7, 1.7 * len(books))
    figure, axes = plt.subplots(len(books), figsize=size, sharex=True, squeeze=False)
    for axis, (num_workers, entries) in zip(axes.flat, books.items(), strict=True):
        begin = entries[0].wanted
        workers = sorted({entry.worker for entry in entries})
        for number, entry in enumerate(entries):
            row, color = workers.index(entry.worker), plt.get_cmap("tab20")(number)
            for start, end in zip(entry.starts, entry.ends, strict=True):
                axis.barh(row + 0.4, end - start, 0.8, start - begin, color=color)
            axis.barh(-0.6, STEP_SECONDS, 0.8, entry.came - begin, color=color)
        labels = [f"worker {row}" for row in range(num_workers)] or ["loading"]
        axis.set_yticks([-0.6, *np.arange(len(labels)) + 0.4], ["training", *labels])
        axis.set_title(f"num_workers={num_workers}", fontsize=9)
    axes.flat[-1].set_xlabel("seconds")
    figure.set_layout_engine("constrained")
    plt.show()
