"""Draw road scenes, seen from a car, with their targets, in the KITTI road layout.

    python -m tools.road_scenes OUT --count 60 --seed 1

Every scene belongs to a drive: four frames of one road, the camera a few metres further
each time. What stands in front of the road is taken out of the target.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.folders import new_folder
from tools.road_paint import (
    OVERSAMPLING,
    lay,
    make_mask,
    paint_ground,
    paint_sky,
    paint_things,
    shrink,
)
from tools.road_world import (
    CAMERA_HEIGHT,
    CATEGORIES,
    FRAMES_PER_DRIVE,
    View,
    find_ground,
    make_view,
)

RED, MAGENTA, BLACK = (255, 0, 0), (255, 0, 255), (0, 0, 0)
# Steps too small to see, which make the files smaller by a third.
COLOUR_STEP = 4
# What each of KITTI's four cameras adds to a point's x, metres.
CAMERAS_X = (0.0, -0.5372, 0.0621, -0.4731)


class Scene(NamedTuple):
    """One frame: image uint8 (H, W, 3); road, lane and ignored bool (H, W)."""

    image: np.ndarray
    road: np.ndarray
    lane: np.ndarray
    ignored: np.ndarray


def draw_view(view: View) -> Scene:
    """Draw what a view shows."""
    width, height = view.width * OVERSAMPLING, view.height * OVERSAMPLING
    view = replace(view, width=width, height=height)
    ground = find_ground(view)
    below = paint_ground(view, ground)
    picture = np.concatenate((paint_sky(view, height - len(below)), below))
    covered = paint_things(view, picture)
    steps = (np.clip(shrink(picture), 0, 255) / COLOUR_STEP).astype(np.uint8)
    shown = (ground.road, ground.lane, ground.ignored)
    return Scene(steps * COLOUR_STEP, *(make_mask(flags, covered) for flags in shown))


def render_scene(
    seed: int, category: str, frame: int, width: int, height: int
) -> Scene:
    """Draw one frame of a category; the same arguments give the same pixels."""
    return draw_view(make_view(seed, category, frame, (width, height)))


def paint_target(marked: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Colour a target as KITTI does, uint8 (H, W, 3)."""
    return lay(lay(RED, marked, MAGENTA), ignored, BLACK).astype(np.uint8)


def calibration(view: View) -> str:
    """Write the camera as KITTI does: our pictures are those of its camera 2."""
    cos, sin = math.cos(view.drive.pitch), math.sin(view.drive.pitch)
    (x, y), focal = view.centre, view.focal
    rows = {
        f"P{number}": (focal, 0, x, focal * offset, 0, focal, y, 0, 0, 0, 1, 0)
        for number, offset in enumerate(CAMERAS_X)
    }
    to_road = (1, 0, 0, CAMERAS_X[2], 0, cos, -sin, -CAMERA_HEIGHT, 0, sin, cos, 0)
    rows |= {
        "R0_rect": (1, 0, 0, 0, 1, 0, 0, 0, 1),
        "Tr_velo_to_cam": (0, -1, 0, 0, 0, 0, -1, -0.08, 1, 0, 0, -0.27),
        "Tr_imu_to_velo": (1, 0, 0, -0.81, 0, 1, 0, 0.32, 0, 0, 1, -0.8),
        "Tr_cam_to_road": to_road,
    }
    return "".join(
        f"{name}: {' '.join(f'{value:.12e}' for value in values)}\n"
        for name, values in rows.items()
    )


def save_frame(training: Path, view: View, number: str) -> None:
    """Write a frame's picture, targets and camera; as in KITTI only um has a lane."""
    scene, category = draw_view(view), view.drive.category
    targets = {"road": scene.road} | ({"lane": scene.lane} if category == "um" else {})
    pictures = {f"image_2/{category}_{number}.png": scene.image} | {
        f"gt_image_2/{category}_{kind}_{number}.png": paint_target(mask, scene.ignored)
        for kind, mask in targets.items()
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(training / name, optimize=True)
    (training / f"calib/{category}_{number}.txt").write_text(calibration(view))


def write_scenes(out: Path, count: int, seed: int, size: tuple[int, int]) -> None:
    """Write scenes of all categories in turn into a new folder, whole or not at all."""
    if count < 1:
        raise ValueError(f"--count {count}: expected 1 or more")
    # Refuses a bad seed or size before there is a folder.
    make_view(seed, CATEGORIES[0], 0, size)
    drives = ["category,number,drive"]
    with new_folder(out) as part:
        for folder in ("image_2", "gt_image_2", "calib"):
            (part / "training" / folder).mkdir(parents=True)
        for index in tqdm(range(count), unit="scene"):
            frame, kind = divmod(index, len(CATEGORIES))
            category, number = CATEGORIES[kind], f"{frame:06d}"
            view = make_view(seed, category, frame, size)
            save_frame(part / "training", view, number)
            drive = f"{category}_{frame // FRAMES_PER_DRIVE:02d}"
            drives.append(f"{category},{number},{drive}")
        (part / "drives.csv").write_text("\n".join(drives) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="road_scenes", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    parser.add_argument("--count", type=int, default=60, help="number of scenes")
    parser.add_argument("--seed", type=int, default=1, help="whole number from 0 up")
    parser.add_argument("--width", type=int, default=414, help="pixels, from 32 up")
    parser.add_argument("--height", type=int, default=125, help="pixels, from 32 up")
    options = parser.parse_args(argv)
    size = (options.width, options.height)
    try:
        write_scenes(options.out, options.count, options.seed, size)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{options.out}: {options.count} scenes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
