"""Pascal VOC filtered by its annotations: what counts, what is refused and how."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import draw_image
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import VOCDetection
from torchvision.transforms import v2

import ui_segmentation_system as ui
from tools.small_layouts import write_voc

PETS = {"cat": 0, "dog": 1}

# As VOC writes them: tabs, no XML declaration, extra facts, parts inside a person.
ANNOTATION = """<annotation>
	<folder>VOC2012</folder>
	<filename>{key}.jpg</filename>
	<source>
		<database>The VOC2012 Database</database>
		<annotation>PASCAL VOC2012</annotation>
		<image>flickr</image>
	</source>
	<size>
		<width>500</width>
		<height>375</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """	<object>
		<name>{name}</name>
		<pose>Unspecified</pose>
		<truncated>1</truncated>
		<occluded>0</occluded>
		<bndbox>
			<xmin>52.3</xmin>
			<ymin>87</ymin>
			<xmax>471</xmax>
			<ymax>420</ymax>
		</bndbox>
		<difficult>{difficult}</difficult>
{part}	</object>
"""
PART = """		<part>
			<name>{name}</name>
			<bndbox>
				<xmin>60</xmin>
				<ymin>90</ymin>
				<xmax>70</xmax>
				<ymax>95</ymax>
			</bndbox>
		</part>
"""

Tree = Path
MakeTree = Callable[..., Tree]


def thing(name: str, part: str = "", difficult: int = 0) -> str:
    """Write an object, perhaps with a part of that name."""
    inside = PART.format(name=part) if part else ""
    return OBJECT.format(name=name, part=inside, difficult=difficult)


def annotate(tree: Tree, key: str, *objects: str) -> Path:
    """Write an annotation; objects as `thing` makes them."""
    path = tree / f"Annotations/{key}.xml"
    path.write_text(ANNOTATION.format(key=key, objects="".join(objects)))
    return path


def keys(dataset: ui.VOCFilteredDataset) -> list[str]:
    return [path.stem for path, _ in dataset.samples]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Give a function that writes VOC's folders and the set "train", no pictures."""

    def make(place: str = "VOCdevkit/VOC2012", **contents: list[str]) -> Tree:
        tree = tmp_path / place
        for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (tree / name).mkdir(parents=True)
        for key, objects in contents.items():
            annotate(tree, key, *objects)
        (tree / "ImageSets/Main/train.txt").write_text("\n".join(contents) + "\n")
        return tree

    return make


def test_only_images_with_one_mapped_object_are_taken(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(
        one=[thing("dog")],
        beside_others=[thing("person"), thing("cat"), thing("person")],
        two_alike=[thing("dog"), thing("dog")],
        two_kinds=[thing("cat"), thing("dog")],
        other=[thing("person")],
        nothing=[],
        difficult=[thing("cat", difficult=1)],
    )
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
    folder = tmp_path / "VOCdevkit/VOC2012/JPEGImages"
    assert dataset.samples == [
        (folder / "one.jpg", 1),
        (folder / "beside_others.jpg", 0),
        (folder / "difficult.jpg", 0),
    ]
    assert len(dataset) == 3


def test_parts_are_no_objects(make_tree: MakeTree, tmp_path: Path) -> None:
    make_tree(
        dog_with_part=[thing("dog", part="cat")],
        person_with_part=[thing("person", part="dog")],
    )
    dataset = ui.VOCFilteredDataset(tmp_path, 2012, "train", PETS)
    assert keys(dataset) == ["dog_with_part"]


def test_no_picture_is_opened_before_it_is_asked_for(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(a=[thing("dog")], b=[thing("cat")], c=[thing("dog")])
    for key in "ab":
        draw_image(0).save(tree / f"JPEGImages/{key}.jpg")
    opened: list[str] = []

    def load(path: Path) -> Image.Image:
        opened.append(path.name)
        return draw_image(0)

    with monkeypatch.context() as patch:
        patch.setattr(ui, "load_image", load)
        patch.setattr(Image, "open", load)
        dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
        assert (len(dataset), opened) == (3, [])
        _ = dataset[1]
        assert opened == ["b.jpg"]
    with pytest.raises(FileNotFoundError, match=r"JPEGImages.c\.jpg: does not exist"):
        dataset[2]


def test_annotations_are_read_only_at_construction(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("dog")])
    draw_image(0).save(tree / "JPEGImages/a.jpg")
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
    (tree / "Annotations/a.xml").unlink()
    image, index = dataset[0]
    assert (image.mode, image.size, index) == ("RGB", (24, 20), 1)


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
        found = [
            (str(path), image.tobytes(), index)
            for (path, _), (image, index) in zip(dataset.samples, dataset, strict=True)
        ]
        assert found == expected
        assert len(expected) > 3


def test_the_transform_takes_an_rgb_picture(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("dog")])
    draw_image(0).convert("L").save(tree / "JPEGImages/a.jpg")
    seen: list[Image.Image] = []
    dataset = ui.VOCFilteredDataset(
        tmp_path, "2012", "train", PETS, lambda image: seen.append(image) or "changed"
    )
    assert dataset[0] == ("changed", 1)
    assert [image.mode for image in seen] == ["RGB"]


def test_ends_where_its_samples_end(make_tree: MakeTree, tmp_path: Path) -> None:
    tree = make_tree(a=[thing("dog")], b=[thing("cat")])
    for key in "ab":
        draw_image(0).save(tree / f"JPEGImages/{key}.jpg")
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
    assert [index for _, index in dataset] == [1, 0]
    with pytest.raises(IndexError):
        dataset[2]


def test_goes_through_a_loader_and_to_another_process(tmp_path: Path) -> None:
    write_voc(tmp_path, num_images=12)
    steps = v2.Compose([v2.ToImage(), v2.Resize((8, 8))])
    mapping = {"cat": "pet", "dog": "pet", "car": "thing", "bird": "wild"}
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "trainval", mapping, steps)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.samples == dataset.samples
    images, indices = next(iter(DataLoader(again, batch_size=3)))
    assert images.shape == (3, 3, 8, 8)
    assert indices.tolist() == [index for _, index in dataset.samples[:3]]


def test_names_become_indices_in_sorted_order(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(a=[thing("dog")], b=[thing("cow")], c=[thing("boat")], d=[thing("cat")])
    mapping = {"dog": "pet", "boat": "vessel", "cat": "pet", "cow": "cattle"}
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", mapping)
    assert dataset.classes == ["cattle", "pet", "vessel"]
    assert [index for _, index in dataset.samples] == [1, 0, 2, 1]


def test_indices_are_kept_as_given(make_tree: MakeTree, tmp_path: Path) -> None:
    make_tree(a=[thing("dog")], b=[thing("cat")], c=[thing("sheep")])
    mapping = {"dog": 5, "cat": 3, "sheep": 5}
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "train", mapping)
    assert [index for _, index in dataset.samples] == [5, 3, 5]
    assert dataset.classes == []


@pytest.mark.parametrize(
    ("place", "root", "year"),
    [
        ("VOCdevkit/VOC2012", ".", "2012"),
        ("VOCdevkit/VOC2012", "VOCdevkit", 2012),
        ("VOCdevkit/VOC2007", ".", 2007),
        ("TrainVal/VOCdevkit/VOC2011", ".", "2011"),
    ],
)
def test_the_root_is_torchvisions_or_the_devkit(
    place: str, root: str, year: str | int, make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(place, a=[thing("dog")])
    dataset = ui.VOCFilteredDataset(str(tmp_path / root), year, "train", PETS)
    assert [path for path, _ in dataset.samples] == [
        tmp_path / place / "JPEGImages/a.jpg"
    ]


def test_only_the_first_word_of_a_line_names_an_image(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("dog")], b=[thing("cat")])
    listed = tree / "ImageSets/Main/pets.txt"
    listed.write_bytes(b"\xef\xbb\xbfa  1\r\nb -1\r\n\r\n  \n")
    dataset = ui.VOCFilteredDataset(tmp_path, "2012", "pets", PETS)
    assert keys(dataset) == ["a", "b"]


@pytest.mark.parametrize("image_set", ["dog_train", "train_val"])
def test_list_of_one_class_is_refused(
    image_set: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("dog")], b=[thing("cat")])
    (tree / f"ImageSets/Main/{image_set}.txt").write_text("a  1\nb -1\n")
    with pytest.raises(ValueError, match=f"{image_set}.*one class.*trainval"):
        ui.VOCFilteredDataset(tmp_path, "2012", image_set, PETS)


def test_voc_has_twenty_classes() -> None:
    assert len(set(ui.VOC_CLASSES)) == len(ui.VOC_CLASSES) == 20
    assert list(ui.VOC_CLASSES) == sorted(ui.VOC_CLASSES)
    assert set(ui.VOC_NAMES.values()) <= set(ui.VOC_CLASSES)
    assert not set(ui.VOC_NAMES) & set(ui.VOC_CLASSES)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("frog", "VOC has no such class; leave it out"),
        ("deer", "VOC has no such class; leave it out"),
        ("truck", "VOC has no such class; leave it out"),
        ("airplane", "VOC calls it aeroplane"),
        ("automobile", "VOC calls it car"),
        ("ship", "VOC calls it boat"),
        ("Ship", "VOC calls it boat"),
        ("cats", "did you mean cat?"),
        ("DOG", "did you mean dog?"),
        ("dining table", "did you mean diningtable?"),
        (7, "VOC has no such class; leave it out"),
    ],
)
def test_a_class_that_voc_lacks_is_named_with_the_right_one(
    name: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as caught:
        ui.VOCFilteredDataset(tmp_path, "2012", "train", {"cat": 0, name: 1})
    assert f"class_mapping {name!r}: " in str(caught.value)
    assert advice in str(caught.value)
    assert "expected some of aeroplane, bicycle" in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "class_mapping {}: expected VOC classes"),
        (["cat", "dog"], "class_mapping ['cat', 'dog']: expected VOC classes"),
        (None, "class_mapping None: expected VOC classes"),
        ({"cat": 0, "dog": "dog"}, "to 0, 'dog': expected class indices"),
        ({"cat": False, "dog": True}, "to False, True: expected class indices"),
        ({"cat": 0, "dog": True}, "to 0, True: expected class indices"),
        ({"cat": 0, "dog": -1}, "to 0, -1: expected class indices"),
        ({"cat": 0.0}, "to 0.0: expected class indices"),
        ({"cat": None}, "to None: expected class indices"),
    ],
)
def test_a_mapping_that_is_none_is_refused(
    mapping: dict, message: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(a=[thing("cat")])
    with pytest.raises(ValueError, match=re.escape(message)):
        ui.VOCFilteredDataset(tmp_path, "2012", "train", mapping)


def test_a_missing_folder_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    make_tree("VOCdevkit/VOC2007", a=[thing("cat")])
    nowhere, file = tmp_path / "nowhere", tmp_path / "voc.tar"
    file.write_text("an archive")
    for root, message in {
        nowhere: "there is no such folder; expected one with VOCdevkit/VOC2012",
        file: "is a file; expected one with VOCdevkit/VOC2012",
        tmp_path: "no VOC2012, but VOC2007; expected VOCdevkit/VOC2012",
        tmp_path / "VOCdevkit/VOC2007": "no VOC2012; expected VOCdevkit/VOC2012",
    }.items():
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(f'{root}: ')}") as e:
            ui.VOCFilteredDataset(root, "2012", "train", PETS)
        assert message in str(e.value)


def test_a_missing_set_lists_those_that_exist(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("cat")])
    for name in ("val", "my_own", "cat_train", "tvmonitor_val", "._train"):
        (tree / f"ImageSets/Main/{name}.txt").write_text("a\n")
    with pytest.raises(FileNotFoundError, match=r"test\.txt: does not exist") as caught:
        ui.VOCFilteredDataset(tmp_path, "2012", "test", PETS)
    assert str(caught.value).endswith("an image_set that does: my_own, train, val")


def test_no_sets_at_all(make_tree: MakeTree, tmp_path: Path) -> None:
    (make_tree() / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="there is none"):
        ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)


def test_a_missing_annotation_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    tree = make_tree(a=[thing("cat")], b=[thing("dog")])
    (tree / "Annotations/b.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.xml: there is no such annotation"):
        ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken XML (no element found"),
        (b"<annotation><object>", "broken XML ("),
        (b"version https://git-lfs.github.com/spec/v1\n", "broken XML ("),
        (b"<?xml version='1.0' encoding='nonsense'?><annotation/>", "broken XML ("),
        (b"<?xml version='1.0' encoding='utf-7'?><annotation/>", "broken XML ("),
        (b"<html></html>", "XML of <html>; expected <annotation>"),
        (b"<annotation><object/></annotation>", "object 1 has no name"),
        (
            b"<annotation><object><name>cat</name></object><object><name> </name>"
            b"</object></annotation>",
            "object 2 has no name",
        ),
    ],
)
def test_a_broken_annotation_is_named(
    content: bytes, message: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    tree = make_tree(a=[thing("cat")], b=[])
    path = tree / "Annotations/b.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)


@pytest.mark.parametrize("count", [0, 3])
def test_a_set_without_a_wanted_image_is_refused(
    count: int, make_tree: MakeTree, tmp_path: Path
) -> None:
    two = [thing("cat"), thing("dog")]
    tree = make_tree(**{f"key{n}": two for n in range(count)})
    listed = tree / "ImageSets/Main/train.txt"
    message = f"{listed}: none of {count} images qualifies; expected some with exactly"
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)
    assert "one of cat, dog" in str(caught.value)


def test_spaces_around_a_name_do_not_matter(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree(a=[thing("\n dog ")])
    assert len(ui.VOCFilteredDataset(tmp_path, "2012", "train", PETS)) == 1
