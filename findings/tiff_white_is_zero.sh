#!/usr/bin/env bash
# A boolean mask that tifffile writes is the opposite mask to Pillow.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import PIL
import tifffile
from PIL import Image

mask = np.array([[False, True, True, False]])
path = Path(sys.argv[1], "mask.tif")


def read():
    with Image.open(path) as picture:
        return np.asarray(picture).flatten().astype(int).tolist()


print(f"tifffile {tifffile.__version__}, Pillow {PIL.__version__}")
print("belief: a lossless file of a mask of True and False is that mask to any reader")
print("written:              ", *mask.flatten().astype(int))
tifffile.imwrite(path, mask)
found, kept = read(), tifffile.imread(path).flatten().astype(int).tolist()
print("of bool, by tifffile: ", *kept)
print("of bool, by Pillow:   ", *found)
tifffile.imwrite(path, mask.astype(np.uint8))
bytes_ = read()
print("of uint8, by Pillow:  ", *bytes_)
seen = kept == bytes_ == [0, 1, 1, 0] and found == [1, 0, 0, 1]
print("seen: the file of bool says that 0 is white, and Pillow, which shows it so, turns it round"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
