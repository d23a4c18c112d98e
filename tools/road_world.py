"""What a drive is drawn from: its settings, its camera, the ground, things on it.

Lengths are metres. Seen from the camera, x is to the right, z ahead, h above the road;
on the road, `across` is to the right of its centre line and `along` follows it. Things
are convex solids, or flat clouds of leaves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng

from tools.drawing import value_noise

CATEGORIES = ("um", "umm", "uu")
LANES = {"um": 2, "umm": 4, "uu": 2}
FRAMES_PER_DRIVE = 4
# About a third of the drives have something that the target leaves out.
LEFT_OUT = ("", "far", "", "", "mouth", "", "mouth", "")
SMALLEST = 32

# KITTI's camera as shares of the picture's width and height, and metres.
FOCAL_SHARE, CENTRE_X_SHARE, CENTRE_Y_SHARE = 0.5809, 0.4908, 0.4610
CAMERA_HEIGHT = 1.65
NEAREST, ROAD_END, FARTHEST = 0.5, 160.0, 400.0

KERB_WIDTH, PAVEMENT_WIDTH, VERGE_WIDTH = 0.18, 2.1, 0.7
LINE_WIDTH, EDGE_LINE_INSET, DASH, DASH_PERIOD = 0.14, 0.3, 3.5, 9.0
MOUTH_LENGTH, MOUTH_DEPTH, MOUTH_TO_FAR = 6.0, 30.0, 10.0

SLOT, STOREY, BLOBS = 10, 2.8, 14
SLOTS = ("house", "tree", "wood", "bush", "hedge", "nothing")
SLOT_SHARES = {
    "town": (0.5, 0.2, 0.0, 0.08, 0.12, 0.1),
    "avenue": (0.1, 0.7, 0.0, 0.05, 0.1, 0.05),
    "country": (0.06, 0.24, 0.3, 0.18, 0.06, 0.16),
}
GRASS = ((84, 104, 50), (112, 116, 64), (98, 118, 62), (78, 98, 56))
LEAVES = ((52, 82, 36), (70, 94, 40), (88, 96, 44), (60, 88, 52))
WALLS = ((196, 172, 138), (158, 100, 80), (204, 198, 186), (158, 164, 168))
ROOFS = ((128, 70, 54), (104, 62, 52), (82, 80, 84))
DARK_PAINTS = ((150, 32, 34), (40, 66, 122), (40, 42, 46), (70, 88, 84))
PAINTS = (*DARK_PAINTS, (206, 207, 208), (120, 124, 128))
TYRE, STEEL = (20, 20, 22), (128, 130, 132)
BLUE_SKY, GREY_SKY = (112, 148, 196), (176, 184, 194)

Numbers = np.ndarray | float


class Solid(NamedTuple):
    """A convex body: the points p with normals @ p <= offsets, p being (a, h, b)."""

    normals: np.ndarray
    offsets: np.ndarray


class Thing(NamedTuple):
    """What stands beside or moves on the road: solids, or the blobs of a plant.

    `reach` is its radius and height; blobs (K, 3) are centre x, centre h and radius;
    `speed` is in metres a frame, below zero for what comes towards us.
    """

    kind: str
    along: float
    across: float
    reach: tuple[float, float]
    colours: tuple[np.ndarray, ...]
    solids: tuple[Solid, ...] = ()
    blobs: np.ndarray = np.empty((0, 3))
    speed: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Drive:
    """All that the frames of one drive share, drawn once."""

    seed: int
    category: str
    lane_width: float
    ego_across: float
    kerb: bool
    bend: tuple[float, float, float]
    step: float
    pitch: float
    sun: np.ndarray
    sunlight: float
    haze: np.ndarray
    haze_length: float
    sky: np.ndarray
    clouds: float
    grass: np.ndarray
    asphalt: np.ndarray
    left_out: str
    left_out_side: int
    left_out_along: float
    things: tuple[Thing, ...] = ()

    @property
    def half(self) -> float:
        """Half the width of the road."""
        return LANES[self.category] * self.lane_width / 2

    @property
    def fall(self) -> np.ndarray:
        """How far, in x and z, a shadow lies from what casts it a metre higher."""
        return -self.sun[::2] / self.sun[1]


@dataclass(frozen=True)
class View:
    """A drive seen from `start` metres along it, in a picture of this many pixels."""

    drive: Drive
    start: float
    width: int
    height: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL_SHARE * self.width

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the camera's axis."""
        return CENTRE_X_SHARE * self.width, CENTRE_Y_SHARE * self.height

    @property
    def horizon(self) -> float:
        """Row of the horizon."""
        return self.centre[1] + self.focal * math.tan(self.drive.pitch)

    def rays(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Give the pixels' steps to the right (1, w) and down (h, 1) a metre ahead."""
        right = np.arange(columns.start, columns.stop) + 0.5 - self.centre[0]
        down = np.arange(rows.start, rows.stop) + 0.5 - self.horizon
        return right[None] / self.focal, down[:, None] / self.focal

    def road_x(self, ahead: Numbers) -> Numbers:
        """Give x of the road's centre line; the camera looks along the road."""
        size, length, phase = self.drive.bend
        here, there = self.start / length + phase, (self.start + ahead) / length + phase
        turned = np.sin(there) - np.sin(here) - np.cos(here) * ahead / length
        return size * turned - self.drive.ego_across

    def slope(self, ahead: float) -> float:
        """Give how far the road in the world goes to the right in a metre, there."""
        size, length, phase = self.drive.bend
        return size / length * math.cos((self.start + ahead) / length + phase)

    def place(self, thing: Thing) -> tuple[float, float]:
        """Give x and z of a thing's middle."""
        frames = self.start / self.drive.step
        ahead = thing.along + thing.speed * frames - self.start
        return float(self.road_x(ahead)) + thing.across, ahead

    def turn(self, thing: Thing) -> float:
        """Give the angle between a thing's direction and the camera's, in radians."""
        yaw = math.atan(self.slope(self.place(thing)[1]) - self.slope(0))
        return yaw + math.pi if thing.speed < 0 else yaw

    def window(self, thing: Thing) -> tuple[slice, slice]:
        """Give the rows and columns that a thing may fill, none if it is behind us."""
        x, z = self.place(thing)
        radius, top = thing.reach
        near = z - radius
        if z < (-radius if thing.solids else NEAREST):
            return slice(0, 0), slice(0, 0)
        if near < NEAREST:
            return slice(0, self.height), slice(0, self.width)
        sides = [(x + s * radius) / d for s in (-1, 1) for d in (near, z + radius)]
        left = self.centre[0] + self.focal * min(sides)
        right = self.centre[0] + self.focal * max(sides)
        high = self.horizon + self.focal * min(0.0, CAMERA_HEIGHT - top) / near
        low = self.horizon + self.focal * CAMERA_HEIGHT / near
        rows = np.clip((math.floor(high), math.ceil(low) + 1), 0, self.height)
        columns = np.clip((math.floor(left), math.ceil(right) + 1), 0, self.width)
        return slice(*rows), slice(*columns)


def box(size: tuple[float, float, float], bottom: float, lean: tuple = (0, 0)) -> Solid:
    """Make a box of width, height and length whose sides and ends lean inwards.

    Its faces are, in this order: left, right, back, front, top, bottom.
    """
    (width, height, length), (side, end) = size, lean
    normals = [(-1, side, 0), (1, side, 0), (0, end, -1), (0, end, 1)]
    offsets = [width / 2 + side * bottom] * 2 + [length / 2 + end * bottom] * 2
    normals += [(0, 1, 0), (0, -1, 0)]
    offsets += [bottom + height, -bottom]
    return Solid(np.array(normals, float), np.array(offsets))


def to_local(turn: float, vector: Sequence) -> tuple:
    """Turn camera directions x, h, z into a thing's own: right, up and forward."""
    (x, h, z), cos, sin = vector, math.cos(turn), math.sin(turn)
    return x * cos - z * sin, h, x * sin + z * cos


def trace(solid: Solid, origin: tuple, ray: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Follow rays to a solid: distance in ray lengths and face hit, -1 for none."""
    enter, leave, face = -np.inf, np.inf, -1
    for number, (normal, offset) in enumerate(zip(*solid, strict=True)):
        slope = sum(n * r for n, r in zip(normal, ray, strict=True) if n)
        slope = np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        gap = offset - sum(n * o for n, o in zip(normal, origin, strict=True) if n)
        distance = gap / slope
        later = (slope < 0) & (distance > enter)
        enter, face = np.where(later, distance, enter), np.where(later, number, face)
        leave = np.where(slope > 0, np.minimum(leave, distance), leave)
    return enter, np.where((enter < leave) & (enter > 0), face, -1)


def pick(rng: Generator, colours: Sequence[tuple]) -> np.ndarray:
    """Draw one of the colours, a little lighter or darker."""
    return np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.9, 1.1)


def make_house(rng: Generator, along: float, across: float) -> Thing:
    """Draw a house of one to three storeys; faces 6 and 7 are its gable roof."""
    width, length = rng.uniform(7, 10), rng.uniform(8, 12)
    eaves, pitch = STOREY * rng.integers(1, 4) + 0.4, rng.uniform(0.5, 0.9)
    top = eaves + pitch * width / 2
    walls = box((width, eaves + pitch * width, length), 0)
    normals = np.vstack((walls.normals, [(-pitch, 1, 0), (pitch, 1, 0)]))
    solid = Solid(normals, np.append(walls.offsets, (top, top)))
    reach = (math.hypot(width, length) / 2, top)
    colours = (pick(rng, WALLS), pick(rng, ROOFS))
    middle = across + math.copysign(width / 2, across)
    return Thing("house", along, middle, reach, colours, (solid,))


def make_pole(along: float, across: float) -> Thing:
    """Make a lamp post with its arm over the road."""
    arm = -math.copysign(1.0, across)
    post, lamp = box((0.16, 7, 0.16), 0), box((2.0, 0.12, 0.2), 6.9)
    lamp.offsets[:2] += (-arm, arm)
    return Thing("pole", along, across, (2.0, 7.2), (STEEL,), (post, lamp))


def make_car(rng: Generator, along: float, across: float, speed: float) -> Thing:
    """Draw a car, some of them taller; one with a speed below zero comes towards us."""
    tall = rng.choice([1.0, 1.0, 1.08, 1.25])
    body = box((1.78, 0.72 * tall, 4.2), 0.16, (0.06, 0.14))
    cabin = box((1.62, 0.6 * tall, 2.9), 0.16 + 0.72 * tall, (0.28, 0.75 / tall**4))
    solids = (body, cabin, box((1.56, 0.3, 3.2), 0))
    colours = (pick(rng, PAINTS), TYRE)
    return Thing("car", along, across, (2.3, 1.8), colours, solids, speed=speed)


def make_tree(rng: Generator, along: float, across: float) -> Thing:
    """Draw a broad, a slender or a pointed tree."""
    height, kind = rng.uniform(6, 11), rng.integers(4)
    heights, radii = rng.uniform(0.32, 0.86, BLOBS), rng.uniform(0.11, 0.17, BLOBS)
    if kind == 0:
        heights = np.linspace(0.2, 0.95, BLOBS)
        radii = 0.2 - 0.17 * heights
    spread = (0.04, 0.1, 0.26, 0.26)[kind] * np.sqrt(1.1 - abs(heights - 0.55) * 2)
    sides = rng.uniform(-1, 1, BLOBS) * spread
    blobs = np.stack((sides, heights, radii), 1) * height
    reach = (height * float(np.max(abs(sides) + radii)) * 1.15, height * 1.05)
    leaves, seed = pick(rng, LEAVES), int(rng.integers(1 << 30))
    return Thing("tree", along, across, reach, (leaves,), blobs=blobs, seed=seed)


def make_bush(rng: Generator, along: float, across: float) -> Thing:
    """Draw a bush, up to two metres high."""
    radii = rng.uniform(0.4, 0.8, 6)
    blobs = np.stack((rng.uniform(-0.9, 0.9, 6), rng.uniform(0.2, 1.0, 6), radii), 1)
    leaves, seed = pick(rng, LEAVES), int(rng.integers(1 << 30))
    return Thing("bush", along, across, (2.0, 2.0), (leaves,), blobs=blobs, seed=seed)


def fill_slot(
    rng: Generator, kind: str, along: float, side: int, edge: float
) -> list[Thing]:
    """Draw the things of one ten-metre slot beside the road; `edge` is its border."""

    def spot(low: float, high: float) -> tuple[float, float]:
        return along + rng.uniform(-4, 4), side * (edge + rng.uniform(low, high))

    if kind == "house":
        return [make_house(rng, along, side * (edge + rng.uniform(3.5, 7)))]
    if kind == "tree":
        return [make_tree(rng, along, side * (edge + 1.4 + rng.uniform(0, 0.8)))]
    if kind == "wood":
        return [make_tree(rng, *spot(3, 14)) for _ in range(4)]
    if kind == "bush":
        return [make_bush(rng, *spot(1.5, 5)) for _ in range(3)]
    if kind == "hedge":
        rows = np.arange(-4.5, 5, 1.5)
        return [make_bush(rng, along + row, side * (edge + 1.1)) for row in rows]
    return []


def draw_roadside(rng: Generator, edge: float) -> list[Thing]:
    """Draw both sides of the road, slot by slot, in one of three characters."""
    shares = list(SLOT_SHARES.values())[rng.integers(len(SLOT_SHARES))]
    things: list[Thing] = []
    for side in (-1, 1):
        for along in range(8, 170, SLOT):
            kind = rng.choice(SLOTS, p=shares)
            things += fill_slot(rng, str(kind), along, side, edge)
    if rng.random() < 0.6:
        side, gap, first = rng.choice([-1, 1]), rng.uniform(22, 34), rng.uniform(12, 30)
        things += [make_pole(first + i * gap, side * (edge + 0.1)) for i in range(5)]
    return things


def draw_traffic(rng: Generator, drive: Drive) -> list[Thing]:
    """Draw cars in the lanes, ours well ahead, and parked cars beside the road."""
    cars, busy = [], rng.uniform(0.15, 0.6)
    for lane in range(LANES[drive.category]):
        across = (lane + 0.5) * drive.lane_width - drive.half
        ours = abs(across - drive.ego_across) < drive.lane_width / 2
        along = rng.uniform(16, 30) if ours else rng.uniform(6, 24)
        while along < 120:
            speed = math.copysign(drive.step * rng.uniform(0.95, 1.1), across)
            if rng.random() < busy:
                aside = rng.uniform(-0.2, 0.2)
                cars.append(make_car(rng, along, across + aside, speed))
            along += rng.uniform(14, 40)
    for along in range(10, 60, 7):
        if rng.random() < 0.12:
            across = rng.choice([-1, 1]) * (drive.half + 1.25)
            cars.append(make_car(rng, along, across, 0))
    return cars


def find_mouth(
    drive: Drive, along: Numbers, across: Numbers, wider: Numbers
) -> Numbers:
    """Say which places lie in the mouth of the side road, or this much beside it."""
    beyond = across * drive.left_out_side - drive.half
    near = abs(along - drive.left_out_along) < MOUTH_LENGTH / 2 + wider
    there = (beyond >= 0) & (beyond < MOUTH_DEPTH)
    return near & there & (drive.left_out == "mouth")


def draw_weather(rng: Generator) -> dict[str, Any]:
    """Draw the sun's direction and strength, the sky and the haze."""
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.0)
    flat = math.cos(height)
    sun = (flat * math.sin(azimuth), math.sin(height), flat * math.cos(azimuth))
    grey = rng.random() < 0.3
    return {
        "sun": np.array(sun),
        "sunlight": rng.uniform(0.12, 0.25) if grey else rng.uniform(0.45, 0.6),
        "haze": np.array([206, 214, 222]) * rng.uniform(0.95, 1.06),
        "haze_length": rng.uniform(110, 330),
        "sky": np.array(GREY_SKY if grey else BLUE_SKY) * rng.uniform(0.9, 1.1),
        "clouds": rng.uniform(0.2, 1.0),
    }


def draw_drive(seed: int, category: str, number: int) -> Drive:
    """Draw one drive's settings from the seed, its category and its number."""
    kind = CATEGORIES.index(category)
    rng = default_rng((seed, kind, number))
    marked = category != "uu"
    lane_width = rng.uniform(3.2, 3.7) if marked else rng.uniform(2.4, 3.0)
    lane = rng.integers(LANES[category] // 2)
    length = rng.uniform(70, 140)
    drive = Drive(
        seed=int(rng.integers(1 << 30)),
        category=category,
        lane_width=lane_width,
        ego_across=(lane + 0.5) * lane_width + rng.uniform(-0.3, 0.3),
        kerb=marked and rng.random() < 0.6,
        bend=(rng.uniform(0, 0.0032) * length**2, length, rng.uniform(0, 6.28)),
        step=rng.uniform(2.5, 4.5),
        pitch=rng.uniform(-0.012, 0.012),
        **draw_weather(rng),
        grass=pick(rng, GRASS),
        asphalt=np.array([104, 105, 107]) * rng.uniform(0.8, 1.2),
        left_out=LEFT_OUT[(number + 3 * kind) % len(LEFT_OUT)],
        left_out_side=int(rng.choice([-1, 1])),
        left_out_along=rng.uniform(24, 29),
    )
    edge = drive.half + KERB_WIDTH + PAVEMENT_WIDTH
    things = draw_roadside(rng, edge) + draw_traffic(rng, drive)
    clear = (t for t in things if not find_mouth(drive, t.along, t.across, t.reach[0]))
    return replace(drive, things=tuple(clear))


def make_view(seed: int, category: str, frame: int, size: tuple[int, int]) -> View:
    """Look at one frame of width and height; raises ValueError if it cannot be."""
    if category not in CATEGORIES:
        raise ValueError(f"category {category!r}: expected one of {CATEGORIES}")
    if seed < 0 or frame < 0:
        raise ValueError(f"seed {seed}, frame {frame}: expected 0 or more")
    if min(size) < SMALLEST:
        raise ValueError(f"size {size}: expected {SMALLEST} pixels or more each way")
    drive = draw_drive(seed, category, frame // FRAMES_PER_DRIVE)
    return View(drive, drive.step * (frame % FRAMES_PER_DRIVE), *size)


class Ground(NamedTuple):
    """The rows below the horizon: where each pixel lies, and what it is, (rows, W)."""

    x: np.ndarray
    z: np.ndarray
    along: np.ndarray
    across: np.ndarray
    road: np.ndarray
    lane: np.ndarray
    beside: np.ndarray
    kerb: np.ndarray
    marks: np.ndarray
    ignored: np.ndarray


def find_marks(drive: Drive, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Find the paint: solid at the edges and between directions, else dashed."""
    half_lanes = LANES[drive.category] // 2
    dashed = along % DASH_PERIOD < DASH
    marks = np.zeros(along.shape, bool)
    for line in range(-half_lanes, half_lanes + 1):
        at_edge = abs(line) == half_lanes
        double = line == 0 and half_lanes == 2
        inset = EDGE_LINE_INSET * np.sign(line) if at_edge else 0
        off = abs(across - line * drive.lane_width + inset)
        if double:
            off = abs(off - LINE_WIDTH)
        marks |= (off < LINE_WIDTH / 2) & (at_edge | double | dashed)
    return marks & (drive.category != "uu")


def find_ground(view: View) -> Ground:
    """Follow the rays below the horizon to the bare ground, and say what is there."""
    drive = view.drive
    first = min(max(math.ceil(view.horizon), 0), view.height - 1)
    right, down = view.rays(slice(first, view.height), slice(0, view.width))
    z = np.minimum(CAMERA_HEIGHT / np.maximum(down, 1e-4), FARTHEST)
    z = np.broadcast_to(z, (len(z), view.width))
    x = right * z
    along, across = z + view.start, x - view.road_x(z)
    out = abs(across) - drive.half
    mouth = find_mouth(drive, along, across, 2.2 * np.exp(-np.maximum(out, 0) / 1.5))
    if drive.category == "uu":
        ragged = value_noise(along * 0.9, np.sign(across), drive.seed)
        out = out - 0.5 * (ragged - 0.5)
    paved, outside = (z < ROAD_END) & (out < 0), (z < ROAD_END) & (out >= 0)
    mouth = mouth & outside
    width = KERB_WIDTH + PAVEMENT_WIDTH if drive.kerb else VERGE_WIDTH
    beside = outside & (out < width) & ~mouth
    kerb = beside & (out < KERB_WIDTH) & drive.kerb
    beyond = along > drive.left_out_along + MOUTH_TO_FAR
    far = paved & beyond & (drive.left_out == "far")
    road = paved & ~far
    lane = road & (across > 0) & (across < drive.lane_width)
    marks = paved & find_marks(drive, along, across)
    return Ground(x, z, along, across, road, lane, beside, kerb, marks, mouth | far)
