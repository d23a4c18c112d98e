"""Pictures and masks: round trips, every kind of file, every kind of wrong file."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_image
from PIL import Image

from ui_segmentation_system import (
    PALETTE,
    classes_to_colors,
    colors_to_classes,
    load_image,
    load_mask,
    overlay,
    pack_masks,
    save_gif,
    save_mask,
    to_array,
    unpack_masks,
)

ORIENTATION = 0x0112
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
COLOURS = [RED, GREEN, BLUE]


def greys(*values: int, dtype: type = np.uint8) -> Image.Image:
    """Make a picture of one row that holds these grey values."""
    return Image.fromarray(np.array([values], dtype=dtype))


def box_mask() -> np.ndarray:
    """A box, uint8 0 and 255 (40, 48), on JPEG's grid of 8 pixels or not."""
    mask = np.zeros((40, 48), np.uint8)
    mask[5:30, 7:33] = 255
    return mask


def saved(folder: Path, picture: Image.Image, name: str, **options: Any) -> Path:
    path = folder / name
    picture.save(path, **options)
    return path


def distinct(mask: Image.Image) -> list[int]:
    return np.unique(np.array(mask)).tolist()


def random_palette(count: int) -> list[tuple[int, int, int]]:
    """Draw different colours; more than 25 take another path inside torch.cdist."""
    colours = np.random.default_rng(count).integers(0, 256, (count, 3))
    return [(red, green, blue) for red, green, blue in colours.tolist()]


@pytest.mark.parametrize("count", [1, 2, 9, 40, 255])
def test_classes_survive_colours(count: int) -> None:
    palette = random_palette(count)
    ids = np.random.default_rng(1).integers(0, count, (30, 20))
    ids[:3, :4] = 255
    picture = classes_to_colors(ids, palette)
    assert (picture.mode, picture.size) == ("RGB", (20, 30))
    back = colors_to_classes(picture, palette)
    assert back.dtype == torch.int64
    assert torch.equal(back, torch.as_tensor(ids))
    assert torch.equal(colors_to_classes(np.array(picture), palette), back)


def test_colours_survive_classes() -> None:
    pixels = np.array(COLOURS, np.uint8)[np.random.default_rng(2).integers(0, 3, 48)]
    picture = Image.fromarray(pixels.reshape(6, 8, 3))
    back = classes_to_colors(colors_to_classes(picture, COLOURS), COLOURS)
    assert np.array_equal(np.array(back), np.array(picture))


def test_unknown_colours_are_ignored_not_guessed() -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), (199, 0, 0))
    assert colors_to_classes(picture, COLOURS).tolist() == [[0, 255]]
    assert colors_to_classes(picture, COLOURS, 99).tolist() == [[0, 99]]
    assert colors_to_classes(picture, COLOURS, max_distance=1).tolist() == [[0, 0]]


def test_nearest_colour_against_a_loop() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    ids = colors_to_classes(pixels, COLOURS, max_distance=150).numpy()
    for y, x in np.ndindex(12, 10):
        gaps = [np.linalg.norm(pixels[y, x] - np.array(colour)) for colour in COLOURS]
        assert ids[y, x] == (np.argmin(gaps) if min(gaps) <= 150 else 255)


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        ([RED, GREEN, RED], "two classes have the same colour"),
        ([1, 2, 3], r"shape \(3,\): expected \(K, 3\)"),
        ([(1, 2, 3, 4)], r"shape \(1, 4\): expected \(K, 3\)"),
        ([(0, 0, 0), (300, 0, 0)], "300"),
        ([(0.0, 0.0, 0.0), (1.0, 0.5, 0.0)], "0 to 255|0..255"),
    ],
)
def test_bad_palette_is_refused(palette: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        colors_to_classes(Image.new("RGB", (2, 2)), palette)


def test_class_without_a_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="class id 3: expected 0 to 2"):
        classes_to_colors(torch.tensor([[0, 3]]), COLOURS)
    with pytest.raises(ValueError, match="class id -1"):
        classes_to_colors(torch.tensor([[0, -1]]), COLOURS)


def test_grey_array_is_no_colour_mask() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 5\): expected \(H, W, 3\)"):
        colors_to_classes(np.zeros((4, 5), np.uint8), COLOURS)


@pytest.mark.parametrize("count", [1, 8, 9, 63])
def test_packed_masks_unpack(count: int) -> None:
    masks = np.random.default_rng(count).integers(0, 2, (count, 7, 5))
    masks[-1, 0, 0] = 1  # the highest bit is used
    packed = pack_masks(masks)
    assert packed.dtype == (torch.uint8 if count <= 8 else torch.int64)
    back = unpack_masks(packed, count)
    assert back.dtype == torch.float32
    assert np.array_equal(back.numpy(), masks)


def test_mask_k_is_bit_k() -> None:
    masks = torch.zeros(3, 1, 2)
    masks[0, 0, 0] = masks[2, 0, 0] = masks[1, 0, 1] = 1
    assert pack_masks(masks).tolist() == [[5, 2]]


def test_bad_masks_are_not_packed() -> None:
    with pytest.raises(ValueError, match="divide masks of 0/255 by 255"):
        pack_masks(torch.full((2, 3, 3), 255))
    with pytest.raises(ValueError, match=r"\(64, 1, 1\): expected \(1..63, H, W\)"):
        pack_masks(torch.zeros(64, 1, 1))
    with pytest.raises(ValueError, match="4 has more bits than 2 classes"):
        unpack_masks(torch.tensor([[4]]), 2)


KINDS: dict[str, tuple[Callable[[], Image.Image], tuple[int, int, int]]] = {
    "grey": (lambda: Image.new("L", (3, 2), 77), (77, 77, 77)),
    "bits": (lambda: Image.new("1", (3, 2), 1), (255, 255, 255)),
    "16 bits": (lambda: greys(0x4D00, dtype=np.uint16), (77, 77, 77)),
    "white of 16 bits": (lambda: greys(65535, dtype=np.uint16), (255, 255, 255)),
    "palette": (lambda: Image.new("RGB", (3, 2), RED).quantize(2), RED),
    "opaque": (lambda: Image.new("RGBA", (3, 2), (*RED, 255)), RED),
    "clear": (lambda: Image.new("RGBA", (3, 2), (*RED, 0)), (255, 255, 255)),
    "half clear": (lambda: Image.new("RGBA", (3, 2), (0, 0, 0, 127)), (128, 128, 128)),
    "clear grey": (lambda: Image.new("LA", (3, 2), (9, 0)), (255, 255, 255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_image_of_any_mode_becomes_rgb(kind: str, tmp_path: Path) -> None:
    make, expected = KINDS[kind]
    image = load_image(saved(tmp_path, make(), "a.png"))
    assert image.mode == "RGB"
    assert np.abs(np.array(image).astype(int) - expected).max() <= 1


def test_cmyk_image(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    pixels = np.array(load_image(saved(tmp_path, picture, "a.tif")))
    assert pixels.tolist() == [[[255] * 3, [0] * 3]]


def test_clear_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), BLUE)
    picture = picture.quantize(2)
    clear = picture.getpixel((0, 0))
    image = load_image(saved(tmp_path, picture, "a.png", transparency=clear))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) != (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_image_and_mask_are_turned_as_exif_says(tmp_path: Path, suffix: str) -> None:
    upright = draw_image(4, (6, 4))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # "turn me 90 degrees clockwise"
    path = saved(tmp_path, lying, f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(np.array(load_image(path)), np.array(upright))
    mask = Image.new("L", (6, 4))
    mask.putpixel((5, 0), 255)
    lying = mask.transpose(Image.Transpose.ROTATE_90)
    path = saved(tmp_path, lying, f"m.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(np.array(load_mask(path)), np.array(mask))


FAULTS = {
    "empty": "the file is empty",
    "truncated": "damaged or cut short",
    "text": "not a picture .*hello",
    "pointer": "Git LFS pointer.*git lfs pull",
}


@pytest.mark.parametrize("load", [load_image, load_mask])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_file_is_refused(
    load: Callable, fault: str, bad_files: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=FAULTS[fault]) as error:
        load(bad_files[fault])
    text = str(error.value)
    assert text.startswith(f"{bad_files[fault]}: ")
    assert "expected a whole picture; save it again" in text


def test_damaged_exif_is_no_crash(tmp_path: Path) -> None:
    no_tiff = b"MQ\0*" + struct.pack(">I", 8) + bytes(8)
    path = saved(tmp_path, Image.new("L", (4, 4)), "a.png", exif=no_tiff)
    try:
        load_image(path)
    except ValueError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("load", [load_image, load_mask])
def test_no_file_and_folder_are_refused(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.png: does not exist"):
        load(tmp_path / "no.png")
    with pytest.raises(FileNotFoundError, match="is a folder; expected a picture file"):
        load(tmp_path)


def test_picture_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, Image.new("L", (20, 20)), "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"big\.png: more pixels.*notebook 09.*raise"):
        load_image(path)


@pytest.mark.parametrize(
    "picture",
    [greys(0, 1 << 20, dtype=np.int32), greys(0, 0.5, dtype=np.float32)],
    ids=["int", "float"],
)
def test_32_bits_are_refused(picture: Image.Image, tmp_path: Path) -> None:
    path = saved(tmp_path, picture, "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif: 32-bit grey.*expected 8 or 16"):
        load_image(path)
    with pytest.raises(ValueError, match=r"deep\.tif: mode .*save it as 8 bits"):
        load_mask(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_mask_survives_every_format(suffix: str, mode: str, tmp_path: Path) -> None:
    mask = box_mask()
    picture = Image.fromarray(mask).convert(mode)
    path = saved(tmp_path, picture, f"m.{suffix}", lossless=True, quality=75)
    if suffix == "jpg":
        assert len(distinct(Image.open(path))) > 10, "there are no grey rings"
    loaded = load_mask(path)
    assert loaded.mode == "L"
    assert np.array_equal(np.array(loaded), mask)


def palette_of_two(dark: int, bright: int) -> Image.Image:
    picture = Image.fromarray(np.array([[0, 1, 1]], np.uint8), "P")
    picture.putpalette([dark] * 3 + [bright] * 3)
    return picture


MASKS = {
    "0 and 1": (lambda: greys(0, 1, 1), [0, 255, 255]),
    "bits": (lambda: greys(0, 255, 255).convert("1"), [0, 255, 255]),
    "GIF of 0 and 251": (lambda: palette_of_two(0, 251), [0, 255, 255]),
    "palette 0 and 1": (lambda: palette_of_two(0, 1), [0, 255, 255]),
    "brightest 237": (lambda: greys(0, 237, 140), [0, 255, 255]),
    "at the threshold": (lambda: greys(127, 128, 129), [0, 255, 255]),
    "opaque RGBA": (lambda: greys(0, 255, 255).convert("RGBA"), [0, 255, 255]),
    "16 bits": (lambda: greys(0, 65535, 40000, dtype=np.uint16), [0, 255, 255]),
    "16 bits, 0 and 1": (lambda: greys(0, 1, 1, dtype=np.uint16), [0, 255, 255]),
    "16 bits, 0 and 255": (lambda: greys(0, 255, 255, dtype=np.uint16), [0, 255, 255]),
    "all black": (lambda: greys(0, 0), [0, 0]),
    "all white": (lambda: greys(255, 255), [255, 255]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_mask_of_two_values_is_read(kind: str, tmp_path: Path) -> None:
    make, expected = MASKS[kind]
    suffix = "gif" if "GIF" in kind else "png"
    mask = load_mask(saved(tmp_path, make(), f"m.{suffix}"))
    assert mask.mode == "L"
    assert np.array(mask).tolist() == [expected]


def clear_mask() -> Image.Image:
    picture = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    picture.putpixel((0, 0), (255, 255, 255, 0))
    return picture


def of_colour(colour: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (4, 4))
    picture.paste(colour, (0, 0, 2, 2))
    return picture


NO_MASKS = {
    "class ids": (lambda: greys(*range(12)), r"brightest value is 11, values 0, 1, 2"),
    "VOC ids": (lambda: greys(0, 15, 20, 255), "0, 15, 20, 255 look like class ids"),
    "ids above 128": (lambda: greys(*range(0, 151, 3)), "look like class ids"),
    "red": (lambda: of_colour((255, 0, 0)), "has 2 colours.*--foreground ff0000"),
    "magenta": (lambda: of_colour((255, 0, 255)), "2 colours.*--foreground ff00ff"),
    "red in a palette": (lambda: of_colour(RED).quantize(2), "has 2 colours"),
    "dark": (lambda: greys(0, 60, 0), "value is 60.*threshold=30"),
    "dark in 16 bits": (
        lambda: greys(0, 300, dtype=np.uint16),
        "brightest value is 300",
    ),
    "transparent": (clear_mask, "transparent parts.*save its alpha channel"),
}


@pytest.mark.parametrize("kind", NO_MASKS)
def test_what_is_no_mask_is_refused(kind: str, tmp_path: Path) -> None:
    make, message = NO_MASKS[kind]
    path = saved(tmp_path, make(), "m.png")
    with pytest.raises(ValueError, match=message) as error:
        load_mask(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "; expected " in str(error.value)


def test_advice_for_a_dark_mask_works(tmp_path: Path) -> None:
    path = saved(tmp_path, greys(0, 60, 0), "m.png")
    with pytest.raises(ValueError, match=r"threshold=30 \(--threshold 30\)"):
        load_mask(path)
    assert np.array(load_mask(path, threshold=30)).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize("threshold", [0, 256, -1])
def test_threshold_out_of_range_is_refused(threshold: int, tmp_path: Path) -> None:
    path = saved(tmp_path, greys(0, 255), "m.png")
    with pytest.raises(ValueError, match=f"threshold {threshold}: expected 1 to 255"):
        load_mask(path, threshold)


def test_overlay_tints_the_mask_and_nothing_else() -> None:
    image = Image.new("RGB", (4, 3), (100, 100, 100))
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    pixels = np.array(overlay(image, mask, (200, 0, 0), alpha=0.5))
    assert pixels[1, 2].tolist() == [150, 50, 50]
    assert (pixels[~mask] == 100).all()
    for other in (
        Image.fromarray(mask),
        Image.fromarray(mask.astype(np.uint8) * 255),
        torch.from_numpy(mask)[None].float(),
    ):
        assert np.array_equal(np.array(overlay(image, other, (200, 0, 0), 0.5)), pixels)


def test_overlay_leaves_ignored_pixels_alone() -> None:
    image = Image.new("RGB", (3, 2), (100, 100, 100))
    target = torch.tensor([[[0.0, 1.0, 255.0]] * 2])
    picture = Image.fromarray(np.array([[0, 255, 128]] * 2, np.uint8))
    for mask in (target, picture):
        tinted = (np.array(overlay(image, mask)) != 100).any(axis=2)
        assert tinted.tolist() == [[False, True, False]] * 2


def test_class_ids_are_no_mask(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 1))
    for ids in ([0, 1, 2, 8], [0, 3, 255, 255], [0, 1, 2, 255]):
        for kind in (np.uint8, np.int64):
            mask = np.array([ids], kind)
            for given in (mask, torch.from_numpy(mask)):
                with pytest.raises(ValueError, match="class ids take one, as ids == 3"):
                    overlay(image, given)
        picture = Image.fromarray(np.array([ids], np.uint8), "P")
        with pytest.raises(ValueError, match="class ids take one, as ids == 3"):
            overlay(image, picture)
        with pytest.raises(ValueError, match=f"mask of values 0, {ids[1]}"):
            save_mask(np.array([ids]), tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


def test_greys_of_a_jpeg_mask_are_cut_in_the_middle() -> None:
    image = Image.new("RGB", (5, 1))
    for mask in (np.array([[0, 1, 127, 254, 255]]), greys(0, 1, 3, 250, 255)):
        tinted = np.array(overlay(image, mask)).any(axis=2)
        assert tinted.tolist() == [[False, False, False, True, True]]
    assert not np.array(overlay(image, greys(0, 1, 2, 3, 3))).any()


def test_overlay_on_one_row() -> None:
    image = Image.new("RGB", (3, 1))
    assert overlay(image, greys(0, 255, 0)).size == (3, 1)
    assert overlay(image, torch.ones(1, 1, 3)).size == (3, 1)


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(ValueError, match=r"mask \(2, 3\) on an image of \(3, 2\)"):
        overlay(Image.new("RGB", (2, 3)), np.zeros((2, 3), bool))


def test_overlapping_masks_are_not_one_picture() -> None:
    for shape in ((2, 4, 6), (4, 4, 6), (1, 1, 4, 6), (7,)):
        with pytest.raises(ValueError, match=r"shown one by one"):
            to_array(torch.zeros(shape, dtype=torch.bool))


def test_display_of_every_kind() -> None:
    pixels = np.array(draw_image(5, (6, 4)))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert np.array_equal(to_array(Image.fromarray(pixels)), pixels)
    assert np.array_equal(to_array(pixels), pixels)
    assert np.array_equal(to_array(tensor / 255), pixels)
    half = torch.tensor([[0.0, 1.0]])
    black_white = [[[0] * 3, [255] * 3]]
    for mask in (half, half[None], half.bool(), half.bool()[None], half.numpy()):
        assert to_array(mask).tolist() == black_white
    assert to_array(torch.tensor([[1, 2]])).tolist() == [list(map(list, PALETTE[1:3]))]


def test_logits_are_not_displayed() -> None:
    with pytest.raises(ValueError, match=r"-1\.00 to 3\.00: expected 0\.\.1; logits"):
        to_array(torch.tensor([[-1.0, 3.0]]))


def test_gif_holds_every_frame_and_no_leftovers(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 100, 255)]
    save_gif(frames, tmp_path / "a.gif", duration=40)
    with pytest.raises(ValueError, match="10 ms or more"):
        save_gif(frames, tmp_path / "b.gif", duration=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (3, 40, 0)
        gif.seek(2)
        assert gif.convert("L").getpixel((0, 0)) == 255
    with pytest.raises(ValueError, match=r"b\.gif: no frames to write"):
        save_gif([], tmp_path / "b.gif")
    with pytest.raises(ValueError, match=r"b\.gif: frames of sizes .*expected one"):
        save_gif([frames[0], Image.new("L", (9, 8))], tmp_path / "b.gif")
    with pytest.raises(ValueError, match=r"b\.png, .*a name ending in \.gif"):
        save_gif(frames, tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_overlay_refuses_swapped_arguments_and_wild_alpha() -> None:
    image, mask = Image.new("RGB", (6, 4)), Image.new("L", (6, 4))
    with pytest.raises(ValueError, match=r"mask of shape \(4, 6, 3\)"):
        overlay(mask, image)
    with pytest.raises(ValueError, match="alpha 5"):
        overlay(image, mask, alpha=5)
