r"""Train the reference checkpoint, the network that `predict` uses by itself.

python -m tools.train_reference --output checkpoints            # a quarter of an hour
python -m tools.train_reference --output OUT --epochs 5 --classes --weigh \
    --encoder mobilenet_v2

It never sees the maps of the other parts: `split_parts` is the split of lesson 06.
`--classes` learns the nine classes of each screenshot in place of interface or not.
Choose with `--no-test`, which leaves the test pictures shut. Once all is chosen,
`--with-validation` trains on the validation pictures as well.
"""

import json
import time
from collections.abc import Sequence
from functools import partial
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
CLASS_FILES = ("{key}_input.*", "classes/{key}_classes.*")
OFF = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
Trainer = partial(pl.Trainer, accelerator="cpu", **dict.fromkeys(OFF, False))


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


def read_class_names(folder: Path) -> list[str]:
    path = folder / "index.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["class_names"]
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: {error!r}; expected class_names") from error


def open_parts(folder: Path, num_classes: int = 0) -> list[ui.PairDataset]:
    """Open the three parts, the first augmented; num_classes: of class maps, if any."""
    patterns, read = None, ui.load_mask
    if num_classes:
        patterns, read = CLASS_FILES, partial(ui.load_classes, num_classes=num_classes)
    pairs, to_tensor = ui.find_pairs(folder, patterns), ui.ImageTargetToTensor()
    options = {"read_target": read, "cache": True}
    parts = [
        ui.PairDataset([pairs[i] for i in part], to_tensor, **options)
        for part in split_parts(read_maps(folder))
    ]
    parts[0].transform = ui.ImageTargetCompose([ui.train_augmentation(), to_tensor])
    return parts


def class_weights(targets: Sequence[torch.Tensor], num_classes: int) -> list[float]:
    """Weigh each class by one over the root of its share, 1 on average."""
    weights = ui.shares_of_classes(targets, num_classes).clamp(min=1e-9).rsqrt()
    return (weights / weights.mean()).tolist()


@torch.inference_mode()
def judge(system: ui.UISegmentationSystem, part: ui.PairDataset) -> str:
    """Say how well a part goes: the mean over its pictures, or over all its classes.

    Of masks also when a picture's answer and its mirror's are averaged.
    """
    if not system.exclusive:
        scores = []
        for image, target in part:
            p, mirrored = system(torch.stack([image, image.flip(-1)])).sigmoid()
            answers = p, (p + mirrored.flip(-1)) / 2
            ious = (ui.binary_iou(x, target, from_logits=False) for x in answers)
            scores.append([*map(float, ious)])
        alone, both = torch.tensor(scores).mean(dim=0)
        return f"IoU {alone:.3f}, averaged with the mirror's {both:.3f}"
    counts = sum(system.count(system(image[None]), ids[None]) for image, ids in part)
    named = zip(system.settings["class_names"], ui.class_iou(counts), strict=True)
    known = [f"{name} {iou:.3f}" for name, iou in named if not iou.isnan()]
    return f"mean IoU {ui.mean_iou(counts):.3f}: {', '.join(known)}"


def make_reference(
    output: Path, pictures: Path, epochs: int, encoder: str, seed: int, **flags: bool
) -> None:
    """Train, keep the last weights and the log, and print how well each part goes."""
    ui.quiet_lightning()
    ui.keep_freed_memory()
    torch.set_num_threads(1)
    pl.seed_everything(seed, workers=True, verbose=False)
    names = read_class_names(pictures) if flags["classes"] else []
    parts = open_parts(pictures, len(names))
    if flags["with_validation"]:
        parts[0].pairs += parts[1].pairs
    options = {"image_size": SIZE, "fast": flags["fast"], "encoder": encoder}
    if names:
        options |= {"task": "multiclass", "num_out_channels": len(names)}
        options |= {"class_names": names, "class_values": [*range(len(names))]}
    if flags["weigh"]:
        targets = [target for _, target in parts[0]]
        options["class_weights"] = class_weights(targets, len(names))
    system = ui.UISegmentationSystem(**options)
    name = "reference" if encoder == "unet" else "reference_encoder"
    name = "reference_classes" if names else name
    repeated = ConcatDataset(parts[:1] * REPEATS)
    loader = DataLoader(repeated, BATCH_SIZE, shuffle=True, drop_last=True)
    with TemporaryDirectory() as scratch:
        setup = {"max_epochs": epochs, "num_sanity_val_steps": 0}
        setup |= {"callbacks": [ui.StepProgress(timed=True), ui.RunFolder(scratch)]}
        trainer = Trainer(plugins=[ui.SafeCheckpointIO()], **setup)
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
    roles = ("training", "validation", "test")[: 2 if flags["no_test"] else 3]
    for role, part in zip(roles, parts, strict=False):
        print(f"{role}: {len(part)} pictures, {judge(system, part)}")


main = Command(make_reference)
main.add("--output", Path, "folder for the checkpoint and its log", required=True)
main.add("--pictures", Path, "folder with an index.json", PICTURES)
main.add("--epochs", int, "of 10 passes each", EPOCHS)
main.add_argument("--fast", action="store_true", help="the fast network")
main.add("--encoder", str, "or mobilenet_v2, for reference_encoder.ckpt", "unet")
main.add("--seed", int, "of weights and order; the split is always the same", SEED)
main.add_argument("--classes", action="store_true", help="the nine classes")
main.add_argument("--weigh", action="store_true", help="classes by their shares")
main.add_argument("--no-test", action="store_true", help="judge validation only")
main.add_argument("--with-validation", action="store_true", help="train on it as well")

if __name__ == "__main__":
    raise SystemExit(main())
