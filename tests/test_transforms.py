"""Paired transforms: whatever moves the image moves the target in the same way.

The images are drawn so that their target can be made from their pixels again, so every
test can ask of a transformed sample whether its two halves still belong together.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.conftest import BOX_LEVEL, draw_image, find_box
from ui_segmentation_system import (
    ImageTargetColorJitter,
    ImageTargetCompose,
    ImageTargetNormalize,
    ImageTargetPad,
    ImageTargetRandomAffine,
    ImageTargetRandomCrop,
    ImageTargetRandomHorizontalFlip,
    ImageTargetResize,
    ImageTargetToTensor,
    PairDataset,
    PairedTransform,
    Sample,
    TileDataset,
    UISegmentationData,
    denormalize,
    to_array,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PicturePair = tuple[Image.Image, Image.Image]


def as_pictures(pair: PicturePair) -> PicturePair:
    return pair


def as_class_pictures(pair: PicturePair) -> PicturePair:
    """Class ids 0 and 1 in a picture of mode P."""
    ids = Image.fromarray(np.array(pair[1]) // 255)
    ids.putpalette([0, 0, 0, 255, 0, 0])
    return pair[0], ids


def as_tensors(pair: PicturePair) -> Sample:
    return ImageTargetToTensor()(*pair)


def as_class_tensors(pair: PicturePair) -> Sample:
    return ImageTargetToTensor()(*as_class_pictures(pair))


KINDS = [as_pictures, as_class_pictures, as_tensors, as_class_tensors]


def pixels_of(image: Any) -> np.ndarray:
    """Give uint8 (H, W, 3)."""
    if isinstance(image, Image.Image):
        return np.array(image)
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def values_of(target: Any) -> np.ndarray:
    return np.array(target) if isinstance(target, Image.Image) else target.numpy()


def ids_of(target: Any) -> np.ndarray:
    """Give 0, 1 and 255 for ignored, (H, W), of a target of any kind."""
    ids = values_of(target).squeeze().astype(int)
    if isinstance(target, Image.Image) and target.mode == "L":
        assert set(np.unique(ids)) <= {0, 128, 255}
        return np.select([ids == 255, ids == 128], [1, 255], 0)
    assert set(np.unique(ids)) <= {0, 1, 255}
    return ids


def kind_of(half: Any) -> tuple:
    if isinstance(half, Image.Image):
        return Image.Image, half.mode
    return type(half), half.dtype, half.ndim


def share_that_fits(sample: tuple[Any, Any]) -> float:
    """Of the pixels that are not ignored, how many the image agrees with."""
    ids = ids_of(sample[1])
    box = pixels_of(sample[0]).min(axis=2) > BOX_LEVEL
    return float((box == (ids == 1))[ids != 255].mean())


RANDOM = {
    "flip": lambda: ImageTargetRandomHorizontalFlip(0.5),
    "crop": lambda: ImageTargetRandomCrop((30, 40)),
    "crop of more": lambda: ImageTargetRandomCrop((70, 80)),
    "pad": lambda: ImageTargetPad((60, 80)),
}
SMOOTH = {
    "resize": lambda: ImageTargetResize((33, 95)),
    "turn": lambda: ImageTargetRandomAffine(40),
    "all of affine": lambda: ImageTargetRandomAffine(20, (0.2, 0.2), (0.6, 1.6), 15),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*RANDOM, *SMOOTH])
def test_target_still_fits_its_image(
    kind: Callable, name: str, pair: PicturePair
) -> None:
    transform = (RANDOM | SMOOTH)[name]()
    # Smoothing moves the image's edge by up to a pixel; elsewhere all must fit.
    least = 0.93 if name in SMOOTH else 1
    torch.manual_seed(0)
    for _ in range(8):
        sample = transform(*kind(pair))
        assert isinstance(sample, Sample)
        assert share_that_fits(sample) >= least


def test_the_measure_notices_a_target_that_was_left_behind(pair: PicturePair) -> None:
    image, target = pair
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert share_that_fits((image, target)) == 1
    assert share_that_fits((flipped, target)) < 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*RANDOM, *SMOOTH])
def test_kinds_come_back_as_they_were(
    kind: Callable, name: str, pair: PicturePair
) -> None:
    before = kind(pair)
    after = (RANDOM | SMOOTH)[name]()(*before)
    assert list(map(kind_of, before)) == list(map(kind_of, after))
    if isinstance(before[1], Image.Image):
        palettes = [ids.getpalette() or [] for ids in (before[1], after[1])]
        assert palettes[1][: len(palettes[0])] == palettes[0]


@pytest.mark.parametrize("name", ["flip", "crop", "all of affine"])
def test_random_transforms_differ_and_follow_the_seed(
    name: str, pair: PicturePair
) -> None:
    transform = (RANDOM | SMOOTH)[name]()
    torch.manual_seed(1)
    first = [pixels_of(transform(*pair).image).tobytes() for _ in range(12)]
    torch.manual_seed(1)
    again = [pixels_of(transform(*pair).image).tobytes() for _ in range(12)]
    assert first == again
    assert len(set(first)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_flip_twice_is_nothing(kind: Callable, pair: PicturePair) -> None:
    flip = ImageTargetRandomHorizontalFlip(1)
    before = kind(pair)
    once = flip(*before)
    assert np.array_equal(ids_of(once.target), ids_of(before[1])[:, ::-1])
    assert np.array_equal(pixels_of(once.image), pixels_of(before[0])[:, ::-1])
    twice = ImageTargetRandomHorizontalFlip(0)(*flip(*once))
    assert np.array_equal(ids_of(twice.target), ids_of(before[1]))
    assert np.array_equal(pixels_of(twice.image), pixels_of(before[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_black_and_ignored(kind: Callable, pair: PicturePair) -> None:
    before = kind(pair)
    sample = ImageTargetPad((60, 80))(*before)
    image, ids = pixels_of(sample.image), ids_of(sample.target)
    assert image.shape == (60, 80, 3)
    assert np.array_equal(image[:48, :64], pixels_of(before[0]))
    assert np.array_equal(ids[:48, :64], ids_of(before[1]))
    outside = np.ones((60, 80), bool)
    outside[:48, :64] = False
    assert (image[outside] == 0).all()
    assert (ids[outside] == 255).all()
    shapes = [ids_of(ImageTargetPad(least)(*before).target).shape for least in (10, 50)]
    assert shapes == [(48, 64), (50, 64)]


@pytest.mark.parametrize("kind", KINDS)
def test_crop_and_affine_ignore_what_they_pad(
    kind: Callable, pair: PicturePair
) -> None:
    torch.manual_seed(0)
    sample = ImageTargetRandomCrop((70, 80))(*kind(pair))
    ids = ids_of(sample.target)
    assert (ids != 255).sum() == 48 * 64
    assert (pixels_of(sample.image)[ids == 255] == 0).all()
    sample = ImageTargetRandomAffine((45, 45))(*kind(pair))
    assert [ids_of(sample.target)[y, x] for y in (0, -1) for x in (0, -1)] == [255] * 4
    assert (pixels_of(sample.image)[0, 0] == 0).all()


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarters: int) -> None:
    image = draw_image(7, (32, 32))
    target = find_box(image)
    turn = ImageTargetRandomAffine((90 * quarters, 90 * quarters))
    sample = turn(image, target)
    expected = np.rot90(np.array(image).astype(int), -quarters)
    assert np.abs(pixels_of(sample.image) - expected).max() <= 1
    assert np.array_equal(np.array(sample.target), np.rot90(target, -quarters))


IDS = [0, 3, 7, 11, 254, 255]


@pytest.mark.parametrize(
    "transform",
    [
        ImageTargetResize((17, 90)),
        ImageTargetResize(7),
        ImageTargetRandomAffine(30, (0.1, 0.1), (0.7, 1.4)),
    ],
    ids=["stretch", "shrink", "affine"],
)
def test_class_ids_are_never_blended(transform: Callable) -> None:
    values = np.random.default_rng(0).choice(IDS, (30, 40)).astype(np.uint8)
    image = draw_image(0, (40, 30))
    picture = Image.fromarray(values)
    picture.putpalette(list(range(256)) * 3)
    tensor = torch.from_numpy(values).long()
    for target in (picture, tensor, tensor[None].float()):
        both = image, target
        if target is not picture:
            both = ImageTargetToTensor()(*both)
        moved = np.unique(values_of(transform(*both).target)).tolist()
        assert set(moved) <= set(IDS)
        assert len(moved) > 3


def test_a_batch_is_no_sample() -> None:
    flip = PairedTransform(v2.RandomHorizontalFlip(1))
    with pytest.raises(ValueError, match="of one sample"):
        flip(torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))


def test_padded_ids_can_be_saved_where_the_palette_is_short(tmp_path: Path) -> None:
    """Pillow stores 255 as an id of the palette where that has but a few colours."""
    image, ids = as_class_pictures((draw_image(0, (6, 4)), Image.new("L", (6, 4), 255)))
    padded = ImageTargetPad((4, 7))(image, ids).target
    padded.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as read:
        assert np.array(read)[0].tolist() == [1] * 6 + [255]
        assert read.getpalette()[:6] == [0, 0, 0, 255, 0, 0]


def sampled(length: int, new: int) -> np.ndarray:
    """Which pixel stands at the centre of each new one."""
    return ((np.arange(new) + 0.5) * length / new).astype(int)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda size: ImageTargetResize(size),
        lambda size: PairedTransform(v2.Resize(size)),
        lambda size: PairedTransform(v2.RandomResizedCrop(size, (1, 1), (1, 1.001))),
    ],
)
def test_masks_are_sampled_where_the_image_is(kind: Callable, make: Callable) -> None:
    white = Image.new("RGB", (9, 9))
    white.paste("white", (1, 0, 8, 9))
    halves = ids_of(make((3, 3))(*kind((white, find_box(white)))).target)
    assert halves.tolist() == [[1, 1, 1]] * 3
    values = np.random.default_rng(0).integers(0, 2, (60, 60), dtype=np.uint8) * 255
    for height, width in ((60, 60), (33, 47), (7, 59), (61, 128), (1, 200)):
        before = kind((Image.new("RGB", (60, 60)), Image.fromarray(values)))
        found = ids_of(make((height, width))(*before).target).reshape(height, width)
        expected = values[sampled(60, height)][:, sampled(60, width)] // 255
        assert np.array_equal(found, expected)


def test_other_ways_to_scale_keep_what_v2_promises() -> None:
    image, ids = torch.rand(3, 20, 40), torch.arange(800).view(20, 40)
    shorter = PairedTransform(v2.Resize(10, max_size=15))(image, ids)
    assert shorter.image.shape[1:] == shorter.target.shape == (7, 15)
    torch.manual_seed(0)
    cut = PairedTransform(v2.RandomResizedCrop((5, 5), (0.1, 0.2)))(image, ids).target
    rows, columns = cut // 40, cut % 40
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    assert 2 <= rows[-1, 0] - rows[0, 0] < 12
    assert 2 <= columns[0, -1] - columns[0, 0] < 20


WHOLE = (torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int64)
DTYPES = (*WHOLE, torch.float16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 4, 4)])
@pytest.mark.parametrize(
    "transform",
    [
        ImageTargetPad(6),
        *map(
            PairedTransform,
            (
                *(v2.Pad(1), v2.RandomCrop(6, pad_if_needed=True), v2.CenterCrop(6)),
                *(v2.RandomRotation((45, 45), expand=True), v2.RandomZoomOut(p=1)),
                *(v2.RandomPerspective(0.5, p=1), v2.RandomAffine((45, 45))),
            ),
        ),
    ],
    ids=repr,
)
def test_what_is_padded_is_ignored_in_every_dtype(
    dtype: torch.dtype, shape: tuple[int, ...], transform: Callable
) -> None:
    torch.manual_seed(0)
    image, target = transform(torch.ones(3, 4, 4), torch.ones(shape, dtype=dtype))
    holds = {torch.bool: torch.uint8, torch.int8: torch.int16}
    assert target.dtype == holds.get(dtype, dtype)
    assert target.shape == (*shape[:-2], *image.shape[1:])
    assert set(target.unique().tolist()) == {1, 255}
    black = (image == 0).all(dim=0)
    assert (target[..., black] == 255).all()


@pytest.mark.parametrize("fill", [1, 77, 255, (9, 8, 7), {Image.Image: 9, "others": 1}])
@pytest.mark.parametrize(
    "make",
    [
        partial(v2.Pad, 6),
        partial(v2.RandomAffine, (45, 45)),
        partial(v2.RandomRotation, (45, 45)),
        partial(v2.RandomPerspective, 0.5, 1),
        partial(v2.RandomCrop, (60, 70), pad_if_needed=True),
        partial(v2.RandomZoomOut, p=1),
        partial(v2.ElasticTransform, 400),
    ],
    ids=lambda make: make.func.__name__,
)
def test_the_colour_that_fills_an_image_is_no_value_of_its_target(
    make: Callable, fill: Any, pair: PicturePair
) -> None:
    torch.manual_seed(0)
    image = Image.new("RGB", pair[0].size, "white")
    sample = PairedTransform(make(fill=fill))(image, pair[1])
    levels = np.unique(sample.target)
    assert set(levels) == {0, 128, 255}
    if fill == (9, 8, 7):
        padded = np.array(sample.image)[np.array(sample.target) == 128]
        assert fill in set(map(tuple, padded))


def test_transforms_of_torchvision_alone_are_refused(pair: PicturePair) -> None:
    """They would change a mask as a picture, and say nothing."""
    bare, wanted = v2.RandomInvert(1.0), r"RandomInvert.*PairedTransform\(v2.RandomInv"
    array = np.zeros((64, 64, 3), np.uint8)
    for make in (
        lambda: ImageTargetCompose([ImageTargetToTensor(), bare]),
        lambda: PairDataset([], bare),
        lambda: UISegmentationData("folder", augment=bare),
        lambda: TileDataset(array, array[..., 0], 32, transform=bare),
    ):
        with pytest.raises(ValueError, match=wanted):
            make()
    with pytest.raises(ValueError, match=r"RandAugment.*not supported.*moves masks"):
        PairedTransform(v2.RandAugment())(*pair)


def test_mirrored_padding_is_known() -> None:
    pad = PairedTransform(v2.Pad(2, padding_mode="reflect"))
    ids = torch.arange(16).view(4, 4)
    assert pad(torch.ones(3, 4, 4), ids).target[0].tolist() == [
        10,
        9,
        8,
        9,
        10,
        11,
        10,
        9,
    ]


TENSORS = torch.rand(3, 4, 4), torch.tensor([[[0.0, 1, 1, 0]] * 4])
TV_TENSORS = tv_tensors.Image(TENSORS[0]), tv_tensors.Mask(TENSORS[1])


@pytest.mark.parametrize(
    "transform", [ImageTargetRandomHorizontalFlip(0), ImageTargetToTensor()]
)
def test_what_v2_would_move_stays_together(transform: Callable) -> None:
    # v2 flips the first plain tensor alone, and every tv_tensor.
    for image, target in (TV_TENSORS, (TV_TENSORS[0], TENSORS[1] > 0)):
        kept = transform(image, target)
        assert [type(half) for half in kept] == [tv_tensors.Image, tv_tensors.Mask]
        flipped = v2.RandomHorizontalFlip(1)(kept)
        assert torch.equal(flipped[0], image.flip(-1))
        assert torch.equal(flipped[1], kept.target.flip(-1))
    assert [type(half) for half in transform(*TENSORS)] == [torch.Tensor] * 2


def test_int_is_the_shorter_side_and_a_pair_height_and_width() -> None:
    for size in ((40, 20), (20, 40)):
        image = draw_image(0, size)
        sample = ImageTargetResize(10)(image, find_box(image))
        assert sample.image.size == sample.target.size == (size[0] // 2, size[1] // 2)
    sample = ImageTargetResize((7, 9))(image, find_box(image))
    assert sample.image.size == sample.target.size == (9, 7)
    for size in ((7, 9), [7, 9], np.array([7, 9]), (np.int64(7), np.int16(9))):
        for make in (ImageTargetResize, ImageTargetRandomCrop):
            sample = make(size)(image, find_box(image))
            assert sample.image.size == sample.target.size == (9, 7)
    assert ImageTargetPad(np.int64(99))(image, find_box(image)).image.size == (99, 99)


def test_shrinking_averages() -> None:
    stripes = np.tile((np.arange(33) % 2 * 255).astype(np.uint8), (33, 1))
    image = Image.fromarray(stripes).convert("RGB")
    mask = Image.new("L", image.size)
    for both in ((image, mask), ImageTargetToTensor()(image, mask)):
        small = pixels_of(ImageTargetResize(11)(*both).image)
        assert np.abs(small[:, 1:-1].astype(int) - 127).max() < 20


def test_colours_change_the_image_alone(pair: PicturePair) -> None:
    jitter = ImageTargetColorJitter(0.5, 0.5, 0.5, 0.2)
    torch.manual_seed(0)
    for kind in KINDS:
        before = kind(pair)
        after = jitter(*before)
        assert np.array_equal(ids_of(after.target), ids_of(before[1]))
        assert not np.array_equal(pixels_of(after.image), pixels_of(before[0]))


def test_tensors_hold_the_pictures_values(pair: PicturePair) -> None:
    image, target = as_tensors(pair)
    assert (image.dtype, target.dtype) == (torch.float32, torch.float32)
    assert (tuple(image.shape), tuple(target.shape)) == ((3, 48, 64), (1, 48, 64))
    pixels = np.array(pair[0]).transpose(2, 0, 1)
    np.testing.assert_allclose(image.numpy(), pixels / 255, atol=1e-7)
    assert np.array_equal(target[0].numpy(), np.array(pair[1]) / 255)
    ids = as_class_tensors(pair).target
    assert (ids.dtype, tuple(ids.shape)) == (torch.int64, (48, 64))
    assert np.array_equal(ids.numpy(), np.array(pair[1]) // 255)


def test_ignored_grey_becomes_255() -> None:
    mask = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    target = ImageTargetToTensor()(Image.new("RGB", (3, 1)), mask).target
    assert target.tolist() == [[[0, 255, 1]]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
def test_pictures_of_other_modes_are_taken_as_rgb(mode: str, pair: PicturePair) -> None:
    image = pair[0].convert("L" if mode == "I;16" else mode).convert(mode)
    assert ImageTargetToTensor()(image, pair[1]).image.shape == (3, 48, 64)
    padded = ImageTargetPad(70)(image, pair[1]).image
    assert (padded.mode, padded.getpixel((69, 0))) == ("RGB", (0, 0, 0))
    jitter = ImageTargetColorJitter(0.1, 0.1)
    assert (ImageTargetCompose([jitter])(image, pair[1])).image.mode == "RGB"


DEEP = np.array([[0, 1000, 30000, 65535]], np.uint16)


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    mask, tensor = Image.new("L", (4, 1)), torch.from_numpy(np.stack([DEEP] * 3))
    for suffix in ("png", "tif"):
        Image.fromarray(DEEP).save(tmp_path / f"i16.{suffix}")
        image = Image.open(tmp_path / f"i16.{suffix}")
        for transform in (ImageTargetToTensor(), ImageTargetPad(1)):
            found = pixels_of(transform(image, mask).image)[0, :4, 0]
            assert found.tolist() == [0, 3, 117, 255]
    found = ImageTargetToTensor()(tensor, torch.zeros(1, 1, 4)).image
    np.testing.assert_allclose(found[0].numpy(), DEEP / 65535, atol=1e-6)
    bright = torch.full((3, 1, 4), 255, dtype=torch.uint8)
    assert ImageTargetToTensor()(bright, torch.zeros(1, 1, 4)).image.min() == 1


@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_targets_of_whole_numbers_become_what_losses_take(dtype: torch.dtype) -> None:
    for shape, expected in (((4, 4), torch.int64), ((2, 4, 4), torch.float32)):
        target = ImageTargetToTensor()(
            TENSORS[0], torch.ones(shape, dtype=dtype)
        ).target
        assert (target.dtype, target.shape) == (expected, shape)
        assert (target == 1).all()


def test_normalize_and_back(pair: PicturePair) -> None:
    image, target = as_tensors(pair)
    sample = ImageTargetNormalize(MEAN, STD)(image, target)
    assert sample.target is target
    for channel in range(3):
        expected = (image[channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(sample.image[channel], expected)
    torch.testing.assert_close(denormalize(sample.image, MEAN, STD), image)
    batch = sample.image.expand(2, -1, -1, -1)
    torch.testing.assert_close(denormalize(batch, MEAN, STD)[1], image)


def test_denormalized_stays_displayable() -> None:
    far = torch.full((3, 2, 2), 50.0)
    assert denormalize(far, MEAN, STD).max() == 1
    assert denormalize(-far, MEAN, STD).min() == 0


@pytest.mark.parametrize("side", [23, 41, 57, 59])
def test_white_can_be_scaled_turned_and_normalized(side: int) -> None:
    # Rounding in bilinear weights must not push white over 1 and get it refused.
    white = torch.ones(3, side, side), torch.ones(1, side, side)
    for transform in (ImageTargetResize((33, 47)), ImageTargetRandomAffine((20, 20))):
        sample = transform(*white)
        ImageTargetNormalize(MEAN, STD)(*sample)
        to_array(sample.image)


PICTURE, MASK = Image.new("RGB", (64, 48)), Image.new("L", (64, 48))
IMAGE, TARGET = torch.rand(3, 48, 64), torch.ones(1, 48, 64)
TURNED = MASK.transpose(Image.Transpose.ROTATE_90)
FLIP, TO_TENSOR = ImageTargetRandomHorizontalFlip(), ImageTargetToTensor()
NORMALIZE = ImageTargetNormalize(MEAN, STD)
BAD_SIZES = (0, -3, (0, 4), (4, -1), (1, 2, 3), (2.5, 3), "8", None, True)
REFUSED: list[tuple[Callable, tuple, str]] = [
    # what is called, with what, and how the message names what arrived and is expected
    *(
        (make, (size,), rf"size .*{re.escape(repr(size))}: expected one whole number")
        for make in (ImageTargetResize, ImageTargetPad, ImageTargetRandomCrop)
        for size in BAD_SIZES
    ),
    *(
        (transform, pair, r"\(64, 48\) and target \(48, 64\) \(W, H\): .*one size")
        for transform in (FLIP, ImageTargetResize(8), ImageTargetPad(99), TO_TENSOR)
        for pair in ((PICTURE, TURNED), (IMAGE, TARGET.transpose(1, 2)))
    ),
    (FLIP, (np.zeros((4, 4, 3)), MASK), "image <class 'numpy.ndarray'> and .*tensors"),
    (TO_TENSOR, (np.ones((4, 4)),) * 2, "image .*ndarray.*: expected pictures or tens"),
    *(
        (FLIP, (PICTURE, mask), f"mode {mask.mode} .*: expected mode L of 0, 255 and 1")
        for mask in (PICTURE, MASK.convert("I"), MASK.convert("F"))
    ),
    *(
        (transform, (PICTURE, Image.new("L", (64, 48), 250)), r"\[250\]: .* load_mask")
        for transform in (FLIP, TO_TENSOR)
    ),
    (TO_TENSOR, (PICTURE.convert("F"), MASK), "values of 32 bits"),
    *(
        (TO_TENSOR, ((IMAGE * 255).to(kind), TARGET), f"{kind}: expected uint8, uint16")
        for kind in (torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
    ),
    (
        NORMALIZE,
        (PICTURE, MASK),
        "Normalize got a picture: .*put ImageTargetToTensor",
    ),
    (NORMALIZE, ((IMAGE * 255).byte(), TARGET), "got torch.uint8.*expected a float"),
    (NORMALIZE, (IMAGE / IMAGE.max() * 255, TARGET), r"to 255\.00: .* in 0\.\.1"),
    (NORMALIZE, NORMALIZE(IMAGE, TARGET), "normalize only once"),
    (NORMALIZE, (IMAGE * torch.nan, TARGET), "of nan to nan: expected"),
    (ImageTargetNormalize, (MEAN, STD[:2]), r"std=\(0.2, 0.25\).*: .* as many of both"),
    (ImageTargetNormalize, (MEAN, (0.2, 0, 0.2)), r"std=\(0.2, 0, .*std above 0"),
    (ImageTargetNormalize, (MEAN, (0.2, -1, 0.2)), "std above 0"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_does_not_fit_is_refused(case: int) -> None:
    call, given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(*given)


def test_compose_applies_in_order(pair: PicturePair) -> None:
    steps = [ImageTargetResize((12, 16)), ImageTargetToTensor()]
    sample = ImageTargetCompose(steps)(*pair)
    image, target = steps[1](*steps[0](*pair))
    assert isinstance(sample, Sample)
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.target, target)
    assert "ImageTargetResize(Resize(size=[12, 16]" in repr(ImageTargetCompose(steps))
    assert isinstance(ImageTargetCompose([])(*pair), Sample)
