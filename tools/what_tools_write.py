"""Run tools that write masks and list what is in their files: docs/what_tools_write.md.

python -m tools.what_tools_write                  # all of them, half an hour
python -m tools.what_tools_write --only tifffile  # its rows anew, the others stay

Each tool is installed in a temporary environment of its own, in the version stated
here, and gets three pictures: `p_both` shows a cat and a dog, `p_one` the dog alone,
`p_none` nothing. Then Pillow opens what it wrote. It is no part of CI.
"""

import re
import subprocess
import sysconfig
import tempfile
import venv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tools.command import Command

PAGE = Path(__file__).parent.parent / "docs" / "what_tools_write.md"
MARKS = "<!-- what was measured -->\n", "<!-- end of it -->\n"
HEAD = "tool", "written", "files", "mode", "cat, dog", "dog alone", "background"
HEAD += "other values (void)", "picture without objects"
CAT, DOG, CORNER = (8, 8), (10, 28), (0, 0)  # row and column inside each
LIMIT = 600  # seconds for installing and for running


@dataclass(frozen=True)
class Tool:
    """A tool by its package, what else to install, and the program that uses it."""

    package: str
    program: str
    more: tuple[str, ...] = ()
    borrowed: bool = False  # torch comes from this environment, and only `more` else

    @property
    def name(self) -> str:
        return self.package.replace("==", " ")


SCENE = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image

HEIGHT, WIDTH, PALETTE = 24, 40, [0, 0, 0, 128, 0, 0, 0, 128, 0]
BOXES = {"cat": (4, 4, 14, 16), "dog": (22, 6, 34, 18)}
HOLDS = {"p_both": ["cat", "dog"], "p_one": ["dog"], "p_none": []}

def out(*names):  # a folder of what is written
    folder = Path("out", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder

def mask(kind):
    x, y, right, bottom = BOXES[kind]
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[y:bottom, x:right] = True
    return found

def corners(kind):
    x, y, right, bottom = BOXES[kind]
    return [[x, y], [right, y], [right, bottom], [x, bottom]]

def ids(name):
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for kind in HOLDS[name]:
        found[mask(kind)] = 1 + list(BOXES).index(kind)
    return found

for name in HOLDS:
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 90)).save(f"{name}.png")
"""

DATUMARO = """
from datumaro.components.annotation import Mask, Polygon
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image as Media

for shape in "masks", "polygons":
    items = []
    for name, kinds in HOLDS.items():
        found = []
        for number, kind in enumerate(kinds, start=1):
            more = {"label": list(BOXES).index(kind), "id": number, "group": number}
            points = sum(corners(kind), [])
            one = Mask(mask(kind), **more) if shape == "masks" else None
            found.append(one or Polygon(points, **more))
        media = Media.from_file(path=f"{name}.png")
        item = DatasetItem(name, subset="train", media=media, annotations=found)
        items.append(item)
    for kind in ("voc_segmentation", "camvid", "cityscapes", "kitti_segmentation",
                 "coco_panoptic", "coco_instances", "yolo"):
        data = Dataset.from_iterable(items, categories=list(BOXES))
        data.export(str(out(f"{kind} of {shape}")), kind, save_media=False)
"""

LABELME = """
command = Path(sys.executable).with_name("labelme_export_json")
if not command.exists():
    raise SystemExit("has no command that exports any more")
for name, kinds in HOLDS.items():
    more = {"shape_type": "polygon", "group_id": None, "flags": {}}
    shapes = [{"label": k, "points": corners(k), **more} for k in kinds]
    page = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None,
            "imagePath": f"{name}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    Path(f"{name}.json").write_text(json.dumps(page))
    there = out("labelme_export_json", name)
    subprocess.run([command, f"{name}.json", "-o", there], check=True)
    for other in "img.png", "label_viz.png":  # pictures, no masks
        (there / other).unlink()
"""

LABEL_STUDIO = """
from label_studio_sdk.converter.brush import convert_task, mask2rle

for number, (name, kinds) in enumerate(HOLDS.items(), start=1):
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    results = [
        {"type": "brushlabels", "rle": mask2rle(255 * mask(kind).astype(np.uint8)),
         "brushlabels": [kind], **size}
        for kind in kinds
    ]
    item = {"id": number, "annotation_id": number, "completed_by": "me",
            "input": {"image": f"{name}.png"}, "output": {"tag": results}}
    convert_task(item, str(out("brush to PNG")), "png")
"""

CITYSCAPES = """
from cityscapesscripts.preparation.json2instanceImg import json2instanceImg
from cityscapesscripts.preparation.json2labelImg import json2labelImg

names = {"cat": "car", "dog": "person"}  # it knows a fixed list
for name, kinds in HOLDS.items():
    objects = [{"label": names[k], "polygon": corners(k)} for k in kinds]
    page = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
    Path(f"{name}.json").write_text(json.dumps(page))
    for kind in "ids", "trainIds", "color":
        json2labelImg(f"{name}.json", str(out(kind) / f"{name}.png"), kind)
    json2instanceImg(f"{name}.json", str(out("instances") / f"{name}.png"), "ids")
"""

TIFFFILE = """
import tifffile

for name in HOLDS:
    tifffile.imwrite(out("imwrite of bool") / f"{name}.tif", ids(name) > 0)
    tifffile.imwrite(out("imwrite of uint8") / f"{name}.tif", ids(name))
"""

IMAGEIO = TIFFFILE.replace("tifffile", "imageio.v3").replace(".tif", ".png")

PILLOW = """
for name in HOLDS:
    mapped = Image.fromarray(ids(name))
    mapped.putpalette(PALETTE)
    mapped.save(out("mode P as PNG") / f"{name}.png")
    mapped.save(out("mode P, optimize=True") / f"{name}.png", optimize=True)
    mapped.save(out("mode P as GIF") / f"{name}.gif")
    mapped.convert("RGB").quantize(3).save(out("RGB, quantize(3)") / f"{name}.png")
"""

OXIPNG = """
import oxipng

for name in HOLDS:
    mapped = Image.fromarray(ids(name))
    mapped.save(out("optimize of grey") / f"{name}.png")
    mapped.putpalette(PALETTE)
    mapped.save(out("optimize of mode P") / f"{name}.png")
    for folder in Path("out").iterdir():
        oxipng.optimize(folder / f"{name}.png")
"""

PYCOCOTOOLS = """
from pycocotools import mask as rle

for name, kinds in HOLDS.items():
    codes = [rle.encode(np.asfortranarray(mask(kind), np.uint8)) for kind in kinds]
    found = [{"size": c["size"], "counts": c["counts"].decode()} for c in codes]
    (out("mask.encode") / f"{name}.json").write_text(json.dumps(found))
"""

SUPERVISION = """
import supervision as sv

found, pictures = {}, [f"{name}.png" for name in HOLDS]
for name, kinds in HOLDS.items():
    boxes = np.array([BOXES[kind] for kind in kinds], float).reshape(-1, 4)
    shapes = np.array([mask(k) for k in kinds]).reshape(-1, HEIGHT, WIDTH)
    numbers = np.array([list(BOXES).index(kind) for kind in kinds], int)
    found[f"{name}.png"] = sv.Detections(boxes, shapes, class_id=numbers)
data = sv.DetectionDataset(list(BOXES), pictures, found)
data.as_pascal_voc(annotations_directory_path=str(out("as_pascal_voc")))
data.as_yolo(annotations_directory_path=str(out("as_yolo")))
data.as_coco(annotations_path=str(out("as_coco") / "labels.json"))
"""

ULTRALYTICS = """
from ultralytics.data.converter import convert_segment_masks_to_yolo_seg

Path("masks").mkdir()
for name in HOLDS:
    Image.fromarray(ids(name)).save(f"masks/{name}.png")
there = out("convert_segment_masks_to_yolo_seg")
convert_segment_masks_to_yolo_seg("masks", str(there), classes=2)
"""

CELLPOSE = """
from cellpose import io

for name in HOLDS:
    picture, there = np.array(Image.open(f"{name}.png")), str(out("io.save_masks"))
    io.save_masks(picture, ids(name), [None] * 3, f"{name}.png", savedir=there)
"""

IMAGES = ("numpy==2.3.5", "pillow==12.0.0")
OPENCV = ("numpy==2.2.6", "pillow==13.0.0", "opencv-python-headless==4.12.0.88")
CELLS = ("scipy==1.17.1", "natsort==8.4.0", "tifffile==2026.3.3", "tqdm==4.70.1")
CELLS += ("fastremap==1.21.0", "fill-voids==2.1.2", "roifile==2026.2.10")
YOLO = ("pyyaml==6.0.4", "requests==2.34.2", "psutil==7.2.2")
TOOLS = (
    Tool("datumaro==1.13.12", DATUMARO),
    Tool("labelme==5.5.0", LABELME),
    Tool("labelme==6.3.1", LABELME, borrowed=True),
    Tool("label-studio-sdk==2.1.2", LABEL_STUDIO),
    Tool("cityscapesscripts==2.3.0", CITYSCAPES, ("pillow==12.3.0",)),  # see findings/
    Tool("tifffile==2026.3.3", TIFFFILE, IMAGES),
    Tool("imageio==2.37.2", IMAGEIO, IMAGES),
    Tool("pillow==12.0.0", PILLOW, IMAGES[:1]),
    Tool("pyoxipng==9.1.1", OXIPNG, IMAGES),
    Tool("pycocotools==2.0.11", PYCOCOTOOLS, IMAGES),
    Tool("supervision==0.31.2", SUPERVISION),
    Tool("ultralytics==8.4.190", ULTRALYTICS, (*OPENCV, *YOLO), borrowed=True),
    Tool("cellpose==4.2.1.1", CELLPOSE, (*OPENCV, *CELLS), borrowed=True),
)


def run_tool(tool: Tool, place: Path) -> Path:
    """Install a tool, let it write, give the folder; ValueError with its last line."""
    venv.create(place / "env", with_pip=True)
    python, scratch = place / "env/bin/python", place / "scratch"
    (scratch / "out").mkdir(parents=True)
    if tool.borrowed:  # behind what is installed
        library = next((place / "env").rglob("site-packages"))
        (library / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib"))
    bare = ["--no-deps"] * tool.borrowed
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", *bare]
    options = {"cwd": scratch, "capture_output": True, "text": True}
    for words in [*install, tool.package, *tool.more], ["-c", SCENE + tool.program]:
        done = subprocess.run([python, *words], timeout=LIMIT, **options)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it failed"]
            raise ValueError(lines[-1][:200])
    return scratch / "out"


def shown(value: np.ndarray) -> str:
    return str(value.tolist()) if value.ndim else str(int(value))


def read_picture(path: Path) -> tuple[str, np.ndarray]:
    """Open a picture with Pillow: its mode in words, and its values."""
    with Image.open(path) as picture:
        mode = picture.mode
        if picture.mode == "P":
            mode += f", palette of {len(picture.getpalette()) // 3}"
        if path.suffix == ".tif" and picture.tag_v2[262] == 0:
            mode += ", white is zero"
        return mode, np.array(picture)


def look_at(folder: Path) -> Iterator[list[str]]:
    """Give the cells of each row about what one call wrote, but the tool's name."""
    groups = defaultdict(dict)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if key := re.search("p_both|p_one|p_none", name):
            groups[name.replace(key[0], "{key}")][key[0]] = path
        else:  # one file per object
            place = re.sub(r"\d+", "N", re.sub("cat|dog", "{class}", name))
            groups[place][len(groups[place])] = path
    kinds = {".png", ".tif", ".gif"}
    pictures = {place: g for place, g in groups.items() if Path(place).suffix in kinds}
    for place, group in pictures.items():
        seen = {key: read_picture(path) for key, path in group.items()}
        modes = "; ".join(dict.fromkeys(mode for mode, _ in seen.values()))
        values = {key: pixels for key, (_, pixels) in seen.items()}
        if "p_both" not in seen:
            every = sorted({shown(v) for a in values.values() for v in a.ravel()})
            cells = [f"{', '.join(every)} in {len(seen)} files", "", "", ""]
            yield [folder.name, place, modes, *cells, "no file"]
            continue
        both, alone, nothing = values["p_both"], "no file", "no file"
        *objects, ground = points = [shown(both[at]) for at in (CAT, DOG, CORNER)]
        every = {shown(v) for v in both.reshape(-1, *both.shape[2:])}
        others = ", ".join(sorted(every - {*points})) or "none"
        if "p_one" in seen:
            alone = shown(values["p_one"][DOG])
        if "p_none" in seen:
            none = values["p_none"]
            nothing = f"a file, all {shown(none[CORNER])}"
            if (none != none[CORNER]).any():
                nothing = "a file of several values"
        cells = [", ".join(objects), alone, ground, others, nothing]
        yield [folder.name, place, modes, *cells]
    if not pictures:
        places = [place for place, group in groups.items() if "p_both" in group]
        places = places or [p for p in groups if Path(p).suffix in {".json", ".xml"}]
        nothing = "no picture, as for all"
        for path in (g["p_none"] for g in groups.values() if "p_none" in g):
            nothing = f"a text file of {path.stat().st_size} bytes"
        places = ", ".join(sorted(places)) or "lists of names alone"
        yield [folder.name, places, "no picture", "", "", "", "", nothing]


def measure(tool: Tool) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as place:
        try:
            folder = run_tool(tool, Path(place))
        except (ValueError, subprocess.TimeoutExpired) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            text = f"over {LIMIT} seconds" if late else str(error)
            return [[tool.name, f"nothing: {text}", *[""] * (len(HEAD) - 2)]]
        calls = sorted(folder.iterdir())
        return [[tool.name, *cells] for one in calls for cells in look_at(one)]


def as_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def update_page(page: Path, rows: dict[str, list[str]]) -> None:
    """Put rows of tools into the page's table; those of other tools stay."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    old, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise ValueError(f"{page}: expected the lines {MARKS[0]!r} and {MARKS[1]!r}")
    kept: dict[str, list[str]] = defaultdict(list)
    for line in old.splitlines(keepends=True)[2:]:
        kept[line.split("|")[1].strip()].append(line)
    kept |= rows
    lines = [as_row(HEAD), as_row(["---"] * len(HEAD))]
    lines += [line for tool in TOOLS for line in kept.get(tool.name, [])]
    text = "".join([before, MARKS[0], *lines, MARKS[1], after])
    page.write_text(text, encoding="utf-8")


def write_table(page: Path, only: list[str]) -> None:
    """Run the tools and write their rows, each as soon as it is known."""
    for tool in TOOLS:
        if not only or tool.package.partition("==")[0] in only:
            rows = [as_row(cells) for cells in measure(tool)]
            update_page(page, {tool.name: rows})
            print(f"{tool.name}: {len(rows)} rows")


main = Command(write_table)
main.add("--page", Path, "whose table is written", PAGE)
packages = {tool.package.partition("==")[0] for tool in TOOLS}
main.add("--only", str, "what to run", [], nargs="*", choices=sorted(packages))

if __name__ == "__main__":
    raise SystemExit(main())
