"""Measure what keeping freed memory saves: a training step, and a large prediction.

python -m benchmarks.memory           # minutes; needs glibc
"""

import argparse
import itertools
from functools import partial

import torch
from PIL import Image

import ui_segmentation_system as ui
from benchmarks import measure
from benchmarks.networks import BATCH_SIZE, SIZE, train_step

SCREEN = (1920, 1080)
STEP = f"training step, {BATCH_SIZE} of {SIZE}x{SIZE}"
PREDICTION = f"prediction, {SCREEN[0]}x{SCREEN[1]} at full size"
TASKS = (STEP, PREDICTION)


def time_task(task: str, keep: bool) -> measure.Cost:
    """Time a task in this process, which keeps what it frees from then on or not."""
    if keep and not ui.keep_freed_memory():
        raise ValueError("freed memory cannot be kept: expected Linux with glibc")
    torch.manual_seed(0)
    if task == STEP:
        image = torch.rand(BATCH_SIZE, 3, SIZE, SIZE)
        network = ui.UNet()
        batch = ui.Sample(image, (image[:, :1] > 0.5).float())
        run = partial(train_step, network, ui.Muon(network.parameters()), batch)
    else:
        picture = Image.effect_noise(SCREEN, 64).convert("RGB")
        run = partial(ui.UISegmentationSystem().eval().predict_mask, picture)
    return measure.cost_of(run, warm_up=1)


def make_text(options: argparse.Namespace) -> str:
    """Time both tasks both ways: the table."""
    pairs = itertools.product(TASKS, (False, True))
    # Each in a process of its own, since malloc cannot be told to forget.
    tasks = {p: partial(measure.in_fresh_process, time_task, *p) for p in pairs}
    costs, rows = measure.run_in_turn(tasks, options.rounds), []
    for task in TASKS:
        ratio = measure.ratios(costs, (task, False))[task, True]
        both = (measure.medians(costs[task, keep]).cpu for keep in (False, True))
        rows.append([task, f"{ratio:.2f}", *(f"{seconds:.2f}" for seconds in both)])
    header = ["task", "CPU, kept", "seconds, given back", "seconds, kept"]
    return measure.markdown_table(header, rows)


if __name__ == "__main__":
    measure.run_command("memory", __doc__, make_text, 7)
