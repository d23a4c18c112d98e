"""Tests of the tile game's screens: their pixels, their masks, their files."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import tile_art, tile_game
from tools.tile_game import (
    BARS,
    CURSOR,
    DIALOG,
    MESSAGE,
    WINDOW,
    Screen,
    load_target,
    main,
    plant_dirt,
    render_screen,
)
from tools.ui_classes import CLASS_NAMES, PALETTE

SEEDS = range(100)
DRAWN_CLASSES = (BARS, WINDOW, DIALOG, MESSAGE, CURSOR)
# Changes only when somebody changes what the game looks like.
IMAGE_7 = "170db6b5cac0fb62709f448ff12ead83da4173a0bae1fa9fd1b819a0df766194"
SCREEN_7 = "aadd683cb6f3860a72890b7a6d06c1f77267711c0099db7d53db638e8553542d"
KEY_COLOUR = (1, 2, 3)


def fingerprint(screen: Screen) -> str:
    """Hash everything a screen holds."""
    arrays = (screen.image, screen.classes, screen.layers)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by its path inside it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Name the files that came, went or changed."""
    return {
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }


def greys(path: Path) -> int:
    """Count the pixels of a target that are far from both black and white."""
    with Image.open(path) as picture:
        values = np.asarray(picture.convert("L"))
    return int(((values > 20) & (values < 235)).sum())


@pytest.fixture(scope="module")
def screens() -> list[Screen]:
    """Draw the first hundred screens once."""
    return [render_screen(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def clean_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twenty clean pairs once."""
    folder = tmp_path_factory.mktemp("clean") / "pairs"
    assert main([str(folder), "--count", "20", "--seed", "3"]) == 0
    return folder


@pytest.fixture
def pairs(clean_pairs: Path, tmp_path: Path) -> Path:
    """Copy the clean pairs to where a test may spoil them."""
    return Path(shutil.copytree(clean_pairs, tmp_path / "pairs"))


def test_the_same_seed_gives_the_same_pixels_on_every_machine() -> None:
    screen = render_screen(7)
    assert hashlib.sha256(screen.image.tobytes()).hexdigest() == IMAGE_7
    assert fingerprint(screen) == SCREEN_7


def test_a_screen_does_not_depend_on_those_drawn_before(screens: list[Screen]) -> None:
    assert fingerprint(render_screen(41)) == fingerprint(screens[41])


def test_a_seed_may_come_from_numpy() -> None:
    assert fingerprint(render_screen(np.int64(7))) == SCREEN_7
    with pytest.raises(TypeError, match="integer"):
        render_screen(1.5)


def test_different_seeds_give_different_screens(screens: list[Screen]) -> None:
    assert len({screen.image.tobytes() for screen in screens}) == len(screens)


def test_shapes_and_types(screens: list[Screen]) -> None:
    image, classes, layers, boxes = screens[0]
    assert (image.shape, image.dtype) == ((224, 256, 3), np.uint8)
    assert (classes.shape, classes.dtype) == ((224, 256), np.uint8)
    assert (layers.shape, layers.dtype) == ((len(CLASS_NAMES), 224, 256), bool)
    assert all(box.class_id in DRAWN_CLASSES for box in boxes)


def test_classes_are_the_topmost_layer(screens: list[Screen]) -> None:
    for screen in screens:
        covered = screen.classes > 0
        assert np.array_equal(covered, screen.layers.any(0))
        rows, columns = np.nonzero(covered)
        ids = screen.classes[rows, columns]
        assert screen.layers[ids, rows, columns].all()


def test_layers_are_the_boxes_of_their_class(screens: list[Screen]) -> None:
    for screen in screens:
        boxed = np.zeros_like(screen.layers)
        for class_id, left, top, width, height in screen.boxes:
            boxed[class_id, top : top + height, left : left + width] = True
        assert not (screen.layers & ~boxed).any()
        # Only rounded corners and the outline of a hand stay free.
        ids = [id for id in DRAWN_CLASSES if id != CURSOR]
        assert screen.layers[ids].sum() >= 0.95 * boxed[ids].sum()


def test_hidden_pixels_stay_in_their_layer(screens: list[Screen]) -> None:
    dialog_under_another = [
        screen
        for screen in screens
        if (screen.layers[DIALOG] & (screen.classes != DIALOG)).any()
    ]
    assert len(dialog_under_another) >= 5


@pytest.mark.parametrize(("width", "height"), [(256, 224), (128, 112), (333, 161)])
def test_the_interface_changes_every_pixel_of_its_mask_and_no_other(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    world = np.full((height, width, 3), KEY_COLOUR, np.uint8)
    monkeypatch.setattr(tile_game, "draw_world", lambda *_: world.copy())
    for seed in range(60):
        screen = render_screen(seed, width, height)
        painted = (screen.image != KEY_COLOUR).any(2)
        assert np.array_equal(painted, screen.classes > 0), seed


def test_every_class_occurs(screens: list[Screen]) -> None:
    for class_id in DRAWN_CLASSES:
        assert sum(screen.layers[class_id].any() for screen in screens) >= 5
    others = set(range(len(CLASS_NAMES))) - set(DRAWN_CLASSES)
    assert not any(screen.layers[list(others)].any() for screen in screens)


def test_overlap_happens_in_about_a_third(screens: list[Screen]) -> None:
    share = np.mean([(screen.layers.sum(0) > 1).any() for screen in screens])
    assert 0.2 < share < 0.5


def test_share_of_the_interface_is_sane(screens: list[Screen]) -> None:
    shares = np.array([(screen.classes > 0).mean() for screen in screens])
    assert shares.min() > 0.005
    assert shares.max() < 0.6
    assert 0.1 < shares.mean() < 0.35


def test_scenery_is_bright(screens: list[Screen]) -> None:
    means = np.array([screen.image.mean() for screen in screens])
    assert np.median(means) > 130
    # Some nights among the days.
    assert 3 <= (means < 110).sum() <= 30


def test_odd_sizes() -> None:
    for width, height in [(160, 144), (128, 112), (257, 225), (480, 272)]:
        for seed in range(12):
            screen = render_screen(seed, width, height)
            assert screen.image.shape == (height, width, 3)
            assert screen.layers.shape[1:] == screen.classes.shape == (height, width)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 127, 224), "127x224, expected at least 128x112"),
        ((1, 256, 111), "256x111, expected at least 128x112"),
        ((1, 0, -5), "0x-5"),
        ((-1, 256, 224), "seed is -1, expected 0 or more"),
    ],
)
def test_bad_settings_are_refused(
    arguments: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        render_screen(*arguments)


def test_every_letter_of_every_text_has_its_own_glyph() -> None:
    glyphs = tile_art.GLYPHS
    assert len({(ink.shape, ink.tobytes()) for ink in glyphs.values()}) == len(glyphs)
    texts = tile_art.SENTENCES + tile_art.QUESTIONS + tile_art.GREETINGS
    assert set("".join(texts)) <= glyphs.keys()


def test_wrapped_lines_fit_and_lose_no_word() -> None:
    for text in tile_art.SENTENCES:
        lines = tile_game.wrap(text, 100)
        assert " ".join(lines) == text
        assert all(tile_game.text_width(line) <= 100 for line in lines)


def test_the_command_writes_pairs_that_read_back(pairs: Path) -> None:
    names = {
        f"{n}_{kind}" for n in range(1, 21) for kind in ("input.png", "target.jpg")
    }
    assert {path.name for path in pairs.iterdir()} == names | {"classes"}
    for number in range(1, 21):
        screen = render_screen(300_000 + number)
        with Image.open(pairs / f"{number}_input.png") as picture:
            assert np.array_equal(np.asarray(picture), screen.image)
        with Image.open(pairs / f"{number}_target.jpg") as picture:
            assert picture.mode == "L"
            mask = np.asarray(picture) > 127
        assert np.array_equal(mask, screen.classes > 0)
        with Image.open(pairs / "classes" / f"{number}_classes.png") as picture:
            assert np.array_equal(np.asarray(picture), screen.classes)
            palette = picture.getpalette()[: 3 * len(PALETTE)]
        assert palette == [value for colour in PALETTE for value in colour]


def test_the_command_gives_the_same_files_again(pairs: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main([str(again), "--count", "20", "--seed", "3"]) == 0
    assert file_bytes(again) == file_bytes(pairs)


def test_size_options(tmp_path: Path) -> None:
    options = ["--count", "1", "--width", "160", "--height", "144"]
    assert main([str(tmp_path / "small"), *options]) == 0
    with Image.open(tmp_path / "small" / "1_input.png") as picture:
        assert picture.size == (160, 144)


def test_rings_leave_the_thresholded_mask_almost_alone(pairs: Path) -> None:
    before = file_bytes(pairs)
    counts = {path.name: greys(path) for path in pairs.glob("*_target.jpg")}
    masks = {path.name: load_target(path) for path in pairs.glob("*_target.jpg")}
    lines = plant_dirt(pairs, ["jpeg-rings"], seed=1)
    spoilt = {line.split(":")[0] for line in lines}
    assert len(spoilt) == 2 and changed(before, file_bytes(pairs)) == spoilt
    for name in spoilt:
        assert greys(pairs / name) > 3 * counts[name]
        assert (load_target(pairs / name) != masks[name]).mean() < 0.002


def test_one_pixel_off_moves_the_mask_down(pairs: Path) -> None:
    before = file_bytes(pairs)
    masks = {path.name: load_target(path) for path in pairs.glob("*_target.jpg")}
    lines = plant_dirt(pairs, ["one-pixel-off"], seed=1)
    spoilt = {line.split(":")[0] for line in lines}
    assert len(spoilt) == 2 and changed(before, file_bytes(pairs)) == spoilt
    for name in spoilt:
        moved = load_target(pairs / name)
        assert not moved[0].any()
        assert np.array_equal(moved[1:], masks[name][:-1])


def test_renamed_moves_one_target_to_a_free_key(pairs: Path) -> None:
    before = file_bytes(pairs)
    (line,) = plant_dirt(pairs, ["renamed"], seed=1)
    old, new = line.split(":")[0], line.split()[-1]
    after = file_bytes(pairs)
    assert changed(before, after) == {old, new}
    assert old not in after and new not in before
    assert after[new] == before[old]


def test_renamed_never_takes_the_key_of_another(pairs: Path) -> None:
    before = file_bytes(pairs)
    assert tile_game.rename(pairs / "1_target.jpg").name == "100_target.jpg"
    assert file_bytes(pairs)["10_target.jpg"] == before["10_target.jpg"]


def test_missing_deletes_one_target(pairs: Path) -> None:
    before = file_bytes(pairs)
    (line,) = plant_dirt(pairs, ["missing"], seed=1)
    name = line.split(":")[0]
    assert changed(before, file_bytes(pairs)) == {name}
    assert not (pairs / name).exists()


def test_the_command_prints_what_it_spoilt_and_nothing_else_changes(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kinds = tmp_path / "dirty", "missing,renamed,one-pixel-off,jpeg-rings"
    assert main([str(out), "--count", "20", "--seed", "3", "--dirt", kinds]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.split(":")[0] for line in lines}) == len(lines) == 6
    renamed = [line.split()[-1] for line in lines if "now called" in line]
    spoilt = {line.split(":")[0] for line in lines} | set(renamed)
    assert changed(file_bytes(pairs), file_bytes(out)) == spoilt
    assert plant_dirt(pairs, kinds.split(","), seed=3) == lines
    assert file_bytes(pairs) == file_bytes(out)


def test_dirt_is_refused_before_anything_is_touched(pairs: Path) -> None:
    before = file_bytes(pairs)
    with pytest.raises(ValueError, match="dirt is 'rust', expected some of jpeg-rings"):
        plant_dirt(pairs, ["missing", "rust"], seed=1)
    assert file_bytes(pairs) == before
    with pytest.raises(ValueError, match="0 targets for 1 "):
        plant_dirt(pairs / "classes", ["missing"], seed=1)


BAD_FLAGS = [
    (["--count", "0"], "count is 0, expected 1 to 99999"),
    (["--count", "100000"], "count is 100000, expected 1 to 99999"),
    (["--seed", "-2"], "seed is -2"),
    (["--width", "20"], "screen size is 20x224"),
    (["--dirt", "rust"], "dirt is 'rust'"),
    (["--dirt", "missing,,renamed"], "dirt is ''"),
    (["--count", "1", "--dirt", "missing,renamed"], "1 targets for 2 "),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_a_bad_flag_gives_one_line(
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "out"), *flags])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def occupied_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("keep")


def occupied_name(path: Path) -> None:
    path.write_text("keep")


@pytest.mark.parametrize("occupy", [occupied_folder, occupied_name])
def test_what_is_already_there_is_never_overwritten(
    occupy: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    occupy(out)
    before = file_bytes(tmp_path)
    with pytest.raises(SystemExit):
        main([str(out), "--count", "1"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "exists and is not an empty folder" in line and str(out) in line
    assert file_bytes(tmp_path) == before


def test_an_interrupted_command_leaves_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tile_game, "plant_dirt", stop)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "out"), "--count", "2"])
    assert list((tmp_path / "out").iterdir()) == []
