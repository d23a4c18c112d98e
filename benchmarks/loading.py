"""Compare reading pictures again for every sample with keeping them decoded.

python -m benchmarks.loading           # a minute

CPU time per sample of all pairs of test_inputs/ (256x224, PNG and JPEG) as tensors,
through a DataLoader without worker processes.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from benchmarks.measure import (
    PICTURES,
    Cost,
    markdown_table,
    relative_cpu,
    run_command,
    run_in_turn,
)

BATCH_SIZE = 4
READ, CACHED = "read each time", "`cache=True`"


def go_through(loader: DataLoader) -> int:
    """Take every sample once; returns how many there were."""
    return sum(len(batch.image) for batch in loader)


def loading_tasks(folder: Path) -> dict[str, Callable[[], int]]:
    """Make an epoch with and an epoch without the cache; the first one fills it."""
    pairs = ui.find_pairs(folder)
    return {
        name: partial(go_through, DataLoader(dataset, BATCH_SIZE))
        for name, dataset in (
            (READ, ui.PairDataset(pairs, ui.ImageTargetToTensor())),
            (CACHED, ui.PairDataset(pairs, ui.ImageTargetToTensor(), cache=True)),
        )
    }


def table(costs: dict[str, list[Cost]], num_samples: int) -> str:
    """Draw the table: a row with and a row without the cache."""
    ratios = relative_cpu(costs, CACHED)
    rows = [
        [
            name,
            f"{ratios[name]:.1f}",
            f"{median(cost.cpu for cost in taken) / num_samples * 1000:.2f}",
        ]
        for name, taken in costs.items()
    ]
    return markdown_table(["loading", "CPU of a sample", "milliseconds"], rows)


def make_text(options: argparse.Namespace) -> str:
    """Time both ways to load."""
    tasks = loading_tasks(PICTURES)
    num_samples = tasks[READ]()
    return table(run_in_turn(tasks, options.rounds), num_samples)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and with --write put it into the README."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loading", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed epochs of each")
    return run_command(parser, argv, "loading", make_text)


if __name__ == "__main__":
    sys.exit(main())
