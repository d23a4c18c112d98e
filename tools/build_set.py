"""Choose and shrink raw items to the set of pairs in `test_inputs`.

    python -m tools.build_set RAW OUT --flare 80 --freedoom 40

RAW holds the folders that the two captures wrote. Bright pictures come first, no kind
of scene, map or view comes too often, and what does not qualify is counted.
"""

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.raw_item import CLASS_IDS, CLASS_NAMES, RawItem, load_item, save_classes

WIDTH, HEIGHT = 256, 224
KEPT_FILES = ("LICENSE.md",)

LEAST_UI, MOST_UI = 0.01, 0.82
# Mean grey of the world where it can be seen; below, a reader sees a black picture.
LEAST_GREY = 18
# Share of a dialogue box from which a stranger would call the picture a dialogue.
LEAST_DIALOG = 0.05
# The quotas of the kinds fill up in this many rounds, so none eats all the best maps.
ROUNDS = 6
# Two pictures whose thumbnails differ by less, in mean grey levels, look the same.
LEAST_DIFFERENCE = 9.0


@dataclass(frozen=True)
class Candidate:
    """One shrunk picture: image uint8 (H, W, 3), classes uint8 (H, W)."""

    name: str
    game: str
    scene: str
    map: str
    image: np.ndarray
    classes: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return self.classes > 0

    @property
    def ui_fraction(self) -> float:
        return float(self.mask.mean())

    @property
    def shows_dialog(self) -> bool:
        return (self.classes == CLASS_IDS["dialog"]).mean() >= LEAST_DIALOG

    @property
    def kind(self) -> str:
        """What the quotas count: any talk is a dialogue, whatever its scene's name."""
        return "dialog" if self.shows_dialog else self.scene

    @property
    def world_grey(self) -> float:
        return float(self.image[~self.mask].mean()) if not self.mask.all() else 0.0

    @property
    def thumbnail(self) -> np.ndarray:
        small = Image.fromarray(self.image).resize((32, 28), Image.Resampling.BOX)
        return np.asarray(small, dtype=float)


# --- Shrinking ------------------------------------------------------------------------


def choose_box(item: RawItem, rng: random.Random) -> tuple[int, int, int, int]:
    """Choose what to keep of a frame: all of it, or exactly twice the final size."""
    height, width = item.classes.shape
    if item.meta["game"] != "flare" or rng.random() < 0.5:
        return 0, 0, width, height
    free_x, free_y = width - 2 * WIDTH, height - 2 * HEIGHT
    left = rng.choice([0, free_x, rng.randint(0, free_x)])
    top = rng.choice([0, free_y, rng.randint(0, free_y)])
    return left, top, left + 2 * WIDTH, top + 2 * HEIGHT


def coverage(mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Tell how much of each small pixel a mask covers: float (HEIGHT, WIDTH), 0..1."""
    picture = Image.fromarray(mask.astype(np.float32)).crop(box)
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def shrink(item: RawItem, name: str) -> Candidate:
    """Shrink by area averages; a pixel is interface where half of it is covered."""
    box = choose_box(item, random.Random(name))
    image = Image.fromarray(item.image).crop(box)
    image = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    shares = [coverage(item.classes == k, box) for k in range(1, len(CLASS_NAMES))]
    classes = np.argmax(shares, axis=0) + 1
    classes[coverage(item.mask, box) < 0.5] = 0
    meta = item.meta
    return Candidate(
        name, meta["game"], meta["kind"], meta["map"], image, classes.astype(np.uint8)
    )


# --- Choosing -------------------------------------------------------------------------


def fault(candidate: Candidate) -> str | None:
    """Say why a picture cannot be used, or None."""
    if not LEAST_UI <= candidate.ui_fraction <= MOST_UI:
        return "too little or too much interface"
    if candidate.world_grey < LEAST_GREY:
        return "too dark"
    if candidate.scene.startswith("dialog") and not candidate.shows_dialog:
        return "hardly any dialogue in a dialogue scene"
    return None


def beauty(candidate: Candidate) -> float:
    """Rank pictures: bright ones first, and those with a third of interface."""
    share = candidate.ui_fraction
    return min(candidate.world_grey, 90) + 60 * (1 - abs(share - 1 / 3))


def looks_like_one_of(candidate: Candidate, chosen: Sequence[Candidate]) -> bool:
    """Tell whether a chosen picture is nearly the same."""
    thumbnail = candidate.thumbnail
    return any(
        np.abs(thumbnail - other.thumbnail).mean() < LEAST_DIFFERENCE
        for other in chosen
    )


def choose(
    candidates: Sequence[Candidate],
    number: int,
    quota: Callable[[str], int],
    per_map: int,
) -> list[Candidate]:
    """Take the best, all quotas filling evenly; raises ValueError if too few do."""
    ranked = sorted(candidates, key=beauty, reverse=True)
    chosen: list[Candidate] = []
    kinds: Counter[str] = Counter()
    maps: Counter[str] = Counter()
    for round_number in range(1, ROUNDS + 1):
        for candidate in ranked:
            if (
                len(chosen) < number
                and candidate not in chosen
                and kinds[candidate.kind]
                < quota(candidate.kind) * round_number / ROUNDS
                and maps[candidate.map] < per_map
                and not looks_like_one_of(candidate, chosen)
            ):
                chosen.append(candidate)
                kinds[candidate.kind] += 1
                maps[candidate.map] += 1
    if len(chosen) < number:
        raise ValueError(
            f"only {len(chosen)} of {number} pictures qualify among {len(ranked)} "
            f"({dict(kinds)}): capture more"
        )
    return chosen


def order(chosen: Sequence[Candidate], first: str | None) -> list[Candidate]:
    """Shuffle, but begin with the picture named, or else the clearest dialogue."""
    rest = sorted(chosen, key=lambda candidate: candidate.name)
    random.Random(1).shuffle(rest)
    dialogs = [candidate for candidate in rest if candidate.shows_dialog]
    if first:
        opening = next((c for c in rest if c.name == first), None)
        if opening is None:
            raise ValueError(f"--first {first}: not among the chosen pictures")
    else:
        opening = max((c for c in dialogs if 0.2 <= c.ui_fraction <= 0.35), key=beauty)
    rest.remove(opening)
    return [opening, *rest]


# --- Writing --------------------------------------------------------------------------


def write_pair(candidate: Candidate, number: int, out: Path) -> dict[str, object]:
    """Write one pair and its classes. Returns its entry in the index."""
    picture = Image.fromarray(candidate.image).quantize(
        256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    picture.save(out / f"{number}_input.png", optimize=True)
    target = Image.fromarray(candidate.mask.astype(np.uint8) * 255)
    target.save(out / f"{number}_target.jpg", quality=95)
    save_classes(candidate.classes, out / f"classes/{number}_classes.png")
    return {
        "id": number,
        "game": candidate.game,
        "scene": candidate.scene,
        "map": candidate.map,
        "ui_fraction": round(candidate.ui_fraction, 4),
        "classes": np.unique(candidate.classes).tolist(),
    }


def write_set(chosen: Sequence[Candidate], out: Path) -> None:
    """Write the whole set beside OUT and move it into place; OUT's licence stays."""
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "classes").mkdir(parents=True)
    items = [
        write_pair(candidate, number, beside)
        for number, candidate in enumerate(tqdm(chosen, unit="pair"), 1)
    ]
    index = {"class_names": CLASS_NAMES, "items": items}
    (beside / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for name in KEPT_FILES:
        if (out / name).exists():
            shutil.copy(out / name, beside)
    if out.exists():
        shutil.rmtree(out)
    beside.rename(out)


def read_candidates(raw: Path, rejected: Sequence[str]) -> list[Candidate]:
    """Shrink every raw item below a folder but those rejected by eye."""
    folders = sorted(path.parent for path in raw.rglob("meta.json"))
    if not folders:
        raise FileNotFoundError(f"{raw}: holds no raw items; capture some first")
    unknown = set(rejected) - {folder.name for folder in folders}
    if unknown:
        raise ValueError(f"--reject: no raw items of these names: {sorted(unknown)}")
    return [
        shrink(load_item(folder), folder.name)
        for folder in tqdm(folders, unit="item")
        if folder.name not in rejected
    ]


def check_out(out: Path, replace: bool) -> None:
    """Raise FileExistsError if OUT holds something and may not be replaced."""
    if out.exists() and any(out.iterdir()) and not replace:
        raise FileExistsError(f"{out} is not empty; pass --replace to write it anew")


def build(options: argparse.Namespace) -> str:
    """Build the set. Returns one line that sums it up."""
    check_out(options.out, options.replace)
    candidates = read_candidates(options.raw, options.reject)
    faults = Counter(filter(None, map(fault, candidates)))
    usable = [candidate for candidate in candidates if not fault(candidate)]

    def quota(kind: str) -> int:
        return options.dialogs if kind == "dialog" else options.per_kind

    chosen = []
    for game, number, per_map in (
        ("flare", options.flare, options.per_map),
        ("freedoom", options.freedoom, 1),
    ):
        of_game = [candidate for candidate in usable if candidate.game == game]
        chosen += choose(of_game, number, quota, per_map)
    chosen = order(chosen, options.first)
    write_set(chosen, options.out)
    maps = {(candidate.game, candidate.map) for candidate in chosen}
    dialogs = sum(candidate.shows_dialog for candidate in chosen)
    return (
        f"{len(chosen)} pairs of {len(maps)} maps, {dialogs} dialogues, the first from "
        f"{chosen[0].name}; left out: {dict(faults)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="build_set", description=__doc__)
    parser.add_argument("raw", type=Path, help="folder of raw items of both games")
    parser.add_argument("out", type=Path, help="folder to write, such as test_inputs")
    parser.add_argument("--flare", type=int, default=80, help="pictures of Flare")
    parser.add_argument("--freedoom", type=int, default=40, help="and of Freedoom")
    parser.add_argument("--dialogs", type=int, default=30, help="dialogues at most")
    parser.add_argument("--per-kind", type=int, default=6, help="of any other scene")
    parser.add_argument("--per-map", type=int, default=3, help="of one map of Flare")
    parser.add_argument("--first", help="raw item that becomes pair 1")
    parser.add_argument("--reject", nargs="+", default=[], help="raw items to leave")
    parser.add_argument("--replace", action="store_true", help="write OUT anew")
    options = parser.parse_args(argv)
    try:
        print(build(options))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
