"""Compare reading pictures again for every sample with keeping them decoded.

python -m benchmarks.loading           # a minute
"""

import argparse
from collections import deque
from functools import partial

from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from benchmarks import measure

BATCH_SIZE = 4
READ, CACHED = "read each time", "`cache=True`"


def make_text(options: argparse.Namespace) -> str:
    """Time an epoch of each way to load: the table."""
    pairs, to_tensor = ui.find_pairs(measure.PICTURES), ui.ImageTargetToTensor()
    tasks = {}
    for name in (READ, CACHED):
        dataset = ui.PairDataset(pairs, to_tensor, cache=name == CACHED)
        epoch = partial(deque, DataLoader(dataset, BATCH_SIZE), 0)  # keeps no batch
        tasks[name] = partial(measure.cost_of, epoch, warm_up=1)
    costs, rows = measure.run_in_turn(tasks, options.rounds), []
    for name, ratio in measure.ratios(costs, CACHED).items():
        milliseconds = measure.medians(costs[name]).cpu / len(pairs) * 1000
        rows.append([name, f"{ratio:.1f}", f"{milliseconds:.2f}"])
    return measure.markdown_table(["loading", "CPU of a sample", "milliseconds"], rows)


if __name__ == "__main__":
    measure.run_command("loading", __doc__, make_text, 15)
