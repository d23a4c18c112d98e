"""Paired transforms: whatever moves the image moves the target in the same way.

The images are drawn so that their target can be made from their pixels again, so every
test can ask of a transformed sample whether its two halves still belong together.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BOX_LEVEL, draw_image, find_box
from PIL import Image

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
    Sample,
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
        assert before[1].getpalette() == after[1].getpalette()


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
    twice = flip(*once)
    assert np.array_equal(ids_of(twice.target), ids_of(before[1]))
    assert np.array_equal(pixels_of(twice.image), pixels_of(before[0]))


def test_flip_that_never_happens(pair: PicturePair) -> None:
    sample = ImageTargetRandomHorizontalFlip(0)(*pair)
    assert np.array_equal(pixels_of(sample.image), pixels_of(pair[0]))


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


def test_padding_only_adds(pair: PicturePair) -> None:
    assert ImageTargetPad((10, 10))(*pair).image.size == (64, 48)
    assert ImageTargetPad((10, 70))(*pair).image.size == (70, 48)
    assert ImageTargetPad(50)(*pair).image.size == (64, 50)


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


def test_int_is_the_shorter_side_and_a_pair_height_and_width() -> None:
    for size in ((40, 20), (20, 40)):
        image = draw_image(0, size)
        sample = ImageTargetResize(10)(image, find_box(image))
        assert sample.image.size == sample.target.size == (size[0] // 2, size[1] // 2)
    sample = ImageTargetResize((7, 9))(image, find_box(image))
    assert sample.image.size == sample.target.size == (9, 7)
    sample = ImageTargetRandomCrop((7, 9))(image, find_box(image))
    assert sample.image.size == sample.target.size == (9, 7)


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


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_image_of_another_mode_has_three_channels(mode: str, pair: PicturePair) -> None:
    image = pair[0].convert(mode)
    assert ImageTargetToTensor()(image, pair[1]).image.shape == (3, 48, 64)


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


def test_normalize_refuses_what_is_not_0_to_1(pair: PicturePair) -> None:
    normalize = ImageTargetNormalize(MEAN, STD)
    image, target = as_tensors(pair)
    for whole in (pair[0], (image * 255).to(torch.uint8)):
        with pytest.raises(ValueError, match="put ImageTargetToTensor before it"):
            normalize(whole, target)
    with pytest.raises(ValueError, match=r"0\.00 to 255\.00: expected 0\.\.1"):
        normalize(image / image.max() * 255, target)
    with pytest.raises(ValueError, match="scale first, and only once"):
        normalize(*normalize(image, target))


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, STD[:2]), (MEAN, (0.2, 0, 0.2)), (MEAN, (0.2, -1, 0.2))]
)
def test_bad_mean_and_std_are_refused(mean: tuple, std: tuple) -> None:
    with pytest.raises(ValueError, match="expected as many of both, std above 0"):
        ImageTargetNormalize(mean, std)


@pytest.mark.parametrize(
    "make", [ImageTargetResize, ImageTargetPad, ImageTargetRandomCrop]
)
@pytest.mark.parametrize("size", [0, -3, (0, 4), (4, -1), (1, 2, 3), (2.5, 3)])
def test_bad_sizes_are_refused(make: Callable, size: Any) -> None:
    with pytest.raises(ValueError, match=r"^size .*: expected one whole number"):
        make(size)


@pytest.mark.parametrize(
    "transform",
    [
        ImageTargetRandomHorizontalFlip(),
        ImageTargetResize(8),
        ImageTargetRandomCrop(4),
        ImageTargetToTensor(),
    ],
)
def test_unequal_sizes_are_refused(transform: Callable, pair: PicturePair) -> None:
    image, target = pair
    message = r"\(64, 48\) and target of \(48, 64\) \(W, H\): expected equal sizes"
    with pytest.raises(ValueError, match=message):
        transform(image, target.transpose(Image.Transpose.ROTATE_90))
    image, target = as_tensors(pair)
    with pytest.raises(ValueError, match=message):
        transform(image, target.transpose(1, 2))


def test_target_pictures_of_other_values_are_refused(pair: PicturePair) -> None:
    image, target = pair
    flip = ImageTargetRandomHorizontalFlip()
    with pytest.raises(ValueError, match=r"mode RGB: expected L .* see load_mask"):
        flip(image, target.convert("RGB"))
    rings = target.point(lambda value: value * 250 // 255)
    for transform in (flip, ImageTargetToTensor()):
        with pytest.raises(
            ValueError, match=r"values \[0, 250\]: expected .*load_mask"
        ):
            transform(image, rings)


def test_compose_applies_in_order(pair: PicturePair) -> None:
    steps = [ImageTargetResize((12, 16)), ImageTargetToTensor()]
    sample = ImageTargetCompose(steps)(*pair)
    image, target = steps[1](*steps[0](*pair))
    assert isinstance(sample, Sample)
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.target, target)
    assert "Resize" in repr(ImageTargetCompose(steps))
    assert isinstance(ImageTargetCompose([])(*pair), Sample)
