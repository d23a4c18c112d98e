#!/usr/bin/env bash
# Lightning keeps other weights than those it scored when it averages them and keeps weights alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pytorch-lightning==2.6.6 torch==2.15.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import logging
import sys

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def error(self, batch):
        return (self.layer(batch[0]) - 3).pow(2).mean()

    def training_step(self, batch, batch_idx):
        return self.error(batch)

    def validation_step(self, batch, batch_idx):
        self.log("error", self.error(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


data = TensorDataset(torch.ones(8, 1))
print(f"torch {torch.__version__}, pytorch-lightning {pl.__version__}")
print("belief: the weights in the best checkpoint are those that had the best score")
gaps = []
for alone in (False, True):
    torch.manual_seed(0)
    keep = ModelCheckpoint(f"kept_{alone}", monitor="error", save_weights_only=alone)
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[keep, EMAWeightAveraging(decay=0.8)])
    trainer.fit(Line(), DataLoader(data, 4), DataLoader(data, 4))
    line = Line()
    line.load_state_dict(torch.load(keep.best_model_path, weights_only=True)["state_dict"])
    loaded, scored = float(line.error(data[:])), float(keep.best_model_score)
    print(f"save_weights_only={alone!s:5}: scored {scored:.4f}, loaded {loaded:.4f}")
    gaps.append(abs(loaded - scored))
seen = gaps[0] < 1e-6 and gaps[1] > 0.01
print("seen: with save_weights_only=True the score is that of the averaged weights, the file holds "
      "those of the last step" if seen else "behaviour has changed")
sys.exit(not seen)
PYTHON
