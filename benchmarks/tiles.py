"""Measure tiles: what reading them from a big picture costs, and predicting over one.

python -m benchmarks.tiles             # minutes; needs Linux and 3 GB of disk
"""

import argparse
import itertools
import re
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import zarr
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import ui_segmentation_system as ui
from benchmarks import measure
from benchmarks.measure import in_fresh_process
from tools.slide import Slide

TILE, OVERLAP = 256, 64  # pixels
BATCH_SIZE = 4
LARGE, SMALL = 23_000, 4000  # sides of the pictures that are read, pixels
BLOCK = 2048  # side of the drawn block that fills a picture, pixels
PLACE = (11_000, 4200)  # where the slide is drawn: tissue, nuclei and a gap
PREDICTED = 4096  # side of the picture that is predicted over, pixels
FEATURES = 32  # of the network that predicts, on its lowest level
MB = 1e6  # bytes
STATUS = Path("/proc/self/status")

DECODED, UNFOLDED = "whole PNG decoded for each tile", "whole PNG in memory, `unfold`"
MAPPED, TIFF = "memory map, `TileDataset`", "tiled TIFF (zarr), `TileDataset`"
DRAWN = "slide drawn on demand, `TileDataset`"
WAYS = (DECODED, UNFOLDED, MAPPED, TIFF, DRAWN)
MONAI, OURS = "MONAI `sliding_window_inference`", "`predict_tiled`"


def private_memory() -> int:
    """Give the memory of this process that no file stands behind, bytes."""
    text = STATUS.read_text() if STATUS.exists() else ""
    if found := re.search(r"RssAnon:\s+(\d+)", text):
        return int(found[1]) * 1024
    raise ValueError(f"{STATUS}: no RssAnon; memory is measured on Linux only")


def cost_in_memory(task: Callable[[], object], before: int) -> measure.Cost:
    """Run a task, watching the most memory beyond `before`, and again for its time."""
    peak, done = [private_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(1e-3):
            peak[0] = max(peak[0], private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        task()
    finally:
        done.set()
        watcher.join()
    memory = max(peak[0], private_memory()) - before
    return measure.cost_of(task)._replace(memory=memory)


def write_pictures(folder: Path) -> None:
    """Write image and mask as .npy and tiled .tif of side LARGE, as .png of side SMALL.

    They are one drawn block side by side. Raises ValueError if the disk is too full.
    """
    needed, free = 8 * LARGE**2 / 1e9, shutil.disk_usage(folder).free / 1e9
    if free < needed:
        expected = f"expected {needed:.1f}; set TMPDIR to a folder with more room"
        raise ValueError(f"{folder}: {free:.1f} GB free, {expected}")
    blocks = Slide().window(*PLACE, BLOCK, BLOCK)
    for name, block in zip(("image", "mask"), blocks, strict=True):
        shape, path = (LARGE, LARGE, *block.shape[2:]), folder / f"{name}.npy"
        pixels = np.lib.format.open_memmap(path, "w+", block.dtype, shape)
        for y, x in itertools.product(range(0, LARGE, BLOCK), repeat=2):
            window = pixels[y : y + BLOCK, x : x + BLOCK]
            window[:] = block[: len(window), : window.shape[1]]
        Image.fromarray(pixels[:SMALL, :SMALL]).save(path.with_suffix(".png"))
        kind = "rgb" if block.ndim == 3 else "minisblack"
        options = {"tile": (TILE, TILE), "compression": "deflate", "photometric": kind}
        tifffile.imwrite(path.with_suffix(".tif"), pixels, **options)


class DecodedPicture:
    """The way without care: the whole picture is decoded for every window."""

    def __init__(self, path: Path) -> None:
        with Image.open(path) as picture:  # reads the header alone
            bands = (3,) if picture.mode == "RGB" else ()
            self.path, self.shape = path, (picture.height, picture.width, *bands)

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        y, x = window
        box = (x.start, y.start, x.stop, y.stop)
        return np.array(Image.open(self.path).crop(box))


@cache
def open_tiles(way: str, folder: Path) -> Dataset:
    """Open the pictures of a folder in one of the ways to read tiles."""
    suffix = {MAPPED: ".npy", TIFF: ".tif"}.get(way, ".png")
    pictures: Any = folder / f"image{suffix}", folder / f"mask{suffix}"
    if way == UNFOLDED:  # the textbook's way: whole as floats, then copied into tiles
        whole = ui.ImageTargetToTensor()(*map(Image.open, pictures))
        tiles = (part.unfold(1, TILE, TILE).unfold(2, TILE, TILE) for part in whole)
        return TensorDataset(*(t.permute(1, 2, 0, 3, 4).flatten(0, 1) for t in tiles))
    if way == DECODED:
        pictures = map(DecodedPicture, pictures)
    elif way == MAPPED:
        pictures = (np.load(path, mmap_mode="r") for path in pictures)
    elif way == TIFF:
        stores = (tifffile.imread(path, aszarr=True) for path in pictures)
        pictures = (zarr.open(store, mode="r") for store in stores)
    else:
        pictures = (slide := Slide()), slide.mask
    return ui.TileDataset(*pictures, TILE)


def read_tiles(way: str, folder: Path) -> measure.Cost:
    """Read random tiles, and others again: what a tile takes.

    Memory: with the pictures opened, beyond that of the imports and one batch.
    """
    rng, num_tiles = np.random.default_rng(0), 8 if way == DECODED else 256

    def read() -> None:
        dataset = open_tiles(way, folder)  # the first time only
        chosen = rng.integers(len(dataset), size=num_tiles).tolist()
        deque(ui.NaiveDataLoader(Subset(dataset, chosen), BATCH_SIZE), maxlen=0)

    blank = [np.zeros((TILE, TILE, 3), np.uint8)] * BATCH_SIZE
    loader = ui.NaiveDataLoader(ui.TileDataset(blank, None, TILE), BATCH_SIZE)
    batch = next(iter(loader))
    before = private_memory()
    del batch
    cost = cost_in_memory(read, before)
    return cost._replace(cpu=cost.cpu / num_tiles)


def open_setting(path: Path) -> tuple[nn.Module, np.ndarray]:
    """Make the network that predicts, and map the picture of a .npy file.

    Without normalisation, tiles agree where they overlap. The picture's pixels may be
    changed in memory alone, as torch asks for.
    """
    make = partial(ui.UNet, max_features=FEATURES, normalize=False)
    return measure.seeded(0, make).eval(), np.load(path, mmap_mode="c")


@torch.inference_mode()
def predict(name: str, network: nn.Module, image: np.ndarray) -> torch.Tensor:
    """Predict by overlapping tiles of equal weight: probabilities (1, H, W)."""
    if name == OURS:
        options = {"batch_size": BATCH_SIZE, "weights": "constant"}
        tiled = ui.predict_tiled(network, image, TILE, OVERLAP, **options)
        return torch.from_numpy(tiled)
    from monai.inferers import sliding_window_inference

    # Floats in one step and channels last: the quickest for it, with the least memory.
    floats = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    share, sigmoid = OVERLAP / TILE, nn.Sequential(network, nn.Sigmoid())
    return sliding_window_inference(floats, TILE, BATCH_SIZE, sigmoid, share)[0]


def predict_picture(name: str, path: Path) -> measure.Cost:
    """Predict over a tile, then over the picture twice: what the picture takes."""
    network, image = open_setting(path)
    predict(name, network, image[:TILE, :TILE])
    return cost_in_memory(partial(predict, name, network, image), private_memory())


def make_text(options: argparse.Namespace) -> str:
    """Predict over one picture, which needs MONAI, and read tiles: two tables."""
    names = MONAI, OURS
    with tempfile.TemporaryDirectory() as temporary:
        folder, path = Path(temporary), Path(temporary, "whole.npy")
        np.save(path, Slide().window(*PLACE, PREDICTED, PREDICTED)[0])
        theirs, ours = (predict(name, *open_setting(path)) >= 0.5 for name in names)
        unlike = {MONAI: 0, OURS: int((theirs != ours).sum())}
        tasks = {n: partial(in_fresh_process, predict_picture, n, path) for n in names}
        predicting = measure.run_in_turn(tasks, options.rounds)
        write_pictures(folder)
        tasks = {w: partial(in_fresh_process, read_tiles, w, folder) for w in WAYS}
        reading = measure.run_in_turn(tasks, options.rounds)
    rows = []
    for way in WAYS:
        cost = measure.medians(reading[way])
        side, at_large = LARGE, f"{cost.memory / MB:,.0f}"
        if way in (DECODED, UNFOLDED):  # their memory grows with the area
            scaled = cost.memory / MB * (LARGE / SMALL) ** 2
            side, at_large = SMALL, f"about {scaled:,.0f}"
        row = [way, f"{side:,}", f"{cost.cpu * 1000:.2f}", f"{cost.memory / MB:.0f}"]
        rows.append([*row, at_large])
    rows.append(["goal", "", "", "", "50 or less"])
    header = ["reading a tile", "picture", "ms of CPU", "memory, MB"]
    table = measure.markdown_table([*header, f"at {LARGE:,}, MB"], rows)

    sizes, rows = measure.ratios(predicting, MONAI, lambda cost: cost.memory), []
    for name, cpu in measure.ratios(predicting, MONAI).items():
        cost = measure.medians(predicting[name])
        row = [name, f"{cpu:.2f}", f"{sizes[name]:.2f}", f"{cost.memory / MB:.0f}"]
        rows.append([*row, f"{cost.cpu:.1f}", f"{unlike[name]}"])
    rows.append(["goal", "1.00 or less", "0.50 or less", "", "", "0"])
    header = [f"predicting over {PREDICTED}x{PREDICTED}", "CPU", "memory", "MB"]
    header += ["seconds", "other pixels"]  # on the other side of 0.5
    return f"{table}\n\n{measure.markdown_table(header, rows)}"


if __name__ == "__main__":
    measure.run_command("tiles", __doc__, make_text, 5)
