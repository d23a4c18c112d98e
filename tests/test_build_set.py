"""The set builder and the contact sheet, on small raw items made here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import build_set, contact_sheet
from tools.raw_item import CLASS_IDS, RawItem, load_item, save_item


def raw_item(number: int, kind: str = "hud", game: str = "flare") -> RawItem:
    """Make a bright 640x480 frame with one box, different for each number."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(60, 255, (15, 20, 3), np.uint8)
    world = blocks.repeat(32, axis=0).repeat(32, axis=1)
    classes = np.zeros((480, 640), np.uint8)
    classes[100:300, 150:500] = CLASS_IDS["dialog" if kind == "dialog" else "window"]
    image = world.copy()
    image[classes > 0] = 20
    meta = {"game": game, "kind": kind, "map": f"map{number}", "number": number}
    return RawItem(image, world, classes, meta)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with eight raw items, two of them dialogues."""
    folder = tmp_path / "raw"
    for number in range(8):
        kind = "dialog" if number < 2 else ("hud", "log", "stash")[number % 3]
        save_item(raw_item(number, kind), folder / f"flare_{number}")
    return folder


def build(*words: object) -> int:
    options = ["--flare", "6", "--freedoom", "0", "--per-kind", "3"]
    return build_set.main([*map(str, words), *options])


def test_raw_item_comes_back(tmp_path: Path) -> None:
    item = raw_item(3)
    save_item(item, tmp_path / "one")
    back = load_item(tmp_path / "one")
    assert all(np.array_equal(a, b) for a, b in zip(item[:3], back[:3], strict=True))
    assert back.meta == item.meta
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_disagreeing_mask_is_refused(tmp_path: Path) -> None:
    save_item(raw_item(3), tmp_path / "one")
    Image.new("L", (640, 480)).save(tmp_path / "one/mask.png")
    with pytest.raises(ValueError, match="mark different pixels"):
        load_item(tmp_path / "one")


def test_shrinking_keeps_the_mask_exact() -> None:
    item = raw_item(1, game="freedoom")
    small = build_set.shrink(item, "freedoom_1")
    share = build_set.coverage(item.mask, (0, 0, 640, 480))
    assert small.image.shape == (224, 256, 3)
    assert np.array_equal(small.mask, share >= 0.5)
    assert small.ui_fraction == pytest.approx(item.mask.mean(), abs=0.01)


def test_set_is_built_and_built_again_the_same(raw: Path, tmp_path: Path) -> None:
    assert build(raw, tmp_path / "a") == 0
    assert build(raw, tmp_path / "b") == 0
    names = sorted(path.name for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) == 6 * 3 + 1
    for path in (tmp_path / "a").rglob("*.*"):
        twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == twin.read_bytes()


def test_classes_agree_with_target(raw: Path, tmp_path: Path) -> None:
    build(raw, tmp_path / "set")
    for number in range(1, 7):
        target = Image.open(tmp_path / f"set/{number}_target.jpg")
        classes = Image.open(tmp_path / f"set/classes/{number}_classes.png")
        assert np.array_equal(np.array(target) > 127, np.array(classes) > 0)


def test_near_duplicates_are_left_out(raw: Path, tmp_path: Path) -> None:
    chosen = build_set.read_candidates(raw, [])
    twin = build_set.shrink(raw_item(5), "flare_5")
    assert build_set.looks_like_one_of(twin, chosen)
    assert not build_set.looks_like_one_of(
        build_set.shrink(raw_item(99), "flare_99"), chosen
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flare", "60"], "of 60 pictures qualify"),
        (["--reject", "flare_77"], "flare_77"),
        (["--first", "flare_77"], "not among the chosen"),
    ],
)
def test_bad_wishes_are_one_line(raw, tmp_path, capsys, words, message) -> None:
    arguments = [str(raw), str(tmp_path / "set"), "--flare", "6", "--freedoom", "0"]
    with pytest.raises(SystemExit) as stop:
        build_set.main([*arguments, "--per-kind", "3", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "set").exists()


def test_a_full_folder_is_not_overwritten(raw: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine.txt").write_text("keep me")
    with pytest.raises(SystemExit):
        build(raw, tmp_path / "set")
    assert "--replace" in capsys.readouterr().err
    assert (tmp_path / "set/mine.txt").read_text() == "keep me"


def test_contact_sheet_shows_every_pair(raw: Path, tmp_path: Path) -> None:
    build(raw, tmp_path / "set")
    assert contact_sheet.main([str(tmp_path / "set"), str(tmp_path / "s.png")]) == 0
    sheet = Image.open(tmp_path / "s_1.png")
    assert sheet.size == (2 * 3 * 260, 3 * (224 + 12 + 4))


def test_contact_sheet_of_nothing_is_one_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        contact_sheet.main([str(tmp_path), str(tmp_path / "s.png")])
    assert stop.value.code == 2
    assert "named like 1_input.png" in capsys.readouterr().err
