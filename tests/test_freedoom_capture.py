"""The Freedoom capture: its plan and its checks, one real item where the engine is."""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tools import freedoom_capture as capture
from tools.raw_item import CLASS_IDS, RawItem, load_item

BARS, MESSAGE, MENU = (CLASS_IDS[name] for name in ("bars", "message", "menu_text"))
SHAPE = (6, 8, 3)
# A picture without two equal pixels.
WORLD = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
EMPTY = np.stack([np.full(SHAPE, grey, np.uint8) for grey in (0, 255)])


def paint(frame: np.ndarray, *names: str) -> np.ndarray:
    """Draw black bars below, a white line above, a menu over both; in all its rows."""
    places = {"bars": (np.s_[..., 4:6, :, :], 0), "line": (np.s_[..., 0, :4, :], 255)}
    places["menu"] = np.s_[..., 0:5, 2, :], 90
    painted = frame.copy()
    for place, grey in map(places.get, names):
        painted[place] = grey
    return painted


IMAGE = paint(WORLD, "bars", "line", "menu")
BARS_ALONE = paint(EMPTY, "bars")
LAYERS = [
    (BARS, EMPTY, BARS_ALONE),
    (MESSAGE, BARS_ALONE, paint(BARS_ALONE, "line")),
    (MENU, EMPTY, paint(EMPTY, "menu")),
]


def test_walks_and_plans_are_repeatable_and_no_map_comes_again_too_soon() -> None:
    walk = capture.plan_walk(5, 40)
    assert capture.plan_walk(5, 9) == walk[: 9 * 7]
    assert walk != capture.plan_walk(6, 40)
    stops = [act == capture.IDLE for act in walk]  # at the end of each lap
    assert stops == [step % 7 >= 4 for step in range(40 * 7)]
    assert not any(left and right for _, left, right, *_ in walk)
    plan = capture.plan_scenes(80, 77)
    assert plan[:20] == capture.plan_scenes(20, 77) != capture.plan_scenes(20, 78)
    maps = [scene.map for scene in plan]
    assert sorted(maps[:68]) == sorted(set(capture.MAPS)) == sorted(capture.MAPS)
    assert max(Counter(maps).values()) == 2


def test_plan_gives_each_kind_its_layers() -> None:
    planned = {(s.kind, s.bar, *s.layers) for s in capture.plan_scenes(16, 77)}
    wanted = (
        "menu none menu, menu_bar full bars menu, menu_mini mini bars menu, "
        "bar full bars, bar_chat full bars message, bar_message full bars message, "
        "mini mini bars, chat mini bars message, mini_message mini bars message, "
        "althud_chat alt bars message, althud_message alt bars message, "
        "mini_cross mini bars crosshair, bar_cross full bars crosshair"
    )
    assert planned == {tuple(row.split()) for row in wanted.split(", ")}


def test_a_pixel_has_the_class_of_the_layer_on_top() -> None:
    expected = np.zeros(SHAPE[:2], np.uint8)
    expected[4:6], expected[0, :4], expected[0:5, 2] = BARS, MESSAGE, MENU
    ids = capture.find_classes(IMAGE, LAYERS)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, expected)
    capture.check_aligned(IMAGE, WORLD, ids)
    with pytest.raises(ValueError, match="frames not aligned"):
        capture.check_aligned(IMAGE, np.roll(WORLD, 1, axis=1), ids)
    for row, column in ((5, 0), (0, 0), (2, 2), (1, 1)):
        broken = IMAGE.copy()
        broken[row, column] ^= 1
        message = "layers not in the image on 1 pixels"
        if (row, column) == (1, 1):  # between the layers
            message = "1 pixels .* by up to 1 grey"
        with pytest.raises(ValueError, match=message):
            found = capture.find_classes(broken, LAYERS)
            capture.check_aligned(broken, WORLD, found)
    # Also where it is seen before one void only.
    shadow = EMPTY.copy()
    shadow[1, 2, 3], expected[2, 3] = 150, MESSAGE
    ids = capture.find_classes(IMAGE, [*LAYERS, (MESSAGE, EMPTY, shadow)])
    np.testing.assert_array_equal(ids, expected)


def test_dimming_is_a_table_of_colours() -> None:
    world = np.array([[[9, 9, 9], [9, 9, 9], [0, 200, 7], [9, 9, 9]]], np.uint8)
    image = world // 2
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    image[0, 3] = 255
    capture.check_dimming(image, world, mask)
    image[0, 1, 2] += 6
    with pytest.raises(ValueError, match="dimming differs by 6 grey levels"):
        capture.check_dimming(image, world, mask)


def test_a_wall_is_a_worse_view_than_a_hall() -> None:
    screen = np.tile(WORLD, (8, 8, 1))
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


def test_an_item_is_made_of_its_replays(monkeypatch) -> None:
    scene = next(s for s in capture.plan_scenes(16, 77) if s.kind == "bar")

    def make(rows: int) -> RawItem:
        def replay(_: object, __: object, shot: capture.Shot) -> np.ndarray:
            """Stand in for the engine: grey bars before the world or a void."""
            void = capture.VOIDS.get(shot.void)
            frame = np.full_like(WORLD, void[2]) if void else WORLD.copy()
            if "bars" in shot.layers:
                frame[6 - rows :] = 90
            return frame

        monkeypatch.setattr(capture, "replay", replay)
        return capture.make_item(scene, capture.Route(1, 2))

    for rows in (0, 5):
        with pytest.raises(ValueError, match="UI share"):
            make(rows)
    item = make(2)
    assert item.classes.tolist() == [[0] * 8] * 4 + [[BARS] * 8] * 2
    assert np.array_equal(item.image[:4], WORLD[:4]) and (item.image[4:] == 90).all()
    assert np.array_equal(item.world[:4], WORLD[:4]) and (item.world[4:] == 0).all()
    assert item.meta["ui_fraction"] == round(1 / 3, 4)


class Crash(Exception):
    """Stands in for what the engine raises."""


def test_a_failed_item_is_tried_again(tmp_path: Path, monkeypatch, capsys) -> None:
    scenes, made = capture.plan_scenes(4, 77), []

    def make(scene: capture.Scene, route: capture.Route) -> RawItem:
        made.append(scene)
        if scene in scenes[1:3]:
            raise (ValueError if scene == scenes[1] else Crash)("no picture")
        picture = np.zeros(SHAPE, np.uint8)
        return RawItem(picture, picture, picture[..., 0], dataclasses.asdict(scene))

    monkeypatch.setitem(sys.modules, "vizdoom", SimpleNamespace(Crash=Crash, text=""))
    monkeypatch.setattr(capture, "find_route", lambda scene, walks: None)
    monkeypatch.setattr(capture, "make_item", make)
    lines = [
        f"left out: freedoom_77_00{n} ({kind}, {scenes[n].map}): no picture"
        for n, kind in ((1, "mini_message"), (2, "menu"))
    ]
    for _ in range(2):
        assert capture.main([str(tmp_path), "--count", "4"]) == 1
        assert capsys.readouterr().out.splitlines() == lines
    assert made == [*scenes, *scenes[1:3]]
    assert capture.main([str(tmp_path), "--count", "1", "--seed", "78"]) == 0
    saved = sorted(entry.name for entry in tmp_path.iterdir())
    assert saved == ["freedoom_77_000", "freedoom_77_003", "freedoom_78_000"]


def test_one_item_is_captured_whole(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="vizdoom is not installed")
    assert capture.main([str(tmp_path), "--count", "1", "--walks", "1"]) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["freedoom_77_000"]
    item = load_item(tmp_path / "freedoom_77_000")
    assert item.image.shape == item.world.shape == (480, 640, 3)
    assert set(np.unique(item.classes)) == {0, BARS, MENU}
    assert item.meta["game"] == "freedoom"
    assert item.meta["ui_fraction"] == pytest.approx(item.mask.mean(), abs=1e-4)
