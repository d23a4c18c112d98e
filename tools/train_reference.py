"""Train the reference checkpoint, the network that `predict` uses by itself.

python -m tools.train_reference --output checkpoints            # a quarter of an hour
python -m tools.train_reference --output OUT --epochs 2         # three minutes
python -m tools.train_reference --output OUT --epochs 2 --encoder mobilenet_v2

It never sees the maps of the other parts: `split_parts` is the split of lesson 06.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytorch_lightning as pl
import torch
from torch.utils.data import ConcatDataset, DataLoader

import ui_segmentation_system as ui
from tools.command import Command

PICTURES = Path(__file__).parent.parent / "test_inputs"
TEST_SHARE = 0.25
VAL_SHARE = 0.15  # of what is not test
EPOCHS = 9
REPEATS = 10  # times that each picture comes in an epoch
BATCH_SIZE = 4
SIZE = (224, 256)  # as the pictures are
SEED = 0


def split_parts(maps: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """Split samples by map: indices to train on, to validate and to test."""
    rest, test = ui.group_split(maps, TEST_SHARE, SEED)
    train, val = ui.group_split([maps[i] for i in rest], VAL_SHARE, SEED)
    return [rest[i] for i in train], [rest[i] for i in val], test


def read_maps(folder: Path) -> list[str]:
    """Read the map of each picture, in the order of `ui.find_pairs`."""
    path = folder / "index.json"
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["items"]
        maps = {f"{item['id']}_input.png": item["map"] for item in items}
        return [maps[image.name] for image, _ in ui.find_pairs(folder)]
    except (KeyError, json.JSONDecodeError) as error:
        expected = "expected items with the id and map of every picture"
        raise ValueError(f"{path}: {error!r}; {expected}") from error


def open_parts(folder: Path) -> list[ui.PairDataset]:
    """Open the three parts as tensors; only the first is augmented."""
    pairs, to_tensor = ui.find_pairs(folder), ui.ImageTargetToTensor()
    parts = [
        ui.PairDataset([pairs[i] for i in part], to_tensor, cache=True)
        for part in split_parts(read_maps(folder))
    ]
    augmented = [ui.train_augmentation(), to_tensor]
    parts[0].transform = ui.ImageTargetCompose(augmented)
    return parts


def make_reference(
    output: Path, pictures: Path, epochs: int, fast: bool, encoder: str
) -> None:
    """Train, keep the last weights and the log, and print how well each part goes."""
    ui.quiet_lightning()
    ui.keep_freed_memory()
    torch.set_num_threads(1)
    pl.seed_everything(SEED, workers=True, verbose=False)
    parts = open_parts(pictures)
    system = ui.UISegmentationSystem(image_size=SIZE, fast=fast, encoder=encoder)
    name = "reference" if encoder == "unet" else "reference_encoder"
    repeated = ConcatDataset(parts[:1] * REPEATS)
    loader = DataLoader(repeated, BATCH_SIZE, shuffle=True, drop_last=True)
    with TemporaryDirectory() as scratch:
        off = ("logger", "enable_checkpointing", "enable_progress_bar")
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[ui.StepProgress(timed=True), ui.RunFolder(scratch)],
            plugins=[ui.SafeCheckpointIO()],
            num_sanity_val_steps=0,
            **dict.fromkeys((*off, "enable_model_summary"), False),
        )
        trainer.fit(system, loader, DataLoader(parts[1], BATCH_SIZE))
        print(f"trained for {time.process_time():.0f} seconds of CPU time")
        checkpoint = ui.read_checkpoint(Path(scratch, "last.ckpt"))
        log = Path(scratch, "log.csv").read_bytes()
    # What only Lightning needs is left out.
    kept = {key: checkpoint[key] for key in ("hyper_parameters", "state_dict")}
    for key, value in kept["state_dict"].items():
        if ".encoder." in key and value.is_floating_point():
            kept["state_dict"][key] = value.half()  # as its weights came
    output.mkdir(parents=True, exist_ok=True)
    ui.SafeCheckpointIO().save_checkpoint(kept, output / f"{name}.ckpt")
    (output / f"{name}_log.csv").write_bytes(log)

    system = ui.load_system(output / f"{name}.ckpt").eval()
    parts[0].transform = ui.ImageTargetToTensor()
    for role, part in zip(("training", "validation", "test"), parts, strict=True):
        with torch.inference_mode():
            scores = [
                ui.binary_iou(system(image[None]), target[None], from_logits=True)
                for image, target in part
            ]
        iou = float(torch.stack(scores).mean())
        print(f"{role}: {len(part)} pictures, IoU {iou:.3f}")


main = Command(make_reference)
main.add("--output", Path, "folder for the checkpoint and its log", required=True)
main.add("--pictures", Path, "folder with an index.json", PICTURES)
main.add("--epochs", int, "of 10 passes each", EPOCHS)
main.add_argument("--fast", action="store_true", help="the fast network")
main.add("--encoder", str, "or mobilenet_v2, for reference_encoder.ckpt", "unet")

if __name__ == "__main__":
    sys.exit(main())
