"""Draw a stained tissue slide of any size, one window at a time.

Nothing big is ever stored: a pixel depends only on its place and on the seed, so a
window is the same whichever way it is asked for. Only sums, products, quotients and
square roots are used, which every machine rounds alike.

    python -m tools.slide OUT --y 11000 --x 4200
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tools.command import Command, check_range, new_folder
from tools.drawing import layered_noise, place_hash, value_noise

SIZE = 23_000  # default height and width, pixels
STEP = 8  # pixels between the places where slow fields are computed
BLOCK = 512  # largest side drawn in one go, pixels: bounds the memory
STREAMS = 128  # each use of random numbers has its own, a number added to the seed's
PITCH = 21  # side of the square that may hold one nucleus, pixels
LEAST_RADIUS, MOST_RADIUS = 5.0, 9.5  # of a nucleus, pixels
# For red, green and blue: the light that passes where there is no tissue, and what
# share of it full violet and full pink dye take.
DYES = ((246, 0.62, 0.12), (243, 0.72, 0.62), (246, 0.36, 0.42))


def find_tissue(
    y: np.ndarray, x: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell what is at places y and x, of shapes that broadcast.

    Returns how far inside the tissue a place is, about in pixels, negative on glass;
    how crowded the nuclei are, 0 to 1; and how far fibres are shifted down, pixels.
    """
    salt = seed * STREAMS
    land = (layered_noise(x / 2900, y / 2900, salt + 20) - 0.4) * 2000
    holes = (0.86 - value_noise(x / 90, y / 80, salt + 3)) * 90
    crowd = value_noise(x / 330, y / 330, salt + 4)
    bend = 90 * value_noise(x / 230, y / 230, salt + 5)
    return np.minimum(land, holes), crowd * crowd, bend


def find_nuclei(
    y: int, x: int, height: int, width: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the nuclei of a window, (height, width) each.

    Returns how many pixels inside a nucleus a place is, negative outside, and how dark
    that nucleus is, 0 to 1.
    """
    reach, salt = math.ceil(MOST_RADIUS) + 1, seed * STREAMS
    rows = np.arange((y - reach) // PITCH, (y + height + reach) // PITCH + 1)[:, None]
    columns = np.arange((x - reach) // PITCH, (x + width + reach) // PITCH + 1)
    draw = [place_hash(columns, rows, salt + 10 + n) for n in range(5)]
    middle_y, middle_x = (rows + draw[0]) * PITCH, (columns + draw[1]) * PITCH
    solid, crowd, _ = find_tissue(middle_y, middle_x, seed)
    radius = LEAST_RADIUS + (MOST_RADIUS - LEAST_RADIUS) * draw[2]
    there = (draw[3] < 0.35 + 1.1 * crowd) & (solid > MOST_RADIUS)
    nuclei = (values[there] for values in (middle_y - y, middle_x - x, radius, draw[4]))
    inside = np.full((height, width), -9, np.float32)
    dark = np.zeros_like(inside)
    for down, across, size, dye in zip(*nuclei, strict=True):
        middle = math.floor(down), math.floor(across)
        part = tuple(slice(max(i - reach, 0), max(i + reach + 1, 0)) for i in middle)
        off_y = np.arange(height)[part[0], None] - down
        off_x = np.arange(width)[part[1]] - across
        depth = size - np.sqrt(off_y * off_y + off_x * off_x)
        dark[part] = np.where(depth > inside[part], dye, dark[part])
        inside[part] = np.maximum(depth, inside[part])
    return inside, dark


def _fill(slow: np.ndarray, y: int, x: int, shape: tuple[int, int]) -> np.ndarray:
    """Cut a window, float32, out of values that lie STEP pixels apart."""
    slow = slow.astype(np.float32)
    for axis, start in enumerate((y, x)):
        place = np.arange(start, start + shape[axis])
        share = (place % STEP / STEP).astype(np.float32)
        place = place // STEP - start // STEP
        left, right = slow.take(place, axis), slow.take(place + 1, axis)
        share = share[:, None] if axis == 0 else share
        slow = left * (1 - share) + right * share
    return slow


def draw_image(y: int, x: int, height: int, width: int, seed: int) -> np.ndarray:
    """Draw one window in one go, uint8 (height, width, 3)."""
    rows, columns = (
        np.arange(start // STEP, (start + length) // STEP + 2) * STEP
        for start, length in ((y, height), (x, width))
    )
    tissue = find_tissue(rows[:, None], columns, seed)
    solid, crowd, bend = (_fill(slow, y, x, (height, width)) for slow in tissue)
    rows, columns = np.arange(y, y + height)[:, None], np.arange(x, x + width)
    salt = seed * STREAMS
    fibre = value_noise(columns / 46, (rows + bend) / 6, salt + 6)
    grain = place_hash(columns, rows, salt + 7) - 0.5
    fibre, grain = fibre.astype(np.float32), grain.astype(np.float32)
    inside, dark = find_nuclei(y, x, height, width, seed)
    body, cover = np.clip(solid / 5, 0, 1), np.clip(0.5 + inside / 2, 0, 1)
    pink = body * (0.28 + 0.35 * fibre + 0.12 * grain) * (1 - 0.5 * cover)
    violet = body * (0.04 + 0.2 * crowd) * (1 - cover)
    violet += cover * (0.7 + 0.25 * dark + 0.1 * grain)
    pixels = np.empty((height, width, 3), np.uint8)
    for band, (glass, violet_share, pink_share) in enumerate(DYES):
        passed = (1 - violet * violet_share) * (1 - pink * pink_share)
        pixels[..., band] = passed * glass
    return pixels


def draw_mask(y: int, x: int, height: int, width: int, seed: int) -> np.ndarray:
    """Draw the mask of one window, uint8 0 or 255, without its picture."""
    inside, _ = find_nuclei(y, x, height, width, seed)
    return (inside > 0).astype(np.uint8) * np.uint8(255)


class _Source:
    """What can be cut by two slices, drawn block by block where it is looked at."""

    dtype = np.dtype(np.uint8)

    def __init__(self, draw: Callable, shape: tuple[int, ...], seed: int) -> None:
        self._draw, self.shape, self.seed = draw, shape, seed

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Cut `[y0:y1, x0:x1]`; like numpy, what lies outside is left out."""
        pair = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
        if not all(isinstance(part, slice) and part.step in (None, 1) for part in pair):
            expected = "two slices without a step, slide[y0:y1, x0:x1]"
            raise ValueError(f"a slide is cut by {expected}, not by {key!r}")
        rows, columns = range(self.shape[0])[pair[0]], range(self.shape[1])[pair[1]]
        pixels = np.empty((len(rows), len(columns), *self.shape[2:]), np.uint8)
        for top in range(0, len(rows), BLOCK):
            for left in range(0, len(columns), BLOCK):
                part = pixels[top : top + BLOCK, left : left + BLOCK]
                y, x = rows[top], columns[left]
                part[:] = self._draw(y, x, *part.shape[:2], self.seed)
        return pixels


class Slide(_Source):
    """A stained slide that is drawn where it is looked at, shape (H, W, 3), uint8.

    `mask` is its nuclei, shape (H, W), uint8 0 or 255. Neither holds a pixel.
    """

    def __init__(self, height: int = SIZE, width: int = SIZE, seed: int = 1) -> None:
        check_range("height", height, 1)
        check_range("width", width, 1)
        super().__init__(draw_image, (height, width, 3), seed)
        self.mask = _Source(draw_mask, (height, width), seed)

    def window(
        self, y: int, x: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw image (height, width, 3), mask (height, width); ValueError outside."""
        bottom, right, _ = self.shape
        if not (0 <= y < y + height <= bottom and 0 <= x < x + width <= right):
            what = f"window of {height} x {width} pixels at y {y}, x {x}"
            raise ValueError(f"{what}: expected one inside {bottom} x {right} pixels")
        place = np.s_[y : y + height, x : x + width]
        return self[place], self.mask[place]


def write_window(out: Path, y: int, x: int, height: int, width: int, seed: int) -> None:
    """Write image.png and mask.png of a window into a folder, both or none."""
    image, mask = Slide(seed=seed).window(y, x, height, width)
    with new_folder(out) as part:
        Image.fromarray(image).save(part / "image.png")
        Image.fromarray(mask).save(part / "mask.png")


main = Command(write_window)
main.add("out", Path, "folder to write, not there yet")
main.add("--y", int, "first row, pixels", 11_000)
main.add("--x", int, "first column, pixels", 4_200)
main.add("--height", int, "of the window, pixels", 512)
main.add("--width", int, "of the window, pixels", 512)
main.add("--seed", int, "a whole number: which slide", 1)

if __name__ == "__main__":
    raise SystemExit(main())
