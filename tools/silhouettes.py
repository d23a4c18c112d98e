"""Little pictures of everyday things: silhouettes of flat colours on a simple ground.

A silhouette is drawn from parts in a square of 100 x 100, facing right, feet down. Each
picture draws its own colours, place, size, tilt and ground from its seed.
"""

import re
from collections.abc import Sequence
from operator import index
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from tools.drawing import Colour, Draws, read_colours, shade, value_noise

# Left, top, right, bottom in pixels; right and bottom are the first outside.
Edges = tuple[int, int, int, int]
Pair = tuple[int, int]

OVERSAMPLING = 4
GRAIN, HAZE = 10, 0.35
MIN_SIDE = 8  # of a picture, pixels

# Each part in the table has a colour, a form and numbers. oval: centre and half axes;
# area: corners; stroke: a width and the points of a line. Two forms have colours of
# their own: wheel, x and a radius; legs, a width, where they begin and the x of each.
SHAPES_TEXT = Path(__file__).with_suffix(".txt").read_text()
SHAPES = {
    name: [part.split() for part in parts.split(",")]
    for name, parts in re.findall(r"(?m)^(\w+): (.*(?:\n .*)*)", SHAPES_TEXT)
}
CIFAR_CLASSES = tuple(SHAPES)[:10]  # as they are called, in the order of indices

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
    if unknown := set(names) - set(SHAPES):
        raise ValueError(f"things {unknown}: expected some of {', '.join(SHAPES)}")
    if not names or size[0] < MIN_SIDE * len(names) or size[1] < MIN_SIDE:
        what = f"{len(names)} things on {size[0]}x{size[1]} pixels"
        raise ValueError(f"{what}: expected one or more, each of 8x8 pixels or more")
    draws = Draws(index(seed))
    width, height = (side * OVERSAMPLING for side in size)
    picture = draw_ground(draws, draws.choice(HOMES.get(names[0], STREETS)), size)
    picture = picture.resize((width, height), Image.Resampling.NEAREST)
    edges = []
    for place, name in enumerate(names):
        left, right = (width * i // len(names) for i in (place, place + 1))
        slot = (left, round(0.02 * height), right, round(0.97 * height))
        low_x, low_y, high_x, high_y = paste_thing(picture, draws, name, slot)
        inside = low_x, low_y, high_x + OVERSAMPLING - 1, high_y + OVERSAMPLING - 1
        edges.append(tuple(value // OVERSAMPLING for value in inside))
    return picture.reduce(OVERSAMPLING), edges
