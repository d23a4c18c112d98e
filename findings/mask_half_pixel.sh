#!/usr/bin/env bash
# torchvision's v2.Resize samples a mask half a new pixel away from its image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 torchvision==0.29.2
"$folder/env/bin/python" - <<'PYTHON'
import sys

import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

# One row of 9 pixels; columns 1 to 7 are white in the image and belong to the mask.
row = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.uint8).repeat(3, 1)
image = tv_tensors.Image(row[None] * 255)
mask = tv_tensors.Mask(row[None])
small_image, small_mask = v2.Resize((1, 3))(image, mask)
exact = v2.functional.resize(mask, [1, 3], interpolation=v2.InterpolationMode.NEAREST_EXACT)
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
print("belief: one Resize of image and mask samples both at the same places")
print("image, 0..255:       ", *small_image.flatten().tolist())
print("its mask:            ", *small_mask.flatten().tolist())
print("mask, nearest-exact: ", *exact.flatten().tolist())
seen = small_mask.flatten().tolist() == [0, 1, 1] and exact.flatten().tolist() == [1, 1, 1]
print("seen: the mask takes the first pixel of each three, the image their mean around the centre"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
