"""Tests of the tile game's screens: their pixels, their masks, their files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import tile_game
from tools.raw_item import CLASS_NAMES
from tools.tile_game import (
    BARS,
    CURSOR,
    DIALOG,
    MESSAGE,
    WINDOW,
    Screen,
    main,
    render_screen,
)
from ui_segmentation_system import PALETTE

DRAWN_CLASSES = (BARS, WINDOW, DIALOG, MESSAGE, CURSOR)
# Changes only when somebody changes what the game looks like.
SCREEN_7 = "a2ebc0be7a7bd0d7baae1a52e6f2559d47055d6859d6c60a5511a210ed00f0c5"
KEY_COLOUR = (1, 2, 3)


def fingerprint(screen: Screen) -> str:
    """Hash everything a screen holds."""
    return hashlib.sha256(b"".join(array.tobytes() for array in screen)).hexdigest()


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by its path inside it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def screens() -> list[Screen]:
    """Draw the first hundred screens once."""
    return [render_screen(seed) for seed in range(100)]


def test_the_same_seed_gives_the_same_pixels_on_every_machine() -> None:
    assert fingerprint(render_screen(7)) == SCREEN_7
    assert fingerprint(render_screen(np.int64(7))) == SCREEN_7
    with pytest.raises(TypeError, match="integer"):
        render_screen(1.5)


def test_classes_are_the_topmost_layer(screens: list[Screen]) -> None:
    for image, classes, layers in screens:
        assert (image.shape, image.dtype) == ((224, 256, 3), np.uint8)
        assert (classes.shape, classes.dtype) == ((224, 256), np.uint8)
        assert (layers.shape, layers.dtype) == ((len(CLASS_NAMES), 224, 256), bool)
        assert np.array_equal(classes > 0, layers.any(0))
        rows, columns = np.nonzero(classes)
        assert layers[classes[rows, columns], rows, columns].all()


@pytest.mark.parametrize(("width", "height"), [(256, 224), (128, 112), (333, 161)])
def test_the_interface_changes_every_pixel_of_its_mask_and_no_other(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    world = Image.new("RGB", (width, height), KEY_COLOUR)
    monkeypatch.setattr(tile_game, "draw_world", lambda *_: world.copy())
    for seed in range(100):
        screen = render_screen(seed, width, height)
        assert screen.image.shape == (height, width, 3)
        assert screen.layers.shape[1:] == screen.classes.shape == (height, width)
        painted = (screen.image != KEY_COLOUR).any(2)
        assert np.array_equal(painted, screen.classes > 0), seed


def test_classes_overlaps_and_shares(screens: list[Screen]) -> None:
    drawn = np.array([screen.layers.any((1, 2)) for screen in screens]).sum(0)
    assert all((count >= 5) == (id in DRAWN_CLASSES) for id, count in enumerate(drawn))
    assert 0.2 < np.mean([(screen.layers.sum(0) > 1).any() for screen in screens]) < 0.5
    hidden = [screen.layers[DIALOG] & (screen.classes != DIALOG) for screen in screens]
    assert np.any(hidden, (1, 2)).sum() >= 5
    shares = np.array([(screen.classes > 0).mean() for screen in screens])
    assert shares.min() > 0.005 and shares.max() < 0.6 and 0.1 < shares.mean() < 0.35


def test_scenery_is_bright(screens: list[Screen]) -> None:
    means = np.array([screen.image.mean() for screen in screens])
    assert np.median(means) > 130
    assert 3 <= (means < 110).sum() <= 30


def test_the_command_writes_pairs_that_read_back(tmp_path: Path) -> None:
    for name in ("pairs", "again"):
        options = ["--count", "6", "--seed", "3", "--width", "160", "--height", "144"]
        assert main([str(tmp_path / name), *options]) == 0
    pairs = tmp_path / "pairs"
    assert file_bytes(pairs) == file_bytes(tmp_path / "again")
    assert len(file_bytes(pairs)) == 3 * 6
    for number in range(1, 7):
        screen = render_screen(300_000 + number, 160, 144)
        image = Image.open(pairs / f"{number}_input.png")
        assert np.array_equal(np.asarray(image), screen.image)
        target = Image.open(pairs / f"{number}_target.jpg")
        assert target.mode == "L"
        assert np.array_equal(np.asarray(target) > 127, screen.classes > 0)
        classes = Image.open(pairs / "classes" / f"{number}_classes.png")
        assert np.array_equal(np.asarray(classes), screen.classes)
        palette = classes.getpalette()[: 3 * len(PALETTE)]
        assert palette == [value for colour in PALETTE for value in colour]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--count", "0"], "count 0: expected 1 to 99999"),
        (["--count", "100000"], "count 100000: expected 1 to 99999"),
        (["--seed", "-2"], "seed -199999: expected 0 or more"),
        (["--width", "127"], "width 127: expected 128 or more"),
        (["--height", "111"], "height 111: expected 112 or more"),
        (["--width", "0", "--height", "-5"], "width 0: expected 128"),
    ],
)
def test_a_bad_flag_gives_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "out"), *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
