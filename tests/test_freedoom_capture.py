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
Layers = list[tuple[int, np.ndarray, np.ndarray]]


@pytest.fixture
def layers() -> Layers:
    """Black bars at the bottom, a white line at the top, a menu over part of both."""
    empty = np.stack([np.full(SHAPE, grey, np.uint8) for grey in (0, 255)])
    bars, menu = empty.copy(), empty.copy()
    bars[:, 4:6] = 0
    lines = bars.copy()
    lines[:, 0, :4] = 255
    menu[:, 0:5, 2] = 90
    return [(BARS, empty, bars), (MESSAGE, bars, lines), (MENU, empty, menu)]


@pytest.fixture
def world() -> np.ndarray:
    """A picture without two equal pixels."""
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture
def image(world: np.ndarray) -> np.ndarray:
    """The world under these layers."""
    image = world.copy()
    image[4:6], image[0, :4], image[0:5, 2] = 0, 255, 90
    return image


def test_same_seed_same_walk_and_each_lap_ends_with_a_stop() -> None:
    walk = capture.plan_walk(5, 40)
    assert capture.plan_walk(5, 9) == walk[: 9 * 7]
    assert walk != capture.plan_walk(6, 40)
    assert len(walk) == 40 * (capture.RUN_STEPS + capture.STOP_STEPS)
    assert all(
        (act == capture.IDLE) == (step % 7 >= 4) for step, act in enumerate(walk)
    )
    assert not any(left and right for _, left, right, *_ in walk)


def test_plan_is_repeatable_and_shows_each_map_before_any_comes_again() -> None:
    plan = capture.plan_scenes(80, 77)
    assert plan[:20] == capture.plan_scenes(20, 77) != capture.plan_scenes(20, 78)
    maps = [scene.map for scene in plan]
    assert sorted(maps[:68]) == sorted(set(capture.MAPS)) == sorted(capture.MAPS)
    assert max(Counter(maps).values()) == 2


@pytest.mark.parametrize(
    ("kind", "bar", "layers"),
    [
        ("menu", "none", ("menu",)),
        ("menu_bar", "full", ("bars", "menu")),
        ("menu_mini", "mini", ("bars", "menu")),
        ("bar", "full", ("bars",)),
        ("mini_message", "mini", ("bars", "message")),
        ("chat", "mini", ("bars", "message")),
        ("bar_chat", "full", ("bars", "message")),
        ("althud_chat", "alt", ("bars", "message")),
        ("mini_cross", "mini", ("bars", "crosshair")),
    ],
)
def test_plan_gives_each_kind_its_layers(
    kind: str, bar: str, layers: tuple[str, ...]
) -> None:
    scenes = capture.plan_scenes(len(capture.KINDS), 77)
    scene = next(scene for scene in scenes if scene.kind == kind)
    assert (scene.bar, scene.layers) == (bar, layers)


def test_a_pixel_has_the_class_of_the_layer_on_top(
    image: np.ndarray, layers: Layers
) -> None:
    expected = np.zeros(SHAPE[:2], np.uint8)
    expected[4:6], expected[0, :4], expected[0:5, 2] = BARS, MESSAGE, MENU
    ids = capture.find_classes(image, layers)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, expected)
    # Also where it is seen before one void only.
    shadow = layers[0][1].copy()
    shadow[1, 2, 3] = 150
    layers.append((MESSAGE, layers[0][1], shadow))
    expected[2, 3] = MESSAGE
    np.testing.assert_array_equal(capture.find_classes(image, layers), expected)
    for row, column in ((5, 0), (0, 0), (2, 2)):
        broken = image.copy()
        broken[row, column] ^= 1
        with pytest.raises(ValueError, match="layers not in the image on 1 pixels"):
            capture.find_classes(broken, layers)


def test_a_shifted_world_is_refused(
    image: np.ndarray, layers: Layers, world: np.ndarray
) -> None:
    mask = capture.find_classes(image, layers)
    capture.check_aligned(image, world, mask)
    with pytest.raises(ValueError, match="frames not aligned"):
        capture.check_aligned(image, np.roll(world, 1, axis=1), mask)
    image[1, 1] ^= 2
    with pytest.raises(ValueError, match=r"1 pixels .* by up to 2 grey"):
        capture.check_aligned(image, world, mask)


def test_dimming_is_a_table_of_colours() -> None:
    world = np.array([[[9, 9, 9], [9, 9, 9], [0, 200, 7], [9, 9, 9]]], np.uint8)
    image = world // 2
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    image[0, 3] = 255
    capture.check_dimming(image, world, mask)
    image[0, 1, 2] += 6
    with pytest.raises(ValueError, match="dimming differs by 6 grey levels"):
        capture.check_dimming(image, world, mask)


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
    commands = capture.shot_commands(
        scene, capture.Shot(("bars",), "white"), angle=90.0
    )
    assert f"warp 0 {capture.VOID_DISTANCE}" in commands
    assert "r_clearbuffer 2" in commands
    assert scene.menu not in commands
    assert scene.menu in capture.shot_commands(scene, capture.Shot(("menu",)), 0.0)


@pytest.mark.parametrize(
    ("rows", "refusal"), [(2, None), (0, "UI share"), (5, "UI share")]
)
def test_an_item_is_made_of_its_replays(
    rows: int, refusal: str | None, world: np.ndarray, monkeypatch
) -> None:
    def replay(scene: capture.Scene, route: object, shot: capture.Shot) -> np.ndarray:
        """Stand in for the engine: bars of a grey, and the world or a void behind."""
        void = capture.VOIDS.get(shot.void)
        frame = np.full_like(world, void[2]) if void else world.copy()
        if "bars" in shot.layers:
            frame[6 - rows :] = 90
        return frame

    monkeypatch.setattr(capture, "replay", replay)
    scene = next(s for s in capture.plan_scenes(16, 77) if s.kind == "bar")
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            capture.make_item(scene, capture.Route(1, 2))
        return
    item = capture.make_item(scene, capture.Route(1, 2))
    assert item.classes.tolist() == [[0] * 8] * 4 + [[BARS] * 8] * 2
    assert np.array_equal(item.image[:4], world[:4]) and (item.image[4:] == 90).all()
    assert np.array_equal(item.world[:4], world[:4]) and (item.world[4:] == 0).all()
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
        f"left out: freedoom_77_001 (mini_message, {scenes[1].map}): no picture",
        f"left out: freedoom_77_002 (menu, {scenes[2].map}): no picture",
    ]
    for _ in range(2):
        assert capture.main([str(tmp_path), "--count", "4"]) == 1
        assert capsys.readouterr().out.splitlines() == lines
    assert made == [*scenes, *scenes[1:3]]
    assert capture.main([str(tmp_path), "--count", "1", "--seed", "78"]) == 0
    saved = sorted(entry.name for entry in tmp_path.iterdir())
    assert saved == ["freedoom_77_000", "freedoom_77_003", "freedoom_78_000"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("new",), "pip install vizdoom==1.3.2"),
        (("new", "--count", "0"), "count 0: expected 1 or more"),
        (("new", "--walks", "-1"), "walks -1: expected 1 or more"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(SystemExit, match="2"):
        capture.main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_one_item_is_captured_whole(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="vizdoom is not installed")
    assert capture.main([str(tmp_path), "--count", "1", "--walks", "1"]) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["freedoom_77_000"]
    item = load_item(tmp_path / "freedoom_77_000")
    assert item.image.shape == item.world.shape == (480, 640, 3)
    assert set(np.unique(item.classes)) == {0, BARS, MENU}
    assert item.meta["game"] == "freedoom"
    assert item.meta["ui_fraction"] == pytest.approx(item.mask.mean(), abs=1e-4)
