#!/usr/bin/env bash
# Pillow writes the ignored id 255 as a class when a PNG's palette has few colours.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

# Classes 0 to 3, and 255 for ignored; one colour for each class.
ids = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)
colours = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]


def saved(palette, name):
    mask = Image.fromarray(ids)
    mask.putpalette(palette)
    before = np.asarray(mask).flatten().tolist()
    mask.save(Path(sys.argv[1], name))
    with Image.open(Path(sys.argv[1], name)) as picture:
        return before, np.asarray(picture).flatten().tolist()


before, png = saved(colours, "mask.png")
_, tiff = saved(colours, "mask.tif")
_, full = saved(colours + [0] * (768 - len(colours)), "full.png")
print(f"Pillow {PIL.__version__}, numpy {np.__version__}")
print("belief: a lossless PNG of mode P gives the ids back, whatever colours show them")
print("ids in memory:                ", *before)
print("PNG, palette of 4 colours:    ", *png)
print("TIFF, palette of 4 colours:   ", *tiff)
print("PNG, palette of 256 colours:  ", *full)
same = [0, 1, 2, 3, 255]
seen = before == tiff == full == same and png == [0, 1, 2, 3, 3]
print("seen: four colours make a PNG of two bits, and 255 is cut to its last two bits: class 3"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
