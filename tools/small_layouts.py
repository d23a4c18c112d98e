"""Write small sets in the formats of CIFAR-10 and Pascal VOC, to learn their layouts.

The pictures are those of `tools.silhouettes`; files, names and types are those of the
real sets, so that what reads these reads those.
"""

import hashlib
import itertools
import pickle
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tools.command import check_range, new_folder
from tools.drawing import Draws
from tools.silhouettes import CIFAR_CLASSES, Edges, draw_scene
from ui_segmentation_system import VOC_CLASSES

CIFAR_SIZE = (32, 32)
CIFAR_BATCHES = {f"data_batch_{n}": f"training batch {n} of 5" for n in range(1, 6)}
CIFAR_BATCHES["test_batch"] = "testing batch 1 of 1"
# What the real set has; sets of different seeds share no picture.
MAX_PER_CLASS = 1_000
MAX_IMAGES = 99_999

VOC_SIZES = ((250, 188), (250, 167), (188, 250), (250, 166))  # half of most of VOC's
VOC_NAMES = {"airplane": "aeroplane", "automobile": "car", "ship": "boat"}
SHAPE_NAMES = {VOC_NAMES.get(name, name): name for name in CIFAR_CLASSES}
SHARED = tuple(name for name in SHAPE_NAMES if name in VOC_CLASSES)  # as VOC has it
OTHERS = ("person", "bottle", "pottedplant")  # that CIFAR-10 has not
NUM_KINDS = 6  # of contents: see `voc_contents`
# Where the parts of a person are, as shares of its width and height.
FEET = ("foot", (0.25, 0.88, 0.50, 1.00)), ("foot", (0.50, 0.88, 0.75, 1.00))
PARTS = (("head", (0.30, 0.00, 0.70, 0.29)), *FEET)


def as_python2(value: Any) -> bytes:
    """Pickle a value, without start and stop, as the Python 2 that wrote CIFAR-10 did.

    Its strings were neither `bytes` nor `str` of today: `encoding` in `pickle.load`
    says what they become, "latin1" `str` and "bytes" `bytes`. Python 3 writes none.
    """
    if isinstance(value, bytes):
        return pickle.BINSTRING + struct.pack("<i", len(value)) + value
    if isinstance(value, dict):
        inside = b"".join(map(as_python2, itertools.chain(*value.items())))
        return pickle.MARK + inside + pickle.DICT
    if isinstance(value, list):
        return pickle.MARK + b"".join(map(as_python2, value)) + pickle.LIST
    whole = pickle.dumps(value, protocol=2)
    return whole.removeprefix(pickle.PROTO + b"\x02").removesuffix(pickle.STOP)


def cifar_batch(label: str, per_class: int, first: int) -> dict[bytes, Any]:
    """Draw a batch of CIFAR-10; the seeds of its pictures count from `first`."""
    every = [number for number in range(len(CIFAR_CLASSES)) for _ in range(per_class)]
    labels = Draws(first).sample(every, len(every))
    rows, files = [], []  # a row: a picture's red, then green, then blue plane
    for place, name in enumerate(CIFAR_CLASSES[number] for number in labels):
        picture, _ = draw_scene((name,), first + place, CIFAR_SIZE)
        rows.append(np.asarray(picture).transpose(2, 0, 1).ravel())
        files.append(f"{name}_s_{place + 1:06d}.png".encode())
    texts = {b"batch_label": label.encode(), b"filenames": files}
    return texts | {b"labels": labels, b"data": np.stack(rows)}


def write_cifar10(
    folder: Path | str, per_class_per_batch: int = 4, seed: int = 1
) -> dict[str, str]:
    """Write a small CIFAR-10 into folder/cifar-10-batches-py.

    Five training batches and one to test, each with `per_class_per_batch` pictures of
    every class (1,000 in the real set). Returns the md5 sum of each file: torchvision
    unpickles a file, and with it any code inside, only if its class lists the sum.
    """
    check_range("per_class_per_batch", per_class_per_batch, 1, MAX_PER_CLASS)
    check_range("seed", seed, 0)
    num = per_class_per_batch * len(CIFAR_CLASSES)
    first = seed * (MAX_IMAGES + 1)
    files: dict[str, dict[bytes, Any]] = {
        name: cifar_batch(label, per_class_per_batch, first + place * num)
        for place, (name, label) in enumerate(CIFAR_BATCHES.items())
    }
    files["batches.meta"] = {
        b"num_cases_per_batch": num,
        b"label_names": [name.encode() for name in CIFAR_CLASSES],
        b"num_vis": 3 * CIFAR_SIZE[0] * CIFAR_SIZE[1],
    }
    sums = {}
    with new_folder(Path(folder) / "cifar-10-batches-py") as part:
        for name, value in files.items():
            content = pickle.PROTO + b"\x02" + as_python2(value) + pickle.STOP
            (part / name).write_bytes(content)
            sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return sums


def voc_contents(number: int) -> tuple[str, ...]:
    """Say what is in image `number`, as VOC calls it."""
    first, second = (SHARED[n % len(SHARED)] for n in (number, number + 3))
    other = OTHERS[number // NUM_KINDS % len(OTHERS)]
    # One shared thing, twice; beside another thing; two; two alike; others only.
    kinds = ((first,), (first,), (first, other), (first, second), (first, first))
    return (*kinds, (other, OTHERS[0]))[number % NUM_KINDS]


def tags(**content: str | int) -> str:
    """Write XML: each value between the two tags of its name."""
    return "".join(f"<{name}>{value}</{name}>" for name, value in content.items())


def voc_box(edges: Sequence[float]) -> str:
    """Write edges as VOC does: counted from 1, the last pixel included."""
    left, top, right, bottom = map(round, edges)
    return tags(bndbox=tags(xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom))


def voc_object(name: str, edges: Edges) -> str:
    """Describe an object; a person also has parts, with names of their own."""
    inside = tags(name=name, pose="Unspecified", truncated=0, difficult=0)
    inside += voc_box(edges)
    corner, size = np.array(edges[:2]), np.subtract(edges[2:], edges[:2])
    for part, shares in PARTS if name == "person" else ():
        box = corner[[0, 1, 0, 1]] + size[[0, 1, 0, 1]] * shares
        inside += tags(part=tags(name=part) + voc_box(box.tolist()))
    return tags(object=inside)


def save_voc_image(folder: Path, key: str, names: Sequence[str], seed: int) -> None:
    """Draw an image of VOC and write it with its annotation."""
    size = Draws(seed).choice(VOC_SIZES)
    shapes = [SHAPE_NAMES.get(name, name) for name in names]
    picture, edges = draw_scene(shapes, seed, size)
    picture.save(folder / "JPEGImages" / f"{key}.jpg", quality=85)
    source = tags(database="Drawn by tools.small_layouts")
    source += tags(annotation=f"PASCAL {folder.name}", image="drawn")
    shape = tags(width=size[0], height=size[1], depth=3)
    facts = tags(folder=folder.name, filename=f"{key}.jpg", source=source, size=shape)
    objects = "".join(map(voc_object, names, edges))
    root = ElementTree.fromstring(tags(annotation=facts + tags(segmented=0) + objects))
    ElementTree.indent(root, "\t")
    text = ElementTree.tostring(root, encoding="unicode") + "\n"
    (folder / "Annotations" / f"{key}.xml").write_text(text, encoding="utf-8")


def save_voc_sets(folder: Path, contents: dict[str, tuple[str, ...]]) -> None:
    """Write train, val and trainval, and for each class which images have it."""
    keys = list(contents)  # by sixes, so that both halves hold every kind of contents
    train = [key for n, key in enumerate(keys) if n // NUM_KINDS % 2 == 0]
    val = [key for key in keys if key not in train]
    for name, chosen in {"train": train, "val": val, "trainval": keys}.items():
        texts = {name: chosen}
        for voc_class in VOC_CLASSES:
            flags = (1 if voc_class in contents[key] else -1 for key in chosen)
            lines = [f"{k} {flag:2d}" for k, flag in zip(chosen, flags, strict=True)]
            texts[f"{voc_class}_{name}"] = lines
        for file, lines in texts.items():
            (folder / f"{file}.txt").write_text("\n".join([*lines, ""]))


def write_voc(
    folder: Path | str, year: str | int = "2012", num_images: int = 84, seed: int = 1
) -> None:
    """Write a small Pascal VOC into folder/VOCdevkit/VOC<year>.

    Half of the images are in train, half in val. Three in six hold one thing of
    `SHARED`, two hold two and one none; other things stand beside them. With 84 images
    each of the seven shared classes has each kind once in train and once in val.
    """
    if not re.fullmatch(r"20\d\d", str(year)):
        raise ValueError(f"year {year!r}: expected four digits, such as 2012")
    check_range("num_images", num_images, 2 * NUM_KINDS, MAX_IMAGES)
    check_range("seed", seed, 0)
    contents = {f"{year}_{n + 1:06d}": voc_contents(n) for n in range(num_images)}
    with new_folder(Path(folder) / "VOCdevkit" / f"VOC{year}") as part:
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (part / name).mkdir(parents=True)
        for number, (key, names) in enumerate(contents.items()):
            save_voc_image(part, key, names, seed * (MAX_IMAGES + 1) + number)
        save_voc_sets(part / "ImageSets/Main", contents)
