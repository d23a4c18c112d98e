#!/usr/bin/env bash
# torchvision's v2 changes large ids of an integer mask, though it takes the nearest pixel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import sys

import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

# Panoptic ids, or the bits of 25 overlapping masks: 2**24 + 1 everywhere.
number = 2**24 + 1
mask = tv_tensors.Mask(torch.full((1, 8, 8), number))
transforms = {
    "RandomHorizontalFlip": v2.RandomHorizontalFlip(1),
    "Pad": v2.Pad(1, fill=number),
    "CenterCrop": v2.CenterCrop(4),
    "Resize": v2.Resize((16, 16)),
    "RandomAffine, of nothing": v2.RandomAffine((0, 0)),
    "RandomPerspective": v2.RandomPerspective(0, p=1),
}
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
print("belief: a Mask of int64 keeps its ids, since masks are scaled by the nearest pixel")
found = {name: transform(mask) for name, transform in transforms.items()}
for name, one in found.items():
    print(f"{name:24} {number} becomes {one.unique().tolist()}, {one.dtype}")
changed = [name for name, one in found.items() if (one != number).any()]
seen = changed == list(transforms)[3:] and all(one.dtype == torch.int64 for one in found.values())
print("seen: what scales or moves between pixels goes through float32; above 2**24 ids come back as "
      "their neighbours, in the same integer type" if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
