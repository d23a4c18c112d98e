"""Little pictures of everyday things: silhouettes of flat colours on a simple ground.

A silhouette is drawn from parts in a square of 100 x 100, facing right, feet down. Each
picture draws its own colours, place, size, tilt and ground from its seed.
"""

from collections.abc import Sequence
from operator import index

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from tools.drawing import Colour, Draws, read_colours, shade, value_noise

# Left, top, right, bottom in pixels; right and bottom are the first outside.
Edges = tuple[int, int, int, int]
Pair = tuple[int, int]

OVERSAMPLING = 4
GRAIN, HAZE = 10, 0.35
# A picture is at least so many pixels wide and high.
MIN_SIDE = 8

# Each part has a colour, a form and numbers. oval: centre and half axes; area: corners;
# stroke: a width and the points of a line. Two forms have colours of their own: wheel,
# x and a radius; legs, a width, where they begin and the x of each.
SHAPES_TEXT = """
airplane: dark area 44 46 30 16 38 16 62 46, body area 4 46 2 22 12 22 24 44,
    body oval 50 50 47 10, accent area 2 22 12 22 17 31 3 31,
    glass area 84 43 91 44 95 48 84 48, dark area 42 53 20 86 32 86 66 53
automobile: body area 22 54 34 34 66 34 80 54, glass area 28 53 37 38 49 38 49 53,
    glass area 53 53 53 38 64 38 73 53, body area 4 60 8 53 84 53 95 60 96 78 4 78,
    lamp oval 92 62 4 4, wheel 25 13, wheel 75 13
bird: orange stroke 3 50 74 48 94, orange stroke 3 58 74 58 94,
    dark area 34 58 2 72 4 82 40 72, body oval 53 60 24 18, accent oval 60 66 15 12,
    body oval 73 38 14 14, body area 58 50 64 32 80 52 72 66,
    orange area 84 33 99 40 84 44, black oval 77 35 3.4 3.4,
    dark area 26 70 40 50 60 52 56 66 42 72
cat: body stroke 8 68 86 88 84 92 66 84 54, body oval 50 74 24 22,
    light oval 50 78 12 15, body area 26 32 24 2 46 18, body area 74 32 76 2 54 18,
    body oval 50 36 27 22, lamp oval 40 33 6.5 5.5, lamp oval 60 33 6.5 5.5,
    black oval 40 33 2.6 5, black oval 60 33 2.6 5
deer: legs 5 60 28 35 58 64, body oval 45 56 24 13, white oval 21 52 5 6,
    body area 54 56 68 28 78 32 68 62, body oval 78 30 12 7,
    dark area 66 28 56 24 68 22, black oval 89 31 3 3, wood stroke 3 71 24 64 12 68 1,
    wood stroke 3 75 24 82 12 79 1
dog: body stroke 7 18 52 8 40 9 28, legs 9 62 22 32 58 67, body oval 44 60 28 15,
    body area 54 52 62 30 82 40 70 66, body oval 73 34 15 13,
    light area 78 31 97 36 97 45 78 46, black oval 95 37 4.5 4, dark oval 63 38 6.5 15,
    accent stroke 5 57 52 70 59
frog: dark oval 18 76 15 14, dark oval 82 76 15 14, body oval 50 66 36 27,
    body oval 30 36 14 14, body oval 70 36 14 14, black oval 30 35 4.5 5.5,
    black oval 70 35 4.5 5.5, black stroke 3 24 60 36 67 50 69 64 67 76 60
horse: mane stroke 8 18 46 8 60 9 80, legs 8 60 24 32 60 67, body oval 44 52 30 15,
    body area 52 52 68 14 82 20 72 60, mane area 50 44 62 12 73 8 66 22 58 48,
    body area 70 12 78 8 98 30 94 38 86 36 72 26, body area 72 12 73 2 79 10,
    black oval 80 18 2.4 2.4
ship: grey stroke 3 76 60 76 22, accent area 36 40 38 14 52 14 52 40,
    white area 20 62 20 50 28 50 28 38 62 38 62 50 72 62,
    body area 2 60 98 60 88 88 12 88, accent area 9 80 92 80 88 90 12 90
truck: accent area 2 24 64 24 64 76 2 76, white area 2 44 64 44 64 53 2 53,
    body area 67 78 67 38 84 38 96 58 97 78, glass area 74 58 74 43 82 43 91 58,
    black area 2 74 97 74 97 80 2 80, wheel 16 10, wheel 38 10, wheel 82 10
person: body stroke 9 44 58 42 93, body stroke 9 56 58 58 93,
    skin stroke 6 36 34 24 48 30 62, skin stroke 6 64 34 76 48 70 62,
    accent area 34 29 66 29 62 62 38 62, skin oval 50 15 10 13
bottle: body area 43 6 57 6 57 30 68 44 68 95 32 95 32 44 43 30,
    wood area 43 2 57 2 57 10 43 10, white area 32 56 68 56 68 78 32 78
pottedplant: leaf stroke 9 50 64 50 8, leaf stroke 9 50 64 24 16,
    leaf stroke 9 50 64 76 16, leaf stroke 9 50 64 12 40, leaf stroke 9 50 64 88 40,
    body area 28 62 72 62 64 96 36 96, dark area 25 60 75 60 74 69 26 69
"""
LINES = SHAPES_TEXT.replace("\n    ", " ").strip().split("\n")
SHAPES = {
    name: [part.split() for part in parts.split(",")]
    for name, parts in (line.split(":") for line in LINES)
}
# What CIFAR-10 calls its classes, in the order of their indices.
CIFAR_CLASSES = tuple(SHAPES)[:10]

NAMES = ("black", "white", "grey", "glass", "lamp", "orange", "pink", "skin", "wood")
FIXED = read_colours("181818 f4f4f0 909098 a8d4ec f4e070 f09828 e88c98 e4b48c 604028")
PAINTS = read_colours("d03830 e8b020 2858b8 208868 f0f0ec 303840 c86020 7840a0")
BODIES: dict[str, Sequence[Colour]] = {
    "airplane": read_colours("f4f4f4 dce4ec f0e8d0 b8c4d4"),
    "bird": read_colours("d04030 3868c8 e8c030 805030 404850 e8e8e8"),
    "deer": read_colours("a86430 946034 b87840"),
    "frog": read_colours("58a838 80b830 309058"),
    "horse": read_colours("7c4424 4c3024 b07840 989088 e4dcd0"),
    **dict.fromkeys(("cat", "dog"), read_colours("a06030 d89048 585048 e8dcc8 302c2c")),
    "person": read_colours("304878 484848 785840"),
    "bottle": read_colours("286840 704820 4878a0"),
    "pottedplant": read_colours("b85c38 c88858"),
}
# Colours above and below a horizon, and how far down it is as a share of the height.
GROUNDS = {
    "sky": ("4890e0 68a8e8", 0.95),
    "grass": ("90c4ec 68a840", 0.4),
    "sand": ("90c0e4 d8b878", 0.45),
    "snow": ("98b4d4 dce4ec", 0.45),
    "room": ("a4bcc4 987858", 0.7),
    "sea": ("90c4ec 2864a4", 0.66),
    "road": ("98bcd8 70747c", 0.58),
}
# Where a thing is at home; one of the grounds is drawn.
HOMES = {
    "airplane": ("sky", "sky", "road"),
    "bird": ("sky", "grass", "sand"),
    "ship": ("sea",),
    **dict.fromkeys(("bottle", "pottedplant"), ("room",)),
    **dict.fromkeys(("cat", "dog"), ("room", "grass", "sand")),
    **dict.fromkeys(("deer", "horse", "frog"), ("grass", "sand", "snow")),
}
STREETS = ("road", "road", "snow", "sand")


def draw_ground(draws: Draws, name: str, size: Pair) -> Image.Image:
    """Draw what is behind a thing, hazy at the horizon, with a little grain."""
    width, height = size
    colours, horizon = GROUNDS[name]
    above, below = (shade(c, draws.whole(85, 110)) for c in read_colours(colours))
    line = horizon + draws.whole(-5, 5) / 100
    row = ((np.arange(height) + 0.5) / height)[:, None, None]
    is_above = row < line
    haze = HAZE * np.where(is_above, row / line, (1 - row) / max(1 - line, 0.01))
    colour = np.where(is_above, above, below)
    y, x = np.mgrid[:height, :width] / 5
    grain = value_noise(x, y * 2, draws.whole(0, 10**6))[..., None] - 0.5
    pixels = colour + (255 - colour) * haze + GRAIN * grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_thing(name: str, colours: dict[str, Colour], side: int) -> Image.Image:
    """Draw a thing alone, RGBA of side x side pixels, clear around it."""
    picture = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(picture)

    def oval(colour: str, x: float, y: float, across: float, down: float) -> None:
        pen.ellipse((x - across, y - down, x + across, y + down), colours[colour])

    def stroke(colour: str, width: float, points: Sequence[float]) -> None:
        pen.line(points, colours[colour], round(width), "curve")
        for x, y in zip(points[::2], points[1::2], strict=True):
            oval(colour, x, y, width / 2, width / 2)

    for part in SHAPES[name]:
        words = [word for word in part if word[0].isalpha()]
        numbers = [float(word) * side / 100 for word in part[len(words) :]]
        if words == ["wheel"]:
            x, radius = numbers
            for colour, size in (("black", radius), ("grey", 0.45 * radius)):
                oval(colour, x, 0.9 * side - radius, size, size)
        elif words == ["legs"]:
            width, top, *feet = numbers
            for place, x in reversed(list(enumerate(feet))):
                stroke(("body", "dark")[place % 2], width, (x, top, x, 0.94 * side))
        elif words[1] == "oval":
            oval(words[0], *numbers)
        elif words[1] == "area":
            pen.polygon(numbers, colours[words[0]])
        else:
            stroke(words[0], numbers[0], numbers[1:])
    return picture


def paste_thing(picture: Image.Image, draws: Draws, name: str, slot: Edges) -> Edges:
    """Draw a thing somewhere inside a slot of a picture; returns its own edges."""
    body = shade(draws.choice(BODIES.get(name, PAINTS)), draws.whole(85, 115))
    far = [paint for paint in PAINTS if np.abs(np.subtract(paint, body)).sum() > 120]
    colours = dict(zip(NAMES, FIXED, strict=True)) | {"leaf": (60, 140, 60)}
    colours |= {"body": body, "accent": draws.choice(far), "dark": shade(body, 70)}
    colours |= {"mane": shade(body, 35), "light": shade(body, 140)}
    # An airplane tilts more than others and may be anywhere; they stay low.
    flies = name == "airplane"
    left, top, right, bottom = slot
    thing = draw_thing(name, colours, 2 * max(right - left, bottom - top))
    if draws.chance(0.5):
        thing = ImageOps.mirror(thing)
    tilt = draws.whole(-5, 5) * (4 if flies else 1)
    thing = thing.rotate(tilt, Image.Resampling.BILINEAR, expand=True)
    thing = thing.crop(thing.getchannel("A").getbbox())
    wide = thing.width * draws.whole(90, 112) / 100
    scale = min((right - left) / wide, (bottom - top) / thing.height)
    scale *= draws.whole(72, 97) / 100
    size = max(round(wide * scale), 1), max(round(thing.height * scale), 1)
    thing = thing.resize(size, Image.Resampling.BOX)
    left += int((right - left - size[0]) * draws.random())
    top += int((bottom - top - size[1]) * (1 - draws.random() * (1 if flies else 0.4)))
    picture.paste(thing, (left, top), thing)
    return left, top, left + size[0], top + size[1]


def draw_scene(
    names: Sequence[str], seed: int, size: Pair
) -> tuple[Image.Image, list[Edges]]:
    """Draw things side by side; gives an RGB picture and the edges of each, in pixels.

    names: of SHAPES, the first says where the scene is. size: width and height, each
    from 8 pixels up. Raises ValueError for an unknown name or a size too small.
    """
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        raise ValueError(
            f"thing is {unknown[0]!r}, expected some of {', '.join(SHAPES)}"
        )
    if not names or size[0] < MIN_SIDE * len(names) or size[1] < MIN_SIDE:
        raise ValueError(
            f"{len(names)} things on {size[0]}x{size[1]} pixels, expected one or more "
            f"of {MIN_SIDE}x{MIN_SIDE} each; give a larger size"
        )
    draws = Draws(index(seed))
    width, height = (side * OVERSAMPLING for side in size)
    picture = draw_ground(draws, draws.choice(HOMES.get(names[0], STREETS)), size)
    picture = picture.resize((width, height), Image.Resampling.NEAREST)
    edges = []
    for place, name in enumerate(names):
        left, right = (width * i // len(names) for i in (place, place + 1))
        slot = (left, round(0.02 * height), right, round(0.97 * height))
        low_x, low_y, high_x, high_y = paste_thing(picture, draws, name, slot)
        low, high = (
            (low_x, low_y),
            (high_x + OVERSAMPLING - 1, high_y + OVERSAMPLING - 1),
        )
        edges.append(tuple(value // OVERSAMPLING for value in (*low, *high)))
    return picture.reduce(OVERSAMPLING), edges
