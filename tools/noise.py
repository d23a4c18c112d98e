"""Numbers that depend on nothing but a place and a seed.

The generators draw from here, so that any window of an endless picture can be made on
its own, in any order, and comes out the same.
"""

import numpy as np

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
