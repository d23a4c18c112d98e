#!/usr/bin/env bash
# Masks that supervision exports as COCO polygons are smaller to COCO's own reader.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet supervision==0.31.2 pycocotools==2.0.11 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version

import cv2
import numpy as np
import supervision as sv
from pycocotools.coco import COCO

# One picture with three square objects.
sides = (60, 10, 4)
masks = np.zeros((3, 100, 100), dtype=bool)
for mask, side, x in zip(masks, sides, (10, 75, 88), strict=True):
    mask[20:20 + side, x:x + side] = True
cv2.imwrite("picture.png", np.zeros((100, 100, 3), np.uint8))
boxes = sv.mask_to_xyxy(masks).astype(float)
objects = sv.Detections(xyxy=boxes, mask=masks, class_id=np.zeros(3, int))
data = sv.DetectionDataset(
    classes=["square"], images=["picture.png"], annotations={"picture.png": objects})
data.as_coco(annotations_path="coco.json")
print(*(f"{name} {version(name)}" for name in ("supervision", "pycocotools", "numpy")))
print("belief: a mask that is exported as COCO is the same mask to COCO's own reader")
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO("coco.json")
read = [int(coco.annToMask(one).sum()) for one in coco.loadAnns(coco.getAnnIds())]
areas = [int(one["area"]) for one in coco.loadAnns(coco.getAnnIds())]
(_, _, again), = sv.DetectionDataset.from_coco(".", "coco.json", force_masks=True)
print("pixels of the masks:      ", *masks.sum(axis=(1, 2)).tolist())
print("area in the file:         ", *areas)
print("read by supervision again:", *again.mask.sum(axis=(1, 2)).tolist())
print("read by pycocotools:      ", *read)
seen = read == [(side - 1) ** 2 for side in sides] and areas == [side**2 for side in sides]
print("seen: polygons run through the centres of border pixels; COCO's corners lie between pixels, "
      "so each object loses a row and a column" if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
