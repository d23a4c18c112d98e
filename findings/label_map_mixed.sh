#!/usr/bin/env bash
# The image processors of BEiT and DPT mix the classes of a label map when they resize it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.24.0 pillow==13.0.0 numpy==2.4.6
TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import PIL
import transformers
from transformers import BeitImageProcessorPil, DPTImageProcessorPil, SegformerImageProcessorPil

# 40 x 40 pixels of two classes: 0 to the left of column 13, 10 from there on.
image = np.zeros((40, 40, 3), dtype=np.uint8)
labels = np.zeros((40, 40), dtype=np.uint8)
labels[:, 13:] = 10
print(f"transformers {transformers.__version__}, Pillow {PIL.__version__}, numpy {np.__version__}")
print("belief: an image processor resizes an image smoothly and its label map to the nearest class")
found = {}
for processor in BeitImageProcessorPil, DPTImageProcessorPil, SegformerImageProcessorPil:
    resize = processor(size={"height": 20, "width": 20})
    result = np.asarray(resize(image, segmentation_maps=labels)["labels"][0])
    name = processor.__name__.removesuffix("ImageProcessorPil")
    found[name] = np.unique(result).tolist()
    print(f"{name + ', first row:':22}", *result[0].tolist())
seen = found == {"Beit": [0, 5, 10], "DPT": [0, 5, 10], "Segformer": [0, 10]}
print("seen: BEiT's and DPT's resize the label map as they do the image: class 5 between 0 and 10"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
