"""Pictures and masks: every encoding is read as it is meant, or refused."""

import math
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageFilter

import ui_segmentation_system as ui
from tests.conftest import colours, draw_image, indexed, levels, regions, write_png

INPUTS = Path(__file__).parents[1] / "test_inputs"
ORIENTATION = 0x0112
BLACK, WHITE, RED, MAGENTA = (0, 0, 0), (255,) * 3, (255, 0, 0), (255, 0, 255)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
BOX = np.where(regions(2) > 0, 255, 0).astype(np.uint8)


def saved(folder: Path, picture: Image.Image, name: str, **options: Any) -> Path:
    """Save as a name, or a suffix; "jpg 30" has a quality, and WebP is lossy."""
    suffix, _, quality = name.rpartition(".")[2].partition(" ")
    path = folder / (name if "." in name else f"mask.{suffix}")
    if quality:
        options["quality"] = int(quality)
    picture.save(path, **options)
    return path


def in_regions(*values: int) -> np.ndarray:
    """Draw what `levels` draws, as a mask has it."""
    return np.array(values)[regions(len(values))]


def deep(*values: int) -> Image.Image:
    return levels(*values, dtype=np.uint16)


def with_alpha(hidden: int, shown: int, mode: str = "RGBA") -> Image.Image:
    """Give a mask that is opaque in its box and clear around it."""
    picture = levels(hidden, shown)
    picture.putalpha(Image.fromarray(BOX))
    return picture.convert(mode)


# ---- colours and ids, packed masks


@pytest.mark.parametrize("count", [1, 2, 9, 40, 255])
def test_classes_survive_colours(count: int) -> None:
    rng = np.random.default_rng(count)  # over 25 take another path inside torch.cdist
    palette = [tuple(colour) for colour in rng.integers(0, 256, (count, 3)).tolist()]
    ids = rng.integers(0, count, (30, 20))
    ids[:3, :4] = 255
    picture = ui.classes_to_colors(ids, palette)
    assert (picture.mode, picture.size) == ("RGB", (20, 30))
    assert picture.getpixel((0, 0)) == (224, 224, 192)
    back = ui.colors_to_classes(picture, palette)
    assert back.dtype == torch.int64
    assert torch.equal(back, torch.as_tensor(ids))
    assert torch.equal(ui.colors_to_classes(np.array(picture), palette), back)


def test_unknown_colours_are_ignored_not_guessed() -> None:
    picture = Image.new("RGB", (2, 1), COLOURS[0])
    picture.putpixel((1, 0), (199, 0, 0))
    for options, second in (
        ({}, 255),
        ({"ignore_index": 99}, 99),
        ({"max_distance": 0.9}, 255),
        ({"max_distance": 1}, 0),
    ):
        found = ui.colors_to_classes(picture, COLOURS, **options)
        assert found.tolist() == [[0, second]]
    painted = ui.classes_to_colors(torch.tensor([[1, 255]]), COLOURS)
    assert np.array(painted).tolist() == [[[0, 200, 0], [224, 224, 192]]]


def test_nearest_colour_is_that_of_least_distance() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    ids = ui.colors_to_classes(pixels, COLOURS, max_distance=150).numpy()
    gaps = np.linalg.norm(pixels[:, :, None] - np.array(COLOURS), axis=-1)
    assert np.array_equal(ids, np.where(gaps.min(2) <= 150, gaps.argmin(2), 255))


@pytest.mark.parametrize("count", [1, 8, 9, 63])
def test_packed_masks_unpack(count: int) -> None:
    masks = np.random.default_rng(count).integers(0, 2, (count, 7, 5))
    masks[-1, 0, 0] = 1  # the highest bit is used
    packed = ui.pack_masks(masks)
    assert packed.dtype == (torch.uint8 if count <= 8 else torch.int64)
    assert all(packed[0, 0] >> k & 1 == masks[k, 0, 0] for k in range(count))
    back = ui.unpack_masks(packed, count)
    assert back.dtype == torch.float32
    assert np.array_equal(back.numpy(), masks)
    with pytest.raises(ValueError, match="packed value"):
        ui.unpack_masks(packed.long(), count - 1)
    assert ui.unpack_masks(packed[:0], count).shape == (count, 0, 5)


# ---- pictures

SIZE, HALF_BLACK = (96, 64), (0, 0, 0, 127)
NO_TIFF = b"MQ\0*" + struct.pack(">I", 8) + bytes(8)
KINDS: dict[str, tuple[Image.Image, str, dict, Image.Image]] = {
    # picture, saved as, with which options, what is shown
    "grey": (levels(77), "png", {}, levels(77)),
    "bits": (levels(255).convert("1"), "png", {}, levels(255)),
    "16 bits": (deep(0, 1000, 30000, 65535), "png", {}, levels(0, 3, 117, 255)),
    "16 bits, TIFF": (deep(0, 1000, 65535), "tif", {}, levels(0, 3, 255)),
    "16 bits, black": (deep(0), "png", {}, levels(0)),
    "palette": (colours(RED).quantize(2), "png", {}, colours(RED)),
    "clear in a palette": (
        indexed({0: RED, 1: COLOURS[2]}),
        "png",
        {"transparency": 0},
        colours(WHITE, COLOURS[2]),
    ),
    "opaque": (Image.new("RGBA", SIZE, (*RED, 255)), "png", {}, colours(RED)),
    "clear": (Image.new("RGBA", SIZE, (*RED, 0)), "png", {}, levels(255)),
    "half clear": (Image.new("RGBA", SIZE, HALF_BLACK), "png", {}, levels(128)),
    "clear grey": (Image.new("LA", SIZE, (9, 0)), "png", {}, levels(255)),
    "CMYK": (Image.new("CMYK", SIZE, (0, 0, 0, 255)), "tif", {}, levels(0)),
    "damaged EXIF": (levels(77), "png", {"exif": NO_TIFF}, levels(77)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_image_of_any_mode_becomes_rgb(kind: str, tmp_path: Path) -> None:
    picture, suffix, options, expected = KINDS[kind]
    image = ui.load_image(saved(tmp_path, picture, suffix, **options))
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert np.abs(np.array(image).astype(int) - expected.convert("RGB")).max() <= 1


TURN = Image.Transpose
UNDO = {
    **{2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM},
    **{5: TURN.TRANSPOSE, 6: TURN.ROTATE_90, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_270},
}


@pytest.mark.parametrize("tag", range(9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_every_orientation_is_undone(tag: int, suffix: str, tmp_path: Path) -> None:
    image, mask = draw_image(4, SIZE), Image.fromarray(BOX)
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    loads = [(mask, ui.load_mask), (mask, partial(ui.load_mask, foreground=[255]))]
    loads += [(image, ui.load_image)] * (suffix != "jpg")
    for upright, load in loads:
        lying = upright.transpose(UNDO[tag]) if tag in UNDO else upright
        path = saved(tmp_path, lying, suffix, exif=exif, lossless=True)
        assert np.array_equal(load(path), upright)


# ---- masks that need no word: what each region becomes

PLAIN: dict[str, tuple[Image.Image, str, list[int]]] = {
    **{
        f"two levels, {name}": (levels(0, 255), name, [0, 255])
        for name in ("png", "bmp", "gif", "tif", "webp", "jpg 75", "jpg 10", "jpg 95")
    },
    **{
        f"two levels, {mode}": (levels(0, 255).convert(mode), name, [0, 255])
        for mode, name in (
            *(("1", "png"), ("1", "tif"), ("RGB", "png"), ("RGB", "jpg")),
            *(("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png")),
        )
    },
    "0 and 1": (levels(0, 1), "png", [0, 255]),
    "0 and 1 in 16 bits": (deep(0, 1), "png", [0, 255]),
    "0 and 1 in 32 bits": (levels(0, 1, dtype=np.int32), "tif", [0, 255]),
    "0 and 255 in floats": (levels(0, 255, dtype=np.float32), "tif", [0, 255]),
    "0 and 1 in a palette": (indexed({0: BLACK, 1: (1, 1, 1)}), "png", [0, 255]),
    "GIF of 0 and 251": (indexed({0: BLACK, 1: (251,) * 3}), "gif", [0, 255]),
    "palette swapped": (indexed({1: BLACK, 0: WHITE}), "png", [0, 255]),
    "video levels": (levels(16, 235), "png", [0, 255]),
    "just dark and bright": (levels(48, 207), "png", [0, 255]),
    "inverted": (levels(255, 0), "png", [255, 0]),
    "inverted in JPEG": (levels(255, 0), "jpg", [255, 0]),
    "brightest 237 in JPEG": (levels(0, 237), "jpg", [0, 255]),
    "16 bits": (deep(0, 65535), "png", [0, 255]),
    "16 bits, nearly": (deep(300, 65000), "tif", [0, 255]),
    "0 and 255 in 16 bits": (deep(0, 255), "tif", [0, 255]),
    "all black": (levels(0), "png", [0]),
    "all white": (levels(255), "png", [255]),
    "all white in JPEG": (levels(255), "jpg", [255]),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_mask_of_two_levels_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    picture, name, expected = PLAIN[kind]
    path = saved(tmp_path, picture, name)
    mask = ui.load_mask(path)
    assert mask.mode == "L"
    assert np.array_equal(np.array(mask), in_regions(*expected))


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
def test_edges_in_jpeg_are_cut_at_the_threshold(quality: int, tmp_path: Path) -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[11:63, 21:91] = mask[70:75, 3:110] = 255
    path = saved(tmp_path, Image.fromarray(mask), f"jpg {quality}")
    found = np.array(Image.open(path))
    assert len(np.unique(found)) > 2, "there are no rings"
    for threshold in (1, 60, 128, 200, 255):
        expected = np.where(found >= threshold, 255, 0)
        assert np.array_equal(ui.load_mask(path, threshold), expected)
    assert np.array_equal(ui.load_mask(path), np.where(found >= 128, 255, 0))


# ---- masks that mean nothing by themselves, and what says what they mean

VOC = {0: BLACK, 15: (128, 0, 0), 20: (0, 128, 0), 255: (224, 224, 192)}
ROAD = [RED, MAGENTA, BLACK]
NAMED: list[tuple[Image.Image, str, list, list, list[int]]] = [
    # picture, saved as, foreground, ignore, what each region becomes
    (levels(*range(8)), "png", [5], [], [0] * 5 + [255, 0, 0]),
    (levels(0, 11), "png", [11], [], [0, 255]),
    (levels(20, 90), "jpg", [90], [], [0, 255]),
    (levels(0, 11, 255), "png", [11], [255], [0, 255, 128]),
    (levels(0, 1, 255), "png", [], [255], [0, 255, 128]),
    (levels(0, 1, 255), "png", [1, 255], [], [0, 255, 255]),
    (levels(0, 255, 128), "png", [], [128], [0, 255, 128]),
    (levels(2, 1, 3), "png", [1], [3], [0, 255, 128]),
    (levels(0, 255, 128), "jpg 50", [], [128], [0, 255, 128]),
    (levels(1, 2), "png", [2], [], [0, 255]),
    (levels(1), "png", [1], [], [255]),
    (levels(200), "png", [200], [], [255]),
    (levels(200, 255), "png", [255], [], [0, 255]),
    (levels(49, 255), "png", [255], [], [0, 255]),
    (levels(0, 206), "png", [206], [], [0, 255]),
    (deep(0, 300, 40000), "png", [300], [], [0, 255, 0]),
    (levels(0, 300, 65535, dtype=np.int32), "tif", [300], [65535], [0, 255, 128]),
    (levels(0, 7, dtype=np.float32), "tif", [7], [], [0, 255]),
    (deep(0, 300), "png", [300], [], [0, 255]),
    (deep(0, 256, 511), "png", [511], [], [0, 0, 255]),
    (deep(0, 256), "png", [256], [], [0, 255]),
    (deep(0, 1, 65535), "png", [1], [65535], [0, 255, 128]),
    (deep(0, 4095), "tif", [4095], [], [0, 255]),
    (indexed(VOC), "png", [15], [255], [0, 255, 0, 128]),
    (indexed(VOC), "png", [VOC[15]], [VOC[255]], [0, 255, 0, 128]),
    (levels(0, 5, 255), "gif", [(5, 5, 5)], [WHITE], [0, 255, 128]),
    (levels(0, 1, 2).convert("RGB"), "png", [2], [], [0, 0, 255]),
    (colours(BLACK, (1, 0, 0), (0, 1, 0)), "png", [(1, 0, 0)], [], [0, 255, 0]),
    (colours(BLACK, (0, 0, 4)), "png", [(0, 0, 4)], [], [0, 255]),
    (colours(RED, WHITE), "png", [WHITE], [], [0, 255]),
    (colours(BLACK, WHITE, RED), "png", [], [RED], [0, 255, 128]),
    (with_alpha(255, 255), "png", [255], [], [0, 255]),
    (with_alpha(0, 0), "png", [BLACK], [], [0, 255]),
    (with_alpha(0, 200, "LA"), "png", [200], [], [0, 255]),
    (levels(0, 90, 150, 170), "jpg 90", [150], [], [0, 0, 255, 0]),
]


# What need not be named, or one empty mask of another mode, as some tools write it.
GREY, COLOUR = levels(0), colours(BLACK)
BITS, INDEX_15 = levels(0).convert("1"), indexed({0: BLACK, 15: (128, 0, 0)})
UNNEEDED: list[tuple[Image.Image, str, Any, Any, list[int]]] = [
    (levels(0, 255), "", [WHITE], [], [0, 255]),
    (levels(0, 255).convert("RGB"), "", [WHITE], [], [0, 255]),
    (levels(0, 255), "", range(128, 256), [], [0, 255]),
    (levels(0, 255), "", np.array([255]), [], [0, 255]),
    (levels(0, 255), "", [0], [], [255, 0]),
    (levels(0, 255), "", [], [0], [128, 255]),
    (levels(255), "", [], [255], [128]),
    (levels(0, 90), "", [110, 180], [255], [0, 0]),
    (INDEX_15, "", [128], [], [0, 0]),
    *((BITS, "", named, [], [0]) for named in ([15], [RED])),
    *((GREY, "", [RED], [MAGENTA], [0]), (COLOUR, "", [15], [], [0])),
    (indexed({0: BLACK}), "", [RED], [], [0]),
]


@pytest.mark.parametrize("case", [*NAMED, *UNNEEDED])
def test_what_is_named_is_read_else_nothing(case: tuple, tmp_path: Path) -> None:
    picture, name, foreground, ignore, expected = case
    path = saved(tmp_path, picture, name or "png")
    if name:
        pattern = r"(?s); expected .*; .*foreground="
        with pytest.raises(ValueError, match=pattern) as told:
            ui.load_mask(path)
        assert str(told.value).startswith(f"{path}: ")
        assert len(str(told.value)) < 600
    mask = ui.load_mask(path, foreground=foreground, ignore=ignore)
    assert np.array_equal(np.array(mask), in_regions(*expected))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"foreground": [MAGENTA], "ignore": [BLACK]}, [0, 255, 128]),
        ({"foreground": [RED, MAGENTA]}, [255, 255, 0]),
        ({"foreground": [list(BLACK)]}, [0, 0, 255]),
        ({"foreground": [(0, 255, 255)]}, [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("name", ["png", "P", "gif", "jpg", "jpg 30", "webp"])
def test_colours_become_what_was_named(
    name: str, options: dict, expected: list[int], tmp_path: Path
) -> None:
    picture = colours(*ROAD)
    if name == "P":
        picture = indexed(dict(zip((9, 4, 7), ROAD, strict=True)))
    path = saved(tmp_path, picture, name.replace("P", "png"), lossless=False)
    mask = ui.load_mask(path, **options)
    assert np.array_equal(np.array(mask), in_regions(*expected))


def test_soft_masks_are_read_by_a_range(tmp_path: Path) -> None:
    soft = [
        Image.fromarray(BOX).filter(ImageFilter.GaussianBlur(3)),
        Image.fromarray(BOX).resize((60, 40), Image.Resampling.BICUBIC),
        Image.open(saved(tmp_path, Image.fromarray(BOX).rotate(9), "jpg 40")),
        Image.fromarray(np.add.outer(np.arange(90), np.arange(160)).astype(np.uint8)),
    ]
    for picture in soft:
        path = saved(tmp_path, picture, "png")
        bright = np.array(picture) >= 128
        mask = np.array(ui.load_mask(path, foreground=range(128, 256)))
        assert np.array_equal(mask, np.where(bright, 255, 0))
        try:
            assert np.array_equal(ui.load_mask(path), mask)
        except ValueError as error:
            assert "range(128, 256)" in str(error)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_a_tiff_whose_0_is_white_is_asked_about(dtype: type, tmp_path: Path) -> None:
    """Its writer may mean 1 as foreground, which a viewer shows as black."""
    objects = BOX == 255
    values = objects if dtype is bool else np.where(objects, 255, 0).astype(dtype)
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, values, photometric="miniswhite")
    with pytest.raises(ValueError, match=r"mask\.tif: a TIFF whose 0 is white.*0 \("):
        ui.load_mask(path)
    for foreground, expected in ((0, objects), (255, ~objects)):
        mask = ui.load_mask(path, foreground=[foreground])
        assert np.array_equal(np.array(mask) == 255, expected)
    with pytest.raises(ValueError, match="whose 0 is white"):
        ui.load_classes(path, 2)
    tifffile.imwrite(path, values, photometric="minisblack")
    assert np.array_equal(np.array(ui.load_mask(path)) == 255, objects)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        *(
            ([0], ""),
            ([0, 1, 1], ""),
            ([0, 0], "2 pages"),
            ([0, 1, 0], "3 pages with 2"),
        ),
        *(([1, 0], "2 pages with 1"), ([1], "1 pages with 0")),
        *(
            ([0, 4], "inner mask"),
            ([0, 4, 1, 5], "inner mask"),
            ([0, 4, 0], "3 pages with 2"),
        ),
    ],
)
def test_smaller_copies_and_masks_in_a_tiff_are_no_pages(
    kinds: list[int], message: str, tmp_path: Path
) -> None:
    """As in a cloud-optimised GeoTIFF. Kind 1 is a smaller copy, 4 a mask."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number, kind in enumerate(kinds):
            page = BOX[::2, ::2] if number else BOX
            form = "minisblack"
            if kind & 4:
                page, form = page > 0, "mask"  # which Pillow cannot read
            file.write(page, subfiletype=kind, photometric=form, metadata=None)
    if "pages" not in message:
        assert np.array_equal(np.array(ui.load_image(path))[..., 0], BOX)
    if message:
        with pytest.raises(ValueError, match=rf"a\.tif: .*{message}"):
            ui.load_mask(path)
    else:
        assert np.array_equal(np.array(ui.load_mask(path)), BOX)


def test_a_block_that_is_not_in_the_file_is_not_made_up(tmp_path: Path) -> None:
    """GDAL leaves out empty blocks of a sparse file."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BOX, tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as file:
        offsets = file.pages[0].tags["TileOffsets"]
        offsets.overwrite([0, *offsets.value[1:]])
    for load in (ui.load_image, ui.load_mask):
        with pytest.raises(ValueError, match=r"a\.tif: .*sparse: blocks .* not in the"):
            load(path)


def test_what_a_file_declares_as_no_data_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for declared, asked in ((255, True), (0, False), (7, False)):
        tag = (42113, "s", 0, str(declared), True)  # GDAL's
        tifffile.imwrite(path, BOX, extratags=[tag])
        if asked:
            with pytest.raises(ValueError, match=r"a\.tif: 255, declared as no data"):
                ui.load_mask(path)
        else:
            assert np.array_equal(np.array(ui.load_mask(path)), BOX)
        ignored = np.array(ui.load_mask(path, ignore=[255]))
        assert np.array_equal(ignored, np.where(BOX == 255, 128, 0))


def test_ids_with_the_high_byte_first_are_read(tmp_path: Path) -> None:
    """As ImageJ writes them."""
    path, ids = tmp_path / "a.tif", np.array([[0, 1], [300, 2]], ">u2")
    tifffile.imwrite(path, ids, byteorder=">")
    mask = np.array(ui.load_mask(path, foreground=[1, 300]))
    assert mask.tolist() == [[0, 255], [255, 0]]
    classes = ui.load_classes(path, classes=[[0, 2], [1], [300]])
    assert np.array(classes).tolist() == [[0, 1], [2, 0]]


def test_a_picture_below_0_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(-8, 8, dtype=np.int8).reshape(4, 4))
    with pytest.raises(ValueError, match=r"a\.tif: numbers with a sign"):
        ui.load_image(path)


def test_a_picture_that_would_be_black_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, deep(0, 3, 255), "png")
    with pytest.raises(ValueError, match="16 bits of which only values up to 255"):
        ui.load_image(path)


@pytest.mark.parametrize("rim", [1, 2, 3])
def test_trimaps_of_true_masks_are_refused(rim: int, tmp_path: Path) -> None:
    for path in sorted(INPUTS.glob("*_target.jpg"))[::6]:
        mask = ui.load_mask(path)
        wider = mask.filter(ImageFilter.MaxFilter(2 * rim + 1))
        trimap = np.where(np.array(wider) > np.array(mask), 128, np.array(mask))
        for name in ("png", "jpg 50", "jpg 75", "jpg 95"):
            path = saved(tmp_path, Image.fromarray(trimap.astype(np.uint8)), name)
            with pytest.raises(ValueError):
                ui.load_mask(path)


def test_a_third_grey_of_some_area_is_refused(tmp_path: Path) -> None:
    box = np.zeros((200, 200), np.uint8)
    box[40:160, 40:160] = 255
    for blocks, fine in ((1, True), (2, True), (3, False), (9, False)):
        for grey in (100, 200):
            values = box.copy()
            for number in range(blocks):
                values[8:16, 16 * number : 16 * number + 8] = grey
            path = saved(tmp_path, Image.fromarray(values), "jpg 90")
            assert len(np.unique(np.array(Image.open(path)))) > 2
            if fine:
                mask = np.array(ui.load_mask(path))
                assert np.array_equal(mask[40:160, 40:160], box[40:160, 40:160])
            else:
                with pytest.raises(ValueError):
                    ui.load_mask(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photo_is_refused(suffix: str, tmp_path: Path) -> None:
    noise = draw_image(0, (90, 70)).convert("L")
    for photo in (
        noise,
        noise.point(lambda value: value // 3),
        noise.filter(ImageFilter.GaussianBlur(2)),
        Image.effect_noise((90, 70), 90),
        Image.fromarray(np.add.outer(np.arange(90), np.arange(160)).astype(np.uint8)),
    ):
        with pytest.raises(ValueError):
            ui.load_mask(saved(tmp_path, photo, suffix))


def test_ids_that_a_lossy_file_cannot_keep_apart(tmp_path: Path) -> None:
    for values, named in ((range(12), 1), ((0, 255), 1), ((0, 255), 4), ((0, 90), 92)):
        path = saved(tmp_path, levels(*values), "jpg 95")
        with pytest.raises(ValueError, match=f"{named}.*save the mask again.*PNG"):
            ui.load_mask(path, foreground=[named])
    bright = saved(tmp_path, levels(0, 90, 200, 126), "jpg 75")
    with pytest.raises(ValueError, match="126 and 128"):
        ui.load_mask(bright, foreground=range(128, 256))
    bright = saved(tmp_path, levels(0, 90, 200).rotate(9), "jpg 75")
    expected = 255 * (np.array(Image.open(bright)) >= 128)
    assert np.array_equal(ui.load_mask(bright, foreground=range(128, 256)), expected)
    path = saved(tmp_path, levels(0, 90, 200), "jpg")
    specks = np.array(ui.load_mask(path, foreground=(110, 180), ignore=(255,)))
    assert (specks > 0).mean() <= 0.02  # where edges pass through the value


@pytest.mark.parametrize(
    ("bits", "ids"),
    [(2, (0, 1, 2, 3)), (2, (0, 1)), (4, (0, 1, 2)), (2, (0, 3)), (4, (0, 15))],
)
def test_ids_of_few_bits_are_not_taken_for_shades(
    bits: int, ids: tuple, tmp_path: Path
) -> None:
    path = write_png(tmp_path / "mask.png", in_regions(*ids), bits)
    calls = [
        partial(ui.load_mask, foreground=[ids[-1]]),
        *(ui.load_classes, partial(ui.load_classes, classes=[[n] for n in ids])),
    ]
    scaled = 255 // (2**bits - 1) * ids[-1]  # as a refusal lists it
    found = np.array(ui.load_mask(path, foreground=[scaled])) == 255
    assert np.array_equal(found, in_regions(*ids) == ids[-1])
    if ids[1] == 2**bits - 1:  # two levels
        assert np.array_equal(ui.load_mask(path), 255 * (in_regions(*ids) > 0))
    else:
        calls.append(ui.load_mask)
    for call in calls:
        with pytest.raises(ValueError, match=r"mask\.png: "):
            call(path)


def test_one_bit_is_0_and_1_or_0_and_255_never_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(BOX).convert("1"), "png")
    assert np.array_equal(ui.load_mask(path, foreground=[255]), BOX)
    try:
        assert np.array_equal(ui.load_mask(path, foreground=[1]), BOX)
    except ValueError as error:
        assert str(path) in str(error)


def test_ids_that_pillow_changes_are_refused(tmp_path: Path) -> None:
    ids = np.repeat(in_regions(0, 1, 2)[..., None], 3, axis=2)
    deep_png = write_png(tmp_path / "deep.png", ids, 16)
    deep_ppm, few = tmp_path / "deep.ppm", tmp_path / "few.pgm"
    text = tmp_path / "text.pgm"
    text.write_text("P2 3 1 3\n0 1 2\n")
    deep_ppm.write_bytes(b"P6 96 64 65535\n" + ids.astype(">u2").tobytes())
    few.write_bytes(b"P5 96 64 3\n" + in_regions(0, 1, 2).astype("u1").tobytes())
    options = {"tiffinfo": {339: 2}}  # int8, of which 255 is -1
    paths = [saved(tmp_path, levels(0, 255), "signed.tif", **options)]
    for number, odd in enumerate((-1, 70000, 0.5, math.nan)):
        picture = levels(0, odd, dtype=np.int32 if odd % 1 == 0 else np.float32)
        paths.append(saved(tmp_path, picture, f"{number}.tif"))
    for path in (deep_png, deep_ppm, few, text, *paths):
        for call in (ui.load_mask, ui.load_classes):
            with pytest.raises(ValueError, match=rf"{path.name}: .*; expected "):
                call(path)
    text.write_text("P2 3 1 255\n0 1 2\n")
    assert np.asarray(ui.load_mask(text, foreground=[1, 2])).tolist() == [[0, 255, 255]]


def test_indices_beyond_a_short_palette_are_ids(tmp_path: Path) -> None:
    picture = Image.frombytes("P", (4, 1), bytes([0, 1, 2, 255]))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    path = saved(tmp_path, picture, "bmp")
    assert np.asarray(ui.load_classes(path, 4)).tolist() == [[0, 1, 2, 255]]
    assert np.asarray(ui.load_mask(path, foreground=[2])).tolist() == [[0, 0, 255, 0]]


# ---- showing


def test_overlay_tints_the_mask_and_nothing_else() -> None:
    image = Image.new("RGB", (4, 3), (100, 100, 100))
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    pixels = np.array(ui.overlay(image, mask, (200, 0, 0), alpha=0.5))
    assert pixels[1, 2].tolist() == [150, 50, 50]
    assert (pixels[~mask] == 100).all()
    ignored = np.where(mask, 1, 255)
    for other in (
        Image.fromarray(mask),
        Image.fromarray(mask.astype(np.uint8) * 255),
        Image.fromarray(np.where(mask, 255, 128).astype(np.uint8)),
        torch.from_numpy(mask)[None].float(),
        mask * 0.51,
        ignored,
        torch.from_numpy(ignored)[None].float(),
    ):
        painted = ui.overlay(image, other, (200, 0, 0), 0.5)
        assert np.array_equal(np.array(painted), pixels)
    assert np.array_equal(ui.overlay(image, mask * 0.5), image)
    assert ui.overlay(Image.new("RGB", (3, 1)), torch.ones(1, 1, 3)).size == (3, 1)
    empty = torch.from_numpy(np.where(mask, 255, 0)).float()  # a target, all else 0
    assert np.array_equal(ui.overlay(image, empty), image)


def test_class_ids_are_no_mask(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 1))
    for ids in ([0, 1, 2, 8], [0, 3, 255, 255], [0, 1, 2, 255], [0, 1, 127, 254]):
        mask = np.array([ids], np.uint8)
        for given in (mask, torch.from_numpy(mask), Image.fromarray(mask, "P")):
            with pytest.raises(ValueError, match=f"values .*{ids[1]}.*ids == 3"):
                ui.overlay(image, given)
        with pytest.raises(ValueError, match=f"values .*{ids[1]}"):
            ui.save_mask(mask, tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())
    path = tmp_path / f"{'m' * 251}.png"  # as long as a name may be
    ui.save_mask(mask == 1, path)
    assert np.array(Image.open(path)).tolist() == [[0, 255, 0, 0]]
    assert [*tmp_path.iterdir()] == [path]


def test_display_of_every_kind() -> None:
    pixels = np.array(draw_image(5, (6, 4)))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    backwards = pixels[..., ::-1].copy()[..., ::-1]  # OpenCV's, turned to RGB
    for picture in (Image.fromarray(pixels), pixels, backwards, tensor, tensor / 255):
        assert np.array_equal(ui.to_array(picture), pixels)
    half = torch.tensor([[0.0, 1.0]])
    for mask in (half, half[None], half.bool(), half.bool()[None], half.numpy()):
        assert ui.to_array(mask).tolist() == [[[0] * 3, [255] * 3]]
    deep = Image.fromarray(np.full((1, 2), 1000, np.uint16))
    assert ui.to_array(deep).tolist() == [[[1000 >> 8] * 3] * 2]
    for wrong in (300, -1, np.uint16(256)):
        with pytest.raises(ValueError, match=r"integers in 0\.\.255"):
            ui.to_array(np.full((1, 2, 3), wrong))
    ids = ui.to_array(torch.tensor([[1, 2, 255]])).tolist()
    assert ids == [[*map(list, ui.PALETTE[1:3]), [224, 224, 192]]]


def test_gif_holds_every_frame_and_no_leftovers(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 100, 255)]
    ui.save_gif(frames, tmp_path / "a.gif", duration=40)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (3, 40, 0)
        gif.seek(2)
        assert gif.convert("L").getpixel((0, 0)) == 255


def test_show_draws_rows_with_titles_and_a_legend() -> None:
    import matplotlib.pyplot as plt

    image = draw_image(0)
    ui.show([image, levels(0, 255)], [image], titles=["a", "b"], legend=["x"])
    figure = plt.gcf()
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.array(image))
    (patch,) = figure.legends[0].get_patches()
    assert np.allclose(patch.get_facecolor()[:3], np.array(ui.PALETTE[1]) / 255)
    plt.close(figure)


def test_a_word_that_is_no_choice_is_answered_with_all() -> None:
    expected = "task 'multclass': expected one of .*; did you mean multiclass"
    with pytest.raises(ValueError, match=expected):
        ui.UISegmentationSystem(task="multclass")


@pytest.mark.parametrize("white_first", [False, True])
def test_a_palette_of_black_and_white_has_ids_if_black_is_0(
    white_first: bool, tmp_path: Path
) -> None:
    ids = in_regions(0, 1)
    mask = Image.fromarray((ids ^ white_first).astype(np.uint8))
    black_and_white = [0] * 3 + [255] * 3
    mask.putpalette(black_and_white[:: -1 if white_first else 1])
    path = saved(tmp_path, mask, "png")
    for foreground in ((), (1,), ((255, 255, 255),)):
        if white_first and foreground == (1,):
            with pytest.raises(ValueError, match=r"palette of greys.* name colours"):
                ui.load_mask(path, foreground=foreground)
        else:
            found = np.array(ui.load_mask(path, foreground=foreground))
            assert np.array_equal(found, 255 * ids)


def test_a_refusal_of_many_values_is_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a list of ids") as refused:
        ui.load_mask(saved(tmp_path, levels(0, 5), "png"), foreground=range(1, 70_000))
    assert len(str(refused.value)) < 200
