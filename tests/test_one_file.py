"""Copying the one file is enough, also without the sections that nobody wants."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakePairs

MODULE = Path(__file__).parents[1] / "ui_segmentation_system.py"
RULE = "# " + "-" * 86
REFERENCE = MODULE.parent / "checkpoints" / "reference.ckpt"

TRAIN = """
import pytorch_lightning as pl
import ui_segmentation_system as ui
data = ui.UISegmentationData("pairs", 2, (16, 16), overfit_num=4)
system = ui.UISegmentationSystem(max_features=16)
ui.quiet_lightning()
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)
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

LOOK = """
import runpy
import sys
try:
    runpy.run_path("ui_segmentation_system.py", run_name="__main__")
    status = 0
except SystemExit as end:
    status = end.code or 0
print()
print(status)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, as one who knows nothing of this project; its output."""
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sections() -> dict[int, str]:
    """Cut the module: the text of each section by its number, the header's by -1."""
    text = MODULE.read_text(encoding="utf-8")
    header, *parts = re.split(rf"(?m)^{RULE}\n# (\d+)\. ", text)
    return {-1: header} | dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


def without(*numbers: int) -> str:
    """Give the module's text without some of its sections."""
    parts = sections()
    return parts[-1] + "".join(
        f"{RULE}\n# {number}. {part}"
        for number, part in parts.items()
        if number >= 0 and number not in numbers
    )


def test_copying_the_file_is_enough(make_pairs: MakePairs, tmp_path: Path) -> None:
    make_pairs(3)
    shutil.copy(MODULE, tmp_path)
    out = run(tmp_path, "-c", TRAIN).split("\n")
    assert f"{tmp_path / MODULE.name} 2 (20, 24)" in out


def test_sections_1_to_6_need_no_lightning(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    make_pairs(3)
    (tmp_path / MODULE.name).write_text(without(*range(7, 13)), encoding="utf-8")
    out = run(tmp_path, "-c", WITHOUT_LIGHTNING)
    assert out.split() == [str(tmp_path / MODULE.name), "3", "False"]


def test_sections_are_numbered_and_announced() -> None:
    numbers = list(sections())[1:]
    assert numbers == list(range(13))
    header = MODULE.read_text(encoding="utf-8").split('"""')[1]
    announced = sorted(map(int, re.findall(r"(?:^|\s)(\d+)\. [A-Z]", header)))
    assert announced == numbers


@pytest.mark.parametrize("number", [7, 8, 9, 10, 11])
def test_each_section_from_7_on_can_be_deleted(
    make_pairs: MakePairs, tmp_path: Path, number: int
) -> None:
    """With 12, which uses them all: the rest names nothing that is gone, and runs."""
    make_pairs(3)
    (tmp_path / MODULE.name).write_text(without(number, 12), encoding="utf-8")
    run(tmp_path, "-m", "ruff", "check", "--isolated", "--select", "F821", ".")
    if number == 7:
        out = run(tmp_path, "-c", WITHOUT_LIGHTNING)
        assert out.split() == [str(tmp_path / MODULE.name), "3", "False"]
    else:
        out = run(tmp_path, "-c", TRAIN).split("\n")
        assert f"{tmp_path / MODULE.name} 2 (20, 24)" in out


def test_section_12_can_be_deleted(make_pairs: MakePairs, tmp_path: Path) -> None:
    make_pairs(3)
    (tmp_path / MODULE.name).write_text(without(12), encoding="utf-8")
    run(tmp_path, "-m", "ruff", "check", "--isolated", "--select", "F821", ".")
    assert "2 (20, 24)" in run(tmp_path, "-c", TRAIN)


@pytest.mark.parametrize(
    ("arguments", "status", "absent"),
    [
        (["--help"], 0, "numpy torch torchvision pytorch_lightning PIL tqdm"),
        (["train", "--help"], 0, "numpy torch torchvision pytorch_lightning PIL tqdm"),
        (["train", "--max-epohcs", "3"], 2, "numpy torch pytorch_lightning"),
        (
            ["check", "pairs"],
            0,
            "torchvision pytorch_lightning torchmetrics matplotlib",
        ),
        (
            ["predict", "pairs/1_input.png", "-c", str(REFERENCE)],
            0,
            "torchvision pytorch_lightning torchmetrics matplotlib",
        ),
    ],
)
def test_a_command_imports_what_it_needs(
    make_pairs: MakePairs,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    absent: str,
) -> None:
    make_pairs(3)
    shutil.copy(MODULE, tmp_path)
    (tmp_path / "look.py").write_text(LOOK, encoding="utf-8")
    *_, ended, loaded = run(tmp_path, "look.py", *arguments).strip().split("\n")
    assert ended == str(status)
    assert not set(absent.split()) & set(loaded.split())
