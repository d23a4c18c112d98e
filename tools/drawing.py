"""What the makers of drawn pictures share: noise, random choices and colours.

Noise depends on nothing but a place and a seed, so that any window of an endless
picture can be made on its own, in any order, and comes out the same.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Colour = tuple[int, int, int]

GOLDEN, MIX_1, MIX_2, MIX_3 = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xC2B2AE3D27D4EB4F],
    np.uint64,
)


def place_hash(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Draw one float64 in [0, 1) for each whole-numbered place (splitmix64).

    x and y are whole numbers, also negative ones, of shapes that broadcast.
    """
    salt = np.uint64(seed * 1_000_003 % 2**64)
    with np.errstate(over="ignore"):
        z = np.asarray(x, np.int64).astype(np.uint64) * GOLDEN
        z = z ^ (np.asarray(y, np.int64).astype(np.uint64) * MIX_3) ^ salt
        z = (z ^ (z >> np.uint64(30))) * MIX_1
        z = (z ^ (z >> np.uint64(27))) * MIX_2
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


def value_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Draw smooth noise in [0, 1): random at whole places, eased in between."""
    left, top = np.floor(x), np.floor(y)
    u, v = x - left, y - top
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    upper, lower = (
        place_hash(left, row, seed) * (1 - u) + place_hash(left + 1, row, seed) * u
        for row in (top, top + 1)
    )
    return upper * (1 - v) + lower * v


def layered_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Add three layers of value noise, each finer and weaker than the one before."""
    return (
        0.5 * value_noise(x, y, seed)
        + 0.3 * value_noise(x * 2.7, y * 2.7, seed + 1)
        + 0.2 * value_noise(x * 7.1, y * 7.1, seed + 2)
    )


class Draws(random.Random):
    """Random choices that every version of Python makes alike.

    All come from `random()`, whose numbers alone are promised to stay the same.
    """

    def chance(self, share: float) -> bool:
        """Be true in that share of the calls."""
        return self.random() < share

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return low + int(self.random() * (max(high, low) - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        return items[self.whole(0, len(items) - 1)]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        left = list(items)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(count)]


def shade(colour: Colour, percent: int) -> Colour:
    """Darken (below 100) or lighten a colour, stopping at white."""
    return tuple(min(255, value * percent // 100) for value in colour)


def read_colours(row: str) -> tuple[Colour, ...]:
    """Read colours that are written as rrggbb, with spaces between them."""
    return tuple(tuple(bytes.fromhex(word)) for word in row.split())
