"""The benchmarks, tiny: what they compare, how they count, what they write."""

import argparse
import importlib.util
import itertools
import math
import shutil
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakePairs
from PIL import Image
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks import loaders, loading, measure, networks, overfit, tiles
from benchmarks.measure import END, START, Cost
from benchmarks.nets import (
    NETWORKS,
    TEXTBOOK,
    TextbookUNet,
    count_parameters,
    need_packages,
    set_prior,
)

PACKAGES = {"MONAI": "monai", "smp": "segmentation_models_pytorch"}
MILLIONS = {
    TEXTBOOK: 1.94,
    "MONAI BasicUNet": 1.98,
    "MONAI BasicUNet, small": 0.94,
    "smp Unet, resnet18": 14.33,
    "smp Unet, lcnet": 1.06,
}
OURS = {name: NETWORKS[name] for name in (TEXTBOOK, "`UNet(fast=True)`")}


def _make(name: str) -> torch.nn.Module:
    package = PACKAGES.get(name.split()[0])
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (benchmarks/requirements.txt)")
    return NETWORKS[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_a_logit_per_pixel(name: str) -> None:
    network = _make(name)
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    assert round(count_parameters(network) / 1e6, 2) == MILLIONS.get(name, 0.96)


@pytest.mark.parametrize("name", NETWORKS)
def test_prior_goes_into_the_head(name: str) -> None:
    network = _make(name)
    set_prior(network, 0.1)
    wanted = math.log(0.1 / 0.9)
    biases = [
        layer.bias
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None
    ]
    assert biases[-1].tolist() == pytest.approx([wanted] * len(biases[-1]))
    assert len(biases[-1]) in (1, 4)  # the fast variant has four pixels a cell


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"monai and segm.*pip install -r bench"):
        need_packages()


def test_tasks_run_in_turn_and_warming_up_is_not_counted() -> None:
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) for name in "AB"}
    costs = measure.run_in_turn(tasks, rounds=2)
    assert "".join(order) == "AABBAABB"
    assert {name: len(taken) for name, taken in costs.items()} == {"A": 2, "B": 2}
    with pytest.raises(ValueError, match="rounds 0: expected 1 or more"):
        measure.run_in_turn(tasks, rounds=0)


def test_ratios_compare_within_a_round() -> None:
    base = [Cost(1, 0), Cost(10, 0), Cost(2, 0)]  # the machine was busy in the second
    half = [Cost(0.5, 0), Cost(5, 0), Cost(1, 0)]
    assert measure.relative_cpu({"base": base, "half": half}, "base") == {
        "base": 1,
        "half": 0.5,
    }


def test_seeded_gives_equal_networks_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (measure.seeded(seed, TextbookUNet) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_write_replaces_a_section_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{START}\n{END}\n\nAfter.\n")
    measure.write_section("loading", "| old |", readme)
    measure.write_section("networks", r"| other \1 |", readme)
    measure.write_section("loading", "| new |", readme)
    page = readme.read_text()
    assert page.startswith("# Title\n\n") and page.endswith(f"{END}\n\nAfter.\n")
    assert "| old |" not in page and page.count("| new |") == 1
    assert r"| other \1 |" in page
    assert list(tmp_path.iterdir()) == [readme]


@pytest.mark.parametrize("text", ["", START, f"{END} {START}", f"{START} {END}" * 2])
def test_write_needs_the_two_marks(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    with pytest.raises(FileNotFoundError, match=r"README.md: no such file"):
        measure.check_block(readme)
    readme.write_text(text)
    with pytest.raises(ValueError, match="expected one <!-- benchmarks -->"):
        measure.write_section("loading", "| table |", readme)
    assert readme.read_text() == text


def test_table_is_markdown() -> None:
    table = measure.markdown_table(["a", "b"], [["1", "2"], ["3", "4"]])
    assert table == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n| 3 | 4 |"


def test_batches_hold_each_picture_once_an_epoch_with_its_own_target() -> None:
    ramp = torch.arange(10 * 8.0).reshape(10, 1, 1, 8)
    train = ui.Sample(ramp.expand(10, 3, 1, 8), ramp)
    batches = list(itertools.islice(networks.draw_batches(train, seed=0), 4))
    assert all(torch.equal(image[:, :1], target) for image, target in batches)
    epoch = torch.cat([target for _, target in batches[:2]])
    assert len({float(value) // 8 for value in epoch[:, 0, 0, 0]}) == 8
    mirrored = epoch[:, 0, 0, 0] > epoch[:, 0, 0, 1]
    assert 0 < int(mirrored.sum()) < 8
    assert torch.equal(train.target, torch.arange(80.0).reshape(10, 1, 1, 8))


def test_training_learns_and_is_scored_per_picture() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((8, 3, 32, 32), np.float32))
    image[:, :, 8:24, 8:24] += 1
    target = torch.zeros(8, 1, 32, 32)
    target[..., 8:24, 8:24] = 1
    data = ui.Sample(image / 2, target)
    network = measure.seeded(0, ui.UNet)
    run = networks.Run("`UNet()`", 4e-3, 0)
    with tqdm(disable=True) as bar:
        networks.train_network(network, data, run, steps=20, bar=bar)
    assert networks.mean_iou(network, data) > 0.8


def test_kept_runs_come_back(tmp_path: Path) -> None:
    keep = tmp_path / "runs.jsonl"
    assert networks.read_runs(None) == networks.read_runs(keep) == {}
    runs = {networks.Run("net", rate, 1): 0.5 + rate for rate in (1e-3, 4e-3)}
    for run, iou in runs.items():
        networks.keep_run(keep, run, iou)
    assert networks.read_runs(keep) == runs


def test_table_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SIZE", 32)
    costs = networks.step_costs(OURS, rounds=1)
    assert costs[TEXTBOOK][0] == 1
    ious = {
        networks.Run(name, rate, seed): rate * 100 + seed / 10
        for name in OURS
        for rate in networks.RATES
        for seed in range(3)
    }
    *_, last = networks.table(OURS, costs, ious).splitlines()
    assert last.startswith("| `UNet(fast=True)` | 0.96 M |")
    assert last.endswith("| 0.20 (3) | 0.50 (3) |")
    assert " ".join(networks.note(ious).split()).endswith("differ by up to 0.20.")
    assert "IoU" not in networks.table(OURS, costs, {}) + networks.note({})


def test_score_is_the_first_step_at_the_goal() -> None:
    pair = ui.Sample(torch.rand(3, 16, 16), torch.ones(1, 16, 16))
    follow = overfit.Follow(pair)
    follow.ious, follow.bce = [0.2, 0.98, 0.99, 0.5, 1.0], 0.01
    assert overfit.score_text(follow.score()) == "0.01, step 3"
    follow.ious = [0.1]
    assert overfit.score_text(follow.score()) == "0.01, never"


@pytest.mark.parametrize("name", overfit.RECIPES)
def test_recipes_overfit_and_repeat(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ui.quiet_lightning()
    monkeypatch.setattr(overfit, "SIZE", (32, 32))
    dataset = overfit.open_pair(1, 12)
    first, again = (overfit.overfit(overfit.RECIPES[name], dataset, 0) for _ in "ab")
    assert first == again
    assert 0 < first.bce < 1


def test_recipe_of_2020_is_plain_adam() -> None:
    system = overfit.Recipe2020()
    optimizer = system.configure_optimizers()
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adam, 1e-3)
    norms = [m for m in system.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 18
    assert not any(isinstance(m, ui.UNet) for m in system.modules())


def test_data_of_2020_are_those_of_today_read_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overfit, "SIZE", (128, 128))
    old, new = (
        kind(measure.PICTURES, 2, (128, 128), overfit_num=4)
        for kind in (overfit.Data2020, ui.UISegmentationData)
    )
    sizes = []
    for data in (old, new):
        data.setup()
        batches = [*data.train_dataloader(), *data.val_dataloader()]
        sizes.append([len(batch.image) for batch in batches])
    assert sizes == [[2, 2, 1, 1, 1, 1], [2, 2, 1]]
    assert old.train_set[0].image is not old.train_set[0].image
    for read, kept in zip(old.val_set[0], new.val_set[0], strict=True):
        assert (read.shape, read.dtype) == (kept.shape, kept.dtype)
        assert (read - kept).abs().mean() < 0.05


def test_whole_runs_time_every_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    ui.quiet_lightning()
    monkeypatch.setattr(overfit, "SIZE", (32, 32))
    costs = overfit.whole_runs(rounds=1, steps=5)
    scores = {name: [overfit.Score(0.1, 7)] * 3 for name in overfit.RECIPES}
    rows = overfit.table(scores, costs).splitlines()
    assert len(rows) == 2 + len(overfit.RECIPES) + 2
    assert rows[-2].startswith(f"| {overfit.LESSON} | as above |")
    assert rows[2].startswith("| 2020 | 0.1, step 7 |")
    assert rows[2].split(" | ")[-2] == "1.00"


def test_loading_takes_every_sample() -> None:
    tasks = loading.loading_tasks(measure.PICTURES)
    assert {task() for task in tasks.values()} == {len(ui.find_pairs(measure.PICTURES))}
    costs = {loading.READ: [Cost(0.6, 1)], loading.CACHED: [Cost(0.1, 1)]}
    table = loading.table(costs, num_samples=100)
    assert "| read each time | 6.0 | 6.00 |" in table


class BusyDataset(torch.utils.data.Dataset):
    """Eight small samples, each of which takes its process CPU time."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> ui.Sample:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        value = torch.tensor(float(index))
        return ui.Sample(value.expand(3, 20, 30), value.expand(1, 20, 30))


@pytest.mark.parametrize("name", loaders.LARGE_RACE)
def test_racing_loaders_give_equal_batches_each_in_its_way(name: str) -> None:
    batches = list(loaders.LARGE_RACE[name](BusyDataset()))
    assert [type(batch) for batch in batches] == [ui.Sample] * 2
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images[:, 0, 0, 0].tolist() == targets[:, 0, 0, 0].tolist() == [*range(8)]
    assert images.shape == (8, 3, 20, 30) and targets.shape == (8, 1, 20, 30)
    shared = {part.is_shared() for batch in batches for part in batch}
    assert shared == {name != loaders.COPIES}


@pytest.mark.parametrize("name", loaders.LARGE_RACE)
def test_an_epoch_counts_the_workers_and_waits_for_them(name: str) -> None:
    epoch = loaders.go_through(loaders.LARGE_RACE[name](BusyDataset()))
    assert epoch.num_samples == 8
    assert epoch.cpu >= 8 * 0.01  # nearly all of it in workers
    assert 0 < epoch.first < epoch.wall and 0 < epoch.end < epoch.wall
    assert not torch.multiprocessing.active_children()


def test_an_epoch_ends_with_the_last_child_and_knows_its_first_batch() -> None:
    batch = ui.Sample(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5))
    context = torch.multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(0.3,))
    asked: list[float] = []

    def leave_a_child() -> Iterator[ui.Sample]:
        child.start()
        for _ in range(2):
            yield batch
            asked.append(time.perf_counter())
            time.sleep(0.05)

    begin = time.perf_counter()
    epoch = loaders.go_through(leave_a_child())
    assert child.exitcode == 0
    assert epoch.first <= asked[0] - begin
    assert 0.05 <= epoch.end <= epoch.wall - epoch.first


def test_an_error_comes_through_the_pipe_as_well() -> None:
    with pytest.raises(TypeError, match="expected Tensor"):
        list(loaders.copying_loader(["no sample", "at all"]))


def test_race_turns_the_order_round_and_loses_no_epoch() -> None:
    order: list[str] = []
    batch = ui.Sample(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5))
    makers = {name: lambda _, name=name: order.append(name) or [batch] for name in "AB"}
    epochs = loaders.race(makers, BusyDataset(), rounds=3)
    assert "".join(order) == "ABBAAB"
    counts = {name: [epoch.num_samples for epoch in epochs[name]] for name in "AB"}
    assert counts == {"A": [2, 2, 2], "B": [2, 2, 2]}


def test_throughput_is_compared_within_a_round() -> None:
    base = [loaders.Epoch(8, 1, wall, 0, 0) for wall in (1, 10, 2)]  # once busy
    fast = [loaders.Epoch(8, 1, wall, 0, 0) for wall in (0.5, 5, 1)]
    speeds = loaders.relative_speed({"base": base, "fast": fast}, "base")
    assert speeds == {"base": 1, "fast": 2}


@pytest.fixture
def tiny_pictures(make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loaders race on five small pairs, two of which are enlarged a little."""
    monkeypatch.setattr(loaders, "PICTURES", make_pairs(5))
    monkeypatch.setattr(loaders, "LARGE", (48, 64))
    monkeypatch.setattr(loaders, "NUM_LARGE", 2)


@pytest.mark.usefixtures("tiny_pictures")
def test_table_of_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = loaders.make_text(argparse.Namespace(rounds=1))
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| 256x224, torch's",
        "| 256x224, `PrefetchDataLoader`",
        "| 1920x1080, torch's",
        "| 1920x1080, `PrefetchDataLoader`",
        "| 1920x1080, the same, pickled copies",
        "| goal",
    ]
    assert lines[0].split(" | ")[1:3] == ["1.00", "1.00"]
    assert {line.count(" |") for line in lines} == {6}
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


@pytest.mark.usefixtures("tiny_pictures")
def test_large_pictures_are_whole_pairs_of_that_size(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    dataset = loaders.large_pictures(folder)
    assert len(dataset) == 2
    for image, target in dataset:
        assert image.shape == (3, 48, 64) and target.shape == (1, 48, 64)
        assert set(target.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("command", [loading, loaders, tiles])
def test_bad_flags_end_in_one_line(
    command: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--rounds", "0"])
    assert stopped.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == f"python -m {command.__name__}: rounds 0: expected 1 or more"


LINUX = pytest.mark.skipif(not tiles.STATUS.exists(), reason="no /proc to ask")


@pytest.fixture
def tiny_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with one small picture and its mask in every kind of file."""
    monkeypatch.setattr(tiles, "BLOCK", 70)
    tiles.write_pictures(tmp_path, large=96, small=96, tile=16)
    return tmp_path


def test_pictures_are_a_block_side_by_side(tiny_files: Path) -> None:
    image, mask = (np.load(tiny_files / f"{name}.npy") for name in ("image", "mask"))
    assert image.shape == (96, 96, 3) and mask.shape == (96, 96)
    block = image[:64, :64]
    assert np.array_equal(image, np.tile(block, (2, 2, 1))[:96, :96])
    drawn = tiles.Slide().window(*tiles.PLACE, 64, 64)
    assert np.array_equal(block, drawn[0]) and np.array_equal(mask[:64, :64], drawn[1])


@pytest.mark.parametrize("name", tiles.WAYS)
def test_every_way_reads_the_same_tiles(name: str, tiny_files: Path) -> None:
    dataset = tiles.WAYS[name].open(tiny_files, 16)
    if "slide" in name:
        picture, mask = dataset[0]
        assert picture.shape == (3, 16, 16) and mask.shape == (1, 16, 16)
        return
    image, target = (np.load(tiny_files / f"{part}.npy") for part in ("image", "mask"))
    whole = ui.ImageTargetToTensor()(Image.fromarray(image), Image.fromarray(target))
    assert len(dataset) == 36
    for index in (0, 1, 6, 35):
        y, x = (16 * place for place in divmod(index, 6))
        for part, wanted in zip(dataset[index], whole, strict=True):
            assert torch.equal(part, wanted[:, y : y + 16, x : x + 16])


def test_unfolding_keeps_the_order_and_loses_the_remainder() -> None:
    picture = torch.arange(2 * 5 * 7).reshape(2, 5, 7)
    unfolded = tiles.unfold(picture, 2)
    assert unfolded.shape == (6, 2, 2, 2)
    assert torch.equal(unfolded[1], picture[:, :2, 2:4])
    assert torch.equal(unfolded[3], picture[:, 2:4, :2])


def peaks(path: Path, size: int) -> tuple[int, int, int]:
    """Memory while values are held, afterwards, and while a mapped file is read."""

    def hold_for_a_moment() -> None:
        values = np.ones(size, np.uint8)
        time.sleep(0.1)
        del values

    before = tiles.private_memory()
    held = tiles.peak_memory(hold_for_a_moment) - before
    after = tiles.private_memory() - before
    values = np.load(path, mmap_mode="r")
    mapped = tiles.peak_memory(values.max) - before
    return held, after, mapped


@LINUX
def test_memory_is_the_peak_of_what_no_file_stands_behind(tmp_path: Path) -> None:
    path, size = tmp_path / "values.npy", 40_000_000
    np.save(path, np.ones(size, np.uint8))
    # In a process of its own: this one has freed memory, and takes that again.
    held, after, mapped = tiles.in_fresh_process(peaks, path, size)
    assert held > 0.9 * size
    assert max(after, mapped) < 0.5 * size


def test_memory_is_refused_where_the_system_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "STATUS", tmp_path / "status")
    with pytest.raises(ValueError, match="no RssAnon; memory is measured on Linux"):
        tiles.private_memory()


@LINUX
def test_reading_is_measured_in_a_process_of_its_own(tiny_files: Path) -> None:
    name = "memory map, `TileDataset`"
    reading = tiles.in_fresh_process(tiles.read_tiles, name, tiny_files, 16)
    assert reading.cpu > 0 and abs(reading.memory) < 50 * tiles.MB
    with pytest.raises(FileNotFoundError, match=r"image\.npy"):
        tiles.in_fresh_process(tiles.read_tiles, name, tiny_files / "none", 16)


def test_ways_are_read_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(
        tiles,
        "in_fresh_process",
        lambda _, name, *__: order.append(name) or tiles.Reading(0.1, 0),
    )
    readings = tiles.read_in_turn(tmp_path, 16, rounds=2)
    assert order == [*tiles.WAYS] * 2
    assert {name: len(taken) for name, taken in readings.items()} == dict.fromkeys(
        tiles.WAYS, 2
    )


def test_whole_ways_are_scaled_by_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LARGE", 10 * tiles.SMALL)
    readings = {
        name: [tiles.Reading(cpu, 5_000_000) for cpu in (0.001, 0.002, 0.9)]
        for name in tiles.WAYS
    }
    _, _, first, *_, last, goal = tiles.reading_table(readings).splitlines()
    assert first.endswith("| 4,000 | 2.00 | 5 | about 500 |")
    assert last.endswith("| 40,000 | 2.00 | 5 | 5 |")
    assert goal == "| goal |  |  |  | 50 or less |"


@pytest.fixture
def tiny_picture(tmp_path: Path) -> Path:
    path = tmp_path / "image.npy"
    np.save(path, tiles.Slide().window(*tiles.PLACE, 80, 100)[0])
    return path


def _predict_whole(
    network: torch.nn.Module, image: np.ndarray, tile: int, overlap: int
) -> torch.Tensor:
    """Stand in for MONAI with a window as large as the picture, a little off."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        return network(pixels)[0].sigmoid() - 0.01


def test_predictions_are_compared_pixel_by_pixel(
    tiny_picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = {tiles.MONAI: _predict_whole, tiles.OURS: tiles.predict_by_module}
    monkeypatch.setattr(tiles, "PREDICTORS", predictors)
    monkeypatch.setattr(tiles, "in_fresh_process", lambda task, *given: len(given))
    taken = tiles.predict_in_turn(tiny_picture, 128, 8, features=16, rounds=2)
    network, image = tiles.make_network(16), np.load(tiny_picture)
    theirs, ours = (
        predict(network, image, 128, 8) >= 0.5 for predict in predictors.values()
    )
    assert 0 < taken[tiles.OURS].unlike == int((theirs != ours).sum()) < 8000
    assert taken[tiles.MONAI].unlike == 0
    assert {name: len(p.costs) for name, p in taken.items()} == dict.fromkeys(
        predictors, 2
    )
    assert taken[tiles.OURS].memory == [5, 5]


def test_both_predict_the_same(tiny_picture: Path) -> None:
    if not tiles.has_monai():
        pytest.skip("monai is not installed (benchmarks/requirements.txt)")
    network, image = tiles.make_network(16), tiles.open_picture(tiny_picture)
    theirs, ours = (
        predict(network, image, 32, 8) for predict in tiles.PREDICTORS.values()
    )
    assert theirs.shape == ours.shape == (1, 80, 100)
    assert torch.allclose(theirs, ours, atol=1e-6)
    assert torch.equal(theirs >= 0.5, ours >= 0.5)


@LINUX
def test_memory_of_predicting_counts_the_whole_picture(tmp_path: Path) -> None:
    path = tmp_path / "image.npy"
    np.save(path, np.zeros((1536, 1536, 3), np.uint8))
    measure = tiles.predicting_memory
    memory = tiles.in_fresh_process(measure, tiles.OURS, path, 256, 64, 16)
    assert memory > 0.8 * 1536**2 * 4  # float32 probabilities


def test_table_of_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "PREDICTED", 1000)  # 12 MB of floats
    costs = {"base": [Cost(2, 2), Cost(20, 20)], "ours": [Cost(1, 1), Cost(10, 10)]}
    predictions = {
        tiles.MONAI: tiles.Prediction(costs["base"], [32_000_000] * 2, 0, 0.0),
        tiles.OURS: tiles.Prediction(costs["ours"], [8_000_000] * 2, 3, 2e-7),
    }
    lines = tiles.predicting_table(predictions).splitlines()
    assert lines[0].startswith("| predicting over 1000x1000 |")
    assert lines[2].endswith("| 1.00 | 1.00 | 32 | 11.0 | 0 |")
    assert lines[3].endswith("| 0.50 | 0.25 | 8 | 5.5 | 3 |")
    note = " ".join(tiles.predicting_note(predictions).split())
    assert "12 MB of its memory" in note and "ratio is 0.40" in note
    assert "differ by up to 2e-07." in note


def test_full_disk_and_missing_monai_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"1\.0 GB free, expected 4\.2; set TMPDIR"):
        tiles.write_pictures(tmp_path, tiles.LARGE, tiles.SMALL, tiles.TILE)
    monkeypatch.setattr(tiles, "has_monai", lambda: False)
    with pytest.raises(ValueError, match="--write needs monai; run: pip"):
        tiles.make_text(argparse.Namespace(rounds=1, write=True))
    assert list(tmp_path.iterdir()) == []


def test_whole_text_leaves_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"LARGE": 96, "SMALL": 64, "BLOCK": 64, "TILE": 32, "PREDICTED": 64}
    for name, value in (sizes | {"OVERLAP": 8, "FEATURES": 16}).items():
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predictors = {tiles.MONAI: _predict_whole, tiles.OURS: tiles.predict_by_module}
    monkeypatch.setattr(tiles, "PREDICTORS", predictors)
    monkeypatch.setattr(tiles, "has_monai", lambda: True)
    answers = {"read_tiles": tiles.Reading(0.1, 5), "predicting_memory": 100_000}
    monkeypatch.setattr(
        tiles, "in_fresh_process", lambda task, *_: answers[task.__name__]
    )
    text = tiles.make_text(argparse.Namespace(rounds=1, write=False))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line for line in lines if line.startswith("| goal |")] == [
        "| goal |  |  |  | 50 or less |",
        "| goal | 1.00 or less | 0.50 or less |  |  | 0 |",
    ]
    assert len(lines) == 8 + len(tiles.WAYS)
    assert list(tmp_path.iterdir()) == []
