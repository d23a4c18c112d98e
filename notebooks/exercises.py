"""The checks of the exercises: each answers "not answered yet", a hint, or "ok".

CASES holds what the functions of learners are given and what is expected of them,
HINTS the right number of each other exercise and the known mistakes.
"""

import copy
import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from numbers import Real
from operator import length_hint
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import tensor

import ui_segmentation_system as ui


class Case(NamedTuple):
    """What a learner's function is given, and what is expected of it.

    Expected are numbers or strings in nested lists (whole numbers exactly, floats to
    1e-4); a tensor or an array of this dtype; a ValueError whose message names these of
    the given strings alone; or what a function of the result and the arguments finds no
    fault in. Where there are no arguments, that function gets the answer itself.
    """

    exercise: str
    arguments: tuple[Any, ...]
    expected: Any


def check(exercise: str, answer: Any) -> str:
    """Judge an answer to an exercise, such as "01.2"; None is no answer yet.

    Whatever the answer does, nothing is raised, and torch's random state stays as it
    was. Raises KeyError for no such exercise.
    """
    if cases := [case for case in CASES if case.exercise == exercise]:
        judge = partial(judge_function, cases)
    else:
        judge = partial(judge_number, HINTS[exercise])
    if answer is None:
        return "not answered yet"
    with torch.random.fork_rng(devices=[]):
        fault = judge(answer)
    return f"hint: {fault}" if fault else "ok"


def judge_number(hints: Mapping[float, str], answer: Any) -> str:
    """Find the hint for a number, exact if whole, otherwise to two digits.

    The first number is right; its hint is for all that are not in the table.
    """
    try:
        value = float(answer)
    except Exception:
        return f"the answer is a number, not {type(answer).__name__}"
    for place, (wanted, hint) in enumerate(hints.items()):
        if abs(value - wanted) <= (0.006 if isinstance(wanted, float) else 0):
            return hint if place else ""
    return next(iter(hints.values()))


def judge_function(cases: Sequence[Case], answer: Any) -> str:
    """Say for which case a learner's function fails, what it gave and should give."""
    if not callable(answer):
        return "the answer is the function itself, without brackets"
    for case in cases:
        try:
            fault = find_fault(case, answer)
        except Exception as error:
            fault = f"your answer raised {type(error).__name__}: {error}"
        if fault:
            given = ", ".join(map(show, case.arguments))
            return f"for {given}: {fault}" if given else fault
    return ""


def find_fault(case: Case, answer: Callable[..., Any]) -> str:
    """Say what is wrong with what a learner's function does; raises what it raises."""
    expected, given = case.expected, copy.deepcopy(case.arguments)
    arrays = leaves(given, ARRAYS)  # the answer may empty the lists that hold them
    try:
        got = answer(*given) if given else answer
    except Exception as error:
        if not isinstance(expected, ValueError):
            raise
        named = {name for name in leaves(given, str) if name in str(error)}
        if named == {*expected.args} and isinstance(error, ValueError):
            return ""
        return f"expected {show(expected)}, got {error!r}"
    # As text, since no NaN is equal to another.
    if str(plain(arrays)) != str(plain(leaves(case.arguments, ARRAYS))):
        return "your function changed what it was given"
    if callable(expected):
        return next(expected(got, *case.arguments), "")
    if isinstance(expected, ARRAYS) and form(got) != form(expected):
        return f"expected {form(expected)}, got {form(got)}"
    wanted = plain(expected)
    if same(found := TIDY.get(case.exercise, plain)(plain(got)), wanted):
        return ""
    hints = HINTS.get(case.exercise, {}).items()
    why = next((f": {hint}" for value, hint in hints if same(found, value)), "")
    return f"expected {show(wanted)}, got {show(found)}{why}"


ARRAYS = (torch.Tensor, np.ndarray)
# Where lists may come back in any order.
TIDY: dict[str, Callable[[list[Any]], list[Any]]]
TIDY = {"02.1": sorted, "09.3": lambda parts: list(map(sorted, parts))}


def leaves(value: Any, kind: Any) -> list[Any]:
    """List what is of a kind in nested lists."""
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part, kind)]
    return [value] if isinstance(value, kind) else []


def form(value: Any) -> str:
    """Name a type, of a tensor or array with its dtype and shape."""
    if not isinstance(value, ARRAYS):
        return type(value).__name__
    either = value.dtype in (np.float32, np.float64)
    dtype = "float32 or float64" if either else value.dtype
    return f"{type(value).__name__} {dtype} {tuple(value.shape)}"


def plain(value: Any) -> Any:
    """Turn tensors, arrays, tuples, ranges and the like into nested lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return list(map(plain, value))
    return value


def same(found: Any, wanted: Any) -> bool:
    """Whether plain values are the same, floats to 1e-4."""
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float):
        return isinstance(found, Real) and abs(found - wanted) < 1e-4
    return type(found) is type(wanted) and found == wanted


def show(value: Any) -> str:
    """Write a value for a message."""
    if isinstance(value, Image.Image):
        return f"a picture {value.size}"
    if isinstance(value, ValueError):
        return " naming ".join(["a ValueError", *value.args])
    if isinstance(value, ARRAYS) and math.prod(value.shape) > 64:
        return f"{type(value).__name__} {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))})"
    value = value if isinstance(value, list) else plain(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    return repr(round(value, 4) if isinstance(value, float) else value)


# A right number with the hint for unknown ones, then known mistakes; where an exercise
# has cases, known mistakes alone.
HINTS: dict[str, dict[float, str]] = {
    "01.1": {
        0.316: "intersection = mask, union = picture; round, and give no percent",
        0.684: "that is the share of right pixels of 'all background'",
        1.0: "the mask is inside the answer, but the union is the whole picture",
    },
    "01.3": {
        60: "count (ids == names.index('dialog')) in each pair",
        59: "that is its place in a list from 0; the keys start from 1",
        25_486: "so many pixels it covers; the answer is the key of the pair",
        76: "its place among sorted names, 10, 100, 101, ...; its name has the key",
    },
    "02.3": {
        7: "whole batches first, then what remains",
        62: "so many batches; how many samples are in none?",
        63: "so many batches without drop_last; how many samples are in the last?",
        992: "so many samples are used; how many are not?",
    },
    "03.1": {160: "the ratio 4 to 3 stays", 120: "120 is the shorter side, the height"},
    "04.1": {
        4704: "32 tables of 16 x 3 x 3, 32 biases, a scale and a shift a channel",
        4640: "4640 is the convolution; the normalisation has 2 x 32 more",
        4672: "the tables have biases, and the normalisation a scale and a shift",
    },
    "05.1": {
        1 / 4: "that is IoU; Dice counts the common pixels twice",
        4 / 7: "that is the share of right pixels, background and all",
        2 / 4: "of two bool tensors + is 'or'; add their sums",
    },
    "06.1": {
        10: "whole scenes, up to a fifth of 60",
        12: "12 is a fifth of 60, but no whole scenes have 12 pictures",
        2: "so many scenes; the answer is in pictures",
        15: "three scenes are more than a fifth; only what fits goes",
    },
    "07.1": {
        3 / 8: "that is the mean of the pictures' IoU; add up pixels, then divide",
        6 / 8: "that is Dice; IoU divides the common pixels by the union",
        8 / 10: "that is the share of right pixels, background and all",
    },
    "08.3": {
        208: "the batch in your hand, and 4 for each of 3 workers",
        192: "so many are on their way; count those in your hand too",
        80: "each worker is asked for prefetch_batches batches ahead",
        13: "so many batches; the answer is in samples",
        1000: "that is the whole epoch; only a few batches are asked for ahead",
    },
    "09.1": {
        190: "um has the numbers 0 to 94; so have umm and uu",
        194: "umm and uu have numbers without a mask of um; those are left out",
        285: "so many are taken, but the um pictures get their own masks",
    },
    "10.2": {
        35 / 50: "the union is its row and its column, 35 only once",
        35 / 40: "that is recall: the right pixels among those of the targets",
        35 / 45: "that is precision: the right pixels among those predicted",
        85 / 100: "that is the share of right pixels, of both classes",
        70 / 85: "that is Dice; IoU divides the common pixels by the union",
        50 / 65: "that is class 0; class 1 is the second row and column",
    },
    # Rounding side / 384 up, down or to the nearest is wrong along one side or both.
    "11.1": {
        60 * 59: "along a side: the first tile, then a step for each 384 that remain",
        60 * 60: "that is side / 384 rounded up; but the first tile covers 512",
        59 * 59: "that is side / 384 rounded; but the first tile covers 512",
        59 * 58: "one of each row and column is missing: the first, or the last",
        58 * 57: "so many whole steps; the first tile and the last one come on top",
        45 * 45: "that is without overlap; a new tile begins every 384 pixels",
        3510: "that is areas divided; count along each side, then multiply",
    },
}


class Unending(list):
    """A list that begins again where others raise IndexError."""

    def __getitem__(self, place: int) -> Any:
        return super().__getitem__(place % len(self))


def half_faults(dataset: Any, samples: Sequence[ui.Sample]) -> Iterator[str]:
    if len(dataset) != 4:
        yield f"expected a length of 4, got {len(dataset)}"
    for place in range(4):
        halves = (part.chunk(2, -1)[place % 2] for part in samples[place // 2])
        if not isinstance(got := dataset[place], ui.Sample):
            yield f"expected a ui.Sample, got {type(got).__name__}"
        if got.image.shape != (1, 1, 2):
            shape = tuple(got.image.shape)
            yield f"sample {place}: expected shape (1, 1, 2), got {shape}, a half"
        if (got := plain(got)) != (wanted := plain(halves)):
            yield f"sample {place}: expected image and target {wanted}, got {got}"
    try:
        dataset[4]
    except IndexError:
        return
    inside = "; the dataset inside raises none" * isinstance(samples, Unending)
    yield f"sample 4 of 4 must raise IndexError, or loops never end{inside}"


def turn_faults(answer: Callable[..., Any]) -> Iterator[str]:
    image = torch.arange(18.0).view(3, 2, 3)
    rows: list[list[int]] = []
    for seed, calls in ((0, 1000), (0, 40), (1, 40)):
        torch.manual_seed(seed)
        rows.append([])
        for _ in range(calls):
            turned, target = answer(image.clone(), image[:1].clone())
            turns = [k for k in range(4) if turned.equal(image.rot90(k, (-2, -1)))]
            if not turns:
                case = f"{show(image)} became {show(turned)}"
                yield f"{case}: turn, without a flip, in the last two dimensions"
            if not target.equal(turned[:1]):
                got = f"expected {show(turned[:1])} for the target, got {show(target)}"
                yield f"{got}: draw once for both"
            rows[-1] += turns
    counts = [rows[0].count(k) for k in range(4)]
    if not 190 < min(counts) <= max(counts) < 310:  # four deviations from 250
        yield f"turned by 0, 90, 180, 270 degrees: {counts} of 1000; each as often"
    if rows[0][:40] != rows[1] or rows[1] == rows[2]:
        begun = ", ".join(str(row[:8]) for row in rows)
        why = "draw from torch's global generator, which workers seed"
        yield f"after the seeds 0, 0 and 1 the first turns were {begun}; {why}"


def up_faults(answer: Callable[..., Any]) -> Iterator[str]:
    for channels, normalize in ((4, False), (4, True), (6, True)):
        up = answer(channels, normalize)
        x = torch.rand(2, 2 * channels, 3, 5, requires_grad=True)
        skip = torch.rand(2, channels, 6, 10)
        made, name = up(x, skip), f"Up({channels}, {normalize})"
        if made.shape != skip.shape:
            given = f"x {tuple(x.shape)} and skip {tuple(skip.shape)}"
            got = f"expected {tuple(skip.shape)}, got {tuple(made.shape)}"
            yield f"{name} of {given}: {got}"
        for part, other in (("x", (x**3, skip)), ("skip", (x, skip**3))):
            if torch.equal(up(*other), made):
                yield f"{name} gives the same whatever {part} is; it must have a say"
        if not any(weights.ndim == 4 for weights in up.parameters()):
            why = "keep it as an attribute, self.up = ..., or nothing is learnt"
            yield f"{name} has no convolution among its parameters; {why}"
        made.sum().backward()
        if x.grad is None or not x.grad.any():
            yield f"{name} passes no gradient on to x; what lies below would not learn"
        one_pixel = torch.zeros_like(skip)
        one_pixel[..., 2, 3] = 1
        changes = (up(x, skip + one_pixel) - made).abs().amax((0, 1))
        if changes[2, 3] < 2 * changes.median():
            yield f"{name} loses where a pixel of skip is; add it, or put it beside x"


def forward_faults(answer: Callable[..., Any]) -> Iterator[str]:
    for size in ((32, 48), (64, 32)):
        network, image = ui.UNet(), torch.rand(2, 3, *size)
        parts = SimpleNamespace(**dict(network.named_children()))  # without a forward
        with torch.no_grad():
            made, expected = answer(parts, image), network(image)
        given = f"an image of {tuple(image.shape)}"
        if made.shape != expected.shape:
            got = f"expected {tuple(expected.shape)}, got {tuple(made.shape)}"
            yield f"{given}: {got}"
        elif torch.allclose(made, expected.sigmoid(), atol=1e-3):
            yield f"{given}: these are probabilities; return logits, without a sigmoid"
        elif (gap := (made - expected).abs().max()) > 1e-3:
            yield (
                f"{given}: logits differ by up to {gap:.2g}; is the image scaled, the "
                "middle's output added to its input, each skip of its own size?"
            )


def rate_faults(answer: Callable[..., Any]) -> Iterator[str]:
    losses = {}
    for seed, rate in enumerate((3e-4, 3e-3, 3e-2)):
        torch.manual_seed(seed)
        losses[rate] = float(answer(rate))
    listed = ", ".join(f"{rate:g}: {loss:.4g}" for rate, loss in losses.items())
    if (again := float(answer(3e-3))) != losses[3e-3]:
        twice = f"{losses[3e-3]:.4g}, then {again:.4g}"
        yield f"rate 0.003 gave {twice}; set the seed before the network is made"
    if not 0 < min(losses.values()) < 0.6:
        yield f"losses {listed}: after 20 steps one of them is below the constant's"
    if not 0.011 < losses[3e-3] < 0.02:
        what = "a UNet of this page, small and truth, seed 0, 20 steps"
        yield f"losses {listed}: expected about 0.015 at 0.003; {what}?"
    if min(losses, key=losses.__getitem__) != 3e-3:
        yield f"losses {listed}: expected the lowest at 0.003; 20 steps, with Adam?"


def noise_faults(found: Any, *_: Any) -> Iterator[str]:
    if not 0.9 <= (iou := float(found)) <= 1:
        yield (
            f"the IoU is {iou:.2f}: expected more than 0.9 after 40 steps; even a mask "
            "of noise can be learnt by heart"
        )


def epoch_faults(answer: Callable[..., Any]) -> Iterator[str]:
    ious = [float(answer(epochs)) for epochs in (3, 9)]
    listed = f"3 epochs gave {ious[0]:.2f}, 9 gave {ious[1]:.2f}"
    if ious[0] == ious[1]:
        yield f"{listed}: the same to the last digit; is `epochs` used?"
    if not 0.1 < min(ious) <= max(ious) < 0.6:
        yield f"{listed}: expected the mean IoU of the validation pictures, 0.2 to 0.4"
    if abs(ious[0] - ious[1]) > 0.1:
        yield f"{listed}: expected no great change; each starts anew, from one seed"


def frozen_faults(answer: Callable[..., Any]) -> Iterator[str]:
    network = answer().network
    if not isinstance(network, ui.MobileNetUNet):
        yield 'expected a system made with encoder="mobilenet_v2"'
    learn: dict[bool, list[bool]] = {True: [], False: []}
    for name, weight in network.named_parameters():
        learn[name.startswith("encoder.")].append(weight.requires_grad)
    if moving := sum(learn[True]):
        yield f"{moving} of {len(learn[True])} weights of the encoder learn, not none"
    if still := learn[False].count(False):
        yield f"{still} of {len(learn[False])} other weights do not learn, not all"
    both = network, ui.MobileNetUNet()
    weight, came = (one.encoder[0][0][0].weight for one in both)
    if not weight.equal(came):
        yield "the encoder's weights are not those that it came with"


def black_faults(found: Any, *_: Any) -> Iterator[str]:
    if not 0.6 <= (iou := float(found)) <= 0.86:
        yield (
            f"the IoU is {iou:.2f}: expected less than with training pictures, and far "
            "more than 'everything' has; calibrate with the given image alone"
        )


def upper_left(width: int, height: int) -> Image.Image:
    """Draw a mask whose upper left quarter is 255."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 2, height // 2))
    return mask


def box_faults(found: Any, given: Image.Image, *_: Any) -> Iterator[str]:
    """Find faults in squares of 64 that hold `upper_left`, scaled and padded."""
    if not all(isinstance(picture, Image.Image) for picture in found):
        yield "pictures in, pictures out"
    if (sizes := [picture.size for picture in found]) != [(64, 64)] * 2:
        yield f"expected (64, 64) for image and mask, got {sizes}"
    image, target = (np.array(picture.convert("L")) for picture in found)
    if not set(values := np.unique(target).tolist()) <= {0, 128, 255}:
        yield f"expected 0, 255 and ignored (128) alone in the mask, got {values}"
    width, height = (64 * length // max(given.size) for length in given.size)
    known = target != 128
    rows, columns = (int(known.any(axis).sum()) for axis in (1, 0))
    if (rows, columns) != (height, width):
        got = f"expected {height} and {width}, got {rows} and {columns}"
        why = "keep the ratio, enlarge what is smaller, pad the mask with 128"
        yield f"rows and columns that are not ignored (128): {got}; {why}"
    if not known[:height, :width].all() or image[~known].any():
        yield "pad on the right or at the bottom alone, the image with black"
    wanted = np.array(upper_left(width, height)) > 127
    for name, values in {"mask": target, "image": image}.items():
        wrong = np.mean((values[:height, :width] > 127) != wanted)
        if wrong > 0.05:  # there are several ways to scale: edges may differ by a pixel
            yield f"within the padding of the mask {wrong:.0%} of the {name} is wrong"


def frame_faults(found: Any, *_: Any) -> Iterator[str]:
    """Find faults in 3x3 pixels that were 9x9, white in a frame of a pixel."""
    image, target = (np.array(picture.convert("L")) for picture in found)
    if (target != 255).any():
        got = f"expected a mask of 255 alone, got {target.tolist()}"
        yield f"{got}; of nine rows the second, fifth and eighth count, so of columns"
    if image.min() == 255:
        yield "the image was not blended: its frame is lost, not mixed in"


def part_faults(parts: list[list[int]], count: int) -> Iterator[str]:
    """Say which of so many indices are not in the parts once, and what else is."""
    places = list(itertools.chain.from_iterable(parts))
    if not all(isinstance(place, int) for place in places):
        yield f"expected lists of indices, got {parts}"
    for place in sorted({*range(count), *places}):
        if (times := places.count(place)) != (wanted := int(0 <= place < count)):
            yield f"index {place} occurs {times} times, expected {wanted}, in {parts}"


def fold_faults(most: int, found: Any, groups: list[str], k: int) -> Iterator[str]:
    """Find faults in k folds; "large groups first" makes none of over most samples."""
    folds = plain(found)
    yield from part_faults(folds, len(groups))
    if len(folds) != k:
        yield f"expected {k} folds, got {len(folds)}"
    names = [name for fold in folds for name in {groups[place] for place in fold}]
    if twice := sorted(name for name in names if names.count(name) > 1):
        yield f"group {twice[0]!r} is in several folds of {folds}"
    if max(sizes := list(map(len, folds))) > most:
        got = f"expected at most {most} samples in a fold, got {sizes}"
        yield f"{got}; the largest group first, to the fold with the fewest samples"


def batch_faults(found: Any, sizes: list[Any], batch_size: int) -> Iterator[str]:
    batches = plain(found)
    yield from part_faults(batches, len(sizes))
    for batch in batches:
        if not 1 <= len(batch) <= batch_size:
            yield f"expected 1 to {batch_size} samples in a batch, got {batch}"
        if len(mixed := {sizes[place] for place in batch}) > 1:
            yield f"batch {batch} mixes sizes {sorted(mixed)}"
    fewest = sum(-(-sizes.count(size) // batch_size) for size in set(sizes))
    if len(batches) > fewest:
        yield f"expected {fewest} batches, got {len(batches)}: {batches}"


def order_faults(answer: Callable[..., Any]) -> Iterator[str]:
    """Give results in every order, and watch that no item waits for later ones."""
    # None, 0 and tensors are for answers that ask `if item`.
    for items in ("abcd", (None, torch.zeros(2), 0, torch.ones(2)), ()):
        for order in itertools.permutations(range(len(items))):
            numbers, case = iter(order), f"results in the order {order}"
            stream = answer((number, items[number]) for number in numbers)
            if isinstance(stream, Sized):
                yield f"a {type(stream).__name__} waits for all results; use yield"
            # One more than expected is enough to see that a stream does not end.
            first = itertools.islice(stream, len(items) + 1)
            found = [(plain(item), len(items) - length_hint(numbers)) for item in first]
            wanted = plain(list(items))
            if (got := [item for item, _ in found]) != wanted:
                yield f"{case}: expected {wanted}, got {got}"
            for place, (_, taken) in enumerate(found):
                if taken > (due := 1 + max(map(order.index, range(place + 1)))):
                    late = f"item {place} came after {taken} of {len(items)} results"
                    yield f"{case}: {late}, but was due after {due}"
    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    for item in answer((number, torch.zeros(1)) for number in range(20)):
        held.add(item)
        if len(held) > 5:  # a few may still have names
            yield "items are kept after they were handed out; let go of them"


# Pairs, halves, Dice and IoU.
INPUTS, TARGETS = ["2_input.png", "1_input.png"], ["1_target.jpg", "2_target.jpg"]
OTHER_TARGETS = ["1_target.jpg", "3_target.jpg"]
WHOLE = [ui.Sample(ids, ids + 100) for ids in torch.arange(8).view(2, 1, 1, 4)]
FOUND = [tensor([[1, 1, 1, 0, 0]]) > 0, tensor([[0, 0, 0, 0, 1]]) > 0]
WANTED = [tensor([[1, 1, 1, 1, 0]]) > 0, tensor([[0, 0, 0, 0, 0]]) > 0]
NOTHING = torch.zeros(3, 3) > 0
SHORT = tensor([3, 2, 2, 1, 0, 0, 0])
FRAMED = Image.new("L", (9, 9))
FRAMED.paste(255, (1, 1, 8, 8))
# Groups of 3, 7, 1, 5 and 4 samples, and of 2, 5, 3, 6 and 4.
LETTERS = list("abcdeabdeabdebdebdbb"), list("abcdeabcdebcdebdebdd")
TALL, WIDE, SQUARE = (64, 48), (48, 64), (64, 64)
SIZES = [TALL, WIDE, TALL, SQUARE, TALL, WIDE, WIDE, TALL, TALL, SQUARE, TALL]
# Others share a channel or a sum with magenta or black; the last adds up to 0 in uint8.
MAGENTA, BLACK, RED, BLUE = (255, 0, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
OTHERS = [BLUE, (0, 255, 0), (255, 255, 255), (255, 255, 0), (128, 128, 0)]
OTHERS += [(100, 100, 100), (0, 0, 60), (200, 0, 200), (254, 0, 255)]
ROAD = np.uint8([[MAGENTA, RED, BLACK], [BLACK, MAGENTA, RED]])
# Tops and lefts of tiles of 4, one every 3 or 4: with remainders, without, smaller.
CORNERS = {
    **{(7, 10, 4, 3): ([0, 3], [0, 3, 6]), (8, 12, 4, 3): ([0, 3, 4], [0, 3, 6, 8])},
    **{(8, 12, 4, 4): ([0, 4], [0, 4, 8]), (7, 10, 4, 4): ([0, 3], [0, 4, 6])},
    **{(3, 9, 4, 3): ([0], [0, 3, 5]), (9, 3, 4, 3): ([0, 3, 5], [0])},
}
TILE = np.float32([[0, 1, 2], [3, 4, 5]])
PIXELS = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
ROW, COLUMN = np.ones((1, 3)), np.ones((3, 1))
RING = [(0, 0, ROW), (2, 0, ROW), (0, 0, COLUMN), (0, 2, COLUMN)]

CASES = [
    Case("01.2", (tensor([[0, 1, 255], [1, 1, 0]]), 3), [0.4, 0.6, 0.0]),
    Case("01.2", (tensor([[255, 3]]), 4), [0.0, 0.0, 0.0, 1.0]),
    Case("02.1", (INPUTS, TARGETS), list(zip(sorted(INPUTS), TARGETS, strict=True))),
    Case("02.1", (INPUTS, TARGETS[:1]), ValueError("2_input.png")),
    Case("02.1", (INPUTS[1:], TARGETS), ValueError("2_target.jpg")),
    Case("02.1", (INPUTS, OTHER_TARGETS), ValueError("2_input.png", "3_target.jpg")),
    Case("02.2", (WHOLE,), half_faults),
    Case("02.2", (Unending(WHOLE),), half_faults),
    Case("03.3", (), turn_faults),
    *(
        Case("03.2", (mask.convert("RGB"), mask, 64), box_faults)
        for mask in (upper_left(80, 40), upper_left(40, 80), upper_left(32, 16))
    ),
    Case("03.2", (FRAMED.convert("RGB"), FRAMED, 3), frame_faults),
    Case("04.2", (), up_faults),
    Case("04.3", (), forward_faults),
    Case("04.4", (), rate_faults),
    Case("05.2", (0,), noise_faults),
    Case("06.2", (), epoch_faults),
    Case("05.1", (SHORT > 1, SHORT % 2 > 0), 0.4),
    Case("05.1", (SHORT > 0, SHORT < 0), 0.0),
    Case("05.1", (SHORT < 0, SHORT > 0), 0.0),
    Case("05.1", (NOTHING, NOTHING), 1.0),
    Case("07.1", (FOUND, WANTED), 0.6),
    Case("07.1", ([NOTHING, *FOUND], [NOTHING, *WANTED]), 0.6),
    Case("07.1", ([NOTHING], [NOTHING]), 1.0),
    Case("07.2", (LETTERS[0], 2), partial(fold_faults, 10)),
    Case("07.2", (LETTERS[1], 2), partial(fold_faults, 11)),  # 10 is possible
    Case("07.2", (LETTERS[1], 3), partial(fold_faults, 7)),
    Case("08.2", (), order_faults),
    Case("08.1", (SIZES, 2), batch_faults),
    Case("08.1", (SIZES, 3), batch_faults),
    Case("09.2", (ROAD,), tensor([[1.0, 0, 255], [255, 1, 0]])),
    Case("09.2", (np.uint8([OTHERS]),), torch.zeros(1, 9)),
    # Shares that come out whole, that round up, that round down; one frame to train.
    Case("09.3", (20, 0.2, 3), (range(13), range(16, 20))),
    Case("09.3", (20, 0.18, 0), (range(16), range(16, 20))),
    Case("09.3", (20, 0.17, 2), (range(15), range(17, 20))),
    Case("09.3", (20, 0.02, 3), (range(17), ())),
    Case("09.3", (10, 0.4, 5), (range(1), range(6, 10))),
    Case("09.3", (10, 0.4, 6), ValueError()),
    Case("09.3", (10, 0.4, 8), ValueError()),
    Case("10.3", ([900, 100, 25],), [0.3, 0.9, 1.8]),
    Case("10.3", ([900, 0, 100, 25],), [0.3, 0.0, 0.9, 1.8]),
    # Ids that change places; ids in no group; an id that does not occur.
    Case("10.1", (tensor([[0, 1, 1]]), [[1], [0]]), tensor([[1, 0, 0]])),
    Case("10.1", (tensor([[0, 1, 2, 255]]), [[4, 2], [0]]), tensor([[1, 255, 0, 255]])),
    Case("10.1", (tensor([[2, 0]]), [[0], [5, 2]]), tensor([[1, 0]])),
    *(
        Case("11.2", (index, *size), corner)
        for size, sides in CORNERS.items()
        for index, corner in enumerate(itertools.product(*sides))
    ),
    Case(
        "11.3",
        ([(0, 0, TILE), (0, 1, TILE + 10)], 2, 4),
        np.array([[0, 5.5, 6.5, 12], [3, 8.5, 9.5, 15]]),
    ),
    Case(
        "11.3",
        ([(0, 0, TILE), (1, 0, TILE + 10), (1, 1, TILE[:, :2] + 20)], 3, 3),
        np.array([[0, 1, 2], [6.5, 35 / 3, 38 / 3], [13, 18.5, 19.5]]),
    ),
    Case("11.3", ([(0, 0, TILE)], 2, 4), ValueError()),
    Case("11.3", (RING, 3, 3), ValueError()),
    Case("11.3", ([], 2, 3), ValueError()),
    *(
        Case("12.1", (f"3 {box}", *size), np.array(inside) > 0)
        for box, size, inside in (
            ("0.5 0.5 0.5 1", (2, 4), [[0, 1, 1, 0], [0, 1, 1, 0]]),
            ("0.25 0.75 0.5 0.5", (4, 2), [[0, 0], [0, 0], [1, 0], [1, 0]]),
            ("0.5 0.5 0.56 1", (1, 10), [[0, 0, 1, 1, 1, 1, 1, 1, 0, 0]]),
            # Its edges lie between centres; it leaves the picture.
            ("0.9 0.1 0.3 0.4", (3, 5), [[0, 0, 0, 0, 1], [0] * 5, [0] * 5]),
        )
    ),
    *(
        Case("12.2", (np.uint16(ids),), np.uint8(target))
        for ids, target in (
            ([[7, 7, 0, 300]], [[1, 1, 0, 1]]),
            ([[7, 7, 300]], [[1, 2, 2]]),
            # Ids that are equal, or 0, in 8 bits; their product is 0 in 16.
            ([[300, 301]], [[2, 2]]),
            ([[256, 512, 0, 7]], [[2, 2, 0, 1]]),
            ([[1, 1, 0], [0, 2, 2]], [[1, 2, 0], [0, 2, 1]]),
            # Corners are no neighbours, nor are the two edges of the picture.
            ([[1, 0, 3], [0, 2, 0]], [[1, 0, 1], [0, 1, 0]]),
        )
    ),
    Case("12.3", (), frozen_faults),
    Case("13.1", (np.float32([[1, -2]]), np.float32([[1.5, 1]])), 3.0),
    Case("13.1", (np.uint8([[1, 2]]), np.uint8([[2, 2]])), 1.0),
    Case("13.1", (np.float32([[0.1, 0.2]]), np.float32([[0.1, 0.25]])), 0.05),
    Case("13.1", (np.float32([[1, np.inf]]), np.float32([[9, np.inf]])), ValueError()),
    Case("13.1", (ROW, COLUMN), ValueError()),
    Case("13.1", (ROW, np.float32([[1, 1, np.nan]])), ValueError()),
    # Both sides, one of them, none to be padded.
    Case("13.2", (PIXELS, 2), PIXELS[[0, 1, 2, 2]][:, [0, 1, 2, 3, 4, 4]]),
    Case("13.2", (PIXELS, 3), PIXELS[:, [0, 1, 2, 3, 4, 4]]),
    Case("13.2", (PIXELS[:2, :4], 2), PIXELS[:2, :4]),
    Case("13.2", (PIXELS[:1, :2], 4), PIXELS[[0, 0, 0, 0]][:, [0, 1, 1, 1]]),
    Case("13.3", (torch.zeros(3, 224, 256),), black_faults),
]
