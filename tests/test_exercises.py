"""The checks of the exercises: no answer, right answers, and typical wrong ones."""

import heapq
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import exercises
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import ui_segmentation_system as ui

Pictures = tuple[Image.Image, Image.Image]
Results = Iterable[tuple[int, Any]]
Sizes = list[tuple[int, int]]
Groups = list[list[int]]
Frames = tuple[list[int], list[int]]
Tiles = list[tuple[int, int, np.ndarray]]


# Right answers


def class_shares(ids: Tensor, num_classes: int) -> list[float]:
    counts = torch.bincount(ids[ids != 255], minlength=num_classes)
    return (counts / counts.sum()).tolist()


def match_all(inputs: list[str], targets: list[str]) -> list[tuple[str, str]]:
    images = {name.split("_")[0]: name for name in inputs}
    masks = {name.split("_")[0]: name for name in targets}
    if orphans := images.keys() ^ masks.keys():
        raise ValueError([{**images, **masks}[key] for key in orphans])
    return [(images[key], masks[key]) for key in images]


class Halves(Dataset):
    """The left and the right half of each sample in turn."""

    def __init__(self, dataset: Sequence[ui.Sample]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return 2 * len(self.dataset)

    def __getitem__(self, index: int) -> ui.Sample:
        image, target = self.dataset[index // 2]
        half = image.shape[-1] // 2
        place = slice(half, None) if index % 2 else slice(half)
        return ui.Sample(image[..., place], target[..., place])


def quarter_turn(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    turns = int(torch.randint(4, ()))
    return image.rot90(turns, (-2, -1)), target.rot90(turns, (-2, -1))


def paste(
    pair: Pictures, size: int, shape: tuple[int, int], padding: int = 128
) -> Pictures:
    """Scale both pictures to a shape and lay them into the corner of a square."""
    squares = Image.new("RGB", (size, size)), Image.new("L", (size, size), padding)
    for square, picture in zip(squares, pair, strict=True):
        square.paste(picture.resize(shape, Image.Resampling.NEAREST))
    return squares


def fit(picture: Image.Image, size: int) -> tuple[int, int]:
    """The (width, height) of a picture whose longer side becomes the size."""
    scale = size / max(picture.size)
    return round(picture.width * scale), round(picture.height * scale)


def letterbox(image: Image.Image, target: Image.Image, size: int) -> Pictures:
    return paste((image, target), size, fit(image, size))


def dice_score(prediction: Tensor, target: Tensor) -> float:
    total = int(prediction.sum() + target.sum())
    return 2 * int((prediction & target).sum()) / total if total else 1.0


@torch.no_grad()
def reach(network: nn.Module) -> int:
    image = torch.zeros(1, 3, 256, 256)
    before = network(image)[0, 0, 128]
    image[..., 128, 128] = 100
    changed = (network(image)[0, 0, 128] != before).nonzero()
    return int((changed - 128).abs().max())


def pooled_iou(predictions: list[Tensor], targets: list[Tensor]) -> float:
    pairs = list(zip(predictions, targets, strict=True))
    both = sum(int((found & wanted).sum()) for found, wanted in pairs)
    either = sum(int((found | wanted).sum()) for found, wanted in pairs)
    return both / either if either else 1.0


def indices_of(groups: Sequence[Hashable]) -> list[list[int]]:
    """The indices of each group, groups in the order of their first sample."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return list(members.values())


def fill(parts: list[list[int]], k: int) -> list[list[int]]:
    """Lay each part into the fold that is smallest so far."""
    folds: list[list[int]] = [[] for _ in range(k)]
    for part in parts:
        min(folds, key=len).extend(part)
    return folds


def make_folds(groups: list[str], k: int) -> list[list[int]]:
    return fill(sorted(indices_of(groups), key=len, reverse=True), k)


def in_order(results: Results) -> Iterator[Any]:
    early, wanted = {}, 0
    for number, item in results:
        early[number] = item
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def join(parts: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))


def cut(indices: Sequence[int], size: int) -> list[list[int]]:
    """Pieces of so many indices each, the last perhaps smaller."""
    starts = range(0, len(indices), size)
    return [list(indices[start : start + size]) for start in starts]


def same_size_batches(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return join(cut(part, batch_size) for part in indices_of(sizes))


def fill_road(mask: np.ndarray, road: np.ndarray) -> Tensor:
    """A target of the pixels that are road; black ones are ignored."""
    return torch.from_numpy(np.where((mask == 0).all(axis=-1), 255, road)).float()


def road_target(mask: np.ndarray) -> Tensor:
    return fill_road(mask, (mask == (255, 0, 255)).all(axis=-1))


def lay_out(train: int, gap: int, val: int) -> Frames:
    """So many frames for training, for nobody and for validation, one after another."""
    start = train + gap
    return list(range(train)), list(range(start, start + val))


def split_with_gap(num_frames: int, val_share: float, gap: int) -> Frames:
    num_val = round(val_share * num_frames)
    if num_frames - num_val <= gap:
        raise ValueError("no frame is left for training")
    return lay_out(num_frames - num_val - gap, gap, num_val)


def class_weights(counts: Sequence[float]) -> list[float]:
    weights = [count**-0.5 if count else 0 for count in counts]
    scale = sum(count > 0 for count in counts) / sum(weights)
    return [weight * scale for weight in weights]


def paint(ids: Tensor, groups: Groups, merged: Tensor) -> Tensor:
    """Write the place of each group over its ids."""
    for place, group in enumerate(groups):
        merged[torch.isin(ids, torch.tensor(group))] = place
    return merged


def merge_classes(ids: Tensor, groups: Groups) -> Tensor:
    return paint(ids, groups, torch.full_like(ids, 255))


def walk(index: int, columns: int, height: int, width: int, tile: int) -> list[int]:
    """The corner of a tile where so many are in a row."""
    lengths = zip(divmod(index, columns), (height, width), strict=True)
    return [max(min(place * tile, length - tile), 0) for place, length in lengths]


def place_of(index: int, height: int, width: int, tile: int) -> list[int]:
    return walk(index, math.ceil(width / tile), height, width, tile)


def under(picture: np.ndarray, y: int, x: int, values: np.ndarray) -> np.ndarray:
    """The part of a picture that a tile covers, as a view."""
    return picture[y : y + values.shape[0], x : x + values.shape[1]]


def add_up(tiles: Tiles, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the number of the tiles of each pixel, (height, width) both."""
    total, count = np.zeros((2, height, width))
    for tile in tiles:
        under(total, *tile)[:] += tile[2]
        under(count, *tile)[:] += 1
    return total, count


def stitch(tiles: Tiles, height: int, width: int) -> np.ndarray:
    total, count = add_up(tiles, height, width)
    if (count == 0).any():
        raise ValueError("a pixel is in no tile")
    return total / count


RIGHT: dict[str, Any] = {
    "01.1": 0.32,
    "01.2": class_shares,
    "01.3": 60,
    "02.1": 999 % 16,
    "02.2": match_all,
    "02.3": Halves,
    "03.1": 640 * 120 // 480,
    "03.2": quarter_turn,
    "03.3": letterbox,
    "04.1": 5 * 16 + 5,
    "04.2": dice_score,
    "04.3": reach,
    "05.1": len(ui.group_split([f"scene {i // 5}" for i in range(60)], 0.2)[1]),
    "05.2": pooled_iou,
    "05.3": make_folds,
    "06.1": (1 + 3 * 4) * 16,
    "06.2": in_order,
    "06.3": same_size_batches,
    "07.1": 95 + 95,
    "07.2": road_target,
    "07.3": split_with_gap,
    "08.1": float(ui.class_iou(torch.tensor([[50, 10], [5, 35]]))[1]),
    "08.2": class_weights,
    "08.3": merge_classes,
    "09.1": (math.ceil((23_000 - 512) / 384) + 1) ** 2,
    "09.2": place_of,
    "09.3": stitch,
}


@pytest.mark.parametrize("name", exercises.CHECKS)
def test_right_answer_is_ok(name: str) -> None:
    assert exercises.check(name, RIGHT[name]) == "ok"


@pytest.mark.parametrize("answer", [torch.tensor(0.3156), np.float32(0.3156), "0.32"])
def test_number_in_another_form_is_ok(answer: Any) -> None:
    assert exercises.check("01.1", answer) == "ok"


def flatten(masks: list[Tensor]) -> Tensor:
    return torch.cat([mask.flatten() for mask in masks])


def pooled_tensor(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    return ui.iou_of(ui.iou_counts(flatten(predictions), flatten(targets)))


def fold_arrays(groups: list[str], k: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array(fold) for fold in make_folds(groups, k))


def fold_tensors(groups: list[str], k: int) -> list[Tensor]:
    return [torch.tensor(fold) for fold in make_folds(groups, k)[::-1]]


def best_folds(groups: list[str], k: int) -> list[list[int]]:
    """The evenest of all ways to lay the groups into folds."""
    parts = indices_of(groups)
    ways = []
    for places in itertools.product(range(k), repeat=len(parts)):
        pairs = list(zip(places, parts, strict=True))
        ways.append([join(p for at, p in pairs if at == fold) for fold in range(k)])
    return min(ways, key=lambda folds: max(map(len, folds)))


def heap_in_order(results: Results) -> Iterator[Any]:
    heap, wanted = [], itertools.count()
    following = next(wanted)
    for result in results:
        heapq.heappush(heap, result)
        while heap and heap[0][0] == following:
            yield heapq.heappop(heap)[1]
            following = next(wanted)


def search_in_order(results: Results) -> Iterator[Any]:
    """Takes results only while the item that comes next is not there."""
    results, early = iter(results), {}
    for wanted in itertools.count():
        while wanted not in early:
            if (result := next(results, None)) is None:
                return
            early[result[0]] = result[1]
        yield early[wanted]


class InOrder:
    """Yields from a method, as a loader does."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __iter__(self) -> Iterator[Any]:
        return in_order(self.results)


def map_in_order(results: Results) -> Iterator[Any]:
    boxes = in_order((number, [item]) for number, item in results)
    return (item for (item,) in boxes)


def batches_of_sorted(sizes: Sizes, batch_size: int) -> tuple[np.ndarray, ...]:
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    groups = itertools.groupby(order, key=sizes.__getitem__)
    cuts = (cut(list(members), batch_size) for _, members in groups)
    return tuple(np.array(batch) for batch in join(cuts))


def batches_as_they_fill(sizes: Sizes, batch_size: int) -> Iterator[list[int]]:
    unfilled: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        unfilled.setdefault(size, []).append(index)
        if len(unfilled[size]) == batch_size:
            yield unfilled.pop(size)
    yield from unfilled.values()


def batches_of_even_length(sizes: Sizes, batch_size: int) -> list[list[int]]:
    """As few batches as possible, none of them much smaller than another."""
    parts = [(part, -(-len(part) // batch_size)) for part in indices_of(sizes)]
    return [part[place::count] for part, count in parts for place in range(count)]


def road_of_codes(mask: np.ndarray) -> Tensor:
    """Compares one number per colour."""
    codes = torch.from_numpy(mask).long() @ torch.tensor([65536, 256, 1])
    target = torch.zeros(codes.shape)
    target[codes == 0xFF00FF] = 1
    target[codes == 0] = 255
    return target


def road_by_pixel(mask: np.ndarray) -> Tensor:
    values = {(255, 0, 255): 1.0, (0, 0, 0): 255.0}
    rows = [[values.get(tuple(pixel), 0.0) for pixel in row] for row in mask.tolist()]
    return torch.tensor(rows)


def split_as_ranges(num_frames: int, val_share: float, gap: int) -> list[range]:
    train, val = split_with_gap(num_frames, val_share, gap)
    return [range(len(train)), range(val[0], num_frames)]


def split_as_tensors(num_frames: int, val_share: float, gap: int) -> Iterator[Tensor]:
    """Gives the frames in another order."""
    parts = split_with_gap(num_frames, val_share, gap)
    return (torch.tensor(part).flip(0) for part in parts)


def split_of_array(num_frames: int, val_share: float, gap: int) -> list[np.ndarray]:
    last = num_frames - round(val_share * num_frames)
    train, _, val = np.split(np.arange(num_frames), [max(last - gap, 0), last])
    if not train.size:
        raise ValueError("no frame is left for training")
    return [train, val]


def weights_of_array(counts: Sequence[float]) -> np.ndarray:
    counts = np.array(counts, dtype=float)
    weights = np.divide(1, np.sqrt(counts), where=counts > 0, out=np.zeros_like(counts))
    return weights / weights[counts > 0].mean()


def weights_of_tensor(counts: Sequence[float]) -> Tensor:
    weights = torch.tensor(counts).rsqrt()
    weights[weights.isinf()] = 0
    return weights / weights[weights > 0].mean()


def weights_in_place(counts: list[float]) -> list[float]:
    counts[:] = class_weights(counts)
    return counts


def merge_by_table(ids: Tensor, groups: Groups) -> Tensor:
    return paint(torch.arange(256), groups, torch.full((256,), 255))[ids]


def merge_by_pixel(ids: Tensor, groups: Groups) -> Tensor:
    merged = ids.clone()
    places = {old: place for place, group in enumerate(groups) for old in group}
    return merged.apply_(lambda old: places.get(old, 255))


def merge_from_the_last(ids: Tensor, groups: Groups) -> Tensor:
    merged = torch.full_like(ids, 255)
    while groups:
        group = torch.tensor(groups.pop())
        merged[torch.isin(ids, group)] = len(groups)
    return merged


def place_from_list(index: int, height: int, width: int, tile: int) -> Sequence[int]:
    tops, lefts = (
        [min(at, max(length - tile, 0)) for at in range(0, length, tile)]
        for length in (height, width)
    )
    return [(y, x) for y in tops for x in lefts][index]


def place_of_array(index: int, height: int, width: int, tile: int) -> np.ndarray:
    size = np.array([height, width])
    place = np.array(np.unravel_index(index, -(-size // tile)))
    return np.minimum(place * tile, size - tile).clip(0)


def place_of_tensor(index: int, height: int, width: int, tile: int) -> Tensor:
    return torch.tensor(place_of(index, height, width, tile))


def stitch_to_float32(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch(tiles, height, width).astype(np.float32)


def stitch_until_empty(tiles: Tiles, height: int, width: int) -> np.ndarray:
    """Takes the tiles from the list, the last one first."""
    return stitch([tiles.pop() for _ in range(len(tiles))], height, width)


def stitch_with_nan(tiles: Tiles, height: int, width: int) -> np.ndarray:
    layers = np.full((len(tiles) + 1, height, width), np.nan)
    for layer, tile in zip(layers, tiles, strict=False):
        under(layer, *tile)[:] = tile[2]
    if np.isnan(layers).all(axis=0).any():
        raise ValueError("a pixel is in no tile")
    return np.nanmean(layers, axis=0)


def stitch_as_it_goes(tiles: Tiles, height: int, width: int) -> np.ndarray:
    """Moves the mean so far by each tile's share."""
    mean, count = np.zeros((2, height, width), dtype=np.float32)
    for tile in tiles:
        part, times = under(mean, *tile), under(count, *tile)
        times += 1
        part += (tile[2] - part) / times
    if not count.all():
        raise ValueError("a pixel is in no tile")
    return mean


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("05.2", pooled_tensor),
        ("05.3", fold_arrays),
        ("05.3", fold_tensors),
        ("05.3", best_folds),
        ("06.2", heap_in_order),
        ("06.2", search_in_order),
        ("06.2", InOrder),
        ("06.2", map_in_order),
        ("06.3", batches_of_sorted),
        ("06.3", batches_as_they_fill),
        ("06.3", batches_of_even_length),
        ("07.2", road_of_codes),
        ("07.2", road_by_pixel),
        ("07.3", split_as_ranges),
        ("07.3", split_as_tensors),
        ("07.3", split_of_array),
        ("08.2", weights_of_array),
        ("08.2", weights_of_tensor),
        ("08.2", weights_in_place),
        ("08.3", merge_by_table),
        ("08.3", merge_by_pixel),
        ("08.3", merge_from_the_last),
        ("09.2", place_from_list),
        ("09.2", place_of_array),
        ("09.2", place_of_tensor),
        ("09.3", stitch_to_float32),
        ("09.3", stitch_until_empty),
        ("09.3", stitch_with_nan),
        ("09.3", stitch_as_it_goes),
    ],
)
def test_other_right_function_is_ok(name: str, answer: Any) -> None:
    assert exercises.check(name, answer) == "ok"


@pytest.mark.parametrize("name", exercises.CHECKS)
def test_no_answer_is_not_answered_yet(name: str) -> None:
    assert exercises.check(name, None) == "not answered yet"


def test_unknown_exercise_raises() -> None:
    with pytest.raises(KeyError, match=r"01\.9"):
        exercises.check("01.9", 1)


# Typical wrong answers


def shares_of_all(ids: Tensor, num_classes: int) -> list[float]:
    return [float((ids == k).float().mean()) for k in range(num_classes)]


def shares_of_present(ids: Tensor, num_classes: int) -> list[float]:
    counts = ids[ids != 255].unique(return_counts=True)[1]
    return (counts / counts.sum()).tolist()


def shares_backwards(ids: Tensor, num_classes: int) -> list[float]:
    return class_shares(ids, num_classes)[::-1]


def match_by_place(inputs: list[str], targets: list[str]) -> list[tuple[str, str]]:
    return list(zip(inputs, targets, strict=True))


def match_images(inputs: list[str], targets: list[str]) -> list[tuple[str, str]]:
    masks = {name.split("_")[0]: name for name in targets}
    lonely = [name for name in inputs if name.split("_")[0] not in masks]
    if lonely:
        raise ValueError(f"no target for {lonely}")
    return [(name, masks[name.split("_")[0]]) for name in inputs]


def match_with_key_error(inputs: list[str], targets: list[str]) -> list:
    masks = {name.split("_")[0]: name for name in targets}
    return [(name, masks[name.split("_")[0]]) for name in inputs]


def match_without_name(inputs: list[str], targets: list[str]) -> list[tuple[str, str]]:
    if len(inputs) != len(targets):
        raise ValueError("some files have no partner")
    return match_all(inputs, targets)


class HalvesOfImages(Halves):
    """Cuts the images alone."""

    def __getitem__(self, index: int) -> ui.Sample:
        return ui.Sample(super().__getitem__(index).image, self.dataset[0].target)


class HalvesForever(Halves):
    """Begins again at its end."""

    def __getitem__(self, index: int) -> ui.Sample:
        return super().__getitem__(index % len(self))


class HalvesAsPairs(Halves):
    """Gives plain tuples."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return tuple(super().__getitem__(index))


class HalvesTooFew(Halves):
    """Forgets to double its length."""

    def __len__(self) -> int:
        return len(self.dataset)


def turn_twice(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return quarter_turn(image, image)[0], quarter_turn(target, target)[0]


def flip(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    flipped = bool(torch.rand(()) < 0.5)
    return (image.flip(-1), target.flip(-1)) if flipped else (image, target)


def half_turn(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    turns = 2 * int(torch.randint(2, ()))
    return image.rot90(turns, (-2, -1)), target.rot90(turns, (-2, -1))


def turn_channels(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    turns = int(torch.randint(4, ()))
    return image.rot90(turns), target.rot90(turns)


def pad_with_background(image: Image.Image, mask: Image.Image, size: int) -> Pictures:
    return paste((image, mask), size, fit(image, size), padding=0)


def squeeze(image: Image.Image, target: Image.Image, size: int) -> Pictures:
    return paste((image, target), size, (size, size))


def scale_only(image: Image.Image, target: Image.Image, size: int) -> Pictures:
    shape = fit(image, size)
    return image.resize(shape), target.resize(shape)


def scale_to_width(image: Image.Image, target: Image.Image, size: int) -> Pictures:
    shape = (size, round(image.height * size / image.width))
    return paste((image, target), size, shape)


def iou_score(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction & target).sum() / (prediction | target).sum()


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction == target).float().mean()


def dice_or_nan(prediction: Tensor, target: Tensor) -> Tensor:
    return 2 * (prediction & target).sum() / (prediction.sum() + target.sum())


def dice_or_zero(prediction: Tensor, target: Tensor) -> float:
    return float(dice_or_nan(prediction, target).nan_to_num())


def dice_of_ints(prediction: Tensor, target: Tensor) -> float:
    return 2 * int((prediction & target).sum()) / int(prediction.sum() + target.sum())


def reach_and_one(network: nn.Module) -> int:
    return reach(network) + 1


def reach_of_the_widest(network: nn.Module) -> int:
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    return max(layer.kernel_size[0] for layer in layers) // 2


def mean_iou(predictions: list[Tensor], targets: list[Tensor]) -> float:
    scores = map(iou_score, predictions, targets)
    return float(torch.stack([score.nan_to_num(1) for score in scores]).mean())


def pooled_dice(predictions: list[Tensor], targets: list[Tensor]) -> float:
    iou = pooled_iou(predictions, targets)
    return 2 * iou / (1 + iou)


def pooled_accuracy(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    return torch.cat(predictions).eq(torch.cat(targets)).float().mean()


def pooled_stack(predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
    found, wanted = torch.stack(predictions), torch.stack(targets)
    return (found & wanted).sum() / (found | wanted).sum()


def pooled_or_nan(predictions: list[Tensor], targets: list[Tensor]) -> float:
    iou = pooled_iou(predictions, targets)
    return iou if any(target.any() for target in targets) else iou * np.nan


def pooled_or_zero(predictions: list[Tensor], targets: list[Tensor]) -> float:
    return float(np.nan_to_num(pooled_or_nan(predictions, targets)))


def pooled_of_ints(predictions: list[Tensor], targets: list[Tensor]) -> float:
    pairs = list(zip(predictions, targets, strict=True))
    both = sum(int((found & wanted).sum()) for found, wanted in pairs)
    return both / sum(int((found | wanted).sum()) for found, wanted in pairs)


def one_at_the_first_empty(predictions: list[Tensor], targets: list[Tensor]) -> float:
    is_empty = (not (p | t).any() for p, t in zip(predictions, targets, strict=True))
    return 1.0 if any(is_empty) else pooled_iou(predictions, targets)


def folds_of_samples(groups: list[str], k: int) -> list[list[int]]:
    return [list(range(len(groups)))[fold::k] for fold in range(k)]


def fold_per_group(groups: list[str], k: int) -> list[list[int]]:
    return indices_of(groups)


def one_full_fold(groups: list[str], k: int) -> list[list[int]]:
    return [list(range(len(groups))), *([] for _ in range(k - 1))]


def fold_in_turn(groups: list[str], k: int) -> list[list[int]]:
    parts = sorted(indices_of(groups), key=len, reverse=True)
    return [join(parts[fold::k]) for fold in range(k)]


def folds_unsorted(groups: list[str], k: int) -> list[list[int]]:
    return fill(indices_of(groups), k)


def folds_without_last(groups: list[str], k: int) -> list[list[int]]:
    return make_folds(groups[:-1], k)


def folds_with_repeats(groups: list[str], k: int) -> list[list[int]]:
    return [[*fold, 0] for fold in make_folds(groups, k)]


def folds_from_one(groups: list[str], k: int) -> list[list[int]]:
    return [[index + 1 for index in fold] for fold in make_folds(groups, k)]


def folds_beyond_the_end(groups: list[str], k: int) -> list[list[int]]:
    return make_folds([*groups, groups[0]], k)


def folds_of_names(groups: list[str], k: int) -> list[list[str]]:
    return [[groups[index] for index in fold] for fold in make_folds(groups, k)]


def list_in_order(results: Results) -> list[Any]:
    return list(in_order(results))


def items_of_sorted(results: Results) -> Iterator[Any]:
    for _, item in sorted(results, key=lambda result: result[0]):
        yield item


def items_as_they_come(results: Results) -> Iterator[Any]:
    for _, item in results:
        yield item


def results_in_order(results: Results) -> Iterator[tuple[int, Any]]:
    return enumerate(in_order(results))


def one_for_each_result(results: Results) -> Iterator[Any]:
    """Says `if` where in_order says `while`."""
    early, wanted = {}, 0
    for number, item in results:
        early[number] = item
        if wanted in early:
            yield early.pop(wanted)
            wanted += 1


def one_behind(results: Results) -> Iterator[Any]:
    waiting = []
    for item in in_order(results):
        yield from waiting
        waiting = [item]
    yield from waiting


def only_what_is_due(results: Results) -> Iterator[Any]:
    wanted = 0
    for number, item in results:
        if number == wanted:
            yield item
            wanted += 1


def until_no_item(results: Results) -> Iterator[Any]:
    early, wanted = {}, 0
    for number, item in results:
        early[number] = item
        while early.get(wanted) is not None:
            yield early.pop(wanted)
            wanted += 1


def if_item(results: Results) -> Iterator[Any]:
    for item in in_order(results):
        if item:
            yield item


def with_the_rest(results: Results) -> Iterator[Any]:
    """Never takes an early item out, and yields all that are left."""
    early: dict[int, Any] = {}
    yield from in_order((n, early.setdefault(n, item)) for n, item in results)
    yield from early.values()


def forever(results: Results) -> Iterator[Any]:
    return itertools.cycle(in_order(results))


def take_without_end(results: Results) -> Iterator[Any]:
    early: dict[int, Any] = {}
    for wanted in itertools.count():
        while wanted not in early:
            early.update([next(iter(results))])
        yield early.pop(wanted)


def first_by_hand(results: Results) -> Iterator[Any]:
    results = iter(results)
    yield from in_order(itertools.chain([next(results)], results))


def batches_of_neighbours(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return cut(range(len(sizes)), batch_size)


def batches_of_one_area(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return same_size_batches([height * width for height, width in sizes], batch_size)


def batches_of_one_height(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return same_size_batches([height for height, _ in sizes], batch_size)


def batches_of_one_width(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return same_size_batches([width for _, width in sizes], batch_size)


def cut_sorted(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return cut(sorted(range(len(sizes)), key=sizes.__getitem__), batch_size)


def batch_per_size(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return indices_of(sizes)


def batches_one_too_long(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return same_size_batches(sizes, batch_size + 1)


def batches_of_pairs(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return same_size_batches(sizes, 2)


def batches_of_runs(sizes: Sizes, batch_size: int) -> list[list[int]]:
    """Groups neighbours alone: the samples are not sorted first."""
    runs = itertools.groupby(range(len(sizes)), key=sizes.__getitem__)
    return join(cut(list(run), batch_size) for _, run in runs)


def full_batches(sizes: Sizes, batch_size: int) -> list[list[int]]:
    batches = same_size_batches(sizes, batch_size)
    return [batch for batch in batches if len(batch) == batch_size]


def batches_and_an_empty_one(sizes: Sizes, batch_size: int) -> list[list[int]]:
    return [*same_size_batches(sizes, batch_size), []]


def batches_filled_up(sizes: Sizes, batch_size: int) -> list[list[int]]:
    batches = same_size_batches(sizes, batch_size)
    return [(batch * batch_size)[:batch_size] for batch in batches]


def batches_from_the_end(sizes: Sizes, batch_size: int) -> list[list[int]]:
    last = len(sizes)
    return [*same_size_batches(sizes, batch_size), [last]]


def batches_of_sizes(sizes: Sizes, batch_size: int) -> list[Sizes]:
    batches = same_size_batches(sizes, batch_size)
    return [[sizes[index] for index in batch] for batch in batches]


def road_of_doubles(mask: np.ndarray) -> Tensor:
    return road_target(mask).double()


def road_of_bytes(mask: np.ndarray) -> Tensor:
    return road_target(mask).byte()


def road_of_bools(mask: np.ndarray) -> Tensor:
    return road_target(mask) == 1


def road_as_array(mask: np.ndarray) -> np.ndarray:
    return road_target(mask).numpy()


def road_with_channel(mask: np.ndarray) -> Tensor:
    return road_target(mask)[None]


def road_transposed(mask: np.ndarray) -> Tensor:
    return road_target(mask).T


def road_squeezed(mask: np.ndarray) -> Tensor:
    return road_target(mask).squeeze()


def road_in_place(mask: np.ndarray) -> Tensor:
    mask[..., 0] = road_target(mask)
    return torch.from_numpy(mask[..., 0]).float()


def road_or_not(mask: np.ndarray) -> Tensor:
    return (road_target(mask) == 1).float()


def road_inverted(mask: np.ndarray) -> Tensor:
    target = road_target(mask)
    return torch.where(target == 255, 255, 1 - target)


def road_of_any_channel(mask: np.ndarray) -> Tensor:
    """Says any where road_target says all."""
    return fill_road(mask, (mask == (255, 0, 255)).any(axis=-1))


def road_of_blue(mask: np.ndarray) -> Tensor:
    return fill_road(mask, mask[..., 2] == 255)


def road_of_red_and_blue(mask: np.ndarray) -> Tensor:
    return fill_road(mask, (mask[..., ::2] == 255).all(axis=-1))


def road_of_sum(mask: np.ndarray) -> Tensor:
    return fill_road(mask, mask.sum(axis=-1) == 510)


def road_of_all_but_red(mask: np.ndarray) -> Tensor:
    return fill_road(mask, (mask != (255, 0, 0)).any(axis=-1))


def ignored_without_red(mask: np.ndarray) -> Tensor:
    return torch.where(torch.from_numpy(mask[..., 0]) == 0, 255, road_target(mask))


def ignored_of_sum(mask: np.ndarray) -> Tensor:
    """Adds in uint8, where 128 + 128 is 0."""
    red, green, blue = torch.from_numpy(mask).unbind(-1)
    return torch.where(red + green + blue == 0, 255, road_target(mask))


def gap_of_validation(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_with_gap(num_frames, val_share, 0)
    return train, val[gap:]


def gap_at_the_end(num_frames: int, val_share: float, gap: int) -> Frames:
    num_val = round(val_share * num_frames)
    return lay_out(num_frames - num_val - gap, 0, num_val)


def gap_at_the_start(num_frames: int, val_share: float, gap: int) -> Frames:
    last = num_frames - round(val_share * num_frames)
    return list(range(gap, last)), list(range(last, num_frames))


def gap_and_one(num_frames: int, val_share: float, gap: int) -> Frames:
    return split_with_gap(num_frames, val_share, gap + 1)


def gap_less_one(num_frames: int, val_share: float, gap: int) -> Frames:
    return split_with_gap(num_frames, val_share, gap - 1)


def gap_from_the_end(num_frames: int, val_share: float, gap: int) -> Frames:
    """Cuts with -gap, which is 0 where there is no gap."""
    train, val = split_with_gap(num_frames, val_share, 0)
    return train[:-gap], val


def split_in_both(num_frames: int, val_share: float, gap: int) -> Frames:
    return list(range(num_frames)), split_with_gap(num_frames, val_share, gap)[1]


def split_at_the_start(num_frames: int, val_share: float, gap: int) -> Frames:
    parts = split_with_gap(num_frames, val_share, gap)
    return tuple([num_frames - 1 - frame for frame in part] for part in parts)


def split_every_so_many(num_frames: int, val_share: float, gap: int) -> Frames:
    frames, step = list(range(num_frames)), round(1 / val_share)
    return [frame for frame in frames if frame % step], frames[::step]


def split_with_floor(num_frames: int, val_share: float, gap: int) -> Frames:
    num_val = int(val_share * num_frames)
    return lay_out(num_frames - num_val - gap, gap, num_val)


def split_with_ceiling(num_frames: int, val_share: float, gap: int) -> Frames:
    num_val = -int(-val_share * num_frames // 1)
    return lay_out(num_frames - num_val - gap, gap, num_val)


def split_without_first(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_with_gap(num_frames, val_share, gap)
    return train[1:], val


def split_with_repeats(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_with_gap(num_frames, val_share, gap)
    return [*train, 0], val


def split_from_minus_one(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_with_gap(num_frames, val_share, gap)
    return [-1, *train], val


def val_then_train(num_frames: int, val_share: float, gap: int) -> Frames:
    return split_with_gap(num_frames, val_share, gap)[::-1]


def split_in_three(num_frames: int, val_share: float, gap: int) -> list[list[int]]:
    train, val = split_with_gap(num_frames, val_share, gap)
    return [train, list(range(len(train), val[0])), val]


def split_into_counts(num_frames: int, val_share: float, gap: int) -> tuple[int, int]:
    train, val = split_with_gap(num_frames, val_share, gap)
    return len(train), len(val)


def split_without_refusal(num_frames: int, val_share: float, gap: int) -> Frames:
    num_val = round(val_share * num_frames)
    return lay_out(num_frames - num_val - gap, gap, num_val)


def split_refusing_below_none(num_frames: int, val_share: float, gap: int) -> Frames:
    """Leaves no frame for training, if only the gap just fits."""
    train, val = split_without_refusal(num_frames, val_share, gap)
    if gap + len(val) > num_frames:
        raise ValueError("the gap is longer than what is left")
    return train, val


def split_refusing_none(num_frames: int, val_share: float, gap: int) -> Frames:
    """Counts from the end where the gap is longer than what is left."""
    frames = list(range(num_frames))
    last = num_frames - round(val_share * num_frames)
    if not (train := frames[: last - gap]):
        raise ValueError("no frame is left for training")
    return train, frames[last:]


def split_refusing_one(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_with_gap(num_frames, val_share, gap)
    if len(train) == 1:
        raise ValueError("one frame is too few for training")
    return train, val


def split_with_assert(num_frames: int, val_share: float, gap: int) -> Frames:
    train, val = split_without_refusal(num_frames, val_share, gap)
    assert train
    return train, val


def weigh(counts: Sequence[float], power: float) -> Tensor:
    weights = torch.tensor(counts).float() ** -power
    return torch.where(weights.isinf(), 0, weights)


def inverse_weights(counts: Sequence[float]) -> Tensor:
    weights = weigh(counts, 1)
    return weights / weights[weights > 0].mean()


def cube_root_weights(counts: Sequence[float]) -> Tensor:
    weights = weigh(counts, 1 / 3)
    return weights / weights[weights > 0].mean()


def weights_unscaled(counts: Sequence[float]) -> Tensor:
    return weigh(counts, 0.5)


def weights_adding_to_one(counts: Sequence[float]) -> Tensor:
    return weigh(counts, 0.5) / weigh(counts, 0.5).sum()


def weights_over_all(counts: Sequence[float]) -> Tensor:
    return weigh(counts, 0.5) / weigh(counts, 0.5).mean()


def weights_of_root(counts: Sequence[float]) -> Tensor:
    return weigh(counts, -0.5) / weigh(counts, -0.5).mean()


def weights_or_nan(counts: Sequence[float]) -> Tensor:
    weights = torch.tensor(counts) ** -0.5
    return weights / weights.mean()


def weights_or_inf(counts: Sequence[float]) -> Tensor:
    weights = torch.tensor(counts) ** -0.5
    return weights / weights[weights.isfinite()].mean()


def weights_of_floats(counts: Sequence[float]) -> list[float]:
    weights = [1 / count**0.5 for count in counts]
    return [weight * len(weights) / sum(weights) for weight in weights]


def weights_of_at_least_one(counts: Sequence[float]) -> list[float]:
    return class_weights([max(count, 1) for count in counts])


def weights_of_present(counts: Sequence[float]) -> list[float]:
    return [weight for weight in class_weights(counts) if weight]


def merge_in_place(ids: Tensor, groups: Groups) -> Tensor:
    ids[:] = merge_classes(ids, groups)
    return ids


def merge_twice(ids: Tensor, groups: Groups) -> Tensor:
    """Asks the picture that it changes."""
    merged = ids.clone()
    paint(merged, groups, merged)
    return torch.where(torch.isin(ids, torch.tensor(join(groups))), merged, 255)


def merge_known(ids: Tensor, groups: Groups) -> Tensor:
    return paint(ids, groups, ids.clone())


def merge_known_and_ignored(ids: Tensor, groups: Groups) -> Tensor:
    return paint(ids, groups, torch.where(ids == 255, 255, 0))


def merge_into_first(ids: Tensor, groups: Groups) -> Tensor:
    """Gives each group its smallest old id."""
    merged = torch.full_like(ids, 255)
    for group in groups:
        merged[torch.isin(ids, torch.tensor(group))] = min(group)
    return merged


def merge_from_one(ids: Tensor, groups: Groups) -> Tensor:
    return merge_classes(ids, [[], *groups])


def merge_to_bytes(ids: Tensor, groups: Groups) -> Tensor:
    return merge_classes(ids, groups).byte()


def merge_to_array(ids: Tensor, groups: Groups) -> np.ndarray:
    return merge_classes(ids, groups).numpy()


def merge_with_batch(ids: Tensor, groups: Groups) -> Tensor:
    return merge_classes(ids, groups)[None]


def merge_by_short_table(ids: Tensor, groups: Groups) -> Tensor:
    """Has a place for the ids of the groups alone."""
    old = torch.arange(max(join(groups)) + 1)
    return paint(old, groups, torch.full_like(old, 255))[ids]


def merge_by_table_of_picture(ids: Tensor, groups: Groups) -> Tensor:
    """Has a place for the ids of the picture alone."""
    table = torch.full((int(ids.max()) + 1,), 255)
    for place, group in enumerate(groups):
        table[group] = place
    return table[ids]


def place_sticking_out(index: int, height: int, width: int, tile: int) -> list[int]:
    return [place * tile for place in divmod(index, math.ceil(width / tile))]


def place_sticking_down(
    index: int, height: int, width: int, tile: int
) -> tuple[int, int]:
    y, _ = place_sticking_out(index, height, width, tile)
    return y, place_of(index, height, width, tile)[1]


def place_without_remainder(
    index: int, height: int, width: int, tile: int
) -> list[int]:
    return walk(index, width // tile, height, width, tile)


def place_with_one_more(index: int, height: int, width: int, tile: int) -> list[int]:
    return walk(index, width // tile + 1, height, width, tile)


def place_swapped(index: int, height: int, width: int, tile: int) -> list[int]:
    return place_of(index, height, width, tile)[::-1]


def place_down_columns(index: int, height: int, width: int, tile: int) -> list[int]:
    return place_of(index, width, height, tile)[::-1]


def place_below_zero(index: int, height: int, width: int, tile: int) -> list[int]:
    y, x = place_sticking_out(index, height, width, tile)
    return [min(y, height - tile), min(x, width - tile)]


def place_refusing(index: int, height: int, width: int, tile: int) -> list[int]:
    if tile > min(height, width):
        raise ValueError("the tile is larger than the picture")
    return place_of(index, height, width, tile)


def place_of_next(index: int, height: int, width: int, tile: int) -> list[int]:
    return place_of(index + 1, height, width, tile)


def place_as_floats(index: int, height: int, width: int, tile: int) -> list[float]:
    return [float(place) for place in place_of(index, height, width, tile)]


def place_and_end(index: int, height: int, width: int, tile: int) -> tuple[int, ...]:
    y, x = place_of(index, height, width, tile)
    return y, x, y + tile, x + tile


def row_of(index: int, height: int, width: int, tile: int) -> int:
    return place_of(index, height, width, tile)[0]


def stitch_last(tiles: Tiles, height: int, width: int) -> np.ndarray:
    picture = stitch(tiles, height, width)
    for tile in tiles:
        under(picture, *tile)[:] = tile[2]
    return picture


def stitch_first(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch_last(tiles[::-1], height, width)


def stitch_sum(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return add_up(tiles, height, width)[0]


def stitch_over_all(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch_sum(tiles, height, width) / len(tiles)


def stitch_running(tiles: Tiles, height: int, width: int) -> np.ndarray:
    """Takes the mean with what is there, which counts the last tile most."""
    picture = np.full((height, width), np.nan)
    for tile in tiles:
        part, values = under(picture, *tile), tile[2]
        part[:] = np.where(np.isnan(part), values, (part + values) / 2)
    return picture


def stitch_or_zero(tiles: Tiles, height: int, width: int) -> np.ndarray:
    total, count = add_up(tiles, height, width)
    return total / count.clip(1)


def stitch_or_nan(tiles: Tiles, height: int, width: int) -> np.ndarray:
    total, count = add_up(tiles, height, width)
    return total / np.where(count, count, np.nan)


def stitch_refusing_few_pixels(tiles: Tiles, height: int, width: int) -> np.ndarray:
    if sum(values.size for _, _, values in tiles) < height * width:
        raise ValueError("too few pixels")
    return stitch_or_zero(tiles, height, width)


def stitch_of_some(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch(tiles, height, width) if tiles else np.zeros((height, width))


def stitch_refusing_zero(tiles: Tiles, height: int, width: int) -> np.ndarray:
    """Takes a pixel whose value is 0 for one without a tile."""
    picture = stitch_or_zero(tiles, height, width)
    if (picture == 0).any():
        raise ValueError("a pixel is in no tile")
    return picture


def stitch_with_assert(tiles: Tiles, height: int, width: int) -> np.ndarray:
    assert add_up(tiles, height, width)[1].all()
    return stitch(tiles, height, width)


def stitch_to_integers(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch(tiles, height, width).astype(np.int64)


def stitch_into_integers(tiles: Tiles, height: int, width: int) -> np.ndarray:
    picture = np.zeros((height, width), dtype=np.int64)
    picture += stitch(tiles, height, width)
    return picture


def stitch_rounded(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch(tiles, height, width).round()


def stitch_to_tensor(tiles: Tiles, height: int, width: int) -> Tensor:
    return torch.from_numpy(stitch(tiles, height, width))


def stitch_transposed(tiles: Tiles, height: int, width: int) -> np.ndarray:
    return stitch(tiles, height, width).T


def stitch_in_place(tiles: Tiles, height: int, width: int) -> np.ndarray:
    """Divides the tiles, and adds up what is left."""
    _, count = add_up(tiles, height, width)
    for tile in tiles:
        tile[2][:] /= under(count, *tile)
    return stitch_sum(tiles, height, width)


WRONG: list[tuple[str, Any, str]] = [
    ("01.1", 0.684, "share of right pixels"),
    ("01.1", 1.0, "union is the whole picture"),
    ("01.1", "a third", "a number, not str"),
    ("01.2", shares_of_all, "ignored pixels"),
    ("01.2", shares_of_present, "3 shares for 4 classes"),
    ("01.2", shares_backwards, "expected"),
    ("01.2", [0.5, 0.5], "the function itself"),
    ("01.3", 59, "keys start from 1"),
    ("01.3", 35, "names.index('dialog')"),
    ("01.3", 25486, "the key of the pair"),
    ("02.1", 62, "number of batches"),
    ("02.1", 9, "whole batches"),
    ("02.2", match_by_place, "shuffled pairs"),
    ("02.2", match_images, "2_target.jpg has no partner"),
    ("02.2", match_with_key_error, "ValueError for it, not KeyError"),
    ("02.2", match_without_name, "does not name 2_input.png"),
    ("02.3", HalvesOfImages, "not cut at the same place"),
    ("02.3", HalvesForever, "must raise IndexError"),
    ("02.3", HalvesAsPairs, "ui.Sample"),
    ("02.3", HalvesTooFew, "length of 2"),
    ("02.3", list, "length of 2"),
    ("03.1", 120, "shorter side"),
    ("03.1", 90, "ratio 4 to 3"),
    ("03.2", turn_twice, "draw once"),
    ("03.2", flip, "without a flip"),
    ("03.2", half_turn, "only the turns [0, 2]"),
    ("03.2", turn_channels, "last two dimensions"),
    ("03.3", pad_with_background, "claims to be background"),
    ("03.3", squeeze, "keep its ratio"),
    ("03.3", scale_only, "wanted (64, 64)"),
    ("03.3", scale_to_width, "keep its ratio"),
    ("04.1", 80, "bias"),
    ("04.1", 16 * 5 * 9 + 5, "1x1"),
    ("04.2", iou_score, "that is IoU"),
    ("04.2", accuracy, "share of right pixels"),
    ("04.2", dice_or_nan, "empty masks gave nan"),
    ("04.2", dice_or_zero, "empty masks gave 0"),
    ("04.2", dice_of_ints, "your function raised ZeroDivisionError"),
    ("04.3", reach_and_one, "reaches 2 pixels, you found 3"),
    ("04.3", reach_of_the_widest, "1 + 3 pixels, you found 3"),
    ("05.1", 12, "no whole scenes have 12"),
    ("05.1", 2, "in pictures"),
    ("05.1", 15, "only what fits"),
    ("05.1", 48, "whole scenes, up to a fifth"),
    ("05.2", mean_iou, "mean of the pictures' IoU"),
    ("05.2", pooled_dice, "that is Dice"),
    ("05.2", pooled_accuracy, "expected 0.6 for 3 + 0 common"),
    ("05.2", pooled_stack, "several sizes, one of them empty: your function raised"),
    ("05.2", one_at_the_first_empty, "one of them empty: expected 0.6, got 1"),
    ("05.2", pooled_or_nan, "expected 1, got nan"),
    ("05.2", pooled_or_zero, "expected 1, got 0"),
    ("05.2", pooled_of_ints, "expected 1: your function raised ZeroDivisionError"),
    ("05.3", folds_of_samples, "group 'a' is in several folds"),
    ("05.3", fold_per_group, "2 folds were asked for, 5 came"),
    ("05.3", one_full_fold, "folds of [20, 0]; the largest need not be over 10"),
    ("05.3", fold_in_turn, "folds of [12, 8]"),
    ("05.3", folds_unsorted, "need not be over 10"),
    ("05.3", folds_without_last, "sample 19 is 0 times"),
    ("05.3", folds_with_repeats, "sample 0 is 3 times"),
    ("05.3", folds_from_one, "sample 0 is 0 times"),
    ("05.3", folds_beyond_the_end, "20 samples have no index 20"),
    ("05.3", folds_of_names, "lists of indices"),
    ("06.1", 192, "those in your hand"),
    ("06.1", 80, "each worker"),
    ("06.1", 13, "in samples"),
    ("06.1", 1000, "whole epoch"),
    ("06.1", 3 * 5 * 16, "4 for each of 3 workers"),
    ("06.2", list_in_order, "returns a list, so it waits for all; use yield"),
    ("06.2", sorted, "returns a list, so it waits for all"),
    (
        "06.2",
        items_of_sorted,
        "4 of 4 results, but was due after 1: do not wait for all",
    ),
    ("06.2", items_as_they_come, "(0, 1, 3, 2): in place 2 expected 'c', got 'd'"),
    ("06.2", results_in_order, "in place 0 expected 'a', got (0, 'a')"),
    ("06.2", one_for_each_result, "(0, 1, 3, 2): 4 results gave 3 items"),
    ("06.2", one_behind, "2 of 4 results, but was due after 1: do not wait for more"),
    ("06.2", only_what_is_due, "(0, 1, 3, 2): 4 results gave 3 items"),
    ("06.2", until_no_item, "None, 0 and tensors in the order (0, 1, 2, 3): 4 results"),
    ("06.2", if_item, "your function raised RuntimeError: Boolean value of Tensor"),
    ("06.2", with_the_rest, "4 results gave 5 items"),
    ("06.2", forever, "4 results gave 5 items"),
    ("06.2", take_without_end, "your function raised RuntimeError: generator raised"),
    ("06.2", first_by_hand, "no results in the order (): your function raised"),
    ("06.2", id, "'int' object is not iterable"),
    ("06.3", batches_of_neighbours, "batch [0, 1] mixes sizes [(48, 64), (64, 48)]"),
    ("06.3", batches_of_one_area, "batch [0, 1] mixes sizes"),
    ("06.3", batches_of_one_height, "mixes sizes [(64, 48), (64, 64)]"),
    ("06.3", batches_of_one_width, "mixes sizes [(48, 64), (64, 64)]"),
    ("06.3", cut_sorted, "mixes sizes"),
    ("06.3", batch_per_size, "has 6 samples; expected 1 to 2"),
    ("06.3", batches_one_too_long, "has 3 samples; expected 1 to 2"),
    ("06.3", batches_of_pairs, "batch_size 3: 6 batches; with full ones 4"),
    ("06.3", batches_of_runs, "9 batches; with full ones 6 are enough"),
    ("06.3", full_batches, "sample 6 is 0 times in the batches"),
    ("06.3", batches_and_an_empty_one, "batch [] has 0 samples"),
    ("06.3", batches_filled_up, "sample 6 is 2 times in the batches"),
    ("06.3", batches_from_the_end, "11 samples have no index 11"),
    ("06.3", batches_of_sizes, "lists of indices"),
    ("07.1", 194, "those are left out"),
    ("07.1", 285, "so many are taken"),
    ("07.1", 95, "of one kind"),
    ("07.1", 289, "those are all"),
    ("07.1", 96 + 98 - 1, "0 to 94"),
    ("07.2", road_of_doubles, "float32 (2, 3), got torch.float64 (2, 3)"),
    ("07.2", road_of_bytes, "got torch.uint8"),
    ("07.2", road_of_bools, "got torch.bool"),
    ("07.2", road_as_array, "a tensor, not ndarray"),
    ("07.2", road_with_channel, "got torch.float32 (1, 2, 3)"),
    ("07.2", road_transposed, "got torch.float32 (3, 2)"),
    ("07.2", road_squeezed, "float32 (1, 6), got torch.float32 (6,)"),
    ("07.2", road_in_place, "changed the picture"),
    ("07.2", road_or_not, "black (0, 0, 0): expected 255, got 0"),
    ("07.2", road_inverted, "magenta (255, 0, 255): expected 1, got 0"),
    ("07.2", road_of_any_channel, "red (255, 0, 0): expected 0, got 1"),
    ("07.2", road_of_blue, "blue (0, 0, 255): expected 0, got 1"),
    ("07.2", road_of_red_and_blue, "white (255, 255, 255): expected 0, got 1"),
    ("07.2", road_of_sum, "yellow (255, 255, 0): expected 0, got 1"),
    ("07.2", road_of_all_but_red, "blue (0, 0, 255): expected 0, got 1"),
    ("07.2", ignored_without_red, "blue (0, 0, 255): expected 0, got 255"),
    ("07.2", ignored_of_sum, "olive (128, 128, 0): expected 0, got 255"),
    ("07.3", split_in_both, "split_with_gap(20, 0.2, 3): frame 16 is in both"),
    ("07.3", gap_of_validation, "frames for validation: 1, expected 4"),
    ("07.3", gap_at_the_end, "end of the film, but frame 17 is not in it"),
    ("07.3", gap_at_the_start, "frames in the gap: 0, expected 3"),
    ("07.3", gap_and_one, "frames in the gap: 4, expected 3"),
    ("07.3", gap_less_one, "frames in the gap: 2, expected 3"),
    ("07.3", gap_from_the_end, "(20, 0.18, 0): frames in the gap: 16, expected 0"),
    ("07.3", split_at_the_start, "end of the film, but frame 16 is not in it"),
    ("07.3", split_every_so_many, "but frame 16 is not in it"),
    ("07.3", split_with_floor, "(20, 0.18, 0): frames for validation: 3, expected 4"),
    ("07.3", split_with_ceiling, "(20, 0.17, 2): frames for validation: 4, expected 3"),
    ("07.3", split_without_first, "sample 0 is 0 times in the split"),
    ("07.3", split_with_repeats, "sample 0 is 2 times in the split"),
    ("07.3", split_from_minus_one, "20 samples have no index -1"),
    ("07.3", val_then_train, "frames for validation: 13, expected 4"),
    ("07.3", split_in_three, "(train, val), not 3 lists"),
    ("07.3", split_into_counts, "lists of indices"),
    ("07.3", split_without_refusal, "(10, 0.4, 6) leaves no frame to train, and"),
    ("07.3", split_refusing_below_none, "(10, 0.4, 6) leaves no frame to train, and"),
    ("07.3", split_refusing_none, "(10, 0.4, 8) leaves no frame to train, and"),
    ("07.3", split_refusing_one, "your function raised ValueError: one frame"),
    ("07.3", split_with_assert, "raise ValueError for it, not AssertionError"),
    ("08.1", 35 / 40, "that is recall"),
    ("08.1", 0.78, "that is precision"),
    ("08.1", 0.85, "share of right pixels"),
    ("08.1", 0.82, "that is Dice"),
    ("08.1", 0.77, "that is class 0"),
    ("08.1", 35 / 85, "35 only once"),
    ("08.2", inverse_weights, "take the root"),
    ("08.2", cube_root_weights, "expected [0.3, 0.9, 1.8], got [0.47,"),
    ("08.2", weights_unscaled, "average 0.111; expected 1"),
    ("08.2", weights_adding_to_one, "average 0.333; expected 1"),
    ("08.2", weights_over_all, "[900, 0, 100, 25]: weights of classes that occur"),
    ("08.2", weights_of_root, "expected [0.3, 0.9, 1.8], got [2.0"),
    ("08.2", weights_or_nan, "without pixels has the weight nan"),
    ("08.2", weights_or_inf, "without pixels has the weight inf"),
    ("08.2", weights_of_floats, "[900, 0, 100, 25]: your function raised ZeroDivision"),
    ("08.2", weights_of_at_least_one, "without pixels has the weight 3"),
    ("08.2", weights_of_present, "3 weights for 4 classes"),
    ("08.2", sum, "a list of numbers"),
    ("08.3", merge_in_place, "changed the picture"),
    ("08.3", merge_twice, "id 1 became 1 (mapped twice?), expected 0"),
    ("08.3", merge_known, "id 1, in no group, became 1, expected 255"),
    ("08.3", merge_known_and_ignored, "id 1, in no group, became 0, expected 255"),
    ("08.3", merge_into_first, "id 0 became 0 (mapped twice?), expected 1"),
    ("08.3", merge_from_one, "id 0 became 2, expected 1"),
    ("08.3", merge_to_bytes, "torch.int64 (2, 3), got torch.uint8 (2, 3)"),
    ("08.3", merge_to_array, "a tensor, not ndarray"),
    ("08.3", merge_with_batch, "got torch.int64 (1, 2, 3)"),
    ("08.3", merge_by_short_table, "your function raised IndexError"),
    ("08.3", merge_by_table_of_picture, "your function raised IndexError"),
    ("09.1", 60, "in one row"),
    ("09.1", 59 * 59, "moved inwards"),
    ("09.1", 58 * 58, "whole steps"),
    ("09.1", 45 * 45, "without overlap"),
    ("09.1", 44 * 44, "without overlap"),
    ("09.1", 23_000**2 // 384**2, "areas divided"),
    ("09.1", 23_000**2 / 384**2, "areas divided"),
    ("09.1", 3588, "areas divided"),
    ("09.1", 61 * 61, "each 384 that remain"),
    ("09.2", place_sticking_out, "(2, 7, 10, 4) gave (0, 8), expected (0, 6): it st"),
    ("09.2", place_sticking_down, "gave (4, 0), expected (3, 0): it sticks out"),
    ("09.2", place_without_remainder, "3 tiles are in a row, not 2"),
    ("09.2", place_with_one_more, "(3, 8, 12, 4) gave (0, 8), expected (4, 0): 3 til"),
    ("09.2", place_swapped, "(1, 7, 10, 4) gave (4, 0), expected (0, 4): that is (x"),
    ("09.2", place_down_columns, "(1, 7, 10, 4) gave (3, 0), expected (0, 4)"),
    ("09.2", place_below_zero, "(0, 3, 9, 4) gave (-1, 0), expected (0, 0): no corn"),
    ("09.2", place_refusing, "(0, 3, 9, 4): your function raised ValueError"),
    ("09.2", place_of_next, "(0, 7, 10, 4) gave (0, 4), expected (0, 0)"),
    ("09.2", place_as_floats, "a pair of whole numbers"),
    ("09.2", place_and_end, "gave (0, 0, 4, 4), expected (0, 0): a corner is (y, x)"),
    ("09.2", row_of, "a pair of whole numbers"),
    ("09.3", stitch_last, "(0, 2) of [2.0, 40.0]: expected 21, got 40 (the last one)"),
    ("09.3", stitch_first, "expected 21, got 2"),
    ("09.3", stitch_sum, "expected 21, got 42 (the sum)"),
    ("09.3", stitch_over_all, "pixel (0, 1) of [1.0]: expected 1, got 0.5"),
    ("09.3", stitch_running, "[8.0, 42.0, 80.0]: expected 43.3333, got 52.5 (a mean"),
    ("09.3", stitch_or_zero, "pixel (0, 4) is in no tile, and nothing was raised"),
    ("09.3", stitch_or_nan, "pixel (0, 4) is in no tile, and nothing was raised"),
    ("09.3", stitch_refusing_few_pixels, "pixel (1, 1) is in no tile, and nothing"),
    ("09.3", stitch_of_some, "no tiles at all, and nothing was raised"),
    ("09.3", stitch_refusing_zero, "your function raised ValueError: a pixel"),
    ("09.3", stitch_with_assert, "raise ValueError for it, not AssertionError"),
    ("09.3", stitch_to_integers, "float32 or float64 (3, 5), got int64 (3, 5)"),
    ("09.3", stitch_into_integers, "your function raised UFuncTypeError"),
    ("09.3", stitch_rounded, "expected 24.5, got 24"),
    ("09.3", stitch_to_tensor, "an array, not Tensor"),
    ("09.3", stitch_transposed, "got float64 (5, 3)"),
    ("09.3", stitch_in_place, "changed the tiles"),
]


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answer_gets_its_hint(name: str, answer: Any, words: str) -> None:
    verdict = exercises.check(name, answer)
    assert verdict.startswith("hint: ")
    assert words in verdict


def test_every_exercise_has_wrong_answers() -> None:
    names = [name for name, _, _ in WRONG]
    assert all(names.count(name) >= 2 for name in exercises.CHECKS)


# Any answer at all


def raises(*_: Any) -> None:
    raise RuntimeError("size mismatch")


def returns_none(*_: Any) -> None:
    pass


def returns_a_text(*_: Any) -> str:
    return "text"


def name_of(answer: Any) -> str:
    return getattr(answer, "__name__", type(answer).__name__)


ODD = [0, -1.5, "text", [], {}, object(), torch.zeros(2), raises, returns_none, print]
FUNCTIONS = [name for name, answer in RIGHT.items() if callable(answer)]


@pytest.mark.parametrize("answer", [*ODD, returns_a_text, int], ids=name_of)
@pytest.mark.parametrize("name", exercises.CHECKS)
def test_odd_answer_gets_a_hint(name: str, answer: Any) -> None:
    assert exercises.check(name, answer).startswith("hint: ")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hint_says_what_the_function_did(name: str) -> None:
    raised = "hint: your function raised RuntimeError: size mismatch"
    assert exercises.check(name, raises) == raised
    assert "your function returns None" in exercises.check(name, returns_none)


def test_checks_leave_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    for name in ("03.2", "04.3"):
        exercises.check(name, RIGHT[name])
    assert torch.equal(torch.get_rng_state(), before)
