"""The drawn slide: any window, in any order, always the same pixels."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.slide import PITCH, SIZE, Slide, main


@pytest.fixture(scope="module")
def slide() -> Slide:
    return Slide()


def same(first: tuple, second: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_same_seed_gives_the_stored_pixels_on_every_machine() -> None:
    # Exact: the slide uses only operations that IEEE 754 rounds in one way.
    image, mask = Slide(seed=1).window(11_003, 4_205, 120, 150)
    digest = hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()
    assert digest == "8aad5d34d6cb9022784123643759c6786f30894577154e068d46099513f962eb"
    assert not np.array_equal(Slide(seed=2).window(11_003, 4_205, 120, 150)[0], image)


# Both ends of the slide; larger than one drawn block; one pixel high or wide, at each
# way a border can cross the squares of the nuclei.
WINDOWS = [
    (11_001, 4_203, 620, 530),
    (0, 0, 90, 90),
    (SIZE - 90, SIZE - 90, 90, 90),
    *((10_400 + line, 3_000, 1, 700) for line in range(PITCH)),
    *((10_400, 3_000 + line, 700, 1) for line in range(PITCH)),
]


@pytest.mark.parametrize(("y", "x", "height", "width"), WINDOWS)
def test_a_window_equals_the_same_place_in_another(
    slide: Slide, y: int, x: int, height: int, width: int
) -> None:
    top, left = max(y - 3, 0), max(x - 8, 0)
    more = slide.window(
        top, left, min(height + 13, SIZE - top), min(width + 21, SIZE - left)
    )
    place = np.s_[y - top : y - top + height, x - left : x - left + width]
    assert same(slide.window(y, x, height, width), tuple(part[place] for part in more))


def test_windows_at_random_agree_on_every_shared_pixel(slide: Slide) -> None:
    rng = np.random.default_rng(5)
    cut_nuclei = 0
    for _ in range(20):
        y, x = rng.integers(0, SIZE - 400, 2)
        down, across = rng.integers(1, 190, 2)
        first = slide.window(y, x, 200, 210)
        second = slide.window(y + down, x + across, 200, 210)
        assert same(
            tuple(part[down:, across:] for part in first),
            tuple(part[: 200 - down, : 210 - across] for part in second),
        )
        cut_nuclei += np.count_nonzero(second[1][0]) + np.count_nonzero(first[1][-1])
    assert cut_nuclei > 100  # the borders did run through nuclei


def test_shapes_types_and_values(slide: Slide) -> None:
    image, mask = slide.window(11_000, 4_200, 70, 90)
    assert (slide.shape, slide.mask.shape) == ((SIZE, SIZE, 3), (SIZE, SIZE))
    assert slide.dtype == slide.mask.dtype == image.dtype == mask.dtype == np.uint8
    assert (image.shape, mask.shape) == ((70, 90, 3), (70, 90))
    assert set(np.unique(mask)) == {0, 255}


def test_slices_clip_like_numpy(slide: Slide) -> None:
    small = Slide(60, 80)
    whole = small.window(0, 0, 60, 80)
    assert same(whole, slide.window(0, 0, 60, 80))
    for key in (
        *(np.s_[:, :], np.s_[50:90, 70:], np.s_[-9:, :-75], np.s_[60:70, :]),
        np.s_[9:3, 1:4],
    ):
        assert same((small[key], small.mask[key]), tuple(part[key] for part in whole))


@pytest.mark.parametrize(
    "key", [3, np.s_[3, 4], np.s_[:8], np.s_[::2, :8], np.s_[:, 1]]
)
def test_other_keys_are_refused(slide: Slide, key: object) -> None:
    for source in (slide, slide.mask):
        with pytest.raises(ValueError, match="two slices without a step"):
            source[key]


def test_nuclei_share_and_empty_regions(slide: Slide) -> None:
    places = np.random.default_rng(3).integers(0, SIZE - 256, (120, 2))
    masks = [slide.mask[y : y + 256, x : x + 256] for y, x in places]
    shares = np.array([(mask > 0).mean() for mask in masks])
    assert 0.08 < shares.mean() < 0.20
    assert (shares == 0).sum() >= 6
    assert shares.max() > 0.25


def test_the_mask_lies_on_the_dark_nuclei(slide: Slide) -> None:
    image, mask = slide.window(11_000, 4_200, 512, 512)
    red = image[..., 0].astype(float)
    inside = red[mask == 255].mean()
    assert inside + 60 < red[mask == 0].mean()
    for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        assert inside + 3 < red[np.roll(mask, shift, axis=(0, 1)) == 255].mean()


def test_a_slide_travels_without_pixels(slide: Slide) -> None:
    packed = pickle.dumps(slide)
    assert len(packed) < 400
    copy = pickle.loads(packed)
    assert same(copy.window(900, 800, 50, 50), slide.window(900, 800, 50, 50))


@pytest.mark.parametrize(
    "place",
    [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, -1), (SIZE - 8, 0, 9, 9)],
)
def test_windows_outside_are_refused(slide: Slide, place: tuple) -> None:
    with pytest.raises(ValueError, match="expected one inside 23000 x 23000 pixels"):
        slide.window(*place)


@pytest.mark.parametrize("size", [(0, 9), (9, -3)])
def test_a_slide_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        Slide(*size)


def test_command_writes_image_and_mask(slide: Slide, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "region"
    place = ["--y", "10900", "--x", "4100", "--height", "530", "--width", "540"]
    assert main([str(folder), *place]) == 0
    assert {path.name for path in folder.iterdir()} == {"image.png", "mask.png"}
    stored = (np.asarray(Image.open(folder / f"{n}.png")) for n in ("image", "mask"))
    assert same(tuple(stored), slide.window(10_900, 4_100, 530, 540))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "--y", "22900"], "expected one inside 23000 x 23000"),
        (["new", "--width", "0"], "expected one inside 23000 x 23000"),
        (["."], ".: expected a new or an empty folder"),
        (["there.png"], "there.png: expected a new"),
    ],
)
def test_command_ends_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"mine"
