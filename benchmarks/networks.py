"""Compare networks: CPU time of a training step, and accuracy at equal steps.

python -m benchmarks.networks                           # minutes
python -m benchmarks.networks --accuracy --keep FILE    # hours
python -m benchmarks.networks --only "UNet()" --split 1    # minutes, its scores alone
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import default_collate
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks import measure
from tools.train_reference import read_maps

BATCH_SIZE, SIZE = 4, 256  # of the timed step; pixels
STEPS = 250
RATES = (2e-3, 4e-3)  # peaks of Adam; of Muon KERNEL_RATE times as much
VAL_SHARE = 0.25
WIDTHS = (16, 32, 64, 128, 256)
# As many parameters as `ui.UNet()` has, one level as wide as in MONAI's own default.
SMALL_MONAI = (22, 22, 44, 88, 176, 22)
# The narrowest decoder that still ends as wide as the default one.
SMALL_DECODER = (128, 64, 32, 16, 16)


def double_conv(num_in: int, num_out: int, batch_norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: (B, C_in, H, W) -> (B, C_out, H, W)."""
    layers: list[nn.Module] = []
    for channels in (num_in, num_out):
        norm = [nn.BatchNorm2d(num_out)] if batch_norm else []
        layers += [nn.Conv2d(channels, num_out, 3, padding=1), *norm, nn.ReLU(True)]
    return nn.Sequential(*layers)


class Skip(nn.Module):
    """Concatenates its input with what some layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def textbook_unet(batch_norm: bool = False) -> nn.Sequential:
    """The UNet of many tutorials, PyTorch's own initial weights, 1.94 M parameters.

    (B, 3, H, W) -> logits (B, 1, H, W); H, W multiples of 16. Built from the bottom up.
    """
    level = double_conv(*WIDTHS[-2:], batch_norm)
    steps = list(zip((3, *WIDTHS), WIDTHS, WIDTHS[1:], strict=False))
    for num_in, thin, wide in reversed(steps):
        up = nn.ConvTranspose2d(wide, thin, 2, stride=2)
        first, last = (double_conv(n, thin, batch_norm) for n in (num_in, 2 * thin))
        level = nn.Sequential(first, Skip(nn.MaxPool2d(2), level, up), last)
    return nn.Sequential(level, nn.Conv2d(WIDTHS[0], 1, 1))


def monai_unet(**widths: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, **widths)


def smp_unet(encoder: str, **widths: tuple[int, ...]) -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet(encoder, encoder_weights=None, **widths)


# From random weights to one logit a pixel.
MONAI = "MONAI BasicUNet"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "textbook UNet": textbook_unet,
    "UNet()": ui.UNet,
    "UNet(fast=True)": partial(ui.UNet, fast=True),
    MONAI: monai_unet,
    "MONAI BasicUNet, small": partial(monai_unet, features=SMALL_MONAI),
    "smp Unet, resnet18": partial(smp_unet, "resnet18"),
    "smp Unet, lcnet": partial(
        smp_unet, "tu-lcnet_050", decoder_channels=SMALL_DECODER
    ),
}


class Run(NamedTuple):
    network: str
    rate: float  # the peak
    seed: int  # of the weights and the batches
    steps: int = STEPS
    split: int = 0  # the seed that chooses the maps not trained on


def train_step(network: nn.Module, optimizer: Optimizer, batch: ui.Sample) -> None:
    """Do a step as `UISegmentationSystem` does: BCE + Dice, gradients clipped."""
    optimizer.zero_grad()
    ui.bce_dice_loss(network(batch.image), batch.target).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def step_costs(rounds: int) -> dict[tuple[str, bool], float]:
    """Time a step of each network as it comes, and turned to channels last (True).

    Relative to MONAI's BasicUNet as it comes.
    """
    image, tasks = torch.rand(BATCH_SIZE, 3, SIZE, SIZE), {}
    target = (image[:, :1] > 0.5).float()
    for name, last in itertools.product(NETWORKS, (False, True)):
        layout = torch.channels_last if last else torch.preserve_format
        network = measure.seeded(0, NETWORKS[name]).to(memory_format=layout)
        batch = ui.Sample(image.to(memory_format=layout), target)
        step = partial(train_step, network, ui.Muon(network.parameters()), batch)
        tasks[name, last] = partial(measure.cost_of, step, warm_up=1)
    return measure.ratios(measure.run_in_turn(tasks, rounds), (MONAI, False))


def read_split(split: int) -> tuple[ui.Sample, ui.Sample]:
    """Read the pictures to train and to validate on, with no map in both.

    Each part is one sample: image (N, 3, H, W), target (N, 1, H, W).
    """
    dataset = ui.UIImageMaskDataset(measure.PICTURES, ui.ImageTargetToTensor())
    parts = ui.group_split(read_maps(measure.PICTURES), VAL_SHARE, split)
    train, val = (default_collate([dataset[i] for i in part]) for part in parts)
    return train, val


def draw_batches(train: ui.Sample, seed: int) -> Iterator[ui.Sample]:
    """Draw batches without end, each picture once an epoch, half of them mirrored."""
    rng = np.random.default_rng(seed)
    while True:
        order = torch.from_numpy(rng.permutation(len(train.image)))
        for chosen in order.split(BATCH_SIZE):
            if len(chosen) == BATCH_SIZE:
                mirrored = torch.from_numpy(rng.random(BATCH_SIZE) < 0.5)
                batch = ui.Sample(*(part[chosen] for part in train))
                for part in batch:
                    part[mirrored] = part[mirrored].flip(-1)
                yield batch


def train_network(network: nn.Module, train: ui.Sample, run: Run) -> None:
    """Train from the share of foreground on: Muon and Adam under OneCycle."""
    heads = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    share = torch.tensor(ui.foreground_share(train.target), dtype=torch.float64)
    nn.init.constant_(heads[-1].bias, float(torch.logit(share, eps=1e-3)))
    optimizer = ui.Muon(network.parameters(), run.rate)
    schedule = ui.one_cycle(optimizer, run.steps)
    network.train()
    batches = itertools.islice(draw_batches(train, run.seed), run.steps)
    for batch in tqdm(batches, run.network, run.steps, leave=False):
        train_step(network, optimizer, batch)
        schedule.step()


@torch.inference_mode()
def mean_iou(network: nn.Module, samples: Iterable[ui.Sample]) -> float:
    """Average the pictures' own IoU, 0..1."""
    network.eval()
    return mean(
        float(ui.binary_iou(network(image[None]), target[None], from_logits=True))
        for image, target in samples
    )


def train_all(runs: Sequence[Run], keep: Path | None) -> dict[Run, float]:
    """Do the trainings that a file does not hold yet: mean IoU of all, old and new.

    keep: the file, a line of JSON for each training; finished ones are appended.
    """
    lines = keep.read_text().splitlines() if keep and keep.exists() else []
    done = {Run(**line["run"]): line["iou"] for line in map(json.loads, lines)}
    todo = [run for run in runs if run not in done]
    parts = {split: read_split(split) for split in {run.split for run in todo}}
    for run in tqdm(todo, "training"):
        network = measure.seeded(run.seed, NETWORKS[run.network])
        train, val = parts[run.split]
        train_network(network, train, run)
        done[run] = mean_iou(network, zip(*val, strict=True))
        if keep:
            with keep.open("a") as file:
                print(json.dumps({"run": run._asdict(), "iou": done[run]}), file=file)
    return done


def make_text(options: argparse.Namespace) -> str:
    """Time the steps and, if asked for, train: the table, and how far seeds differ.

    Of one network alone no table, but the scores of its seeds at each rate.
    """
    only, setting = options.only, (options.steps, options.split)
    if options.write and (not options.accuracy or only or setting != (STEPS, 0)):
        raise ValueError("--write needs --accuracy, without --only, --steps, --split")
    ious: dict[tuple[str, float], list[float]] = defaultdict(list)
    if options.accuracy or only:  # seed by seed: if stopped, all have as many
        names = [only] if only else NETWORKS
        order = itertools.product(range(options.seeds), names, RATES)
        runs = [Run(name, rate, seed, *setting) for seed, name, rate in order]
        for run, iou in train_all(runs, options.keep).items():
            if (run.steps, run.split) == setting:
                ious[run.network, run.rate].append(iou)
    if only:
        taken = {rate: [f"{iou:.3f}" for iou in ious[only, rate]] for rate in RATES}
        return "\n".join(f"IoU at {rate:g}: {' '.join(taken[rate])}" for rate in taken)
    ui.keep_freed_memory()  # for all alike
    costs, rows = step_costs(options.rounds), []
    for name, make in NETWORKS.items():
        millions = sum(weights.numel() for weights in make().parameters()) / 1e6
        row = [name, f"{millions:.2f} M", *(f"{costs[name, x]:.2f}" for x in (0, 1))]
        seeds = [ious[name, rate] for rate in RATES if ious]
        rows.append([*row, *(f"{median(taken):.2f} ({len(taken)})" for taken in seeds)])
    header = ["network", "parameters", "CPU of a step", "channels last"]
    header += [f"IoU at {rate:g}" for rate in RATES if ious]
    text = measure.markdown_table(header, rows)
    if ious:
        spread = max(max(taken) - min(taken) for taken in ious.values())
        text += f"\n\nOne network's seeds differ by up to {spread:.2f}."
    return text


if __name__ == "__main__":
    flags = {
        "accuracy": {"action": "store_true", "help": "train as well (hours)"},
        "seeds": {"type": int, "default": 2, "help": "trainings at each rate"},
        "keep": {"type": Path, "help": "keep finished trainings here, repeat none"},
        "only": {"choices": NETWORKS, "help": "train this one alone"},
        "steps": {"type": int, "default": STEPS, "help": "of each training"},
        "split": {"type": int, "default": 0, "help": "seed that splits the maps"},
    }
    measure.run_command("networks", __doc__, make_text, 15, **flags)
