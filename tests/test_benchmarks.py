"""The benchmarks, tiny: what they compare, how they count, what they write."""

import argparse
import csv
import itertools
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from PIL import Image

import ui_segmentation_system as ui
from benchmarks import (
    loaders,
    loading,
    measure,
    memory,
    networks,
    overfit,
    small_trainings,
    startup,
    tiles,
)
from benchmarks.measure import Cost
from tests.conftest import MakePairs

Patch = pytest.MonkeyPatch
SMALL = {
    **{"networks.SIZE": 32, "overfit.SIZE": (64, 64), "overfit.STEPS": 5},
    **{"loaders.LARGE": (48, 64), "loaders.NUM_LARGE": 2},
    "loaders.add_up": int,  # nothing to add
    **{"tiles.LARGE": 96, "tiles.SMALL": 96, "tiles.BLOCK": 70, "tiles.TILE": 16},
    **{"tiles.OVERLAP": 8, "tiles.PREDICTED": 80, "tiles.FEATURES": 16},
}
MILLIONS = (1.94, 1.06, 1.06, 1.98, 0.94, 14.33, 1.06)
START, END = "<!-- a -->", "<!-- /a -->"
NO_MARKS = "", START, END + START, START + START + END, START + END + END
BAD_INPUT = [
    *(("--write", marks, None, "expected one <!-- a -->") for marks in NO_MARKS),
    ("--rounds=0", "", None, "--rounds 0: expected 1 or more"),
    ("--split=-1", "", None, "--split -1: expected 0 or more"),
    ("--rounds=1", "", ValueError("what is wrong"), "what is wrong"),
    ("--rounds=1", "", ImportError("No monai"), "No monai; run: pip install -r bench"),
]
OPTIONS = argparse.Namespace(
    **{"rounds": 1, "write": False, "accuracy": False, "seeds": 1, "keep": None},
    **{"only": None, "steps": networks.STEPS, "split": 0},
)
# Bright squares on noise: eight pictures.
NOISE = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SQUARE = torch.zeros(8, 1, 64, 64)
SQUARE[..., 16:48, 16:48] = 1
SQUARES = ui.Sample((NOISE + SQUARE) / 2, SQUARE)


@pytest.fixture(autouse=True)
def small(monkeypatch: Patch) -> None:
    for name, size in SMALL.items():
        monkeypatch.setattr(f"benchmarks.{name}", size)


def cells(text: str) -> list[list[str]]:
    """Take a Markdown table apart: its rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line[2:-2].split(" | ") for line in lines[2:]]


def test_timing_interleaves_and_compares_within_a_round(monkeypatch: Patch) -> None:
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) or name for name in "AB"}
    results = measure.run_in_turn(tasks, rounds=3)
    assert ("".join(order), results) == ("ABBAAB", {"A": [*"AAA"], "B": [*"BBB"]})
    base = [Cost(1, 4), Cost(10, 40), Cost(2, 8)]  # the machine was busy in the second
    costs = {"base": base, "half": [Cost(0.5, 1), Cost(5, 10), Cost(1, 2)]}
    assert measure.ratios(costs, "base") == {"base": 1, "half": 0.5}
    assert measure.ratios(costs, "base", lambda cost: cost.wall)["half"] == 0.25
    assert measure.medians(costs["half"]) == Cost(1, 2)
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    run = partial(subprocess.run, [sys.executable, "-c", burn])
    assert measure.cost_of(run).cpu > 0.2
    task = Mock()  # a second each time
    monkeypatch.setattr(measure.time, "perf_counter", lambda: task.call_count)
    assert (measure.cost_of(task, warm_up=2).wall, task.call_count) == (1, 3)


def test_write_replaces_one_block_alone(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("overfit", "networks", "loading", "loaders", "tiles", "startup"):
        measure.write_block(name, None)  # the true page has its marks
    monkeypatch.setattr(measure, "PAGE", page := tmp_path / "page.md")
    page.write_text("Ä <!-- a -->old<!-- /a --> b <!-- b -->\n<!-- /b -->\n", "utf-8")
    table = measure.markdown_table(["a", "b"], [["1", r"\1"]])
    measure.run_command("a", "Doc", lambda _: table, 2, ["--write"])
    new = "\n\n| a | b |\n| --- | ---: |\n| 1 | \\1 |\n\n"
    wanted = f"Ä <!-- a -->{new}<!-- /a --> b <!-- b -->\n<!-- /b -->\n"
    assert page.read_text("utf-8") == wanted and [*tmp_path.iterdir()] == [page]


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_ends_in_one_line(
    case: tuple, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, marks, error, message = case
    monkeypatch.setattr(measure, "PAGE", page := tmp_path / "page.md")
    page.write_text(marks)
    make_text, split = Mock(side_effect=error), {"type": int, "default": 0}
    with pytest.raises(SystemExit, match="2"):
        measure.run_command("a", "Doc", make_text, 2, [flag], split=split)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks.a: ") and message in line
    assert page.read_text() == marks and make_text.called == (error is not None)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_gives_logits_from_the_share(name: str) -> None:
    try:
        network = networks.NETWORKS[name]()
    except ImportError as error:
        pytest.skip(f"{error} (benchmarks/requirements.txt)")
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    size = sum(weights.numel() for weights in network.parameters()) / 1e6
    assert round(size, 2) == MILLIONS[[*networks.NETWORKS].index(name)]
    networks.train_network(network, SQUARES, networks.Run(name, 1e-9, 0, steps=1))
    *_, head = (layer for layer in network.modules() if type(layer) is torch.nn.Conv2d)
    assert head.bias.tolist() == pytest.approx([math.log(0.25 / 0.75)] * len(head.bias))
    assert len(head.bias) in (1, 4)  # the fast variant has four pixels a cell


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


def test_training_learns_and_is_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    keep = tmp_path / "runs.jsonl"
    monkeypatch.setattr(networks, "read_split", lambda _: (SQUARES, SQUARES))
    runs = [networks.Run("UNet()", 4e-3, seed, steps=20) for seed in (0, 1)]
    first = networks.train_all(runs[:1], keep)
    assert first[runs[0]] > 0.8
    monkeypatch.setattr(networks, "mean_iou", lambda *_: 0.5)
    assert networks.train_all(runs, keep) == first | {runs[1]: 0.5}
    assert networks.train_all([], keep) == first | {runs[1]: 0.5}


def test_table_of_networks(monkeypatch: Patch) -> None:
    fast, other = "UNet(fast=True)", networks.Run(networks.MONAI, 1e-3, 7, steps=9)
    made = {networks.MONAI: ui.UNet, fast: networks.NETWORKS[fast]}  # MONAI's may lack
    monkeypatch.setattr(networks, "NETWORKS", made)
    text = networks.make_text(OPTIONS)
    assert cells(text)[0][2] == "1.00" and "IoU" not in text

    def train_all(runs: list[networks.Run], _: None) -> dict[networks.Run, float]:
        return {other: 9} | {run: run.rate * 100 + run.seed / 10 for run in runs}

    monkeypatch.setattr(networks, "train_all", train_all)
    monkeypatch.setattr(OPTIONS, "accuracy", True)
    monkeypatch.setattr(OPTIONS, "seeds", 3)
    text = networks.make_text(OPTIONS)
    row = cells(text)[1]
    assert row[:2] + row[4:] == [fast, "1.06 M", "0.30 (3)", "0.50 (3)"]
    assert text.endswith("differ by up to 0.20.")
    for name, value in {"only": networks.MONAI, "steps": 9, "seeds": 1}.items():
        monkeypatch.setattr(OPTIONS, name, value)
    assert networks.make_text(OPTIONS) == "IoU at 0.002: 0.200\nIoU at 0.004: 0.400"
    monkeypatch.setattr(OPTIONS, "write", True)
    with pytest.raises(ValueError, match="--write needs --accuracy, without --only"):
        networks.make_text(OPTIONS)


def test_table_of_overfitting() -> None:
    ui.quiet_lightning()
    rows = cells(text := overfit.make_text(OPTIONS))
    assert [row[0] for row in rows] == [*overfit.SYSTEMS, overfit.LESSON, "goal"]
    assert (rows[0][4], rows[3][1:4]) == ("1.00", ["as above"] * 3)
    # Runs repeat, and copies in a batch change nothing.
    assert text.endswith(f"seed: {rows[1][1]}; in batches of four: {rows[1][1]}.")


def test_score_is_the_median_bce_and_step_at_the_goal(monkeypatch: Patch) -> None:
    ious = [[0.2, 0.98, 0.99, 0.5], [0.99], [0.1] * 10]
    follows = [Mock(bces=[7, 0.01], ious=taken) for taken in ious]
    monkeypatch.setattr(overfit, "Follow", Mock(side_effect=follows))
    monkeypatch.setattr(overfit, "Trainer", Mock())
    assert overfit.overfit("`UNet()`", 1, 3) == "0.01, step 3"


def test_2020_was_plain_adam_and_files_read_each_time(monkeypatch: Patch) -> None:
    monkeypatch.setattr(overfit, "Trainer", trainer := Mock())
    for name in ("2020", "`UNet()`"):
        overfit.whole_run(name)
    (system, train, val), (_, data) = (c.args for c in trainer().fit.call_args_list)
    optimizer = system.configure_optimizers()
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adam, 1e-3)
    data.setup()
    assert (len(train), len(val)) == (len(data.train_dataloader()), 4)
    assert val.dataset[0].image is not val.dataset[0].image
    for old, new in zip(val.dataset[0], data.val_set[0], strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert (old - new).abs().mean() < 0.05


@pytest.mark.parametrize("name", loaders.LOADERS)
def test_loaders_race_with_equal_batches(name: str, monkeypatch: Patch) -> None:
    messages, get = [], Connection._recv_bytes

    def note(pipe: Connection, *size: int) -> object:
        messages.append(get(pipe, *size))
        return messages[-1]

    monkeypatch.setattr(Connection, "_recv_bytes", note)
    batches = list(loaders.LOADERS[name](list(map(ui.Sample, *SQUARES))))
    for parts, whole in zip(zip(*batches, strict=True), SQUARES, strict=True):
        assert np.array_equal(np.concatenate(parts), whole)
    sizes = [len(message.getbuffer()) for message in messages]
    copied = max(sizes, default=0) > batches[0].image.nbytes
    assert copied == (name == loaders.COPIES)  # whole through the pipe


def test_an_epoch_ends_with_the_last_child_and_knows_its_first_batch() -> None:
    context = torch.multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(0.5,))

    def leave_a_child() -> Iterator[ui.Sample]:
        child.start()
        yield SQUARES
        time.sleep(0.1)
        yield SQUARES

    epoch = loaders.run_epoch(leave_a_child())
    assert child.exitcode == 0 and epoch.wall > 0.5 and epoch.end > 0.05
    assert 0 < epoch.first <= epoch.wall - epoch.end - 0.1


def test_tables_of_loading(make_pairs: MakePairs, monkeypatch: Patch) -> None:
    monkeypatch.setattr(measure, "PICTURES", pairs := make_pairs(5))
    monkeypatch.setattr(tempfile, "tempdir", str(pairs.parent))
    with (
        patch.object(ui, "PairDataset", wraps=ui.PairDataset) as made,
        patch.object(ui, "load_image", wraps=ui.load_image) as read,
    ):
        rows = cells(loading.make_text(OPTIONS))
    assert rows[1][:2] == [loading.CACHED, "1.0"]
    cached = [call.kwargs.get("cache") for call in made.call_args_list]
    assert cached == [False, True, None]  # the last without tensors
    assert read.call_count == 5 * (2 + 1 + 2)  # each way once to warm up
    rows = cells(text := loaders.make_text(OPTIONS))
    assert re.search(
        r"\nTwo sums take (\d+\.\d\d times as.*){2}long in two pr", text, re.S
    )
    names = ["256x224, " + name for name in (loaders.TORCH, loaders.OURS)]
    names += ["1920x1080, " + name for name in loaders.LOADERS]
    assert [row[0] for row in rows] == [*names, "goal"]
    assert rows[0][1:3] == rows[2][1:3] == ["1.00", "1.00"]
    assert [*pairs.parent.iterdir()] == [pairs]


def test_every_way_reads_the_same_tiles(tmp_path: Path) -> None:
    tiles.write_pictures(tmp_path)
    image, mask = tiles.Slide().window(*tiles.PLACE, 70, 70)
    image, mask = np.tile(image, (2, 2, 1)), np.tile(mask, (2, 2))  # side by side
    whole = ui.ImageTargetToTensor()(Image.fromarray(image), Image.fromarray(mask))
    assert tiles.open_tiles(tiles.DRAWN, tmp_path)[0].image.shape == (3, 16, 16)
    for way, index in itertools.product(tiles.WAYS[:-1], (0, 1, 6, 35)):
        y, x = (16 * place for place in divmod(index, 6))
        sample = tiles.open_tiles(way, tmp_path)[index]
        for part, picture in zip(sample, whole, strict=True):
            assert torch.equal(part, picture[:, y : y + 16, x : x + 16])


def memory_of(size: int) -> list[float]:
    """What holding values for a moment takes, and reading a mapped file of as many."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(size))
        file.flush()
        read = np.memmap(file.name, mode="r").max
        tasks = [lambda: (np.ones(size, np.uint8), time.sleep(0.1)), read]
        return [tiles.cost_in_memory(t, tiles.private_memory()).memory for t in tasks]


def test_memory_is_private_alone(tmp_path: Path, monkeypatch: Patch) -> None:
    if tiles.STATUS.exists():  # in a new process: this one has freed memory to use
        held, mapped = tiles.in_fresh_process(memory_of, size := 40_000_000)
        assert held > 0.9 * size and mapped < 0.5 * size
    monkeypatch.setattr(tiles, "STATUS", tmp_path / "status")
    with pytest.raises(ValueError, match="no RssAnon; memory is measured on Linux"):
        tiles.private_memory()
    monkeypatch.setattr(tiles, "LARGE", 10**9)
    with pytest.raises(ValueError, match="GB free, expected 8000000000"):
        tiles.write_pictures(tmp_path)


def test_tables_of_tiles(tmp_path: Path, monkeypatch: Patch) -> None:
    """All but new processes, their numbers, and MONAI, which is a little off here."""
    costs = dict.fromkeys(tiles.WAYS, Cost(0.002, 1, 5e6))
    costs |= {tiles.MONAI: Cost(2, 2, 32e6), tiles.OURS: Cost(1, 1, 8e6)}
    ours = partial(tiles.predict, tiles.OURS)
    patches = {
        "predict": lambda name, *given: ours(*given) - 0.01 * (name == tiles.MONAI),
        "in_fresh_process": lambda task, *given: task(*given) and costs[given[0]],
        "private_memory": lambda: 5,
    }
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with patch.multiple(tiles, LARGE=192, **patches):
        rows = cells(tiles.make_text(OPTIONS))
    assert [row[0] for row in rows[:5]] == [*tiles.WAYS] and not [*tmp_path.iterdir()]
    assert rows[0][1:] == ["96", "2.00", "5", "about 20"]
    assert rows[4][1:] == ["192", "2.00", "5", "5"]
    assert rows[8][1:] == ["1.00", "1.00", "32", "2.0", "0"]
    assert rows[9][1:5] == ["0.50", "0.25", "8", "1.0"] and 0 < int(rows[9][5]) < 3200


def test_startup_runs_module_and_base(tmp_path: Path, monkeypatch: Patch) -> None:
    module, base, log = (tmp_path / name for name in ("a.py", "b.py", "log"))
    module.write_text(f"import sys; open({str(log)!r}, 'a').write(sys.argv[1])")
    base.write_text("import time\nwhile time.process_time() < 0.5: pass")
    monkeypatch.setattr(startup, "MODULE", module)
    monkeypatch.setattr(OPTIONS, "base", base, raising=False)
    rows = cells(startup.make_text(OPTIONS))
    assert log.read_text() == "--helpcheckpredict"
    assert all(float(row[2]) >= 0.5 and float(row[3]) < 1 for row in rows)
    base.write_text("raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        startup.make_text(OPTIONS)


def untrained(_, seed, epochs=7, make=ui.UISegmentationSystem, **more):
    """Make the system of `learn`, which does not learn."""
    torch.manual_seed(seed)
    return make(**small_trainings.SETTINGS | more).eval()


def test_table_of_small_trainings_has_the_rows_of_the_committed_one(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(small_trainings, "learn", untrained)
    monkeypatch.setattr(small_trainings, "HALF_SIZE", (32, 32))
    tables = [tmp_path / "new.csv", small_trainings.TABLE]
    monkeypatch.setattr(small_trainings, "TABLE", tables[0])
    options = argparse.Namespace(rounds=1, only=None)
    rows = cells(small_trainings.make_text(options))
    medians = {(experiment, variant): iou for experiment, variant, iou, *_ in rows}
    new, kept = (list(csv.DictReader(table.open(newline=""))) for table in tables)
    assert new[0].keys() == kept[0].keys()
    names = [{(r["experiment"], r["variant"]) for r in rows} for rows in (new, kept)]
    assert names[0] == names[1] == medians.keys()
    # What looks at no picture is the same, whatever was trained.
    blind = "everything", "average mask", "always not_ui"
    lazy = [row for row in new if float(row["iou"]) and row["variant"] in blind]
    assert len(lazy) == 10 and all(row in kept for row in lazy)
    assert medians["leak", "everything"] == f"{float(lazy[0]['iou']):.2f}"


def test_memory_is_measured_with_and_without(monkeypatch: Patch) -> None:
    fresh = Mock(side_effect=lambda task, _, keep: Cost(2 - keep, 3))
    monkeypatch.setattr(measure, "in_fresh_process", fresh)
    rows = cells(memory.make_text(argparse.Namespace(rounds=2)))
    assert rows == [[task, "0.50", "2.00", "1.00"] for task in memory.TASKS]
    for task, size in ((memory.STEP, "SIZE"), (memory.PREDICTION, "SCREEN")):
        monkeypatch.setattr(memory, size, 32 if size == "SIZE" else (40, 30))
        assert memory.time_task(task, keep=False).cpu > 0
