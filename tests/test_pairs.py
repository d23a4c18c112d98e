"""Pairs and datasets: folders as people have them, and what is read from them."""

import gc
import pickle
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import ui_segmentation_system as ui
from tests.conftest import MakePairs, draw_image, find_box, levels, regions


def same(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def put(folder: Path, *names: str) -> Path:
    """Write small pictures, and texts under other names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in ui.PICTURE_SUFFIXES:
            Image.new("L", (3, 2)).save(path, format="PNG")
        else:
            path.write_text("{}")
    return folder


def whole(name: str) -> str:
    return name if "." in name else f"{name}.png"


def put_all(folder: Path, text: str) -> Path:
    """Write the files of a text as `parse` reads it."""
    names = re.split(r", |>|\+", re.sub(r"\w+=", "", text))
    return put(folder, *map(whole, filter(None, names)))


def parse(text: str, folder: Path) -> list[tuple[Path, Any]]:
    """Read "image>mask, image>mask+mask, image>class=mask+class=, image"; adds .png.

    A + after a single mask makes it one of several.
    """

    def path(name: str) -> Path | None:
        return folder / whole(name) if name else None

    pairs: list[tuple[Path, Any]] = []
    for pair in text.split(", "):
        image, _, targets = pair.partition(">")
        names = [name for name in targets.split("+") if name]
        target: Any = tuple(map(path, names)) if "+" in targets else path(targets)
        if "=" in targets:
            classes = dict(name.split("=") for name in names)
            target = {name: path(mask) for name, mask in classes.items()}
        pairs.append((folder / whole(image), target))
    return pairs


def proposed(folder: Path, message: str = "--patterns") -> tuple[str, str]:
    """Give the patterns that a refusal proposes."""
    with pytest.raises(ValueError, match=message) as told:
        ui.find_pairs(folder)
    found = re.search(r'try patterns=\("(.*?)", "(.*?)"\)', str(told.value))
    assert '--patterns "{}" "{}"'.format(*found.groups()) in str(told.value)
    return found.groups()


# ---- names


def test_pairs_come_in_natural_order(make_pairs: MakePairs) -> None:
    folder = make_pairs(12)
    expected = parse(", ".join(f"{n}_input>{n}_target" for n in range(1, 13)), folder)
    assert ui.find_pairs(str(folder)) == ui.find_pairs(folder) == expected
    texts = ["9", "10", "a9b2", "a9b10", "a10", "b", "x²", "é"]
    assert sorted(texts[::-1], key=ui.natural_key) == texts


ROADS = "image_2/{kind}_{number}.png", "gt_image_2/{kind}_road_{number}.png"
OBJECTS = "images/{key}.*", "masks/{key}/{object}.*"
LONGEST = "i/{key}.*", "m/{key}_{object}.*"
CLASSES = "images/{key}.*", "masks/{class}/{key}.*"
ORDINARY = "{class}/{key}.png", "{class}/{key}_m.png"
ROAD_PAIRS = (
    "image_2/um_9>gt_image_2/um_road_9.PNG, image_2/um_10>gt_image_2/um_road_10"
)
EMPTY, SKIP = {"missing": "empty"}, {"missing": "skip"}
FOUND: list[tuple[tuple[str, ...] | None, dict, str, str]] = [
    # patterns, options, the pairs, other files beside them
    (None, {}, "1_input.PNG>1_target.png", "1_inputs.png"),
    (None, {}, "1_INPUT>1_Target.PNG", ".1_input.png"),
    (None, {}, "boss fight_input>boss fight_target.gif", "Thumbs.db"),
    (None, {}, "меню_é_input>меню_é_target.bmp", "._меню_é_input.png"),
    (None, {}, "e\u0301_input>\u00e9_target", ""),  # as macOS writes it, and others
    (None, {}, "a_input_2_input>a_input_2_target", "1_input.txt"),
    (None, {}, "10²_input>10²_target", ".git/3_input.png"),
    (None, {}, "1_input.jfif>1_target.pgm", "sub/2_input.png"),
    (None, {}, "s1_input.ome.tif>s1_target", "README.md"),
    (None, {}, "images/9>masks/9.bmp, images/10>masks/10.gif", ""),
    (None, {}, "Images/1.JPG>Masks/1", "masks.txt"),
    (None, EMPTY, "1_input, 2_input>2_target", ""),
    (None, EMPTY, "1_input, 2_input", ""),
    (None, SKIP, "2_input>2_target", "1_input.png"),
    (None, SKIP, "2_input>2_target", "1_input.png 1_input.jpg"),
    (("{k}.*", "m/{k}.*"), SKIP, "1.png>m/1", "2.png"),
    # Neighbours that are no masks of it: of a longer key, of the image itself.
    (("i/{k}.*", "m/{k}.*"), EMPTY, "i/a, i/a_1>m/a_1", "m/a_1.json"),
    (("{k}.jpg", "{k}.png"), EMPTY, "c.jpg, d.jpg>d.png", "c.txt"),
    (("i/{k}.*", "m/{k}.*"), SKIP, "i/a>m/a", "m/b.txt"),
    (("{key}.*", "{key}_mask.*"), {}, "a.jpg>a_mask", "b.txt"),
    (("img/*/{k}.*", "gt/*/{k}.*"), {}, "img/x/1>gt/y/1", "1.png"),
    (("{a}/im/{b}.*", "{a}/gt/{b}_*.png"), {}, "x/im/1>x/gt/1_z", ""),
    (("{k}/{k}.*", "{k}/{k}_gt.*"), {}, "1/1>1/1_gt", "2/3.png"),
    (("{b}-{a}.png", "{a}&{b}.png"), {}, "x-1>1&x", "x-1_png"),
    (("a [1] {k}.*", "b (1) {k}.*"), {}, "A [1] 2>B (1) 2", ""),
    (["{k}_a.*", "{k}_b.*"], {}, "1_a>1_b", "1_a_b_c.png"),
    (ROADS, {}, ROAD_PAIRS, "gt_image_2/um_lane_9.png"),
    (OBJECTS, {}, "images/1>masks/1/2+masks/1/10, images/2>masks/2/a+", "masks/3.png"),
    (OBJECTS, EMPTY, "images/1>masks/1/a+, images/2>", ""),
    (("{key}.*", "{key}_{object}.*"), {}, "1>1_0+1_1, 10>10_0+", ""),
    # The longest key that an image has.
    (LONGEST, EMPTY, "i/s>m/s_1+, i/s_2>m/s_2_1+m/s_2_2", ""),
    (LONGEST, {}, "i/2011_25>m/2011_25_1+m/2011_25_2", ""),
    (("i/{k}.*", "m/{class}_{k}.*"), {}, "i/a_1>x=m/x_a_1+y_z=m/y_z_a_1", ""),
    (CLASSES, {}, "images/1>a=masks/a/1+b=masks/b/1, images/2>a=masks/a/2+b=", ""),
    (CLASSES, EMPTY, "images/1>a=masks/a/1+b=masks/b/1, images/2>a=+b=", ""),
    (CLASSES, SKIP, "images/1>a=masks/a/1", "images/2.png"),
    (CLASSES, EMPTY, "images/1, images/2", ""),
    (ORDINARY, {}, "cat/1>cat/1_m, dog/1>dog/1_m", ""),
]


@pytest.mark.parametrize(("patterns", "options", "text", "others"), FOUND)
def test_pairs_are_found(
    patterns: Any, options: dict, text: str, others: str, tmp_path: Path
) -> None:
    put(put_all(tmp_path, text), *others.split())
    (tmp_path / "4_input.png").mkdir()
    pairs = parse(text, tmp_path)
    assert ui.find_pairs(tmp_path, patterns, **options) == pairs
    dataset = ui.UIImageMaskDataset(tmp_path, patterns=patterns, **options)
    assert len(dataset) == len(pairs)
    if ".gif" not in text:
        assert dataset[0].image.size == (3, 2)


PARTS = "a/{key}.png", "b/{key}_{object}.png"
FOLDERS = "a/{k}.png", "b/{k}.png"
UNPAIRED: list[tuple] = [
    # files, words that the message must have; patterns and options, if any
    ("1_input 2_input 2_target", "1_input.png 1_target.* missing"),
    ("1_target 2_input 2_target", "1_target.png 1_input.*", None, EMPTY),
    ("1_target 2_input 2_target", "1_target.png 1_input.*", None, SKIP),
    # What is drawn and not read is not missing; without any mask nothing is a pair.
    ("images/1.png masks/1.npy", "1 .png 1 .npy", None, EMPTY),
    ("images/1.png masks/1.npy images/2.png masks/2.png", "masks/1.npy", None, SKIP),
    ("a/1.png b/1.bmp a/2.png b/2.png", "but b/1.bmp; .*", FOLDERS, EMPTY),
    ("a/1.png b/1_m.png", "2 .png b/{k}_mask", ("a/{k}.png", "b/{k}_mask.png"), SKIP),
    ("a/1.png b/1_x.png a/2.png b/2_x.bmp", "a/2.png b/2_x.bmp", PARTS, EMPTY),
    ("1_input 1_target 3_target 4_input", "2 3_target.png 4_input.png"),
    ("1_input.bmp 1_input.png 1_target", "1_input.bmp 1_input.png"),
    ("2_input.png 2_input.jpg 1_input 1_target", "2_input.jpg same key", None, EMPTY),
    ("1_input 1_target.bmp 1_target", "1_target.bmp 1_target.png {object}"),
    ("1_input.heic 1_target 2_input 2_target", "1_input.* 1_input.heic"),
    ("1_input.dcm 1_target", "1_target.png 1_input.dcm"),
    ("1_input 1_target.npy 2_input 2_target", "1_input.png 1_target.npy"),
    ("images/1.png", "1 .png masks/{key}.*"),
    ("images/1.png masks/2.png", "images/1.png masks/*/1.*", CLASSES, {}),
    ("images/1.png masks/1/a.png masks/2/b.png", "masks/2/b.png", OBJECTS, {}),
    ("a/1.png b/2.png", "2 .png x{k}.* y{k}.* --patterns", ("x{k}.*", "y{k}.*"), {}),
    ("image_2/um_9.png gt_image_2/um_road_8.png", "um_9.png um_road_9.png", ROADS, {}),
    ("", "{key}_input.* images/{key}.* --patterns"),
    ("1_input 1_target_0 1_target_1", "try {key}_target_{object}.*"),
    ("1_input 1_target_a 2_input 2_target", "1_input.png {object} 1_target_a"),
    # Labels that are no pictures.
    ("1.jpg 2.jpg 1.json 2.json", "2 .jpg 2 .json polygons"),
    ("a.jpg b.jpg instances.json", "2 .jpg 1 .json polygons"),
    ("1.jpg 1.xml", "1 .xml boxes"),
    ("images/1.jpg labels/1.txt images/2.jpg labels/2.txt", "polygons .txt"),
    ("images/1.jpg images/1.json", "polygons .json"),
    ("1_input 1_target.json", "1_target.json polygons"),
    ("1_input.nrrd 1_target.nrrd", "2 .nrrd save them as PNG"),
    # Nothing says what is a mask.
    *((names, "--patterns") for names in ("a b/c", "x{a}", "1 2 3")),
    ("dog dog_small cat cat_small", "--patterns"),
    ("train/images/1 train/images/2 train/masks/a train/masks/b", "--patterns"),
    # Images with images, masks with masks: nothing says which is which.
    ("gt_2/um_1 gt_2/umm_1 gt_2/um_2 gt_2/umm_2", "--patterns"),
    # No patterns fit all.
    ("2.png 2_1.jpg 4.jpg 4_4.png 5_5.png", "name them so, or say patterns"),
]


@pytest.mark.parametrize("case", UNPAIRED)
def test_what_is_no_pair_is_named(case: tuple, tmp_path: Path) -> None:
    names, words, patterns, options = (*case, None, {})[:4]
    with pytest.raises(ValueError) as told:
        ui.find_pairs(put(tmp_path, *map(whole, names.split())), patterns, **options)
    assert str(told.value).startswith(f"{tmp_path}: ")
    for word in words.split():
        assert word in str(told.value)
    assert ("try patterns" in str(told.value)) == ("try" in words.split())


PROPOSED = [
    "images/001_image>masks/001_mask, images/002_image>masks/002_mask",
    "image/1>label/1, image/2>label/2",
    "imgs/1>Labels/1, imgs/2>Labels/2",
    "train/1.jpg>train_mask/1, train/2.jpg>train_mask/2",
    "train/1.jpg>train_masks/1_mask.gif, train/2.jpg>train_masks/2_mask.gif",
    "images/training/1>gt/training/1, images/training/2>gt/training/2",
    "images/training/1>gt/training/1, images/validation/2>gt/validation/2",
    "train/images/1>train/masks/1, val/images/2>val/masks/2",
    "1>1_mask, 2>2_mask",
    "img_1>mask_1, img_2>mask_2",
    "img1>mask1, img2>mask2",
    "images/img1>masks/mask1, images/img2>masks/mask2",
    "a/img>a/label, b/img>b/label",
    "images/1.jpg>masks/1.jpg.png, images/2.jpg>masks/2.jpg.png",
    "1_input>masks/1_target, 2_input>masks/2_target",
    "ISIC_1.jpg>ISIC_1_segmentation, ISIC_2.jpg>ISIC_2_segmentation",
    "raw/a_1>seg/a_1_L, raw/a_2>seg/a_2_L",
    "im/train/x/x_1_leftImg8bit>gt/train/x/x_1_gt_labelIds, "
    "im/train/x/x_2_leftImg8bit>gt/train/x/x_2_gt_labelIds",
    "images/length_1>masks/length_1_m, images/length_2>masks/length_2_m",
    "train/1>trainannot/1, train/2>trainannot/2",
    # Several masks of an image; what tells them apart need not be a number.
    "1_input>1_target_0+1_target_1, 2_input>2_target_0+2_target_1",
    "1_input>1_target_a+1_target_b, 2_input>2_target_a+",
    "1.jpg>1_cat_0+1_dog_0+1_dog_1, 2.jpg>2_dog_0+",
    "a/img>a/mask_1+a/mask_2, b/img>b/mask_1+",
    "images/1.jpg>masks/1/x+masks/1/y, images/2.jpg>masks/2/z+",
    "a/images/a>a/masks/x+a/masks/y, b/images/b>b/masks/z+",
    "s/7f3a/images/7f3a>s/7f3a/masks/01c4+s/7f3a/masks/e7f3, "
    "s/c0de/images/c0de>s/c0de/masks/a7f3+",
    "im_1/i/im_1>im_1/gt/ob_1+im_1/gt/ob_5, im_2/i/im_2>im_2/gt/ob_1+",
    # No word says mask: the longer name, of another kind, is the mask's.
    "a.jpg>a_vessels, b.jpg>b_vessels",
    "a>a_1stHO.gif, b>b_1stHO.gif",
    "Image_01L.jpg>Image_01L_1stHO, Image_01R.jpg>Image_01R_1stHO",
    "a>a_manual1.gif, b>b_manual1.gif",
    "a_2>a_2_manual1, a>a_manual1",
    "t/im/21_t.tif>t/1st_manual/21_m1.gif, t/im/22_t.tif>t/1st_manual/22_m1.gif",
]


@pytest.mark.parametrize("text", PROPOSED)
def test_proposed_patterns_pair_everything(text: str, tmp_path: Path) -> None:
    patterns = proposed(put_all(tmp_path, text))
    pairs = ui.find_pairs(tmp_path, patterns)
    assert sorted(pairs) == sorted(parse(text, tmp_path))


def test_one_of_two_kinds_of_masks_is_proposed(tmp_path: Path) -> None:
    """As in Pascal VOC, where moreover most images have none."""
    kinds = "JPEGImages/{}.jpg SegmentationClass/{}.png SegmentationObject/{}.png"
    names = [name.format(n) for n in (1, 2) for name in kinds.split()]
    put(tmp_path, *names, "JPEGImages/3.jpg")
    message = r"SegmentationClass/\{key\}.*; 2 other pictures are left out"
    pairs = ui.find_pairs(tmp_path, proposed(tmp_path, message), missing="skip")
    assert [target.name for _, target in pairs] == ["1.png", "2.png"]
    put(tmp_path, "SegmentationAlpha/x.png")  # the kind with most masks
    proposed(tmp_path, "SegmentationClass")


@pytest.mark.parametrize(
    "name", ["{}_input.png", "{}_target.png", "x{}.png", "{}.json"]
)
def test_many_files_without_pairs_cost_a_pass_and_a_few_lines(
    name: str, tmp_path: Path
) -> None:
    calls = []
    for count in (400, 800):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / name.format(number)).touch()
        events: list[str] = []
        sys.setprofile(lambda _, event, __, add=events.append: add(event))
        try:
            ui.find_pairs(folder)
        except ValueError as error:
            message = str(error)
        finally:
            sys.setprofile(None)
        calls.append(len(events))
        assert message.count("\n") < 30
    assert calls[1] < 2.5 * calls[0]


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_shares_that_leave_nothing_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"expected more than 0, less than 1"):
        ui.group_split(["a", "b"], share)


def test_groups_are_never_parted() -> None:
    groups = [f"scene {number % 7}" for number in range(100)]
    for seed in range(20):
        train, val = ui.group_split(groups, 0.3, seed)
        assert sorted(train + val) == list(range(100))
        assert (train, val) == (sorted(train), sorted(val))
        assert not {groups[i] for i in train} & {groups[i] for i in val}
        assert len(val) in (28, 29, 30)
        assert (train, val) == ui.group_split(groups, 0.3, seed)
        large = ui.group_split(["a"] * 6 + ["b"] * 4, 0.1, seed)
        assert sorted(map(len, large)) == [4, 6]
        assert all(ui.group_split(["a", "b"], 0.9, seed))
        assert [len(part) for part in ui.group_split("abcde", 0.4, seed)] == [3, 2]
    assert len({tuple(ui.group_split(groups, 0.3, seed)[1]) for seed in range(9)}) > 3


# ---- datasets


def test_samples_are_the_files_in_order(make_pairs: MakePairs) -> None:
    folder = make_pairs(11)
    first = folder / "1_input.png", folder / "1_target.png"
    for dataset, numbers in (
        (ui.UIImageMaskDataset(folder), range(1, 12)),
        (ui.PairDataset(ui.find_pairs(folder)[:3]), [1, 2, 3]),
        (ui.UIImageMaskDataset(folder, overfit_num=5), [1] * 5),
        (ui.UIImageMaskDataset(folder, overfit_num=np.int64(2)), [1] * 2),
        (ui.OverfitDataset(*map(str, first), number_of_samples=np.int64(4)), [1] * 4),
    ):
        assert len(dataset) == len(numbers)
        for number, sample in zip(numbers, dataset, strict=True):
            assert isinstance(sample, ui.Sample)
            assert same(sample.image, draw_image(number))
            assert same(sample.target, find_box(draw_image(number)))
        with pytest.raises(IndexError):
            dataset[len(dataset)]
        assert same(dataset[-1].image, dataset[len(dataset) - 1].image)
    assert len(ui.OverfitDataset(*first)) == 2000


def test_100_samples_by_16_are_6_whole_batches(make_pairs: MakePairs) -> None:
    folder = make_pairs(1)
    pair = folder / "1_input.png", folder / "1_target.png"
    dataset = ui.OverfitDataset(*pair, 100, ui.ImageTargetToTensor())
    batches = DataLoader(dataset, 16, drop_last=True)
    shapes = [(*batch.image.shape, *batch.target.shape) for batch in batches]
    assert shapes == [(16, 3, 20, 24, 16, 1, 20, 24)] * 6


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that are opened from here on."""
    names: list[str] = []
    real = Image.open

    def count(file: Any) -> Image.Image:
        names.append(str(file))
        return real(file)

    monkeypatch.setattr(Image, "open", count)
    return names


def overfit(folder: Path, **_: Any) -> ui.PairDataset:
    return ui.OverfitDataset(folder / "1_input.png", folder / "1_target.png", 4)


@pytest.mark.parametrize(
    ("make", "options", "files"),
    [
        (ui.UIImageMaskDataset, {}, 24),
        (ui.UIImageMaskDataset, {"cache": True}, 8),
        (ui.UIImageMaskDataset, {"cache": True, "overfit_num": 9}, 2),
        (overfit, {}, 2),
    ],
)
def test_cache_reads_each_file_once(
    make: Callable, options: dict, files: int, make_pairs: MakePairs, opened: list[str]
) -> None:
    dataset = make(make_pairs(4), **options)
    for _ in range(3):
        samples = list(dataset)
    assert len(opened) == files
    if files < 24:
        samples[0].image.paste(128, (0, 0, 5, 5))
        samples[0].target.paste(128, (0, 0, 5, 5))
        assert same(dataset[0].image, draw_image(1))
        assert same(dataset[0].target, find_box(draw_image(1)))


@pytest.mark.parametrize(("cache", "files", "kept"), [(True, 12, 12), (False, 36, 0)])
def test_what_is_kept_is_the_scaled_pair(
    cache: bool, files: int, kept: int, make_pairs: MakePairs, opened: list[str]
) -> None:
    folder = make_pairs(6, (480, 320))
    flip = ui.ImageTargetRandomHorizontalFlip()
    data = ui.UISegmentationData(
        folder, 2, (16, 24), val_share=0.34, augment=flip, cache=cache
    )
    data.setup()
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is Image.Image}
    for _ in range(3):
        for loader in (data.train_dataloader(), data.val_dataloader()):
            shapes = {(*batch.image.shape, *batch.target.shape) for batch in loader}
            assert shapes == {(2, 3, 16, 24, 2, 1, 16, 24)}
    assert len(opened) == files
    del loader
    gc.collect()
    new = [one for one in gc.get_objects() if type(one) is Image.Image]
    sizes = [one.size for one in new if id(one) not in before]
    assert sizes == [(24, 16)] * kept


def test_prepared_samples_equal_unprepared_and_go_through_the_transform(
    make_pairs: MakePairs,
) -> None:
    folder, size = make_pairs(4), ui.ImageTargetResize((16, 18))
    calls: list[int] = []

    def counted(*pair: Any) -> ui.Sample:
        calls.append(1)
        return ui.ImageTargetToTensor()(*pair)

    plain = ui.UIImageMaskDataset(
        folder, ui.ImageTargetCompose([size, ui.ImageTargetToTensor()])
    )
    cached = ui.UIImageMaskDataset(folder, counted, prepare=size, cache=True)
    for _ in range(2):
        for one, other in zip(plain, cached, strict=True):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.target, other.target)
    assert len(calls) == 8


def test_samples_of_one_image_and_other_targets(tmp_path: Path) -> None:
    image, masks = tmp_path / "a.png", (levels(0, 255), levels(255, 0))
    draw_image(0, (96, 64)).save(image)
    for number, mask in enumerate(masks):
        mask.save(tmp_path / f"{number}.png")
    pairs = [(image, tmp_path / f"{number}.png") for number in (0, 1)]
    for cache in (False, True):
        dataset = ui.PairDataset(pairs, cache=cache)
        assert all(same(dataset[n].target, masks[n]) for n in (0, 1, 0, 1))


def test_a_transform_that_paints_on_its_picture_spoils_no_cache(tmp_path: Path) -> None:
    def paint(image: Any, target: Any) -> tuple[Any, Any]:
        for one in (image, target):
            if isinstance(one, torch.Tensor):
                one[:] = 0
            else:
                one.paste(0, (0, 0, *one.size))
        return image, target

    draw_image(0).save(tmp_path / "1_input.png")
    find_box(draw_image(0)).save(tmp_path / "1_target.png")
    pairs = ui.find_pairs(tmp_path)
    for prepare in (None, ui.ImageTargetToTensor()):
        dataset = ui.PairDataset(pairs, paint, prepare=prepare, cache=True)
        assert dataset[0] and dataset[0]
        dataset.transform = None
        assert all(np.any(one) for one in map(np.asarray, dataset[0]))


def test_datasets_travel_to_worker_processes(make_pairs: MakePairs) -> None:
    inverted = partial(ui.load_mask, foreground=(0,))
    dataset = ui.UIImageMaskDataset(
        make_pairs(2), ui.ImageTargetToTensor(), cache=True, read_target=inverted
    )
    there = pickle.loads(pickle.dumps(dataset))
    assert there.read_target.keywords == {"foreground": (0,)}
    assert torch.equal(there[1].image, dataset[1].image)
    expected = 1 - np.array(find_box(draw_image(2))) / 255
    assert same(there[1].target[0], expected)


# What a target may be, how it is read, and what comes of it in the regions 0, 1, 2.
LEVELS = {"a": levels(0, 255), "b": levels(0, 0, 255), "c": levels(0, 128, 255)}
MAPS = {"a": levels(0, 1, 2), "b": levels(0, 3)}
VOID = partial(ui.load_mask, foreground=[255], ignore=[128])
MASKS = partial(ui.load_masks, num_classes=2)
TARGETS: list[tuple[Callable, dict, str, list]] = [
    (ui.load_mask, LEVELS, "a+b", [[0, 1, 1]]),
    (ui.load_mask, LEVELS, "a+", [[0, 1, 0]]),
    (VOID, LEVELS, "b+c", [[0, 255, 1]]),
    (VOID, LEVELS, "a+c", [[0, 1, 1]]),
    (ui.load_mask, LEVELS, "", [[0, 0, 0]]),
    (ui.load_mask, LEVELS, "x=a+y=b", [[0, 1, 0], [0, 0, 1]]),
    (VOID, LEVELS, "x=c+y=a", [[0, 255, 1], [0, 1, 0]]),
    (ui.load_mask, LEVELS, "x=+y=b", [[0, 0, 0], [0, 0, 1]]),
    (ui.load_mask, LEVELS, "x=+y=", [[0, 0, 0], [0, 0, 0]]),
    (ui.load_classes, MAPS, "a", [0, 1, 2]),
    (ui.load_classes, MAPS, "", [0, 0, 0]),
    (MASKS, MAPS, "b", [[0, 1, 0], [0, 1, 0]]),
    (MASKS, MAPS, "", [[0, 0, 0], [0, 0, 0]]),
]


@pytest.mark.parametrize(("read", "pictures", "text", "expected"), TARGETS)
def test_targets_of_every_kind(
    read: Callable, pictures: dict, text: str, expected: list, tmp_path: Path
) -> None:
    for name, picture in {**pictures, "image": draw_image(0, (96, 64))}.items():
        picture.save(tmp_path / f"{name}.png")
    pairs = parse(f"image>{text}, image>b", tmp_path)
    sample = ui.PairDataset(pairs, ui.ImageTargetToTensor(), read_target=read)[0]
    dtype = torch.int64 if read is ui.load_classes else torch.float32
    assert sample.target.dtype == dtype
    assert same(sample.target, np.array(expected)[..., regions()])


def test_a_target_read_as_an_array_is_refused(make_pairs: MakePairs) -> None:
    pairs = ui.find_pairs(make_pairs(1))
    dataset = ui.PairDataset(pairs, read_target=lambda path: np.array(Image.open(path)))
    with pytest.raises(ValueError, match=r"target.png: read as ndarray; expected a"):
        dataset[0]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder, real = tmp_path / "linked", tmp_path / "real"
    put(real, "images/1.png", "images/2.png", "masks/1.png", "masks/2.png")
    folder.mkdir()
    for part in ("images", "masks"):
        (folder / part).symlink_to(real / part, target_is_directory=True)
    (real / "images" / "back").symlink_to(folder, target_is_directory=True)
    expected = parse("images/1>masks/1, images/2>masks/2", folder)
    assert ui.find_pairs(folder) == expected


def test_a_part_without_masks_looks_like_the_others(tmp_path: Path) -> None:
    """An empty class map, where only the other part has class maps."""
    put(tmp_path, *(f"{number}_input.png" for number in range(1, 9)))
    Image.fromarray(np.eye(2, 3, dtype=np.uint8)).save(tmp_path / "1_target.png")
    for seed in range(3):
        data = ui.UISegmentationData(
            tmp_path,
            batch_size=1,
            val_share=0.5,
            seed=seed,
            missing="empty",
            read_target=partial(ui.load_classes, classes=[[0], [1]]),
        )
        data.setup()
        for part in (data.train_set, data.val_set):
            for _, target in part:
                assert target.dtype == torch.int64
                assert target.ndim == 2
