"""The tool of the reference checkpoint, tiny: its split, what it keeps, what it saw."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ui_segmentation_system as ui
from tests.conftest import MakePairs, draw_image, find_box
from tools import train_reference
from tools.train_reference import (
    PICTURES,
    class_weights,
    main,
    open_parts,
    read_maps,
    split_parts,
)

MAPS = [f"map_{number // 3}" for number in range(120)]
SMALL = (32, 48)
KEPT = {"hyper_parameters", "state_dict"}
PLAIN = (str, int, float, bool, type(None), tuple, list)
NEVER_SEEN = 42  # a dialog, a third of the picture
LARGEST_BYTES = 5_000_000


def write_index(folder: Path, maps: dict[int, str]) -> None:
    items = [{"id": key, "map": name} for key, name in maps.items()]
    (folder / "index.json").write_text(json.dumps({"items": items}), encoding="utf-8")


@pytest.fixture
def folder(make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pairs of 48x32, two of each map; the index lists the last one first.

    The tool passes once over pictures of that size.
    """
    monkeypatch.setattr(train_reference, "REPEATS", 1)
    monkeypatch.setattr(train_reference, "SIZE", SMALL)
    pairs = make_pairs(8, SMALL[::-1])
    write_index(pairs, {key: f"map_{(key - 1) // 2}" for key in range(8, 0, -1)})
    return pairs


def run(folder: Path, output: Path, more: str = "") -> dict[str, Any]:
    """Train for an epoch; gives what the checkpoint holds."""
    options = ["--pictures", str(folder), "--output", str(output), "--epochs", "1"]
    assert main([*options, *more.split()]) == 0
    (path,) = output.glob("*.ckpt")
    return ui.read_checkpoint(path)


@pytest.mark.parametrize("maps", [MAPS, MAPS[::-1], list("abcdabcd"), list("abc")])
def test_no_map_is_in_two_parts_and_each_picture_in_one(maps: list[str]) -> None:
    train, val, test = parts = split_parts(maps)
    names = [{maps[i] for i in part} for part in parts]
    assert all(parts) and len(set.union(*names)) == sum(map(len, names))
    assert sorted(train + val + test) == list(range(len(maps)))


def test_test_part_is_that_of_the_lesson() -> None:
    """The notebook draws it as group_split(maps, 0.25, 0); it must have been unseen."""
    maps = read_maps(PICTURES)
    train, val, test = split_parts(maps)
    assert ui.group_split(maps, 0.25, 0) == (sorted(train + val), test)
    assert [len(train), len(val), len(test)] == [76, 14, 30]


def test_maps_follow_the_pairs_and_training_pictures_alone_change(folder: Path) -> None:
    for place, dataset in enumerate(open_parts(folder)):
        first, again = dataset[0], dataset[0]
        assert torch.equal(first.image, again.image) == (place > 0)
    for kind in ("input", "target"):  # 10 comes after 9, not after 1
        shutil.copy(folder / f"1_{kind}.png", folder / f"10_{kind}.png")
    maps = {10: "last", **{key: f"map_{key}" for key in range(8, 0, -1)}}
    write_index(folder, maps)
    assert read_maps(folder) == [maps[key] for key in (*range(1, 9), 10)]
    for text in ("{", "{}", '{"items": [{"id": 1, "map": "cave"}]}'):
        (folder / "index.json").write_text(text)
        with pytest.raises(ValueError, match=r"index.json: .*; expected items with"):
            read_maps(folder)


@pytest.mark.parametrize(
    ("more", "name", "num_train"),
    [
        ("", "reference", 4),
        ("--fast", "reference", 4),
        ("--with-validation --seed 1", "reference", 6),
        ("--encoder mobilenet_v2", "reference_encoder", 4),
    ],
)
def test_command_keeps_plain_weights_and_the_log(
    folder: Path, tmp_path: Path, capsys, more: str, name: str, num_train: int
) -> None:
    output = tmp_path / "new" / "checkpoints"
    kept, path = run(folder, output, more), output / f"{name}.ckpt"
    assert {*output.iterdir()} == {path, output / f"{name}_log.csv"}
    assert kept.keys() == KEPT and path.stat().st_size < 2 * LARGEST_BYTES
    assert all(type(value) in PLAIN for value in kept["hyper_parameters"].values())
    assert all(type(value) is torch.Tensor for value in kept["state_dict"].values())
    (row,) = csv.DictReader((output / f"{name}_log.csv").read_text().splitlines())
    assert (row["epoch"], row["step"]) == ("1", "1")
    assert 0 <= float(row["val_iou"]) <= 1
    lines = capsys.readouterr().out.splitlines()
    counts = [line.split(" pictures, IoU ")[0] for line in lines[-3:]]
    assert counts == [f"training: {num_train}", "validation: 2", "test: 2"]
    form = r"IoU [01]\.\d{3}, averaged with the mirror's [01]\.\d{3}$"
    assert all(re.search(form, line) for line in lines[-3:])
    system = ui.load_system(path)
    assert system.settings["image_size"] == SMALL
    assert system.settings.get("fast", False) == (more == "--fast")
    assert system.settings["encoder"] == (more.partition("--encoder ")[2] or "unet")
    assert {weight.dtype for weight in system.parameters()} == {torch.float32}


def test_weights_do_not_depend_on_test_pictures(folder: Path, tmp_path: Path) -> None:
    """Other test pictures, same weights; other training pictures, other weights."""
    parts, weights = split_parts(read_maps(folder)), []
    for number, part in enumerate(((), parts[2], parts[0])):
        for place in part:
            image = draw_image(100 + place, SMALL[::-1]).rotate(180)
            image_path, target_path = ui.find_pairs(folder)[place]
            image.save(image_path)
            find_box(image).save(target_path)
        weights.append(run(folder, tmp_path / str(number))["state_dict"])
    before, unseen, seen = weights
    assert all(before[key].equal(unseen[key]) for key in before)
    assert not all(before[key].equal(seen[key]) for key in before)


def write_classes(folder: Path, names: list[str]) -> None:
    """Class maps of the box, in which the second half of the names never occur."""
    (folder / "classes").mkdir()
    for path in folder.glob("*_target.png"):
        ids = np.array(Image.open(path)) // 255 * (1 + int(path.name[0]) % 2)
        name = path.name.replace("target", "classes")
        Image.fromarray(ids).save(folder / "classes" / name)
    index = folder / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"class_names": names}))


@pytest.mark.parametrize("weigh", [False, True])
def test_classes_are_learnt_and_each_is_told(
    folder: Path, tmp_path: Path, capsys, weigh: bool
) -> None:
    options = "--classes --encoder mobilenet_v2 --no-test" + " --weigh" * weigh
    with pytest.raises(SystemExit):
        run(folder, tmp_path, options)
    assert "index.json: KeyError('class_names'); expected" in capsys.readouterr().err
    write_classes(folder, ["none", "odd", "even", "never"])
    run(folder, tmp_path, options)
    files = {path.name for path in tmp_path.glob("*ref*")}
    assert files == {"reference_classes.ckpt", "reference_classes_log.csv"}
    *_, first, second = capsys.readouterr().out.splitlines()
    form = r"training: 4 pictures, mean IoU 0\.\d{3}: none 0\.\d{3}, odd"
    assert re.match(form, first)
    assert second.startswith("validation: 2 pictures, mean IoU ")  # no test
    system = ui.load_system(tmp_path / "reference_classes.ckpt")
    weights = system.settings["class_weights"]
    assert (weights is not None) == weigh
    assert not weigh or weights[0] < weights[1] < weights[3]
    assert system.settings["class_names"] == ["none", "odd", "even", "never"]
    assert system.settings["class_values"] == [0, 1, 2, 3]
    assert system.predict_classes(draw_image(0, (70, 50))).shape == (50, 70)


def test_class_weights_are_one_over_the_root_of_shares() -> None:
    targets = [torch.tensor([[0, 0, 0, 0], [1, 255, 255, 255]])]
    assert class_weights(targets, 2) == pytest.approx([2 / 3, 4 / 3])


def test_reference_of_classes_is_small_and_names_a_screen_it_never_saw() -> None:
    path = ui.REFERENCE.with_name("reference_classes.ckpt")
    assert ui.read_checkpoint(path).keys() == KEPT
    assert path.stat().st_size < 2 * LARGEST_BYTES
    system = ui.load_system(path)
    names = train_reference.read_class_names(PICTURES)
    assert system.settings["class_names"] == names and len(names) == 9
    found = system.predict_classes(ui.load_image(PICTURES / f"{NEVER_SEEN}_input.png"))
    file = PICTURES / f"classes/{NEVER_SEEN}_classes.png"
    wanted = np.array(ui.load_classes(file, 9))
    assert (found.shape, found.dtype) == (wanted.shape, np.uint8)
    found, wanted = (ids == names.index("dialog") for ids in (found, wanted))
    assert (found & wanted).sum() / (found | wanted).sum() > 0.5


def test_reference_is_small_and_finds_the_interface_on_a_map_it_never_saw() -> None:
    assert ui.read_checkpoint(ui.REFERENCE).keys() == KEPT
    assert ui.REFERENCE.stat().st_size < LARGEST_BYTES
    assert NEVER_SEEN - 1 in split_parts(read_maps(PICTURES))[2]
    pair = ui.find_pairs(PICTURES)[NEVER_SEEN - 1]
    image, target = map(Image.open, pair)
    found = ui.load_system(ui.REFERENCE).predict_mask(image)
    wanted = np.array(target.convert("L")) > 127
    assert (found & wanted).sum() / (found | wanted).sum() > 0.5
