#!/usr/bin/env bash
# MONAI's FillHoles erases a class that lies inside another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet monai==1.6.1 torch==2.15.0 scipy==1.17.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import sys

import monai
import numpy as np
import scipy
import torch
from monai.transforms import FillHoles

# A panel (1) with a hole (0) and, away from it, a button (2) that no background touches.
page = np.array([
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 1, 1, 1, 1, 1, 1, 0],
    [0, 1, 0, 1, 1, 2, 2, 1, 0],
    [0, 1, 1, 1, 1, 2, 2, 1, 0],
    [0, 1, 1, 1, 1, 1, 1, 1, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
], dtype=np.uint8)
filled = np.asarray(FillHoles()(page[None].copy()))[0]
expected = page.copy()
expected[2, 2] = 1
print(f"monai {monai.__version__}, torch {torch.__version__}, scipy {scipy.__version__}")
print("belief: holes are background pixels, so filling them leaves every other class as it is")
print("row with the hole, before: ", *page[2].tolist())
print("row with the hole, wanted: ", *expected[2].tolist())
print("row with the hole, filled: ", *filled[2].tolist())
wrong = filled != expected
seen = bool((page[wrong] == 2).all() and wrong.sum() == 4 and (filled == 2).sum() == 0)
print("seen: the button counts as a hole, too, and all its pixels become panel"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
