"""Make screens of a bright tile game that never was, with exact masks.

    python -m tools.tile_game OUT --count 100 --seed 1

A screen is a little world and, over it, what a player reads and chooses from: dialogue,
menus, bars, coins. Both are drawn by Pillow, from whole numbers and its own bitmap
font, so that the same seed gives the same pixels on every machine.
"""

import textwrap
from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tools.command import Command, check_range, new_folder
from tools.drawing import Colour, Draws, place_hash, read_colours, shade, value_noise
from tools.raw_item import CLASS_IDS, save_targets

BARS, WINDOW, DIALOG, MESSAGE, CURSOR = (
    CLASS_IDS[name] for name in ("bars", "window", "dialog", "message", "cursor")
)
MAX_COUNT = 99_999  # so that sets of different seeds share no screen
FONT, LETTER_WIDTH, LINE = ImageFont.load_default_imagefont(), 6, 12
TILE = 16

SENTENCES = (
    *("The bridge is out. Try the ferry!", "MOSSCUB hides under a leaf."),
    *("You got 3 copper coins.", "Snow in June? How odd.", "Have you seen my hat?"),
    *("Grandma baked a plum pie. It smells of cinnamon.", "A shy FERNLET peeks out!"),
    *("The old mill turns again, thanks to you!", "The sign says: Beware of geese."),
)
QUESTIONS = ("Save your journey?", "Shall we cross the river?", "Sleep until morning?")
CREATURES = ("MOSSCUB", "FERNLET", "EMBRIL", "TIDOOT", "PEBBLIN", "DRIZZET", "NUBBIN")
PLACES = ("MILLBROOK", "OLD QUARRY", "LANE 12", "Plum Orchard", "SNOWY GAP")
PAUSE_WORDS = ("BAG", "TEAM", "MAP", "NOTES", "SAVE", "OPTIONS", "EXIT")
COMMANDS = ("DASH", "GUARD", "BAG", "FLEE")
WARES = ("Herb 8", "Rope 15", "Plum bun 4", "Lamp oil 21", "Tonic 60", "Wool hat 33")

OUTLINE, WOOD, WHITE, WATER, BANK = read_colours("20202c a06838 ffffff 4890e8 c8ecfc")
EMPTY_BAR, HEALTH, MAGIC, RED = read_colours("484854 50d060 5090f0 e84840")
GLASS = (160, 216, 248)
SHIRTS = read_colours("d04040 4068d0 48a060 f0b030 a060c0")
SKINS = read_colours("fcd8b0 e8b888 b07850 785038")
ROOFS = read_colours("d85048 5078c8 8860b0 409888 e89040")
WALLS = read_colours("f0e4cc d8b088 e0e0e8 f8d8a8")
NIGHT = (0.5, 0.56, 0.88)  # what is left of red, green and blue
# Ground, tall grass, leaf and path of each kind of country.
LANDS = (
    *("88d058 48a848 409848 e4cc90", "a8d860 60b048 f4a0c4 e8d4a8"),
    *("d8c060 b89038 e47838 c8a070", "f0d898 a8b858 60a850 d8b478"),
    "ecf4fc b0c8e0 489080 ccd0e0",
)
# Face, edge, frame, text and shadow of every box on one screen.
THEMES = (
    *("fcfcfc 384058 7090d0 404048 d0d0d8", "3850b0 181838 f0f0f8 ffffff 181850"),
    *("fcf0d4 603820 d09048 583828 e8cc98", "181820 08080c d8d8e0 f0f0f0 484858"),
    *("d8f4d0 205040 58a878 204838 a8d4a8", "fce8f4 703060 e478a8 683058 f0c0d8"),
)


class Screen(NamedTuple):
    """A picture of a game and the truth about it.

    image: uint8 (H, W, 3). classes: uint8 (H, W), the id of the topmost box, 0 where
    there is none. layers: bool (9, H, W), layers[id] is every pixel of that class,
    also those under other boxes; layers[0] is empty.
    """

    image: np.ndarray
    classes: np.ndarray
    layers: np.ndarray


def draw_tree(pen: ImageDraw.ImageDraw, x: int, foot: int, leaf: Colour) -> None:
    """Draw a tree of 32x36 that stands at x: a trunk and balls of leaves."""
    pen.rectangle((x - 4, foot - 12, x + 3, foot - 1), WOOD, OUTLINE)
    for off, up, radius in ((-7, 17, 9), (7, 17, 9), (0, 15, 9), (0, 25, 11)):
        for inset, shift, tone in ((0, 0, 40), (1, 0, 76), (3, 1, 100), (7, 3, 126)):
            left, top = x + off - shift, foot - up - shift
            size = radius - inset
            box = (left - size, top - size, left + size, top + size)
            pen.ellipse(box, shade(leaf, tone))


def draw_house(pen: ImageDraw.ImageDraw, left: int, foot: int, draws: Draws) -> None:
    """Draw a house 64 high and 64 to 96 wide, with a door and windows."""
    columns, roof, wall = draws.whole(4, 6), draws.choice(ROOFS), draws.choice(WALLS)
    right = left + TILE * columns - 1
    pen.rectangle((left + 2, foot - 32, right - 2, foot - 1), wall, shade(wall, 50))
    for top in range(foot - 64, foot - 30, 6):
        pen.rectangle((left, top, right, foot - 28), roof, shade(roof, 50))
    door = left + TILE * draws.whole(1, columns - 2)
    for place in range(left, right, TILE):
        pen.rectangle((place + 3, foot - 22, place + 12, foot - 10), GLASS, OUTLINE)
    pen.rectangle((door + 2, foot - 23, door + 13, foot - 1), WOOD, OUTLINE)


def draw_person(pen: ImageDraw.ImageDraw, x: int, foot: int, draws: Draws) -> None:
    """Draw somebody of 16x16: trousers, a shirt, a face, a hat."""
    hat, shirt, trousers = draws.sample(SHIRTS, 3)
    pen.rectangle((x - 4, foot - 5, x + 3, foot - 1), shade(trousers, 60), OUTLINE)
    pen.rectangle((x - 5, foot - 8, x + 4, foot - 3), shirt, OUTLINE)
    pen.ellipse((x - 5, foot - 15, x + 4, foot - 6), draws.choice(SKINS), OUTLINE)
    pen.point([(x - 3, foot - 9), (x + 2, foot - 9)], OUTLINE)
    pen.rectangle((x - 6, foot - 15, x + 5, foot - 11), hat, OUTLINE)


def draw_world(draws: Draws, seed: int, height: int, width: int) -> Image.Image:
    """Draw a village, a wood or a shore by day or night, RGB."""
    y, x = np.indices((height, width))
    ground, tall, leaf, gravel = read_colours(draws.choice(LANDS))

    def blots(salt: int, share: float) -> np.ndarray:
        noise = value_noise(x / 60, y / 60, seed * 31 + salt)
        return noise > np.sort(noise, axis=None)[int(noise.size * (1 - share)) - 1]

    lake = blots(1, draws.choice((0.0, 0.0, 0.1, 0.18, 0.3)))
    shore = np.roll(lake, 3, 0) | np.roll(lake, -3, 0) | lake
    along, across = (y, x) if draws.chance(0.5) else (x, y)
    path = value_noise(along / 150, along * 0, seed) * across.max()
    materials = [(y >= 0, ground), (blots(2, 0.15), tall)]
    materials += [(abs(across - path) < 14, gravel), (shore, BANK), (lake, WATER)]
    pixels = np.empty((height, width, 3), np.uint8)
    specks = place_hash(x // 2, y // 2, seed) < 0.06
    for where, colour in materials:
        pixels[where], pixels[where & specks] = colour, shade(colour, 88)

    # Things stand where there is no water under their feet, the far before the near.
    wood = blots(3, draws.choice((0.1, 0.25, 0.4)))
    houses, people = draws.whole(0, 3), draws.whole(2, 6)
    things = []
    for _ in range(houses):
        things.append((draws.whole(40, height), draws.whole(-40, width), draw_house))
    for _ in range(people):
        things.append((draws.whole(16, height), draws.whole(8, width), draw_person))
    things += [
        (foot, left, draw_tree)
        for foot in range(TILE, height + 20, 18)
        for left in range(foot // 18 % 2 * TILE, width + TILE, 32)
        if wood[min(foot, height - 1), min(left, width - 1)]
    ]
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for foot, left, draw in sorted(things, key=lambda thing: thing[:2]):
        if not lake[min(foot, height - 1), min(max(left, 0), width - 1)]:
            draw(pen, left, foot, leaf if draw is draw_tree else draws)
    if draws.chance(0.2):
        picture = Image.fromarray((np.array(picture) * NIGHT).astype(np.uint8))
    return picture


class Interface:
    """Boxes drawn over a picture, and the masks they leave."""

    def __init__(self, picture: Image.Image, draws: Draws) -> None:
        self.picture, self.draws = picture, draws
        self.pen = ImageDraw.Draw(picture)
        self.width, self.height = picture.size
        self.layers = np.zeros((9, self.height, self.width), bool)
        self.classes = np.zeros((self.height, self.width), np.uint8)
        self.theme = read_colours(draws.choice(THEMES))
        self.radius = draws.choice((0, 2, 4, 6))
        self.margin = draws.choice((0, 2, 4, 8))

    def paste(self, class_id: int, left: int, top: int, face: Image.Image) -> tuple:
        """Paste an RGBA picture, moved to fit, also into the masks; gives its edges."""
        left = min(max(left, 0), self.width - face.width)
        top = min(max(top, 0), self.height - face.height)
        region = np.s_[top : top + face.height, left : left + face.width]
        shape = np.array(face)[..., 3] > 0
        self.picture.paste(face, (left, top), face)
        self.layers[class_id][region] |= shape
        self.classes[region][shape] = class_id
        return left, top, left + face.width, top + face.height

    def panel(self, class_id: int, left: int, top: int, *size: int) -> tuple:
        """Draw an empty framed box, moved to fit the screen; returns its edges."""
        (width, height), panel = size, Image.new("RGBA", size)
        pen, (fill, edge, rim, *_) = ImageDraw.Draw(panel), self.theme
        for inset, colour in ((0, edge), (1, rim), (3, fill)):
            box = (inset, inset, width - 1 - inset, height - 1 - inset)
            pen.rounded_rectangle(box, self.radius, colour)
        return self.paste(class_id, left, top, panel)

    def write(self, text: str, left: int, top: int) -> None:
        self.pen.text((left + 1, top + 1), text, self.theme[4], FONT)
        self.pen.text((left, top), text, self.theme[3], FONT)

    def tag(self, class_id: int, left: int, top: int, text: str) -> None:
        width = LETTER_WIDTH * len(text) + 18
        left, top, *_ = self.panel(class_id, left, top, width, 21)
        self.write(text, left + 9, top + 5)

    def dialog(self, text: str, top_edge: bool = False) -> tuple:
        """Draw a dialogue box along the bottom, or the top, of the screen."""
        width = self.width - 2 * self.margin
        lines = textwrap.wrap(text, (width - 22) // LETTER_WIDTH)[:3]
        height = max(2, len(lines)) * LINE + 18
        top = self.margin if top_edge else self.height - self.margin - height
        edges = self.panel(DIALOG, self.margin, top, width, height)
        for number, line in enumerate(lines):
            self.write(line, self.margin + 10, top + 8 + number * LINE)
        return edges

    def menu(self, words: Sequence[str], left: int, top: int) -> tuple:
        """Draw a window with a list, one line of it pointed at."""
        size = LETTER_WIDTH * max(map(len, words)) + 30, len(words) * LINE + 14
        left, top, *_ = edges = self.panel(WINDOW, left, top, *size)
        for number, word in enumerate(words):
            self.write(word, left + 18, top + 7 + number * LINE)
        row = top + 7 + self.draws.whole(0, len(words) - 1) * LINE
        if self.draws.chance(0.6):
            self.write(">", left + 9, row)
        else:  # a pointer that reaches over the edge
            hand = Image.new("RGBA", (17, 11))
            corners = [(0, 2), (9, 2), (9, 0), (16, 5), (9, 10), (9, 8), (0, 8)]
            ImageDraw.Draw(hand).polygon(corners, WHITE, OUTLINE)
            self.paste(CURSOR, left - 2, row, hand)
        return edges

    def status(self, left: int, top: int, width: int, bars: int) -> None:
        """Draw a creature's name, and its level if there is room, over its bars."""
        left, top, right, _ = self.panel(BARS, left, top, width, 23 + bars * 9)
        self.write(self.draws.choice(CREATURES), left + 8, top + 5)
        if width >= 96:
            self.write(f"Lv{self.draws.whole(2, 60)}", right - 32, top + 5)
        for row in range(top + 17, top + 17 + bars * 9, 9):
            share = self.draws.whole(5, 100)
            full = left + 9 + (width - 18) * share // 100
            colour = MAGIC if row > top + 17 else HEALTH if share > 30 else RED
            self.pen.rectangle((left + 8, row, right - 9, row + 5), EMPTY_BAR, OUTLINE)
            self.pen.rectangle((left + 8, row, full, row + 5), colour, OUTLINE)


def draw_interface(ui: Interface) -> None:
    """Draw one of six moments of a game."""
    draws, margin, right, bottom = ui.draws, ui.margin, ui.width, ui.height
    moments = ("talk", "talk", "ask", "ask", "pause", "pause", "trade", "travel")
    moment = draws.choice((*moments, "wounds", "battle", "battle"))
    words = " ".join(draws.sample(SENTENCES, draws.whole(1, 2)))
    if moment == "talk":  # at the top or the bottom
        ui.dialog(words, top_edge=draws.chance(0.25))
    elif moment == "ask":  # yes and no over the dialogue's edge or just above it
        _, top, edge, _ = ui.dialog(draws.choice(QUESTIONS))
        up = draws.choice((40, 40, 28, 16))
        ui.menu(("YES", "NO"), edge - draws.whole(48, 60), top - up)
    elif moment == "pause":  # now and then with the purse at the other side
        left = draws.choice((margin, right))
        chosen = PAUSE_WORDS[-draws.whole(3, len(PAUSE_WORDS)) :]
        ui.menu(chosen, left, draws.choice((margin, bottom)))
        if draws.chance(0.3):
            ui.tag(MESSAGE, right - left, margin, f"$ {draws.whole(5, 99_999)}")
    elif moment == "trade":  # the purse over the list's corner or beside it
        _, _, edge, _ = ui.menu(draws.sample(WARES, 4), margin + 4, margin)
        ui.dialog("What may I wrap up for you?")
        corner = edge - draws.choice((-4, 16)), margin + draws.whole(0, 8)
        ui.tag(MESSAGE, *corner, f"$ {draws.whole(5, 99_999)}")
    elif moment == "travel":  # the name of the place one comes to
        left = draws.choice((margin, right // 3))
        ui.tag(MESSAGE, left, margin, draws.choice(PLACES))
    elif moment == "wounds":  # a row of status boxes, perhaps a dialogue opposite
        count, bars = draws.whole(1, max(1, right // 84)), draws.whole(1, 2)
        width, at_top = right // max(count, 2) - 4, draws.chance(0.5)
        for left in range(2, 2 + count * (width + 4), width + 4):
            ui.status(left, margin if at_top else bottom, width, bars)
        if draws.chance(0.4):
            ui.dialog(words, top_edge=not at_top)
    else:  # a battle: two creatures, what happens, and often the commands
        width = min(112, right // 2 - 4)
        ui.status(margin + 4, margin + 4, width, 1)
        _, top, *_ = ui.dialog(words)
        ui.status(right, top - draws.choice((43, 43, 34)), width, 2)
        if draws.chance(0.5):
            ui.menu(COMMANDS, right - margin, bottom)


def render_screen(seed: int, width: int = 256, height: int = 224) -> Screen:
    """Draw one screen. ValueError: a negative seed, less than 128 x 112 pixels."""
    seed = index(seed)
    check_range("seed", seed, 0)
    check_range("width", width, 128)
    check_range("height", height, 112)
    draws = Draws(seed)
    ui = Interface(draw_world(draws, seed, height, width), draws)
    draw_interface(ui)
    return Screen(np.array(ui.picture), ui.classes, ui.layers)


def write_set(out: Path, count: int, seed: int, width: int, height: int) -> None:
    """Write pairs and classes, numbered from 1, into a new folder."""
    check_range("count", count, 1, MAX_COUNT)
    with new_folder(out) as part:
        for number in tqdm(range(1, count + 1), unit="screen", disable=None):
            screen = render_screen(seed * (MAX_COUNT + 1) + number, width, height)
            Image.fromarray(screen.image).save(part / f"{number}_input.png")
            save_targets(screen.classes, part, number)


main = Command(write_set)
main.add("out", Path, "folder to write, not there yet")
main.add("--count", int, "number of screens", 100)
main.add("--seed", int, "whole number from 0 up", 1)
main.add("--width", int, "pixels, from 128 up", 256)
main.add("--height", int, "pixels, from 112 up", 224)

if __name__ == "__main__":
    raise SystemExit(main())
