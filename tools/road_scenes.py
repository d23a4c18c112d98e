"""Draw road scenes, seen from a car, with their targets, in the KITTI road layout.

    python -m tools.road_scenes OUT --count 60 --seed 1

Every scene belongs to a drive: four frames of one road, the camera a few metres further
each time. What stands in front of the road is taken out of the target.

Lengths are metres. Seen from the camera, x is to the right, z ahead, h above the road;
on the road, `across` is to the right of its centre line and `along` follows it. Ground
is found by following each pixel's ray to the plane of the road; things are polygons.
All is painted larger than it is wanted, and then shrunk.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from tools.command import Command, check_range, new_folder
from tools.drawing import layered_noise, value_noise

LANES = {"um": 2, "umm": 4, "uu": 2}
FRAMES_PER_DRIVE = 4
# About a third of the drives have something that the target leaves out.
LEFT_OUT = ("", "far", "", "", "mouth", "", "mouth", "")
OVERSAMPLING = 3
COLOUR_STEP = 4  # too small to see, and makes the files smaller by a third

# KITTI's camera as shares of the picture's width and height, and metres.
FOCAL_SHARE, CENTRE_X_SHARE, CENTRE_Y_SHARE = 0.5809, 0.4908, 0.4610
CAMERA_HEIGHT = 1.65
CAMERAS_X = (0.0, -0.5372, 0.0621, -0.4731)  # of KITTI's four; we draw camera 2's
NEAREST, ROAD_END, FARTHEST = 0.5, 160.0, 400.0
KERB_WIDTH, PAVEMENT_WIDTH, VERGE_WIDTH = 0.18, 2.1, 0.7
LINE_WIDTH, EDGE_LINE_INSET, DASH, DASH_PERIOD = 0.14, 0.3, 3.5, 9.0
MOUTH_LENGTH, MOUTH_DEPTH, MOUTH_TO_FAR = 6.0, 30.0, 10.0

RED, MAGENTA, BLACK = (255, 0, 0), (255, 0, 255), (0, 0, 0)
GRASS = ((84, 104, 50), (112, 116, 64), (98, 118, 62), (78, 98, 56))
LEAVES = ((52, 82, 36), (70, 94, 40), (88, 96, 44), (60, 88, 52))
WALLS = ((196, 172, 138), (158, 100, 80), (204, 198, 186), (158, 164, 168))
PAINTS = ((150, 32, 34), (40, 66, 122), (40, 42, 46), (206, 207, 208), (120, 124, 128))
BLUE_SKY, GREY_SKY, ASPHALT = (112, 148, 196), (176, 184, 194), (104, 105, 107)
PAVEMENT, GRAVEL, KERB, WOODS = (158, 152, 144), (138, 126, 104), 178, (118, 134, 124)
GLASS, BARK, WHITE = (42, 50, 58), (78, 66, 54), (222, 221, 214)
NUM_LEAVES = 40

Numbers = np.ndarray | float


class Scene(NamedTuple):
    """One frame: image uint8 (H, W, 3); road, lane and ignored bool (H, W)."""

    image: np.ndarray
    road: np.ndarray
    lane: np.ndarray
    ignored: np.ndarray


class Thing(NamedTuple):
    """A house, plant or car. size: width, height, length; speed: metres a frame."""

    kind: str
    along: float
    across: float
    size: tuple[float, float, float]
    colour: np.ndarray
    speed: float = 0.0


class Drive:
    """All that the frames of one drive share, drawn once from seed and number."""

    def __init__(self, seed: int, category: str, number: int) -> None:
        kind = list(LANES).index(category)
        rng = default_rng((seed, kind, number))
        self.category, marked = category, category != "uu"
        self.lane_width = rng.uniform(3.2, 3.7) if marked else rng.uniform(2.4, 3.0)
        self.half = LANES[category] * self.lane_width / 2
        lane, length = rng.integers(LANES[category] // 2), rng.uniform(70, 140)
        self.seed = int(rng.integers(1 << 30))
        self.ego_across = (lane + 0.5) * self.lane_width + rng.uniform(-0.3, 0.3)
        self.kerb = marked and rng.random() < 0.6
        self.bend = rng.uniform(0, 0.0032) * length**2, length, rng.uniform(0, 6.28)
        self.step = rng.uniform(2.5, 4.5)  # from frame to frame
        self.pitch = rng.uniform(-0.012, 0.012)  # of the camera, radians
        azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.0)
        flat, grey = math.cos(height), rng.random() < 0.3
        sun = flat * math.sin(azimuth), math.sin(height), flat * math.cos(azimuth)
        self.sun = np.array(sun)  # its direction
        self.sunlight = rng.uniform(0.12, 0.25) if grey else rng.uniform(0.45, 0.6)
        self.haze = np.array([206, 214, 222]) * rng.uniform(0.95, 1.06)
        self.haze_length = rng.uniform(110, 330)
        self.sky = np.array(GREY_SKY if grey else BLUE_SKY) * rng.uniform(0.9, 1.1)
        self.grass = pick(rng, GRASS)
        self.asphalt = np.array(ASPHALT) * rng.uniform(0.8, 1.2)
        self.left_out = LEFT_OUT[(number + 3 * kind) % len(LEFT_OUT)]
        self.left_out_side = int(rng.choice([-1, 1]))
        self.left_out_along = rng.uniform(24, 29)
        every = draw_roadside(rng, self) + draw_traffic(rng, self)
        where = [self.is_mouth(t.along, t.across, t.size[0]) for t in every]
        self.things = [t for t, hidden in zip(every, where, strict=True) if not hidden]

    def is_mouth(self, along: Numbers, across: Numbers, wider: Numbers) -> Numbers:
        """Say which places lie in the mouth of a side road, or this much beside it."""
        beyond = across * self.left_out_side - self.half
        near = abs(along - self.left_out_along) < MOUTH_LENGTH / 2 + wider
        there = (beyond >= 0) & (beyond < MOUTH_DEPTH)
        return near & there & (self.left_out == "mouth")


class View:
    """A drive seen from `start` metres along it, in a picture of this many pixels."""

    def __init__(self, drive: Drive, start: float, width: int, height: int) -> None:
        self.drive, self.start, self.width, self.height = drive, start, width, height
        self.focal = FOCAL_SHARE * width
        self.centre = CENTRE_X_SHARE * width, CENTRE_Y_SHARE * height
        self.horizon = self.centre[1] + self.focal * math.tan(drive.pitch)

    def rays(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the steps to the right (1, W) and down (h, 1) a metre ahead, of rows."""
        right = np.arange(self.width)[None] + 0.5 - self.centre[0]
        down = np.arange(first, last)[:, None] + 0.5 - self.horizon
        return right / self.focal, down / self.focal

    def road_x(self, ahead: Numbers) -> Numbers:
        """Give x of the road's centre line; the camera looks along the road."""
        size, length, phase = self.drive.bend
        here, there = self.start / length + phase, (self.start + ahead) / length + phase
        turned = np.sin(there) - np.sin(here) - np.cos(here) * ahead / length
        return size * turned - self.drive.ego_across

    def place(self, thing: Thing) -> tuple[float, float]:
        """Give x and z of a thing's middle."""
        frames = self.start / self.drive.step
        ahead = thing.along + thing.speed * frames - self.start
        return float(self.road_x(ahead)) + thing.across, ahead

    def project(self, points: ArrayLike) -> list[tuple[float, float]]:
        """Turn points (N, 3) of x, h, z into columns and rows of the picture."""
        x, h, z = np.array(points, float).T
        scale = self.focal / np.maximum(z, NEAREST)
        columns = self.centre[0] + scale * x
        rows = self.horizon + scale * (CAMERA_HEIGHT - h)
        return list(zip(columns.tolist(), rows.tolist(), strict=True))


def pick(rng: Generator, colours: Sequence[tuple]) -> np.ndarray:
    """Draw one of the colours, a little lighter or darker."""
    return np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.9, 1.1)


def draw_roadside(rng: Generator, drive: Drive) -> list[Thing]:
    """Draw houses, trees and bushes for each ten metres of both sides."""
    things, edge = [], drive.half + KERB_WIDTH + PAVEMENT_WIDTH
    houses, plants = rng.choice([0.05, 0.15, 0.5]), rng.integers(1, 4)
    for along, side in itertools.product(range(8, 170, 10), (-1, 1)):
        if rng.random() < houses:
            wide, storeys = rng.uniform(7, 10), rng.integers(1, 4)
            size = wide, 2.8 * storeys + 0.5, rng.uniform(8, 12)
            across = side * (edge + wide / 2 + rng.uniform(3.5, 7))
            things.append(Thing("house", along, across, size, pick(rng, WALLS)))
        for _ in range(plants):
            height = rng.choice([1.5, rng.uniform(5, 10)])
            spot = along + rng.uniform(-5, 5), side * (edge + rng.uniform(1, 9))
            width = height * rng.uniform(0.5, 0.9)
            size = width, height, width
            things.append(Thing("plant", *spot, size, pick(rng, LEAVES)))
    return things


def draw_traffic(rng: Generator, drive: Drive) -> list[Thing]:
    """Draw cars in the lanes, ours well ahead, and parked cars beside the road."""
    cars, busy = [], rng.uniform(0.3, 0.7)
    for lane in range(-1, LANES[drive.category] + 1):
        across = (lane + 0.5) * drive.lane_width - drive.half
        parked = abs(across) > drive.half
        ours = abs(across - drive.ego_across) < drive.lane_width / 2
        along = rng.uniform(16, 30) if ours else rng.uniform(6, 24)
        while along < (60 if parked else 120):
            speed = math.copysign(drive.step * rng.uniform(0.95, 1.1), across)
            if rng.random() < (0.2 if parked else busy):
                spot = along, across + rng.uniform(-0.2, 0.2)
                size, speed = (1.78, rng.uniform(1.4, 1.8), 4.2), 0 if parked else speed
                cars.append(Thing("car", *spot, size, pick(rng, PAINTS), speed))
            along += rng.uniform(14, 40)
    return cars


def make_view(seed: int, category: str, frame: int, size: tuple[int, int]) -> View:
    """Look at one frame of width and height; raises ValueError if it cannot be."""
    if category not in LANES:
        raise ValueError(f"category {category!r}: expected one of {', '.join(LANES)}")
    check_range("seed", seed, 0)
    check_range("frame", frame, 0)
    check_range("smaller side", min(size), 32)
    drive = Drive(seed, category, frame // FRAMES_PER_DRIVE)
    return View(drive, drive.step * (frame % FRAMES_PER_DRIVE), *size)


def lay(colour: ArrayLike, flags: np.ndarray, paint: ArrayLike) -> np.ndarray:
    """Put paint over colours (..., 3) where flags (...) are set."""
    return np.where(flags[..., None], paint, colour)


def add_haze(drive: Drive, colour: np.ndarray, z: Numbers) -> np.ndarray:
    """Blend colours (..., 3) into the haze by their distance."""
    share = (1 - np.exp(-np.asarray(z) / drive.haze_length))[..., None]
    return colour * (1 - share) + drive.haze * share


def find_shadows(view: View) -> np.ndarray:
    """Find how far each pixel's ground lies in shadow, 0 to 1, softened; (H, W)."""
    picture = Image.new("L", (view.width, view.height))
    pen, sun = ImageDraw.Draw(picture), view.drive.sun
    turns = np.linspace(0, 2 * math.pi, 16)
    ring = np.stack((np.cos(turns), turns * 0, np.sin(turns)), 1)
    foot = np.array(((-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)))
    for thing in view.drive.things:
        (x, z), size = view.place(thing), np.array(thing.size)
        fall = -size[1] * sun / sun[1] * (1, 0, 1)  # of the shadow of its top
        is_plant = thing.kind == "plant"
        for share in (0.6, 0.8) if is_plant else np.linspace(0, 1, 9):
            outline = (ring if is_plant else foot) * size / 2 + (x, 0, z) + share * fall
            if outline[:, 2].max() > NEAREST:
                pen.polygon(view.project(outline), 255)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(2.5))) / 255


def paint_ground(view: View) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Colour the rows below the horizon, float (rows, W, 3) in 0..255.

    Also returns where road, lane and ignored places are, bool (rows, W) each.
    """
    drive = view.drive
    first = min(max(math.ceil(view.horizon), 0), view.height - 1)
    right, down = view.rays(first, view.height)
    z = np.minimum(CAMERA_HEIGHT / np.maximum(down, 1e-4), FARTHEST)
    z = np.broadcast_to(z, (len(z), view.width))
    x = right * z
    along, across = z + view.start, x - view.road_x(z)

    # What is where.
    out = abs(across) - drive.half
    mouth = drive.is_mouth(along, across, 2.2 * np.exp(-np.maximum(out, 0) / 1.5))
    if drive.category == "uu":
        out = out - 0.5 * (value_noise(along * 0.9, np.sign(across), drive.seed) - 0.5)
    paved, outside = (z < ROAD_END) & (out < 0), (z < ROAD_END) & (out >= 0)
    mouth = mouth & outside
    width = KERB_WIDTH + PAVEMENT_WIDTH if drive.kerb else VERGE_WIDTH
    beside = outside & (out < width) & ~mouth
    kerb = beside & (out < KERB_WIDTH) & drive.kerb
    beyond = along > drive.left_out_along + MOUTH_TO_FAR
    far = paved & beyond & (drive.left_out == "far")
    lane = paved & ~far & (across > 0) & (across < drive.lane_width)
    # Paint: solid at the edges and between directions, else dashed.
    marks, half_lanes = np.zeros(z.shape, bool), LANES[drive.category] // 2
    for line in range(-half_lanes, half_lanes + 1):
        at_edge, double = abs(line) == half_lanes, line == 0 and half_lanes == 2
        inset = EDGE_LINE_INSET * np.sign(line) * at_edge
        off = abs(across - line * drive.lane_width + inset)
        off = abs(off - LINE_WIDTH) if double else off
        solid = at_edge or double or along % DASH_PERIOD < DASH
        marks |= paved & (off < LINE_WIDTH / 2) & solid & (drive.category != "uu")

    # How it looks. Beyond some distance a pixel holds many grains: their mean is left.
    grain = layered_noise(across * 5, along * 4, drive.seed)
    grain = 0.5 + (grain - 0.5) / (1 + (z / 25) ** 2)
    patches = layered_noise(across * 0.4, along * 0.12, drive.seed + 9)
    tone = (0.45 + 0.6 * grain + 0.5 * patches)[..., None]
    pavement = np.array(PAVEMENT if drive.kerb else GRAVEL) * (0.5 + tone / 2)
    colour = lay(drive.grass * tone, beside, pavement)
    colour = lay(colour, kerb, KERB * (0.6 + 0.4 * tone))
    asphalt = drive.asphalt * (0.62 + 0.36 * grain + 0.42 * patches)[..., None]
    colour = lay(colour, paved | mouth, asphalt)
    wear = (marks * np.clip(0.35 + 0.9 * grain, 0, 0.9))[..., None]
    colour = colour * (1 - wear) + wear * WHITE
    dark = find_shadows(view)[first:, :, None]
    lit = 1.05 - dark * drive.sunlight * np.array((1.0, 0.96, 0.88))
    return add_haze(drive, colour * lit, z), (paved & ~far, lane, mouth | far)


def paint_sky(view: View, rows: int) -> np.ndarray:
    """Colour the sky and the far woods; float (rows, W, 3)."""
    drive = view.drive
    right, down = view.rays(0, rows)
    up = np.maximum(-down, 0)
    blue = np.clip(up * 4.5, 0, 1) * (0.4 + 0.6 * layered_noise(right * 3, up * 9, 1))
    colour = drive.haze + (drive.sky - drive.haze) * blue[..., None]
    outline = 0.1 + layered_noise(right * 5, np.zeros(1), drive.seed + 2)
    leaf = layered_noise(right * 90, down * 90, drive.seed + 5)[..., None]
    return lay(colour, up < 0.07 * outline, np.array(WOODS) * (0.9 + 0.3 * leaf))


class Painter:
    """Paints things onto a picture, and remembers what they cover."""

    def __init__(self, view: View, pixels: np.ndarray) -> None:
        self.view, self.picture = view, Image.fromarray(pixels)
        self.cover = Image.new("1", self.picture.size)
        self.pens = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.cover)

    def paint(self, points: Sequence, colour: ArrayLike, facing: float) -> None:
        """Paint a polygon (N, 3), lit and in the haze; of two points, an ellipse."""
        drive, z = self.view.drive, max(np.mean(points, 0)[2], 0)
        lit = 1.05 - drive.sunlight * (1 - np.clip(1.3 * facing, 0, 1))
        hazed = np.clip(add_haze(drive, np.array(colour) * lit, z), 0, 255)
        corners = self.view.project(points)
        for pen, ink in zip(self.pens, (tuple(map(int, hazed)), 1), strict=True):
            (pen.ellipse if len(corners) == 2 else pen.polygon)(corners, ink)

    def box(self, place: tuple, size: tuple, colour: ArrayLike, pane=(99, 99)) -> None:
        """Paint the faces that we see of a box whose foot is at place (x, h, z).

        pane: on its walls there is a window on every so many metres to the side and up.
        """
        (width, height, length), (x, h, z), sun = size, place, self.view.drive.sun
        left, right, top = x - width / 2, x + width / 2, h + height
        near, far = z - length / 2, z + length / 2
        across, up, ahead = np.diag(size)
        faces = (  # is it seen, a corner, two sides from there, how it faces the sun
            (near > NEAREST, (left, h, near), across, up, -sun[2]),
            (left > 0, (left, h, near), ahead, up, -sun[0]),
            (right < 0, (right, h, near), ahead, up, sun[0]),
            (top < CAMERA_HEIGHT, (left, top, near), across, ahead, sun[1]),
        )
        for seen, *spots, facing in faces:
            if not seen or far < NEAREST:
                continue
            corner, along, up = map(np.array, spots)
            columns, rows = int(max(along) / pane[0] + 0.5), int(max(up) / pane[1])
            panes = [(0, 1, 0, 1, colour)]
            for i, j in itertools.product(range(columns), range(rows)):
                sides = (i + 0.2) / columns, (i + 0.8) / columns
                panes.append((*sides, (j + 0.3) / rows, (j + 0.8) / rows, GLASS))
            for a, b, low, high, paint in panes:
                shares = ((a, low), (b, low), (b, high), (a, high))
                quad = [corner + along * m + up * n for m, n in shares]
                self.paint(quad, paint, facing)

    def thing(self, thing: Thing) -> None:
        (x, z), (width, height, length) = self.view.place(thing), thing.size
        if thing.kind == "house":
            self.box((x, 0, z), thing.size, thing.colour, (2.4, 2.8))
        elif thing.kind == "car":
            cabin = 0.85 * width, height - 0.85, 0.6 * length
            self.box((x, 0, z), (0.9 * width, 0.2, 0.8 * length), BARK)
            self.box((x, 0.2, z), (width, 0.65, length), thing.colour)
            self.box((x, 0.85, z), cabin, thing.colour, (1.3, cabin[1]))
        elif z > NEAREST:
            radius, sun = width / 2, self.view.drive.sun
            self.box((x, 0, z), (0.04 * height, height - radius, 0.01), BARK)
            rng = default_rng(int(thing.along * 1000))
            for a, up, size in rng.uniform((-1, -1, 0.2), (1, 1, 0.4), (NUM_LEAVES, 3)):
                if math.hypot(a, up) < 0.9:
                    middle = np.array((x + radius * a, height + radius * (up - 1), z))
                    half = radius * size * np.array((1, -1, 0))
                    facing = 0.5 + (a * sun[0] + up * sun[1]) / 2
                    facing += rng.uniform(-0.3, 0.3)
                    self.paint((middle - half, middle + half), thing.colour, facing)


def draw_view(view: View) -> Scene:
    width, height = view.width * OVERSAMPLING, view.height * OVERSAMPLING
    view = View(view.drive, view.start, width, height)
    below, places = paint_ground(view)
    pixels = np.concatenate((paint_sky(view, height - len(below)), below))
    painter = Painter(view, np.clip(pixels, 0, 255).astype(np.uint8))
    for thing in sorted(view.drive.things, key=lambda t: -view.place(t)[1]):
        painter.thing(thing)
    image = np.array(painter.picture.reduce(OVERSAMPLING)) // COLOUR_STEP * COLOUR_STEP
    free, above = ~np.array(painter.cover), ((height - len(below), 0), (0, 0))
    masks = ((np.pad(at, above) & free).astype(np.uint8) * 255 for at in places)
    small = (np.array(Image.fromarray(mask).reduce(OVERSAMPLING)) for mask in masks)
    return Scene(image, *(mask > 127 for mask in small))


def render_scene(seed: int, category: str, frame: int, *size: int) -> Scene:
    """Draw one frame of a category, of width and height; the same pixels each time."""
    return draw_view(make_view(seed, category, frame, size))


def paint_target(marked: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Colour a target as KITTI does, uint8 (H, W, 3)."""
    return lay(lay(RED, marked, MAGENTA), ignored, BLACK).astype(np.uint8)


def calibration(view: View) -> str:
    """Write the camera as KITTI does."""
    cos, sin = math.cos(view.drive.pitch), math.sin(view.drive.pitch)
    focal, (x, y) = view.focal, view.centre
    rows = {}
    for number, offset in enumerate(CAMERAS_X):
        rows[f"P{number}"] = (focal, 0, x, focal * offset, 0, focal, y, 0, 0, 0, 1, 0)
    rows["R0_rect"] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    rows["Tr_velo_to_cam"] = (0, -1, 0, 0, 0, 0, -1, -0.08, 1, 0, 0, -0.27)
    rows["Tr_imu_to_velo"] = (1, 0, 0, -0.81, 0, 1, 0, 0.32, 0, 0, 1, -0.8)
    tilt = (0, cos, -sin, -CAMERA_HEIGHT, 0, sin, cos, 0)
    rows["Tr_cam_to_road"] = (1, 0, 0, CAMERAS_X[2], *tilt)
    lines = (" ".join([f"{n}:", *(f"{v:.12e}" for v in rows[n])]) + "\n" for n in rows)
    return "".join(lines)


def write_scenes(out: Path, count: int, seed: int, width: int, height: int) -> None:
    """Write scenes of all categories in turn into a new folder, whole or not at all."""
    check_range("count", count, 1)
    drives = ["category,number,drive"]
    with new_folder(out) as part:
        for folder in ("image_2", "gt_image_2", "calib"):
            (part / "training" / folder).mkdir(parents=True)
        for index in tqdm(range(count), unit="scene"):
            frame, kind = divmod(index, len(LANES))
            category, number = list(LANES)[kind], f"{frame:06d}"
            view = make_view(seed, category, frame, (width, height))
            scene = draw_view(view)
            road, lane = (paint_target(mask, scene.ignored) for mask in scene[1:3])
            pictures = {f"image_2/{category}_": scene.image}
            pictures[f"gt_image_2/{category}_road_"] = road
            if category == "um":  # as in KITTI, it alone has a lane
                pictures["gt_image_2/um_lane_"] = lane
            for name, pixels in pictures.items():
                path = part / f"training/{name}{number}.png"
                Image.fromarray(pixels).save(path, optimize=True)
            path = part / f"training/calib/{category}_{number}.txt"
            path.write_text(calibration(view))
            drive = frame // FRAMES_PER_DRIVE
            drives.append(f"{category},{number},{category}_{drive:02d}")
        (part / "drives.csv").write_text("\n".join(drives) + "\n")


main = Command(write_scenes)
main.add("out", Path, "folder to write, not there yet")
main.add("--count", int, "number of scenes", 60)
main.add("--seed", int, "whole number from 0 up", 1)
main.add("--width", int, "pixels, from 32 up", 414)
main.add("--height", int, "pixels, from 32 up", 125)

if __name__ == "__main__":
    raise SystemExit(main())
