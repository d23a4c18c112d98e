"""The kinds of user interface: names, ids and colours, the same for every maker.

Also tooltips are windows here: the game draws them as part of the window they explain.
"""

from pathlib import Path

import numpy as np
from PIL import Image

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

PALETTE = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (240, 50, 230),
    (210, 245, 60),
)


def save_classes(classes: np.ndarray, path: Path) -> None:
    """Write class ids, uint8 (H, W), as a palette picture: the index is the id."""
    picture = Image.fromarray(classes, "L")
    picture.putpalette([value for colour in PALETTE for value in colour])
    picture.save(path, optimize=True)
