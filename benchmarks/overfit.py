"""Measure overfitting on purpose: how well in 125 steps, and at what price.

python -m benchmarks.overfit           # half an hour; see --help for less

Quality: BCE after 125 steps and the first step from which IoU is 0.99, on three pairs
and three seeds, medians. Batches of one: copies of one picture in a batch give the same
gradient at a multiple of the price (printed for one seed beside batches of four).

Price: a whole run through Lightning, data and validation included (batch 4, 125 steps),
as CPU time relative to the recipe of 2020, on one thread; and of the run of lesson 04,
whose batches hold the picture once.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks.measure import (
    PICTURES,
    Cost,
    markdown_table,
    paragraph,
    relative_cpu,
    run_command,
    run_in_turn,
    seeded,
)
from benchmarks.nets import TextbookUNet

PAIRS = (1, 51, 106)  # a dialogue, a table of powers, a menu of Freedoom
SIZE = (256, 256)
STEPS = 125
EPOCHS = 5
BATCH_SIZE = 4
GOAL = 0.99  # IoU


class Recipe2020(ui.UISegmentationSystem):
    """The lesson of 2020, on today's libraries.

    BCE from logits, Adam at 1e-3 throughout, gradients as they are, up to 256 channels,
    as its page says. Of the blocks the page says nothing: two convolutions with
    BatchNorm each, from PyTorch's initial weights, were usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = TextbookUNet(batch_norm=True)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets)

    def on_train_start(self) -> None:
        """Start from the weights as they are."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Leave the gradient as it is."""


class Files2020(Dataset[ui.Sample]):
    """Read and decode both files for every sample, and check nothing."""

    def __init__(self, pairs: Sequence[ui.Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ui.Sample:
        pictures = [
            v2.functional.resize(Image.open(file).convert(mode), SIZE)
            for file, mode in zip(self.pairs[index], ("RGB", "1"), strict=True)
        ]
        image, target = (torch.from_numpy(np.array(p)).float() for p in pictures)
        return ui.Sample(image.permute(2, 0, 1) / 255, target[None])


class Data2020(ui.UISegmentationData):
    """The data of 2020: after each epoch all samples are validated, one by one."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.train_set = self.val_set = Files2020(self.train_set.pairs)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, batch_size=1)


RECIPES: dict[str, Callable[[], ui.UISegmentationSystem]] = {
    "2020": Recipe2020,
    "`UNet()`": ui.UISegmentationSystem,
    "`UNet(fast=True)`": partial(ui.UISegmentationSystem, fast=True),
}
BASE = "2020"
# How lesson 04 does it: copies of one picture in a batch only cost.
LESSON = "`UNet()`, batches of one"


class Score(NamedTuple):
    """How well a network knows one sample; `step` is inf if IoU never reached 0.99."""

    bce: float
    step: float


class Follow(pl.Callback):
    """Take IoU and BCE on one sample in evaluation mode after every step."""

    def __init__(self, sample: ui.Sample, bar: tqdm | None = None) -> None:
        self.image, self.target = (part[None] for part in sample)
        self.bar = bar
        self.ious: list[float] = []
        self.bce = math.inf

    @torch.no_grad()
    def on_train_batch_end(self, _: Any, module: pl.LightningModule, *__: Any) -> None:
        module.eval()
        logits = module(self.image)
        module.train()
        self.ious.append(float(ui.binary_iou(logits, self.target, from_logits=True)))
        self.bce = float(F.binary_cross_entropy_with_logits(logits, self.target))
        if self.bar is not None:
            self.bar.update()

    def score(self) -> Score:
        """Give the last BCE and the first step at which IoU reached the goal."""
        steps = (step for step, iou in enumerate(self.ious, 1) if iou >= GOAL)
        return Score(self.bce, next(steps, math.inf))


def make_trainer(epochs: int, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def open_pair(number: int, num_samples: int) -> ui.OverfitDataset:
    """Give one of the project's pairs `num_samples` times, as tensors of SIZE."""
    transform = ui.ImageTargetCompose(
        [ui.ImageTargetResize(SIZE), ui.ImageTargetToTensor()]
    )
    files = (PICTURES / f"{number}_input.png", PICTURES / f"{number}_target.jpg")
    return ui.OverfitDataset(*files, num_samples, transform)


def overfit(
    recipe: Callable[[], ui.UISegmentationSystem],
    dataset: ui.OverfitDataset,
    seed: int,
    batch_size: int = 1,
    bar: tqdm | None = None,
) -> Score:
    """Train on one pair for one epoch and say how well it went."""
    follow = Follow(dataset[0], bar)
    loader = DataLoader(dataset, batch_size)
    make_trainer(1, [follow]).fit(seeded(seed, recipe), loader)
    return follow.score()


def overfit_all(
    recipes: Mapping[str, Callable[[], ui.UISegmentationSystem]],
    num_seeds: int,
    steps: int,
) -> dict[str, list[Score]]:
    """Overfit every pair with every recipe: per recipe a median score per pair."""
    total = len(recipes) * len(PAIRS) * num_seeds * steps
    scores: dict[str, list[Score]] = {name: [] for name in recipes}
    with tqdm(total=total, desc="overfitting", unit="step") as bar:
        for name, recipe in recipes.items():
            for number in PAIRS:
                dataset = open_pair(number, steps)
                runs = [
                    overfit(recipe, dataset, seed, bar=bar) for seed in range(num_seeds)
                ]
                scores[name].append(Score(*map(median, zip(*runs, strict=True))))
    return scores


def compare_batches(steps: int) -> tuple[Score, Score]:
    """Overfit the first pair from seed 0 with batches of one and of four."""
    recipe = ui.UISegmentationSystem
    one = overfit(recipe, open_pair(PAIRS[0], steps), 0)
    four = overfit(recipe, open_pair(PAIRS[0], steps * BATCH_SIZE), 0, BATCH_SIZE)
    return one, four


def whole_run(
    recipe: Callable[[], ui.UISegmentationSystem],
    data: Callable[..., ui.UISegmentationData],
    steps: int,
    folder: Path = PICTURES,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Do what lesson 04 does: find the pair, 5 epochs of training and validation."""
    samples = max(steps // EPOCHS, 1) * batch_size
    batches = data(folder, batch_size, SIZE, overfit_num=samples)
    make_trainer(EPOCHS).fit(seeded(0, recipe), batches)


def whole_runs(rounds: int, steps: int) -> dict[str, list[Cost]]:
    """Time whole runs of all recipes in turn; the data of 2020 go with its recipe."""
    tasks = {
        name: partial(
            whole_run,
            recipe,
            Data2020 if name == BASE else ui.UISegmentationData,
            steps,
        )
        for name, recipe in RECIPES.items()
    }
    tasks[LESSON] = partial(
        whole_run,
        ui.UISegmentationSystem,
        ui.UISegmentationData,
        steps,
        batch_size=1,
    )
    return run_in_turn(tasks, rounds, warm_up=0)


def score_text(score: Score) -> str:
    step = "never" if score.step == math.inf else f"step {score.step:.0f}"
    return f"{score.bce:.2g}, {step}"


def table(
    scores: Mapping[str, Sequence[Score]], costs: Mapping[str, Sequence[Cost]]
) -> str:
    """Draw the table: a row per recipe."""
    ratios = relative_cpu(costs, BASE)
    header = ["recipe", *(f"pair {number}" for number in PAIRS), "CPU", "seconds"]
    rows = [
        [
            name,
            *map(score_text, scores[name]),
            f"{ratios[name]:.2f}",
            f"{median(cost.wall for cost in costs[name]):.0f}",
        ]
        for name in scores
    ]
    price = [f"{ratios[LESSON]:.2f}", f"{median(c.wall for c in costs[LESSON]):.0f}"]
    rows.append([LESSON, *["as above"] * len(PAIRS), *price])
    rows.append(["goal", *["0.002, step 40"] * len(PAIRS), "0.29; fast 0.125", ""])
    return markdown_table(header, rows)


def note(one: Score, four: Score) -> str:
    """Say what the columns are, and that the size of the batch does not matter."""
    return paragraph(
        f"Pair: BCE after {STEPS} steps and first step with IoU {GOAL}, medians of the "
        f"seeds, in batches of one. On pair {PAIRS[0]}, one seed: {score_text(one)}; "
        f"in batches of four: {score_text(four)}. CPU: of a whole run through "
        "Lightning, data and validation included, batches of four; the recipe of 2020 "
        "validates all of its hundred samples after each epoch, as it was published. "
        "The last row is lesson 04 as it is. Seconds: on one core of the machine that "
        "measured."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overfit", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each recipe on each pair"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="timed whole runs of each recipe"
    )
    return parser


def make_text(options: argparse.Namespace) -> str:
    """Measure price and quality: the table and its note."""
    ui.quiet_lightning()
    costs = whole_runs(options.rounds, STEPS)
    scores = overfit_all(RECIPES, options.seeds, STEPS)
    return f"{table(scores, costs)}\n\n{note(*compare_batches(STEPS))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and with --write put it into the README."""
    return run_command(_parser(), argv, "overfit", make_text)


if __name__ == "__main__":
    sys.exit(main())
