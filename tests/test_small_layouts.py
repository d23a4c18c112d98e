"""Small sets in the formats of CIFAR-10 and VOC, read by torchvision's own classes."""

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, VOCDetection

from tests.conftest import file_bytes
from tools import silhouettes, small_layouts
from tools.silhouettes import CIFAR_CLASSES, SHAPES, draw_scene
from tools.small_layouts import SHARED, write_cifar10, write_voc
from ui_segmentation_system import VOC_CLASSES

REAL_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog")
REAL_CLASSES += ("horse", "ship", "truck")
BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
TREE = "VOCdevkit/VOC2012"
Cifar = tuple[Path, dict[str, str]]


def edges_of(box: ElementTree.Element) -> list[int]:
    return [int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    folder = tmp_path_factory.mktemp("cifar")
    return folder, write_cifar10(folder, 2, seed=3)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    with patch.object(silhouettes, "OVERSAMPLING", 1):  # quick
        write_voc(folder, num_images=84, seed=3)
    return folder


def test_torchvision_reads_cifar10(cifar: Cifar) -> None:
    folder, sums = cifar
    lists = {  # with these its class expects the small files instead of the real ones
        "train_list": [[name, sums[name]] for name in BATCHES[:5]],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": CIFAR10.meta | {"md5": sums["batches.meta"]},
    }
    pictures = set()
    for train, num_batches in ((True, 5), (False, 1)):
        dataset = type("SmallCIFAR10", (CIFAR10,), lists)(folder, train)
        assert tuple(dataset.classes) == REAL_CLASSES
        assert dataset.data.shape == (20 * num_batches, 32, 32, 3)
        assert Counter(dataset.targets) == dict.fromkeys(range(10), 2 * num_batches)
        assert sorted(dataset.targets[:20]) != dataset.targets[:20]
        pictures |= {picture.tobytes() for picture in dataset.data}
        first = 3 * 100_000 + (0 if train else 100)
        for place in (0, 7, 19):
            image, target = dataset[place]
            drawn, _ = draw_scene((REAL_CLASSES[target],), first + place, (32, 32))
            assert image.tobytes() == drawn.tobytes()
    assert len(pictures) == 120


@pytest.mark.parametrize(("encoding", "kind"), [("bytes", bytes), ("latin1", str)])
def test_pickles_hold_what_the_real_ones_hold(
    cifar: Cifar, encoding: str, kind: type
) -> None:
    as_read = str if kind is str else str.encode
    folder, sums = cifar
    files = file_bytes(folder / "cifar-10-batches-py")
    assert sums == {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    read = {name: pickle.loads(files[name], encoding=encoding) for name in files}
    assert read.pop("batches.meta") == {
        as_read("num_cases_per_batch"): 20,
        as_read("num_vis"): 3072,
        as_read("label_names"): [as_read(name) for name in REAL_CLASSES],
    }
    assert sorted(read) == BATCHES
    for number, name in enumerate(BATCHES, 1):
        keys = map(as_read, ("batch_label", "labels", "data", "filenames"))
        label, labels, data, names = (read[name].pop(key) for key in keys)
        assert not read[name]
        training = f"training batch {number} of 5"
        assert label == as_read(training if number < 6 else "testing batch 1 of 1")
        assert (data.shape, data.dtype) == ((20, 3072), np.uint8)
        assert {type(value) for value in labels} == {int}
        assert {type(file) for file in names} == {kind}
        assert len(set(names)) == len(labels) == 20


@patch.object(silhouettes, "OVERSAMPLING", 1)
def test_same_seed_same_files_and_nothing_is_overwritten(tmp_path: Path) -> None:
    seeds = {"first": 1, "again": 1, "other": 2}
    for name, seed in seeds.items():
        write_cifar10(tmp_path / name, 1, seed)
        write_voc(tmp_path / name, 2007, 12, seed)
    mine, again, theirs = (file_bytes(tmp_path / name) for name in seeds)
    assert mine == again
    pictures = [name for name in mine if name.endswith("jpg") or "batch_" in name]
    assert len(pictures) == 12 + 5
    assert all(mine[name] != theirs[name] for name in pictures)
    assert len(VOCDetection(tmp_path / "first", "2007", "train")) == 6
    for write, year, place in (
        (write_cifar10, {}, "cifar-10-batches-py"),
        (write_voc, {"year": 2007}, "VOC2007"),
    ):
        with pytest.raises(FileExistsError, match=f"{place}: expected a folder"):
            write(tmp_path / "first", seed=2, **year)
    assert file_bytes(tmp_path / "first") == mine


def test_annotations_have_vocs_form(voc: Path) -> None:
    for path in (voc / TREE / "Annotations").iterdir():
        root = ElementTree.parse(path).getroot()
        facts = [child.tag for child in root if child.tag != "object"]
        assert facts == ["folder", "filename", "source", "size", "segmented"]
        assert root.findtext("filename") == f"{path.stem}.jpg"
        source = [child.tag for child in root.find("source")]
        assert source == ["database", "annotation", "image"]
        assert root.find("object")
        for thing in root.findall("object"):
            tags = [child.tag for child in thing if child.tag != "part"]
            assert tags == ["name", "pose", "truncated", "difficult", "bndbox"]
            parts = [part.findtext("name") for part in thing.findall("part")]
            is_person = thing.findtext("name") == "person"
            assert parts == (["head", "foot", "foot"] if is_person else [])
            outer = edges_of(thing.find("bndbox"))
            for box in thing.iterfind("part/bndbox"):
                left, top, right, bottom = edges_of(box)
                assert outer[0] <= left < right <= outer[2]
                assert outer[1] <= top < bottom <= outer[3]
        start = "<annotation>\n\t<folder>VOC2012</folder>\n"
        assert path.read_text().startswith(start)


def test_sets_say_which_images_have_a_class_and_hold_every_kind(voc: Path) -> None:
    paths = (voc / TREE).glob("ImageSets/Main/*.txt")
    sets = {path.stem: path.read_text() for path in paths}
    assert len(sets) == 3 * 21
    halves = sets["train"].split() + sets["val"].split()
    assert sorted(halves) == sets["trainval"].split()
    assert set(halves) == {path.stem for path in (voc / TREE).glob("JPEGImages/*.jpg")}
    assert SHARED == ("aeroplane", "car", "bird", "cat", "dog", "horse", "boat")
    one, two, alike, none = (1, 1, False), (2, 2, False), (2, 1, False), (0, 0, True)
    wanted = {one: 14, (1, 1, True): 7, two: 7, alike: 7, none: 7}
    for image_set, times in (("train", 1), ("val", 1), ("trainval", 2)):
        kinds: Counter[tuple[int, int, bool]] = Counter()
        singles: Counter[str] = Counter()
        lines = dict.fromkeys(VOC_CLASSES, "")
        for image, target in VOCDetection(voc, "2012", image_set):
            facts = target["annotation"]
            size = int(facts["size"]["width"]), int(facts["size"]["height"])
            assert image.size == size in small_layouts.VOC_SIZES
            assert (facts["size"]["depth"], facts["folder"]) == ("3", "VOC2012")
            names = [thing["name"] for thing in facts["object"]]
            shared = [name for name in names if name in SHARED]
            kinds[len(shared), len(set(shared)), len(names) > len(shared)] += 1
            singles.update(shared if len(shared) == 1 else ())
            for voc_class in VOC_CLASSES:
                flag = " 1" if voc_class in names else "-1"
                lines[voc_class] += f"{facts['filename'][:-4]} {flag}\n"
            assert set(names) <= set(VOC_CLASSES)
        assert kinds == {kind: times * count for kind, count in wanted.items()}
        assert singles == dict.fromkeys(SHARED, 3 * times)
        assert lines == {one: sets[f"{one}_{image_set}"] for one in VOC_CLASSES}


def test_boxes_enclose_exactly_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Image.new("RGB", (90, 60), (255, 0, 255))
    monkeypatch.setattr(silhouettes, "draw_ground", lambda *_: plain)
    for seed in range(6):
        for name in SHAPES:
            picture, (edges,) = draw_scene((name,), seed, plain.size)
            drawn = (np.array(picture) != np.array(plain)).any(2)
            rows, columns = drawn.any(1).nonzero()[0], drawn.any(0).nonzero()[0]
            found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(found, edges)).max() <= 1, (name, seed)
            assert 0 <= edges[0] < edges[2] <= 90 and 0 <= edges[1] < edges[3] <= 60
    # In files they count from one and include the last pixel.
    made = ElementTree.fromstring(small_layouts.voc_box((0, 4, 10, 8)))
    assert edges_of(made) == [1, 5, 10, 8]
    # Several things stand side by side.
    _, edges = draw_scene(("cat", "dog", "person"), 1, (120, 50))
    for place, (left, _, right, _) in enumerate(edges):
        assert 40 * place <= left < right <= 40 * (place + 1)


@pytest.mark.parametrize("name", SHAPES)
def test_things_vary_stand_out_and_come_in_any_size(name: str) -> None:
    for size in ((8, 8), (33, 57), (200, 90)):
        picture, _ = draw_scene((name,), 5, size)
        assert (picture.mode, picture.size) == ("RGB", size)
    scenes = [draw_scene((name,), seed, (32, 32)) for seed in range(12)]
    if name in CIFAR_CLASSES:
        assert len({edges for _, (edges,) in scenes}) >= 11
        assert len({picture.getpixel((0, 0)) for picture, _ in scenes}) >= 8
        for picture, ((left, top, right, bottom),) in scenes:
            inside = np.array(picture, int)[top:bottom, left:right].reshape(-1, 3)
            assert inside.std(0).max() > 18
            assert (right - left) * (bottom - top) > 32 * 32 / 6


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (draw_scene, (("cat", "unicorn"), 1, (32, 32)), "things {'unicorn'}: expected"),
        (draw_scene, ((), 1, (32, 32)), "0 things on 32x32 pixels"),
        (draw_scene, (("cat",), 1, (7, 32)), "1 things on 7x32 pixels"),
        (draw_scene, (("cat",), 1, (32, 0)), "1 things on 32x0 pixels"),
        (draw_scene, (("cat", "dog"), 1, (15, 32)), "2 things on 15x32 pixels"),
        (write_cifar10, ("new", 0), "batch 0: expected 1 to 1000"),
        (write_cifar10, ("new", 1001), "batch 1001: expected 1 to 1000"),
        (write_cifar10, ("new", 1, -1), "seed -1: expected 0 or more"),
        (write_voc, ("new", 2012, 11), "num_images 11: expected 12 to 99999"),
        (write_voc, ("new", "twelve"), "year 'twelve': expected four digits"),
        (write_voc, ("new", "../2012"), "year '../2012': expected four digits"),
        (write_voc, ("new", 2012, 12, -1), "seed -1: expected 0 or more"),
    ],
)
def test_bad_settings_are_refused(
    write: Callable, options: tuple, message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        write(*options)
    assert not [*tmp_path.iterdir()]
