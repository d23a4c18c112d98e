#!/usr/bin/env bash
# The "macro" IoU of segmentation_models_pytorch counts each class that is nowhere as 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet segmentation-models-pytorch==0.6.0 torch==2.15.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import sys

import segmentation_models_pytorch as smp
import torch

# A picture of 21 classes, as Pascal VOC has them: class 15 in a corner, class 0 elsewhere.
target = torch.zeros(1, 100, 100, dtype=torch.long)
target[:, :30, :30] = 15
nothing = torch.zeros_like(target)  # a prediction that finds nothing
print(f"segmentation_models_pytorch {smp.__version__}, torch {torch.__version__}")
print("belief: the macro IoU is the mean over the classes that occur or were predicted")
counts = smp.metrics.get_stats(nothing, target, mode="multiclass", num_classes=21)
found = {
    way: round(float(smp.metrics.iou_score(*counts, reduction=way)), 3)
    for way in ("micro", "macro", "macro-imagewise")
}
tp, fp, fn, _ = counts
union = tp + fp + fn
iou = (tp / union)[union > 0].tolist()  # of class 0 and of class 15
mean = sum(iou) / 2
print("IoU of class 0 and of class 15:", *(f"{value:.2f}" for value in iou))
print(f"mean of the two classes: {mean:.3f}")
print("iou_score:", *(f"{way} {value}" for way, value in found.items()))
seen = abs(mean - 0.455) < 1e-6 and found["macro"] == found["macro-imagewise"] == 0.948
print("seen: the 19 classes that are nowhere count as 1, so that finding nothing scores 0.948"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
