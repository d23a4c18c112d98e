"""The drawings, words and colours of the tile game.

A drawing is an array of letters, one for each pixel; "." is nothing.
"""

from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]


def cut_drawings(text: str) -> dict[str, np.ndarray]:
    """Cut rows of drawings that stand side by side, each (H, W) under its name."""
    drawings = {}
    for sheet in text.strip().split("\n\n"):
        names, *rows = (line.split() for line in sheet.split("\n"))
        for place, name in enumerate(names):
            drawings[name] = np.array([list(row[place]) for row in rows])
    return drawings


def cut_glyph(letters: np.ndarray) -> np.ndarray:
    """Turn a drawing into ink, bool (9, W), as wide as it needs to be."""
    ink = letters == "#"
    return np.pad(ink[:, ink.any(0)], ((0, GLYPH_HEIGHT - len(ink)), (0, 0)))


def mirror(half: np.ndarray) -> np.ndarray:
    """Complete a half drawing; the light comes from the left."""
    other = half[:, ::-1].copy()
    other[other == "l"] = "m"
    return np.hstack([half, other])


def cut_words(text: str) -> tuple[str, ...]:
    """Cut a text at its bars and line ends."""
    lines = text.strip().split("\n")
    return tuple(part.strip() for line in lines for part in line.split("|"))


FONT = cut_drawings("""
A     B     C     D     E     F     G     H     I     J     K     L     M
.###. ####. .###. ####. ##### ##### .###. #...# ###.. ..### #...# #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# .#... ...#. #..#. #.... ##.##
#...# #...# #.... #...# #.... #.... #.... #...# .#... ...#. #.#.. #.... #.#.#
##### ####. #.... #...# ####. ####. #.### ##### .#... ...#. ##... #.... #.#.#
#...# #...# #.... #...# #.... #.... #...# #...# .#... ...#. #.#.. #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# .#... #..#. #..#. #.... #...#
#...# ####. .###. ####. ##### #.... .###. #...# ###.. .##.. #...# ##### #...#

N     O     P     Q     R     S     T     U     V     W     X     Y     Z
#...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.
#.#.# #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#..
#..## #...# #.... #.#.# #.#.. ....# ..#.. #...# .#.#. #.#.# .#.#. ..#.. .#...
#..## #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #....
#...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####

a     b     c     d     e     f     g     h     i     j     k     l     m
..... #.... ..... ...#. ..... ..##. ..... #.... #.... ..#.. #.... #.... .....
..... #.... ..... ...#. ..... .#... ..... #.... ..... ..... #.... #.... .....
.##.. ###.. .###. .###. .##.. ####. .###. ###.. #.... ..#.. #..#. #.... ##.#.
...#. #..#. #.... #..#. #..#. .#... #..#. #..#. #.... ..#.. #.#.. #.... #.#.#
.###. #..#. #.... #..#. ####. .#... #..#. #..#. #.... ..#.. ##... #.... #.#.#
#..#. #..#. #.... #..#. #.... .#... #..#. #..#. #.... ..#.. #.#.. #.... #.#.#
.###. ###.. .###. .###. .###. .#... .###. #..#. #.... ..#.. #..#. ##... #.#.#
..... ..... ..... ..... ..... ..... ...#. ..... ..... #.#.. ..... ..... .....
..... ..... ..... ..... ..... ..... ###.. ..... ..... .#... ..... ..... .....

n     o     p     q     r     s     t     u     v     w     x     y     z
..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... .....
..... ..... ..... ..... ..... ..... .#... ..... ..... ..... ..... ..... .....
###.. .##.. ###.. .###. #.##. .###. ####. #..#. #...# #...# #..#. #..#. ####.
#..#. #..#. #..#. #..#. ##... #.... .#... #..#. #...# #.#.# #..#. #..#. ...#.
#..#. #..#. #..#. #..#. #.... .##.. .#... #..#. .#.#. #.#.# .##.. #..#. .##..
#..#. #..#. #..#. #..#. #.... ...#. .#... #..#. .#.#. #.#.# #..#. #..#. #....
#..#. .##.. ###.. .###. #.... ###.. ..##. .###. ..#.. .#.#. #..#. .###. ####.
..... ..... #.... ...#. ..... ..... ..... ..... ..... ..... ..... ...#. .....
..... ..... #.... ...#. ..... ..... ..... ..... ..... ..... ..... ###.. .....

0     1  2     3     4     5     6     7     8     9     . ,  ! ?    '  : $     -
.###. .# .###. .###. ...#. ##### ..##. ##### .###. .###. . .. # .##. .# . ..#.. ...
#...# ## #...# #...# ..##. #.... .#... ....# #...# #...# . .. # #..# .# . .#### ...
#..## .# ....# ....# .#.#. ####. #.... ...#. #...# #...# . .. # ...# #. . #.#.. ...
#.#.# .# ..##. ..##. #..#. ....# ####. ...#. .###. .#### . .. # ..#. .. # .###. ...
##..# .# .#... ....# ##### ....# #...# ..#.. #...# ....# . .. # .#.. .. . ..#.# ###
#...# .# #.... #...# ...#. #...# #...# ..#.. #...# ...#. . .. . .... .. . ####. ...
.###. .# ##### .###. ...#. .###. .###. ..#.. .###. .##.. # .# # .#.. .. # ..#.. ...
..... .. ..... ..... ..... ..... ..... ..... ..... ..... . #. . .... .. . ..... ...
""")
GLYPH_HEIGHT, LINE_HEIGHT, SPACE_WIDTH = 9, 12, 3
GLYPHS = {name: cut_glyph(letters) for name, letters in FONT.items()}
GLYPHS[" "] = np.zeros((GLYPH_HEIGHT, SPACE_WIDTH), bool)

# Letters: l light, d dark, b bloom, y yellow, w white.
CELL = 8
GROUND = cut_drawings("""
plain    tuft     sprig    dots     blades   bloom    ripple   wave     glint
........ ........ ........ ........ .l...l.. ........ ........ ........ ........
........ .d...d.. ........ .l...... .ld..ld. ..b..... .ddd.... .lll.... ........
........ ..d.d... ...l.l.. ........ lddd.ddd .byb.... d...d... l...l... .....ww.
........ ........ ....l... .....d.. .dd..dd. ..b..... ........ ........ ........
........ ........ ........ ........ ...l...l ..d...b. ........ ........ ........
........ ....l.l. ........ ..d..... d..ld..l .....byb ....ddd. ........ .l......
........ .....l.. .d...... ......l. ddlddldd ......b. ...d...d .....ll. ........
........ ........ ........ ........ dd.dd.dd ......d. ........ ........ ........

pebble   brick    plank    slab     shingle  goods
........ llllllld llllllll lllllll. ..d...d. dddddddd
.dd..... .......d ........ l......d ..d...d. dbbddyyd
d..d.... .......d ........ l......d dddddddd dbbdyyyy
.dd...l. dddddddd dddddddd l......d llllllll dbbdyyyy
........ lllldlll llllldll l......d d...d... dbbddyyd
.....dd. ....d... .....d.. l......d d...d... llllllll
..l.d..d ....d... .....d.. l......d dddddddd ........
.....dd. dddddddd dddddddd .ddddddd llllllll ........
""")

# Left halves of 16x16 sprites. Letters: o outline, d dark, m middle, l light, w wood,
# s skin, e eye, t hat or hair, h hair, k shirt, b trousers.
HALVES = cut_drawings("""
person   back     bush     rock     sign     fence    pot
........ ........ ........ ........ ........ ........ ....oo.o
.....ooo .....ooo ........ ........ ........ ........ ...ollol
...oottt ...oottt ........ ........ ........ ........ ..oldmol
..ottttt ..ottttt .....ooo ........ .ooooooo ........ ..omdmml
..ottttt ..ottttt ...oolll ........ owwwwwww ...oooo. .olmodml
..otthhh ..ottttt ..ollmml ........ owllllll ...owwo. .omdmmdm
..ohhsss ..ohhhhh .olmmmmm .....ooo owlddldd ooowwooo ..oommdm
..ohsess ..ohhhhh .olmmlmm ...oolll owllllll lllwwlll ....odmm
..ossess ..oshhhh ommmlmmm ..olllmm owldlddl wwwwwwww ..oooooo
...ossss ...ohhhh ommmmmmd .ollmmmm owllllll ooowwooo ..owwwww
...ooooo ...ooooo odmmdmmm .olmmmmm owwwwwww ...owwo. ..owwwww
..oskkkk ..oskkkk odddmmdm ommmmmmd .ooooooo ooowwooo ...owwww
..oskkkk ..oskkkk .oddddmd ommmmddd .....oww lllwwlll ...owwww
...obbbb ...obbbb ..oodddd oddddddd .....oww ooowwooo ...owwww
...obbbo ...obbbo ....oooo .ooooooo .....oww ...owwo. ....owww
....ooo. ....ooo. ........ ........ .....ooo ...oooo. ....oooo
""")
SPRITES = {name: mirror(half) for name, half in HALVES.items()}

# The hand's letters: o outline, w white, d shade, k sleeve.
MARKS = cut_drawings("""
hand             arrow more
ooo..oooo....... #.... #######
okkoowwwwoooooo. ##... .#####.
okkwwwwwwwwwwwwo ###.. ..###..
okkwwwwwwwooooo. ####. ...#...
okkwwwwwdwwwo... ###.. .......
okkwwwwwwooo.... ##... .......
okkwwwwddwwo.... #.... .......
okkowwwwwoo..... ..... .......
ooo.ooooo....... ..... .......
""")

SENTENCES = cut_words("""
    The bridge is out. Try the ferry! | MOSSCUB hides under a leaf.
    Would you like to rest here? | A shy FERNLET peeks out! | You got 3 copper coins.
    Shh! The library is open. | Grandma baked a plum pie. It smells of cinnamon.
    The old mill turns again, thanks to you! | TIDOOT hums a happy tune.
    Have you seen my left shoe? | Nothing but dust in here...
    My boat leaves at noon. Be quick! | The sign says: Beware of geese.
    EMBRIL tries SPLINTER! | Snow in June? How odd. | I counted 100 frogs last night.
""")
GREETINGS = cut_words("""
    What may I wrap up for you? | Look around as long as you like.
    Fresh from the oven!
""")
QUESTIONS = cut_words("""
    Save your journey? | Buy the paper kite for 40 coins? | Shall we cross the river?
    Give PEBBLIN a warm bun? | Sleep until the morning?
""")
CREATURES = cut_words("""
    MOSSCUB | FERNLET | EMBRIL | TIDOOT | PEBBLIN | DRIZZET | KITEROO | NUBBIN
""")
PLACES = cut_words("""
    MILLBROOK | OLD QUARRY | NORTH COAST | LANE 12 | Plum Orchard | Hollow Hill
    Lantern Bay | SNOWY GAP
""")
SPEAKERS = ("Ada", "Bruno", "Granny", "Ferryman", "Mira", "Pip", "Baker", "Otto")
PAUSE_WORDS = ("BAG", "TEAM", "MAP", "NOTES", "SAVE", "OPTIONS", "EXIT")
COMMANDS = ("DASH", "GUARD", "BAG", "FLEE")
WARES = ("Herb", "Rope", "Plum bun", "Lamp oil", "Paper kite", "Tonic", "Wool hat")

OUTLINE = (32, 32, 44)
SHIRTS = ((208, 64, 64), (64, 104, 208), (72, 160, 96), (240, 176, 48), (160, 96, 192))
SKINS = ((252, 216, 176), (232, 184, 136), (176, 120, 80), (120, 80, 56))
HAIRS = ((80, 52, 36), (216, 160, 64), (44, 40, 52), (176, 72, 40), (232, 232, 224))
ROOFS = ((216, 80, 72), (80, 120, 200), (136, 96, 176), (64, 152, 136), (232, 144, 64))
WALLS = ((240, 228, 204), (216, 176, 136), (224, 224, 232), (248, 216, 168))
YELLOW, WHITE, WOOD = (255, 224, 96), (255, 255, 255), (160, 104, 56)
BLOOMS = ((232, 72, 80), (248, 160, 208), WHITE, (168, 112, 232))
WATER, BANK, SAND = (72, 144, 232), (200, 236, 252), (240, 216, 152)
NIGHT, LAMP = (0.5, 0.56, 0.88), (1.0, 0.92, 0.7)
TROUSERS = ((56, 72, 120), (104, 80, 56), (72, 72, 80))
FLOORS = ((232, 208, 168), (208, 220, 228), (228, 184, 128))
STONE, BOARD, POT = (176, 172, 180), (224, 176, 112), (88, 176, 88)
# The colour of a bar that is fuller than that share.
HEALTH = ((0.5, (80, 208, 96)), (0.2, (240, 192, 48)), (0.0, (232, 72, 64)))
MAGIC, EMPTY_BAR, ALERT = (80, 144, 240), (72, 72, 84), (224, 56, 56)


def shade(colour: Colour, percent: int) -> Colour:
    """Darken (below 100) or lighten a colour, stopping at white."""
    return tuple(min(255, value * percent // 100) for value in colour)


def read_colours(row: str) -> list[Colour]:
    """Read colours that are written as rrggbb, with spaces between them."""
    return [tuple(bytes.fromhex(word)) for word in row.split()]


class Theme(NamedTuple):
    """The colours of every box on one screen."""

    top: Colour
    bottom: Colour
    edge: Colour
    frame: Colour
    text: Colour
    shadow: Colour


THEMES = tuple(
    Theme(*read_colours(row))
    for row in (
        "fcfcfc fcfcfc 384058 7090d0 404048 d0d0d8",
        "4868d0 202878 181838 f0f0f8 ffffff 181850",
        "fff4d8 f8e4b8 603820 d09048 583828 e8cc98",
        "20202c 14141c 08080c d8d8e0 f0f0f0 484858",
        "e0f8d8 c8ecc0 205040 58a878 204838 a8d4a8",
        "fff0f8 fcdcec 703060 e478a8 683058 f0c0d8",
    )
)


class Picture(NamedTuple):
    """Something cut out: uint8 (H, W, 3), and where it is opaque, bool (H, W)."""

    pixels: np.ndarray
    opaque: np.ndarray


def paint(letters: np.ndarray, colours: dict[str, Colour]) -> Picture:
    """Colour a drawing (H, W); a letter without a colour becomes black."""
    pixels = np.zeros((*letters.shape, 3), np.uint8)
    for letter, colour in colours.items():
        pixels[letters == letter] = colour
    return Picture(pixels, letters != ".")


def paint_shades(
    letters: np.ndarray, base: Colour, bright: Colour | None = None, dark: int = 76
) -> Picture:
    """Colour a drawing in shades of one colour; the dark one is given in percent."""
    shades = {"o": shade(base, 40), "d": shade(base, dark), "m": base}
    return paint(letters, shades | {"l": bright or shade(base, 126), "w": WOOD})
