"""The checks of the exercises: each answers "not answered yet", a hint, or "ok"."""

import copy
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import cache, reduce
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import nn

import ui_segmentation_system as ui

INPUTS = Path(__file__).resolve().parents[1] / "test_inputs"
NOT_YET = "not answered yet"
OK = "ok"

CHECKS: dict[str, Callable[[Any], str]] = {}


class Hint(Exception):
    """Ends a check with what to tell the learner."""


def check(exercise: str, answer: Any) -> str:
    """Judge an answer to an exercise, such as "01.2"; None is no answer yet.

    Whatever the answer does, nothing is raised. Raises KeyError for no such exercise.
    """
    judge = CHECKS[exercise]
    if answer is None:
        return NOT_YET
    try:
        return judge(answer)
    except Hint as hint:
        return f"hint: {hint}"
    except Exception as error:
        return f"hint: your answer raised {type(error).__name__}: {error}"


def exercise(name: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Enter a check under the name of its exercise."""

    def enter(function: Callable[[Any], str]) -> Callable[[Any], str]:
        CHECKS[name] = function
        return function

    return enter


def call(function: Any, *arguments: Any) -> Any:
    """Call a learner's function; a Hint where it is none, raises or returns None."""
    if not callable(function):
        raise Hint("the answer is the function itself, without brackets")
    try:
        result = function(*arguments)
    except Exception as error:
        what = f"your function raised {type(error).__name__}: {error}"
        raise Hint(what) from error
    if result is None:
        raise Hint("your function returns None; is its return missing?")
    return result


def call_on(case: str, function: Any, *arguments: Any) -> Any:
    """Call a learner's function as `call` does; the Hint also names the case."""
    try:
        return call(function, *arguments)
    except Hint as hint:
        raise Hint(f"{case}: {hint}") from hint


def number(answer: Any) -> float:
    """Read an answer as a number; a Hint where it is none."""
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Hint(f"the answer is a number, not {type(answer).__name__}") from None


def near(answer: float, wanted: float) -> bool:
    """Whether a number is the wanted one to two digits."""
    return abs(answer - wanted) <= 0.006


def read_numbers(answer: Any) -> list[float]:
    """Read an answer as a list of numbers; a Hint where it is none."""
    try:
        return [float(value) for value in answer]
    except (TypeError, ValueError):
        raise Hint("the answer is a list of numbers") from None


def alike(answer: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether as many numbers are the wanted ones to three digits."""
    return all(abs(a - b) < 1e-4 for a, b in zip(answer, wanted, strict=True))


# Lesson 01


@exercise("01.1")
def iou_of_all_interface(answer: Any) -> str:
    iou = number(answer)
    if near(iou, 0.684):
        return "hint: that is the share of right pixels of 'all background'"
    if near(iou, 1.0):
        return "hint: the mask is inside the answer, but the union is the whole picture"
    return OK if near(iou, 0.316) else "hint: intersection = mask, union = picture"


@exercise("01.2")
def class_shares(answer: Any) -> str:
    ids = torch.tensor([[0, 1, 1, 255], [2, 1, 0, 255]])
    shares = read_numbers(call(answer, ids, 4))
    if len(shares) != 4:
        return f"hint: {len(shares)} shares for 4 classes; a class may be absent"
    if abs(sum(shares) - 1) > 1e-4:
        return f"hint: shares add up to {sum(shares):.2f}; ignored pixels do not count"
    right = [2 / 6, 3 / 6, 1 / 6, 0]
    what = f"for {ids.tolist()} expected {right}, got {shares}"
    return OK if alike(shares, right) else f"hint: {what}"


@cache
def dialog_pixels() -> dict[int, int]:
    """Count the pixels of class "dialog" in each pair, by the pair's key."""
    index = json.loads((INPUTS / "index.json").read_text(encoding="utf-8"))
    dialog = index["class_names"].index("dialog")
    counts = {}
    for key in (item["id"] for item in index["items"]):
        ids = np.array(Image.open(INPUTS / f"classes/{key}_classes.png"))
        counts[key] = int((ids == dialog).sum())
    return counts


@exercise("01.3")
def largest_dialog(answer: Any) -> str:
    counts = dialog_pixels()
    largest = max(counts, key=counts.__getitem__)
    if number(answer) == largest - 1:
        return "hint: that is its place in a list from 0; the keys start from 1"
    if number(answer) == counts[largest]:
        return "hint: so many pixels it covers; the answer is the key of the pair"
    right = number(answer) == largest
    return OK if right else "hint: count (ids == names.index('dialog')) in each pair"


# Lesson 02


@exercise("02.1")
def left_out(answer: Any) -> str:
    if number(answer) == 62:
        return "hint: that is the number of batches"
    return OK if number(answer) == 7 else "hint: whole batches first, then what remains"


def refusal(case: str, function: Any, *arguments: Any) -> str:
    """Give the words of a learner's ValueError; a Hint with the case if none came."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    except Exception as error:
        what = f"raise ValueError for it, not {type(error).__name__}"
        raise Hint(f"{case}; {what}") from error
    raise Hint(f"{case}, and nothing was raised")


def expect_orphan(
    function: Any, inputs: Sequence[str], targets: Sequence[str], orphan: str
) -> None:
    """Call a learner's function; a Hint unless a ValueError names the orphan."""
    case = f"{orphan} has no partner"
    if orphan not in refusal(case, function, list(inputs), list(targets)):
        raise Hint(f"the message does not name {orphan}")


@exercise("02.2")
def match_all(answer: Any) -> str:
    inputs = ("1_input.png", "2_input.png")
    targets = ("2_target.jpg", "1_target.jpg")
    pairs = [tuple(pair) for pair in call(answer, list(inputs), list(targets))]
    if pairs != list(zip(inputs, reversed(targets), strict=True)):
        return f"hint: two shuffled pairs came back as {pairs}"
    expect_orphan(answer, inputs, targets[1:], "2_input.png")
    expect_orphan(answer, inputs[:1], targets, "2_target.jpg")
    return OK


@exercise("02.3")
def halves(answer: Any) -> str:
    first = torch.arange(24).view(1, 4, 6)
    samples = [ui.Sample(values, values) for values in (first, first + 100)]
    dataset = call(answer, samples)
    if len(dataset) != 4:
        return f"hint: 2 samples gave a length of {len(dataset)}"
    left, right = dataset[2], dataset[3]
    if not isinstance(left, ui.Sample):
        return "hint: samples are ui.Sample(image, target)"
    if not torch.equal(torch.cat([left.image, right.image], -1), samples[1].image):
        return "hint: samples 2 and 3 side by side are not sample 1"
    if not all(torch.equal(half.image, half.target) for half in (left, right)):
        return "hint: image and target were not cut at the same place"
    try:
        dataset[4]
    except IndexError:
        return OK
    return "hint: sample 4 of 4 must raise IndexError, or loops never end"


# Lesson 03


@exercise("03.1")
def width_after_resize(answer: Any) -> str:
    if number(answer) == 120:
        return "hint: 120 is the shorter side, which is the height here"
    return OK if number(answer) == 160 else "hint: the ratio 4 to 3 stays"


@exercise("03.2")
def quarter_turn(answer: Any) -> str:
    image = torch.arange(48.0).view(3, 4, 4)
    seen = set()
    for seed in range(40):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            turned, target = call(answer, image, image[:1])
        matches = [k for k in range(4) if turned.equal(image.rot90(k, (-2, -1)))]
        if not matches:
            return "hint: turn, without a flip, in the plane of the last two dimensions"
        if not torch.equal(turned[:1], target):
            return "hint: image and target were turned by different amounts: draw once"
        seen.add(matches[0])
    return OK if len(seen) == 4 else f"hint: only the turns {sorted(seen)} occur"


@exercise("03.3")
def letterbox(answer: Any) -> str:
    for size in ((80, 40), (40, 80)):
        image, mask = Image.new("RGB", size, "white"), Image.new("L", size, 255)
        result_image, target = call(answer, image, mask, 64)
        if not isinstance(target, Image.Image):
            return "hint: pictures in, pictures out"
        if result_image.size != (64, 64) or target.size != (64, 64):
            sizes = f"{result_image.size} and {target.size}"
            return f"hint: {size} became {sizes}, wanted (64, 64) for image and mask"
        values = np.array(target)
        if (values == 0).any():
            return "hint: the padding of the mask claims to be background (0)"
        if (values == 255).sum() != 64 * 32:
            return "hint: the picture covers half of the square here; keep its ratio"
        if (values == 128).sum() != 64 * 32:
            return "hint: pad the mask with ignored, 128"
    return OK


# Lesson 04


@exercise("04.1")
def head_parameters(answer: Any) -> str:
    if number(answer) == 80:
        return "hint: those are the weights; each output channel also has a bias"
    return OK if number(answer) == 85 else "hint: 16 channels in, 5 out, 1x1 pixels"


@exercise("04.2")
def dice_score(answer: Any) -> str:
    prediction = torch.tensor([True, True, True, False, False, False, False, False])
    target = torch.tensor([True, False, False, True, False, False, False, False])
    nothing = torch.zeros(8, dtype=torch.bool)
    score = float(call(answer, prediction, target))
    if near(score, 1 / 4):
        return "hint: that is IoU; Dice counts the common pixels twice"
    if near(score, 5 / 8):
        return "hint: that is the share of right pixels, background and all"
    if not near(score, 2 / 5):
        return f"hint: expected 0.4 for 1 common pixel of 3 and 2, got {score:.2f}"
    empty = float(call(answer, nothing, nothing))
    return OK if near(empty, 1) else f"hint: two empty masks gave {empty}, expected 1"


@exercise("04.3")
def reach(answer: Any) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = nn.Conv2d(3, 1, 5, padding=2)
        two = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 7, padding=3)
        )
        found = int(call(answer, one))
        if found != 2:
            return f"hint: one 5x5 convolution reaches 2 pixels, you found {found}"
        found = int(call(answer, two))
    reaches = "a 3x3 and a 7x7 convolution reach 1 + 3 pixels"
    return OK if found == 4 else f"hint: {reaches}, you found {found}"


# Lesson 05


@exercise("05.1")
def whole_scenes(answer: Any) -> str:
    if number(answer) == 12:
        return "hint: 12 is a fifth of 60, but no whole scenes have 12 pictures"
    if number(answer) == 2:
        return "hint: so many scenes; the answer is in pictures"
    if number(answer) == 15:
        return "hint: three scenes are more than a fifth; only what fits goes"
    return OK if number(answer) == 10 else "hint: whole scenes, up to a fifth of 60"


@exercise("05.2")
def pooled_iou(answer: Any) -> str:
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    rows = ([1, 1, 1, 0, 0], [0, 0, 0, 0, 1]), ([1, 1, 1, 1, 0], [0, 0, 0, 0, 0])
    predictions, targets = (
        [torch.tensor([row], dtype=torch.bool) for row in part] for part in rows
    )
    score = float(call(answer, list(predictions), list(targets)))
    if near(score, (3 / 4 + 0) / 2):
        return "hint: that is the mean of the pictures' IoU; add up pixels, then divide"
    if near(score, 6 / 8):
        return "hint: that is Dice; IoU divides the common pixels by the union"
    if not near(score, 3 / 5):
        return f"hint: expected 0.6 for 3 + 0 common of 4 + 1 pixels, got {score:.2f}"
    sizes = "pictures of several sizes, one of them empty"
    found = call_on(sizes, answer, [nothing, *predictions], [nothing, *targets])
    if not near(float(found), 3 / 5):
        return f"hint: {sizes}: expected 0.6, got {float(found):.2f}"
    empty = "nothing to find and nothing found, expected 1"
    score = float(call_on(empty, answer, [nothing], [nothing]))
    return OK if near(score, 1) else f"hint: {empty}, got {score}"


# Sizes of groups, number of folds, largest fold that "large groups first" makes.
FOLD_CASES = (
    ((3, 7, 1, 5, 4), 2, 10),
    ((2, 5, 3, 6, 4), 2, 11),  # 10 is possible
    ((2, 5, 3, 6, 4), 3, 7),
)


def interleave(sizes: Sequence[int]) -> list[str]:
    """List groups "a", "b", ... of these sizes in turn, as "abcbcc" for 1, 2, 3."""
    names = [chr(ord("a") + place) for place in range(len(sizes))]
    groups = list(zip(names, sizes, strict=True))
    return [name for turn in range(max(sizes)) for name, size in groups if turn < size]


def read_parts(
    answer: Any, what: str = "a list of lists of indices"
) -> list[list[int]]:
    """Read folds or batches as lists of indices; a Hint with what it is if not."""
    try:
        return [[operator.index(place) for place in part] for part in answer]
    except (TypeError, ValueError):
        raise Hint(f"the answer is {what}") from None


def part_faults(count: int, parts: Sequence[Sequence[int]], name: str) -> Iterator[str]:
    """Say which of so many samples are missing or repeated, and which are unknown."""
    places = [place for part in parts for place in part]
    for place in range(count):
        if (times := places.count(place)) != 1:
            yield f"sample {place} is {times} times in the {name}; expected once"
    if strangers := set(places) - set(range(count)):
        yield f"{count} samples have no index {min(strangers)}"


def fold_faults(groups: Sequence[str], folds: Sequence[Sequence[int]]) -> Iterator[str]:
    """Say which samples are not in the folds once, and which groups split."""
    yield from part_faults(len(groups), folds, "folds")
    for name in sorted(set(groups)):
        members = {place for place in range(len(groups)) if groups[place] == name}
        if sum(not members.isdisjoint(fold) for fold in folds) > 1:
            yield f"group {name!r} is in several folds"


@exercise("05.3")
def make_folds(answer: Any) -> str:
    for sizes, count, largest in FOLD_CASES:
        groups = interleave(sizes)
        folds = read_parts(call(answer, list(groups), count))
        if len(folds) != count:
            return f"hint: {count} folds were asked for, {len(folds)} came"
        if fault := next(fold_faults(groups, folds), None):
            return f"hint: {fault}"
        found = [len(fold) for fold in folds]
        if max(found) > largest:
            what = f"groups of {sizes} became folds of {found}"
            return f"hint: {what}; the largest need not be over {largest}"
    return OK


# Lesson 06


@exercise("06.1")
def asked_for(answer: Any) -> str:
    if number(answer) == 192:
        return "hint: so many are on their way; count those in your hand too"
    if number(answer) == 80:
        return "hint: each worker is asked for prefetch_batches batches ahead"
    if number(answer) == 13:
        return "hint: so many batches; the answer is in samples"
    if number(answer) == 1000:
        return "hint: that is the whole epoch; only a few batches are asked for ahead"
    right = number(answer) == 208
    return OK if right else "hint: the batch in your hand, and 4 for each of 3 workers"


# Items of results, by kind; the second kind is for answers that say `if item`.
ITEMS: dict[str, tuple[Any, ...]] = {
    "letters": ("a", "b", "c", "d"),
    "None, 0 and tensors": (None, torch.zeros(2), 0, torch.ones(2)),
    "no results": (),
}


def watch(
    case: str, answer: Any, numbers: Sequence[int], items: Sequence[Any]
) -> list[tuple[Any, int]]:
    """List what a learner's function yields, and how many results it had taken."""
    taken: list[int] = []

    def results() -> Iterator[tuple[int, Any]]:
        for place in numbers:
            taken.append(place)
            yield place, items[place]

    stream = call(answer, results())
    if isinstance(stream, Sized):
        kind = type(stream).__name__
        raise Hint(f"your function returns a {kind}, so it waits for all; use yield")
    # One more than expected is enough to see that a stream does not end.
    first = itertools.islice(stream, len(items) + 1)
    return call_on(case, list, ((item, len(taken)) for item in first))


def stream_faults(
    numbers: Sequence[int], items: Sequence[Any], found: Sequence[tuple[Any, int]]
) -> Iterator[str]:
    """Say which items are wrong or late, and whether there are too few or many."""
    for place, (item, (got, taken)) in enumerate(zip(items, found, strict=False)):
        if got is not item:
            yield f"in place {place} expected {item!r}, got {got!r}"
        needed = 1 + max(map(numbers.index, range(place + 1)))
        if taken > needed:
            late = f"item {place} came after {taken} of {len(items)} results"
            rest = "all" if taken == len(items) else "more"
            yield f"{late}, but was due after {needed}: do not wait for {rest}"
    if len(found) != len(items):
        yield f"{len(items)} results gave {len(found)} items"


@exercise("06.2")
def in_order(answer: Any) -> str:
    for kind, items in ITEMS.items():
        for numbers in itertools.permutations(range(len(items))):
            case = f"{kind} in the order {numbers}"
            found = watch(case, answer, numbers, items)
            if fault := next(stream_faults(numbers, items, found), None):
                return f"hint: {case}: {fault}"
    return OK


# Heights and widths that share a height, a width, an area, a longer or a shorter side.
SIZES = ((64, 48), (48, 64), (64, 64))


def batch_faults(
    sizes: Sequence[tuple[int, int]], batch_size: int, batches: Sequence[Sequence[int]]
) -> Iterator[str]:
    """Say which samples are not in the batches once, and which batches are wrong."""
    yield from part_faults(len(sizes), batches, "batches")
    for batch in batches:
        if not 1 <= len(batch) <= batch_size:
            yield f"batch {batch} has {len(batch)} samples; expected 1 to {batch_size}"
        if len(kinds := {sizes[place] for place in batch}) > 1:
            yield f"batch {batch} mixes sizes {sorted(kinds)}"
    fewest = sum(-(-sizes.count(size) // batch_size) for size in set(sizes))
    if len(batches) > fewest:
        yield f"{len(batches)} batches; with full ones {fewest} are enough"


@exercise("06.3")
def same_size_batches(answer: Any) -> str:
    sizes = [SIZES[int(kind)] for kind in "01020110020"]
    for batch_size in (2, 3):
        batches = read_parts(call(answer, list(sizes), batch_size))
        if fault := next(batch_faults(sizes, batch_size, batches), None):
            return f"hint: batch_size {batch_size}: {fault}"
    return OK


# Lesson 07


@exercise("07.1")
def strange_masks(answer: Any) -> str:
    if number(answer) == 194:
        return "hint: umm and uu have numbers without a mask of um; those are left out"
    if number(answer) == 285:
        return "hint: so many are taken, but the um pictures get their own masks"
    if number(answer) == 95:
        return "hint: so many of one kind; both umm and uu get the masks of um"
    if number(answer) == 289:
        return "hint: those are all; not each is taken, and um gets its own masks"
    right = number(answer) == 190
    return OK if right else "hint: um has the numbers 0 to 94; so have umm and uu"


def expect_form(
    found: Any, kind: type, dtypes: Sequence[Any], shape: tuple[int, ...]
) -> None:
    """A Hint unless a result is a tensor or an array, of one of the dtypes."""
    if not isinstance(found, kind):
        name = "a tensor" if kind is torch.Tensor else "an array"
        raise Hint(f"the answer is {name}, not {type(found).__name__}")
    if found.dtype not in dtypes or found.shape != shape:
        wanted = " or ".join(map(str, dtypes))
        got = f"{found.dtype} {tuple(found.shape)}"
        raise Hint(f"expected {wanted} {shape}, got {got}")


def expect_unchanged(what: str, given: Sequence[Any], before: Sequence[Any]) -> None:
    """A Hint unless pictures that were given are as before."""
    if not all(map(np.array_equal, given, before)):
        raise Hint(f"your function changed the {what} that it was given")


def call_on_picture(
    function: Any, dtype: torch.dtype, picture: Any, *arguments: Any
) -> torch.Tensor:
    """Call a learner's function on a copy of a picture, (H, W) or (H, W, 3).

    A Hint unless it returns a tensor (H, W) of the dtype and leaves the copy as it was.
    """
    given = copy.deepcopy(picture)
    found = call(function, given, *arguments)
    expect_form(found, torch.Tensor, [dtype], tuple(picture.shape[:2]))
    expect_unchanged("picture", [given], [picture])
    return found


# KITTI's own colours, and others: some share a channel or a sum with one of its own,
# and the channels of olive add up to 0 in uint8.
ROAD_MASKS = (
    (("magenta", "red", "black"), ("black", "magenta", "red")),
    (("blue", "lime", "white", "yellow", "cyan", "olive"),),
)
ROAD_VALUES = {"magenta": 1, "black": 255}


def road_faults(
    mask: Sequence[Sequence[str]], found: Sequence[Sequence[float]]
) -> Iterator[str]:
    """Say which colours of a mask, given by name, have a wrong value."""
    for names, values in zip(mask, found, strict=True):
        for name, got in zip(names, values, strict=True):
            if got != (wanted := ROAD_VALUES.get(name, 0)):
                colour = f"{name} {ImageColor.getrgb(name)}"
                yield f"{colour}: expected {wanted}, got {got:g}"


@exercise("07.2")
def road_target(answer: Any) -> str:
    for mask in ROAD_MASKS:
        colours = [[ImageColor.getrgb(name) for name in names] for names in mask]
        picture = np.array(colours, dtype=np.uint8)
        found = call_on_picture(answer, torch.float32, picture)
        if fault := next(road_faults(mask, found.tolist()), None):
            return f"hint: {fault}"
    return OK


def film_faults(
    num_frames: int, num_val: int, gap: int, train: Sequence[int], val: Sequence[int]
) -> Iterator[str]:
    """Say what is wrong with the frames for training and for validation."""
    if both := set(train) & set(val):
        yield f"frame {min(both)} is in both"
    if len(val) != num_val:
        yield f"frames for validation: {len(val)}, expected {num_val}"
    start = num_frames - num_val
    if set(val) != (last := set(range(start, num_frames))):
        missing = min(last - set(val))
        yield f"validation is the end of the film, but frame {missing} is not in it"
    if (between := start - max(train, default=-1) - 1) != gap:
        yield f"frames in the gap: {between}, expected {gap}"
    unused = range(start - gap, start)
    yield from part_faults(num_frames, (train, unused, val), "split")


@exercise("07.3")
def split_with_gap(answer: Any) -> str:
    # Shares that come out whole, that round up, that round down; one frame to train.
    for film in ((20, 0.2, 3), (20, 0.18, 0), (20, 0.17, 2), (10, 0.4, 5)):
        num_frames, val_share, gap = film
        parts = read_parts(call(answer, *film))
        if len(parts) != 2:
            return f"hint: the answer is (train, val), not {len(parts)} lists"
        num_val = round(val_share * num_frames)
        if fault := next(film_faults(num_frames, num_val, gap, *parts), None):
            return f"hint: split_with_gap{film}: {fault}"
    for film in ((10, 0.4, 6), (10, 0.4, 8)):
        refusal(f"split_with_gap{film} leaves no frame to train", answer, *film)
    return OK


# Lesson 08


@exercise("08.1")
def iou_of_class_one(answer: Any) -> str:
    iou = number(answer)
    if near(iou, 35 / 40):
        return "hint: that is recall: the right pixels among those of the targets"
    if near(iou, 35 / 45):
        return "hint: that is precision: the right pixels among those predicted"
    if near(iou, 85 / 100):
        return "hint: that is the share of right pixels, of both classes"
    if near(iou, 70 / 85):
        return "hint: that is Dice; IoU divides the common pixels by the union"
    if near(iou, 50 / 65):
        return "hint: that is class 0; class 1 is the second row and column"
    right = near(iou, 35 / 50)
    return OK if right else "hint: the union is its row and its column, 35 only once"


def balanced(counts: Sequence[int], power: float) -> list[float]:
    """Give weights as 1 / count to a power, averaging 1; 0 without pixels."""
    weights = [count**-power if count else 0 for count in counts]
    scale = sum(count > 0 for count in counts) / sum(weights)
    return [weight * scale for weight in weights]


def weight_faults(counts: Sequence[int], weights: Sequence[float]) -> Iterator[str]:
    """Say whether weights do not fit the classes, their average, or their counts."""
    if len(weights) != len(counts):
        yield f"{len(weights)} weights for {len(counts)} classes"
    for count, weight in zip(counts, weights, strict=True):
        if count == 0 and weight != 0:
            yield f"a class without pixels has the weight {weight:g}; expected 0"
    average = sum(weights) / sum(count > 0 for count in counts)
    if not near(average, 1):
        yield f"weights of classes that occur average {average:.3g}; expected 1"
    if alike(weights, balanced(counts, 1)):
        yield "that is 1 / count; take the root of the counts"
    if not alike(weights, right := balanced(counts, 0.5)):
        expected, got = ([round(value, 3) for value in row] for row in (right, weights))
        yield f"expected {expected}, got {got}"


@exercise("08.2")
def class_weights(answer: Any) -> str:
    counts = [900, 100, 25]
    weights = read_numbers(call(answer, list(counts)))
    if fault := next(weight_faults(counts, weights), None):
        return f"hint: counts {counts}: {fault}"
    counts.insert(1, 0)
    weights = read_numbers(call_on(f"counts {counts}", answer, list(counts)))
    fault = next(weight_faults(counts, weights), None)
    return f"hint: counts {counts}: {fault}" if fault else OK


# Ids of a row or two, and groups: swapped ones; ids in none; one that does not occur.
MERGES = (
    ([[0, 1, 1], [1, 0, 0]], [[1], [0]]),
    ([[0, 1, 2], [3, 4, 255]], [[4, 2], [0]]),
    ([[2, 0]], [[0], [5, 2]]),
)


def merge_faults(
    ids: torch.Tensor, groups: Sequence[Sequence[int]], found: torch.Tensor
) -> Iterator[str]:
    """Say which ids did not become the place of their group."""
    places = {old: place for place, group in enumerate(groups) for old in group}
    pairs = zip(ids.flatten().tolist(), found.flatten().tolist(), strict=True)
    for old, got in pairs:
        if got == (wanted := places.get(old, 255)):
            continue
        which = f"id {old}" if old in places else f"id {old}, in no group,"
        why = " (mapped twice?)" if got == places.get(wanted) else ""
        yield f"{which} became {got}{why}, expected {wanted}"


@exercise("08.3")
def merge_classes(answer: Any) -> str:
    for rows, groups in MERGES:
        ids = torch.tensor(rows)
        given = copy.deepcopy(groups)
        found = call_on_picture(answer, torch.int64, ids, given)
        if fault := next(merge_faults(ids, groups, found), None):
            return f"hint: groups {groups}: {fault}"
    return OK


# Lesson 09


@exercise("09.1")
def tiles_to_cover(answer: Any) -> str:
    count = number(answer)
    if count == 60:
        return "hint: so many are in one row; there are as many rows"
    if count == 59**2:
        return "hint: the last of each row and column is missing: the one moved inwards"
    if count == 58**2:
        return "hint: so many whole steps; the first tile and the last one come on top"
    if count in (44**2, 45**2):
        return "hint: that is without overlap; a new tile begins every 384 pixels"
    if 3587 <= count <= 3588:
        return "hint: that is areas divided; count along each side, then multiply"
    right = count == 60**2
    return OK if right else "hint: the first tile, then a step for each 384 that remain"


# Heights, widths and tiles: two remainders; none; pictures smaller than the tile.
TILED = ((7, 10, 4), (8, 12, 4), (3, 9, 4), (9, 3, 4))


def corner_of(
    index: int, columns: int, height: int, width: int, tile: int
) -> list[int]:
    """Give the corner [y, x] of a tile where so many are in a row."""
    lengths = zip(divmod(index, columns), (height, width), strict=True)
    return [max(min(place * tile, length - tile), 0) for place, length in lengths]


def corner_faults(
    index: int, height: int, width: int, tile: int, corner: Sequence[int]
) -> Iterator[str]:
    """Say what is wrong with the corner of a tile."""
    columns = -(-width // tile)
    wanted = corner_of(index, columns, height, width, tile)
    if list(corner) == wanted:
        return
    got = f"{tuple(corner)}, expected {tuple(wanted)}"
    if len(corner) != 2:
        yield f"{got}: a corner is (y, x)"
    if min(corner) < 0:
        yield f"{got}: no corner is negative"
    if list(corner) == wanted[::-1]:
        yield f"{got}: that is (x, y)"
    for other in {max(columns - 1, 1), columns + 1}:
        if list(corner) == corner_of(index, other, height, width, tile):
            yield f"{got}: {columns} tiles are in a row, not {other}"
    if corner[0] + tile > height or corner[1] + tile > width:
        yield f"{got}: it sticks out; move it inwards"
    yield got


@exercise("09.2")
def place_of(answer: Any) -> str:
    call(answer, 0, *TILED[0])  # what fails everywhere needs no case
    for height, width, tile in TILED:
        for index in range(-(-height // tile) * -(-width // tile)):
            case = f"place_of{(index, height, width, tile)}"
            found = call_on(case, answer, index, height, width, tile)
            corner = read_parts([found], "a pair of whole numbers, (y, x)")[0]
            if fault := next(corner_faults(index, height, width, tile, corner), None):
                return f"hint: {case} gave {fault}"
    return OK


# Sizes of pictures, and places of their tiles as (y, x, height, width).
STITCHES = (
    ((3, 5), ((0, 0, 3, 4), (0, 2, 3, 3))),
    ((4, 6), ((0, 0, 2, 6), (1, 0, 3, 4), (1, 2, 3, 4))),
)
# The tiles of the second have more pixels than their picture.
HOLES = (
    ((3, 5), ((0, 0, 3, 4),), "pixel (0, 4) is in no tile"),
    (
        (3, 3),
        ((0, 0, 1, 3), (2, 0, 1, 3), (0, 0, 3, 1), (0, 2, 3, 1)),
        "pixel (1, 1) is in no tile",
    ),
    ((2, 3), (), "no tiles at all"),
)
MIXTURES: dict[str, Callable[[list[float]], float]] = {
    "the sum": sum,
    "the last one": lambda values: values[-1],
    "a mean of means": lambda values: reduce(lambda a, b: (a + b) / 2, values),
}
Tiles = list[tuple[int, int, np.ndarray]]


def make_tiles(places: Sequence[tuple[int, int, int, int]]) -> Tiles:
    """Give tiles at these places values that all differ; the first one is 0."""
    return [
        (y, x, np.arange(h * w, dtype=np.float32).reshape(h, w) + 40 * turn)
        for turn, (y, x, h, w) in enumerate(places)
    ]


def values_at(tiles: Tiles, y: int, x: int) -> list[float]:
    """List the values that tiles have for a pixel."""
    inside = ((values, y - top, x - left) for top, left, values in tiles)
    return [
        float(values[down, across])
        for values, down, across in inside
        if 0 <= down < values.shape[0] and 0 <= across < values.shape[1]
    ]


def stitch_faults(tiles: Tiles, found: np.ndarray) -> Iterator[str]:
    """Say which pixels are not the mean of their tiles, and what they are instead."""
    for (y, x), got in np.ndenumerate(found):
        values = values_at(tiles, y, x)
        if alike([got], [mean := fmean(values)]):
            continue
        rules = (name for name, mix in MIXTURES.items() if alike([got], [mix(values)]))
        why = "".join(f" ({name})" for name in itertools.islice(rules, 1))
        yield f"pixel {(y, x)} of {values}: expected {mean:g}, got {got:g}{why}"


@exercise("09.3")
def stitch(answer: Any) -> str:
    for shape, places in STITCHES:
        tiles, given = make_tiles(places), make_tiles(places)
        arrays = [values for _, _, values in given]
        found = call(answer, given, *shape)
        floats = [np.dtype(np.float32), np.dtype(np.float64)]
        expect_form(found, np.ndarray, floats, shape)
        expect_unchanged("tiles", arrays, [values for _, _, values in tiles])
        if fault := next(stitch_faults(tiles, found), None):
            return f"hint: {fault}"
    for shape, places, case in HOLES:
        refusal(case, answer, make_tiles(places), *shape)
    return OK
