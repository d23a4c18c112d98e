"""Copying the one file is enough, and so is copying the upper part of it."""

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


def upper_part(number: int) -> str:
    """Cut the module's text before the rule over section `number`."""
    before, found, _ = MODULE.read_text(encoding="utf-8").partition(
        f"{RULE}\n# {number}. "
    )
    assert found, f"section {number} has no rule and title"
    return before


def sections() -> list[int]:
    text = MODULE.read_text(encoding="utf-8")
    return [int(n) for n in re.findall(rf"(?m)^{RULE}\n# (\d+)\. ", text)]


def lightning_section() -> int:
    """Find the first section that imports Lightning."""
    marks = [n for n in sections() if "import pytorch_lightning" in upper_part(n)]
    return min(marks, default=sections()[-1] + 1) - 1


def test_copying_the_file_is_enough(make_pairs: MakePairs, tmp_path: Path) -> None:
    make_pairs(3)
    shutil.copy(MODULE, tmp_path)
    out = run(tmp_path, "-c", TRAIN).split("\n")
    assert f"{tmp_path / MODULE.name} 2 (20, 24)" in out


def test_upper_sections_need_no_lightning(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    make_pairs(3)
    part = upper_part(lightning_section())
    (tmp_path / MODULE.name).write_text(part, encoding="utf-8")
    out = run(tmp_path, "-c", WITHOUT_LIGHTNING)
    assert out.split() == [str(tmp_path / MODULE.name), "3", "False"]


def test_sections_are_numbered_and_announced() -> None:
    numbers = sections()
    assert numbers == list(range(1, len(numbers) + 1))
    header = MODULE.read_text(encoding="utf-8").split('"""')[1]
    announced = sorted(map(int, re.findall(r"(?:^|\s)(\d+)\. [A-Z]", header)))
    assert announced == numbers


@pytest.fixture
def every_cut(tmp_path: Path) -> Path:
    """A folder with the module cut before each section in turn."""
    for number in sections()[1:]:
        part = upper_part(number)
        (tmp_path / f"cut_{number}.py").write_text(part, encoding="utf-8")
    return tmp_path


def test_each_section_uses_only_those_above(every_cut: Path) -> None:
    ruff = ("-m", "ruff", "check", "--isolated", "--no-cache")
    run(every_cut, *ruff, "--select", "F821", ".")


def test_what_is_left_imports(every_cut: Path) -> None:
    names = [path.stem for path in every_cut.glob("cut_*.py")]
    out = run(every_cut, "-c", "\n".join(f"import {name}; print(1)" for name in names))
    assert out.split() == ["1"] * (len(sections()) - 1)
