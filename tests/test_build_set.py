"""The set builder on small raw items made here, and the set in test_inputs."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import file_bytes
from tools import build_set
from tools.raw_item import CLASS_IDS, CLASS_NAMES, RawItem, load_item, save_item
from ui_segmentation_system import check_pairs

FOLDER = Path(__file__).parents[1] / "test_inputs"
INDEX = json.loads((FOLDER / "index.json").read_text())
ITEMS = INDEX["items"]


def raw_item(number: int, kind: str = "hud", game: str = "freedoom") -> RawItem:
    """Make a bright 640x480 frame with one box, different for each number."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(60, 255, (15, 20, 3), np.uint8)
    world = blocks.repeat(32, axis=0).repeat(32, axis=1)
    classes = np.zeros((480, 640), np.uint8)
    classes[100:300, 150:500] = CLASS_IDS["dialog" if kind == "dialog" else "window"]
    image = np.where(classes[..., None] > 0, 20, world).astype(np.uint8)
    meta = {"game": game, "kind": kind, "map": f"map{number}", "number": number}
    return RawItem(image, world, classes, meta)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with eight raw items, two of them dialogues."""
    kinds = ("dialog", "dialog", "stash", "hud", "log", "stash", "hud", "log")
    for number, kind in enumerate(kinds):
        save_item(raw_item(number, kind, "flare"), tmp_path / f"raw/flare_{number}")
    return tmp_path / "raw"


def build(*words: object) -> int:
    options = ["--flare", "6", "--freedoom", "0", "--per-kind", "3"]
    return build_set.main([*map(str, words[:2]), *options, *map(str, words[2:])])


def test_raw_item_comes_back(tmp_path: Path) -> None:
    item = raw_item(3)
    save_item(item, tmp_path / "one")
    back = load_item(tmp_path / "one")
    assert all(np.array_equal(a, b) for a, b in zip(item[:3], back[:3], strict=True))
    assert back.meta == item.meta
    Image.new("L", (640, 480)).save(tmp_path / "one/mask.png")
    with pytest.raises(ValueError, match="mark different pixels"):
        load_item(tmp_path / "one")


def test_shrinking_keeps_the_mask_exact() -> None:
    item = raw_item(1)
    small = build_set.shrink(item, "freedoom_1")
    assert small.image.shape == (224, 256, 3)
    share = build_set.coverage(item.mask, (0, 0, 640, 480))
    assert np.array_equal(small.mask, share >= 0.5)
    assert small.ui_fraction == pytest.approx(item.mask.mean(), abs=0.01)


def test_set_is_built_and_built_again_the_same(raw: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "a", tmp_path / "b"
    assert build(raw, first, "--sheet", tmp_path / "s.png") == build(raw, again) == 0
    assert file_bytes(first) == file_bytes(again) and len(file_bytes(first)) == 19
    for number in range(1, 7):
        target = Image.open(first / f"{number}_target.jpg")
        classes = Image.open(first / f"classes/{number}_classes.png")
        assert np.array_equal(np.array(target) > 127, np.array(classes) > 0)
    pictures = [Image.open(path).convert("RGB") for path in first.glob("*_input.png")]
    assert len({picture.resize((8, 7)).tobytes() for picture in pictures}) == 6
    sheet = np.array(Image.open(tmp_path / "s_1.png"))
    assert sheet.shape == (3 * (224 + 12), 2 * 3 * 256, 3)
    sixth = Image.open(first / "6_input.png").convert("RGB")
    shown = sheet[-224:, 768 : 768 + 256].astype(int)  # the set has 256 colours
    assert np.abs(shown - np.array(sixth)).mean() < 6


def test_near_duplicates_are_left_out() -> None:
    first, again, other = (
        build_set.shrink(raw_item(number), name)
        for number, name in ((5, "a"), (5, "b"), (99, "c"))
    )
    pictures = [first, replace(again, map="another"), other]
    assert len(build_set.choose(pictures, 2, (9, 9), 9)) == 2
    with pytest.raises(ValueError, match="only 2 of 3 pictures qualify among 3"):
        build_set.choose(pictures, 3, (9, 9), 9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flare", "60"], "of 60 pictures qualify"),
        (["--reject", "flare_77"], "flare_77"),
        (["--first", "flare_77"], "not among the chosen"),
    ],
)
def test_bad_wishes_are_one_line(raw, tmp_path, capsys, words, message) -> None:
    with pytest.raises(SystemExit, match="2"):
        build(raw, tmp_path / "set", *words)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "set").exists()


# ---- what the lessons count on in the committed set


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
    assert sum(share >= build_set.LEAST_DIALOG for share in shares) >= 24
    # Pair 1 is a clear dialogue.
    assert 0.20 <= ITEMS[0]["ui_fraction"] <= 0.35 and shares[0] > 0


def test_licence_names_both_games() -> None:
    text = (FOLDER / "LICENSE.md").read_text()
    for words in (
        *("Clint Bellanger", "CC-BY-SA-3.0", "Contributors to the Freedoom project"),
        *("Neither the name of the freedoom project", "THIS SOFTWARE IS PROVIDED"),
    ):
        assert words in text
