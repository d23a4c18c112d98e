"""The tile game's screens: their pixels, their masks, their files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import file_bytes
from tools import tile_game
from tools.tile_game import BARS, CURSOR, DIALOG, MESSAGE, WINDOW, main, render_screen
from ui_segmentation_system import PALETTE

# Change only when somebody changes what the game looks like.
SCREENS = "c77332f3cbde31977bd33545d38474bef1349478657bdc26d3949d9e89c6161a"
KEY_COLOUR = (1, 2, 3)


def test_the_same_seed_gives_the_same_pixels_on_every_machine() -> None:
    digest, means = hashlib.sha256(), []
    drawn, overlaps, hidden = np.zeros(9, int), 0, 0
    for seed in range(100):
        image, classes, layers = screen = render_screen(np.int64(seed))
        assert (image.shape, classes.shape) == ((224, 256, 3), (224, 256))
        assert (image.dtype, classes.dtype, layers.dtype) == (np.uint8, np.uint8, bool)
        # Classes are the topmost layer.
        assert np.array_equal(classes > 0, layers.any(0))
        rows, columns = np.nonzero(classes)
        assert layers[classes[rows, columns], rows, columns].all()
        drawn += layers.any((1, 2))
        overlaps += (layers.sum(0) > 1).any()
        hidden += (layers[DIALOG] & (classes != DIALOG)).any()
        means.append((image.mean(), (classes > 0).mean()))
        for part in screen:
            digest.update(part.tobytes())
    # What the lessons count on: every class, overlaps, bright scenery, a third at most.
    found = [number for number, count in enumerate(drawn) if count]
    assert found == sorted((BARS, WINDOW, DIALOG, MESSAGE, CURSOR)) and drawn[0] == 0
    assert min(drawn[found]) >= 5 and 20 < overlaps < 50 and hidden >= 5
    bright, shares = np.transpose(means)
    assert np.median(bright) > 130 and shares.min() > 0.005 and shares.max() < 0.6
    assert digest.hexdigest() == SCREENS


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
        target = Image.open(pairs / f"{number}_target.jpg")
        classes = Image.open(pairs / f"classes/{number}_classes.png")
        assert np.array_equal(np.asarray(image), screen.image)
        assert target.mode == "L"
        assert np.array_equal(np.asarray(target) > 127, screen.classes > 0)
        assert np.array_equal(np.asarray(classes), screen.classes)
        palette = classes.getpalette()[: 3 * len(PALETTE)]
        assert palette == np.ravel(PALETTE).tolist()


def test_what_cannot_be_drawn_is_refused() -> None:
    for arguments, message in (
        ((0, 127, 112), "width 127: expected 128 or"),
        ((0, 128, 111), "height 111: expected"),
        ((-1,), "seed -1: expected 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            render_screen(*arguments)
    with pytest.raises(TypeError, match="integer"):
        render_screen(1.5)
