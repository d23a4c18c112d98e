#!/usr/bin/env bash
# label-studio-sdk's brush.contour2rle draws on a picture whose sides are swapped.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet label-studio-sdk==2.1.2 numpy==2.2.6 opencv-python-headless==4.12.0.88 pillow==13.0.0
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from label_studio_sdk.converter import brush

names = ("label-studio-sdk", "opencv-python-headless")
print(*(f"{name} {version(name)}" for name in names))
print("belief: contour2rle and mask2rle of one object are the same object to decode_rle")
kept = {}
for width, height in ((64, 64), (90, 50)):
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 30:55] = 255
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for name, code in (
        ("mask2rle", brush.mask2rle(mask)),
        ("contour2rle", brush.contour2rle(contours, 0, width, height)),
    ):
        again = np.reshape(brush.decode_rle(code), (height, width, 4))[..., 3]
        kept[name, width] = int(((again > 0) & (mask > 0)).sum())
        print(f"{width}x{height}, {name}: {kept[name, width]} of {int((mask > 0).sum())} pixels are in place")
seen = kept["mask2rle", 64] == kept["mask2rle", 90] == kept["contour2rle", 64] == 500 > 250 > kept["contour2rle", 90]
print("seen: contour2rle takes width for height; in pictures that are not square the object is scattered or gone"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
