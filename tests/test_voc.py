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
    """Give a function that writes VOC's folders and the set "train".

    Of each picture it gets the objects: names, or texts of `thing`.
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


def voc(root: Path, mapping: Any = PETS, *options: Any) -> ui.VOCFilteredDataset:
    return ui.VOCFilteredDataset(root, "2012", "train", mapping, *options)


def found(dataset: ui.VOCFilteredDataset) -> list[tuple[str, int]]:
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
    taken = dict(one=1, beside_others=0, difficult=0, spaced=1, dog_with_part=1)
    assert found(voc(tmp_path)) == [*taken.items()]
    far = voc(tmp_path, {"dog": 5, "cat": 3})
    assert found(far) == [(key, (3, 5)[index]) for key, index in taken.items()]
    shared = {"dog": 1, "cat": 0, "person": 0}
    dataset = ui.VOCFilteredDataset(str(tmp_path), 2012, "train", shared)
    taken = dict(one=1, other=0, difficult=0, spaced=1, dog_with_part=1)
    assert found(dataset) == [*taken.items(), ("person_with_part", 0)]


def test_files_are_read_when_they_are_needed(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(a=["dog"], b=["cat"], c=["dog"])
    opened: list[str] = []
    load = ui.load_image
    monkeypatch.setattr(ui, "load_image", lambda p: opened.append(p.name) or load(p))
    dataset = voc(tmp_path, PETS, lambda image: (image.mode, image.size))
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
    assert len(set(ui.VOC_CLASSES)) == 20
    assert [*ui.VOC_CLASSES] == sorted(ui.VOC_CLASSES)


KIT = ".", 2012, "train"
REFUSED = [
    ((*KIT, {"cat": 0, "frog": 1}), ["class_mapping 'frog'", "no such class"]),
    ((*KIT, {"cat": 0, "airplane": 1}), ["class_mapping 'airplane'", "aeroplane"]),
    ((*KIT, {"cat": 0, "DOG": 1}), ["class_mapping 'DOG'", "did you mean dog?"]),
    ((*KIT, {"cat": 0, 7: 1}), ["class_mapping '7'", "no such class"]),
    ((*KIT, {}), ["class_mapping {}"]),
    ((*KIT, ["cat", "dog"]), ["class_mapping ['cat', 'dog']"]),
    ((*KIT, {"cat": 0, "dog": "dog"}), ["class_mapping", "'dog': 'dog'"]),
    ((*KIT, {"cat": "pet"}), ["class_mapping", "'cat': 'pet'"]),
    ((*KIT, {"cat": 0, "dog": True}), ["class_mapping", "'dog': True"]),
    ((*KIT, {"cat": 0, "dog": -1}), ["class_mapping", "'dog': -1"]),
    ((*KIT, {"cat": 0.0}), ["class_mapping", "'cat': 0.0"]),
    ((*KIT, {"bus": 0, "train": 1}), ["train.txt", "none of 2", "bus, train"]),
    (("nowhere", 2012, "train", PETS), ["nowhere", "VOC2012"]),
    (("voc.tar", 2012, "train", PETS), ["voc.tar", "VOC2012"]),
    ((".", 2007, "train", PETS), ["VOC2007"]),
    (("VOCdevkit/VOC2012", 2012, "train", PETS), ["VOCdevkit/VOC2012: "]),
    ((".", 2012, "test", PETS), ["VOC2012/ImageSets/Main/test.txt"]),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_is_wrong_or_missing_is_named(
    arguments: tuple, words: list[str], make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(a=["cat"], b=["dog"])
    (tmp_path / "voc.tar").write_text("an archive")
    kind = FileNotFoundError if arguments[-1] is PETS else ValueError
    with pytest.raises(kind, match="expected ") as told:
        ui.VOCFilteredDataset(tmp_path / arguments[0], *arguments[1:])
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
        voc(tmp_path)
