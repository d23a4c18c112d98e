"""Compare reading pictures with keeping them decoded, and with decoding alone.

python -m benchmarks.loading           # a minute
"""

import argparse
import itertools
from collections import deque
from functools import partial

from PIL import Image
from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from benchmarks import measure

BATCH_SIZE = 4
READ, CACHED = "read each time", "`cache=True`"
DECODED, PAIR = "both files decoded by Pillow, nothing else", "a pair read as pictures"


def make_text(options: argparse.Namespace) -> str:
    """Time an epoch of each way to load: the table."""
    ui.keep_freed_memory()  # for all alike
    pairs, to_tensor = ui.find_pairs(measure.PICTURES), ui.ImageTargetToTensor()
    tasks = {}
    for name in (READ, CACHED):
        dataset = ui.PairDataset(pairs, to_tensor, cache=name == CACHED)
        epoch = partial(deque, DataLoader(dataset, BATCH_SIZE), 0)  # keeps no batch
        tasks[name] = partial(measure.cost_of, epoch, warm_up=1)

    def decode() -> None:
        for path in itertools.chain.from_iterable(pairs):
            Image.open(path).load()

    read = partial(deque, ui.PairDataset(pairs), 0)
    for name, task in ((DECODED, decode), (PAIR, read)):
        tasks[name] = partial(measure.cost_of, task, warm_up=1)
    costs, rows = measure.run_in_turn(tasks, options.rounds), []
    for name, ratio in measure.ratios(costs, CACHED).items():
        milliseconds = measure.medians(costs[name]).cpu / len(pairs) * 1000
        rows.append([name, f"{ratio:.1f}", f"{milliseconds:.2f}"])
    table = measure.markdown_table(["loading", "CPU of a sample", "milliseconds"], rows)
    pair = measure.ratios(costs, DECODED)[PAIR]
    return (
        f"{table}\n\nA pair read costs {pair:.1f} times its files decoded (goal 2.5)."
    )


if __name__ == "__main__":
    measure.run_command("loading", __doc__, make_text, 15)
