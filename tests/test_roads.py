"""KITTI's road layout: every picture with its own mask, every colour its part."""

import csv
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ui_segmentation_system as ui
from tools.road_scenes import paint_target, render_scene

ROADS = Path(__file__).parents[1] / "test_roads"
RED, MAGENTA, BLACK = (255, 0, 0), (255, 0, 255), (0, 0, 0)


def make_kit(root: Path, size: tuple[int, int] = (60, 20)) -> Path:
    """Write a kit as KITTI has it: three categories that use the same numbers.

    The grey of an image, and the bands of magenta and black of its target, have its
    number. Calibration and test pictures are not read.
    """
    for folder in ("image_2", "gt_image_2", "calib"):
        (root / "training" / folder).mkdir(parents=True)
    (root / "testing" / "image_2").mkdir(parents=True)
    Image.new("RGB", size).save(root / "testing/image_2/um_000000.png")
    for own in range(1, 7):
        category, frame = ("um", "umm", "uu")[(own - 1) // 2], (own - 1) % 2
        image = Image.new("RGB", size, (own, own, own))
        image.save(root / f"training/image_2/{category}_{frame:06}.png")
        (root / f"training/calib/{category}_{frame:06}.txt").write_text("P0: 1 2\n")
        for kind, height in (("road", own), ("lane", own + 6)):
            if kind == "road" or category == "um":
                pixels = np.full((size[1], size[0], 3), RED, np.uint8)
                pixels[:height], pixels[-height:] = MAGENTA, BLACK
                name = f"training/gt_image_2/{category}_{kind}_{frame:06}.png"
                Image.fromarray(pixels).save(root / name)
    return root


def own_numbers(dataset: ui.PairDataset) -> list[tuple[int, int, int]]:
    """Read back what `make_kit` wrote: of image, magenta and black."""
    columns = [(image, np.array(target)[:, 0].tolist()) for image, target in dataset]
    return [(i.getpixel((0, 0))[0], c.count(255), c.count(128)) for i, c in columns]


@pytest.mark.parametrize("below", ["", "training"])
def test_each_picture_has_the_mask_of_its_category_and_number(
    tmp_path: Path, below: str
) -> None:
    root = make_kit(tmp_path / "data_road") / below
    expected = [(number, number, number) for number in range(1, 7)]
    assert own_numbers(ui.RoadDataset(root)) == expected
    assert own_numbers(ui.RoadDataset(root, target="lane")) == [(1, 7, 7), (2, 8, 8)]


@pytest.mark.parametrize(("target", "count"), [("road", 60), ("lane", 20)])
def test_masks_say_what_the_colours_say(target: str, count: int) -> None:
    dataset = ui.RoadDataset(ROADS, target=target)
    assert len(dataset) == count
    for (image_path, path), (image, mask) in zip(dataset.pairs, dataset, strict=True):
        assert path.name == re.sub("_", f"_{target}_", image_path.name)
        pixels = np.array(Image.open(path).convert("RGB"))
        expected = np.full(pixels.shape[:2], 77, np.uint8)
        for colour, grey in ((RED, 0), (MAGENTA, 255), (BLACK, 128)):
            expected[(pixels == colour).all(axis=2)] = grey
        assert image.size == (414, 125)
        assert np.array_equal(np.array(mask), expected)


def test_committed_roads_can_be_drawn_again() -> None:
    for category, frame in (("um", 0), ("umm", 19)):
        scene = render_scene(1, category, frame, 414, 125)
        image = Image.open(ROADS / f"training/image_2/{category}_{frame:06}.png")
        assert np.array_equal(np.array(image), scene.image)
        name = f"training/gt_image_2/{category}_road_{frame:06}.png"
        expected = paint_target(scene.road, scene.ignored)
        assert np.array_equal(np.array(Image.open(ROADS / name)), expected)


def test_table_of_drives_names_every_picture() -> None:
    with (ROADS / "drives.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = {f"{row['category']}_{row['number']}.png": row["drive"] for row in rows}
    images = {image.name for image, _ in ui.RoadDataset(ROADS).pairs}
    assert listed.keys() == images
    assert len(set(listed.values())) == 15
    assert len(list((ROADS / "training" / "calib").glob("*.txt"))) == 60
    options = {"patterns": ui.ROAD_PATTERNS["road"], "read_target": ui.read_road}
    data = ui.UISegmentationData(
        ROADS / "training", image_size=(64, 208), scenes=listed, **options
    )
    data.setup()
    parts = (part.pairs for part in (data.train_set, data.val_set))
    train, val = ({listed[image.name] for image, _ in pairs} for pairs in parts)
    assert train.isdisjoint(val)
    image, target = data.val_set[0]
    assert (image.shape, target.shape) == ((3, 64, 208), (1, 64, 208))


def test_ignored_pixels_stay_ignored() -> None:
    steps = [ui.ImageTargetResize(62), ui.ImageTargetToTensor()]
    dataset = ui.RoadDataset(ROADS, ui.ImageTargetCompose(steps), "lane", cache=True)
    values = set()
    again = pickle.loads(pickle.dumps(dataset))
    for (image, target), other in zip(dataset, again, strict=True):
        assert torch.equal(target, other.target)
        assert image.shape[1:] == target.shape[1:] == (62, 205)
        values |= set(target.unique().tolist())
    assert target.dtype == torch.float32 and values == {0, 1, 255}


GT = "training/gt_image_2"
PART: list[tuple] = [
    # files taken away, options, words that are told, pictures that the advice finds
    ("training/*/umm_*", {}, "umm um_road uu_road", [1, 2, 5, 6]),
    ("training/*/u[mu]*_road_*", {}, 'um_lane target="lane"', None),
    (f"{GT}/*_lane_*", {"target": "lane"}, "um_lane", None),
    (f"{GT}/*", {}, "gt_image_2 _road_", None),
    (f"{GT}/umm_road_000001.png", {}, "umm_000001.png umm_road_000001", None),
    ("*/image_2/um_000000.png", {}, "um_road_000000.png um_000000", None),
    ("*/*/*", {}, "image_2 gt_image_2", None),
    ("nothing", {"target": "lanes"}, "'lanes' road lane", None),
]


@pytest.mark.parametrize("case", PART)
def test_a_part_of_the_kit_is_refused_and_advice_holds(
    case: tuple, tmp_path: Path
) -> None:
    taken, options, words, left = case
    root = make_kit(tmp_path)
    for path in root.glob(taken):
        path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"expected |no file is named") as told:
        ui.RoadDataset(root, **options)
    for word in words.split():
        assert word in str(told.value)
    assert "try patterns" not in str(told.value)
    if left is not None:
        advice = re.search(r"UIImageMaskDataset\(.*\)", str(told.value))[0]
        dataset = eval(advice, {**vars(ui), "folder": root / "training"})
        assert [own for own, _, _ in own_numbers(dataset)] == left
    elif "target=" in words:
        assert len(ui.RoadDataset(root, target="lane")) == 2


def test_a_grey_mask_is_refused_when_it_is_read(tmp_path: Path) -> None:
    root = make_kit(tmp_path)
    path = root / GT / "uu_road_000001.png"
    Image.new("L", (60, 20), 255).save(path)
    with pytest.raises(ValueError, match=r"uu_road_000001.png: .*colours"):
        ui.RoadDataset(root)[5]


def test_doctor_knows_the_kit() -> None:
    patterns = ui.ROAD_PATTERNS["road"]
    report = ui.check_pairs(ROADS / "training", patterns, read_target=ui.read_road)
    assert (report.ok, report.num_pairs) == (True, 60)
    assert {value for value in report.values} == {RED, MAGENTA, BLACK}
