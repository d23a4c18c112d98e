"""Pascal VOC filtered by its annotations: what counts, and what is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchvision.datasets import VOCDetection
from torchvision.transforms import v2

import ui_segmentation_system as ui
from tests.conftest import draw_image
from tools.small_layouts import write_voc

PETS = {"cat": 0, "dog": 1}
# As VOC writes them: tabs, no XML declaration, extra facts, parts inside a person.
ANNOTATION = """<annotation>
	<folder>VOC2012</folder>
	<source><annotation>PASCAL VOC2012</annotation></source>
	<segmented>0</segmented>
{}</annotation>
"""
OBJECT = """	<object>
		<name>{}</name>
		<bndbox><xmin>52.3</xmin><ymin>87</ymin></bndbox>
		<difficult>{}</difficult>
		{}
	</object>
"""

MakeTree = Callable[..., Path]


def thing(name: str, part: str = "", difficult: int = 0) -> str:
    """Write an object, perhaps with a part of that name."""
    inside = f"<part><name>{part}</name></part>" if part else ""
    return OBJECT.format(name, difficult, inside)


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Give a function that writes VOC's folders and the set "train"; names of objects.

    An object is written by `thing`, or given as that text.
    """

    def make(place: str = "VOCdevkit/VOC2012", **contents: list[str]) -> Path:
        tree = tmp_path / place
        for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (tree / name).mkdir(parents=True)
        for number, (key, objects) in enumerate(contents.items()):
            written = (one if "<" in one else thing(one) for one in objects)
            text = ANNOTATION.format("".join(written))
            (tree / f"Annotations/{key}.xml").write_text(text)
            draw_image(number).convert("L").save(tree / f"JPEGImages/{key}.jpg")
        (tree / "ImageSets/Main/train.txt").write_text("\n".join(contents) + "\n")
        return tree

    return make


def found(root: Path, mapping: dict, **options: Any) -> list[tuple[str, int]]:
    dataset = ui.VOCFilteredDataset(root, "2012", "train", mapping, **options)
    return [(path.stem, index) for path, index in dataset.samples]


def test_only_images_with_one_mapped_object_are_taken(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(
        one=["dog"],
        beside_others=["person", "cat", "person"],
        two_alike=["dog", "dog"],
        two_kinds=["cat", "dog"],
        other=["person"],
        nothing=[],
        difficult=[thing("cat", difficult=1)],
        spaced=["\n dog "],
        dog_with_part=[thing("dog", part="cat")],
        person_with_part=[thing("person", part="dog")],
    )
    expected = [("one", 1), ("beside_others", 0), ("difficult", 0)]
    expected += [("spaced", 1), ("dog_with_part", 1)]
    assert found(tmp_path, PETS) == expected
    names = {"dog": "pet", "cat": "beast", "person": "beast"}
    dataset = ui.VOCFilteredDataset(str(tmp_path), 2012, "train", names)
    assert dataset.classes == ["beast", "pet"]
    taken = ["one", "other", "difficult", "spaced", "dog_with_part", "person_with_part"]
    assert [path.stem for path, _ in dataset.samples] == taken
    assert [index for _, index in dataset.samples] == [1, 0, 0, 1, 1, 0]
    far = {"dog": 5, "cat": 3}
    assert [index for _, index in found(tmp_path, far)] == [5, 3, 3, 5, 5]
    assert ui.VOCFilteredDataset(tmp_path, 2012, "train", far).classes == []


def test_files_are_read_when_they_are_needed(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(a=["dog"], b=["cat"], c=["dog"])
    opened: list[str] = []
    load = ui.load_image
    monkeypatch.setattr(ui, "load_image", lambda p: opened.append(p.name) or load(p))
    dataset = ui.VOCFilteredDataset(
        tmp_path, "2012", "train", PETS, lambda image: (image.mode, image.size)
    )
    assert opened == []
    for path in tree.glob("Annotations/*"):
        path.unlink()
    assert dataset[1] == (("RGB", (24, 20)), 0)
    assert opened == ["b.jpg"]
    (tree / "JPEGImages/c.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages.c\.jpg: "):
        dataset[2]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    write_voc(tmp_path, num_images=42)
    mapping = {"cat": 2, "car": 0, "boat": 2, "person": 1}
    for image_set in ("train", "val", "trainval"):
        dataset = ui.VOCFilteredDataset(tmp_path, "2012", image_set, mapping)
        expected = []
        voc = VOCDetection(tmp_path, "2012", image_set)
        for path, (image, target) in zip(voc.images, voc, strict=True):
            names = [thing["name"] for thing in target["annotation"]["object"]]
            indices = [mapping[name] for name in names if name in mapping]
            if len(indices) == 1:
                expected.append((path, image.tobytes(), indices[0]))
        taken = [
            (str(path), image.tobytes(), index)
            for (path, _), (image, index) in zip(dataset.samples, dataset, strict=True)
        ]
        assert taken == expected
        assert len(expected) > 3
    steps = v2.Compose([v2.ToImage(), v2.Resize((8, 8))])
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "trainval", mapping, steps)
    again = pickle.loads(pickle.dumps(dataset))
    images, indices = next(iter(DataLoader(again, batch_size=3)))
    assert images.shape == (3, 3, 8, 8)
    assert indices.tolist() == [index for _, index in dataset.samples[:3]]


@pytest.mark.parametrize(
    ("place", "root", "year"),
    [
        ("VOCdevkit/VOC2012", ".", "2012"),
        ("VOCdevkit/VOC2012", "VOCdevkit", 2012),
        ("VOCdevkit/VOC2007", ".", 2007),
    ],
)
def test_the_root_is_torchvisions_or_the_devkit(
    place: str, root: str, year: str | int, make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(place, a=["dog"], b=["cat"])
    # Only the first word of a line names an image.
    (tree / "ImageSets/Main/pets.txt").write_bytes(b"\xef\xbb\xbfa  1\r\n\r\n  \n")
    dataset = ui.VOCFilteredDataset(str(tmp_path / root), year, "pets", PETS)
    assert [path for path, _ in dataset.samples] == [tree / "JPEGImages/a.jpg"]


def test_voc_has_twenty_classes() -> None:
    assert len(set(ui.VOC_CLASSES)) == 20 and list(ui.VOC_CLASSES) == sorted(
        ui.VOC_CLASSES
    )
    assert set(ui.VOC_NAMES.values()) <= set(ui.VOC_CLASSES)
    assert not set(ui.VOC_NAMES) & set(ui.VOC_CLASSES)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"cat": 0, "frog": 1}, ["'frog'", "no such class"]),
        ({"cat": 0, "airplane": 1}, ["'airplane'", "aeroplane"]),
        ({"cat": 0, "Ship": 1}, ["'Ship'", "boat"]),
        ({"cat": 0, "DOG": 1}, ["'DOG'", "did you mean dog?"]),
        ({"cat": 0, 7: 1}, ["7", "no such class"]),
        ({}, ["{}"]),
        (["cat", "dog"], ["['cat', 'dog']"]),
        ({"cat": 0, "dog": "dog"}, ["'dog': 'dog'"]),
        ({"cat": 0, "dog": True}, ["'dog': True"]),
        ({"cat": 0, "dog": -1}, ["'dog': -1"]),
        ({"cat": 0.0}, ["'cat': 0.0"]),
        ({"bus": 0, "train": 1}, ["train.txt", "none of 1", "bus, train"]),
    ],
)
def test_a_mapping_that_finds_nothing_is_refused(
    mapping: Any, words: list[str], make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(a=["cat"])
    with pytest.raises(ValueError, match="expected ") as told:
        ui.VOCFilteredDataset(tmp_path, "2012", "train", mapping)
    for word in ["class_mapping"] * ("none of 1" not in words) + words:
        assert word in str(told.value)


@pytest.mark.parametrize(
    ("root", "year", "image_set", "words"),
    [
        ("nowhere", 2012, "train", ["nowhere", "VOC2012"]),
        ("voc.tar", 2012, "train", ["voc.tar", "VOC2012"]),
        (".", 2007, "train", ["VOC2007", "VOC2012"]),
        ("VOCdevkit/VOC2012", 2012, "train", ["VOCdevkit/VOC2012: "]),
        (".", 2012, "test", ["test.txt", "2012 own", "2012 train", "2012 val"]),
    ],
)
def test_what_is_missing_is_named(
    root: str,
    year: int,
    image_set: str,
    words: list[str],
    make_tree: MakeTree,
    tmp_path: Path,
) -> None:
    tree = make_tree(a=["cat"], b=["dog"])
    (tmp_path / "voc.tar").write_text("an archive")
    for name in ("val", "own", "cat_train", "._train"):
        (tree / f"ImageSets/Main/{name}.txt").write_text("a\n")
    with pytest.raises(FileNotFoundError, match="expected ") as told:
        ui.VOCFilteredDataset(tmp_path / root, year, image_set, PETS)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"<annotation><object>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<?xml version='1.0' encoding='nonsense'?><annotation/>",
        b"<html></html>",
        b"<annotation><object><name>cat</name></object>"
        b"<object><name> </name></object></annotation>",
    ],
)
def test_a_broken_annotation_is_named(
    content: bytes | None, make_tree: MakeTree, tmp_path: Path
) -> None:
    path = make_tree(a=["cat"], b=[]) / "Annotations/b.xml"
    path.unlink() if content is None else path.write_bytes(content)
    kind = FileNotFoundError if content is None else ValueError
    with pytest.raises(kind, match=r"b\.xml: .*; .*image_set"):
        ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
