"""The scenery of the tile game: villages, woods and shores by day and night, shops."""

import random
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tools import tile_art as art
from tools.noise import place_hash, value_noise
from tools.tile_art import Colour, Picture, paint, paint_shades, read_colours, shade

T = TypeVar("T")

TILE = 16
NIGHT_SHARE = 0.2


class Land(NamedTuple):
    """The colours and habits of one kind of country."""

    patterns: tuple[str, ...]
    pines: bool
    ground: Colour
    tall: Colour
    leaf: Colour
    path: Colour


GRASSY = ("plain", "plain", "tuft", "sprig")
SANDY, SNOWY = ("plain", "dots", "ripple"), ("plain", "plain", "dots")
MEADOW = Land(GRASSY, False, *read_colours("88d058 48a848 409848 e4cc90"))
HILLS = Land(GRASSY, True, *read_colours("70c870 389860 308860 d8b888"))
ORCHARD = Land(GRASSY, False, *read_colours("a8d860 60b048 f4a0c4 e8d4a8"))
AUTUMN = Land(GRASSY, False, *read_colours("d8c060 b89038 e47838 c8a070"))
BEACH = Land(SANDY, False, *read_colours("f0d898 a8b858 60a850 d8b478"))
SNOWFIELD = Land(SNOWY, True, *read_colours("ecf4fc b0c8e0 489080 ccd0e0"))
LANDS = (MEADOW, HILLS, ORCHARD, AUTUMN, BEACH, SNOWFIELD)


class Draws(random.Random):
    """Random choices that every version of Python makes alike.

    All come from `random()`: its numbers alone are promised to stay the same from one
    version to the next.
    """

    def chance(self, share: float) -> bool:
        """Be true in that share of the calls."""
        return self.random() < share

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return low + int(self.random() * (max(high, low) - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        """Draw one of the items."""
        return items[self.whole(0, len(items) - 1)]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Draw that many different items, in random order."""
        left = list(items)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(count)]


def ground_colours(base: Colour, bloom: Colour = art.BLOOMS[0]) -> dict[str, Colour]:
    """Name the colours of an 8x8 ground drawing."""
    light, dark = shade(base, 112), shade(base, 86)
    own = {".": base, "l": light, "d": dark, "b": bloom}
    return own | {"y": art.YELLOW, "w": art.WHITE}


def textured(
    names: Sequence[str], colours: dict[str, Colour], shape: tuple[int, int], seed: int
) -> np.ndarray:
    """Fill rows x columns of tiles with 8x8 drawings, each cell's own drawn by place.

    Returns uint8 (rows * 16, columns * 16, 3).
    """
    rows, columns = shape[0] * 2, shape[1] * 2
    cells = np.stack([paint(art.GROUND[name], colours).pixels for name in names])
    draws = place_hash(np.arange(columns)[None], np.arange(rows)[:, None], seed)
    picked = cells[(draws * len(names)).astype(int)]
    return picked.swapaxes(1, 2).reshape(rows * art.CELL, columns * art.CELL, 3)


def to_pixels(tiles: np.ndarray) -> np.ndarray:
    """Turn a mask of tiles into one of pixels."""
    return tiles.repeat(TILE, 0).repeat(TILE, 1)


def soften(tiles: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Turn a mask of tiles into one of pixels with round corners.

    A pixel belongs if more than that share of the 15x15 pixels around it does.
    """
    reach = TILE // 2 - 1
    side = 2 * reach + 1
    sums = np.pad(to_pixels(tiles), reach, mode="edge")
    for axis in (0, 1):
        sums = sliding_window_view(sums, side, axis).sum(-1)
    return sums > share * side**2


def inner_edge(mask: np.ndarray) -> np.ndarray:
    """Find the pixels of a mask (H, W) that touch a pixel outside it."""
    padded = np.pad(mask, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def frame(
    pixels: np.ndarray, box: tuple[int, int, int, int], fill: Colour, edge: Colour
) -> None:
    """Paint a box (left, top, right, bottom; the last two left out) with an edge."""
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = edge
    pixels[top + 1 : bottom - 1, left + 1 : right - 1] = fill


def wander(draws: Draws, rows: int, columns: int) -> np.ndarray:
    """Draw a path two tiles wide from top to bottom, as bool (rows, columns)."""
    path = np.zeros((rows, columns), bool)
    left = draws.whole(1, columns - 3)
    for row in range(rows):
        path[row, left : left + 2] = True
        if draws.chance(0.3):
            left = min(max(left + draws.choice((-1, 1)), 0), columns - 2)
            path[row, left : left + 2] = True
    return path


# Each round of leaves is four discs: letter, how much smaller, shift to the light.
TREE_SHADES = (("o", 0, 0), ("d", 1, 0), ("m", 3, 1), ("l", 7, 3))
DARK_LEAF = 74


def round_tree(leaf: Colour) -> Picture:
    """Draw a leafy tree of 32x36."""
    letters = np.full((36, 32), ".")
    letters[24:35, 12:20] = "o"
    letters[24:34, 13:19] = "w"
    rows, columns = np.indices(letters.shape)
    for x, y, radius in ((9, 19, 8), (23, 19, 8), (16, 21, 9), (16, 11, 11)):
        for letter, smaller, shift in TREE_SHADES:
            squared = (columns - x + shift) ** 2 + (rows - y + shift) ** 2
            letters[squared <= (radius - smaller) ** 2] = letter
    specks = (place_hash(columns, rows, 7) < 0.12) & (letters == "m")
    letters[specks] = "l"
    return paint_shades(letters, leaf, dark=DARK_LEAF)


def pine_tree(leaf: Colour, bright: Colour | None) -> Picture:
    """Draw a pine of 32x40; bright is the colour of its lit side, if a special one."""
    letters = np.full((40, 32), ".")
    letters[32:39, 13:19] = "o"
    letters[32:38, 14:18] = "w"
    for top, bottom, half in ((18, 34, 14), (9, 25, 11), (1, 15, 8)):
        for row in range(top, bottom):
            reach = 1 + (row - top) * half // (bottom - top) - row % 2
            left, right = 16 - reach, 15 + reach
            letters[row, left - 1 : right + 2] = "o"
            letters[row, left : right + 1] = "m"
            letters[row, 16 + reach // 3 : right + 1] = "d"
            letters[row, left : left + 1 + reach // 3] = "l"
        letters[bottom - 1, 16 - half : 16 + half] = "o"
    return paint_shades(letters, leaf, bright, DARK_LEAF)


def person(draws: Draws) -> Picture:
    """Draw somebody of 16x16, seen from the front or from behind."""
    hair, shirt = draws.choice(art.HAIRS), draws.choice(art.SHIRTS)
    hat = draws.choice(art.SHIRTS) if draws.chance(0.4) else hair
    letters = art.SPRITES[draws.choice(("person", "person", "back"))]
    skin, trousers = draws.choice(art.SKINS), draws.choice(art.TROUSERS)
    clothes = {"t": hat, "k": shirt, "b": trousers}
    body = {"o": art.OUTLINE, "e": art.OUTLINE, "h": hair, "s": skin}
    return paint(letters, clothes | body)


def roof_and_wall(draws: Draws, columns: int) -> Picture:
    """Draw a house 64 high without its door and windows."""
    roof, wall = draws.choice(art.ROOFS), draws.choice(art.WALLS)
    pixels = textured(["brick"], ground_colours(wall), (4, columns), 0)
    pixels[:34] = textured(["shingle"], ground_colours(roof), (3, columns), 0)[:34]
    pixels[:3] = shade(roof, 130)
    pixels[34:38] = shade(wall, 70)
    pixels[62:] = shade(wall, 60)
    pixels[[0, 31, 33]] = shade(roof, 44)
    pixels[:34, [0, -1]] = shade(roof, 44)
    pixels[34:, [2, -3]] = shade(wall, 44)
    opaque = np.ones(pixels.shape[:2], bool)
    opaque[34:, [0, 1, -2, -1]] = False
    opaque[0, [0, 1, -2, -1]] = False
    return Picture(pixels, opaque)


def house(draws: Draws, columns: int) -> tuple[Picture, list[int]]:
    """Draw a house of 64 x (16 * columns); also list the left edges of its windows."""
    picture = roof_and_wall(draws, columns)
    pixels = picture.pixels
    door = draws.whole(1, columns - 2)
    left = door * TILE
    frame(pixels, (left + 2, 44, left + 14, 64), art.WOOD, shade(art.WOOD, 50))
    pixels[54:56, left + 11] = art.YELLOW
    windows = [column * TILE + 3 for column in range(columns) if column != door]
    for left in windows:
        frame(pixels, (left, 42, left + 10, 53), (160, 216, 248), shade(art.WOOD, 60))
        pixels[43:52, left + 5] = shade(art.WOOD, 90)
        pixels[43:46, left + 1 : left + 4] = (232, 248, 255)
    return picture, windows


class World:
    """A stretch of country under construction, on whole tiles."""

    def __init__(self, draws: Draws, seed: int, shape: tuple[int, int]) -> None:
        self.draws, self.seed = draws, seed
        self.shape = self.rows, self.columns = shape
        self.free = np.ones(shape, bool)
        self.walkable = np.ones(shape, bool)
        # Foot, left edge and looks of what stands here: the lower its foot, the nearer.
        self.sprites: list[tuple[int, int, Picture]] = []
        self.lights: list[tuple[int, int]] = []
        self.land = draws.choice(LANDS)
        self.image = self.ground(self.land.patterns, self.land.ground, 1)

    def ground(self, patterns: Sequence[str], base: Colour, salt: int) -> np.ndarray:
        """Draw the whole stretch in one material, uint8 (H, W, 3)."""
        colours = ground_colours(base, art.BLOOMS[self.seed % len(art.BLOOMS)])
        return textured(patterns, colours, self.shape, self.seed * 31 + salt)

    def patch(self, salt: int, share: float) -> np.ndarray:
        """Draw smooth blots over about that share of the free tiles."""
        rows, columns = np.indices(self.shape) / 3.7
        noise = value_noise(columns, rows, self.seed * 31 + salt)
        limit = np.sort(noise, axis=None)[int(noise.size * (1 - share))]
        return (noise > limit) & self.free

    def stand(self, picture: Picture, left: int, foot: int) -> None:
        """Put a drawing into the world with its lower edge at foot."""
        self.sprites.append((foot, left, picture))

    def build_house(self) -> None:
        """Put a house and its garden path on free tiles, or give up."""
        width = self.draws.whole(4, min(6, self.columns - 2))
        row = self.draws.whole(0, self.rows - 6)
        column = self.draws.whole(0, self.columns - width)
        plot = (slice(row, row + 5), slice(column, column + width))
        if not self.free[plot].all():
            return
        self.free[plot] = False
        self.walkable[row : row + 4, column : column + width] = False
        picture, windows = house(self.draws, width)
        self.stand(picture, column * TILE, (row + 4) * TILE)
        top = row * TILE + 42
        self.lights.extend((column * TILE + left, top) for left in windows)

    def lay(
        self, mask: np.ndarray, material: np.ndarray, rim: Colour | None = None
    ) -> None:
        """Cover the pixels of a mask with a material, with a rim if wanted."""
        np.copyto(self.image, material, where=mask[..., None])
        if rim is not None:
            self.image[inner_edge(mask)] = rim

    def lay_path(self) -> None:
        """Lay one wandering path, from top to bottom or from side to side."""
        if self.draws.chance(0.5):
            path = wander(self.draws, self.rows, self.columns)
        else:
            path = wander(self.draws, self.columns, self.rows).T
        path &= self.free
        self.free &= ~path
        gravel = self.ground(("plain", "plain", "pebble"), self.land.path, 2)
        self.lay(soften(path), gravel, shade(self.land.path, 84))

    def pour_water(self) -> None:
        """Make a lake with a beach around it."""
        lake = self.patch(3, self.draws.choice((0.12, 0.2, 0.35)))
        self.free &= ~lake
        self.walkable &= ~lake
        beach = self.ground(("plain", "dots"), art.SAND, 4)
        self.lay(soften(lake, 0.2), beach, shade(art.SAND, 88))
        water = self.ground(("plain", "wave", "wave", "glint"), art.WATER, 5)
        self.lay(soften(lake), water, art.BANK)

    def grow(self) -> None:
        """Sow tall grass and flowers."""
        tall = self.patch(6, 0.14)
        self.free &= ~tall
        self.lay(to_pixels(tall), self.ground(("blades",), self.land.tall, 7))
        flowers = self.ground(("bloom",), self.land.ground, 9)
        self.lay(to_pixels(self.patch(8, 0.1)), flowers)

    def plant_trees(self) -> None:
        """Plant a wood where there is room: trees of two tiles, in rows."""
        if self.land.pines and self.draws.chance(0.7):
            snow = (248, 252, 255) if self.land == SNOWFIELD else None
            tree = pine_tree(self.land.leaf, snow)
        else:
            tree = round_tree(self.land.leaf)
        wood = self.patch(10, self.draws.choice((0.15, 0.3, 0.45)))
        for row in range(1, self.rows):
            for column in range(row % 2, self.columns - 1, 2):
                plot = (slice(row - 1, row + 1), slice(column, column + 2))
                if wood[plot].all():
                    self.stand(tree, column * TILE, (row + 1) * TILE)
                    self.free[plot] = False

    def any_tile(self) -> tuple[int, int]:
        """Draw the row and column of one tile."""
        return self.draws.whole(0, self.rows - 1), self.draws.whole(0, self.columns - 1)

    def scatter(self) -> None:
        """Set bushes, rocks, signs and fences on free tiles."""
        bush = ("bush", self.land.leaf)
        kinds = (
            bush,
            bush,
            ("rock", art.STONE),
            ("sign", art.BOARD),
            ("fence", art.BOARD),
        )
        for _ in range(self.draws.whole(2, 9)):
            row, column = self.any_tile()
            name, base = self.draws.choice(kinds)
            length = self.draws.whole(3, 6) if name == "fence" else 1
            tiles = (row, slice(column, column + length))
            if self.free[tiles].all():
                self.free[tiles] = self.walkable[tiles] = False
                picture = paint_shades(art.SPRITES[name], base)
                for place in range(column, column + length):
                    self.stand(picture, place * TILE, (row + 1) * TILE)

    def people(self, count: int) -> None:
        """Let people stand anywhere; whoever is lower is nearer."""
        for _ in range(count):
            row, column = self.any_tile()
            if self.walkable[row, column]:
                self.walkable[row, column] = False
                self.stand(person(self.draws), column * TILE, (row + 1) * TILE - 2)

    def paint_sprites(self) -> None:
        """Paint what stands in the world, the far before the near."""
        for foot, left, picture in sorted(self.sprites, key=itemgetter(0)):
            top = foot - len(picture.pixels)
            pixels, opaque = (part[max(0, -top) :] for part in picture)
            region = self.image[max(0, top) : foot, left : left + pixels.shape[1]]
            height, width = region.shape[:2]
            shown = opaque[:height, :width, None]
            np.copyto(region, pixels[:height, :width], where=shown)


def outdoors(draws: Draws, seed: int, shape: tuple[int, int]) -> World:
    """Make a village, a wood or a shore in daylight, of rows x columns of tiles."""
    world = World(draws, seed, shape)
    for _ in range(draws.whole(0, 4)):
        world.build_house()
    if draws.chance(0.8):
        world.lay_path()
    if draws.chance(0.5):
        world.pour_water()
    if draws.chance(0.8):
        world.grow()
    world.plant_trees()
    world.scatter()
    world.people(draws.whole(1, 4))
    world.paint_sprites()
    return world


def furnish(world: World) -> None:
    """Paint the back wall, the shelves, the counter and a rug of a shop."""
    image, draws = world.image, world.draws
    wall, rug = draws.choice(art.WALLS), draws.choice(art.ROOFS)
    image[:48] = wall
    image[40:46], image[46:48] = shade(wall, 70), art.OUTLINE
    bottom = image.shape[0] - 48
    frame(image, (96, 136, 176, bottom), rug, shade(rug, 130))
    frame(image, (100, 140, 172, bottom - 4), shade(rug, 112), shade(rug, 80))
    goods = ground_colours(art.WOOD, draws.choice(art.BLOOMS))
    shelves = textured(["goods"], goods, (2, 3), 0)
    for left in range(draws.whole(4, 20), image.shape[1] - 52, draws.whole(56, 72)):
        frame(
            image, (left, 10, left + 52, 54), shade(art.WOOD, 60), shade(art.WOOD, 30)
        )
        image[14:46, left + 2 : left + 50] = shelves
    frame(image, (64, 88, 192, 112), shade(art.WOOD, 76), shade(art.WOOD, 36))
    frame(image, (64, 84, 192, 100), shade(art.WOOD, 140), shade(art.WOOD, 36))


def shop(draws: Draws, seed: int, shape: tuple[int, int]) -> World:
    """Make the inside of a shop, with its keeper behind the counter."""
    world = World(draws, seed, shape)
    floor = draws.choice(art.FLOORS)
    world.image = world.ground((draws.choice(("slab", "plank")),), floor, 1)
    furnish(world)
    world.stand(person(draws), 64 + draws.whole(1, 6) * TILE, 86)
    pot = paint_shades(art.SPRITES["pot"], art.POT)
    for column in (1, world.columns - 3):
        world.stand(pot, column * TILE, draws.whole(5, 9) * TILE)
    for _ in range(draws.whole(1, 2)):
        left, foot = draws.whole(5, 9) * TILE, draws.whole(8, 10) * TILE
        world.stand(person(draws), left, foot)
    world.paint_sprites()
    return world


def dim(world: World) -> None:
    """Turn day into night, except near the lit windows."""
    rows, columns = np.indices(world.image.shape[:2])
    glow = np.zeros(rows.shape)
    for left, top in world.lights:
        world.image[top + 1 : top + 10, left + 1 : left + 9] = (255, 228, 128)
        squared = (columns - left - 5) ** 2 + (rows - top - 5) ** 2
        np.maximum(glow, 0.8 - squared / 30**2, out=glow)
    tint = (
        np.array(art.NIGHT)
        + (np.array(art.LAMP) - np.array(art.NIGHT)) * glow[..., None]
    )
    world.image = (world.image * tint).astype(np.uint8)


def draw_world(
    draws: Draws, seed: int, size: tuple[int, int], indoors: bool
) -> np.ndarray:
    """Draw scenery of size (H, W), as seen by a camera between the tiles."""
    height, width = size
    shape = -(-height // TILE) + 1, -(-width // TILE) + 1
    if indoors:
        world = shop(draws, seed, shape)
    else:
        world = outdoors(draws, seed, shape)
        if draws.chance(NIGHT_SHARE):
            dim(world)
    top, left = draws.whole(0, 1) * art.CELL, draws.whole(0, 1) * art.CELL
    return world.image[top : top + height, left : left + width].copy()
