#!/usr/bin/env bash
# Of a block that a sparse GeoTIFF leaves out Pillow shows other bytes of the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet rasterio==1.4.4 pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
import rasterio
import tifffile
from PIL import Image

warnings.simplefilter("ignore")  # of a raster without a place on the map
mask = np.zeros((128, 192), np.uint8)
mask[70:120, 70:180] = 1  # the blocks above are empty, and not written
form = {"driver": "GTiff", "width": 192, "height": 128, "count": 1, "dtype": "uint8"}
blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": True}
with rasterio.open("sparse.tif", "w", **form, **blocks) as raster:
    raster.write(mask, 1)

print(*(f"{name} {version(name)}" for name in ("rasterio", "pillow", "tifffile")))
print("belief: a block that is left out is 0, or the value declared as no data, as GDAL's manual says")
with rasterio.open("sparse.tif") as raster:
    by_gdal = raster.read(1)
found = {"rasterio": by_gdal, "tifffile": tifffile.imread("sparse.tif"), "Pillow": np.asarray(Image.open("sparse.tif"))}
print("pixels of the object, as written:", int(mask.sum()))
wrong = {}
for name, pixels in found.items():
    wrong[name] = int((pixels != mask).sum())
    print(f"{name}: {int((pixels == 1).sum())} pixels of the object, {wrong[name]} pixels wrong")
seen = wrong["rasterio"] == wrong["tifffile"] == 0 and wrong["Pillow"] > 10_000
print("seen: Pillow fills the blocks that are left out with the beginning of the file, without a warning"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
