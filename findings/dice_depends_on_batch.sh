#!/usr/bin/env bash
# torchmetrics' GeneralizedDiceScore of the same samples depends on the batch size and on their order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import itertools
import sys
from importlib.metadata import version

import torch
from torchmetrics.segmentation import GeneralizedDiceScore

# Three samples of three classes. In the first, class 2 is nowhere, and one pixel is predicted as it.
first, second, third = torch.zeros(3, 8, 8, dtype=torch.long)
first[:4] = 1
second[0, 0], second[4:] = 2, 1
third[:, :2], third[:2, 2:] = 2, 1
answers = [first.clone(), second.clone(), third.clone()]
answers[0][0, 0], answers[2][7, 7] = 2, 1
samples = [*zip(answers, (first, second, third), strict=True)]


def score(order, batch_size):
    metric = GeneralizedDiceScore(num_classes=3, input_format="index")
    for start in range(0, 3, batch_size):
        batch = [samples[one] for one in order[start : start + batch_size]]
        metric.update(*(torch.stack(part) for part in zip(*batch, strict=True)))
    return round(float(metric.compute()), 4)


print("torch", version("torch"), "torchmetrics", version("torchmetrics"))
print("belief: a score of each sample, averaged over all: batches and order do not matter")
found = {}
for batch_size in (1, 3):
    found[batch_size] = {score(order, batch_size) for order in itertools.permutations(range(3))}
    print(f"batches of {batch_size}, all orders:", *sorted(found[batch_size]))
seen = len(found[1]) == 1 and len(found[3]) > 1 and min(found[3]) < 0.7
print("seen: where a class is absent from a sample, its weight is taken from another sample of the batch"
      if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
