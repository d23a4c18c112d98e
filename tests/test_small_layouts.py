"""Small sets in the formats of CIFAR-10 and VOC, read by torchvision's own classes."""

import hashlib
import pickle
from collections import Counter
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


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def small_cifar10(sums: dict[str, str]) -> type[CIFAR10]:
    """Make torchvision's class expect the small files instead of the real ones."""

    lists = {
        "train_list": [[name, sums[name]] for name in BATCHES[:5]],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": CIFAR10.meta | {"md5": sums["batches.meta"]},
    }
    return type("SmallCIFAR10", (CIFAR10,), lists)


def things_of(path: Path) -> list[ElementTree.Element]:
    return ElementTree.parse(path).getroot().findall("object")


def edges_of(box: ElementTree.Element) -> list[int]:
    return [int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("cifar")
    return folder, write_cifar10(folder, 2, seed=3)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder, num_images=84, seed=3)
    return folder


@pytest.mark.parametrize(("train", "num_batches"), [(True, 5), (False, 1)])
def test_torchvision_reads_cifar10(
    cifar: tuple[Path, dict[str, str]], train: bool, num_batches: int
) -> None:
    folder, sums = cifar
    dataset = small_cifar10(sums)(folder, train, download=False)
    assert tuple(dataset.classes) == REAL_CLASSES
    assert dataset.data.shape == (20 * num_batches, 32, 32, 3)
    assert dataset.data.dtype == np.uint8
    counts = Counter(dataset.targets)
    assert counts == dict.fromkeys(range(10), 2 * num_batches)
    first = 3 * 100_000 + (0 if train else 100)
    for index in (0, 7, 19):
        image, target = dataset[index]
        name = REAL_CLASSES[target]
        drawn, _ = draw_scene((name,), first + index, (32, 32))
        assert image.tobytes() == drawn.tobytes()


def test_torchvision_refuses_files_that_its_list_does_not_name(
    cifar: tuple[Path, dict[str, str]],
) -> None:
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        CIFAR10(cifar[0], download=False)


def test_sums_are_those_of_the_files(cifar: tuple[Path, dict[str, str]]) -> None:
    folder, sums = cifar
    files = file_bytes(folder / "cifar-10-batches-py")
    assert sums == {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    assert set(sums) == {*BATCHES, "batches.meta"}


@pytest.mark.parametrize(("encoding", "kind"), [("bytes", bytes), ("latin1", str)])
def test_pickles_hold_what_the_real_ones_hold(
    cifar: tuple[Path, dict[str, str]], encoding: str, kind: type
) -> None:
    def read(name: str) -> dict:
        content = (cifar[0] / "cifar-10-batches-py" / name).read_bytes()
        assert content[:2] == b"\x80\x02"
        loaded = pickle.loads(content, encoding=encoding)
        assert {type(key) for key in loaded} == {kind}
        return {
            key if kind is str else key.decode(): value for key, value in loaded.items()
        }

    for number, name in enumerate(BATCHES, 1):
        batch = read(name)
        assert set(batch) == {"batch_label", "labels", "data", "filenames"}
        assert (batch["data"].shape, batch["data"].dtype) == ((20, 3072), np.uint8)
        assert {type(label) for label in batch["labels"]} == {int}
        assert {type(file) for file in batch["filenames"]} == {kind}
        assert len(set(batch["filenames"])) == len(batch["labels"]) == 20
        labels = [f"training batch {number} of 5", "testing batch 1 of 1"]
        expected = labels[number == 6]
        assert batch["batch_label"] in (expected, expected.encode())
    meta = read("batches.meta")
    names = [name if kind is str else name.encode() for name in REAL_CLASSES]
    assert meta == {"num_cases_per_batch": 20, "num_vis": 3072, "label_names": names}


def test_every_picture_of_a_set_is_another(cifar: tuple[Path, dict[str, str]]) -> None:
    folder, sums = cifar
    sets = [small_cifar10(sums)(folder, train).data for train in (True, False)]
    pictures = np.concatenate(sets)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 120


def test_labels_are_mixed(cifar: tuple[Path, dict[str, str]]) -> None:
    targets = small_cifar10(cifar[1])(cifar[0]).targets
    batches = {tuple(targets[start : start + 20]) for start in range(0, 100, 20)}
    assert len(batches) == 5
    assert sorted(targets[:20]) != targets[:20]


def test_same_seed_same_files_another_seed_other_files(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    for folder, seed in ((first, 1), (again, 1), (other, 2)):
        write_cifar10(folder, 1, seed)
        write_voc(folder, num_images=12, seed=seed)
    assert file_bytes(first) == file_bytes(again)
    mine, theirs = file_bytes(first), file_bytes(other)
    texts = (".xml", ".txt", ".meta")
    pictures = [name for name in mine if not name.endswith(texts)]
    assert len(pictures) == 6 + 12
    assert all(mine[name] != theirs[name] for name in pictures)


def test_torchvision_reads_voc(voc: Path) -> None:
    lengths = []
    for image_set in ("train", "val", "trainval"):
        dataset = VOCDetection(voc, "2012", image_set)
        lengths.append(len(dataset))
        for image, target in dataset:
            facts = target["annotation"]
            size = (int(facts["size"]["width"]), int(facts["size"]["height"]))
            assert image.size == size in small_layouts.VOC_SIZES
            assert facts["size"]["depth"] == "3"
            assert facts["folder"] == "VOC2012"
            names = [thing["name"] for thing in facts["object"]]
            assert names and set(names) <= set(VOC_CLASSES)
    assert lengths == [42, 42, 84]


def test_annotations_have_vocs_form(voc: Path) -> None:
    for path in (voc / "VOCdevkit/VOC2012/Annotations").iterdir():
        root = ElementTree.parse(path).getroot()
        facts = [child.tag for child in root if child.tag != "object"]
        assert facts == ["folder", "filename", "source", "size", "segmented"]
        assert root.findtext("filename") == f"{path.stem}.jpg"
        assert [child.tag for child in root.find("source")] == [
            *("database", "annotation", "image")
        ]
        for thing in things_of(path):
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
    pictures = {path.stem for path in tree.glob("JPEGImages/*.jpg")}
    assert set(sets["trainval"].split()) == pictures
    for image_set in ("train", "val", "trainval"):
        for voc_class in VOC_CLASSES:
            expected = ""
            for key in sets[image_set].split():
                names = [
                    thing.findtext("name")
                    for thing in things_of(tree / f"Annotations/{key}.xml")
                ]
                expected += f"{key}  1\n" if voc_class in names else f"{key} -1\n"
            assert sets[f"{voc_class}_{image_set}"] == expected


@pytest.mark.parametrize("image_set", ["train", "val"])
def test_each_set_holds_every_kind_of_contents(voc: Path, image_set: str) -> None:
    kinds: Counter[tuple[int, int, bool]] = Counter()
    singles: Counter[str] = Counter()
    for _, target in VOCDetection(voc, "2012", image_set):
        names = [thing["name"] for thing in target["annotation"]["object"]]
        shared = [name for name in names if name in SHARED]
        kinds[len(shared), len(set(shared)), len(names) > len(shared)] += 1
        singles.update(shared if len(shared) == 1 else ())
    one, two, alike, none = (1, 1, False), (2, 2, False), (2, 1, False), (0, 0, True)
    assert kinds == {one: 14, (1, 1, True): 7, two: 7, alike: 7, none: 7}
    assert singles == dict.fromkeys(SHARED, 3)


def test_the_shared_classes_are_those_of_both_sets() -> None:
    assert SHARED == ("aeroplane", "car", "bird", "cat", "dog", "horse", "boat")
    assert not set(SHARED) & set(small_layouts.OTHERS)
    assert set(small_layouts.OTHERS) <= set(VOC_CLASSES)


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


def test_boxes_in_files_count_from_one_and_include_the_last_pixel() -> None:
    made = small_layouts.element(*small_layouts.voc_box((0, 4, 10, 8)))
    assert edges_of(made) == [1, 5, 10, 8]


def test_things_stand_side_by_side() -> None:
    _, edges = draw_scene(("cat", "dog", "person"), 1, (120, 50))
    for place, (left, _, right, _) in enumerate(edges):
        assert 40 * place <= left < right <= 40 * (place + 1)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 57), (200, 90)])
def test_scenes_of_any_size(size: tuple[int, int]) -> None:
    for name in SHAPES:
        picture, _ = draw_scene((name,), 5, size)
        assert (picture.mode, picture.size) == ("RGB", size)


def test_pictures_of_a_class_vary() -> None:
    for name in CIFAR_CLASSES:
        scenes = [draw_scene((name,), seed, (32, 32)) for seed in range(12)]
        assert len({edges[0] for _, edges in scenes}) >= 11
        corners = {picture.getpixel((0, 0)) for picture, _ in scenes}
        assert len(corners) >= 8


def test_a_thing_stands_out_from_its_ground() -> None:
    for name in CIFAR_CLASSES:
        for seed in range(10):
            picture, ((left, top, right, bottom),) = draw_scene((name,), seed, (32, 32))
            pixels = np.array(picture, int)
            inside = pixels[top:bottom, left:right].reshape(-1, 3)
            assert inside.std(0).max() > 18, (name, seed)
            assert (right - left) * (bottom - top) > 32 * 32 / 6, (name, seed)


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
    ("options", "message"),
    [
        ({"per_class_per_batch": 0}, "per_class_per_batch 0: expected 1 to 1000"),
        ({"per_class_per_batch": 1001}, "1001: expected 1 to 1000"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
    ],
)
def test_bad_settings_of_cifar10_are_refused(
    options: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_cifar10(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 11}, "num_images 11: expected 12 to 99999"),
        ({"year": "twelve"}, "year 'twelve': expected four digits"),
        ({"year": "../2012"}, "year '../2012': expected four digits"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
    ],
)
def test_bad_settings_of_voc_are_refused(
    options: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_voc(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 1)
    write_voc(tmp_path, num_images=12)
    before = file_bytes(tmp_path)
    with pytest.raises(FileExistsError, match=r"cifar-10-batches-py: is a folder that"):
        write_cifar10(tmp_path, 1, seed=2)
    with pytest.raises(FileExistsError, match=r"VOC2012: is a folder that"):
        write_voc(tmp_path, num_images=12, seed=2)
    write_voc(tmp_path, 2007, 12)
    assert before.items() <= file_bytes(tmp_path).items()
    assert len(VOCDetection(tmp_path, "2007", "train")) == 6


def test_a_folder_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(small_layouts, "save_voc_sets", stop)
    with pytest.raises(KeyboardInterrupt):
        write_voc(tmp_path, num_images=12)
    assert list(tmp_path.iterdir()) == []
