"""The kinds of user interface: names and ids, the same for every maker.

Also tooltips are windows here: the game draws them as part of the window they explain.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ui_segmentation_system import PALETTE

CLASS_NAMES = (
    "not_ui",
    "bars",
    "minimap",
    "actionbar",
    "window",
    "dialog",
    "message",
    "cursor",
    "menu_text",  # of menus without a window, and the crosshair
)
CLASS_IDS = {name: number for number, name in enumerate(CLASS_NAMES)}


def save_classes(classes: np.ndarray, path: Path) -> None:
    """Write class ids, uint8 (H, W), as a palette picture: the index is the id."""
    picture = Image.fromarray(classes, "L")
    picture.putpalette([value for colour in PALETTE for value in colour])
    picture.save(path, optimize=True)
