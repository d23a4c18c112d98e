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
ERRORS = (
    *("ViZDoomErrorException", "ViZDoomUnexpectedExitException"),
    *("ViZDoomIsNotRunningException", "MessageQueueException"),
    "SharedMemoryException",
)


Layers = tuple[capture.Stages, np.ndarray]


@pytest.fixture
def layers() -> Layers:
    """Black bars at the bottom, a white line at the top, a menu over part of both."""
    bars = capture.empty_voids(SHAPE)
    menu = bars.copy()
    bars[:, 4:6] = 0
    lines = bars.copy()
    lines[:, 0, :4] = 255
    menu[:, 0:5, 2] = 90
    return [(BARS, bars), (MESSAGE, lines)], menu


@pytest.fixture
def world() -> np.ndarray:
    """A picture without two equal pixels."""
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def composed(world: np.ndarray, layers: Layers) -> np.ndarray:
    """Lay opaque layers over the world."""
    image = world.copy()
    for frames in (layers[0][-1][1], layers[1]):
        drawn = capture.covered(frames)
        image[drawn] = frames[0][drawn]
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


def test_a_pixel_has_the_class_of_the_layer_on_top(layers: Layers) -> None:
    ids = capture.class_ids(*layers)
    expected = np.zeros(SHAPE[:2], np.uint8)
    expected[4:6] = BARS
    expected[0, :4] = MESSAGE
    expected[0:5, 2] = MENU
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, expected)
    # Also where it is seen before one void only.
    void = capture.empty_voids(SHAPE)
    shadow = void.copy()
    shadow[1, 2, 3] = 150
    ids = capture.class_ids([(BARS, void), (MESSAGE, shadow)], None)
    assert ids[2, 3] == MESSAGE
    assert np.count_nonzero(ids) == 1


def test_a_shifted_world_is_refused(layers: Layers, world: np.ndarray) -> None:
    image, mask = composed(world, layers), capture.class_ids(*layers)
    capture.check_aligned(image, world, mask)
    with pytest.raises(ValueError, match="frames not aligned"):
        capture.check_aligned(image, np.roll(world, 1, axis=1), mask)
    image = world.copy()
    image[1, 1] ^= 2
    image[5, 5] ^= 255
    mask = np.zeros(SHAPE[:2], np.uint8)
    mask[5, 5] = BARS
    with pytest.raises(ValueError, match=r"1 pixels .* by up to 2 grey"):
        capture.check_aligned(image, world, mask)


def test_layers_must_be_in_the_image(layers: Layers, world: np.ndarray) -> None:
    image = composed(world, layers)
    capture.check_layers(image, *layers)
    for row, column in ((5, 0), (0, 0), (2, 2)):
        broken = image.copy()
        broken[row, column] ^= 1
        with pytest.raises(ValueError, match="layers not in the image on 1 pixels"):
            capture.check_layers(broken, *layers)


def test_dimming_is_a_table_of_colours() -> None:
    world = np.array([[[9, 9, 9], [9, 9, 9], [0, 200, 7], [9, 9, 9]]], np.uint8)
    image = world // 2
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    image[0, 3] = 255
    assert capture.dimming_error(image, world, mask) == 0
    image[0, 1, 2] += 6
    assert capture.dimming_error(image, world, mask) == 6


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


def test_a_failed_item_is_tried_again_and_another_seed_refused(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    scenes, made = capture.plan_scenes(3, 77), []

    def make(scene: capture.Scene, route: capture.Route) -> RawItem:
        made.append(scene)
        if scene == scenes[1]:
            raise ValueError("frames not aligned")
        picture = np.zeros(SHAPE, np.uint8)
        return RawItem(picture, picture, picture[..., 0], dataclasses.asdict(scene))

    engine = SimpleNamespace(**dict.fromkeys(ERRORS, OSError))
    monkeypatch.setitem(sys.modules, "vizdoom", engine)
    monkeypatch.setattr(capture, "find_route", lambda scene, walks: None)
    monkeypatch.setattr(capture, "make_item", make)
    line = f"freedoom_001 (mini_message, {scenes[1].map}): frames not aligned"
    for _ in range(2):
        assert capture.main([str(tmp_path), "--count", "3"]) == 0
        assert capsys.readouterr().out == f"left out: {line}\n"
    saved = sorted(entry.name for entry in tmp_path.iterdir())
    assert saved == ["freedoom_000", "freedoom_002"]
    assert made == [*scenes, scenes[1]]
    assert "use the --seed" in failure(capsys, str(tmp_path), "--seed", "78")


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, which must end with status 2, and return its one line."""
    with pytest.raises(SystemExit) as ending:
        capture.main(argv)
    assert ending.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_what_cannot_be_done_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    out = tmp_path / "out"
    assert "pip install vizdoom==1.3.2" in failure(capsys, str(out))
    assert "--count is 0" in failure(capsys, str(out), "--count", "0")
    assert "--walks is -1" in failure(capsys, str(out), "--walks", "-1")
    assert not out.exists()
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
