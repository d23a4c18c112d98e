"""The set builder and its sheets, on small raw items made here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import file_bytes
from tools import build_set
from tools.raw_item import CLASS_IDS, RawItem, load_item, save_item


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
    for number in range(8):
        kind = "dialog" if number < 2 else ("hud", "log", "stash")[number % 3]
        item = raw_item(number, kind, "flare")
        save_item(item, tmp_path / "raw" / f"flare_{number}")
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
