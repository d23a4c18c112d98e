"""The colours of a road scene: ground, shadows, sky and things, and the masks.

Ground is found by following each pixel's ray to the plane of the road; the same rays
hit the solids. All is painted larger than it is wanted, and then shrunk.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter

from tools.drawing import layered_noise, place_hash, value_noise
from tools.road_world import (
    CAMERA_HEIGHT,
    STOREY,
    TYRE,
    Drive,
    Ground,
    Numbers,
    Solid,
    Thing,
    View,
    to_local,
    trace,
)

OVERSAMPLING = 3
PENUMBRA = 1.8
GLASS, BARK, WHITE = (42, 50, 58), (78, 66, 54), (222, 221, 214)
BACK_LAMP, FRONT_LAMP = (178, 30, 28), (226, 226, 214)
PAVEMENT, GRAVEL, KERB, CLOUD = (158, 152, 144), (138, 126, 104), 178, (240, 241, 243)
WOODS = (58, 78, 48)

Window = tuple[slice, slice]
Layer = tuple[np.ndarray, np.ndarray]


class Hit(NamedTuple):
    """Where rays meet a solid, all (h, w): the face, and the place on it."""

    face: np.ndarray
    a: np.ndarray
    h: np.ndarray
    b: np.ndarray


def lay(colour: ArrayLike, flags: np.ndarray, paint: ArrayLike) -> np.ndarray:
    """Put paint over colours (..., 3) where flags (...) are set."""
    return np.where(flags[..., None], paint, colour)


def add_haze(drive: Drive, colour: np.ndarray, z: Numbers) -> np.ndarray:
    """Blend colours (..., 3) into the haze by their distance."""
    share = (1 - np.exp(-np.asarray(z) / drive.haze_length))[..., None]
    return colour * (1 - share) + drive.haze * share


def plant_shade(view: View, thing: Thing, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Give the shade 0 to 1 of a plant at spots around it, dappled by its leaves."""
    fall_x, fall_z = view.drive.fall
    depth = np.full(x.shape, -1.0)
    for side, height, radius in thing.blobs:
        off = np.hypot(x - side - fall_x * height, z - fall_z * height)
        depth = np.maximum(depth, 1 - off / (radius * 1.2))
    leaves = value_noise(x * 1.6, z * 1.6, thing.seed)
    return np.clip((depth + 0.7 * (leaves - 0.6)) * 3, 0, 1)


def solid_shade(view: View, thing: Thing, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Give the shade 0 or 1 of solids: does a ray to the sun, or straight up, hit?"""
    turn = view.turn(thing)
    points = to_local(turn, (x, np.full(x.shape, 0.01), z))
    hit = np.zeros(x.shape, bool)
    for ray in (to_local(turn, view.drive.sun), (0.0, 1.0, 0.0)):
        for solid in thing.solids:
            hit |= trace(solid, points, ray)[1] >= 0
    return hit.astype(float)


def find_shadows(view: View, ground: Ground) -> np.ndarray:
    """Find how far each ground pixel lies in shadow, 0 to 1, softened."""
    dark = np.zeros(ground.x.shape)
    for thing in view.drive.things:
        x, z = view.place(thing)
        aside, ahead = view.drive.fall * thing.reach[1] / 2
        reach = thing.reach[0] + math.hypot(aside, ahead) + 0.5
        rows = np.flatnonzero(abs(ground.z[:, 0] - z - ahead) < reach)
        if not len(rows):
            continue
        part = slice(rows[0], rows[-1] + 1)
        near = abs(ground.x[part] - x - aside) < reach
        shade = solid_shade if thing.solids else plant_shade
        shaded = shade(view, thing, ground.x[part][near] - x, ground.z[part][near] - z)
        dark[part][near] = np.maximum(dark[part][near], shaded)
    picture = Image.fromarray((dark * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(PENUMBRA))) / 255


def paint_asphalt(
    drive: Drive, ground: Ground, grain: np.ndarray, patches: np.ndarray
) -> np.ndarray:
    """Colour the asphalt, (rows, W, 3): grain, stains, wheel tracks, repairs."""
    tracks = np.cos(4 * math.pi * ground.across / drive.lane_width)
    cell = np.floor(ground.along / 11), np.floor(ground.across / 1.9)
    mended = place_hash(*cell, drive.seed + 3) < 0.05
    bright = 0.62 + 0.36 * grain + 0.42 * patches + 0.025 * tracks
    return drive.asphalt * (bright * np.where(mended, 0.86, 1.0))[..., None]


def paint_ground(view: View, ground: Ground) -> np.ndarray:
    """Colour the ground, lit and hazed; float (rows, W, 3) in 0..255."""
    drive = view.drive
    grain = layered_noise(ground.across * 5, ground.along * 4, drive.seed)
    # Beyond some distance a pixel holds many grains: what is left is their mean.
    grain = 0.5 + (grain - 0.5) / (1 + (ground.z / 25) ** 2)
    patches = layered_noise(ground.across * 0.4, ground.along * 0.12, drive.seed + 9)
    tone = (0.45 + 0.6 * grain + 0.5 * patches)[..., None]
    pavement = np.array(PAVEMENT if drive.kerb else GRAVEL) * (0.5 + tone / 2)
    slabs = 0.9 + 0.1 * ((ground.along % 1.2 > 0.08) | (ground.z > 25))[..., None]
    colour = lay(drive.grass * tone, ground.beside, pavement * slabs)
    colour = lay(colour, ground.kerb, KERB * (0.6 + 0.4 * tone))
    asphalt = paint_asphalt(drive, ground, grain, patches)
    colour = lay(colour, ground.road | ground.ignored, asphalt)
    wear = (ground.marks * np.clip(0.35 + 0.9 * grain, 0, 0.9))[..., None]
    colour = colour * (1 - wear) + wear * WHITE
    dark = find_shadows(view, ground)[..., None]
    lit = 1.05 - dark * drive.sunlight * np.array((1.0, 0.96, 0.88))
    return add_haze(drive, colour * lit, ground.z)


def paint_sky(view: View, rows: int) -> np.ndarray:
    """Colour the sky and the far woods and hills; float (rows, W, 3)."""
    drive = view.drive
    right, down = view.rays(slice(0, rows), slice(0, view.width))
    up = np.maximum(-down, 0)[..., None]
    colour = drive.haze + (drive.sky - drive.haze) * np.clip(up * 4.5, 0, 1)
    cloud = layered_noise(right * 2 / (-down + 0.12), 1.2 / (-down + 0.12), drive.seed)
    cover = np.clip((cloud - 0.62 + 0.3 * drive.clouds) * 3, 0, 1) * drive.clouds
    cover = (cover * np.clip(-down * 8, 0, 1))[..., None]
    colour = colour * (1 - cover) + cover * CLOUD
    bearing = right + math.atan(view.slope(0))
    for distance, scale, height in ((900.0, 2.0, 0.09), (230.0, 9.0, 0.05)):
        outline = layered_noise(bearing * scale, np.zeros(1), drive.seed + int(scale))
        leaf = layered_noise(right * 90, down * 90, drive.seed + 5)[..., None]
        green = add_haze(drive, np.array(WOODS) * (0.6 + 0.8 * leaf), distance / 2)
        colour = lay(colour, -down < height * (0.1 + outline), green)
    return colour


def colour_plain(thing: Thing, solid: Solid, hit: Hit) -> np.ndarray:
    """Colour all of a solid with the thing's last colour."""
    return np.broadcast_to(thing.colours[-1], (*hit.face.shape, 3))


def colour_house(thing: Thing, solid: Solid, hit: Hit) -> np.ndarray:
    """Colour walls with rows of windows, and the roof."""
    wall, roof = thing.colours
    eaves = solid.offsets[6] - solid.normals[7, 0] * solid.offsets[0]
    level = abs(hit.h % STOREY - 1.55)
    across = abs(np.where(hit.face < 2, hit.b, hit.a) % 2.6 - 1.3)
    frame = (across < 0.6) & (level < 0.75) & (hit.h < eaves - 0.3)
    glass = frame & (across < 0.5) & (level < 0.65)
    tiles = 0.9 + 0.1 * (hit.h % 0.35 > 0.1)
    colour = lay(lay(wall, frame, WHITE), glass, GLASS)
    return lay(colour, hit.face >= 6, roof * tiles[..., None])


def find_level(solid: Solid, h: np.ndarray) -> np.ndarray:
    """Give heights as shares of a box, 0 at its bottom and 1 at its top."""
    low, high = -solid.offsets[5], solid.offsets[4]
    return (h - low) / (high - low)


def colour_cabin(thing: Thing, solid: Solid, hit: Hit) -> np.ndarray:
    """Colour the upper part of a car: glass between pillars, and the roof."""
    level = find_level(solid, hit.h)
    middle, corner = abs(abs(hit.b) - 0.1) < 0.06, abs(hit.a) > 0.76 - 0.2 * level
    pillar = np.where(hit.face < 2, middle, corner)
    glass = (hit.face < 4) & (abs(level - 0.47) < 0.39) & ~pillar
    return lay(thing.colours[0], glass, GLASS)


def colour_body(thing: Thing, solid: Solid, hit: Hit) -> np.ndarray:
    """Colour the lower part of a car: lamps and plates at its ends, tyres."""
    level = find_level(solid, hit.h)
    back, side, a = hit.face == 2, hit.face < 2, abs(hit.a)
    ends = back | (hit.face == 3)
    lamp = ends & (abs(a - 0.71) < 0.13) & (abs(level - 0.68) < 0.13)
    plate = ends & (a < 0.27) & (abs(level - 0.42) < 0.09)
    wheel = side & (np.hypot(abs(hit.b) - 1.3, hit.h - 0.32) < 0.33)
    colour = thing.colours[0] * np.where(level < 0.3, 0.6, 1.0)[..., None]
    colour = lay(colour, lamp, lay(FRONT_LAMP, back, BACK_LAMP))
    colour = lay(colour, plate, WHITE)
    return lay(colour, wheel | (ends & (a > 0.6) & (hit.h < 0.3)), TYRE)


# How to colour each solid of a thing, in their order.
COLOURERS = {
    "house": (colour_house,),
    "pole": (colour_plain, colour_plain),
    "car": (colour_body, colour_cabin, colour_plain),
}


def paint_solids(view: View, thing: Thing, window: Window) -> Layer:
    """Colour a thing in a window: float (h, w, 3), and how far it is, inf for not."""
    x, z = view.place(thing)
    turn = view.turn(thing)
    right, down = view.rays(*window)
    origin = to_local(turn, (-x, CAMERA_HEIGHT, -z))
    ray = to_local(turn, (right, -down, 1.0))
    sun = np.array(to_local(turn, view.drive.sun))
    nearest = np.full((down.shape[0], right.shape[1]), np.inf)
    colour = np.zeros((*nearest.shape, 3))
    for solid, colourer in zip(thing.solids, COLOURERS[thing.kind], strict=True):
        distance, face = trace(solid, origin, ray)
        seen = (face >= 0) & (distance < nearest)
        distance = np.where(seen, distance, 0)
        hit = Hit(face, *(o + r * distance for o, r in zip(origin, ray, strict=True)))
        facing = solid.normals @ sun / np.linalg.norm(solid.normals, axis=1)
        lit = 1.05 - view.drive.sunlight * (1 - np.clip(facing * 1.3, 0, 1))
        colour = lay(colour, seen, colourer(thing, solid, hit) * lit[face][..., None])
        nearest = np.where(seen, distance, nearest)
    return colour, nearest


def paint_plant(view: View, thing: Thing, window: Window) -> Layer:
    """Colour a plant in a window: float (h, w, 3), and how far it is, inf for not."""
    x, z = view.place(thing)
    right, down = view.rays(*window)
    a, h = right * z - x, CAMERA_HEIGHT - down * z
    depth, facing = np.full((h.shape[0], a.shape[1]), -9.0), 0.0
    for side, height, radius in thing.blobs:
        off, up = (a - side) / radius, (h - height) / radius
        inside = 1 - np.hypot(off, up)
        light = off * view.drive.sun[0] + up * view.drive.sun[1]
        facing = np.where(inside > depth, light, facing)
        depth = np.maximum(inside, depth)
    leaf = layered_noise(a * 2.5, h * 2.5, thing.seed)
    crown = (depth + 0.9 * (leaf - 0.5) > 0) & (h > 0)
    stem = 0.02 * thing.reach[1] - 0.012 * h
    woody = (h > 0) & (h < 0.6 * thing.reach[1]) & (thing.kind == "tree")
    lit = 0.72 + 0.5 * view.drive.sunlight * facing + 1.1 * (leaf - 0.5)
    colour = lay(BARK, crown, thing.colours[0] * lit[..., None])
    return colour, np.where(crown | (woody & (abs(a) < stem)), z, np.inf)


def paint_things(view: View, picture: np.ndarray) -> np.ndarray:
    """Paint all things onto the picture; gives what they cover, bool (H, W)."""
    depth = np.full(picture.shape[:2], np.inf)
    for thing in view.drive.things:
        window = view.window(thing)
        if not depth[window].size:
            continue
        paint = paint_solids if thing.solids else paint_plant
        colour, distance = paint(view, thing, window)
        nearer = distance < depth[window]
        hazed = add_haze(view.drive, colour[nearer], distance[nearer])
        picture[window][nearer], depth[window][nearer] = hazed, distance[nearer]
    return np.isfinite(depth)


def shrink(values: np.ndarray) -> np.ndarray:
    """Average squares of OVERSAMPLING pixels; float (h, w, ...)."""
    height, width = (size // OVERSAMPLING for size in values.shape[:2])
    shape = (height, OVERSAMPLING, width, OVERSAMPLING, *values.shape[2:])
    return values.reshape(shape).mean((1, 3))


def make_mask(flags: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Shrink flags of the ground (rows, W), less what things cover, to bool (h, w)."""
    above = len(covered) - len(flags)
    return shrink(np.pad(flags, ((above, 0), (0, 0))) & ~covered) > 0.5
