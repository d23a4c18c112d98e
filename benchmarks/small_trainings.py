"""Repeat the small trainings of lessons 06, 07, 09, 10 and 12 over several seeds.

python -m benchmarks.small_trainings   # hours; writes small_trainings.csv
python -m benchmarks.small_trainings --only games   # minutes; keeps the other rows

The lessons draw the table and repeat one row of it live.
"""

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.functional.classification import binary_precision, binary_recall
from torchvision.models import mobilenet_v2
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks import measure
from benchmarks.networks import mean_iou
from tools.tile_game import render_screen
from tools.train_reference import CLASS_FILES, Trainer, class_weights, split_parts

TABLE = Path(__file__).with_name("small_trainings.csv")
ROADS = measure.ROOT / "test_roads"
SETTINGS = {"learning_rate": 6e-3, "max_features": 64}
SIZE, EPOCHS = (84, 96), 7
HALF_SIZE, STEPS = (112, 128), 250  # of trainings with a pretrained encoder
# CPU time of a step of theirs, beside one of `UNet()`: medians, taken in turn.
STEP_COSTS = {"fine-tuned": 1.01, "frozen": 0.61, "random": 1.47}
Samples = Sequence[ui.Sample] | Dataset[ui.Sample]
Scores = dict[str, str | float]
Row = tuple[str, str, int, Scores]  # experiment, variant, seed
SYSTEM = ui.UISegmentationSystem
Make = Callable[..., ui.UISegmentationSystem]


def resized(size: Sequence[int], *augment: ui.PairTransform) -> ui.ImageTargetCompose:
    """Resize, change at random, and make tensors."""
    steps = [ui.ImageTargetResize(size), *augment, ui.ImageTargetToTensor()]
    return ui.ImageTargetCompose(steps)


class Pictures:
    """The screenshots, and the parts that the lessons split them into."""

    def __init__(self) -> None:
        self.pairs = ui.find_pairs(measure.PICTURES)
        index = json.loads((measure.PICTURES / "index.json").read_bytes())
        self.class_names = index["class_names"]
        self.maps = [item["map"] for item in index["items"]]
        self.games = np.array([item["game"] for item in index["items"]])
        self.train, self.val, _ = split_parts(self.maps)
        self.rest = sorted(self.train + self.val)

    def by_game(self) -> list[list[int]]:
        """List those of Flare and those of Freedoom, without the test part."""
        names = "flare", "freedoom"
        return [[i for i in self.rest if self.games[i] == name] for name in names]

    def open(
        self, part: Sequence[int], *augment: ui.PairTransform, size: tuple = SIZE
    ) -> Samples:
        """Read pictures at the small size; those not changed at random are kept."""
        pairs = [self.pairs[i] for i in part]
        samples = ui.PairDataset(pairs, resized(size, *augment), cache=True)
        return samples if augment else list(samples)


def learn(
    samples: Samples, seed: int, epochs: int = EPOCHS, make: Make = SYSTEM, **more: Any
) -> ui.UISegmentationSystem:
    """Train a small network: batches of four, in an order of the seed."""
    pl.seed_everything(seed, verbose=False)
    system = make(**SETTINGS | more)
    loader = DataLoader(samples, 4, shuffle=True, drop_last=True)
    Trainer(max_epochs=epochs).fit(system, loader)
    return system.eval()


def scores_of(system: ui.UISegmentationSystem, samples: Samples) -> Scores:
    """Give IoU (mean of the pictures), precision and recall (pooled)."""
    image, target = (torch.stack(part) for part in zip(*samples, strict=True))
    with torch.inference_mode():
        p = system(image).sigmoid()
    return {
        "iou": mean_iou(system, samples),
        "precision": float(binary_precision(p, target.int())),
        "recall": float(binary_recall(p, target.int())),
    }


def guesses(experiment: str, known: Samples, judged: Samples) -> Iterator[Row]:
    """Score what costs nothing: everything, and the average mask of what is known."""
    average = (torch.stack([target for _, target in known]).mean(0) > 0.5).float()
    for name, mask in ("everything", average * 0 + 1), ("average mask", average):
        masks = [(mask, target) for _, target in judged]  # it looks at no picture
        yield experiment, name, 0, {"iou": mean_iou(nn.Identity(), masks)}


def leaks(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Judge ten pictures after training on other maps, sisters, or next frames."""
    flare = [i for i in pictures.rest if pictures.games[i] == "flare"]
    count = Counter(pictures.maps[i] for i in flare)
    large = [name for name in count if count[name] >= 3][:10]
    judged = [next(i for i in flare if pictures.maps[i] == name) for name in large]
    others = [i for i in flare if pictures.maps[i] not in large]
    sisters = [i for i in flare if pictures.maps[i] in large and i not in judged]
    shift = ui.ImageTargetRandomAffine(translate=(0.03, 0.03))
    moved = pictures.open(judged, ui.ImageTargetColorJitter(0.1), shift)
    judged_samples, other_samples = pictures.open(judged), pictures.open(others)
    yield from guesses("leak", other_samples, judged_samples)
    for seed in seeds:
        torch.manual_seed(seed)
        sets = {
            "other maps only": other_samples,
            "sisters": other_samples[:-20] + pictures.open(sisters),
            "next frames": other_samples[:-10] + list(moved),
        }
        for name, samples in sets.items():
            yield "leak", name, seed, scores_of(learn(samples, seed), judged_samples)


def amounts_and_losses(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Train on twice eight pictures and on all, augmented or not; by several losses."""
    train, val = pictures.open(pictures.train), pictures.open(pictures.val)
    change = (
        ui.ImageTargetRandomHorizontalFlip(),
        ui.ImageTargetRandomAffine(translate=(0.1, 0.1), scale=(0.8, 1.25)),
        ui.ImageTargetColorJitter(0.3, 0.3, 0.3),
    )
    parts = {"eight": pictures.train[::10], "other eight": pictures.train[5::10]}
    parts["all"] = pictures.train
    amounts = {}
    for part, places in parts.items():
        known, rounds = pictures.open(places), len(train) // len(places)
        amounts[part] = known, known * rounds
        amounts[f"{part}, changed"] = known, pictures.open(places * rounds, *change)
    losses = {"BCE": {"loss": "bce"}, "BCE + Dice": {}}
    losses["BCE, pos_weight 5"] = {"loss": "bce", "pos_weight": 5.0}
    for experiment in ("amount", "loss"):
        yield from guesses(experiment, train, val)
    for seed in seeds:
        for name, (known, samples) in amounts.items():
            system = learn(samples, seed)
            scores = {"iou_known": scores_of(system, known)["iou"]}
            yield "amount", name, seed, scores | scores_of(system, val)
        for name, options in losses.items():
            yield "loss", name, seed, scores_of(learn(train, seed, **options), val)


def folds(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Train on two thirds of the maps, judge by the third: k-fold with k = 3."""
    names = sorted({pictures.maps[i] for i in pictures.rest})
    names = list(np.random.default_rng(1).permutation(names))
    fold_of = {i: names.index(pictures.maps[i]) % 3 for i in pictures.rest}
    for fold in range(3):
        known = pictures.open([i for i in fold_of if fold_of[i] != fold])
        judged = pictures.open([i for i in fold_of if fold_of[i] == fold])
        for experiment, name, *row in guesses("fold", known, judged):
            yield experiment, f"{name}, {fold + 1}", *row
        for seed in seeds:
            scores = scores_of(learn(known, seed), judged)
            yield "fold", f"fold {fold + 1}", seed, scores


def games(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Train on one game, judge by the other, with a little help of two kinds."""
    flare, doom = pictures.by_game()
    drawn = []
    for screen in map(render_screen, range(12)):
        mask = Image.fromarray((screen.classes > 0).astype(np.uint8) * 255)
        drawn.append(resized(SIZE)(Image.fromarray(screen.image), mask))
    judged = pictures.open(doom[12:])
    sets = {
        "Flare": pictures.open(flare),
        "drawn": pictures.open(flare[12:]) + drawn,
        "real": pictures.open(flare[12:] + doom[:12]),
    }
    yield from guesses("game", sets["Flare"], judged)
    for seed, (name, samples) in itertools.product(seeds, sets.items()):
        yield "game", name, seed, scores_of(learn(samples, seed, 8), judged)


def roads(_: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Lesson 09: roads of other drives, with neighbouring frames, with other masks."""
    pairs = ui.RoadDataset(ROADS).pairs
    drives = (ROADS / "drives.csv").read_text(encoding="utf-8").splitlines()[1:]
    drive_of = {f"{a}_{b}.png": drive for a, b, drive in (x.split(",") for x in drives)}
    groups = [drive_of[image.name] for image, _ in pairs]
    train, test = ui.group_split(groups, 0.2, 0)
    flip = ui.ImageTargetRandomHorizontalFlip(0.5)
    moving = resized((64, 212), ui.ImageTargetRandomCrop((64, 160)), flip)
    still = ui.RoadDataset(ROADS, resized((64, 212)))
    known = torch.stack([still[i].target == 1 for i in train]).float()
    average = (known.mean(0) > 0.5).float()
    between, beside = test[::2], test[1::2]
    kept = np.random.default_rng(0).permutation(train)[len(beside) :]
    own, near = ([pairs[i] for i in part] for part in (train, [*kept, *beside]))
    folder = pairs[0][1].parent  # below: one of the same number
    wrong = [(image, folder / f"um_road_{image.stem[-6:]}.png") for image, _ in own]
    runs = {
        ("road", "network"): (own, test),
        ("road", "another scene's masks"): (wrong, test),
        ("road leak", "other drives"): (own, between),
        ("road leak", "neighbouring frames"): (near, between),
    }
    masks = [(average, still[i].target) for i in test]  # it looks at no picture
    yield "road", "average mask", 0, {"iou": mean_iou(nn.Identity(), masks)}
    for seed, ((experiment, name), run) in itertools.product(seeds, runs.items()):
        part, judged = run
        samples = ui.PairDataset(part, moving, read_target=ui.read_road, cache=True)
        iou = mean_iou(learn(samples, seed, 25), [still[i] for i in judged])
        yield experiment, name, seed, {"iou": iou}


def class_dice_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross entropy, and 1 - Dice of each class in the batch, averaged over classes."""
    p = logits.softmax(dim=1)
    wanted = F.one_hot(ids, p.shape[1]).permute(0, 3, 1, 2)
    both, either = (x.sum(dim=(0, 2, 3)) for x in (p * wanted, p + wanted))
    dice = (2 * both + 1) / (either + 1)
    return F.cross_entropy(logits, ids) + 1 - dice.mean()


def focal_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross entropy in which pixels that are nearly right count less.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, gamma 2.
    """
    cross_entropy = F.cross_entropy(logits, ids, reduction="none")
    return ((1 - (-cross_entropy).exp()) ** 2 * cross_entropy).mean()


class OtherLoss(ui.UISegmentationSystem):
    """A system with a loss of its own; no pixel is ignored."""

    def __init__(self, function: Callable, **options: Any) -> None:
        super().__init__(**options)
        self.loss = function


def classes(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Lesson 10: nine classes by cross entropy, with weights, and by other losses."""
    names = pictures.class_names
    pairs = ui.find_pairs(measure.PICTURES, CLASS_FILES)
    read = partial(ui.load_classes, num_classes=len(names))
    samples = list(ui.PairDataset(pairs, resized(SIZE), read_target=read))
    train, val = ui.group_split(pictures.maps, 0.25, 0)
    known = [samples[i] for i in train]
    weights = class_weights([target for _, target in known], len(names))
    target = torch.stack([samples[i].target for i in val])
    settings = {"learning_rate": 1e-2, "max_features": 256, "fast": True}
    settings |= {"task": "multiclass", "num_out_channels": len(names)}
    variants = {
        "plain": ui.UISegmentationSystem,
        "weighted": partial(ui.UISegmentationSystem, class_weights=weights),
        "with Dice": partial(OtherLoss, class_dice_loss),
        "focal": partial(OtherLoss, focal_loss),
    }

    def scores_of_classes(found: torch.Tensor) -> Scores:
        matrix = ui.confusion_matrix(found, target, len(names))
        right = float(matrix.diagonal().sum() / matrix.sum())
        of_classes = " ".join(f"{iou:.3f}" for iou in ui.class_iou(matrix))
        iou = float(ui.mean_iou(matrix))
        return {"iou": iou, "right": right, "iou_of_classes": of_classes}

    yield "classes", "always not_ui", 0, scores_of_classes(torch.zeros_like(target))
    for seed, (name, make) in itertools.product(seeds, variants.items()):
        system = learn(known, seed, 10, make=make, **settings)
        with torch.inference_mode():
            found = [system(samples[i].image[None]).argmax(1) for i in val]
        yield "classes", name, seed, scores_of_classes(torch.cat(found))


def freeze_encoder(**options: Any) -> ui.UISegmentationSystem:
    """Make a system whose encoder's weights stay as they come."""
    system = ui.UISegmentationSystem(**options)
    system.network.encoder.requires_grad_(False)
    return system


class RandomEncoder(ui.MobileNetUNet):
    """The same network from random weights, with BatchNorm that learns statistics."""

    def __init__(self) -> None:
        super().__init__(weights=None)
        layers = iter(mobilenet_v2(weights=None).features)
        parts = (itertools.islice(layers, len(part)) for part in self.encoder)
        self.encoder = nn.ModuleList(nn.Sequential(*part) for part in parts)
        self.to(memory_format=torch.channels_last)


def encoders(pictures: Pictures, seeds: Sequence[int]) -> Iterator[Row]:
    """Networks with and without a past, on all pictures, on eight, by the other game.

    Three seeds; pictures at half their size, changed as `train` changes them. "quick":
    as lesson 12 repeats it, where "full rate" moves the encoder as the rest moves.
    "equal time": in as much CPU time as `UNet()` takes for all its steps.
    """
    every, val = pictures.train, pictures.val
    parts = {"eight": (every[::10], val), "other game": pictures.by_game()}
    parts |= {f"{amount}, equal time": part for amount, part in parts.items()}
    parts |= dict.fromkeys(("all", "quick", "equal time"), (every, val))
    pretrained = {"encoder": "mobilenet_v2"}
    variants = {
        "UNet()": lambda _: {},
        "fine-tuned": lambda _: pretrained,
        "frozen": lambda _: pretrained | {"make": freeze_encoder},
        "random": lambda seed: {"network": measure.seeded(seed, RandomEncoder)},
        "full rate": lambda seed: {"network": measure.seeded(seed, ui.MobileNetUNet)},
    }
    amounts = ("all", "eight", "other game")
    runs = [*itertools.product(amounts, ("UNet()", *STEP_COSTS), [STEPS])]
    runs += [*itertools.product(["quick"], variants, [STEPS // 5])]
    for amount in ("equal time", "eight, equal time", "other game, equal time"):
        runs += [(amount, name, round(STEPS / x)) for name, x in STEP_COSTS.items()]
    whole = {"learning_rate": 4e-3, "max_features": 256}
    for seed, (amount, name, steps) in itertools.product(seeds[:3], runs):
        part, held_back = parts[amount]
        known = pictures.open(part, ui.train_augmentation(), size=HALF_SIZE)
        places = [number % len(part) for number in range(4 * steps)]
        start = time.process_time()
        options = whole | variants[name](seed)
        system = learn(Subset(known, places), seed, 1, **options)
        cpu = time.process_time() - start
        scores = scores_of(system, pictures.open(held_back, size=HALF_SIZE))
        yield "encoder", f"{name}, {amount}", seed, scores | {"cpu": cpu}


EXPERIMENTS = (leaks, amounts_and_losses, folds, games, roads, classes, encoders)
KEYS = ("experiment", "variant", "seed")
SCORES = ("iou", "precision", "recall", "iou_known", "right", "cpu", "iou_of_classes")


def make_text(options: argparse.Namespace) -> str:
    """Train, write the table, and print its medians."""
    ui.quiet_lightning()
    ui.keep_freed_memory()
    pictures, seeds, rows = Pictures(), range(options.rounds), []
    for experiment in EXPERIMENTS:
        if options.only in (None, experiment.__name__):
            made = tqdm(experiment(pictures, seeds), experiment.__name__)
            rows += (dict(zip(KEYS, keys, strict=True)) | s for *keys, s in made)
    table = pd.DataFrame(rows).reindex(columns=[*KEYS, *SCORES])
    if options.only:  # of the others the table's rows stay
        kept = pd.read_csv(TABLE)
        table = pd.concat([kept[~kept.experiment.isin(table.experiment)], table])
    table.to_csv(TABLE, index=False, float_format="%.4f", lineterminator="\n")
    lines = [
        [*names, f"{ious.median():.2f}", f"{ious.min():.2f} to {ious.max():.2f}"]
        for names, ious in table.groupby(["experiment", "variant"], sort=False).iou
    ]
    header = ["experiment", "variant", "IoU, median", "from, to"]
    return measure.markdown_table(header, lines)


if __name__ == "__main__":
    names = [experiment.__name__ for experiment in EXPERIMENTS]
    only = {"choices": names, "help": "do this one alone"}
    measure.run_command("small_trainings", __doc__, make_text, 5, only=only)
