"""Capture Freedoom frames with exact masks of what the interface draws over the world.

    python -m tools.freedoom_capture OUT --count 80

One walk through a map is replayed with the same seed and the same actions, so that the
world is the same on every pixel and only the interface differs. For the layers alone
the hero stands far outside the map, once before a black and once before a white void,
and they are switched on one after the other (bars, messages, crosshair); a pixel
belongs to the last layer that changed it before either void. A menu is seen alone by
letting the game dim everything behind it to pure black and to pure white. That layers
and world together give the image again, exactly, is checked for every item.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tools.command import Command, check_range
from tools.raw_item import CLASS_IDS, RawItem, save_missing

MENU = CLASS_IDS["menu_text"]
HUD_LAYERS = {name: CLASS_IDS[name] for name in ("bars", "message")}
HUD_LAYERS["crosshair"] = MENU
BLACK, WHITE, GOLD = "00 00 00", "ff ff ff", "ff d7 00"
# What each void needs: the engine's way to clear, the colour to dim to, its grey level.
VOIDS = {"black": (1, BLACK, 0), "white": (2, WHITE, 255)}
VOID_DISTANCE = 20_000  # map units, farther out than any map reaches
DIMMINGS = ((0.2, BLACK), (0.35, BLACK), (0.2, GOLD), (0.35, GOLD))
STEP_TICS = 7  # 0.2 s
RUN_STEPS, STOP_STEPS = 4, 3
LAPS = 18
SETTLE_TICS = 120  # messages fade after 105 tics
MIN_SHARE, MAX_SHARE = 0.01, 0.65
FULL_BRIGHT, FULL_DEPTH, FULL_OBJECTS, FULL_COLOURS = 80.0, 40.0, 5, 250
LARGE_OBJECT = 600  # pixels
NEAR = 3  # in the depth buffer's units: a wall that fills the view

Action = list[int]  # 1 for what is pressed: forward, left, right, attack, use, speed
IDLE: Action = [0] * 6
MAPS = [f"e{episode}m{level}" for episode in range(1, 5) for level in range(1, 10)]
MAPS += [f"map{level:02d}" for level in range(1, 33)]
KINDS = (
    *("menu_bar", "mini_message", "menu", "bar", "chat", "menu_mini", "althud_chat"),
    *("menu_bar", "bar_message", "mini", "menu", "mini_cross", "bar_chat"),
    *("menu_mini", "althud_message", "bar_cross"),
)
# Left out: the video options show the dimming, which differs between replays. Under its
# own name the skill menu crashes the engine; the second game, which has no episodes,
# shows it as the episode menu.
LARGE_MENUS = ["menu_main", "EpisodeMenu", "menu_quit", "CustomizeControls"]
LARGE_MENUS += ["CompatibilityOptions", "PlayerMenu"]
MENUS = [*LARGE_MENUS, *LARGE_MENUS, "OptionsMenu", "SoundOptions", "GameplayOptions"]
MENUS += ["HUDOptions", "AutomapOptions", "MessageOptions", "AltHUDOptions"]
MENUS = [name if name.startswith("menu_") else f"openmenu {name}" for name in MENUS]
# The engine switches the alternative bars off unless its own choice is ignored.
ALT_HUD = ("viz_ignore_render_mode 1", "screenblocks 11", "hud_althud 1")
NOTICES = (
    *("Picked up a medikit.", "Picked up the armor.", "You got the shotgun!"),
    *("Picked up a box of shells.", "You need a blue key to open this door"),
    "A secret is revealed!",
)
CHATS = (
    *("I found the exit, come here", "watch the stairs", "need ammo, any shells left?"),
    *("the red key is behind the lift", "wait for me at the bridge"),
    "who opened that door?",
)
GIFTS = ("give ammo", "give armor", "give keys", "give backpack")
WEAPONS = ["Shotgun", "Chaingun", "RocketLauncher", "PlasmaRifle", "BFG9000"]
WEAPONS += ["Chainsaw"]


@dataclass(frozen=True)
class Scene:
    """What one item shows; everything in it follows from the plan's seed."""

    kind: str
    map: str
    seed: int
    gifts: tuple[str, ...]
    notices: tuple[str, ...] = ()
    menu: str = ""
    dim: float = 0.0
    dim_colour: str = BLACK
    crosshair: int = 0

    @property
    def bar(self) -> str:
        """Which bars are drawn: full, mini, alt or none."""
        if "alt" in self.kind:
            return "alt"
        if "bar" in self.kind:
            return "full"
        return "none" if self.kind == "menu" else "mini"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers over the world, in the order in which they are drawn."""
        drawn = self.bar != "none", self.notices, self.crosshair, self.menu
        return tuple(itertools.compress((*HUD_LAYERS, "menu"), drawn))


class Route(NamedTuple):
    """A walk of so many laps, with the seed of its actions and the view's score."""

    seed: int
    laps: int
    score: float = 0.0


class Shot(NamedTuple):
    """Which layers a replay draws and what lies behind them."""

    layers: tuple[str, ...]
    void: str = ""
    dim: float = 0.0
    dim_colour: str = BLACK


def pick(rng: np.random.Generator, choices: Sequence[str], count: int) -> list[str]:
    return [choices[i] for i in rng.permutation(len(choices))[:count]]


def plan_scenes(count: int, seed: int) -> list[Scene]:
    """Plan the items; no map and no menu comes again before all had their turn.

    A longer plan begins with the shorter one of the same seed.
    """
    rng = np.random.default_rng(seed)
    maps, menus = (itertools.cycle(pick(rng, x, len(x))) for x in (MAPS, MENUS))
    scenes: list[Scene] = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        kind, scene_seed = KINDS[index % len(KINDS)], int(rng.integers(1, 9999))
        # What the hero owns, so that weapons and the numbers on the bars vary.
        gifts = ["god", f"give health {rng.integers(1, 100)}"]
        gifts += [f"give {weapon}" for weapon in pick(rng, WEAPONS, rng.integers(0, 5))]
        gifts += [gift for gift in GIFTS if rng.random() < 0.6]
        # The console commands that put lines at the top.
        notices: list[str] = []
        if "chat" in kind:
            notices = [f'say "{line}"' for line in pick(rng, CHATS, rng.integers(2, 5))]
        elif "message" in kind:
            found = pick(rng, NOTICES, rng.integers(1, 4))
            notices = [f'echo "{line}"' for line in found]
        crosshair = int(rng.integers(1, 8)) if "cross" in kind else 0
        menu, dim, colour = "", 0.0, BLACK
        if "menu" in kind:  # how the game tints the world behind; in 4 of 10 not at all
            menu, (dim, colour) = next(menus), DIMMINGS[rng.integers(len(DIMMINGS))]
            dim = dim if rng.random() < 0.6 else 0.0
        facts = scene_seed, tuple(gifts), tuple(notices), menu, dim, colour, crosshair
        scenes.append(Scene(kind, next(maps), *facts))
    return scenes


def plan_walk(seed: int, laps: int) -> list[Action]:
    """Draw one action per step: in each lap a run, then a stop, or the hero slides on.

    A longer walk begins with the shorter one.
    """
    rng = np.random.default_rng(seed)
    walk: list[Action] = []
    for _ in range(laps):
        for forward, turn, attack, use in rng.random((RUN_STEPS, 4)).tolist():
            pressed = forward < 0.85, turn < 0.2, turn > 0.8, attack < 0.1, use < 0.3
            walk.append([*map(int, pressed), 1])
        walk += [IDLE] * STOP_STEPS
    return walk


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mark, (H, W) bool, what differs between frames before both voids (2, H, W, 3)."""
    return (before != after).any(axis=(0, 3))


def find_classes(
    image: np.ndarray, layers: Sequence[tuple[int, np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Give each pixel the class of the last layer that changed it, (H, W) uint8.

    image: undimmed. layers: class ids, and frames before and after. Raises ValueError
    where the image does not show what looks the same before both voids.
    """
    ids, wrong = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], bool)
    for class_id, before, after in layers:
        where = changed(before, after)
        ids[where] = class_id
        opaque = (after[0] == after[1]).all(axis=-1)
        wrong[where] = (opaque & (image != after[0]).any(axis=-1))[where]
    if wrong.any():
        raise ValueError(f"layers not in the image on {np.count_nonzero(wrong)} pixels")
    return ids


def check_aligned(image: np.ndarray, world: np.ndarray, mask: np.ndarray) -> None:
    """Raise ValueError where the world moved between the two replays."""
    gap = np.abs(image.astype(np.int16) - world).max(axis=-1)
    gap[mask > 0] = 0
    if gap.any():
        what = f"{np.count_nonzero(gap)} pixels outside the mask"
        raise ValueError(f"frames not aligned: {what} by up to {gap.max()} grey levels")


def check_dimming(image: np.ndarray, world: np.ndarray, mask: np.ndarray) -> None:
    """Raise ValueError if one colour of the world outside the mask became several."""
    outside = mask == 0
    codes = world[outside].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    seen = image[outside][order].astype(np.int16)
    spread = np.maximum.reduceat(seen, starts) - np.minimum.reduceat(seen, starts)
    if spread.any():
        raise ValueError(f"dimming differs by {spread.max()} grey levels")


def view_score(screen: np.ndarray, depth: np.ndarray, objects: int) -> float:
    """Rate a view by RGB screen, depth (H, W) uint8 from the eye on, large objects."""
    height, width = depth.shape
    ahead = depth[height // 4 : height // 2, width // 4 : -width // 4]
    colours = len(np.unique(screen[::6, ::6].reshape(-1, 3), axis=0))
    return (
        1.5 * min(screen.mean(), FULL_BRIGHT) / FULL_BRIGHT
        + min(np.median(ahead), FULL_DEPTH) / FULL_DEPTH
        + 0.5 * min(depth.std(), FULL_DEPTH) / FULL_DEPTH
        + 0.8 * min(objects, FULL_OBJECTS) / FULL_OBJECTS
        + 0.8 * min(colours, FULL_COLOURS) / FULL_COLOURS
        - 1.5 * float(np.mean(depth < NEAR))
    )


@contextlib.contextmanager
def open_game(scene: Scene, shot: Shot, buffers: bool = False) -> Iterator[Any]:
    """Run the engine on a scene, in a scratch folder that takes its ini and log."""
    import vizdoom as engine  # which only this tool needs

    game = engine.DoomGame()
    game.load_config(str(Path(__file__).with_name("freedoom.cfg")))
    # How the world runs: the same for all replays of a scene.
    file = "freedoom1.wad" if scene.map.startswith("e") else "freedoom2.wad"
    wad = str(Path(engine.__file__).parent / file)
    game.set_doom_game_path(wad)
    game.set_doom_scenario_path(wad)
    game.set_doom_map(scene.map)
    game.set_seed(scene.seed)
    game.add_game_args("+con_scaletext 1")
    if scene.crosshair:
        options = "+crosshairforce 1 +crosshairgrow 0 +crosshairscale 1"
        game.add_game_args(f"+crosshair {scene.crosshair} {options}")
    # What is drawn. A full status bar is always there: it takes room from the world's
    # view, which would be another one without it.
    full = scene.bar == "full"
    game.set_render_hud(full or "bars" in shot.layers)
    game.set_render_minimal_hud(not full)
    game.set_render_messages("message" in shot.layers)
    game.set_render_crosshair("crosshair" in shot.layers)
    game.set_render_weapon(not shot.void)
    game.set_labels_buffer_enabled(buffers)
    game.set_depth_buffer_enabled(buffers)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        game.init()
        try:
            for gift in scene.gifts:
                game.send_game_command(gift)
            yield game
        finally:
            game.close()


def find_route(scene: Scene, walks: int) -> Route:
    """Walk several times through the map; returns the way to the best view."""
    routes = []
    for seed in range(scene.seed * walks, (scene.seed + 1) * walks):
        routes.append(Route(seed, 1, -np.inf))
        with open_game(scene, Shot(()), buffers=True) as game:
            for step, action in enumerate(plan_walk(seed, LAPS), start=1):
                game.make_action(action, STEP_TICS)
                if game.is_episode_finished() or game.is_player_dead():
                    break
                laps, rest = divmod(step, RUN_STEPS + STOP_STEPS)
                if rest == 0:
                    state = game.get_state()
                    others = (n for n in state.labels if n.object_name != "DoomPlayer")
                    objects = sum(n.width * n.height > LARGE_OBJECT for n in others)
                    view = state.screen_buffer, state.depth_buffer, objects
                    routes.append(Route(seed, laps, view_score(*view)))
    return max(routes, key=lambda route: route.score)


def shot_commands(scene: Scene, shot: Shot, angle: float) -> list[str]:
    """List the console commands of a shot, to be sent one tic before it.

    The void is far away along the line of sight (angle, degrees), the map behind.
    """
    commands = [f"dimamount {shot.dim}", f'dimcolor "{shot.dim_colour}"']
    if shot.void:
        x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        commands += [f"r_clearbuffer {VOIDS[shot.void][0]}"]
        commands += [f"warp {int(VOID_DISTANCE * x)} {int(VOID_DISTANCE * y)}"]
    if scene.bar == "alt" and "bars" in shot.layers:
        commands += ALT_HUD
    if "message" in shot.layers:
        commands += scene.notices
    if "menu" in shot.layers:
        commands += [scene.menu]
    return commands


def replay(scene: Scene, route: Route, shot: Shot) -> np.ndarray:
    """Walk the route again, freeze the world, wait; gives a frame (H, W, 3) uint8 RGB.

    An open menu stops the clock at once, so without it one tic less is waited.
    """
    wait = SETTLE_TICS - bool(scene.menu and "menu" not in shot.layers)
    with open_game(scene, shot) as game:
        for action in plan_walk(route.seed, route.laps):
            game.make_action(action, STEP_TICS)
        game.send_game_command("freeze")
        game.make_action(IDLE, wait)
        angle = game.get_state().game_variables[0]
        for command in shot_commands(scene, shot, angle):
            game.send_game_command(command)
        game.make_action(IDLE, 1)
        return game.get_state().screen_buffer.copy()


def make_item(scene: Scene, route: Route) -> RawItem:
    """Make the pictures of one scene; raises ValueError if they do not fit together."""
    image = replay(scene, route, Shot(scene.layers))

    def take(shots: Sequence[Shot]) -> np.ndarray:
        return np.stack([replay(scene, route, shot) for shot in shots])

    empty = np.stack([np.full_like(image, grey) for _, _, grey in VOIDS.values()])
    frames, names, layers = empty, (), []
    for name in filter(HUD_LAYERS.get, scene.layers):
        names, before = (*names, name), frames
        frames = take([Shot(names, void) for void in VOIDS])
        layers.append((HUD_LAYERS[name], before, frames))
    if scene.menu:  # alone, with all behind it dimmed to black and to white
        shots = [Shot(scene.layers, "", 1.0, colour) for _, colour, _ in VOIDS.values()]
        layers.append((MENU, empty, take(shots)))
    classes = find_classes(image, layers)
    share = round(float(np.mean(classes > 0)), 4)
    check_range("UI share", share, MIN_SHARE, MAX_SHARE)
    world = replay(scene, route, Shot(()))
    check_aligned(image, world, classes)
    if scene.dim:  # the image once more with the game's own dimming behind the menu
        shot = Shot(scene.layers, "", scene.dim, scene.dim_colour)
        image = replay(scene, route, shot)
        check_dimming(image, world, classes)
    if scene.bar == "full":  # the game draws no world where the status bar stands
        world[changed(*layers[0][1:])] = 0
    steps = route.laps * (RUN_STEPS + STOP_STEPS)
    facts = {"walk_seed": route.seed, "tics": steps * STEP_TICS + SETTLE_TICS + 1}
    meta = {"game": "freedoom", **asdict(scene), **facts, "ui_fraction": share}
    return RawItem(image, world, classes, meta)


def capture(out: Path, count: int, seed: int, walks: int) -> int:
    """Capture what is not there yet; where the engine crashes, one item is lost."""
    check_range("count", count, 1)
    check_range("walks", walks, 1)
    try:
        import vizdoom
    except ImportError:
        raise ValueError("no game engine: run pip install vizdoom==1.3.2") from None
    types = [one for one in vars(vizdoom).values() if isinstance(one, type)]
    crashes = tuple(one for one in types if issubclass(one, Exception))

    def make(scene: Scene) -> RawItem:
        return make_item(scene, find_route(scene, walks))

    scenes = plan_scenes(count, seed)
    return save_missing(out, f"freedoom_{seed}", scenes, make, crashes)


main = Command(capture)
main.add("out", Path, "folder for the items")
main.add("--count", int, "number of items", 80)
main.add("--seed", int, "seed of the plan", 77)
main.add("--walks", int, "walks per item, for the best view", 5)

if __name__ == "__main__":
    raise SystemExit(main())
