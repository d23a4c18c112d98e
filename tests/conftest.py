"""Small made pictures and systems, and what commands refuse, for the tests to share."""

import multiprocessing
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import ui_segmentation_system as ui

if "PYTEST_XDIST_WORKER" in os.environ:  # one of two that share the machine
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A forkserver imports it once, for all that it starts.
multiprocessing.set_forkserver_preload([ui.__name__])

# What forks, kills with signals or makes links does so as Windows cannot.
ON_WINDOWS = os.name == "nt"
collect_ignore = ["test_loaders.py", "test_reliability.py"] if ON_WINDOWS else []
UNIX_ONLY = (
    "test_an_epoch_ends_with_the_last_child",
    "test_an_open_file_is_not_shared_by_processes[fork]",
    "test_workers_draw_the_same_tiles",
    "test_the_printed_command_predicts",
    "test_scores_are_of_all_pixels_together",
)

# A pixel whose darkest channel is above this belongs to the box.
BOX_LEVEL = 150

MakePairs = Callable[..., Path]
Refused = Callable[..., str]
Train = Callable[..., pl.Trainer]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on Windows what only other systems can do."""
    for item in items:
        if ON_WINDOWS and item.name.startswith(UNIX_ONLY):
            item.add_marker(pytest.mark.skip(reason="not on Windows"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, and torchvision's cache is empty."""

    def connect(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))


def draw_image(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """Dark noise with a bright box off the centre; size: (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
    box = pixels[height // 8 : height // 2, width // 8 : width // 2]
    box[:] = rng.integers(200, 256, box.shape)
    return Image.fromarray(pixels)


def find_box(image: Image.Image) -> Image.Image:
    """Make the mask of an image of `draw_image` from its pixels, 0 and 255."""
    inside = np.array(image).min(axis=2) > BOX_LEVEL
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def regions(count: int = 3) -> np.ndarray:
    """Regions 0 to count - 1, int (64, 96), on JPEG's grid: 0 around the others."""
    areas = np.zeros((64, 96), int)
    for number in range(1, count):
        row, column = divmod(number - 1, 6)
        areas[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = number
    return areas


def levels(*values: int, dtype: type = np.uint8) -> Image.Image:
    """Give a picture whose regions have these grey values."""
    return Image.fromarray(np.array(values, dtype)[regions(len(values))])


def colours(*values: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8)[regions(len(values))])


def indexed(colour_of: dict[int, tuple[int, int, int]]) -> Image.Image:
    """Give a picture of palette indices, each region in one."""
    ids = np.array([*colour_of], np.uint8)[regions(len(colour_of))]
    picture = Image.fromarray(ids, "P")
    palette = np.zeros((256, 3), int)
    palette[[*colour_of]] = [*colour_of.values()]
    picture.putpalette(palette.ravel().tolist())
    return picture


def write_png(path: Path, values: np.ndarray, bits: int) -> Path:
    """Write a PNG of (H, W) or (H, W, 3) with so many bits a value; Pillow cannot."""
    height, width, *channels = values.shape
    shifts = np.arange(bits)[::-1]
    rows = (values.reshape(height, -1, 1) >> shifts & 1).reshape(height, -1)
    packed = np.packbits(rows, axis=1)
    colour = 2 if channels else 0
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes())
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, chunk in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
            check = zlib.crc32(kind + chunk)
            file.write(struct.pack(">I", len(chunk)) + kind + chunk)
            file.write(struct.pack(">I", check))
    return path


def small_system(seed: int = 0, **options: Any) -> ui.UISegmentationSystem:
    torch.manual_seed(seed)
    return ui.UISegmentationSystem(
        **{"max_features": 16, "learning_rate": 1e-2} | options
    )


def save_system(path: Path, system: ui.UISegmentationSystem) -> None:
    """Write the checkpoint to predict with, as training does."""
    values = {"state_dict": system.state_dict(), "hyper_parameters": system.settings}
    torch.save(values, path)


def weights(system: ui.UISegmentationSystem) -> dict[str, torch.Tensor]:
    return system.network.state_dict()


def equal(first: ui.UISegmentationSystem, second: ui.UISegmentationSystem) -> bool:
    pairs = zip(weights(first).values(), weights(second).values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by its path inside it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def pair() -> tuple[Image.Image, Image.Image]:
    """A picture of 64x48 and its mask."""
    image = draw_image(0, (64, 48))
    return image, find_box(image)


@pytest.fixture
def make_pairs(tmp_path: Path) -> MakePairs:
    """Give a function that writes pairs 1, 2, ... and returns their folder."""

    def make(count: int = 3, size: tuple[int, int] = (24, 20)) -> Path:
        folder = tmp_path / "pairs"
        folder.mkdir()
        for number in range(1, count + 1):
            image = draw_image(number, size)
            image.save(folder / f"{number}_input.png")
            find_box(image).save(folder / f"{number}_target.png")
        return folder

    return make


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Give a function that runs a command to its refusal and gives the one line."""

    def refuse(*words: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            ui.main([str(word) for word in words])
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        spoken = [line for line in lines if "%|" not in line and "it/s]" not in line]
        assert len([line for line in spoken if line.strip()]) == 1, lines
        return lines[-1]

    return refuse


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Give a function that fits a system to data, quietly, on the CPU."""
    ui.quiet_lightning()

    def fit(
        system: ui.UISegmentationSystem,
        data: ui.UISegmentationData | torch.utils.data.DataLoader,
        ckpt_path: Path | None = None,
        val_dataloaders: torch.utils.data.DataLoader | None = None,
        **options: Any,
    ) -> pl.Trainer:
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **{"enable_checkpointing": False, "max_epochs": 2} | options,
        )
        trainer.fit(system, data, val_dataloaders, ckpt_path=ckpt_path)
        return trainer

    return fit
