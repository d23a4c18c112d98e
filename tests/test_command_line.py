"""The command line: check, train, predict; what they write, what they refuse."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import ui_segmentation_system as ui
from tests.conftest import MakePairs, Refused, draw_image, save_system, small_system

# A network and pictures so small that an epoch takes a blink.
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "--max-epochs", "2", "-b", "2")
COLUMNS = ["epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"]
# The least rate that is taken; it moves next to nothing.
NO_RATE = ("-lr", "1e-9")
# How three classes and what nobody judged are written into files, and read.
COLOURS = np.array([(128, 64, 128), (0, 0, 192), (70, 70, 70), (0, 0, 0)], np.uint8)
BY_COLOUR = ("--classes", "road=804080", "sky=0000c0", "wall=464646")
BY_COLOUR += ("--ignore", "000000")
HERE, OUT = Path(), Path("out")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


class Run(NamedTuple):
    pairs: Path
    folder: Path
    printed: str

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    def predict(self, *words: Any) -> int:
        return run("predict", "-c", self.best, *words)


def run(*words: Any) -> int:
    return ui.main([str(word) for word in words])


def train(pairs: Path, *words: Any, runs: Path = HERE / "runs") -> Path:
    """Train in a folder of runs; gives the folder of the run."""
    assert run("train", "-d", pairs, "-o", runs, *SMALL, *words) == 0
    return max(path for path in runs.iterdir() if path.name.isdecimal())


def read_settings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "settings.json").read_text())


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def near_weights(first: Path, second: Path) -> bool:
    one, other = (ui.read_checkpoint(path)["state_dict"] for path in (first, second))
    return all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_pictures(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        draw_image(number).save(path)
    return paths


def write_scenes(path: Path, scenes: dict[str, str]) -> Path:
    lines = [f"{image},{scene}\n" for image, scene in scenes.items()]
    path.write_text("image,scene\n" + "".join(lines))
    return path


def write_maps(folder: Path, values: np.ndarray) -> Path:
    """Make targets class maps: the box is class 1, below are 2 and, last, void."""
    rows = np.arange(20)[:, None]
    low = np.where(rows > 17, 3, np.where(rows > 11, 2, 0))
    for path in folder.glob("*_target.png"):
        Image.fromarray(values[np.where(pixels(path) > 0, 1, low)]).save(path)
    return folder


@pytest.fixture(autouse=True)
def place(monkeypatch: Patch, tmp_path: Path) -> None:
    """Work in an empty folder; take back what seeding leaves in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture
def pairs(make_pairs: MakePairs) -> Path:
    return make_pairs(4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run over six pairs, in folders with a space in their names."""
    parent = tmp_path_factory.mktemp("the module")
    pairs = parent / "my pairs"
    write_pictures(pairs, *(f"{number}_input.png" for number in range(1, 7)))
    for path in [*pairs.iterdir()]:
        mask = Image.open(path).convert("L").point(lambda grey: 255 * (grey > 150))
        mask.save(pairs / path.name.replace("input", "target"))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        folder = train(pairs, runs=parent / "my runs")
    return Run(pairs, folder, printed.getvalue())


# ---- check, and how train reads a folder


def test_check_tells_what_the_doctor_finds(pairs: Path, capsys: Capture) -> None:
    assert run("check", pairs, "--strict") == 0
    assert f"{pairs}: 4 whole pairs, ok" in capsys.readouterr().out
    Image.new("L", (24, 20)).save(pairs / "1_target.png")
    assert (run("check", pairs), run("check", pairs, "--strict")) == (0, 1)
    (pairs / "2_target.png").unlink()
    (pairs / "3_input.png").write_bytes(b"")
    report = ui.check_pairs(pairs)
    capsys.readouterr()
    assert run("check", pairs) == 1
    assert capsys.readouterr().out == f"{report}\n"
    assert run("check", pairs, "--json") == 1
    assert json.loads(capsys.readouterr().out) == json.loads(report.to_json())


@pytest.mark.parametrize(
    ("values", "options", "first_row"),
    [
        ([3, 7, 3, 3], ("--foreground", 7), [0, 1, 0, 0]),
        ([3, 7, 8, 9], ("--foreground", "7-9"), [0, 1, 1, 1]),
        ([3, 7, 9, 3], ("--foreground", "7,9"), [0, 1, 1, 0]),
        ([3, 7, 9, 5], ("--foreground", 7, 9, "--ignore", 5), [0, 1, 1, 255]),
        ([0, 255, 0, 90], ("--ignore", 90), [0, 1, 0, 255]),
        ([0, 85, 0, 0], ("--foreground", 85), [0, 1, 0, 0]),
        (COLOURS, ("--foreground", "0000c0"), [0, 1, 0, 0]),
        (COLOURS, ("--foreground", "#0000C0", "--ignore", "000000"), [0, 1, 0, 255]),
        (COLOURS, ("--foreground", "(0, 0, 192),(0,0,0)"), [0, 1, 0, 1]),
        ([0, 1, 2, 255], ("--classes", "0-2", "--ignore", 255), [0, 1, 2, 255]),
        ([0, 1, 2, 11], ("--classes", "0-2", "--ignore", 11), [0, 1, 2, 255]),
        ([4, 7, 9, 11], ("--classes", 4, 7, 9, "--ignore", 11), [0, 1, 2, 255]),
        ([4, 7, 9, 9], ("--classes", "ground=4,9", "sky=7"), [0, 1, 0, 0]),
        (COLOURS, BY_COLOUR, [0, 1, 2, 255]),
    ],
)
def test_options_say_what_values_mean(
    values: Any, options: tuple, first_row: list[int], pairs: Path, refused: Refused
) -> None:
    write_maps(pairs, np.array(values, np.uint8))
    assert run("check", pairs) == 1
    message = refused("train", "-d", pairs, "-o", "runs", *SMALL)
    assert str(pairs) in message and "--classes" in message
    assert "--foreground" in message and names(HERE) == ["pairs"]
    assert run("check", pairs, *options) == 0
    made = train(pairs, *options, "--max-epochs", 1)
    # The last column of a run's pictures is the target, at the size of training.
    shown = pixels(made / "epochs" / "001.png")[:32, 96:]
    ids = torch.tensor([first_row])
    [expected] = ui.to_array(ids if "--classes" in options else (ids == 1).float())
    assert np.array_equal(shown[[1, 6, 23, 31], [20, 6, 20, 20]], expected)


def test_a_threshold_is_where_a_soft_mask_is_cut(pairs: Path) -> None:
    write_maps(pairs, np.array([0, 215, 0, 0], np.uint8))
    assert run("check", pairs, "--threshold", 200) == 0
    assert run("check", pairs, "--threshold", 230) == 1


def rename(folder: Path) -> None:
    for path in [*folder.iterdir()]:
        name = path.name.replace("input", "shot").replace("target", "ui")
        path.rename(folder / name)


def halve_targets(folder: Path) -> None:
    for path in [*folder.glob("*_target.png")]:
        for left in (0, 12):
            half = pixels(path).copy()
            half[:, left : left + 12] = 0
            Image.fromarray(half).save(path.with_stem(f"{path.stem}_{left}"))
        path.unlink()


OBJECTS = ("--patterns", "{key}_input.*", "{key}_target_{object}.*")


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        (rename, ("--patterns", "{key}_shot.*", "{key}_ui.*"), "--patterns"),
        (lambda f: (f / "2_target.png").unlink(), ("--missing", "empty"), "missing"),
        (lambda f: draw_image(9).save(f / "9_input.png"), ("--missing", "skip"), "mi"),
        (halve_targets, OBJECTS, "{object}"),
    ],
)
def test_options_say_what_files_belong_together(
    change: Callable, options: tuple[str, ...], named: str, pairs: Path, capsys: Capture
) -> None:
    assert run("check", pairs, "--json") == 0
    share = json.loads(capsys.readouterr().out)["foreground_share"]
    change(pairs)
    with contextlib.suppress(SystemExit):
        assert run("check", pairs) == 1
    assert named in "".join(capsys.readouterr())
    assert run("check", pairs, *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)["foreground_share"]
    assert found == pytest.approx(share * (3 / 4 if "empty" in options else 1))
    assert len(read_log(train(pairs, *options))) == 2


def test_no_scene_is_on_both_sides(make_pairs: MakePairs) -> None:
    pairs = make_pairs(8)
    scenes = {f"{n}_input.png": ("even", "odd")[n % 2] for n in range(1, 9)}
    table = write_scenes(HERE / "scenes.csv", scenes)
    assert run("check", pairs, "--scenes", table) == 0
    words = ("--scenes", table, "--max-epochs", 1, "--val-share", 0.5)
    picture = pixels(train(pairs, *words) / "epochs" / "001.png")
    samples = ui.UIImageMaskDataset(pairs, ui.ImageTargetResize((32, 32)))
    images = [np.asarray(image).tobytes() for image, _ in samples]
    shown = [picture[32 * row : 32 * row + 32, :32].tobytes() for row in range(4)]
    assert shown in (images[::2], images[1::2])
    del scenes["3_input.png"]
    assert run("check", pairs, "--scenes", write_scenes(table, scenes)) == 1


# ---- train


def test_a_run_keeps_everything(trained: Run) -> None:
    expected = ["best.ckpt", "curves.png", "epochs", "last.ckpt", "log.csv"]
    assert names(trained.folder) == [*expected, "settings.json"]
    assert trained.folder.name == "001"
    assert names(trained.folder / "epochs") == ["001.png", "002.png"]
    for path in trained.folder.glob("**/*.png"):
        Image.open(path).load()
    rows = read_log(trained.folder)
    assert list(rows[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    scores = [float(row["val_iou"]) for row in rows]
    best = torch.load(trained.best, weights_only=True)
    assert best["epoch"] == int(np.argmax(scores))
    assert f"best val_iou {max(scores):.3f}" in trained.printed


def test_the_settings_are_kept_whole(trained: Run) -> None:
    given = {"dataset": str(trained.pairs), "output_dir": str(trained.folder.parent)}
    given |= {"image_size": [32], "fast": True, "max_features": 16, "max_epochs": 2}
    given |= {"batch_size": 2, "accelerator": "cpu"}
    defaults = json.loads(json.dumps(dataclasses.asdict(ui.Settings())))
    assert read_settings(trained.folder) == defaults | given


def test_the_printed_command_predicts(
    trained: Run, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    shell = trained.printed.partition("to predict: ")[2].strip()
    picture, home = tmp_path / "my new.png", tmp_path / "bin"
    draw_image(9).save(picture)
    home.mkdir()
    (home / "python").symlink_to(sys.executable)
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        shell.replace("PICTURES ...", f"'{picture}' -o '{tmp_path}'"),
        shell=True,
        check=True,
        cwd=pytestconfig.invocation_params.dir,  # as when it was printed
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    expected = ui.load_system(trained.best).predict_mask(draw_image(9))
    assert expected.any() and not expected.all()
    assert np.array_equal(pixels(tmp_path / "my new_mask.png") == 255, expected)


def test_the_next_run_gets_the_next_number(pairs: Path) -> None:
    runs = HERE / "runs"
    (runs / "007").mkdir(parents=True)
    (runs / "notes").mkdir()
    assert train(pairs, "--max-epochs", 1).name == "008"
    assert train(pairs, "--max-epochs", 1).name == "009"
    assert names(runs / "007") == []


def test_the_flags_of_2020_still_work(pairs: Path) -> None:
    flags = f"-d {pairs} -o runs -b 3 -lr 0.01 --image-size 32 48 --overfit-num 6"
    words = f"{flags} --seed 7 --max-epochs 1 --accelerator cpu".split()
    assert run("train", *words, "--max-features", 16, "--fast") == 0
    made = HERE / "runs" / "001"
    expected = {"dataset": str(pairs), "output_dir": "runs", "batch_size": 3, "seed": 7}
    expected |= {"learning_rate": 0.01, "image_size": [32, 48], "overfit_num": 6}
    assert expected.items() <= read_settings(made).items()
    assert read_log(made)[0]["step"] == "2"
    assert pixels(made / "epochs" / "001.png").shape == (32, 4 * 48, 3)


@pytest.mark.parametrize("command", ["check", "train", "predict"])
def test_help_tells_every_setting(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(command, "--help")
    printed, expected = capsys.readouterr().out, ["--"]
    if command == "train":
        defaults = ("machines:1", "augmentation:0", ":yes", ":no", ":256256", ":none")
        expected += [text.replace(":", "(default:") for text in defaults]
        for one in dataclasses.fields(ui.Settings):
            expected += [f"--{one.name.replace('_', '-')}", *one.metadata["flags"]]
            expected.append(one.metadata["help"])
    printed, *expected = (re.sub(r"\s", "", text) for text in (printed, *expected))
    assert [text for text in expected if text not in printed] == []


def test_weights_bring_their_network(
    pairs: Path, trained: Run, refused: Refused
) -> None:
    options = ("train", "-d", pairs, "-o", "runs", "-b", 1, "--weights", trained.best)
    for words in (("--max-features", 32), ("--classes", 0, 255)):
        message = refused(*options, *words)
        assert str(trained.best) in message and "expected" in message
    assert names(HERE) == ["pairs"]
    size = ("--image-size", 32, "--max-epochs", 1, "--accelerator", "cpu")
    assert run(*options, *size, *NO_RATE) == 0
    made = HERE / "runs" / "001"
    assert {"max_features": 16, "fast": True}.items() <= read_settings(made).items()
    assert near_weights(made / "last.ckpt", trained.best)
    scratch = train(pairs, "--max-epochs", 1, *NO_RATE)
    assert not near_weights(scratch / "last.ckpt", trained.best)


def test_patience_ends_a_run_without_gain(pairs: Path) -> None:
    words = (*NO_RATE, "--max-epochs", 9, "--patience", 2)
    assert len(read_log(train(pairs, *words))) == 3


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_val_share_of_the_pairs_is_validated(
    share: float, make_pairs: MakePairs
) -> None:
    folder = train(make_pairs(8), "--val-share", share, "--max-epochs", 1)
    assert pixels(folder / "epochs" / "001.png").shape[0] == 32 * 8 * share
    assert read_log(folder)[0]["step"] == str(round(8 * (1 - share)) // 2)


def test_augmentation_and_cache_can_be_left_out(pairs: Path) -> None:
    plain = train(pairs, "--no-augment")
    assert read_settings(plain)["augment"] is False
    for words in (("--augment",), ("--no-cache", "--no-augment")):
        same = near_weights(train(pairs, *words) / "last.ckpt", plain / "last.ckpt")
        assert same == ("--no-augment" in words)


def test_settings_of_the_loss_reach_it(trained: Run) -> None:
    words = ("--pos-weight", 5, "--loss", "bce", "--max-epochs", 1)
    system = ui.load_system(train(trained.pairs, *words) / "best.ckpt")
    assert (system.settings["pos_weight"], system.settings["loss"]) == (5, "bce")


def test_a_run_goes_on_from_another_folder(
    trained: Run, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(trained.pairs.parent)
    images = [path.name for path in trained.pairs.glob("*_input.png")]
    write_scenes(Path("scenes.csv"), {image: image for image in images})
    words = ("--scenes", "scenes.csv", "--weights", os.path.relpath(trained.best))
    folder = train(Path(trained.pairs.name), *words, runs=tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert run("train", "--resume", folder) == 0


# ---- several classes


@pytest.mark.parametrize(("third", "kind"), [(9, np.uint8), (900, np.uint16)])
def test_ids_stay_ids(third: int, kind: type, pairs: Path) -> None:
    """Ids of 16 bits too, which a palette cannot hold."""
    values = np.array([4, 7, third, 11], kind)
    picture = write_maps(pairs, values) / "1_input.png"
    options = ("--classes", "ground=4", "box=7", f"low={third}", "--ignore", 11)
    made = train(pairs, *options, "-lr", 0.02, "--max-epochs", 12)
    scores = ["val_iou_ground", "val_iou_box", "val_iou_low"]
    assert set(read_log(made)[0]) == {*COLUMNS, *scores}
    best = made / "best.ckpt"
    assert run("predict", "-c", best, picture, "--overlay", "-o", OUT) == 0
    found = Image.open(OUT / "1_input_mask.png")
    assert found.mode == ("P" if third == 9 else "I;16")
    classes = ui.load_system(best).predict_classes(ui.load_image(picture))
    assert np.array_equal(np.asarray(found), values[classes])
    assert len(np.unique(classes)) > 1
    assert pixels(OUT / "1_input_overlay.png").shape == (20, 24, 3)
    each = [[int(value)] for value in values]
    again = ui.load_classes(OUT / "1_input_mask.png", classes=each)
    assert np.array_equal(np.asarray(again), classes)


def test_colours_stay_colours(pairs: Path) -> None:
    picture = write_maps(pairs, COLOURS) / "1_input.png"
    made = train(pairs, *BY_COLOUR, "-lr", 0.02, "--max-epochs", 12)
    assert {"val_iou_road", "val_iou_sky", "val_iou_wall"} <= set(read_log(made)[0])
    words = ("-c", made / "best.ckpt", picture, "-o", OUT, "--tiles")
    assert run("predict", *words) == 0
    found = Image.open(OUT / "1_input_mask.png")
    assert found.mode == "P" and 1 < len(np.unique(found)) <= 3
    assert np.array_equal(found.convert("RGB"), COLOURS[np.asarray(found)])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("class_names", [(), ("box", "ground", "sky")])
def test_networks_of_python_are_used(task: str, class_names: tuple[str, ...]) -> None:
    """With names of classes, or none, and without their values in files."""
    write_pictures(HERE, "a.png")
    options = {"task": task, "num_out_channels": 3, "class_names": class_names}
    save_system(HERE / "a.ckpt", small_system(**options))
    assert run("predict", "-c", "a.ckpt", "a.png", "-o", OUT) == 0
    expected = [f"a_mask_{name}.png" for name in class_names or range(3)]
    assert names(OUT) == (["a_mask.png"] if task == "multiclass" else expected)


def test_a_mask_for_each_class(pairs: Path) -> None:
    for path in [*pairs.glob("*_target.png")]:
        Image.fromarray(255 - pixels(path)).save(path.with_stem(path.stem + "_Rest"))
        path.rename(path.with_stem(path.stem + "_box"))
    made = train(pairs, "--patterns", "{key}_input.*", "{key}_target_{class}.*")
    assert {"val_iou_Rest", "val_iou_box"} <= set(read_log(made)[0])
    [picture] = write_pictures(OUT, "a.png")
    system = ui.load_system(made / "best.ckpt")
    expected = system.predict_masks(ui.load_image(picture), 0.4)
    words = ("-c", made / "best.ckpt", "--overlay", "--overwrite", "--threshold", 0.4)
    for _ in range(2):  # what is written is not taken for a picture
        assert run("predict", *words, OUT, "-o", OUT) == 0
    masks = ["a_mask_Rest.png", "a_mask_box.png"]
    assert names(OUT) == ["a.png", *masks, "a_overlay.png"]
    for name, mask in zip(masks, expected, strict=True):
        assert np.array_equal(pixels(OUT / name), mask * np.uint8(255))


# ---- predict


@pytest.mark.parametrize(
    "picture",
    [
        *(draw_image(1).convert(mode) for mode in ("RGB", "L", "LA", "RGBA", "P", "1")),
        Image.fromarray(np.full((20, 24), 40000, np.uint16)),
        *(Image.new("RGB", size) for size in ((1, 1), (3, 200), (200, 3), (33, 31))),
    ],
    ids=lambda picture: f"{picture.mode} {picture.size}",
)
def test_predict_takes_every_picture(picture: Image.Image, trained: Run) -> None:
    path = HERE / "shot.png"
    picture.save(path)
    assert Image.open(path).mode == picture.mode
    assert trained.predict(path, "-o", OUT, "--overlay") == 0
    assert names(OUT) == ["shot_mask.png", "shot_overlay.png"]
    mask, image = Image.open(OUT / "shot_mask.png"), ui.load_image(path)
    assert (mask.mode, mask.size) == ("L", picture.size)
    expected = ui.load_system(trained.best).predict_mask(image)
    assert np.array_equal(np.asarray(mask), np.where(expected, 255, 0))
    assert np.array_equal(pixels(OUT / "shot_overlay.png"), ui.overlay(image, mask))


def test_predict_takes_folders_and_globs(trained: Run) -> None:
    here, there = HERE / "here [1]", HERE / "there"
    write_pictures(here, "a.png", "b.JPG", "a_target.png", "a_mask.png", "a_moon.png")
    write_pictures(here, "a_overlay.png", ".hidden.png", "in_mask_9.png")
    (here / "notes.txt").write_text("no picture")
    (here / "folder.png").mkdir()
    pictures = write_pictures(there, "c1.bmp", "c2.bmp", "d.bmp")
    last = pictures[-1]
    words = (here, there / "c*.bmp", last, os.path.relpath(last.resolve()), "-o", here)
    for _ in range(2):  # what is written is not taken for a picture
        assert trained.predict(*words, "--overlay", "--overwrite") == 0
    stems = ("a", "a_moon", "b", "c1", "c2", "d", "in_mask_9")
    for made in ("mask", "overlay"):
        expected = sorted(f"{stem}_{made}.png" for stem in stems)
        assert [n for n in names(here) if n.endswith(f"_{made}.png")] == expected


@pytest.mark.parametrize("there", ["a_mask.png", "b_overlay.png"])
def test_predict_overwrites_only_when_told(
    there: str, trained: Run, refused: Refused
) -> None:
    write_pictures(HERE / "in", "a.png", "b.png")
    OUT.mkdir()
    (OUT / there).write_text("mine")
    words = ("predict", "-c", trained.best, "in", "-o", OUT, "--overlay")
    message = refused(*words)
    assert there in message and "--overwrite" in message
    assert names(OUT) == [there] and (OUT / there).read_text() == "mine"
    assert run(*words, "--overwrite") == 0
    Image.open(OUT / there).load()
    assert len(names(OUT)) == 4


def test_a_damaged_picture_does_not_stop_the_others(
    trained: Run, refused: Refused
) -> None:
    _, damaged, _ = write_pictures(HERE / "in", "a.png", "b.png", "c.png")
    damaged.write_bytes(damaged.read_bytes()[:300])
    message = refused("predict", "-c", trained.best, "in", "-o", OUT)
    assert str(damaged) in message and "1 not done" in message
    assert names(OUT) == ["a_mask.png", "c_mask.png"]


def test_the_threshold_is_honoured(trained: Run) -> None:
    write_pictures(HERE, "a.png")
    for threshold, value in ((0, 255), (1, 0)):
        words = ("a.png", "--threshold", threshold, "--overwrite")
        assert trained.predict(*words, "-o", OUT) == 0
        assert (pixels(OUT / "a_mask.png") == value).all()


def test_tiles_are_asked_for(trained: Run, capsys: Capture) -> None:
    """Else even a picture nine times as large is scaled, as in training."""
    picture = draw_image(3, (300, 90))
    picture.save("a.png")
    found = []
    for words in ((), ("--no-tiles",), ("--tiles",)):
        assert trained.predict("a.png", "-o", OUT, "--overwrite", *words) == 0
        told = "scaled to 32x32, as in training; --tiles" in capsys.readouterr().out
        assert told == (words != ("--tiles",))
        found.append(pixels(OUT / "a_mask.png") == 255)
    system = ui.load_system(trained.best)
    expected = ui.predict_tiled(system, np.asarray(picture), (32, 32), 8) >= 0.5
    assert np.array_equal(found[2][None], expected)
    assert np.array_equal(found[0], system.predict_mask(picture))
    assert np.array_equal(found[0], found[1])
    assert (found[2] != found[0]).any()


def test_the_reference_is_used_by_itself(
    trained: Run, tmp_path: Path, refused: Refused, monkeypatch: Patch
) -> None:
    reference = tmp_path / "reference.ckpt"
    monkeypatch.setattr(ui, "REFERENCE", reference)
    write_pictures(HERE, "a.png")
    message = refused("predict", "a.png", "-o", OUT)
    assert str(reference) in message and "--checkpoint" in message
    shutil.copy(trained.best, reference)
    assert run("predict", "a.png", "-o", OUT) == 0
    assert trained.predict("a.png", "-o", "again") == 0
    assert np.array_equal(*(pixels(HERE / f / "a_mask.png") for f in (OUT, "again")))


# ---- refusals: {name} stands for a path of `places`


@pytest.fixture
def places(pairs: Path, trained: Run, tmp_path: Path) -> dict[str, Path]:
    write_pictures(tmp_path / "in", "a.png", "a.bmp")
    (tmp_path / "empty").mkdir()
    texts = {
        "taken": "mine",
        "notes.txt": "no picture",
        "headless.csv": "a.png,cave\n",
        "twice.csv": "image,scene\n1_input.png,x\n1_input.png,y\n",
        "blank.csv": "image,scene\n1_input.png,\n",
        "none.csv": "image,scene\n",
        "open.csv": 'image,scene\n"1_input.png,x\n2_input.png,y\n',
        "latin.csv": "image,scene\n1_input.png,Höhle\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="l1")
    made = {path.stem: path for path in tmp_path.iterdir()}
    paths = {"best": trained.best, "run": trained.folder, "nowhere": tmp_path / "no"}
    return made | paths | {"tmp": tmp_path}


TRAIN = "train -d {pairs} -o {tmp}/new " + " ".join(SMALL)
BOTH = ("check {pairs}", TRAIN)
PREDICT = "predict -c {best} -o {tmp}/new "
REFUSED = [
    # What is wrong with words, and what the message names.
    ("train --epochs 3", "--epochs: unknown; did you mean --max-epochs?"),
    ("train --learning_rate 3", "did you mean --learning-rate?"),
    ("check x --treshold 3", "did you mean --threshold?"),
    ("check x --strickt", "did you mean --strict?"),
    ("predict x --check-point y", "did you mean --checkpoint?"),
    ("check x --max-epochs 3", "--max-epochs: unknown"),
    ("train {pairs}", "given with -d"),
    ("train", "-d"),
    ("", "COMMAND"),
    ("trian", "'train'"),
    # Folders and files.
    ("check {nowhere}", "{nowhere}"),
    ("check {taken}", "{taken}"),
    ("check {empty}", "{empty}"),
    ("check {pairs} --patterns {{key}}_input.*", "patterns"),
    ("check {pairs} --patterns {{k}}.* {{k}}_{{ob}}_{{ject}}.*", "patterns ['{{k}}"),
    ("train -d {nowhere}", "{nowhere}"),
    *[
        (f"{command} --scenes {{{table}}}", f"{{{table}}}")
        for command in BOTH
        for table in ("nowhere", "empty", "headless", "twice", "blank", "none", "latin")
    ],
    ("check {pairs} --scenes {twice}", "line 3"),
    ("check {pairs} --scenes {open}", "unexpected end of data"),
    ("check {pairs} --scenes {headless}", "first line is 'a.png,cave'; expected"),
    (TRAIN + " -o {taken}", "{taken}: cannot be made a folder"),
    (TRAIN + " -o {taken}/deeper", "{taken}"),
    (TRAIN + " --weights {nowhere}", "{nowhere}"),
    (TRAIN + " --encoder-weights {notes}", "{notes}: expected encoder"),
    (TRAIN + " --weights {notes}", "{notes}"),
    ("predict -c {run} {in}/a.png", "{run}: is a folder"),
    (PREDICT + "{empty}", "{empty}"),
    (PREDICT + "{nowhere}", "{nowhere}"),
    (PREDICT + "{empty}/*.png", "{empty}/*.png"),
    (PREDICT + "{notes}", "{notes}"),
    (PREDICT + "{tmp}", "**/*.png"),
    (PREDICT + "{in}", "a.bmp"),
    ("predict -c {best} -o {taken} {in}/a.png", "{taken}"),
    ("predict -c {best} -o {in}/a.png {in}/a.bmp", "{in}/a.png"),
    # Numbers and choices.
    (TRAIN + " -b nan", "-b"),
    (TRAIN + " --max-epochs nan", "--max-epochs"),
    (TRAIN + " --image-size 2.5", "--image-size"),
    (TRAIN + " --precision 7", "recision"),
    (TRAIN + " --classes 0 255 --loss bce", "loss"),
    (TRAIN + " --classes 0 255 --pos-weight 3", "loss"),
    *[
        (f"{TRAIN} --{words}", words.split()[0].replace("-", "_"))
        for words in (
            *("batch-size 0", "batch-size -1", "batch-size 100", "learning-rate 0"),
            *("learning-rate -1", "learning-rate nan", "learning-rate inf"),
            *("learning-rate 1e30", "max-epochs 0", "max-epochs -1", "image-size 0"),
            *("image-size -32", "image-size 99999999", "image-size 8 8 8"),
            *("overfit-num -1", "val-share 0", "val-share 1", "val-share -0.1"),
            *("val-share 2", "val-share nan", "max-features 0", "max-features -16"),
            *("max-features 17", "pos-weight 0", "pos-weight -1", "pos-weight nan"),
            *("pos-weight inf", "patience -1", "seed -1", "seed 4294967296"),
            *("num-workers -1", "num-nodes 0", "devices 0", "devices -1"),
            *("devices many", "devices 1,2", "loss mse", "accelerator abacus"),
            "strategy luck",
        )
    ],
    (PREDICT + "{in}/a.png --threshold -0.1", "threshold"),
    (PREDICT + "{in}/a.png --threshold 1.5", "threshold"),
    (PREDICT + "{in}/a.png --threshold nan", "threshold"),
    # What values mean; no fault of the files.
    *[
        (f"{command} {words}", words.split()[0].removeprefix("--"))
        for command in BOTH
        for words in (
            *("--threshold 0", "--threshold 256", "--threshold -5", "--missing yes"),
            *("--foreground 255 --ignore 255", "--foreground 255 --ignore ff0000"),
            *("--foreground 1 1", "--foreground 0-255 7", "--classes 0 255 ff00ff"),
            *("--classes 0-9 3", "--classes a=0 a=255", "--classes =0 b=255"),
            *("--classes 0", "--classes 0 255 --foreground 255", "--classes 0,0"),
        )
    ],
    *[
        (f"{command} --{words}", f"'{re.split('[ =,]', words)[-1]}'")
        for command in BOTH
        for words in (
            *("foreground red", "ignore -1", "foreground 9-1", "foreground ff00f"),
            *("classes a=b", "classes 1,"),
        )
    ],
]


@pytest.mark.parametrize(("words", "named"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refusals(
    words: str, named: str, places: dict[str, Path], refused: Refused
) -> None:
    # Paths here have no spaces, but that of `trained`.
    message = refused(*(word.format(**places) for word in words.split()))
    assert named.format(**places) in message
    assert "target.png" not in message and "has faults" not in message
    if "--max-epochs: unknown" in named:
        assert "did you mean" not in message
    assert not (places["tmp"] / "new").exists()
    assert places["taken"].read_text() == "mine"
    Image.open(places["in"] / "a.png").load()


def test_a_faulty_folder_is_reported(pairs: Path, capsys: Capture) -> None:
    (pairs / "2_input.png").write_bytes(b"text")
    with pytest.raises(SystemExit, match="2"):
        run("train", "-d", pairs, "-o", "runs", *SMALL)
    assert str(ui.check_pairs(pairs)) in capsys.readouterr().out


@pytest.mark.parametrize("error", [MisconfigurationException("lost"), OSError("full")])
def test_what_others_raise_is_one_line(
    error: Exception, refused: Refused, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(ui, "_train", Mock(side_effect=error))
    assert refused("train", "-d", "pairs").endswith(f"train: {error}")


def test_a_fault_of_ours_is_no_refusal(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ui, "_train", Mock(side_effect=KeyError("ours")))
    with pytest.raises(KeyError, match="ours"):
        run("train", "-d", "pairs")
