"""The drawn slide: any window, in any order, always the same pixels."""

import hashlib
import pickle
import weakref

import numpy as np
import pytest
from PIL import Image

from tools.slide import PATCH, PITCH, SIZE, Slide, draw_nuclei, find_nuclei, main


@pytest.fixture(scope="module")
def slide() -> Slide:
    return Slide()


def _random_windows(count: int, seed: int) -> np.ndarray:
    """Draw places of 256 x 256 windows, (count, 2)."""
    return np.random.default_rng(seed).integers(0, SIZE - 256, (count, 2))


def _cut(window: tuple, y: int, x: int, height: int, width: int) -> list[np.ndarray]:
    return [part[y : y + height, x : x + width] for part in window]


def _same(first: list | tuple, second: list | tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_same_seed_gives_the_stored_pixels_on_every_machine() -> None:
    # Exact: the slide uses only operations that IEEE 754 rounds in one way.
    image, mask = Slide(seed=1).window(11_003, 4_205, 120, 150)
    digest = hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()
    assert digest == "ff0f2360cb6b125c09801521aa5eb63a183f28a927f082ce86e818840f9f646f"


def test_other_seed_gives_another_slide(slide: Slide) -> None:
    other = Slide(seed=2)
    assert not np.array_equal(slide[:300, :300], other[:300, :300])


def test_overlapping_windows_agree_on_every_shared_pixel(slide: Slide) -> None:
    rng = np.random.default_rng(5)
    cut_nuclei = 0
    for _ in range(20):
        y, x = rng.integers(0, SIZE - 400, 2)
        down, across = rng.integers(1, 190, 2)
        first = slide.window(y, x, 200, 210)
        second = slide.window(y + down, x + across, 205, 200)
        shared = 200 - down, min(210 - across, 200)
        assert _same(_cut(first, down, across, *shared), _cut(second, 0, 0, *shared))
        cut_nuclei += np.count_nonzero(second[1][0]) + np.count_nonzero(first[1][-1])
    assert cut_nuclei > 100  # the borders did run through nuclei


@pytest.mark.parametrize("y", [0, SIZE - 90])
@pytest.mark.parametrize("x", [0, SIZE - 90])
def test_windows_agree_at_the_corners_of_the_slide(
    slide: Slide, y: int, x: int
) -> None:
    whole = slide.window(y, x, 90, 90)
    assert _same(_cut(whole, 0, 0, 47, 90), slide.window(y, x, 47, 90))
    assert _same(_cut(whole, 31, 43, 59, 47), slide.window(y + 31, x + 43, 59, 47))


def test_single_rows_and_columns_equal_the_window_they_come_from(slide: Slide) -> None:
    y, x, side = 11_500, 4_200, 700
    whole = slide.window(y, x, side, side)
    for line in range(100, 100 + PITCH):  # each way a border can cross the squares
        row = slide.window(y + line, x, 1, side)
        column = slide.window(y, x + line, side, 1)
        assert _same(row, _cut(whole, line, 0, 1, side))
        assert _same(column, _cut(whole, 0, line, side, 1))


def test_four_quarters_make_the_whole(slide: Slide) -> None:
    y, x, side, split = 11_001, 4_203, 620, 333  # larger than one drawn block
    spans = ((0, split), (split, side - split))
    for kind, whole in enumerate(slide.window(y, x, side, side)):
        rows = [
            [slide.window(y + top, x + left, high, wide)[kind] for left, wide in spans]
            for top, high in spans
        ]
        joined = [np.concatenate(row, axis=1) for row in rows]
        assert np.array_equal(np.concatenate(joined), whole)


def test_a_smaller_slide_is_the_corner_of_a_larger_one(slide: Slide) -> None:
    small = Slide(150, 190)
    assert np.array_equal(small[:, :], slide[:150, :190])


def test_every_nucleus_fits_its_patch(slide: Slide) -> None:
    nuclei = find_nuclei(11_000, 4_200, (1000, 1000), slide.seed)
    cover, _, inside = draw_nuclei(nuclei)
    assert len(cover) > 500
    assert cover.shape[1:] == (PATCH, PATCH)
    for patch in (cover, inside):
        assert not patch[:, [0, -1]].any()
        assert not patch[:, :, [0, -1]].any()
    assert inside.any(axis=(1, 2)).all()


def test_shapes_types_and_values(slide: Slide) -> None:
    image, mask = slide.window(11_000, 4_200, 70, 90)
    assert (slide.shape, slide.mask.shape) == ((SIZE, SIZE, 3), (SIZE, SIZE))
    assert slide.dtype == slide.mask.dtype == image.dtype == mask.dtype == np.uint8
    assert (image.shape, mask.shape) == ((70, 90, 3), (70, 90))
    assert set(np.unique(mask)) == {0, 255}


def test_slices_are_windows(slide: Slide) -> None:
    image, mask = slide.window(11_000, 4_200, 70, 90)
    assert np.array_equal(slide[11_000:11_070, 4_200:4_290], image)
    assert np.array_equal(slide.mask[11_000:11_070, 4_200:4_290], mask)


def test_slices_clip_like_numpy() -> None:
    small = Slide(60, 80)
    whole = small[:, :]
    for key in (np.s_[50:90, 70:], np.s_[-9:, :-75], np.s_[60:70, :], np.s_[9:3, 1:4]):
        assert np.array_equal(small[key], whole[key])
        assert np.array_equal(small.mask[key], small.mask[:, :][key])


@pytest.mark.parametrize(
    "key", [3, np.s_[3, 4], np.s_[:8], np.s_[::2, :8], np.s_[:, 1]]
)
def test_other_keys_are_refused(slide: Slide, key: object) -> None:
    for source in (slide, slide.mask):
        with pytest.raises(ValueError, match="two slices without a step"):
            source[key]


def test_nuclei_share_and_empty_regions(slide: Slide) -> None:
    masks = [
        slide.mask[y : y + 256, x : x + 256] for y, x in _random_windows(120, seed=3)
    ]
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


def test_a_slide_travels_as_three_numbers(slide: Slide) -> None:
    packed = pickle.dumps(slide)
    assert len(packed) < 200
    copy = pickle.loads(packed)
    assert copy.shape == slide.shape
    assert np.array_equal(copy[900:950, 900:950], slide[900:950, 900:950])


@pytest.mark.parametrize(
    "place",
    [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, -1), (SIZE - 8, 0, 9, 9)],
)
def test_windows_outside_are_refused(slide: Slide, place: tuple) -> None:
    with pytest.raises(ValueError, match="does not fit the slide of 23000 x 23000"):
        slide.window(*place)


@pytest.mark.parametrize("size", [(0, 9), (9, -3)])
def test_a_slide_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Slide(*size)


def test_command_cuts_a_window_and_its_mask(slide: Slide, tmp_path) -> None:
    out, mask_out = tmp_path / "window.png", tmp_path / "mask.png"
    place = ["--y", "9000", "--x", "700", "--height", "40", "--width", "50"]
    assert main([str(out), *place, "--mask", str(mask_out)]) == 0
    image, mask = slide.window(9000, 700, 40, 50)
    assert np.array_equal(np.asarray(Image.open(out)), image)
    assert np.array_equal(np.asarray(Image.open(mask_out)), mask)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mask.png",
        "window.png",
    ]


def test_command_writes_memory_maps_equal_to_windows(slide: Slide, tmp_path) -> None:
    folder = tmp_path / "new" / "region"
    place = ["--y", "10900", "--x", "4100", "--size", "530"]
    assert main(["--memmap", str(folder), *place]) == 0
    stored = [
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "mask")
    ]
    assert _same(stored, slide.window(10_900, 4_100, 530, 530))
    assert sorted(path.name for path in folder.iterdir()) == ["image.npy", "mask.npy"]


def test_an_interrupted_region_is_closed_and_gone(tmp_path, monkeypatch) -> None:
    make, opened = np.lib.format.open_memmap, []

    def open_memmap(*given: object) -> np.memmap:
        pixels = make(*given)
        opened.append(weakref.ref(pixels))
        return pixels

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "open_memmap", open_memmap)
    monkeypatch.setattr(Slide, "window", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        main(["--memmap", str(tmp_path / "region"), "--size", "9"])
    assert stopped.tb  # holds the frames, as while the folder was removed
    assert [pixels() is None for pixels in opened] == [True, True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a PNG"),
        (["a.png", "--memmap", "b"], "give either a PNG"),
        (["--memmap", "b", "--mask", "c.png"], "--mask belongs to a PNG"),
        (["a.jpg"], "a.jpg: windows are written as PNG"),
        (["there.png"], "there.png: exists already"),
        (["no/a.png"], "no: no such folder"),
        (["a.png", "--mask", "a.png"], "need two names"),
        (["a.png", "--y", "22900"], "does not fit the slide"),
        (["--memmap", "b", "--size", "0"], "does not fit the slide"),
        (["--memmap", "."], ".: is a folder that is not empty"),
        (["--memmap", "there.png"], "there.png: is a file; name"),
    ],
)
def test_command_ends_with_one_line(
    arguments: list[str], message: str, tmp_path, monkeypatch, capsys
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
