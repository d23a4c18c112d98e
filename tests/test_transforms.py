"""Paired transforms: whatever moves the image moves the target in the same way.

The images are drawn so that their target can be made from their pixels again, so every
test can ask of a transformed sample whether its two halves still belong together.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

import ui_segmentation_system as ui
from tests.conftest import BOX_LEVEL, draw_image, find_box

Affine, Crop = ui.ImageTargetRandomAffine, ui.ImageTargetRandomCrop
Flip, Pad = ui.ImageTargetRandomHorizontalFlip, ui.ImageTargetPad
Paired, Resize = ui.PairedTransform, ui.ImageTargetResize
Compose, Normalize = ui.ImageTargetCompose, ui.ImageTargetNormalize
TO_TENSOR = ui.ImageTargetToTensor()
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NORMALIZE = Normalize(MEAN, STD)
PicturePair = tuple[Image.Image, Image.Image]


def with_ids(pair: PicturePair) -> PicturePair:
    """Class ids 0 and 1 in a picture of mode P."""
    ids = Image.fromarray(np.array(pair[1]) // 255)
    ids.putpalette([0, 0, 0, 255, 0, 0])
    return pair[0], ids


KINDS: dict[str, Callable] = {
    "pictures": lambda pair: pair,
    "class pictures": with_ids,
    "tensors": lambda pair: TO_TENSOR(*pair),
    "class tensors": lambda pair: TO_TENSOR(*with_ids(pair)),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def given(request: pytest.FixtureRequest, pair: PicturePair) -> Any:
    """An image of 64x48 and its target, of every kind."""
    return request.param(pair)


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


EXACT = {
    "flip": Flip(0.5),
    "crop": Crop((30, 40)),
    "crop of more": Crop((70, 80)),
    "pad": Pad((60, 80)),
}
MOVES = EXACT | {
    "resize": Resize((33, 95)),
    "turn": Affine(40),
    "all of affine": Affine(20, (0.2, 0.2), (0.6, 1.6), 15),
}


@pytest.mark.parametrize("name", MOVES)
def test_target_still_fits_its_image_and_kinds_stay(name: str, given: Any) -> None:
    # Smoothing moves the image's edge by up to a pixel; elsewhere all must fit.
    least = 1 if name in EXACT else 0.93
    torch.manual_seed(0)
    for _ in range(8):
        sample = MOVES[name](*given)
        assert isinstance(sample, ui.Sample)
        assert share_that_fits(sample) >= least
        assert list(map(kind_of, sample)) == list(map(kind_of, given))


def test_the_measure_notices_a_target_that_was_left_behind(pair: PicturePair) -> None:
    flipped = pair[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert share_that_fits(pair) == 1
    assert share_that_fits((flipped, pair[1])) < 0.9


@pytest.mark.parametrize("name", ["flip", "crop", "all of affine"])
def test_random_transforms_differ_and_follow_the_seed(
    name: str, pair: PicturePair
) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        images = [MOVES[name](*pair).image for _ in range(12)]
        drawn.append([image.tobytes() for image in images])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1


def test_flip_is_exact_or_nothing(given: Any) -> None:
    for p, step in ((1, -1), (0, 1)):
        image, target = Flip(p)(*given)
        assert np.array_equal(ids_of(target), ids_of(given[1])[:, ::step])
        assert np.array_equal(pixels_of(image), pixels_of(given[0])[:, ::step])


def test_padding_is_black_and_ignored(given: Any) -> None:
    for size, below, right in (((60, 80), 12, 16), (10, 0, 0), (50, 2, 0)):
        image, target = Pad(size)(*given)
        margins = (0, below), (0, right)
        black = np.pad(pixels_of(given[0]), (*margins, (0, 0)))
        assert np.array_equal(pixels_of(image), black)
        ignored = np.pad(ids_of(given[1]), margins, constant_values=255)
        assert np.array_equal(ids_of(target), ignored)


def test_crop_and_affine_ignore_what_they_pad(given: Any) -> None:
    torch.manual_seed(0)
    image, target = Crop((70, 80))(*given)
    ids = ids_of(target)
    assert (ids != 255).sum() == 48 * 64
    assert (pixels_of(image)[ids == 255] == 0).all()
    image, target = Affine((45, 45))(*given)
    assert (ids_of(target)[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert (pixels_of(image)[0, 0] == 0).all()


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarters: int) -> None:
    image = draw_image(7, (32, 32))
    target = find_box(image)
    sample = Affine((90 * quarters, 90 * quarters))(image, target)
    expected = np.rot90(np.array(image).astype(int), -quarters)
    assert np.abs(pixels_of(sample.image) - expected).max() <= 1
    assert np.array_equal(np.array(sample.target), np.rot90(target, -quarters))


IDS = [0, 3, 7, 11, 254, 255]


@pytest.mark.parametrize(
    "transform",
    [Resize((17, 90)), Resize(7), Affine(30, (0.1, 0.1), (0.7, 1.4))],
    ids=["stretch", "shrink", "affine"],
)
def test_class_ids_are_never_blended(transform: Callable) -> None:
    values = np.random.default_rng(0).choice(IDS, (30, 40)).astype(np.uint8)
    image = draw_image(0, (40, 30))
    picture = Image.fromarray(values)
    picture.putpalette(list(range(256)) * 3)
    tensor = torch.from_numpy(values).long()
    both = image, picture
    for sample in (both, TO_TENSOR(*both), TO_TENSOR(image, tensor[None].float())):
        moved = np.unique(values_of(transform(*sample).target)).tolist()
        assert set(moved) <= set(IDS)
        assert len(moved) > 3


def test_padded_ids_can_be_saved_where_the_palette_is_short(tmp_path: Path) -> None:
    """Pillow stores 255 as an id of the palette where that has but a few colours."""
    pair = with_ids((draw_image(0, (6, 4)), Image.new("L", (6, 4), 255)))
    Pad((4, 7))(*pair).target.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as read:
        assert np.array(read)[0].tolist() == [1] * 6 + [255]
        assert read.getpalette()[:6] == [0, 0, 0, 255, 0, 0]


def sampled(length: int, new: int) -> np.ndarray:
    """Which pixel stands at the centre of each new one."""
    return ((np.arange(new) + 0.5) * length / new).astype(int)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "make",
    [Resize, lambda size: Paired(v2.RandomResizedCrop(size, (1, 1), (1, 1.001)))],
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
    shorter = Paired(v2.Resize(10, max_size=15))(image, ids)
    assert shorter.image.shape[1:] == shorter.target.shape == (7, 15)
    torch.manual_seed(0)
    cut = Paired(v2.RandomResizedCrop((5, 5), (0.1, 0.2)))(image, ids).target
    rows, columns = cut // 40, cut % 40
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    assert 2 <= rows[-1, 0] - rows[0, 0] < 12
    assert 2 <= columns[0, -1] - columns[0, 0] < 20


WHOLE = (torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int64)
DTYPES = (*WHOLE, torch.float16, torch.bfloat16, torch.float32)


# What pads, and with what else than black.
PADDING = [
    partial(v2.Pad, 6),
    partial(v2.RandomCrop, (60, 70), pad_if_needed=True),
    partial(v2.RandomRotation, (45, 45), expand=True),
    partial(v2.RandomAffine, (45, 45)),
    partial(v2.RandomPerspective, 0.5, 1),
    partial(v2.RandomZoomOut, p=1),
    partial(v2.ElasticTransform, 400),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 4, 4)])
@pytest.mark.parametrize(
    "transform",
    [Pad(6), Paired(v2.CenterCrop(6)), *(Paired(make()) for make in PADDING[:-1])],
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
@pytest.mark.parametrize("make", PADDING, ids=lambda make: make.func.__name__)
def test_the_colour_that_fills_an_image_is_no_value_of_its_target(
    make: Callable, fill: Any, pair: PicturePair
) -> None:
    torch.manual_seed(0)
    image = Image.new("RGB", pair[0].size, "white")
    sample = Paired(make(fill=fill))(image, pair[1])
    assert set(np.unique(sample.target)) == {0, 128, 255}
    if fill == (9, 8, 7):
        padded = np.array(sample.image)[np.array(sample.target) == 128]
        assert fill in set(map(tuple, padded))


def test_mirrored_padding_is_known() -> None:
    pad = Paired(v2.Pad(2, padding_mode="reflect"))
    target = pad(torch.ones(3, 4, 4), torch.arange(16).view(4, 4)).target
    assert target[0].tolist() == [10, 9, 8, 9, 10, 11, 10, 9]


TENSORS = torch.rand(3, 4, 4), torch.tensor([[[0.0, 1, 1, 0]] * 4])
TV_TENSORS = tv_tensors.Image(TENSORS[0]), tv_tensors.Mask(TENSORS[1])


@pytest.mark.parametrize("transform", [Flip(0), TO_TENSOR])
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
        pair = draw_image(0, size), Image.new("L", size)
        image, target = Resize(10)(*pair)
        assert image.size == target.size == (size[0] // 2, size[1] // 2)
    for size in ((7, 9), [7, 9], np.array([7, 9]), (np.int64(7), np.int16(9))):
        for make in (Resize, Crop):
            image, target = make(size)(*pair)
            assert image.size == target.size == (9, 7)
    assert Pad(np.int64(99))(*pair).image.size == (99, 99)


def test_shrinking_averages() -> None:
    stripes = np.tile((np.arange(33) % 2 * 255).astype(np.uint8), (33, 1))
    pair = Image.fromarray(stripes).convert("RGB"), Image.new("L", (33, 33))
    for both in (pair, TO_TENSOR(*pair)):
        small = pixels_of(Resize(11)(*both).image)
        assert np.abs(small[:, 1:-1].astype(int) - 127).max() < 20


def test_colours_change_the_image_alone(given: Any) -> None:
    torch.manual_seed(0)
    image, target = ui.ImageTargetColorJitter(0.5, 0.5, 0.5, 0.2)(*given)
    assert np.array_equal(ids_of(target), ids_of(given[1]))
    assert not np.array_equal(pixels_of(image), pixels_of(given[0]))


def test_tensors_hold_the_pictures_values(pair: PicturePair) -> None:
    image, target = TO_TENSOR(*pair)
    ids = TO_TENSOR(*with_ids(pair)).target
    kinds = torch.float32, torch.float32, torch.int64
    assert (image.dtype, target.dtype, ids.dtype) == kinds
    pixels = np.array(pair[0]).transpose(2, 0, 1)
    np.testing.assert_allclose(image.numpy(), pixels / 255, atol=1e-7)
    assert np.array_equal(target, np.array(pair[1])[None] / 255)
    assert np.array_equal(ids, np.array(pair[1]) // 255)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
def test_pictures_of_other_modes_are_taken_as_rgb(mode: str, pair: PicturePair) -> None:
    image = pair[0].convert("L" if mode == "I;16" else mode).convert(mode)
    assert TO_TENSOR(image, pair[1]).image.shape == (3, 48, 64)
    padded = Pad(70)(image, pair[1]).image
    assert (padded.mode, padded.getpixel((69, 0))) == ("RGB", (0, 0, 0))
    jitter = ui.ImageTargetColorJitter(0.1, 0.1)
    assert Compose([jitter])(image, pair[1]).image.mode == "RGB"


DEEP = np.array([[0, 1000, 30000, 65535]], np.uint16)


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    mask, tensor = Image.new("L", (4, 1)), torch.from_numpy(np.stack([DEEP] * 3))
    for suffix in ("png", "tif"):
        Image.fromarray(DEEP).save(tmp_path / f"i16.{suffix}")
        image = Image.open(tmp_path / f"i16.{suffix}")
        for transform in (TO_TENSOR, Pad(1)):
            found = pixels_of(transform(image, mask).image)[0, :4, 0]
            assert found.tolist() == [0, 3, 117, 255]
    found = TO_TENSOR(tensor, torch.zeros(1, 1, 4)).image
    np.testing.assert_allclose(found[0].numpy(), DEEP / 65535, atol=1e-6)
    bright = torch.full((3, 1, 4), 255, dtype=torch.uint8)
    assert TO_TENSOR(bright, torch.zeros(1, 1, 4)).image.min() == 1


@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_targets_of_whole_numbers_become_what_losses_take(dtype: torch.dtype) -> None:
    for shape, expected in (((4, 4), torch.int64), ((2, 4, 4), torch.float32)):
        target = TO_TENSOR(TENSORS[0], torch.ones(shape, dtype=dtype)).target
        assert (target.dtype, target.shape) == (expected, shape)
        assert (target == 1).all()


def test_normalize_and_back_to_what_can_be_shown() -> None:
    sample = NORMALIZE(IMAGE, TARGET)
    assert sample.target is TARGET
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    torch.testing.assert_close(sample.image, (IMAGE - mean) / std)
    for image in (sample.image, sample.image.expand(2, -1, -1, -1)):
        back = ui.denormalize(image, MEAN, STD)
        torch.testing.assert_close(back, IMAGE.expand_as(image))
    far = torch.full((3, 2, 2), 50.0)
    assert ui.denormalize(far, MEAN, STD).max() == 1
    assert ui.denormalize(-far, MEAN, STD).min() == 0


@pytest.mark.parametrize("side", [23, 41, 57, 59])
def test_white_can_be_scaled_turned_and_normalized(side: int) -> None:
    # Rounding in bilinear weights must not push white over 1 and get it refused.
    for transform in (Resize((33, 47)), Affine((20, 20))):
        sample = transform(torch.ones(3, side, side), torch.ones(1, side, side))
        NORMALIZE(*sample)
        ui.to_array(sample.image)


PICTURE, MASK = Image.new("RGB", (64, 48)), Image.new("L", (64, 48))
IMAGE, TARGET = torch.rand(3, 48, 64), torch.ones(1, 48, 64)
TURNED = MASK.transpose(Image.Transpose.ROTATE_90)
HUGE = torch.full((48, 64), 2**24 + 1)
FLIP, ARRAY = Flip(), np.zeros((64, 64, 3), np.uint8)
# A transform of torchvision alone would change a mask as a picture, and say nothing.
BARE, PAIR_IT = v2.RandomInvert(1), r"RandomInvert.*PairedTransform\(v2.RandomInv"
BAD_SIZES = (0, -3, (0, 4), (4, -1), (1, 2, 3), (2.5, 3), "8", None, True)
REFUSED: list[tuple[Callable, tuple, str]] = [
    # what is called, with what, and how the message names what arrived and is expected
    *(
        (make, (size,), rf"size .*{re.escape(repr(size))}: expected one whole number")
        for make in (Resize, Pad, Crop)
        for size in BAD_SIZES
    ),
    *(
        (transform, pair, r"\(64, 48\) and target \(48, 64\) \(W, H\): .*one size")
        for transform in (FLIP, Resize(8), Pad(99), TO_TENSOR)
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
    (NORMALIZE, (PICTURE, MASK), "Normalize got a picture: .*put ImageTargetToTensor"),
    (NORMALIZE, ((IMAGE * 255).byte(), TARGET), "got torch.uint8.*expected a float"),
    (NORMALIZE, (IMAGE / IMAGE.max() * 255, TARGET), r"to 255\.00: .* in 0\.\.1"),
    (NORMALIZE, NORMALIZE(IMAGE, TARGET), "normalize only once"),
    (NORMALIZE, (IMAGE * torch.nan, TARGET), "of nan to nan: expected"),
    (Normalize, (MEAN, STD[:2]), r"std=\(0.2, 0.25\).*: .* as many of both"),
    (Normalize, (MEAN, (0.2, 0, 0.2)), r"std=\(0.2, 0, .*std above 0"),
    (Normalize, (MEAN, (0.2, -1, 0.2)), "std above 0"),
    (FLIP, (IMAGE[None], TARGET[None]), "of one sample"),
    (Resize(8), (IMAGE, HUGE), f"ids up to {HUGE[0, 0]}; expected at most .*unpack"),
    (Paired(v2.RandAugment()), (PICTURE, MASK), "RandAug.*not supported.*moves masks"),
    (Compose, ([TO_TENSOR, BARE],), PAIR_IT),
    (ui.PairDataset, ([], BARE), PAIR_IT),
    (partial(ui.UISegmentationData, augment=BARE), ("folder",), PAIR_IT),
    (partial(ui.TileDataset, transform=BARE), (ARRAY, ARRAY[..., 0], 32), PAIR_IT),
    (partial(ui.PairDataset, prepare=BARE), ([],), PAIR_IT),
    (partial(ui.UISegmentationData, augment=True), ("folder",), "form bool: not of im"),
    (ui.PairDataset, ([], albumentations.Compose([])), "Compose: .* image and mask"),
    (partial(ui.PairDataset, read_target=MASK), ([],), "L.*: expected a function of"),
    (Compose([lambda *pair: None]), (PICTURE, MASK), "lambda>: gave NoneType; expe"),
    (Compose([lambda *pair: pair[0]]), (PICTURE, MASK), r"gave Image; .*\(image, tar"),
    (Compose([lambda *pair: {"a": 1, "b": 2}]), (IMAGE, TARGET), r"gave \['a', 'b'\]"),
]


@pytest.mark.parametrize(("call", "arguments", "message"), REFUSED)
def test_what_does_not_fit_is_refused(
    call: Callable, arguments: tuple, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(*arguments)


def test_compose_applies_in_order(pair: PicturePair) -> None:
    steps = Compose([Resize((12, 16)), TO_TENSOR])
    sample, expected = steps(*pair), TO_TENSOR(*Resize((12, 16))(*pair))
    assert torch.equal(sample.image, expected.image)
    assert torch.equal(sample.target, expected.target)
    assert "ImageTargetResize(Resize(size=[12, 16]" in repr(steps)
    for each in (sample, Compose([])(*pair)):
        assert isinstance(each, ui.Sample)
