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
# Of the real kit; its calibration and its test pictures are not read.
KITTI_SIZE = (1242, 375)


def save_target(path: Path, number: int, size: tuple[int, int]) -> None:
    """Draw a target whose bands of magenta and black are as high as its number."""
    width, height = size
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[:number] = MAGENTA
    pixels[height - number :] = BLACK
    Image.fromarray(pixels).save(path)


def make_kit(root: Path, size: tuple[int, int] = (60, 20)) -> Path:
    """Write a kit as KITTI has it: three categories that use the same numbers."""
    for folder in ("image_2", "gt_image_2", "calib"):
        (root / "training" / folder).mkdir(parents=True)
    (root / "testing" / "image_2").mkdir(parents=True)
    Image.new("RGB", size).save(root / "testing/image_2/um_000000.png")
    for code, category in enumerate(("um", "umm", "uu")):
        for frame in range(2):
            name = f"{category}_{frame:06}"
            (root / f"training/calib/{name}.txt").write_text("P0: 1 2 3\n")
            own = 2 * code + frame + 1
            image = Image.new("RGB", size, (own, own, own))
            image.save(root / f"training/image_2/{name}.png")
            target = root / f"training/gt_image_2/{category}_road_{frame:06}.png"
            save_target(target, own, size)
            if category == "um":
                lane = root / f"training/gt_image_2/um_lane_{frame:06}.png"
                save_target(lane, own + 6, size)
    return root


def own_number(sample: ui.Sample) -> tuple[int, int, int]:
    """Read back what `make_kit` wrote into image and target."""
    column = np.array(sample.target)[:, 0]
    found, ignored = int((column == 255).sum()), int((column == 128).sum())
    return sample.image.getpixel((0, 0))[0], found, ignored


@pytest.mark.parametrize("below", ["", "training"])
def test_each_picture_has_the_mask_of_its_category_and_number(
    tmp_path: Path, below: str
) -> None:
    dataset = ui.RoadDataset(make_kit(tmp_path / "data_road") / below)
    assert [own_number(sample) for sample in dataset] == [
        (number, number, number) for number in range(1, 7)
    ]


def test_the_lane_is_of_um_alone(tmp_path: Path) -> None:
    dataset = ui.RoadDataset(make_kit(tmp_path), target="lane")
    assert [own_number(sample) for sample in dataset] == [(1, 7, 7), (2, 8, 8)]


def test_a_kit_of_kittis_size(tmp_path: Path) -> None:
    dataset = ui.RoadDataset(make_kit(tmp_path, KITTI_SIZE), cache=True)
    image, target = dataset[4]
    assert image.size == target.size == KITTI_SIZE
    assert own_number(dataset[4]) == own_number(dataset[4]) == (5, 5, 5)


def test_committed_roads_are_whole() -> None:
    dataset = ui.RoadDataset(ROADS)
    names = [(image.name, target.name) for image, target in dataset.pairs]
    assert len(names) == 60
    for image, target in names:
        assert target == re.sub("_", "_road_", image)
    assert len(ui.RoadDataset(ROADS, target="lane")) == 20
    assert len(list((ROADS / "training" / "calib").glob("*.txt"))) == 60


def test_masks_say_what_the_colours_say() -> None:
    for target in ("road", "lane"):
        dataset = ui.RoadDataset(ROADS, target=target)
        for (_, path), (image, mask) in zip(dataset.pairs, dataset, strict=True):
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
    data = ui.UISegmentationData(
        ROADS / "training",
        image_size=(64, 208),
        scenes=listed,
        patterns=ui.ROAD_PATTERNS["road"],
        read_target=ui.read_road,
    )
    data.setup()
    sides = [
        {listed[image.name] for image, _ in part.pairs}
        for part in (data.train_set, data.val_set)
    ]
    assert sides[0].isdisjoint(sides[1])
    image, target = data.val_set[0]
    assert (image.shape, target.shape) == ((3, 64, 208), (1, 64, 208))


def test_ignored_pixels_stay_ignored() -> None:
    steps = [ui.ImageTargetResize(62), ui.ImageTargetToTensor()]
    dataset = ui.RoadDataset(ROADS, ui.ImageTargetCompose(steps), cache=True)
    values = set()
    for image, target in dataset:
        assert image.shape[1:] == target.shape[1:] == (62, 205)
        assert target.dtype == torch.float32
        values |= set(target.unique().tolist())
        logits = torch.zeros(1, *target.shape)
        changed = torch.where(target[None] == 255, 9.0, logits)
        assert ui.bce_loss(changed, target[None]) == ui.bce_loss(logits, target[None])
    assert values == {0, 1, 255}


def test_roads_survive_the_way_to_a_worker() -> None:
    dataset = ui.RoadDataset(ROADS, ui.ImageTargetToTensor(), target="lane")
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3].target, dataset[3].target)


def test_another_target_is_refused() -> None:
    with pytest.raises(ValueError, match="target 'lanes': expected one of road, lane"):
        ui.RoadDataset(ROADS, target="lanes")


def test_a_part_of_the_kit_is_refused_and_its_advice_holds(tmp_path: Path) -> None:
    training = make_kit(tmp_path) / "training"
    for path in training.rglob("umm_*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no picture of category umm; .*, uu") as told:
        ui.RoadDataset(tmp_path)
    advice = re.search(r"UIImageMaskDataset\(.*\)", str(told.value))[0]
    names = {**vars(ui), "training": training}
    assert [own_number(sample)[0] for sample in eval(advice, names)] == [1, 2, 5, 6]
    assert len(ui.RoadDataset(tmp_path, target="lane")) == 2
    for path in training.rglob("uu_*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="no picture of category umm, uu; "):
        ui.RoadDataset(training)


def test_faults_are_those_of_find_pairs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ui.RoadDataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no pairs; .*category}_road_{number}"):
        ui.RoadDataset(tmp_path)
    root = make_kit(tmp_path)
    (root / "training/gt_image_2/umm_road_000001.png").unlink()
    with pytest.raises(ValueError, match=r"umm_000001.png: no file is named gt_imag"):
        ui.RoadDataset(root)
    (root / "training/image_2/um_000000.png").unlink()
    with pytest.raises(ValueError, match=r"um_lane_000000.png: no file is named imag"):
        ui.RoadDataset(root, target="lane")


def test_a_grey_mask_is_refused_when_it_is_read(tmp_path: Path) -> None:
    root = make_kit(tmp_path)
    path = root / "training/gt_image_2/uu_road_000001.png"
    Image.new("L", (60, 20), 255).save(path)
    with pytest.raises(ValueError, match=r"uu_road_000001.png: .*no colours"):
        ui.RoadDataset(root)[5]


def test_doctor_knows_the_kit() -> None:
    patterns = ui.ROAD_PATTERNS["road"]
    folder = ROADS / "training"
    report = ui.check_pairs(folder, patterns, read_target=ui.read_road)
    assert report.ok
    assert report.num_pairs == 60
