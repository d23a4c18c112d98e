"""The raw form in which both games' captures hand their frames to the set builder.

A raw item is a folder of `image.png` (what the player sees), `world.png` (the same
moment without its user interface), `mask.png` (0 and 255), `classes.png` (class ids)
and `meta.json` (game, scene, map and how it came about).
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class RawItem(NamedTuple):
    """One captured frame: pictures uint8 (H, W, 3), classes uint8 (H, W)."""

    image: np.ndarray
    world: np.ndarray
    classes: np.ndarray
    meta: dict[str, Any]

    @property
    def mask(self) -> np.ndarray:
        """Bool (H, W): where there is user interface."""
        return self.classes > 0


def save_item(item: RawItem, folder: Path) -> None:
    """Write an item whole or not at all: beside its folder first, then moved."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    Image.fromarray(item.image).save(beside / "image.png")
    Image.fromarray(item.world).save(beside / "world.png")
    Image.fromarray(item.mask.astype(np.uint8) * 255).save(beside / "mask.png")
    Image.fromarray(item.classes).save(beside / "classes.png")
    (beside / "meta.json").write_text(json.dumps(item.meta, indent=1) + "\n")
    beside.rename(folder)


def load_item(folder: Path) -> RawItem:
    """Read an item; raises ValueError when its mask and its classes disagree."""
    image, world, mask, classes = (
        np.array(Image.open(folder / f"{name}.png"))
        for name in ("image", "world", "mask", "classes")
    )
    meta = json.loads((folder / "meta.json").read_text())
    item = RawItem(image, world, classes, meta)
    if not np.array_equal(item.mask, mask > 0):
        raise ValueError(f"{folder}: mask.png and classes.png mark different pixels")
    return item
