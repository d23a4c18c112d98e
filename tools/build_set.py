"""Choose and shrink raw items to the set of pairs in `test_inputs`.

    python -m tools.build_set RAW OUT --flare 80 --freedoom 40

RAW holds the folders that the two captures wrote. Bright pictures come first, no kind
of scene, map or view comes too often, and what does not qualify is counted.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from tools.command import Command, new_folder
from tools.raw_item import CLASS_IDS, CLASS_NAMES, RawItem, load_item, save_targets
from ui_segmentation_system import overlay

WIDTH, HEIGHT = 256, 224
LEAST_UI, MOST_UI = 0.01, 0.82
LEAST_GREY = 18  # of the world where it is seen; below, a reader sees a black picture
LEAST_DIALOG = 0.05  # share of its box from which a picture is called a dialogue
PER_MAP = {"flare": 3, "freedoom": 1}  # pictures of one map at most
ROUNDS = 6  # in which the quotas of the kinds fill up: none eats all the best maps
LEAST_DIFFERENCE = 9.0  # between thumbnails, mean grey levels: else they look the same


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
    def fault(self) -> str | None:
        """Why the picture cannot be used, or None."""
        if not LEAST_UI <= self.ui_fraction <= MOST_UI:
            return "too little or too much interface"
        if self.world_grey < LEAST_GREY:
            return "too dark"
        if self.scene.startswith("dialog") and not self.shows_dialog:
            return "hardly any dialogue in a dialogue scene"
        return None

    @property
    def beauty(self) -> float:
        """How far up it comes: bright ones, and those with a third of interface."""
        return min(self.world_grey, 90) + 60 * (1 - abs(self.ui_fraction - 1 / 3))

    def looks_like(self, other: "Candidate") -> bool:
        pictures = (Image.fromarray(image) for image in (self.image, other.image))
        small = [picture.resize((32, 28), Image.Resampling.BOX) for picture in pictures]
        return np.abs(np.subtract(*small, dtype=float)).mean() < LEAST_DIFFERENCE


def coverage(mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Tell how much of each small pixel a mask covers: float (HEIGHT, WIDTH), 0..1."""
    picture = Image.fromarray(mask.astype(np.float32)).crop(box)
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def shrink(item: RawItem, name: str) -> Candidate:
    """Shrink by area averages; a pixel is interface where half of it is covered.

    All of a frame is kept, or of every other frame of Flare twice the final size.
    """
    rng, (height, width) = random.Random(name), item.classes.shape
    box = (0, 0, width, height)
    if item.meta["game"] == "flare" and rng.random() >= 0.5:
        free_x, free_y = width - 2 * WIDTH, height - 2 * HEIGHT
        left = rng.choice([0, free_x, rng.randint(0, free_x)])
        top = rng.choice([0, free_y, rng.randint(0, free_y)])
        box = (left, top, left + 2 * WIDTH, top + 2 * HEIGHT)
    image = Image.fromarray(item.image).crop(box)
    image = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    shares = [coverage(item.classes == k, box) for k in range(1, len(CLASS_NAMES))]
    classes = (np.argmax(shares, axis=0) + 1).astype(np.uint8)
    classes[coverage(item.mask, box) < 0.5] = 0
    facts = (item.meta[key] for key in ("game", "kind", "map"))
    return Candidate(name, *facts, image, classes)


def choose(
    candidates: Sequence[Candidate], number: int, quotas: tuple[int, int], per_map: int
) -> list[Candidate]:
    """Take the best, all quotas filling evenly; raises ValueError if too few do.

    quotas: how many dialogues at most, and how many of any other kind.
    """
    ranked = sorted(candidates, key=lambda candidate: candidate.beauty, reverse=True)
    chosen: list[Candidate] = []
    kinds: Counter[str] = Counter()
    maps: Counter[str] = Counter()
    for round_number in range(1, ROUNDS + 1):
        for candidate in ranked:
            quota = quotas[candidate.kind != "dialog"] * round_number / ROUNDS
            if (
                len(chosen) < number
                and kinds[candidate.kind] < quota
                and maps[candidate.map] < per_map
                and not any(map(candidate.looks_like, chosen))  # nor is chosen itself
            ):
                chosen.append(candidate)
                kinds[candidate.kind] += 1
                maps[candidate.map] += 1
    if len(chosen) < number:
        found = f"only {len(chosen)} of {number} pictures qualify among {len(ranked)}"
        raise ValueError(f"{found} ({dict(kinds)}): capture more")
    return chosen


def write_pair(candidate: Candidate, number: int, out: Path) -> dict[str, object]:
    """Write one pair and its classes. Returns its entry in the index."""
    picture = Image.fromarray(candidate.image).quantize(
        256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    picture.save(out / f"{number}_input.png", optimize=True)
    save_targets(candidate.classes, out, number)
    facts = {name: getattr(candidate, name) for name in ("game", "scene", "map")}
    facts["ui_fraction"] = round(candidate.ui_fraction, 4)
    return {"id": number, **facts, "classes": np.unique(candidate.classes).tolist()}


def draw_sheet(candidates: Sequence[Candidate]) -> Image.Image:
    """Draw picture, mask and overlay of each, two in a row, under their names."""
    rows = -(-len(candidates) // 2)
    sheet = Image.new("RGB", (2 * 3 * WIDTH, rows * (HEIGHT + 12)), "white")
    for number, candidate in enumerate(candidates):
        left, top = number % 2 * 3 * WIDTH, number // 2 * (HEIGHT + 12)
        ImageDraw.Draw(sheet).text((left, top), candidate.name, fill="black")
        image, mask = Image.fromarray(candidate.image), Image.fromarray(candidate.mask)
        for place, shown in enumerate((image, mask, overlay(image, candidate.mask))):
            sheet.paste(shown, (left + place * WIDTH, top + 12))
    return sheet


def build(
    raw: Path, out: Path, first: str, sheet: Path | None, reject: list[str], **most: int
) -> None:
    """Build the whole set in a new folder; most: how many of what, as the options."""
    folders = sorted(path.parent for path in raw.rglob("meta.json"))
    if not folders:
        raise FileNotFoundError(f"{raw}: holds no raw items; capture some first")
    unknown = set(reject) - {folder.name for folder in folders}
    if unknown:
        raise ValueError(f"--reject: no raw items of these names: {sorted(unknown)}")
    folders = [folder for folder in folders if folder.name not in reject]
    candidates = [shrink(load_item(f), f.name) for f in tqdm(folders, unit="item")]
    faults = Counter(candidate.fault for candidate in candidates if candidate.fault)
    quotas, chosen = (most["dialogs"], most["per_kind"]), []
    for game, per_map in PER_MAP.items():
        usable = [c for c in candidates if c.game == game and not c.fault]
        chosen += choose(usable, most[game], quotas, per_map)
    chosen.sort(key=lambda candidate: candidate.name)
    random.Random(1).shuffle(chosen)
    if first and first not in [candidate.name for candidate in chosen]:
        raise ValueError(f"--first {first}: not among the chosen pictures")
    chosen.sort(key=lambda candidate: candidate.name != first)
    with new_folder(out) as part:
        items = [write_pair(c, n, part) for n, c in enumerate(tqdm(chosen), 1)]
        index = {"class_names": CLASS_NAMES, "items": items}
        (part / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for start in range(0, len(chosen) if sheet else 0, 24):
        page = draw_sheet(chosen[start : start + 24])
        page.save(sheet.with_stem(f"{sheet.stem}_{start + 1}"))
    maps = {(candidate.game, candidate.map) for candidate in chosen}
    talks = sum(candidate.shows_dialog for candidate in chosen)
    print(f"{len(chosen)} pairs of {len(maps)} maps, {talks} dialogues, ", end="")
    print(f"the first from {chosen[0].name}; left out: {dict(faults)}")


main = Command(build)
main.add("raw", Path, "folder of raw items of both games")
main.add("out", Path, "folder to write, not there yet")
main.add("--flare", int, "pictures of Flare", 80)
main.add("--freedoom", int, "and of Freedoom", 40)
main.add("--dialogs", int, "dialogues at most", 30)
main.add("--per-kind", int, "of any other scene", 6)
main.add("--first", str, "raw item that becomes pair 1", "")
main.add("--reject", str, "raw items to leave", [], nargs="+")
main.add("--sheet", Path, "PNG for sheets of 24 pairs, to look at each")

if __name__ == "__main__":
    raise SystemExit(main())
