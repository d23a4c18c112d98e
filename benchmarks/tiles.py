"""Measure tiles: what reading them from a big picture costs, and predicting over one.

python -m benchmarks.tiles             # minutes

Reading: tiles of 256x256 at random places, as samples, from files of a temporary folder
(3 GB at a picture of 23,000 x 23,000) and from the slide that is drawn on demand.
Predicting, where MONAI is installed: 4096x4096 by overlapping tiles, beside its sliding
window. Memory is measured in fresh processes and needs Linux.
"""

import argparse
import importlib.util
import itertools
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
import zarr
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

import ui_segmentation_system as ui
from benchmarks.measure import (
    Cost,
    check_rounds,
    cost_of,
    markdown_table,
    paragraph,
    relative_cpu,
    run_command,
    run_in_turn,
    seeded,
)
from tools.slide import Slide

TILE = 256  # pixels
BATCH_SIZE = 4
LARGE, SMALL = 23_000, 4000  # sides of the pictures that are read, pixels
BLOCK = 2048  # side of the drawn block that fills a picture, pixels
PLACE = (11_000, 4200)  # where the slide is drawn: tissue, nuclei and a gap
PREDICTED = 4096  # side of the picture that is predicted over, pixels
OVERLAP = 64  # pixels
FEATURES = 32  # of the network that predicts, on its lowest level
INTERVAL = 1e-3  # seconds between two looks at the memory
MB = 1e6  # bytes
STATUS = Path("/proc/self/status")
READING_GOALS = ["goal", "", "", "", "50 or less"]
PREDICTING_GOALS = ["goal", "1.00 or less", "0.50 or less", "", "", "0"]
MONAI, OURS = "MONAI `sliding_window_inference`", "`predict_tiled`"

Tiles = Dataset[ui.Sample]
Predict = Callable[[nn.Module, np.ndarray, int, int], torch.Tensor]


class Reading(NamedTuple):
    """What reading took: CPU seconds of a tile, and private memory, bytes."""

    cpu: float
    memory: int


def private_memory() -> int:
    """Give the memory of this process that no file stands behind, bytes.

    Pages of a memory map are not counted: the system takes them back when it needs
    them. Raises ValueError where the system does not tell.
    """
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise ValueError(f"{STATUS}: no RssAnon; memory is measured on Linux only")


def peak_memory(task: Callable[[], object]) -> int:
    """Run a task; the most private memory that this process had meanwhile, bytes."""
    peak, done = private_memory(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(INTERVAL):
            peak = max(peak, private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        task()
    finally:
        done.set()
        watcher.join()
    return max(peak, private_memory())


def in_fresh_process(task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task of this module in a new process with one thread, and give its result.

    What it raises is raised here.
    """
    context, one_thread = get_context("spawn"), torch.set_num_threads
    with ProcessPoolExecutor(1, context, one_thread, (1,)) as process:
        return process.submit(task, *arguments).result()


def repeated(block: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """Cut a window out of a picture that is one block side by side without end."""
    rows, columns = np.arange(y.start, y.stop), np.arange(x.start, x.stop)
    return block[rows % len(block)].take(columns % block.shape[1], axis=1)


def write_array(path: Path, block: np.ndarray, side: int) -> None:
    """Fill a .npy of side x side pixels by rows of blocks."""
    shape = (side, side, *block.shape[2:])
    pixels = np.lib.format.open_memmap(path, "w+", block.dtype, shape)
    for top in range(0, side, len(block)):
        rows = slice(top, min(top + len(block), side))
        pixels[rows] = repeated(block, rows, slice(0, side))
    pixels.flush()


def write_tiff(path: Path, block: np.ndarray, side: int, tile: int) -> None:
    """Write a tiled TIFF of side x side pixels, each tile deflated.

    block: its sides are multiples of the tile's, so that few tiles need packing.
    """

    def packed(y: int, x: int) -> bytes:
        window = block[y : y + tile, x : x + tile]
        return zlib.compress(np.ascontiguousarray(window).tobytes())

    places = range(0, len(block), tile)
    tiles = [[packed(y, x) for x in places] for y in places]
    numbers = range(-(-side // tile))
    tifffile.imwrite(
        path,
        (tiles[i % len(tiles)][j % len(tiles)] for i in numbers for j in numbers),
        shape=(side, side, *block.shape[2:]),
        dtype=block.dtype,
        tile=(tile, tile),
        photometric="rgb" if block.ndim == 3 else "minisblack",
        compression="deflate",
    )


def write_png(path: Path, block: np.ndarray, side: int) -> None:
    whole = slice(0, side)
    Image.fromarray(repeated(block, whole, whole)).save(path)


def write_pictures(folder: Path, large: int, small: int, tile: int) -> None:
    """Write image and mask as .npy and .tif of side `large`, as .png of side `small`.

    Raises ValueError if the folder's disk has too little room.
    """
    needed, free = 2 * 4 * large**2, shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{folder}: {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f}; set "
            "TMPDIR to a folder with more room"
        )
    block = BLOCK // tile * tile
    pixels = Slide().window(*PLACE, block, block)
    for name, part in zip(("image", "mask"), pixels, strict=True):
        write_array(folder / f"{name}.npy", part, large)
        write_png(folder / f"{name}.png", part, small)
        write_tiff(folder / f"{name}.tif", part, large, tile)


def has_monai() -> bool:
    return importlib.util.find_spec("monai") is not None


class DecodedTiles(Tiles):
    """The way without care: both pictures are opened and decoded for every tile."""

    def __init__(self, folder: Path, tile: int) -> None:
        self.paths = folder / "image.png", folder / "mask.png"
        self.tile = tile
        with Image.open(self.paths[0]) as picture:
            self.columns, self.rows = (side // tile for side in picture.size)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __getitem__(self, index: int) -> ui.Sample:
        y, x = (place * self.tile for place in divmod(index, self.columns))
        window = (x, y, x + self.tile, y + self.tile)
        image, target = (Image.open(path).crop(window) for path in self.paths)
        return ui.ImageTargetToTensor()(image, target)


class UnfoldedTiles(Tiles):
    """The textbook's way: whole pictures as floats, unfolded and copied into tiles."""

    def __init__(self, folder: Path, tile: int) -> None:
        with (
            Image.open(folder / "image.png") as image,
            Image.open(folder / "mask.png") as target,
        ):
            whole = ui.ImageTargetToTensor()(image, target)
        self.images, self.targets = (unfold(part, tile) for part in whole)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ui.Sample:
        return ui.Sample(self.images[index], self.targets[index])


def unfold(picture: torch.Tensor, tile: int) -> torch.Tensor:
    """Cut (C, H, W) into tiles (N, C, tile, tile); a remainder of H and W is lost."""
    windows = picture.unfold(1, tile, tile).unfold(2, tile, tile)
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, len(picture), tile, tile)


def open_arrays(folder: Path, tile: int) -> ui.TileDataset:
    names = "image.npy", "mask.npy"
    return ui.TileDataset(*(np.load(folder / n, mmap_mode="r") for n in names), tile)


def open_tiffs(folder: Path, tile: int) -> ui.TileDataset:
    stores = (
        tifffile.imread(folder / name, aszarr=True)
        for name in ("image.tif", "mask.tif")
    )
    return ui.TileDataset(*(zarr.open(store, mode="r") for store in stores), tile)


def open_slide(folder: Path, tile: int) -> ui.TileDataset:
    slide = Slide()
    return ui.TileDataset(slide, slide.mask, tile)


class Way(NamedTuple):
    """A way to read tiles: from a folder of pictures and a tile's side to a dataset.

    whole: holds or decodes the whole picture, and so reads the small one.
    """

    open: Callable[[Path, int], Tiles]
    num_tiles: int
    whole: bool = False


WAYS = {
    "whole PNG decoded for each tile": Way(DecodedTiles, 8, whole=True),
    "whole PNG in memory, `unfold`": Way(UnfoldedTiles, 256, whole=True),
    "memory map, `TileDataset`": Way(open_arrays, 256),
    "tiled TIFF (zarr), `TileDataset`": Way(open_tiffs, 256),
    "slide drawn on demand, `TileDataset`": Way(open_slide, 256),
}


def go_through(dataset: Tiles, num_tiles: int, seed: int) -> None:
    """Read batches of tiles at random, as training does."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(dataset), size=num_tiles).tolist()
    for _ in ui.NaiveDataLoader(Subset(dataset, chosen), BATCH_SIZE):
        pass


def memory_with_a_batch(tile: int) -> int:
    """Make a batch as any way does, and give the private memory with it, bytes."""
    pixels = np.zeros((tile, tile, 3), np.uint8)
    dataset = Subset(ui.TileDataset(pixels, pixels[..., 0], tile), [0] * BATCH_SIZE)
    batch = next(iter(ui.NaiveDataLoader(dataset, BATCH_SIZE)))
    memory = private_memory()
    del batch
    return memory


def read_tiles(name: str, folder: Path, tile: int) -> Reading:
    """Read tiles in one way, twice: memory is watched first, then time is taken."""
    way, before, dataset = WAYS[name], memory_with_a_batch(tile), None

    def open_and_read() -> None:
        nonlocal dataset
        dataset = way.open(folder, tile)
        go_through(dataset, way.num_tiles, seed=0)

    peak = peak_memory(open_and_read)
    cost = cost_of(partial(go_through, dataset, way.num_tiles, seed=1))
    return Reading(cost.cpu / way.num_tiles, peak - before)


def read_in_turn(folder: Path, tile: int, rounds: int) -> dict[str, list[Reading]]:
    """Run all ways A B C A B C, each time in a process of its own."""
    readings: dict[str, list[Reading]] = {name: [] for name in WAYS}
    with tqdm(total=rounds * len(WAYS), desc="reading") as bar:
        for name in itertools.chain.from_iterable([WAYS] * rounds):
            readings[name].append(in_fresh_process(read_tiles, name, folder, tile))
            bar.update()
    return readings


def reading_table(readings: Mapping[str, Sequence[Reading]]) -> str:
    """Draw the table of reading: a row per way, medians, and one of the goal."""
    header = ["reading a tile", "picture", "ms of CPU", "memory, MB"]
    rows = []
    for name, taken in readings.items():
        side = SMALL if WAYS[name].whole else LARGE
        memory = median(reading.memory for reading in taken) / MB
        cpu = median(reading.cpu for reading in taken) * 1000
        scaled = f"{memory * (LARGE / side) ** 2:,.0f}"
        row = [name, f"{side:,}", f"{cpu:.2f}", f"{memory:.0f}"]
        rows.append([*row, f"about {scaled}" if WAYS[name].whole else scaled])
    return markdown_table([*header, f"at {LARGE:,}, MB"], [*rows, READING_GOALS])


@torch.inference_mode()
def predict_by_monai(
    network: nn.Module, image: np.ndarray, tile: int, overlap: int
) -> torch.Tensor:
    """Predict with MONAI's sliding window, all tiles with equal weight: (1, H, W)."""
    from monai.inferers import sliding_window_inference

    # Floats in one step and channels last: the quickest for it, with the least memory.
    floats = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    return sliding_window_inference(
        floats,
        tile,
        BATCH_SIZE,
        lambda tiles: network(tiles).sigmoid(),
        overlap=overlap / tile,
        mode="constant",
    )[0]


def predict_by_module(
    network: nn.Module, image: np.ndarray, tile: int, overlap: int
) -> torch.Tensor:
    """Predict with `ui.predict_tiled`, all tiles with equal weight: (1, H, W)."""
    probabilities = ui.predict_tiled(
        network, image, tile, overlap, batch_size=BATCH_SIZE, weights="constant"
    )
    return torch.from_numpy(probabilities)


PREDICTORS: dict[str, Predict] = {MONAI: predict_by_monai, OURS: predict_by_module}


class Prediction(NamedTuple):
    """What predicting over a picture took, and how far it is from MONAI's.

    memory: private memory beyond the network's and the imports', bytes. unlike: pixels
    whose mask is another. largest: difference of probabilities.
    """

    costs: list[Cost]
    memory: list[int]
    unlike: int
    largest: float


def make_network(features: int) -> nn.Module:
    """Make a network whose tiles agree where they overlap: without normalisation."""
    make = partial(ui.UNet, max_features=features, normalize=False)
    return seeded(0, make).eval()


def open_picture(path: Path) -> np.ndarray:
    """Map a .npy whose pixels may be changed in memory alone, as torch asks for."""
    return np.load(path, mmap_mode="c")


def predicting_memory(
    name: str, path: Path, tile: int, overlap: int, features: int
) -> int:
    """Predict over one tile, then over all; the private memory that adds, bytes."""
    network, image = make_network(features), open_picture(path)
    predict = partial(PREDICTORS[name], network, tile=tile, overlap=overlap)
    predict(image[:tile, :tile])
    before = private_memory()
    return peak_memory(partial(predict, image)) - before


def predict_in_turn(
    path: Path, tile: int, overlap: int, features: int, rounds: int
) -> dict[str, Prediction]:
    """Predict in both ways in turn, and for memory each in processes of its own."""
    network, image = make_network(features), open_picture(path)
    tasks = {
        name: partial(predict, network, image, tile, overlap)
        for name, predict in PREDICTORS.items()
    }
    theirs, ours = tasks[MONAI](), tasks[OURS]()
    unlike = int(((theirs >= 0.5) != (ours >= 0.5)).sum())
    largest = float((theirs - ours).abs().max())
    costs = run_in_turn(tasks, rounds)
    setting = path, tile, overlap, features
    memory = {
        name: [in_fresh_process(predicting_memory, name, *setting) for _ in costs[name]]
        for name in tasks
    }
    return {
        MONAI: Prediction(costs[MONAI], memory[MONAI], 0, 0.0),
        OURS: Prediction(costs[OURS], memory[OURS], unlike, largest),
    }


def predicting_table(predictions: Mapping[str, Prediction]) -> str:
    """Draw the table of predicting: a row per way, medians, and one of the goals."""
    base, rows = predictions[MONAI], []
    ratios = relative_cpu({name: p.costs for name, p in predictions.items()}, MONAI)
    for name, (costs, memory, unlike, _) in predictions.items():
        ratio = median(memory) / median(base.memory)
        row = [name, f"{ratios[name]:.2f}", f"{ratio:.2f}"]
        row += [f"{median(memory) / MB:.0f}"]
        row += [f"{median(cost.cpu for cost in costs):.1f}", f"{unlike}"]
        rows.append(row)
    header = [
        f"predicting over {PREDICTED}x{PREDICTED}",
        "CPU",
        "memory",
        "MB",
        "seconds",
        "other pixels",
    ]
    return markdown_table(header, [*rows, PREDICTING_GOALS])


def reading_note() -> str:
    """Say what the columns of the table of reading are."""
    return paragraph(
        f"Tiles of {TILE}x{TILE} at random places, with their masks, as samples in "
        f"batches of {BATCH_SIZE}. Memory: private (no file stands behind it), the "
        "most that a fresh process had beyond its imports and a batch. The first two "
        "ways hold whole pictures; their memory is scaled by area. Opening counts for "
        "memory, not for CPU."
    )


def predicting_note(predictions: Mapping[str, Prediction]) -> str:
    """Say how both predict, and what MONAI's memory would be without its floats."""
    floats = PREDICTED**2 * 3 * 4  # bytes
    ours, theirs = (median(predictions[name].memory) for name in (OURS, MONAI))
    largest = predictions[OURS].largest
    apart = f"differ by up to {largest:.0e}" if largest else "are equal"
    return paragraph(
        f"`UNet(max_features={FEATURES}, normalize=False)`, tiles of {TILE} that "
        f"overlap by {OVERLAP}, {BATCH_SIZE} at once, equal weights, one thread. "
        "Memory: private, beyond imports and network. MONAI is given floats, "
        f"{floats / MB:.0f} MB of its memory; without them the ratio is "
        f"{ours / (theirs - floats):.2f}. Other pixels: on the other side of 0.5; the "
        f"probabilities {apart}."
    )


def reading_text(rounds: int) -> str:
    """Write the pictures, read tiles of them in every way: the table with its note."""
    with tempfile.TemporaryDirectory() as name:
        write_pictures(Path(name), LARGE, SMALL, TILE)
        readings = read_in_turn(Path(name), TILE, rounds)
    return f"{reading_table(readings)}\n\n{reading_note()}"


def predicting_text(rounds: int) -> str:
    """Predict over one picture in both ways: the table with its note."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "image.npy")
        np.save(path, Slide().window(*PLACE, PREDICTED, PREDICTED)[0])
        predictions = predict_in_turn(path, TILE, OVERLAP, FEATURES, rounds)
    return f"{predicting_table(predictions)}\n\n{predicting_note(predictions)}"


def make_text(options: argparse.Namespace) -> str:
    """Measure reading, and predicting where MONAI is installed."""
    check_rounds(options.rounds)
    if options.write and not has_monai():
        raise ValueError(
            "--write needs monai; run: pip install -r benchmarks/requirements.txt"
        )
    parts = [reading_text(options.rounds)]
    if has_monai():
        parts.append(predicting_text(options.rounds))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, and with --write put them into the README."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiles", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="times of each way")
    return run_command(parser, argv, "tiles", make_text)


if __name__ == "__main__":
    sys.exit(main())
