#!/usr/bin/env bash
# An exported network that rounds a size up with -(-n // 4) rounds down in ONNX Runtime.
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

warnings.filterwarnings("ignore")


class Blocks(torch.nn.Module):
    """Give as many numbers as blocks of four cover the input, the last one perhaps in part."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(-(-values.shape[0] // 4)) + 0 * values.sum()


with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    free = torch.export.Dim("n", min=2, max=64)
    torch.onnx.export(Blocks(), (torch.zeros(8),), file.name, dynamo=True, verbose=False,
                      dynamic_shapes={"values": {0: free}})
    session = onnxruntime.InferenceSession(file.name)
    lengths = range(4, 13)
    python = [len(Blocks()(torch.zeros(n))) for n in lengths]
    onnx = [len(session.run(None, {"values": torch.zeros(n).numpy()})[0]) for n in lengths]
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
print("belief: an exported network computes sizes as Python does, also with free axes")
print("length           ", *lengths)
print("blocks in PyTorch", *python)
print("blocks in ONNX   ", *onnx)
changed = python == onnx
print("behaviour has changed" if changed else "seen: negative numbers are divided towards zero")
sys.exit(changed)
PYTHON
