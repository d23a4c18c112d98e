"""What all makers of screenshots share: the classes of user interface, and raw items.

A raw item is the form in which both captures hand their frames to the set builder: a
folder of `image.png` (what the player sees), `world.png` (the same moment without its
user interface), `mask.png` (0 and 255), `classes.png` (class ids) and `meta.json`
(game, scene, map and how it came about).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.command import new_folder
from ui_segmentation_system import PALETTE

# Tooltips are windows too: the game draws them as part of the window they explain. Menu
# text is that of menus without a window, and the crosshair.
CLASS_NAMES = (
    *("not_ui", "bars", "minimap", "actionbar", "window"),
    *("dialog", "message", "cursor", "menu_text"),
)
CLASS_IDS = {name: number for number, name in enumerate(CLASS_NAMES)}


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
    with new_folder(folder) as part:
        Image.fromarray(item.image).save(part / "image.png")
        Image.fromarray(item.world).save(part / "world.png")
        Image.fromarray(item.mask.astype(np.uint8) * 255).save(part / "mask.png")
        Image.fromarray(item.classes).save(part / "classes.png")
        (part / "meta.json").write_text(json.dumps(item.meta, indent=1) + "\n")


def save_missing(
    out: Path, prefix: str, scenes: Sequence, make: Callable, crashes: tuple = ()
) -> int:
    """Make the items, counted from 0, that OUT does not hold yet; list those that fail.

    That is, where `make` raises ValueError or crashes. Returns 1 if some are missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, scene in enumerate(tqdm(scenes, unit="item")):
        folder = out / f"{prefix}_{number:03}"
        try:
            if not folder.exists():
                save_item(make(scene), folder)
        except (ValueError, *crashes) as error:
            failed.append(f"{folder.name} ({scene.kind}, {scene.map}): {error}")
    for line in failed:
        print(f"left out: {line}")
    return 1 if failed else 0


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


def save_targets(classes: np.ndarray, folder: Path, number: int) -> None:
    """Write class ids, uint8 (H, W), as a set has them.

    N_target.jpg is 0 and 255; classes/N_classes.png has a palette: the index is the id.
    """
    mask = Image.fromarray((classes > 0).astype(np.uint8) * 255)
    mask.save(folder / f"{number}_target.jpg", quality=95)
    picture = Image.fromarray(classes, "L")
    picture.putpalette([value for colour in PALETTE for value in colour])
    (folder / "classes").mkdir(exist_ok=True)
    picture.save(folder / f"classes/{number}_classes.png", optimize=True)
