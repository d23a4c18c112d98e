#!/usr/bin/env bash
# torch.onnx.export drops a condition on a free size that torch.export refuses to drop.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
"$folder/env/bin/python" - <<'PYTHON'
import sys
import tempfile
import warnings

import onnxruntime
import torch


class PadsIfNeeded(torch.nn.Module):
    """Add up each block of four numbers; fill the last one up if it is not whole."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rest = values.shape[0] % 4
        if rest:
            values = torch.nn.functional.pad(values, (0, 4 - rest))
        return values.unfold(0, 4, 4).sum(dim=1)


free = {"values": {0: torch.export.Dim("n", min=4, max=64)}}
try:
    torch.export.export(PadsIfNeeded(), (torch.ones(8),), dynamic_shapes=free)
    refused = False
except Exception as error:
    refused = "n" in str(error)
with tempfile.NamedTemporaryFile(suffix=".onnx") as file, warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    torch.onnx.export(PadsIfNeeded(), (torch.ones(8),), file.name, dynamo=True, verbose=False,
                      dynamic_shapes=free)
    session = onnxruntime.InferenceSession(file.name)
    (free_side,) = session.get_inputs()[0].shape
    lengths = range(8, 13)
    python = [PadsIfNeeded()(torch.ones(n)).sum().item() for n in lengths]
    onnx = [session.run(None, {"values": torch.ones(n).numpy()})[0].sum().item() for n in lengths]
about = [str(one.message) for one in heard if "condition" in str(one.message) or "guard" in str(one.message)]
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
print("belief: what torch.export refuses with free sizes, torch.onnx.export refuses too")
print("torch.export refuses:", refused, " sides of the ONNX file:", free_side, " warnings about it:", len(about))
print("length        ", *lengths)
print("sum in PyTorch", *map(int, python))
print("sum in ONNX   ", *map(int, onnx))
changed = python == onnx or not refused or not isinstance(free_side, str)
print("behaviour has changed" if changed else "seen: the condition is answered once, for the example's size, and lost")
sys.exit(changed)
PYTHON
