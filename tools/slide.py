"""Draw a stained tissue slide of any size, one window at a time.

Nothing big is ever stored: a pixel depends only on its place and on the seed, so a
window is the same whichever way it is asked for. Only sums, products, quotients and
square roots are used, which every machine rounds alike.

    python -m tools.slide window.png --y 11000 --x 4200 --mask window_mask.png
    python -m tools.slide --memmap folder --size 4096
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.folders import new_folder
from tools.noise import layered_noise, place_hash, value_noise

SIZE = 23_000  # default height and width, pixels
STEP = 8  # pixels between the places where slow fields are computed
BLOCK = 512  # largest side drawn in one go, pixels: keeps the work in the cache
TABLE = 1024  # side of the texture tables, pixels
PITCH = 21  # side of the square that may hold one nucleus, pixels
PATCH = 40  # side of the patch that holds any nucleus whole, pixels
BATCH = 128  # nuclei drawn at once
GLAND_PITCH = 250  # side of the square that may hold one gland or fat cell, pixels
FAT = 0.9  # a larger share of lumen than this is a fat cell, not a gland
STREAMS = 128  # independent streams of random numbers for each seed
GLASS = (246, 243, 246)  # the light that passes where there is no tissue, RGB
HAEMATOXYLIN = (1.4, 1.66, 0.76)  # what the violet dye at 255 takes from RGB
EOSIN = (0.32, 1.28, 0.86)  # what the pink dye at 255 takes from RGB


class Stream(IntEnum):
    """The streams of random numbers: no two uses share one."""

    TEXTURE = 0  # three tables
    GLAND = 3  # six numbers for each gland
    FAT = 9
    RICH = 10
    BEND_SLOW = 11
    BEND_FAST = 12
    WANDER_Y = 14
    WANDER_X = 15
    RAGGED = 16
    FOLLICLE = 17
    CROWD = 18
    TONE = 19
    NUCLEUS = 20  # nine numbers for each nucleus
    LAND = 40  # three layers


class Glands(NamedTuple):
    """The nearest gland of each place; distances are in units of its radius."""

    near: np.ndarray
    second: np.ndarray
    middle_y: np.ndarray
    middle_x: np.ndarray
    radius: np.ndarray
    lumen: np.ndarray


class Ground(NamedTuple):
    """What the tissue is like at each place.

    solid: distance into the tissue, about in pixels, negative in the open.
    epithelium, immune: 0 to 1. bend: how far fibres are shifted downwards, pixels.
    """

    solid: np.ndarray
    epithelium: np.ndarray
    immune: np.ndarray
    bend: np.ndarray
    glands: Glands


class Nuclei(NamedTuple):
    """The nuclei of a window, in the order they are drawn: one value for each.

    y, x: middle, pixels. along: direction of the long axis. long, short: half axes,
    pixels. dark: violet dye, 0 to 255. bow: how bent. spot: where the dark spot is.
    """

    y: np.ndarray
    x: np.ndarray
    along_y: np.ndarray
    along_x: np.ndarray
    long: np.ndarray
    short: np.ndarray
    dark: np.ndarray
    bow: np.ndarray
    spot: np.ndarray


class Tables(NamedTuple):
    """Textures that repeat, (TABLE, TABLE), and the colour of each pair of dyes."""

    fibre: np.ndarray
    clump: np.ndarray
    grain: np.ndarray
    colours: np.ndarray


def _salt(seed: int, stream: int) -> int:
    return seed * STREAMS + stream


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise from 0 at low to 1 at high."""
    return np.clip((values - low) / (high - low), 0, 1)


def _turn(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a number from 0 to 1 into a direction of half a circle, without sine."""
    t = 2 * share - 1
    return 2 * t / (1 + t * t), (1 - t * t) / (1 + t * t)


def _blur(texture: np.ndarray, *passes: tuple[int, int]) -> np.ndarray:
    """Average 2 ** doublings neighbours along each (axis, doublings), edges joined."""
    for axis, doublings in passes:
        for step in range(doublings):
            texture = (texture + np.roll(texture, 2**step, axis)) / 2
    return texture


def _spread(texture: np.ndarray, gain: float) -> np.ndarray:
    return 128 + (texture - 127.5) * gain


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _colours() -> np.ndarray:
    """List the colour of each pair of dyes, row 256 * violet + pink, uint8 RGB."""
    dye = np.arange(256)[:, None] / 255
    violet, pink = dye * np.array(HAEMATOXYLIN), dye * np.array(EOSIN)
    passed = 1 - (violet[:, None] + pink[None]) / 64
    for _ in range(6):  # (1 - d / 64) ** 64 is near exp(-d), and rounds alike anywhere
        passed = passed * passed
    return (passed * np.array(GLASS) + 0.5).astype(np.uint8).reshape(-1, 3)


def make_tables(seed: int) -> Tables:
    """Make the textures of a seed, uint8 with their mean at 128, and the colours."""
    place = np.arange(TABLE)

    def white(number: int) -> np.ndarray:  # float64, 8 MB: none is kept for later
        salt = _salt(seed, Stream.TEXTURE + number)
        return place_hash(place, place[:, None], salt) * 255

    fibre = _spread(_blur(white(0), (1, 6), (1, 5), (0, 2)), 10)
    fibre += _spread(_blur(white(1), (1, 7), (0, 3), (0, 2)), 12)
    fibre = _to_uint8(fibre / 2)
    clump = _to_uint8(_spread(_blur(white(1), (0, 2), (1, 2), (0, 1), (1, 1)), 3))
    return Tables(fibre, clump, _to_uint8(white(2)), _colours())


def _wander(y: np.ndarray, x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Move places by hundreds of pixels, so that no border follows a grid."""
    across = 0.8 * x - 0.6 * y
    down = 0.8 * y + 0.6 * x
    return (
        down + 900 * value_noise(x / 1100, y / 1100, _salt(seed, Stream.WANDER_Y)),
        across + 900 * value_noise(x / 1100, y / 1100, _salt(seed, Stream.WANDER_X)),
    )


def _bend(y: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    """Shift fibres downwards by up to some 500 pixels, smoothly."""
    slow = value_noise(x / 640, y / 1100, _salt(seed, Stream.BEND_SLOW))
    fast = value_noise(x / 210, y / 420, _salt(seed, Stream.BEND_FAST))
    return 460 * slow + 70 * fast


def _gland_squares(rows: np.ndarray, columns: np.ndarray, seed: int) -> np.ndarray:
    """Draw the gland of each square: (7, rows, columns).

    Middle y and x, 1 / radius along and across, direction y and x, share of lumen.
    """
    draw = [
        place_hash(columns, rows[:, None], _salt(seed, Stream.GLAND + number))
        for number in range(6)
    ]
    y = (rows[:, None] + 0.25 + 0.5 * draw[0]) * GLAND_PITCH
    x = (columns + 0.25 + 0.5 * draw[1]) * GLAND_PITCH
    far_y, far_x = _wander(y, x, seed)
    fat = value_noise(far_x / 2600, far_y / 2600, _salt(seed, Stream.FAT)) > 0.74
    rich = value_noise(far_x / 2100, far_y / 2100, _salt(seed, Stream.RICH))
    rich = _ramp(rich, 0.35, 0.55)
    there = fat | (draw[5] < 0.9 * rich)
    radius = np.where(fat, 150 + 40 * draw[2], 80 + 50 * draw[2])
    radius = np.where(there, radius, 1e-3)
    lumen = np.where(fat, 0.97, 0.18 + 0.4 * draw[3])
    stretch = np.where(fat, 1, 0.62 + 0.38 * draw[3])
    along_y, along_x = _turn(draw[4])
    return np.stack([y, x, 1 / radius, 1 / (radius * stretch), along_y, along_x, lumen])


def _gland_distance(
    y: np.ndarray, x: np.ndarray, squares: np.ndarray, square: np.ndarray
) -> np.ndarray:
    """Measure the way from the square's gland to each place, in its radii."""
    middle_y, middle_x, long, short, along_y, along_x, _ = squares[:, square]
    down, across = y - middle_y, x - middle_x
    u = (across * along_x + down * along_y) * long
    v = (down * along_x - across * along_y) * short
    return np.sqrt(u * u + v * v)


def find_glands(y: np.ndarray, x: np.ndarray, seed: int) -> Glands:
    """Find the nearest gland of each place, and how far the second nearest is."""
    row, column = (np.floor(place / GLAND_PITCH).astype(np.int64) for place in (y, x))
    rows = np.arange(row.min() - 1, row.max() + 2)
    columns = np.arange(column.min() - 1, column.max() + 2)
    squares = _gland_squares(rows, columns, seed).reshape(7, -1)
    first = (row - rows[0]) * len(columns) + column - columns[0]
    near = np.full(first.shape, np.inf)
    second, nearest = near.copy(), first
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            square = first + down * len(columns) + across
            distance = _gland_distance(y, x, squares, square)
            second = np.minimum(second, np.maximum(near, distance))
            nearest = np.where(distance < near, square, nearest)
            near = np.minimum(near, distance)
    middle_y, middle_x, narrow, *_, lumen = squares[:, nearest]
    return Glands(near, second, middle_y, middle_x, 1 / narrow, lumen)


def find_ground(y: np.ndarray, x: np.ndarray, seed: int) -> Ground:
    """Find out what the tissue is like at places y and x, float64 of one shape."""
    far_y, far_x = _wander(y, x, seed)
    ragged = value_noise(x / 46, y / 46, _salt(seed, Stream.RAGGED))
    glands = find_glands(y + 44 * ragged, x - 44 * ragged, seed)
    land = layered_noise(far_x / 5200, far_y / 5200, _salt(seed, Stream.LAND))
    follicle = value_noise(far_x / 780, far_y / 780, _salt(seed, Stream.FOLLICLE))
    fat = glands.lumen > FAT
    hollow = (glands.near - glands.lumen) * glands.radius
    wall = 6 - (glands.second - glands.near) * glands.radius / 2
    hollow = np.where(fat, np.maximum(hollow, wall), hollow)
    lining = (1.04 - glands.near) * np.minimum(glands.radius, 130)
    return Ground(
        np.minimum((land - 0.38) * 4000 + 30 * ragged, hollow),
        np.where(fat, 0, _ramp(lining, 0, 6)),
        _ramp(follicle + 0.1 * ragged, 0.74, 0.86),
        _bend(y, x, seed),
        glands,
    )


def _chance(y: np.ndarray, x: np.ndarray, ground: Ground, seed: int) -> np.ndarray:
    """Give the chance of a nucleus at each place: many at the feet of glands."""
    foot = (1.04 - ground.glands.near) * ground.glands.radius
    crowd = value_noise(x / 330, y / 330, _salt(seed, Stream.CROWD))
    loose = np.maximum(0.14 + 0.4 * crowd * crowd, 0.97 * ground.immune)
    lined = np.where(foot < 44, 0.95, 0.06)
    chance = np.where(ground.epithelium > 0, lined, loose)
    fat = (ground.glands.lumen > FAT) & (ground.glands.near < 1.1)
    return np.where(fat, 0.12, chance) * (ground.solid > np.where(fat, 1, 8))


def _direction(
    y: np.ndarray, x: np.ndarray, ground: Ground, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Point to the middle of the gland inside one, along the fibres elsewhere."""
    down = _bend(y, x + STEP, seed) - ground.bend
    across = STEP - (_bend(y + STEP, x, seed) - ground.bend)
    lining = ground.epithelium > 0
    down = np.where(lining, y - ground.glands.middle_y, down)
    across = np.where(lining, x - ground.glands.middle_x, across)
    length = np.sqrt(down * down + across * across) + 1e-9
    return down / length, across / length


def _shape_nuclei(
    y: np.ndarray, x: np.ndarray, ground: Ground, draw: list[np.ndarray], seed: int
) -> Nuclei:
    """Shape nuclei after their ground: spindles, columns or small dark discs."""
    lining, disc = ground.epithelium > 0, draw[3] < ground.immune
    along_y, along_x = _direction(y, x, ground, seed)
    turn_y, turn_x = _turn(draw[4])
    loose = disc & ~lining
    kind = [lining, disc]
    return Nuclei(
        y,
        x,
        np.where(loose, turn_y, along_y),
        np.where(loose, turn_x, along_x),
        np.select(kind, [9 + 4 * draw[5], 6.5 + 3 * draw[5]], 9 + 5 * draw[5]),
        np.select(kind, [5.5 + 2.5 * draw[6], 6 + 1.5 * draw[6]], 3.2 + 3 * draw[6]),
        np.select(kind, [98 + 50 * draw[7], 120 + 80 * draw[7]], 110 + 70 * draw[7]),
        0.9 * (draw[8] - 0.5),
        draw[3] - 0.5,
    )


def find_nuclei(y: int, x: int, shape: tuple[int, int], seed: int) -> Nuclei:
    """Find the nuclei whose patches may touch the window, by rows of squares."""
    reach = PATCH // 2 + 1
    rows, columns = (
        np.arange((start - reach) // PITCH, (start + length + reach) // PITCH + 1)
        for start, length in zip((y, x), shape, strict=True)
    )
    row, column = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
    draw = [
        place_hash(column, row, _salt(seed, Stream.NUCLEUS + number))
        for number in range(9)
    ]
    down = (row + 0.05 + 0.9 * draw[0]) * PITCH
    across = (column + 0.05 + 0.9 * draw[1]) * PITCH
    ground = find_ground(down, across, seed)
    there = draw[2] < _chance(down, across, ground, seed)
    nuclei = _shape_nuclei(down, across, ground, draw, seed)
    return Nuclei(*(values[there] for values in nuclei))


def _fraction(values: np.ndarray) -> np.ndarray:
    return (values - np.floor(values)).astype(np.float32)[:, None, None]


def draw_nuclei(nuclei: Nuclei) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw each nucleus whole in a patch of its own, (n, PATCH, PATCH).

    Returns how much it covers (0 to 1), its dye times that, and its inside (bool).
    """
    column = Nuclei(*(v.astype(np.float32)[:, None, None] for v in nuclei))
    places = np.arange(PATCH, dtype=np.float32) - PATCH // 2
    down = places[:, None] - _fraction(nuclei.y)
    across = places - _fraction(nuclei.x)
    u = (across * column.along_x + down * column.along_y) / column.long
    v = (down * column.along_x - across * column.along_y) / column.short
    u_edge = np.clip(u, -1.5, 1.5)
    v = v + column.bow * (u_edge * u_edge - 0.4)
    edge = u * u + v * v * (1 + column.spot * u_edge)
    cover = np.clip(2.5 - 2 * edge, 0, 1)
    rim = np.maximum(1 - 8 * (edge - 0.9) * (edge - 0.9), 0)
    off_u, off_v = u - column.spot, v - column.bow
    spot = np.maximum(1 - 9 * (off_u * off_u + off_v * off_v), 0)
    ink = cover * column.dark * (0.86 + 0.42 * rim + 0.4 * spot)
    return cover, ink, edge < 1


def _overlap(
    top: int, left: int, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Give the part of a window that a patch lies on, and that part of the patch."""
    bottom, right = min(top + PATCH, shape[0]), min(left + PATCH, shape[1])
    first_row, first_column = max(top, 0), max(left, 0)
    there = np.s_[first_row : max(bottom, 0), first_column : max(right, 0)]
    inside = np.s_[
        first_row - top : max(bottom - top, 0),
        first_column - left : max(right - left, 0),
    ]
    return there, inside


def stamp_nuclei(
    y: int, x: int, shape: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a window's nuclei over each other: cover and dye, float32; mask, uint8."""
    cover, ink = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask = np.zeros(shape, bool)
    nuclei = find_nuclei(y, x, shape, seed)
    tops = np.floor(nuclei.y).astype(int) - PATCH // 2 - y
    lefts = np.floor(nuclei.x).astype(int) - PATCH // 2 - x
    for start in range(0, len(tops), BATCH):
        batch = slice(start, start + BATCH)
        patches = draw_nuclei(Nuclei(*(values[batch] for values in nuclei)))
        for top, left, *patch in zip(tops[batch], lefts[batch], *patches, strict=True):
            there, part = _overlap(int(top), int(left), shape)
            rest = 1 - patch[0][part]
            cover[there] = cover[there] * rest + patch[0][part]
            ink[there] = ink[there] * rest + patch[1][part]
            mask[there] |= patch[2][part]
    return cover, ink, mask.view(np.uint8) * np.uint8(255)


def _fill(slow: np.ndarray, top: int, left: int, shape: tuple[int, int]) -> np.ndarray:
    """Fill in the pixels between places STEP apart, and cut the window out."""
    share = (np.arange(STEP) / STEP).astype(np.float32)
    wide = slow[:, :-1, None] * (1 - share) + slow[:, 1:, None] * share
    wide = wide.reshape(len(slow), -1)[:, left : left + shape[1]]
    share = share[:, None]
    full = wide[:-1, None] * (1 - share) + wide[1:, None] * share
    return full.reshape(-1, shape[1])[top : top + shape[0]]


def _repeat(table: np.ndarray, y: int, x: int, shape: tuple[int, int]) -> np.ndarray:
    """Lay a table side by side over the slide and cut a window, float32."""
    rows = np.arange(y, y + shape[0]) % TABLE
    columns = np.arange(x, x + shape[1]) % TABLE
    return table[rows].take(columns, axis=1).astype(np.float32)


def _dye(
    y: int, x: int, slow: list[np.ndarray], tables: Tables
) -> tuple[np.ndarray, np.ndarray]:
    """Mix violet and pink from the slow fields and the fibres that follow the bend."""
    solid, epithelium, immune, bend, tone = slow
    height, width = solid.shape
    rows = np.arange(y, y + height)[:, None] - bend.astype(np.intp)
    places = rows % TABLE * TABLE + np.arange(x, x + width) % TABLE  # flat, (h, w)
    fibre = tables.fibre.take(places).astype(np.float32) - 128
    loose = 1 - epithelium
    body = np.clip(0.22 * solid + 0.007 * fibre * loose, 0, 1)
    clump = _repeat(tables.clump, y, x, solid.shape) - 128
    pink = 60 + 46 * tone - 8 * epithelium + fibre * (0.15 + 0.37 * loose)
    violet = 4 + 8 * tone + 28 * epithelium + 14 * immune + 0.1 * (fibre + clump)
    return body * np.maximum(violet, 0), body * np.maximum(pink, 0)


def draw_tissue(
    y: int, x: int, shape: tuple[int, int], seed: int, tables: Tables
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the violet and the pink dye of the tissue between nuclei, (h, w)."""
    rows, columns = (
        np.arange(start // STEP, (start + length - 1) // STEP + 2) * STEP
        for start, length in zip((y, x), shape, strict=True)
    )
    down, across = (
        places.astype(np.float64)
        for places in np.meshgrid(rows, columns, indexing="ij")
    )
    ground = find_ground(down, across, seed)
    tone = value_noise(across / 520, down / 520, _salt(seed, Stream.TONE))
    slow = [
        _fill(values.astype(np.float32), y % STEP, x % STEP, shape)
        for values in (
            ground.solid,
            ground.epithelium,
            ground.immune,
            ground.bend,
            tone,
        )
    ]
    return _dye(y, x, slow, tables)


def draw_block(
    y: int, x: int, shape: tuple[int, int], seed: int, tables: Tables
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one window in one go: image (h, w, 3) and mask (h, w), both uint8.

    All is float32; the two dyes are rounded down to bytes that pick a colour.
    """
    violet, pink = draw_tissue(y, x, shape, seed, tables)
    cover, ink, mask = stamp_nuclei(y, x, shape, seed)
    clump = _repeat(tables.clump, y, x, shape)
    violet = violet * (1 - cover) + ink * (0.62 + clump * (0.38 / 128))
    pink = pink * (1 - 0.45 * cover)
    grain = (_repeat(tables.grain, y, x, shape) - 128) * 0.045
    violet = np.clip(violet + grain + 4, 0, 255).astype(np.intp)
    pink = np.clip(pink - grain + 6, 0, 255).astype(np.intp)
    return tables.colours.take(violet * 256 + pink, axis=0), mask


def _rectangle(key: object, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Turn two slices into y, x, height, width inside the picture."""
    pair = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
    if not all(isinstance(part, slice) and part.step in (None, 1) for part in pair):
        raise ValueError(
            "a slide is cut by two slices without a step, slide[y0:y1, x0:x1], "
            f"not by {key!r}"
        )
    (y, y_end, _), (x, x_end, _) = (
        part.indices(length) for part, length in zip(pair, shape[:2], strict=True)
    )
    return y, x, max(y_end - y, 0), max(x_end - x, 0)


def _blocks(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Split a window into parts of at most BLOCK x BLOCK: y, x, height, width."""
    for y in range(0, height, BLOCK):
        for x in range(0, width, BLOCK):
            yield y, x, min(BLOCK, height - y), min(BLOCK, width - x)


class Slide:
    """A stained slide that is drawn where it is looked at, shape (H, W, 3), uint8."""

    dtype = np.dtype(np.uint8)

    def __init__(self, height: int = SIZE, width: int = SIZE, seed: int = 1) -> None:
        if height < 1 or width < 1:
            raise ValueError(
                f"a slide of {height} x {width} pixels: give a height and a width of "
                "at least 1"
            )
        self.shape = (height, width, 3)
        self.seed = seed
        self._tables = make_tables(seed)

    def __reduce__(self) -> tuple:
        """Travel to another process as three numbers, not as tables."""
        return Slide, (*self.shape[:2], self.seed)

    @property
    def mask(self) -> "SlideMask":
        """The mask that belongs to the slide, cut by the same slices."""
        return SlideMask(self)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Cut `slide[y0:y1, x0:x1]`; like numpy, what lies outside is left out."""
        return self._draw(*_rectangle(key, self.shape))[0]

    def window(
        self, y: int, x: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw image (height, width, 3) and mask (height, width), both uint8.

        A window that does not lie inside the slide raises ValueError.
        """
        self.check_window(y, x, height, width)
        return self._draw(y, x, height, width)

    def check_window(self, y: int, x: int, height: int, width: int) -> None:
        """Raise ValueError for a window that does not lie inside the slide."""
        whole_height, whole_width, _ = self.shape
        fits_down = 0 <= y < y + height <= whole_height
        fits_across = 0 <= x < x + width <= whole_width
        if not (fits_down and fits_across):
            raise ValueError(
                f"window of {height} x {width} pixels at y {y}, x {x} does not fit "
                f"the slide of {whole_height} x {whole_width}: give a window of at "
                "least 1 x 1 that lies inside"
            )

    def draw_mask(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Draw the mask alone, without painting the picture that belongs to it."""
        mask = np.empty((height, width), np.uint8)
        for top, left, rows, columns in _blocks(height, width):
            part = mask[top : top + rows, left : left + columns]
            part[:] = stamp_nuclei(y + top, x + left, part.shape, self.seed)[2]
        return mask

    def _draw(
        self, y: int, x: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        image = np.empty((height, width, 3), np.uint8)
        mask = np.empty((height, width), np.uint8)
        for top, left, rows, columns in _blocks(height, width):
            part = np.s_[top : top + rows, left : left + columns]
            image[part], mask[part] = draw_block(
                y + top, x + left, (rows, columns), self.seed, self._tables
            )
        return image, mask


class SlideMask:
    """The nuclei of a slide as a picture source: uint8 0 or 255, shape (H, W)."""

    dtype = np.dtype(np.uint8)

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.shape = slide.shape[:2]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Cut `mask[y0:y1, x0:x1]`; like numpy, what lies outside is left out."""
        return self.slide.draw_mask(*_rectangle(key, self.shape))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a picture beside its place and move it there when it is whole."""
    part = path.with_name(path.name + ".part")
    Image.fromarray(pixels).save(part, format="PNG")
    os.replace(part, path)


def _check_png(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: windows are written as PNG, end the name in .png")
    if path.exists():
        raise FileExistsError(f"{path}: exists already, remove it or choose another")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder, make it first")


def write_window(
    slide: Slide, place: tuple[int, int, int, int], out: Path, mask_out: Path | None
) -> None:
    """Cut the window at place (y, x, height, width) to a PNG, its mask to another."""
    paths = [path for path in (out, mask_out) if path is not None]
    for path in paths:
        _check_png(path)
    if out == mask_out:
        raise ValueError(f"{out}: picture and mask need two names, change --mask")
    for path, pixels in zip(paths, slide.window(*place), strict=False):
        write_png(path, pixels)


def _fill_memmaps(
    slide: Slide, place: tuple[int, int], size: int, folder: Path
) -> None:
    image, mask = (
        np.lib.format.open_memmap(folder / name, "w+", np.uint8, shape)
        for name, shape in (("image.npy", (size, size, 3)), ("mask.npy", (size, size)))
    )
    y, x = place
    try:
        for top in tqdm(range(0, size, BLOCK), unit="row", disable=size <= BLOCK):
            rows = slice(top, min(top + BLOCK, size))
            image[rows], mask[rows] = slide.window(y + top, x, rows.stop - top, size)
    finally:
        # An error would hold both open, and Windows removes no file that is open.
        del image, mask


def write_memmap(slide: Slide, place: tuple[int, int], size: int, folder: Path) -> None:
    """Write image.npy and mask.npy of the square at place (y, x), row by row of blocks.

    The folder appears only when both are whole; memory stays at one row.
    """
    slide.check_window(*place, size, size)
    with new_folder(folder) as part:
        _fill_memmaps(slide, place, size, part)


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.slide",
        description="Cut a window of the drawn tissue slide to a PNG, or a square "
        "region to two memory maps.",
    )
    add = parser.add_argument
    add("out", nargs="?", type=Path, help="PNG to write the window to")
    add("--mask", type=Path, help="PNG to write the window's mask to")
    add("--memmap", type=Path, help="folder for image.npy and mask.npy, instead of out")
    add("--size", type=int, default=4096, help="side of --memmap, pixels (4096)")
    add("--y", type=int, default=11_000, help="first row, pixels (11000)")
    add("--x", type=int, default=4_200, help="first column, pixels (4200)")
    add("--height", type=int, default=512, help="of the window, pixels (512)")
    add("--width", type=int, default=512, help="of the window, pixels (512)")
    add("--seed", type=int, default=1, help="a whole number: which slide (1)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks."""
    out, folder = arguments.out, arguments.memmap
    if (out is None) == (folder is None):
        raise ValueError("give either a PNG to write or --memmap FOLDER")
    if folder is not None and arguments.mask is not None:
        raise ValueError("--mask belongs to a PNG: --memmap writes its own mask.npy")
    slide = Slide(seed=arguments.seed)
    place = arguments.y, arguments.x
    if folder is not None:
        write_memmap(slide, place, arguments.size, folder)
    else:
        place = *place, arguments.height, arguments.width
        write_window(slide, place, out, arguments.mask)


def main(argv: Sequence[str] | None = None) -> int:
    """Cut a window or a region of the slide to disk."""
    parser = make_parser()
    try:
        run(parser.parse_args(argv))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
