"""Pairs, the doctor and the datasets: folders as people have them, with every fault."""

import pickle
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakePairs, draw_image, find_box
from PIL import Image
from torch.utils.data import DataLoader

from ui_segmentation_system import (
    ImageTargetCompose,
    ImageTargetToTensor,
    OverfitDataset,
    PairDataset,
    Sample,
    UIImageMaskDataset,
    check_pairs,
    find_pairs,
    group_split,
    load_image,
    load_mask,
    natural_key,
    read_scenes,
)


def same(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


def names(folder: Path) -> list[tuple[str, str]]:
    return [(image.name, target.name) for image, target in find_pairs(folder)]


def test_pairs_come_in_natural_order(make_pairs: MakePairs) -> None:
    folder = make_pairs(12)
    expected = [(f"{n}_input.png", f"{n}_target.png") for n in range(1, 13)]
    assert names(folder) == names(str(folder)) == expected


def test_natural_key_reads_numbers() -> None:
    texts = ["b", "a10", "a9b2", "a9b10", "10", "9", "é"]
    assert sorted(texts, key=natural_key) == [
        *("9", "10", "a9b2", "a9b10", "a10", "b", "é")
    ]


@pytest.mark.parametrize(
    ("image", "target"),
    [
        ("1_input.PNG", "1_target.png"),
        ("1_INPUT.png", "1_Target.PNG"),
        ("boss fight 1_input.png", "boss fight 1_target.gif"),
        ("меню_é_input.png", "меню_é_target.bmp"),
        ("a_input_2_input.png", "a_input_2_target.png"),
        ("x²_input.png", "x²_target.png"),
        ("10²_input.png", "10²_target.png"),
    ],
)
def test_names_as_people_have_them(image: str, target: str, tmp_path: Path) -> None:
    picture = draw_image(0)
    picture.save(tmp_path / image)
    find_box(picture).save(tmp_path / target)
    assert names(tmp_path) == [(image, target)]
    assert check_pairs(tmp_path).ok
    assert same(UIImageMaskDataset(tmp_path)[0].image, picture)


def test_hidden_and_foreign_files_are_passed_over(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    foreign = (".DS_Store", "Thumbs.db", "._1_input.png", ".1_input.png", "1_input.txt")
    for name in (*foreign, "3_inputs.png", "input.png", "README.md"):
        (folder / name).write_bytes(b"no picture")
    (folder / "4_input.png").mkdir()
    assert len(find_pairs(folder)) == 2
    (warning,) = check_pairs(folder).problems
    assert (warning.file, warning.severity) == ("3_inputs.png", "warning")
    assert "neither image nor target (2 such pictures)" in warning.what


@pytest.mark.parametrize("look", [find_pairs, check_pairs, UIImageMaskDataset])
def test_folder_that_is_none(look: Callable, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: there is no such folder"):
        look(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file: is a file; expected a folder"):
        look(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no pairs; expected.*1_input"):
        look(tmp_path / "empty")


@pytest.mark.parametrize(
    ("lost", "left", "wanted"),
    [
        ("2_target.png", "2_input.png", "2_target"),
        ("2_input.png", "2_target.png", "2_input"),
    ],
)
def test_orphan_is_refused(
    lost: str, left: str, wanted: str, make_pairs: MakePairs
) -> None:
    folder = make_pairs(3)
    (folder / lost).unlink()
    message = f"pairs: .*{left}: no file is named {wanted}.*; add it, or take this"
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        find_pairs(folder)


@pytest.mark.parametrize("role", ["input", "target"])
def test_two_files_for_a_key_are_refused(role: str, make_pairs: MakePairs) -> None:
    folder = make_pairs(3)
    shutil.copy(folder / f"2_{role}.png", folder / f"2_{role}.bmp")
    message = f"2 files have the same key: 2_{role}.bmp, 2_{role}.png; keep one"
    with pytest.raises(ValueError, match=message):
        find_pairs(folder)


def test_all_faults_are_told_at_once(make_pairs: MakePairs) -> None:
    folder = make_pairs(4)
    (folder / "1_target.png").unlink()
    (folder / "3_input.png").unlink()
    with pytest.raises(ValueError, match=r"pairs: 2 faults") as error:
        find_pairs(folder)
    assert "1_input.png" in str(error.value)
    assert "3_target.png" in str(error.value)


def test_good_folder_has_no_problems(make_pairs: MakePairs) -> None:
    report = check_pairs(make_pairs(3))
    assert report.ok
    assert (report.num_pairs, report.problems) == (3, ())
    assert str(report).splitlines()[0].endswith("pairs: 3 whole pairs, ok")


def plant_faults(folder: Path, bad_files: dict[str, Path]) -> dict[str, str]:
    """Spoil ten of eleven pairs; what must be said of each file."""
    (folder / "1_target.png").unlink()
    (folder / "2_input.png").unlink()
    shutil.copy(folder / "3_input.png", folder / "3_input.bmp")
    shutil.copy(bad_files["empty"], folder / "4_input.png")
    shutil.copy(bad_files["truncated"], folder / "5_input.png")
    shutil.copy(bad_files["text"], folder / "6_target.png")
    shutil.copy(bad_files["pointer"], folder / "7_input.png")
    Image.new("L", (20, 24), 255).save(folder / "8_target.png")
    Image.fromarray(np.eye(20, 24, dtype=np.uint8) * 3).save(folder / "9_target.png")
    Image.new("RGB", (24, 20), (255, 0, 0)).save(folder / "10_target.png")
    return {
        "1_input.png": "no file is named 1_target",
        "2_target.png": "no file is named 2_input",
        "3_input.bmp": "2 files have the same key",
        "4_input.png": "the file is empty",
        "5_input.png": "damaged or cut short",
        "6_target.png": "not a picture",
        "7_input.png": "Git LFS pointer",
        "8_target.png": "20x24, but 8_input.png is 24x20",
        "9_target.png": "brightest value is 3",
        "10_target.png": "it has 1 colours",
    }


def test_doctor_names_each_planted_fault_once(
    make_pairs: MakePairs, bad_files: dict[str, Path]
) -> None:
    folder = make_pairs(11)
    planted = plant_faults(folder, bad_files)
    report = check_pairs(folder)
    errors = [fault for fault in report.problems if fault.severity == "error"]
    assert sorted(fault.file for fault in errors) == sorted(planted)
    for fault in errors:
        assert planted[fault.file] in fault.what
        assert str(folder) not in fault.what
        assert fault.mend
    assert not report.ok


def test_doctor_counts_whole_pairs(
    make_pairs: MakePairs, bad_files: dict[str, Path]
) -> None:
    folder = make_pairs(11)
    plant_faults(folder, bad_files)
    # Pair 3 has two inputs: nobody knows which is meant, so only pair 11 is whole.
    assert check_pairs(folder).num_pairs == 1


def test_report_prints_as_a_table(
    make_pairs: MakePairs, bad_files: dict[str, Path]
) -> None:
    folder = make_pairs(11)
    planted = plant_faults(folder, bad_files)
    head, balance, *lines = str(check_pairs(folder)).splitlines()
    assert head.startswith(f"{folder}: ")
    assert head.endswith("whole pairs, not ok")
    assert balance == "  foreground: 15.0% of the pixels, 15.0% to 15.0% in a mask"
    first = [line for line in lines if not line.lstrip().startswith("->")]
    assert len(first) * 2 == len(lines)
    assert {line.split()[1] for line in first} == set(planted)
    ends = [line.index(line.split()[2], 25) for line in first]
    assert len(set(ends)) == 1, "the second column is not straight"


@pytest.mark.parametrize(("grey", "word"), [(0, "black"), (255, "white")])
def test_empty_and_full_masks_are_warnings(
    grey: int, word: str, make_pairs: MakePairs
) -> None:
    folder = make_pairs(2)
    Image.new("L", (24, 20), grey).save(folder / "2_target.png")
    report = check_pairs(folder)
    assert report.ok
    (warning,) = report.problems
    assert (warning.file, warning.severity) == ("2_target.png", "warning")
    assert f"all {word}" in warning.what
    assert report.num_pairs == len(find_pairs(folder)) == 2


def test_jpeg_masks_are_one_warning(make_pairs: MakePairs) -> None:
    folder = make_pairs(3)
    for number in (1, 2):
        target = folder / f"{number}_target.png"
        Image.open(target).save(target.with_suffix(".jpg"), quality=90)
        target.unlink()
    report = check_pairs(folder)
    assert report.ok
    (warning,) = report.problems
    assert warning.file == "2 targets"
    assert "JPEG" in warning.what


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_doctor_never_raises_on_content(tmp_path: Path) -> None:
    draw_image(0).convert("P").save(tmp_path / "whole.gif")
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "jpg", "tif", "webp"):
        draw_image(0).save(tmp_path / f"whole.{suffix}", exif=exif)
    chance = random.Random(0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number, path in enumerate(sorted(tmp_path.glob("whole.*")) * 30):
        for role in ("input", "target"):
            data = bytearray(path.read_bytes())
            for _ in range(3):
                data[chance.randrange(min(len(data), 150))] = chance.randrange(256)
            (folder / f"{number}_{role}{path.suffix}").write_bytes(data)
    report = check_pairs(folder)
    assert len(report.problems) > 100
    assert all(problem.what and problem.mend for problem in report.problems)


def test_samples_are_the_files_in_order(make_pairs: MakePairs) -> None:
    dataset = UIImageMaskDataset(make_pairs(11))
    assert len(dataset) == 11
    for number, sample in enumerate(dataset, start=1):
        assert isinstance(sample, Sample)
        image = draw_image(number)
        assert same(sample.image, image)
        assert same(sample.target, find_box(image))


def test_past_the_end_is_an_index_error(make_pairs: MakePairs) -> None:
    folder = make_pairs(3)
    pair = folder / "1_input.png", folder / "1_target.png"
    for dataset in (UIImageMaskDataset(folder), OverfitDataset(*pair, 3)):
        with pytest.raises(IndexError):
            dataset[3]
        assert len(list(dataset)) == len(dataset) == 3
        assert same(dataset[-1].image, dataset[2].image)


def test_overfit_sets_repeat_the_first_pair(make_pairs: MakePairs) -> None:
    folder = make_pairs(11)
    pair = folder / "1_input.png", folder / "1_target.png"
    for dataset in (
        UIImageMaskDataset(folder, overfit_num=5),
        OverfitDataset(*map(str, pair), number_of_samples=5),
    ):
        assert len(dataset) == 5
        for sample in dataset:
            assert same(sample.image, load_image(pair[0]))
            assert same(sample.target, load_mask(pair[1]))
    assert len(OverfitDataset(*pair)) == 2000


def test_100_samples_by_16_are_6_whole_batches(make_pairs: MakePairs) -> None:
    folder = make_pairs(1)
    pair = folder / "1_input.png", folder / "1_target.png"
    dataset = OverfitDataset(*pair, 100, ImageTargetToTensor())
    batches = list(DataLoader(dataset, 16, drop_last=True))
    assert len(batches) == 6
    assert {tuple(batch.image.shape) for batch in batches} == {(16, 3, 20, 24)}
    assert {tuple(batch.target.shape) for batch in batches} == {(16, 1, 20, 24)}
    assert [len(b.image) for b in DataLoader(dataset, 16)] == [16] * 6 + [4]


def test_cached_samples_equal_uncached(make_pairs: MakePairs) -> None:
    folder = make_pairs(4)
    plain = UIImageMaskDataset(folder, ImageTargetToTensor())
    cached = UIImageMaskDataset(folder, ImageTargetToTensor(), cache=True)
    for _ in range(2):
        for one, other in zip(plain, cached, strict=True):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.target, other.target)


def test_cache_reads_each_file_once(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    cached = UIImageMaskDataset(folder, cache=True)
    before = [np.array(sample.image) for sample in cached]
    shutil.rmtree(folder)
    assert all(map(same, before, [sample.image for sample in cached]))


def test_cache_keeps_pictures_not_results(make_pairs: MakePairs) -> None:
    calls = []
    transform = ImageTargetCompose([lambda *pair: (calls.append(1), Sample(*pair))[1]])
    cached = UIImageMaskDataset(make_pairs(1), transform, cache=True)
    cached[0], cached[0]
    assert len(calls) == 2


def test_datasets_travel_to_worker_processes(make_pairs: MakePairs) -> None:
    dataset = UIImageMaskDataset(make_pairs(2), ImageTargetToTensor(), cache=True)
    there = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(there[1].image, dataset[1].image)


def test_unequal_sizes_are_refused(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    Image.new("L", (20, 24), 255).save(folder / "2_target.png")
    dataset = UIImageMaskDataset(folder)
    message = r"2_target\.png: 20x24, but .*2_input\.png is 24x20; expected equal"
    with pytest.raises(ValueError, match=message):
        dataset[1]


def test_targets_are_read_as_told(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    inverted = partial(load_mask, foreground=(0,))
    for dataset in (
        PairDataset(find_pairs(folder), read_target=inverted),
        UIImageMaskDataset(folder, read_target=inverted),
        pickle.loads(pickle.dumps(UIImageMaskDataset(folder, read_target=inverted))),
    ):
        assert dataset.read_target.keywords == {"foreground": (0,)}
        expected = 255 - np.array(find_box(draw_image(2)))
        assert same(dataset[1].target, expected)


def test_cache_is_not_drawn_on(make_pairs: MakePairs) -> None:
    cached = UIImageMaskDataset(make_pairs(1), cache=True)
    for picture in cached[0]:
        picture.paste(128, (0, 0, 5, 5))
    assert same(cached[0].image, draw_image(1))
    assert same(cached[0].target, find_box(draw_image(1)))


ROADS = "image_2/{kind}_{number}.png", "gt_image_2/{kind}_road_{number}.png"


def put(folder: Path, *paths: str) -> None:
    """Write small pictures; the grey of each is its place in the list."""
    for grey, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 2), grey).save(folder / path)


def paths_of(folder: Path, patterns: tuple | None = None) -> list[tuple[str, str]]:
    found = find_pairs(folder, patterns)
    return [tuple(p.relative_to(folder).as_posix() for p in pair) for pair in found]


def test_fields_all_agree(tmp_path: Path) -> None:
    numbers = ["um_9", "um_10", "uu_9"]
    put(tmp_path, *(f"image_2/{number}.png" for number in numbers))
    masks = [number.replace("_", "_road_") for number in numbers]
    put(tmp_path, *(f"gt_image_2/{name}.PNG" for name in masks))
    put(tmp_path, "gt_image_2/um_lane_9.png")
    expected = [
        (f"image_2/{number}.png", f"gt_image_2/{mask}.PNG")
        for number, mask in zip(numbers, masks, strict=True)
    ]
    assert paths_of(tmp_path, ROADS) == expected
    warnings = [
        p.file for p in check_pairs(tmp_path, ROADS).problems if "neither" in p.what
    ]
    assert warnings == ["gt_image_2/um_lane_9.png"]


@pytest.mark.parametrize(
    ("patterns", "image", "target"),
    [
        (("{key}.*", "{key}_mask.*"), "a.jpg", "a_mask.png"),
        (("img/*/{key}.*", "gt/*/{key}.*"), "img/x/1.png", "gt/y/1.png"),
        (("{a}/im/{b}.*", "{a}/gt/{b}_*.png"), "x/im/1.png", "x/gt/1_z.png"),
        (("{k}/{k}.*", "{k}/{k}_gt.*"), "1/1.png", "1/1_gt.png"),
        (("{b}-{a}.png", "{a}+{b}.png"), "x-1.png", "1+x.png"),
        (("a [1] {k}.*", "b (1) {k}.*"), "A [1] 2.png", "B (1) 2.png"),
    ],
)
def test_other_layouts(
    patterns: tuple, image: str, target: str, tmp_path: Path
) -> None:
    put(tmp_path, image, target)
    assert paths_of(tmp_path, patterns) == [(image, target)]
    assert len(UIImageMaskDataset(tmp_path, patterns=patterns)) == 1


def test_fields_never_cross_folders(tmp_path: Path) -> None:
    put(tmp_path, "sub/1_input.png", "sub/1_target.png", "2_input.png", "2_target.png")
    assert paths_of(tmp_path) == [("2_input.png", "2_target.png")]


def test_field_named_twice_agrees(tmp_path: Path) -> None:
    put(tmp_path, "1/1.png", "1/1_gt.png", "2/3.png", "2/3_gt.png")
    assert paths_of(tmp_path, ("{k}/{k}.*", "{k}/{k}_gt.*")) == [
        ("1/1.png", "1/1_gt.png")
    ]


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("IMGS", "Labels")])
def test_two_folders_need_no_patterns(images: str, masks: str, tmp_path: Path) -> None:
    put(tmp_path, f"{images}/10.png", f"{images}/9.png")
    put(tmp_path, f"{masks}/9.bmp", f"{masks}/10.gif")
    expected = [
        (f"{images}/9.png", f"{masks}/9.bmp"),
        (f"{images}/10.png", f"{masks}/10.gif"),
    ]
    assert paths_of(tmp_path) == expected
    (tmp_path / masks / "9.bmp").unlink()
    with pytest.raises(ValueError, match=rf"{images}/9.png: no file is named"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("{a}.png", "{b}.png"), r"expected the same fields in both.*images/\{key\}"),
        (("a.png", "b.png"), "same fields in both, at least one"),
        (("{k}.*", "{k}.*"), "both are"),
        (("{k}.*",), "expected two of them"),
        ("{k}.*", "expected two of them"),
        (("/x/{k}.*", "{k}.*"), "expected a path below the folder"),
        (("../{k}.*", "{k}.*"), "expected a path below the folder"),
        (("{k.*", "{k}.*"), "fields in braces"),
    ],
)
@pytest.mark.parametrize("look", [find_pairs, check_pairs])
def test_bad_patterns_are_refused(
    look: Callable, patterns: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        look(tmp_path, patterns)


def test_folder_of_other_names_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b/c.png")
    message = r"no pairs, but 2 other pictures, as a\.png; .*patterns=.*--patterns"
    with pytest.raises(ValueError, match=message):
        find_pairs(tmp_path)
    with pytest.raises(ValueError, match=r"expected files named like x\{k\}"):
        find_pairs(tmp_path, ("x{k}.*", "y{k}.*"))


def test_groups_are_never_parted() -> None:
    groups = [f"scene {number % 7}" for number in range(100)]
    for seed in range(20):
        train, val = group_split(groups, 0.3, seed)
        assert sorted(train + val) == list(range(100))
        assert train == sorted(train)
        assert val == sorted(val)
        assert not {groups[i] for i in train} & {groups[i] for i in val}
        assert len(val) in (28, 29, 30)
        assert (train, val) == group_split(groups, 0.3, seed)
    assert len({tuple(group_split(groups, 0.3, seed)[1]) for seed in range(9)}) > 3


def test_large_and_few_groups() -> None:
    for seed in range(5):
        train, val = group_split(["a"] * 6 + ["b"] * 4, 0.1, seed)
        assert sorted((len(train), len(val))) == [4, 6]
        assert all(map(len, group_split(["a", "b"], 0.9, seed)))
    with pytest.raises(ValueError, match="1 groups in 3 samples: expected at least 2"):
        group_split(["a"] * 3, 0.5)
    for share in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=f"val_share {share}: expected more"):
            group_split(["a", "b"], share)


def test_scenes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scenes.csv"
    path.write_text(
        "\ufeffscene,image,n\ncave,1_input.png,3\n town ,é.png,4\n", "utf-8"
    )
    assert read_scenes(path) == {"1_input.png": "cave", "é.png": "town"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 has the columns of an empty file; expected image,scene"),
        ("image,map\na,b\n", "line 1 has the columns image, map; expected image,scene"),
        ("image,scene\n", "no lines after the first"),
        ("image,scene\na,x\nb\n", "line 3 has no scene"),
        ("image,scene\n,x\n", "line 2 has no image"),
        ("image,scene\na,x\nb,y\na,z\n", "line 4 names a again"),
    ],
)
def test_bad_scenes_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scenes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"scenes\.csv: {message}"):
        read_scenes(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV table"):
        read_scenes(path)
    with pytest.raises(FileNotFoundError, match="does not exist; expected a CSV"):
        read_scenes(tmp_path / "gone.csv")


def test_bad_counts_are_refused(make_pairs: MakePairs) -> None:
    folder = make_pairs(1)
    with pytest.raises(ValueError, match="overfit_num -1: expected 0 or more"):
        UIImageMaskDataset(folder, overfit_num=-1)
    pair = folder / "1_input.png", folder / "1_target.png"
    with pytest.raises(ValueError, match="number_of_samples 0: expected 1 or more"):
        OverfitDataset(*pair, number_of_samples=0)


def test_overfit_set_reads_its_files_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png: does not exist"):
        OverfitDataset(tmp_path / "a.png", tmp_path / "b.png")
