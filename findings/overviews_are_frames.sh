#!/usr/bin/env bash
# The smaller copies in a cloud-optimised GeoTIFF are counted as further pictures; its inner mask cannot be passed over.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet rasterio==1.4.4 pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import cv2
import numpy as np
import rasterio
import tifffile
from PIL import Image
from rasterio.shutil import copy

warnings.simplefilter("ignore")  # of a raster without a place on the map
mask = np.zeros((512, 512), np.uint8)
mask[100:300, 50:400] = 255
with rasterio.open("plain.tif", "w", driver="GTiff", count=1, height=512, width=512, dtype="uint8") as raster:
    raster.write(mask, 1)
copy("plain.tif", "cloud.tif", driver="COG", blocksize=128, overview_count=2)
with (
    rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
    rasterio.open("masked.tif", "w", driver="GTiff", count=1, height=512, width=512, dtype="uint8") as raster,
):
    raster.write(mask, 1)
    raster.write_mask(mask)


def frames(name):
    try:
        return Image.open(name).n_frames
    except SyntaxError as error:
        return f"SyntaxError({error})"


names = ("rasterio", "pillow", "opencv-python-headless", "tifffile")
print(*(f"{name} {version(name)}" for name in names))
print("belief: a raster that is written as one GeoTIFF is one picture to any reader")
with rasterio.open("cloud.tif") as raster:
    print("cloud-optimised: bands to GDAL", raster.count, " smaller copies", raster.overviews(1))
print("series to tifffile:", len(tifffile.TiffFile("cloud.tif").series))
found = [frames("plain.tif"), frames("cloud.tif"), cv2.imcount("cloud.tif")]
print("frames to Pillow, of the plain file and of that one:", *found[:2], " to OpenCV:", found[2])
same = (np.asarray(Image.open("masked.tif")) == mask).all()
found.append(frames("masked.tif"))
print("with an inner mask: Pillow decodes the picture", bool(same), " its number of frames:", found[3])
seen = found == [1, 3, 3, "SyntaxError(unknown pixel mode)"] and same
print("seen: Pillow and OpenCV count the smaller copies as further pictures, and Pillow cannot count "
      "the pages of a file whose mask is inside" if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
