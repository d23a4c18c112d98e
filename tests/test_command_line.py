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
from conftest import MakePairs, Refused, draw_image, find_box
from PIL import Image

import ui_segmentation_system as ui

# A network and pictures so small that an epoch takes a blink.
TINY = ("--image-size", "32", "--fast", "--max-features", "16", "--accelerator", "cpu")
SMALL = (*TINY, "--max-epochs", "2", "-b", "2")
COLUMNS = ["epoch", "step", "train_loss", "val_loss", "val_iou", "learning_rate"]
# A rate that moves no float32 weight.
NO_RATE = ("-lr", "1e-30")

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


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) for name in one
    )


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def squeeze(text: str) -> str:
    return "".join(text.split())


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


# check


def test_check_passes_a_clean_folder(make_pairs: MakePairs, capsys: Capture) -> None:
    folder = make_pairs(3)
    assert run("check", folder) == 0
    assert f"{folder}: 3 whole pairs, ok" in capsys.readouterr().out


def test_check_fails_a_faulty_folder(make_pairs: MakePairs, capsys: Capture) -> None:
    folder = make_pairs(3)
    (folder / "2_target.png").unlink()
    (folder / "3_input.png").write_bytes(b"")
    assert run("check", folder) == 1
    printed = capsys.readouterr().out
    assert "2_input.png" in printed and "3_input.png" in printed


def test_strict_counts_warnings(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    assert run("check", folder, "--strict") == 0
    Image.new("L", (24, 20)).save(folder / "1_target.png")
    assert run("check", folder) == 0
    assert run("check", folder, "--strict") == 1


def test_json_says_what_the_doctor_says(make_pairs: MakePairs, capsys: Capture) -> None:
    folder = make_pairs(2)
    (folder / "2_target.png").unlink()
    assert run("check", folder, "--json") == 1
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(ui.check_pairs(folder).to_json())
    assert "2_input.png" in printed


def rewrite_targets(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in folder.glob("*_target.png"):
        Image.fromarray(change(pixels(path)).astype(np.uint8)).save(path)


def test_check_reads_class_ids(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    rewrite_targets(folder, lambda mask: np.where(mask > 0, 7, 3))
    assert run("check", folder) == 1
    assert run("check", folder, "--foreground", 7) == 0


def test_check_leaves_out_what_is_ignored(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    rows = np.arange(20)[:, None]
    rewrite_targets(folder, lambda mask: np.where(rows > 15, 90, mask))
    assert run("check", folder) == 1
    assert run("check", folder, "--ignore", 90) == 0


def test_check_reads_with_the_threshold(make_pairs: MakePairs) -> None:
    folder = make_pairs(2)
    rewrite_targets(folder, lambda mask: mask // 255 * 220)
    assert run("check", folder, "--strict") == 0
    assert run("check", folder, "--strict", "--threshold", 230) == 1


def test_check_finds_files_by_pattern(make_pairs: MakePairs, refused: Refused) -> None:
    folder = make_pairs(2)
    for number in (1, 2):
        (folder / f"{number}_input.png").rename(folder / f"{number}_shot.png")
        (folder / f"{number}_target.png").rename(folder / f"{number}_ui.png")
    assert str(folder) in refused("check", folder)
    assert run("check", folder, "--patterns", "{key}_shot.*", "{key}_ui.*") == 0
    assert "patterns" in refused("check", folder, "--patterns", "{key}_shot.*")


def write_scenes(path: Path, scenes: dict[str, str]) -> Path:
    lines = [f"{image},{scene}\n" for image, scene in scenes.items()]
    path.write_text("image,scene\n" + "".join(lines))
    return path


def test_check_wants_a_scene_for_every_image(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    folder = make_pairs(3)
    scenes = {f"{number}_input.png": "cave" for number in (1, 2)}
    table = write_scenes(tmp_path / "scenes.csv", scenes | {"3_input.png": "town"})
    assert run("check", folder, "--scenes", table) == 0
    assert run("check", folder, "--scenes", write_scenes(table, scenes)) == 1


def test_check_refuses_what_is_no_folder(tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path / "nowhere", file):
        assert str(path) in refused("check", path)


@pytest.mark.parametrize(
    "flags",
    [
        *[("--threshold", value) for value in ("0", "256", "-5")],
        ("--foreground", "255", "--ignore", "255"),
        ("--foreground", "255", "--ignore", "ff0000"),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_senseless_flag_is_no_fault_of_the_files(
    command: str,
    flags: tuple[str, ...],
    make_pairs: MakePairs,
    refused: Refused,
) -> None:
    words = [command, *(("-d",) if command == "train" else ()), make_pairs(2)]
    message = refused(*words, *flags)
    assert flags[0].removeprefix("--") in message
    assert "target.png" not in message and "has faults" not in message


# train


def test_a_run_keeps_everything(trained: Run) -> None:
    expected = ["best.ckpt", "curves.png", "epochs", "last.ckpt", "log.csv"]
    assert names(trained.folder) == [*expected, "settings.json"]
    assert trained.folder.name == "001"
    assert names(trained.folder / "epochs") == ["001.png", "002.png"]
    for path in trained.folder.glob("**/*.png"):
        Image.open(path).load()


def test_the_log_has_a_row_an_epoch(trained: Run) -> None:
    rows = read_log(trained.folder)
    assert list(rows[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


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


def test_the_best_checkpoint_is_of_the_best_epoch(trained: Run) -> None:
    scores = [float(row["val_iou"]) for row in read_log(trained.folder)]
    best = torch.load(trained.best, weights_only=True)
    assert best["epoch"] == int(np.argmax(scores))
    assert f"best val_iou {max(scores):.3f}" in trained.printed


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


def test_help_tells_every_setting(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        run("train", "--help")
    assert caught.value.code == 0
    printed = squeeze(capsys.readouterr().out)
    for setting in dataclasses.fields(ui.Settings):
        flags = f"--{setting.name.replace('_', '-')}", *setting.metadata["flags"]
        for text in (*flags, setting.metadata["help"]):
            assert squeeze(text) in printed, setting.name


@pytest.mark.parametrize("command", ["check", "predict"])
def test_the_other_commands_have_help(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "wrong", "meant"),
    [
        ("train", "--epochs", "--max-epochs"),
        ("train", "--bach-size", "--batch-size"),
        ("train", "--learning_rate", "--learning-rate"),
        ("train", "--resumee", "--resume"),
        ("check", "--treshold", "--threshold"),
        ("check", "--strickt", "--strict"),
        ("predict", "--overley", "--overlay"),
        ("predict", "--check-point", "--checkpoint"),
    ],
)
def test_an_unknown_flag_names_the_nearest(
    command: str, wrong: str, meant: str, refused: Refused
) -> None:
    words = [] if command == "train" else ["folder"]
    message = refused(command, *words, wrong)
    assert f"{wrong}: unknown; did you mean {meant}?" in message


def test_a_flag_of_another_command_is_not_suggested(refused: Refused) -> None:
    message = refused("check", "folder", "--batch-size", "3")
    assert "did you mean --batch-size" not in message


def test_weights_bring_their_network(
    make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    pairs, runs = make_pairs(3), tmp_path / "runs"
    best = train(pairs, runs, "--max-epochs", 1) / "best.ckpt"
    options = ("train", "-d", pairs, "-o", runs, "-b", 1, "--weights", best)
    message = refused(*options, "--max-features", 32)
    assert "max_features is 16; expected 32" in message
    assert names(runs) == ["001"]
    words = ("--image-size", 32, "--max-epochs", 1, "--accelerator", "cpu")
    assert run(*options, *words) == 0
    settings = read_settings(runs / "002")
    assert (settings["max_features"], settings["fast"]) == (16, True)


def test_training_on_nothing_but_background_is_refused(
    make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    options = ("train", "-d", make_pairs(3), "-o", tmp_path / "runs", *SMALL)
    message = refused(*options, "--foreground", 1)
    assert "not fit to train on" in message and "--foreground" in message
    assert not (tmp_path / "runs").exists()


def test_training_starts_from_weights(
    make_pairs: MakePairs, trained: Run, tmp_path: Path
) -> None:
    pairs, best = make_pairs(4), trained.best
    words = ("--max-epochs", 1, *NO_RATE)
    scratch = train(pairs, tmp_path / "scratch", *words)
    learnt = train(pairs, tmp_path / "learnt", *words, "--weights", best)
    assert same_weights(learnt / "last.ckpt", best)
    assert not same_weights(scratch / "last.ckpt", best)


def test_patience_ends_a_run_without_gain(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    words = (*NO_RATE, "--max-epochs", 9, "--patience", 2)
    folder = train(make_pairs(4), tmp_path / "runs", *words)
    assert len(read_log(folder)) == 3


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_val_share_of_the_pairs_is_validated(
    share: float, make_pairs: MakePairs, tmp_path: Path
) -> None:
    words = ("--val-share", share, "--max-epochs", 1)
    folder = train(make_pairs(8), tmp_path / "runs", *words)
    assert pixels(folder / "epochs" / "001.png").shape[0] == 32 * 8 * share
    assert read_log(folder)[0]["step"] == str(round(8 * (1 - share)) // 2)


def test_no_scene_is_on_both_sides(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(8)
    scenes = {f"{n}_input.png": ("even", "odd")[n % 2] for n in range(1, 9)}
    table = write_scenes(tmp_path / "scenes.csv", scenes)
    words = ("--scenes", table, "--max-epochs", 1, "--val-share", 0.5)
    folder = train(pairs, tmp_path / "runs", *words)
    picture = pixels(folder / "epochs" / "001.png")
    samples = ui.UIImageMaskDataset(pairs, ui.ImageTargetResize((32, 32)))
    images = [np.asarray(image).tobytes() for image, _ in samples]
    shown = [picture[32 * row : 32 * row + 32, :32].tobytes() for row in range(4)]
    assert shown in (images[::2], images[1::2])


def test_training_reads_masks_as_it_is_told(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(3)
    rewrite_targets(pairs, lambda mask: np.where(mask > 0, 7, 3))
    words = ("--foreground", 3, "--max-epochs", 1)
    folder = train(pairs, tmp_path / "runs", *words)
    picture = pixels(folder / "epochs" / "001.png")
    target = picture[:32, -32:]
    assert target[0, 0].min() == 255 and target[8, 8].max() == 0


def test_augmentation_can_be_left_out(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(4)
    plain = train(pairs, tmp_path / "plain", "--no-augment")
    changed = train(pairs, tmp_path / "changed")
    assert read_settings(plain)["augment"] is False
    assert not same_weights(plain / "last.ckpt", changed / "last.ckpt")


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


def test_training_needs_a_folder(refused: Refused) -> None:
    assert "-d" in refused("train")


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        *[("-b", value, "batch_size") for value in ("0", "-1")],
        ("-b", "nan", "-b"),
        *[("-lr", value, "learning_rate") for value in ("0", "-1", "nan", "inf")],
        *[("--max-epochs", value, "max_epochs") for value in ("0", "-1")],
        ("--max-epochs", "nan", "--max-epochs"),
        *[("--image-size", value, "image_size") for value in ("0", "-32", "99999999")],
        ("--image-size", "2.5", "--image-size"),
        ("--overfit-num", "-1", "overfit_num"),
        *[
            ("--val-share", value, "val_share")
            for value in ("0", "1", "-0.1", "2", "nan")
        ],
        *[("--max-features", value, "max_features") for value in ("0", "-16", "17")],
        ("--patience", "-1", "patience"),
        ("--seed", "-1", "seed"),
        ("--seed", "4294967296", "seed"),
        ("--num-workers", "-1", "num_workers"),
        ("--num-nodes", "0", "num_nodes"),
        *[("--devices", value, "devices") for value in ("0", "-1", "many")],
        ("--loss", "mse", "loss"),
        ("--accelerator", "abacus", "accelerator"),
        ("--precision", "7", "recision"),
        ("--strategy", "luck", "strategy"),
        ("--weights", "nowhere.ckpt", "nowhere.ckpt"),
        ("--scenes", "nowhere.csv", "nowhere.csv"),
        ("--foreground", "red", "'red'"),
        ("--ignore", "-1", "'-1'"),
        ("-b", "100", "batch_size 100"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_written(
    flag: str,
    value: str,
    named: str,
    make_pairs: MakePairs,
    tmp_path: Path,
    refused: Refused,
) -> None:
    runs = tmp_path / "runs"
    words = ("train", "-d", make_pairs(4), "-o", runs, *SMALL)
    assert named in refused(*words, flag, value)
    assert not list(runs.glob("*/*"))


def test_three_image_sizes_are_too_many(
    refused: Refused, make_pairs: MakePairs
) -> None:
    message = refused("train", "-d", make_pairs(2), "--image-size", 8, 8, 8)
    assert "image_size" in message


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_cannot_be_made_is_refused(
    below: str, make_pairs: MakePairs, tmp_path: Path, refused: Refused
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    words = ("train", "-d", make_pairs(4), "-o", file / below, *SMALL)
    assert str(file) in refused(*words)
    assert file.read_text() == "mine"


# predict


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
    assert predict(trained, picture, "-o", out) == 0
    assert names(out) == ["shot_mask.png"]
    mask = Image.open(out / "shot_mask.png")
    assert (mask.mode, mask.size) == ("L", (24, 20))
    expected = ui.load_system(trained.best).predict_mask(ui.load_image(picture))
    assert np.array_equal(np.asarray(mask), np.where(expected, 255, 0))
    assert expected.any() and not expected.all()


def test_predict_takes_folders_and_globs(trained: Run, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_pictures(here, "a.png", "b.JPG", "a_target.png", "a_mask.png")
    write_pictures(here, "a_overlay.png", ".hidden.png")
    (here / "notes.txt").write_text("no picture")
    (here / "folder.png").mkdir()
    pictures = write_pictures(there, "c1.bmp", "c2.bmp", "d.bmp")
    out = tmp_path / "out"
    words = (here, there / "c*.bmp", pictures[-1], pictures[-1], "-o", out)
    assert predict(trained, *words) == 0
    expected = ["a", "b", "c1", "c2", "d"]
    assert names(out) == [f"{stem}_mask.png" for stem in expected]


def test_predict_into_the_pictures_own_folder(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_pictures(folder, "a.png")
    for _ in range(2):
        assert predict(trained, folder, "-o", folder, "--overlay", "--overwrite") == 0
    assert names(folder) == ["a.png", "a_mask.png", "a_overlay.png"]


def test_overlay_shows_the_mask(trained: Run, tmp_path: Path) -> None:
    [picture] = write_pictures(tmp_path / "in", "a.png")
    assert predict(trained, picture, "-o", tmp_path / "out", "--overlay") == 0
    mask = pixels(tmp_path / "out" / "a_mask.png")
    painted = ui.overlay(ui.load_image(picture), mask)
    assert np.array_equal(pixels(tmp_path / "out" / "a_overlay.png"), painted)


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


def test_two_pictures_of_one_name_are_refused(
    trained: Run, tmp_path: Path, refused: Refused
) -> None:
    first, second = write_pictures(tmp_path / "in", "a.png", "a.bmp")
    out = tmp_path / "out"
    message = refused("predict", "-c", trained.best, first, second, "-o", out)
    assert "a.png" in message and "a.bmp" in message
    assert not out.exists()


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
    picture = tmp_path / "a.png"
    Image.new("RGB", size, "teal").save(picture)
    assert predict(trained, picture, "-o", tmp_path) == 0
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


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan"])
def test_a_threshold_that_is_no_probability_is_refused(
    threshold: str, trained: Run, tmp_path: Path, refused: Refused
) -> None:
    write_pictures(tmp_path / "in", "a.png", "b.png")
    words = ("-c", trained.best, tmp_path / "in", "-o", tmp_path / "out")
    message = refused("predict", *words, "--threshold", threshold)
    assert message.count("threshold") == 1
    assert not (tmp_path / "out").exists()


def test_without_a_reference_a_checkpoint_is_asked_for(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "REFERENCE", tmp_path / "reference.ckpt")
    [picture] = write_pictures(tmp_path / "in", "a.png")
    message = refused("predict", picture, "-o", tmp_path / "out")
    assert "reference.ckpt" in message and "--checkpoint" in message
    assert not (tmp_path / "out").exists()


def test_the_reference_is_used_by_itself(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference.ckpt"
    shutil.copy(trained.best, reference)
    monkeypatch.setattr(ui, "REFERENCE", reference)
    [picture] = write_pictures(tmp_path / "in", "a.png")
    assert run("predict", picture, "-o", tmp_path / "out") == 0
    assert predict(trained, picture, "-o", tmp_path / "again") == 0
    masks = [pixels(tmp_path / name / "a_mask.png") for name in ("out", "again")]
    assert np.array_equal(*masks)


@pytest.mark.parametrize("name", ["empty", "nowhere.png", "empty/*.png"])
def test_what_stands_for_no_picture_is_refused(
    name: str, trained: Run, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    words = ("-c", trained.best, tmp_path / name, "-o", tmp_path / "out")
    message = refused("predict", *words)
    assert str(tmp_path / name) in message
    assert not (tmp_path / "out").exists()


def test_masks_are_not_written_into_a_file(
    trained: Run, tmp_path: Path, refused: Refused
) -> None:
    [picture] = write_pictures(tmp_path / "in", "a.png")
    message = refused("predict", "-c", trained.best, picture, "-o", picture)
    assert str(picture) in message
    Image.open(picture).load()


# What a stranger tried


def test_a_range_of_ids_is_foreground(trained: Run, capsys: Capture) -> None:
    assert run("check", trained.pairs, "--foreground", "1-255", "--json") == 0
    ranged = json.loads(capsys.readouterr().out)
    assert run("check", trained.pairs, "--foreground", 255, "--json") == 0
    assert (
        ranged["foreground_share"]
        == json.loads(capsys.readouterr().out)["foreground_share"]
    )


def test_train_wants_a_flag_for_its_folder(trained: Run, refused: Refused) -> None:
    assert "the folder of pairs is given with -d" in refused("train", trained.pairs)


def test_a_run_is_no_checkpoint(trained: Run, refused: Refused) -> None:
    message = refused("predict", "-c", trained.folder, trained.pairs)
    assert f"{trained.folder}: is a folder; expected a checkpoint" in message


def test_subfolders_are_not_searched(trained: Run, refused: Refused) -> None:
    assert "**/*.png" in refused("predict", trained.pairs.parent)


def test_help_shows_numbers_as_numbers(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("train", "--help")
    text = squeeze(capsys.readouterr().out)
    for words in ("machines(1)", "augmentation(0)", "(yes)"):
        assert words in text


def test_pos_weight_reaches_the_loss(trained: Run, tmp_path: Path) -> None:
    folder = train(trained.pairs, tmp_path / "runs", "--pos-weight", 5)
    assert ui.load_system(folder / "best.ckpt").settings["pos_weight"] == 5


def test_a_run_goes_on_from_another_folder(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.pairs.parent)
    folder = train(trained.pairs.name, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert run("train", "--resume", folder) == 0


@pytest.mark.parametrize("command", ["train", "predict"])
def test_output_that_cannot_be_a_folder_is_named(
    command: str, trained: Run, tmp_path: Path, refused: Refused
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    words = {
        "train": ("train", "-d", trained.pairs, *SMALL),
        "predict": ("predict", "-c", trained.folder / "best.ckpt", trained.pairs),
    }[command]
    assert f"{taken}: cannot be made a folder" in refused(*words, "-o", taken)
