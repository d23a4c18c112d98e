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


def picture(name: str) -> np.ndarray:
    return np.array(Image.open(FOLDER / name))


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: str(item["id"]))
def test_pair_is_exact(item) -> None:
    number = item["id"]
    image = Image.open(FOLDER / f"{number}_input.png")
    target = Image.open(FOLDER / f"{number}_target.jpg")
    classes = picture(f"classes/{number}_classes.png")
    assert image.size == target.size == (256, 224)
    assert (image.mode, target.mode) == ("P", "L")
    assert np.array_equal(np.array(target) > 127, classes > 0)
    assert np.unique(classes).tolist() == item["classes"]
    assert (classes > 0).mean() == pytest.approx(item["ui_fraction"], abs=5e-5)


def test_index_and_files_agree() -> None:
    numbers = [item["id"] for item in ITEMS]
    assert numbers == list(range(1, len(ITEMS) + 1))
    assert len(list(FOLDER.glob("*_input.png"))) == len(ITEMS)
    assert len(list(FOLDER.glob("*_target.jpg"))) == len(ITEMS)
    assert len(list(FOLDER.glob("classes/*"))) == len(ITEMS)
    assert tuple(INDEX["class_names"]) == CLASS_NAMES


def test_doctor_finds_120_whole_pairs() -> None:
    report = check_pairs(FOLDER)
    assert report.ok
    assert report.num_pairs == len(ITEMS) == 120
    # The one warning is about JPEG masks, which lesson 01 needs.
    assert [problem.file for problem in report.problems] == ["120 targets"]


def test_set_is_large_and_small_enough() -> None:
    assert len(ITEMS) >= 110
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) < 8e6


def test_games_maps_and_dialogues() -> None:
    assert {item["game"] for item in ITEMS} == {"flare", "freedoom"}
    assert len({(item["game"], item["map"]) for item in ITEMS}) >= 40
    shares = [
        (picture(f"classes/{item['id']}_classes.png") == CLASS_IDS["dialog"]).mean()
        for item in ITEMS
    ]
    assert sum(share >= LEAST_DIALOG for share in shares) >= 24


def test_pair_1_is_a_clear_dialogue() -> None:
    first = ITEMS[0]
    assert 0.20 <= first["ui_fraction"] <= 0.35
    assert CLASS_IDS["dialog"] in first["classes"]
    assert picture("1_target.jpg").shape == (224, 256)


def test_no_two_pictures_are_nearly_the_same() -> None:
    small = [
        np.array(
            Image.open(FOLDER / f"{item['id']}_input.png")
            .convert("RGB")
            .resize((32, 28), Image.Resampling.BOX),
            dtype=float,
        )
        for item in ITEMS
    ]
    nearest = min(np.abs(a - b).mean() for a, b in combinations(small, 2))
    assert nearest > 8


def test_licence_names_both_games() -> None:
    text = (FOLDER / "LICENSE.md").read_text()
    for words in (
        "Clint Bellanger",
        "CC-BY-SA-3.0",
        "Contributors to the Freedoom project",
        "Neither the name of the freedoom project",
        "THIS SOFTWARE IS PROVIDED",
    ):
        assert words in text
