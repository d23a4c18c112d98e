"""The checks of the exercises: no answer, right answers, and typical wrong ones.

Right are the solutions of the lessons, and others that are written in another style.
Most wrong answers are such a solution with a piece replaced.
"""

import ast
import importlib
import inspect
import itertools
import json
import math
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import exercises
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from torch import tensor

import ui_segmentation_system as ui

ROOT = Path(__file__).parents[1]
NAMES = sorted(exercises.HINTS.keys() | {case.exercise for case in exercises.CASES})
Dataset = torch.utils.data.Dataset  # a solution uses it
SIDES = 22_800, 22_700
nn, F = torch.nn, torch.nn.functional  # solutions use them, and ConvBlock
ConvBlock, UNSEEDED = ui.ConvBlock, itertools.count(0.1, 0.1)
DICE, TURNS = torch.Generator(), itertools.cycle(range(4))
INPUTS = ROOT / "test_inputs"
names = json.loads((INPUTS / "index.json").read_text("utf-8"))["class_names"]


@cache
def sources() -> dict[str, str]:
    """Read the functions and classes of the lessons' solutions."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        source = [cell.source for cell in cells if cell.cell_type == "code"][-1]
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = ast.get_source_segment(source, node)
    return found


def build(name: str, old: str = "", new: str = "") -> Any:
    """Make a solution of a lesson, or of this file, with a piece replaced."""
    own = globals().get(name)
    source = inspect.getsource(own) if own else sources()[name]
    assert old in source
    exec(source.replace(old, new), scope := dict(globals()))
    return scope[name]


dialog_pixels = build("dialog_pixels")
batches = build("same_size_batches")

# Right answers in another style, and wrong ones


def square(image, target, size):
    shape = [round(side * size / max(image.size)) for side in image.size]
    picture, labels = Image.new("RGB", (size, size)), Image.new("L", (size, size), 128)
    picture.paste(image.resize(shape))
    labels.paste(target.resize(shape, Image.Resampling.NEAREST))
    return picture, labels


def merge_by_table(ids, groups):
    table = torch.full((256,), 255)
    for place in reversed(range(len(groups))):
        table[groups.pop()] = place
    return table[ids]


def mean_iou(*masks):
    return fmean(build("pooled_iou")([f], [w]) for f, w in zip(*masks, strict=True))


def one_behind(results):
    items = itertools.chain(build("in_order")(results), "e")
    return (item for item, _ in itertools.pairwise(items))


# By exercise and solution: a piece of it, what stands there instead, words of the hint.
SWAPS = """
01.2 class_shares
    ids[ids != 255] => ids => expected [0.4, 0.6, 0.0], got [0.3333, 0.5, 0.0]
02.1 match_all
    [name for name in targets => [name for name in [] => naming 2_target.jpg, got [[
    if orphans => if orphans and len(inputs) != len(targets) => got KeyError('2')
    {orphans} => some => naming 2_input.png, got ValueError('no partner for s
    {orphans} => {inputs}{targets} => a ValueError naming 2_input.png, got ValueE
    {orphans} => {orphans[0]} => naming 2_input.png naming 3_target.jpg, got V
02.2 Halves
    (*halves) => (halves[0], self.dataset[0][1]) => sample 0: expected image
    not 0 <= index < len(self) => index > 5 => IndexError, or loops never end; the data
    dim=-1 => dim=-2 => sample 0: expected shape (1, 1, 2), got (1, 1, 4), a
    ui.Sample(*halves) => tuple(halves) => expected a ui.Sample, got tuple
03.3 quarter_turn
    target, turns => target, int(torch.randint(0, 4, (1,))) => draw once
    torch.rot90(image, turns, (-2, -1)) => image.flip(-1) => turn, without a
    = int( => = 2 * int( => degrees: [
    = int(torch.randint(0, 4, (1,))) => = round(float(3 * torch.rand(1))) => each as
    torch.rot90(target, turns, (-2, -1)) => torch.rot90(target, turns, (-1, -2)) => draw
    (1,) => (1,), generator=DICE => after the seeds 0, 0 and 1 the first turns
    torch.randint(0, 4, (1,)) => next(TURNS) => draw from torch's global
03.2 square
    image.resize(shape) => image.resize(shape, Image.Resampling.NEAREST) => not blended
    (target. => (target.transform(target.size, 0, (1, 0, -1, 0, 1, 0)). => [0, 255, 255]
    NEAREST)) => NEAREST), (0, (size - shape[1]) // 2)) => on the right or at the bottom
    "RGB", (size, size)) => "RGB", (size, size), "white") => alone, the image with black
    , 128) => ) => expected 32 and 64, got 64 and 64; keep the ratio
    max(image.size) => image.width => (40, 80), 64: rows and columns
    max(image.size) => max(64, *image.size) => (32, 16), 64: rows and columns
    return picture, labels => return image.resize(shape), labels => got [(64, 32), (64
    NEAREST => BILINEAR => expected 0, 255 and ignored (128) alone in the mask
    picture.paste(image.resize(shape)) => pass => 25% of the image is wrong
    (target. => (target.transpose(1). => 50% of the mask is wrong
    return picture, labels => return [np.array(labels)] * 2 => pictures in, p
04.2 UpSideBySide
    self.block(torch.cat([self.up(x), skip], dim=1)) => self.up(x) => whatever skip is
    [self.up(x), skip] => [skip, skip] => gives the same whatever x is
    skip], dim=1)) => skip], dim=1))[..., 1:] => got (2, 4, 6, 9)
    super().__init__() => super().__init__(); self.parameters = list => no convolution
    self.up(x), => self.up(x.detach()), => passes no gradient on to x
    skip], => skip.mean((2, 3), keepdim=True).expand_as(skip)], => loses where a pixel
04.3 forward
    first((image - 0.5) * 4) => first(image) => is the image scaled, the middle's
    x = up(x, skips.pop()) => x = up(x, skips.pop(0)) => your answer raised
    return network.head(x) => return network.head(x).sigmoid() => these are probab
    return network.head(x) => return x => expected (2, 1, 32, 48), got (2, 16, 32
05.1 dice_score
    total == 0 => 1 // int(total) < 0 => your answer raised ZeroDivisionError
07.1 pooled_iou
    both / either if => 2 * both / (both + either) if => that is Dice
    if either => if all(t.sum() for t in targets[:1]) => expected 0.6, got 1.0
    both / either if either else 1.0 => both / either => raised ZeroDivisionError
07.2 make_folds
    in enumerate(groups) => in enumerate(range(20)) => group 'a' is in several
    return folds => return list(members.values()) => expected 2 folds, got 5
    , reverse=True) => ) => at most 10 samples in a fold, got
    (groups) => (groups[:-1]) => index 19 occurs 0 times, expected 1
    append(index) => append(group) => expected lists of indices, got [['b'
08.2 in_order
    early.pop(wanted) => early[wanted] => items are kept after they
    while wanted => if wanted => in the order (0, 1, 3, 2): expected ['a', 'b'
    wanted in early => early.get(wanted) is not None => [1.0, 1.0]], got []
08.1 same_size_batches
    in enumerate(sizes) => in enumerate([0] * 11) => batch [0, 1] mixes sizes
    (size, => (size[0], => mixes sizes [(64, 48), (64, 64)]
    sizes, batch_size => sizes, _, batch_size=2 => expected 4 batches, got 6
09.2 road_target
    return target => return target.squeeze() => got Tensor torch.float32 (9,)
    return target => mask[:] = 0; return target => changed what it was
    = 255 => = 0 => expected [[1.0, 0.0, 255.0], [255.0, 1.0, 0.0]], got [[
    mask == (255, 0, 255) => mask[..., ::2] == 255 => got [[0.0, 0.0, 1.0, 0.0,
    (mask == 0).all(-1) => mask[..., 0] == 0 => got [[255.0, 255.0, 0.0
09.3 split_with_gap
    range(first - gap) => range(first - gap + 1) => 12, 13], [16
    range(first, num_frames) => range(num_frames)[first - num_frames:] => for 20, 0.02
    range(first - gap) => range(first)[:-gap] => for 20, 0.18, 0: expected
    round( => int( => for 20, 0.18, 0: expected
    round( => math.ceil( => for 20, 0.17, 2: expected
    gap < 1 => gap < 0 => for 10, 0.4, 6: expected a ValueError, got [[], [6
    first - gap < 1 => first == gap => for 10, 0.4, 8: expected a ValueError
    gap < 1 => gap < 2 => for 10, 0.4, 5: your answer raised ValueError
    ValueError => AssertionError => expected a ValueError, got AssertionError
10.3 class_weights
    .rsqrt() => **-1 => expected [0.3, 0.9, 1.8], got [0.0652, 0.587, 2.3478]
    [counts > 0].mean() => .mean() => for [900, 0, 100, 25]: expected
    return weights => return weights[counts > 0] => 1.8], got [0.3, 0.9, 1.8]
10.1 merge_classes
    torch.full_like(ids, 255) => ids => your function changed what it was given
    = new => = min(group) => expected [[1, 0, 0]], got [[0, 1, 1]]
    return merged => return merged.byte() => expected Tensor torch.int64 (1, 3)
    return merged => return merged[None] => got Tensor torch.int64 (1, 1, 3)
10.1 merge_by_table
    (256,) => (max(map(max, groups)) + 1,) => your answer raised IndexError
    (256,) => (int(ids.max()) + 1,) => [2, 0]], [[0], [5, 2]]: your answer rai
11.2 place_of
    max(min(row * step, height - tile), 0) => row * step => expected [4, 0], g
    1 + max(-(-(width - tile) // step), 0) => -(-width // step) => expected [3, 0], got
    (width - tile) => width => got [
    height - tile), 0) => height - tile), -1) => expected [0, 0], got [-1, 0]
    divmod(index => divmod(float(index) => expected [0, 0], got [0.0, 0.0]
11.3 stitch
    total / count => total => got [[0.0, 11.0
    total / count => (total / count).T => got ndarray float32 or float64 (4, 2)
    h, w = => values *= 2; h, w = => your function changed what it was
    raise ValueError => count[count == 0] = 1  # => expected a ValueError, got
    if (count => if tiles and (count => for [], 2, 3: expected a ValueError
    (count == 0).any() => count.sum() < count.size => [[1.0, 1.0, 1.0], [1.0
12.1 box_mask
    h / 2 => h => expected [[False, False], [False, False], [True, False], [T
    + 0.5) / width => ) / width => for '3 0.5 0.5 0.5 1', 2, 4: expected
    w / 2) => w / 2) * 1 => expected ndarray bool (2, 4), got ndarray int
12.2 split_touching
    (other > 0) => (other >= 0) => for [[7, 7, 0, 300]]: expected [[1, 1, 0, 1]], got
    padded[:-2, 1:-1] => ids => expected [[1, 2, 0], [0, 2, 1]], got
    mode="edge" => mode="wrap" => got [[2, 1, 0, 2]]
12.3 frozen
    encoder="mobilenet_v2" => encoder="mobilenet_v2", encoder_weights=None => came with
    network.encoder.req => network.head.req => weights of the encoder learn, not none
    network.encoder.req => network.req => other weights do not learn, not all
13.1 gap
    abs(found - wanted) => (found - wanted) => expected 3.0, got -0.5
    , np.float64) => ) => expected 1.0, got 255
    np.float64) => np.int64) => expected 0.05, got 0.0
    found.shape != wanted.shape => False => expected a ValueError, got 0.0
    .all() => .any() => [[9.0, inf]]: expected a ValueError, got nan
    raise ValueError( => raise TypeError( => expected a ValueError, got TypeError
13.2 pad_to
    -side % multiple => multiple - side % multiple => got ndarray uint8 (6, 6, 3)
    ((0, below), (0, right) => ((0, right), (0, below) => got ndarray uint8
    ((0, below), (0, right) => ((below, 0), (0, right) => expected [[[0, 1, 2], [
    "edge" => "constant" => [0, 0, 0]
"""
SOLUTIONS = [line.split() for line in SWAPS.splitlines() if line[:1].isdigit()]

# Mistakes of another kind. Unknown numbers get the hint of the right one.
WRONG: list[tuple[str, Any, str]] = [
    ("01.2", [0.5, 0.5], "the answer is the function itself, without brackets"),
    ("02.1", zip, "got [['1_input.png', '2_target.jpg'], ['2_input.png', '1_target."),
    ("04.2", lambda *_: torch.nn.Upsample(scale_factor=2), "raised TypeError"),
    ("04.4", lambda rate: next(UNSEEDED), "set the seed before the network is made"),
    ("04.4", lambda rate: 0.7, "one of them is below the constant's"),
    ("04.4", lambda rate: 5 * rate, "expected the lowest at 0.003"),
    ("04.4", lambda rate: 0.01 + 0.2 * (rate != 3e-3), "seed 0, 20 steps?"),
    ("05.2", lambda seed: 0.5, "the IoU is 0.50: expected more than 0.9"),
    ("06.2", lambda epochs: 0.05 * epochs, "9 gave 0.45: expected no great change"),
    ("06.2", lambda epochs: 0.3, "is `epochs` used?"),
    ("06.2", lambda epochs: 0.9 - epochs / 1000, "expected the mean IoU of the val"),
    ("05.1", lambda p, t: (p & t).sum() / (p | t).sum(), "got 0.25: that is IoU; Dice"),
    ("05.1", lambda p, t: (p == t).float().mean(), "that is the share of right pixels"),
    ("07.1", mean_iou, "that is the mean of the pictures' IoU"),
    ("08.2", sorted, "a list waits for all results; use yield"),
    ("08.2", one_behind, "item 0 came after 2 of 4 results, but was due after 1"),
    ("08.2", lambda results: itertools.cycle(build("in_order")(results)), "'d', 'a']"),
    ("08.1", lambda s, n: [b for b in batches(s, n) if len(b) == n], "index 6 occurs "),
    ("08.1", lambda s, n: [*batches(s, n), []], "1 to 2 samples in a batch, got []"),
    ("08.1", lambda s, n: [[s[i] for i in b] for b in batches(s, n)], "lists of ind"),
    ("09.3", lambda *film: build("split_with_gap")(*film)[::-1], "got [[16"),
    ("10.2", "0.78", "that is precision"),
    ("11.2", lambda *tile: build("place_of")(*tile)[0], "expected [0, 0], got 0"),
    ("12.3", ui.UISegmentationSystem, 'a system made with encoder="mobilenet_v2"'),
    ("13.3", lambda image: 0.877, "the IoU is 0.88: expected less than with training"),
    ("13.3", lambda image: 0.24, "calibrate with the given image alone"),
]
for line in SWAPS.strip().splitlines():
    if line[0].isdigit():
        exercise, solution = line.split()
    else:
        old, new, words = line.strip().split(" => ")
        WRONG.append((exercise, build(solution, old, new), words))

# The solutions themselves, and others of their kind.
RIGHT: list[tuple[str, Any]] = [
    *((exercise, build(solution)) for exercise, solution in SOLUTIONS),
    ("03.2", build("letterbox")),
    *(("01.1", iou) for iou in (0.32, tensor(0.3156), np.float32(0.3156), "0.32")),
    ("01.2", lambda *given: tensor(build("class_shares")(*given))),
    ("02.1", lambda *names: reversed(build("match_all")(*names))),
    ("04.2", ui.Up),
    ("04.4", {3e-4: 0.3, 3e-3: 0.015, 3e-2: tensor(0.2)}.get),
    ("05.1", lambda *masks: np.float64(build("dice_score")(*masks))),
    ("05.2", lambda seed: tensor(0.99)),
    ("06.2", lambda epochs: np.float64(0.3 + epochs / 1000)),
    ("07.1", lambda *masks: tensor(build("pooled_iou")(*masks))),
    ("07.2", lambda *given: map(tensor, build("make_folds")(*given)[::-1])),
    ("08.1", lambda *given: map(np.array, batches(*given)[::-1])),
    ("09.3", lambda *film: (tensor(f).flip(0) for f in build("split_with_gap")(*film))),
    ("11.2", lambda *tile: np.array(build("place_of")(*tile))),
    ("13.1", lambda *two: tensor(build("gap")(*two))),
    ("13.3", lambda image: np.float32(0.79)),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answer_is_ok(name: str, answer: Any) -> None:
    assert exercises.check(name, answer) == "ok"


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answer_gets_its_hint(name: str, answer: Any, words: str) -> None:
    verdict = exercises.check(name, answer)
    assert verdict.startswith("hint: ")
    assert words in verdict


# The right number, and those of known mistakes.
NUMBERS: dict[str, list[float]] = {
    "01.1": [0.3156, 1 - 0.316, 1],
    "01.3": [
        max(range(1, 121), key=dialog_pixels),
        *(59, dialog_pixels(60), sorted(f"{n}_" for n in range(1, 121)).index("60_")),
    ],
    "02.3": [999 % 16, 999 // 16, 1 + 999 // 16, 999 // 16 * 16],
    "03.1": [640 * 120 // 480, 120],
    "04.1": [16 * 32 * 9 + 32 + 64, 16 * 32 * 9 + 32, 16 * 32 * 9 + 64],
    "06.1": [len(ui.group_split([i // 5 for i in range(60)], 0.2)[1]), 12, 2, 15],
    "08.3": [(1 + 3 * 4) * 16, 3 * 4 * 16, (1 + 4) * 16, 1 + 3 * 4, 1000],
    "09.1": [95 + 95, 96 + 98, 3 * 95],
    "10.2": [35 / 50, 35 / 40, 35 / 45, 85 / 100, 70 / 85, 50 / 65],
    "11.1": [
        math.prod(1 + math.ceil((n - 512) / 384) for n in SIDES),
        *(math.prod(way(n / 384) for n in SIDES) for way in (math.ceil, round)),
        *(math.prod((n - 512) // 384 + more for n in SIDES) for more in (1, 0)),
        math.prod(math.ceil(n / 512) for n in SIDES),
        round(math.prod(SIDES) / 384**2),
    ],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_known_mistake_gets_its_own_hint(name: str) -> None:
    right, *mistakes = NUMBERS[name]
    assert exercises.check(name, right) == "ok"
    # An unknown number gets the hint that stands at the right one.
    hints = [f"hint: {hint}" for hint in exercises.HINTS[name].values()]
    assert [exercises.check(name, value) for value in (-1, *mistakes)] == hints


def test_every_exercise_has_right_and_wrong_answers() -> None:
    for table in (RIGHT, WRONG):
        assert {row[0] for row in table} | NUMBERS.keys() == set(NAMES)
    assert {exercises.check(name, None) for name in NAMES} == {"not answered yet"}
    with pytest.raises(KeyError, match=r"01\.9"):
        exercises.check("01.9", 1)


def raises(*_: Any) -> None:
    raise RuntimeError("size mismatch")


ODD = [0, -1.5, "text", [], {}, object(), torch.zeros(2), print, int, str, raises]


@pytest.mark.parametrize("answer", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_odd_answer_gets_a_hint(name: str, answer: Any) -> None:
    verdict = exercises.check(name, answer)
    assert verdict.startswith("hint: ")
    if answer is raises and name not in NUMBERS:
        assert "your answer raised RuntimeError: size mismatch" in verdict


def test_checks_leave_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    importlib.reload(exercises)
    for name, answer in RIGHT:
        exercises.check(name, answer)
    assert torch.equal(torch.get_rng_state(), before)
