"""The road scenes: same pixels again, true masks, KITTI's names and colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import road_scenes as roads

SIZE = (138, 42)


def render_with(things: tuple, category: str, frame: int) -> roads.Scene:
    """Render a frame whose drive has only these things."""
    view = roads.make_view(1, category, frame, SIZE)
    view.drive.things = things
    return roads.draw_view(view)


@pytest.mark.parametrize("category", roads.LANES)
def test_masks_fit_together_and_things_only_take_road_away(category: str) -> None:
    first = roads.render_scene(1, category, 0, *SIZE)
    for frame in (0, 5, 10, 12):
        scene = roads.render_scene(1, category, frame, *SIZE)
        same = [np.array_equal(a, b) for a, b in zip(scene, first, strict=True)]
        assert all(same) if frame == 0 else not same[0]
        assert scene.image.shape == (SIZE[1], SIZE[0], 3)
        assert scene.image.dtype == np.uint8
        assert all(mask.dtype == bool and mask.ndim == 2 for mask in scene[1:])
        assert 0.05 < scene.road.mean() < 0.5
        assert scene.lane.any()
        assert not (scene.lane & ~scene.road).any()
        assert not (scene.ignored & scene.road).any()
        bare = render_with((), category, frame)
        assert not (scene.road & ~bare.road).any()
        assert not (scene.ignored & ~bare.ignored).any()
        hidden = bare.road & ~scene.road
        assert hidden.any()
        changed = (scene.image != bare.image).any(-1)
        assert changed[hidden].mean() > 0.95


def test_a_car_hides_the_road_where_it_stands() -> None:
    view = roads.make_view(1, "um", 0, SIZE)
    grey, size = np.array((90, 90, 90)), (1.78, 1.5, 4.2)
    car = roads.Thing("car", 12, view.drive.ego_across, size, grey)
    bare, full = render_with((), "um", 0), render_with((car,), "um", 0)
    x, z = view.place(car)
    column, row = view.project([(x, 0.5, z - 2.1)])[0]
    height = view.focal * (roads.CAMERA_HEIGHT - 0.5) / (z - 2.1)
    assert row == pytest.approx(view.horizon + height)
    place = int(row), int(column)
    assert bare.road[place] and bare.lane[place] and not full.road[place]
    widest = np.ptp(np.argwhere(bare.road & ~full.road)[:, 1]) + 1
    assert widest == pytest.approx(view.focal * 1.78 / (z - 2.1), abs=2)
    behind = roads.Thing("car", -6, view.drive.ego_across, size, grey)
    assert np.array_equal(render_with((behind,), "um", 0).road, bare.road)


@pytest.mark.parametrize("frame", [0, 6, 13])
def test_the_calibration_puts_the_lane_where_it_is(frame: int) -> None:
    view = roads.make_view(1, "um", frame, SIZE)
    pairs = (line.split(": ") for line in roads.calibration(view).splitlines())
    rows = {name: np.array(values.split(), float) for name, values in pairs}
    moves = ("Tr_velo_to_cam", "Tr_imu_to_velo", "Tr_cam_to_road")
    sizes = dict.fromkeys(("P0", "P1", "P2", "P3", *moves), 12) | {"R0_rect": 9}
    assert {name: len(values) for name, values in rows.items()} == sizes
    scene = render_with((), "um", frame)
    to_road = np.vstack((rows["Tr_cam_to_road"].reshape(3, 4), (0, 0, 0, 1)))
    for across, lane in ((-0.4, 0), (0.4, 1), (view.drive.lane_width + 0.4, 0)):
        x = float(view.road_x(8.0)) + across
        camera_point = np.linalg.solve(to_road, (x, 0, 8, 1))
        u, v, w = rows["P2"].reshape(3, 4) @ camera_point
        assert scene.lane[int(v / w), int(u / w)] == lane


def test_a_drive_goes_on_and_the_next_is_another() -> None:
    *same, other = (
        roads.make_view(1, "umm", n, SIZE) for n in range(roads.FRAMES_PER_DRIVE + 1)
    )
    assert {view.drive.seed for view in same} == {same[0].drive.seed}
    assert np.ptp(np.diff([view.start for view in same])) < 1e-9
    assert 2 < same[1].start < 5
    assert other.drive.seed != same[0].drive.seed and other.start == 0


def test_what_is_left_out_is_ignored_in_two_drives_of_five() -> None:
    for category in roads.LANES:
        left_out = [roads.Drive(1, category, number).left_out for number in range(5)]
        assert sum(map(bool, left_out)) == 2
        for number, what in enumerate(left_out):
            scene = render_with((), category, number * roads.FRAMES_PER_DRIVE + 2)
            assert scene.ignored.any() == bool(what)
            if what == "far":
                lowest = np.argwhere(scene.ignored)[:, 0].max()
                assert lowest <= np.argwhere(scene.road)[:, 0].min() + 1


def test_files_follow_the_layout_and_hold_what_was_rendered(tmp_path: Path) -> None:
    sizes = ["--width", str(SIZE[0]), "--height", str(SIZE[1])]
    folder = tmp_path / "made"
    assert roads.main([str(folder), "--count", "7", "--seed", "3", *sizes]) == 0
    drives, expected = ["category,number,drive"], {"drives.csv"}
    for place in range(7):
        category, number = list(roads.LANES)[place % 3], f"{place // 3:06d}"
        drives.append(f"{category},{number},{category}_00")
        scene = roads.render_scene(3, category, place // 3, *SIZE)
        road, lane = (roads.paint_target(part, scene.ignored) for part in scene[1:3])
        pictures = {f"image_2/{category}_": scene.image}
        pictures[f"gt_image_2/{category}_road_"] = road
        pictures |= {"gt_image_2/um_lane_": lane} if category == "um" else {}
        for name, pixels in pictures.items():
            stored = Image.open(folder / f"training/{name}{number}.png")
            assert np.array_equal(np.asarray(stored), pixels)
            expected.add(f"training/{name}{number}.png")
        expected.add(f"training/calib/{category}_{number}.txt")
    kinds = np.array([[True, False, False]]), np.array([[False, False, True]])
    assert roads.paint_target(*kinds).tolist() == [
        [[255, 0, 255], [255, 0, 0], [0, 0, 0]]
    ]
    assert (folder / "drives.csv").read_text().splitlines() == drives
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "highway", 0, *SIZE), "category 'highway': expected one of"),
        ((-1, "um", 0, *SIZE), "seed -1: expected 0 or more"),
        ((1, "um", -2, *SIZE), "frame -2: expected 0 or more"),
        ((1, "um", 0, 414, 8), "smaller side 8: expected 32 or more"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roads.render_scene(*arguments)
