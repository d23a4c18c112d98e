"""The drawn slide: any window, in any order, always the same pixels."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.slide import PITCH, SIZE, Slide, main

SLIDE = Slide()


def same(first: tuple, second: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_same_seed_gives_the_stored_pixels_on_every_machine() -> None:
    # Exact: the slide uses only operations that IEEE 754 rounds in one way.
    digest = hashlib.sha256()
    for place in ((11_003, 4_205), (3_000, 8_000), (13_000, 15_500)):
        image, mask = SLIDE.window(*place, 120, 150)
        digest.update(image.tobytes() + mask.tobytes())
        assert not np.array_equal(Slide(seed=2).window(*place, 120, 150)[0], image)
    stored = "e6ca275735e7bc47550a8755f37d2049aa0405e0a54bc6230865fa7eb982cf15"
    assert digest.hexdigest() == stored


# Both ends of the slide; larger than one drawn block; one pixel high or wide, at each
# way a border can cross the squares of the nuclei.
WINDOWS = [
    *((11_001, 4_203, 620, 530), (0, 0, 90, 90), (SIZE - 90, SIZE - 90, 90, 90)),
    *((10_400 + line, 3_000, 1, 700) for line in range(PITCH)),
    *((10_400, 3_000 + line, 700, 1) for line in range(PITCH)),
]


@pytest.mark.parametrize(("y", "x", "height", "width"), WINDOWS)
def test_a_window_equals_the_same_place_in_another(
    y: int, x: int, height: int, width: int
) -> None:
    top, left = max(y - 3, 0), max(x - 8, 0)
    size = min(height + 13, SIZE - top), min(width + 21, SIZE - left)
    more = SLIDE.window(top, left, *size)
    place = np.s_[y - top : y - top + height, x - left : x - left + width]
    assert same(SLIDE.window(y, x, height, width), tuple(part[place] for part in more))


def test_slices_clip_like_numpy_and_travel_without_pixels() -> None:
    small = Slide(60, 80)
    image, mask = whole = SLIDE.window(0, 0, 60, 80)
    assert (small.shape, small.mask.shape) == (image.shape, mask.shape)
    assert small.dtype == small.mask.dtype == image.dtype == mask.dtype == np.uint8
    packed = pickle.dumps(small)
    assert len(packed) < 400
    small = pickle.loads(packed)
    keys = np.s_[:, :], np.s_[50:90, 70:], np.s_[-9:, :-75], np.s_[60:70, :]
    for key in (*keys, np.s_[9:3, 1:4]):
        assert same((small[key], small.mask[key]), tuple(part[key] for part in whole))
    for key in (3, np.s_[3, 4], np.s_[:8], np.s_[::2, :8], np.s_[:, 1]):
        for source in (small, small.mask):
            with pytest.raises(ValueError, match="two slices without a step"):
                source[key]


def test_the_mask_lies_on_the_dark_nuclei() -> None:
    image, mask = SLIDE.window(11_000, 4_200, 512, 512)
    assert set(np.unique(mask)) == {0, 255}
    red = image[..., 0].astype(float)
    inside = red[mask == 255].mean()
    assert inside + 60 < red[mask == 0].mean()
    for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        assert inside + 3 < red[np.roll(mask, shift, axis=(0, 1)) == 255].mean()


@pytest.mark.parametrize(
    "place",
    [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, -1), (SIZE - 8, 0, 9, 9)],
)
def test_what_cannot_be_drawn_is_refused(place: tuple) -> None:
    with pytest.raises(ValueError, match="expected one inside 23000 x 23000 pixels"):
        SLIDE.window(*place)
    for size in ((0, 9), (9, -3)):
        with pytest.raises(ValueError, match="expected 1 or more"):
            Slide(*size)


def test_command_writes_image_and_mask(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "region"
    place = ["--y", "10900", "--x", "4100", "--height", "530", "--width", "540"]
    assert main([str(folder), *place]) == 0
    assert {path.name for path in folder.iterdir()} == {"image.png", "mask.png"}
    stored = (np.asarray(Image.open(folder / f"{n}.png")) for n in ("image", "mask"))
    assert same(tuple(stored), SLIDE.window(10_900, 4_100, 530, 540))
