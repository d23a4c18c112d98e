"""Train the reference checkpoint, the network that `predict` uses by itself.

python -m tools.train_reference --output checkpoints            # a quarter of an hour
python -m tools.train_reference --output OUT --fast --epochs 6  # two minutes

It never sees the maps of the test part: `split_parts` is the split of lesson 05.
"""

import argparse
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
from tools.command import run

PICTURES = Path(__file__).parent.parent / "test_inputs"
TEST_SHARE = 0.25
VAL_SHARE = 0.07  # of what is not test; only to see in the log that it goes well
EPOCHS = 12
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
    """Read the map of each picture, in the order of `ui.find_pairs`.

    Raises ValueError if `index.json` does not tell.
    """
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
    augmented = ui.ImageTargetCompose([ui.train_augmentation(), to_tensor])
    train, *others = (
        [pairs[i] for i in part] for part in split_parts(read_maps(folder))
    )
    parts = [ui.PairDataset(part, to_tensor, cache=True) for part in others]
    return [ui.PairDataset(train, augmented, cache=True), *parts]


def train(folder: Path, run_folder: Path, epochs: int, fast: bool) -> None:
    """Train in the folder of a run; last.ckpt and log.csv are left there."""
    ui.quiet_lightning()
    pl.seed_everything(SEED, workers=True, verbose=False)
    train_set, val_set, _ = open_parts(folder)
    system = ui.UISegmentationSystem(loss="bce_dice", image_size=SIZE, fast=fast)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[ui.StepProgress(timed=True), ui.RunFolder(run_folder)],
        plugins=[ui.SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    repeated = ConcatDataset([train_set] * REPEATS)
    loader = DataLoader(repeated, BATCH_SIZE, shuffle=True, drop_last=True)
    trainer.fit(system, loader, DataLoader(val_set, BATCH_SIZE))


def make_reference(output: Path, pictures: Path, epochs: int, fast: bool) -> None:
    """Train, keep the last weights and the log, and print how well each part goes."""
    with TemporaryDirectory() as scratch:
        train(pictures, Path(scratch), epochs, fast)
        print(f"trained for {time.process_time():.0f} seconds of CPU time")
        checkpoint = ui.read_checkpoint(Path(scratch, "last.ckpt"))
        log = Path(scratch, "log.csv").read_bytes()
    # What only Lightning needs is left out.
    kept = {key: checkpoint[key] for key in ("hyper_parameters", "state_dict")}
    output.mkdir(parents=True, exist_ok=True)
    ui.SafeCheckpointIO().save_checkpoint(kept, output / "reference.ckpt")
    (output / "reference_log.csv").write_bytes(log)

    system = ui.load_system(output / "reference.ckpt").eval()
    names = ("training", "validation", "test")
    for name, dataset in zip(names, open_parts(pictures), strict=True):
        dataset.transform = ui.ImageTargetToTensor()
        with torch.inference_mode():
            scores = [
                ui.binary_iou(system(image[None]), target[None], from_logits=True)
                for image, target in dataset
            ]
        iou = float(torch.stack(scores).mean())
        print(f"{name}: {len(dataset)} pictures, IoU {iou:.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    doc = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="train_reference", description=doc)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for reference.ckpt and log")
    add("--pictures", type=Path, default=PICTURES, help="folder with an index.json")
    add("--epochs", type=int, default=EPOCHS, help="of 10 passes each")
    add("--fast", action="store_true", help="train the fast variant of the network")
    return run(parser, make_reference, argv)


if __name__ == "__main__":
    sys.exit(main())
