"""Compare networks: CPU time of a training step, and accuracy at equal steps.

python -m benchmarks.networks                           # minutes
python -m benchmarks.networks --accuracy --keep FILE    # hours

The step: batch 4 of 256x256, forward, BCE, backward, Adam, one thread. Accuracy: mean
IoU over pictures (256x224) of maps that were not trained on, median of the seeds; the
same data, schedule and start for all, at two peak learning rates.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks.measure import (
    PICTURES,
    markdown_table,
    paragraph,
    relative_cpu,
    run_command,
    run_in_turn,
    seeded,
)
from benchmarks.nets import (
    NETWORKS,
    TEXTBOOK,
    count_parameters,
    need_packages,
    set_prior,
)

BATCH_SIZE = 4
SIZE = 256  # pixels, of the timed step
STEPS = 250
RATES = (1e-3, 4e-3)  # peaks: Adam's usual rate, and one near the module's 3e-3
VAL_SHARE = 0.25
SPLIT_SEED = 0

Makers = Mapping[str, Callable[[], nn.Module]]


class Run(NamedTuple):
    """One training: which network, at which peak rate, from which seed."""

    network: str
    rate: float
    seed: int


def make_step(network: nn.Module, channels_last: bool) -> Callable[[], None]:
    """Make a function that does one whole training step on a fixed batch.

    channels_last: turn network and images to that layout, else leave them as they come.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(BATCH_SIZE, 3, SIZE, SIZE, generator=generator)
    target = (image[:, :1] > 0.5).float()
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(image), target).backward()
        optimizer.step()

    return step


def step_costs(makers: Makers, rounds: int) -> dict[str, tuple[float, float]]:
    """Time a step of each network: (as it comes, turned to channels last).

    Both relative to the textbook network as it comes.
    """
    steps = {
        (name, channels_last): make_step(seeded(0, make), channels_last)
        for name, make in makers.items()
        for channels_last in (False, True)
    }
    ratios = relative_cpu(run_in_turn(steps, rounds), (TEXTBOOK, False))
    return {name: (ratios[name, False], ratios[name, True]) for name in makers}


def read_samples(folder: Path, ids: Sequence[int]) -> ui.Sample:
    """Read pairs as one sample: image (N, 3, H, W), target (N, 1, H, W)."""
    pairs = [(folder / f"{i}_input.png", folder / f"{i}_target.jpg") for i in ids]
    dataset = ui.PairDataset(pairs, ui.ImageTargetToTensor())
    images, targets = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    return ui.Sample(torch.stack(images), torch.stack(targets))


def draw_batches(train: ui.Sample, seed: int) -> Iterator[ui.Sample]:
    """Draw batches without end, each picture once an epoch, half of them mirrored."""
    rng = np.random.default_rng(seed)
    while True:
        order = torch.from_numpy(rng.permutation(len(train.image)))
        for chosen in order.split(BATCH_SIZE):
            if len(chosen) < BATCH_SIZE:
                break
            image, target = train.image[chosen], train.target[chosen]
            mirrored = torch.from_numpy(rng.random(BATCH_SIZE) < 0.5)
            image[mirrored] = image[mirrored].flip(-1)
            target[mirrored] = target[mirrored].flip(-1)
            yield ui.Sample(image, target)


def train_network(
    network: nn.Module, train: ui.Sample, run: Run, steps: int, bar: tqdm
) -> None:
    """Train as `UISegmentationSystem` does: BCE, Adam, OneCycle, gradients clipped."""
    set_prior(network, ui.foreground_share(train.target))
    optimizer = torch.optim.Adam(network.parameters(), run.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, run.rate, total_steps=steps, div_factor=10, final_div_factor=100
    )
    network.train()
    for image, target in itertools.islice(draw_batches(train, run.seed), steps):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(image), target).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.update()


@torch.inference_mode()
def mean_iou(network: nn.Module, val: ui.Sample) -> float:
    """Average the pictures' own IoU, 0..1."""
    network.eval()
    return mean(
        float(ui.binary_iou(network(image[None]), target[None], from_logits=True))
        for image, target in zip(val.image, val.target, strict=True)
    )


def read_runs(keep: Path | None) -> dict[Run, float]:
    """Read what `--keep` has kept: runs and their mean IoU."""
    if keep is None or not keep.exists():
        return {}
    lines = [json.loads(line) for line in keep.read_text().splitlines()]
    return {
        Run(line["network"], line["rate"], line["seed"]): line["iou"] for line in lines
    }


def keep_run(keep: Path | None, run: Run, iou: float) -> None:
    """Append a finished run to the file of `--keep`, if there is one."""
    if keep is not None:
        with keep.open("a") as file:
            file.write(json.dumps({**run._asdict(), "iou": iou}) + "\n")


def accuracies(
    makers: Makers, num_seeds: int, steps: int, keep: Path | None
) -> dict[Run, float]:
    """Train every network at every rate and seed; mean IoU on maps never seen."""
    items = json.loads((PICTURES / "index.json").read_text())["items"]
    parts = ui.group_split([item["map"] for item in items], VAL_SHARE, SPLIT_SEED)
    train, val = (
        read_samples(PICTURES, [items[i]["id"] for i in part]) for part in parts
    )
    done = read_runs(keep)
    runs = itertools.starmap(Run, itertools.product(makers, RATES, range(num_seeds)))
    todo = sorted((run for run in runs if run not in done), key=lambda run: run.seed)
    with tqdm(total=len(todo) * steps, desc="training", unit="step") as bar:
        for run in todo:
            bar.set_postfix_str(run.network)
            network = seeded(run.seed, makers[run.network])
            train_network(network, train, run, steps, bar)
            done[run] = mean_iou(network, val)
            keep_run(keep, run, done[run])
    return done


def table(
    makers: Makers,
    costs: Mapping[str, tuple[float, float]],
    ious: Mapping[Run, float],
) -> str:
    """Draw the table; without accuracies their columns are left out."""
    header = ["network", "parameters", "CPU of a step", "channels last"]
    header += [f"IoU at {rate:g}" for rate in RATES if ious]
    seeds = by_setting(ious)
    rows = []
    for name, make in makers.items():
        row = [name, f"{count_parameters(make()) / 1e6:.2f} M"]
        row += [f"{cost:.2f}" for cost in costs[name]]
        row += [iou_text(seeds[name, rate]) for rate in RATES if ious]
        rows.append(row)
    return markdown_table(header, rows)


def by_setting(ious: Mapping[Run, float]) -> dict[tuple[str, float], list[float]]:
    """Put together what the seeds of a network at a rate reached."""
    taken: dict[tuple[str, float], list[float]] = {}
    for run, iou in ious.items():
        taken.setdefault((run.network, run.rate), []).append(iou)
    return taken


def iou_text(seeds: Sequence[float]) -> str:
    """Write the median over seeds, and how many they are."""
    return f"{median(seeds):.2f} ({len(seeds)})"


def note(ious: Mapping[Run, float]) -> str:
    """Say what the columns are."""
    step = (
        f"CPU: of a training step, batch {BATCH_SIZE}, {SIZE}x{SIZE}, one thread, "
        "relative to the textbook UNet as it comes."
    )
    if not ious:
        return paragraph(step)
    return paragraph(
        f"{step} IoU: mean over the pictures of maps not trained on, at their own "
        f"256x224, after {STEPS} steps at that peak rate, all else equal; the median "
        "of as many seeds as the brackets say. One network's seeds differ by up to "
        f"{spread(ious):.2f}."
    )


def spread(ious: Mapping[Run, float]) -> float:
    """Find the largest difference between two seeds of one network at one rate."""
    return max(max(seeds) - min(seeds) for seeds in by_setting(ious).values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="timed steps of each network"
    )
    parser.add_argument("--accuracy", action="store_true", help="train as well (hours)")
    parser.add_argument(
        "--seeds", type=int, default=2, help="trainings of each network at each rate"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="file to append finished trainings to, and not to repeat those in it",
    )
    return parser


def make_text(options: argparse.Namespace) -> str:
    """Time the steps and, if asked for, train: the table."""
    if options.write and not options.accuracy:
        raise ValueError("--write needs --accuracy: the README's table has both")
    need_packages()
    ious = {}
    if options.accuracy:
        ious = accuracies(NETWORKS, options.seeds, STEPS, options.keep)
    costs = step_costs(NETWORKS, options.rounds)
    return f"{table(NETWORKS, costs, ious)}\n\n{note(ious)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and with --write put it into the README."""
    return run_command(_parser(), argv, "networks", make_text)


if __name__ == "__main__":
    sys.exit(main())
