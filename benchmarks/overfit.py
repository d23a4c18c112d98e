"""Measure overfitting on purpose: how well in 125 steps, and at what price.

python -m benchmarks.overfit           # half an hour; see --help for less
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks import measure
from benchmarks.networks import textbook_unet
from tools.train_reference import Trainer

PAIRS = (1, 51, 106)  # a dialogue, a table of powers, a menu of Freedoom
SIZE = (256, 256)
STEPS = 125
EPOCHS = 5
BATCH_SIZE = 4
GOAL = 0.99  # IoU
GOALS = ["goal", *["0.001, step 30"] * len(PAIRS), "0.25; fast 0.08", ""]


class System2020(pl.LightningModule):
    """The lesson of 2020, on today's libraries.

    BCE from logits, Adam at 1e-3 throughout, gradients as they are, up to 256 channels,
    as its page says. Of the blocks the page says nothing: two convolutions with
    BatchNorm each, from PyTorch's initial weights, were usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = textbook_unet(batch_norm=True)

    def training_step(self, batch: ui.Sample, _: int) -> torch.Tensor:
        logits = self.network(batch.image)
        return F.binary_cross_entropy_with_logits(logits, batch.target)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


class Pairs2020(ui.PairDataset):
    """Reads and decodes both files for every sample, and checks nothing."""

    def __getitem__(self, index: int) -> ui.Sample:
        pictures = [
            v2.functional.resize(Image.open(file).convert(mode), SIZE)
            for file, mode in zip(self.pairs[index], ("RGB", "1"), strict=True)
        ]
        image, target = (torch.from_numpy(np.array(p)).float() for p in pictures)
        return ui.Sample(image.permute(2, 0, 1) / 255, target[None])


# How lesson 05 does it: copies of one picture in a batch only cost.
LESSON = "`UNet()`, batches of one"
SYSTEMS: dict[str, Callable[[], pl.LightningModule]] = {
    "2020": System2020,
    "`UNet()`": ui.UISegmentationSystem,
    "`UNet(fast=True)`": partial(ui.UISegmentationSystem, fast=True),
}


class Follow(pl.Callback):
    """Takes BCE and IoU on one sample in evaluation mode after every step."""

    def __init__(self, sample: ui.Sample) -> None:
        self.image, self.target = (part[None] for part in sample)
        self.bces: list[float] = []
        self.ious: list[float] = []

    @torch.no_grad()
    def on_train_batch_end(self, _: Any, system: pl.LightningModule, *__: Any) -> None:
        system.eval()
        logits = system.network(self.image)
        system.train()
        self.bces += [float(F.binary_cross_entropy_with_logits(logits, self.target))]
        self.ious += [float(ui.binary_iou(logits, self.target, from_logits=True))]


def overfit(name: str, number: int, num_seeds: int, batch_size: int = 1) -> str:
    """Train for STEPS on one of the project's pairs, from each seed.

    Gives the median BCE, and the median step from which IoU reached the goal.
    """
    resize, to_tensor = ui.ImageTargetResize(SIZE), ui.ImageTargetToTensor()
    transform, samples = ui.ImageTargetCompose([resize, to_tensor]), STEPS * batch_size
    pair = ui.find_pairs(measure.PICTURES)[number - 1]
    dataset = ui.OverfitDataset(*pair, samples, transform)
    bces, steps = [], []
    for seed in range(num_seeds):
        system, follow = measure.seeded(seed, SYSTEMS[name]), Follow(dataset[0])
        trainer = Trainer(max_epochs=1, callbacks=[follow])
        trainer.fit(system, DataLoader(dataset, batch_size))
        bces.append(follow.bces[-1])
        steps.append(1 + sum(iou < GOAL for iou in accumulate(follow.ious, max)))
    return f"{median(bces):.2g}, step {median(steps):.0f}"


def whole_run(name: str) -> None:
    """Do what lesson 05 does: find the pair, 5 epochs of training and validation.

    In 2020 all samples were validated after each epoch, one by one.
    """
    batch_size = 1 if name == LESSON else BATCH_SIZE
    samples = STEPS // EPOCHS * batch_size
    system = measure.seeded(0, SYSTEMS.get(name, ui.UISegmentationSystem))
    if name == "2020":
        dataset = Pairs2020(ui.find_pairs(measure.PICTURES)[:1] * samples)
        data = [DataLoader(dataset, batch_size), DataLoader(dataset)]
    else:
        data = [ui.UISegmentationData(measure.PICTURES, batch_size, SIZE, samples)]
    Trainer(max_epochs=EPOCHS).fit(system, *data)


def make_text(options: argparse.Namespace) -> str:
    """Measure price and quality: the table, and that the batch's size is no matter."""
    ui.quiet_lightning()
    ui.keep_freed_memory()  # for all alike
    runs = {name: partial(whole_run, name) for name in (*SYSTEMS, LESSON)}
    tasks = {name: partial(measure.cost_of, run) for name, run in runs.items()}
    costs, rows = measure.run_in_turn(tasks, options.rounds), []
    for name, cpu in measure.ratios(costs, "2020").items():
        scores = ["as above"] * len(PAIRS)
        if name in SYSTEMS:
            scores = [overfit(name, n, options.seeds) for n in tqdm(PAIRS, name)]
        seconds = measure.medians(costs[name]).wall
        rows.append([name, *scores, f"{cpu:.2f}", f"{seconds:.0f}"])
    header = ["recipe", *(f"pair {number}" for number in PAIRS), "CPU", "seconds"]
    table = measure.markdown_table(header, [*rows, GOALS])
    one, four = (overfit("`UNet()`", PAIRS[0], 1, size) for size in (1, BATCH_SIZE))
    return f"{table}\n\nPair {PAIRS[0]}, one seed: {one}; in batches of four: {four}."


if __name__ == "__main__":
    seeds = {"type": int, "default": 3, "help": "runs on each pair"}
    measure.run_command("overfit", __doc__, make_text, 3, seeds=seeds)
