"""The command line: check, train, predict; what they write, what they refuse."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import ui_segmentation_system as ui
from tests.conftest import (
    MakePairs,
    Refused,
    draw_image,
    find_box,
    save_system,
    small_system,
)

# A network and pictures so small that an epoch takes a blink.
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "--max-epochs", "2", "-b", "2")
COLUMNS = ["epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"]
# The least rate that is taken; it moves next to nothing.
NO_RATE = ("-lr", "1e-9")
# How three classes and what nobody judged are written into files, and read.
COLOURS = np.array([(128, 64, 128), (0, 0, 192), (70, 70, 70), (0, 0, 0)], np.uint8)
BY_COLOUR = ("road=804080", "sky=0000c0", "wall=464646"), ("000000",)

Capture = pytest.CaptureFixture[str]


class Run(NamedTuple):
    pairs: Path
    folder: Path
    printed: str

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"


def run(*words: Any) -> int:
    return ui.main([str(word) for word in words])


def train(pairs: Path, runs: Path, *words: Any) -> Path:
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


def squeeze(text: str) -> str:
    return "".join(text.split())


def rewrite_targets(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    for path in folder.glob("*_target.png"):
        Image.fromarray(change(pixels(path))).save(path)
    return folder


def write_maps(folder: Path, values: np.ndarray) -> Path:
    """Make targets class maps: the box is class 1, below are 2 and, last, void."""
    rows = np.arange(20)[:, None]
    low = np.where(rows > 17, 3, np.where(rows > 11, 2, 0))
    return rewrite_targets(folder, lambda mask: values[np.where(mask > 0, 1, low)])


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what seeding leaves in the environment."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run over six pairs, in folders with a space in their names."""
    parent = tmp_path_factory.mktemp("the module")
    pairs = parent / "my pairs"
    pairs.mkdir()
    for number in range(1, 7):
        image = draw_image(number)
        image.save(pairs / f"{number}_input.png")
        find_box(image).save(pairs / f"{number}_target.png")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        folder = train(pairs, parent / "my runs")
    return Run(pairs, folder, printed.getvalue())


# ---- check, and how train reads a folder


def test_check_tells_what_the_doctor_finds(
    make_pairs: MakePairs, capsys: Capture
) -> None:
    folder = make_pairs(3)
    assert run("check", folder, "--strict") == 0
    assert f"{folder}: 3 whole pairs, ok" in capsys.readouterr().out
    Image.new("L", (24, 20)).save(folder / "1_target.png")
    assert (run("check", folder), run("check", folder, "--strict")) == (0, 1)
    (folder / "2_target.png").unlink()
    (folder / "3_input.png").write_bytes(b"")
    assert run("check", folder) == 1
    printed = capsys.readouterr().out
    assert "2_input.png" in printed and "3_input.png" in printed
    assert run("check", folder, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(ui.check_pairs(folder).to_json())


def test_the_same_fault_is_said_once(make_pairs: MakePairs, capsys: Capture) -> None:
    folder = rewrite_targets(make_pairs(40), lambda mask: mask // 2)
    assert run("check", folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 12 and any("and 37 more" in line for line in lines)


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
        ([0, 1, 2, 255], ("--classes", "0-2", "--ignore", 255), [0, 1, 2, 255]),
        ([0, 1, 2, 11], ("--classes", "0-2", "--ignore", 11), [0, 1, 2, 255]),
        ([4, 7, 9, 11], ("--classes", 4, 7, 9, "--ignore", 11), [0, 1, 2, 255]),
        ([4, 7, 9, 9], ("--classes", "ground=4,9", "sky=7"), [0, 1, 0, 0]),
        (COLOURS, ("--classes", *BY_COLOUR[0], "--ignore", "000000"), [0, 1, 2, 255]),
    ],
)
def test_options_say_what_values_mean(
    values: Any,
    options: tuple[Any, ...],
    first_row: list[int],
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
) -> None:
    folder = write_maps(make_pairs(3), np.array(values, np.uint8))
    by_colour = np.ndim(values) == 2
    assert run("check", folder) == 1
    message = refused("train", "-d", folder, "-o", tmp_path / "runs", *SMALL)
    assert str(folder) in message and "--classes" in message
    assert not (tmp_path / "runs").exists()
    assert run("check", folder, *options) == 0
    made = train(folder, tmp_path / "runs", *options, "--max-epochs", 1)
    # The last column of a run's pictures is the target, at the size of training.
    shown = pixels(made / "epochs" / "001.png")[:32, 96:]
    ids = torch.tensor([first_row])
    if "--classes" not in options:
        ids = torch.where(ids == 255, 0, ids) * 255.0 / 255
    [expected] = ui.to_array(ids)
    places = [(1, 20), (6, 6), (23, 20), (31, 20)]
    assert [shown[place].tolist() for place in places] == expected.tolist(), by_colour


def test_what_is_not_named_is_told(make_pairs: MakePairs, capsys: Capture) -> None:
    folder = write_maps(make_pairs(3), COLOURS)
    run("check", folder, "--foreground", "0000c0", "--json")
    [warned] = json.loads(capsys.readouterr().out)["problems"]
    for colour in COLOURS[[0, 2, 3]]:
        assert str(tuple(colour.tolist())) in warned["what"]
    run("check", folder, "--foreground", "0000c0", "--ignore", "000000", "--json")
    assert "(0, 0, 0)" not in json.loads(capsys.readouterr().out)["problems"][0]["what"]


def test_a_threshold_is_where_a_soft_mask_is_cut(make_pairs: MakePairs) -> None:
    folder = rewrite_targets(make_pairs(2), lambda mask: mask // 255 * 215)
    assert run("check", folder, "--threshold", 200) == 0
    assert run("check", folder, "--threshold", 230) == 1


@pytest.mark.parametrize("ignored", [(), ("--ignore", 11)])
def test_masks_that_are_all_foreground_teach_nothing(
    ignored: tuple[Any, ...], make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    folder = write_maps(make_pairs(3), np.array([0, 1, 2, 11], np.uint8))
    options = ("--foreground", "0-10", *(ignored or (11,)))
    assert run("check", folder, *options) == 1
    message = refused("train", "-d", folder, "-o", tmp_path / "runs", *SMALL, *options)
    assert "--foreground" in message and not (tmp_path / "runs").exists()


def shot(folder: Path) -> None:
    for path in folder.glob("*.png"):
        kind = {"input": "shot", "target": "ui"}[path.stem[2:]]
        path.rename(folder / f"{path.stem[0]}_{kind}.png")


def lone(folder: Path) -> None:
    (folder / "2_target.png").unlink()


def not_drawn(folder: Path) -> None:
    Image.open(folder / "2_input.png").rotate(180).save(folder / "4_input.png")


def objects(folder: Path) -> None:
    for number in (1, 2, 3):
        path = folder / f"{number}_target.png"
        for left in (0, 12):
            half = pixels(path).copy()
            half[:, left : left + 12] = 0
            Image.fromarray(half).save(folder / f"{number}_target_{left}.png")
        path.unlink()


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        (shot, ("--patterns", "{key}_shot.*", "{key}_ui.*"), "--patterns"),
        (lone, ("--missing", "empty"), "missing"),
        (not_drawn, ("--missing", "skip"), "missing"),
        (
            objects,
            ("--patterns", "{key}_input.*", "{key}_target_{object}.*"),
            "{object}",
        ),
    ],
)
def test_options_say_what_files_belong_together(
    change: Callable[[Path], None],
    options: tuple[str, ...],
    named: str,
    make_pairs: MakePairs,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    folder = make_pairs(3)
    assert run("check", folder, "--json") == 0
    share = json.loads(capsys.readouterr().out)["foreground_share"]
    change(folder)
    with contextlib.suppress(SystemExit):
        assert run("check", folder) == 1
    assert named in "".join(capsys.readouterr())
    assert run("check", folder, *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)["foreground_share"]
    assert found == pytest.approx(share * (2 / 3 if change is lone else 1))
    assert len(read_log(train(folder, tmp_path / "runs", *options))) == 2


def write_scenes(path: Path, scenes: dict[str, str]) -> Path:
    lines = [f"{image},{scene}\n" for image, scene in scenes.items()]
    path.write_text("image,scene\n" + "".join(lines))
    return path


def test_no_scene_is_on_both_sides(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(8)
    scenes = {f"{n}_input.png": ("even", "odd")[n % 2] for n in range(1, 9)}
    table = write_scenes(tmp_path / "scenes.csv", scenes)
    assert run("check", pairs, "--scenes", table) == 0
    words = ("--scenes", table, "--max-epochs", 1, "--val-share", 0.5)
    folder = train(pairs, tmp_path / "runs", *words)
    picture = pixels(folder / "epochs" / "001.png")
    samples = ui.UIImageMaskDataset(pairs, ui.ImageTargetResize((32, 32)))
    images = [np.asarray(image).tobytes() for image, _ in samples]
    shown = [picture[32 * row : 32 * row + 32, :32].tobytes() for row in range(4)]
    assert shown in (images[::2], images[1::2])
    table.write_text("Image;Scene\n1_input.png;even\n")
    with pytest.raises(ValueError, match="the first line is 'Image;Scene'; expected"):
        ui.read_scenes(table)
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
    given = {
        "dataset": str(trained.pairs),
        "output_dir": str(trained.folder.parent),
        "image_size": [32],
        "fast": True,
        "max_features": 16,
        "max_epochs": 2,
        "batch_size": 2,
        "accelerator": "cpu",
    }
    defaults = json.loads(json.dumps(dataclasses.asdict(ui.Settings())))
    assert read_settings(trained.folder) == defaults | given


def test_the_printed_command_predicts(trained: Run, tmp_path: Path) -> None:
    shell = trained.printed.partition("to predict: ")[2].strip()
    picture = tmp_path / "new.png"
    draw_image(9).save(picture)
    home = tmp_path / "bin"
    home.mkdir()
    (home / "python").symlink_to(sys.executable)
    path = f"{home}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        shell.replace("PICTURES ...", f"'{picture}' -o '{tmp_path / 'out'}'"),
        shell=True,
        check=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    mask = pixels(tmp_path / "out" / "new_mask.png")
    expected = ui.load_system(trained.best).predict_mask(draw_image(9))
    assert np.array_equal(mask == 255, expected)


def test_the_next_run_gets_the_next_number(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs, runs = make_pairs(3), tmp_path / "runs"
    (runs / "007").mkdir(parents=True)
    (runs / "notes").mkdir()
    assert train(pairs, runs, "--max-epochs", 1).name == "008"
    assert train(pairs, runs, "--max-epochs", 1).name == "009"
    assert names(runs / "007") == []


def test_the_flags_of_2020_still_work(make_pairs: MakePairs, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    flags = f"-d {make_pairs(2)} -o {runs} -b 3 -lr 0.01 --image-size 32 48"
    words = f"{flags} --overfit-num 6 --seed 7 --max-epochs 1 --accelerator cpu".split()
    assert run("train", *words, "--max-features", 16, "--fast") == 0
    settings = read_settings(runs / "001")
    expected = {
        "dataset": str(tmp_path / "pairs"),
        "output_dir": str(runs),
        "batch_size": 3,
        "learning_rate": 0.01,
        "image_size": [32, 48],
        "overfit_num": 6,
        "seed": 7,
    }
    assert {name: settings[name] for name in expected} == expected
    assert read_log(runs / "001")[0]["step"] == "2"
    assert pixels(runs / "001" / "epochs" / "001.png").shape == (32, 4 * 48, 3)


@pytest.mark.parametrize("command", ["check", "train", "predict"])
def test_help_tells_every_setting(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    printed = squeeze(capsys.readouterr().out)
    assert "--" in printed
    for setting in dataclasses.fields(ui.Settings) if command == "train" else ():
        flags = f"--{setting.name.replace('_', '-')}", *setting.metadata["flags"]
        for text in (*flags, setting.metadata["help"]):
            assert squeeze(text) in printed, setting.name
    if command == "train":
        for shown in (
            "machines:1",
            "augmentation:0",
            ":yes",
            ":no",
            ":256256",
            ":none",
        ):
            assert shown.replace(":", "(default:") in printed


def test_weights_bring_their_network(
    make_pairs: MakePairs, trained: Run, tmp_path: Path, refused: Refused
) -> None:
    pairs, runs = make_pairs(3), tmp_path / "runs"
    options = ("train", "-d", pairs, "-o", runs, "-b", 1, "--weights", trained.best)
    for words in (("--max-features", 32), ("--classes", 0, 255)):
        message = refused(*options, *words)
        assert str(trained.best) in message and "expected" in message
    assert not runs.exists()
    size = ("--image-size", 32, "--max-epochs", 1, "--accelerator", "cpu")
    assert run(*options, *size, *NO_RATE) == 0
    settings = read_settings(runs / "001")
    assert (settings["max_features"], settings["fast"]) == (16, True)
    assert near_weights(runs / "001" / "last.ckpt", trained.best)
    scratch = train(pairs, tmp_path / "scratch", "--max-epochs", 1, *NO_RATE)
    assert not near_weights(scratch / "last.ckpt", trained.best)


def test_patience_ends_a_run_without_gain(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    words = (*NO_RATE, "--max-epochs", 9, "--patience", 2)
    assert len(read_log(train(make_pairs(4), tmp_path / "runs", *words))) == 3


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_val_share_of_the_pairs_is_validated(
    share: float, make_pairs: MakePairs, tmp_path: Path
) -> None:
    words = ("--val-share", share, "--max-epochs", 1)
    folder = train(make_pairs(8), tmp_path / "runs", *words)
    assert pixels(folder / "epochs" / "001.png").shape[0] == 32 * 8 * share
    assert read_log(folder)[0]["step"] == str(round(8 * (1 - share)) // 2)


def test_augmentation_and_cache_can_be_left_out(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(4)
    plain = train(pairs, tmp_path / "plain", "--no-augment")
    assert read_settings(plain)["augment"] is False
    others = {
        words: near_weights(
            train(pairs, tmp_path / words[0], *words) / "last.ckpt", plain / "last.ckpt"
        )
        for words in (("--augment",), ("--no-cache", "--no-augment"))
    }
    assert [*others.values()] == [False, True]


def test_settings_of_the_loss_reach_it(trained: Run, tmp_path: Path) -> None:
    words = ("--pos-weight", 5, "--loss", "bce", "--max-epochs", 1)
    system = ui.load_system(train(trained.pairs, tmp_path, *words) / "best.ckpt")
    assert (system.settings["pos_weight"], system.settings["loss"]) == (5, "bce")


def test_a_run_goes_on_from_another_folder(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.pairs.parent)
    images = [path.name for path in trained.pairs.glob("*_input.png")]
    write_scenes(Path("scenes.csv"), {image: image for image in images})
    weights = os.path.relpath(trained.best)
    words = ("--scenes", "scenes.csv", "--weights", weights)
    folder = train(Path(trained.pairs.name), tmp_path / "runs", *words)
    monkeypatch.chdir(tmp_path)
    assert run("train", "--resume", folder) == 0


# ---- several classes


@pytest.mark.parametrize("deep", [False, True])
def test_ids_stay_ids(deep: bool, make_pairs: MakePairs, tmp_path: Path) -> None:
    """Ids of 16 bits too, which a palette cannot hold."""
    values = np.array([4, 7, 900 if deep else 9, 11], np.uint16 if deep else np.uint8)
    folder = write_maps(make_pairs(4), values)
    options = ("--classes", "ground=4", "box=7", f"low={values[2]}", "--ignore", 11)
    made = train(folder, tmp_path / "runs", *options, "-lr", 0.02, "--max-epochs", 12)
    scores = ["val_iou_ground", "val_iou_box", "val_iou_low"]
    assert set(read_log(made)[0]) == {*COLUMNS, *scores}
    words = ("-c", made / "best.ckpt", folder / "1_input.png", "--overlay")
    assert run("predict", *words, "-o", tmp_path / "out") == 0
    found = Image.open(tmp_path / "out" / "1_input_mask.png")
    assert found.mode == ("I;16" if deep else "P")
    system = ui.load_system(made / "best.ckpt")
    classes = system.predict_classes(ui.load_image(folder / "1_input.png"))
    assert np.array_equal(np.asarray(found), values[classes])
    assert len(np.unique(classes)) > 1
    assert pixels(tmp_path / "out" / "1_input_overlay.png").shape == (20, 24, 3)
    again = ui.load_classes(
        tmp_path / "out" / "1_input_mask.png", classes=[[int(v)] for v in values]
    )
    assert np.array_equal(np.asarray(again), classes)


def test_colours_stay_colours(make_pairs: MakePairs, tmp_path: Path) -> None:
    folder = write_maps(make_pairs(4), COLOURS)
    options = ("--classes", *BY_COLOUR[0], "--ignore", *BY_COLOUR[1], "-lr", 0.02)
    made = train(folder, tmp_path / "runs", *options, "--max-epochs", 12)
    assert {"val_iou_road", "val_iou_sky", "val_iou_wall"} <= set(read_log(made)[0])
    words = (
        "-c",
        made / "best.ckpt",
        folder / "1_input.png",
        "-o",
        tmp_path,
        "--tiles",
    )
    assert run("predict", *words) == 0
    found = Image.open(tmp_path / "1_input_mask.png")
    assert found.mode == "P" and 1 < len(np.unique(found)) <= 3
    assert np.array_equal(found.convert("RGB"), COLOURS[np.asarray(found)])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_networks_of_python_are_used(task: str, tmp_path: Path) -> None:
    """With names of classes, or none, and without their values in files."""
    [picture] = write_pictures(tmp_path / "in", "a.png")
    for names_of in ((), ("ground", "sky", "box")):
        options = {"task": task, "num_out_channels": 3, "class_names": names_of}
        save_system(tmp_path / "a.ckpt", small_system(**options))
        out = tmp_path / f"out{len(names_of)}"
        assert run("predict", "-c", tmp_path / "a.ckpt", picture, "-o", out) == 0
        expected = [f"a_mask_{name}.png" for name in names_of or range(3)]
        assert names(out) == (
            ["a_mask.png"] if task == "multiclass" else sorted(expected)
        )


def test_a_mask_for_each_class(make_pairs: MakePairs, tmp_path: Path) -> None:
    folder = make_pairs(4)
    for path in folder.glob("*_target.png"):
        Image.fromarray(255 - pixels(path)).save(path.with_stem(path.stem + "_Rest"))
        path.rename(path.with_stem(path.stem + "_box"))
    patterns = ("--patterns", "{key}_input.*", "{key}_target_{class}.*")
    made = train(folder, tmp_path / "runs", *patterns)
    assert {"val_iou_Rest", "val_iou_box"} <= set(read_log(made)[0])
    pictures = tmp_path / "in"
    write_pictures(pictures, "a.png")
    system = ui.load_system(made / "best.ckpt")
    expected = system.predict_masks(ui.load_image(pictures / "a.png"), 0.4)
    words = ("-c", made / "best.ckpt", "--overlay", "--overwrite", "--threshold", 0.4)
    for _ in range(2):  # what is written is not taken for a picture
        assert run("predict", *words, pictures, "-o", pictures) == 0
    made = ["a_mask_Rest.png", "a_mask_box.png"]
    assert names(pictures) == ["a.png", *made, "a_overlay.png"]
    for name, mask in zip(made, expected, strict=True):
        assert np.array_equal(pixels(pictures / name), mask * np.uint8(255))


# ---- predict


def predict(trained: Run, *words: Any) -> int:
    return run("predict", "-c", trained.best, *words)


def write_pictures(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        draw_image(number).save(path)
    return paths


def test_predict_takes_a_file(trained: Run, tmp_path: Path) -> None:
    [picture] = write_pictures(tmp_path / "in", "shot.png")
    out = tmp_path / "out"
    assert predict(trained, picture, "-o", out, "--overlay") == 0
    assert names(out) == ["shot_mask.png", "shot_overlay.png"]
    mask = Image.open(out / "shot_mask.png")
    assert (mask.mode, mask.size) == ("L", (24, 20))
    expected = ui.load_system(trained.best).predict_mask(ui.load_image(picture))
    assert np.array_equal(np.asarray(mask), np.where(expected, 255, 0))
    assert expected.any() and not expected.all()
    painted = ui.overlay(ui.load_image(picture), mask)
    assert np.array_equal(pixels(out / "shot_overlay.png"), painted)


def test_predict_takes_folders_and_globs(trained: Run, tmp_path: Path) -> None:
    here, there = tmp_path / "here [1]", tmp_path / "there"
    write_pictures(here, "a.png", "b.JPG", "a_target.png", "a_mask.png", "a_moon.png")
    write_pictures(here, "a_overlay.png", ".hidden.png", "in_mask_9.png")
    (here / "notes.txt").write_text("no picture")
    (here / "folder.png").mkdir()
    pictures = write_pictures(there, "c1.bmp", "c2.bmp", "d.bmp")
    words = (here, there / "c*.bmp", pictures[-1], pictures[-1], "-o", here)
    (here / "a_mask.png").unlink()
    assert predict(trained, *words) == 0
    expected = ["a", "a_moon", "b", "c1", "c2", "d", "in_mask_9"]
    assert [p.stem[:-5] for p in sorted(here.glob("*_mask.png"))] == expected


def test_predict_into_the_pictures_own_folder(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_pictures(folder, "a.png")
    for _ in range(2):
        assert predict(trained, folder, "-o", folder, "--overlay", "--overwrite") == 0
    assert names(folder) == ["a.png", "a_mask.png", "a_overlay.png"]


@pytest.mark.parametrize("there", ["a_mask.png", "b_overlay.png"])
def test_predict_overwrites_only_when_told(
    there: str, trained: Run, tmp_path: Path, refused: Refused
) -> None:
    write_pictures(tmp_path / "in", "a.png", "b.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / there).write_text("mine")
    words = (trained.best, tmp_path / "in", "-o", out, "--overlay")
    message = refused("predict", "-c", *words)
    assert there in message and "--overwrite" in message
    assert names(out) == [there] and (out / there).read_text() == "mine"
    assert run("predict", "-c", *words, "--overwrite") == 0
    Image.open(out / there).load()
    assert len(names(out)) == 4


def test_a_damaged_picture_does_not_stop_the_others(
    trained: Run, tmp_path: Path, refused: Refused
) -> None:
    folder = tmp_path / "in"
    pictures = write_pictures(folder, "a.png", "b.png", "c.png")
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    message = refused("predict", "-c", trained.best, folder, "-o", tmp_path / "out")
    assert str(pictures[1]) in message and "1 not done" in message
    assert names(tmp_path / "out") == ["a_mask.png", "c_mask.png"]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (33, 31)])
def test_the_mask_has_the_pictures_size(
    size: tuple[int, int], trained: Run, tmp_path: Path
) -> None:
    Image.new("RGB", size, "teal").save(tmp_path / "a.png")
    assert predict(trained, tmp_path / "a.png", "-o", tmp_path) == 0
    assert Image.open(tmp_path / "a_mask.png").size == size


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_predict_takes_pictures_of_every_mode(
    mode: str, trained: Run, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(np.full((20, 24), 40000, np.uint16)).save(picture)
    else:
        draw_image(1).convert(mode).save(picture)
    assert Image.open(picture).mode == mode
    assert predict(trained, picture, "-o", tmp_path) == 0
    expected = ui.load_system(trained.best).predict_mask(ui.load_image(picture))
    assert np.array_equal(pixels(tmp_path / "a_mask.png") == 255, expected)


def test_the_threshold_is_honoured(trained: Run, tmp_path: Path) -> None:
    [picture] = write_pictures(tmp_path / "in", "a.png")
    for threshold, value in ((0, 255), (1, 0)):
        words = ("--threshold", threshold, "-o", tmp_path, "--overwrite")
        assert predict(trained, picture, *words) == 0
        assert (pixels(tmp_path / "a_mask.png") == value).all()


def test_tiles_are_asked_for(trained: Run, tmp_path: Path, capsys: Capture) -> None:
    """Else even a picture nine times as large is scaled, as in training."""
    picture = tmp_path / "a.png"
    draw_image(3, (300, 90)).save(picture)
    found = []
    for words in ((), ("--no-tiles",), ("--tiles",)):
        out = tmp_path / "out" / "".join(words)
        assert predict(trained, picture, "-o", out, *words) == 0
        told = "scaled to 32x32, as in training; --tiles" in capsys.readouterr().out
        assert told == (words != ("--tiles",))
        found.append(pixels(out / "a_mask.png") == 255)
    system = ui.load_system(trained.best)
    expected = ui.predict_tiled(system, pixels(picture), (32, 32), 8) >= 0.5
    assert np.array_equal(found[2][None], expected)
    assert np.array_equal(found[0], system.predict_mask(ui.load_image(picture)))
    assert np.array_equal(found[0], found[1])
    assert (found[2] != found[0]).any()


def test_the_reference_is_used_by_itself(
    trained: Run, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference.ckpt"
    monkeypatch.setattr(ui, "REFERENCE", reference)
    [picture] = write_pictures(tmp_path / "in", "a.png")
    message = refused("predict", picture, "-o", tmp_path / "out")
    assert str(reference) in message and "--checkpoint" in message
    shutil.copy(trained.best, reference)
    assert run("predict", picture, "-o", tmp_path / "out") == 0
    assert predict(trained, picture, "-o", tmp_path / "again") == 0
    masks = [pixels(tmp_path / name / "a_mask.png") for name in ("out", "again")]
    assert np.array_equal(*masks)


# ---- refusals: {name} stands for a path of `places`, `written` must not be there


@pytest.fixture
def places(make_pairs: MakePairs, trained: Run, tmp_path: Path) -> dict[str, Path]:
    folder = make_pairs(4)
    write_pictures(tmp_path / "in", "a.png", "a.bmp")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "notes.txt").write_text("no picture")
    tables = {
        "headless": "a.png,cave\n",
        "twice": "image,scene\n1_input.png,x\n1_input.png,y\n",
        "blank": "image,scene\n1_input.png,\n",
        "none": "image,scene\n",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "latin.csv").write_bytes(
        "image,scene\n1_input.png,Höhle\n".encode("l1")
    )
    made = {path.stem: path for path in tmp_path.iterdir()}
    paths = {"best": trained.best, "run": trained.folder, "nowhere": tmp_path / "no"}
    return made | paths | {"pairs": folder, "in": tmp_path / "in", "tmp": tmp_path}


TRAIN = "train -d {pairs} -o {tmp}/new " + " ".join(SMALL)
PREDICT = "predict -c {best} -o {tmp}/new "
REFUSED = [
    # What is wrong with words, and what the message names.
    ("train --epochs 3", "--epochs: unknown; did you mean --max-epochs?"),
    ("train --bach-size 3", "did you mean --batch-size?"),
    ("train --learning_rate 3", "did you mean --learning-rate?"),
    ("train --resumee x", "did you mean --resume?"),
    ("check x --treshold 3", "did you mean --threshold?"),
    ("check x --strickt", "did you mean --strict?"),
    ("predict x --overley", "did you mean --overlay?"),
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
    ("train -d {nowhere}", "{nowhere}"),
    *[
        (f"{command} --scenes {{{table}}}", f"{{{table}}}")
        for command in ("check {pairs}", TRAIN)
        for table in ("nowhere", "empty", "headless", "twice", "blank", "none", "latin")
    ],
    ("check {pairs} --scenes {twice}", "line 3"),
    (TRAIN + " -o {taken}", "{taken}: cannot be made a folder"),
    (TRAIN + " -o {taken}/deeper", "{taken}"),
    (TRAIN + " --weights {nowhere}", "{nowhere}"),
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
    *[
        (f"{TRAIN} {flag} {value}", name)
        for flag, name, values in (
            ("-b", "batch_size", ("0", "-1", "100")),
            ("-b", "-b", ("nan",)),
            ("-lr", "learning_rate", ("0", "-1", "nan", "inf", "1e30")),
            ("--max-epochs", "max_epochs", ("0", "-1")),
            ("--max-epochs", "--max-epochs", ("nan",)),
            ("--image-size", "image_size", ("0", "-32", "99999999", "8 8 8")),
            ("--image-size", "--image-size", ("2.5",)),
            ("--overfit-num", "overfit_num", ("-1",)),
            ("--val-share", "val_share", ("0", "1", "-0.1", "2", "nan")),
            ("--max-features", "max_features", ("0", "-16", "17")),
            ("--pos-weight", "pos_weight", ("0", "-1", "nan", "inf")),
            ("--patience", "patience", ("-1",)),
            ("--seed", "seed", ("-1", "4294967296")),
            ("--num-workers", "num_workers", ("-1",)),
            ("--num-nodes", "num_nodes", ("0",)),
            ("--devices", "devices", ("0", "-1", "many", "1,2")),
            ("--loss", "loss", ("mse",)),
            ("--accelerator", "accelerator", ("abacus",)),
            ("--precision", "recision", ("7",)),
            ("--strategy", "strategy", ("luck",)),
        )
        for value in values
    ],
    *[
        (f"{PREDICT} {{in}}/a.png --threshold {value}", "threshold")
        for value in ("-0.1", "1.5", "nan")
    ],
    # What values mean; no fault of the files.
    *[
        (f"{command} {words}", f"{words.split()[0]}".removeprefix("--"))
        for command in ("check {pairs}", TRAIN)
        for words in (
            *(f"--threshold {value}" for value in ("0", "256", "-5")),
            "--missing yes",
            *("--foreground 255 --ignore 255", "--foreground 255 --ignore ff0000"),
            *("--foreground 1 1", "--foreground 0-255 7", "--classes 0 255 ff00ff"),
            *("--classes 0-9 3", "--classes a=0 a=255", "--classes =0 b=255"),
            *("--classes 0", "--classes 0 255 --foreground 255", "--classes 0,0"),
        )
    ],
    *[
        (f"{command} --{flag} {value}", f"'{value.split('=')[-1].split(',')[-1]}'")
        for command in ("check {pairs}", TRAIN)
        for flag, value in (
            *(("foreground", "red"), ("ignore", "-1"), ("foreground", "9-1")),
            *(("foreground", "ff00f"), ("classes", "a=b"), ("classes", "1,")),
        )
    ],
    *[
        (f"{TRAIN} --classes 0 255 {words}", "loss")
        for words in ("--loss bce", "--pos-weight 3")
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


def test_a_faulty_folder_is_not_trained_on(
    make_pairs: MakePairs, tmp_path: Path, capsys: Capture
) -> None:
    folder = make_pairs(3)
    (folder / "2_input.png").write_bytes(b"text")
    with pytest.raises(SystemExit) as caught:
        run("train", "-d", folder, "-o", tmp_path / "runs", *SMALL)
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert "2_input.png" in printed.out
    assert str(folder) in printed.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MisconfigurationException("no such device"), "train: no such device"),
        (OSError("full"), "train: full"),
        (KeyError("a fault of ours"), ""),
    ],
)
def test_a_fault_of_ours_is_no_refusal(
    error: Exception, line: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> int:
        raise error

    monkeypatch.setattr(ui, "_train", fail)
    if line:
        assert refused("train", "-d", "pairs").endswith(line)
    else:
        with pytest.raises(KeyError, match="ours"):
            run("train", "-d", "pairs")
