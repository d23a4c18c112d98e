"""Compare a cell's new outputs with the stored ones: words exactly, numbers within a
tolerance, figures by what they show. docs/comparison.md says how tolerances are set.

Tags of a cell; without any, all is compared exactly, but for the antialiasing of
another machine:

    tolerance=0.02       decimals and percentages may differ by this amount
    counts=0.05          whole numbers may differ by this share of the stored one
    figure=0.15          what a figure shows may stand 8 pixels away and differ by this
                         amount of full brightness
    writes=roads.png     the cell writes test_outputs/lesson_NN/roads.png; it is
                         compared with the committed test_outputs/roads.png
    left-out=figure: it shows times      one thing is not compared, and why; or text
"""

import base64
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageSequence

# A number that stands for itself, not a part of a name like um_000003 or 256x224, with
# the spaces around it: (spaces)(number with (decimals) and (percent sign))(spaces).
NUMBER = re.compile(
    r"( *)(?<![\w.])([-+]?\d+(?:,\d{3})*(\.\d+)?(?:[eE][-+]?\d+)?( ?%)?)(?!\w|\.\d)( *)"
)
# The mean colour of a square of this side, in pixels, may differ by this amount of full
# brightness. Antialiasing of text stays below 0.05; a curve of one pixel is over 0.15.
SQUARE, AMOUNT = 8, 0.06
# With the tag `figure`, a square looks for its colour as many squares away as this. It
# is this small so that a curve of one pixel, once gone, is over the widest amount.
SMALL_SQUARE, REACH, WIDEST = 4, 2, 0.2
IMAGES = ("image/png", "image/jpeg")
# Above it a figure gets 256 colours: half a dozen figures then fit into a lesson.
LARGEST_FIGURE = 50_000
# Keys of an output that say nothing about what a reader sees.
UNSEEN = {"output_type", "metadata", "execution_count", "traceback", "name"}


class Allowed(NamedTuple):
    """What the tags of a cell allow."""

    tolerance: float = 0.0
    counts: float = 0.0
    figure: float = 0.0
    writes: tuple[str, ...] = ()
    left_out: str = ""


def read_tags(tags: Sequence[str]) -> Allowed:
    """Read a cell's tags; one without "=" means nothing here.

    Raises ValueError for another name, for an amount that is none, and for something
    that is left out without a reason.
    """
    found: dict[str, Any] = {}
    for tag in tags:
        name, equals, value = tag.partition("=")
        if not equals:
            continue
        if name in ("tolerance", "counts", "figure"):
            amount = float(value) if re.fullmatch(r"0?\.\d+", value) else 0.0
            if not 0 < amount <= (WIDEST if name == "figure" else 1):
                raise ValueError(
                    f"tag {tag!r}: expected an amount like 0.02, above 0 and below 1, "
                    f"of a figure at most {WIDEST}"
                )
            found[name] = amount
        elif name == "writes":
            found["writes"] = (*found.get("writes", ()), value)
        elif name == "left-out" and re.fullmatch(r"(figure|text): .+", value):
            found["left_out"] = value.partition(":")[0]
        else:
            raise ValueError(
                f"tag {tag!r}: expected tolerance=, counts=, figure=, writes= or "
                "left-out=figure: REASON (or text: REASON)"
            )
    return Allowed(**found)


def compare_cells(
    stored: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    tags: Sequence[str],
    written: Path = Path(),
    kept: Path = Path(),
) -> list[str]:
    """List what differs between two lists of outputs, a line each; empty if they agree.

    Outputs are those of the notebook format, a stream's text under the stream's name.
    written, kept: the folders of what the tag `writes` names, new and committed.
    """
    allowed = read_tags(tags)
    before, now = _by_kind(stored), _by_kind(new)
    faults = []
    for kind in before | now:
        if len(before[kind]) != len(now[kind]):
            faults.append(
                f"{len(before[kind])} outputs of {kind} were stored, now there are "
                f"{len(now[kind])}"
            )
            continue
        is_figure = kind in IMAGES
        if allowed.left_out == ("figure" if is_figure else "text"):
            continue
        for number, (one, other) in enumerate(
            zip(before[kind], now[kind], strict=True), 1
        ):
            name = f"{kind} {number}" if len(now[kind]) > 1 else kind
            if is_figure:
                pictures = (shrink_png(base64.b64decode(data)) for data in (one, other))
                found = compare_pictures(*pictures, allowed.figure)
            else:
                found = compare_texts(one, other, allowed)
            faults += [f"{name}: {fault}" for fault in found]
    for name in allowed.writes:
        pictures = ((folder / name).read_bytes() for folder in (kept, written))
        found = compare_pictures(*pictures, allowed.figure)
        faults += [f"test_outputs/{name}: {fault}" for fault in found]
    return faults


def _by_kind(outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Sort what a reader sees by stream or MIME type; between kinds order is free."""
    found: dict[str, list[str]] = defaultdict(list)
    for output in outputs:
        for kind, content in (dict(output) | dict(output.get("data", {}))).items():
            if kind not in UNSEEN and kind != "data":
                text = "".join(content) if isinstance(content, list) else str(content)
                found[kind].append(text)
    return found


def compare_texts(stored: str, new: str, allowed: Allowed) -> Iterator[str]:
    """Say what differs between two texts: words and layout, or else numbers."""
    lines = [NUMBER.sub("\0", text).split("\n") for text in (stored, new)]
    if lines[0] != lines[1]:
        # The first line that differs; where one text just goes on, the line after.
        equal = [one == other for one, other in zip(*lines, strict=False)]
        line = [*equal, False].index(False)
        texts = [(*text.split("\n"), "(the end)")[line] for text in (stored, new)]
        yield f"line {line + 1} was {texts[0]!r}, now {texts[1]!r}"
        return
    pairs = zip(NUMBER.finditer(stored), NUMBER.finditer(new), strict=True)
    for one, other in pairs:
        if one[0] != other[0] and (fault := _compare_numbers(one, other, allowed)):
            line = stored.count("\n", 0, one.start(2)) + 1
            yield f"line {line}: {one[2]} was stored, now {other[2]}; {fault}"


def _compare_numbers(one: re.Match, other: re.Match, allowed: Allowed) -> str:
    """Say why two numbers, written differently, do not agree; "" if they do."""
    # A wider number may take the place of spaces, as in the column of a table.
    if len(one[0]) != len(other[0]) and (one[1], one[5]) != (other[1], other[5]):
        return "and the spaces around it differ"
    value, new_value = (
        float(re.sub("[, %]", "", match[2])) / (100 if match[4] else 1)
        for match in (one, other)
    )
    whole = re.fullmatch(r"[-+]?[\d,]+", one[2]) and re.fullmatch(
        r"[-+]?[\d,]+", other[2]
    )
    name, amount = (
        ("counts", allowed.counts) if whole else ("tolerance", allowed.tolerance)
    )
    if not amount:
        return f"without a tag {name}= it is compared exactly"
    if value * new_value < 0:
        return "its sign changed"
    scientific = "e" in (one[2] + other[2]).lower()
    digits = [(len(match[3] or ""), match[4]) for match in (one, other)]
    if not scientific and digits[0] != digits[1]:
        return "and it is written with other digits"
    limit = amount * abs(value) if whole else amount
    distance = abs(value - new_value)
    if distance <= limit + 1e-9:
        return ""
    return f"they differ by {distance:.6g}, and {name}={amount:g} allows {limit:.6g}"


def shrink_png(data: bytes) -> bytes:
    """Reduce a large PNG to 256 colours at the same size, where that is smaller."""
    if len(data) <= LARGEST_FIGURE:
        return data
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(paper, picture).convert("RGB")
    buffer = io.BytesIO()
    # Rare colours, such as those of a legend, are kept.
    few = flat.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return min(data, buffer.getvalue(), key=len)


def compare_pictures(stored: bytes, new: bytes, figure: float = 0.0) -> Iterator[str]:
    """Say where two picture files show different things; a GIF frame by frame.

    figure: the amount of the tag, 0 without it.
    """
    one, other = (Image.open(io.BytesIO(data)) for data in (stored, new))
    kinds = [(file.size, getattr(file, "n_frames", 1)) for file in (one, other)]
    if kinds[0] != kinds[1]:
        yield f"size and number of frames were {kinds[0]}, now they are {kinds[1]}"
        return
    frames = map(ImageSequence.Iterator, (one, other))
    for number, (frame, new_frame) in enumerate(zip(*frames, strict=True)):
        if frame.info.get("duration") != new_frame.info.get("duration"):
            yield f"frame {number} is shown for another time"
        distances, side = _distances(frame, new_frame, figure)
        y, x = np.unravel_index(distances.argmax(), distances.shape)
        if distances[y, x] > (figure or AMOUNT):
            yield (
                f"frame {number} shows something else at x={x * side}, y={y * side}: "
                f"the colours differ by {distances[y, x]:.2f}, and "
                + (f"figure={figure:g}" if figure else f"{AMOUNT}")
                + " is allowed"
            )
            return


def _distances(
    one: Image.Image, other: Image.Image, figure: float
) -> tuple[np.ndarray, int]:
    """Compare two pictures square by square: distances, 0..1 (h, w), and the side."""
    side = SMALL_SQUARE if figure else SQUARE
    means = [_on_white(picture).reduce(side) for picture in (one, other)]
    first, second = (np.asarray(mean) / 255 for mean in means)
    if not figure:
        return np.abs(first - second).max(axis=2), side
    # A square agrees with the other picture if its colour lies between the darkest and
    # the brightest of the squares around; both ways, so that nothing is lost or added.
    window = 2 * REACH + 1
    darkest, brightest = (
        [np.asarray(mean.filter(find(window))) / 255 for mean in means]
        for find in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    )
    outside = [
        np.maximum(darkest[1] - first, first - brightest[1]),
        np.maximum(darkest[0] - second, second - brightest[0]),
    ]
    return np.maximum(*outside).max(axis=2), side


def _on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
