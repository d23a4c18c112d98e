#!/usr/bin/env bash
# OpenCV multiplies the bands of a TIFF by its fourth, also where it is asked for the file as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet opencv-python-headless==5.0.0.93 tifffile==2026.3.3 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
import tifffile
from PIL import Image

# Four masks of 0 and 255, one in each band of a TIFF and of a PNG.
masks = np.zeros((16, 16, 4), np.uint8)
masks[:8, :, 0] = masks[:, :8, 1] = masks[4:, :, 2] = masks[:, :4, 3] = 255
tifffile.imwrite("masks.tif", masks)
Image.fromarray(masks).save("masks.png")


def pixels(bands):
    return (bands > 0).sum(axis=(0, 1)).tolist()


def by_opencv(name):  # blue, green, red, alpha
    return cv2.imread(name, cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]


names = ("opencv-python-headless", "tifffile", "pillow")
print(*(f"{name} {version(name)}" for name in names))
print("belief: IMREAD_UNCHANGED gives what the file holds, so lossless formats agree")
wanted = pixels(masks)
print("pixels of the four masks:  ", *wanted)
print("tifffile, of the TIFF:     ", *pixels(tifffile.imread("masks.tif")))
print("Pillow, of the TIFF:       ", *pixels(np.asarray(Image.open("masks.tif"))))
print("OpenCV, of the PNG:        ", *pixels(by_opencv("masks.png")))
print("OpenCV, of the TIFF:       ", *(found := pixels(by_opencv("masks.tif"))))
product = pixels(masks[..., :3] & masks[..., 3:]) + wanted[3:]
seen = found == product != wanted == pixels(by_opencv("masks.png"))
print("seen: of a TIFF whose fourth band is marked as alpha, as writers mark it by themselves, "
      "OpenCV multiplies the other three by it" if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
