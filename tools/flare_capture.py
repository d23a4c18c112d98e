"""Capture scenes of the role-playing game Flare with an exact mask of its interface.

    python -m tools.flare_capture OUT --count 150

Each scene starts the game on a virtual screen with a save file, a layout of the
interface and a small script of its own, opens what the scene is about, and lets the
preloaded `flare_shim.c` take one frame apart. See tools/README.md for what to install.
"""

import itertools
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tools.command import Command
from tools.raw_item import CLASS_IDS, RawItem, save_missing

HERE = Path(__file__).parent
SHIM, BASE = HERE / "flare_shim.c", HERE / "flare_base"
GAME = Path("/usr/games/flare")
MODS = Path("/usr/share/games/flare/mods")
CAMPAIGN, FANTASY = MODS / "empyrean_campaign", MODS / "fantasycore"
NEEDED = ("Xvfb", "xdotool", "gcc")
PACKAGES = "flare-game xvfb xdotool x11-apps gcc libsdl2-dev fonts-liberation"

LEAST_ALPHA = 64  # from which a pixel is interface: a quarter of the way to opaque
MOST_DIFFERENCE = 2  # of a recomposed frame, grey levels: blending rounds each time

# Portraits of invented characters; the game also has some of real people.
PORTRAITS = [f"female{n:02}" for n in (1, 2, 3, 4, 6, 10, 11, 12, 13, 14, 15)]
PORTRAITS = ["dog01", *PORTRAITS, *(f"male{n:02}" for n in (1, 2, 3, 4, 6))]
BODIES = ["peasant_man1", "peasant_man2", "peasant_woman1", "guild_man1", "guild_man2"]
SPEAKERS = ["Ferryman", "Baker", "Old Scout", "Innkeeper", "Miller", "Beekeeper"]
SPEAKERS += ["Bell Ringer", "Mason", "Herbalist", "Net Mender", "Cook", "Lamplighter"]
LINES = (BASE / "lines.txt").read_text().splitlines()  # of dialogues
REMARKS = ["It is getting late.", "A bell rings far away.", "You feel rested."]
REMARKS += ["Somebody was here before you.", "The wind turns.", "Game saved."]
FOES = "goblin skeleton zombie antlion_sprayer mog hobgoblin minotaur wyvern_adult"
FOES = FOES.split()

NO_PLACES = ("spawn", "hyperspace")  # maps of the campaign with nowhere to stand

# The keys that open what a kind of scene shows: letters, or names in a list.
KEYS = {
    **{"inventory": "i", "character": "c", "powers": "p", "log": "l", "tooltip": "i"},
    **{"inventory_character": "ic", "log_inventory": "li", "exit": ["Escape"]},
}
KINDS = [
    *("dialog", "inventory", "dialog_reply", "powers", "hud", "dialog", "vendor"),
    *("log", "dialog_reply", "character", "stash", "dialog", "hud_message"),
    *("inventory_character", "dialog_reply", "tooltip", "dialog", "hud_enemy"),
    *("vendor", "dialog_reply", "log_inventory", "exit"),
]
DIALOGS = ("dialog", "dialog_reply")
# A foe's blow closes these, so their maps come without foes.
PEACEFUL = (*DIALOGS, "vendor", "stash")

# What the mangled name of a widget's function contains, and the class it belongs to;
# any other menu is a window.
WIDGET_CLASSES = {
    **{"MiniMap": "minimap", "ActionBar": "actionbar", "StatBar": "bars"},
    **{"MenuManager": "bars", "MenuEnemy": "bars", "ActiveEff": "bars"},
    **{"Talker": "dialog", "HUDLog": "message", "": "window"},
}


@dataclass(frozen=True)
class Scene:
    """What one capture is of; everything else is drawn from its seed."""

    number: int
    seed: int
    kind: str
    map: str

    def rng(self) -> random.Random:
        return random.Random(f"{self.seed}-{self.number}")


def deal_scenes(count: int, seed: int, maps: Sequence[str]) -> list[Scene]:
    """Deal kinds and maps out in turn, the maps in an order of the seed's choice."""
    maps = random.Random(seed).sample(list(maps), len(maps))
    kinds, maps = itertools.cycle(KINDS), itertools.cycle(maps)
    return [Scene(n, seed, next(kinds), next(maps)) for n in range(count)]


def read_frame(prefix: str, meta: dict[str, object]) -> RawItem:
    """Turn what the shim wrote into a raw item; raises ValueError on a misfit."""
    names = ("image.ppm", "world.ppm", "black.ppm", "white.ppm", "widgets.pgm")
    image, world, black, white, widgets = (
        np.array(Image.open(f"{prefix}_{name}")) for name in names
    )
    # How much of what is behind it the interface lets through, 0..255.
    passed = white.astype(float) - black
    off = np.abs(world * (passed / 255) + black - image).max()
    if off > MOST_DIFFERENCE:
        raise ValueError(f"recomposed frame is {off:.0f} grey levels off")
    table = np.zeros(256, np.uint8)  # the class of each widget's number
    overlays = []
    for line in Path(f"{prefix}_widgets.txt").read_text().splitlines():
        number, name = line.split()
        kind = next(kind for part, kind in WIDGET_CLASSES.items() if part in name)
        table[int(number)] = CLASS_IDS[kind]
        overlays += [int(number)] * ("overlay" in name)
    if overlays:  # the last is the cursor, those before it are tooltips
        table[max(overlays)] = CLASS_IDS["cursor"]
    classes = np.where(255 - passed.max(axis=2) >= LEAST_ALPHA, table[widgets], 0)
    meta = {**meta, "recomposed_within": round(float(off), 2)}
    return RawItem(image, world, classes.astype(np.uint8), meta)


def set_values(text: str, values: dict[str, object]) -> str:
    """Replace the first `key=...` line of each key in a settings file's text."""
    for key, value in values.items():
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, count=1, flags=re.M)
    return text


def quiet_spots(map_name: str) -> list[tuple[int, int]]:
    """List places to stand on a map: event areas well inside, else its entrance."""
    text = (CAMPAIGN / f"maps/{map_name}.txt").read_text()

    def numbers(pattern: str) -> list[list[int]]:
        return [list(map(int, found)) for found in re.findall(pattern, text, re.M)]

    ((width, height),) = numbers(r"^width=(\d+)\nheight=(\d+)")
    areas = numbers(r"^type=(?:enemy|npc)\nlocation=(\d+),(\d+),(\d+),(\d+)")
    centres = [(x + w // 2, y + h // 2) for x, y, w, h in areas]
    inside = [p for p in centres if 10 < p[0] < width - 10 and 10 < p[1] < height - 10]
    return inside or [tuple(numbers(r"^hero_pos=(\d+),(\d+)")[0])]


def shuffled_layout(rng: random.Random) -> dict[str, dict[str, object]]:
    """Draw another place for each part of the interface, none on top of another."""
    corners = ["topleft", "topright", "bottomleft", "bottomright", "top"]
    bars_at, minimap_at = rng.sample(corners, 2)
    action_bar = rng.choice(["bottom", "bottom", "top"])

    def offset(corner: str, distance: int) -> int:
        room = 40 if action_bar in corner else 0
        return -(room + distance) if "bottom" in corner else room + distance

    steps = (28, 10, 0) if "bottom" in bars_at else (0, 18, 36)
    rows = [offset(bars_at, step) for step in steps]
    indent = rng.choice([0, 4, 10])
    sides = ["left", "right", "center"]
    layout: dict[str, dict[str, object]] = {
        "hp": {"pos": f"{indent},{rows[0]},118,18", "align": bars_at},
        "mp": {"pos": f"0,{rows[1]},118,18", "align": bars_at},
        "xp": {"pos": f"0,{rows[2]},106,24", "align": bars_at},
        "minimap": {"pos": f"0,{offset(minimap_at, 0)},136,156", "align": minimap_at},
        "actionbar": {"align": action_bar},
    }
    for name in ("inventory", "character", "powers", "log"):
        layout[name] = {"align": rng.choice(sides)}
    foot = 320 + rng.choice([0, 0, -160, -300])  # how far down the dialogue box is
    layout["talker"] = {
        "dialogbox": f"0,{foot},640,96",
        "dialogtext": f"24,{foot - 10},568,102",
        **dict.fromkeys(("close", "advance"), f"608,{foot}"),
    }
    layout["hudlog"] = {"align": rng.choice(["bottomleft", "left", "bottomright"])}
    return layout | {"enemy": {"align": rng.choice(["top", "bottom", "right"])}}


def npc_text(scene: Scene, rng: random.Random) -> str:
    """Write the person of a dialogue or a trader."""
    trades = scene.kind == "vendor"
    text = (
        f"name={'Trader' if trades else rng.choice(SPEAKERS)}\nlevel=1\n"
        f"gfx=animations/npcs/{rng.choice(BODIES)}.txt\ndirection=6\ntalker=true\n"
    )
    if trades:
        stock = ",".join(map(str, ["2:5", "3:5", *rng.sample(range(4, 40), 14)]))
        return text + f"vendor=true\nconstant_stock={stock}\n"
    first, second = rng.sample(LINES, 2)
    who, other = ("you", "him") if scene.kind == "dialog_reply" else ("him", "you")
    portrait = f"portrait=images/portraits/{rng.choice(PORTRAITS)}.png\n"
    return text + portrait + f"\n[dialog]\n{who}={first}\n{other}={second}\n"


def write_mod(home: Path, scene: Scene, spot: tuple[int, int]) -> bool:
    """Write the scene as a mod of the game. Tells whether it has a script to load."""
    rng, (x, y) = scene.rng(), spot
    # The event that opens what no key opens.
    foes = f"{rng.choice(FOES)},{x + 1},{y + 1};{rng.choice(FOES)},{x + 2},{y}"
    events = {"stash": "stash=true", "hud_enemy": f"spawn={foes}"}
    events |= {"hud_message": f"msg={rng.choice(LINES)}"}
    events |= dict.fromkeys((*DIALOGS, "vendor"), "npc=npcs/scene.txt")
    script = f"[event]\n{events[scene.kind]}\n" if scene.kind in events else ""
    # A label on an object is drawn with the world, so nobody could call it interface or
    # not: the map comes without, and for a talk without foes.
    map_text = (CAMPAIGN / f"maps/{scene.map}.txt").read_text()
    map_text = re.sub(r"^tooltip=.*$", "", map_text, flags=re.M)
    if scene.kind in PEACEFUL:
        map_text = re.sub(r"^\[enemy\][^\[]*", "", map_text, flags=re.M)
    # Some maps save all the same; let the game say something else of it.
    remark = f'msgid "Game saved."\nmsgstr "{rng.choice(REMARKS)}"\n'
    files = {
        "languages/engine.en.po": remark,
        "npcs/scene.txt": npc_text(scene, rng),
        "scripts/scene.txt": script,
        f"maps/{scene.map}.txt": map_text,
    }
    for name, values in shuffled_layout(rng).items() if rng.random() < 0.75 else ():
        base, own = (folder / f"menus/{name}.txt" for folder in (FANTASY, CAMPAIGN))
        text = own.read_text() if own.exists() else base.read_text()
        if text.startswith("APPEND"):  # a campaign's file may only add to the base's
            text = base.read_text() + "\n" + text.removeprefix("APPEND")
        files[f"menus/{name}.txt"] = set_values(text, values)
    mod = home / ".local/share/flare/mods/scene"
    shutil.rmtree(mod, ignore_errors=True)
    shutil.copytree(BASE / "mod", mod)
    for name, text in files.items():
        (mod / name).parent.mkdir(parents=True, exist_ok=True)
        (mod / name).write_text(text)
    return bool(script)


def write_home(home: Path, scene: Scene, spot: tuple[int, int]) -> tuple[int, int]:
    """Write settings and a saved game that starts on the scene's spot with a full bag.

    Returns the window's width and height.
    """
    rng = scene.rng()
    width, height = (800, 600) if rng.random() < 0.3 else (640, 480)
    settings = {"resolution_w": width, "resolution_h": height}
    settings["statbar_labels"] = rng.choice([0, 1])
    rng = scene.rng()
    bag = [rng.randint(2, 60) if rng.random() < 0.6 else 0 for _ in range(40)]
    body = rng.choice(["female,head_long", "male,head_short"])
    hero = {
        "spawn": f"maps/{scene.map}.txt,{spot[0]},{spot[1]}",
        "xp": rng.choice([120_000, 300_000, 600_000]),  # for a hero who lives on
        "build": "30,20,20,60",
        "carried": ",".join(map(str, bag)),
        "carried_quantity": ",".join(str(min(item, 1)) for item in bag),
        "option": f"{body},images/portraits/{rng.choice(PORTRAITS)}.png",
    }
    config, save = home / ".config/flare", home / ".local/share/flare/saves/empyrean/1"
    shutil.rmtree(save.parent, ignore_errors=True)
    values = {config / "settings.txt": settings, save / "avatar.txt": hero}
    for path, changed in values.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(set_values((BASE / path.name).read_text(), changed))
    shutil.copy(BASE / "keybindings.txt", config)
    (config / "flare_lock").unlink(missing_ok=True)
    return width, height


class Player:
    """Runs the game on one virtual screen, in a home folder of its own."""

    def __init__(self, home: Path, display: str, shim: Path) -> None:
        self.home, self.shim, self.trigger = home, shim, home / "trigger"
        self.env = os.environ | {"HOME": str(home), "DISPLAY": display}
        self.env |= {"SDL_AUDIODRIVER": "dummy", "FLARE_SHIM_TRIGGER": self.trigger}

    def capture(self, scene: Scene) -> RawItem:
        """Play one scene and take it apart; raises ValueError when that fails."""
        rng = scene.rng()
        spot = rng.choice(quiet_spots(scene.map))
        has_script = write_mod(self.home, scene, spot)
        width, height = write_home(self.home, scene, spot)
        self.trigger.unlink(missing_ok=True)
        command = [str(GAME), "--renderer=sdl", "--no-audio", "--load-slot=1"]
        command += ["--mods=fantasycore,empyrean_campaign,scene"]
        command += ["--load-script=scripts/scene.txt"] * has_script
        env = self.env | {"LD_PRELOAD": str(self.shim)}
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        game = subprocess.Popen(command, env=env, cwd=self.home, **quiet)
        try:
            self.act(scene, (width, height), rng)
            # Ask the shim for the next frame and wait until all of it is written.
            self.trigger.write_text(f"{self.home / 'frame'}\n")
            deadline = time.monotonic() + 8
            while self.trigger.exists():
                if time.monotonic() > deadline:
                    raise ValueError("the game drew no frame")
                time.sleep(0.05)
        finally:
            game.kill()
            game.wait()
        meta = {"game": "flare", **asdict(scene), "window": f"{width}x{height}"}
        item = read_frame(f"{self.home}/frame", meta)
        if scene.kind in DIALOGS and not (item.classes == CLASS_IDS["dialog"]).any():
            raise ValueError("the talk was broken off")
        if item.world.mean() < 8:
            raise ValueError("only darkness there")
        return item

    def act(self, scene: Scene, size: tuple[int, int], rng: random.Random) -> None:
        """Wait for the world, open what the scene is about, place the mouse."""

        def control(*words: object) -> None:
            subprocess.run(["xdotool", *map(str, words)], env=self.env, check=True)

        width, height = size
        control("mousemove", width - 1, height - 1)
        time.sleep(4)
        for key in KEYS.get(scene.kind, ()):
            control("keydown", key)
            time.sleep(0.15)
            control("keyup", key)
            time.sleep(0.3)
        if scene.kind in (*DIALOGS, "hud") and rng.random() < 0.5:
            time.sleep(4)  # until the messages of the arrival have faded
        if scene.kind == "tooltip":
            control("mousemove", width - 200, height // 2 + 60)
        elif rng.random() < 0.7:
            across = rng.randint(width // 5, width * 4 // 5)
            control("mousemove", across, rng.randint(height // 5, height * 4 // 5))
        time.sleep(0.3 if scene.kind == "hud_enemy" else 1)


@contextmanager
def virtual_screen() -> Iterator[str]:
    """Run an X server without a monitor on a free display; gives the display's name."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        try:
            if not (display := server.stdout.readline().strip()):
                raise ValueError("Xvfb did not start; try it by hand")
            yield f":{display}"
        finally:
            server.terminate()


def need_tools() -> None:
    """Raise FileNotFoundError that says what is missing and how to install it."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    missing += [str(path) for path in (GAME, CAMPAIGN) if not path.exists()]
    if missing:
        install = f"on Debian: apt-get install {PACKAGES}"
        raise FileNotFoundError(f"missing: {', '.join(missing)}; {install}")


def capture_all(out: Path, count: int, seed: int, maps: list[str] | None) -> int:
    """Capture what OUT does not hold yet, and say how it went."""
    need_tools()
    names = sorted(path.stem for path in (CAMPAIGN / "maps").glob("*.txt"))
    if unknown := set(maps or []) - set(names):
        raise ValueError(f"--maps: the game has no {sorted(unknown)}, only {names}")
    maps = maps or [name for name in names if name not in NO_PLACES]
    scenes = deal_scenes(count, seed, maps)
    with tempfile.TemporaryDirectory() as home, virtual_screen() as display:
        shim = Path(home, "flare_shim.so")
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise ValueError(f"{SHIM} does not compile: {compiled.stderr}")
        player = Player(Path(home), display, shim)
        return save_missing(out, f"flare_{seed}", scenes, player.capture)


main = Command(capture_all)
main.add("out", Path, "folder for the raw items")
main.add("--count", int, "number of scenes", 150)
main.add("--seed", int, "what all is drawn from", 5)
main.add("--maps", str, "just these maps of the campaign", nargs="+")

if __name__ == "__main__":
    raise SystemExit(main())
