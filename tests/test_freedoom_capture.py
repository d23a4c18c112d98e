"""Tests for tools/freedoom_capture.py."""

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tools import freedoom_capture as capture
from tools.raw_item import CLASS_IDS, RawItem, load_item

BARS, MESSAGE, MENU = (CLASS_IDS[name] for name in ("bars", "message", "menu_text"))
SHAPE = (6, 8, 3)


def painted(frames: np.ndarray, rows: slice, columns: slice, grey: int) -> np.ndarray:
    """Return the frames with an opaque rectangle before both voids."""
    frames = frames.copy()
    frames[:, rows, columns] = grey
    return frames


@pytest.fixture
def layers() -> capture.Layers:
    """Black bars at the bottom, a white line at the top, a menu over part of both."""
    void = capture.empty_voids(SHAPE)
    bars = painted(void, slice(4, 6), slice(None), 0)
    lines = painted(bars, slice(0, 1), slice(0, 4), 255)
    menu = painted(void, slice(0, 5), slice(2, 3), 90)
    return capture.Layers([(BARS, bars), (MESSAGE, lines)], menu)


@pytest.fixture
def world() -> np.ndarray:
    """A picture without two equal pixels."""
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def composed(world: np.ndarray, layers: capture.Layers) -> np.ndarray:
    """Lay opaque layers over the world."""
    image = world.copy()
    for frames in (layers.stages[-1][1], layers.menu):
        drawn = capture.covered(frames)
        image[drawn] = frames[0][drawn]
    return image


def test_same_seed_same_walk_and_longer_walks_begin_alike() -> None:
    walk = capture.plan_walk(5, 4)
    assert walk == capture.plan_walk(5, 4)
    assert walk == capture.plan_walk(5, 9)[: len(walk)]
    assert walk != capture.plan_walk(6, 4)


def test_each_lap_ends_with_a_stop() -> None:
    lap = capture.RUN_STEPS + capture.STOP_STEPS
    walk = capture.plan_walk(5, 40)
    assert len(walk) == 40 * lap
    assert all(
        (action == capture.IDLE) == (step % lap >= capture.RUN_STEPS)
        for step, action in enumerate(walk)
    )
    assert not any(left and right for _, left, right, *_ in walk)


def test_same_seed_same_plan_and_longer_plans_begin_alike() -> None:
    plan = capture.plan_scenes(20, 77)
    assert plan == capture.plan_scenes(80, 77)[:20]
    assert plan != capture.plan_scenes(20, 78)


def test_plan_shows_each_map_once_before_any_comes_again() -> None:
    maps = [scene.map for scene in capture.plan_scenes(80, 77)]
    assert sorted(maps[:68]) == sorted(capture.all_maps())
    assert len(set(capture.all_maps())) == 68
    assert max(Counter(maps).values()) == 2


def test_plan_gives_each_kind_its_layers() -> None:
    expected = {
        "menu": ("menu",),
        "menu_bar": ("bars", "menu"),
        "menu_mini": ("bars", "menu"),
        "bar": ("bars",),
        "mini_message": ("bars", "message"),
        "bar_chat": ("bars", "message"),
        "althud_message": ("bars", "message"),
        "mini_cross": ("bars", "crosshair"),
    }
    scenes = capture.plan_scenes(len(capture.KINDS), 77)
    layers_of = {scene.kind: scene.layers for scene in scenes}
    assert expected.items() <= layers_of.items()
    bars = {scene.kind: scene.bar for scene in scenes}
    assert (bars["menu"], bars["menu_bar"], bars["chat"]) == ("none", "full", "mini")
    assert (bars["althud_chat"], bars["bar_cross"]) == ("alt", "full")


def test_a_pixel_has_the_class_of_the_layer_on_top(layers: capture.Layers) -> None:
    ids = capture.class_ids(layers)
    expected = np.zeros(SHAPE[:2], np.uint8)
    expected[4:6] = BARS
    expected[0, :4] = MESSAGE
    expected[0:5, 2] = MENU
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, expected)


def test_a_pixel_seen_before_one_void_only_is_ui() -> None:
    void = capture.empty_voids(SHAPE)
    shadow = void.copy()
    shadow[1, 2, 3] = 150
    ids = capture.class_ids(capture.Layers([(BARS, void), (MESSAGE, shadow)]))
    assert ids[2, 3] == MESSAGE
    assert np.count_nonzero(ids) == 1


def test_no_layer_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no layers"):
        capture.class_ids(capture.Layers([]))


def test_recomposition_is_exact_and_fails_on_a_shifted_world(
    layers: capture.Layers, world: np.ndarray
) -> None:
    image, mask = composed(world, layers), capture.class_ids(layers)
    assert capture.recomposition_error(image, world, mask) == (0, 0)
    capture.check_aligned(image, world, mask)
    with pytest.raises(ValueError, match="frames not aligned"):
        capture.check_aligned(image, np.roll(world, 1, axis=1), mask)


def test_recomposition_counts_pixels_and_levels(world: np.ndarray) -> None:
    image = world.copy()
    image[1, 1] ^= 2
    image[5, 5] ^= 255
    mask = np.zeros(SHAPE[:2], np.uint8)
    mask[5, 5] = 255
    assert capture.recomposition_error(image, world, mask) == (2, 1)


def test_layers_must_be_in_the_image(layers: capture.Layers, world: np.ndarray) -> None:
    image = composed(world, layers)
    capture.check_layers(image, layers)
    for row, column in ((5, 0), (0, 0), (2, 2)):
        broken = image.copy()
        broken[row, column] ^= 1
        with pytest.raises(ValueError, match="layers not in the image on 1 pixels"):
            capture.check_layers(broken, layers)


def test_dimming_is_a_table_of_colours() -> None:
    world = np.array([[[9, 9, 9], [9, 9, 9], [0, 200, 7], [9, 9, 9]]], np.uint8)
    image = world // 2
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    image[0, 3] = 255
    assert capture.dimming_error(image, world, mask) == 0
    image[0, 1, 2] += 6
    assert capture.dimming_error(image, world, mask) == 6


@pytest.mark.parametrize("covered_rows", [0, 90])
def test_too_little_and_too_much_ui_are_refused(covered_rows: int) -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:covered_rows] = 255
    with pytest.raises(ValueError, match="UI share"):
        capture.check_share(mask)
    mask[:] = 0
    mask[:20] = 255
    capture.check_share(mask)


def test_a_wall_is_a_worse_view_than_a_hall(world: np.ndarray) -> None:
    screen = np.tile(world, (8, 8, 1))
    wall = np.zeros(screen.shape[:2], np.uint8)
    hall = np.full_like(wall, 40)
    score = capture.view_score(screen, hall, 3)
    assert score > capture.view_score(screen, wall, 3)
    assert score > capture.view_score(screen, hall, 0)
    assert score > capture.view_score(screen // 4, hall, 3)


def test_the_void_lies_ahead_and_the_map_behind() -> None:
    scene = capture.plan_scenes(1, 77)[0]
    shot = capture.Shot(("bars",), "white")
    commands = capture.shot_commands(scene, shot, angle=90.0)
    assert f"warp 0 {capture.VOID_DISTANCE}" in commands
    assert "r_clearbuffer 2" in commands
    assert scene.menu not in commands
    assert scene.menu in capture.shot_commands(scene, capture.Shot(("menu",)), 0.0)


def test_finished_items_are_known_again_and_other_seeds_refused(
    tmp_path: Path,
) -> None:
    scene = capture.plan_scenes(1, 77)[0]
    folder = tmp_path / "freedoom_000"
    assert not capture.is_done(folder, scene)
    folder.mkdir()
    facts = json.dumps(dataclasses.asdict(scene))
    (folder / "meta.json").write_text(facts)
    assert capture.is_done(folder, scene)
    with pytest.raises(ValueError, match="use the --seed"):
        capture.is_done(folder, capture.plan_scenes(1, 78)[0])


def test_a_failed_item_is_listed_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = capture.plan_scenes(3, 77)
    made = []

    def make(scene: capture.Scene, route: capture.Route) -> RawItem:
        made.append(scene)
        if scene == scenes[1]:
            raise ValueError("frames not aligned")
        picture = np.zeros(SHAPE, np.uint8)
        return RawItem(picture, picture, picture[..., 0], dataclasses.asdict(scene))

    monkeypatch.setattr(capture, "engine_errors", lambda: ())
    monkeypatch.setattr(capture, "find_route", lambda scene, walks: None)
    monkeypatch.setattr(capture, "make_item", make)
    expected = [f"freedoom_001 (mini_message, {scenes[1].map}): frames not aligned"]
    assert capture.capture(tmp_path, scenes, 1) == expected
    saved = sorted(entry.name for entry in tmp_path.iterdir())
    assert saved == ["freedoom_000", "freedoom_002"]
    assert capture.capture(tmp_path, scenes, 1) == expected
    assert made == [*scenes, scenes[1]]


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, which must end with status 2, and return its one line."""
    with pytest.raises(SystemExit) as ending:
        capture.main(argv)
    assert ending.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_missing_engine_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    message = failure(capsys, str(tmp_path / "out"))
    assert "pip install vizdoom==1.3.2" in message
    assert not (tmp_path / "out").exists()


def test_bad_numbers_and_foreign_folders_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--count is 0" in failure(capsys, str(tmp_path / "out"), "--count", "0")
    assert "--walks is -1" in failure(capsys, str(tmp_path / "out"), "--walks", "-1")
    (tmp_path / "letter.txt").touch()
    assert "letter.txt" in failure(capsys, str(tmp_path))
    assert "is a file" in failure(capsys, str(tmp_path / "letter.txt"))


def test_one_item_is_captured_whole(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="vizdoom is not installed")
    assert capture.main([str(tmp_path), "--count", "1", "--walks", "1"]) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["freedoom_000"]
    item = load_item(tmp_path / "freedoom_000")
    assert item.image.shape == item.world.shape == (480, 640, 3)
    assert set(np.unique(item.classes)) == {0, BARS, MENU}
    assert item.meta["game"] == "freedoom"
    assert item.meta["ui_fraction"] == pytest.approx(item.mask.mean(), abs=1e-4)
