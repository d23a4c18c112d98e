"""The committed set in test_inputs: what the lessons count on."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.build_set import LEAST_DIALOG
from tools.raw_item import CLASS_IDS, CLASS_NAMES
from ui_segmentation_system import check_pairs

FOLDER = Path(__file__).parents[1] / "test_inputs"
INDEX = json.loads((FOLDER / "index.json").read_text())
ITEMS = INDEX["items"]


def classes_of(item: dict) -> np.ndarray:
    return np.array(Image.open(FOLDER / f"classes/{item['id']}_classes.png"))


def test_pairs_are_exact_and_no_two_nearly_the_same() -> None:
    small = []
    for item in ITEMS:
        image = Image.open(FOLDER / f"{item['id']}_input.png")
        target = Image.open(FOLDER / f"{item['id']}_target.jpg")
        assert image.size == target.size == (256, 224)
        assert (image.mode, target.mode) == ("P", "L")
        classes = classes_of(item)
        assert np.array_equal(np.array(target) > 127, classes > 0), item
        assert np.unique(classes).tolist() == item["classes"], item
        assert (classes > 0).mean() == pytest.approx(item["ui_fraction"], abs=5e-5)
        thumbnail = image.convert("RGB").resize((32, 28), Image.Resampling.BOX)
        small.append(np.array(thumbnail, float))
    assert min(np.abs(a - b).mean() for a, b in combinations(small, 2)) > 8


def test_index_and_files_agree_and_the_doctor_finds_120_whole_pairs() -> None:
    assert [item["id"] for item in ITEMS] == list(range(1, 121))
    for pattern in ("*_input.png", "*_target.jpg", "classes/*"):
        assert len(list(FOLDER.glob(pattern))) == 120
    assert tuple(INDEX["class_names"]) == CLASS_NAMES
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) < 8e6
    report = check_pairs(FOLDER)
    assert report.ok and report.num_pairs == 120
    # The one warning is about JPEG masks, which lesson 01 needs.
    assert [problem.file for problem in report.problems] == ["120 targets"]


def test_games_maps_and_dialogues() -> None:
    assert {item["game"] for item in ITEMS} == {"flare", "freedoom"}
    assert len({(item["game"], item["map"]) for item in ITEMS}) >= 40
    shares = [(classes_of(item) == CLASS_IDS["dialog"]).mean() for item in ITEMS]
    assert sum(share >= LEAST_DIALOG for share in shares) >= 24
    # Pair 1 is a clear dialogue.
    assert 0.20 <= ITEMS[0]["ui_fraction"] <= 0.35 and shares[0] > 0


def test_licence_names_both_games() -> None:
    text = (FOLDER / "LICENSE.md").read_text()
    for words in (
        *("Clint Bellanger", "CC-BY-SA-3.0", "Contributors to the Freedoom project"),
        *("Neither the name of the freedoom project", "THIS SOFTWARE IS PROVIDED"),
    ):
        assert words in text
