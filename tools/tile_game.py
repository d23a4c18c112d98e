"""Make screens of a bright tile game that never was, with exact masks.

    python -m tools.tile_game OUT --count 100 --seed 1

A screen is a little world and, over it, what a player reads and chooses from: dialogue,
menus, bars, coins. Both are drawn by code alone, from whole numbers and Pillow's own
bitmap font, so that the same seed gives the same pixels on every machine.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from operator import index, itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tools.command import new_folder, run
from tools.drawing import Colour, Draws, place_hash, read_colours, shade, value_noise
from tools.raw_item import CLASS_IDS, save_classes

BARS, WINDOW, DIALOG, MESSAGE, CURSOR = (
    CLASS_IDS[name] for name in ("bars", "window", "dialog", "message", "cursor")
)
LEAST_SIZE = 128, 112
# Sets of different seeds share no screen, as long as none is larger.
MAX_COUNT = 99_999
FONT, LETTER, LINE = ImageFont.load_default_imagefont(), (6, 11), 12
BORDER = 64  # pixels that the world goes on beyond the screen

SENTENCES = (
    *("The bridge is out. Try the ferry!", "MOSSCUB hides under a leaf."),
    *("You got 3 copper coins.", "Snow in June? How odd.", "Have you seen my hat?"),
    *("Grandma baked a plum pie. It smells of cinnamon.", "A shy FERNLET peeks out!"),
    *("The old mill turns again, thanks to you!", "The sign says: Beware of geese."),
)
QUESTIONS = ("Save your journey?", "Shall we cross the river?", "Sleep until morning?")
CREATURES = ("MOSSCUB", "FERNLET", "EMBRIL", "TIDOOT", "PEBBLIN", "DRIZZET", "NUBBIN")
PLACES = ("MILLBROOK", "OLD QUARRY", "LANE 12", "Plum Orchard", "SNOWY GAP")
SPEAKERS = ("Ada", "Bruno", "Granny", "Ferryman", "Mira", "Otto")
PAUSE_WORDS = ("BAG", "TEAM", "MAP", "NOTES", "SAVE", "OPTIONS", "EXIT")
COMMANDS = ("DASH", "GUARD", "BAG", "FLEE")
WARES = ("Herb 8", "Rope 15", "Plum bun 4", "Lamp oil 21", "Tonic 60", "Wool hat 33")

OUTLINE, WOOD, STONE, WHITE = read_colours("20202c a06838 b0acb4 ffffff")
WATER, BANK, GLASS, RED = read_colours("4890e8 c8ecfc a0d8f8 e84840")
EMPTY_BAR, HEALTH, MAGIC = read_colours("484854 50d060 5090f0")
SHIRTS = read_colours("d04040 4068d0 48a060 f0b030 a060c0")
SKINS = read_colours("fcd8b0 e8b888 b07850 785038")
ROOFS = read_colours("d85048 5078c8 8860b0 409888 e89040")
WALLS = read_colours("f0e4cc d8b088 e0e0e8 f8d8a8")
NIGHT = (0.5, 0.56, 0.88)  # what is left of red, green and blue
# Ground, tall grass, leaf and path of each kind of country.
LANDS = """
88d058 48a848 409848 e4cc90
a8d860 60b048 f4a0c4 e8d4a8
d8c060 b89038 e47838 c8a070
f0d898 a8b858 60a850 d8b478
ecf4fc b0c8e0 489080 ccd0e0
"""
# Top, bottom, edge, frame, text and shadow of every box on one screen.
THEMES = """
fcfcfc fcfcfc 384058 7090d0 404048 d0d0d8
4868d0 202878 181838 f0f0f8 ffffff 181850
fff4d8 f8e4b8 603820 d09048 583828 e8cc98
20202c 14141c 08080c d8d8e0 f0f0f0 484858
e0f8d8 c8ecc0 205040 58a878 204838 a8d4a8
fff0f8 fcdcec 703060 e478a8 683058 f0c0d8
"""
# Left halves of 16x16 sprites, and half a hand. A letter is a pixel: o outline, d dark,
# m middle, l light, w wood or white, s skin, e eye, h hair, k clothes, b trousers.
DRAWINGS = """
person   bush     rock     sign     hand
........ ........ ........ ........ ooo..oooo.......
.....ooo ........ ........ ........ okkoowwwwoooooo.
...oohhh ........ ........ ........ okkwwwwwwwwwwwwo
..ohhhhh .....ooo ........ .ooooooo okkwwwwwwwooooo.
..ohhhhh ...oolll ........ owwwwwww okkwwwwwdwwwo...
..ohhhhh ..ollmml ........ owllllll okkwwwwwwooo....
..ohhsss .olmmmmm .....ooo owlddldd okkwwwwddwwo....
..ohsess .olmmlmm ...oolll owllllll okkowwwwwoo.....
..ossess ommmlmmm ..olllmm owldlddl ooo.ooooo.......
...ossss ommmmmmd .ollmmmm owllllll ................
...ooooo odmmdmmm .olmmmmm owwwwwww ................
..oskkkk odddmmdm ommmmmmd .ooooooo ................
..oskkkk .oddddmd ommmmddd .....oww ................
...obbbb ..oodddd oddddddd .....oww ................
...obbbo ....oooo .ooooooo .....oww ................
....ooo. ........ ........ .....ooo ................
"""


class Screen(NamedTuple):
    """A picture of a game and the truth about it.

    image: uint8 (H, W, 3). classes: uint8 (H, W), the id of the topmost box, 0 where
    there is none. layers: bool (9, H, W), layers[id] is every pixel of that class,
    also those under other boxes; layers[0] is empty.
    """

    image: np.ndarray
    classes: np.ndarray
    layers: np.ndarray


class Box(NamedTuple):
    """A rectangle in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


# --- The world ------------------------------------------------------------------------


def choose_row(draws: Draws, table: str) -> tuple[Colour, ...]:
    """Draw one row of a table of colours."""
    return read_colours(draws.choice(table.split("\n")[1:-1]))


def paint(name: str, colours: dict[str, Colour]) -> np.ndarray:
    """Colour a drawing, uint8 (H, W, 4); the last band is 0 where nothing is."""
    names, *rows = (line.split() for line in DRAWINGS.strip().split("\n"))
    letters = np.array([list(row[names.index(name)]) for row in rows])
    if name != "hand":
        letters = np.hstack((letters, letters[:, ::-1]))
    pixels = np.zeros((*letters.shape, 4), np.uint8)
    for letter, colour in colours.items():
        pixels[letters == letter] = (*colour, 255)
    return pixels


def shades(base: Colour) -> dict[str, Colour]:
    """Name the shades of one colour as the drawings do."""
    tones = {"o": 40, "d": 76, "m": 100, "l": 126}
    return {"w": WOOD} | {name: shade(base, tone) for name, tone in tones.items()}


def draw_tree(leaf: Colour) -> np.ndarray:
    """Draw a tree of 32x36: a trunk and four balls of leaves, lit from the left."""
    pixels = np.zeros((36, 32, 4), np.uint8)
    frame(pixels, Box(12, 24, 20, 35), WOOD, OUTLINE)
    rows, columns = np.indices(pixels.shape[:2])
    tones = list(shades(leaf).values())[1:]
    for x, y, radius in ((9, 19, 8), (23, 19, 8), (16, 21, 9), (16, 11, 11)):
        for smaller, shift, tone in zip((0, 1, 3, 7), (0, 0, 1, 3), tones, strict=True):
            squared = (columns - x + shift) ** 2 + (rows - y + shift) ** 2
            pixels[squared <= (radius - smaller) ** 2] = (*tone, 255)
    return pixels


def frame(pixels: np.ndarray, box: Box, fill: Colour, edge: Colour) -> None:
    """Paint a box with an edge one pixel wide."""
    left, top, right, bottom = box
    for inset, colour in enumerate((edge, fill)):
        inner = np.s_[top + inset : bottom - inset, left + inset : right - inset]
        pixels[inner] = (*colour, 255)[: pixels.shape[2]]


def draw_house(draws: Draws) -> np.ndarray:
    """Draw a house 64 high and 64 to 96 wide, with a door and windows."""
    columns = draws.whole(4, 6)
    roof, wall = draws.choice(ROOFS), draws.choice(WALLS)
    pixels = np.zeros((64, 16 * columns, 4), np.uint8)
    frame(pixels, Box(2, 34, 16 * columns - 2, 64), wall, shade(wall, 50))
    for top in range(0, 32, 6):
        frame(pixels, Box(0, top, 16 * columns, 36), roof, shade(roof, 50))
    door = draws.whole(1, columns - 2)
    for left in range(2, 16 * columns, 16):
        window = Box(left + 1, 43, left + 11, 54)
        frame(pixels, window, GLASS, shade(WOOD, 60))
        if left // 16 == door:
            frame(pixels, Box(left, 44, left + 12, 64), WOOD, shade(WOOD, 50))
    return pixels


def draw_world(draws: Draws, seed: int, height: int, width: int) -> np.ndarray:
    """Draw a village, a wood or a shore by day or night, uint8 (height, width, 3)."""
    shape = height + 2 * BORDER, width + 2 * BORDER
    y, x = np.indices(shape)
    ground, tall, leaf, gravel = choose_row(draws, LANDS)

    def blots(salt: int, share: float) -> np.ndarray:
        """Draw smooth blots over about that share of the world."""
        noise = value_noise(x / 60, y / 60, seed * 31 + salt)
        return noise > np.sort(noise, axis=None)[int(noise.size * (1 - share)) - 1]

    def lay(where: np.ndarray, colour: Colour) -> None:
        """Cover places with a material, speckled in its darker shade."""
        image[where], image[where & specks] = colour, shade(colour, 88)

    image = np.empty((*shape, 3), np.uint8)
    specks = place_hash(x // 2, y // 2, seed) < 0.06
    lake = blots(1, draws.choice((0.0, 0.0, 0.1, 0.18, 0.3)))
    lay(y >= 0, ground)
    meadow = blots(2, 0.15)
    lay(meadow, tall)
    image[meadow & ((x + y // 4) % 4 < 2)] = shade(tall, 84)
    along, across = (y, x) if draws.chance(0.5) else (x, y)
    middle = value_noise(along / 150, along * 0, seed) * across.max()
    lay(abs(across - middle) < 14, gravel)
    lay(np.roll(lake, 3, 0) | np.roll(lake, -3, 0) | lake, BANK)
    lay(lake, WATER)

    # Things stand where there is room for their lower halves.
    things: list[tuple[int, int, np.ndarray]] = []
    free = ~lake

    def stand(pixels: np.ndarray, left: int, foot: int) -> None:
        high, wide = pixels.shape[:2]
        plot = free[foot - high // 2 : foot, left : left + wide]
        if foot >= high and left + wide <= shape[1] and plot.all():
            plot[:] = False
            things.append((foot, left, pixels))

    for _ in range(draws.whole(0, 6)):
        stand(draw_house(draws), draws.whole(0, shape[1]), draws.whole(64, shape[0]))
    tree, wood = draw_tree(leaf), blots(3, draws.choice((0.1, 0.25, 0.4)))
    for foot in range(36, shape[0], 18):
        for left in range(foot // 18 % 2 * 16, shape[1] - 32, 32):
            if wood[foot - 1, left + 16]:
                stand(tree, left, foot)
    small = [paint("bush", shades(leaf)), paint("rock", shades(STONE))]
    small += [paint("sign", shades(shade(WOOD, 140)))]
    for _ in range(4):
        cap, clothes, trousers = draws.sample(SHIRTS, 3)
        colours = {"h": cap, "k": clothes, "b": shade(trousers, 60), "o": OUTLINE}
        colours |= {"e": OUTLINE, "s": draws.choice(SKINS)}
        small.append(paint("person", colours))
    for _ in range(draws.whole(10, 30)):
        left, foot = draws.whole(0, shape[1]), draws.whole(16, shape[0])
        stand(draws.choice(small), left, foot)
    for foot, left, pixels in sorted(things, key=itemgetter(0, 1)):
        region = image[foot - len(pixels) : foot, left : left + pixels.shape[1]]
        np.copyto(region, pixels[..., :3], where=pixels[..., 3:] > 0)
    image = image[BORDER:-BORDER, BORDER:-BORDER].copy()
    return (image * NIGHT).astype(np.uint8) if draws.chance(0.2) else image


# --- The interface --------------------------------------------------------------------


class Interface:
    """Boxes drawn over a picture, and the masks they leave."""

    def __init__(self, image: np.ndarray, draws: Draws) -> None:
        self.image, self.draws = image, draws
        self.height, self.width = image.shape[:2]
        self.layers = np.zeros((9, self.height, self.width), bool)
        self.classes = np.zeros((self.height, self.width), np.uint8)
        self.theme = choose_row(draws, THEMES)
        self.cut = draws.choice((0, 2, 4, 6))  # pixels cut off each corner of a box
        self.margin = draws.choice((0, 2, 4, 8))

    def cover(self, class_id: int, left: int, top: int, shape: np.ndarray) -> Box:
        """Enter a shape (h, w) into the masks, moved to fit the screen."""
        height, width = shape.shape
        left = min(max(left, 0), self.width - width)
        top = min(max(top, 0), self.height - height)
        region = np.s_[top : top + height, left : left + width]
        self.layers[class_id][region] |= shape
        self.classes[region][shape] = class_id
        return Box(left, top, left + width, top + height)

    def panel(self, class_id: int, left: int, top: int, width: int, height: int) -> Box:
        """Draw an empty framed box, moved to fit the screen."""
        down, across = np.arange(height), np.arange(width)
        down, across = np.minimum(down, down[::-1]), np.minimum(across, across[::-1])
        depth = np.minimum(
            np.minimum(down[:, None], across), down[:, None] + across - self.cut
        )
        box = self.cover(class_id, left, top, depth >= 0)
        region = self.image[box.top : box.bottom, box.left : box.right]
        first, last, edge, rim, *_ = map(np.array, self.theme)
        share = np.arange(height)[:, None, None] * 8 // height
        for least, colour in (
            (0, edge),
            (1, rim),
            (3, first + (last - first) * share // 8),
        ):
            np.copyto(region, colour.astype(np.uint8), where=depth[..., None] >= least)
        return box

    def write(self, text: str, left: int, top: int) -> None:
        """Write a line of text with its shadow."""
        picture = Image.new("1", (LETTER[0] * len(text), LETTER[1]))
        ImageDraw.Draw(picture).text((0, 0), text, 1, FONT)
        for shift, colour in ((1, self.theme[5]), (0, self.theme[4])):
            region = self.image[top + shift :, left + shift :]
            region[: LETTER[1], : picture.width][np.array(picture)] = colour

    def tag(self, class_id: int, left: int, top: int, text: str) -> None:
        """Draw a box around one line of text."""
        box = self.panel(class_id, left, top, LETTER[0] * len(text) + 18, 21)
        self.write(text, box.left + 9, box.top + 5)

    def dialog(self, text: str, top_edge: bool = False) -> Box:
        """Draw a dialogue box along the bottom, or the top, of the screen."""
        width = self.width - 2 * self.margin
        lines = textwrap.wrap(text, (width - 22) // LETTER[0])[:3]
        height = max(2, len(lines)) * LINE + 18
        top = self.margin if top_edge else self.height - self.margin - height
        box = self.panel(DIALOG, self.margin, top, width, height)
        for number, line in enumerate(lines):
            self.write(line, box.left + 10, box.top + 8 + number * LINE)
        return box

    def menu(self, words: Sequence[str], left: int, top: int) -> Box:
        """Draw a window with a list, one line of it pointed at."""
        width = LETTER[0] * max(map(len, words)) + 30
        box = self.panel(WINDOW, left, top, width, len(words) * LINE + 14)
        for number, word in enumerate(words):
            self.write(word, box.left + 18, box.top + 7 + number * LINE)
        row = box.top + 7 + self.draws.whole(0, len(words) - 1) * LINE
        if self.draws.chance(0.6):
            self.write(">", box.left + 9, row)
            return box
        colours = {"o": OUTLINE, "w": WHITE, "d": STONE, "k": self.draws.choice(SHIRTS)}
        pixels = paint("hand", colours)[:9]
        shape = pixels[..., 3] > 0
        left, top, right, bottom = self.cover(CURSOR, box.left, row, shape)
        self.image[top:bottom, left:right][shape] = pixels[shape, :3]
        return box

    def status(self, left: int, top: int, width: int, bars: int) -> None:
        """Draw a creature's name, and its level if there is room, over its bars."""
        box = self.panel(BARS, left, top, width, 23 + bars * 9)
        self.write(self.draws.choice(CREATURES), box.left + 8, box.top + 5)
        if width >= 96:
            self.write(f"Lv{self.draws.whole(2, 60)}", box.right - 32, box.top + 5)
        for number in range(bars):
            share, top = self.draws.whole(5, 100), box.top + 17 + number * 9
            colour = MAGIC if number else HEALTH if share > 30 else RED
            for part, fill in ((100, EMPTY_BAR), (share, colour)):
                right = box.left + 10 + (width - 18) * part // 100
                frame(self.image, Box(box.left + 8, top, right, top + 6), fill, OUTLINE)

    def purse(self, left: int, top: int) -> None:
        """Draw the box that counts the coins."""
        self.tag(MESSAGE, left, top, f"$ {self.draws.whole(5, 99_999)}")


def draw_interface(ui: Interface) -> None:
    """Draw one of seven moments of a game."""
    draws, margin, right, bottom = ui.draws, ui.margin, ui.width, ui.height
    moments = ("talk", "talk", "ask", "ask", "pause", "pause", "travel", "trade")
    moment = draws.choice((*moments, "wounds", "wounds", "battle", "battle"))
    words = " ".join(draws.sample(SENTENCES, draws.whole(1, 2)))
    if moment == "talk":  # perhaps with the speaker's name on the dialogue's edge
        box = ui.dialog(words, top_edge=draws.chance(0.25))
        if box.top > bottom // 2 and draws.chance(0.4):
            ui.tag(DIALOG, box.left + 8, box.top - 16, draws.choice(SPEAKERS))
    elif moment == "ask":  # yes and no over the dialogue's edge or just above it
        box = ui.dialog(draws.choice(QUESTIONS))
        top = box.top - draws.choice((40, 40, 28, 16))
        ui.menu(("YES", "NO"), box.right - draws.whole(48, 60), top)
    elif moment == "pause":  # now and then with the purse at the other side
        left = draws.choice((margin, right))
        chosen = PAUSE_WORDS[-draws.whole(3, len(PAUSE_WORDS)) :]
        ui.menu(chosen, left, draws.choice((margin, bottom)))
        if draws.chance(0.3):
            ui.purse(right - left, margin)
    elif moment == "travel":  # the name of the place one comes to
        ui.tag(
            MESSAGE, draws.choice((margin, right // 3)), margin, draws.choice(PLACES)
        )
        if draws.chance(0.3):
            ui.purse(right, bottom)
    elif moment == "trade":  # the purse over the list's corner or beside it
        box = ui.menu(draws.sample(WARES, 4), margin + 4, margin)
        ui.dialog("What may I wrap up for you?")
        ui.purse(box.right - draws.choice((-4, 16)), margin + draws.whole(0, 8))
    elif moment == "wounds":  # a row of status boxes, perhaps a dialogue opposite
        count, bars = draws.whole(1, max(1, right // 84)), draws.whole(1, 2)
        width, at_top = right // max(count, 2) - 4, draws.chance(0.5)
        for number in range(count):
            ui.status(
                2 + number * (width + 4), margin if at_top else bottom, width, bars
            )
        if draws.chance(0.4):
            ui.dialog(words, top_edge=not at_top)
    else:  # a battle: two creatures, what happens, and often the commands
        width = min(112, right // 2 - 4)
        ui.status(margin + 4, margin + 4, width, 1)
        box = ui.dialog(words)
        ui.status(right, box.top - draws.choice((43, 43, 34)), width, 2)
        if draws.chance(0.5):
            ui.menu(COMMANDS, right - margin, bottom)


# --- The command ----------------------------------------------------------------------


def render_screen(seed: int, width: int = 256, height: int = 224) -> Screen:
    """Draw one screen of the game, of width x height pixels.

    Raises ValueError for a negative seed or less than 128 x 112 pixels.
    """
    seed = index(seed)
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more; give another seed")
    if width < LEAST_SIZE[0] or height < LEAST_SIZE[1]:
        raise ValueError(
            f"screen size is {width}x{height}, expected at least 128x112 pixels; "
            "give a larger width or height"
        )
    draws = Draws(seed)
    ui = Interface(draw_world(draws, seed, height, width), draws)
    draw_interface(ui)
    return Screen(ui.image, ui.classes, ui.layers)


def write_set(out: Path, count: int, seed: int, width: int, height: int) -> None:
    """Write screens as pairs numbered from 1 into a new folder, whole or not at all.

    N_input.png goes with N_target.jpg and classes/N_classes.png.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"count is {count}, expected 1 to {MAX_COUNT}; give another")
    with new_folder(out) as part:
        (part / "classes").mkdir()
        for number in tqdm(range(1, count + 1), unit="screen", disable=None):
            screen = render_screen(seed * (MAX_COUNT + 1) + number, width, height)
            Image.fromarray(screen.image).save(part / f"{number}_input.png")
            mask = Image.fromarray((screen.classes > 0).astype(np.uint8) * 255)
            mask.save(part / f"{number}_target.jpg", quality=95)
            save_classes(screen.classes, part / f"classes/{number}_classes.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="tile_game", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    parser.add_argument("--count", type=int, default=100, help="number of screens")
    parser.add_argument("--seed", type=int, default=1, help="whole number from 0 up")
    parser.add_argument("--width", type=int, default=256, help="pixels, from 128 up")
    parser.add_argument("--height", type=int, default=224, help="pixels, from 112 up")
    return run(parser, write_set, argv)


if __name__ == "__main__":
    sys.exit(main())
