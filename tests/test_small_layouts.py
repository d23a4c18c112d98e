"""Small sets in the formats of CIFAR-10 and VOC, read by torchvision's own classes."""

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, VOCDetection

from tools import silhouettes, small_layouts
from tools.silhouettes import CIFAR_CLASSES, SHAPES, draw_scene
from tools.small_layouts import SHARED, write_cifar10, write_voc
from ui_segmentation_system import VOC_CLASSES

REAL_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"),
    *("ship", "truck"),
)
BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
Cifar = tuple[Path, dict[str, str]]


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def small_cifar10(cifar: Cifar, train: bool) -> CIFAR10:
    """Let torchvision's class expect the small files instead of the real ones."""
    folder, sums = cifar
    lists = {
        "train_list": [[name, sums[name]] for name in BATCHES[:5]],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": CIFAR10.meta | {"md5": sums["batches.meta"]},
    }
    return type("SmallCIFAR10", (CIFAR10,), lists)(folder, train)


def edges_of(box: ElementTree.Element) -> list[int]:
    return [int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    folder = tmp_path_factory.mktemp("cifar")
    return folder, write_cifar10(folder, 2, seed=3)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder, num_images=84, seed=3)
    return folder


def test_torchvision_reads_cifar10(cifar: Cifar) -> None:
    pictures = set()
    for train, num_batches in ((True, 5), (False, 1)):
        dataset = small_cifar10(cifar, train)
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


def test_torchvision_refuses_files_that_its_list_does_not_name(cifar: Cifar) -> None:
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        CIFAR10(cifar[0], download=False)


@pytest.mark.parametrize(("encoding", "kind"), [("bytes", bytes), ("latin1", str)])
def test_pickles_hold_what_the_real_ones_hold(
    cifar: Cifar, encoding: str, kind: type
) -> None:
    def as_read(text: str) -> str | bytes:
        return text if kind is str else text.encode()

    folder, sums = cifar
    files = file_bytes(folder / "cifar-10-batches-py")
    assert sums == {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    assert set(sums) == {*BATCHES, "batches.meta"}
    read = {name: pickle.loads(files[name], encoding=encoding) for name in files}
    for number, name in enumerate(BATCHES, 1):
        keys = map(as_read, ("batch_label", "labels", "data", "filenames"))
        label, labels, data, names = (read[name].pop(key) for key in keys)
        assert not read[name]
        texts = (f"training batch {number} of 5", "testing batch 1 of 1")
        assert label == as_read(texts[number == 6])
        assert (data.shape, data.dtype) == ((20, 3072), np.uint8)
        assert {type(value) for value in labels} == {int}
        assert {type(file) for file in names} == {kind}
        assert len(set(names)) == len(labels) == 20
    assert read["batches.meta"] == {
        as_read("num_cases_per_batch"): 20,
        as_read("num_vis"): 3072,
        as_read("label_names"): [as_read(name) for name in REAL_CLASSES],
    }


def test_same_seed_same_files_another_seed_other_files(tmp_path: Path) -> None:
    sets = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        write_cifar10(tmp_path / name, 1, seed)
        write_voc(tmp_path / name, num_images=12, seed=seed)
        sets.append(file_bytes(tmp_path / name))
    mine, again, theirs = sets
    assert mine == again
    texts = (".xml", ".txt", ".meta")
    pictures = [name for name in mine if not name.endswith(texts)]
    assert len(pictures) == 6 + 12
    assert all(mine[name] != theirs[name] for name in pictures)


def test_torchvision_reads_voc(voc: Path) -> None:
    for image_set, length in (("train", 42), ("val", 42), ("trainval", 84)):
        dataset = VOCDetection(voc, "2012", image_set)
        assert len(dataset) == length
        for image, target in dataset:
            facts = target["annotation"]
            size = (int(facts["size"]["width"]), int(facts["size"]["height"]))
            assert image.size == size in small_layouts.VOC_SIZES
            assert (facts["size"]["depth"], facts["folder"]) == ("3", "VOC2012")


def test_annotations_have_vocs_form(voc: Path) -> None:
    for path in (voc / "VOCdevkit/VOC2012/Annotations").iterdir():
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
        text = path.read_text()
        assert text.startswith("<annotation>\n\t<folder>VOC2012</folder>\n")


def test_sets_of_each_class_say_which_images_have_it(voc: Path) -> None:
    tree = voc / "VOCdevkit/VOC2012"
    sets = {path.stem: path.read_text() for path in tree.glob("ImageSets/Main/*.txt")}
    assert len(sets) == 3 * 21
    halves = sets["train"].split() + sets["val"].split()
    assert sorted(halves) == sets["trainval"].split()
    assert set(halves) == {path.stem for path in tree.glob("JPEGImages/*.jpg")}
    for image_set in ("train", "val", "trainval"):
        for voc_class in VOC_CLASSES:
            expected = ""
            for key in sets[image_set].split():
                root = ElementTree.parse(tree / f"Annotations/{key}.xml").getroot()
                names = [name.text for name in root.iterfind("object/name")]
                expected += f"{key}  1\n" if voc_class in names else f"{key} -1\n"
            assert sets[f"{voc_class}_{image_set}"] == expected


@pytest.mark.parametrize("image_set", ["train", "val"])
def test_each_set_holds_every_kind_of_contents(voc: Path, image_set: str) -> None:
    assert SHARED == ("aeroplane", "car", "bird", "cat", "dog", "horse", "boat")
    kinds: Counter[tuple[int, int, bool]] = Counter()
    singles: Counter[str] = Counter()
    for _, target in VOCDetection(voc, "2012", image_set):
        names = [thing["name"] for thing in target["annotation"]["object"]]
        assert set(names) <= set(VOC_CLASSES)
        shared = [name for name in names if name in SHARED]
        kinds[len(shared), len(set(shared)), len(names) > len(shared)] += 1
        singles.update(shared if len(shared) == 1 else ())
    one, two, alike, none = (1, 1, False), (2, 2, False), (2, 1, False), (0, 0, True)
    assert kinds == {one: 14, (1, 1, True): 7, two: 7, alike: 7, none: 7}
    assert singles == dict.fromkeys(SHARED, 3)


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
    made = small_layouts.element(*small_layouts.voc_box((0, 4, 10, 8)))
    assert edges_of(made) == [1, 5, 10, 8]


def test_things_stand_side_by_side() -> None:
    _, edges = draw_scene(("cat", "dog", "person"), 1, (120, 50))
    for place, (left, _, right, _) in enumerate(edges):
        assert 40 * place <= left < right <= 40 * (place + 1)


@pytest.mark.parametrize("name", SHAPES)
def test_things_vary_stand_out_and_come_in_any_size(name: str) -> None:
    for size in ((8, 8), (33, 57), (200, 90)):
        picture, _ = draw_scene((name,), 5, size)
        assert (picture.mode, picture.size) == ("RGB", size)
    if name not in CIFAR_CLASSES:
        return
    scenes = [draw_scene((name,), seed, (32, 32)) for seed in range(12)]
    assert len({edges for _, (edges,) in scenes}) >= 11
    assert len({picture.getpixel((0, 0)) for picture, _ in scenes}) >= 8
    for picture, ((left, top, right, bottom),) in scenes:
        inside = np.array(picture, int)[top:bottom, left:right].reshape(-1, 3)
        assert inside.std(0).max() > 18
        assert (right - left) * (bottom - top) > 32 * 32 / 6


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (("cat", "unicorn"), (32, 32), "thing is 'unicorn', expected some of airplane"),
        ((), (32, 32), "0 things on 32x32 pixels"),
        (("cat",), (7, 32), "1 things on 7x32 pixels"),
        (("cat",), (32, 0), "1 things on 32x0 pixels"),
        (("cat", "dog"), (15, 32), "2 things on 15x32 pixels"),
    ],
)
def test_scenes_that_cannot_be_are_refused(
    names: tuple[str, ...], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_scene(names, 1, size)


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (write_cifar10, {"per_class_per_batch": 0}, "batch 0: expected 1 to 1000"),
        (write_cifar10, {"per_class_per_batch": 1001}, "1001: expected 1 to 1000"),
        (write_cifar10, {"seed": -1}, "seed -1: expected 0 or more"),
        (write_voc, {"num_images": 11}, "num_images 11: expected 12 to 99999"),
        (write_voc, {"year": "twelve"}, "year 'twelve': expected four digits"),
        (write_voc, {"year": "../2012"}, "year '../2012': expected four digits"),
        (write_voc, {"seed": -1}, "seed -1: expected 0 or more"),
    ],
)
def test_bad_settings_are_refused(
    write: Callable, options: dict[str, int | str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 1)
    write_voc(tmp_path, num_images=12)
    before = file_bytes(tmp_path)
    with pytest.raises(FileExistsError, match="cifar-10-batches-py: expected a new"):
        write_cifar10(tmp_path, 1, seed=2)
    with pytest.raises(FileExistsError, match="VOC2012: expected a new"):
        write_voc(tmp_path, num_images=12, seed=2)
    write_voc(tmp_path, 2007, 12)
    assert before.items() <= file_bytes(tmp_path).items()
    assert len(VOCDetection(tmp_path, "2007", "train")) == 6
