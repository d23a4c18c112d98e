"""Draw a folder of pairs on sheets: picture, mask and overlay, to look at each.

python -m tools.contact_sheet test_inputs sheet.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

import ui_segmentation_system as ui
from tools.command import run

GAP = 4
LABEL_HEIGHT = 12


def write_sheets(folder: Path, sheet: Path, columns: int, pairs: int) -> None:
    """Write sheet_1.png and so on with so many pairs each, in so many columns."""
    paths = ui.find_pairs(folder)
    width, height = ui.load_image(paths[0][0]).size
    cell = 3 * (width + GAP), height + LABEL_HEIGHT + GAP
    for start in range(0, len(paths), pairs):
        chosen = paths[start : start + pairs]
        size = cell[0] * columns, cell[1] * -(-len(chosen) // columns)
        picture = Image.new("RGB", size, "white")
        for number, (input_path, target_path) in enumerate(chosen):
            left, top = number % columns * cell[0], number // columns * cell[1]
            ImageDraw.Draw(picture).text((left, top), input_path.stem, fill="black")
            image, mask = ui.load_image(input_path), ui.load_mask(target_path)
            for place, shown in enumerate((image, mask, ui.overlay(image, mask))):
                spot = left + place * (width + GAP), top + LABEL_HEIGHT
                picture.paste(shown, spot)
        path = sheet.with_stem(f"{sheet.stem}_{start + 1}")
        picture.save(path)
        print(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="contact_sheet", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of pairs")
    parser.add_argument("sheet", type=Path, help="picture to write")
    parser.add_argument("--columns", type=int, default=2, help="pairs side by side")
    parser.add_argument("--pairs", type=int, default=24, help="pairs on one sheet")
    return run(parser, write_sheets, argv)


if __name__ == "__main__":
    sys.exit(main())
