"""The checks of the exercises: each answers "not answered yet", a hint, or "ok"."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

NOT_YET = "not answered yet"
OK = "ok"

CHECKS: dict[str, Callable[[Any], str]] = {}


def check(exercise: str, answer: Any) -> str:
    """Judge an answer to an exercise, such as "01.2"; None is no answer yet."""
    if answer is None:
        return NOT_YET
    return CHECKS[exercise](answer)


def exercise(name: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Enter a check under the name of its exercise."""

    def enter(function: Callable[[Any], str]) -> Callable[[Any], str]:
        CHECKS[name] = function
        return function

    return enter


def near(answer: Any, wanted: float, tolerance: float = 0.006) -> bool:
    """Whether an answer is a number within the tolerance of two digits."""
    return isinstance(answer, int | float) and abs(answer - wanted) <= tolerance


# Lesson 01


@exercise("01.1")
def iou_of_all_interface(answer: Any) -> str:
    if near(answer, 0.684):
        return "hint: that is the share of right pixels of 'all background'"
    if near(answer, 1.0):
        return "hint: the mask is inside the answer, but the union is the whole picture"
    return OK if near(answer, 0.316) else "hint: intersection = mask, union = picture"


@exercise("01.2")
def class_shares(answer: Any) -> str:
    if not callable(answer):
        return "hint: the answer is the function itself, without brackets"
    ids = torch.tensor([[0, 1, 1, 255], [2, 1, 0, 255]])
    shares = [float(share) for share in answer(ids, 4)]
    if len(shares) != 4:
        return f"hint: {len(shares)} shares for 4 classes; a class may be absent"
    if abs(sum(shares) - 1) > 1e-6:
        return "hint: the shares add up to less than 1: ignored pixels do not count"
    right = [2 / 6, 3 / 6, 1 / 6, 0]
    same = all(abs(a - b) < 1e-6 for a, b in zip(shares, right, strict=True))
    return OK if same else f"hint: for {ids.tolist()} expected {right}, got {shares}"


@exercise("01.3")
def largest_cursor(answer: Any) -> str:
    return OK if answer == 0 else "hint: count (classes == names.index('cursor'))"


# Lesson 02


@exercise("02.1")
def left_out(answer: Any) -> str:
    if answer == 62:
        return "hint: that is the number of batches"
    return OK if answer == 7 else "hint: whole batches first, then what remains"


@exercise("02.2")
def match_all(answer: Any) -> str:
    if not callable(answer):
        return "hint: the answer is the function itself, without brackets"
    pairs = answer(["1_input.png", "2_input.png"], ["2_target.jpg", "1_target.jpg"])
    if list(map(tuple, pairs)) != [
        ("1_input.png", "1_target.jpg"),
        ("2_input.png", "2_target.jpg"),
    ]:
        return f"hint: two shuffled pairs came back as {pairs}"
    for inputs, targets, orphan in (
        (["1_input.png", "2_input.png"], ["1_target.jpg"], "2_input.png"),
        (["1_input.png"], ["1_target.jpg", "2_target.jpg"], "2_target.jpg"),
    ):
        try:
            answer(inputs, targets)
        except ValueError as error:
            if orphan not in str(error):
                return f"hint: the message does not name {orphan}"
        else:
            return f"hint: {orphan} has no partner, and nothing was raised"
    return OK


@exercise("02.3")
def halves(answer: Any) -> str:
    sample = (torch.arange(24).view(1, 4, 6), torch.arange(24).view(1, 4, 6))
    dataset = answer([sample, sample])
    if len(dataset) != 4:
        return f"hint: 2 samples gave a length of {len(dataset)}"
    left, right = dataset[2], dataset[3]
    if not hasattr(left, "image"):
        return "hint: samples are ui.Sample(image, target)"
    if not torch.equal(torch.cat([left.image, right.image], -1), sample[0]):
        return "hint: samples 2 and 3 side by side are not sample 1"
    if not torch.equal(left.image, left.target):
        return "hint: image and target were not cut at the same place"
    try:
        dataset[4]
    except IndexError:
        return OK
    return "hint: sample 4 of 4 must raise IndexError, or loops never end"


# Lesson 03


@exercise("03.1")
def width_after_resize(answer: Any) -> str:
    if answer == 120:
        return "hint: 120 is the shorter side, which is the height here"
    return OK if answer == 160 else "hint: the ratio 4 to 3 stays"


@exercise("03.2")
def quarter_turn(answer: Any) -> str:
    image = torch.arange(48.0).view(3, 4, 4)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        turned, target = answer(image, image[:1])
        if not torch.equal(turned[:1], target):
            return "hint: image and target were turned by different amounts"
        matches = [k for k in range(4) if turned.equal(image.rot90(k, (-2, -1)))]
        if not matches:
            return "hint: turn in the plane of the last two dimensions"
        seen.add(matches[0])
    return OK if len(seen) == 4 else f"hint: only the turns {sorted(seen)} occur"


@exercise("03.3")
def letterbox(answer: Any) -> str:
    image = Image.new("RGB", (80, 40), "white")
    result_image, target = answer(image, Image.new("L", (80, 40), 255), 64)
    if result_image.size != (64, 64) or target.size != (64, 64):
        return f"hint: sizes {result_image.size} and {target.size}, wanted (64, 64)"
    values = np.array(target)
    if (values == 255).sum() != 64 * 32:
        return "hint: the picture should cover 64x32 of the square; keep its ratio"
    if (values == 0).any():
        return "hint: the padding of the mask claims to be background (0)"
    return OK if (values == 128).sum() == 64 * 32 else "hint: pad with ignored, 128"


# Lesson 04


@exercise("04.1")
def head_parameters(answer: Any) -> str:
    if answer == 80:
        return "hint: that are the weights; each output channel also has a bias"
    return OK if answer == 85 else "hint: 16 channels in, 5 out, 1x1 pixels"


@exercise("04.2")
def dice_score(answer: Any) -> str:
    prediction = torch.tensor([True, True, False, False])
    target = torch.tensor([True, False, True, False])
    nothing = torch.zeros(4, dtype=torch.bool)
    if near(float(answer(prediction, target)), 1 / 3):
        return "hint: that is IoU; Dice counts the common pixels twice"
    if not near(float(answer(prediction, target)), 0.5):
        return f"hint: expected 0.5, got {float(answer(prediction, target)):.2f}"
    empty = float(answer(nothing, nothing))
    return OK if empty == 1 else f"hint: two empty masks gave {empty}, expected 1"


@exercise("04.3")
def reach(answer: Any) -> str:
    if not callable(answer):
        return "hint: the answer is the function itself, without brackets"
    torch.manual_seed(0)
    found = answer(nn.Conv2d(3, 1, 5, padding=2))
    if found != 2:
        return f"hint: one 5x5 convolution reaches 2 pixels, you found {found}"
    torch.manual_seed(0)
    two = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 7, padding=3))
    return OK if answer(two) == 4 else "hint: two layers reach as far as their sum"
