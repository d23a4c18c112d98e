"""Copying the one file is enough, as is a part of it, and it imports what it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakePairs, save_system, small_system

MODULE = Path(__file__).parents[1] / "ui_segmentation_system.py"
TEXT = MODULE.read_text(encoding="utf-8")
RULE = "# " + "-" * 86

TRAIN = """
import pytorch_lightning as pl
import ui_segmentation_system as ui
data = ui.UISegmentationData("pairs", 2, (16, 16), overfit_num=4)
system = ui.UISegmentationSystem(max_features=16)
off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
trainer = pl.Trainer(accelerator="cpu", max_epochs=1, **off)
trainer.fit(system, data)
mask = system.predict_mask(ui.load_image("pairs/3_input.png"))
print(ui.__file__, trainer.global_step, mask.shape)
"""

WITHOUT_LIGHTNING = """
import sys
for name in ("pytorch_lightning", "lightning", "torchmetrics"):
    sys.modules[name] = None
import torch
import ui_segmentation_system as ui
steps = [ui.ImageTargetResize((16, 16)), ui.ImageTargetToTensor()]
dataset = ui.UIImageMaskDataset("pairs", ui.ImageTargetCompose(steps))
net = ui.UNet(max_features=16)
optimizer = torch.optim.Adam(net.parameters())
for image, target in dataset:
    loss = ui.bce_dice_loss(net(image[None]), target[None])
    loss.backward()
    optimizer.step()
ui.overlay(image, net(image[None])[0, 0].sigmoid())
print(ui.__file__, len(dataset), hasattr(ui, "UISegmentationSystem"))
"""

# Runs the file as a command; prints the exit status and what is imported by then.
COMMAND = f"""
import runpy, sys
sys.argv[0] = {str(MODULE)!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("\\nended", end.code, *sys.modules)
"""
HEAVY = {"torchvision", "pytorch_lightning", "lightning_fabric", "matplotlib"}
HEAVY |= {"imageio", "torchmetrics", "onnx", "onnxruntime", "pandas", "scipy"}
HEAVIER = HEAVY | {"torch", "numpy", "PIL"}


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, as one who knows nothing of this project; its output."""
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    command = [sys.executable, "-W", "ignore", *arguments]
    kept = {"capture_output": True, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment, **kept)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The text before section 0 and each section's.
HEADER, *PARTS = re.split(rf"(?m)^(?={RULE}\n# \d+\. )", TEXT)


def test_sections_are_numbered_and_announced() -> None:
    titles = [re.match(rf"{RULE}\n# (\d+)\. (.+)\n{RULE}\n", part) for part in PARTS]
    assert [int(title[1]) for title in titles] == list(range(13))
    announced = re.findall(r"(?:^|\s)(\d+)\. [A-Z]", TEXT.split('"""')[1])
    assert sorted(map(int, announced)) == list(range(13))


@pytest.fixture
def place(make_pairs: MakePairs) -> Path:
    """A folder whose folder `pairs` holds three."""
    return make_pairs(3).parent


def test_copying_the_file_is_enough(place: Path) -> None:
    shutil.copy(MODULE, place)
    out = run(place, "-c", TRAIN).split("\n")
    assert f"{place / MODULE.name} 2 (20, 24)" in out


def test_sections_1_to_6_need_no_lightning(place: Path) -> None:
    (place / MODULE.name).write_text(HEADER + "".join(PARTS[:7]), encoding="utf-8")
    out = run(place, "-c", WITHOUT_LIGHTNING)
    assert out.split() == [str(place / MODULE.name), "3", "False"]


def test_each_section_can_go(tmp_path: Path) -> None:
    """Of the core all that is below a section; from 7 on each by itself, with 12."""
    kept = {f"before_{n}": range(n) for n in range(2, 13)}
    for number in range(7, 12):
        kept[f"without_{number}"] = [n for n in range(12) if n != number]
    for name, numbers in kept.items():
        text = HEADER + "".join(PARTS[number] for number in numbers)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    run(tmp_path, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821")
    imports = "\n".join(f"import {name}; print(1)" for name in kept)
    assert run(tmp_path, "-c", imports).split() == ["1"] * len(kept)


@pytest.mark.parametrize(
    ("words", "code", "absent", "present"),
    [
        ("--help", 0, HEAVIER, {"argparse"}),
        ("train --help", 0, HEAVIER, {"argparse"}),
        ("check pairs --treshold 3", 2, HEAVIER, set()),
        ("check pairs", 0, HEAVY, {"torch"}),
        ("predict -c a.ckpt pairs/1_input.png", 0, HEAVY, {"torch"}),
        ("predict -c a.ckpt pairs/1_input.png --tiles", 0, HEAVY, {"torch"}),
        ("train -d nowhere", 2, set(), {"torch", "pytorch_lightning"}),
    ],
)
def test_a_command_imports_what_it_needs(
    words: str, code: int, absent: set[str], present: set[str], place: Path
) -> None:
    save_system(place / "a.ckpt", small_system(image_size=16))
    printed = run(place, "-c", COMMAND, *words.split()).partition("\nended ")[2]
    ended, *modules = printed.split()
    assert int(ended) == code
    assert not absent & set(modules) and present <= set(modules)
