"""What public calls give for the committed pictures, frozen before the module moved.

A row changes only in the commit that mends its fault. `python tests/test_frozen.py`
prints the rows anew.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import ui_segmentation_system as ui

FOLDER = Path(__file__).parents[1]
INPUTS, ROADS = FOLDER / "test_inputs", FOLDER / "test_roads"
IMAGE = INPUTS / "1_input.png"
CLASSES = ("{key}_input.png", "classes/{key}_classes.png")
TO_TENSOR = ui.ImageTargetToTensor()


def digest(things: Iterable[Any]) -> str:
    """Hash pictures, arrays, tensors and texts, their shapes and types included."""
    total = hashlib.blake2b(digest_size=8)
    for thing in things:
        if not isinstance(thing, str):
            mode = thing.mode if isinstance(thing, Image.Image) else ""
            thing = np.asarray(thing)
            if thing.dtype.kind == "f":  # the last bits belong to the processor
                thing = (thing * 1e4).round().astype(np.int64)
            total.update(f"{mode}{thing.shape}{thing.dtype}".encode())
        total.update(thing.encode() if isinstance(thing, str) else thing.tobytes())
    return total.hexdigest()


def numbers(*values: Any) -> str:
    """Write numbers with so many digits as other threads and processors keep."""
    return " ".join(f"{float(value):.4f}" for value in values)


def pair() -> tuple[Image.Image, Image.Image]:
    return ui.load_image(IMAGE), ui.load_mask(INPUTS / "1_target.jpg")


def class_pair() -> tuple[Image.Image, Image.Image]:
    return ui.load_image(IMAGE), ui.load_classes(INPUTS / "classes/1_classes.png", 9)


def transformed(transform: ui.PairTransform) -> str:
    torch.manual_seed(0)
    return digest([*transform(*pair()), *transform(*class_pair())])


def names(*patterns: tuple[str, str]) -> str:
    pairs = ui.find_pairs(INPUTS, *patterns)
    return digest(f"{image.name} {target.name}\n" for image, target in pairs)


def network(**options: Any) -> ui.UNet:
    torch.manual_seed(0)
    return ui.UNet(max_features=32, **options).eval()


def logits(**options: Any) -> torch.Tensor:
    with torch.inference_mode():
        return network(**options)(TO_TENSOR(*pair()).image[None])


def score_rows() -> str:
    target = TO_TENSOR(*pair()).target[None]
    ids = TO_TENSOR(*class_pair()).target[None]
    torch.manual_seed(0)
    class_logits = torch.randn(1, 9, *ids.shape[1:])
    matrix = ui.confusion_matrix(class_logits.argmax(dim=1), ids, 9)
    return numbers(
        ui.bce_loss(logits(), target),
        ui.bce_loss(logits(), target, pos_weight=3),
        ui.bce_dice_loss(logits(), target),
        ui.binary_iou(logits(), target),
        ui.cross_entropy_loss(class_logits, ids),
        ui.mean_iou(matrix),
    )


def batches() -> str:
    data = ui.UISegmentationData(INPUTS, 4, (64, 64), val_share=0.9, seed=1)
    data.setup()
    torch.manual_seed(0)
    return digest(part for batch in data.train_dataloader() for part in batch)


def loaded(workers: int) -> str:
    dataset = ui.RoadDataset(ROADS, flipped)
    dataset.pairs = dataset.pairs[:6]
    order = {"shuffle": True, "generator": torch.Generator().manual_seed(3)}
    loader = ui.PrefetchDataLoader(dataset, 2, workers, **order)
    return digest(part for batch in loader for part in batch)


def flipped(image: Image.Image, target: Image.Image) -> ui.Sample:
    image, target = ui.ImageTargetRandomHorizontalFlip()(image, target)
    return TO_TENSOR(image.resize((64, 32)), target.resize((64, 32), 0))


def roads(target: str) -> str:
    samples = ui.RoadDataset(ROADS, None, target)
    return digest(part for sample in samples for part in sample)


def tiles() -> str:
    image, target = map(np.asarray, pair())
    covering = ui.TileDataset(image, target, 96, 80)
    drawn = ui.RandomTileDataset(image, target, (64, 96), 5, seed=7)
    return digest(part for data in (covering, drawn) for s in data for part in s)


def tiled(**options: Any) -> str:
    image = np.asarray(pair()[0])
    found = ui.predict_tiled(network(normalize=False), image, 96, 32, **options)
    return numbers(*found[0, 10:220:70, 100])


def training() -> str:
    pl.seed_everything(0, verbose=False)
    ui.quiet_lightning()
    data = ui.UISegmentationData(INPUTS, 2, (64, 64), overfit_num=12)
    system = ui.UISegmentationSystem(1e-3, 32)
    data.setup()
    watch = ui.Watch(data.val_set[0], every_n_steps=3)
    silent = ("logger", "enable_checkpointing", "enable_progress_bar")
    pl.Trainer(
        **dict.fromkeys((*silent, "enable_model_summary"), False),
        **{"max_epochs": 1, "accelerator": "cpu", "callbacks": [watch]},
    ).fit(system, data)
    return " ".join(f"{loss:.3f}" for loss in watch.losses)


def examined() -> str:
    report = ui.check_pairs(INPUTS)
    return f"{report.num_pairs} {report.ok} " + numbers(report.foreground_share)


def read(load: Callable[[Path], Any], pattern: str) -> Callable[[], str]:
    return lambda: digest(map(load, sorted(INPUTS.glob(pattern))))


TRANSFORMED = [
    ("to tensors", TO_TENSOR, "411cdccd20a5d539"),
    ("resize", ui.ImageTargetResize((90, 100)), "dd6fd7815c00779a"),
    ("crop", ui.ImageTargetRandomCrop((64, 300)), "8a7292e163402991"),
    ("pad", ui.ImageTargetPad(300), "fb36a5fc1d4bdd05"),
    ("flip", ui.ImageTargetRandomHorizontalFlip(1), "1513f11fcc0d6634"),
    ("affine", ui.ImageTargetRandomAffine(20, (0.1, 0.1)), "4910749fef12626e"),
    ("jitter", ui.ImageTargetColorJitter(0.3, 0.3, 0.3), "d2a8304d49a5604a"),
]
ROWS: dict[str, tuple[Callable[[], str], str]] = {
    "masks": (read(ui.load_mask, "*_target.jpg"), "291e8cd15b49216c"),
    "images": (read(ui.load_image, "1*_input.png"), "76b485d35e23c9b5"),
    "class maps": (read(ui.load_classes, "classes/*"), "915c7508b617d125"),
    "roads": (lambda: roads("road"), "7bb42fb213dc283f"),
    "lanes": (lambda: roads("lane"), "202c83cf854a5ebb"),
    "pairs": (names, "73008fb3d5e04892"),
    "pairs by patterns": (lambda: names(CLASSES), "47462b5a1eb015cf"),
    "doctor": (examined, "120 True 0.3241"),
    **{name: (partial(transformed, one), was) for name, one, was in TRANSFORMED},
    "batches": (batches, "11750c7cccab8da1"),
    "loader, in the process": (lambda: loaded(0), "8d30cdfce5beaa24"),
    "loader, two workers": (lambda: loaded(2), "a2f197e04b2da02d"),
    "unet": (lambda: numbers(logits().mean(), logits().std()), "1.1282 4.0080"),
    "unet, fast": (lambda: numbers(logits(fast=True).mean()), "0.3000"),
    "losses and scores": (score_rows, "1.9031 2.6790 2.5000 0.2510 2.6169 0.0293"),
    "tiles": (tiles, "2a365dcc7f140e72"),
    "predicted by tiles": (tiled, "0.9840 0.0348 0.9993"),
    "predicted, centre": (lambda: tiled(weights="centre"), "0.9840 0.0654 0.9997"),
    "overlay": (lambda: digest([ui.overlay(*pair())]), "336297781dee90e1"),
    "training": (training, "2.282 2.192 2.086"),
}


@pytest.mark.parametrize("row", ROWS)
def test_public_calls_give_what_they_gave(row: str) -> None:
    call, frozen = ROWS[row]
    assert call() == frozen


if __name__ == "__main__":
    for row, (call, _) in ROWS.items():
        sys.stdout.write(f"{row}: {call()}\n")
