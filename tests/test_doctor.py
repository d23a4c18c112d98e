"""Every encoding of a mask is read rightly or refused; the doctor's findings."""

import ast
import csv
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakePairs, draw_image, find_box
from PIL import Image, ImageFilter

import ui_segmentation_system as ui
from ui_segmentation_system import check_pairs, load_mask, read_scenes

BLACK, RED, MAGENTA = (0, 0, 0), (255, 0, 0), (255, 0, 255)
ROAD = [RED, MAGENTA, BLACK]
ORIENTATION = 0x0112


def regions(count: int = 3) -> np.ndarray:
    """Regions 0 to count - 1, int (64, 96), on JPEG's grid: 0 around the others."""
    areas = np.zeros((64, 96), int)
    for number in range(1, count):
        row, column = divmod(number - 1, 6)
        areas[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = number
    return areas


def with_levels(*levels: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(levels, dtype)[regions(len(levels))])


def with_colours(*colours: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array(colours, np.uint8)[regions(len(colours))])


def with_palette(ids: list[int], colours: list[tuple[int, int, int]]) -> Image.Image:
    """Give a picture of palette indices, each in a colour of its own."""
    picture = Image.fromarray(np.array(ids, np.uint8)[regions(len(ids))], "P")
    palette = np.zeros((256, 3), int)
    palette[ids] = colours
    picture.putpalette(palette.ravel().tolist())
    return picture


def box() -> np.ndarray:
    return np.where(regions(2) > 0, 255, 0).astype(np.uint8)


def with_alpha(hidden: int, shown: int) -> Image.Image:
    """Give a mask that is opaque in its box and clear around it."""
    grey = Image.fromarray(np.where(box() > 0, shown, hidden).astype(np.uint8))
    picture = grey.convert("RGB")
    picture.putalpha(Image.fromarray(box()))
    return picture


def saved(folder: Path, picture: Image.Image, suffix: str = "png", **options) -> Path:
    path = folder / f"mask.{suffix}"
    picture.save(path, **options)
    return path


READ = {
    "bits": (lambda: Image.fromarray(box()).convert("1"), "png"),
    "bits in a TIFF": (lambda: Image.fromarray(box()).convert("1"), "tif"),
    "0 and 1": (lambda: with_levels(0, 1), "png"),
    "0 and 1 in a palette": (lambda: with_palette([0, 1], [BLACK, (1, 1, 1)]), "png"),
    "0 and 1 in 16 bits": (lambda: with_levels(0, 1, dtype=np.uint16), "png"),
    "palette GIF": (lambda: with_palette([0, 1], [BLACK, (251,) * 3]), "gif"),
    "palette swapped": (lambda: with_palette([1, 0], [BLACK, (255,) * 3]), "png"),
    "brightest 237": (lambda: with_levels(0, 237), "png"),
    "brightest 237 in JPEG": (lambda: with_levels(0, 237), "jpg"),
    "video levels": (lambda: with_levels(16, 235), "png"),
    "grey JPEG": (lambda: with_levels(0, 255), "jpg"),
    "RGB JPEG": (lambda: with_levels(0, 255).convert("RGB"), "jpg"),
    "CMYK JPEG": (lambda: with_levels(0, 255).convert("RGB").convert("CMYK"), "jpg"),
    "lossy WebP": (lambda: with_levels(0, 255).convert("RGB"), "webp"),
    "RGB": (lambda: with_levels(0, 255).convert("RGB"), "png"),
    "opaque RGBA": (lambda: with_levels(0, 255).convert("RGBA"), "png"),
    "opaque LA": (lambda: with_levels(0, 255).convert("LA"), "png"),
    "16 bits": (lambda: with_levels(0, 65535, dtype=np.uint16), "png"),
    "0 and 255 in 16 bits": (lambda: with_levels(0, 255, dtype=np.uint16), "tif"),
    "blue channel of 0 and 1": (lambda: with_colours(BLACK, (0, 0, 1)), "png"),
}


@pytest.mark.parametrize("kind", READ)
def test_encoding_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    make, suffix = READ[kind]
    mask = load_mask(saved(tmp_path, make(), suffix))
    assert np.array_equal(np.array(mask), box())


def grey_ids(*ids: int) -> Callable[[], Image.Image]:
    return lambda: with_levels(*ids)


VOC_COLOURS = [BLACK, (128, 0, 0), (0, 128, 0), (224, 224, 192)]
REFUSED = {
    "ids 0 to 11": (grey_ids(*range(12)), range(12)),
    "ids above the threshold": (grey_ids(0, 90, 150, 170, 200), (0, 90, 150, 170, 200)),
    "ids beside void": (grey_ids(0, 15, 20, 255), (0, 15, 20, 255)),
    "id 1 beside void": (grey_ids(0, 1, 255), (0, 1, 255)),
    "many ids": (grey_ids(*range(0, 240, 13)), range(0, 240, 13)),
    "trimap": (grey_ids(0, 255, 128), (0, 255, 128)),
    "trimap of 1, 2, 3": (grey_ids(2, 1, 3), (2, 1, 3)),
    "one dark id": (grey_ids(0, 7), (0, 7)),
    "16-bit ids": (
        lambda: with_levels(0, 300, 40000, 65535, dtype=np.uint16),
        (0, 300, 40000, 65535),
    ),
    "16-bit ids near 0": (
        lambda: with_levels(0, 100, 65535, dtype=np.uint16),
        (0, 100, 65535),
    ),
    "dark 16-bit ids": (lambda: with_levels(0, 1, 500, dtype=np.uint16), (0, 1, 500)),
    "VOC palette": (
        lambda: with_palette([0, 15, 20, 255], VOC_COLOURS),
        (0, 15, 20, 255),
    ),
    "one id of a palette": (lambda: with_palette([0, 1], VOC_COLOURS[:2]), (0, 1)),
    "grey palette of a trimap": (
        lambda: with_palette([0, 2, 1], [BLACK, (255,) * 3, (128,) * 3]),
        (0, 2, 1),
    ),
    "red, magenta, black": (lambda: with_colours(*ROAD), ROAD),
    "white on clear white": (lambda: with_alpha(255, 255), (None, 255)),
    "black on clear white": (lambda: with_alpha(255, 0), (None, 0)),
    "grey on clear, LA": (lambda: with_alpha(0, 200).convert("LA"), (None, 200)),
}


def named_options(message: str) -> dict[str, Any]:
    """Read the options that a message names, as a reader would copy them."""
    found = re.findall(
        r"(threshold|foreground|ignore)=(\d+|\(.*?,?\)(?= \(--))", message
    )
    return {name: ast.literal_eval(value) for name, value in found}


def expected_mask(values: Any, options: dict[str, Any]) -> np.ndarray:
    """Draw what the options mean for a picture of regions with these values."""
    greys = [
        255 * (value in options.get("foreground", ()))
        or 128 * (value in options.get("ignore", ()))
        for value in values
    ]
    return np.array(greys)[regions(len(greys))]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ValueError, match="; expected ") as error:
        load_mask(path, **options)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_names_an_option_that_reads_it(kind: str, tmp_path: Path) -> None:
    make, values = REFUSED[kind]
    path = saved(tmp_path, make())
    message = refusal(path)
    assert len(message) < 240
    options = named_options(message)
    options.pop("threshold", None)
    assert options["foreground"]
    assert set(options["foreground"]) <= set(values)
    mask = np.array(load_mask(path, **options))
    assert np.array_equal(mask, expected_mask(values, options))
    assert (mask == 255).any()
    assert (mask == 0).any()


def test_what_the_messages_say(tmp_path: Path) -> None:
    said = {
        kind: refusal(saved(tmp_path, make())) for kind, (make, _) in REFUSED.items()
    }
    assert (
        "foreground=(15, 20) (--foreground 15 20), ignore=(255,)"
        in said["ids beside void"]
    )
    assert "foreground=(255,) (--foreground 255), ignore=(128,)" in said["trimap"]
    assert "foreground=(7,) (--foreground 7)" in said["one dark id"]
    assert "threshold=4 (--threshold 4)" in said["one dark id"]
    assert "threshold=" not in said["ids 0 to 11"]
    assert (
        "foreground=((255, 0, 255),) (--foreground ff00ff)"
        in said["red, magenta, black"]
    )
    assert "save its alpha channel" in said["white on clear white"]


@pytest.mark.parametrize("levels", [(0, 60), (20, 90), (0, 2)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_dark_mask_is_read_by_the_threshold_named(
    levels: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, with_levels(*levels), suffix)
    mask = load_mask(path, **{"threshold": named_options(refusal(path))["threshold"]})
    assert np.array_equal(np.array(mask), box())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"foreground": [MAGENTA], "ignore": [BLACK]}, [0, 255, 128]),
        ({"foreground": [RED, MAGENTA]}, [255, 255, 0]),
        ({"foreground": [BLACK]}, [0, 0, 255]),
        ({"foreground": [(0, 255, 255)]}, [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["png", "P", "gif", "jpg", "jpg 30", "webp"])
def test_colours_become_what_was_named(
    kind: str, options: dict, expected: list[int], tmp_path: Path
) -> None:
    picture = with_colours(*ROAD)
    if kind == "P":
        picture = with_palette([9, 4, 7], ROAD)
    strange = {"P": ("png", 75), "jpg 30": ("jpg", 30)}
    suffix, quality = strange.get(kind, (kind, 75))
    path = saved(tmp_path, picture, suffix, quality=quality, lossless=False)
    assert np.array_equal(
        np.array(load_mask(path, **options)), np.array(expected)[regions()]
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
def test_inverted_mask_is_swapped(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, with_levels(255, 0), suffix)
    assert np.array_equal(np.array(load_mask(path)), 255 - box())
    if suffix == "gif" and Image.open(path).mode == "P":
        return
    assert np.array_equal(np.array(load_mask(path, foreground=(0,))), box())


def test_ids_of_a_jpeg(tmp_path: Path) -> None:
    far = saved(tmp_path, with_levels(0, 90, 150, 170, 200), "jpg", quality=90)
    assert "look like class ids" in refusal(far)
    for number, level in enumerate((0, 90, 150, 170, 200)):
        mask = np.array(load_mask(far, foreground=(level,)))
        assert np.array_equal(mask == 255, regions(5) == number)
    near = saved(tmp_path, with_levels(*range(12)), "jpg", quality=95)
    refusal(near)
    message = refusal(near, foreground=(1,))
    assert "the ids 0 and 1 cannot be told apart" in message
    assert "as PNG" in message


@pytest.mark.parametrize("levels", [(0, 15, 20, 255), (0, 128, 255), (0, 230, 255)])
def test_ids_beside_white_in_a_jpeg_are_refused(levels: tuple, tmp_path: Path) -> None:
    for quality in (50, 75, 95):
        path = saved(tmp_path, with_levels(*levels), "jpg", quality=quality)
        assert "class ids or a trimap" in refusal(path)


def test_an_id_beside_black_is_refused_in_a_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(box()), "jpg", quality=95)
    for value in (1, 2, 4):
        words = f"ids 0 and {value} cannot be told apart"
        with pytest.raises(ValueError, match=words):
            load_mask(path, foreground=[value])
    inverted = 255 - np.asarray(load_mask(path))
    assert np.array_equal(load_mask(path, foreground=[0]), inverted)


def test_thin_ids_are_refused(tmp_path: Path) -> None:
    values = np.zeros((60, 60), np.uint8)
    for place, level in enumerate((90, 150, 170, 200)):
        values[5 + 13 * place : 7 + 13 * place, 5:50] = level
    assert "class ids" in refusal(saved(tmp_path, Image.fromarray(values)))


def test_one_small_area_among_soft_edges_is_refused(tmp_path: Path) -> None:
    soft = Image.new("L", (300, 300))
    soft.paste(255, (50, 50, 250, 250))
    soft = soft.filter(ImageFilter.GaussianBlur(1))
    load_mask(saved(tmp_path, soft))
    soft.paste(128, (10, 10, 15, 15))
    assert "class ids or a trimap" in refusal(saved(tmp_path, soft))


@pytest.mark.parametrize("resample", [2, 3, 4, 5])
def test_shrunk_ids_are_refused_and_shrunk_masks_read(
    resample: int, tmp_path: Path
) -> None:
    shrunk = with_levels(0, 90, 150, 200).resize((60, 40), resample)
    path = saved(tmp_path, shrunk)
    assert "class ids" in refusal(path)
    mask = np.array(load_mask(path, foreground=(150,)))
    assert np.array_equal(mask == 255, np.array(shrunk) == 150)
    shrunk = Image.fromarray(box()).resize((60, 40), resample)
    mask = np.array(load_mask(saved(tmp_path, shrunk)))
    assert np.array_equal(mask == 255, np.array(shrunk) >= 128)


def test_soft_edges_are_fine(tmp_path: Path) -> None:
    soft = Image.fromarray(box()).filter(ImageFilter.GaussianBlur(3))
    mask = np.array(load_mask(saved(tmp_path, soft)))
    assert np.array_equal(mask == 255, np.array(soft) >= 128)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
def test_jpeg_of_any_quality_is_read(quality: int, tmp_path: Path) -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[11:63, 21:91] = mask[70:75, 3:110] = 255
    path = saved(tmp_path, Image.fromarray(mask), "jpg", quality=quality)
    assert (np.array(load_mask(path)) != mask).mean() < 0.01


def ramp(high: int) -> Image.Image:
    return Image.fromarray(
        np.add.outer(np.arange(90), np.arange(high)).astype(np.uint8)
    )


PHOTOS = {
    "noise": lambda: draw_image(0, (90, 70)).convert("L"),
    "even noise": lambda: Image.effect_noise((90, 70), 90),
    "ramp": lambda: ramp(160),
    "night": lambda: draw_image(1, (90, 70)).convert("L").point(lambda v: v // 3),
}


@pytest.mark.parametrize("kind", PHOTOS)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photo_is_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, PHOTOS[kind](), suffix)
    refusal(path)


def test_soft_mask_is_read_by_a_range(tmp_path: Path) -> None:
    path = saved(tmp_path, ramp(160))
    assert "foreground=range(128, 256)" in refusal(path)
    mask = np.array(load_mask(path, foreground=range(128, 256)))
    assert np.array_equal(mask == 255, np.array(ramp(160)) >= 128)


@pytest.mark.parametrize("tag", range(9))
def test_every_orientation_is_undone(tag: int, tmp_path: Path) -> None:
    turn = Image.Transpose
    undo = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    lying = Image.fromarray(box())
    if tag in undo:
        lying = lying.transpose(undo[tag])
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    for suffix in ("png", "jpg", "tif"):
        path = saved(tmp_path, lying, suffix, exif=exif)
        assert np.array_equal(np.array(load_mask(path)), box())
        assert np.array_equal(np.array(load_mask(path, foreground=(255,))), box())


def test_ignore_alone_leaves_the_rest_to_the_threshold(tmp_path: Path) -> None:
    path = saved(tmp_path, with_levels(0, 255, 128))
    mask = np.array(load_mask(path, ignore=(128,)))
    assert np.array_equal(mask, np.array([0, 255, 128])[regions()])
    path = saved(tmp_path, with_levels(0, 1, 255))
    mask = np.array(load_mask(path, ignore=(255,)))
    assert np.array_equal(mask, np.array([0, 255, 128])[regions()])
    path = saved(tmp_path, with_colours(BLACK, (255,) * 3, MAGENTA))
    mask = np.array(load_mask(path, ignore=(MAGENTA,)))
    assert np.array_equal(mask, np.array([0, 255, 128])[regions()])
    path = saved(tmp_path, with_levels(0, 7, 9, 255))
    assert "brightest value is 9" in refusal(path, ignore=(255,))
    path = saved(tmp_path, with_levels(255))
    assert load_mask(path, ignore=(255,)).getextrema() == (128, 128)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_absent_values_are_background(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, with_levels(0, 90, 200), suffix)
    specks = 0.02 if suffix == "jpg" else 0  # where edges pass through the value
    mask = load_mask(path, foreground=(110, 180), ignore=(255,))
    assert (np.array(mask) > 0).mean() <= specks
    path = saved(tmp_path, with_colours(*ROAD), suffix)
    mask = load_mask(path, foreground=[(200, 60, 0)])
    assert (np.array(mask) > 0).mean() <= specks
    picture = with_palette([0, 15], [BLACK, (128, 0, 0)])
    path = saved(tmp_path, picture)
    assert load_mask(path, foreground=(128,)).getextrema() == (0, 0)


def test_clear_palette_entries_are_classes_too(tmp_path: Path) -> None:
    picture = with_palette([0, 15, 20, 255], VOC_COLOURS)
    path = saved(tmp_path, picture, transparency=0)
    assert "transparent parts" in refusal(path)
    options = named_options(refusal(path))
    mask = np.array(load_mask(path, **options))
    assert np.array_equal(mask, expected_mask((0, 15, 20, 255), options))


def test_jpeg_saved_as_png_names_the_range(tmp_path: Path) -> None:
    levels = np.where(box() > 0, 255, 0)
    levels[40:60, 5:60] = np.arange(55) // 4
    path = saved(tmp_path, Image.fromarray(levels.astype(np.uint8)))
    assert "foreground=range(128, 256)" in refusal(path)
    mask = np.array(load_mask(path, foreground=range(128, 256)))
    assert np.array_equal(mask, box())


WRONG_KIND = {
    "ids for colours": (
        lambda: with_colours(*ROAD),
        [255, 0, 255],
        "ids 255, 0.*255, ",
    ),
    "colours for ids": (lambda: with_levels(0, 15), [RED], r"no colours, but \(255, 0"),
    "grey level for a palette": (
        lambda: with_palette([0, 1], [BLACK, (251,) * 3]),
        [251],
        "251 is a grey level of its palette.*foreground=\\(1,\\)",
    ),
    "1 for bits": (lambda: with_levels(0, 255).convert("1"), [1], "0 or 255"),
}


@pytest.mark.parametrize("kind", WRONG_KIND)
def test_values_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    make, foreground, message = WRONG_KIND[kind]
    path = saved(tmp_path, make())
    assert re.search(message, refusal(path, foreground=foreground))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foreground": 15}, r"foreground 15: expected a list, as foreground=\(1,\)"),
        ({"ignore": "ff00ff"}, "ignore 'ff00ff': expected a list"),
        ({"foreground": (1,), "ignore": (1,)}, "value 1: named as foreground and as"),
        ({"foreground": (1, RED)}, "name ids and colours"),
        ({"foreground": (-1,)}, "foreground -1: expected ids of 0 to 65535"),
        ({"foreground": ((0, 0, 256),)}, "colours of 0 to 255"),
        ({"foreground": ((0, 0),)}, "expected a colour of red, green and blue"),
        ({"foreground": (0.5,)}, "foreground 0.5: expected ids"),
    ],
)
def test_bad_values_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, with_levels(0, 255))
    with pytest.raises(ValueError, match=message):
        load_mask(path, **options)


SIZE = (48, 40)
COUNT = 8


@pytest.fixture
def folder(make_pairs: MakePairs) -> Path:
    """A clean folder of eight pairs that have the same box."""
    return make_pairs(COUNT, SIZE)


def with_tag(picture: Image.Image, path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    picture.save(path, exif=exif)


def add_pair(folder: Path, image: Image.Image, target: Image.Image) -> None:
    image.save(folder / "9_input.png")
    target.save(folder / "9_target.png")


def brighter(number: int) -> Image.Image:
    return draw_image(number, SIZE).point(lambda value: min(value + 3, 255))


def box_of(number: int) -> Image.Image:
    return find_box(draw_image(number, SIZE))


def shrink(folder: Path, name: str) -> None:
    Image.open(folder / name).resize((24, 20)).save(folder / name)


def change(folder: Path, name: str, table: Callable[[int], int]) -> None:
    Image.open(folder / name).point(table).save(folder / name)


def as_jpeg(folder: Path, name: str) -> None:
    Image.open(folder / name).save((folder / name).with_suffix(".jpg"))
    (folder / name).unlink()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
FAULTS: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "orphan": (
        lambda f: (f / "3_target.png").unlink(),
        *("3_input.png", "error", r"no file is named 3_target\.\*"),
    ),
    "double": (
        lambda f: shutil.copy(f / "3_input.png", f / "3_input.bmp"),
        *("3_input.bmp", "error", "2 files have the same key"),
    ),
    "pointer": (
        lambda f: (f / "3_input.png").write_bytes(LFS),
        *("3_input.png", "error", "Git LFS pointer"),
    ),
    "pointer for a mask": (
        lambda f: (f / "3_target.png").write_bytes(LFS),
        *("3_target.png", "error", "Git LFS pointer"),
    ),
    "empty file": (
        lambda f: (f / "3_input.png").write_bytes(b""),
        *("3_input.png", "error", "the file is empty"),
    ),
    "small mask": (
        lambda f: shrink(f, "3_target.png"),
        *("3_target.png", "error", "24x20, but 3_input.png is 48x40"),
    ),
    "turned picture": (
        lambda f: with_tag(draw_image(3, SIZE), f / "3_input.png", 6),
        *("3_input.png", "error", r"\(tag 6\) unlike 3_target.png \(tag 1\).*unturned"),
    ),
    "flipped picture": (
        lambda f: with_tag(draw_image(3, SIZE), f / "3_input.png", 3),
        *("3_input.png", "warning", r"\(tag 3\) unlike 3_target.png \(tag 1\)"),
    ),
    "turned mask": (
        lambda f: with_tag(box_of(3), f / "3_target.png", 8),
        *("3_input.png", "error", r"\(tag 1\) unlike 3_target.png \(tag 8\)"),
    ),
    "class ids": (
        lambda f: change(f, "3_target.png", lambda v: v // 51),
        *("3_target.png", "error", "brightest value is 5"),
    ),
    "0 and 1": (
        lambda f: change(f, "3_target.png", lambda v: v // 255),
        *("3_target.png", "warning", "brightest level is 1, that of most masks 255"),
    ),
    "inverted": (
        lambda f: change(f, "3_target.png", lambda v: 255 - v),
        *("3_target.png", "warning", "looks inverted"),
    ),
    "black": (
        lambda f: change(f, "3_target.png", lambda v: 0),
        *("3_target.png", "warning", "all black"),
    ),
    "white": (
        lambda f: change(f, "3_target.png", lambda v: 255),
        *("3_target.png", "warning", "all white"),
    ),
    "JPEG": (
        lambda f: as_jpeg(f, "3_target.png"),
        *("1 targets", "warning", "are JPEG"),
    ),
    "copy": (
        lambda f: add_pair(f, draw_image(2, SIZE), box_of(2)),
        *("9_input.png", "warning", "the same picture and mask as 2_input.png"),
    ),
    "copy with another mask": (
        lambda f: add_pair(f, draw_image(2, SIZE), box_of(2).rotate(3)),
        *("9_input.png", "error", "the same picture as 2_input.png, with another mask"),
    ),
    "near copy": (
        lambda f: add_pair(f, brighter(2), box_of(2)),
        *("9_input.png", "warning", "looks nearly like 2_input.png"),
    ),
    "stranger": (
        lambda f: shutil.copy(f / "3_input.png", f / "cover.png"),
        *("cover.png", "warning", r"neither image nor target \(1 such"),
    ),
    "all inverted": (
        lambda f: [
            change(f, f"{n}_target.png", lambda v: 255 - v) for n in range(1, COUNT + 1)
        ],
        *("8 targets", "warning", "more than half foreground; inverted"),
    ),
}


def test_clean_folder_has_no_problems(folder: Path) -> None:
    report = check_pairs(folder)
    assert (report.problems, report.num_pairs) == ((), COUNT)


@pytest.mark.parametrize("reader", [load_mask, partial(load_mask, foreground=())])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found_and_nothing_else(
    fault: str, reader: Callable, folder: Path
) -> None:
    plant, file, severity, what = FAULTS[fault]
    plant(folder)
    (problem,) = check_pairs(folder, read_target=reader).problems
    assert (problem.file, problem.severity) == (file, severity)
    assert re.search(what, problem.what)
    assert problem.mend
    assert check_pairs(folder, read_target=reader).ok == (severity == "warning")


@pytest.mark.parametrize("tag", range(1, 9))
def test_size_cannot_tell_in_squares(tag: int, make_pairs: MakePairs) -> None:
    folder = make_pairs(1, (24, 24))
    with_tag(draw_image(1, (24, 24)), folder / "1_input.png", tag)
    found = [problem.severity for problem in check_pairs(folder).problems]
    assert found == ["warning"] * (tag > 1)


@pytest.mark.parametrize("tag", range(5, 9))
def test_mask_drawn_on_the_upright_picture_is_fine(tag: int, folder: Path) -> None:
    lying = draw_image(3, SIZE).transpose(Image.Transpose.ROTATE_90)
    with_tag(lying, folder / "3_input.png", tag)
    assert check_pairs(folder).problems == ()


def test_shares_of_foreground(folder: Path) -> None:
    target = np.zeros((40, 48), np.uint8)
    target[:20] = 255
    target[20:30] = 128
    Image.fromarray(target).save(folder / "3_target.png")
    report = check_pairs(folder, read_target=Image.open)
    usual = np.array(box_of(1)) > 0
    assert report.least_share == usual.mean()
    assert report.most_share == 20 / 30
    counts = 7 * usual.sum() + 20 * 48, 7 * usual.size + 30 * 48
    assert report.foreground_share == counts[0] / counts[1]
    assert f"{counts[0] / counts[1]:.1%} of the pixels" in str(report)


def test_inverted_mask_among_others_that_differ(folder: Path) -> None:
    for number in range(1, COUNT + 1):
        target = Image.new("L", SIZE)
        target.paste(255, (10 + number, 10, 25 + number, 30))
        target.save(folder / f"{number}_target.png")
    assert check_pairs(folder).problems == ()
    change(folder, "3_target.png", lambda value: 255 - value)
    (problem,) = check_pairs(folder).problems
    assert (problem.file, problem.severity) == ("3_target.png", "warning")
    assert "looks inverted" in problem.what


def test_rare_foreground_is_one_warning(folder: Path) -> None:
    for number in range(1, COUNT + 1):
        target = Image.new("L", SIZE)
        target.putpixel((5, 5), 255)
        target.save(folder / f"{number}_target.png")
    (problem,) = check_pairs(folder).problems
    assert (problem.file, problem.severity) == ("8 targets", "warning")
    assert "0.05% of their pixels are foreground" in problem.what


def write_scenes(folder: Path, scenes: dict[str, str]) -> dict[str, str]:
    path = folder / "scenes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "scene"), *scenes.items()])
    return read_scenes(path)


def test_pictures_without_a_scene_are_errors(folder: Path) -> None:
    scenes = write_scenes(folder, {"1_input.png": "a", "2_input.png": "b"})
    problems = check_pairs(folder, scenes=scenes).problems
    names = [f"{number}_input.png" for number in range(3, 8)]
    assert [problem.file for problem in problems] == [*names, "1 more"]
    assert {problem.severity for problem in problems} == {"error"}


def test_near_copies_in_one_scene_are_fine(folder: Path) -> None:
    add_pair(folder, brighter(2), box_of(2))
    names = [f"{number}_input.png" for number in range(1, 10)]
    apart = write_scenes(folder, {name: f"scene of {name}" for name in names})
    (problem,) = check_pairs(folder, scenes=apart).problems
    assert "put them in one scene" in problem.mend
    together = apart | {"9_input.png": apart["2_input.png"]}
    assert check_pairs(folder, scenes=together).problems == ()


def test_many_near_copies_are_counted(folder: Path) -> None:
    for number in range(1, COUNT + 1):
        brighter(1).point(lambda v, n=number: max(v - n, 0)).save(
            folder / f"{number}_input.png"
        )
    *named, more = check_pairs(folder).problems
    assert len(named) == 5
    assert more.file == f"{COUNT * (COUNT - 1) // 2 - 5} more"


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_likeness_is_found_in_any_chunk(rows: int) -> None:
    thumbnails = list(np.eye(7, 20))
    thumbnails[5] = thumbnails[1]
    thumbnails[6] = thumbnails[2]
    groups = list("abcdefg")
    assert ui._alike(thumbnails, groups, rows) == ([(1, 5), (2, 6)], 2)
    groups[6] = "c"
    assert ui._alike(thumbnails, groups, rows) == ([(1, 5)], 1)


def test_report_for_programs(folder: Path) -> None:
    (folder / "1_target.png").unlink()
    report = check_pairs(folder)
    data = json.loads(report.to_json())
    assert data["folder"] == str(folder)
    assert (data["num_pairs"], data["ok"]) == (COUNT - 1, False)
    assert data["foreground_share"] == report.foreground_share
    assert data["problems"] == [
        {
            "file": "1_input.png",
            "what": "no file is named 1_target.*",
            "mend": "add it, or take this one away",
            "severity": "error",
        }
    ]


def test_errors_are_printed_first(folder: Path) -> None:
    change(folder, "1_target.png", lambda value: 0)
    (folder / "2_target.png").write_bytes(b"")
    lines = str(check_pairs(folder)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["error", "->", "warning", "->"]


def test_progress_is_shown_if_asked_for(folder: Path, capsys) -> None:
    check_pairs(folder)
    assert capsys.readouterr() == ("", "")
    check_pairs(folder, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "8/8" in err


def with_ids(folder: Path) -> None:
    """Turn the masks of a folder into class ids: 2, 3 or 4, each beside a 255."""
    for number, path in enumerate(sorted(folder.glob("*_target.png"))):
        ids = np.array(Image.open(path)) // 255 * (2 + number % 3)
        ids[-3:, -8:] = 255
        Image.fromarray(ids.astype(np.uint8)).save(path)


def test_ids_of_refused_masks_are_summed_up(folder: Path) -> None:
    with_ids(folder)
    *_, last = check_pairs(folder).problems
    count = len(list(folder.glob("*_target.png")))
    assert last.file == f"{count} targets"
    assert last.what.startswith(f"were refused; together they hold 0 (in {count}), 2 (")
    assert "3 (in" in last.what and f"255 (in {count})" in last.what


@pytest.mark.parametrize(
    ("foreground", "ignore", "missing"),
    [((2, 3), (255,), ["4"]), ((2, 3, 4), (), ["255"]), ((2, 3, 4), (255,), [])],
)
def test_values_that_nobody_named_are_told(
    foreground: tuple, ignore: tuple, missing: list[str], folder: Path
) -> None:
    with_ids(folder)
    read = partial(load_mask, foreground=foreground, ignore=ignore)
    told = [
        problem
        for problem in check_pairs(folder, read_target=read).problems
        if "were not named" in problem.what
    ]
    values = [re.findall(r"(\d+) \(in", problem.what) for problem in told]
    assert values == ([missing] if missing else [])


def test_white_that_is_frequent_is_not_called_void(tmp_path: Path) -> None:
    levels = np.full((20, 20), 255, np.uint8)
    levels[:8] = 0
    levels[12:16, 4:12] = 3
    message = refusal(saved(tmp_path, Image.fromarray(levels)))
    assert "ignore=" not in message and "255" in message


def test_exchanged_folders_are_told_in_one_line(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        draw_image(number, (96, 64)).save(tmp_path / f"masks/{number}.png")
        Image.fromarray(box()).save(tmp_path / f"images/{number}.png")
    first, *others = check_pairs(tmp_path).problems
    assert (first.file, first.severity) == ("3 pairs", "error")
    assert "look exchanged" in first.what
    assert "exchanged" not in str(others)
    (tmp_path / "images/1.png").write_bytes((tmp_path / "masks/2.png").read_bytes())
    assert "exchanged" not in str(check_pairs(tmp_path).problems)
    for number in range(3):
        Image.fromarray(box()).save(tmp_path / f"masks/{number}.png")
    assert "exchanged" not in str(check_pairs(tmp_path).problems)


def test_empty_masks_of_two_level_pictures_are_not_exchanged(tmp_path: Path) -> None:
    for name, greys in (("images", box()), ("masks", np.zeros_like(box()))):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(greys).save(tmp_path / f"{name}/{number}.png")
    problems = check_pairs(tmp_path).problems
    assert any("masks/0.png" in problem.file for problem in problems)
    assert "exchanged" not in str(problems)


def test_masks_of_another_size_or_of_ids_are_not_exchanged(tmp_path: Path) -> None:
    for masks in (Image.fromarray(box()).resize((48, 32), 0), with_levels(0, 2, 4)):
        for name, picture in (("images", Image.fromarray(box())), ("masks", masks)):
            (tmp_path / name).mkdir(exist_ok=True)
            picture.save(tmp_path / name / "1.png")
        report = check_pairs(tmp_path)
        assert not report.ok
        assert "exchanged" not in str(report)


def test_nothing_but_background_is_not_ok(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    for number in (1, 2):
        Image.new("L", (24, 20)).save(folder / f"{number}_target.png")
    assert not check_pairs(folder).ok
    assert ui.main(["check", str(folder)]) == 1
