"""Tiles: nothing lost, nothing mixed up, nothing held that is not looked at.

Most pictures here carry their own coordinates, so that a tile says where it is from.
"""

import itertools
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from torch import nn
from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from tests.conftest import Train, small_system
from tools.slide import Slide
from ui_segmentation_system import RandomTileDataset, TileDataset, UNet, predict_tiled

CLASSES = 250
WEIGHTS = ("smooth", "constant", "centre")


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


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def scaled(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


class Windows:
    """A source that is nothing but a shape and windows, and notes what was asked."""

    def __init__(self, array: np.ndarray, alter: Callable = np.asarray) -> None:
        self.shape, self._array, self.alter, self.asked = array.shape, array, alter, []

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        assert all(isinstance(part, slice) for part in key)
        self.asked.append(self._array[key].shape[:2])
        return self.alter(self._array[key])


def recorder(batches: list[tuple[int, ...]]) -> nn.Module:
    """A model that gives the picture back; notes its batches and checks its mode."""

    def note(model: nn.Module, given: tuple[torch.Tensor]) -> None:
        assert not model.training and torch.is_inference_mode_enabled()
        batches.append(tuple(given[0].shape))

    model = nn.Identity()
    model.register_forward_pre_hook(note)
    model.probabilities = torch.clone
    return model


def small_net(num_classes: int = 1, *more: nn.Module) -> nn.Sequential:
    """Three convolutions of 3x3: a logit sees 7x7 pixels, unless there is more."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
    last = nn.Conv2d(6, num_classes, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, *more, nn.ReLU(), last)


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
        options = {"edge": edge, "num_classes": CLASSES}
        dataset = TileDataset(image, ids_at(image), tile, stride, **options)
        together = np.zeros((height + tile[0], width + tile[1], 3), np.uint8)
        classes = np.full(together.shape[:2], 254)
        for index, (piece, target) in enumerate(dataset):
            _, y, x, *size = dataset.locate(index)
            assert tuple(piece.shape[1:]) == tuple(size) == tile
            assert edge == "pad" or (y + tile[0] <= height and x + tile[1] <= width)
            part = np.s_[y : y + tile[0], x : x + tile[1]]
            together[part], classes[part] = pixels(piece), target
        assert (together[:height, :width] == image).all()
        assert (classes[:height, :width] == ids_at(image)).all()
        assert (classes[height:] >= 254).all() and (classes[:, width:] >= 254).all()
        assert not together[height:].any() and not together[:, width:].any()
        assert len({dataset.locate(i) for i in range(len(dataset))}) == len(dataset)


def test_a_number_leads_to_its_tile_of_its_picture() -> None:
    sizes = [(30, 40), (16, 16), (61, 17), (16, 90)]
    images = [coordinates(*size, number) for number, size in enumerate(sizes)]
    targets = [ids_at(image) for image in images]
    dataset = TileDataset(images, targets, 16, 10, num_classes=CLASSES)
    alone = [TileDataset(image, None, 16, 10) for image in images]
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


def test_a_slide_of_half_a_billion_pixels_is_a_source() -> None:
    slide = Slide()
    dataset = TileDataset([Windows(noise(9, 9)), slide], None, 8, edge="pad")
    assert len(dataset) == 4 + 2875**2
    assert dataset.locate(len(dataset) - 1) == (1, 22_992, 22_992, 8, 8)
    image, target = TileDataset(slide, slide.mask, 8)[50_000]
    drawn, mask = slide.window(136, 9000, 8, 8)
    assert (pixels(image) == drawn).all()
    assert (target.numpy() == (mask == 255)).all()


def test_only_windows_are_read() -> None:
    image, mask = Windows(coordinates(90, 80)), Windows(np.zeros((90, 80), bool))
    list(TileDataset(image, mask, 16, edge="pad"))
    list(RandomTileDataset(image, mask, 16, 9, skip_empty=1))
    assert max(image.asked) <= (16, 16) and max(mask.asked) <= (16, 16)


@pytest.mark.parametrize(
    ("mask", "options", "expected"),
    [
        ([0, 1, 128], {}, [0, 1, 255]),
        ([0, 255, 128], {}, [0, 1, 255]),
        ([0, 1, 255], {"ignore": 255}, [0, 1, 255]),
        ([0, 255, 9], {"ignore": 9}, [0, 1, 255]),
        ([True, False, False], {}, [1, 0, 0]),
        ([5, 255, 0], {"num_classes": 6}, [5, 255, 0]),
        (np.ma.array([0, 1, -9999], mask=[0, 0, 1]), {}, [0, 1, 255]),
        (np.ma.array([0, 1, 1], mask=[1, 0, 0]), {"ignore": 7}, [255, 1, 1]),
        (np.ma.array([0, 9, 1], mask=[1, 0, 0]), {"num_classes": 10}, [255, 9, 1]),
        (np.ma.array([False, True, True], mask=[0, 0, 1]), {}, [0, 1, 255]),
        (None, {}, [255, 255, 255]),
        (None, {"num_classes": 3}, [255, 255, 255]),
    ],
)
def test_masks_of_every_habit(mask: Any, options: dict, expected: list) -> None:
    image, classes = noise(1, 3), "num_classes" in options
    for dtype in (np.int64, np.uint8, ">u2"):
        if isinstance(mask, list):
            mask = np.array(mask).astype(dtype if mask[0] is not True else bool)
        row = None if mask is None else mask[None]
        (sample,) = TileDataset(image, row, (1, 3), **options)
        assert sample.target.tolist() == ([expected] if classes else [[expected]])
        (pictures,) = TileDataset(image, row, (1, 3), transform=ui.Sample, **options)
        assert (np.array(pictures.image) == image).all()
        through = ui.ImageTargetToTensor()(*pictures)
        assert [part.dtype for part in sample] == [part.dtype for part in through]
        assert all(map(torch.equal, sample, through))


# Memory maps, open files and processes


@pytest.fixture
def maps(tmp_path: Path) -> tuple[np.memmap, np.memmap]:
    """Memory maps of 200x150 pixels: coordinates, and the ids that belong to them."""
    image, paths = coordinates(200, 150), (tmp_path / "image.npy", tmp_path / "ids.npy")
    for path, array in zip(paths, (image, ids_at(image)), strict=True):
        np.save(path, array)
    return tuple(np.load(path, mmap_mode="r") for path in paths)


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda image: image,
    "part": lambda image: image[20:90, 30:],
    "plain array over the map": lambda image: np.asarray(image)[5:],
    "every second, upside down": lambda image: image[::-2, ::3],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_memory_map_travels_as_a_name(maps: Any, view: Callable) -> None:
    image, ids = map(view, maps)
    dataset = copy = TileDataset(image, ids, 32, num_classes=CLASSES)
    for _ in range(2):  # it may travel on
        travelling = pickle.dumps(copy)
        assert len(travelling) < 2000 < image.nbytes
        copy = pickle.loads(travelling)
        for one, other in zip(dataset, copy, strict=True):
            assert all(map(torch.equal, one, other))


def test_what_memory_alone_holds_travels_whole(maps: Any) -> None:
    changed = np.load(maps[0].filename, mmap_mode="c")
    changed[:] = 9
    masked = np.ma.array(maps[1], mask=maps[1] > 100)
    for image, mask in ((noise(200, 150), None), (changed, masked)):
        dataset = TileDataset(image, mask, 40, num_classes=CLASSES)
        copy = pickle.loads(pickle.dumps(dataset))
        for one, other in zip(dataset, copy, strict=True):
            assert all(map(torch.equal, one, other))


def open_tiff(path: Path) -> zarr.Array:
    return zarr.open(tifffile.imread(path, aszarr=True), mode="r")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_file_is_not_shared_by_processes(
    maps: Any, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, maps[0], tile=(32, 32), photometric="rgb")
    expected = torch.stack([image for image, _ in TileDataset(maps[0], None, 16)])
    opened, opener = open_tiff(path), partial(open_tiff, path)
    sources = [opened, opener]
    if method == "fork":
        sources += [zarr.array(np.array(maps[0])), Windows(maps[0])]
    for source in sources:
        dataset = TileDataset(source, None, 16)
        assert torch.equal(dataset[3].image, expected[3])  # one tile is read here first
        # A new process takes seconds to start; those of a fork must share the file.
        options = {"num_workers": 1 + (method == "fork")}
        loader = DataLoader(dataset, 4, multiprocessing_context=method, **options)
        if source is opened:
            with pytest.raises(ValueError, match=r"image: a Array .*give partial"):
                list(loader)
        else:
            assert torch.equal(torch.cat([batch.image for batch in loader]), expected)


def random_tiles(maps: Any, **options: Any) -> RandomTileDataset:
    return RandomTileDataset(*maps, 24, 12, num_classes=CLASSES, **options)


PERSISTENT = partial(DataLoader, persistent_workers=True)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(PERSISTENT, "fork"), (ui.PrefetchDataLoader, "fork"), (PERSISTENT, "spawn")],
)
def test_workers_draw_the_same_tiles(maps: Any, kind: Any, method: str) -> None:
    options = {"num_workers": 1 + (method == "fork")}  # the other takes seconds
    options |= {"multiprocessing_context": method}
    loaders = DataLoader(random_tiles(maps), 3), kind(random_tiles(maps), 3, **options)
    here, there = (
        [torch.cat([batch.image for batch in loader]) for _ in range(2)]
        for loader in loaders
    )
    assert all(map(torch.equal, here, there))
    assert not torch.equal(*here)


# Random tiles


def test_a_seed_gives_the_same_epochs_and_each_its_own(maps: Any) -> None:
    def epochs(seed: int) -> list[tuple]:
        dataset = random_tiles(maps, seed=seed)
        return [tuple(pixels(image)[0, 0]) for _ in "123" for image, _ in dataset]

    first = epochs(0)
    np.random.seed(5)
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert epochs(0) == first != epochs(1)
    assert len(set(first)) > 0.9 * len(first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_the_look_of_the_system_draws_no_tile(train: Train) -> None:
    image, mask = noise(60, 60), np.ones((60, 60), np.uint8)
    dataset = RandomTileDataset(image, mask, 32, 4)
    train(small_system(), DataLoader(dataset, 2), max_epochs=1)
    assert dataset._draws.tolist() == [1] * 4


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
    mask[40:60, 40:60] = 1
    for share, least, most in ((0, 0, 0.16), (0.5, 0.42, 0.66), (1, 0.75, 1)):
        dataset = RandomTileDataset(noise(100, 100), mask, 10, 300, skip_empty=share)
        filled = np.mean([bool((target == 1).any()) for _, target in dataset])
        assert least <= filled <= most
    empty = Windows(np.zeros((50, 50), np.uint8))  # the search for foreground ends
    dataset = RandomTileDataset(noise(50, 50), empty, 8, 1, skip_empty=1)
    empty.asked.clear()
    dataset.locate(0)
    assert len(empty.asked) == 20


# Regions and the receptive field


def test_regions_never_touch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(50, 200, 2)
        gap, share = rng.integers(0, 30), float(rng.uniform(0.1, 0.9))
        seen = np.zeros((height, width), int)
        for y0, x0, y1, x1 in ui.split_regions(height, width, share, gap):
            assert not seen[y0:y1, x0:x1].any()
            seen[y0:y1, x0:x1] = seen.max() + 1
        longer = seen.max(axis=1 if height >= width else 0)
        assert (longer == 0).sum() == gap and set(longer) <= {0, 1, 2}
        assert (longer == 2).sum() / (longer > 0).sum() == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("edge", ["shift", "pad"])
def test_tiles_stay_in_their_region(edge: str) -> None:
    images = [coordinates(90, 80), coordinates(90, 80, number=1)]
    sources = images, [*map(ids_at, images)]
    regions = [(13, 20, 61, 77), (0, 0, 16, 16)]
    options = {"region": regions, "num_classes": CLASSES}
    inside = {(y, x, 0) for y in range(13, 61) for x in range(20, 77)}
    inside |= {(y, x, 1) for y in range(16) for x in range(16)}
    in_order = TileDataset(*sources, 16, edge=edge, **options)
    at_random = RandomTileDataset(*sources, 16, 300, **options)
    for dataset in (in_order, at_random):
        seen = set()
        for tile, target in dataset:
            known = target.numpy() != 255
            assert (ids_at(pixels(tile)) == target.numpy())[known].all()
            seen |= {*map(tuple, pixels(tile)[known].tolist())}
        assert seen <= inside
        assert len(seen) == len(inside) or dataset is at_random


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
def test_receptive_fields_that_can_be_reckoned(network: nn.Module, side: int) -> None:
    assert ui.receptive_field(network, 64) == side
    assert network.training


# Prediction


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_model_that_copies_gives_the_picture_back(weights: str) -> None:
    rng = np.random.default_rng(0)
    small = [(*size, (16, 16), 0) for size in ((5, 40), (40, 5), (3, 4))]
    for height, width, tile, _ in [*geometries(25), *small]:
        overlap, batch_size = rng.integers(min(tile)), rng.integers(1, 9)
        image, batches = noise(height, width), []
        image[::2] = 255
        options = {"weights": weights, "batch_size": batch_size}
        copy = predict_tiled(recorder(batches), image, tile, overlap, **options)
        assert copy.dtype == np.float32 and copy.shape == (3, height, width)
        assert {batch[2:] for batch in batches} == {tile}
        assert max(batches)[0] <= batch_size
        exact = 0 if weights == "centre" else 2e-6
        np.testing.assert_allclose(copy, scaled(image), rtol=0, atol=exact)
        assert copy.max() <= 1  # weights sum to 1 but for rounding
    batches = []
    predict_tiled(recorder(batches), noise(16, 70), 16, 6, batch_size=4)
    assert [batch[0] for batch in batches] == [4, 3]


def test_no_seam_once_the_margin_covers_the_receptive_field() -> None:
    net, image = small_net(), noise(75, 90)
    whole, reach = untiled(net, image), ui.receptive_field(net, 64) // 2
    for weights, overlap, least, most in (
        ("centre", 2 * reach, 0, 1e-6),
        ("centre", 2 * reach - 2, 1e-4, 1),
        ("smooth", 2 * reach, 1e-4, 1),
        ("constant", 0, 1e-4, 1),
    ):
        tiled = predict_tiled(net, image, 24, overlap, weights=weights)
        assert least <= np.abs(tiled - whole).max() <= most, (weights, overlap)


# The border of the picture is no border to fade at.
RAMP = [n / (n + min(10 - n, 7)) for n in range(1, 7)]
RAMP += [7 / (7 + 10 - n) for n in range(7, 10)]


@pytest.mark.parametrize(
    ("width", "tile", "overlap", "weights", "expected"),
    [
        (14, 8, 2, "smooth", [1 / 3, 2 / 3]),
        (11, 10, 6, "smooth", RAMP),
        (14, 8, 2, "constant", [1 / 2, 1 / 2]),
        (14, 8, 2, "centre", [0, 1]),
    ],
)
def test_shares_of_the_second_of_two_windows(
    width: int, tile: int, overlap: int, weights: str, expected: list[float]
) -> None:
    windows = itertools.count()

    def numbers(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(one[:1], next(windows)) for one in batch])

    numbers.probabilities = torch.clone
    image, alone = np.zeros((tile, width, 3), np.uint8), width - tile
    shares = predict_tiled(numbers, image, tile, overlap, weights=weights)[0, 0]
    expected = [*[0] * alone, *expected, *[1] * alone]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_probabilities_are_what_the_task_says() -> None:
    options = {"task": "multilabel", "num_out_channels": 3}
    labels = ui.UISegmentationSystem(max_features=16, **options).eval()
    image = noise(32, 32)
    for model, right in (
        (small_net(), torch.sigmoid),
        (small_net(3), partial(torch.softmax, dim=0)),
        (labels, torch.sigmoid),
    ):
        with torch.no_grad():
            expected = right(model(scaled(image)[None])[0])
        found = torch.from_numpy(predict_tiled(model, image, 32, 4))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_other_types(dtype: torch.dtype) -> None:
    net, image = small_net(1, nn.GroupNorm(2, 6)), noise(40, 50)
    expected = predict_tiled(net, image, 16, 6)
    found = predict_tiled(net.to(dtype), image, np.int64(16), np.int64(6))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_each_part_of_the_model_is_as_it_was() -> None:
    own = nn.Dropout(0).eval()
    own.register_forward_pre_hook(lambda part, _: setattr(part, "training", True))
    norms = nn.BatchNorm2d(6).eval(), nn.GroupNorm(2, 6)  # one is frozen
    net = small_net(1, *norms, nn.Dropout(0.5), own)
    first, second = (predict_tiled(net, noise(20, 20), 16, 4) for _ in "12")
    assert (first == second).all()
    net.append(nn.MaxPool2d(2))  # makes logits of a size that is refused
    with pytest.raises(ValueError, match="expected logits"):
        predict_tiled(net, noise(20, 20), 16, 4)
    assert [not part.training for part in net] == [n in (3, 6) for n in range(10)]
    assert not any("forward" in vars(part) for part in net)


def test_writing_into_what_is_given(tmp_path: Path) -> None:
    net, image, path = small_net(), noise(50, 61), tmp_path / "out.npy"
    expected = predict_tiled(net, image, 16, 6)
    on_disk = np.lib.format.open_memmap(path, "w+", np.float32, (1, 50, 61))
    whole = np.full((1, 60, 70), np.nan, np.float32)
    for out in (on_disk, whole[:, 5:55, 4:65]):
        assert predict_tiled(net, image, 16, 6, out=out) is out
        assert (out == expected).all()
    assert np.isnan(whole).sum() == 60 * 70 - 50 * 61
    del out, on_disk
    assert (np.load(path) == expected).all()


@pytest.mark.parametrize("more", [(), (nn.GroupNorm(2, 6),)])
def test_memory_is_bounded_by_a_row_of_tiles(tmp_path: Path, more: tuple) -> None:
    def most_held(height: int) -> int:
        source = Windows(np.zeros((height, 600, 3), np.uint8))
        path = tmp_path / f"{height}.npy"
        out = np.lib.format.open_memmap(path, "w+", np.float32, (1, height, 600))
        tracemalloc.start()
        predict_tiled(small_net(1, *more), source, 32, 8, out=out)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(source.asked) <= (32, 600)
        return held

    most_held(100)  # what is made once
    more_probabilities = (1600 - 200) * 600 * 4
    assert most_held(1600) < most_held(200) + more_probabilities / 10


def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    norm = nn.GroupNorm(2, 6)
    for net, total in ((small_net(), "9/9"), (small_net(1, norm), "18/18")):
        predict_tiled(net, noise(40, 40), 16, 4)
        assert not capsys.readouterr().err
        predict_tiled(net, noise(40, 40), 16, 4, progress=True)
        assert total in capsys.readouterr().err


# Networks that normalise the whole picture


@pytest.fixture(scope="module")
def reference() -> UNet:
    return ui.load_system(ui.REFERENCE).network


@pytest.mark.parametrize("size", [(448, 768), (400, 400), (300, 523), (100, 500)])
def test_a_trained_unet_predicts_by_tiles_what_it_predicts_whole(
    reference: UNet, size: tuple[int, int]
) -> None:
    folder = ui.REFERENCE.parents[1] / "test_inputs"
    pictures = [ui.load_image(folder / f"10{n}_input.png") for n in range(6)]
    image = np.vstack([np.hstack(pictures[:3]), np.hstack(pictures[3:])])
    image = image[: size[0], : size[1]]
    whole = untiled(reference, image)
    smooth, centre, small = (
        np.abs(predict_tiled(reference, image, *tiles, weights=kind) - whole).mean()
        for tiles, kind in (
            ((256, 64), "smooth"),
            ((320, 192), "centre"),
            ((128, 64), "centre"),
        )
    )
    assert centre < 0.0001 and max(smooth, small) < 0.02


@pytest.mark.parametrize("size", [(250, 131), (17, 9), (256, 256), (1, 300)])
def test_a_picture_of_one_tile_is_predicted_whole(
    reference: UNet, size: tuple[int, int]
) -> None:
    tiled = predict_tiled(reference, noise(*size), 320, 64)
    expected = untiled(reference, noise(*size))
    np.testing.assert_allclose(tiled, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("fast", "overlap"), [(False, 192), (True, 384)])
def test_a_unet_leaves_no_seam_at_any_size(fast: bool, overlap: int) -> None:
    torch.manual_seed(0)
    net, image = UNet(max_features=16, normalize=False, fast=fast), noise(701, 250)
    assert ui.receptive_field(net, 512) <= overlap
    tiled = predict_tiled(net, image, overlap + 128, overlap, weights="centre")
    np.testing.assert_allclose(tiled, untiled(net, image), rtol=0, atol=1e-5)


TWICE = nn.InstanceNorm2d(6)


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 6),
        nn.Sequential(TWICE, nn.Conv2d(6, 6, 1), nn.ReLU(), TWICE),
        nn.InstanceNorm2d(6, affine=True),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.InstanceNorm2d(6, track_running_stats=True),
        nn.Sequential(nn.GroupNorm(3, 6), nn.Conv2d(6, 6, 1), nn.InstanceNorm2d(6)),
    ],
)
def test_foreign_networks_that_normalise(norm: nn.Module) -> None:
    net, image = small_net(1, norm), noise(75, 90)
    net[0].never_used = nn.GroupNorm(1, 6)
    image[40:, 50:] //= 4
    tiled = predict_tiled(net, image, 24, 8, weights="centre")
    np.testing.assert_allclose(tiled, untiled(net, image), rtol=0, atol=1e-5)


def test_a_notice_of_layers_that_look_at_a_whole_tile() -> None:
    pools = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((16, 16)))
    with pytest.warns(UserWarning, match="pools, attends or normalises"):
        predict_tiled(pools, noise(20, 20), 16, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_tiled(UNet(max_features=16), noise(20, 20), 16, 4)


def test_a_layer_that_does_more_than_normalise_does_it_still() -> None:
    class NormAndSquare(nn.GroupNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) ** 2

    net, image = nn.Sequential(nn.Conv2d(3, 1, 1), NormAndSquare(1, 1)), noise(20, 16)
    with pytest.warns(UserWarning, match="normalises over a tile"):
        tiled = predict_tiled(net, image, 16, 0)
    np.testing.assert_allclose(tiled[:, :4], untiled(net, image[:16])[:, :4], atol=1e-5)


def test_a_wrapped_system_makes_its_own_probabilities() -> None:
    system = small_system(task="multilabel", num_out_channels=2).eval()
    ours, wrapped = (
        predict_tiled(one, noise(20, 20), 16, 4)
        for one in (system, torch.optim.swa_utils.AveragedModel(system))
    )
    np.testing.assert_array_equal(ours, wrapped)


# Refusals

IMAGE, MASK = noise(40, 50), np.zeros((40, 50), np.uint8)
HIDDEN = np.ma.array(IMAGE, mask=IMAGE < 5)
TWO = {"image": [IMAGE] * 2, "target": [MASK] * 2}


def holding(*values: int, dtype: Any = np.int32) -> dict[str, np.ndarray]:
    """Give a mask that holds values, not at its first pixel."""
    mask = MASK.astype(dtype)
    mask[1, : len(values)] = values
    return {"target": mask}


def out_of(*shape: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    return {"out": np.zeros(shape, dtype)}


# Bad arguments, and words of the message: what is wrong, what arrived, what is right.
BAD_TILES = [
    ({"tile_size": 41}, r"tile_size: 41 in .*inside image, \(40, 50\) .*one tile"),
    ({"image": [IMAGE, IMAGE[:7]], "target": None}, "tile_size: 8 in .*image 1, "),
    ({"stride": (4, 0)}, r"stride \(4, 0\): expected .*pixels"),
    ({"stride": 9}, "stride 9: expected .*1 to 8"),
    ({"target": MASK[:-1]}, r"target: \(39, 50\).*expected .*image, \(40, 50\)"),
    (TWO | {"target": [MASK]}, "images: 2, 1 targets.*expected"),
    ({"image": [], "target": []}, "images: 0, .*expected one or more"),
    (TWO | {"region": [(0, 0, 9, 9)]}, "images: 2, 2 targets, 1 regions"),
    ({"region": (0, 0, 41, 9)}, r"region \(0, 0, 41, 9\) .*; expected .*inside image"),
    ({"region": (-1, 0, 9, 9), "edge": "pad"}, r"region \(-1, 0, 9, 9\)"),
    ({"region": (0, 9, 9, 9), "edge": "pad"}, r"region \(0, 9, 9, 9\)"),
    ({"region": (0, 0, 7, 50)}, r"tile_size: 8 in the region \(0, 0, 7, 50\)"),
    ({"image": IMAGE.astype(int)}, "image: int64 .*expected uint8"),
    ({"image": Windows(IMAGE, lambda part: part / 255)}, "image: float64 .*uint8"),
    ({"image": Windows(IMAGE, lambda part: part[1:])}, r"\(0, 1, 3\) .*\(1, 1, 3\)"),
    ({"image": "slide.tif"}, "image: a str .*expected .*function that opens"),
    ({"target": lambda: IMAGE}, r"target: .*, 3\); expected shape \(H, W\)"),
    ({"target": MASK / 2}, "target: float64 .*expected whole numbers"),
    ({"edge": "drop"}, "edge 'drop': expected one of .*shift.*pad"),
    ({"ignore": -1}, "ignore -1: expected .*0 to 255"),
    ({"num_classes": 0}, "num_classes 0: expected .*1 to 255"),
]
BAD_SAMPLES = [
    ({"image": HIDDEN}, "image: masked pixels; expected none"),
    (holding(-1, dtype=np.int8), r"target: int8 .*\[-1, 0\].*expected .*0 to 255"),
    (holding(256), r"target: int32 .*\[0, 256\].*expected .*0 to 255"),
    (holding(1, 255), r"target: values \[0, 1, 255\]; expected 0 and 1"),
    (holding(3), r"target: values \[0, 3\]; expected .*num_classes"),
    (holding(3) | {"num_classes": 3}, "target.* class id.* 3.*expected 0 to 2"),
]
BAD_RANDOM = [
    ({"num_samples": 0}, "num_samples 0: expected"),
    ({"seed": -1}, "seed -1: expected"),
    ({"skip_empty": 1.5}, "skip_empty 1.5: expected .*0 to 1"),
    ({"skip_empty": 1, "target": None}, "skip_empty without a target"),
]
BAD_PREDICTIONS = [
    ({"overlap": 16}, "overlap 16: expected .*0 to 15"),
    ({"batch_size": 0}, "batch_size 0: expected"),
    ({"weights": "hann"}, "weights 'hann': expected one of .*smooth"),
    ({"image": HIDDEN}, "image: masked pixels"),
    ({"image": MASK}, r"\(H, W, 3\); give np.asarray\(load_image\("),
    (out_of(1, 40, 51), r"out: .*51\); expected .*float32 \(1, 40, 50\)"),
    (out_of(2, 40, 50), r"out: .*\(2, 40, 50\); expected .*\(1, 40, 50\)"),
    (out_of(1, 40, 50, dtype=float), "out: a ndarray float64 .*expected .*float32"),
    ({"out": torch.zeros(1, 40, 50)}, "out: a Tensor .*expected an array"),
    ({"out": np.broadcast_to(np.float32(0), (1, 40, 50))}, "out: .*to write into"),
    ({"model": lambda batch: batch[..., 1:]}, "the model: gave .*expected logits"),
    ({"model": lambda batch: batch[0, 0]}, "the model: gave .*expected logits"),
    ({"model": lambda batch: {"out": batch}}, "the model: gave a dict"),
]
BAD_REGIONS = [
    ({"gap": 50}, "gap 50; expected something left for each"),
    ({"gap": -1}, "gap -1: expected"),
    ({"val_share": 1}, "val_share 1, .*expected something left"),
    ({"val_share": 1.5}, "val_share 1.5: expected"),
]
COARSE = torch.nn.Conv2d(3, 1, 5, stride=2, padding=2)
BAD_FIELDS = [
    ({"size": 63}, "size 63: expected"),
    ({}, "size 256.*normalize=False"),
    ({"network": COARSE}, r"logits \(1, 1, 128, 128\); expected those of 256"),
]
PREDICTED = {"model": small_net(), "image": IMAGE, "tile_size": 16, "overlap": 4}
GOOD = {"image": IMAGE, "target": MASK, "tile_size": 8}
CALLS: list[tuple[Callable, dict, list]] = [
    (TileDataset, GOOD, BAD_TILES),
    (lambda **options: list(TileDataset(**options)), GOOD, BAD_SAMPLES),
    (RandomTileDataset, GOOD | {"num_samples": 3}, BAD_RANDOM),
    (predict_tiled, PREDICTED, BAD_PREDICTIONS),
    (ui.split_regions, {"height": 50, "width": 40}, BAD_REGIONS),
    (ui.receptive_field, {"network": UNet(max_features=16)}, BAD_FIELDS),
]


@pytest.mark.parametrize(
    ("call", "options", "words"),
    [(call, good | bad, words) for call, good, table in CALLS for bad, words in table],
)
def test_refusals(call: Callable, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(**options)
