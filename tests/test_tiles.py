"""Tiles: nothing lost, nothing mixed up, nothing held that is not looked at.

Most pictures here carry their own coordinates, so that a tile says where it is from.
"""

import itertools
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from tools.slide import Slide
from ui_segmentation_system import (
    PrefetchDataLoader,
    RandomTileDataset,
    TileDataset,
    UNet,
    predict_tiled,
    receptive_field,
    split_regions,
)

METHODS = ["fork", "spawn", "forkserver"]
CLASSES = 250


def coordinates(height: int, width: int, number: int = 0) -> np.ndarray:
    """Give a picture whose pixels are (y, x, number of the picture)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(y, number)], axis=2).astype(np.uint8)


def ids_at(image: np.ndarray) -> np.ndarray:
    """Give the class that belongs to pixels of `coordinates`."""
    y, x, number = image.astype(int).transpose(2, 0, 1)
    return ((7 * y + 13 * x + 31 * number) % CLASSES).astype(np.uint8)


def pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def scaled(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


class OnlyWindows:
    """A source that is nothing but a shape and windows, and notes what was asked."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self._array, self.asked = array.shape, array, []

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        assert all(isinstance(part, slice) for part in key)
        window = self._array[key]
        self.asked.append(window.shape[:2])
        return window


class Recorder(nn.Module):
    """A model whose logits are the picture itself; notes its batches and its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        self.batches.append(len(image))
        return image


def small_net(num_classes: int = 1) -> nn.Module:
    """Three convolutions of 3x3: a logit sees 7x7 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, num_classes, 3, padding=1),
    )


@torch.no_grad()
def untiled(net: nn.Module, image: np.ndarray) -> np.ndarray:
    return net.eval()(scaled(image)[None])[0].sigmoid().numpy()


def geometries(count: int = 60) -> list[tuple[int, int, tuple, tuple]]:
    """Draw sizes of pictures, tiles that fit and strides up to them."""
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(count):
        height, width = rng.integers(1, 60, 2).tolist()
        tile = tuple(int(rng.integers(1, side + 1)) for side in (height, width))
        stride = tuple(int(rng.integers(1, side + 1)) for side in tile)
        drawn.append((height, width, tile, stride))
    return drawn


# Tiles in order


@pytest.mark.parametrize("edge", ["shift", "pad"])
def test_tiles_put_together_are_the_picture(edge: str) -> None:
    for height, width, tile, stride in geometries():
        image = coordinates(height, width)
        dataset = TileDataset(
            image, ids_at(image), tile, stride, edge=edge, num_classes=CLASSES
        )
        together = np.zeros((height + tile[0], width + tile[1], 3), np.uint8)
        classes = np.full(together.shape[:2], 254)
        for index, (piece, target) in enumerate(dataset):
            _, y, x, *size = dataset.locate(index)
            assert tuple(piece.shape[1:]) == tuple(size) == tile
            part = np.s_[y : y + tile[0], x : x + tile[1]]
            together[part], classes[part] = pixels(piece), target
        assert (together[:height, :width] == image).all()
        assert (classes[:height, :width] == ids_at(image)).all()
        assert (classes[height:] >= 254).all() and (classes[:, width:] >= 254).all()
        assert not together[height:].any() and not together[:, width:].any()


def test_shifted_tiles_lie_inside_and_none_is_there_twice() -> None:
    for height, width, tile, stride in geometries():
        dataset = TileDataset(noise(height, width), None, tile, stride)
        tiles = [dataset.locate(index) for index in range(len(dataset))]
        assert len(set(tiles)) == len(tiles)
        assert all(t.y + t.height <= height and t.x + t.width <= width for t in tiles)


def test_a_number_leads_to_its_tile_of_its_picture() -> None:
    sizes = [(30, 40), (16, 16), (61, 17), (16, 90)]
    images = [coordinates(*size, number) for number, size in enumerate(sizes)]
    targets = [ids_at(image) for image in images]
    dataset = TileDataset(images, targets, 16, 10, num_classes=CLASSES)
    alone = [TileDataset(image, None, 16, 10) for image in images]
    assert len(dataset) == sum(map(len, alone))
    expected = [
        one.locate(index)._replace(picture=number)
        for number, one in enumerate(alone)
        for index in range(len(one))
    ]
    assert [dataset.locate(index) for index in range(len(dataset))] == expected
    for tile, (image, target) in zip(expected, dataset, strict=True):
        assert pixels(image)[0, 0].tolist() == [tile.y, tile.x, tile.picture]
        assert (ids_at(pixels(image)) == target.numpy()).all()
    assert dataset.locate(-1) == expected[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_half_a_billion_pixels_are_found_at_once() -> None:
    dataset = TileDataset([OnlyWindows(noise(9, 9)), Slide()], None, 8, edge="pad")
    assert len(dataset) == 4 + 2875**2
    assert dataset.locate(len(dataset) - 1) == (1, 22_992, 22_992, 8, 8)


def test_the_drawn_slide_is_a_source() -> None:
    slide = Slide(900, 700)
    dataset = TileDataset(slide, slide.mask, 256)
    _, y, x, height, width = dataset.locate(5)
    image, mask = slide.window(y, x, height, width)
    assert (pixels(dataset[5].image) == image).all()
    assert (dataset[5].target.numpy() == (mask == 255)).all()


def test_only_windows_are_read() -> None:
    image = OnlyWindows(coordinates(90, 80))
    mask = OnlyWindows(np.zeros((90, 80), bool))
    list(TileDataset(image, mask, 16, edge="pad"))
    list(RandomTileDataset(image, mask, 16, 9, skip_empty=True, tries=3))
    assert max(image.asked) <= (16, 16) and max(mask.asked) <= (16, 16)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((0, 1, 128), {}),
        ((0, 255, 128), {}),
        ((0, 1, 255), {"ignore": 255}),
        ((0, 1, 7), {"ignore": 7}),
        ((0, 255, 9), {"ignore": 9}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_masks_of_every_habit(values: tuple, options: dict, dtype: type) -> None:
    mask = np.array(values, dtype)[None].repeat(2, 0)
    (sample,) = TileDataset(noise(2, 3), mask, (2, 3), **options)
    assert sample.target.dtype == torch.float32
    assert sample.target[0, 0].tolist() == [0, 1, 255]
    plain = TileDataset(noise(2, 3), mask, (2, 3), transform=ui.Sample, **options)
    assert np.array(plain[0].target)[0].tolist() == [0, 255, 128]


def test_bool_masks_and_none() -> None:
    mask = np.array([[True, False]])
    assert TileDataset(noise(1, 2), mask, (1, 2))[0].target.tolist() == [[[1, 0]]]
    assert TileDataset(noise(1, 2), None, (1, 2))[0].target.tolist() == [[[255, 255]]]


def test_class_ids_come_as_pictures_that_transforms_know() -> None:
    image = coordinates(20, 20)
    target = ids_at(image)
    target[3:5] = 255
    flip = ui.ImageTargetRandomHorizontalFlip(p=1)
    steps = ui.ImageTargetCompose([flip, ui.ImageTargetToTensor()])
    dataset = TileDataset(image, target, 20, transform=steps, num_classes=CLASSES)
    assert dataset[0].target.dtype == torch.int64
    assert (dataset[0].target.numpy() == target[:, ::-1]).all()
    assert (pixels(dataset[0].image) == image[:, ::-1]).all()


# Memory maps and processes


@pytest.fixture
def maps(tmp_path: Path) -> tuple[np.memmap, np.memmap]:
    """Memory maps of 200x150 pixels: coordinates, and the ids that belong to them."""
    image = coordinates(200, 150)
    for name, array in (("image", image), ("ids", ids_at(image))):
        np.save(tmp_path / name, array)
    return tuple(
        np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "ids")
    )


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda image: image,
    "part": lambda image: image[20:90, 30:],
    "plain array over the map": lambda image: np.asarray(image)[5:],
    "every second, upside down": lambda image: image[::-2, ::3],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_memory_map_travels_as_a_name(maps: Any, view: Callable) -> None:
    image, ids = map(view, maps)
    dataset = TileDataset(image, ids, 32, num_classes=CLASSES)
    for _ in range(2):
        travelling = pickle.dumps(dataset)
        assert len(travelling) < 2000 < image.nbytes
        copy = pickle.loads(travelling)
        for (one, its), (other, others) in zip(dataset, copy, strict=True):
            assert torch.equal(one, other) and torch.equal(its, others)
        dataset = copy  # and may travel on


def test_an_array_in_memory_travels_whole() -> None:
    image = noise(40, 30)
    copy = pickle.loads(pickle.dumps(TileDataset(image, None, (40, 30))))
    assert (pixels(copy[0].image) == image).all()


def batches(loader: Any, epochs: int = 2) -> list[list[torch.Tensor]]:
    return [[batch.image for batch in loader] for _ in range(epochs)]


def same(one: list[list[torch.Tensor]], other: list[list[torch.Tensor]]) -> bool:
    flat = [list(itertools.chain.from_iterable(epochs)) for epochs in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def random_tiles(maps: Any, **options: Any) -> RandomTileDataset:
    return RandomTileDataset(*maps, 24, 12, num_classes=CLASSES, **options)


@pytest.mark.parametrize(
    ("method", "persistent"), [("fork", False), *((name, True) for name in METHODS)]
)
def test_workers_of_any_kind_draw_the_same_tiles(
    maps: Any, method: str, persistent: bool
) -> None:
    here = batches(DataLoader(random_tiles(maps), 3))
    torch.manual_seed(1)  # must not matter
    loader = DataLoader(
        random_tiles(maps),
        3,
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=method,
    )
    there = batches(loader)
    assert same(here, there)
    assert not same(there[:1], there[1:])


@pytest.mark.parametrize("method", METHODS)
def test_our_own_loader_draws_the_same_tiles(maps: Any, method: str) -> None:
    here = batches(DataLoader(random_tiles(maps), 3))
    dataset = random_tiles(maps)
    loader = PrefetchDataLoader(dataset, 3, 2, multiprocessing_context=method)
    assert same(here, batches(loader))


# Random tiles


def test_image_and_target_are_cut_by_one_window(maps: Any) -> None:
    for image, target in random_tiles(maps):
        assert (ids_at(pixels(image)) == target.numpy()).all()


def test_a_seed_gives_the_same_epochs_and_each_its_own(maps: Any) -> None:
    def epochs(seed: int) -> list[list]:
        dataset = random_tiles(maps, seed=seed)
        return [[pixels(image)[0, 0].tolist() for image, _ in dataset] for _ in "123"]

    first = epochs(0)
    np.random.seed(5)
    torch.manual_seed(5)
    assert epochs(0) == first
    assert epochs(1) != first
    corners = [tuple(corner) for corner in itertools.chain(*first)]
    assert len(set(corners)) > 0.9 * len(corners)


def test_set_epoch_goes_on_where_a_run_stopped(maps: Any) -> None:
    dataset = random_tiles(maps)
    third = [dataset.locate(index, epoch=2) for index in range(len(dataset))]
    next(iter(dataset))  # an epoch that is broken off
    dataset.set_epoch(2)
    assert [dataset.locate(index) for index in range(len(dataset))] == third
    drawn = [pixels(image)[0, 0, :2].tolist() for image, _ in dataset]
    assert drawn == [[tile.y, tile.x] for tile in third]


def test_drawing_leaves_the_global_random_numbers_alone(maps: Any) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(random_tiles(maps))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_pictures_are_drawn_by_area_and_places_evenly() -> None:
    images = [noise(10, 40), noise(12, 10), noise(8, 60)]
    dataset = RandomTileDataset(images, None, (8, 10), 6000)
    tiles = [dataset.locate(index) for index in range(len(dataset))]
    shares = np.bincount([tile.picture for tile in tiles]) / len(tiles)
    assert shares == pytest.approx([0.4, 0.12, 0.48], abs=0.03)
    rows = np.bincount([tile.y for tile in tiles if tile.picture == 0], minlength=3)
    assert rows / rows.sum() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert {tile.x for tile in tiles if tile.picture == 0} == set(range(31))


def test_empty_tiles_are_skipped_by_the_share_asked_for() -> None:
    mask = np.full((100, 100), 128, np.uint8)  # nobody knows: no foreground either
    mask[:, :95] = 0
    mask[40:50, 40:50] = 1

    def filled(skip_empty: float) -> float:
        dataset = RandomTileDataset(
            noise(100, 100), mask, 10, 300, skip_empty=skip_empty, tries=400
        )
        return float(np.mean([bool((t == 1).any()) for _, t in dataset]))

    assert filled(0) < 0.1
    assert filled(0.5) == pytest.approx(0.52, abs=0.1)
    assert filled(True) == 1


def test_tiles_without_any_foreground_end_the_search() -> None:
    mask = OnlyWindows(np.zeros((50, 50), np.uint8))
    dataset = RandomTileDataset(noise(50, 50), mask, 8, 1, skip_empty=True, tries=7)
    assert not dataset[0].target.any()
    assert len(mask.asked) == 7


# Regions


def test_regions_are_cut_along_the_axis_asked_for() -> None:
    assert split_regions(30, 30, 0.5, 4) == ((0, 0, 13, 30), (17, 0, 30, 30))
    assert split_regions(30, 20, 0.5, 4, axis=1) == ((0, 0, 30, 8), (0, 12, 30, 20))
    assert split_regions(20, 30, 0.5, 4, axis=0) == ((0, 0, 8, 30), (12, 0, 20, 30))


def test_regions_never_touch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(50, 200, 2).tolist()
        gap, share = int(rng.integers(0, 30)), float(rng.uniform(0.1, 0.9))
        train, val = split_regions(height, width, share, gap)
        seen = np.zeros((height, width), int)
        for mark, (y0, x0, y1, x1) in enumerate((train, val), start=1):
            assert not seen[y0:y1, x0:x1].any()
            seen[y0:y1, x0:x1] = mark
        longer = seen.max(axis=1 if height >= width else 0)
        assert (longer == 0).sum() == gap
        assert len(np.unique(seen[seen > 0])) == 2
        assert (longer == 2).sum() / (longer > 0).sum() == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("edge", ["shift", "pad"])
def test_tiles_stay_in_their_region(edge: str) -> None:
    region = (13, 20, 61, 77)
    image = coordinates(90, 80)
    inside = set(itertools.product(range(13, 61), range(20, 77)))
    in_order = TileDataset(
        image, ids_at(image), 16, region=region, edge=edge, num_classes=CLASSES
    )
    at_random = RandomTileDataset(
        image, ids_at(image), 16, 300, region=region, num_classes=CLASSES
    )
    for dataset in (in_order, at_random):
        seen = set()
        for tile, target in dataset:
            known = target.numpy() != 255
            seen |= {tuple(pixel[:2]) for pixel in pixels(tile)[known].tolist()}
        assert seen <= inside
        assert len(seen) == len(inside) or dataset is at_random


def test_each_picture_may_have_its_own_region() -> None:
    images = [noise(40, 40), noise(50, 30)]
    dataset = TileDataset(images, None, 10, region=[(0, 0, 20, 20), (30, 10, 50, 30)])
    places = [dataset.locate(index) for index in range(len(dataset))]
    assert [tuple(tile[:3]) for tile in places] == [
        *((0, y, x) for y in (0, 10) for x in (0, 10)),
        *((1, y, x) for y in (30, 40) for x in (10, 20)),
    ]


# The receptive field

POOLING = [nn.MaxPool2d(4), nn.Upsample(scale_factor=4)]


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (small_net(), 7),
        (nn.Conv2d(3, 1, 1), 1),
        (nn.Conv2d(3, 1, 3, padding=4, dilation=4), 9),
        (nn.Conv2d(3, 1, (5, 1), padding=(2, 0)), 5),
        (nn.Sequential(*POOLING), 7),
        (nn.Sequential(nn.ZeroPad2d(2), *POOLING, nn.ZeroPad2d(-2)), 7),
    ],
)
def test_receptive_field_of_networks_that_can_be_reckoned(
    network: nn.Module, side: int
) -> None:
    assert receptive_field(network, 64) == side


def test_a_network_that_normalises_sees_the_whole_picture() -> None:
    network = UNet(max_features=16)
    with pytest.raises(ValueError, match="normalize=False"):
        receptive_field(network, 64)
    assert network.training


# Prediction


@pytest.mark.parametrize("weights", ui.WEIGHTS)
def test_a_model_that_copies_gives_the_picture_back(weights: str) -> None:
    rng = np.random.default_rng(0)
    for height, width, tile, _ in geometries(25):
        overlap = int(rng.integers(0, min(tile)))
        image = noise(height, width)
        copy = predict_tiled(
            Recorder(), image, tile, overlap, weights=weights, activation="none"
        )
        assert copy.dtype == np.float32 and copy.shape == (3, height, width)
        if weights == "centre":
            assert (copy == scaled(image).numpy()).all()
        np.testing.assert_allclose(copy, scaled(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize("weights", ui.WEIGHTS)
@pytest.mark.parametrize("size", [(5, 40), (40, 5), (3, 4)])
def test_pictures_smaller_than_a_tile(weights: str, size: tuple[int, int]) -> None:
    image = noise(*size)
    shapes, corners = [], []

    def copies(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape[2:]))
        corners.append(batch[-1, :, -1, -1])
        return batch

    copy = predict_tiled(copies, image, 16, 4, weights=weights, activation="none")
    assert set(shapes) == {(16, 16)}
    assert torch.equal(corners[-1], scaled(image)[:, -1, -1])
    np.testing.assert_allclose(copy, scaled(image), rtol=0, atol=1e-6)


def test_no_seam_once_the_margin_covers_the_receptive_field() -> None:
    net, image = small_net(), noise(75, 90)
    whole = untiled(net, image)
    reach = receptive_field(net, 64) // 2
    for weights, overlap, least, most in (
        ("centre", 2 * reach, 0, 1e-6),
        ("centre", 2 * reach - 2, 1e-4, 1),
        ("smooth", 2 * reach, 1e-4, 1),
        ("constant", 0, 1e-4, 1),
    ):
        tiled = predict_tiled(net, image, 24, overlap, weights=weights)
        assert least <= np.abs(tiled - whole).max() <= most, (weights, overlap)


def test_a_unet_leaves_no_seam_where_windows_begin_at_its_cells() -> None:
    torch.manual_seed(0)
    net = UNet(max_features=16, normalize=False)
    margin = receptive_field(net) // 2
    image = noise(384, 256)
    assert margin <= 64
    tiled = predict_tiled(net, image, 256, 128, weights="centre")
    np.testing.assert_allclose(tiled, untiled(net, image), rtol=0, atol=1e-5)


def slow_average(net: nn.Module, image: np.ndarray, tile: int, step: int) -> np.ndarray:
    """Average windows in the plainest way."""
    height, width = image.shape[:2]
    total, count = np.zeros((2, 1, height, width))
    for y in [*range(0, height - tile, step), height - tile]:
        for x in [*range(0, width - tile, step), width - tile]:
            part = np.s_[y : y + tile, x : x + tile]
            total[:, *part] += untiled(net, image[part])
            count[:, *part] += 1
    return total / count


def test_constant_weights_are_the_average() -> None:
    net, image = small_net(), noise(50, 61)
    expected = slow_average(net, image, 16, 10)
    tiled = predict_tiled(net, image, 16, 6, weights="constant")
    np.testing.assert_allclose(tiled, expected, rtol=0, atol=1e-6)


def fade(width: int, tile: int, overlap: int) -> np.ndarray:
    """Give the share of the second of two windows in each column."""
    windows = itertools.count()

    def numbers(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(one, next(windows)) for one in batch])

    image = np.zeros((tile, width, 3), np.uint8)
    return predict_tiled(numbers, image, tile, overlap, activation="none")[0, 0]


def test_smooth_weights_fade_from_one_window_to_the_next() -> None:
    expected = [*[0] * 6, 1 / 3, 2 / 3, *[1] * 6]
    np.testing.assert_allclose(fade(14, 8, 2), expected, atol=1e-6)


def test_the_border_of_the_picture_is_no_border_to_fade_at() -> None:
    first, second = ([min(x, 7) for x in xs] for xs in (range(9, 0, -1), range(1, 10)))
    between = [b / (a + b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(fade(11, 10, 6), [0, *between, 1], atol=1e-6)


@pytest.mark.parametrize("weights", ui.WEIGHTS)
def test_batch_size_does_not_matter(weights: str) -> None:
    net, image = small_net(2), noise(50, 61)
    one, *others = (
        predict_tiled(net, image, 16, 6, batch_size=size, weights=weights)
        for size in (1, 2, 3, 4, 100)
    )
    for other in others:
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def test_tiles_go_through_the_model_in_batches() -> None:
    model = Recorder()
    predict_tiled(model, noise(16, 70), 16, 6, batch_size=4, activation="none")
    assert model.batches == [4, 3]


def test_probabilities_are_what_the_task_says() -> None:
    image = noise(20, 20)
    one = predict_tiled(small_net(), image, 16, 4)
    np.testing.assert_allclose(
        one,
        predict_tiled(small_net(), image, 16, 4, activation="sigmoid"),
    )
    classes = predict_tiled(small_net(3), image, 16, 4)
    np.testing.assert_allclose(classes.sum(axis=0), 1, atol=1e-5)
    labels = ui.UISegmentationSystem(
        max_features=16, task="multilabel", num_out_channels=3
    )
    sigmoids = predict_tiled(labels, image, 16, 4, activation="sigmoid")
    assert (predict_tiled(labels, image, 16, 4) == sigmoids).all()


def test_nothing_is_more_probable_than_one() -> None:
    def sure(batch: torch.Tensor) -> torch.Tensor:
        return torch.full_like(batch[:, :1], 100)

    image = np.zeros((97, 83, 3), np.uint8)
    for weights, overlap in itertools.product(ui.WEIGHTS, (1, 5, 9, 10)):
        assert predict_tiled(sure, image, 11, overlap, weights=weights).max() <= 1


def test_each_part_of_the_model_is_in_the_mode_it_was_in() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.5))
    net[1].eval()  # frozen
    first, second = (predict_tiled(net, noise(20, 20), 16, 4) for _ in "12")
    assert (first == second).all()
    assert [part.training for part in net] == [True, False, True]

    class Fails(Recorder):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

    model = Fails()
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_tiled(model, noise(20, 20), 16, 4)
    assert model.training


def test_writing_into_what_is_given(tmp_path: Path) -> None:
    net, image = small_net(), noise(50, 61)
    expected = predict_tiled(net, image, 16, 6)
    array = np.full((1, 50, 61), np.nan, np.float32)
    on_disk = np.lib.format.open_memmap(
        tmp_path / "out.npy", "w+", np.float32, (1, 50, 61)
    )
    on_disk[:] = 7
    for out in (array, on_disk, np.full((1, 60, 70), 9, np.float32)[:, 5:55, 4:65]):
        assert predict_tiled(net, image, 16, 6, out=out) is out
        assert (out == expected).all()
    del on_disk
    assert (np.load(tmp_path / "out.npy") == expected).all()


def test_memory_is_bounded_by_a_row_of_tiles(tmp_path: Path) -> None:
    def most_held(height: int) -> int:
        source = OnlyWindows(np.zeros((height, 600, 3), np.uint8))
        path = tmp_path / f"{height}.npy"
        out = np.lib.format.open_memmap(path, "w+", np.float32, (1, height, 600))
        tracemalloc.start()
        predict_tiled(small_net(), source, 32, 8, out=out)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(source.asked) <= (32, 600)
        return held

    most_held(100)  # what is made once
    more_probabilities = (1600 - 200) * 600 * 4
    assert most_held(1600) < most_held(200) + more_probabilities / 10


def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    predict_tiled(small_net(), noise(40, 40), 16, 4)
    assert not capsys.readouterr().err
    predict_tiled(small_net(), noise(40, 40), 16, 4, progress=True)
    assert "9/9" in capsys.readouterr().err


# Refusals

IMAGE, MASK = noise(40, 50), np.zeros((40, 50), np.uint8)


class Shrinks(OnlyWindows):
    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        return super().__getitem__(key)[:-1]


class ChangesType(OnlyWindows):
    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        return super().__getitem__(key) / 255


def with_values(*values: int) -> np.ndarray:
    mask = MASK.astype(np.int32)
    mask[0, : len(values)] = values
    return mask


BAD_TILES: list[tuple[tuple, dict, str]] = [
    ((IMAGE, MASK, 41), {}, r"tile of \(41, 41\).*larger than image, of \(40, 50\)"),
    ((IMAGE, MASK, (40, 51)), {}, 'edge="pad"'),
    (([IMAGE, noise(8, 9)], None, 16), {}, "larger than image 1"),
    ((IMAGE, MASK, 8, 0), {}, "stride: size 0"),
    ((IMAGE, MASK, 8, (4, -1)), {}, r"stride: size \(4, -1\)"),
    ((IMAGE, MASK, 8, 9), {}, "pixels between tiles are never seen"),
    ((IMAGE, MASK, 0), {}, "tile_size: size 0"),
    ((IMAGE, MASK, -8), {}, "tile_size: size -8"),
    ((IMAGE, MASK, 8.5), {}, "tile_size: size 8.5"),
    ((IMAGE, MASK[:-1], 8), {}, r"target: \(39, 50\).*image is \(40, 50\)"),
    (([IMAGE] * 2, [MASK, MASK.T], 8), {}, r"target 1: \(50, 40\)"),
    (([IMAGE] * 2, [MASK], 8), {}, "2 images and 1 targets"),
    (([IMAGE] * 2, MASK, 8), {}, "2 images and 1 targets"),
    (([], [], 8), {}, "image: an empty list"),
    ((IMAGE / 255, MASK, 8), {}, "image: values of type float64; expected uint8"),
    ((IMAGE.astype(int), MASK, 8), {}, "values of type int64; expected uint8"),
    ((IMAGE, MASK.astype(np.float32), 8), {}, "target: values of type float32"),
    ((IMAGE[..., 0], MASK, 8), {}, r"shape \(40, 50\); expected \(H, W, 3\)"),
    ((IMAGE, IMAGE, 8), {}, r"shape \(40, 50, 3\); expected \(H, W\)"),
    (("slide.tif", MASK, 8), {}, "a str of shape"),
    ((IMAGE, MASK, 8), {"edge": "drop"}, "edge 'drop': expected one of shift, pad"),
    ((IMAGE, MASK, 8), {"region": (0, 0, 41, 9)}, "inside image of"),
    ((IMAGE, MASK, 8), {"region": (9, 0, 9, 9)}, "inside image of"),
    ((IMAGE, MASK, 8), {"region": [(0, 0, 9, 9)] * 2}, "2 regions for 1 images"),
    ((IMAGE, MASK, 8), {"region": (0, 0, 7, 50)}, r"of \(7, 50\)"),
]


@pytest.mark.parametrize(("arguments", "options", "words"), BAD_TILES)
def test_refused_tiles(arguments: tuple, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TileDataset(*arguments, **options)


@pytest.mark.parametrize(
    ("image", "target", "options", "words"),
    [
        (Shrinks(IMAGE), MASK, {}, r"image: rows 0 to 8.*came as \(7, 8, 3\).*shrunk"),
        (IMAGE, Shrinks(MASK), {}, "target: rows 0 to 8.*shrunk"),
        (ChangesType(IMAGE), MASK, {}, "image: values of type float64"),
        (IMAGE, with_values(0, 1, 255), {}, "target: both 1 and 255.*ignore=255"),
        (IMAGE, with_values(0, 3), {}, "target: values 0, 3.*num_classes"),
        (IMAGE, with_values(0, 256), {}, "target: values 0, 256; expected 0 to 255"),
        (IMAGE, with_values(0, 3), {"num_classes": 3}, "target: class ids 3"),
    ],
)
def test_refused_samples(image: Any, target: Any, options: dict, words: str) -> None:
    dataset = TileDataset(image, target, 8, **options)
    with pytest.raises(ValueError, match=words):
        dataset[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile_size": 41}, "larger than image"),
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": 2.5}, "num_samples 2.5"),
        ({"seed": -1}, "seed -1"),
        ({"skip_empty": 1.5}, "skip_empty 1.5"),
        ({"skip_empty": 1, "target": None}, "without a target"),
        ({"tries": 0}, "tries 0"),
    ],
)
def test_refused_random_tiles(options: dict, words: str) -> None:
    arguments = {"image": IMAGE, "target": MASK, "tile_size": 8, "num_samples": 3}
    with pytest.raises(ValueError, match=words):
        RandomTileDataset(**arguments | options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((50, 40, 0.2, 50), "something left for each side"),
        ((50, 40, 1), "val_share 1"),
        ((50, 40, 0.2, -1), "gap -1"),
        ((50, 40, 0.001), "something left for each side"),
        ((50, 400, 0.2, 50, 0), "something left for each side"),
        ((50, 40, 0.2, 5, 2), "axis 2: expected 0 for the height"),
    ],
)
def test_refused_regions(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_regions(*arguments[:4], axis=(*arguments[4:], None)[0])


def locked() -> np.ndarray:
    out = np.zeros((1, 40, 50), np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 16}, "overlap 16: expected less than the tile"),
        ({"overlap": -1}, "overlap -1"),
        ({"overlap": 2.5}, "overlap 2.5"),
        ({"tile_size": 0}, "tile_size: size 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"weights": "hann"}, "weights 'hann': expected one of smooth"),
        ({"activation": "relu"}, "activation 'relu': expected one of auto"),
        ({"image": IMAGE / 255}, "image: values of type float64"),
        ({"image": Shrinks(IMAGE)}, "shrunk"),
        ({"out": np.zeros((1, 40, 51), np.float32)}, r"float32 \(1, 40, 51\)"),
        ({"out": np.zeros((2, 40, 50), np.float32)}, r"expected float32 \(1, 40, 50\)"),
        ({"out": np.zeros((1, 40, 50))}, "float64"),
        ({"out": torch.zeros(1, 40, 50)}, "out: a Tensor"),
        ({"out": locked()}, "read-only; expected float32"),
        ({"model": lambda batch: batch[..., 1:]}, "expected logits"),
        ({"model": lambda batch: batch[0, 0]}, "expected logits"),
    ],
)
def test_refused_predictions(options: dict, words: str) -> None:
    arguments = {"model": small_net(), "image": IMAGE, "tile_size": 16, "overlap": 4}
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)):
        predict_tiled(**arguments | options)
