"""The road scenes: same pixels again, true masks, KITTI's names and colours."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import road_scenes
from tools.road_paint import shrink
from tools.road_scenes import Scene, calibration, draw_view, main, render_scene
from tools.road_world import (
    CAMERA_HEIGHT,
    CATEGORIES,
    FRAMES_PER_DRIVE,
    box,
    draw_drive,
    make_car,
    make_view,
    trace,
)

SIZE = (138, 42)
KITTI_COLOURS = {(255, 0, 0), (255, 0, 255), (0, 0, 0)}


def render_with(things: tuple, category: str, frame: int) -> Scene:
    """Render a frame whose drive has only these things."""
    view = make_view(1, category, frame, SIZE)
    return draw_view(replace(view, drive=replace(view.drive, things=things)))


def find_frame(left_out: str) -> tuple[str, int]:
    """Find a category and the third frame of a drive with this part left out."""
    for category in CATEGORIES:
        for drive in range(5):
            if draw_drive(1, category, drive).left_out == left_out:
                return category, drive * FRAMES_PER_DRIVE + 2
    raise AssertionError(left_out)


def read_calibration(text: str) -> dict[str, np.ndarray]:
    """Read KITTI's `name: numbers` lines."""
    pairs = (line.split(": ") for line in text.splitlines())
    return {name: np.array(values.split(), float) for name, values in pairs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("roads") / "made"
    sizes = ["--width", str(SIZE[0]), "--height", str(SIZE[1])]
    assert main([str(out), "--count", "7", "--seed", "3", *sizes]) == 0
    return out


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_arguments_give_the_same_pixels(category: str) -> None:
    first, again = (render_scene(5, category, 2, *SIZE) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    for changed in ((6, category, 2), (5, category, 3)):
        assert not np.array_equal(first.image, render_scene(*changed, *SIZE).image)


@pytest.mark.parametrize("category", CATEGORIES)
def test_masks_fit_together(category: str) -> None:
    for frame in (0, 5, 10):
        scene = render_scene(1, category, frame, *SIZE)
        assert scene.image.shape == (SIZE[1], SIZE[0], 3)
        assert scene.image.dtype == np.uint8
        assert all(mask.dtype == bool and mask.ndim == 2 for mask in scene[1:])
        assert 0.05 < scene.road.mean() < 0.5
        assert scene.lane.any()
        assert not (scene.lane & ~scene.road).any()
        assert not (scene.ignored & scene.road).any()


@pytest.mark.parametrize("category", CATEGORIES)
def test_things_only_take_road_away(category: str) -> None:
    full = render_scene(1, category, 12, *SIZE)
    bare = render_with((), category, 12)
    assert not (full.road & ~bare.road).any()
    assert not (full.ignored & ~bare.ignored).any()
    hidden = bare.road & ~full.road
    assert hidden.any()
    changed = (full.image != bare.image).any(-1)
    assert changed[hidden].mean() > 0.95


def test_a_car_hides_the_road_where_it_stands() -> None:
    view = make_view(1, "um", 0, SIZE)
    car = make_car(np.random.default_rng(0), 12, view.drive.ego_across, 0)
    bare = render_with((), "um", 0)
    full = render_with((car,), "um", 0)
    x, z = view.place(car)
    z -= 2.1
    column = int(view.centre[0] + view.focal * x / z)
    row = int(view.horizon + view.focal * (CAMERA_HEIGHT - 0.5) / z)
    assert bare.road[row, column]
    assert bare.lane[row, column]
    assert not full.road[row, column]
    gone = np.argwhere(bare.road & ~full.road)
    widest = np.ptp(gone[:, 1]) + 1
    assert widest == pytest.approx(view.focal * 1.78 / z, abs=2)


def test_a_ray_meets_the_face_of_a_box() -> None:
    solid = box((2, 3, 4), 0)
    sideways = np.array([0.0, 0.9, 1.1])
    origin = (sideways, np.ones(3), np.full(3, -10.0))
    distance, face = trace(solid, origin, (0.0, 0.0, 1.0))
    assert distance[0] == distance[1] == 8
    assert face.tolist() == [2, 2, -1]
    distance, face = trace(solid, (0.0, 5.0, 0.0), (0.0, -1.0, 0.0))
    assert (float(distance), int(face)) == (2, 4)
    assert int(trace(solid, (0.0, 5.0, 0.0), (0.0, 1.0, 0.0))[1]) == -1


def test_shrinking_takes_means() -> None:
    values = np.arange(36.0).reshape(6, 6)
    assert shrink(values).tolist() == [[7, 10], [25, 28]]


@pytest.mark.parametrize("frame", [0, 6, 13])
def test_the_calibration_puts_the_lane_where_it_is(frame: int) -> None:
    view = make_view(1, "um", frame, SIZE)
    scene = render_with((), "um", frame)
    rows = read_calibration(calibration(view))
    to_road = np.vstack((rows["Tr_cam_to_road"].reshape(3, 4), (0, 0, 0, 1)))
    for across, lane in ((-0.4, 0), (0.4, 1), (view.drive.lane_width + 0.4, 0)):
        x = float(view.road_x(8.0)) + across
        camera_point = np.linalg.solve(to_road, (x, 0, 8, 1))
        u, v, w = rows["P2"].reshape(3, 4) @ camera_point
        assert scene.lane[int(v / w), int(u / w)] == lane


def test_calibration_names_what_kitti_names() -> None:
    view = make_view(1, "uu", 0, SIZE)
    rows = read_calibration(calibration(view))
    sizes = {name: len(values) for name, values in rows.items()}
    moves = ("Tr_velo_to_cam", "Tr_imu_to_velo", "Tr_cam_to_road")
    assert sizes == dict.fromkeys(("P0", "P1", "P2", "P3", *moves), 12) | {"R0_rect": 9}


def test_a_drive_goes_on_and_the_next_is_another() -> None:
    views = [make_view(1, "umm", frame, SIZE) for frame in range(FRAMES_PER_DRIVE + 1)]
    same, other = views[:-1], views[-1]
    assert {view.drive.seed for view in same} == {same[0].drive.seed}
    assert np.ptp(np.diff([view.start for view in same])) < 1e-9
    assert 2 < same[1].start < 5
    assert other.drive.seed != same[0].drive.seed
    assert other.start == 0


def test_two_drives_in_five_leave_something_out() -> None:
    for category in CATEGORIES:
        left_out = [bool(draw_drive(1, category, n).left_out) for n in range(5)]
        assert sum(left_out) == 2


@pytest.mark.parametrize(("left_out", "seen"), [("far", 1), ("mouth", 1), ("", 0)])
def test_ignored_pixels_are_where_they_should_be(left_out: str, seen: int) -> None:
    scene = render_with((), *find_frame(left_out))
    assert scene.ignored.any() == seen
    if left_out == "far":
        assert (
            np.argwhere(scene.ignored)[:, 0].max()
            <= np.argwhere(scene.road)[:, 0].min() + 1
        )


def test_files_follow_the_layout(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    expected = {"drives.csv"}
    for index in range(7):
        category, number = CATEGORIES[index % 3], f"{index // 3:06d}"
        kinds = ("road", "lane") if category == "um" else ("road",)
        expected |= {
            f"training/image_2/{category}_{number}.png",
            f"training/calib/{category}_{number}.txt",
            *(f"training/gt_image_2/{category}_{k}_{number}.png" for k in kinds),
        }
    assert files == expected


def test_files_hold_what_was_rendered(folder: Path) -> None:
    for path in (folder / "training" / "image_2").iterdir():
        category, number = path.stem.split("_")
        scene = render_scene(3, category, int(number), *SIZE)
        picture = Image.open(path)
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), scene.image)
        name = f"{category}_road_{number}.png"
        target = np.asarray(Image.open(folder / "training" / "gt_image_2" / name))
        assert {tuple(c) for c in np.unique(target.reshape(-1, 3), axis=0)} <= (
            KITTI_COLOURS
        )
        assert np.array_equal((target == (255, 0, 255)).all(-1), scene.road)
        assert np.array_equal((target == (0, 0, 0)).all(-1), scene.ignored)


def test_the_lane_file_holds_the_lane(folder: Path) -> None:
    path = folder / "training" / "gt_image_2" / "um_lane_000001.png"
    lane = (np.asarray(Image.open(path)) == (255, 0, 255)).all(-1)
    assert np.array_equal(lane, render_scene(3, "um", 1, *SIZE).lane)


def test_drives_are_listed(folder: Path) -> None:
    with (folder / "drives.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 7
    assert rows[0] == {"category": "um", "number": "000000", "drive": "um_00"}
    assert rows[-1] == {"category": "um", "number": "000002", "drive": "um_00"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "highway", 0, *SIZE), "category 'highway': expected one of"),
        ((-1, "um", 0, *SIZE), "seed -1, frame 0: expected 0 or more"),
        ((1, "um", -2, *SIZE), "frame -2: expected 0 or more"),
        ((1, "um", 0, 414, 8), r"size \(414, 8\): expected 32 pixels"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_scene(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "--count 0: expected 1 or more"),
        (["--seed", "-3"], "seed -3"),
        (["--width", "10"], "size (10, 125)"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "new"), *options])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--count", "1"])
    assert f"{tmp_path}: is a folder that is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_scenes_appear_all_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(road_scenes, "save_frame", stop)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "new"), "--count", "1"])
    assert list(tmp_path.iterdir()) == []
