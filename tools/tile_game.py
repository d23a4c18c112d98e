"""Make screens of a bright tile game that never was, with exact masks.

    python -m tools.tile_game OUT --count 100 --seed 1

A screen is a little world of 16-pixel tiles and, over it, what a player reads and
chooses from: dialogue, menus, bars, coins. The world and the interface are drawn by
code alone, from whole numbers and a drawn font, so that the same seed gives the same
pixels on every machine and with every version of the libraries.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools import tile_art as art
from tools.tile_art import Colour, paint, shade
from tools.tile_world import Draws, draw_world, frame
from tools.ui_classes import CLASS_IDS, CLASS_NAMES, save_classes

# A place (left, top) or a size (width, height), in pixels.
Pair = tuple[int, int]

BARS, WINDOW, DIALOG, MESSAGE, CURSOR = (
    CLASS_IDS[name] for name in ("bars", "window", "dialog", "message", "cursor")
)

MIN_WIDTH, MIN_HEIGHT = 128, 112
SHOP_SHARE = 0.12
TARGET_END = "_target.jpg"
# Sets of different seeds share no screen, as long as none is larger.
MAX_COUNT = 99_999


class Box(NamedTuple):
    """A rectangle of the interface, in pixels, and what it is."""

    class_id: int
    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column right of the box."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row under the box."""
        return self.top + self.height


class Screen(NamedTuple):
    """A picture of a game and the truth about it.

    image: uint8 (H, W, 3). classes: uint8 (H, W), the id of the topmost box, 0 where
    there is none. layers: bool (9, H, W), layers[id] is every pixel of that class,
    also those under other boxes; layers[0] is empty. boxes: in the order of drawing.
    """

    image: np.ndarray
    classes: np.ndarray
    layers: np.ndarray
    boxes: tuple[Box, ...]


def text_width(text: str) -> int:
    """Measure a line of text in pixels."""
    return sum(art.GLYPHS[letter].shape[1] + 1 for letter in text)


def list_size(words: Sequence[str]) -> Pair:
    """Measure the window that holds a list: width and height."""
    return max(map(text_width, words)) + 30, len(words) * art.LINE_HEIGHT + 14


def wrap(text: str, width: int) -> list[str]:
    """Break a sentence into lines of at most that many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def rounded(height: int, width: int, radius: int) -> np.ndarray:
    """Draw a rectangle with round corners, as bool (height, width)."""
    # Twice the distance to the straight part, so that all numbers stay whole.
    down, across = (
        np.maximum(2 * radius - 1 - 2 * np.minimum(places, places[::-1]), 0)
        for places in (np.arange(height), np.arange(width))
    )
    return down[:, None] ** 2 + across[None] ** 2 <= (2 * radius) ** 2


class Interface:
    """Boxes drawn over a picture, and the masks they leave."""

    def __init__(self, image: np.ndarray, draws: Draws) -> None:
        self.image, self.draws = image, draws
        self.height, self.width = image.shape[:2]
        self.layers = np.zeros((len(CLASS_NAMES), self.height, self.width), bool)
        self.classes = np.zeros((self.height, self.width), np.uint8)
        self.boxes: list[Box] = []
        self.theme = draws.choice(art.THEMES)
        self.radius = draws.choice((0, 2, 4, 6))
        self.margin = draws.choice((0, 2, 4, 8))

    def cover(self, box: Box, shape: np.ndarray) -> None:
        """Enter a shape (box height, box width) into the masks."""
        region = (slice(box.top, box.bottom), slice(box.left, box.right))
        self.layers[box.class_id][region] |= shape
        self.classes[region][shape] = box.class_id
        self.boxes.append(box)

    def place(self, class_id: int, corner: Pair, size: Pair) -> Box:
        """Make a box at (left, top) of (width, height), moved to fit the screen."""
        width, height = min(size[0], self.width), min(size[1], self.height)
        left = min(max(corner[0], 0), self.width - width)
        top = min(max(corner[1], 0), self.height - height)
        return Box(class_id, left, top, width, height)

    def panel(self, class_id: int, corner: Pair, size: Pair) -> Box:
        """Draw an empty framed box, placed to fit."""
        theme, box = self.theme, self.place(class_id, corner, size)
        self.cover(box, rounded(box.height, box.width, self.radius))
        for inset, colour in enumerate((theme.edge, theme.frame, theme.frame)):
            self.fill(box, inset, np.array(colour))
        share = np.arange(box.height - 6)[:, None, None] * 8 // (box.height - 6)
        top, bottom = np.array(theme.top), np.array(theme.bottom)
        self.fill(box, 3, top + (bottom - top) * share // 8)
        return box

    def fill(self, box: Box, inset: int, colours: np.ndarray) -> None:
        """Paint a box, made smaller on each side, in one colour or one per row."""
        height, width = box.height - 2 * inset, box.width - 2 * inset
        region = self.image[box.top + inset :, box.left + inset :][:height, :width]
        shape = rounded(height, width, max(self.radius - inset, 0))
        np.copyto(region, colours.astype(np.uint8), where=shape[..., None])

    def bar(self, corner: Pair, width: int, share: float, colour: Colour) -> None:
        """Draw a bar 6 high, filled to a share in 0..1 with a colour."""
        left, top = corner
        edges = left, top, left + width, top + 6
        frame(self.image, edges, art.EMPTY_BAR, art.OUTLINE)
        end = left + 1 + max(1, int((width - 2) * share))
        self.image[top + 1 : top + 5, left + 1 : end] = colour
        self.image[top + 1, left + 1 : end] = shade(colour, 130)

    def stamp(self, ink: np.ndarray, left: int, top: int, colour: Colour) -> None:
        """Colour the pixels of ink (h, w) at a place, cut at the screen's edge."""
        region = self.image[top : top + ink.shape[0], left : left + ink.shape[1]]
        region[ink[: region.shape[0], : region.shape[1]]] = colour

    def write(self, text: str, left: int, top: int) -> None:
        """Write a line of text with its shadow."""
        for letter in text:
            ink = art.GLYPHS[letter]
            self.stamp(ink, left + 1, top + 1, self.theme.shadow)
            self.stamp(ink, left, top, self.theme.text)
            left += ink.shape[1] + 1

    def dialog(self, text: str, top_edge: bool = False) -> Box:
        """Draw a dialogue box along the bottom, or the top, of the screen.

        A red mark promises whatever does not fit into three lines.
        """
        margin, width = self.margin, self.width - 2 * self.margin
        lines = wrap(text, width - 22)[:3]
        size = (width, max(2, len(lines)) * art.LINE_HEIGHT + 18)
        top = margin if top_edge else self.height - margin - size[1]
        box = self.panel(DIALOG, (margin, top), size)
        for number, line in enumerate(lines):
            self.write(line, box.left + 10, box.top + 9 + number * art.LINE_HEIGHT)
        self.stamp(art.MARKS["more"] == "#", box.right - 16, box.bottom - 9, art.ALERT)
        return box

    def tag(self, class_id: int, corner: Pair, text: str) -> None:
        """Draw a box around one line of text."""
        box = self.panel(class_id, corner, (text_width(text) + 18, 21))
        self.write(text, box.left + 9, box.top + 7)

    def menu(self, words: Sequence[str], corner: Pair, hand: bool) -> Box:
        """Draw a window with a list, one line of it pointed at."""
        box = self.panel(WINDOW, corner, list_size(words))
        for number, word in enumerate(words):
            self.write(word, box.left + 18, box.top + 9 + number * art.LINE_HEIGHT)
        row = box.top + 9 + self.draws.whole(0, len(words) - 1) * art.LINE_HEIGHT
        if hand:
            self.hand((box.left, row - 1))
        else:
            self.stamp(art.MARKS["arrow"] == "#", box.left + 9, row, self.theme.text)
        return box

    def hand(self, corner: Pair) -> None:
        """Draw a pointing hand."""
        letters = art.MARKS["hand"]
        box = self.place(CURSOR, corner, letters.shape[::-1])
        skin = {"o": art.OUTLINE, "w": art.WHITE, "d": (216, 208, 216)}
        sleeve = {"k": self.draws.choice(art.SHIRTS)}
        pixels, opaque = paint(letters, skin | sleeve)
        region = self.image[box.top : box.bottom, box.left : box.right]
        np.copyto(region, pixels, where=opaque[..., None])
        self.cover(box, opaque)

    def status(self, corner: Pair, width: int, bars: int) -> None:
        """Draw a creature's name and level over its bars."""
        box = self.panel(BARS, corner, (width, 23 + bars * 9))
        self.write(self.draws.choice(art.CREATURES), box.left + 8, box.top + 7)
        level = f"Lv{self.draws.whole(2, 60)}"
        if width >= 96:
            self.write(level, box.right - 7 - text_width(level), box.top + 7)
        for number in range(bars):
            share = self.draws.whole(2, 100) / 100
            health = next(colour for least, colour in art.HEALTH if share > least)
            corner = box.left + 8, box.top + 17 + number * 9
            self.bar(corner, box.width - 16, share, art.MAGIC if number else health)

    def purse(self, corner: Pair) -> None:
        """Draw the box that counts the coins."""
        self.tag(MESSAGE, corner, f"$ {self.draws.whole(5, 99_999)}")


def some_words(ui: Interface) -> str:
    """Make up one sentence or two."""
    return " ".join(ui.draws.sample(art.SENTENCES, ui.draws.whole(1, 2)))


def talk(ui: Interface) -> None:
    """Somebody says something, perhaps with their name on the dialogue's edge."""
    box = ui.dialog(some_words(ui), top_edge=ui.draws.chance(0.25))
    if box.top > ui.height // 2 and ui.draws.chance(0.4):
        ui.tag(DIALOG, (box.left + 8, box.top - 16), ui.draws.choice(art.SPEAKERS))


def ask(ui: Interface) -> None:
    """A question, with yes and no over the dialogue's edge or just above it."""
    box = ui.dialog(ui.draws.choice(art.QUESTIONS))
    words = ("YES", "NO")
    width, height = list_size(words)
    sunk = ui.draws.choice((-2, -2, 10, 22))
    corner = box.right - width - ui.draws.whole(0, 12), box.top - height + sunk
    ui.menu(words, corner, hand=ui.draws.chance(0.2))


def pause(ui: Interface) -> None:
    """The list that stops the game, now and then with the purse beside it."""
    words = art.PAUSE_WORDS[-ui.draws.whole(3, len(art.PAUSE_WORDS)) :]
    width, height = list_size(words)
    left = ui.draws.choice((ui.margin, ui.width - ui.margin - width))
    top = ui.draws.choice((ui.margin, ui.height - ui.margin - height))
    ui.menu(words, (left, top), hand=ui.draws.chance(0.3))
    if ui.draws.chance(0.3):
        ui.purse((ui.margin if left > ui.width // 2 else ui.width, ui.margin))


def travel(ui: Interface) -> None:
    """The name of the place one comes to, and perhaps the purse."""
    name = ui.draws.choice(art.PLACES)
    middle = (ui.width - text_width(name)) // 2 - 9
    ui.tag(MESSAGE, (ui.draws.choice((ui.margin, middle)), ui.margin), name)
    if ui.draws.chance(0.3):
        ui.purse((ui.width - ui.margin - 64, ui.height - ui.margin - 21))


def wounds(ui: Interface) -> None:
    """A status box or a row of them, perhaps with a dialogue at the other edge."""
    count = ui.draws.whole(1, max(1, ui.width // 84))
    width, bars = ui.width // max(count, 2) - 4, ui.draws.whole(1, 2)
    at_top = ui.draws.chance(0.5)
    for number in range(count):
        top = ui.margin if at_top else ui.height - ui.margin - 23 - bars * 9
        ui.status((2 + number * (width + 4), top), width, bars)
    if ui.draws.chance(0.4):
        ui.dialog(some_words(ui), top_edge=not at_top)


def battle(ui: Interface) -> None:
    """Two creatures, what happens, and often the commands over the dialogue."""
    width = min(112, ui.width // 2 - 4)
    ui.status((ui.margin + 4, ui.margin + 4), width, 1)
    box = ui.dialog(some_words(ui))
    top = box.top - ui.draws.choice((43, 43, 34))
    ui.status((ui.width - width - ui.margin - 2, top), width, 2)
    if ui.draws.chance(0.5):
        across, high = list_size(art.COMMANDS)
        corner = ui.width - ui.margin - across, ui.height - ui.margin - high
        ui.menu(art.COMMANDS, corner, hand=ui.draws.chance(0.5))


def trade(ui: Interface) -> None:
    """A list of wares, the purse over its corner or beside it, and the keeper."""
    wares = ui.draws.sample(art.WARES, 4)
    words = [f"{ware} {ui.draws.whole(2, 90)}" for ware in wares]
    box = ui.menu(words, (ui.margin + 4, ui.margin), hand=ui.draws.chance(0.4))
    ui.dialog(ui.draws.choice(art.GREETINGS))
    overlap = ui.draws.choice((-4, 16))
    ui.purse((box.right - overlap, ui.margin + ui.draws.whole(0, 8)))


def earn(ui: Interface) -> None:
    """The purse, alone or over the corner of a dialogue."""
    if ui.draws.chance(0.35):
        ui.purse((ui.draws.choice((ui.margin, ui.width)), ui.margin))
        return
    box = ui.dialog(some_words(ui))
    ui.purse((ui.width - 70, box.top - ui.draws.choice((23, 23, 12))))


# A scenario that stands here twice comes twice as often.
SCENARIOS = (
    *(talk, talk, talk),
    *(ask, ask),
    *(pause, pause),
    travel,
    *(wounds, wounds),
    *(battle, battle),
    trade,
    earn,
)
SHOP_SCENARIOS = (trade, trade, talk, ask, earn)


def check_screen(seed: int, width: int, height: int) -> None:
    """Raise ValueError for a negative seed or less than 128 x 112 pixels."""
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more; give another seed")
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        raise ValueError(
            f"screen size is {width}x{height}, expected at least "
            f"{MIN_WIDTH}x{MIN_HEIGHT} pixels; give a larger width or height"
        )


def render_screen(seed: int, width: int = 256, height: int = 224) -> Screen:
    """Draw one screen of the game, of width x height pixels.

    Raises ValueError for a negative seed or less than 128 x 112 pixels.
    """
    seed = index(seed)
    check_screen(seed, width, height)
    draws = Draws(seed)
    indoors = draws.chance(SHOP_SHARE)
    scenario = draws.choice(SHOP_SCENARIOS if indoors else SCENARIOS)
    ui = Interface(draw_world(draws, seed, (height, width), indoors), draws)
    scenario(ui)
    return Screen(ui.image, ui.classes, ui.layers, tuple(ui.boxes))


def save_target(mask: np.ndarray, path: Path) -> None:
    """Write a bool mask (H, W) as a grey JPEG of quality 95."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, quality=95)


def load_target(path: Path) -> np.ndarray:
    """Read a target as a bool mask (H, W)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")) > 127


def write_set(folder: Path, count: int, seed: int, size: Pair) -> None:
    """Write count screens of size (width, height) as pairs numbered from 1.

    N_input.png goes with N_target.jpg and classes/N_classes.png.
    """
    (folder / "classes").mkdir(parents=True)
    for number in tqdm(range(1, count + 1), unit="screen", disable=None):
        screen = render_screen(seed * (MAX_COUNT + 1) + number, *size)
        Image.fromarray(screen.image).save(folder / f"{number}_input.png")
        save_target(screen.classes > 0, folder / f"{number}{TARGET_END}")
        save_classes(screen.classes, folder / f"classes/{number}_classes.png")


# Which share of the targets a kind of dirt spoils; at least one.
DIRT = {"jpeg-rings": 0.1, "one-pixel-off": 0.1, "renamed": 0.0, "missing": 0.0}


def rename(path: Path) -> Path:
    """Give a target a key that no other target has. Returns its new path."""
    other = path
    while other.exists():
        other = path.with_name(other.name.replace(TARGET_END, f"0{TARGET_END}"))
    return path.rename(other)


def spoil(path: Path, kind: str) -> str:
    """Spoil a target in one way. Returns what was done."""
    if kind == "jpeg-rings":
        # The careless way to save a mask: its edges ring with greys.
        Image.open(path).convert("RGB").save(path, quality=30)
        return "saved again through RGB as JPEG of quality 30"
    if kind == "one-pixel-off":
        save_target(np.pad(load_target(path), ((1, 0), (0, 0)))[:-1], path)
        return "mask moved one row down"
    if kind == "missing":
        path.unlink()
        return "deleted"
    return f"now called {rename(path).name}"


def plan_dirt(count: int, kinds: Sequence[str]) -> list[str]:
    """Name the kind of dirt for each file to be spoilt among count files.

    Raises ValueError for an unknown kind or fewer files than there is dirt.
    """
    for kind in kinds:
        if kind not in DIRT:
            raise ValueError(
                f"dirt is {kind!r}, expected some of {', '.join(DIRT)}; "
                "give kinds with commas between them"
            )
    plan = [
        kind
        for kind, share in DIRT.items()
        if kind in kinds
        for _ in range(max(1, int(count * share)))
    ]
    if len(plan) > count:
        raise ValueError(
            f"{count} targets for {len(plan)} kinds of dirt, expected at least one "
            "target each; make more screens or plant less"
        )
    return plan


def plant_dirt(folder: Path, kinds: Sequence[str], seed: int) -> list[str]:
    """Spoil some targets of a folder of pairs, each in one way only.

    jpeg-rings and one-pixel-off spoil a tenth of the targets, renamed and missing one.
    Returns a line for each spoilt file. Raises ValueError for an unknown kind or too
    few targets.
    """
    targets = sorted(folder.glob(f"*{TARGET_END}"), key=lambda p: (len(p.name), p.name))
    plan = plan_dirt(len(targets), kinds)
    spoilt = Draws(seed).sample(targets, len(plan))
    return [
        f"{path.name}: {kind}, {spoil(path, kind)}"
        for path, kind in zip(spoilt, plan, strict=True)
    ]


def check_options(options: argparse.Namespace, kinds: Sequence[str]) -> None:
    """Refuse what cannot be made before anything is; raises ValueError, OSError."""
    check_screen(options.seed, options.width, options.height)
    if not 1 <= options.count <= MAX_COUNT:
        raise ValueError(
            f"count is {options.count}, expected 1 to {MAX_COUNT}; give another count"
        )
    plan_dirt(options.count, kinds)
    out = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and is not an empty folder; give another folder"
        )


def make_set(options: argparse.Namespace) -> list[str]:
    """Write the whole folder or nothing. Returns a line for each spoilt file."""
    kinds = options.dirt.split(",") if options.dirt else []
    check_options(options, kinds)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out, prefix=".unfinished_") as scratch:
        beside = Path(scratch)
        write_set(beside, options.count, options.seed, (options.width, options.height))
        lines = plant_dirt(beside, kinds, options.seed)
        for path in sorted(beside.iterdir()):
            path.rename(options.out / path.name)
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="tile_game", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    parser.add_argument("--count", type=int, default=100, help="number of screens")
    parser.add_argument("--seed", type=int, default=1, help="whole number from 0 up")
    parser.add_argument("--width", type=int, default=256, help="pixels, from 128 up")
    parser.add_argument("--height", type=int, default=224, help="pixels, from 112 up")
    parser.add_argument("--dirt", default="", help=f"faults to plant: {','.join(DIRT)}")
    options = parser.parse_args(argv)
    try:
        for line in make_set(options):
            print(line)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
