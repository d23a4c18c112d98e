"""The doctor: every planted fault is found, once, and what is sound is left alone."""

import ctypes
import json
import multiprocessing
import random
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageFilter

import ui_segmentation_system as ui
from tests.conftest import MakePairs, colours, draw_image, find_box, indexed, levels

masks, maps = partial(partial, ui.load_mask), partial(partial, ui.load_classes)
INPUTS = Path(__file__).parents[1] / "test_inputs"
BLACK, RED, GREEN, MAGENTA = (0, 0, 0), (255, 0, 0), (0, 200, 0), (255, 0, 255)
SIZE = (48, 40)
DOT = Image.new("L", SIZE)
DOT.putpixel((5, 5), 255)
SMALL = DOT.resize((24, 20), Image.Resampling.NEAREST)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def scene(number: int) -> Image.Image:
    """Draw coarse noise, another for each number."""
    blocks = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(blocks).resize((96, 64), Image.Resampling.NEAREST)


def folder_of(
    folder: Path, *masks: Any, images: Callable[[int], Image.Image] = scene
) -> Path:
    """Write pairs 1, 2, ...; a mask may be (picture, suffix), or None for no file."""
    folder.mkdir(exist_ok=True)
    for number, mask in enumerate(masks, start=1):
        images(number).save(folder / f"{number}_input.png")
        picture, suffix = mask if isinstance(mask, tuple) else (mask, "png")
        if picture is not None:
            picture.save(folder / f"{number}_target.{suffix}")
    return folder


def examine(folder: Path, *masks: Any, **options: Any) -> ui.PairReport:
    """Write pairs of these masks and examine them."""
    return ui.check_pairs(folder_of(folder, *masks), **options)


def of_severity(report: ui.PairReport, severity: str) -> list[ui.Problem]:
    return [problem for problem in report.problems if problem.severity == severity]


def image_of(number: int) -> Image.Image:
    return draw_image(number, SIZE)


def box_of(number: int) -> Image.Image:
    return find_box(image_of(number))


def tagged(picture: Image.Image, path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    picture.save(path, exif=exif)


def change(folder: Path, table: Callable[[int], int], number: int | str = 3) -> None:
    for path in folder.glob(f"{number}_target.png"):
        Image.open(path).point(table).save(path)


def add(folder: Path, image: Image.Image, target: Image.Image) -> None:
    image.save(folder / "9_input.png")
    target.save(folder / "9_target.png")


def brighter(number: int, amount: int = 3) -> Image.Image:
    return image_of(number).point(lambda value: min(value + amount, 255))


def told(report: ui.PairReport) -> list[tuple[str, str]]:
    return [(problem.severity, problem.file) for problem in report.problems]


def clear(folder: Path) -> None:
    """Let a picture be seen through, as a fourth band that is no alpha does."""
    picture = Image.open(folder / IMAGE).convert("RGB")
    picture.putalpha(120)
    picture.save(folder / IMAGE)


def as_jpeg(folder: Path) -> None:
    box_of(3).save(folder / "3_target.jpg")
    (folder / "3_target.png").unlink()


DIM = np.random.default_rng(0).integers(0, 4096, SIZE[::-1]).astype(np.uint16)
IMAGE, MASK, DOUBLE = "3_input.png", "3_target.png", "3_input.bmp"
ADDED, EVERY = "9_input.png", "8 targets"
FAULTS: list[tuple[Callable[[Path], Any], str, str, str]] = [
    # what is done to a folder of eight; the file, severity and words that are told
    (lambda f: (f / MASK).unlink(), IMAGE, "error", r"3_target\.\*"),
    (lambda f: (f / IMAGE).unlink(), MASK, "error", r"3_input\.\*"),
    (lambda f: shutil.copy(f / IMAGE, f / DOUBLE), DOUBLE, "error", IMAGE),
    (lambda f: (f / IMAGE).write_text(LFS), IMAGE, "error", "Git LFS"),
    (lambda f: (f / MASK).write_text(LFS), MASK, "error", "Git LFS"),
    (lambda f: (f / IMAGE).write_text(""), IMAGE, "error", "empty"),
    (lambda f: (f / MASK).write_text("hello"), MASK, "error", "hello"),
    (lambda f: SMALL.save(f / MASK), MASK, "error", r"24\D+20.*48\D+40"),
    (lambda f: tagged(image_of(3), f / IMAGE, 6), MASK, "error", r"48\D+40.*40\D+48"),
    (lambda f: tagged(box_of(3), f / MASK, 8), MASK, "error", r"40\D+48.*48\D+40"),
    (lambda f: tagged(image_of(3), f / IMAGE, 3), IMAGE, "warning", f"EXIF.*{MASK}"),
    (lambda f: change(f, lambda v: v // 51), MASK, "error", r"0 \(.*5 \("),
    (lambda f: Image.new("RGB", SIZE, RED).save(f / MASK), MASK, "error", "255, 0, 0"),
    (lambda f: change(f, lambda v: v // 255), MASK, "error", "1.*255"),
    (lambda f: change(f, lambda v: 255 - v), MASK, "warning", "inverted"),
    (lambda f: change(f, lambda v: 0), MASK, "warning", "all black"),
    (lambda f: change(f, lambda v: 255), MASK, "warning", "all white"),
    (lambda f: change(f, lambda v: 255 - v, "*"), EVERY, "warning", "inverted"),
    (lambda f: [DOT.save(p) for p in f.glob("*_t*")], EVERY, "warning", "0.05%"),
    (as_jpeg, "1 targets", "warning", "JPEG"),
    (lambda f: Image.fromarray(DIM).save(f / IMAGE), IMAGE, "warning", " 15 of 255"),
    (clear, IMAGE, "warning", "alpha is laid on white"),
    (lambda f: add(f, image_of(2), box_of(2)), ADDED, "warning", "like 2_input"),
    (lambda f: add(f, image_of(2), DOT), ADDED, "warning", "like 2_input"),
    (lambda f: add(f, brighter(2), box_of(2)), ADDED, "warning", "like 2_input"),
    (lambda f: shutil.copy(f / IMAGE, f / "cover.png"), "cover.png", "warning", ""),
]


@pytest.fixture
def folder(make_pairs: MakePairs) -> Path:
    """A clean folder of eight pairs that have the same box."""
    return make_pairs(8, SIZE)


@pytest.mark.parametrize("reader", [ui.load_mask, masks(foreground=())])
@pytest.mark.parametrize(("plant", "file", "severity", "what"), FAULTS)
def test_planted_fault_is_found_and_nothing_else(
    plant: Callable, file: str, severity: str, what: str, reader: Callable, folder: Path
) -> None:
    clean = ui.check_pairs(folder)
    assert (clean.problems, clean.num_pairs, clean.ok) == ((), 8, True)
    assert clean.values == {0: (0.859375, 8), 255: (0.140625, 8)}
    plant(folder)
    report = ui.check_pairs(folder, read_target=reader)
    (problem,) = report.problems
    assert (problem.file, problem.severity) == (file, severity)
    assert re.search(what, problem.what) and str(folder) not in problem.what
    assert problem.mend
    assert report.ok == (severity == "warning")


ANNOTATED = {
    "labels.json": '{"images": [], "annotations": [], "categories": []}',  # COCO
    "1_input.json": '{"version": "5.5.0", "shapes": []}',  # labelme
    "a/2_gtFine_polygons.json": '{"imgHeight": 4, "objects": []}',  # Cityscapes
    "via.json": '{"_via_img_metadata": {}}',
    "3.xml": "<?xml version='1.0'?>\n<annotation>\n</annotation>",  # VOC
    "cvat.xml": "<annotations><image/></annotations>",
    "labels/1.txt": "0 0.5 0.5 0.25 1.000000\n1 .1 0 1 0.2\n",  # YOLO
    "labels/2.TXT": "12 0.1 0.1 0.2 0.1 0.2 0.2\r\n",
}
OTHER_TEXT = {
    "index.json": '{"class_names": ["bars"], "items": [{"id": 1, "classes": [0]}]}',
    "settings.json": '{"classes": "0", "foreground": "255"}',
    "broken.json": "{",
    "setup.xml": "<settings/>",
    "notes.txt": "annotations: 3",
    "train.txt": "1\n2\n",
    "sizes.txt": "1 640 480 3 4\n",
    "empty.txt": "",
}


def add_texts(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", ANNOTATED)
def test_annotations_that_are_not_read_are_named(folder: Path, name: str) -> None:
    add_texts(folder, OTHER_TEXT)
    assert ui.check_pairs(folder).problems == ()
    add_texts(folder, {name: ANNOTATED[name]})
    (problem,) = ui.check_pairs(folder).problems
    what = f"hold annotations that check does not read: {name}"
    assert problem == ui.Problem("1 files", what, ui.DRAW_THEM, "warning")


def test_many_annotations_are_one_line_with_a_count(folder: Path) -> None:
    add_texts(folder, ANNOTATED)
    report = ui.check_pairs(folder)
    assert report.ok and told(report) == [("warning", "8 files")]
    *_, line, mend = str(report).splitlines()
    pattern = "8 files  hold annotations .*: 1_input.json, 3.xml, .*, [.]{3}$"
    assert re.search(pattern, line)
    assert "lesson 12, docs/what_tools_write.md" in mend


def test_images_with_annotations_in_place_of_masks_are_one_line(folder: Path) -> None:
    for path in folder.glob("*_target.png"):
        if path.name[0] not in "12":
            path.with_suffix(".json").write_text('{"shapes": []}')
            path.unlink()
    report = ui.check_pairs(folder)
    assert [severity for severity, _ in told(report)] == ["error"] * 6 + ["warning"]
    assert report.num_pairs == 2
    lines = str(report).splitlines()
    assert sum("lesson 12" in line for line in lines) == 2  # as errors, as a warning
    assert any(line.endswith("and 3 more such") for line in lines)
    assert any("and 3_target.json is no picture" in line for line in lines)


def test_all_faults_are_told_and_printed_as_a_table(folder: Path) -> None:
    (folder / "1_target.png").unlink()
    (folder / "2_input.png").write_text("")
    change(folder, lambda value: 0)
    report = ui.check_pairs(folder)
    expected = [("error", "1_input.png"), ("error", "2_input.png"), ("warning", MASK)]
    assert told(report) == expected
    assert (report.num_pairs, report.ok) == (6, False)
    head, values, balance, *lines = str(report).splitlines()
    assert head == f"{folder}: 6 whole pairs, not ok"
    assert "0 " in values and "255 " in values
    assert "foreground: 11.7%" in balance and "0.0% to 14.1%" in balance
    rows = [line.split() for line in lines if "->" not in line]
    assert [(row[0], row[1]) for row in rows] == expected
    places = zip(lines[::2], rows, strict=True)
    assert len({line.index(row[2], 20) for line, row in places}) == 1
    data = json.loads(report.to_json())
    shown = {"ok": False, "values": {str(v): report.values[v] for v in (0, 255)}}
    assert data == json.loads(json.dumps(vars(report) | shown, default=vars))
    assert data["problems"][0].keys() == {"file", "what", "mend", "severity"}


def test_the_same_fault_of_many_files_is_said_once_and_counted(tmp_path: Path) -> None:
    report = examine(tmp_path, *(levels(0, 11, 12 + n % 30) for n in range(60)))
    assert len(report.problems) >= 60
    lines = str(report).splitlines()
    assert len(lines) < 12 and "  error    and 57 more such" in lines


def test_shares_of_foreground(folder: Path) -> None:
    target = np.zeros((40, 48), np.uint8)
    target[:20] = 255
    target[20:30] = 128
    Image.fromarray(target).save(folder / MASK)
    (folder / "1_target.png").unlink()  # counts nowhere
    report = ui.check_pairs(folder, read_target=masks(ignore=[128]))
    usual = np.array(box_of(2)) > 0
    assert report.least_share == usual.mean()
    assert report.most_share == 20 / 30
    counts = 6 * usual.sum() + 20 * 48, 6 * usual.size + 30 * 48
    assert report.foreground_share == counts[0] / counts[1]
    assert f"{counts[0] / counts[1]:.1%} of the pixels" in str(report)


TWO = levels(0, 255)
ROAD, SCENE = colours(RED, MAGENTA, BLACK), draw_image(0, (96, 64))
SPOT = SCENE.copy()  # as where outlines between colours were smoothed
SPOT.paste(RED, (0, 0, 32, 32))
LOSSY = [(ROAD, "jpg")]
REDS = [indexed({0: BLACK, 1: RED}), indexed({0: BLACK, 1: GREEN})]
BLANK, FAR = Image.new("1", (96, 64)), [RED, (9, 200, 0)]
SHADES, VOID = [levels(0, 90), (levels(0, 90), "jpg")], Image.new("L", (96, 64), 128)
# No pixel of these has neighbours of its own kind all around.
LINES = Image.fromarray(np.tile(np.uint8([[255]] + [[0]] * 7), (8, 96)))
ALL = "targets are foreground everywhere"
# Masks, how they are read, patterns of the errors and warnings, values by files.
HELD: list[tuple[list, Callable, list[str], list[str], dict]] = [
    ([TWO, levels(0, 1)], masks(), ["2_tar.*1.*255"], [], {0: 2, 1: 1, 255: 1}),
    ([TWO, levels(0, 1)], masks(foreground=[1, 255]), [], [], {}),
    ([levels(0, 1), levels(255)], masks(), ["1_tar.*255"], ["2_tar.*white"], {}),
    ([levels(0, 1), levels(0)], masks(), [], ["2_tar.*black"], {0: 2, 1: 1}),
    # Nothing is guessed of three values, and the values of all files are listed.
    ([levels(1, 2, 3)], masks(), ["1_tar.*2.*3"], [], {1: 1, 2: 1, 3: 1}),
    ([levels(0, 11, 255)], masks(), ["1_tar.*11.*255"], [], {0: 1, 11: 1, 255: 1}),
    ([levels(1, 2), levels(1)], masks(), ["1_tar.*2", "2_tar.*1"], [], {1: 2, 2: 1}),
    ([levels(1), levels(200, 255)], masks(), ["1_tar.*1", "2_tar.*200"], [], {}),
    # What is named, what is not, what is nowhere.
    ([levels(0, 11, 255)], masks(foreground=[11], ignore=[255]), [], [], {}),
    ([levels(0, 11, 255)], masks(foreground=[11]), [], ["1 targets.*255"], {}),
    ([levels(0, 5)], masks(foreground=[5, 7]), ["1 targets.*7.*5"], [], {0: 1, 5: 1}),
    ([levels(0, 5)], masks(foreground=[5], ignore=[255]), [], ["targets.*255"], {}),
    ([levels(0, 1, 255)], masks(ignore=[255]), [], [], {0: 1, 1: 1, 255: 1}),
    ([ROAD], masks(foreground=[MAGENTA]), [], [r"\(0, 0, 0\).*\(255, 0, 0\)"], {}),
    (
        *([ROAD], masks(foreground=[MAGENTA], ignore=[BLACK]), []),
        *([r"not named: \(255, 0, 0\) \(in 1\) right"], {}),
    ),
    ([ROAD], ui.read_road, [], ["255, 0, 0"], {RED: 1, MAGENTA: 1, BLACK: 1}),
    ([colours(BLACK, RED)], masks(foreground=[RED]), [], [], {BLACK: 1, RED: 1}),
    (SHADES, masks(foreground=[90, 200]), ["none.*200"], ["1 t.*JPEG"], {0: 2, 90: 2}),
    # Also where files are lossy, of many colours, or a range was named.
    (LOSSY, masks(foreground=[MAGENTA]), [], ["JPEG"], {}),
    (LOSSY, masks(foreground=[MAGENTA, GREEN]), [r"none.*0, 200"], ["JPEG"], {}),
    ([(levels(0, 20, 90), "jpg")], masks(foreground=[20]), [], ["JPEG"], {}),
    ([(TWO, "jpg"), TWO], masks(foreground=[128]), ["none.* 128"], ["JPEG"] * 4, {}),
    ([(LINES, "jpg")] * 2, masks(foreground=[255]), [], ["JPEG"], {0: 2, 255: 2}),
    ([SCENE], masks(foreground=[RED]), ["none.*255, 0, 0"], ["black", "100.0%"], {}),
    ([SPOT], masks(foreground=[RED]), [], ["over 256 colours, and 83.3% of its p"], {}),
    ([SPOT], maps(palette=FAR, max_distance=400), [], [], {}),
    ([levels(0, 11)], masks(foreground=range(128, 256)), ["none.* 128"], ["black"], {}),
    ([TWO], masks(foreground=range(128, 256)), [], [], {0: 1, 255: 1}),
    # Nothing but foreground cannot be learnt; what nobody judged is not black.
    ([levels(255)] * 2, masks(), [f"2 {ALL}"], ["1_t.*white", "2_t.*white"], {}),
    ([levels(255, 7)] * 2, masks(ignore=[7]), [f"2 {ALL}"], ["white"] * 2, {}),
    ([levels(0, 128, 255), VOID], masks(ignore=[128]), [], ["2_t.*is ignored: n"], {}),
    # One empty mask of another mode, pictures without a mask.
    ([levels(0, 15), BLANK], masks(foreground=[15]), [], ["black"], {0: 2, 15: 1}),
    ([colours(BLACK, RED), BLANK], masks(foreground=[RED]), [], ["2_tar.*black"], {}),
    ([TWO, None], masks(), ["2_input.*missing"], [], {0: 1, 255: 1}),
    # Palettes count by their colours once these are named.
    (REDS, masks(foreground=[1]), ["2_tar.*1.*colours"], [], {0: 2, 1: 2}),
    (REDS, maps(), ["2_tar.*1.*colours"], [], {}),
    (REDS, masks(foreground=[RED, GREEN]), [], [], {}),
    (REDS, maps(palette=[BLACK, RED, GREEN]), [], [], {}),
    (REDS, maps(classes=[[BLACK], [RED, GREEN]]), [], [], {}),
    # Class maps.
    ([levels(0, 1, 2)], maps(num_classes=3), [], [], {0: 1, 1: 1, 2: 1}),
    ([levels(0, 2)], maps(num_classes=5), [], [], {0: 1, 2: 1}),
    ([levels(0, 1, 11)], maps(num_classes=2), ["1_tar.*11"], [], {}),
    ([levels(0, 1, 11)], maps(num_classes=2, ignore=[11]), [], [], {}),
    ([levels(0, 1, 2)], maps(classes=[[0], [1, 2]]), [], [], {}),
    ([levels(0, 1, 2)], maps(classes=[[0], [1], [2], [3]]), [], ["targets.*3"], {}),
    ([levels(0, 1)], maps(classes=[[0], [1, 3]]), [], ["none.* 3 "], {}),
    ([levels(0)], maps(classes=[[2], [3]]), ["1_t.*0", "none.*2, 3"], [], {}),
    ([colours(RED, GREEN)], maps(palette=FAR, max_distance=9), [], [], {}),
    ([ROAD], maps(palette=[RED, BLACK]), [], [r"\(255, 0, 255\)"], {}),
    ([levels(0, 1), levels(1)], maps(), [], ["2_tar.*1"], {}),
    ([TWO, TWO], maps(), ["targets.*255.*load_mask"], ["1_tar", "2_tar"], {}),
]


@pytest.mark.parametrize("row", HELD)
def test_values_are_listed_and_what_is_odd_is_told(row: tuple, tmp_path: Path) -> None:
    pictures, read, errors, warnings, values = row
    report = examine(tmp_path, *pictures, read_target=read)
    for severity, expected in (("error", errors), ("warning", warnings)):
        found = of_severity(report, severity)
        said = [f"{one.file} {one.what} {one.mend}" for one in found]
        assert len(said) == len(expected), said
        for words in expected:
            assert any(re.search(words, text) for text in said), (words, said)
    assert report.ok == (not errors)
    if values:
        assert {value: files for value, (_, files) in report.values.items()} == values
        assert sum(share for share, _ in report.values.values()) == pytest.approx(1)
    assert all(problem.what and problem.mend for problem in report.problems)


OBJECTS = "{key}_input.*", "{key}_{object}.*"
CLASSES = "{key}_input.*", "{key}_{class}.*"


@pytest.mark.parametrize("patterns", [OBJECTS, CLASSES])
def test_several_masks_of_a_picture(patterns: tuple, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, None, None)
    for name, mask in (("1_a", TWO), ("1_b", levels(0, 0, 255)), ("2_b", TWO)):
        mask.save(folder / f"{name}.png")
    report = ui.check_pairs(folder, patterns)
    of_class = "have no mask of the class 'a', so nothing is of it"
    said = [problem.what for problem in report.problems]
    assert said == [of_class] * (patterns == CLASSES)
    assert (report.ok, report.num_pairs) == (True, 2)
    assert report.values[255][1] == 3
    assert (report.least_share, report.most_share) == (1 / 24, 2 / 24)
    for bad, words in (
        (levels(0, 7), r"0 \(.*7 \("),
        (TWO.resize((48, 32), 0), r"48\D+32.*96\D+64"),
    ):
        bad.save(folder / "1_a.png")
        report = ui.check_pairs(folder, patterns)
        (problem,) = of_severity(report, "error")
        assert problem.file == "1_a.png"
        assert re.search(words, problem.what + problem.mend)
        assert report.num_pairs == 1


def test_pictures_in_deeper_folders_are_not_left_out_without_a_word(
    tmp_path: Path,
) -> None:
    names = ["images/1", "images/more/2", "masks/1", "masks/more/2", "other/3"]
    for name in names:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (find_box(draw_image(1)) if "masks" in name else draw_image(1)).save(path)
    warned = of_severity(ui.check_pairs(tmp_path), "warning")
    told = [one.file for one in warned if one.what == "fits no pattern"]
    assert told == ["images/more/2.png", "masks/more/2.png"]


def test_in_masks_full_of_a_class_others_may_lie(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, None, None)
    for name in ("1_a", "2_a"):
        levels(255).save(folder / f"{name}.png")
    assert ui.check_pairs(folder, CLASSES).ok


def test_the_share_that_is_ignored_is_told(tmp_path: Path) -> None:
    cases = {(0, 1, 255): maps(classes=[[0], [1]]), (0, 255, 7): masks(ignore=[7])}
    for values, read in cases.items():
        mask = levels(*values)
        report = examine(tmp_path, mask, mask, read_target=read)
        assert report.ignored_share == 1 / 24
        assert "ignored: 4.2% of the pixels" in str(report)
        assert json.loads(report.to_json())["ignored_share"] == report.ignored_share


def test_patterns_that_find_no_mask_are_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, TWO, TWO)
    patterns = "{key}_input.*", "{key}_msk.*"
    report = ui.check_pairs(folder, patterns, missing="empty")
    (problem,) = of_severity(report, "error")
    assert "2 images" in problem.file and "--patterns" in problem.mend
    assert not report.ok
    of_classes = "{key}_input.*", "{class}/{key}_input.*"
    report = ui.check_pairs(folder, of_classes, missing="empty")
    assert problem in report.problems and not report.ok
    with pytest.raises(ValueError, match="--patterns"):
        ui.check_pairs(folder, patterns, missing="skip")


def test_options_of_reading_that_are_none_are_refused(tmp_path: Path) -> None:
    for read in (masks(foreground=255), maps(classes=[0, 1]), masks(ignore=[0.5])):
        with pytest.raises(ValueError, match="expected a list of ids"):
            examine(tmp_path, TWO, read_target=read)


@pytest.mark.parametrize(
    ("missing", "told", "num_pairs", "pixels"),
    [("empty", "nothing is there", 2, 48), ("skip", "left out", 1, 24)],
)
def test_pictures_without_a_mask_are_empty_or_left_out(
    tmp_path: Path, missing: str, told: str, num_pairs: int, pixels: int
) -> None:
    report = examine(tmp_path, TWO, None, missing=missing)
    (problem,) = report.problems
    assert (problem.file, problem.severity) == ("1 images", "warning")
    assert told in problem.what and report.ok
    assert report.num_pairs == num_pairs
    assert report.foreground_share == 1 / pixels


def test_committed_sets_have_no_false_alarm() -> None:
    read = maps(num_classes=9)
    patterns = ("{key}_input.png", "classes/{key}_classes.png")
    report = ui.check_pairs(INPUTS, patterns, read_target=read)
    assert (report.problems, report.num_pairs) == ((), 120)
    assert report.foreground_share is None
    files = [target for _, target in ui.find_pairs(INPUTS, patterns)]
    counts = [np.bincount(np.array(read(path)).ravel(), minlength=9) for path in files]
    expected = np.sum(counts, axis=0) / np.sum(counts)
    assert report.class_shares == pytest.approx(expected)
    assert f"0 {expected[0]:.2%}, 1 {expected[1]:.2%}" in str(report)


def test_overlapping_masks_count_once(tmp_path: Path) -> None:
    read = partial(ui.load_masks, num_classes=2)
    report = examine(tmp_path, levels(0, 1, 3, 2), read_target=read)
    assert (report.problems, report.foreground_share) == ((), 3 / 24)


@pytest.mark.parametrize("tag", range(1, 9))
def test_turned_photos(tag: int, folder: Path, tmp_path: Path) -> None:
    image = draw_image(1, (24, 24))
    square = folder_of(tmp_path / "square", find_box(image))
    tagged(image, square / "1_input.png", tag)
    assert len(ui.check_pairs(square).problems) == (tag > 1), "size cannot tell"
    lying = image_of(3).transpose(Image.Transpose.ROTATE_90)
    tagged(lying if tag > 4 else image_of(3), folder / IMAGE, tag)
    found = told(ui.check_pairs(folder))  # the mask is drawn on the upright picture
    assert found == [("warning", IMAGE)] * (tag in (2, 3, 4))


def test_inverted_mask_among_others_that_differ(folder: Path) -> None:
    for number in range(1, 9):
        target = Image.new("L", SIZE)
        target.paste(255, (10 + number, 10, 25 + number, 30))
        target.save(folder / f"{number}_target.png")
    assert ui.check_pairs(folder).problems == ()
    change(folder, lambda value: 255 - value)
    assert told(ui.check_pairs(folder)) == [("warning", MASK)]


def test_an_unread_mask_is_named_once_beside_missing_ones(tmp_path: Path) -> None:
    options = {"missing": "empty", "read_target": maps(classes=[[0], [1]])}
    report = examine(tmp_path, levels(0, 7), None, None, **options)
    unnamed = [one for one in report.problems if "ids that were not named" in one.what]
    assert [one.file for one in unnamed] == ["1_target.png"]


def test_scenes_are_found_in_both_forms_of_unicode(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", TWO, TWO)
    for path in [*folder.iterdir()]:
        path.rename(path.with_name(f"e\u0301{path.name}"))
    table = tmp_path / "scenes.csv"
    for text in ("\u00e9", "e\u0301"):
        lines = f"{text}1_input.png,s1\n{text}2_input.png,s2\n"
        table.write_text(f"image,scene\n{lines}", encoding="utf-8")
        report = ui.check_pairs(folder, scenes=ui.read_scenes(table))
        assert not [one for one in report.problems if "scene" in one.what], text


def test_scenes_say_what_may_look_alike(folder: Path) -> None:
    add(folder, brighter(2), box_of(2))
    names = [f"{number}_input.png" for number in range(1, 10)]
    apart = {name: f"scene of {name}" for name in names}
    (problem,) = ui.check_pairs(folder, scenes=apart).problems
    assert "scene" in problem.mend
    together = apart | {"9_input.png": apart["2_input.png"]}
    assert ui.check_pairs(folder, scenes=together).problems == ()
    del together[IMAGE], together["4_input.png"]
    report = ui.check_pairs(folder, scenes=together)
    assert told(report) == [("error", IMAGE), ("error", "4_input.png")]
    (problem,) = ui.check_pairs(folder, scenes=dict.fromkeys(names, "one")).problems
    assert problem.file == "9 images" and "--scenes" in problem.mend


def retina(number: int) -> Image.Image:
    """Draw a bright disc on black, as every such camera does, with faint blocks."""
    y, x = np.mgrid[-32:32, -48:48]
    blocks = np.array(scene(number).convert("L")) / 3
    eye = np.where(np.hypot(x, y) < 30, 120 + blocks, 0)
    return Image.fromarray(eye.astype(np.uint8))


def dark(number: int) -> Image.Image:
    """Draw as 12 bits in 16 are read: differences are too small to be seen."""
    return scene(number).point([value // 100 for value in range(256)] * 3)


@pytest.mark.parametrize(
    ("draw", "count", "alike"),
    [
        (retina, 15, []),
        (retina, 5, []),
        (dark, 24, []),
        (lambda n: retina(2 if n == 15 else n), 15, [(15, 2)]),
        (lambda n: brighter((n + 1) // 2, n), 6, [(2, 1), (4, 3), (6, 5)]),
        (lambda n: brighter(1, n), 3, [(2, 1), (3, 1), (3, 2)]),
        (lambda n: brighter(1, n), 6, [(a, b) for a in range(7) for b in range(1, a)]),
    ],
)
def test_duplicates(draw: Callable, count: int, alike: list, tmp_path: Path) -> None:
    mask = Image.new("L", draw(1).size)
    mask.paste(255, (10, 10, 20, 20))
    targets = [mask.rotate(number) for number in range(count)]
    report = ui.check_pairs(folder_of(tmp_path, *targets, images=draw))
    told = [f"{one.file} {one.what}" for one in report.problems]
    pattern = r"(\d+)_input.png looks nearly like (\d+)_in"
    found = [tuple(map(int, pair)) for pair in re.findall(pattern, "\n".join(told))]
    assert sorted(found) == alike


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_doctor_never_raises_on_content(tmp_path: Path) -> None:
    draw_image(0).convert("P").save(tmp_path / "whole.gif")
    for suffix in ("png", "jpg", "tif", "webp"):
        tagged(draw_image(0), tmp_path / f"whole.{suffix}", 6)
    chance, folder = random.Random(0), folder_of(tmp_path / "pairs")
    for number, path in enumerate(sorted(tmp_path.glob("whole.*")) * 30):
        for role in ("input", "target"):
            data = bytearray(path.read_bytes())
            for _ in range(3):
                data[chance.randrange(min(len(data), 150))] = chance.randrange(256)
            (folder / f"{number}_{role}{path.suffix}").write_bytes(data)
    report = ui.check_pairs(folder)
    assert len(report.problems) > 100
    assert all(problem.what and problem.mend for problem in report.problems)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (Mock(spec=ui.load_mask, side_effect=ValueError("not mine")), "not mine"),
        (lambda path: Image.open(path).convert("RGB"), "mode RGB"),
    ],
)
def test_readers_that_fail_are_told(read: Callable, words: str, tmp_path: Path) -> None:
    report = examine(tmp_path, TWO, read_target=read)
    (problem,) = report.problems
    assert words in problem.what and not report.ok


def test_progress_is_shown_if_asked_for(folder: Path, capsys) -> None:
    ui.check_pairs(folder)
    assert capsys.readouterr() == ("", "")
    ui.check_pairs(folder, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "8/8" in err


def peak_growth(folder: Path, read: Callable) -> int:
    """Examine a folder; by how many bytes that raises what the process ever held."""
    import resource  # not on Windows

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = ui.check_pairs(folder, read_target=read)
    assert report.num_pairs == 1
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


COLOURED = BLACK, MAGENTA, RED
HUGE: list[tuple[tuple, Callable, int]] = [
    # values, how they are read, bytes a pixel that this may cost at most
    ((0, 255, 0), masks(), 8),
    (COLOURED, masks(foreground=[MAGENTA], ignore=[BLACK]), 12),
    (COLOURED, maps(classes=[[BLACK], [MAGENTA, RED]]), 15),
    ((0, 5, 9), masks(foreground=[5], ignore=[9]), 9),
]


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(("values", "read", "most"), HUGE)
def test_memory_for_one_big_pair(
    values: tuple, read: Callable, most: int, tmp_path: Path
) -> None:
    y, x = np.mgrid[:3000, :3000].astype(np.uint16)
    image = np.stack([x >> 4, y >> 4, x + y >> 5], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "1_input.bmp")
    mask = np.array(values, np.uint8)[(x // 50 + y // 70) % 7 % 3]
    Image.fromarray(mask).save(tmp_path / "1_target.bmp")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(peak_growth, [tmp_path, read]) < most * x.size


def test_check_gives_memory_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of a huge picture takes the place of the picture, not more memory."""
    monkeypatch.setattr(ctypes, "CDLL", keep := Mock())
    monkeypatch.setattr(sys, "argv", [ui.__file__, "check", str(folder)])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(ui.__file__, run_name="__main__")
    keep.assert_not_called()


def test_a_range_of_greys_is_looked_up_as_one(tmp_path: Path) -> None:
    """In JPEG neighbouring greys blur: it does not matter within a range."""
    soft = levels(0, 255).resize(SIZE).filter(ImageFilter.GaussianBlur(1.5))
    for number in (1, 2):
        image_of(number).save(tmp_path / f"{number}_input.png")
        soft.save(tmp_path / f"{number}_target.jpg", quality=90)
    report = ui.check_pairs(tmp_path, read_target=masks(foreground=range(128, 256)))
    assert report.ok and report.num_pairs == 2
    dark = masks(foreground=range(100, 140))  # no area has these
    assert not ui.check_pairs(tmp_path, read_target=dark).ok


def test_a_refused_mask_is_not_counted(tmp_path: Path) -> None:
    mask = levels(0, 2), "jpg"
    report = examine(tmp_path, mask, read_target=masks(foreground=[2]))
    (problem,) = report.problems
    assert "blur" in problem.what and not report.values
