"""Find the user interface in a screenshot: image segmentation in one file.

What the notebooks of the series build, in its finished form. Copy the file and use it.

    print(check_pairs("my_folder"))            # 1_input.png, 1_target.png, ...: sound?
    data = UISegmentationData("my_folder", batch_size=4)
    system = UISegmentationSystem()
    pl.Trainer(max_epochs=20).fit(system, data)
    mask = system.predict_mask(load_image("new.png"))      # bool (H, W)

Without Python: python ui_segmentation_system.py check | train | predict --help
Several classes: read_target=partial(load_classes, num_classes=9) for the first two, and
UISegmentationSystem(task="multiclass", num_out_channels=9).

Tensors: image float32 (3, H, W) in 0..1; binary target float32 (1, H, W) of 0 and 1;
class target int64 (H, W); overlapping target float32 (K, H, W); 255 is ignored
everywhere. A network gives logits; a sigmoid or softmax makes them probabilities, a
threshold or argmax a prediction. Letters: B batch, C channels, K classes, H height, W
width. Bad input raises ValueError, or OSError for a file that cannot be opened; the
message says what arrived, what was expected and what to do.

Contents, in the order of reading. Sections 1 to 6 need no Lightning; each section from
7 on can be deleted by itself, with 12, which uses them all. The settings of 12 stand
first, in 0, so that --help need not wait for torch.

    0. Settings                       7. Training
    1. Masks                          8. Class maps and other people's folders
    2. Pairs and datasets             9. The dataset doctor
    3. Paired transforms             10. Loaders
    4. UNet                          11. Tiles
    5. Losses and scores             12. Command line
    6. Showing

Transforms are thin layers over torchvision v2: one draw, masks never blended. The UNet
(https://arxiv.org/abs/1505.04597) has one convolution a block, Kaiming weights
(https://arxiv.org/abs/1502.01852), and its head starts at the share of foreground
(https://arxiv.org/abs/1708.02002, section 4.1). OneCycle learning rates
(https://arxiv.org/abs/1708.07120).

Version 1.0.0 of the series "ui-segmentation-system". Licence: MIT.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import copy
import csv
import ctypes
import difflib
import functools
import glob
import importlib
import itertools
import json
import logging
import math
import mmap
import os
import pickle
import random
import re
import reprlib
import shlex
import signal
import sys
import threading
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree

# --------------------------------------------------------------------------------------
# 0. Settings of the command line, and its parser; the commands are section 12.
# --------------------------------------------------------------------------------------


def _setting(default: Any, text: str, *flags: str) -> Any:
    return field(default=default, metadata={"help": text, "flags": flags})


@dataclass(frozen=True)
class Settings:
    """Every setting of `train`, its default and its meaning; --help shows the same."""

    dataset: str = _setting("", "folder of pairs; see check", "-d")
    output_dir: str = _setting("runs", "folder of the runs", "-o")
    batch_size: int = _setting(4, "samples a step, in each process", "-b")
    learning_rate: float = _setting(4e-3, "peak of the OneCycle schedule", "-lr")
    optimizer: str = _setting("muon", "muon, of convolution kernels, or adam for all")
    max_epochs: int = _setting(30, "passes over the training pictures")
    image_size: tuple[int, ...] = _setting((256, 256), "pixels: height width, or side")
    overfit_num: int = _setting(0, "if above 0, samples of the first pair alone")
    val_share: float = _setting(0.2, "share of the pairs to validate on, 0..1")
    augment: bool = _setting(True, "mirror training pictures and change their colours")
    cache: bool = _setting(True, "keep scaled pictures in memory, without workers")
    loss: str = _setting("bce_dice", "of masks: bce or bce_dice")
    pos_weight: float = _setting(1.0, "how many times a pixel of foreground counts")
    fast: bool = _setting(False, "work at half the resolution inside: a third the time")
    max_features: int = _setting(256, "channels of the network's lowest level")
    encoder: str = _setting("unet", "or mobilenet_v2, which comes trained on ImageNet")
    encoder_weights: str = _setting("", "file of the latter's weights, else the usual")
    weights: str = _setting("", "checkpoint to start from, network and all")
    patience: int = _setting(0, "stop after so many epochs without gain; 0: never")
    seed: int = _setting(0, "number that fixes weights, order, split and augmentation")
    num_workers: int = _setting(0, "processes that read pictures; 0: none of their own")
    accelerator: str = _setting("auto", "cpu, gpu, mps ... as in Lightning's Trainer")
    devices: str = _setting("auto", "how many of them, on each machine")
    num_nodes: int = _setting(1, "machines")
    strategy: str = _setting("auto", "how processes share the work, such as ddp")
    precision: str = _setting("32-true", "or 16-mixed, bf16-mixed")
    patterns: tuple[str, ...] = _setting(
        (),
        "names of images and targets: {key}_in.* {key}_out.*; in the second {object} "
        "too for several masks of one image, {class} for a mask of each class",
    )
    missing: str = _setting(
        "error", "image without mask: error, empty (shows nothing) or skip (left out)"
    )
    scenes: str = _setting("", "CSV of image,scene: none is on both sides of a split")
    threshold: int = _setting(128, "grey from which a mask is foreground, 1..255")
    foreground: tuple[str, ...] = _setting(
        (), "what is foreground: 15, 1-9, ff00ff or '(255, 0, 255)'"
    )
    classes: tuple[str, ...] = _setting(
        (), "classes of a map, background first: 0-8, or sky=0 car=1,2, or road=ff00ff"
    )
    ignore: tuple[str, ...] = _setting((), "what nobody judged: ids or colours")


# Settings of `check` too, the last: how the files of a folder are found and read.
READING = [setting.name for setting in fields(Settings)][-7:]


def _nearest(name: str, names: Iterable[str]) -> str:
    """Suggest the name that was probably meant."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; settings that are not given are not in the result."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: {message}; see --help\n")

    parser = Parser(description="Train a network that marks what your masks mark.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="examine a folder of images and masks")
    check.add_argument("folder", help="folder of pairs: 1_input.png, 1_target.png ...")
    train = commands.add_parser("train", help="train on a folder of images and masks")
    predict = commands.add_parser("predict", help="write masks for new pictures")
    predict.add_argument("pictures", nargs="+", help="files, folders or globs")
    for command, *flags, default, text in (
        (check, "--json", False, "print the report for programs"),
        (check, "--strict", False, "warnings count as well"),
        (train, "--resume", "", "run to go on with, such as runs/001"),
        (predict, "-c", "--checkpoint", "", "a run's best.ckpt, else the project's"),
        (predict, "-o", "--output-dir", "predictions", "folder for NAME_mask.png"),
        (predict, "--overlay", False, "write NAME_overlay.png as well"),
        (predict, "--overwrite", False, "replace files that are there"),
        (predict, "--threshold", 0.5, "least probability, 0..1, else 0.5"),
    ):
        kind = {"action": "store_true"} if default is False else {"type": type(default)}
        command.add_argument(*flags, default=default, help=text, **kind)
    kind = {"action": argparse.BooleanOptionalAction, "default": False}
    text = "tile by tile, at the picture's own size (default: scaled as in training)"
    predict.add_argument("--tiles", help=text, **kind)
    for setting in fields(Settings):
        default, kind = setting.default, {"type": type(setting.default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
            default = "yes" if default else "no"
        elif isinstance(default, tuple):
            kind = {"type": type([*default, ""][0]), "nargs": "+"}
            default = " ".join(map(str, default))
        default = "none" if default == "" else default
        text = f"{setting.metadata['help']} (default: {default})"
        flags = *setting.metadata["flags"], f"--{setting.name.replace('_', '-')}"
        for command in (train, check) if setting.name in READING else (train,):
            command.add_argument(*flags, default=argparse.SUPPRESS, help=text, **kind)
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands.choices[options.command]
        advice = _nearest(unknown[0], re.findall(r"--[\w-]+", command.format_help()))
        if command is train and unknown[0][0] != "-":
            advice = "; the folder of pairs is given with -d"
        parser.exit(2, f"{command.prog}: {unknown[0]}: unknown{advice}\n")
    return options


# The variable by which further processes of a training know the one that started them.
STARTER = "UI_SEGMENTATION_STARTER"


def _end_with(starter: int) -> None:
    """End when the process has that started this one; else it would wait for ever."""
    while os.getppid() == starter:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    _parse(sys.argv[1:])  # --help and mistakes end here; main reads it again
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one of several of a training
        starter = int(os.environ.get(STARTER, os.getppid()))
        threading.Thread(target=_end_with, args=[starter], daemon=True).start()

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import multiprocessing, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)
from tqdm import tqdm


class _WhenUsed:
    """A module that is imported when it is first used: torchvision takes seconds."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


v2 = _WhenUsed("torchvision.transforms.v2")
tv_tensors = _WhenUsed("torchvision.tv_tensors")
models = _WhenUsed("torchvision.models")

# --------------------------------------------------------------------------------------
# 1. Masks: files to pictures, colours to class ids. (notebook 01)
# --------------------------------------------------------------------------------------

IGNORE_INDEX = 255
# A mask picture holds 0 (background), 255 (foreground) and, where nobody knows, this.
IGNORE_GREY = 128
# How a level of a mask is named: a class id (palette index or grey value), or a colour.
MaskValue = int | tuple[int, int, int]
# Four numbers to take on trust. Greys this near to 0 or 255 count as black or white: at
# quality 30 nearly all of JPEG's rings around outlines are within it.
NEAR = 48
# JPEG moves the grey of a whole area by so much at most.
DRIFT = 4
# What fills areas of less than this share of a lossy file is noise at outlines.
SPECK = 0.002
# For each pixel of an outline so many greys are neither: 0.7 at quality 10, but 1 from
# the thinnest rim of a third grey on.
ALONG = 0.85

# Colours of classes 0, 1, 2, ...; class 0 is what is not looked for.
PALETTE = (
    *((0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200)),
    *((245, 130, 48), (145, 30, 180), (240, 50, 230), (210, 245, 60)),
)
# Of 256 classes in Pascal VOC's masks, which spread the bits of the id over the three
# channels; the last is the pale rim that is ignored.
VOC_PALETTE = tuple(
    tuple(
        sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3))
        for channel in range(3)
    )
    for number in range(256)
)
# Ours as far as they go: 255 colours of classes, and VOC's pale one for ignored.
CLASS_COLOURS = PALETTE + VOC_PALETTE[len(PALETTE) :]
# What files of other kinds that bear a picture's name hold near their beginning.
FOREIGN = {
    rb"git-lfs": "a Git LFS pointer (run git lfs pull), no picture",
    rb"ftyphei": "HEIC, which Pillow cannot read",
    rb"II[*+]\0|MM\0[*+]": "a TIFF of a kind that Pillow cannot read",
}


def _refuse(name: Path | str, arrived: str, expected: str, advice: str) -> NoReturn:
    raise ValueError(f"{name}: {arrived}; expected {expected}; {advice}")


def _check_number(
    name: str, value: Any, least: float = 0, most: float = math.inf, whole: bool = True
) -> None:
    """Refuse a setting that is no number from least to most."""
    kinds = int | np.integer if whole else int | float | np.number
    number = isinstance(value, kinds) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        end = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} {value!r}: expected {kind}, {end}")


def _check_choice(name: str, value: Any, known: Iterable[Any]) -> None:
    """Refuse a setting that is none of those known."""
    if value not in known:
        names = [str(one) for one in known]
        expected = ", ".join(names) + _nearest(str(value), names)
        raise ValueError(f"{name} {value!r}: expected one of {expected}")


def _open_picture(path: Path | str) -> Image.Image:
    """Open and decode a file of one picture whole, and turn it upright.

    `info` gets the file's "raw" form, of which Pillow scales some values, "turn", the
    EXIF tag that was followed, and of a TIFF whether it is "masked" and "signed".
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path}: {what}; expected a picture file")
    with path.open("rb") as file:
        # From an open file: of a name, Pillow maps a grey TIFF and forgets to turn it.
        start, advice = file.read(64), "save it again, as PNG"
        try:
            picture = Image.open(file)
            raw, kinds = str(picture.tile[:1]), _page_kinds(picture)
            tags = getattr(picture, "tag_v2", {})  # of a TIFF
            # Of a block that is not in the file Pillow shows the file's beginning.
            if any(0 in np.atleast_1d(tags.get(tag, 1)) for tag in (273, 324)):
                raise ValueError("sparse: blocks of the picture are not in the file")
            picture.load()
        except Exception as error:  # of a damaged file, Pillow makes anything
            what = f"damaged or cut short ({error})"
            if isinstance(error, Image.DecompressionBombError):
                what, advice = f"{error}", "see notebook 11, or raise MAX_IMAGE_PIXELS"
            elif isinstance(error, UnidentifiedImageError):
                what = f"not a picture (it begins with {start[:12]!r})"
                for mark, kind in FOREIGN.items():
                    what = kind if re.search(mark, start) else what
            what = what if start else "the file is empty"
            _refuse(path, what, "a whole picture", advice)
    own = [page for page, kind in enumerate(kinds) if not kind & 5]
    if own != [0]:
        what, wanted = f"{len(kinds)} pages with {len(own)} pictures", "one, the first"
        _refuse(path, what, wanted, "save the page that is meant")
    signed = 2 in np.atleast_1d(tags.get(339, 1))
    picture.info |= {"raw": raw, "turn": 1, "masked": 4 in kinds, "signed": signed}
    with contextlib.suppress(OSError, SyntaxError, ValueError):  # damaged EXIF
        picture.info["turn"] = picture.getexif().get(0x0112, 1)
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _page_kinds(picture: Image.Image) -> list[int]:
    """Tell of each page of a file: 0 is a picture, 1 a smaller copy, 4 a mask of it."""
    if picture.format != "TIFF":  # an MPO's other pages are previews
        return [0] * (1 if picture.format == "MPO" else getattr(picture, "n_frames", 1))
    kinds = []
    with contextlib.suppress(EOFError):
        for page in itertools.count():
            with contextlib.suppress(SyntaxError):  # Pillow cannot read such a mask
                picture.seek(page)
            kinds.append(int(picture.tag_v2.get(254, 0)))
    picture.seek(0)
    return kinds


def load_image(path: Path | str) -> Image.Image:
    """Read a picture as RGB, upright, transparent parts laid on white.

    Grey, palette, CMYK and 16-bit pictures are converted. Raises FileNotFoundError, or
    ValueError for an empty, damaged or foreign file, for several pages and for 32-bit
    greys, whose range nobody can guess. (notebook 01)
    """
    picture = _open_picture(path)
    if picture.info["signed"]:
        _refuse(path, "numbers with a sign", "8 bits from 0 on", "scale it to 0..255")
    return _to_rgb(picture, path, of_file=True)


def _to_rgb(
    picture: Image.Image, name: Path | str, of_file: bool = False
) -> Image.Image:
    """Convert any kind of picture to RGB without losing what it shows."""
    if picture.mode in ("I", "F"):
        what = "values of 32 bits, or of 16 in a PGM, whose range it does not tell"
        _refuse(name, what, "8 bits, or 16 in a PNG", "scale it to 0..255 first")
    if picture.mode.startswith("I;16"):
        pixels = np.asarray(picture)
        if of_file and 0 < pixels.max() < 256:  # a part of a picture may be dark
            what = f"16 bits of which only values up to {pixels.max()} are used"
            _refuse(name, what, "values up to 65535", "scale it, or save it as 8 bits")
        picture = Image.fromarray((pixels >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


class _Mask(NamedTuple):
    """A mask as its file has it, before anybody says what the values mean."""

    path: Path | str
    picture: Image.Image | None  # L, I;16 or P; RGB only if there are colours
    opaque: np.ndarray  # which pixels can be seen, bool (H, W)
    lossy: bool
    scaled: bool  # of 1, 2 or 4 bits, of which Pillow makes 0 to 255
    inverted: bool  # a TIFF in which 0 is white: Pillow makes it 255 in 8 bits
    undecided: int  # the value that a GeoTIFF declares as no data, 0 for none
    of_classes: bool = False  # wanted as a class map


def _open_mask(path: Path | str) -> _Mask:
    picture = _open_picture(path)
    if picture.info["masked"]:
        advice = "give hidden pixels a value for ignore, and save it without the mask"
        _refuse(path, "a TIFF with an inner mask", "a value for each pixel", advice)
    raw = picture.info["raw"]
    deep = len(picture.getbands()) > 1 and re.search(";16|'ppm'", raw)
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    inverted = tags.get(262) == 0
    nodata = str(tags.get(42113, "")).strip("\0 ")  # as GDAL declares it
    certain = not deep  # what Pillow gives are the file's values
    lossy = picture.format in ("JPEG", "MPO", "JPEG2000", "AVIF")
    lossy |= "jpeg" in str(picture.info.get("compression"))  # in TIFF
    if picture.format == "WEBP":
        lossy = b"VP8L" not in Path(path).read_bytes()
    what = "values below 0, or 16 bits a channel, which Pillow scales"
    if picture.mode in ("I", "F", "I;16B"):  # 32 bits, a sign, or high bytes first
        values, info = np.asarray(picture), picture.info
        what = f"values from {values.min()} to {values.max()}, whole numbers or not"
        with np.errstate(invalid="ignore"):  # of what is no number
            ids = values.clip(0, 65535).astype(np.uint16)
        certain = np.array_equal(ids, values) and "ppm" not in raw
        picture = Image.fromarray(ids)
        picture.info = info
    elif picture.info["signed"]:  # what is below 0 comes as 128 and more
        certain &= np.max(picture.getextrema()) < 128
    if not certain:
        expected = (
            "8 bits, or whole numbers up to 65535 in one channel of a PNG or TIFF"
        )
        _refuse(path, what, expected, "save it so")
    few = r"L;[24]|'ppm'|'ppm_plain'.*'L', (?!255\))"  # PGM of another maximum, too
    scaled = picture.mode == "1" or re.search(few, raw) is not None
    opaque = np.broadcast_to(True, (picture.height, picture.width))  # no memory
    if picture.has_transparency_data:
        opaque = np.asarray(picture.convert("RGBA").getchannel("A")) >= 128
    picture = picture if picture.mode == "P" else _plainest(picture, lossy)
    undecided = int(nodata) if nodata.isdecimal() else 0
    return _Mask(path, picture, opaque, lossy, scaled, inverted, undecided)


def _plainest(picture: Image.Image, lossy: bool) -> Image.Image:
    """Convert to RGB, or to L if there are no colours but those that JPEG makes."""
    if picture.mode == "L" or picture.mode.startswith("I;16"):
        return picture
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    for _, strip in _strips(picture):
        red, *others = strip.split()
        gaps = [ImageChops.difference(red, other).getextrema()[1] for other in others]
        if max(gaps) > DRIFT * lossy:
            return picture
    return picture.convert("L")


def _count_values(
    picture: Image.Image, by_colour: bool = False
) -> dict[MaskValue, int]:
    """Count the pixels of each id or colour of a mask; nothing for over 256 colours."""
    if picture.mode.startswith("I;16"):
        values, counts = np.unique(picture, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    if by_colour and picture.mode != "RGB":
        picture = picture.convert("RGB")
    return dict(sorted((value, n) for n, value in picture.getcolors(256) or ()))


def _refuse_values(mask: _Mask, what: str) -> NoReturn:
    """Refuse a mask whose values could mean several things; list them and ask."""
    picture = mask.picture or _open_mask(mask.path).picture
    counts, size = _count_values(picture), mask.opaque.size
    shown = [f"{value} ({count / size:.2%})" for value, count in counts.items()]
    what += f": {', '.join(shown[:8]) or 'over 256 colours'}"
    what += f", ... {len(shown)} in all" if len(shown) > 8 else ""
    ids = "in a class map: ids of a lossless file"
    expected = f"0 and 1, or black and white ({ids}), or values that you name"
    advice = (
        "name those of foreground, as foreground=[1, 2], [(255, 0, 0)] or range(128, "
        "256), or those of each class, as classes=[[0], [1, 2]] of load_classes, and "
        "what nobody judged, as ignore=[255] (--foreground 1-2, --classes, --ignore)"
    )
    _refuse(mask.path, what, expected, advice)


def load_mask(
    path: Path | str,
    threshold: int = 128,
    *,
    foreground: Sequence[MaskValue] = (),
    ignore: Sequence[MaskValue] = (),
) -> Image.Image:
    """Read a mask as a picture of mode "L": 0, 255, and 128 for what is ignored.

    Without options it must have two levels: 0 and 1, or one nearly black and one nearly
    white; then what is at least `threshold` (1..255) becomes 255, also where JPEG or
    smoothing left many other greys along outlines. Anything else is refused with the
    values found. foreground: the values that count instead, all else is background:
    class ids (palette index, else grey value), or RGB colours. ignore: the values that
    become 128. What is less than half opaque is background, except where palette ids
    are named. (notebook 01)
    """
    _check_number("threshold", threshold, 1, 255)
    mask = _open_mask(path)
    picture, named = mask.picture, np.size(foreground) + np.size(ignore)
    if mask.inverted and not named:
        _refuse_values(mask, "a TIFF whose 0 is white, which may be meant otherwise")
    if mask.undecided and not named and mask.undecided in _count_values(picture):
        _refuse_values(mask, f"{mask.undecided}, declared as no data, among its values")
    plain = picture.mode == "L" and not any(picture.histogram()[1:255])
    whole = mask.opaque.strides == (0, 0) or mask.opaque.all()
    if plain and whole and not named:
        return picture  # 0 and 255 already
    found = _find_values(mask, foreground, ignore)
    if not np.size(foreground):
        if picture.mode == "P" or (picture.mode == "RGB" and np.size(ignore)):
            picture = picture.convert("RGB")  # without the colours that are ignored
            picture.paste(0, mask=Image.fromarray(found == 1))
            picture = _plainest(picture, mask.lossy)
        if not whole or picture.mode == "RGB":
            what = "transparent parts, and values"
            if whole:
                what = "palette ids" if mask.picture.mode == "P" else "colours"
            _refuse_values(mask, what)
        greys, judged = np.array(picture), found != 1
        if greys.itemsize > 1:  # 16 bits
            levels = np.unique(greys[judged])
        else:
            part = None if judged.all() else Image.fromarray(judged)
            levels = np.flatnonzero(picture.histogram(part))
        mask, picture = mask._replace(picture=None), None  # for memory
        zero_one = levels.tolist() == [0, 1] and not mask.lossy
        zero_one |= not levels.any()
        greys[~judged] = min(levels, default=0)
        if levels.max(initial=0) > 255:
            greys, levels = (greys // 257).astype(np.uint8), levels // 257
        if zero_one:
            threshold = 1
        elif not _has_two_levels(greys, levels, mask.lossy):
            _refuse_values(mask, "greys of unknown meaning")
        found[(greys >= threshold) & judged] = 0
        del greys, judged
    del picture, mask  # for memory
    result = np.zeros(found.shape, np.uint8)
    result[found == 0], result[found == 1] = 255, IGNORE_GREY
    return Image.fromarray(result)


def _has_two_levels(greys: np.ndarray, levels: np.ndarray, lossy: bool) -> bool:
    """Tell whether uint8 (H, W) is nearly black and nearly white, or all one of them.

    levels: the greys that it holds. Few must be just those; many, and those of a lossy
    file, may lie between, along the outlines, where none fills an area.
    """
    low, high = levels[0], levels[-1]
    dark, bright = low <= NEAR, high >= 255 - NEAR
    if len(levels) <= NEAR and not lossy:
        return bool(bright) and len(levels) <= 1 + dark
    if not (dark and bright):  # areas of several levels are of class ids
        one = len(np.unique(greys[_is_flat(greys)])) <= 1
        return one and lossy and (high <= DRIFT or low >= 255 - DRIFT)
    outlines = [
        np.count_nonzero(np.diff(near, axis=0)) + np.count_nonzero(np.diff(near))
        for near in (greys <= NEAR, greys >= 255 - NEAR)
    ]
    between = np.count_nonzero((greys > NEAR) & (greys < 255 - NEAR))
    off = _is_flat(greys) & (greys > low + DRIFT) & (greys < high - DRIFT)
    filled = np.count_nonzero(off)
    return between <= ALONG * min(outlines) and filled <= SPECK * greys.size


def _is_flat(values: np.ndarray) -> np.ndarray:
    """Tell which pixels of (H, W) have eight neighbours of their own value."""
    padded = np.pad(values, 1, mode="edge")
    same = padded[:, 1:] == padded[:, :-1]
    rows = same[:, 1:] & same[:, :-1]  # three in a row
    same = padded[1:, 1:-1] == padded[:-1, 1:-1]
    return rows[2:] & rows[1:-1] & rows[:-2] & same[1:] & same[:-1]


def _strips(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Cut into strips: integers of all of a huge picture would fill the memory."""
    step = max(2**18 // picture.width, 1)
    for top in range(0, picture.height, step):
        bottom = min(top + step, picture.height)
        yield slice(top, bottom), picture.crop((0, top, picture.width, bottom))


def _as_codes(name: str, values: Sequence[MaskValue]) -> np.ndarray:
    """Check a list of ids or colours; gives numbers as `_codes` does, int (N,)."""
    try:
        array = np.array(values)
    except ValueError:  # of several lengths
        array = np.array(None)
    if array.shape == (0,):
        return array.astype(int)
    colours = array.shape[1:] == (3,)
    fits = array.dtype.kind in "iu" and array.ndim == 1 + colours
    if not fits or array.min() < 0 or array.max() > (255 if colours else 65535):
        raise ValueError(
            f"{name} {reprlib.repr(values)}: expected a list of ids up to 65535, or of "
            "colours (red, green, blue) up to 255"
        )
    return array @ [1, 1 << 8, 1 << 16] - (1 << 24) if colours else array


def _codes(
    mask: _Mask, named: Sequence[int] = ()
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield what a mask holds, in strips: rows, int32 (rows, W).

    Ids stand for themselves. A colour, if such are named, is the number that its bytes
    red, green, blue, 255 make: below 0.
    """
    picture, by_colour = mask.picture, min(named, default=0) < 0
    if by_colour and any((code + (1 << 24)) % 0x010101 for code in named):
        # A colour that is no grey: then greys that nobody named are no background.
        plain = _plainest(picture, mask.lossy)
        greys = {} if plain.mode == "RGB" else _count_values(plain)
        if {grey * 0x010101 - (1 << 24) for grey in greys} - {-(1 << 24), *named}:
            _refuse_values(mask, "it has no colours, but colours were named")
    elif not by_colour and picture.mode == "RGB":
        what = "but ids were named" if len(named) else "and no palette was given"
        _refuse_values(mask, f"it has colours, {what}")
    elif (
        not by_colour
        and picture.getextrema()[1]
        and (
            (mask.inverted and 255 not in named and {*named} != {0})
            or (mask.scaled and (not len(named) or any(0 < n < 16 for n in named)))
        )
    ):
        what = "values of 1, 2 or 4 bits, which Pillow scales, or whose 0 is white"
        advice = "name them as scaled to 0..255, 255 for white, or save it as 8 bits"
        _refuse(mask.path, what, "8 bits in which 0 is black", advice)
    elif not by_colour and picture.mode == "P":
        used = np.flatnonzero(picture.histogram())
        palette = picture.getpalette("RGB") + 3 * 256 * [0]  # in BMP it may be short
        colours = np.reshape(palette, (-1, 3))[used]
        white = (colours[:, 0] == 255) & (used > 0)
        other = (colours[:, 0] != used) & ~white
        if not np.ptp(colours, axis=1).any() and other.any():
            what = f"a palette of greys, {colours[:8, 0].tolist()}, at other indices"
            advice = "name colours, as (5, 5, 5), or save it as a grey PNG"
            _refuse(mask.path, what, "ids that are certain", advice)
    for rows, strip in _strips(picture):
        if by_colour:
            strip = strip.convert("RGB").convert("RGBX")
            yield rows, np.asarray(strip).view("<i4")[..., 0]
        else:
            yield rows, np.asarray(strip).astype(np.int32)


def _find_values(mask: _Mask, *groups: Sequence[MaskValue]) -> np.ndarray:
    """Give the number of the group that names a pixel's value, or -1; int (H, W)."""
    wanted = [_as_codes("foreground, ignore or class", group) for group in groups]
    named = np.concatenate(wanted)
    found = np.full(mask.opaque.shape, -1, np.int8 if len(groups) < 128 else np.int16)
    if not len(named):
        return found
    by_colour = named.max() < 0
    if len(np.unique(named)) < len(named) or by_colour != (named.min() < 0):
        shown = reprlib.repr(groups)
        wanted = "lists of ids, [1, 2], or of colours, [(255, 0, 0)], not both"
        raise ValueError(f"{shown}: expected {wanted}, each value once")

    def gaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        channels = [(some >> s & 255, others >> s & 255) for s in (0, 8, 16)]
        return np.max([np.abs(np.subtract.outer(*pair)) for pair in channels], axis=0)

    anchors = None
    if mask.lossy:
        flat: Counter[int] = Counter()
        for _, codes in _codes(mask, named):
            values, counts = np.unique(codes[_is_flat(codes)], return_counts=True)
            flat.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        group_of = {one: n for n, group in enumerate(wanted) for one in group.tolist()}
        noise = SPECK * found.size
        large = {one for one, count in flat.items() if count > 5 * noise}
        for one, other in itertools.pairwise(sorted({0, *group_of, *large})):
            near = not by_colour and other - one <= DRIFT
            if near and group_of.get(one) != group_of.get(other):
                what = f"a lossy file, in which ids as near as {one} and {other} blur"
                advice = "save the mask again from its source as PNG"
                _refuse(mask.path, what, "ids farther apart", advice)
        if by_colour or (np.diff(np.sort(named)) > DRIFT).all():
            # A value counts as the nearest that is named or fills an area.
            areas = np.array([one for one, n in flat.items() if n > noise], int)
            drift = 3 * DRIFT if by_colour else DRIFT  # colours are at a coarser scale
            others = areas[gaps(areas, named).min(axis=1, initial=256) > drift]
            anchors = np.concatenate([named, others])
    for rows, codes in _codes(mask, named):
        if anchors is not None:
            distinct, where = np.unique(codes, return_inverse=True)
            nearest = anchors[gaps(distinct, anchors).argmin(axis=1)]
            codes = nearest[where].reshape(codes.shape)
        for number, values in enumerate(wanted):
            found[rows][np.isin(codes, values)] = number
    if (by_colour or mask.picture.mode != "P") and not mask.opaque.all():
        # What a transparent background hides may be named as class 0 of a map.
        found[~mask.opaque & ((found != 0) | (not mask.of_classes))] = -1
    return found


def colors_to_classes(
    mask: Image.Image | np.ndarray,
    palette: Sequence[tuple[int, int, int]],
    ignore_index: int = IGNORE_INDEX,
    *,
    max_distance: float = 0,
) -> torch.Tensor:
    """Turn a mask of colours into class ids: a tensor, int64 (H, W).

    mask: an RGB picture or uint8 array (H, W, 3). palette: one colour per class, in the
    order of the ids. A pixel gets the id of the nearest colour of the palette if that
    is at most `max_distance` away (0..442, straight through the RGB cube), else
    `ignore_index`: count those, they are what your palette lacks. (notebook 01)
    """
    pixels = np.array(mask.convert("RGB") if isinstance(mask, Image.Image) else mask)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"mask of shape {pixels.shape}: expected (H, W, 3)")
    flat = torch.from_numpy(pixels).reshape(-1, 3)
    colours, where = flat.unique(dim=0, return_inverse=True)
    nearest, ids = torch.cdist(colours.float(), _palette_table(palette).float()).min(1)
    ids[nearest > max_distance] = ignore_index
    return ids[where].reshape(pixels.shape[:2])


def _palette_table(palette: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """Check a palette: uint8 (K, 3)."""
    codes = _as_codes("palette", palette)
    once = len(np.unique(codes)) == len(codes)
    if not 1 <= len(codes) < 256 or codes.max() >= 0 or not once:
        raise ValueError(f"palette {palette}: expected another colour for each class")
    return torch.from_numpy(np.array(palette, np.uint8))


def classes_to_colors(
    classes: torch.Tensor | np.ndarray | Image.Image,
    palette: Sequence[tuple[int, int, int]],
) -> Image.Image:
    """Turn class ids, integers (H, W), into an RGB picture, the way back.

    Ignored pixels get VOC's pale colour. Raises ValueError for another id that the
    palette has no colour for. (notebook 01)
    """
    ids = _as_ids(classes).long()
    if ids.ndim != 2:
        raise ValueError(f"classes of shape {tuple(ids.shape)}: expected (H, W)")
    _check_class_ids("classes", ids, len(palette))
    colours = torch.cat([_palette_table(palette), _palette_table(VOC_PALETTE[-1:])])
    return Image.fromarray(colours[ids.clamp(max=len(palette))].numpy())


def _as_ids(classes: torch.Tensor | np.ndarray | Image.Image) -> torch.Tensor:
    """Give class ids as a tensor, those of a picture of `load_classes` too."""
    tensor = isinstance(classes, torch.Tensor)
    ids = classes if tensor else torch.from_numpy(np.array(classes))
    return ids.long() if ids.dtype == torch.uint16 else ids  # torch cannot compare them


def _check_class_ids(
    name: Path | str, ids: torch.Tensor, num_classes: int, ignored: bool = True
) -> None:
    """Refuse ids that are none of the classes; `ignored`: 255 may stand there, too."""
    wrong = ((ids < 0) | (ids >= num_classes)) & ~(ignored & (ids == IGNORE_INDEX))
    if wrong.any():
        found = ", ".join(map(str, torch.unique(ids[wrong])[:8].tolist()))
        what = f"class ids {found} in {int(wrong.sum())} of {wrong.numel()} pixels"
        or_ignored = f", or {IGNORE_INDEX} for ignored" * ignored
        advice = "count all classes, background too, or name what is ignored"
        _refuse(name, what, f"0 to {num_classes - 1}{or_ignored}", advice)


def pack_masks(masks: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Pack overlapping masks, 0 or 1 of shape (K, H, W), into the bits of (H, W).

    Mask k becomes bit k. uint8 up to 8 masks, else int64; at most 63. Unpack before
    you transform: scaling takes large ids for numbers. (notebook 01)
    """
    masks = torch.as_tensor(masks)
    fits = masks.ndim == 3 and masks.numel() and len(masks) <= 63
    if not fits or not ((masks == 0) | (masks == 1)).all():
        most = f"up to {masks.max()}" if masks.numel() else "empty"
        raise ValueError(
            f"masks of shape {tuple(masks.shape)}, {most}: expected (1..63, H, W) of 0 "
            "and 1; divide masks of 0/255 by 255"
        )
    bits = 2 ** torch.arange(len(masks)).view(-1, 1, 1)
    packed = (masks.long() * bits).sum(dim=0)
    return packed.to(torch.uint8) if len(masks) <= 8 else packed


def unpack_masks(packed: torch.Tensor | np.ndarray, num_classes: int) -> torch.Tensor:
    """Unpack bits (H, W) into masks, float32 (num_classes, H, W) of 0 and 1."""
    packed = _as_ids(packed).long()
    most = int(packed.max()) if packed.numel() else 0
    _check_number("packed value", most, 0, 2**num_classes - 1)
    bits = torch.arange(num_classes).view(-1, 1, 1)
    return ((packed >> bits) & 1).float()


# --------------------------------------------------------------------------------------
# 2. Pairs and datasets: from a folder to samples. (notebook 02)
# --------------------------------------------------------------------------------------

PICTURE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".webp", ".avif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".tga"),
}
DRAW_THEM = "draw polygons and boxes as masks (lesson 12, docs/what_tools_write.md)"


class Sample(NamedTuple):
    """One image and the target that belongs to it: pictures, or tensors.

    Tensors: image float32 (3, H, W) in 0..1; target float32 (1, H, W) of 0 and 1, or
    (K, H, W) where classes overlap, or class ids int64 (H, W). 255 in a target means
    ignored.
    """

    image: Any
    target: Any


# What belongs to an image: its mask; several masks of objects, to be united; a mask
# for each class by name; or nothing at all, which means nothing is there.
Target = Path | tuple[Path, ...] | dict[str, Path | None] | None
Pair = tuple[Path, Target]
PairTransform = Callable[[Any, Any], tuple[Any, Any]]
# As `load_mask` and `load_classes`, pictures of mode "L" and "P", or `load_masks`.
ReadTarget = Callable[[Path], Image.Image | torch.Tensor]
Patterns = tuple[str, str]
# How images and targets are named where nobody says it, in this order.
LAYOUTS: tuple[Patterns, ...] = (
    ("{key}_input.*", "{key}_target.*"),
    ("images/{key}.*", "masks/{key}.*"),
)
MISSING = ("error", "empty", "skip")  # what an image without a target may be


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key that reads numbers as numbers: "2_input" before "10_input"."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


@dataclass
class PairFiles:
    """The pictures of a folder, by the values of the fields of their patterns.

    Each stands with the value of `extra`, the field that only targets have: "object" or
    "class", or "" for neither. missing: as in `find_pairs`.
    """

    folder: Path
    patterns: Patterns
    names: list[str]  # of all files below the folder, in natural order
    fields: list[str]
    extra: str
    inputs: dict[tuple[str, ...], list[tuple[str, str]]]
    targets: dict[tuple[str, ...], list[tuple[str, str]]]
    missing: str = "error"

    @property
    def used(self) -> set[str]:
        """The names of all files that are an image or a target."""
        sides = self.inputs, self.targets
        return {name for side in sides for found in side.values() for _, name in found}

    def pairs(self) -> list[Pair]:
        """Put together what belongs together, in natural order."""
        values = {value for found in self.targets.values() for value, _ in found}
        classes = dict.fromkeys(sorted(values, key=natural_key))
        pairs: list[Pair] = []
        for key, ((_, image), *_) in self.inputs.items():
            if key not in self.targets and self.missing != "empty":
                continue
            found = {v: self.folder / name for v, name in self.targets.get(key, ())}
            target: Target = next(iter(found.values()), None)
            if self.extra == "class":
                target = classes | found or None
            elif found and self.extra:
                target = tuple(found.values())
            pairs.append((self.folder / image, target))
        return pairs

    def faults(self) -> list[tuple[str, str, str]]:
        """List what has no partner or too many: the file, what is wrong, what helps."""
        faults, names, used = [], sorted(self.names), self.used
        sides = (self.inputs, self.targets), (self.targets, self.inputs)
        for role, (found, others) in enumerate(sides):
            for key, files in found.items():
                values, (name, *more) = zip(*files, strict=True)
                if key not in others:
                    known = dict(zip(self.fields, key, strict=True)) | {self.extra: "*"}
                    wanted = self.patterns[1 - role].format_map(known)
                    what = f"no file is named {wanted}"
                    mend = "add it, or take this one away"
                    if not role:
                        mend += ', or say missing="empty" (nothing is there) or "skip"'
                        mend += " (--missing)"
                    stem, own = (os.path.splitext(n)[0] for n in (wanted, name))
                    place = bisect.bisect_left(names, stem.partition("*")[0])
                    near = [n for n in names[place : place + 20] if n not in used]
                    # A mask that nobody reads, as 1_target.npy, is not missing.
                    exact = re.escape(stem).replace(r"\*", "[^/]*") + r"\.[^./]*"
                    unread = [n for n in near if re.fullmatch(exact, n) and stem != own]
                    alike = re.escape(stem) + r"[\W_]"
                    there = unread or [n for n in near if re.match(alike, n)]
                    suffixes = (Path(n).suffix.lower() for n in unread)
                    if PICTURE_SUFFIXES.intersection(suffixes):
                        what += f", but {unread[0]}"
                        mend = "let the pattern end in .*"
                    elif there:
                        what += f", and {there[0]} is no picture that is read, or "
                        what += "one of several"
                        mend = "save a picture as PNG; several masks: name {object}; "
                        mend += DRAW_THEM
                    if unread or role or self.missing == "error":
                        faults.append((name, what, mend))
                left_out = self.missing == "skip" and key not in others
                if len({*values}) < len(files) and not left_out:
                    what = f"the same key as {', '.join(more)}"
                    mend = "keep one, or name {object} or {class} in the pattern"
                    faults.append((name, what, mend))
        return faults


def find_pairs(
    data_dir: Path | str, patterns: Patterns | None = None, *, missing: str = "error"
) -> list[Pair]:
    """List the pairs (image path, target path) of a folder in natural order.

    patterns: how images and targets are named below the folder, with fields in braces
    and `*`; files whose fields agree are a pair, as with
    ("image_2/{kind}_{number}.png", "gt_image_2/{kind}_road_{number}.png"). A file that
    both match belongs to the one with more letters. The second may have one field more:
    {object}, and an image has a tuple of masks that are united, or {class}, and it has
    a mask for each class, a dictionary by name; of several readings of a name, that
    with the longest key of an image counts. Without patterns: LAYOUTS.
    missing: what an image without a target is: "error"; "empty", nothing is there, and
    its target is None; "skip", it is left out.

    Raises ValueError for a folder without pairs, with the patterns that would find
    some, for an image without a target or the reverse and two files for one key.
    """
    files = _find_files(Path(data_dir), patterns, missing)
    faults = files.faults()
    if faults:
        shown = [f"\n  {name}: {what}; {mend}" for name, what, mend in faults[:8]]
        more = [f"\n  and {len(faults) - 8} more"] if len(faults) > 8 else []
        raise ValueError(f"{data_dir}: {len(faults)} faults{''.join(shown + more)}")
    return files.pairs()


def _find_files(folder: Path, patterns: Patterns | None, missing: str) -> PairFiles:
    """Sort the pictures of a folder into inputs and targets."""
    _check_choice("missing", missing, MISSING)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        kind = NotADirectoryError if folder.exists() else FileNotFoundError
        raise kind(f"{folder}: {what}; expected a folder of pairs")
    names = []
    for place, folders, found in os.walk(folder, followlinks=True):
        below = Path(place).relative_to(folder)
        # A link to a folder that it lies in would never end.
        above = {(folder / one).resolve() for one in (below, *below.parents)}
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and Path(place, name).resolve() not in above
        ]
        names += [(below / name).as_posix() for name in found if name[0] != "."]
    names.sort(key=natural_key)
    layouts = LAYOUTS if patterns is None else [patterns]
    tried = [_sort_files(folder, names, layout) for layout in layouts]
    for files in tried:
        files.missing = missing
        if files.inputs.keys() & files.targets.keys():
            return files
    proposal = _propose_patterns(folder, names)
    some = tried[0].inputs or tried[0].targets
    if some and (patterns is not None or proposal is None) and missing != "skip":
        return tried[0]  # whose faults say more
    advice = "name them so, or say with patterns how they are named (--patterns)"
    if proposal is not None:
        one, other = proposal
        advice = f'try patterns=("{one}", "{other}") (--patterns "{one}" "{other}")'
        left = {*names} - _sort_files(folder, names, proposal).used
        if rest := sum(Path(n).suffix.lower() in PICTURE_SUFFIXES for n in left):
            advice += f"; {rest} other pictures are left out"
        if "{object}" in other:
            advice += "; it unites masks of objects: of several kinds name one, or put "
            advice += "{class} for {object}, and each is a class"
    kinds = Counter(Path(name).suffix.lower() for name in names)
    if kinds and not kinds.keys() & PICTURE_SUFFIXES:
        advice = "none is a picture that is read: save them as PNG"
    if kinds.keys() & {".json", ".xml", ".txt"}:
        advice += f"; JSON, XML and text are not read: {DRAW_THEM}"
    holds = ", ".join(f"{n} {kind or 'others'}" for kind, n in kinds.most_common(4))
    expected = " or ".join(f'("{one}", "{other}")' for one, other in layouts)
    _refuse(folder, f"no pairs in {holds or 'no files'}", expected, advice)


def _sort_files(folder: Path, names: list[str], patterns: Patterns) -> PairFiles:
    """Match the names of pictures with both patterns."""
    field_name = r"\{([A-Za-z_]\w*)\}"
    fits = isinstance(patterns, tuple | list) and len(patterns) == 2
    if fits := fits and all(isinstance(pattern, str) for pattern in patterns):
        keys, fields = (dict.fromkeys(re.findall(field_name, one)) for one in patterns)
        plain = "\n".join(re.sub(field_name, "x", pattern) for pattern in patterns)
        extra = ",".join(fields.keys() - keys.keys())
        odd = re.search(r"(?m)[{}]|^/|//|\.\./", plain) or patterns[0] == patterns[1]
        fits = keys and keys.keys() <= fields.keys() and not odd
        fits = fits and extra in ("", "object", "class")
    if not fits:
        raise ValueError(
            f"patterns {patterns!r}: expected two paths below the folder with the same "
            "fields in braces, the second with {object} or {class} as well if there "
            'are several masks, as ("images/{key}.*", "masks/{key}_mask.*")'
        )
    rest = [name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    readings: tuple[dict[str, list], dict[str, list]] = ({}, {})
    # What both match goes to the one with more letters.
    letters = [len(re.sub(r"\{\w+\}|\*", "", pattern)) for pattern in patterns]
    for role in sorted((0, 1), key=lambda role: -letters[role]):
        text = re.escape(patterns[role])
        for name in fields:  # the first time a group, then what that was
            text = text.replace(rf"\{{{name}\}}", f"(?P<{name}>[^/]+?)", 1)
            text = text.replace(rf"\{{{name}\}}", f"(?P={name})")
        text = re.sub(r"\\\.\\\*$", r"(?:\\.ome)?\\.[^./]*", text)
        text = text.replace(r"\*", "[^/]*")
        for name in rest:
            shortest = 1
            while match := re.fullmatch(
                text.replace("+?", f"{{{shortest},}}?", 1), name, re.IGNORECASE
            ):
                # Names from a Mac hold é as two signs, those from elsewhere as one.
                key = tuple(unicodedata.normalize("NFC", match[one]) for one in keys)
                value = match[extra] if role and extra else ""
                readings[role].setdefault(name, []).append((key, value))
                if not role or not extra:
                    break
                # By {key}_{object}, a_b_1 may be of a or of a_b: longer ones as well.
                shortest = len(match[1]) + 1
        rest = [name for name in rest if name not in readings[role]]
    sides: tuple[dict, dict] = ({}, {})
    for role, side in enumerate(sides):
        for name, found in readings[role].items():
            # The longest key that an image has.
            fit = [one for one in found if one[0] in sides[0]] or found[:1]
            key, value = max(fit, key=lambda one: sum(map(len, one[0])))
            side.setdefault(key, []).append((value, name))
    return PairFiles(folder, tuple(patterns), names, list(keys), extra, *sides)


def _propose_patterns(folder: Path, names: Sequence[str]) -> Patterns | None:
    """Make patterns of the names and try them: what image and mask share are fields."""
    hint = "mask|label|target|truth|manual|annot|\\dst|\\dnd|(?<![a-z])(?:gt|ann|seg)"
    parts, hints, kind_of = {}, {}, {}
    for name in names:
        stem, _, kind = name.rpartition(".")
        if f".{kind}".lower() in PICTURE_SUFFIXES and not {*name} & {*"{}*"}:
            parts[name] = re.findall(r"\d+|[^\W\d_]+|.", stem)
            hints[name] = len(re.findall(hint, stem, re.IGNORECASE))
            kind_of[Path(stem).name] = kind
    fewest = min(hints.values(), default=0)
    masks = [name for name in hints if hints[name] > fewest]
    for name in () if masks else hints:  # x.png, x_a.gif: the longer name is the mask's
        stem, _, kind = Path(name).name.rpartition(".")
        starts = [stem[: end.start()] for end in re.finditer(r"[\W_]", stem)]
        if any(kind_of.get(start, kind) != kind for start in starts):
            masks.append(name)
    images = sorted(hints.keys() - {*masks})

    def as_field(part: re.Match[str]) -> str:
        number = len(fields) + 1 if fields else ""
        return fields.setdefault(part[0], f"{{key{number}}}")

    best: tuple[int, Patterns | None] = (0, None)
    for mask in masks[:: len(masks) // 4 + 1]:
        mine = {*parts[mask]}
        image = max(images, key=lambda one: sum(map(len, mine & {*parts[one]})))
        both, texts, ends, fields = (parts[image], parts[mask]), ["", ""], [0, 0], {}
        blocks = difflib.SequenceMatcher(None, *both, autojunk=False)
        for *starts, size in blocks.get_matching_blocks():
            shared = "".join(both[0][starts[0] : starts[0] + size])
            if shared and not re.search(r"[^\W_]", shared):
                continue  # a mere sign
            shared = re.sub(r"[^\W_](?:[^/]*[^\W_])?", as_field, shared)
            for side, start in enumerate(starts):
                own = "".join(both[side][ends[side] : start])
                for part, one in fields.items():
                    own = re.sub(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", one, own)
                texts[side] += own + shared
                ends[side] = start + size
        # The last word of a mask's name, or all of the rest, may be that of an object.
        several = [r"()[^\W_]+$", r"([/}][\W_]*)[^/{}]+$"]
        tails = [re.sub(end, r"\1{object}", texts[1]) for end in several]
        for tail in (texts[1], *tails):
            patterns = f"{texts[0]}.*", f"{tail}.*"
            with contextlib.suppress(ValueError):  # nothing is shared
                tried = _sort_files(folder, [*hints], patterns)
                found = len(tried.inputs.keys() & tried.targets.keys())
                targets = itertools.chain.from_iterable(tried.targets.values())
                whole = {name for _, name in targets} == {*masks}
                whole &= not tried.extra or len(tried.inputs) == len(images)
                if whole and found > best[0]:
                    best = found, patterns
    places = {mask: mask.rpartition("/")[0] for mask in masks}
    kinds = Counter(places.values()).most_common(8)
    for place, _ in kinds if best[1] is None and len(kinds) > 1 else ():
        # Of several kinds of masks one, as in VOC.
        some = [name for name in names if places.get(name, place) == place]
        if (proposal := _propose_patterns(folder, some)) is not None:
            return proposal
    return best[1]


def _scene_of(name: str, scenes: Mapping[str, str]) -> str | None:
    """Look up an image by its name below the folder, or by its file name."""
    names = [name, name.rpartition("/")[2]]
    names += [unicodedata.normalize("NFC", one) for one in names]
    return next((scenes[one] for one in names if one in scenes), None)


def group_split(
    groups: Sequence[str], val_share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Split samples into training and validation so that no group is on both sides.

    groups: the group of each sample, as its scene or map. Whole groups go to
    validation, in an order drawn by `seed`, while they fit into `val_share` of the
    samples; the first that is drawn goes if none fits. Gives sorted indices. Raises
    ValueError for fewer than two groups. (notebook 06)
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share {val_share}: expected more than 0, less than 1")
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} groups in {len(groups)} samples: expected at least 2, one "
            "to train on and one to validate; add pictures of another scene"
        )
    room = min(max(round(val_share * len(groups)), 1), len(groups) - 1)
    sizes = Counter(groups)
    order = np.random.default_rng(seed).permutation(names).tolist()
    chosen: set[str] = set()
    for name in order:
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    chosen = chosen or {order[0]}
    val = [index for index, group in enumerate(groups) if group in chosen]
    return sorted({*range(len(groups))} - {*val}), val


def _check_paired(transform: PairTransform | None) -> None:
    """Refuse what is no function of image and target, such as a library's transform."""
    if transform is None:
        return
    name = type(transform).__name__
    library = type(transform).__module__.partition(".")[0]
    advice = "see ImageTargetCompose"
    if library == "albumentations":
        advice = "wrap it in a function that gives its answer's image and mask"
    elif library == "torchvision" or isinstance(transform, v2.Transform):
        advice = f"put it into PairedTransform(v2.{name}(...))"
    elif callable(transform):
        return
    expected = "a paired one, (image, target) -> (image, target)"
    _refuse(f"transform {name}", "not of image and target", expected, advice)


def _transformed(transform: PairTransform, image: Any, target: Any) -> Sample:
    """Apply a transform, and refuse an answer that is no pair."""
    made = transform(image, target)
    if not isinstance(made, tuple | list) or len(made) != 2:
        name = f"transform {getattr(transform, '__name__', type(transform).__name__)}"
        what = [*made] if isinstance(made, dict) else type(made).__name__
        _refuse(name, f"gave {what}", "(image, target)", "let it return both")
    return Sample(*made)


class PairDataset(Dataset[Sample]):
    """Samples of a list of pairs, map-style: `len(dataset)` and `dataset[i]`.

    Each sample goes through `prepare(image, target)`, which must give the same each
    time, and `transform(image, target)`; without both it holds pictures. read_target:
    how a target's file is read. A target of None is empty in the way of `example`, by
    default the first target's file. cache: keep what `prepare` gives, so that each file
    is read once; with worker processes each keeps its own, for an epoch. (notebook 02)
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        transform: PairTransform | None = None,
        *,
        read_target: ReadTarget = load_mask,
        prepare: PairTransform | None = None,
        cache: bool = False,
    ) -> None:
        try:
            self.pairs = [
                (Path(image), Path(target) if isinstance(target, str) else target)
                for image, target in pairs
            ]
        except (TypeError, ValueError):
            advice = "a folder is for UIImageMaskDataset"
            _refuse(f"pairs {pairs!r}"[:80], "no pairs", "a list of find_pairs", advice)
        _check_paired(transform)
        _check_paired(prepare)
        if not callable(read_target):
            expected = "a function of a path, as load_mask"
            raise ValueError(f"read_target {read_target!r}: expected {expected}")
        self.transform, self.prepare = transform, prepare
        self.read_target = read_target
        # Which file shows what an empty target has to look like.
        files = (target for _, target in self.pairs if isinstance(target, Path))
        self.example = next(files, None)
        self._cache: dict[str, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, target = self.pairs[index]
        name = f"{path} {target}"
        sample = None if self._cache is None else self._cache.get(name)
        if sample is None:
            image = load_image(path)
            sample = Sample(image, self.read(target, image.size))
            size = _size_of(sample.target)
            if size != image.size:
                what, wanted = f"{size} (W, H)", f"{image.size}, as {path} is"
                _refuse(f"{target}", what, wanted, "cut or scale it; see check_pairs")
            if self.prepare is not None:
                sample = _transformed(self.prepare, *sample)
            if self._cache is not None:
                self._cache[name] = sample
        if self._cache is not None:  # what is kept may not be changed
            kept = (
                x.clone() if isinstance(x, torch.Tensor) else copy.copy(x)
                for x in sample
            )
            sample = Sample(*kept)
        if self.transform is None:
            return sample
        return _transformed(self.transform, *sample)

    def read(self, target: Target, size: tuple[int, int]) -> Any:
        """Read one mask, unite several, or stack those of classes; size: (W, H)."""
        if isinstance(target, Path):
            mask = self.read_target(target)
            if not isinstance(mask, Image.Image | torch.Tensor):
                what, wanted = f"read as {type(mask).__name__}", "a picture or a tensor"
                _refuse(target, what, wanted, "let read_target return Image.fromarray")
            return mask
        masks: list[Image.Image] = []
        several = target.values() if isinstance(target, dict) else target or ()
        for path in several:
            mask = self.read_target(path) if path else Image.new("L", size)
            mode = getattr(mask, "mode", "none")  # a tensor has none
            if mode != "L" or mask.size != size:
                what = f"mask of mode {mode}, {_size_of(mask)} (W, H)"
                wanted = f"mode L, two levels, and {size} as its image"
                _refuse(path, what, wanted, "several masks of one image must be so")
            masks.append(mask)
        if isinstance(target, dict):
            return torch.from_numpy(np.stack([_mask_ids(mask) for mask in masks]))
        if masks:
            return functools.reduce(ImageChops.lighter, masks)
        # Nothing is there: empty in the way of the targets that are.
        like = Image.new("L", size)
        with contextlib.suppress(OSError, ValueError):  # told where it is a target
            like = self.read_target(self.example) if self.example else like
        if isinstance(like, torch.Tensor):
            return like.new_zeros(len(like), *size[::-1])
        return like.resize(size).point(lambda _: 0)


def _size_of(picture: Image.Image | torch.Tensor) -> tuple[int, int]:
    """Give (width, height) of a picture, or of masks (K, H, W)."""
    if isinstance(picture, torch.Tensor):
        return picture.shape[-1], picture.shape[-2]
    return picture.size


def _mask_ids(mask: Image.Image) -> np.ndarray:
    """Turn a mask picture's 0, 255 and 128 into 0, 1 and 255, uint8 (H, W)."""
    ids = {0: 0, 255: 1, IGNORE_GREY: IGNORE_INDEX}
    counts = mask.histogram()
    if mask.mode != "L" or sum(counts) > sum(counts[grey] for grey in ids):
        raise ValueError(
            f"mask of mode {mask.mode} and values {np.unique(mask)[:8].tolist()}: "
            f"expected mode L of 0, 255 and {IGNORE_GREY} for ignored, as of load_mask"
        )
    return np.array(mask.point([ids.get(grey, 0) for grey in range(256)]))


class UIImageMaskDataset(PairDataset):
    """The pairs of a folder, as `find_pairs` lists them.

    overfit_num: with n > 0, n samples of the first pair alone, for overfitting on
    purpose. patterns, missing: see `find_pairs`. (notebook 02)
    """

    def __init__(
        self,
        data_dir: Path | str,
        transform: PairTransform | None = None,
        overfit_num: int = 0,
        *,
        patterns: Patterns | None = None,
        missing: str = "error",
        **options: Any,
    ) -> None:
        _check_number("overfit_num", overfit_num)
        pairs = find_pairs(data_dir, patterns, missing=missing)
        pairs = pairs[:1] * overfit_num if overfit_num else pairs
        super().__init__(pairs, transform, **options)


class OverfitDataset(PairDataset):
    """One pair, `number_of_samples` times; its two files are read once, here."""

    def __init__(
        self,
        input_file: Path | str,
        target_file: Path | str,
        number_of_samples: int = 2000,
        transform: PairTransform | None = None,
    ) -> None:
        _check_number("number_of_samples", number_of_samples, 1)
        pair = (Path(input_file), Path(target_file))
        super().__init__([pair] * number_of_samples, cache=True)
        self[0]  # fills the cache
        _check_paired(transform)
        self.transform = transform


# --------------------------------------------------------------------------------------
# 3. Paired transforms: one random draw for image and target. (notebook 03)
# --------------------------------------------------------------------------------------

# By this much scaling and turning may push a value out of 0..1.
ROUNDING = 1e-4


class PairedTransform:
    """One torchvision v2 transform applied to image and target with the same draw.

    v2 moves the target as a mask (nearest), not where only colours change. What is
    padded is ignored in the target: 255, or 128 in a mask picture; bool and int8, which
    cannot hold 255, become uint8 and int16. Else each comes back as what it was, an
    image picture as RGB. Raises ValueError when their sizes differ. (notebook 03)
    """

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform

    def __call__(self, image: Any, target: Any) -> Sample:
        given, ids = _check_pair(image, target)
        if isinstance(given, torch.Tensor):
            given = tv_tensors.Image(given)
        holds_255 = {torch.bool: torch.uint8, torch.int8: torch.int16}
        ids = ids.to(holds_255.get(ids.dtype, ids.dtype))
        layers = ids.reshape(-1, *ids.shape[-2:])
        layers = torch.cat([layers, torch.ones_like(layers[:1])])  # 0 in what is padded
        try:
            moved, mask = self.transform(given, _exact_mask()(layers))
        except (TypeError, NotImplementedError) as error:
            expected = "a transform that moves masks, too"
            _refuse(str(self.transform), str(error), expected, "leave it out")
        *layers, known = mask.as_subclass(torch.Tensor)
        layers = torch.where(known == 1, torch.stack(layers), IGNORE_INDEX)
        ids = layers if ids.ndim == 3 else layers[0]
        if isinstance(target, Image.Image):
            greys = torch.where(ids == IGNORE_INDEX, IGNORE_GREY, ids * 255)
            ids = Image.fromarray((greys if target.mode == "L" else ids).numpy())
            if target.mode == "P":
                # All 256 colours: Pillow stores ids beyond a shorter palette as others.
                palette = target.getpalette() or []
                default = [*itertools.chain(*CLASS_COLOURS)]
                ids.putpalette(palette + default[len(palette) :])
        return _as_given(image, target, moved, ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transform})"


@functools.cache
def _exact_mask() -> type[tv_tensors.Mask]:
    """Make the masks that v2 scales as it scales the image, by the centres of pixels.

    Its own take the first pixel of an area: half a new pixel apart (pytorch#34808). Its
    own are also padded with the image's fill, which may be a colour; these with 0.
    """

    class Mask(tv_tensors.Mask):
        pass

    def move(do: Any, ours: Any, mask: Any, *given: Any, **options: Any) -> Mask:
        # v2 goes through float32, which holds whole numbers up to that.
        if mask.dtype in (torch.int32, torch.int64) and mask.max() > 2**24:
            what, advice = f"ids up to {mask.max()}", "unpack packed masks first"
            _refuse("target", what, f"at most {2**24} where v2 scales", advice)
        options |= {name: ours[name] for name in ours if name in options}
        return Mask(do(mask.as_subclass(torch.Tensor), *given, **options))

    scaling = ("resize", "resized_crop")
    for name in (*scaling, "pad", "affine", "rotate", "perspective", "elastic"):
        way = "nearest-exact" if name in scaling else "nearest"
        ours = {"interpolation": v2.InterpolationMode(way), "fill": 0}
        do = getattr(v2.functional, name)
        v2.functional.register_kernel(do, Mask)(partial(move, do, ours))
    return Mask


def _check_pair(image: Any, target: Any) -> tuple[Any, torch.Tensor]:
    """Refuse unequal sizes; give a picture as RGB, and the target as ids."""
    sizes = [
        _size_of(one) if isinstance(one, Image.Image | torch.Tensor) else type(one)
        for one in (image, target)
    ]
    batch = max(getattr(one, "ndim", 0) for one in (image, target)) > 3
    if sizes[0] != sizes[1] or not isinstance(sizes[0], tuple) or batch:
        expected = "expected pictures or tensors of one size, of one sample"
        raise ValueError(f"image {sizes[0]} and target {sizes[1]} (W, H): {expected}")
    if isinstance(image, Image.Image):
        image = _to_rgb(image, "image")
    if isinstance(target, torch.Tensor):
        return image, target
    ids = np.array(target) if target.mode == "P" else _mask_ids(target)
    return image, torch.from_numpy(ids)


def _as_given(image: Any, target: Any, *new: Any) -> Sample:
    """Make tensors tv_tensors where one given was: v2 would leave a plain target."""
    kinds: list[Any] = [torch.Tensor, torch.Tensor]
    if any(isinstance(one, tv_tensors.TVTensor) for one in (image, target)):
        kinds = [tv_tensors.Image, tv_tensors.Mask]
    halves = (
        one.as_subclass(kind) if isinstance(one, torch.Tensor) else one
        for one, kind in zip(new, kinds, strict=True)
    )
    return Sample(*halves)


def _check_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Read one number as both sides of a square; (height, width) in pixels."""
    sides = np.ravel(size).tolist()
    whole = all(type(side) is int and side > 0 for side in sides)
    if not whole or len(sides) != 1 + np.ndim(size):
        expected = "expected one whole number of pixels, or (height, width)"
        raise ValueError(f"{name} {size!r}: {expected}")
    return sides[0], sides[-1]


@dataclass
class ImageTargetCompose:
    """Apply several paired transforms one after the other."""

    transforms: Sequence[PairTransform]

    def __post_init__(self) -> None:
        for transform in self.transforms:
            _check_paired(transform)

    def __call__(self, image: Any, target: Any) -> Sample:
        for transform in self.transforms:
            image, target = _transformed(transform, image, target)
        return Sample(image, target)


@dataclass
class ImageTargetToTensor:
    """Turn pictures into tensors.

    image: float32 (3, H, W) in 0..1; of tensors, uint8 and uint16 are scaled. target:
    float32 (1, H, W) of 0 and 1 from a mask (mode "L"), int64 (H, W) from class ids
    (mode "P"), float32 from masks (K, H, W); 255 where ignored.
    """

    def __call__(self, image: Any, target: Any) -> Sample:
        pixels, ids = _check_pair(image, target)
        if isinstance(pixels, Image.Image):
            pixels = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        whites = {torch.uint8: 255, torch.uint16: 65535}
        if pixels.dtype not in whites and not pixels.is_floating_point():
            expected = "expected uint8, uint16 or floats in 0..1"
            raise ValueError(f"image of {pixels.dtype}: {expected}")
        if isinstance(target, Image.Image) and target.mode == "L":
            ids = ids[None]
        if not ids.is_floating_point():
            ids = ids.float() if ids.ndim == 3 else ids.long()
        scaled = pixels.float() / whites.get(pixels.dtype, 1)
        return _as_given(image, target, scaled, ids)


class ImageTargetResize(PairedTransform):
    """Scale to a size: an int is the shorter side, a pair is (height, width).

    The image is antialiased; the target is sampled at the same places.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        sides = _check_size("size", size)
        super().__init__(v2.Resize(sides if np.ndim(size) else sides[0]))


@dataclass
class ImageTargetPad:
    """Pad to at least (height, width) at the right and the foot; target: ignored."""

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        self.size = _check_size("size", self.size)

    def __call__(self, image: Any, target: Any) -> Sample:
        missing = np.subtract(self.size[::-1], _size_of(image)).clip(0).tolist()
        return PairedTransform(v2.Pad([0, 0, *missing]))(image, target)


class ImageTargetRandomCrop(PairedTransform):
    """Cut the same random window out of both; what is too small is padded first."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__(v2.RandomCrop(_check_size("size", size), pad_if_needed=True))


class ImageTargetRandomHorizontalFlip(PairedTransform):
    """Mirror both left to right, or neither, with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(v2.RandomHorizontalFlip(p))


class ImageTargetRandomAffine(PairedTransform):
    """Turn, shift, scale and shear both by the same random amounts.

    degrees: turn by up to this much either way, or a pair (least, most). translate:
    largest shift as shares of (width, height). scale: pair of factors. shear: degrees.
    """

    def __init__(
        self,
        degrees: float | Sequence[float] = 0,
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
    ) -> None:
        bilinear = v2.InterpolationMode.BILINEAR
        super().__init__(v2.RandomAffine(degrees, translate, scale, shear, bilinear))


class ImageTargetColorJitter(PairedTransform):
    """Change the image's colours at random: 0.2 is 0.8 to 1.2 times; hue: 0 to 0.5."""

    def __init__(
        self,
        brightness: float = 0,
        contrast: float = 0,
        saturation: float = 0,
        hue: float = 0,
    ) -> None:
        super().__init__(v2.ColorJitter(brightness, contrast, saturation, hue))


@dataclass
class ImageTargetNormalize:
    """Take away each channel's mean and divide by its deviation.

    mean, std: three numbers each. image: float tensor in 0..1, or ValueError is raised.
    Not for what a system trains on, which predicts from images in 0..1: there the
    network must begin with v2.Normalize.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"{self}: expected as many of both, std above 0")

    def __call__(self, image: Any, target: Any) -> Sample:
        fits = isinstance(image, torch.Tensor) and image.is_floating_point()
        low, high = map(float, image.aminmax()) if fits else (0, 255)
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            kind = getattr(image, "dtype", "a picture")
            kind = f"{kind} of {low:.2f} to {high:.2f}" if fits else kind
            raise ValueError(
                f"Normalize got {kind}: expected a float tensor in 0..1; put "
                "ImageTargetToTensor before it, and normalize only once"
            )
        return Sample(v2.functional.normalize(image, [*self.mean], [*self.std]), target)


def denormalize(
    image: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Undo ImageTargetNormalize for display: float (..., 3, H, W), clamped to 0..1."""
    shift, scale = (image.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (image * scale + shift).clamp(0, 1)


# --------------------------------------------------------------------------------------
# 4. UNet: from an image to one logit per pixel and class. (notebook 04)
# --------------------------------------------------------------------------------------

# MobileNetV2's weights: the project's, not copied with the file, else torchvision's.
ENCODER_WEIGHTS = Path(__file__).parent / "checkpoints" / "mobilenet_v2.pt"
ENCODER_FILE = "mobilenet_v2-b0353104.pth"
ENCODER_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
FETCH_ENCODER = (
    'python -c "from torchvision.models import *; mobilenet_v2(weights='
    f"'IMAGENET1K_V1')\" fetches {ENCODER_FILE}, sha256 {ENCODER_SHA256}"
)


class InstanceNorm(nn.GroupNorm):
    """Centre each channel of each image, divide by its deviation, scale and shift.

    Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022. In training it is BatchNorm
    of one image at a time: the same, and with its gradient half the CPU time.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)  # a group per channel

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(image)
        options = {"training": True, "eps": self.eps}
        scaled = (
            F.batch_norm(one, None, None, self.weight, self.bias, **options)
            for one in image.split(1)
        )
        return torch.cat([*scaled])


class UpConv(nn.ConvTranspose2d):
    """Make four pixels of each, by four matrices: (B, C, H, W) -> (B, K, 2H, 2W).

    In training by one product of matrices: the same, and with its gradient two thirds
    of the CPU time.
    """

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out, 2, stride=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(image)
        batch, _, height, width = image.shape
        pixels = image.permute(0, 2, 3, 1).flatten(end_dim=2)  # a row for each
        weight = self.weight.permute(0, 2, 3, 1).flatten(start_dim=1)
        fours = torch.addmm(self.bias.repeat(4), pixels, weight)
        fours = fours.view(batch, height, width, 2, 2, -1).transpose(2, 3)
        doubled = fours.reshape(batch, 2 * height, 2 * width, -1)
        return doubled.permute(0, 3, 1, 2)  # channels last


class ConvBlock(nn.Sequential):
    """One 3x3 convolution and leaky ReLU, `InstanceNorm` in between if asked for."""

    def __init__(self, num_in: int, num_out: int, normalize: bool) -> None:
        layers: list[nn.Module] = [nn.Conv2d(num_in, num_out, 3, padding=1)]
        if normalize:
            layers.append(InstanceNorm(num_out))
        super().__init__(*layers, nn.LeakyReLU(0.1, inplace=True))


class Down(nn.Sequential):
    """Halve height and width, then a block: (B, C, H, W) -> (B, 2C, H/2, W/2)."""

    def __init__(self, num_in: int, normalize: bool) -> None:
        super().__init__(nn.MaxPool2d(2), ConvBlock(num_in, 2 * num_in, normalize))


class Up(nn.Module):
    """Double height and width, add the skip, then what a block makes of the two.

    x (B, 2C, H/2, W/2) and skip (B, C, H, W) -> (B, C, H, W). The paper concatenates x
    and skip; adding them is as accurate and a quarter cheaper. Adding the block's
    result to x (https://arxiv.org/abs/1512.03385) learns a picture in fewer steps.
    """

    def __init__(self, num_out: int, normalize: bool) -> None:
        super().__init__()
        self.up = UpConv(2 * num_out, num_out)
        self.block = ConvBlock(num_out, num_out, normalize)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return x + self.block(x + skip)


class UNet(nn.Module):
    """Logits for every pixel: (B, C, H, W) in 0..1 -> (B, K, H, W), any H, W >= 1.

    num_levels: each has half the height and width of the one above and twice its
    channels, `max_features` on the lowest; five with 256 have 1 M parameters. All but
    the first are normalised, each image for itself; normalize=False makes a pixel
    depend on its neighbourhood alone (notebook 11). fast: work at half the resolution
    inside; coarser on fine lines. Raises ValueError for images of other channels or of
    another type than the weights, and for none. Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597. (notebook 04)
    """

    def __init__(
        self,
        num_in_channels: int = 3,
        num_out_channels: int = 1,
        max_features: int = 256,
        *,
        normalize: bool = True,
        fast: bool = False,
        num_levels: int = 5,
    ) -> None:
        super().__init__()
        _check_number("num_in_channels", num_in_channels, 1)
        _check_number("num_out_channels", num_out_channels, 1)
        _check_number("num_levels", num_levels, 2, 9)
        shrunk = 2 ** (num_levels - 1)  # sides at the lowest level, by this
        _check_number("max_features", max_features, shrunk)
        if max_features % shrunk:
            expected = f"expected a multiple of {shrunk}; each level doubles them"
            raise ValueError(f"max_features {max_features}: {expected}")
        self.num_in_channels, self.num_out_channels = num_in_channels, num_out_channels
        self.shrink = 2 if fast else 1  # pixels per side of a cell inside
        self.multiple = shrunk * self.shrink  # what sides are padded to
        first, cell = max_features // shrunk, self.shrink**2
        widths = [first << level for level in range(num_levels - 1)]
        self.to_cells = nn.PixelUnshuffle(2) if fast else nn.Identity()
        self.first = ConvBlock(num_in_channels * cell, first, normalize=False)
        self.downs = nn.ModuleList(Down(width, normalize) for width in widths)
        # Where a cell sees most and convolving is cheapest: twice more, through few.
        self.middle = nn.Sequential(
            ConvBlock(max_features, max_features // 4, normalize),
            ConvBlock(max_features // 4, max_features, normalize),
        )
        self.ups = nn.ModuleList(
            Up(width, normalize and width > first) for width in widths[::-1]
        )
        self.head = nn.Conv2d(first, num_out_channels * cell, 1)
        self.to_pixels = nn.PixelShuffle(2) if fast else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        channels, dtype = self.num_in_channels, self.head.weight.dtype
        fits = image.ndim == 4 and image.shape[1] == channels and 0 not in image.shape
        if not fits or image.dtype != dtype:
            raise ValueError(
                f"UNet got {image.dtype} {tuple(image.shape)}: expected {dtype} (B, "
                f"{channels}, H, W) in 0..1; one image needs [None], other channels "
                "num_in_channels, whole numbers / 255"
            )
        size, step = image.shape[-2:], self.multiple
        # The lowest level keeps at least 2x2 cells, since one alone has no deviation.
        padded = [step * torch.sym_max((side + step - 1) // step, 2) for side in size]
        skips = self.encode(_window(image, *padded))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return _window(self.to_pixels(self.head(x)), *size)

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Go down: what each level keeps of a padded image, the finest first."""
        x = self.to_cells((image - 0.5) * 4)  # -2..2
        skips = [self.first(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        return [*skips[:-1], skips[-1] + self.middle(skips[-1])]

    def set_prior(self, shares: Sequence[float], *, exclusive: bool = False) -> None:
        """Start at the prior: the head's bias gives each class its share of the pixels.

        shares: of each class in the training data, 0..1, kept off both ends. They are
        probabilities of a sigmoid, log(p / (1 - p)); exclusive: of a softmax, log(p).
        """
        if len(shares) != self.num_out_channels:
            expected = f"expected {self.num_out_channels}, one per class"
            raise ValueError(f"{len(shares)} shares: {expected}")
        p = torch.as_tensor(shares, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
        bias = p.log() if exclusive else p.logit()
        with torch.no_grad():  # the same in all pixels of a cell
            self.head.bias.copy_(bias.repeat_interleave(self.shrink**2))


class MobileNetUNet(UNet):
    """A `UNet` that goes down by MobileNetV2, which ImageNet's photographs trained.

    One level more than `UNet`, 2.3 M parameters; images come in 0..1, as to UNet.
    weights: a file of torchvision's or of `tools.encoder_weights`; None: random. Raises
    ValueError for another file and FileNotFoundError for none, with how to get it.
    Sandler et al. 2018, https://arxiv.org/abs/1801.04381.
    """

    def __init__(
        self, num_out_channels: int = 1, weights: Path | str | None = ENCODER_WEIGHTS
    ) -> None:
        super().__init__(3, num_out_channels, 128)
        del self.downs, self.middle
        self.ups.insert(0, Up(128, normalize=True))
        self.multiple = 32
        # Cut where height and width have been halved, and with how many channels.
        cuts, channels = (0, 2, 4, 7, 14, 18), (16, 24, 32, 96, 320)
        layers = models.mobilenet_v2(weights=None).features[: cuts[-1]]
        # The weights: the file that is named, by default else torchvision's copy of it.
        if weights is not None:
            path = Path(weights)
            if path == ENCODER_WEIGHTS and not path.exists():
                path = Path(torch.hub.get_dir(), "checkpoints", ENCODER_FILE)
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                state = {key: state[f"features.{key}"] for key in layers.state_dict()}
                layers.load_state_dict(state)
            except Exception as error:  # of foreign bytes an unpickler makes anything
                kind = ValueError if path.exists() else FileNotFoundError
                what = f"{path}: {error!r:.90}; expected torchvision's MobileNetV2"
                raise kind(f"{what}; {FETCH_ENCODER}") from error
        # BatchNorm keeps the statistics that it came with, so it is a scale and a shift
        # of each channel, and becomes part of the convolution before it.
        for block in [*layers.modules()]:
            parts = [*block] if isinstance(block, nn.Sequential) else []
            for place, (conv, norm) in enumerate(itertools.pairwise(parts)):
                if isinstance(norm, nn.BatchNorm2d):
                    block[place] = fuse_conv_bn_eval(conv.eval(), norm.eval())
                    block[place + 1] = nn.Identity()
        self.encoder = nn.ModuleList(layers[a:b] for a, b in itertools.pairwise(cuts))
        convs = (nn.Conv2d(n, 16 << level, 1) for level, n in enumerate(channels))
        self.laterals = nn.ModuleList(convs)
        self.to(memory_format=torch.channels_last).train().requires_grad_()

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        colours = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]  # of ImageNet
        mean, deviation = image.new_tensor(colours).view(2, 3, 1, 1)
        x, skips = (image - mean) / deviation, [self.first((image - 0.5) * 4)]
        for part, lateral in zip(self.encoder, self.laterals, strict=True):
            x = part(x)
            skips.append(lateral(x))
        return skips


def _window(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut (..., height, width) out, or repeat the last row and column up to it."""
    if not torch.compiler.is_exporting() and image.shape[-2:] == (height, width):
        return image
    # By indices: a slice or a padding, exported, would be right for one size alone.
    rows, columns = (
        torch.arange(new, device=image.device).clamp(max=old - 1)
        for new, old in zip((height, width), image.shape[-2:], strict=True)
    )
    return image[:, :, rows][..., columns]


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation; afterwards each part is as it was."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    were_training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, were_training, strict=True):
            part.training = training


# --------------------------------------------------------------------------------------
# 5. Losses and scores: how wrong, how right. (notebooks 04 and 10)
# --------------------------------------------------------------------------------------


def bce_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    pos_weight: float | Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean binary cross entropy of logits, in float32, ignored pixels left out.

    logits, targets: (B, K, H, W), targets 0, 1 or 255 for ignored; where all is ignored
    the loss is 0. pos_weight: how often a foreground pixel counts, or K such numbers.
    """
    valid = _valid_pixels(logits, targets)
    weight = None
    if pos_weight is not None:
        weight = torch.as_tensor(pos_weight, dtype=torch.float32, device=logits.device)
        weight = weight.view(-1, 1, 1)
        sound = (weight > 0) & weight.isfinite()
        if len(weight) not in (1, logits.shape[1]) or not sound.all():
            expected = f"a number above 0, or {logits.shape[1]} of them, one per class"
            raise ValueError(f"pos_weight {pos_weight}: expected {expected}")
    known = (torch.where(valid, part.float(), 0) for part in (logits, targets))
    losses = F.binary_cross_entropy_with_logits(
        *known, pos_weight=weight, reduction="none"
    )
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - Dice of the probabilities, each image and class for itself, then averaged.

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797; one pixel is added above
    and below, so that nothing found where nothing is costs nothing.
    """
    valid = _valid_pixels(logits, targets)
    probabilities = torch.where(valid, logits.float(), 0).sigmoid() * valid
    wanted = targets.float() * valid
    both = (probabilities * wanted).sum(dim=(-2, -1))
    either = probabilities.sum(dim=(-2, -1)) + wanted.sum(dim=(-2, -1))
    return (1 - (2 * both + 1) / (either + 1)).mean()


def bce_dice_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    pos_weight: float | Sequence[float] | None = None,
) -> torch.Tensor:
    """Add `bce_loss` and `dice_loss`: every pixel counts, and so does every region."""
    return bce_loss(logits, targets, pos_weight) + dice_loss(logits, targets)


def _valid_pixels(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Check logits and targets against each other; bool like targets: not ignored."""
    if logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}: "
            "expected equal shapes (B, K, H, W), the logits first; class ids are for "
            'cross_entropy_loss, task="multiclass"'
        )
    valid = targets != IGNORE_INDEX
    if not ((targets == 0) | (targets == 1) | ~valid).all():
        raise ValueError(
            f"targets of {targets.min():g} to {targets.max():g}: expected 0, 1 and "
            f"{IGNORE_INDEX} for ignored; divide masks of 0/255 by 255"
        )
    return valid


def cross_entropy_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    class_weights: Sequence[float] | torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross entropy of classes that exclude each other, ignored pixels left out.

    logits: (B, K, H, W), K at least 2. targets: int64 (B, H, W), 0 to K - 1 or
    255 for ignored. class_weights: how much a pixel of each class counts; the mean is
    weighted too. With nothing but ignored pixels the loss is 0. (notebook 10)
    """
    batch, num_classes, *size = logits.shape if logits.ndim == 4 else (0, 0)
    ids = targets.dtype == torch.int64 and targets.shape == (batch, *size)
    if num_classes < 2 or not ids:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {targets.dtype} "
            f"{tuple(targets.shape)}: expected logits (B, K, H, W), K of 2 or more, "
            "and class ids, int64 (B, H, W); argmax(dim=1) turns one-hot into ids"
        )
    _check_class_ids("targets", targets, num_classes)
    if class_weights is None:
        class_weights = [1.0] * num_classes
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits.device)
    right = weights.shape == (num_classes,) and weights.isfinite().all()
    if not right or weights.min() < 0 or weights.max() == 0:
        expected = f"{num_classes} finite numbers from 0 up, one per class, not all 0"
        raise ValueError(f"class_weights {weights.tolist()}: expected {expected}")
    known = targets != IGNORE_INDEX
    judged = torch.where(known[:, None], logits.float(), 0)
    total = F.cross_entropy(
        judged, targets, weights, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    counts = torch.bincount(targets[known], minlength=num_classes)
    mass = (counts * weights).sum()
    return total / torch.where(mass > 0, mass, 1)


def iou_counts(prediction: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count intersection and union in pixels, int64 (2,), so that batches can be added.

    prediction: bool, of the targets' shape; ignored pixels count in neither.
    """
    wanted, found = targets == 1, prediction & (targets != IGNORE_INDEX)
    return torch.stack([(found & wanted).sum(), (found | wanted).sum()])


def iou_of(counts: torch.Tensor) -> torch.Tensor:
    """Divide intersection by union; 1 where nothing was to be found and nothing was."""
    both, either = counts
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def binary_iou(
    logits_or_probs: torch.Tensor,
    targets: torch.Tensor,
    *,
    from_logits: bool | None = None,
) -> torch.Tensor:
    """Intersection over union of all pixels together, 0..1; 1 where both are empty.

    Both of one shape; foreground is a logit above 0 or a probability above 0.5.
    from_logits says which came; without it, a value outside 0..1 means logits, so say
    it when logits could all be small. (Jaccard 1912; notebook 04)
    """
    _valid_pixels(logits_or_probs, targets)
    if from_logits is None:
        from_logits = bool(((logits_or_probs < 0) | (logits_or_probs > 1)).any())
    prediction = logits_or_probs > (0 if from_logits else 0.5)
    return iou_of(iou_counts(prediction, targets))


def confusion_matrix(
    prediction: torch.Tensor | np.ndarray | Image.Image,
    targets: torch.Tensor | np.ndarray | Image.Image,
    num_classes: int,
) -> torch.Tensor:
    """Count pixels by class, int64 (K, K): a row per target, a column per prediction.

    Both: class ids of one shape. Ignored pixels count nowhere. Batches can be added.
    """
    prediction, targets = map(_as_ids, (prediction, targets))
    floating = prediction.is_floating_point() or targets.is_floating_point()
    if prediction.shape != targets.shape or floating:
        raise ValueError(
            f"prediction {prediction.dtype} {tuple(prediction.shape)} and targets "
            f"{targets.dtype} {tuple(targets.shape)}: expected class ids of one shape; "
            "logits need argmax(dim=1)"
        )
    _check_class_ids("prediction", prediction, num_classes, ignored=False)
    _check_class_ids("targets", targets, num_classes)
    known = targets != IGNORE_INDEX
    pairs = targets[known].long() * num_classes + prediction[known].long()
    counts = torch.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_iou(matrix: torch.Tensor) -> torch.Tensor:
    """Give each class's IoU of a `confusion_matrix`, float32 (K,); NaN if nowhere."""
    both = matrix.diagonal()
    either = matrix.sum(dim=0) + matrix.sum(dim=1) - both
    return both / either


def mean_iou(matrix: torch.Tensor) -> torch.Tensor:
    """Average the IoU of the classes that occur or were predicted; 1 if none is."""
    return class_iou(matrix).nanmean().nan_to_num(1.0)


def shares_of_classes(
    targets: Iterable[torch.Tensor], num_classes: int
) -> torch.Tensor:
    """Count the share of each class, float32 (K,), among the pixels not ignored."""
    counts = torch.zeros(num_classes, dtype=torch.long)
    for ids in map(_as_ids, targets):
        _check_class_ids("target", ids, num_classes)
        known = ids[ids != IGNORE_INDEX].long()
        counts += torch.bincount(known, minlength=num_classes)
    return counts / counts.sum().clamp(min=1)


def foreground_share(targets: Iterable[torch.Tensor]) -> float:
    """Count the share of foreground, 0..1, among the pixels that are not ignored."""
    return float(shares_of_classes(targets, 2)[1])


# --------------------------------------------------------------------------------------
# 6. Showing: the same colours in every figure. (notebook 01)
# --------------------------------------------------------------------------------------


def to_array(picture: Any) -> np.ndarray:
    """Turn a picture of any kind into uint8 (H, W, 3) for display.

    PIL pictures, arrays, and tensors: float (3, H, W) or (1, H, W) and (H, W) in 0..1,
    bool masks, and integer class ids (H, W), which get their colours. Raises ValueError
    for logits: make them probabilities first.
    """
    if isinstance(picture, Image.Image):
        return np.array(_to_rgb(picture, "picture"))
    if isinstance(picture, np.ndarray):
        picture = np.ascontiguousarray(picture)  # torch cannot read backwards
    values = torch.as_tensor(picture).detach().cpu()
    in_0_to_1 = values.is_floating_point() or values.dtype == torch.bool
    values = values.float() if in_0_to_1 else values.long()
    if values.ndim == 2 and not in_0_to_1:
        return np.array(classes_to_colors(values, CLASS_COLOURS[:IGNORE_INDEX]))
    values = values[None] if values.ndim == 2 else values
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.permute(1, 2, 0)
    fits = values.ndim == 3 and values.shape[2] in (1, 3)
    high = (1 if in_0_to_1 else 255) + ROUNDING
    if not (fits and values.min() >= -ROUNDING and values.max() <= high):
        raise ValueError(
            f"picture of shape {tuple(values.shape)}, {values.min():.2f} to "
            f"{values.max():.2f}: expected (H, W), (H, W, 3), (1, H, W) or (3, H, W), "
            "floats in 0..1, integers in 0..255; logits need a sigmoid, normalized "
            "images denormalize"
        )
    if in_0_to_1:
        values = (values.clamp(0, 1) * 255).round()
    return values.to(torch.uint8).expand(*values.shape[:2], 3).numpy().copy()


def _as_bool(mask: Any) -> np.ndarray:
    """Give a mask of any kind as bool (H, W); ignored pixels are not in it."""
    mask = mask.detach().cpu() if isinstance(mask, torch.Tensor) else mask
    is_target = isinstance(mask, torch.Tensor) and mask.is_floating_point()
    values = np.asarray(mask.float() if is_target else mask)
    found = set(np.unique(values).tolist())
    if values.ndim >= 2 and values.size == math.prod(values.shape[-2:]):
        values = values.reshape(values.shape[-2:])
        is_target |= values.dtype == bool or 1 in found
        if is_target and found <= {0, 1, IGNORE_INDEX}:
            return values == 1
        if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:
            return values > 0.5
        if found <= {0, IGNORE_GREY, 255}:
            return values == 255
    raise ValueError(
        f"mask of shape {values.shape} and values {sorted(found)[:8]}: expected (H, W) "
        "or (1, H, W) of bool, 0 and 1, 0 and 255 or probabilities; of class ids take "
        "one, as ids == 3, or paint all with classes_to_colors"
    )


def overlay(
    image: Any,
    mask: Any,
    color: tuple[int, int, int] = (255, 0, 80),
    alpha: float = 0.55,
) -> Image.Image:
    """Tint a mask's pixels in an image.

    image: as in `to_array`. mask: a mask picture or (H, W) of bool, 0 and 1, 0 and 255
    or probabilities, above 0.5. Raises ValueError for others, or if the sizes differ.
    """
    _check_number("alpha", alpha, 0, 1, whole=False)
    pixels, where = to_array(image), _as_bool(mask)
    if where.shape != pixels.shape[:2]:
        raise ValueError(f"mask {where.shape} on an image of {pixels.shape[:2]} (H, W)")
    painted = pixels[where] * (1 - alpha) + np.array(color) * alpha
    pixels[where] = painted.round().astype(np.uint8)
    return Image.fromarray(pixels)


def show(
    *rows: Sequence[Any],
    titles: Sequence[str] = (),
    height: float | None = None,
    legend: Sequence[str] = (),
) -> None:
    """Draw rows of pictures, each of a kind that `to_array` knows, titles on top.

    height: of one row, in inches; without it the first picture has its own size, a
    pixel for each of its own. legend: class names, shown in the palette's colours.
    """
    import matplotlib.pyplot as plt

    pictures = [[to_array(picture) for picture in row] for row in rows]
    columns, (tall, wide, _) = max(map(len, rows)), pictures[0][0].shape
    height = height or tall / plt.rcParams["figure.dpi"]
    width, gap = height * wide / tall, 0.08
    head, foot = 0.22 * bool(titles), 0.22 * math.ceil(len(legend) / 5)
    whole = len(rows) * (height + gap) - gap + head + foot
    size = columns * (width + gap) - gap, whole
    figure, axes = plt.subplots(len(rows), columns, squeeze=False, figsize=size)
    edges = {"left": 0, "right": 1, "bottom": foot / whole, "top": 1 - head / whole}
    figure.subplots_adjust(**edges, wspace=gap / width, hspace=gap / height)
    for row, row_axes in zip(pictures, axes, strict=True):
        for picture, axis in itertools.zip_longest(row, row_axes):
            axis.set(xticks=[], yticks=[], visible=picture is not None)
            axis.spines[:].set(color="0.7", linewidth=0.5)  # around white masks
            if picture is not None:
                axis.imshow(picture)
    for title, axis in zip(titles, axes[0], strict=False):
        axis.set_title(title, fontsize=9)
    if legend:
        colours = np.array(CLASS_COLOURS[1 : len(legend) + 1]) / 255
        handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours]
        figure.legend(handles, legend, loc="lower center", ncols=5, fontsize=8)
    plt.show()


@contextlib.contextmanager
def _atomic_write(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; what is whole is moved into place."""
    part = path.with_name(f".{path.name[-60:]}.part")  # names have at most 255 bytes
    try:
        yield part
        part.replace(path)
    except (OSError, RuntimeError) as error:  # of a full disk torch makes both
        what = f"{path}: could not be written, disk full? ({error})"
        raise OSError(what) from error
    finally:
        with contextlib.suppress(OSError):  # where there is no such folder
            part.unlink()


def save_mask(mask: Any, path: Path | str) -> None:
    """Write a mask, of a kind that `overlay` takes, as a PNG of 0 and 255.

    Raises ValueError for another suffix: a JPEG would blur it.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: expected a name ending in .png, to keep it exact")
    picture = Image.fromarray(_as_bool(mask)).convert("L")
    with _atomic_write(path) as part:
        picture.save(part, format="PNG")


def save_gif(frames: Sequence[Any], path: Path | str, duration: float = 100) -> None:
    """Write pictures, each as in `to_array`, as an endless GIF; duration in ms a frame.

    Raises ValueError for no frames, several sizes, another suffix, less than 10 ms.
    """
    import imageio.v3 as iio

    path, pictures = Path(path), [to_array(frame) for frame in frames]
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) != 1 or path.suffix.lower() != ".gif" or duration < 10:
        raise ValueError(
            f"{path}: {len(pictures)} frames of sizes {sorted(sizes)}, {duration} ms "
            "each; expected frames of one size, a name ending in .gif, 10 ms or more"
        )
    with _atomic_write(path) as part:
        iio.imwrite(part, pictures, extension=".gif", duration=duration, loop=0)


# --------------------------------------------------------------------------------------
# 7. Training: the Lightning system, its data, what a run keeps. (notebooks 05 and 06)
# --------------------------------------------------------------------------------------

if __name__ == "__main__" and sys.argv[1] != "train":
    # `check` and `predict` train nothing, and Lightning takes seconds to import.
    pl = SimpleNamespace(
        LightningModule=nn.Module, LightningDataModule=object, Callback=object
    )
    TorchCheckpointIO = object
else:
    import pytorch_lightning as pl
    from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
    from pytorch_lightning.plugins.io import TorchCheckpointIO

LOSSES = {"bce": bce_loss, "bce_dice": bce_dice_loss}
# What targets are, and what predicts them.
TASKS = {
    "binary": "predict_mask",
    "multilabel": "predict_masks",
    "multiclass": "predict_classes",
}


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones.

    glibc gives large blocks back to the system and has each page of them faulted in
    again: a third of the CPU time of a step. Does nothing, and gives False, with other
    libraries (musl, macOS, Windows). The process stays as large as it was at its peak.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    return all([mallopt(-4, 0), mallopt(-1, 2**31 - 1)])


def quiet_lightning() -> None:
    """Silence what Lightning says about the machine and about small data."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)


class Muon(torch.optim.Optimizer):
    """Move convolution kernels by Muon, and all other weights by Adam.

    A kernel is a matrix with a row per output (of `UpConv` per input); its step is the
    orthogonal matrix that is nearest to the gradient with Nesterov momentum, so that
    all directions learn alike. Five Newton-Schulz steps find it, in float32, on the
    smaller Gram matrix. lr: Adam's rate; kernels of 16 or more outputs and 8 or more
    inputs (channels times area) move at KERNEL_RATE times it. A network without such
    kernels, and a group that `add_param_group` adds, move by Adam. Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon; Adam: https://arxiv.org/abs/1412.6980
    """

    KERNEL_RATE = 7.5

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 4e-3) -> None:
        groups = [{"params": [], "lr": lr}, {"params": [], "lr": lr * self.KERNEL_RATE}]
        for weight in parameters:
            is_kernel = weight.ndim == 4 and len(weight) > 15 and weight[0].numel() > 7
            groups[is_kernel]["params"].append(weight)
        super().__init__(groups, {"betas": (0.95, 0.999)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step; closure: computes the loss and the gradients."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        others, kernels, *added = self.param_groups
        for weight in kernels["params"]:
            if weight.grad is not None:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.mul_(0.95).add_(weight.grad)
                matrix = (weight.grad + 0.95 * mean).flatten(start_dim=1)
                scale = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
                step = self.nearest_orthogonal(matrix).view_as(weight)
                weight.sub_(step, alpha=kernels["lr"] * scale)
        for group in (others, *added):
            first, second = group["betas"]
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.state[weight]
                    mean = state.setdefault("mean", torch.zeros_like(weight))
                    square = state.setdefault("square", torch.zeros_like(weight))
                    count = state["count"] = state.get("count", 0) + 1
                    mean.lerp_(weight.grad, 1 - first)
                    square.lerp_(weight.grad**2, 1 - second)
                    deviation = (square / (1 - second**count)).sqrt() + 1e-8
                    rate = group["lr"] / (1 - first**count)
                    weight.addcdiv_(mean, deviation, value=-rate)
        return loss

    @staticmethod
    def nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
        """Push the singular values of a float matrix to about 1 (0.7 to 1.2)."""
        wide = matrix.float() if len(matrix) <= matrix.shape[1] else matrix.float().T
        wide = wide / (wide.norm() + 1e-7)
        gram, factors = wide @ wide.T, []
        for step in range(5):
            if step:
                gram = factors[-1] @ gram @ factors[-1]
            factor = torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
            factor.diagonal().add_(3.4445)
            factors.append(factor)
        found = torch.linalg.multi_dot([*factors, wide])
        return found if len(matrix) <= matrix.shape[1] else found.T


OPTIMIZERS = {"muon": Muon, "adam": torch.optim.Adam}
TOO_OLD = "of version 0.2 or before, whose UNet was another"
# The rate of weights that come trained, as a share of the others' under Adam.
PRETRAINED_RATE = 1 / 8


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Let the rate of each group peak at its own value after a fifth of the steps.

    It starts at a tenth of that and ends at a thousandth, to be stepped each batch.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    # After a single step of warm-up torch 2.15 divides by zero.
    warm_up = 0.2 if steps * 0.2 != 1 else 0.22
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, steps, pct_start=warm_up, div_factor=10, final_div_factor=100
    )


@dataclass(eq=False)
class UISegmentationData(pl.LightningDataModule):
    """The pairs of a folder as batches, for training and for validation.

    image_size: (height, width), or one number for both, that all are scaled to.
    overfit_num: train on that many samples of the first pair, and validate on it.
    Otherwise `val_share` of the pairs, drawn by `seed`, is kept for validation;
    `scenes` says which scene an image (by file name) shows: none is on both sides.
    augment: a paired transform for scaled training pictures. cache: keep the scaled
    pictures, H * W * 4 bytes a pair. patterns, missing: see `find_pairs`. read_target:
    `load_classes` gives class ids, `load_masks` overlapping masks. (notebooks 05, 06)
    """

    data_dir: Path | str
    batch_size: int = 4
    image_size: int | tuple[int, int] = (256, 256)
    overfit_num: int = 0
    _: KW_ONLY
    val_share: float = 0.2
    scenes: Mapping[str, str] | None = None
    augment: PairTransform | None = None
    patterns: Patterns | None = None
    missing: str = "error"
    read_target: ReadTarget = load_mask
    num_workers: int = 0
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        _check_number("batch_size", self.batch_size, 1)
        _check_number("overfit_num", self.overfit_num)
        _check_number("num_workers", self.num_workers)
        _check_number("val_share", self.val_share, 0.001, 0.999, whole=False)
        self.batch_size, self.num_workers = int(self.batch_size), int(self.num_workers)
        self.image_size = _check_size("image_size", self.image_size)
        _check_choice("missing", self.missing, MISSING)
        if not isinstance(self.scenes, Mapping | None):
            raise ValueError(f"scenes {self.scenes!r}: expected what read_scenes gives")
        _check_paired(self.augment)
        steps = [ImageTargetResize(self.image_size), ImageTargetToTensor()]
        self.transform = ImageTargetCompose(steps)

    def split(self, num_processes: int = 1) -> tuple[list[Pair], list[Pair]]:
        """List the pairs to train on, a batch for each process, and to validate on."""
        folder = Path(self.data_dir)
        pairs = find_pairs(folder, self.patterns, missing=self.missing)
        if self.overfit_num:
            train, val = pairs[:1] * self.overfit_num, pairs[:1]
        else:
            names = [image.relative_to(folder).as_posix() for image, _ in pairs]
            scenes = names
            if self.scenes is not None:
                scenes = [_scene_of(name, self.scenes) for name in names]
            if None in scenes:
                what = names[scenes.index(None)]
                raise ValueError(f"{what}: no scene; expected one for every image")
            parts = group_split(scenes, self.val_share, self.seed)
            train, val = ([pairs[i] for i in part] for part in parts)
        wanted = self.batch_size * num_processes
        if len(train) < wanted:
            what = f"only {len(train)} training samples, not one batch"
            if num_processes > 1:
                what += f" for each of {num_processes} processes"
            advice = "give a smaller one (--batch-size), or more pictures"
            raise ValueError(f"batch_size {self.batch_size}: {what}; {advice}")
        return train, val

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps: the names of the images to validate on."""
        folder = Path(self.data_dir)
        pairs = self.val_set.pairs
        return {"val": [image.relative_to(folder).as_posix() for image, _ in pairs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse to train on, with ValueError, when other images are validated on."""
        others = {*self.state_dict()["val"]} ^ {*state["val"]}
        if others and self.trainer.state.fn == "fit":
            what = f"validates on other images than the checkpoint's run, {min(others)}"
            advice = "for other pictures, start a new run from its weights"
            _refuse(self.data_dir, what, "the same names and split", advice)

    def setup(self, stage: str | None = None) -> None:
        """Open the two parts; runs in every process."""
        train, val = self.split(self.trainer.world_size if self.trainer else 1)
        resize, to_tensor = self.transform.transforms
        steps = [to_tensor] if self.augment is None else [self.augment, to_tensor]
        options = {"read_target": self.read_target, "cache": self.cache}
        options["prepare"] = resize
        self.train_set = PairDataset(train, ImageTargetCompose(steps), **options)
        self.val_set = PairDataset(val, to_tensor, **options)
        self.val_set.example = self.train_set.example = PairDataset(train + val).example

    def train_dataloader(self) -> DataLoader:
        """Shuffled whole batches of samples, all of one size, as `Sample` has them."""
        options = {"batch_size": self.batch_size, "num_workers": self.num_workers}
        return DataLoader(self.train_set, shuffle=True, drop_last=True, **options)

    def val_dataloader(self) -> DataLoader:
        """All of the validation set, in order, each sample in one process."""
        data, world, rank = self.val_set, 1, 0
        if self.trainer and self.trainer.world_size <= len(data):  # else all in each
            world, rank = self.trainer.world_size, self.trainer.global_rank
        once = UnrepeatedDistributedSampler(data, world, rank, shuffle=False)
        options = {"batch_size": self.batch_size, "num_workers": self.num_workers}
        return DataLoader(data, sampler=once, **options)


class UISegmentationSystem(pl.LightningModule):
    """A network and how it is trained: loss, scores, optimiser and schedule.

    learning_rate: the peak of `one_cycle`. optimizer: "muon" (see `Muon`) or "adam".
    image_size: (height, width) to predict at; without it that of the data trained with,
    else each picture's own. unet: settings of `UNet`. encoder: "mobilenet_v2" makes the
    network a `MobileNetUNet`, which starts with encoder_weights. network: any module in
    its place, from (B, 3, H, W) in 0..1 to logits (B, K, H, W), or a dictionary with
    them as "out". One that was trained on normalised images needs v2.Normalize before
    it, in an nn.Sequential. multiple_of: what its sides must be multiples of; images
    are padded, logits cut. pretrained: the part of it that comes trained, such as
    "encoder": Adam moves that, at PRETRAINED_RATE times the learning rate.

    task: what targets are. "binary": one mask (1, H, W). "multilabel": K masks that may
    overlap, (K, H, W). "multiclass": class ids (H, W). The last two need
    num_out_channels=K. loss, "bce" or "bce_dice", and pos_weight are for masks; classes
    have cross entropy, with class_weights. Logs train_loss, val_loss, and val_iou, as
    of `score_of`; with more than one class also val_iou_NAME of each, by class_names.
    class_values: what each is in a file, an id or a colour, for `predict`. `settings`
    is what a checkpoint keeps to make the system again. (notebooks 05, 10)
    """

    def __init__(
        self,
        learning_rate: float = 4e-3,
        max_features: int = 256,
        *,
        task: str = "binary",
        loss: str = "bce_dice",
        optimizer: str = "muon",
        pos_weight: float | Sequence[float] | None = None,
        class_weights: Sequence[float] | None = None,
        class_names: Sequence[str] = (),
        class_values: Sequence[MaskValue] = (),
        image_size: int | tuple[int, int] | None = None,
        num_out_channels: int = 1,
        encoder: str = "unet",
        encoder_weights: Path | str | None = ENCODER_WEIGHTS,
        network: nn.Module | None = None,
        multiple_of: int = 1,
        pretrained: str = "",
        **unet: Any,
    ) -> None:
        settings = {**locals(), **unet}  # before there are other names
        for name in ("self", "__class__", "unet", "encoder_weights"):
            del settings[name]
        super().__init__()
        _check_choice("task", task, TASKS)
        _check_choice("loss", loss, LOSSES)
        _check_choice("optimizer", optimizer, OPTIMIZERS)
        _check_number("learning_rate", learning_rate, 1e-9, 1e3, whole=False)
        exclusive = task == "multiclass"  # each pixel is of one class
        least, most = {"binary": (1, 1), "multiclass": (2, 255)}.get(task, (1, 63))
        name = f'num_out_channels with task "{task}"'
        _check_number(name, num_out_channels, least, most)
        for_masks = loss != "bce_dice" or pos_weight is not None
        for_classes = class_weights is not None
        if (exclusive and for_masks) or (not exclusive and for_classes):
            raise ValueError(
                f'task "{task}" with loss {loss!r}, pos_weight {pos_weight} and '
                f"class_weights {class_weights}: expected the first two for masks, the "
                'last for "multiclass", whose loss is cross entropy'
            )
        if len(class_names) not in (0, num_out_channels):
            raise ValueError(f"class_names {class_names}: expected {num_out_channels}")
        if not isinstance(network, nn.Module | None):
            raise ValueError(f"network {network!r}: expected a torch.nn.Module")
        if network is not None and unet:
            raise ValueError(f"{[*unet]}: expected no settings of UNet with network")
        _check_choice("encoder", encoder, ("unet", "mobilenet_v2"))
        _check_number("multiple_of", multiple_of, 1)
        unet["max_features"] = max_features
        usual = unet.items() <= {"max_features": 256, "fast": False}.items()
        usual = usual and multiple_of == 1 and pretrained in ("", "encoder")
        if encoder != "unet" and (network is not None or not usual):
            expected = "it without network, max_features and settings of UNet"
            advice = "it has its own multiple_of and pretrained"
            raise ValueError(f"encoder {encoder}: expected {expected}; {advice}")
        if encoder == "unet" and encoder_weights not in (None, ENCODER_WEIGHTS):
            expected = 'expected encoder="mobilenet_v2" with it'
            raise ValueError(f"encoder_weights {encoder_weights}: {expected}")
        self.task, self.exclusive = task, exclusive
        self.num_out_channels = num_out_channels
        settings["network"] = None if network is None else type(network).__qualname__
        if encoder != "unet":
            network = MobileNetUNet(num_out_channels, encoder_weights)
            settings["pretrained"] = "encoder"
        elif network is None:
            network = UNet(num_out_channels=num_out_channels, **unet)
        if pretrained not in dict(network.named_modules()):
            expected = f"a part, as of {[name for name, _ in network.named_children()]}"
            raise ValueError(f"pretrained {pretrained!r}: expected {expected}")
        self.network = network
        if multiple_of > 1:
            self.multiple = multiple_of  # tells `predict_tiled`, as a UNet's does
        # What a checkpoint keeps: plain values, also of arrays and tensors.
        values = json.dumps(settings, default=lambda value: value.tolist())
        self.settings = json.loads(values)
        self.size_from_data = image_size is None
        if image_size is not None:
            self.settings["image_size"] = _check_size("image_size", image_size)
        # Weights that the loss refuses are refused here, on one pixel.
        logits = torch.zeros(1, num_out_channels, 1, 1)
        targets = logits.argmax(dim=1) if exclusive else logits
        UISegmentationSystem.loss(self, logits, targets)  # not that of a subclass

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A subclass's own, made plain: a checkpoint of other things is not read again.
        plain = json.dumps(
            {**self.hparams},
            default=lambda v: v.tolist() if hasattr(v, "shape") else str(v),
        )
        checkpoint["hyper_parameters"] = json.loads(plain) | self.settings
        if type(self).forward is not UISegmentationSystem.forward:
            checkpoint["forward"] = type(self).__qualname__  # load_system has none

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning would say "Missing key(s)", as it still does of another model's.
        kept = (checkpoint.get("hyper_parameters") or self.settings).get("optimizer")
        own = self.settings["optimizer"]
        if kept is None:
            raise ValueError(f"the checkpoint is {TOO_OLD}; train it with this module")
        goes_on = self._trainer is not None and self.trainer.state.fn == "fit"
        if goes_on and kept != own:
            raise ValueError(
                f"the checkpoint's run moves weights by {kept}, this system by {own}: "
                "expected the same; to change it, start a new run from its weights "
                "(load_system)"
            )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits (B, K, H, W) of images (B, 3, H, W) in 0..1."""
        step, own = self.settings["multiple_of"], self.settings["network"]
        height, width = (-(-side // step) * step for side in image.shape[-2:])
        try:
            logits = self.network(_window(image, height, width))
        except Exception as error:  # foreign networks raise all kinds
            # UNet says it by itself, and of memory there is another way out.
            if own is None or isinstance(error, torch.OutOfMemoryError):
                raise
            what = f"{own} failed on {image.dtype} {tuple(image.shape)}: {error!r}"
            raise ValueError(
                f"{what}; expected a network of float images (B, 3, H, W); sides that "
                "must be multiples, say of 32, need multiple_of=32, one fixed size "
                "image_size, BatchNorm in training batches of two or more"
            ) from error
        if isinstance(logits, dict):
            logits = logits.get("out", logits)
        expected = (image.shape[0], self.num_out_channels, height, width)
        if getattr(logits, "shape", None) != expected:
            what = getattr(logits, "shape", type(logits).__name__)
            form = f'logits {expected}, or a dictionary with them as "out"'
            advice = "wrap the network in a module that returns them"
            raise ValueError(f"the network gave {what}: expected {form}; {advice}")
        return _window(logits, *image.shape[-2:])

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Measure how wrong logits (B, K, H, W) are; targets as the task has them."""
        if self.exclusive:
            return cross_entropy_loss(logits, targets, self.settings["class_weights"])
        loss = LOSSES[self.settings["loss"]]
        return loss(logits, targets, self.settings["pos_weight"])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits (B, K, H, W) into probabilities, 0..1."""
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()

    def count(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Count what `score_of` needs; the counts of batches can be added.

        A confusion matrix (K, K), or intersection and union of each mask, (2, K).
        """
        if self.exclusive:
            return confusion_matrix(logits.argmax(dim=1), targets, logits.shape[1])
        pairs = zip((logits > 0).unbind(1), targets.unbind(1), strict=True)
        return torch.stack([iou_counts(*pair) for pair in pairs], dim=1)

    def score_of(self, counts: torch.Tensor) -> torch.Tensor:
        """Give val_iou, 0..1: of all masks together, or the mean over classes."""
        return mean_iou(counts) if self.exclusive else iou_of(counts.sum(dim=1))

    def on_fit_start(self) -> None:
        """Predict, unless told otherwise, at the size that is trained at.

        Numbers below 1e-38 become 0 in this process: a CPU computes with them a
        hundred times more slowly, and gradients are full of them once a loss is tiny.
        """
        torch.set_flush_denormal(True)
        size = getattr(self.trainer.datamodule, "image_size", None)
        if size is not None and self.size_from_data:
            self.settings["image_size"] = size
        if not any(part.training for part in self.modules()):  # as of load_system
            self.train()
        if self.global_rank:  # other augmentations in each further process
            seed = hash((torch.initial_seed(), self.global_rank)) % 2**32
            for start in (random.seed, np.random.seed, torch.manual_seed):
                start(seed)

    def on_train_start(self) -> None:
        """Check what there is to learn, and start at its shares of the classes."""
        steps = int(self.trainer.estimated_stepping_batches)
        planned = getattr(self.lr_schedulers(), "total_steps", steps)
        if self.trainer.ckpt_path is not None and planned != steps:
            raise ValueError(
                f"the checkpoint was to train for {planned} steps, the Trainer for "
                f"{steps}; expected the same max_epochs, data, batch size and devices; "
                "for more training, start a new run from its weights"
            )
        if self.trainer.ckpt_path is not None:
            return
        targets = self._check_samples(self.trainer.train_dataloader, "training")
        self._check_samples(self.trainer.val_dataloaders, "validation")
        fresh = isinstance(self.network, UNet) and not self.network.head.bias.any()
        if fresh and targets:
            if self.exclusive:
                shares = shares_of_classes(targets, self.num_out_channels)
            else:
                shares = list(map(foreground_share, zip(*targets, strict=True)))
            # Each process has augmented other targets; all start at the first's shares.
            shares = self.trainer.strategy.broadcast(shares)
            self.network.set_prior(shares, exclusive=self.exclusive)

    def _check_samples(self, loader: Any, part: str) -> list[torch.Tensor]:
        """Refuse samples of another form; gives the targets of the first hundred."""
        dataset = getattr(loader, "dataset", None)
        stream = isinstance(dataset, IterableDataset)
        once = stream and (part == "validation" or iter(dataset) is iter(dataset))
        if dataset is None or once:  # nothing to look at, or not without taking it
            return []
        # A stream, which has no length, may be endless.
        total = len(dataset) if hasattr(dataset, "__len__") else 100
        samples = itertools.islice(iter(dataset), total)
        draws = getattr(dataset, "_draws", torch.zeros(0))  # of a RandomTileDataset
        before = draws.clone()
        seen = list(itertools.islice(samples, 100))
        for sample in seen:
            halves = sample if isinstance(sample, tuple | list) else [sample]
            tensors = all(isinstance(half, torch.Tensor) for half in halves)
            if len(halves) != 2 or not tensors or not halves[0].max() <= 16:
                shown = [
                    f"{half.dtype} {tuple(half.shape)} up to {half.max():.6g}"
                    if isinstance(half, torch.Tensor)
                    else type(half).__name__
                    for half in halves
                ]
                raise ValueError(
                    f"{part} sample of {', '.join(shown)}: expected two tensors, the "
                    "image float (3, H, W) in 0..1, the target; see ImageTargetToTensor"
                )
            logits = torch.zeros(1, self.num_out_channels, *halves[1].shape[-2:])
            self.loss(logits, halves[1][None])  # refuses targets of another task
        targets = [target for _, target in seen]
        # To validate, targets that show nothing will do, unless some of it is ignored.
        needed = part == "training" or any((t == IGNORE_INDEX).any() for t in targets)
        # Where the first show nothing, go on until something is there to be learnt.
        every = itertools.chain(targets, (target for _, target in samples))
        if needed and not any(((t > 0) & (t != IGNORE_INDEX)).any() for t in every):
            what = f"no {part} target has a pixel of 1, or a class but 0: expected one"
            raise ValueError(f"{what}; divide masks of 0/255 by 255, or ignore less")
        draws.copy_(before)  # the look was no epoch
        return targets

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        image, target = batch
        logits = self(image)
        if self.global_step == 0 and 0 <= logits.min() <= logits.max() <= 1:
            text = "the network gives 0 to 1 alone, as probabilities; expected logits: "
            warnings.warn(f"{text}leave out its sigmoid or softmax", stacklevel=2)
        loss = self.loss(logits, target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._counts, self._loss_sum = 0, torch.zeros(2, device=self.device)

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        image, target = batch
        logits = self(image)
        known = (target != IGNORE_INDEX).sum()
        if weights := self.settings["class_weights"]:  # by which the loss is a mean
            known = sum(w * (target == i).sum() for i, w in enumerate(weights))
        self._loss_sum += torch.stack([self.loss(logits, target) * known, known])
        self._counts += self.count(logits, target)

    def on_validation_epoch_end(self) -> None:
        over_processes = partial(self.trainer.strategy.reduce, reduce_op="sum")
        counts, (loss, known) = map(over_processes, (self._counts, self._loss_sum))
        if not known:
            what = "no validation target has a pixel that is not ignored: expected some"
            raise ValueError(f"{what}; split otherwise, by another seed or scenes")
        self.log("val_loss", loss / known)
        self.log("val_iou", self.score_of(counts))
        if self.num_out_channels > 1:
            of_class = class_iou if self.exclusive else iou_of
            names = self.settings["class_names"] or range(self.num_out_channels)
            for name, iou in zip(names, of_class(counts), strict=True):
                self.log(f"val_iou_{name}", iou)

    def check_losses(self) -> None:
        """Refuse, with ValueError, to go on once a loss of the epoch is no number."""
        for name in ("train_loss", "val_loss"):
            loss = float(self.trainer.callback_metrics.get(name, 0))
            if not math.isfinite(loss):
                what = f"{loss} in epoch {self.current_epoch + 1}"
                advice = "train anew with a lower learning rate"
                _refuse(name, what, "a finite number", advice)

    on_train_epoch_end = check_losses  # `RunFolder` comes before it, and asks as well

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Probabilities (B, K, H, W) of a batch of images or samples."""
        image = batch if isinstance(batch, torch.Tensor) else batch[0]
        return self.probabilities(self(image))

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule, where Lightning's Tuner reads and changes it."""
        return self.settings["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.settings["learning_rate"] = rate

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """The optimizer that was asked for under OneCycle, stepped each batch."""
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            what = f"training of {steps} steps: the OneCycle schedule needs a number"
            advice = "give the Trainer max_epochs or max_steps, the latter for a stream"
            raise ValueError(f"{what}; {advice}")
        rate, part = self.settings["learning_rate"], self.settings["pretrained"]
        learnt = [*self.network.get_submodule(part).parameters()] if part else []
        known = set(learnt)
        fresh = [weight for weight in self.parameters() if weight not in known]
        optimizer = OPTIMIZERS[self.settings["optimizer"]](fresh, rate)
        if learnt:
            optimizer.add_param_group({"params": learnt, "lr": rate * PRETRAINED_RATE})
        schedule = one_cycle(optimizer, int(steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def configure_gradient_clipping(self, optimizer: Any, **trainers: Any) -> None:
        """Clip the gradient's norm at 1 unless the Trainer says otherwise."""
        value, kind = trainers["gradient_clip_val"], trainers["gradient_clip_algorithm"]
        self.clip_gradients(optimizer, 1.0 if value is None else value, kind or "norm")

    def predict_mask(self, image: Image.Image, threshold: float = 0.5) -> np.ndarray:
        """Find the interface in a PIL picture of any size: bool (H, W) of that size.

        threshold: probability, 0..1, from which a pixel counts. Like the next two,
        raises ValueError for what is no picture and a network of another task.
        """
        _check_number("threshold", threshold, 0, 1, whole=False)
        return (self._logits(image, "predict_mask")[0].sigmoid() >= threshold).numpy()

    def predict_masks(self, image: Image.Image, threshold: float = 0.5) -> np.ndarray:
        """Find overlapping classes in a PIL picture of any size: bool (K, H, W).

        threshold: as in `predict_mask`, for all classes. (notebook 10)
        """
        _check_number("threshold", threshold, 0, 1, whole=False)
        return (self._logits(image, "predict_masks").sigmoid() >= threshold).numpy()

    def predict_classes(self, image: Image.Image) -> np.ndarray:
        """Find the class of each pixel of a PIL picture of any size: uint8 (H, W)."""
        logits = self._logits(image, "predict_classes")
        return logits.argmax(dim=0).to(torch.uint8).numpy()

    @torch.inference_mode()
    def _logits(self, image: Image.Image, method: str) -> torch.Tensor:
        """Look at the size trained at; logits float32 (K, H, W) at the picture's."""
        if TASKS[self.task] != method:
            advice = f"use {TASKS[self.task]}"
            _refuse(method, f"a network of task {self.task}", "its own method", advice)
        if not isinstance(image, Image.Image):
            what = f"got {type(image).__name__}"
            _refuse(method, what, "a PIL picture", "files are read by load_image")
        image = _to_rgb(ImageOps.exif_transpose(image), "picture")
        size = (image.height, image.width)
        if inside := self.settings["image_size"]:
            image = image.resize(inside[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        logits = _logits_of(self, pixels / 255)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", antialias=True)
        return logits[0]


def _logits_of(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Look at images (B, 3, H, W) without learning: logits float32, on the CPU."""
    weight = next(module.parameters(), torch.zeros(()))
    with _evaluating(module):
        return module(images.to(weight.device, weight.dtype)).float().cpu()


class StepProgress(pl.Callback):
    """A progress bar over all steps.

    Without `timed` it goes to stdout and shows neither clock nor rate, so that a
    notebook's output can be compared; with it, to stderr, with the time left.
    """

    def __init__(self, timed: bool = False) -> None:
        self.timed, self.bar = timed, tqdm(disable=True)

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        untimed = "{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} steps"
        self.bar = tqdm(
            desc="training",
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            unit="step",
            file=sys.stderr if self.timed else sys.stdout,
            ncols=78,
            bar_format=None if self.timed else untimed,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.bar.update(trainer.global_step - self.bar.n)  # of several batches, maybe

    def on_train_end(self, *_: Any) -> None:
        self.bar.close()

    on_exception = on_train_end


class Watch(pl.Callback):
    """Remembers how training goes on one sample, looking every few steps.

    Fills `steps`, `losses` (of the batch), `ious` and `probabilities` (float (H, W), of
    several classes (K, H, W), on the CPU), from step 0 on.
    """

    def __init__(self, sample: Sample, every_n_steps: int = 5) -> None:
        _check_number("every_n_steps", every_n_steps, 1)
        self.sample, self.every_n_steps = sample, every_n_steps
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.ious: list[float] = []
        self.probabilities: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if not self.steps:
            self.on_train_batch_end(trainer, module)

    @torch.inference_mode()
    def on_train_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
        step = trainer.global_step
        if given and (step % self.every_n_steps or step == self.steps[-1]):
            return
        image, target = (one[None] for one in self.sample)
        logits = _logits_of(module, image)
        if given:  # Lightning divides what it accumulates
            loss = given[0]["loss"] * trainer.accumulate_grad_batches
        else:
            loss = module.loss(logits, target)
        self.steps.append(step)
        self.losses.append(float(loss))
        self.ious.append(float(module.score_of(module.count(logits, target))))
        self.probabilities.append(module.probabilities(logits)[0].squeeze(0))


class SafeCheckpointIO(TorchCheckpointIO):
    """A Trainer plugin: checkpoints whole or not at all, and plain values only."""

    def save_checkpoint(self, checkpoint: Any, path: str | Path, **_: Any) -> None:
        """Write beside and move into place. Raises OSError if that fails."""
        with _atomic_write(Path(path)) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, part)

    def load_checkpoint(self, path: str | Path, **_: Any) -> dict[str, Any]:
        """Read what `read_checkpoint` reads."""
        return read_checkpoint(path)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint's plain values, `state_dict` and `hyper_parameters` at least.

    Code in it is never run. Raises FileNotFoundError, and ValueError for a file that is
    cut short, of another kind, or carries more than plain values.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "there is no such file"
        raise FileNotFoundError(f"{path}: {what}; expected a checkpoint")
    what = "holds something else"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if {"state_dict", "hyper_parameters"} <= set(checkpoint):
            return checkpoint
    except Exception as error:  # of foreign bytes an unpickler makes anything
        what = "damaged, cut short or not a checkpoint"
        if "GLOBAL" in str(error):
            what = "carries more than plain values, possibly code, and is not loaded"
    _refuse(path, what, "a checkpoint that training wrote", "copy or train it again")


def load_system(
    path: Path | str, network: nn.Module | None = None
) -> UISegmentationSystem:
    """Make the trained system that a checkpoint holds, on the CPU, in evaluation mode.

    Trained further, it predicts at the size of its new data. network: of a system that
    was trained with one of its own. Raises what `read_checkpoint` raises, and
    ValueError for another model's checkpoint.
    """
    checkpoint = read_checkpoint(path)
    try:
        settings = dict(checkpoint["hyper_parameters"])
        if own := checkpoint.get("forward"):
            raise TypeError(f"{own} has a forward of its own")
        if "optimizer" not in settings:
            raise ValueError(TOO_OLD)
        own = settings.pop("network", None)
        if own and network is None:
            advice = "in Python, load_system(path, network=...) takes one"
            raise ValueError(f"a network of the class {own}: {advice}")
        # An encoder's weights are those of the checkpoint.
        system = UISegmentationSystem(**settings, network=network, encoder_weights=None)
        # Without a subclass's own loss; of a compiled network as of the plain one.
        state = {
            name.replace("._orig_mod.", "."): weight
            for name, weight in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }
        system.load_state_dict(state)
        system.size_from_data = True  # of those that it may be trained on further
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        what = f"is of another model ({' '.join(str(error).split())[:200]})"
        advice = "train it with this module"
        if isinstance(error, TypeError):  # of a subclass
            advice += ", or load it by load_from_checkpoint of its own class"
        _refuse(path, what, "one of UISegmentationSystem", advice)
    return system.eval()


class RunFolder(pl.Callback):
    """Keeps a run in a folder, so that nothing is lost when it is killed.

    After each epoch: log.csv, epochs/001.png (image, highest probability, prediction,
    target of four validation samples; where masks overlap, the last is in front),
    best.ckpt (weights of the best val_iou, to predict with), last.ckpt (everything, to
    go on from). At the end: curves.png. All are written whole or not at all, with
    SafeCheckpointIO the checkpoints too. patience: stop after that many epochs without
    a better val_iou; 0: never. Raises ValueError without validation data and when the
    loss is no number, FileExistsError where another run is kept. (notebook 06)
    """

    def __init__(self, folder: Path | str, *, patience: int = 0) -> None:
        _check_number("patience", patience)
        self.folder, self.patience = Path(folder), patience
        self.rows: list[dict[str, float]] = []

    @property
    def best(self) -> dict[str, float]:
        """The row of the log with the best val_iou."""
        return max(self.rows, key=lambda row: row.get("val_iou", -1))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "random": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        torch.set_rng_state(state["random"])

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            what = "RunFolder: there is no validation data, by which it keeps the best"
            raise ValueError(f"{what}; give fit a second loader")
        averaging = pl.callbacks.WeightAveraging
        if any(isinstance(one, averaging) for one in trainer.callbacks):
            what = "RunFolder beside averaged weights: its best.ckpt would hold others"
            raise ValueError(f"{what}; use ModelCheckpoint, with save_weights_only off")
        importlib.import_module("matplotlib.figure")  # without it, end here
        last = self.folder / "last.ckpt"
        if trainer.ckpt_path is None and last.exists():
            advice = f"name a new folder, or fit(..., ckpt_path={str(last)!r})"
            raise FileExistsError(f"{self.folder}: holds a run already; {advice}")
        if trainer.is_global_zero and not trainer.fast_dev_run:
            (self.folder / "epochs").mkdir(parents=True, exist_ok=True)
        self._stop_without_gain(trainer)

    def _stop_without_gain(self, trainer: pl.Trainer) -> None:
        if self.patience and self.rows:
            waited = self.rows[-1]["epoch"] - self.best["epoch"]
            trainer.should_stop = waited >= self.patience

    def on_train_epoch_start(self, *_: Any) -> None:
        self._scores: dict[str, float] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics.items()
        self._scores = {name: float(value) for name, value in metrics if "val_" in name}

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.fast_dev_run:  # a trial, of which Lightning keeps nothing either
            return
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": float(trainer.callback_metrics["train_loss"]),
            **self._scores,
            "learning_rate": self._rate,
        }
        module.check_losses()
        self.rows.append(row)
        if trainer.is_global_zero:
            log, picture = self.folder / "log.csv", f"epochs/{len(self.rows):03}.png"
            with _atomic_write(log) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, max(self.rows, key=len), restval="")
                writer.writeheader()
                for row in self.rows:
                    writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
            dataset = getattr(trainer.val_dataloaders, "dataset", None)
            if dataset is not None:  # there was a validation, by one loader
                drawn = self._draw(dataset, module)
                with _atomic_write(self.folder / picture) as part:
                    drawn.save(part, "PNG")
        if self._scores and self.rows[-1] is self.best:
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self._stop_without_gain(trainer)

    @torch.inference_mode()
    def _draw(self, dataset: Dataset[Sample], module: Any) -> Image.Image:
        """Draw four samples, a row each: evenly spaced, of a stream the first."""
        rows, samples = [], dataset
        if not isinstance(dataset, IterableDataset):
            places = range(0, len(dataset), max(len(dataset) // 4, 1))
            samples = map(dataset.__getitem__, places)
        for image, target in itertools.islice(samples, 4):
            logits = _logits_of(module, image[None])
            highest = module.probabilities(logits)[0].amax(dim=0)
            shown = [logits[0].argmax(dim=0), target]
            if module.task == "binary":
                shown = [logits[0] > 0, target == 1]
            elif module.task == "multilabel":
                numbers = torch.arange(1, len(target) + 1).view(-1, 1, 1)
                masks = [(logits[0] > 0) * numbers, (target == 1) * numbers]
                shown = [mask.amax(dim=0) for mask in masks]
                shown[1][(target == IGNORE_INDEX).all(dim=0)] = IGNORE_INDEX
            parts = [to_array(part) for part in (image, highest, *shown)]
            rows.append(np.hstack(parts))
        return Image.fromarray(np.vstack(rows))

    def on_train_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.rows:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        axes = {"train_loss": losses, "val_loss": losses, "val_iou": scores}
        for name, axis in axes.items():
            rows = [row for row in self.rows if name in row]
            epochs, values = ([row[key] for row in rows] for key in ("epoch", name))
            axis.plot(epochs, values, ".-", label=name)
            axis.set_xlabel("epoch")
            axis.legend()
        with _atomic_write(self.folder / "curves.png") as part:
            figure.savefig(part, format="png")


def train_augmentation() -> ImageTargetCompose:
    """What `train` does to training pictures: mirror half of them, change colours.

    Gentle: shifting and scaling as well scored lower in trainings of 2 to 12 minutes.
    """
    jitter = ImageTargetColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
    return ImageTargetCompose([ImageTargetRandomHorizontalFlip(), jitter])


# --------------------------------------------------------------------------------------
# 8. Class maps and other people's folders: VOC, KITTI. (notebooks 08 to 10)
# --------------------------------------------------------------------------------------


def load_classes(
    path: Path | str,
    num_classes: int | None = None,
    *,
    palette: Sequence[tuple[int, int, int]] | None = None,
    classes: Sequence[Sequence[MaskValue]] | None = None,
    ignore: Sequence[MaskValue] = (),
    max_distance: float = 0,
) -> Image.Image:
    """Read a class map as a picture of mode "P": its values are class ids, 255 ignored.

    Ids are palette indices or grey values. palette: one colour per class, from which
    the ids come as in `colors_to_classes`. classes: for each class the ids or colours
    that it has in the file; other colours are ignored, and 255 unless it is named;
    other ids are refused. ignore: values that become 255. What is less than half opaque
    is ignored too, except in a file of palette ids, and where it hides a value that is
    named for the first class, which may be the background. The picture gets the colours
    of our figures. Raises ValueError also for ids from num_classes on, colours without
    a palette, a palette that explains no pixel, ids in a lossy file. (notebook 10)
    """
    most = IGNORE_INDEX if num_classes is None else num_classes
    if classes is not None:
        alone = palette is None and num_classes is None
        if not alone or not isinstance(classes, Collection):
            expected = "expected a list of values for each class, without palette"
            raise ValueError(f"classes {classes!r}: {expected} and num_classes")
        classes = [*classes]
        most = len(classes)
    _check_number("num_classes", most, 1, IGNORE_INDEX)
    ignored = _as_codes("ignore", ignore)
    named = [code for one in classes or () for code in _as_codes("class", one).tolist()]
    mask = _open_mask(path)._replace(of_classes=True)
    by_colour = palette is not None or min(named, default=0) < 0
    by_index = not by_colour and mask.picture.mode == "P"
    if classes is not None:
        # Among class ids 255 is void, unless Pillow made it of fewer bits.
        unnamed = not (by_colour or IGNORE_INDEX in named or IGNORE_INDEX in ignored)
        void = [*ignore, *[IGNORE_INDEX] * (unnamed and not mask.scaled)]
        ids = _find_values(mask, *classes, void)
        mask = mask._replace(picture=None)  # for memory
        lost = ids < 0
        ids[ids == len(classes)] = -1  # in a byte the same as 255
        if not by_colour and (lost & (mask.opaque | by_index)).any():
            _refuse_values(mask, "ids that were not named, among these")
    else:
        if palette is not None:
            rgb = mask.picture.convert("RGB")
            ids = colors_to_classes(rgb, palette, -1, max_distance=max_distance).numpy()
        elif mask.lossy:
            _refuse_values(mask, "ids in a lossy file")
        else:
            ids = np.concatenate([codes for _, codes in _codes(mask)])
        ids[_find_values(mask, ignore) == 0] = IGNORE_INDEX
        lost = ids < 0
        ids[lost | (not by_index) & ~mask.opaque] = IGNORE_INDEX
        _check_class_ids(path, torch.from_numpy(ids), most)
    if by_colour and lost.all():  # perhaps it is a mask of two levels
        _refuse_values(mask, "none of the colours named; it has")
    found = Image.fromarray(ids.astype(np.uint8))
    found.putpalette(list(itertools.chain.from_iterable(CLASS_COLOURS)))
    return found


def load_masks(path: Path | str, num_classes: int) -> torch.Tensor:
    """Read overlapping masks that `pack_masks` packed, saved as a grey or palette PNG.

    Gives float32 (num_classes, H, W) of 0 and 1; at most 8. Raises ValueError for more
    bits in the file and for what `load_classes` refuses. (notebook 10)
    """
    _check_number("num_classes", num_classes, 1, 8)
    packed = np.asarray(load_classes(path))
    if packed.max() == IGNORE_INDEX:  # eight masks, or pixels that were transparent
        mask = _open_mask(path)
        if mask.picture.mode != "P" and not mask.opaque.all():
            advice = "save the mask without transparency"
            _refuse(path, "transparent pixels", "the bits of masks everywhere", advice)
    if packed.max() >= 2**num_classes:
        expected = f"at most {2**num_classes - 1}, the bits of {num_classes} masks"
        advice = "count all masks in num_classes; a mask of 0 and 255 is for load_mask"
        _refuse(path, f"values up to {packed.max()}", expected, advice)
    return unpack_masks(packed, num_classes)


VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


class VOCFilteredDataset(Dataset[tuple[Any, int]]):
    """Images of Pascal VOC with one object of a wanted class, and its class index.

    Gives (image, index) for each image with exactly one object whose class is in
    `class_mapping`; objects of other classes do not count, nor parts of objects, those
    marked difficult do.

    root: the folder with VOCdevkit/VOC2012, as torchvision lays it out, or VOCdevkit
    itself. image_set: a list in ImageSets/Main, as "train", "val" or "trainval".
    class_mapping: VOC class to class index, an int from 0 up. transform: takes the RGB
    picture. `samples` lists (path, index).

    The annotations are read once, here; a picture is opened when it is asked for.
    Raises ValueError for a mapping that is none or names a class that VOC lacks, for
    broken annotations and for a set without such an image, FileNotFoundError for what
    is missing. (notebook 08; http://host.robots.ox.ac.uk/pascal/VOC/)
    """

    def __init__(
        self,
        root: Path | str,
        year: str | int,
        image_set: str,
        class_mapping: Mapping[str, int],
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        mapping = dict(class_mapping) if isinstance(class_mapping, Mapping) else {}
        kinds = {type(value) for value in mapping.values()}  # True is no index
        if kinds != {int} or min(mapping.values()) < 0:
            raise ValueError(
                f"class_mapping {class_mapping}: expected VOC classes to indices "
                'from 0 up, as {"cat": 0, "dog": 1}'
            )
        for name in map(str, mapping):
            if name not in VOC_CLASSES:
                advice = f"leave it out{_nearest(name.lower(), VOC_CLASSES)}"
                expected = f"some of {', '.join(VOC_CLASSES)}"
                _refuse(f"class_mapping {name!r}", "no such class", expected, advice)
        self.transform = transform
        root = Path(root)
        devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
        folder, name = devkit / f"VOC{year}", f"ImageSets/Main/{image_set}.txt"
        listed = folder / name
        if not listed.is_file():
            raise FileNotFoundError(
                f"{root}: no VOC{year}/{name} in it; expected the folder of VOCdevkit "
                f"or VOC{year}, whole, and an image_set that it has, as trainval"
            )
        lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        keys = [line.split()[0] for line in lines if line.strip()]
        self.samples: list[tuple[Path, int]] = []
        for key in keys:
            path = folder / "Annotations" / f"{key}.xml"
            advice = "unpack it again, or take its image out of the image_set"
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such annotation; {advice}")
            try:
                top = ElementTree.parse(path).getroot()
            except (ElementTree.ParseError, LookupError, ValueError) as error:
                _refuse(path, f"broken XML ({error})", "a VOC annotation", advice)
            objects = top.findall("object")  # of the picture, not parts of objects
            names = [one.findtext("name", "").strip() for one in objects]
            if top.tag != "annotation" or "" in names:
                what = f"<{top.tag}> with objects {names}"
                _refuse(path, what, "<annotation>, a name in each object", advice)
            wanted = [mapping[name] for name in names if name in mapping]
            if len(wanted) == 1:
                self.samples.append((folder / f"JPEGImages/{key}.jpg", wanted[0]))
        if not self.samples:
            expected = f"some with exactly one of {', '.join(mapping)}"
            what, advice = f"none of {len(keys)} images", "map other classes, or fewer"
            _refuse(listed, what, expected, advice)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, class_index = self.samples[index]
        image = load_image(path)
        if self.transform is not None:
            image = self.transform(image)
        return image, class_index


# What can be found on roads; where the own lane is, is known of "um" alone.
ROAD_PATTERNS: dict[str, Patterns] = {
    "road": (
        "image_2/{category}_{number}.png",
        "gt_image_2/{category}_road_{number}.png",
    ),
    "lane": ("image_2/um_{number}.png", "gt_image_2/um_lane_{number}.png"),
}
# Magenta is what is to be found, red is background, black is ignored.
read_road = partial(load_mask, foreground=[(255, 0, 255)], ignore=[(0, 0, 0)])


class RoadDataset(PairDataset):
    """The pictures of the KITTI road kit, each with the mask of its road.

    root: the folder with `training`, or `training` itself, where image_2/um_000000.png
    belongs to gt_image_2/um_road_000000.png: category and number must agree. target:
    "road", or "lane" for the lane one drives in, which only "um" has. Masks are read by
    `read_road`. Raises ValueError for another target, for a kit without one of the
    categories um, umm, uu, and what `find_pairs` raises.
    (notebook 09; https://www.cvlibs.net/datasets/kitti/eval_road.php)
    """

    def __init__(
        self,
        root: Path | str,
        transform: PairTransform | None = None,
        target: str = "road",
        *,
        cache: bool = False,
    ) -> None:
        training = Path(root) / "training"
        folder = training if training.is_dir() else Path(root)
        _check_choice("target", target, ROAD_PATTERNS)
        masks = folder.glob("gt_image_2/*.png")
        kinds = {path.name.rpartition("_")[0] for path in masks}
        needed = {f"{category}_road" for category in ("um", "umm", "uu")}
        if target == "road" and kinds and not needed <= kinds:
            what, expected = (", ".join(sorted(names)) for names in (kinds, needed))
            advice = 'of lanes alone: target="lane"; of a part: UIImageMaskDataset('
            advice += 'folder, patterns=ROAD_PATTERNS["road"], read_target=read_road)'
            _refuse(folder, f"masks of {what}", f"the whole kit, {expected}", advice)
        pairs = find_pairs(folder, ROAD_PATTERNS[target])
        super().__init__(pairs, transform, read_target=read_road, cache=cache)


# --------------------------------------------------------------------------------------
# 9. The dataset doctor: all that is wrong with a folder. (notebook 01)
# --------------------------------------------------------------------------------------

THUMBNAIL = 32  # pixels: the side of the small pictures that are compared
LIKENESS = 0.97  # from this correlation on, two show the same scene
MANY_MASKS = 5  # so many say what is usual
MANY_VALUES = 32  # named ones above are a range of greys, not each meant by itself
NAMED_FILES = 3  # with the same problem; more are counted
ANNOTATIONS = {  # what tells them: labelme, COCO, Cityscapes, VIA; VOC, CVAT; YOLO
    ".json": rb'"(shapes|annotations|objects|_via_img_metadata)"\s*:',
    ".xml": rb"<annotations?[\s>]",
    ".txt": rb"\A\d+( ([01]|[01]?\.\d+)){4,}\s*$",  # its first line, of numbers 0..1
}


@dataclass(frozen=True)
class Problem:
    """One finding of the doctor: which file, what is wrong, how to mend it."""

    file: str
    what: str
    mend: str
    severity: str = "error"  # or "warning": worth a look, harmless to train on


@dataclass(frozen=True)
class PairReport:
    """What the doctor found in a folder; prints as a table.

    values: each id or colour that the masks hold, its share of their pixels, 0..1, and
    in how many files it is; without those of files of more than 256 colours. The shares
    of foreground, 0..1, in all masks together and in those with least and most of it,
    are None where no mask could be read. For class maps class_shares stands instead:
    the share of each class id, 0 to the highest that was found. ignored_share: of all
    pixels that were read.
    """

    folder: str
    num_pairs: int
    problems: tuple[Problem, ...]
    values: dict[MaskValue, tuple[float, int]]
    foreground_share: float | None = None
    least_share: float | None = None
    most_share: float | None = None
    class_shares: tuple[float, ...] | None = None
    ignored_share: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the folder can be trained on: no errors, and something to find."""
        sound = all(problem.severity != "error" for problem in self.problems)
        return sound and self.num_pairs > 0 and self.foreground_share != 0

    def __str__(self) -> str:
        state = "ok" if self.ok else "not ok"
        lines = [f"{self.folder}: {self.num_pairs} whole pairs, {state}"]
        if self.values:
            least = sorted(share for share, _ in self.values.values())[-12:][0]
            shown = [
                f"{value} {share:.2%} in {files} files"
                for value, (share, files) in self.values.items()
                if share >= least
            ]
            rarer = len(self.values) - len(shown)
            shown += [f"{rarer} rarer ones"] * (rarer > 0)
            lines.append("  values of the masks: " + ", ".join(shown))
        if self.foreground_share is not None:
            lines.append(
                f"  foreground: {self.foreground_share:.1%} of the pixels, "
                f"{self.least_share:.1%} to {self.most_share:.1%} in a mask"
            )
        if self.class_shares is not None:
            shares = [f"{n} {share:.2%}" for n, share in enumerate(self.class_shares)]
            lines.append("  shares of the classes: " + ", ".join(shares))
        if self.ignored_share:
            lines.append(f"  ignored: {self.ignored_share:.1%} of the pixels")
        # The same in many files is said once and counted.
        alike: dict[tuple[str, str], list[Problem]] = {}
        for problem in sorted(self.problems, key=lambda problem: problem.severity):
            alike.setdefault((problem.severity, problem.mend), []).append(problem)
        width = max((len(problem.file) for problem in self.problems), default=0)
        for (severity, mend), group in alike.items():
            for problem in group[:NAMED_FILES]:
                lines.append(f"  {severity:7}  {problem.file:{width}}  {problem.what}")
            if len(group) > NAMED_FILES:
                more = len(group) - NAMED_FILES
                lines.append(f"  {severity:7}  and {more} more such")
            lines.append(f"  {'':7}  {'':{width}}  -> {mend}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Write the report for programs."""
        values = {str(value): shares for value, shares in self.values.items()}
        report = vars(self) | {"values": values, "ok": self.ok}
        return json.dumps(report, default=vars, indent=1, ensure_ascii=False)


class _Facts(NamedTuple):
    """What the doctor remembers of a pair whose files could be read."""

    image: str
    target: str
    thumbnails: list[np.ndarray]  # what is seen of both from afar, 0..1
    brightest: int  # of the image, 0..255
    clear: bool  # whether the image has pixels that are not opaque
    pixels: np.ndarray  # of the target with each class id, int (256,); 255 is ignored
    is_map: bool  # of class ids; else a mask, of the ids 0, 1 and 255

    @property
    def share(self) -> float | None:
        """Of foreground in what a mask does not ignore, if there is any."""
        known = self.pixels[:IGNORE_INDEX].sum()
        return float(self.pixels[1] / known) if known and not self.is_map else None


class _Values(NamedTuple):
    """What the doctor remembers of a file of a mask."""

    counts: Mapping[MaskValue, int]  # its pixels of each id or colour
    palette: list[int] | None  # colours of the indices, where these count
    lossy: bool


def check_pairs(
    data_dir: Path | str,
    patterns: Patterns | None = None,
    *,
    missing: str = "error",
    read_target: ReadTarget = load_mask,
    scenes: Mapping[str, str] | None = None,
    progress: bool = False,
) -> PairReport:
    """Examine every pair of a folder and report all that is wrong, not just the first.

    Lists the values that the masks hold, and looks at names (orphans, doubles,
    strangers, annotations), at files (unreadable, turned by EXIF, of another size, JPEG
    masks, palettes that differ) and at what they show: values that were named and are
    nowhere, or are there and were not named; masks empty, full, inverted; pictures that
    look nearly alike; the balance. read_target: as the masks will be read.
    scenes: of each image's name, as `read_scenes` gives them; then only likeness
    across scenes is told. progress: show a bar. Raises only what `find_pairs` raises
    for the folder itself and for the patterns, never for content. (notebook 01)
    """
    files = _find_files(Path(data_dir), patterns, missing)
    problems = [Problem(*fault) for fault in files.faults()]
    pairs = files.pairs()
    dataset = PairDataset(pairs, read_target=read_target)
    options = getattr(read_target, "keywords", {})
    wanted = map(options.get, ("palette", "foreground", "ignore"))
    given = [() if one is None else one for one in wanted]
    groups = []
    for group in (*(options.get("classes") or ()), *given):
        _as_codes("foreground, ignore, palette or class", group)
        groups.append([tuple(value) if np.ndim(value) else value for value in group])
    meant = [*itertools.chain.from_iterable(groups[:-1])]  # that count
    named = [*meant, *groups[-1]]
    looked_up = groups if len(named) > MANY_VALUES else [[value] for value in named]
    by_colour = any(isinstance(value, tuple) for value in named)

    def look(picture: Image.Image) -> np.ndarray:
        small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        return np.ravel(small.convert("L")).astype(np.float32) / 255

    facts: list[_Facts] = []
    held: dict[str, _Values] = {}
    present: set[MaskValue] = set()  # of those named
    all_names: list[list[str]] = []
    bar = tqdm(pairs, "check", unit="pair", disable=not progress)
    for path, target in bar:
        several = target.values() if isinstance(target, dict) else target or ()
        several = [target] if isinstance(target, Path) else [*filter(None, several)]
        paths = [path, *several]
        names = [one.relative_to(data_dir).as_posix() for one in paths]
        all_names.append(names)
        name = names[0]
        try:
            if path.stat().st_size > 1e7:  # long enough to say so
                bar.set_postfix_str(name)
            picture = _open_picture(path)
            turns, image = [picture.info["turn"]], _to_rgb(picture, path, of_file=True)
            clear = "A" in picture.getbands()
            clear = clear and picture.getchannel("A").getextrema()[0] < 255
            size, seen = image.size, look(image)
            # Of strips, since extrema are of copies.
            brightest = max(np.max(one.getextrema()) for _, one in _strips(image))
            del picture, image  # a huge one leaves room for its mask
            for name, one in zip(names[1:], several, strict=True):
                mask = _open_mask(one)
                turns.append(mask.picture.info["turn"])
                counts: Counter[MaskValue] = Counter()
                for value, count in _count_values(mask.picture, by_colour).items():
                    near = isinstance(value, int) and not NEAR < value < 255 - NEAR
                    # Rings around outlines are no values of their own.
                    shown = 255 * (value > 127) if mask.lossy and near else value
                    counts[shown] += count
                # Of a lossy file, what is neither black nor white may be a ring.
                present.update({*counts} & {0, 255} if mask.lossy else counts)
                palette = None if by_colour else mask.picture.getpalette("RGB")
                if named and (mask.lossy or not counts):
                    found = _find_values(mask, *looked_up)
                    if not mask.lossy and not options.get("max_distance"):
                        what = "holds over 256 colours, and "
                        what += f"{(found < 0).mean():.1%} of its pixels have none of "
                        what += "those that were named"
                        mend = "smoothing makes colours at outlines: save it without"
                        problems.append(Problem(name, what, mend, "warning"))
                    mask = mask._replace(picture=None)  # for memory
                    numbers = np.unique(found[_is_flat(found)])
                    present.update(*(looked_up[n] for n in numbers if n >= 0))
                    del found
                held[name] = _Values(counts, palette, mask.lossy)
                del mask
            mask = dataset.read(target, size)
            if isinstance(mask, torch.Tensor):  # lay overlapping masks together
                mask = Image.fromarray((mask == 1).any(dim=0).numpy()).convert("L")
            turned = len({*turns}) > 1
            if size != mask.size:
                mend = "cut, turn or scale it as the picture was, without smoothing"
                if turned and size == mask.size[::-1]:
                    mend = f"EXIF turns one of them (tags {turns}): save both without"
                what = f"{mask.size} (W, H), but {names[0]} is {size}"
                problems.append(Problem(names[1], what, mend))
                continue
            if turned and (size[0] == size[1] or {*turns} & {2, 3, 4}):
                # Elsewhere the sizes tell that the mask was drawn on the upright one.
                what = f"EXIF turns it unlike {names[1]}"
                mend = "check whether the mask fits; save both without the tag"
                problems.append(Problem(names[0], what, mend, "warning"))
            is_map = mask.mode == "P"
            ids = mask if is_map else Image.fromarray(_mask_ids(mask))
            pixels = np.array(ids.histogram())
            del ids
            classes = np.flatnonzero(pixels[:IGNORE_INDEX]).tolist()
            if several and len(classes) < 2:
                what = "all is ignored: nothing is judged"
                if classes and is_map:
                    what = f"all is class {classes[0]}"
                elif classes == [0]:
                    what = "all black: nothing is foreground"
                elif classes:
                    what = "all white: everything is foreground"
                mend = "check whether that is intended"
                problems.append(Problem(names[1], what, mend, "warning"))
            ends, thumbnails = (names[0], names[-1]), [seen, look(mask)]
            facts.append(_Facts(*ends, thumbnails, brightest, clear, pixels, is_map))
        except (OSError, ValueError, IndexError) as error:
            text = str(error)
            for other, one in zip(names, paths, strict=True):
                if text.startswith(f"{one}: "):
                    name, text = other, text.removeprefix(f"{one}: ")
            what, _, mend = text.partition("; ")
            problems.append(Problem(name, what, mend or "look into the file"))
    faulty = {problem.file for problem in problems if problem.severity == "error"}
    num_whole = sum(faulty.isdisjoint(names) for names in all_names)
    if options.get("max_distance"):  # colours nearby are meant as well
        meant, named = [], []
    total, in_files = Counter(), Counter()
    for values in held.values():
        total.update(values.counts)
        in_files.update(values.counts.keys())
    order = sorted(total, key=lambda value: (np.ndim(value), value))  # ids first
    two_levels = getattr(read_target, "func", read_target) is load_mask
    problems += _value_problems(held, in_files, named, meant, present, two_levels)
    problems += _folder_problems(files, facts, scenes)
    shares = [fact.share for fact in facts if fact.share is not None]
    pixels = sum((fact.pixels for fact in facts), np.zeros(256, int))
    ids = np.trim_zeros(pixels[:IGNORE_INDEX], "b")
    of_maps = any(fact.is_map for fact in facts)
    return PairReport(
        str(data_dir),
        num_whole,
        tuple(problems),
        {value: (total[value] / total.total(), in_files[value]) for value in order},
        float(pixels[1] / ids.sum()) if shares and not of_maps else None,
        min(shares, default=None),
        max(shares, default=None),
        tuple((ids / ids.sum()).tolist()) if len(ids) and of_maps else None,
        float(pixels[IGNORE_INDEX] / max(1, pixels.sum())),
    )


def _value_problems(
    held: Mapping[str, _Values],
    in_files: Counter[MaskValue],
    named: Sequence[MaskValue],
    meant: Sequence[MaskValue],
    present: set[MaskValue],
    two_levels: bool,
) -> Iterator[Problem]:
    """Find values of the folder that nobody named, that are nowhere, that clash.

    in_files: in how many files each is. named: values that an option of reading names;
    meant: those of them that count.
    """
    targets, many = f"{len(held)} targets", len(named) > MANY_VALUES
    exact = Counter(v for one in held.values() if not one.lossy for v in one.counts)
    lossy = sum(one.lossy for one in held.values())
    if lossy:
        what = "are lossy (JPEG): edges are blurred, and class ids or colours lost"
        mend = "two levels are read well all the same; save new masks as PNG"
        yield Problem(f"{lossy} targets", what, mend, "warning")
    void = set() if two_levels else {IGNORE_INDEX}
    common = [str(value) for value, _ in in_files.most_common(12) if value not in void]
    mend = f"name what is there: {', '.join(common) or 'over 256 colours'}"
    unseen = [str(value) for value in named if value not in present]
    nothing = bool(meant) and present.isdisjoint(meant)
    if held and unseen and (nothing or not many):
        # A class may be rare; a mask's foreground that is nowhere is a wrong number.
        wrong = nothing or (two_levels and not present.issuperset(meant))
        mend = mend if wrong else f"right if others hold it; else {mend}"
        severity = "error" if wrong else "warning"
        yield Problem(targets, f"none holds {', '.join(unseen[:8])}", mend, severity)
    rest = [value for value in exact if value not in {*named, *void}]
    if meant and not many and {*rest} - {0, (0, 0, 0)}:
        listed = ", ".join(f"{value} (in {exact[value]})" for value in rest[:8])
        mend = "right if they are background, or ignored; else name them too"
        what = f"hold values that were not named: {listed}"
        yield Problem(targets, what, mend, "warning")
    ones = [name for name, one in held.items() if {*one.counts} == {0, 1}]
    bright = [name for name, one in held.items() if {255} <= {*one.counts} <= {0, 255}]
    if two_levels and not named and ones and bright:
        what = f"holds 0 and 1, but {bright[0]} 255: foreground there, or not judged?"
        mend = "say foreground=[1, 255], or foreground=[1], ignore=[255]"
        yield Problem(ones[0], what, mend)
    first: dict[int, tuple[str, list[int]]] = {}
    for name, (counts, palette, _) in held.items():
        for index in counts if palette else ():
            colour = palette[3 * index : 3 * index + 3]
            other, expected = first.setdefault(index, (name, colour))
            if expected != colour:
                what = f"index {index} is {colour}, but {expected} in {other}"
                mend = "palettes differ, so colours are what counts: name colours"
                yield Problem(name, what, mend)
                break


def _folder_problems(
    files: PairFiles, facts: Sequence[_Facts], scenes: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Find what only the whole folder shows."""
    used = files.used
    places = {Path(name).parent for name in used}
    for name in files.names if files.patterns in LAYOUTS else ():
        path = Path(name)
        lone = name not in used and path.suffix.lower() in PICTURE_SUFFIXES
        if lone and places & {path.parent, *path.parents[:-1]}:  # beside, or below
            mend = "it is not used: rename it, or give other patterns (--patterns)"
            yield Problem(name, "fits no pattern", mend, "warning")
    held = []
    for name in files.names:
        if sign := ANNOTATIONS.get(Path(name).suffix.lower()):
            with (  # mapped, as those of whole data sets are large; empty ones are not
                contextlib.suppress(OSError, ValueError),
                open(files.folder / name, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
            ):
                if re.search(sign, text, re.M):
                    held.append(name)
    if held:
        what = "hold annotations that check does not read: "
        what += ", ".join(held[:NAMED_FILES]) + ", ..." * (len(held) > NAMED_FILES)
        yield Problem(f"{len(held)} files", what, DRAW_THEM, "warning")
    scene_of = [_scene_of(fact.image, scenes or {}) for fact in facts]
    for fact, scene in zip(facts, scene_of, strict=True):
        if scenes is not None and scene is None:
            mend = "add a line to the table of scenes: the file's exact name,its scene"
            yield Problem(fact.image, "has no scene", mend)
        if fact.clear:
            mend = "a fourth band that is no transparency, as infrared, must go"
            yield Problem(fact.image, "its alpha is laid on white", mend, "warning")
        if fact.brightest < 32:
            what = f"its brightest pixel is {fact.brightest} of 255"
            mend = "if it has 10 or 12 bits in 16, scale it to the full range"
            yield Problem(fact.image, what, mend, "warning")
    if len({*scene_of}) == 1 and scene_of[0] is not None:
        mend = "a split needs two or more: say more scenes (--scenes), or none"
        yield Problem(f"{len(facts)} images", "are all of one scene", mend)
    if facts:
        yield from itertools.islice(_near_duplicates(facts, scenes or {}), 99)
    if files.missing != "error" and (lone := files.inputs.keys() - files.targets):
        kind = {"empty": "nothing is there", "skip": "they are left out"}
        what = f"have no mask, and {kind[files.missing]}, as missing says"
        mend, severity = "right if that is meant", "warning"
        if not files.targets:
            mend, severity = "give patterns that find masks (--patterns)", "error"
        yield Problem(f"{len(lone)} images", what, mend, severity)
    # A target is None where no image has a mask of any class.
    of_classes = [one or {} for _, one in files.pairs() if files.extra == "class"]
    missing = Counter(n for one in of_classes for n, path in one.items() if not path)
    for name, number in missing.items():
        what = f"have no mask of the class {name!r}, so nothing is of it"
        mend = "right if that is meant; else add the files"
        yield Problem(f"{number} images", what, mend, "warning")
    shares = [fact.share for fact in facts if fact.share is not None]
    if {*shares} == {1} and not of_classes:  # these may cover all together
        what = "are foreground everywhere: there is nothing else"
        mend = "say with foreground what is to be found"
        yield Problem(f"{len(shares)} targets", what, mend)
    masks = [fact for fact in facts if 0 < (fact.share or 0) < 1]
    targets = f"{len(masks)} targets"
    if len(masks) >= MANY_MASKS and np.median([one.share for one in masks]) > 0.5:
        mend = "check whether white is what you want to find; foreground=[0] swaps them"
        yield Problem(targets, "are mostly foreground; inverted?", mend, "warning")
    elif len(masks) >= MANY_MASKS:
        total = np.sum([fact.thumbnails[1] for fact in masks], axis=0)
        for fact in masks:
            own = fact.thumbnails[1]
            others = (total - own) / (len(masks) - 1)
            if np.abs(own - others).mean() > 2 * np.abs(1 - own - others).mean():
                what = "looks inverted: its background is where others have foreground"
                yield Problem(fact.target, what, "swap its black and white", "warning")
    total = sum(fact.pixels[:IGNORE_INDEX] for fact in masks)
    if masks and not 0.01 <= (share := total[1] / total.sum()) <= 0.99:
        what = f"{share:.2%} of their pixels are foreground"
        mend = "check whether they were read rightly; weigh the rare class (pos_weight)"
        yield Problem(targets, what, mend, "warning")
    maps = [fact.pixels for fact in facts if fact.is_map]
    total = sum(maps, np.zeros(256, int))
    if total[IGNORE_INDEX] and total[0] + total[IGNORE_INDEX] == total.sum():
        what = "hold nothing but 0 and 255, and 255 is ignored"
        yield Problem(f"{len(maps)} targets", what, "load_mask reads two levels")


def _near_duplicates(
    facts: Sequence[_Facts], scenes: Mapping[str, str]
) -> Iterator[Problem]:
    """Find pictures that show the same, or nearly: a split may not part them.

    What all pictures of a folder have in common, as a dark border, is taken away.
    """
    own = np.array([fact.thumbnails[0] for fact in facts])
    own -= own.mean(axis=1, keepdims=True)
    flat = np.linalg.norm(own, axis=1) < THUMBNAIL / 255
    if len(facts) >= MANY_MASKS:
        own -= own.mean(axis=0)
    lengths = np.linalg.norm(own, axis=1, keepdims=True)
    # Where next to nothing is left, they show what all show; flat ones show nothing.
    common = lengths[:, 0] < THUMBNAIL / 255
    own[common], lengths[common] = 1, THUMBNAIL
    own[flat] = 0
    own /= lengths
    groups = np.array([_scene_of(fact.image, scenes) or fact.image for fact in facts])
    for top in range(0, len(facts), 512):
        alike = np.triu(own[top : top + 512] @ own.T >= LIKENESS, k=top + 1)
        alike &= groups[top : top + 512, None] != groups
        for one, other in np.argwhere(alike):
            what = f"looks nearly like {facts[top + one].image}"
            mend = "keep the one whose mask is right, or both in one scene of a split"
            yield Problem(facts[other].image, what, mend, "warning")


# --------------------------------------------------------------------------------------
# 10. Loaders: batches made here, or ahead by worker processes. (notebook 08)
# --------------------------------------------------------------------------------------

Collate = Callable[[list[Any]], Any]
GRACE = 1.0  # seconds that the workers of an epoch get to end by themselves


def pad_collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples of different sizes, each padded below and on the right.

    Image (C, h, w) to (B, C, H, W), filled with 0; target (..., h, w) to
    (B, ..., H, W), filled with 255, which is ignored (bool becomes uint8). Targets that
    are numbers, as those of `VOCFilteredDataset`, become a tensor (B,). (notebook 08)
    """
    for sample in samples:
        sizes = [part.shape[-2:] for part in sample if isinstance(part, torch.Tensor)]
        if not isinstance(sample[0], torch.Tensor) or sizes[0] != sizes[-1]:
            arrived = [getattr(part, "shape", type(part).__name__) for part in sample]
            raise ValueError(
                f"pad_collate got {arrived}: expected tensors of one height and width, "
                "or a number as target; give the dataset a transform that makes them"
            )
    height, width = (max(image.shape[axis] for image, _ in samples) for axis in (1, 2))
    padded = []
    for image, target in samples:
        margin = (0, width - image.shape[2], 0, height - image.shape[1])
        if isinstance(target, torch.Tensor):
            # To a dtype that holds 255, as bool and int8 do not.
            target = target.to(torch.promote_types(target.dtype, torch.uint8))
            target = F.pad(target, margin, value=IGNORE_INDEX)
        padded.append(Sample(F.pad(image, margin), target))
    return default_collate(padded)


class NaiveDataLoader:
    """Make each batch when it is asked for, in this process.

    Iterates as torch's DataLoader does: each `iter` is an epoch of its own, and the
    same random numbers give the same order. `collate_fn` makes a batch of a list of
    samples (None: torch's default_collate); `shuffle` draws from `generator` (None:
    torch's own). (notebook 08)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 64,
        collate_fn: Collate | None = None,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        is_indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if not is_indexed or isinstance(dataset, IterableDataset):
            kind = type(dataset).__name__
            raise ValueError(f"dataset {kind}: expected one of __len__ and __getitem__")
        _check_number("batch_size", batch_size, 1)
        # Fewer samples would not make one batch.
        _check_number("len(dataset)", len(dataset), batch_size if drop_last else 1)
        self.dataset = dataset
        self.collate_fn = collate_fn or default_collate
        self.generator = generator
        order: Any = SequentialSampler(dataset)
        if shuffle:
            order = RandomSampler(dataset, generator=generator)
        self.batch_sampler = BatchSampler(order, int(batch_size), drop_last)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # torch draws the workers' seed first, and also where no worker will use it.
        seed = torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        epoch = self._epoch(int(seed), iter(self.batch_sampler))
        next(epoch)
        return epoch

    def _epoch(self, seed: int, batches: Iterator[list[int]]) -> Iterator[Any]:
        """Yield None as soon as workers run, if there are any, then the batches."""
        yield None
        for indices in batches:
            yield self.collate_fn([self.dataset[index] for index in indices])


class PrefetchDataLoader(NaiveDataLoader):
    """Have the batches made ahead by worker processes; hand them out in order.

    Workers live from `iter` to the end of the epoch or of its iterator. At most
    `num_workers * prefetch_batches` batches are ahead of the loop. Batch i is made by
    worker i % num_workers, which draws from the epoch's seed + its own number, and with
    torch and Python what torch's DataLoader draws: the same seed gives equal batches.
    num_workers=0 makes them in this process. options: those of NaiveDataLoader.

    `multiprocessing_context` is "fork", "spawn", "forkserver" or None (what Python
    prefers). What a sample or `collate_fn` raises is raised here, with the worker's
    traceback as a note; RuntimeError where a worker dies. (notebook 08)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 64,
        num_workers: int = 1,
        prefetch_batches: int = 2,
        collate_fn: Collate | None = None,
        *,
        multiprocessing_context: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_size, collate_fn, **options)
        _check_number("num_workers", num_workers)
        _check_number("prefetch_batches", prefetch_batches, 1, 100)
        methods = (None, *multiprocessing.get_all_start_methods())
        _check_choice("multiprocessing_context", multiprocessing_context, methods)
        self.num_workers = num_workers
        self.prefetch_batches = prefetch_batches
        self.multiprocessing_context = multiprocessing_context

    def _epoch(self, seed: int, batches: Iterator[list[int]]) -> Iterator[Any]:
        if not self.num_workers:
            yield from super()._epoch(seed, batches)
            return
        context = multiprocessing.get_context(self.multiprocessing_context)
        is_notebook = not hasattr(sys.modules["__main__"], "__file__")
        for thing in (self.dataset, self.collate_fn):
            of_main = getattr(thing, "__module__", None) == "__main__"
            if of_main and is_notebook and context.get_start_method() != "fork":
                raise TypeError(
                    f"{getattr(thing, '__name__', type(thing).__name__)} is defined in "
                    "a notebook cell, where a new process cannot find it; expected a "
                    "class or function of a module"
                )
        all_batches = list(batches)
        creator, count = os.getpid(), min(self.num_workers, len(all_batches))
        # Each has its batches and a pipe of its own, through which it is sent True for
        # a batch that it may make and False for the end.
        workers: list[tuple[Any, Connection]] = []
        try:
            with contextlib.ExitStack() as stack:
                # Ctrl+C waits until all are started, and they are born deaf to it.
                if hasattr(signal, "pthread_sigmask"):  # not on Windows
                    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                    stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
                for number in range(count):
                    task = SimpleNamespace(id=number, num_workers=count)
                    task.dataset, task.collate_fn = self.dataset, self.collate_fn
                    task.seed, task.batches = seed + number, all_batches[number::count]
                    pipe, worker_end = context.Pipe()
                    for _ in task.batches[: self.prefetch_batches]:
                        pipe.send(True)
                    args = [pipe, *(other for _, other in workers)], worker_end, task
                    worker = context.Process(
                        target=_worker_loop, args=args, daemon=True
                    )
                    worker.start()
                    workers.append((worker, pipe))
                    worker_end.close()  # now the pipe ends when the worker ends
            yield None
            for number in range(len(all_batches)):
                worker, pipe = workers[number % count]
                try:
                    message = pipe.recv()
                    if number + count * self.prefetch_batches < len(all_batches):
                        with contextlib.suppress(OSError):  # told in its turn
                            pipe.send(True)
                except (EOFError, OSError):
                    worker.join(GRACE)  # the exit code is known a little later
                    if (code := worker.exitcode) is None:
                        raise
                    how = "was killed by signal" if code < 0 else "ended with code"
                    raise RuntimeError(
                        f"worker {number % count} of the loader {how} {abs(code)} "
                        "during an epoch; expected it to live to the end: memory may "
                        "have run out, or the terminal shows its last error"
                    ) from None
                if note := message.pop():
                    message[0].add_note(f"In a worker of the loader:\n{note}")
                    raise message[0]
                yield message.pop()  # so that nothing here keeps the batch alive
        except (OSError, RuntimeError) as error:
            if "ancdata" not in str(error) and "Too many open files" not in str(error):
                raise
            raise RuntimeError(
                "too many open files: shared by file descriptor, each tensor of a "
                "batch that is kept holds one. Raise the limit (ulimit -n), keep "
                "tensor.clone(), or call torch.multiprocessing."
                'set_sharing_strategy("file_system")'
            ) from error
        finally:
            if os.getpid() == creator:  # else a child that was forked meanwhile
                for _, pipe in workers:
                    with contextlib.suppress(OSError):
                        pipe.send(False)
                    pipe.close()
                deadline = time.monotonic() + GRACE
                for worker, _ in workers:
                    worker.join(max(0.0, deadline - time.monotonic()))
                    worker.kill()
                    worker.join(GRACE)


def _worker_loop(inherited: list[Connection], pipe: Connection, task: Any) -> None:
    """Make the batches of a task, each when told to, until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl+C ends
    torch.set_num_threads(1)
    random.seed(task.seed)
    torch.manual_seed(task.seed)
    torchs = torch.utils.data._utils.worker
    np.random.seed(torchs._generate_state(task.seed - task.id, task.id))
    # What torch's get_worker_info tells; default_collate then stacks in shared memory.
    torchs._worker_info = task
    for parent_end in inherited:
        parent_end.close()  # now the pipe ends when the parent ends
    batches = iter(task.batches)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while pipe.recv():
            try:
                batch = task.collate_fn([task.dataset[i] for i in next(batches)])
                data = ForkingPickler.dumps([batch, None])
            except Exception as error:
                sent: Exception = RuntimeError(f"{type(error).__name__}: {error}")
                with contextlib.suppress(Exception):  # itself, if it survives the trip
                    arrived = pickle.loads(pickle.dumps(error))
                    sent = arrived if str(arrived) == str(error) else sent
                data = ForkingPickler.dumps([sent, traceback.format_exc()])
            pipe.send_bytes(data)


# --------------------------------------------------------------------------------------
# 11. Tiles: windows of pictures too big to open. (notebook 11)
# --------------------------------------------------------------------------------------

Region = tuple[int, int, int, int]  # y0, x0, y1, x1


class Tile(NamedTuple):
    """A window: the number of its picture, its upper left corner and its size."""

    picture: int
    y: int
    x: int
    height: int
    width: int


class _Source:
    """An image (H, W, 3), or a mask (H, W), that is read window by window.

    Each process reads it through a file of its own. ignore: of a mask, the id of what a
    masked array hides; None for an image.
    """

    def __init__(self, name: str, given: Any, ignore: int | None = None) -> None:
        self.name, self.given, self.ignore = name, given, ignore
        self.process = os.getpid()
        opens = callable(given) and not hasattr(given, "shape")
        self.pixels = given() if opens else given
        shape = tuple(getattr(self.pixels, "shape", ()))
        channels = (3,) if ignore is None else ()
        if len(shape) < 2 or shape[2:] != channels or 0 in shape:
            arrived = f"a {type(self.pixels).__name__} of shape {shape}"
            expected = f"shape (H, W{', 3' if channels else ''})"
            read = "load_image" if channels else "load_mask"
            advice = f"give np.asarray({read}(path)), or a function that opens it"
            _refuse(name, arrived, expected, advice)
        self.size: tuple[int, int] = shape[:2]
        self.read(0, 0, 1, 1)

    def read(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Read a window: uint8 (y1 - y0, x1 - x0, 3), or without the 3 of a mask."""
        in_memory = isinstance(self.pixels, np.ndarray | torch.Tensor)
        if os.getpid() != self.process and not in_memory:
            # Forked processes share an open file, and move each other's place in it.
            self.__init__(*self.__reduce__()[1])
        window, is_mask = self.pixels[y0:y1, x0:x1], self.ignore is not None
        if np.ma.is_masked(window):
            if not is_mask:
                _refuse(self.name, "masked pixels", "none in an image", "fill them")
            window = np.where(window.mask, self.ignore, window.data)
        window, shape = np.asarray(window), (y1 - y0, x1 - x0, *self.pixels.shape[2:])
        fits = window.dtype.kind in "bui" if is_mask else window.dtype == np.uint8
        if window.shape != shape or not fits or window.min() < 0 or window.max() > 255:
            found = f"{window.dtype} {window.shape} at {(y0, x0)}"
            arrived = f"{found}, values {np.unique(window)[:8].tolist()}"
            expected = f"{'whole numbers 0 to 255' if is_mask else 'uint8'} {shape}"
            advice = "" if is_mask else "scale it to 0..255 and "
            advice += "cast it to uint8; has the file changed?"
            _refuse(self.name, arrived, expected, advice)
        return window.astype(np.uint8, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process; a memory map becomes a function that opens it."""
        given = root = self.given
        while isinstance(getattr(root, "base", None), np.ndarray):
            root = root.base
        is_view = type(given) in (np.ndarray, np.memmap)  # not a masked array
        if is_view and getattr(root, "filename", None) and root.mode != "c":
            start = root.offset + given.ctypes.data - root.ctypes.data
            view = given.shape, given.dtype, start, given.strides
            given = partial(_open_map, root.filename, *view)
        elif given is self.pixels and not isinstance(given, np.ndarray | torch.Tensor):
            try:
                given = pickle.loads(pickle.dumps(given))  # with a file of its own
            except Exception as error:
                kind = f"a {type(given).__name__} that only this process can read"
                expected = f"what can be pickled ({error}), or a function"
                advice = "open it in the worker: give partial(open_tiff, path)"
                _refuse(self.name, kind, expected, advice)
        return _Source, (self.name, given, self.ignore)


def _open_map(path: str, shape: Any, kind: Any, start: int, strides: Any) -> np.ndarray:
    return np.ndarray(shape, kind, np.memmap(path, np.uint8, "r"), start, strides)


def _tile_origins(length: int, tile: int, stride: int) -> range:
    """Give where tiles begin that cover a length; the last one may stick out."""
    return range(0, max(length - tile, 0) + stride, stride)


class TileDataset(Dataset[Sample]):
    """Tiles that cover every pixel of one picture or of several, in reading order.

    image: uint8 (H, W, 3) as an array, a memory map, anything else with `shape` and
    windows `[y0:y1, x0:x1]`, a function that opens one, or a list of these. target:
    masks (H, W) for them: 0 and 1, or 0 and 255, and `ignore` where nobody knows; with
    num_classes, class ids and 255. Masked pixels are ignored; without a target all are.
    tile_size, stride (default: tile_size): pixels, or (height, width). edge: the last
    tile is moved inwards ("shift"), or filled with black, ignored ("pad"). region: (y0,
    x0, y1, x1) to stay in, for all or a list. transform: of pictures, by default
    ImageTargetToTensor.

    Workers share arrays; each maps the file of a memory map, calls a function again,
    gets anything else by pickle, so that what cannot be pickled (zarr over TIFF, h5py)
    must come as a function. (notebook 11)
    """

    def __init__(
        self,
        image: Any,
        target: Any,
        tile_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        transform: PairTransform | None = None,
        *,
        edge: str = "shift",
        region: Region | Sequence[Region] | None = None,
        num_classes: int | None = None,
        ignore: int = IGNORE_GREY,
    ) -> None:
        self.height, self.width = _check_size("tile_size", tile_size)
        self.stride = _check_size("stride", tile_size if stride is None else stride)
        for step, side in zip(self.stride, (self.height, self.width), strict=True):
            _check_number("stride", step, 1, side)  # else pixels between are never seen
        _check_choice("edge", edge, ("shift", "pad"))
        _check_number("ignore", ignore, 0, 255)
        if num_classes is not None:
            _check_number("num_classes", num_classes, 1, IGNORE_INDEX)
        _check_paired(transform)
        self.transform, self.edge, self.num_classes = transform, edge, num_classes
        self.ignore = ignore if num_classes is None else IGNORE_INDEX
        several = isinstance(image, list | tuple)
        images = image if several else [image]
        targets = target if isinstance(target, list | tuple) else [target]
        targets = [None] * len(images) if target is None else targets
        regions = region if np.ndim(region) > 1 else [region] * len(images)
        if not images or not len(images) == len(targets) == len(regions):
            arrived = f"{len(images)}, {len(targets)} targets, {len(regions)} regions"
            _refuse("images", arrived, "one or more, as many of each", "give lists")
        self._sources: list[tuple[_Source, _Source]] = []
        self._grids: list[tuple[range, range]] = []  # rows and columns of tiles
        self.regions: list[Region] = []
        for number, (one, mask) in enumerate(zip(images, targets, strict=True)):
            name = f" {number}" if several else ""
            picture = _Source(f"image{name}", one)
            size, its = picture.size, f"{picture.name}, {picture.size} (H, W)"
            if mask is None:  # a mask in which all is ignored, and which holds nothing
                mask = partial(np.broadcast_to, np.uint8(self.ignore), size)
            mask = _Source(f"target{name}", mask, self.ignore)
            if mask.size != size:
                _refuse(mask.name, f"{mask.size} (H, W)", f"that of {its}", "crop it")
            y0, x0, y1, x1 = region = regions[number] or (0, 0, *size)
            least = (self.height, self.width) if edge == "shift" else (1, 1)
            inside = 0 <= y0 <= y1 - least[0] and 0 <= x0 <= x1 - least[1]
            if not inside or y1 > size[0] or x1 > size[1]:
                arrived = f"{tile_size} in the region {region} (y0, x0, y1, x1)"
                expected = f"a region inside {its}, and in it at least one tile"
                advice = 'cut smaller tiles, or edge="pad" in TileDataset'
                _refuse("tile_size", arrived, expected, advice)
            self._sources.append((picture, mask))
            self.regions.append(region)
            rows = _tile_origins(y1 - y0, self.height, self.stride[0])
            columns = _tile_origins(x1 - x0, self.width, self.stride[1])
            self._grids.append((rows, columns))
        lengths = (len(rows) * len(columns) for rows, columns in self._grids)
        self._ends = list(itertools.accumulate(lengths))

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> Tile:
        """Tell which picture and window a number stands for, without reading any."""
        index = range(len(self))[index]
        picture = bisect.bisect_right(self._ends, index)
        rows, columns = self._grids[picture]
        row, column = divmod(index - self._ends[picture], len(columns))  # from the end
        y0, x0, y1, x1 = self.regions[picture]
        y, x = y0 + rows[row], x0 + columns[column]
        if self.edge == "shift":
            y, x = min(y, y1 - self.height), min(x, x1 - self.width)
        return Tile(picture, y, x, self.height, self.width)

    def __getitem__(self, index: int) -> Sample:
        tile = self.locate(index)
        name, mask = self._sources[tile.picture][1].name, self._read(tile, is_mask=True)
        if self.num_classes is None:
            found = set(np.unique(mask).tolist()) - {self.ignore}
            if not found <= {0, 1, 255} or {1, 255} <= found:
                known = f"0 and 1, or 0 and 255, and {self.ignore} for ignored"
                advice = "name what is ignored, or num_classes for class ids"
                _refuse(name, f"values {sorted(found)[:8]}", known, advice)
            greys = np.where(mask == self.ignore, IGNORE_GREY, 255 * (mask > 0))
            target = Image.fromarray(greys.astype(np.uint8))
        else:
            _check_class_ids(name, torch.from_numpy(mask), self.num_classes)
            target = Image.fromarray(mask)
            target.putpalette(np.array(CLASS_COLOURS, np.uint8).tobytes())
        image = Image.fromarray(self._read(tile, is_mask=False))
        return _transformed(self.transform or ImageTargetToTensor(), image, target)

    def _read(self, tile: Tile, is_mask: bool) -> np.ndarray:
        """Read a tile; what of it lies beyond its region is black, or ignored."""
        _, _, y1, x1 = self.regions[tile.picture]
        source = self._sources[tile.picture][is_mask]
        end = min(tile.y + tile.height, y1), min(tile.x + tile.width, x1)
        window = source.read(tile.y, tile.x, *end)
        full = tile.height, tile.width, *window.shape[2:]
        margins = [(0, beyond) for beyond in np.subtract(full, window.shape)]
        return np.pad(window, margins, constant_values=source.ignore or 0)


class RandomTileDataset(TileDataset):
    """Tiles at random places, `num_samples` an epoch, new ones in each epoch.

    A picture is drawn by its area, and each place in it is as likely as any other.
    image, target, tile_size, transform, and as options region, num_classes, ignore: as
    in TileDataset. skip_empty: share of the samples, 0..1, that are drawn up to 20
    times, until there is foreground in them.

    Which tile it is depends on seed, the index and how often that index was drawn,
    which all worker processes count together: the same seed gives the same epochs, if
    they are whole, whatever the loader. A run that is resumed counts from 0 again, and
    each of several processes that train together counts for itself. (notebook 11)
    """

    def __init__(
        self,
        image: Any,
        target: Any,
        tile_size: int | Sequence[int],
        num_samples: int,
        transform: PairTransform | None = None,
        seed: int = 0,
        *,
        skip_empty: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            image, target, tile_size, None, transform, edge="shift", **options
        )
        _check_number("num_samples", num_samples, 1)
        _check_number("seed", seed, 0)
        _check_number("skip_empty", skip_empty, 0, 1, whole=False)
        if skip_empty and target is None:
            raise ValueError("skip_empty without a target: nobody knows what is empty")
        self.seed, self.skip_empty = seed, skip_empty
        areas = ((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in self.regions)
        self._area_ends = list(itertools.accumulate(areas))
        # In memory that worker processes share, however they start.
        self._draws = torch.zeros(num_samples, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._draws)

    def locate(self, index: int) -> Tile:
        """Tell which tile an index is when it is next drawn."""
        index = range(len(self))[index]
        rng = np.random.default_rng((self.seed, int(self._draws[index]), index))
        tries = 20 if rng.random() < self.skip_empty else 1
        for _ in range(tries):
            place = rng.integers(self._area_ends[-1])
            picture = bisect.bisect_right(self._area_ends, place)
            y0, x0, y1, x1 = self.regions[picture]
            y = int(rng.integers(y0, y1 - self.height, endpoint=True))
            x = int(rng.integers(x0, x1 - self.width, endpoint=True))
            tile = Tile(picture, y, x, self.height, self.width)
            mask = self._read(tile, is_mask=True) if tries > 1 else None
            if mask is None or ((mask != 0) & (mask != self.ignore)).any():
                break
        return tile

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        self._draws[index] += 1
        return sample


def split_regions(
    height: int, width: int, val_share: float = 0.2, gap: int = 0
) -> tuple[Region, Region]:
    """Split a picture across its longer side: regions to train and to validate in.

    gap: pixels between them that neither sees, at least the `receptive_field`.
    val_share: of what the gap leaves, 0..1; below, or on the right. (notebook 11)
    """
    _check_number("val_share", val_share, 0, 1, whole=False)
    _check_number("gap", gap, 0)
    length = max(height, width) - gap
    end = length - round(length * val_share)
    if not 0 < end < length:
        arrived = f"{height} x {width} pixels, val_share {val_share}, gap {gap}"
        _refuse("regions", arrived, "something left for each", "make the gap smaller")
    if height >= width:
        return (0, 0, end, width), (end + gap, 0, height, width)
    return (0, 0, height, end), (0, end + gap, height, width)


@torch.inference_mode()
def receptive_field(network: nn.Module, size: int = 256) -> int:
    """Measure the side of the square, in pixels, that one logit depends on.

    One pixel is NaN, which spreads to all that is computed from it; at 32 places in
    turn (more where the network's `multiple` is), as pooling looks farther from some.
    Raises ValueError where that reaches the border of a picture of `size`, as where a
    network normalises, and for logits of another size. (notebook 11)
    """
    _check_number("size", size, 64)
    reach, image = 0, torch.zeros(1, 3, size, size)
    image = image.to(next(network.parameters(), image))
    around = max(32, getattr(network, "multiple", 1)) // 2
    with _evaluating(network):
        for place in range(size // 2 - around, size // 2 + around):
            image.zero_()[..., place, place] = torch.nan
            logits = network(image)
            if logits.shape[-2:] != image.shape[-2:]:
                what, wanted = (
                    f"logits {tuple(logits.shape)}",
                    f"those of {size}x{size}",
                )
                _refuse("network", what, wanted, "scale them up in it")
            reached = logits[0].isnan().any(dim=0).nonzero()
            low, high = (int(end) for end in reached.aminmax())
            if low == 0 or high == size - 1:
                expected = "a network that sees less, such as UNet(normalize=False)"
                _refuse(f"size {size}", "all is seen", expected, "or a larger size")
            reach = max(reach, place - low, high - place)
    return 2 * reach + 1


@contextlib.contextmanager
def _picture_norms(read: Callable, predict: Callable, layers: list) -> Iterator[None]:
    """Let layers that normalise each image use mean and variance over all windows.

    These depend on the layers before, so one is measured after the other, each by a
    pass that ends there. Every pixel of the picture counts once.
    """
    known: list[torch.Tensor] = []  # mean and variance, in the order of use
    upcoming = iter(known)

    class Reached(BaseException):  # which no network catches
        """Ends a pass where mean and variance are not known yet."""

    def normalize(layer: Any, x: torch.Tensor) -> torch.Tensor:
        if (moments := next(upcoming, None)) is None:
            raise Reached(getattr(layer, "num_groups", x.shape[1]), x.cpu().double())
        return F.batch_norm(x, *moments.to(x), layer.weight, layer.bias, eps=layer.eps)

    with contextlib.ExitStack() as stack:
        for layer in layers:
            layer.forward = partial(normalize, layer)
            stack.callback(delattr, layer, "forward")
        while layers:
            sums = torch.zeros(3, 1)
            for *_, pixels, weights in read("centre"):
                upcoming = iter(known)
                try:
                    predict(pixels)
                    break
                except Reached as reached:
                    groups, x = reached.args
                share = F.adaptive_avg_pool2d(weights, x.shape[2:]).double()
                powers = [torch.einsum("bhw,bchw->c", share, x**p) for p in range(3)]
                sums = sums + torch.stack(powers)
            if not sums.any():  # the first batch went through
                break
            mean, square = (sums[1:] / sums[0]).view(2, groups, -1).mean(dim=2)
            moments = torch.stack([mean, square - mean**2]).float()
            known.append(moments.repeat_interleave(sums.shape[1] // groups, dim=1))
        upcoming = itertools.cycle(known)
        yield


@torch.inference_mode()
def predict_tiled(
    model: Any,
    image: Any,
    tile_size: int | Sequence[int],
    overlap: int,
    *,
    batch_size: int = 4,
    out: np.ndarray | None = None,
    weights: str = "smooth",
    progress: bool = False,
) -> np.ndarray:
    """Predict a picture of any size by overlapping windows: probabilities (K, H, W).

    image: uint8 (H, W, 3), as in TileDataset; a row of windows is read at a time. out:
    float32 (K, H, W), an array or a memory map, to write into. The model's own
    `probabilities` makes them of logits, else a sigmoid for one class, or a softmax.

    weights: how windows share pixels. "smooth": less towards their borders; "constant":
    equally; "centre": each pixel from the window that it is deepest in, as the whole
    picture gives it where half the overlap covers the `receptive_field`'s reach (UNet:
    93, fast 187) and windows begin where pooling does. With less, windows' borders look
    like the picture's: the reference network is off by 0.01 on average in tiles of 256
    that overlap by 64, but by up to 0.07 in 128 by 32 (128 by 64, "centre": 0.04).
    Layers that normalise each image do so over the whole picture, which is measured
    first in twice the time of the rest. Warns of torch's layers that look at a whole
    tile otherwise; what a `forward` does by itself, and a callable that is no Module,
    it cannot see. (notebook 11)
    """
    source, sides = _Source("image", image), _check_size("tile_size", tile_size)
    _check_number("overlap", overlap, 0, min(sides) - 1)
    _check_number("batch_size", batch_size, 1)
    _check_choice("weights", weights, ("smooth", "constant", "centre"))
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    cell = next((part.multiple for part in parts if hasattr(part, "multiple")), 0)
    # Where windows begin along each side, and their weights, float32 (n, tile). These
    # sum to 1 at every pixel, and so do the products of those of both sides.
    axes: list[tuple[list[int], dict[str, torch.Tensor]]] = []
    for length, side in zip(source.size, sides, strict=True):
        # The picture is padded as UNet pads it whole, and to the size of a tile.
        length = -(-length // cell) * cell if 0 < cell <= side else max(length, side)
        origins, tile = _tile_origins(length, side, side - overlap), min(side, length)
        starts, inside = np.minimum(origins, length - tile)[:, None], np.arange(tile)
        # Pixels to the nearest end of the window that is not an end of the picture.
        before = np.where(starts == 0, tile, inside + 1)
        after = np.where(starts + tile == length, tile, tile - inside)
        depth, places = np.minimum(before, after), starts + inside
        deepest = np.zeros(length, np.int64)
        np.maximum.at(deepest, places, depth)
        shares = {"constant": np.ones_like(depth), "centre": depth == deepest[places]}
        shares["smooth"] = np.minimum(depth, overlap + 1)
        for kind, share in shares.items():
            total = np.bincount(places.ravel(), share.ravel())
            shares[kind] = torch.from_numpy(share / total[places]).float()
        axes.append((starts[:, 0].tolist(), shares))
    (rows, down), (columns, across) = axes
    tiles = len(rows) * len(columns)
    norms = (nn.GroupNorm, nn.InstanceNorm2d, nn.BatchNorm2d)
    layers = [part for part in parts if isinstance(part, norms) and tiles > 1]
    layers = [one for one in layers if getattr(one, "running_mean", None) is None]
    # What a subclass adds, such as an activation, would be lost.
    known = {kind.forward for kind in (*norms, InstanceNorm)}
    foreign = [one for one in layers if type(one).forward not in known]
    layers = [one for one in layers if one not in foreign]
    wide = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.MultiheadAttention
    if foreign or any(isinstance(part, wide) for part in parts):
        text = "the model pools, attends or normalises over a tile, not the picture"
        warnings.warn(text, stacklevel=3)
    bar = tqdm(total=tiles * (1 + len(layers)), unit="tile", disable=not progress)
    like = next(model.parameters() if parts else iter(()), torch.empty(0))

    def read(kind: str) -> Iterator[tuple[int, list[int], np.ndarray, torch.Tensor]]:
        """Read a row's windows in batches: y, each x, uint8 (B, h, w, 3), weights."""
        height, width = down[kind].shape[1], across[kind].shape[1]
        for y, shares in zip(rows, down[kind], strict=True):
            strip = source.read(y, 0, min(y + height, source.size[0]), source.size[1])
            below, right = height - len(strip), columns[-1] + width - source.size[1]
            strip = np.pad(strip, ((0, below), (0, right), (0, 0)), "edge")
            for first in range(0, len(columns), batch_size):
                some = slice(first, first + batch_size)
                pixels = np.stack([strip[:, x : x + width] for x in columns[some]])
                beside = across[kind][some, None]
                yield y, columns[some], pixels, shares[:, None] * beside
                bar.update(len(pixels))

    def predict(pixels: np.ndarray) -> torch.Tensor:
        """Predict windows, uint8 (B, h, w, 3): float32 (B, K, h, w) on the CPU."""
        batch = torch.from_numpy(pixels).to(like.device).permute(0, 3, 1, 2)
        logits = model(batch.float().div_(255).to(like.dtype))  # channels last
        shape = tuple(getattr(logits, "shape", ()))
        if len(shape) != 4 or (shape[0], *shape[2:]) != pixels.shape[:3]:
            arrived = f"gave a {type(logits).__name__} {shape} for {tuple(batch.shape)}"
            _refuse("the model", arrived, "logits (B, K, H, W)", "of its B, H and W")
        usual = partial(torch.softmax, dim=1) if shape[1] > 1 else torch.sigmoid
        system = getattr(model, "module", model)  # in a wrapper, as AveragedModel
        return getattr(system, "probabilities", usual)(logits.float()).cpu()

    with bar, _evaluating(model), _picture_norms(read, predict, layers):
        for y, xs, pixels, shares in read(weights):
            windows = predict(pixels)
            if y == xs[0] == 0:  # the first batch, which tells K
                shape = windows.shape[1], *source.size
                out = np.empty(shape, np.float32) if out is None else out
                fits = isinstance(out, np.ndarray) and out.dtype == np.float32
                if not fits or out.shape != shape or not out.flags.writeable:
                    kind = f"a {type(out).__name__} {getattr(out, 'dtype', '')}"
                    expected = f"an array float32 {shape}, to write into"
                    _refuse("out", f"{kind} {np.shape(out)}", expected, "or None")
                out[:] = 0
            for x, window, share in zip(xs, windows, shares, strict=True):
                part = out[:, y : y + len(share), x : x + len(share[0])]
                part += (window * share)[:, : part.shape[1], : part.shape[2]].numpy()
                np.minimum(part, 1, out=part)  # weights sum to 1 but for rounding
    return out


# --------------------------------------------------------------------------------------
# 12. Command line: check, train, predict; its settings are section 0. (notebook 13)
# --------------------------------------------------------------------------------------

# The checkpoint that `predict` uses by itself: the project's, not copied with the file.
REFERENCE = Path(__file__).parent / "checkpoints" / "reference.ckpt"
# Settings that describe the machine, so a run may go on with others.
MACHINE = "accelerator", "devices", "num_nodes", "strategy", "num_workers", "cache"
MACHINE += "dataset", "scenes"  # which may have moved
# Settings that say which network it is.
NETWORK = ("max_features", "fast", "encoder")


def read_scenes(path: Path | str) -> dict[str, str]:
    """Read which scene each image belongs to, from a CSV table `image,scene`.

    Gives scene by file name of the image. Raises ValueError with the line for a missing
    column or value and for an image named twice. (notebook 06)
    """
    scenes: dict[str, str] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            header = rows.fieldnames or ()
            if not {"image", "scene"} <= {*header}:
                raise ValueError(f"the first line is {','.join(header)!r}")
            for row in rows:
                image, scene = ((row.get(n) or "").strip() for n in ("image", "scene"))
                image = unicodedata.normalize("NFC", image)
                if not image or not scene or image in scenes:
                    what = f"line {rows.line_num} is for {image!r} in scene {scene!r}"
                    raise ValueError(what)
                scenes[image] = scene
        if not scenes:
            raise ValueError("no lines after the first")
    except FileNotFoundError as error:
        what = "there is no such table of scenes; expected the path of one"
        raise FileNotFoundError(f"{path}: {what} (--scenes)") from error
    except (ValueError, csv.Error) as error:
        wanted = "a CSV table in UTF-8: image,scene, then each image once"
        _refuse(path, str(error), wanted, "mend that")
    return scenes


def _parse_values(texts: Sequence[str]) -> list[MaskValue]:
    """Read ids and colours: "15", "1-9", "1,2", "ff00ff", "(255, 0, 255)"."""
    values: list[MaskValue] = []
    parts = re.split(r",(?![^(]*\))", ",".join(texts))  # not within a colour
    for part in parts if texts else ():
        ids = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        span = range(int(ids[1]), int(ids[2] or ids[1]) + 1) if ids else ()
        if re.fullmatch(r"#?[0-9a-fA-F]{6}", part):
            span = [tuple(bytes.fromhex(part[-6:]))]
        if colour := re.fullmatch(r"\((\d+), ?(\d+), ?(\d+)\)", part):
            span = [tuple(map(int, colour.groups()))]  # as `check` prints it
        if not span:
            wanted = "ids like 15, 1-9 or 1,2, or a colour, ff00ff or '(255, 0, 255)'"
            raise ValueError(f"{part!r}: expected {wanted}")
        values += span
    return values


def _parse_classes(settings: Settings) -> dict[str, list[MaskValue]]:
    """Give the values of each class by its name; "0-8" is nine classes."""
    classes: dict[str, list[MaskValue]] = {}
    for text in settings.classes:
        name, named, values = text.rpartition("=")
        parsed = _parse_values([values])
        groups = {bytes(v).hex() if np.ndim(v) else str(v): [v] for v in parsed}
        groups = {name: parsed} if named else groups
        if classes.keys() & groups or "" in groups:
            raise ValueError(f"--classes {text}: expected another name for each class")
        classes |= groups
    return classes


def _reading(settings: Settings) -> dict[str, Any]:
    """Say how files are found and read: keywords for the doctor and the data module."""
    foreground, ignore = map(_parse_values, (settings.foreground, settings.ignore))
    classes = list(_parse_classes(settings).values())
    named = list(itertools.chain(foreground, ignore, *classes))
    twice = [str(value) for value, count in Counter(named).items() if count > 1]
    fits = not twice and len({*map(type, named)}) < 2 and not (classes and foreground)
    if not fits or len(classes) == 1 or len(classes) > IGNORE_INDEX:
        raise ValueError(
            f"--foreground of {len(foreground)} values, --classes of {len(classes)}, "
            f"--ignore of {len(ignore)}, twice: {', '.join(twice[:8]) or 'none'}; "
            "expected foreground, or 2 to 255 classes, background first (any=1-400 is "
            "one class of many ids); ids (255) or colours (ffffff), not both, each once"
        )
    _check_number("threshold", settings.threshold, 1, 255)
    read = partial(load_mask, threshold=settings.threshold, foreground=foreground)
    if classes:
        read = partial(load_classes, classes=classes)
    return {
        "patterns": settings.patterns or None,
        "missing": settings.missing,
        "scenes": read_scenes(settings.scenes) if settings.scenes else None,
        "read_target": partial(read, ignore=ignore),
    }


def _make_folder(name: str) -> Path:
    """Make a folder for output."""
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "cannot be made a folder; give another --output-dir"
        raise OSError(f"{name}: {advice} ({error.strerror})") from error
    return Path(name)


def _train(options: argparse.Namespace) -> int:
    """Run `train`: look at the folder, train, say how to predict."""
    given = dict(vars(options))
    run = given.pop("resume")
    folder = Path(run).parent if run.endswith(".ckpt") else Path(run)
    settings = _resumed(folder / "settings.json", given) if run else Settings(**given)

    def some(*names: str) -> dict[str, Any]:
        return {name: getattr(settings, name) for name in names}

    # What no constructor refuses, or not before there is a folder.
    if not settings.dataset:
        raise ValueError("which folder? give it with -d")
    if not re.fullmatch("auto|[1-9][0-9]*", settings.devices):
        raise ValueError(f"devices {settings.devices}: expected auto, or how many")
    _check_number("image_size", max(settings.image_size), 1, 8192)
    _check_number("seed", settings.seed, 0, 2**32 - 1)
    _check_number("max_epochs", settings.max_epochs, 1)
    _check_number("pos_weight", settings.pos_weight, 1e-9, 1e9, whole=False)

    quiet_lightning()
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    reading = _reading(settings)
    is_first = not pl.utilities.rank_zero_only.rank
    if is_first:
        report = check_pairs(settings.dataset, progress=True, **reading)
        if report.problems:
            print(report)
        if not report.ok:
            raise ValueError(
                f"{settings.dataset}: not fit to train on, as shown above; mend it, or "
                "say with --foreground or --classes what its values mean"
            )
    sides = settings.image_size
    data = UISegmentationData(
        settings.dataset,
        image_size=sides if len(sides) > 1 else sides[0],
        augment=train_augmentation() if settings.augment else None,
        **some(
            "batch_size", "overfit_num", "val_share", "num_workers", "cache", "seed"
        ),
        **reading,
    )
    keeper = RunFolder(folder, patience=settings.patience)
    trainer = pl.Trainer(
        **some("max_epochs", "accelerator", "num_nodes", "strategy", "precision"),
        devices=settings.devices,
        callbacks=[StepProgress(timed=True), keeper],
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    target = data.split(trainer.world_size)[0][0][1]

    # The system, from scratch or from a checkpoint's weights.
    classes = _parse_classes(settings)
    names = [*(classes or (target if isinstance(target, dict) else ()))]
    kind = {
        "task": "multiclass" if classes else "multilabel" if names else "binary",
        "num_out_channels": len(names) or 1,
        "class_names": names,
        "class_values": [values[0] for values in classes.values()],
    }
    network, learnt = some(*NETWORK), None
    last = folder / "last.ckpt" if run and (folder / "last.ckpt").exists() else None
    if settings.weights and not last:
        learnt = load_system(settings.weights)
        own = {"fast": False} | learnt.settings
        wanted = kind | {name: given[name] for name in network if name in given}
        for name, value in wanted.items():
            if own[name] not in (value, []):
                what, advice = f"{name} is {own[name]}", "train anew, without --weights"
                _refuse(settings.weights, what, f"{value}", advice)
        network = own
    loss = some(*(n for n in ("loss", "pos_weight") if not classes or n in given))
    rest = some("learning_rate", "optimizer") | {"image_size": data.image_size}
    usual = settings.encoder_weights or ENCODER_WEIGHTS
    rest["encoder_weights"] = None if learnt or last else usual  # these have their own
    system = UISegmentationSystem(**network | kind | loss | rest)
    if learnt:
        system.load_state_dict(learnt.state_dict())

    # The run's folder, 001 and so on; only the first process writes.
    if not run:
        parent = _make_folder(settings.output_dir)
        taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
        keeper.folder = folder = parent / f"{max(taken, default=0) + 1:03}"
    if not run and is_first:
        folder.mkdir()
        kept = asdict(settings) | {n: network[n] for n in NETWORK}
        for name in ("dataset", "encoder_weights", "weights", "scenes"):
            kept[name] = kept[name] and os.path.abspath(kept[name])
        with _atomic_write(folder / "settings.json") as part:
            part.write_text(json.dumps(kept, indent=2) + "\n")
    if last:
        whole = {"loops", "optimizer_states"} <= read_checkpoint(last).keys()
        if load_system(last).settings != system.settings or not whole:
            _refuse(last, "not this run's", "its last checkpoint", "start a new run")
    # A signal ends a process at once; Lightning would first talk to the others.
    trainer._signal_connector.register_signal_handlers = lambda: None
    if is_first:
        os.environ[STARTER] = str(os.getpid())
    command = ["python", os.path.relpath(__file__), "train", "--resume", str(folder)]
    try:
        trainer.fit(system, data, ckpt_path=last)
    except (SystemExit, Exception) as error:
        code = 130  # of an interrupt, which Lightning makes a SystemExit
        if isinstance(error, Exception):
            # Without a further process that a signal ended, training fails here too.
            # Lightning's observer, which looks every five seconds, would kill this one
            # before it has said so; the others end with it (`_end_with`).
            for thread in threading.enumerate():
                if thread.name == "child-process-observer":
                    thread._child_processes = []
            time.sleep(1)
            processes = getattr(trainer.strategy.launcher, "procs", [])
            codes = [process.poll() or 0 for process in processes]
            code = next((one for one in codes if one < 0 or one == 130), 0)
            if not code:
                raise
        if is_first:
            print(f"\ninterrupted; go on with: {shlex.join(command)}")
        return max(code, 128 - code)
    if is_first:
        best = keeper.best
        command[2:] = ["predict", "-c", str(folder / "best.ckpt")]
        print(
            f"best val_iou {best['val_iou']:.3f}, after epoch {best['epoch']:.0f} of "
            f"{len(keeper.rows)}; all of the run: {folder}\n"
            f"to predict: {shlex.join(command)} PICTURES ..."
        )
    return 0


def _resumed(path: Path, given: Mapping[str, Any]) -> Settings:
    """Read an earlier run's settings; only what describes the machine may change."""
    if changed := [name for name in given if name not in MACHINE]:
        raise ValueError(
            f"--resume goes on with the run's own settings: leave out {changed[0]}, or "
            "start a new run (with --weights to keep what was learnt)"
        )
    saved = {}
    try:
        for name, value in json.loads(path.read_text()).items():
            default = getattr(Settings, name)
            like, parts = default, [value]
            if isinstance(default, tuple) and isinstance(value, list):
                like, parts = [*default, ""][0], value
            if any(type(part) is not type(like) for part in parts):
                raise ValueError(f"{name} {value!r}")
            saved[name] = type(default)(value)
        if not saved.get("dataset"):
            raise ValueError("it names no dataset")
    except (OSError, ValueError, AttributeError) as error:
        arrived = f"missing, damaged or of another version ({error})"
        _refuse(path, arrived, "a run, such as runs/001", "name it, or start a new run")
    return Settings(**saved | given)


def _predict(options: argparse.Namespace) -> int:
    """Run `predict`: write a mask for every picture; 2 if some could not be read."""
    threshold, folder = options.threshold, Path(options.output_dir)
    _check_number("threshold", threshold, 0, 1, whole=False)
    if not options.checkpoint and not REFERENCE.exists():
        advice = "give a checkpoint of your own with --checkpoint, see train"
        raise FileNotFoundError(f"{REFERENCE}: the reference is not there; {advice}")
    system = load_system(options.checkpoint or REFERENCE)
    own, exclusive = system.settings, system.task == "multiclass"
    numbers, endings, colours = range(own["num_out_channels"]), ["mask"], [(255, 0, 80)]
    if system.task == "multilabel":
        endings = [f"mask_{name}" for name in own["class_names"] or numbers]
        colours = CLASS_COLOURS[1:]
    elif exclusive:  # ids stay ids, colours colours
        values, colours = np.array(own["class_values"] or numbers), CLASS_COLOURS[:255]
        if values.ndim == 2:
            values, colours = np.array(numbers), own["class_values"]

    # Each picture once; of folders and globs neither targets nor what is written here.
    made = tuple(f"_{end}".lower() for end in ("target", "mask", "overlay", *endings))
    endings += ["overlay"] * options.overlay
    pictures: dict[str, Path] = {}
    for name in options.pictures:
        paths = [Path(name)]
        if not paths[0].is_file():
            pattern = f"{glob.escape(name)}/*" if paths[0].is_dir() else name
            paths = [
                path
                for path in map(Path, sorted(glob.glob(pattern, recursive=True)))
                if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
                if not path.stem.lower().endswith(made)
            ]
        if not paths:
            wanted = 'files, folders or globs such as "folder/**/*.png"'
            raise FileNotFoundError(f"{name}: no picture; expected {wanted}")
        for path in paths:
            files = [folder / f"{path.stem}_{ending}.png" for ending in endings]
            if not pictures.setdefault(path.stem, path).samefile(path):
                what = f"{path} and {pictures[path.stem]} would both be {files[0]}"
                raise ValueError(f"{what}; predict them into two folders")
            there = [file for file in files if file.exists()]
            if there and not options.overwrite:
                advice = "give another --output-dir, or --overwrite"
                raise FileExistsError(f"{there[0]}: is there already; {advice}")

    failures, scaled_to = [], ""
    for path in tqdm(pictures.values(), unit="picture", disable=len(pictures) < 2):
        try:
            image = load_image(path)
            size = image.height, image.width
            inside = _check_size("image_size", own["image_size"] or size)
            if options.tiles:
                pixels, overlap = np.asarray(image), min(inside) // 4
                found = predict_tiled(system, pixels, inside, overlap, progress=True)
                found = found.argmax(axis=0) if exclusive else found >= threshold
            else:
                if size[0] > inside[0] or size[1] > inside[1]:
                    scaled_to = f"{inside[0]}x{inside[1]}"
                predict = getattr(system, TASKS[system.task])
                found = predict(image) if exclusive else predict(image, threshold)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        if exclusive:
            ids = values.astype("uint16" if values.max() > 255 else "uint8")[found]
            drawn = [Image.fromarray(ids)]
            if ids.dtype == np.uint8:  # a palette has no more
                # 255 colours of classes, and one for 255, which a value may be.
                drawn[0].putpalette([*itertools.chain(*colours), *VOC_PALETTE[255]])
            if options.overlay:
                image = Image.blend(image, classes_to_colors(found, colours), 0.5)
        else:
            masks = found.reshape(-1, *size)
            drawn = [Image.fromarray(mask).convert("L") for mask in masks]
            for mask, colour in zip(masks, colours, strict=False):
                image = overlay(image, mask, colour) if options.overlay else image
        _make_folder(options.output_dir)
        for ending, picture in zip(endings, [*drawn, image], strict=False):
            with _atomic_write(folder / f"{path.stem}_{ending}.png") as part:
                picture.save(part, format="PNG")
    print(f"{len(pictures) - len(failures)} of {len(pictures)} pictures: {folder}")
    if scaled_to:
        print(f"scaled to {scaled_to}, as in training; --tiles looks at the full size")
    if failures:
        raise ValueError(f"{len(failures)} not done: {' | '.join(failures)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `check`, `train` or `predict`; gives the exit code.

    Bad input ends in one line on stderr and SystemExit(2).
    """
    options = _parse(argv)
    command = vars(options).pop("command")
    # A mask takes the place of its picture: check gives the memory back in between.
    if __name__ == "__main__" and command != "check":
        keep_freed_memory()
    try:
        if command == "train":
            return _train(options)
        if command == "predict":
            return _predict(options)
        given = dict(vars(options))
        folder, as_json, strict = (given.pop(n) for n in ("folder", "json", "strict"))
        report = check_pairs(folder, progress=True, **_reading(Settings(**given)))
        print(report.to_json() if as_json else report)
        return 0 if report.ok and not (strict and report.problems) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Lightning's own is of settings that this machine cannot meet.
        lightnings = type(error).__name__ == "MisconfigurationException"
        if not isinstance(error, ValueError | OSError) and not lightnings:
            raise
        program = Path(sys.argv[0]).name
        sys.stderr.write(f"{program} {command}: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    sys.exit(main())
