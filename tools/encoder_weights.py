"""Make the small file of a pretrained encoder's weights from torchvision's own file.

python -m tools.encoder_weights mobilenet_v2-b0353104.pth --output NEW.pt   # a second

It keeps the layers that `MobileNetUNet` uses, in half precision: 3.8 MB of 14.2.
"""

import hashlib
from pathlib import Path

import torch

import ui_segmentation_system as ui
from tools.command import Command


def make_weights(file: Path, output: Path) -> None:
    """Check the file, and write what is used of it. Raises ValueError and OSError."""
    if output.exists():
        raise FileExistsError(f"{output}: expected a file that is not there yet")
    arrived = hashlib.sha256(file.read_bytes()).hexdigest()
    if arrived != ui.ENCODER_SHA256:
        what = f"{file}: of sha256 {arrived}; expected {ui.ENCODER_SHA256}"
        raise ValueError(f"{what}; {ui.FETCH_ENCODER}")
    state = torch.load(file, map_location="cpu", weights_only=True)
    num_layers = sum(map(len, ui.MobileNetUNet(weights=file).encoder))
    used = tuple(f"features.{number}." for number in range(num_layers))
    kept = {
        name: value.half() if value.is_floating_point() else value
        for name, value in state.items()
        if name.startswith(used)
    }
    ui.SafeCheckpointIO().save_checkpoint(kept, output)
    megabytes = output.stat().st_size / 1e6
    print(f"{output}: {len(kept)} of {len(state)} tensors, {megabytes:.1f} MB")


main = Command(make_weights)
main.add("file", Path, "mobilenet_v2-b0353104.pth, as torchvision fetches it")
main.add("--output", Path, "file to write", ui.ENCODER_WEIGHTS)

if __name__ == "__main__":
    raise SystemExit(main())
