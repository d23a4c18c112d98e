"""Draw a folder of pairs on one sheet: picture, mask and overlay, to look at each.

python -m tools.contact_sheet test_inputs sheet.png
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ui_segmentation_system import overlay

GAP = 4
LABEL_HEIGHT = 12


def paste_rows(
    rows: Iterable[tuple[str, Sequence[np.ndarray]]], columns: int
) -> Image.Image:
    """Lay named rows of equally large pictures out in columns on one sheet."""
    rows = list(rows)
    height, width = rows[0][1][0].shape[:2]
    cell_width = (width + GAP) * len(rows[0][1])
    cell_height = height + LABEL_HEIGHT + GAP
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (cell_width * columns, cell_height * lines), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, pictures) in enumerate(rows):
        left, top = number % columns * cell_width, number // columns * cell_height
        draw.text((left, top), name, fill="black")
        for place, picture in enumerate(pictures):
            spot = (left + place * (width + GAP), top + LABEL_HEIGHT)
            sheet.paste(Image.fromarray(picture), spot)
    return sheet


def pair_row(image: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """List what is shown of a pair; mask is bool (H, W)."""
    grey = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    return [image, grey, np.array(overlay(image, mask))]


def read_rows(folder: Path) -> list[tuple[str, list[np.ndarray]]]:
    """Read the pairs of a folder in natural order."""
    paths = sorted(
        folder.glob("*_input.png"),
        key=lambda path: int(re.match(r"\d*", path.name)[0] or 0),
    )
    if not paths:
        raise FileNotFoundError(f"{folder}: no file is named like 1_input.png")
    rows = []
    for path in paths:
        target = path.with_name(path.name.replace("_input.png", "_target.jpg"))
        mask = np.array(Image.open(target).convert("L")) > 127
        rows.append(
            (path.stem, pair_row(np.array(Image.open(path).convert("RGB")), mask))
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="contact_sheet", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of pairs")
    parser.add_argument("sheet", type=Path, help="picture to write")
    parser.add_argument("--columns", type=int, default=2, help="pairs side by side")
    parser.add_argument("--pairs", type=int, default=24, help="pairs on one sheet")
    options = parser.parse_args(argv)
    try:
        rows = read_rows(options.folder)
        for start in range(0, len(rows), options.pairs):
            path = options.sheet.with_stem(f"{options.sheet.stem}_{start + 1}")
            paste_rows(rows[start : start + options.pairs], options.columns).save(path)
            print(path)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
