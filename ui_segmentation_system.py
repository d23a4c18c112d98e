"""Find the user interface in a screenshot: image segmentation in one file.

Everything that the notebooks of the series build, in its finished form: masks,
datasets, paired transforms, a UNet, losses, loaders, training. Copy it and use it.

    print(check_pairs("my_folder"))            # 1_input.png, 1_target.png, ...: sound?
    data = UISegmentationData("my_folder", batch_size=4)
    system = UISegmentationSystem()
    pl.Trainer(max_epochs=20).fit(system, data)
    mask = system.predict_mask(load_image("new.png"))      # bool (H, W)

Or without Python: python ui_segmentation_system.py check | train | predict --help
Several classes: read_target=partial(load_classes, num_classes=9) for the first two, and
UISegmentationSystem(task="multiclass", num_out_channels=9).

Tensors: image float32 (3, H, W) in 0..1; binary target float32 (1, H, W) of 0 and 1;
class target int64 (H, W); overlapping target float32 (K, H, W); 255 is ignored
everywhere. A network gives logits; a sigmoid or softmax makes them probabilities, a
threshold or argmax a prediction. Letters: B batch, C channels, K classes, H height, W
width.

Contents, in the order of the notebooks; delete from the bottom what you do not need:

    1. Pictures and masks            7. Loaders
    2. Pairs, doctor and datasets    8. Other people's folders
    3. Paired transforms             9. Tiles
    4. UNet                         10. Lightning system and data module
    5. Losses and scores            11. Command line
    6. Showing

Notable choices:
- Transforms are thin layers over torchvision v2: one draw, masks never blended.
- UNet (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with one convolution
  a block, Kaiming weights (https://arxiv.org/abs/1502.01852) and the head's bias at the
  share of foreground (https://arxiv.org/abs/1708.02002, section 4.1).
- OneCycle learning rates (https://arxiv.org/abs/1708.07120).

Version 0.1.0 of the series "ui-segmentation-system". Licence: MIT.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import csv
import difflib
import glob
import hashlib
import io
import itertools
import json
import logging
import math
import os
import pickle
import random
import re
import shlex
import signal
import sys
import time
import traceback
import warnings
import weakref
from collections import Counter, deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import multiprocessing, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

# --------------------------------------------------------------------------------------
# 1. Pictures and masks: files to pictures, colours to class ids. (notebook 01)
# --------------------------------------------------------------------------------------

IGNORE_INDEX = 255
# A mask picture holds 0 (background), 255 (foreground) and, where nobody knows, this.
IGNORE_GREY = 128
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
# Colours that differ by less than this between channels are JPEG's idea of grey.
GREY_TOLERANCE = 16
# How a level of a mask is named: a class id (palette index or grey value), or a colour.
MaskValue = int | tuple[int, int, int]
# Lossy files surround a level with rings up to RING greys away, and move a whole area
# by DRIFT at most; a value of flat areas smaller than this share is a ring.
RING = 32
DRIFT = 4
SPECK = 0.002
# More values than lie within RING of the darkest and the brightest: a file with rings.
MANY_VALUES = 2 * RING + 2
# So many values can be ids, and can be the rings of a JPEG that was saved as PNG.
FEW_VALUES = 12
# Grey is an edge where dark and bright are no farther away than this, in pixels.
EDGE_REACH = 7
# In a lossy file the farthest that a channel may be from a named value.
LOSSY_DISTANCE = 127


def _voc_colour(number: int) -> tuple[int, int, int]:
    """Spread the bits of a class id over the three channels, as Pascal VOC does."""
    red, green, blue = (
        sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3))
        for channel in range(3)
    )
    return red, green, blue


# Colours of classes 0, 1, 2, ...; class 0 is what is not looked for.
PALETTE = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (240, 50, 230),
    (210, 245, 60),
)
# Of 256 classes in Pascal VOC's masks; the last is the pale rim that is ignored.
VOC_PALETTE = tuple(map(_voc_colour, range(256)))
# Ours as far as they go: 255 colours of classes, and VOC's pale one for ignored.
CLASS_COLOURS = PALETTE + VOC_PALETTE[len(PALETTE) :]


def _refuse(path: Path | str, arrived: str, expected: str, advice: str) -> NoReturn:
    raise ValueError(f"{path}: {arrived}; expected {expected}; {advice}")


def _check_number(
    name: str, value: Any, least: float, most: float = math.inf, whole: bool = True
) -> None:
    """Refuse a setting that is no number from least to most."""
    kinds = int | np.integer if whole else int | float | np.number
    if isinstance(value, bool) or not isinstance(value, kinds):
        fits = False
    else:
        fits = least <= value <= most
    if not fits:
        kind = "a whole number" if whole else "a number"
        end = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} {value!r}: expected {kind}, {end}")


def _check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    if value not in (known := list(choices)):
        raise ValueError(f"{name} {value!r}: expected one of {known}")


def _open_picture(path: Path | str) -> Image.Image:
    """Open and decode a picture file whole, and turn it upright."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path}: {what}; expected a picture file")
    try:
        # From bytes: by its name, Pillow maps a grey TIFF and forgets to turn it.
        picture = Image.open(io.BytesIO(path.read_bytes()))
        picture.load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path}: more pixels than Pillow opens ({error}); for pictures of this "
            "size see notebook 09, or raise PIL.Image.MAX_IMAGE_PIXELS yourself"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        _refuse(path, _what_it_is(path, error), "a whole picture", "save it again")
    return _upright(picture)


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture the way its EXIF tag says; a damaged tag says nothing."""
    try:
        turned = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError):
        return picture
    turned.format = picture.format
    return turned


def _what_it_is(path: Path, error: Exception) -> str:
    """Say what a file is that Pillow could not read."""
    start = path.read_bytes()[:40]
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the picture (run: git lfs pull)"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"not a picture (it begins with {start[:12]!r})"
    return f"damaged or cut short ({error})"


def _flatten(picture: Image.Image) -> Image.Image:
    """Lay a picture with transparency on white."""
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture)


def _has_alpha(picture: Image.Image) -> bool:
    return "A" in picture.getbands() or "transparency" in picture.info


def load_image(path: Path | str) -> Image.Image:
    """Read a picture as RGB, upright, transparent parts laid on white.

    Grey, palette, CMYK and 16-bit pictures are converted. Raises FileNotFoundError, or
    ValueError for an empty, damaged or foreign file and for 32-bit grey values, whose
    range nobody can guess. (notebook 01)
    """
    return _to_rgb(_open_picture(path), path)


def _to_rgb(picture: Image.Image, name: Path | str) -> Image.Image:
    """Convert any kind of picture to RGB without losing what it shows."""
    if picture.mode in ("I", "F"):
        _refuse(name, "32-bit grey values", "8 or 16 bits", "scale it to 0..255 first")
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if _has_alpha(picture):
        picture = _flatten(picture)
    return picture.convert("RGB")


def load_mask(
    path: Path | str,
    threshold: int = 128,
    *,
    foreground: Sequence[MaskValue] = (),
    ignore: Sequence[MaskValue] = (),
) -> Image.Image:
    """Read a mask as a picture of mode "L": 0, 255, and 128 for what is ignored.

    Grey values from `threshold` (1..255) on become 255, so the grey rings that JPEG
    leaves vanish; a mask of 0 and 1 is recognised. foreground: the values that count
    instead, all else is background: class ids (palette index, else grey value), or
    RGB colours; transparent parts have none. ignore: the values that become 128.
    Raises ValueError, with the file and the option that helps, for what two levels
    cannot explain: class ids, trimaps, colours, photos, a mask too dark, a mask hidden
    in the alpha channel. (notebook 01)
    """
    if not 1 <= threshold <= 255:
        raise ValueError(f"threshold {threshold}: expected 1 to 255")
    roles = _roles(foreground, ignore)
    picture = _open_picture(path)
    mask = _by_value(path, picture, roles)
    if not len(foreground):
        ignored = mask == IGNORE_GREY
        mask = _by_threshold(path, picture, threshold, ignored)
        mask[ignored] = IGNORE_GREY
    return Image.fromarray(mask)


def _roles(
    foreground: Sequence[MaskValue], ignore: Sequence[MaskValue]
) -> dict[MaskValue, int]:
    """Check the named values and say what each becomes, 255 or 128."""
    roles: dict[MaskValue, int] = {}
    for name, values, grey in (
        ("foreground", foreground, 255),
        ("ignore", ignore, IGNORE_GREY),
    ):
        if isinstance(values, int | str):
            raise ValueError(f"{name} {values!r}: expected a list, as {name}=(1,)")
        for value in values:
            if roles.setdefault(_checked_value(name, value), grey) != grey:
                raise ValueError(f"value {value}: named as foreground and as ignored")
    if len({isinstance(value, tuple) for value in roles}) > 1:
        raise ValueError(
            "foreground and ignore name ids and colours; expected one kind of them"
        )
    return roles


def _checked_value(name: str, value: Any) -> MaskValue:
    is_colour = isinstance(value, tuple | list)
    numbers, most = (value, 255) if is_colour else ([value], 65535)
    whole = all(isinstance(number, int | np.integer) for number in numbers)
    if not whole or not all(0 <= number <= most for number in numbers):
        raise ValueError(
            f"{name} {value!r}: expected ids of 0 to 65535 or colours of 0 to 255"
        )
    if is_colour and len(value) != 3:
        raise ValueError(f"{name} {value!r}: expected a colour of red, green and blue")
    return tuple(map(int, value)) if is_colour else int(value)


def _by_value(
    path: Path | str, picture: Image.Image, roles: dict[MaskValue, int]
) -> np.ndarray:
    """Give 255 or 128 where a named value is, else 0; uint8 (H, W)."""
    mask = np.zeros((picture.height, picture.width), np.uint8)
    if not roles:
        return mask
    _check_kind(path, picture, roles)
    by_colour = isinstance(next(iter(roles)), tuple)
    if _is_lossy(path, picture):
        mask = _by_nearest_value(path, np.asarray(picture.convert("RGB")), roles)
    else:
        values = _codes(picture) if by_colour else _ids(path, picture)
        for value, grey in roles.items():
            mask[values == _code(value)] = grey
    if _has_alpha(picture) and (by_colour or picture.mode != "P"):
        mask[~_opaque(picture)] = 0
    return mask


def _check_kind(
    path: Path | str, picture: Image.Image, roles: dict[MaskValue, int]
) -> None:
    """Refuse ids for a picture of colours, and colours for one that has none."""
    named = _listed_values(list(roles))
    if isinstance(next(iter(roles)), tuple):
        if _is_grey(picture):
            _refuse(
                path,
                f"it has grey values and no colours, but {named} was named",
                "ids",
                _ways_out(path, picture),
            )
        return
    if picture.mode == "P":
        _check_palette_ids(path, picture, roles)
    elif _is_colourful(picture):
        _refuse(
            path,
            f"it has colours, but the ids {named} were named",
            "colours (a colour is a tuple inside)",
            _ways_out(path, picture),
        )
    elif picture.mode == "1" and 1 in roles:
        _refuse(path, "the id 1 was named", "0 or 255 in a mask of 1 bit", "name 255")


def _check_palette_ids(
    path: Path | str, picture: Image.Image, roles: dict[MaskValue, int]
) -> None:
    """Refuse a grey level named where a palette's indices are meant."""
    ids = np.unique(np.asarray(picture))
    greys = np.unique(np.asarray(picture.convert("RGB")).max(axis=2))
    mixed = [value for value in roles if value in greys and value not in ids]
    if mixed and not _is_colourful(picture):
        _refuse(
            path,
            f"{_listed_values(mixed)} is a grey level of its palette",
            "an index of the palette",
            _ways_out(path, picture),
        )


def _by_nearest_value(
    path: Path | str, pixels: np.ndarray, roles: dict[MaskValue, int]
) -> np.ndarray:
    """Match the pixels (H, W, 3) of a lossy file with the nearest value.

    What fills areas and was not named is background.
    """
    named = np.array([_as_colour(value) for value in roles])
    by_colour = isinstance(next(iter(roles)), tuple)
    others = _flat_colours(pixels, SPECK)
    if not by_colour:
        _refuse_near_ids(path, _flat_colours(pixels, 5 * SPECK)[:, 0])
        _refuse_near_ids(path, np.array([0, *(v for v in roles if 0 < v <= DRIFT)]))
    drift = 3 * DRIFT if by_colour else DRIFT  # colours are kept at a coarser scale
    others = others[_distances(others, named).min(axis=1) > drift]
    anchors = np.concatenate([named, others])
    greys = np.array([*roles.values(), *[0] * (len(anchors) - len(named))], np.uint8)
    colours, where = np.unique(_pack_rgb(pixels), return_inverse=True)
    gaps = _distances(_unpack_rgb(colours), anchors)
    found = np.where(gaps.min(axis=1) <= LOSSY_DISTANCE, greys[gaps.argmin(axis=1)], 0)
    return found[where].reshape(pixels.shape[:2]).astype(np.uint8)


def _refuse_near_ids(path: Path | str, ids: np.ndarray) -> None:
    """Refuse class ids that are as near to each other as JPEG moves greys."""
    near = np.flatnonzero(np.diff(np.sort(ids)) <= DRIFT)
    if len(near):
        one, other = np.sort(ids)[near[0] : near[0] + 2]
        _refuse(
            path,
            f"a lossy file, where the ids {one} and {other} cannot be told apart",
            "ids farther apart",
            "save the mask again from its source as PNG",
        )


def _flat_colours(pixels: np.ndarray, share: float) -> np.ndarray:
    """List the colours (N, 3) whose areas are a share of (H, W, 3), or the largest."""
    codes = _pack_rgb(pixels)
    flat = codes[_is_flat(codes)]
    colours, counts = np.unique(flat if flat.size else codes, return_counts=True)
    large = (counts > share * codes.size) | (counts == counts.max())
    return _unpack_rgb(colours[large])


def _distances(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Give the largest difference of a channel, (N, M), of (N, 3) and (M, 3)."""
    gaps = np.zeros((len(colours), len(others)), int)
    for channel in range(3):
        gap = np.subtract.outer(colours[:, channel], others[:, channel])
        np.maximum(gaps, np.abs(gap), out=gaps)
    return gaps


def _pack_rgb(pixels: np.ndarray) -> np.ndarray:
    """Give each colour (..., 3) one number."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return red << 16 | green << 8 | blue


def _unpack_rgb(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def _as_colour(value: MaskValue) -> tuple[int, int, int]:
    return value if isinstance(value, tuple) else (value, value, value)


def _is_flat(values: np.ndarray) -> np.ndarray:
    """Tell which pixels of (H, W) have eight neighbours of their own value."""
    padded = np.pad(values, 1, mode="edge")
    left, right = padded[:, :-1], padded[:, 1:]
    across = (left == right)[:, :-1] & (left == right)[:, 1:]
    down = (padded[:-1] == padded[1:])[:, 1:-1]
    return across[:-2] & across[1:-1] & across[2:] & down[:-1] & down[1:]


def _by_threshold(
    path: Path | str, picture: Image.Image, threshold: int, ignored: np.ndarray
) -> np.ndarray:
    """Give 255 from the threshold on, else 0; refuse what two levels do not explain."""
    numbers = _numbers(path, picture, ignored)
    brightest = int(numbers.max())
    if brightest <= 1:
        return (numbers * 255).astype(np.uint8)
    scale = 257 if brightest > 255 else 1
    areas, is_photo = _what_is_grey(numbers, _is_lossy(path, picture))
    if brightest < threshold * scale:
        is_mask = not areas and not is_photo
        _refuse_dark(path, picture, numbers, threshold, is_mask=is_mask)
    limit = f"range({threshold * scale}, {255 * scale + 1})"
    from_limit = f"if all from {threshold * scale} on counts: foreground={limit}"
    num_levels = len(np.unique(numbers))
    if areas or (is_photo and num_levels <= MANY_VALUES):
        others = f", or {from_limit}" if num_levels > FEW_VALUES else ""
        _refuse(
            path,
            f"values {_listed(_ids(path, picture))} look like class ids or a trimap",
            "0 and 255",
            _ways_out(path, picture) + others,
        )
    if is_photo:
        _refuse(
            path,
            f"{num_levels} values, and most grey is not at an edge",
            "a mask of two levels, not a photo",
            from_limit,
        )
    return np.where(numbers >= threshold * scale, 255, 0).astype(np.uint8)


def _what_is_grey(numbers: np.ndarray, is_lossy: bool) -> tuple[bool, bool]:
    """Tell whether levels (H, W) between the two ends fill areas, and are no edges.

    Class ids and trimaps fill areas. A photo is neither dark nor bright, also where no
    edge is near.
    """
    counts = np.bincount(numbers.ravel())
    levels = np.flatnonzero(counts)
    if len(levels) <= 2:
        return False, False
    has_rings = is_lossy or len(levels) > MANY_VALUES
    scale = 257 if levels[-1] > 255 else 1
    ring, drift = (RING * scale, DRIFT * scale) if has_rings else (0, 0)
    depth = np.minimum(levels - levels[0], levels[-1] - levels)
    flat = np.bincount(numbers[_is_flat(numbers)], minlength=len(counts))[levels]
    areas = (flat > 0) & (depth > ring)
    areas |= (flat > SPECK * numbers.size) & (depth > drift)
    dark, bright = numbers <= levels[0] + ring, numbers >= levels[-1] - ring
    grey = ~(dark | bright)
    off_edge = grey & ~(_widened(dark) & _widened(bright))
    is_photo = grey.mean() > 1 / 3 or off_edge.sum() > grey.sum() / 2
    return bool(areas.any()), bool(is_photo)


def _widened(mask: np.ndarray) -> np.ndarray:
    """Add to a mask, bool (H, W), all within EDGE_REACH of it."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.filter(ImageFilter.BoxBlur(EDGE_REACH))) > 0


def _refuse_dark(
    path: Path | str,
    picture: Image.Image,
    numbers: np.ndarray,
    threshold: int,
    *,
    is_mask: bool,
) -> NoReturn:
    brightest = int(numbers.max())
    scale = 257 if brightest > 255 else 1
    middle = (brightest + int(numbers.min()) + 1) // 2 // scale
    advice = _ways_out(path, picture)
    if is_mask and middle:
        option = f"threshold={middle} (--threshold {middle})"
        advice = f"for a dark mask {option}, else {advice}"
    _refuse(
        path,
        f"its brightest value is {brightest}, values {_listed(_ids(path, picture))}",
        f"some of {threshold * scale} or more",
        advice,
    )


def _listed(values: np.ndarray) -> str:
    """List the distinct values, the first eight of them."""
    distinct = np.unique(values)
    more = ", ..." if len(distinct) > 8 else ""
    return ", ".join(map(str, distinct[:8].tolist())) + more


def _listed_values(values: Sequence[MaskValue]) -> str:
    more = ", ..." if len(values) > 4 else ""
    return ", ".join(map(str, values[:4])) + more


def _ways_out(path: Path | str, picture: Image.Image) -> str:
    """Say which option reads a mask of several values, with values found in it."""
    if picture.mode != "P" and _is_colourful(picture):
        colours = _frequent_colours(picture)
        brightest = max(colours, key=sum)
        return (
            f"most frequent are {_listed_values(colours)}: say which count, for "
            "instance " + _option("foreground", [brightest])
        )
    values = _ids(path, picture)
    if picture.mode != "P" and _has_alpha(picture) and _opaque(picture).any():
        values = values[_opaque(picture)]
    ids_found, counts = np.unique(values, return_counts=True)
    ids = np.sort(ids_found[np.argsort(-counts, kind="stable")[:8]]).tolist()
    rare = counts[ids_found == 255].sum() * 2 < counts[ids_found != 0].sum()
    void = [number for number in ids[1:] if number == 255 and rare]
    inner = [number for number in ids[1:] if number not in void] or ids[-1:]
    if len(ids) == 3 and ids[2] == 255 and abs(ids[1] - IGNORE_GREY) <= RING:
        inner, void = [255], [ids[1]]  # a trimap: unknown is between
    options = [_option("foreground", inner[:3])]
    if void and void != inner:
        options.append(_option("ignore", void))
    return "say which count, for instance " + ", ".join(options)


def _option(name: str, values: Sequence[MaskValue]) -> str:
    """Write an option as in Python, and as on the command line."""
    words = [
        bytes(value).hex() if isinstance(value, tuple) else str(value)
        for value in values
    ]
    return f"{name}={tuple(values)} (--{name} {' '.join(words)})"


def _frequent_colours(picture: Image.Image) -> list[tuple[int, int, int]]:
    """List the most frequent colours of the opaque parts, four at most."""
    codes = _codes(picture)
    if _has_alpha(picture) and _opaque(picture).any():
        codes = codes[_opaque(picture)]
    distinct, counts = np.unique(codes, return_counts=True)
    most = distinct[np.argsort(-counts, kind="stable")[:4]]
    return [tuple(colour) for colour in _unpack_rgb(most).tolist()]


def _is_lossy(path: Path | str, picture: Image.Image) -> bool:
    if picture.format == "WEBP":
        return b"VP8L" not in Path(path).read_bytes()
    return picture.format in ("JPEG", "MPO") or "jpeg" in str(
        picture.info.get("compression")
    )


def _opaque(picture: Image.Image) -> np.ndarray:
    """Tell which pixels can be seen; bool (H, W)."""
    return np.asarray(picture.convert("RGBA"))[..., 3] >= 128


def _codes(picture: Image.Image) -> np.ndarray:
    return _pack_rgb(np.asarray(picture.convert("RGBA"))[..., :3])


def _code(value: MaskValue) -> int:
    return int(_pack_rgb(np.array(value))) if isinstance(value, tuple) else value


def _is_grey(picture: Image.Image) -> bool:
    """Tell whether a picture is of a kind that cannot hold colours."""
    return picture.mode in ("1", "L", "LA", "F") or picture.mode.startswith("I")


def _is_colourful(picture: Image.Image) -> bool:
    if _is_grey(picture):
        return False
    channels = np.asarray(picture.convert("RGBA"))[..., :3].astype(int)
    return bool(np.ptp(channels, axis=2).max() > GREY_TOLERANCE)


def _ids(path: Path | str, picture: Image.Image) -> np.ndarray:
    """Give the class ids of a picture, int (H, W): palette indices, or grey values."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _deep_values(path, picture)
    if picture.mode == "P":
        return np.asarray(picture).astype(int)
    if picture.mode in ("1", "L", "LA"):
        return np.asarray(picture.convert("LA"))[..., 0].astype(int)
    return np.asarray(picture.convert("RGBA"))[..., :3].max(axis=2).astype(int)


def _deep_values(path: Path | str, picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        _refuse(path, f"mode {picture.mode}", "8 or 16 bits", "save it as 8 bits")
    return values.astype(int)


def _numbers(path: Path | str, picture: Image.Image, ignored: np.ndarray) -> np.ndarray:
    """Give the grey values of a mask, int (H, W), the darkest where it is ignored.

    Raises ValueError for colours and for transparent parts.
    """
    if _has_alpha(picture) and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        _refuse(
            path,
            "it has transparent parts",
            "an opaque mask",
            "save its alpha channel as a grey PNG, or " + _ways_out(path, picture),
        )
    plain = picture.convert("RGB") if picture.mode == "P" else picture
    if _is_colourful(plain) and ignored.any():
        plain = Image.fromarray(np.where(ignored[..., None], 0, plain.convert("RGB")))
    if _is_colourful(plain):
        _refuse(
            path,
            f"it has {len(np.unique(_codes(plain)))} colours",
            "a grey mask",
            _ways_out(path, picture),
        )
    numbers = _ids(path, plain)
    rest = numbers[~ignored]
    return np.where(ignored, rest.min() if rest.size else 0, numbers)


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
    pixels = torch.as_tensor(np.array(_as_rgb(mask))).reshape(-1, 3)
    colours, where = torch.unique(pixels, dim=0, return_inverse=True)
    distances = torch.cdist(colours.float(), _palette_tensor(palette).float())
    nearest, ids = distances.min(dim=1)
    ids[nearest > max_distance] = ignore_index
    height, width = np.asarray(mask).shape[:2]
    return ids[where].reshape(height, width)


def _as_rgb(mask: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    if isinstance(mask, Image.Image):
        return mask.convert("RGB")
    if mask.ndim != 3 or mask.shape[2] != 3:
        raise ValueError(f"mask of shape {mask.shape}: expected (H, W, 3)")
    return mask


def _palette_tensor(palette: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """Check a palette; uint8 (K, 3)."""
    colours = torch.as_tensor(palette)
    if colours.ndim != 2 or colours.shape[1] != 3:
        raise ValueError(f"palette of shape {tuple(colours.shape)}: expected (K, 3)")
    whole = not colours.is_floating_point() and not colours.is_complex()
    if not whole or colours.min() < 0 or colours.max() > 255:
        raise ValueError(
            f"palette of values {_listed(colours.numpy())}: expected whole numbers, "
            "0 to 255"
        )
    if len(torch.unique(colours, dim=0)) < len(colours):
        raise ValueError("palette: two classes have the same colour")
    return colours.to(torch.uint8)


def _as_ids(classes: torch.Tensor | np.ndarray | Image.Image) -> torch.Tensor:
    """Give class ids as a tensor, those of a picture as `load_classes` makes it too."""
    if isinstance(classes, Image.Image):
        classes = np.array(classes)
    return torch.as_tensor(classes)


def classes_to_colors(
    classes: torch.Tensor | np.ndarray | Image.Image,
    palette: Sequence[tuple[int, int, int]],
    ignore_index: int = IGNORE_INDEX,
    *,
    ignore_color: tuple[int, int, int] = (224, 224, 192),
) -> Image.Image:
    """Turn class ids, integers (H, W), into an RGB picture, the way back.

    Raises ValueError for an id that the palette has no colour for. (notebook 01)
    """
    ids = _as_ids(classes).long()
    known = ids != ignore_index
    wrong = ids[known & ((ids < 0) | (ids >= len(palette)))]
    if len(wrong):
        raise ValueError(
            f"class id {int(wrong[0])}: expected 0 to {len(palette) - 1}, the palette "
            f"has {len(palette)} colours, or {ignore_index} for ignored"
        )
    table = torch.cat([_palette_tensor(palette), torch.tensor([ignore_color])])
    ids = torch.where(known, ids, len(palette))
    return Image.fromarray(table[ids].to(torch.uint8).numpy())


def pack_masks(masks: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Pack overlapping masks, 0 or 1 of shape (K, H, W), into the bits of (H, W).

    Mask k becomes bit k. Gives uint8 up to 8 masks, else int64; at most 63. (notebook
    01)
    """
    masks = torch.as_tensor(masks)
    if masks.ndim != 3 or not 1 <= len(masks) <= 63:
        raise ValueError(f"masks of shape {tuple(masks.shape)}: expected (1..63, H, W)")
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("masks: expected only 0 and 1 (divide masks of 0/255 by 255)")
    bits = 2 ** torch.arange(len(masks)).view(-1, 1, 1)
    packed = (masks.long() * bits).sum(dim=0)
    return packed.to(torch.uint8) if len(masks) <= 8 else packed


def unpack_masks(packed: torch.Tensor | np.ndarray, num_classes: int) -> torch.Tensor:
    """Unpack bits (H, W) into masks, float32 (num_classes, H, W) of 0 and 1."""
    packed = torch.as_tensor(packed).long()
    if int(packed.max()) >= 2**num_classes:
        raise ValueError(
            f"packed value {int(packed.max())} has more bits than {num_classes} classes"
        )
    bits = torch.arange(num_classes).view(-1, 1, 1)
    return ((packed >> bits) & 1).float()


def load_classes(
    path: Path | str,
    num_classes: int | None = None,
    *,
    palette: Sequence[tuple[int, int, int]] | None = None,
    max_distance: float = 0,
) -> Image.Image:
    """Read a class map as a picture of mode "P": its values are class ids, 255 ignored.

    Ids are palette indices or grey values, of 8 bits; with a palette, one colour per
    class, they come from the colours, as in `colors_to_classes`. What is transparent
    is ignored. The picture gets the colours of our figures, whatever the file's were.
    num_classes: ids from there on are refused. Raises ValueError also for colours
    without a palette, for a palette that explains no pixel, for ids that a lossy file
    has blurred and for deeper greys. (notebook 08)
    """
    if num_classes is not None and not 1 <= num_classes <= IGNORE_INDEX:
        raise ValueError(f"num_classes {num_classes}: expected 1 to {IGNORE_INDEX}")
    picture = _open_picture(path)
    if palette is None:
        ids = _plain_ids(path, picture)
    else:
        ids = _ids_by_colour(path, picture, palette, max_distance)
    if _has_alpha(picture) and (palette is not None or picture.mode != "P"):
        ids[~_opaque(picture)] = IGNORE_INDEX
    if num_classes is not None:
        _refuse_classes_beyond(path, ids, num_classes)
    return _class_picture(ids)


def _class_picture(ids: np.ndarray) -> Image.Image:
    """Make class ids, uint8 (H, W), a picture of mode "P" in our colours."""
    classes = Image.fromarray(ids)
    classes.putpalette(list(itertools.chain.from_iterable(CLASS_COLOURS)))
    return classes


def _plain_ids(path: Path | str, picture: Image.Image) -> np.ndarray:
    """Give palette indices or grey values, uint8 (H, W), refusing what hides none."""
    if picture.mode.startswith("I") or picture.mode in ("1", "F"):
        kind = "1 bit" if picture.mode == "1" else f"16 or 32 bits ({picture.mode})"
        _refuse(
            path,
            f"values of {kind}",
            "class ids of 8 bits",
            "save the ids 0 to 254 as a grey PNG; a mask of two levels is for "
            "load_mask",
        )
    if picture.mode not in ("P", "L", "LA") and _colour_range(picture):
        colours = _listed_values(_frequent_colours(picture))
        _refuse(
            path,
            f"it has colours, most frequent are {colours}",
            "class ids, or a palette",
            "say which colour is which class: palette=[(0, 0, 0), ...], in the order "
            "of the ids",
        )
    if _is_lossy(path, picture):
        _refuse(
            path,
            "a lossy file, where the ids at edges are blurred into others",
            "class ids as they were",
            "save them again from their source as PNG",
        )
    return _ids(path, picture).astype(np.uint8)


def _colour_range(picture: Image.Image) -> int:
    """Give the largest difference between the channels of a pixel."""
    return int(np.ptp(np.asarray(picture.convert("RGBA"))[..., :3], axis=2).max())


def _ids_by_colour(
    path: Path | str,
    picture: Image.Image,
    palette: Sequence[tuple[int, int, int]],
    max_distance: float,
) -> np.ndarray:
    """Give the ids of a mask of colours, uint8 (H, W), refusing a foreign palette."""
    opaque = Image.fromarray(np.asarray(picture.convert("RGBA"))[..., :3].copy())
    ids = colors_to_classes(opaque, palette, max_distance=max_distance).numpy()
    if (ids == IGNORE_INDEX).all():
        _refuse(
            path,
            "no pixel has a colour of the palette, most frequent are "
            + _listed_values(_frequent_colours(picture)),
            "some of " + _listed_values([*map(tuple, np.asarray(palette).tolist())]),
            "give the palette that it was painted with, or a max_distance",
        )
    return ids.astype(np.uint8)


def _refuse_classes_beyond(path: Path | str, ids: np.ndarray, num_classes: int) -> None:
    beyond = ids[(ids >= num_classes) & (ids != IGNORE_INDEX)]
    if beyond.size:
        _refuse(
            path,
            f"class ids {_listed(beyond)} in {beyond.size} of {ids.size} pixels",
            f"0 to {num_classes - 1}, or {IGNORE_INDEX} for ignored",
            "count all classes in num_classes, background too, or mend the file",
        )


def load_masks(path: Path | str, num_classes: int) -> torch.Tensor:
    """Read overlapping masks that `pack_masks` packed, saved as a grey or palette PNG.

    Gives float32 (num_classes, H, W) of 0 and 1; at most 8. Raises ValueError for more
    bits in the file and for what `load_classes` refuses. (notebook 08)
    """
    if not 1 <= num_classes <= 8:
        raise ValueError(
            f"num_classes {num_classes}: expected 1 to 8, the bits of a pixel"
        )
    packed = _plain_ids(path, _open_picture(path))
    if packed.max() >= 2**num_classes:
        _refuse(
            path,
            f"values {_listed(packed)}",
            f"at most {2**num_classes - 1}, the bits of {num_classes} masks",
            "count all masks in num_classes; a mask of 0 and 255 is for load_mask",
        )
    return unpack_masks(packed, num_classes)


# --------------------------------------------------------------------------------------
# 2. Pairs, the dataset doctor and datasets: from a folder to samples. (notebook 02)
# --------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One image and the target that belongs to it: pictures, or tensors.

    Tensors: image float32 (3, H, W) in 0..1; target float32 (1, H, W) of 0 and 1, or
    (K, H, W) where classes overlap, or class ids int64 (H, W). 255 in a target means
    ignored.
    """

    image: Any
    target: Any


Pair = tuple[Path, Path]
PairTransform = Callable[[Any, Any], tuple[Any, Any]]
# As `load_mask` and `load_classes`, pictures of mode "L" and "P", or `load_masks`.
ReadTarget = Callable[[Path], Image.Image | torch.Tensor]


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key that reads numbers as numbers: "2_input" before "10_input"."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


Patterns = tuple[str, str]
Key = tuple[str, ...]
FilesByKey = dict[Key, list[Path]]

PATTERNS: Patterns = ("{key}_input.*", "{key}_target.*")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "inputs", "input", "JPEGImages")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "targets", "target", "annotations", "gt"),
    "SegmentationClass",
)
# What is tried, in this order, when no patterns are given.
LAYOUTS: tuple[Patterns, ...] = (
    PATTERNS,
    *(
        (f"{images}/{{key}}.*", f"{masks}/{{key}}.*")
        for images, masks in itertools.product(IMAGE_FOLDERS, MASK_FOLDERS)
    ),
)


class PairFiles(NamedTuple):
    """The pictures of a folder by key: the values of the patterns' fields."""

    folder: Path
    patterns: Patterns
    inputs: FilesByKey
    targets: FilesByKey

    def name(self, path: Path) -> str:
        """Give a file's name as seen from the folder."""
        return path.relative_to(self.folder).as_posix()

    def whole_keys(self) -> list[Key]:
        """List the keys with an image and a target, in natural order."""
        keys = self.inputs.keys() & self.targets.keys()
        return sorted(keys, key=_natural_keys)


def _natural_keys(key: Key) -> list[list[tuple[int, int | str]]]:
    return [natural_key(value) for value in key]


def find_pairs(data_dir: Path | str, patterns: Patterns | None = None) -> list[Pair]:
    """List the pairs (image path, target path) of a folder in natural order.

    patterns: how images and targets are named below the folder, with fields in braces
    and `*`; files whose fields agree are a pair, as with
    ("image_2/{kind}_{number}.png", "gt_image_2/{kind}_road_{number}.png"). A file that
    both match belongs to the one with more letters. Without patterns, `KEY_input.*`
    belongs to `KEY_target.*`, else `images/KEY.*` to `masks/KEY.*` (see LAYOUTS).
    Hidden files and those that are no pictures are passed over. Raises
    FileNotFoundError or NotADirectoryError for the folder, ValueError for patterns
    without common fields, for a folder without pairs, for an image without a target, a
    target without an image, and two files for one key. (notebook 02)
    """
    files = _find_files(Path(data_dir), patterns)
    faults = [fault.line() for fault in _key_faults(files)]
    if faults:
        raise ValueError(f"{data_dir}: {len(faults)} faults\n  " + "\n  ".join(faults))
    return [(files.inputs[key][0], files.targets[key][0]) for key in files.whole_keys()]


def _find_files(folder: Path, patterns: Patterns | None) -> PairFiles:
    """Sort the pictures of a folder into inputs and targets by key."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is a file; expected a folder of pairs")
    if patterns is not None:
        _check_patterns(patterns)
        files = _sort_files(folder, patterns)
        if files.inputs or files.targets:
            return files
        _refuse_no_pairs(folder, f"files named like {patterns[0]} and {patterns[1]}")
    for layout in LAYOUTS:
        files = _sort_files(folder, layout)
        if files.inputs and files.targets:
            return files
        if layout == PATTERNS and (files.inputs or files.targets):
            return files
    _refuse_no_pairs(
        folder,
        "files named like 1_input.png and 1_target.png, or images/1.png and "
        "masks/1.png",
    )


def _refuse_no_pairs(folder: Path, expected: str) -> NoReturn:
    others = [path for path in sorted(folder.rglob("*")) if _is_picture_file(path)]
    arrived = "holds no pairs"
    if others:
        first = others[0].relative_to(folder).as_posix()
        arrived += f", but {len(others)} other pictures, as {first}"
    one, other = PATTERNS
    _refuse(
        folder,
        arrived,
        expected,
        f'for other names say which: patterns=("{one}", "{other}") (--patterns)',
    )


def _check_patterns(patterns: Patterns) -> None:
    """Refuse patterns that cannot say what belongs together."""
    example = 'such as ("images/{key}.*", "masks/{key}_mask.*")'
    if isinstance(patterns, str) or len(patterns) != 2:
        raise ValueError(f"patterns {patterns!r}: expected two of them, {example}")
    for pattern in patterns:
        parts = pattern.split("/")
        if "" in parts or ".." in parts or re.search(r"\{(?!\w+\})|(?<!\w)\}", pattern):
            raise ValueError(
                f"pattern {pattern!r}: expected a path below the folder with fields "
                f"in braces, {example}"
            )
    first, second = map(_fields, patterns)
    if not first or set(first) != set(second):
        raise ValueError(
            f"patterns {patterns[0]!r} and {patterns[1]!r}: expected the same fields "
            f"in both, at least one, {example}"
        )
    if first and patterns[0] == patterns[1]:
        raise ValueError(f"patterns: both are {patterns[0]!r}; expected two, {example}")


def _fields(pattern: str) -> list[str]:
    """List the fields of a pattern, each once, in their order."""
    return list(dict.fromkeys(re.findall(r"\{(\w+)\}", pattern)))


def _sort_files(folder: Path, patterns: Patterns) -> PairFiles:
    """Match the files with both patterns; the more literal one goes first."""
    letters = [len(re.sub(r"\{\w+\}|\*", "", pattern)) for pattern in patterns]
    found: list[FilesByKey] = [{}, {}]
    taken: set[Path] = set()
    fields = _fields(patterns[0])
    for role in sorted((0, 1), key=lambda role: -letters[role]):
        regex = _regex(patterns[role])
        parts = [_regex(part, loose=True) for part in patterns[role].split("/")]
        for path in _matching_files(folder, parts):
            match = regex.fullmatch(path.relative_to(folder).as_posix())
            if match and path not in taken:
                taken.add(path)
                key = tuple(match[field] for field in fields)
                found[role].setdefault(key, []).append(path)
    return PairFiles(folder, patterns, *found)


def _regex(pattern: str, *, loose: bool = False) -> re.Pattern[str]:
    """Turn a pattern into an expression; loose: fields need not agree."""
    text, seen = "", set()
    for piece in re.split(r"(\{\w+\}|\.\*$|\*)", pattern):
        field = piece[1:-1]
        if piece == ".*":
            text += r"\.[^./]*"
        elif piece == "*":
            text += "[^/]*"
        elif not piece.startswith("{"):
            text += f"(?i:{re.escape(piece)})"
        elif loose:
            text += "[^/]+"
        else:
            text += f"(?P={field})" if field in seen else f"(?P<{field}>[^/]+)"
            seen.add(field)
    return re.compile(text)


def _matching_files(folder: Path, parts: Sequence[re.Pattern[str]]) -> Iterator[Path]:
    """Walk down a folder, one expression for each part of a path."""
    for path in sorted(folder.iterdir()):
        if not parts[0].fullmatch(path.name):
            continue
        if len(parts) == 1 and _is_picture_file(path):
            yield path
        elif len(parts) > 1 and path.is_dir() and not path.name.startswith("."):
            yield from _matching_files(path, parts[1:])


def _is_picture_file(path: Path) -> bool:
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    return picture and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class Problem:
    """One finding of the doctor: which file, what is wrong, how to mend it."""

    file: str
    what: str
    mend: str
    severity: str = "error"  # or "warning": worth a look, harmless to train on

    def line(self) -> str:
        """Put it in one line."""
        return f"{self.file}: {self.what}; {self.mend}"


@dataclass(frozen=True)
class PairReport:
    """What the doctor found in a folder; prints as a table.

    The shares of foreground, 0..1, in all masks together and in the masks with least
    and most of it, are None where no mask could be read. For class maps class_shares
    stands instead: the share of each class id, 0 to the highest that was found.
    """

    folder: str
    num_pairs: int
    problems: tuple[Problem, ...]
    foreground_share: float | None = None
    least_share: float | None = None
    most_share: float | None = None
    class_shares: tuple[float, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether the folder can be trained on: no errors; warnings may be there."""
        return all(problem.severity != "error" for problem in self.problems)

    def __str__(self) -> str:
        state = "ok" if self.ok else "not ok"
        lines = [f"{self.folder}: {self.num_pairs} whole pairs, {state}"]
        if self.foreground_share is not None:
            lines.append(
                f"  foreground: {self.foreground_share:.1%} of the pixels, "
                f"{self.least_share:.1%} to {self.most_share:.1%} in a mask"
            )
        if self.class_shares is not None:
            shares = enumerate(self.class_shares)
            listed = ", ".join(f"{number} {share:.2%}" for number, share in shares)
            lines.append(f"  shares of the classes: {listed}")
        width = max((len(problem.file) for problem in self.problems), default=0)
        for problem in sorted(self.problems, key=lambda problem: problem.severity):
            lines.append(
                f"  {problem.severity:7}  {problem.file:{width}}  {problem.what}"
            )
            lines.append(f"  {'':7}  {'':{width}}  -> {problem.mend}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Write the report for programs."""
        return json.dumps(asdict(self) | {"ok": self.ok}, indent=1, ensure_ascii=False)


# The doctor looks at pictures shrunk to this side, in pixels, ...
THUMBNAIL = 32
# ... calls two the same scene from this correlation on, ...
LIKENESS = 0.97
# ... judges what is usual from this number of masks on, ...
MANY_MASKS = 5
# ... a level unusual that differs by more than this, ...
LEVEL_GAP = 16
# ... and names no more files than this of one kind.
NAMED_FILES = 5
ORIENTATION_TAG = 0x0112


class PairFacts(NamedTuple):
    """What the doctor remembers of a pair whose two files could be read."""

    image: str
    target: str
    image_hash: bytes
    target_hash: bytes
    image_thumbnail: np.ndarray  # float32 (THUMBNAIL ** 2,), mean 0, length 1 or 0
    mask_thumbnail: np.ndarray  # uint8 (THUMBNAIL ** 2,), 255: all is foreground
    num_foreground: int
    num_known: int
    brightest: int | None
    unnamed: tuple[MaskValue, ...]  # in the mask, but named neither way
    class_pixels: np.ndarray | None  # int (256,) of a class map: pixels of each id

    @property
    def share(self) -> float:
        """The share of foreground among the pixels that are not ignored, 0..1."""
        return self.num_foreground / max(self.num_known, 1)


def check_pairs(
    data_dir: Path | str,
    patterns: Patterns | None = None,
    *,
    read_target: ReadTarget = load_mask,
    scenes: Mapping[str, str] | None = None,
    progress: bool = False,
) -> PairReport:
    """Examine every pair of a folder and report all that is wrong, not just the first.

    Looks at names (orphans, doubles, strangers), at files (unreadable, turned by EXIF,
    of another size, JPEG masks) and at what they show: masks in another encoding,
    empty, full, inverted; pictures that are there twice or nearly so; the balance. With
    `load_classes` to read the targets: ids that are too high, classes that are nowhere.
    scenes: of each image's name, as `read_scenes` gives them; then only likeness
    across scenes is told. progress: show a bar. Raises only what `find_pairs` raises
    for the folder itself and for the patterns, never for content. (notebook 01)
    """
    files = _find_files(Path(data_dir), patterns)
    problems = list(_key_faults(files))
    facts: list[PairFacts] = []
    num_whole = 0
    for key in tqdm(files.whole_keys(), "check", unit="pair", disable=not progress):
        paths = files.inputs[key][0], files.targets[key][0]
        found = list(_pair_faults(files, paths, read_target, facts))
        problems += found
        single = len(files.inputs[key]) == len(files.targets[key]) == 1
        num_whole += single and all(p.severity != "error" for p in found)
    refused = {
        problem.file for problem in problems if "say which count" in problem.mend
    }
    targets = [files.targets[key][0] for key in files.whole_keys()]
    faulty = {p.file for p in problems if p.severity == "error"}
    if {files.name(target) for target in targets} <= faulty:
        problems = [*_exchanged(files, read_target), *problems]
    problems += _values_together([t for t in targets if files.name(t) in refused])
    problems += _folder_faults(files, facts, scenes)
    problems += _class_faults(facts, _num_classes(read_target))
    masks = _two_level(facts)
    shares = [fact.share for fact in masks if fact.num_known]
    return PairReport(
        str(data_dir),
        num_whole,
        tuple(problems),
        _overall_share(masks),
        min(shares, default=None),
        max(shares, default=None),
        _overall_class_shares(facts),
    )


def _two_level(facts: Sequence[PairFacts]) -> list[PairFacts]:
    """Leave out class maps."""
    return [fact for fact in facts if fact.class_pixels is None]


def _overall_class_shares(facts: Sequence[PairFacts]) -> tuple[float, ...] | None:
    counts = [fact.class_pixels for fact in facts if fact.class_pixels is not None]
    pixels = np.sum(counts, axis=0)[:IGNORE_INDEX] if counts else np.zeros(1)
    if not pixels.any():
        return None
    last = np.flatnonzero(pixels)[-1]
    return tuple((pixels[: last + 1] / pixels.sum()).tolist())


def _overall_share(facts: Sequence[PairFacts]) -> float | None:
    known = sum(fact.num_known for fact in facts)
    return sum(fact.num_foreground for fact in facts) / known if known else None


def _key_faults(files: PairFiles) -> Iterator[Problem]:
    """Find keys that do not have exactly one image and one target."""
    for found, others, wanted in (
        (files.inputs, files.targets, files.patterns[1]),
        (files.targets, files.inputs, files.patterns[0]),
    ):
        for key in sorted(found, key=_natural_keys):
            names = [files.name(path) for path in found[key]]
            if key not in others:
                yield Problem(
                    names[0],
                    f"no file is named {_fill(wanted, files, key)}",
                    "add it, or take this one away",
                )
            if len(names) > 1:
                yield Problem(
                    names[0],
                    f"{len(names)} files have the same key: {', '.join(names)}",
                    "keep one of them",
                )


def _fill(pattern: str, files: PairFiles, key: Key) -> str:
    """Put the values of a key into a pattern."""
    values = dict(zip(_fields(files.patterns[0]), key, strict=True))
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], pattern)


def _pair_faults(
    files: PairFiles,
    pair: Pair,
    read_target: ReadTarget,
    facts: list[PairFacts],
) -> Iterator[Problem]:
    """Find what is wrong inside the two files of a pair; add its facts if it is sound.

    facts: what is known of the pairs before, longer afterwards.
    """
    image = yield from _try_to_read(load_image, pair[0], files)
    target = yield from _try_to_read(read_target, pair[1], files)
    if isinstance(target, torch.Tensor):
        target = _laid_together(target)
    if target is not None:
        yield from _empty_or_full(files.name(pair[1]), target)
    if image is None or target is None:
        return
    yield from _unequal(files, pair, image, target)
    if image.size == target.size:
        facts.append(_facts(files, pair, image, target, read_target))


def _exchanged(files: PairFiles, read_target: ReadTarget) -> Iterator[Problem]:
    """Where something is wrong with every target: could all images be targets?"""
    keys = files.whole_keys()
    try:
        for key in keys:
            read_target(files.inputs[key][0])
    except (OSError, ValueError):
        return
    if keys:
        yield Problem(
            f"{len(keys)} pairs",
            "look exchanged: every image can be read as a target",
            "name the pictures as images and the masks as targets",
        )


def _laid_together(masks: torch.Tensor) -> Image.Image:
    """Make one mask, 255 where any is, of overlapping ones (K, H, W)."""
    greys = torch.where((masks == IGNORE_INDEX).all(dim=0), IGNORE_GREY, 0)
    greys[(masks == 1).any(dim=0)] = 255
    return Image.fromarray(greys.to(torch.uint8).numpy())


def _try_to_read(
    read: ReadTarget, path: Path, files: PairFiles
) -> Generator[Problem, None, Image.Image | torch.Tensor | None]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        what, _, mend = str(error).removeprefix(f"{path}: ").rpartition("; ")
        yield Problem(files.name(path), what, mend)
        return None


def _empty_or_full(name: str, target: Image.Image) -> Iterator[Problem]:
    foreground, known = _foreground(target)
    if not known.any():
        what = "all is ignored: nothing can be learnt"
    elif target.mode == "P":
        classes = np.unique(np.asarray(target)[known])
        if len(classes) > 1:
            return
        what = f"all is class {classes[0]}"
    elif not foreground.any():
        what = "all black: nothing is foreground"
    elif foreground.sum() == known.sum():
        what = "all white: everything is foreground"
    else:
        return
    yield Problem(name, what, "look whether that is meant", "warning")


def _foreground(target: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Tell which pixels of a target are foreground, and which known; bool (H, W)."""
    if target.mode not in ("L", "P"):
        target = target.convert("L")
    values = np.asarray(target)
    known = values != (IGNORE_INDEX if target.mode == "P" else IGNORE_GREY)
    return known & (values > 0), known


def _unequal(
    files: PairFiles, pair: Pair, image: Image.Image, target: Image.Image
) -> Iterator[Problem]:
    """Find a mask of another size, or one that EXIF turns unlike its image."""
    names = files.name(pair[0]), files.name(pair[1])
    tags = _orientation(pair[0]), _orientation(pair[1])
    swapped = target.size == image.size[::-1]
    if image.size == target.size:
        size_tells = not swapped and min(tags) == 1 and max(tags) > 4
        if tags[0] != tags[1] and not size_tells:
            yield Problem(
                names[0],
                f"EXIF turns it (tag {tags[0]}) unlike {names[1]} (tag {tags[1]})",
                "look whether the mask fits; save both without the tag",
                "warning",
            )
    elif swapped and tags[0] != tags[1]:
        yield Problem(
            names[0],
            f"EXIF turns it (tag {tags[0]}) unlike {names[1]} (tag {tags[1]}), which "
            "fits it unturned",
            "turn the mask too, or save the picture without the tag",
        )
    else:
        yield Problem(
            names[1],
            f"{_size(target)}, but {names[0]} is {_size(image)}",
            "cut or turn the mask as the picture was, or scale it without smoothing",
        )


def _orientation(path: Path) -> int:
    """Give the orientation of a picture's EXIF tag, 1 (upright) to 8."""
    try:
        with Image.open(path) as picture:
            tag = picture.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError):
        return 1
    return tag if tag in range(1, 9) else 1


def _facts(
    files: PairFiles,
    pair: Pair,
    image: Image.Image,
    target: Image.Image,
    read_target: ReadTarget,
) -> PairFacts:
    foreground, known = _foreground(target)
    return PairFacts(
        files.name(pair[0]),
        files.name(pair[1]),
        _hash(image),
        _hash(target),
        _standardised(_thumbnail(image.convert("L"))),
        _thumbnail(Image.fromarray(foreground.astype(np.uint8) * 255)),
        int(foreground.sum()),
        int(known.sum()),
        _brightest(pair[1]) if _is_by_threshold(read_target) else None,
        _unnamed(pair[1], _named(read_target)),
        np.array(target.histogram()) if target.mode == "P" else None,
    )


def _hash(picture: Image.Image) -> bytes:
    size = np.array(picture.size).tobytes()
    return hashlib.blake2b(size + picture.tobytes(), digest_size=16).digest()


def _thumbnail(grey: Image.Image) -> np.ndarray:
    small = grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small).ravel()


def _standardised(values: np.ndarray) -> np.ndarray:
    """Bring values to mean 0 and length 1; what is nearly constant to length 0."""
    values = values - values.mean(dtype=np.float32)
    length = np.linalg.norm(values)
    return values / length if values.std() >= 1 else values * 0


def _is_by_threshold(read_target: ReadTarget) -> bool:
    """Tell whether this is `load_mask` without named foreground, or a partial of it."""
    function = getattr(read_target, "func", read_target)
    return function is load_mask and not _named(read_target)


def _named(read_target: ReadTarget) -> set[MaskValue]:
    """Give the values that a partial of `load_mask` names, if any are foreground."""
    options = getattr(read_target, "keywords", {})
    foreground = options.get("foreground", ())
    return {*foreground, *options.get("ignore", ())} if len(foreground) else set()


def _unnamed(path: Path, named: set[MaskValue]) -> tuple[MaskValue, ...]:
    """List the values of a mask that were not named; 0 and black are background.

    Nothing for a lossy file, whose values are many, and for a mask of hundreds.
    """
    if not named:
        return ()
    picture = _open_picture(path)
    if _is_lossy(path, picture):
        return ()
    if isinstance(next(iter(named)), tuple):
        codes = np.unique(_codes(picture))
        values = [tuple(colour) for colour in _unpack_rgb(codes).tolist()]
    else:
        values = np.unique(_ids(path, picture)).tolist()
    rest = [value for value in values if value not in {*named, 0, (0, 0, 0)}]
    return tuple(rest) if len(rest) <= MANY_VALUES else ()


def _brightest(path: Path) -> int:
    picture = _open_picture(path)
    plain = picture.convert("RGB") if picture.mode == "P" else picture
    return int(_ids(path, plain).max())


def _folder_faults(
    files: PairFiles, facts: Sequence[PairFacts], scenes: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Find what only the whole folder shows."""
    masks = _two_level(facts)
    yield from _strangers(files)
    yield from _lossy_targets(files, of_colours=len(masks) < len(facts))
    yield from _without_scene(files, scenes)
    yield from _duplicates(facts)
    yield from _near_duplicates(facts, scenes)
    yield from _odd_levels(facts)
    yield from _unnamed_values(facts)
    yield from _inverted(masks)
    yield from _imbalance(masks)


def _strangers(files: PairFiles) -> Iterator[Problem]:
    """Find pictures beside the pairs that no pattern matches.

    What is named `KEY_target.*` is known also where other targets were asked for.
    """
    groups = itertools.chain(files.inputs.values(), files.targets.values())
    known = set(itertools.chain.from_iterable(groups))
    folders = sorted({path.parent for path in known})
    of_others = _regex(PATTERNS[1])
    others = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path not in known
        and _is_picture_file(path)
        and not of_others.fullmatch(path.name)
    ]
    if others:
        yield Problem(
            files.name(others[0]),
            f"is named as neither image nor target ({len(others)} such pictures)",
            "they are not used: rename them, or give other patterns (--patterns)",
            "warning",
        )


def _lossy_targets(files: PairFiles, *, of_colours: bool) -> Iterator[Problem]:
    targets = [files.targets[key][0] for key in files.whole_keys()]
    num_lossy = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in targets)
    if num_lossy and of_colours:
        what = "are JPEG, which blurs colours"
        mend = "raise max_distance, or more than the edges is ignored; better: PNG"
    else:
        what = "are JPEG, which blurs edges into grey"
        mend = "read with a threshold they are fine; save new ones as PNG"
    if num_lossy:
        yield Problem(f"{num_lossy} targets", what, mend, "warning")


def _without_scene(
    files: PairFiles, scenes: Mapping[str, str] | None
) -> Iterator[Problem]:
    if scenes is None:
        return
    names = [files.name(files.inputs[key][0]) for key in files.whole_keys()]
    missing = [name for name in names if _scene_of(name, scenes) is None]
    for name in missing[:NAMED_FILES]:
        yield Problem(name, "has no scene", "add it to the table of scenes")
    yield from _more(len(missing), "pictures have no scene", "add them", "error")


def _scene_of(name: str, scenes: Mapping[str, str]) -> str | None:
    return scenes.get(name, scenes.get(name.rpartition("/")[2]))


def _more(total: int, what: str, mend: str, severity: str) -> Iterator[Problem]:
    """Count what was not named, if anything."""
    if total > NAMED_FILES:
        yield Problem(f"{total - NAMED_FILES} more", what, mend, severity)


def _duplicates(facts: Sequence[PairFacts]) -> Iterator[Problem]:
    """Find pictures that are there twice, pixel by pixel."""
    first: dict[bytes, PairFacts] = {}
    equal: list[Problem] = []
    for fact in facts:
        twin = first.setdefault(fact.image_hash, fact)
        if twin.target_hash != fact.target_hash:
            yield Problem(
                fact.image,
                f"the same picture as {twin.image}, with another mask",
                "keep the pair that is right",
            )
        elif twin is not fact:
            what = f"the same picture and mask as {twin.image}"
            equal.append(Problem(fact.image, what, "keep one of them", "warning"))
    yield from equal[:NAMED_FILES]
    yield from _more(len(equal), "pairs are there twice", "keep one of each", "warning")


def _near_duplicates(
    facts: Sequence[PairFacts], scenes: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Find pictures that show nearly the same: a split may not part them."""
    first: dict[bytes, PairFacts] = {}
    for fact in facts:
        first.setdefault(fact.image_hash, fact)
    names = [fact.image for fact in first.values()]
    groups = [_scene_of(name, scenes or {}) or name for name in names]
    pairs, total = _alike([fact.image_thumbnail for fact in first.values()], groups)
    mend = "put them in one scene" if scenes else "keep them on one side of the split"
    for one, other in pairs:
        what = f"looks nearly like {names[one]}"
        yield Problem(names[other], what, mend, "warning")
    yield from _more(total, "pairs of pictures look nearly alike", mend, "warning")


def _alike(
    thumbnails: Sequence[np.ndarray], groups: Sequence[str], rows: int = 512
) -> tuple[list[tuple[int, int]], int]:
    """Compare all thumbnails of different groups; the first alike, and their number."""
    found: list[tuple[int, int]] = []
    total = 0
    everything = np.array(thumbnails)
    group = np.unique(groups, return_inverse=True)[1]
    for start in range(0, len(everything), rows):
        likeness = everything[start : start + rows] @ everything.T
        alike = np.triu(likeness >= LIKENESS, k=start + 1)
        alike &= group[start : start + rows, None] != group
        total += int(alike.sum())
        if len(found) < NAMED_FILES:
            found += [(start + one, other) for one, other in np.argwhere(alike)]
    return found[:NAMED_FILES], total


def _odd_levels(facts: Sequence[PairFacts]) -> Iterator[Problem]:
    """Find masks whose brightest level is not that of most masks."""
    names: dict[int, list[str]] = {}
    for fact in facts:
        if fact.brightest is not None and fact.num_foreground:
            names.setdefault(fact.brightest, []).append(fact.target)
    usual = max(names, key=lambda level: len(names[level]), default=0)
    for level, odd in names.items():
        if abs(level - usual) > LEVEL_GAP:
            yield Problem(
                odd[0],
                f"its brightest level is {level}, that of most masks {usual} "
                f"({len(odd)} such masks)",
                "look whether it means the same; write all masks as 0 and 255",
                "warning",
            )


def _unnamed_values(facts: Sequence[PairFacts]) -> Iterator[Problem]:
    """Find values that were not named and so became background."""
    found = Counter(value for fact in facts for value in fact.unnamed)
    if found:
        listed = ", ".join(
            f"{value} (in {count})" for value, count in found.most_common(NAMED_FILES)
        )
        more = ", ..." if len(found) > NAMED_FILES else ""
        yield Problem(
            f"{sum(bool(fact.unnamed) for fact in facts)} targets",
            f"hold values that were not named: {listed}{more}",
            "right if they are background; else name them too",
            "warning",
        )


def _values_together(paths: Sequence[Path]) -> Iterator[Problem]:
    """Say which class ids all refused masks hold together, to name them at once."""
    found: Counter[int] = Counter()
    for path in paths:
        try:
            picture = _open_picture(path)
            if not _is_lossy(path, picture) and (
                picture.mode == "P" or not _is_colourful(picture)
            ):
                found.update(np.unique(_ids(path, picture)).tolist())
        except (OSError, ValueError):
            continue
    if len(paths) > 2 and 1 < len(found) <= MANY_VALUES:
        listed = ", ".join(f"{value} (in {found[value]})" for value in sorted(found))
        yield Problem(
            f"{len(paths)} targets",
            f"were refused; together they hold {listed}",
            "name all that count at once, as foreground=(...) (--foreground ...)",
        )


def _inverted(facts: Sequence[PairFacts]) -> Iterator[Problem]:
    """Find masks, or a folder of them, that look as if black and white were swapped."""
    masks = [fact for fact in facts if 0 < fact.share < 1]
    if len(masks) < MANY_MASKS:
        return
    mend = "look whether white is what you want to find; else foreground=(0,) "
    mend += "(--foreground 0) swaps them"
    num_large = sum(fact.share > 0.5 for fact in masks)
    if num_large > len(masks) / 2:
        what = "are more than half foreground; inverted?"
        yield Problem(f"{num_large} targets", what, mend, "warning")
        return
    total = np.sum([fact.mask_thumbnail for fact in masks], axis=0)
    for fact in masks:
        mask = fact.mask_thumbnail.astype(float)
        usual = (total - mask) / (len(masks) - 1)
        misfit, misfit_swapped = np.abs([mask - usual, 255 - mask - usual]).mean(axis=1)
        if misfit > 2 * misfit_swapped:
            what = "looks inverted: its background is where others have foreground"
            yield Problem(fact.target, what, "swap its black and white", "warning")


def _imbalance(facts: Sequence[PairFacts]) -> Iterator[Problem]:
    share = _overall_share(facts)
    if share is not None and not 0.01 <= share <= 0.99:
        yield Problem(
            f"{len(facts)} targets",
            f"{share:.2%} of their pixels are foreground",
            "look whether they were read rightly; weigh the rare class (pos_weight)",
            "warning",
        )


def _num_classes(read_target: ReadTarget) -> int | None:
    """Give how many classes a partial of `load_classes` expects, if it says so."""
    options = getattr(read_target, "keywords", {})
    palette = options.get("palette")
    named = None if palette is None else min(len(palette), IGNORE_INDEX)
    return options.get("num_classes", named)


def _class_faults(
    facts: Sequence[PairFacts], num_classes: int | None
) -> Iterator[Problem]:
    """Find classes that are nowhere, and class maps that are masks of 0 and 255."""
    counts = [fact.class_pixels for fact in facts if fact.class_pixels is not None]
    if not counts:
        return
    found = set(np.flatnonzero(np.sum(counts, axis=0)).tolist())
    expected = range(num_classes or max(found - {IGNORE_INDEX}, default=0))
    missing = [number for number in expected if number not in found]
    if found == {0, IGNORE_INDEX}:
        yield Problem(
            f"{len(counts)} targets",
            "hold nothing but 0 and 255, and 255 is ignored",
            "masks of 0 and 255 are read by load_mask",
        )
    elif missing:
        yield Problem(
            f"{len(counts)} targets",
            f"have no pixel of class {_listed_values(missing)}",
            "look whether the ids are right; what is not there cannot be learnt",
            "warning",
        )


def read_scenes(path: Path | str) -> dict[str, str]:
    """Read which scene each image belongs to, from a CSV table `image,scene`.

    Gives scene by file name of the image. Raises FileNotFoundError, or ValueError with
    the line for a missing column or value and for an image named twice. (notebook 05)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: does not exist; expected a CSV table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _scenes_of_rows(path, csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        _refuse(path, f"not a CSV table ({error})", "UTF-8 text", "save it as such")


def _scenes_of_rows(path: Path, rows: csv.DictReader) -> dict[str, str]:
    columns = rows.fieldnames or []
    if not {"image", "scene"} <= set(columns):
        arrived = f"line 1 has the columns {', '.join(columns) or 'of an empty file'}"
        _refuse(path, arrived, "image,scene", "name them in the first line")
    scenes: dict[str, str] = {}
    for row in rows:
        image, scene = ((row[name] or "").strip() for name in ("image", "scene"))
        line = f"line {rows.line_num}"
        if not image or not scene:
            lacking = "scene" if image else "image"
            _refuse(path, f"{line} has no {lacking}", "image,scene", "fill it in")
        if image in scenes:
            _refuse(path, f"{line} names {image} again", "each once", "keep one line")
        scenes[image] = scene
    if not scenes:
        _refuse(path, "no lines after the first", "one for each image", "add them")
    return scenes


def group_split(
    groups: Sequence[str], val_share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Split samples into training and validation so that no group is on both sides.

    groups: the group of each sample, as its scene or map. Whole groups go to
    validation, in an order drawn by `seed`, while they fit into `val_share` of the
    samples; the first that is drawn goes if none fits. Gives sorted indices. Raises
    ValueError for fewer than two groups. (notebook 05)
    """
    _check_share("val_share", val_share)
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} groups in {len(groups)} samples: expected at least 2, one "
            "to train on and one to validate; add pictures of another scene, or split "
            "by picture"
        )
    order = np.random.default_rng(seed).permutation(names).tolist()
    room = min(max(round(val_share * len(groups)), 1), len(groups) - 1)
    sizes = Counter(groups)
    chosen: set[str] = set()
    for name in order:
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    chosen = chosen or set(order[:1])
    return (
        [i for i, group in enumerate(groups) if group not in chosen],
        [i for i, group in enumerate(groups) if group in chosen],
    )


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} {value}: expected more than 0, less than 1")


def _size(picture: Image.Image | torch.Tensor) -> str:
    """Name the size of a picture, or of masks (K, H, W)."""
    if isinstance(picture, torch.Tensor):
        return f"{picture.shape[-1]}x{picture.shape[-2]}"
    return f"{picture.width}x{picture.height}"


class PairDataset(Dataset[Sample]):
    """Samples of a list of pairs, map-style: `len(dataset)` and `dataset[i]`.

    Each sample goes through `transform(image, target)`; without one it holds pictures.
    read_target: how a target's file is read. cache: keep decoded pictures (uint8,
    H * W * 4 bytes a pair) so that each is read once; with worker processes each worker
    keeps its own. (notebook 02)
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        transform: PairTransform | None = None,
        *,
        read_target: ReadTarget = load_mask,
        cache: bool = False,
    ) -> None:
        self.pairs = list(pairs)
        self.transform = transform
        self.read_target = read_target
        self._cache: dict[Pair, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        sample = self._read(self.pairs[index])
        if self.transform is not None:
            return Sample(*self.transform(*sample))
        if self._cache is not None:  # the caller may draw on what it gets
            return Sample(sample.image.copy(), _copied(sample.target))
        return sample

    def _read(self, pair: Pair) -> Sample:
        if self._cache is not None and pair in self._cache:
            return self._cache[pair]
        image_path, target_path = pair
        sample = Sample(load_image(image_path), self.read_target(target_path))
        if _size(sample.image) != _size(sample.target):
            raise ValueError(
                f"{target_path}: {_size(sample.target)}, but {image_path} is "
                f"{_size(sample.image)}; expected equal sizes; see check_pairs"
            )
        if self._cache is not None:
            self._cache[pair] = sample
        return sample


def _copied(target: Image.Image | torch.Tensor) -> Image.Image | torch.Tensor:
    return target.clone() if isinstance(target, torch.Tensor) else target.copy()


class UIImageMaskDataset(PairDataset):
    """The pairs of a folder, as `find_pairs` lists them.

    overfit_num: with n > 0, n samples of the first pair alone, for overfitting on
    purpose. (notebook 02)
    """

    def __init__(
        self,
        data_dir: Path | str,
        transform: PairTransform | None = None,
        overfit_num: int = 0,
        *,
        patterns: Patterns | None = None,
        read_target: ReadTarget = load_mask,
        cache: bool = False,
    ) -> None:
        _need_at_least("overfit_num", overfit_num, 0)
        pairs = find_pairs(data_dir, patterns)
        if overfit_num:
            pairs = pairs[:1] * overfit_num
        super().__init__(pairs, transform, read_target=read_target, cache=cache)


class OverfitDataset(PairDataset):
    """One pair, `number_of_samples` times; the two files are read once.

    (notebook 02)
    """

    def __init__(
        self,
        input_file: Path | str,
        target_file: Path | str,
        number_of_samples: int = 2000,
        transform: PairTransform | None = None,
    ) -> None:
        _need_at_least("number_of_samples", number_of_samples, 1)
        pair = (Path(input_file), Path(target_file))
        super().__init__([pair] * number_of_samples, transform, cache=True)
        self._read(pair)


def _need_at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ValueError(f"{name} {value}: expected {least} or more")


# --------------------------------------------------------------------------------------
# 3. Paired transforms: one random draw for image and target. (notebook 03)
# --------------------------------------------------------------------------------------

# By this much scaling and turning may push a value out of 0..1.
ROUNDING = 1e-4
# What is padded: black in an image, ignored in a target.
_FILL = {tv_tensors.Mask: IGNORE_INDEX, "others": 0}


class PairedTransform:
    """One torchvision v2 transform applied to image and target with the same draw.

    A thin layer: the target is wrapped as `tv_tensors.Mask`, so v2 moves it without
    mixing values (nearest), pads it with 255 (ignored; 128 in a mask picture) and
    leaves it alone when only colours change. Both come back as what they were: PIL
    picture or tensor. Raises ValueError when their sizes differ. (notebook 03)
    """

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform

    def __call__(self, image: Any, target: Any) -> Sample:
        wrapped_image = image if _is_picture(image) else tv_tensors.Image(image)
        wrapped_target = _wrap_target(target)
        _check_equal_size(wrapped_image, wrapped_target)
        new_image, new_target = self.transform(wrapped_image, wrapped_target)
        if not _is_picture(image):
            new_image = new_image.as_subclass(torch.Tensor)
        return Sample(new_image, _unwrap_target(new_target, target))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transform.extra_repr()})"


def _is_picture(thing: Any) -> bool:
    return isinstance(thing, Image.Image)


def _wrap_target(target: Any) -> tv_tensors.Mask:
    """Give a target as a Mask: ids uint8 (1, H, W) of a picture, a tensor as it is."""
    if not _is_picture(target):
        return tv_tensors.Mask(target)
    if target.mode not in ("L", "P"):
        raise ValueError(
            f"target picture of mode {target.mode}: expected L (0, 255 and "
            f"{IGNORE_GREY} for ignored) or P (class ids); see load_mask"
        )
    values = np.array(target)
    if target.mode == "L":
        values = _greys_to_ids(values)
    return tv_tensors.Mask(torch.from_numpy(values)[None])


def _greys_to_ids(greys: np.ndarray) -> np.ndarray:
    """Turn a mask picture's 0, 255 and 128 into 0, 1 and 255, uint8 (H, W)."""
    foreground, unknown = greys == 255, greys == IGNORE_GREY
    if not (foreground | unknown | (greys == 0)).all():
        raise ValueError(
            f"target picture with values {_listed(greys)}: expected only 0, 255 and "
            f"{IGNORE_GREY}; threshold it first, see load_mask"
        )
    ids = foreground.view(np.uint8)
    ids[unknown] = IGNORE_INDEX
    return ids


def _unwrap_target(target: tv_tensors.Mask, like: Any) -> Any:
    if not _is_picture(like):
        return target.as_subclass(torch.Tensor)
    values = target[0].numpy()
    if like.mode == "L":
        greys = np.where(values == 1, 255, np.where(values == 0, 0, IGNORE_GREY))
        return Image.fromarray(greys.astype(np.uint8))
    picture = Image.fromarray(values)
    picture.putpalette(like.getpalette() or [])
    return picture


def _check_equal_size(image: Any, target: torch.Tensor) -> None:
    size = tuple(v2.functional.get_size(image))
    if size != tuple(target.shape[-2:]):
        raise ValueError(
            f"image of {size} and target of {tuple(target.shape[-2:])} (H, W): "
            "expected equal sizes"
        )


def _height_width(size: int | Sequence[int]) -> Sequence[int]:
    """Read one number as both sides of a square."""
    return (size, size) if isinstance(size, int) else size


def _check_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Read one number as both sides of a square; (height, width) in pixels."""
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(
        isinstance(side, int | np.integer) and side > 0 for side in sides
    ):
        raise ValueError(
            f"{name} {size!r}: expected one whole number of pixels, or (height, width)"
        )
    return int(sides[0]), int(sides[1])


class ImageTargetCompose:
    """Apply several paired transforms one after the other."""

    def __init__(self, transforms: Sequence[PairTransform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any, target: Any) -> Sample:
        for transform in self.transforms:
            image, target = transform(image, target)
        return Sample(image, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transforms})"


class ImageTargetToTensor:
    """Turn pictures into tensors.

    image: float32 (3, H, W) in 0..1. target: float32 (1, H, W) of 0 and 1 from a mask
    (mode "L"), int64 (H, W) from class ids (mode "P"); 255 where ignored.
    """

    def __call__(self, image: Any, target: Any) -> Sample:
        if _is_picture(image):
            pixels = torch.from_numpy(np.array(image.convert("RGB")))  # (H, W, 3)
            image = pixels.permute(2, 0, 1).float().div_(255)
        else:
            image = v2.functional.to_dtype(image, torch.float32, scale=True)
        if _is_picture(target):
            ids = _wrap_target(target).as_subclass(torch.Tensor)
            target = ids.float() if target.mode == "L" else ids[0].long()
        _check_equal_size(image, target)
        return Sample(image, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ImageTargetResize(PairedTransform):
    """Scale to a size: an int is the shorter side, a pair is (height, width)."""

    def __init__(self, size: int | Sequence[int]) -> None:
        _check_size(type(self).__name__, size)
        super().__init__(v2.Resize(size, antialias=True))


class ImageTargetPad(PairedTransform):
    """Pad to at least (height, width) at the right and the foot; target: ignored."""

    def __init__(self, size: int | Sequence[int]) -> None:
        _check_size(type(self).__name__, size)
        super().__init__(_PadTo(size))


class _PadTo(v2.Transform):
    """Pad only what is missing, which v2.Pad cannot know beforehand."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.height, self.width = _height_width(size)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        right, foot = max(self.width - width, 0), max(self.height - height, 0)
        return {"padding": [0, 0, right, foot]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = _FILL.get(type(inpt), _FILL["others"])
        return self._call_kernel(v2.functional.pad, inpt, fill=fill, **params)


class ImageTargetRandomCrop(PairedTransform):
    """Cut the same random window out of both; what is too small is padded first."""

    def __init__(self, size: int | Sequence[int]) -> None:
        _check_size(type(self).__name__, size)
        super().__init__(v2.RandomCrop(size, pad_if_needed=True, fill=_FILL))


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
        super().__init__(
            v2.RandomAffine(degrees, translate, scale, shear, bilinear, fill=_FILL)
        )


class ImageTargetColorJitter(PairedTransform):
    """Change the image's brightness, contrast, saturation and hue at random.

    Each as in torchvision: a share, 0.2 for 0.8 to 1.2 times; hue 0 to 0.5. The target
    stays as it is.
    """

    def __init__(
        self,
        brightness: float = 0,
        contrast: float = 0,
        saturation: float = 0,
        hue: float = 0,
    ) -> None:
        super().__init__(v2.ColorJitter(brightness, contrast, saturation, hue))


class ImageTargetNormalize:
    """Take away each channel's mean and divide by its deviation; image tensors only.

    mean, std: three numbers each, for values in 0..1. Raises ValueError for pictures
    and for values outside 0..1, the usual sign of a forgotten scaling.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(
                f"mean {mean} and std {std}: expected as many of both, std above 0"
            )
        self.mean, self.std = list(mean), list(std)

    def __call__(self, image: Any, target: Any) -> Sample:
        if _is_picture(image) or not image.is_floating_point():
            raise ValueError(
                "Normalize got a picture or whole numbers: expected a float tensor in "
                "0..1; put ImageTargetToTensor before it"
            )
        if image.min() < -ROUNDING or image.max() > 1 + ROUNDING:
            raise ValueError(
                f"Normalize got values {float(image.min()):.2f} to "
                f"{float(image.max()):.2f}: expected 0..1; scale first, and only once"
            )
        return Sample(v2.functional.normalize(image, self.mean, self.std), target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mean={self.mean}, std={self.std})"


def denormalize(
    image: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Undo ImageTargetNormalize for display: float (..., 3, H, W), clamped to 0..1."""
    mean_tensor, std_tensor = (
        torch.as_tensor(values, dtype=image.dtype, device=image.device).view(-1, 1, 1)
        for values in (mean, std)
    )
    return (image * std_tensor + mean_tensor).clamp(0, 1)


# --------------------------------------------------------------------------------------
# 4. UNet: from an image to one logit per pixel and class. (notebook 04)
# --------------------------------------------------------------------------------------


class InstanceNorm(nn.GroupNorm):
    """Centre each channel of each image and divide by its deviation.

    (B, C, H, W) -> (B, C, H, W), a learnt scale and shift at the end. In training it is
    BatchNorm of one image at a time: the same, and with its gradient half the CPU time.
    Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)  # a group per channel

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(image)
        norm = partial(
            F.batch_norm,
            running_mean=None,
            running_var=None,
            weight=self.weight,
            bias=self.bias,
            training=True,
            eps=self.eps,
        )
        return torch.cat([norm(one) for one in image.split(1)])


class ConvBlock(nn.Sequential):
    """One 3x3 convolution and ReLU, `InstanceNorm` in between if asked for.

    (B, C_in, H, W) -> (B, C_out, H, W).
    """

    def __init__(self, num_in: int, num_out: int, normalize: bool) -> None:
        layers: list[nn.Module] = [nn.Conv2d(num_in, num_out, 3, padding=1)]
        if normalize:
            layers.append(InstanceNorm(num_out))
        super().__init__(*layers, nn.ReLU(inplace=True))


class Down(nn.Sequential):
    """Halve height and width, then a block: (B, C, H, W) -> (B, 2C, H/2, W/2)."""

    def __init__(self, num_in: int, normalize: bool) -> None:
        super().__init__(nn.MaxPool2d(2), ConvBlock(num_in, 2 * num_in, normalize))


class Up(nn.Module):
    """Double height and width, then add what a block makes of it and the skip.

    x (B, 2C, H/2, W/2) and skip (B, C, H, W) -> (B, C, H, W). Adding instead of
    replacing (https://arxiv.org/abs/1512.03385) learns a picture in fewer steps.
    """

    def __init__(self, num_out: int, normalize: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * num_out, num_out, 2, stride=2)
        self.block = ConvBlock(2 * num_out, num_out, normalize)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return x.add_(self.block(torch.cat([x, skip], dim=1)))  # x is not needed again


class UNet(nn.Module):
    """Logits for every pixel: (B, C, H, W) in 0..1 -> (B, K, H, W), any H, W >= 1.

    Five levels, `max_features` channels on the lowest (a multiple of 16; 256 gives 1 M
    parameters). All levels but the first are normalised, each image for itself;
    normalize=False makes a pixel depend on its neighbourhood alone, which tiles need
    (notebook 09). fast: work at half the resolution inside; coarser on fine lines.

    forward raises ValueError for another number of channels, whole numbers, an empty
    batch. Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597. (notebook 04)
    """

    def __init__(
        self,
        num_in_channels: int = 3,
        num_out_channels: int = 1,
        max_features: int = 256,
        *,
        normalize: bool = True,
        fast: bool = False,
    ) -> None:
        super().__init__()
        _need_at_least("num_in_channels", num_in_channels, 1)
        _need_at_least("num_out_channels", num_out_channels, 1)
        if max_features < 16 or max_features % 16:
            raise ValueError(f"max_features {max_features}: expected a multiple of 16")
        self.num_in_channels = num_in_channels
        self.num_out_channels = num_out_channels
        self.shrink = 2 if fast else 1  # pixels per side of a cell inside
        self.multiple = 16 * self.shrink  # sides are padded to multiples of it, pixels
        first = max_features // 16
        widths = [first, 2 * first, 4 * first, 8 * first]
        cell = self.shrink**2
        self.to_cells = nn.PixelUnshuffle(2) if fast else nn.Identity()
        self.first = ConvBlock(num_in_channels * cell, first, normalize=False)
        self.downs = nn.ModuleList(Down(width, normalize) for width in widths)
        self.ups = nn.ModuleList(
            Up(width, normalize and width > first) for width in widths[::-1]
        )
        self.head = nn.Conv2d(first, num_out_channels * cell, 1)
        self.to_pixels = nn.PixelShuffle(2) if fast else nn.Identity()
        self.apply(_kaiming)
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self._check(image)
        height, width = image.shape[-2:]
        x = self.to_cells((self._pad(image) - 0.5) * 4)  # -2..2
        skips = [self.first(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.to_pixels(self.head(x))[..., :height, :width]

    def set_foreground_share(self, share: float | Sequence[float]) -> None:
        """Start at the prior: the head's bias becomes log(p / (1 - p)).

        share: of foreground pixels in the training data, 0..1, or one share for each of
        several masks; kept off both ends.
        """
        one = np.ndim(share) == 0
        shares = [share] * self.num_out_channels if one else share
        limited = [min(max(float(p), 1e-3), 1 - 1e-3) for p in shares]
        self._set_bias([math.log(p / (1 - p)) for p in limited])

    def set_class_shares(self, shares: Sequence[float]) -> None:
        """Start at the prior of classes that exclude each other: log(p), for softmax.

        shares: of each class in the training data, 0..1; kept off 0.
        """
        self._set_bias([math.log(max(float(p), 1e-3)) for p in shares])

    def _set_bias(self, values: Sequence[float]) -> None:
        """Give each class its bias, the same in all pixels of a cell."""
        if len(values) != self.num_out_channels:
            raise ValueError(
                f"{len(values)} shares: expected {self.num_out_channels}, one per class"
            )
        bias = torch.tensor(values).repeat_interleave(self.shrink**2)
        with torch.no_grad():
            self.head.bias.copy_(bias)

    def _check(self, image: torch.Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != self.num_in_channels:
            raise ValueError(
                f"UNet got {tuple(image.shape)}: expected (B, {self.num_in_channels}, "
                "H, W); a single image needs [None], other channels num_in_channels"
            )
        if not image.is_floating_point() or image.dtype == torch.float64:
            raise ValueError(
                f"UNet got {image.dtype}: expected floats in 0..1, such as float32"
            )
        if 0 in image.shape:
            raise ValueError(f"UNet got an empty batch {tuple(image.shape)}")

    def _pad(self, image: torch.Tensor) -> torch.Tensor:
        """Repeat the last row and column until four halvings come out even.

        The lowest level keeps at least 2x2 cells: one alone has no deviation.
        """
        step = self.multiple
        height, width = image.shape[-2:]
        foot, right = (max(-side % step, 2 * step - side) for side in (height, width))
        if not foot + right:
            return image
        return F.pad(image, (0, right, 0, foot), mode="replicate")


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


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
# 5. Losses and scores: how wrong, how right. (notebook 04)
# --------------------------------------------------------------------------------------


def bce_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    pos_weight: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Mean binary cross entropy of logits, from float32, ignored pixels left out.

    logits, targets: (B, K, H, W), targets 0, 1 or `ignore_index`. pos_weight counts a
    foreground pixel that many times. With nothing but ignored pixels the loss is 0.
    Raises ValueError for unequal shapes and for targets of other values.
    """
    valid = _valid_pixels(logits, targets, ignore_index)
    weight = None
    if pos_weight is not None:
        weight = torch.tensor(pos_weight, dtype=torch.float32, device=logits.device)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), targets.float() * valid, pos_weight=weight, reduction="none"
    )
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def dice_loss(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE_INDEX
) -> torch.Tensor:
    """1 - Dice of the probabilities, each image and class for itself, then averaged.

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797; one pixel is added above
    and below, so that nothing found where nothing is costs nothing.
    """
    valid = _valid_pixels(logits, targets, ignore_index)
    probabilities = logits.float().sigmoid() * valid
    wanted = targets.float() * valid
    both = (probabilities * wanted).sum(dim=(-2, -1))
    either = probabilities.sum(dim=(-2, -1)) + wanted.sum(dim=(-2, -1))
    return (1 - (2 * both + 1) / (either + 1)).mean()


def bce_dice_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    pos_weight: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Add `bce_loss` and `dice_loss`: every pixel counts, and so does every region."""
    return bce_loss(logits, targets, pos_weight, ignore_index) + dice_loss(
        logits, targets, ignore_index
    )


def _valid_pixels(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """Check logits and targets against each other; bool like targets: not ignored."""
    if logits.shape != targets.shape:
        advice = "the logits come first"
        if targets.ndim == logits.ndim - 1 and not targets.is_floating_point():
            advice = 'class ids are for cross_entropy_loss, task="multiclass"'
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}: "
            f"expected equal shapes (B, K, H, W); {advice}"
        )
    valid = targets != ignore_index
    if not ((targets == 0) | (targets == 1) | ~valid).all():
        raise ValueError(
            f"targets of {targets.min():g} to {targets.max():g}: expected 0, 1 and "
            f"{ignore_index} for ignored; divide masks of 0/255 by 255"
        )
    return valid


def iou_counts(
    prediction: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE_INDEX
) -> torch.Tensor:
    """Count intersection and union in pixels, int64 (2,), so that batches can be added.

    prediction: bool, of the targets' shape; ignored pixels count in neither.
    """
    valid = targets != ignore_index
    wanted = (targets == 1) & valid
    found = prediction & valid
    return torch.stack([(found & wanted).sum(), (found | wanted).sum()])


def iou_of(counts: torch.Tensor) -> torch.Tensor:
    """Divide intersection by union; 1 where nothing was to be found and nothing was."""
    both, either = counts.double()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).float()


def binary_iou(
    logits_or_probs: torch.Tensor,
    targets: torch.Tensor,
    *,
    from_logits: bool | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Intersection over union of all pixels together, 0..1; 1 where both are empty.

    Both of one shape; foreground is a logit above 0 or a probability above 0.5.
    from_logits says which came; without it, a value outside 0..1 means logits, so say
    it when logits could all be small. (Jaccard 1912; notebook 04)
    """
    _valid_pixels(logits_or_probs, targets, ignore_index)
    if from_logits is None:
        from_logits = bool(logits_or_probs.min() < 0 or logits_or_probs.max() > 1)
    prediction = logits_or_probs > (0 if from_logits else 0.5)
    return iou_of(iou_counts(prediction, targets, ignore_index))


def foreground_share(targets: Iterable[torch.Tensor]) -> float:
    """Count the share of foreground, 0..1, among the pixels that are not ignored."""
    foreground = known = 0
    for target in targets:
        foreground += int((target == 1).sum())
        known += int((target != IGNORE_INDEX).sum())
    return foreground / max(known, 1)


def cross_entropy_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    class_weights: Sequence[float] | torch.Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Mean cross entropy of classes that exclude each other, ignored pixels left out.

    logits: (B, K, H, W), K at least 2. targets: class ids, int64 (B, H, W), 0 to K - 1
    or `ignore_index`. class_weights: how much a pixel of each class counts; the mean is
    weighted too. With nothing but ignored pixels the loss is 0. Raises ValueError for
    other shapes and types, for ids beyond K and for other weights. (notebook 08)
    """
    _check_class_targets(logits, targets, ignore_index)
    weights = torch.ones(logits.shape[1], device=logits.device)
    if class_weights is not None:
        weights = _checked_weights(class_weights, logits)
    total = F.cross_entropy(
        logits.float(), targets, weights, ignore_index=ignore_index, reduction="sum"
    )
    counts = torch.bincount(targets[targets != ignore_index], minlength=len(weights))
    mass = (counts * weights).sum()
    return total / torch.where(mass > 0, mass, 1)


def _check_class_targets(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int
) -> None:
    """Refuse targets that are no class ids (B, H, W) for logits (B, K, H, W)."""
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(
            f"logits {tuple(logits.shape)}: expected (B, K, H, W) with at least 2 "
            "classes, background too; one class alone is for bce_loss"
        )
    batch, _, *size = logits.shape
    if targets.shape != (batch, *size):
        advice = "the logits come first"
        if targets.shape == logits.shape:
            advice = "targets.argmax(dim=1) makes class ids of one-hot targets"
        elif targets.shape == (batch, 1, *size):
            advice = "targets[:, 0] takes the channel away, if they are class ids"
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}: "
            f"expected class ids {(batch, *size)}; {advice}"
        )
    if targets.dtype != torch.int64:
        raise ValueError(
            f"targets of {targets.dtype}: expected class ids, int64; see load_classes"
        )
    _check_class_ids("targets", targets, logits.shape[1], ignore_index)


def _check_class_ids(
    name: str, ids: torch.Tensor, num_classes: int, ignore_index: int | None = None
) -> None:
    wrong = (ids < 0) | (ids >= num_classes)
    if ignore_index is not None:
        wrong &= ids != ignore_index
    if wrong.any():
        or_ignored = "" if ignore_index is None else f" or {ignore_index} for ignored"
        raise ValueError(
            f"{name} with class id {int(ids[wrong][0])}: expected 0 to "
            f"{num_classes - 1}{or_ignored}"
        )


def _checked_weights(
    class_weights: Sequence[float] | torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    """Check weights of classes; float32 (K,) beside the logits."""
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits.device)
    num_classes = logits.shape[1]
    if weights.shape != (num_classes,):
        raise ValueError(
            f"class_weights of shape {tuple(weights.shape)}: expected {num_classes}, "
            "one per class"
        )
    if not weights.isfinite().all() or weights.min() < 0 or weights.max() == 0:
        raise ValueError(
            f"class_weights {weights.tolist()}: expected finite numbers from 0 up, not "
            "all of them 0"
        )
    return weights


def confusion_matrix(
    prediction: torch.Tensor | np.ndarray | Image.Image,
    targets: torch.Tensor | np.ndarray | Image.Image,
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Count pixels by class, int64 (K, K): a row per target, a column per prediction.

    Both of one shape, class ids; ignored pixels count nowhere. Matrices of batches can
    be added. Raises ValueError for unequal shapes and for ids beyond K. (notebook 08)
    """
    prediction, targets = map(_as_ids, (prediction, targets))
    floating = prediction.is_floating_point() or targets.is_floating_point()
    if prediction.shape != targets.shape or floating:
        raise ValueError(
            f"prediction {prediction.dtype} {tuple(prediction.shape)} and targets "
            f"{targets.dtype} {tuple(targets.shape)}: expected class ids of one shape; "
            "logits need argmax(dim=1)"
        )
    _check_class_ids("prediction", prediction, num_classes)
    _check_class_ids("targets", targets, num_classes, ignore_index)
    known = targets != ignore_index
    pairs = targets[known].long() * num_classes + prediction[known].long()
    counts = torch.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_iou(matrix: torch.Tensor) -> torch.Tensor:
    """Give the IoU of each class, float32 (K,); NaN for a class that is nowhere.

    matrix: of `confusion_matrix`. (notebook 08)
    """
    both = matrix.diagonal()
    either = matrix.sum(dim=0) + matrix.sum(dim=1) - both
    return both / either  # 0 / 0 is NaN; never float64, which Apple's GPUs lack


def mean_iou(matrix: torch.Tensor) -> torch.Tensor:
    """Average the IoU of the classes that occur or were predicted; 1 if none is."""
    scores = class_iou(matrix)
    return scores.nanmean() if (scores >= 0).any() else torch.ones_like(scores[0])


def shares_of_classes(
    targets: Iterable[torch.Tensor], num_classes: int
) -> torch.Tensor:
    """Count the share of each class, float32 (K,), among the pixels not ignored.

    All 0 where every pixel is ignored. Raises ValueError for ids beyond K.
    """
    counts = torch.zeros(num_classes, dtype=torch.long)
    for ids in targets:
        _check_class_ids("target", ids, num_classes, IGNORE_INDEX)
        known = ids[ids != IGNORE_INDEX].long()
        counts += torch.bincount(known, minlength=num_classes)
    return (counts.double() / counts.sum().clamp(min=1)).float()


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
        return np.array(picture.convert("RGB"))
    values = torch.as_tensor(picture).detach().cpu()
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values.permute(1, 2, 0)
    if values.ndim not in (2, 3) or (
        values.ndim == 3 and values.shape[2] not in (1, 3)
    ):
        raise ValueError(
            f"picture of shape {tuple(values.shape)}: expected (H, W), (H, W, 3), "
            "(1, H, W) or (3, H, W); masks that overlap are shown one by one"
        )
    if values.is_floating_point():
        if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
            raise ValueError(
                f"values {values.min():.2f} to {values.max():.2f}: expected 0..1; "
                "logits need a sigmoid, normalized images denormalize"
            )
        values = (values.clamp(0, 1) * 255).round()
    elif values.dtype == torch.bool:
        values = values * 255
    elif values.ndim == 2:
        return np.array(classes_to_colors(values, CLASS_COLOURS[:IGNORE_INDEX]))
    if values.ndim == 2:
        values = values[..., None]
    return values.to(torch.uint8).expand(*values.shape[:2], 3).numpy().copy()


def overlay(
    image: Any,
    mask: Any,
    color: tuple[int, int, int] = (255, 0, 80),
    alpha: float = 0.55,
) -> Image.Image:
    """Tint a mask's pixels in an image. mask: whatever is above its half is tinted.

    image: as in `to_array`; mask: a mask picture or (H, W) of 0..1, bool, or 0 and 255.
    Raises ValueError when their sizes differ.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha}: expected 0 (nothing seen) to 1 (opaque)")
    pixels = to_array(image)
    where = _as_mask(mask)
    if where.shape != pixels.shape[:2]:
        raise ValueError(f"mask {where.shape} on an image of {pixels.shape[:2]} (H, W)")
    painted = pixels[where] * (1 - alpha) + np.array(color) * alpha
    pixels[where] = painted.round().astype(np.uint8)
    return Image.fromarray(pixels)


def _as_mask(mask: Any) -> np.ndarray:
    """Bool (H, W) of a mask of any kind; ignored pixels are not in it.

    Raises ValueError for class ids, which half of 255 would turn to nothing.
    """
    is_picture = isinstance(mask, Image.Image)
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().numpy()
    values = np.asarray(mask)
    if values.ndim < 2 or any(side != 1 for side in values.shape[:-2]):
        raise ValueError(f"mask of shape {values.shape}: expected (H, W) or (1, H, W)")
    values = values.reshape(values.shape[-2:])
    if values.dtype == bool:
        return values
    between = values[(values > 1) & (values < IGNORE_INDEX)]
    if not is_picture and len(between) and between.max() < IGNORE_GREY:
        raise ValueError(
            f"mask of values {_listed(values)}: expected bool, 0 and 1, or 0 and 255; "
            "of class ids take one, as ids == 3, or paint all with classes_to_colors"
        )
    if not len(between) and (values == 1).any() and values.max() == IGNORE_INDEX:
        return values == 1
    return values > (0.5 if values.max() <= 1 else IGNORE_GREY)


def show(
    *rows: Sequence[Any],
    titles: Sequence[str] = (),
    height: float = 2.2,
    legend: Sequence[str] = (),
) -> None:
    """Draw rows of pictures, each of a kind that `to_array` knows, titles on top.

    height: of one row, in inches. legend: class names, shown in the palette's colours.
    """
    import matplotlib.pyplot as plt

    columns = max(map(len, rows))
    pictures = [[to_array(picture) for picture in row] for row in rows]
    tall, wide = pictures[0][0].shape[:2]
    size = (columns * height * wide / tall, len(rows) * height + 0.3)
    figure, axes = plt.subplots(
        len(rows), columns, squeeze=False, figsize=size, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, row_axes in zip(pictures, axes, strict=True):
        for picture, axis in zip(row, row_axes, strict=False):
            axis.imshow(picture, interpolation="nearest")
    for title, axis in zip(titles, axes[0], strict=False):
        axis.set_title(title, fontsize=9)
    if legend:
        handles = [
            plt.Rectangle((0, 0), 1, 1, color=np.array(color) / 255)
            for color in CLASS_COLOURS[1 : len(legend) + 1]
        ]
        figure.legend(handles, legend, loc="outside lower center", ncols=5, fontsize=8)
    plt.show()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; what is whole is moved into place."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OSError(f"{path}: could not be written ({error})") from error
    finally:
        part.unlink(missing_ok=True)


def save_mask(mask: Any, path: Path | str) -> None:
    """Write a mask, of a kind that `overlay` takes, as a PNG of 0 and 255.

    Raises ValueError for another suffix: a JPEG would blur it.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: expected a name ending in .png, to keep it exact")
    picture = Image.fromarray(_as_mask(mask).astype(np.uint8) * 255)
    with _beside(path) as part:
        picture.save(part, format="PNG")


def save_gif(frames: Sequence[Any], path: Path | str, duration: float = 100) -> None:
    """Write pictures, each as in `to_array`, as an endless GIF; duration in ms a frame.

    Written beside and moved into place, so there is never half a file.
    """
    import imageio.v3 as iio

    if not frames:
        raise ValueError(f"{path}: no frames to write")
    path = Path(path)
    pictures = [to_array(frame) for frame in frames]
    if len({picture.shape for picture in pictures}) != 1:
        sizes = {picture.shape for picture in pictures}
        raise ValueError(f"{path}: frames of sizes {sizes}; expected one size")
    if path.suffix.lower() != ".gif" or duration < 10:
        raise ValueError(
            f"{path}, {duration} ms a frame: expected a name ending in .gif and 10 ms "
            "or more"
        )
    with _beside(path) as part:
        iio.imwrite(part, pictures, extension=".gif", duration=duration, loop=0)


# --------------------------------------------------------------------------------------
# 7. Loaders: batches made here, or ahead by worker processes. (notebook 06)
# --------------------------------------------------------------------------------------

Collate = Callable[[list[Any]], Any]
# Bytes of a message at most: it goes into a pipe in one piece, so that nobody reads
# half of it, and beside a hundred others, so that nobody waits to get rid of it.
WHOLE_MESSAGE = 500
MOST_AHEAD = 100
# Seconds that workers get to end by themselves, before they are ended.
GRACE = 1.0


def pad_collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples of different sizes, each padded below and on the right.

    Image (C, h, w) to (B, C, H, W), filled with 0; target (..., h, w) to
    (B, ..., H, W), filled with 255, which is ignored; H and W are the largest. Targets
    that are numbers, as those of `VOCFilteredDataset`, become a tensor (B,). Raises
    ValueError for pictures. (notebook 06)
    """
    for image, _ in samples:
        if not isinstance(image, torch.Tensor):
            raise ValueError(
                f"pad_collate got {type(image).__name__}: expected tensors; give the "
                "dataset a transform that makes them"
            )
    height = max(image.shape[-2] for image, _ in samples)
    width = max(image.shape[-1] for image, _ in samples)

    def pad(tensor: Any, value: int) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        right, below = width - tensor.shape[-1], height - tensor.shape[-2]
        return F.pad(tensor, (0, right, 0, below), value=value)

    padded = [
        Sample(pad(image, 0), pad(target, IGNORE_INDEX)) for image, target in samples
    ]
    return default_collate(padded)


def _make_batch(dataset: Any, collate_fn: Collate, indices: Sequence[int]) -> Any:
    return collate_fn([dataset[index] for index in indices])


class NaiveDataLoader:
    """Make each batch when it is asked for, in this process.

    Iterates as torch's DataLoader does: each `iter` is an epoch of its own, and the
    same random numbers give the same order. `dataset` has `__len__` and `__getitem__`;
    `collate_fn` makes a batch of a list of samples (None: torch's default_collate);
    `shuffle` draws from `generator` (None: torch's own). Raises ValueError where not
    one batch would come. (notebook 06)
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
        _check_dataset(dataset, batch_size, drop_last)
        self.dataset = dataset
        self.collate_fn = collate_fn or default_collate
        self.generator = generator
        order = (
            RandomSampler(dataset, generator=generator)
            if shuffle
            else SequentialSampler(dataset)
        )
        self.batch_sampler = BatchSampler(order, batch_size, drop_last)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        _, batches = self._start_epoch()
        return (
            _make_batch(self.dataset, self.collate_fn, indices) for indices in batches
        )

    def _start_epoch(self) -> tuple[int, Iterator[list[int]]]:
        """Draw the seed of the epoch's workers; the order of its samples follows.

        In this turn, and also where no worker will use the seed, because torch does so.
        """
        seed = torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return int(seed), iter(self.batch_sampler)


def _check_dataset(dataset: Any, batch_size: int, drop_last: bool) -> None:
    by_number = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not by_number or isinstance(dataset, IterableDataset):
        raise ValueError(
            f"dataset of type {type(dataset).__name__}: expected one with __len__ and "
            "__getitem__; for samples without numbers use torch's DataLoader"
        )
    _need_whole("batch_size", batch_size, 1)
    needed = batch_size if drop_last else 1
    if len(dataset) < needed:
        raise ValueError(
            f"batch_size {batch_size}, drop_last {drop_last}: the dataset has "
            f"{len(dataset)} samples, so not one batch; expected {needed} or more"
        )


def _need_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} {value!r}: expected a whole number")
    _need_at_least(name, value, least)


class PrefetchDataLoader(NaiveDataLoader):
    """Have the batches made ahead by worker processes; hand them out in order.

    Workers start with `iter` and end with the epoch, or when its iterator goes. At most
    `num_workers * prefetch_batches` batches (100 or fewer) are asked for and not yet
    handed out. Batch i is made by worker i % num_workers, whose random numbers start
    from the epoch's seed + its own number; torch's and Python's are those of torch's
    DataLoader, so that with the same seed both give equal batches. num_workers=0 makes
    them in this process.

    `multiprocessing_context` is "fork", "spawn", "forkserver" or None (what Python
    prefers). What a sample or `collate_fn` raises is raised here, with the worker's
    traceback as a note; RuntimeError where a worker dies. (notebook 06)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 64,
        num_workers: int = 1,
        prefetch_batches: int = 2,
        collate_fn: Collate | None = None,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        multiprocessing_context: str | None = None,
    ) -> None:
        super().__init__(
            dataset,
            batch_size,
            collate_fn,
            shuffle=shuffle,
            drop_last=drop_last,
            generator=generator,
        )
        _need_whole("num_workers", num_workers, 0)
        _need_whole("prefetch_batches", prefetch_batches, 1)
        if num_workers * prefetch_batches > MOST_AHEAD:
            raise ValueError(
                f"num_workers {num_workers} * prefetch_batches {prefetch_batches}: "
                f"expected {MOST_AHEAD} or fewer in all; what is ahead fills the memory"
            )
        methods = multiprocessing.get_all_start_methods()
        if multiprocessing_context not in (None, *methods):
            raise ValueError(
                f"multiprocessing_context {multiprocessing_context!r}: expected None "
                f"or one of {', '.join(methods)}"
            )
        self.num_workers = num_workers
        self.prefetch_batches = prefetch_batches
        self.multiprocessing_context = multiprocessing_context

    def __iter__(self) -> Iterator[Any]:
        return _Epoch(self) if self.num_workers else super().__iter__()


class _Epoch(Iterator[Any]):
    """One pass through the data: ask ahead, put in order, hand out."""

    def __init__(self, loader: PrefetchDataLoader) -> None:
        seed, batches = loader._start_epoch()
        self._requests = enumerate(batches)
        self._num_asked = self._num_given = 0
        self._early: dict[int, Any] = {}
        self._crew = _Crew(loader, seed)
        try:
            for _ in range(loader.num_workers * loader.prefetch_batches):
                self._ask()
        except BaseException:
            self._crew.end()
            raise

    def __next__(self) -> Any:
        if self._num_given == self._num_asked:
            self._crew.end()
            raise StopIteration
        try:
            batch = self._wait_for(self._num_given)
        except BaseException:
            self._num_given = self._num_asked  # nothing comes after an error
            self._crew.end()
            raise
        self._num_given += 1
        self._ask()
        return batch

    def _ask(self) -> None:
        for number, indices in itertools.islice(self._requests, 1):
            self._crew.ask(number, indices)
            self._num_asked += 1

    def _wait_for(self, number: int) -> Any:
        while number not in self._early:
            arrived, outcome = self._crew.receive()
            self._early[arrived] = outcome
        outcome = self._early.pop(number)
        if isinstance(outcome, _Failure):
            outcome.error.add_note(outcome.note)
            raise outcome.error
        return outcome


class _Failure(NamedTuple):
    """What a worker sends in place of a batch; pickling may cost an error its notes."""

    error: Exception
    note: str


class _Crew:
    """Worker processes, with a queue of requests to each and one of results from all.

    The queues are bare pipes, so that every wait is for "a result, or somebody's end".
    """

    def __init__(self, loader: PrefetchDataLoader, seed: int) -> None:
        context = multiprocessing.get_context(loader.multiprocessing_context)
        if context.get_start_method() != "fork":
            _refuse_of_cell(loader.dataset, loader.collate_fn)
        ends = self._results, results = context.Pipe(duplex=False)
        self._queues: list[Connection] = []
        self._workers: list[Any] = []
        lock = context.Lock()
        work = partial(_work, loader.collate_fn, ends, lock)
        # `work` stays until the end: a spawned worker looks the lock up by its name.
        self.end = weakref.finalize(
            self, _end, os.getpid(), self._workers, self._queues, self._results, work
        )
        try:
            num_workers = min(loader.num_workers, len(loader))
            for number in range(num_workers):
                info = SimpleNamespace(
                    id=number,
                    num_workers=num_workers,
                    seed=seed + number,
                    dataset=loader.dataset,
                )
                self._hire(context, work, info)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            self.end()
            raise TypeError(
                f"dataset or collate_fn cannot be sent to a worker process ({error}); "
                "expected classes and functions of a module, no lambda or local one"
            ) from error
        except BaseException:
            self.end()
            raise
        results.close()

    def _hire(self, context: Any, work: Any, info: SimpleNamespace) -> None:
        requests, queue = context.Pipe(duplex=False)
        self._queues.append(queue)
        worker = context.Process(target=work, args=(requests, info), daemon=True)
        with _interrupts_held_back():
            worker.start()
            self._workers.append(worker)
        requests.close()

    def ask(self, number: int, indices: list[int]) -> None:
        with contextlib.suppress(BrokenPipeError):  # `receive` tells of the dead
            queue = self._queues[number % len(self._queues)]
            queue.send_bytes(_dumps((number, indices)))

    def receive(self) -> tuple[int, Any]:
        """Block until a result is there, whosoever it is, or a worker has died."""
        ends = [worker.sentinel for worker in self._workers]
        if self._results not in wait_for_any([self._results, *ends]):
            raise self._obituary()
        try:
            return _loads(self._results.recv_bytes())
        except (EOFError, OSError):
            # Perhaps the sender died before it had handed all over.
            if wait_for_any(ends, timeout=1):
                raise self._obituary() from None
            raise

    def _obituary(self) -> RuntimeError:
        ends = [worker.sentinel for worker in self._workers]
        number = ends.index(wait_for_any(ends)[0])
        self._workers[number].join(GRACE)  # how it died is known a little later
        code = self._workers[number].exitcode
        how = "vanished" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}"
        return RuntimeError(
            f"worker {number} of the loader {how} during an epoch; expected it to live "
            "to the end. If killed: try fewer workers or smaller batches, memory may "
            "have run out. Otherwise read its last words in the terminal: a class or "
            "function of a notebook cell is not found by a new process, one of a "
            "module is"
        )


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep Ctrl+C waiting; a process started meanwhile is born deaf to it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _refuse_of_cell(*things: Any) -> None:
    """Refuse what a process that starts anew cannot import: it has no notebook."""
    of_cell = [t for t in things if getattr(t, "__module__", None) == "__main__"]
    if of_cell and not hasattr(sys.modules["__main__"], "__file__"):
        name = getattr(of_cell[0], "__name__", type(of_cell[0]).__name__)
        raise TypeError(
            f"{name} is defined in a notebook cell, where a worker process that is not "
            "forked cannot find it; expected a class or function of a module: move it "
            "into a file and import it"
        )


def _end(
    pid: int, workers: list[Any], queues: list[Connection], results: Connection, _: Any
) -> None:
    """Tell the workers to stop; end those that don't, and wait for all."""
    if os.getpid() != pid:  # a forked child inherits this call, not the workers
        return
    for queue in queues:
        with contextlib.suppress(OSError):
            queue.send_bytes(_dumps(None))
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    for end in ("terminate", "kill"):
        for worker in (worker for worker in workers if worker.is_alive()):
            getattr(worker, end)()
            worker.join(GRACE)
    for pipe in (*queues, results):
        pipe.close()


def _work(
    collate_fn: Collate,
    ends: tuple[Connection, Connection],
    lock: Any,
    requests: Connection,
    info: SimpleNamespace,
) -> None:
    """Live as a worker: make what is asked for, until told to stop or left alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl+C ends
    torch.set_num_threads(1)
    random.seed(info.seed)
    torch.manual_seed(info.seed)
    np.random.seed(info.seed % 2**32)
    # What torch's get_worker_info tells; default_collate then stacks where all can see.
    torch.utils.data._utils.worker._worker_info = info
    reader, results = ends
    reader.close()  # else a write to a parent that is gone would wait for ever
    parent = multiprocessing.parent_process().sentinel
    waiting: deque[tuple[int, list[int]]] = deque()
    while True:
        while not waiting or requests.poll():  # a None overtakes what waits
            if parent in wait_for_any([requests, parent]):
                return
            request = _loads(requests.recv_bytes())
            if request is None:
                return
            waiting.append(request)
        message = _message(info.dataset, collate_fn, *waiting.popleft())
        try:
            with lock:
                results.send_bytes(message)
        except BrokenPipeError:
            return


def _message(dataset: Any, collate_fn: Collate, number: int, indices: list[int]) -> Any:
    try:
        return _dumps((number, _make_batch(dataset, collate_fn, indices)))
    except Exception as error:
        note = f"In a worker of the loader:\n{traceback.format_exc()}"
        return _dumps((number, _Failure(_portable(error), note)))


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the journey and means one, else its words."""
    with contextlib.suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        same = (type(copy), str(copy)) == (type(error), str(error))
        if same and not isinstance(error, StopIteration):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _dumps(thing: Any) -> Any:
    """Pickle; tensors, and anything else that is large, travel in shared memory."""
    data = ForkingPickler.dumps(thing)
    if len(data) > WHOLE_MESSAGE:
        whole = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        data = ForkingPickler.dumps(whole)
    return data


def _loads(data: bytes) -> Any:
    thing = pickle.loads(data)
    return pickle.loads(thing.numpy()) if isinstance(thing, torch.Tensor) else thing


# --------------------------------------------------------------------------------------
# 8. Other people's folders: Pascal VOC and the KITTI roads. (notebooks 06 and 07)
# --------------------------------------------------------------------------------------

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
# What other sets of pictures call the same things.
VOC_NAMES = {
    **{"airplane": "aeroplane", "plane": "aeroplane", "automobile": "car"},
    **{"ship": "boat", "motorcycle": "motorbike", "bike": "bicycle", "couch": "sofa"},
    **{"tv": "tvmonitor", "table": "diningtable", "plant": "pottedplant"},
}
# Where below a root torchvision looks for VOC2012; the last is for 2011 alone.
VOC_PLACES = ("VOCdevkit", "", "TrainVal/VOCdevkit")


def _nearest(name: str, names: Iterable[str]) -> str:
    """Suggest the name that was probably meant."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _voc_indices(mapping: Mapping[str, int | str]) -> tuple[list[str], dict[str, int]]:
    """Turn a class mapping into new names and the index of each VOC class."""
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(
            f"class_mapping {mapping!r}: expected VOC classes and what they become, "
            'such as {"cat": 0, "dog": 1} or {"cat": "pet", "cow": "cattle"}'
        )
    for name in mapping:
        if name not in VOC_CLASSES:
            raise ValueError(
                f"class_mapping {name!r}: {_voc_advice(str(name))}; expected some of "
                + ", ".join(VOC_CLASSES)
            )
    values = list(mapping.values())
    kinds = {type(value) for value in values}  # by type: True is an int, and no index
    if kinds == {str}:
        classes = sorted(set(values))
        return classes, {name: classes.index(new) for name, new in mapping.items()}
    if kinds != {int} or min(values) < 0:
        raise ValueError(
            f"class_mapping to {', '.join(map(repr, values))}: expected class indices "
            "(int from 0 up) or names (str), all of one kind"
        )
    return [], dict(mapping)


def _voc_advice(name: str) -> str:
    """Say what VOC calls a class, or that it has none of that name."""
    other = VOC_NAMES.get(name.lower())
    if other:
        return f"VOC calls it {other}"
    nearest = _nearest(name.lower(), VOC_CLASSES)
    return "VOC has no such class" + (nearest or "; leave it out")


def _voc_folder(root: Path, year: str | int) -> Path:
    """Find the folder VOC<year> at or below a root."""
    name = f"VOC{year}"
    places = [root / place for place in VOC_PLACES]
    for place in places:
        if (place / name).is_dir():
            return place / name
    if not root.is_dir():
        what = "is a file" if root.exists() else "there is no such folder"
        raise FileNotFoundError(f"{root}: {what}; expected one with VOCdevkit/{name}")
    others = sorted({path.name for place in places for path in place.glob("VOC[12]*")})
    arrived = f"no {name}" + (f", but {', '.join(others)}" if others else "")
    raise FileNotFoundError(
        f"{root}: {arrived}; expected VOCdevkit/{name} or {name} in it; unpack the "
        "archive there, or name the folder above"
    )


def _voc_image_set(folder: Path, image_set: str) -> Path:
    """Find the list of a set's images."""
    path = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    # Beside them stand the sets of each class, as cat_train (or train_val).
    of_a_class = tuple(f"{name}_" for name in VOC_CLASSES)
    if image_set.startswith(of_a_class):
        advice = "class_mapping says which classes you want"
        _refuse(path, "the list of one class", "train, val or trainval", advice)
    if path.is_file():
        return path
    stems = [other.stem for other in sorted(path.parent.glob("[!.]*.txt"))]
    sets = [stem for stem in stems if not stem.startswith(of_a_class)]
    raise FileNotFoundError(
        f"{path}: does not exist; expected an image_set that does: "
        f"{', '.join(sets) or 'there is none, unpack the archive again'}"
    )


def _voc_objects(path: Path) -> list[str]:
    """List the class of each object of an annotation; parts of objects are none."""
    advice = "unpack it again, or take its image out of the image_set"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such annotation; {advice}")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        _refuse(path, f"broken XML ({error})", "a VOC annotation", advice)
    if root.tag != "annotation":
        _refuse(path, f"XML of <{root.tag}>", "<annotation>", advice)
    names = [thing.findtext("name", "").strip() for thing in root.findall("object")]
    if "" in names:
        arrived = f"object {names.index('') + 1} has no name"
        _refuse(path, arrived, "a class in each", advice)
    return names


def _voc_samples(
    folder: Path, keys: Iterable[str], indices: Mapping[str, int]
) -> Iterator[tuple[Path, int]]:
    """Give the path and index of each image with one object that has an index."""
    for key in keys:
        names = _voc_objects(folder / "Annotations" / f"{key}.xml")
        wanted = [indices[name] for name in names if name in indices]
        if len(wanted) == 1:
            yield folder / "JPEGImages" / f"{key}.jpg", wanted[0]


class VOCFilteredDataset(Dataset[tuple[Any, int]]):
    """Images of Pascal VOC with one object of a wanted class, and its class index.

    Gives (image, index) for each image with exactly one object whose class is in
    `class_mapping`. Objects of other classes do not count: a dog beside a person is
    one dog where only "dog" is mapped; two dogs, or a dog and a cat with both mapped,
    are left out. Objects marked difficult count, parts of objects do not.

    root: the folder with VOCdevkit/VOC2012, as torchvision lays it out, or VOCdevkit
    itself; in VOC2012 are JPEGImages, Annotations and ImageSets/Main. image_set: a list
    in ImageSets/Main, as "train", "val" or "trainval". class_mapping: VOC class to
    class index, an int from 0 up; or VOC class to another name, and then the index is
    the name's place in `classes`, sorted (empty with ints). transform: takes the RGB
    picture. `samples` lists (path, index).

    The annotations are read once, here; a picture is opened when it is asked for.
    Raises ValueError for a mapping that is none or names a class that VOC lacks, for
    broken annotations and for a set without such an image, FileNotFoundError for what
    is missing. (notebook 06; http://host.robots.ox.ac.uk/pascal/VOC/)
    """

    def __init__(
        self,
        root: Path | str,
        year: str | int,
        image_set: str,
        class_mapping: Mapping[str, int | str],
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        self.classes, indices = _voc_indices(class_mapping)
        self.transform = transform
        folder = _voc_folder(Path(root), year)
        listed = _voc_image_set(folder, image_set)
        lines = listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        keys = [line.split()[0] for line in lines if line.strip()]
        self.samples = list(_voc_samples(folder, keys, indices))
        if not self.samples:
            _refuse(
                listed,
                f"none of {len(keys)} images qualifies",
                f"some with exactly one of {', '.join(class_mapping)}",
                "map other classes, or fewer",
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, class_index = self.samples[index]
        image = load_image(path)
        if self.transform is not None:
            image = self.transform(image)
        return image, class_index


# Roads with marked lanes, with several a direction, and without marks.
ROAD_CATEGORIES = ("um", "umm", "uu")
# What can be found on them; where the own lane is, is known of "um" alone.
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
    `read_road`. Raises ValueError for another target and for a category without a
    picture, and what `find_pairs` raises.
    (notebook 07; https://www.cvlibs.net/datasets/kitti/eval_road.php)
    """

    def __init__(
        self,
        root: Path | str,
        transform: PairTransform | None = None,
        target: str = "road",
        *,
        cache: bool = False,
    ) -> None:
        if target not in ROAD_PATTERNS:
            raise ValueError(
                f"target {target!r}: expected one of {', '.join(ROAD_PATTERNS)}"
            )
        training = Path(root) / "training"
        folder = training if training.is_dir() else Path(root)
        pairs = find_pairs(folder, ROAD_PATTERNS[target])
        if target == "road":
            _refuse_missing_category(folder, pairs)
        super().__init__(pairs, transform, read_target=read_road, cache=cache)


def _refuse_missing_category(folder: Path, pairs: Sequence[Pair]) -> None:
    found = {image.name.partition("_")[0] for image, _ in pairs}
    missing = [name for name in ROAD_CATEGORIES if name not in found]
    if missing:
        _refuse(
            folder,
            f"no picture of category {', '.join(missing)}",
            f"the whole road kit, with {', '.join(ROAD_CATEGORIES)}",
            "unpack it again, or for a part of it: UIImageMaskDataset(training, "
            'patterns=ROAD_PATTERNS["road"], read_target=read_road)',
        )


# --------------------------------------------------------------------------------------
# 9. Tiles: windows of pictures too big to open. (notebook 09)
# --------------------------------------------------------------------------------------

Region = tuple[int, int, int, int]  # y0, x0, y1, x1
EDGES = ("shift", "pad")
WEIGHTS = ("smooth", "constant", "centre")


class Tile(NamedTuple):
    """A window: the number of its picture, its upper left corner and its size."""

    picture: int
    y: int
    x: int
    height: int
    width: int


class _Source:
    """An image (H, W, 3), or a mask (H, W), that is read window by window.

    given: anything with `shape` and windows `[y0:y1, x0:x1]`, or a function that opens
    it. ignore: of a mask, the id of what a masked array hides; None for an image.
    """

    def __init__(self, name: str, given: Any, ignore: int | None = None) -> None:
        self.name, self.given, self.ignore = name, given, ignore
        opens = callable(given) and not hasattr(given, "shape")
        self.pixels, self.process = given() if opens else given, os.getpid()
        shape = tuple(getattr(self.pixels, "shape", ()))
        channels = (3,) if ignore is None else ()
        if len(shape) < 2 or shape[2:] != channels or 0 in shape:
            arrived = f"a {type(self.pixels).__name__} of shape {shape}"
            expected = "shape (H, W, 3)" if channels else "shape (H, W)"
            _refuse(
                name, arrived, expected, "give an array or a function that opens it"
            )
        self.size: tuple[int, int] = shape[:2]
        self.read(0, 0, 1, 1)

    def read(self, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        """Read a window: uint8 (y1 - y0, x1 - x0, 3), or without the 3 of a mask."""
        in_memory = isinstance(self.pixels, np.ndarray | torch.Tensor)
        if os.getpid() != self.process and not in_memory:
            # Forked processes share an open file, and move each other's place in it.
            vars(self).update(vars(_Source(*self.__reduce__()[1])))
        window, is_mask = self.pixels[y0:y1, x0:x1], self.ignore is not None
        if np.ma.is_masked(window):
            if not is_mask:
                _refuse(self.name, "masked pixels", "none in an image", "fill them")
            window = np.where(window.mask, self.ignore, window.data)
        window, shape = np.asarray(window), (y1 - y0, x1 - x0, *self.pixels.shape[2:])
        fits = window.dtype.kind in "bui" if is_mask else window.dtype == np.uint8
        if window.shape != shape or not fits or window.min() < 0 or window.max() > 255:
            found = f"values {np.unique(window)[:8].tolist()} at {(y0, x0)}"
            expected = f"{'whole numbers 0 to 255' if is_mask else 'uint8'} {shape}"
            arrived = f"{window.dtype} {window.shape}, {found}"
            _refuse(
                self.name, arrived, expected, "scale and round; has the file changed?"
            )
        return window.astype(np.uint8, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process; a memory map goes by the name of its file."""
        given, root = self.given, None
        base = given if type(given) in (np.ndarray, np.memmap) else None
        while isinstance(base, np.ndarray):
            root, base = base if isinstance(base, np.memmap) else root, base.base
        if root is not None and root.filename is not None and root.mode != "c":
            start = root.offset + given.ctypes.data - root.ctypes.data
            view = given.shape, given.dtype, start, given.strides
            given = partial(_map_file, root.filename, *view)
        elif given is self.pixels and not isinstance(given, np.ndarray | torch.Tensor):
            try:
                given = partial(pickle.loads, pickle.dumps(given))
            except Exception as error:
                raise ValueError(
                    f"{self.name}: a {type(given).__name__} that no other process can "
                    f"open ({error}); expected an array, a memory map or a function; "
                    "open it in the worker: give partial(open_tiff, path)"
                ) from error
        return _Source, (self.name, given, self.ignore)


def _map_file(
    path: str, shape: Any, dtype: Any, start: int, strides: Any
) -> np.ndarray:
    return np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r"), start, strides)


def _tile_origins(length: int, tile: int, stride: int) -> range:
    """Give where tiles begin that cover a length; the last one may stick out."""
    return range(0, stride * math.ceil(max(length - tile, 0) / stride) + 1, stride)


class TileDataset(Dataset[Sample]):
    """Tiles that cover every pixel of one picture or of several, in reading order.

    image: uint8 (H, W, 3) as an array, a memory map, anything else with `shape` and
    windows `[y0:y1, x0:x1]`, a function that opens one, or a list of these; only
    windows are ever read. target: masks (H, W) for them, cut by the same window: 0, 1
    or 255 for foreground, `ignore` where nobody knows; with num_classes, class ids and
    255. What a masked array hides is ignored; in an image it is refused. None: all is
    ignored. tile_size, stride (default: tile_size): pixels, or (height, width). edge:
    the last tile of a row or column is moved inwards ("shift"), or filled with black,
    ignored ("pad"). region: (y0, x0, y1, x1) to stay in, for all pictures or a list.

    A sample is what `transform(image, target)` makes of pictures, by default tensors as
    of ImageTargetToTensor. Forked workers share arrays. Otherwise each worker maps the
    file of a memory map, calls a function again, and gets anything else by pickle; what
    cannot be pickled (zarr over TIFF, h5py) must come as a function. Raises ValueError
    for what does not fit together. (notebook 09)
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
        if self.stride[0] > self.height or self.stride[1] > self.width:
            expected = f"at most the tile_size {tile_size}"
            _refuse("stride", str(stride), expected, "pixels between are never seen")
        _check_choice("edge", edge, EDGES)
        _check_number("ignore", ignore, 0, 255)
        if num_classes is not None:
            _check_number("num_classes", num_classes, 1, IGNORE_INDEX)
        self.transform, self.edge, self.num_classes = transform, edge, num_classes
        self.ignore = ignore if num_classes is None else IGNORE_INDEX
        several = isinstance(image, list | tuple)
        images = list(image) if several else [image]
        targets = list(target) if isinstance(target, list | tuple) else [target]
        targets = [None] * len(images) if target is None else targets
        regions = list(region) if np.ndim(region) > 1 else [region] * len(images)
        if not images or not len(images) == len(targets) == len(regions):
            arrived = f"{len(images)}, {len(targets)} targets, {len(regions)} regions"
            _refuse("images", arrived, "one or more, as many of each", "give lists")
        self._sources: list[tuple[_Source, _Source]] = []  # image and target
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
            y0, x0, y1, x1 = regions[number] or (0, 0, *size)
            if not (0 <= y0 < y1 <= size[0] and 0 <= x0 < x1 <= size[1]):
                expected = "(y0, x0, y1, x1)"
                _refuse("region", str(regions[number]), expected, f"inside {its}")
            if edge == "shift" and (y1 - y0 < self.height or x1 - x0 < self.width):
                expected = f"at most the region {(y1 - y0, x1 - x0)} of {its}"
                advice = 'cut smaller tiles, or edge="pad" in TileDataset'
                _refuse("tile_size", str(tile_size), expected, advice)
            self._sources.append((picture, mask))
            self.regions.append((y0, x0, y1, x1))
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
        tile, binary = self.locate(index), self.num_classes is None
        name, mask = self._sources[tile.picture][1].name, self._read(tile, is_mask=True)
        ids = torch.from_numpy(mask)
        if binary:
            counts = np.bincount(mask.ravel(), minlength=256)
            counts[self.ignore] = 0
            found = np.flatnonzero(counts).tolist()
            if not set(found) <= {0, 1, 255} or {1, 255} <= set(found):
                known = f"0 and 1, or 0 and 255, and {self.ignore} for ignored"
                advice = "name what is ignored, or num_classes for class ids"
                _refuse(name, f"values {found[:8]}", known, advice)
            ids = torch.where(ids == self.ignore, IGNORE_INDEX, ids.sign())
        else:
            _check_class_ids(name, ids, self.num_classes, IGNORE_INDEX)
        pixels = self._read(tile, is_mask=False)
        if self.transform is None:
            image = torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)
            return Sample(image, ids[None].float() if binary else ids.long())
        greys = np.array([0, 255, *[IGNORE_GREY] * 254], np.uint8)
        target = Image.fromarray(greys[ids.numpy()] if binary else mask)
        if not binary:
            target.putpalette(np.array(CLASS_COLOURS, np.uint8).tobytes())
        return Sample(*self.transform(Image.fromarray(pixels), target))

    def _read(self, tile: Tile, is_mask: bool) -> np.ndarray:
        """Read a tile; what of it lies beyond its region is black, or ignored."""
        _, _, foot, right = self.regions[tile.picture]
        y1, x1 = min(tile.y + tile.height, foot), min(tile.x + tile.width, right)
        source = self._sources[tile.picture][is_mask]
        window = source.read(tile.y, tile.x, y1, x1)
        below, beside = tile.height - len(window), tile.width - len(window[0])
        margins = [(0, below), (0, beside), (0, 0)][: window.ndim]
        return np.pad(window, margins, constant_values=source.ignore or 0)


class RandomTileDataset(TileDataset):
    """Tiles at random places, `num_samples` an epoch, new ones in each epoch.

    A picture is drawn by its area, and each place in it is as likely as any other.
    image, target, tile_size, transform, and as options region, num_classes, ignore: as
    in TileDataset. skip_empty: share of the samples, 0..1 (True: all), that are drawn
    again, up to `tries` times, until there is foreground in them.

    Which tile it is depends on seed, the index and how often that index was drawn,
    which all worker processes count together: the same seed gives the same epochs,
    whatever the loader. `set_epoch` sets the count, to resume a run, after an epoch
    that was broken off, or where several processes train together. (notebook 09)
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
        tries: int = 20,
        **options: Any,
    ) -> None:
        super().__init__(
            image, target, tile_size, None, transform, edge="shift", **options
        )
        for name, value in {"num_samples": num_samples, "tries": tries}.items():
            _check_number(name, value, 1)
        _check_number("seed", seed, 0)
        _check_number("skip_empty", skip_empty * 1, 0, 1, whole=False)  # True is 1
        if skip_empty and target is None:
            raise ValueError("skip_empty without a target: nobody knows what is empty")
        self.seed, self.skip_empty, self.tries = seed, skip_empty, tries
        areas = ((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in self.regions)
        self._area_ends = list(itertools.accumulate(areas))
        # In memory that worker processes share, however they start.
        self._draws = torch.zeros(num_samples, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._draws)

    def set_epoch(self, epoch: int) -> None:
        """Go on with the tiles of an epoch; the first is 0."""
        _check_number("epoch", epoch, 0)
        self._draws.fill_(epoch)

    def locate(self, index: int, epoch: int | None = None) -> Tile:
        """Tell which tile an index is in an epoch (default: when it is next drawn)."""
        index = range(len(self))[index]
        epoch = int(self._draws[index]) if epoch is None else epoch
        rng = np.random.default_rng((self.seed, epoch, index))
        tries = self.tries if rng.random() < self.skip_empty else 1
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
    height: int,
    width: int,
    val_share: float = 0.2,
    gap: int = 0,
    *,
    axis: int | None = None,
) -> tuple[Region, Region]:
    """Split a picture across one side: regions to train in and to validate in.

    gap: pixels between them that neither sees, at least the `receptive_field`.
    val_share: of what the gap leaves, 0..1. axis: the side that is cut, 0 the height
    (validation is below), 1 the width (on the right); by default the longer, of a
    square the height. (notebook 09)
    """
    _check_number("val_share", val_share, 0, 1, whole=False)
    _check_number("gap", gap, 0)
    _check_choice("axis", axis, (None, 0, 1))
    axis = int(width > height) if axis is None else axis
    length = (height, width)[axis] - gap
    end = length - round(length * val_share)
    if not 0 < end < length:
        arrived = f"{height} x {width} pixels, val_share {val_share}, gap {gap}"
        _refuse("regions", arrived, "something left for each", "make the gap smaller")
    if axis == 0:
        return (0, 0, end, width), (end + gap, 0, height, width)
    return (0, 0, height, end), (0, end + gap, height, width)


@torch.inference_mode()
def receptive_field(network: nn.Module, size: int = 256) -> int:
    """Measure the side of the square, in pixels, that one logit depends on.

    One pixel is set to NaN, which spreads to all that is computed from it; at 32 places
    in turn, as pooling looks farther from some. Raises ValueError where that reaches
    the border of a picture of `size`, as it does where a network normalises each image.
    (notebook 09)
    """
    _check_number("size", size, 64)
    reach, image = 0, torch.zeros(1, 3, size, size)
    image = image.to(next(network.parameters(), image).device)
    with _evaluating(network):
        for place in range(size // 2 - 16, size // 2 + 16):
            image.zero_()[..., place, place] = torch.nan
            reached = network(image)[0].isnan().any(dim=0).nonzero()
            low, high = (int(end) for end in reached.aminmax())
            if low == 0 or high == size - 1:
                expected = "a network that sees less, such as UNet(normalize=False)"
                _refuse(
                    f"size {size}", "all of it is seen", expected, "or a larger size"
                )
            reach = max(reach, place - low, high - place)
    return 2 * reach + 1


def _axis_weights(
    length: int, tile: int, overlap: int, weights: str
) -> tuple[list[int], torch.Tensor]:
    """Give where windows begin along an axis, and their weights, float32 (n, tile).

    At every pixel the weights sum to 1. As windows form a grid, so do the products of
    two axes, and nothing need be divided afterwards.
    """
    origins = _tile_origins(length, tile, max(tile - overlap, 1))
    starts = np.minimum(origins, length - tile)[:, None]
    inside = np.arange(tile)
    # Pixels to the nearest end of the window that is not an end of the picture.
    before = np.where(starts == 0, tile, inside + 1)
    after = np.where(starts + tile == length, tile, tile - inside)
    depth = np.minimum(before, after)
    deepest, total = np.zeros((2, length), np.int64)
    np.maximum.at(deepest, starts + inside, depth)
    shares = {
        "smooth": np.minimum(depth, overlap + 1),
        "constant": np.ones_like(depth),
        "centre": (depth == deepest[starts + inside]).astype(int),
    }[weights]
    np.add.at(total, starts + inside, shares)
    shares = torch.from_numpy(shares / total[starts + inside])
    return starts[:, 0].tolist(), shares.float()


def _read_windows(
    source: _Source, axes: Sequence[tuple[list[int], torch.Tensor]], batch_size: int
) -> Iterator[tuple[int, list[int], np.ndarray, torch.Tensor]]:
    """Read windows in batches of one row: y, each x, uint8 (B, h, w, 3), weights."""
    (ys, down), (xs, across) = axes
    (height, width), tile = source.size, (down.shape[1], across.shape[1])
    for y, weights in zip(ys, down, strict=True):
        strip = source.read(y, 0, min(y + tile[0], height), width)
        margins = (0, tile[0] - len(strip)), (0, xs[-1] + tile[1] - width), (0, 0)
        strip = np.pad(strip, margins, "edge")
        for first in range(0, len(xs), batch_size):
            some = slice(first, first + batch_size)
            pixels = np.stack([strip[:, x : x + tile[1]] for x in xs[some]])
            yield y, xs[some], pixels, weights[:, None] * across[some, None]


@contextlib.contextmanager
def _normalizing_over(
    windows: Callable[[], Iterable[tuple[int, list[int], np.ndarray, torch.Tensor]]],
    predict: Callable[[np.ndarray], torch.Tensor],
    layers: Sequence[nn.Module],
) -> Iterator[None]:
    """Let layers that normalise each image use mean and variance over all windows.

    These depend on the layers before, so one layer after the other is measured, each by
    a pass that ends at the layer. Every pixel of the picture counts once.
    """
    known: dict[nn.Module, torch.Tensor] = {}

    class Reached(Exception):
        """Ends a forward pass at the first layer that is not known yet."""

    def normalize(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if layer not in known:
            raise Reached(layer, x.cpu().double())
        scale = {"weight": layer.weight, "bias": layer.bias, "eps": layer.eps}
        return F.batch_norm(x, *known[layer].to(x), **scale)

    try:
        for layer in layers:
            layer.forward = partial(normalize, layer)
        for _ in layers:
            sums, measured = torch.zeros(3, 1), None
            for *_, pixels, weights in windows():
                try:
                    predict(pixels)
                except Reached as reached:
                    measured, x = reached.args
                    share = F.adaptive_avg_pool2d(weights, x.shape[2:]).double()
                    powers = [
                        torch.einsum("bhw,bchw->c", share, x**p) for p in range(3)
                    ]
                    sums = sums + torch.stack(powers)
            if measured is None:
                break
            groups = getattr(measured, "num_groups", sums.shape[1])
            mean, square = (sums[1:] / sums[0]).view(2, groups, -1).mean(dim=2)
            moments = torch.stack([mean, square - mean**2]).float()
            known[measured] = moments.repeat_interleave(sums.shape[1] // groups, dim=1)
        yield
    finally:
        for layer in layers:
            del layer.forward


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
    activation: str = "auto",
    normalize_over: str = "picture",
    progress: bool = False,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Predict a picture of any size by overlapping windows: probabilities (K, H, W).

    image: uint8 (H, W, 3), as in TileDataset; a row of windows is read at a time, the
    last moved inwards; a picture smaller than a tile is padded with its edge. out:
    float32 (K, H, W), an array or a memory map, to write into. device: where to compute
    (default: where the model is). activation: "sigmoid", "softmax" or "none"; "auto" is
    what the model's task says, or sigmoid for one class and softmax for more.

    weights: how windows share the pixels where they overlap. "smooth": less towards
    their borders; "constant": equally; "centre": each pixel from the window that it is
    deepest in, which is what the whole picture would give if half the overlap covers
    the `receptive_field`'s reach and windows begin where pooling does. normalize_over:
    layers that normalise each image (UNet's, GroupNorm, InstanceNorm2d) do it over the
    "picture", as if that were predicted whole: mean and variance are measured first, in
    more than twice the time of the rest. Or over each "tile", as training on tiles did.
    Warns of layers that pool or attend over a whole tile. Raises ValueError. (notebook
    09)
    """
    source, sides = _Source("image", image), _check_size("tile_size", tile_size)
    _check_number("overlap", overlap, 0, min(sides) - 1)
    _check_number("batch_size", batch_size, 1)
    _check_choice("weights", weights, WEIGHTS)
    _check_choice("normalize_over", normalize_over, ("picture", "tile"))
    activations = {
        "auto": getattr(getattr(model, "task", None), "probabilities", None),
        "sigmoid": torch.sigmoid,
        "softmax": partial(torch.softmax, dim=1),
        "none": torch.Tensor.float,
    }
    _check_choice("activation", activation, activations)
    fits = isinstance(out, np.ndarray) and out.flags.writeable
    if out is not None and not (
        fits and (out.dtype, out.shape[1:]) == (np.float32, source.size)
    ):
        arrived = f"a {type(out).__name__} {getattr(out, 'dtype', '')} {np.shape(out)}"
        expected = "an array float32 (K, {}, {})".format(*source.size)
        _refuse("out", arrived, expected, "that can be written into")
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    if any(isinstance(p, nn.AdaptiveAvgPool2d | nn.MultiheadAttention) for p in parts):
        text = "the model pools or attends over a whole tile, not over the picture"
        warnings.warn(text, stacklevel=3)
    # The picture is padded as UNet pads it whole, and to the size of a tile.
    cell = next((part.multiple for part in parts if hasattr(part, "multiple")), 0)
    padded = [
        -(-length // cell) * cell if 0 < cell <= side else max(length, side)
        for length, side in zip(source.size, sides, strict=True)
    ]
    axes, centre = (
        [
            _axis_weights(length, min(side, length), overlap, kind)
            for length, side in zip(padded, sides, strict=True)
        ]
        for kind in (weights, "centre")
    )
    tiles = len(axes[0][0]) * len(axes[1][0])
    norms = nn.GroupNorm | nn.InstanceNorm2d | nn.BatchNorm2d
    layers = [part for part in parts if isinstance(part, norms)]
    layers = [part for part in layers if getattr(part, "running_mean", None) is None]
    if normalize_over == "tile" or tiles == 1:
        layers = []
    like = next(model.parameters(), torch.empty(0)) if parts else torch.empty(0)
    total = tiles * (1 + len(layers))
    bar = tqdm(total=total, unit="tile", disable=not progress)

    def predict(pixels: np.ndarray) -> torch.Tensor:
        """Predict windows, uint8 (B, h, w, 3): float32 (B, K, h, w) on the CPU."""
        bar.update(len(pixels))
        batch = torch.from_numpy(pixels).to(device or like.device).permute(0, 3, 1, 2)
        logits = model(batch.float().div_(255).to(like.dtype))  # channels last
        shape = tuple(getattr(logits, "shape", ()))
        if len(shape) != 4 or (shape[0], *shape[2:]) != pixels.shape[:3]:
            arrived = f"gave a {type(logits).__name__} {shape} for {tuple(batch.shape)}"
            _refuse("the model", arrived, "logits (B, K, H, W)", "of its B, H and W")
        default = "softmax" if shape[1] > 1 else "sigmoid"
        return (activations[activation] or activations[default])(logits.float()).cpu()

    read = partial(_read_windows, source, batch_size=batch_size)
    with (
        bar,
        _evaluating(model),
        _normalizing_over(partial(read, axes=centre), predict, layers),
    ):
        for y, xs, pixels, shares in read(axes=axes):
            windows = predict(pixels)
            if out is None:
                out = np.empty((windows.shape[1], *source.size), np.float32)
            if len(out) != windows.shape[1]:
                expected = f"{windows.shape[1]}, the classes of the model"
                _refuse("out", f"K of {len(out)}", expected, "make it anew")
            if y == xs[0] == 0:
                out[:] = 0
            for x, window, share in zip(xs, windows, shares, strict=True):
                part = out[:, y : y + len(share), x : x + len(share[0])]
                part += (window * share)[:, : part.shape[1], : part.shape[2]].numpy()
                if activation != "none":  # weights sum to 1 but for rounding
                    np.minimum(part, 1, out=part)
    return out


# --------------------------------------------------------------------------------------
# 10. Lightning system and data module: the training loop, bought. (notebook 04)
# --------------------------------------------------------------------------------------

# Imported here and not above: what stands before this section runs without Lightning.
import pytorch_lightning as pl  # noqa: E402
from pytorch_lightning.plugins.io import TorchCheckpointIO  # noqa: E402
from pytorch_lightning.utilities.exceptions import (  # noqa: E402
    MisconfigurationException,
)

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "bce": bce_loss,
    "bce_dice": bce_dice_loss,
}


@dataclass(frozen=True)
class Task:
    """What a kind of target needs for itself; all else is the same for every kind.

    Logits are (B, K, H, W), and targets a batch of what they are for that kind; only
    `decide` and `paint` see one image.
    """

    predict: str  # the method that shows what the network finds
    loss: Callable[..., torch.Tensor]  # of logits, targets and the hyperparameters
    probabilities: Callable[[torch.Tensor], torch.Tensor]  # of logits
    count: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits, targets
    score: Callable[[torch.Tensor], torch.Tensor]  # of summed counts, 0..1
    start: Callable[[UNet, Sequence[torch.Tensor]], None]  # sets the head's bias
    decide: Callable[[torch.Tensor], torch.Tensor]  # logits (K, H, W) to a prediction
    paint: Callable[[torch.Tensor], torch.Tensor]  # prediction or target, to be shown


def _mask_loss(
    logits: torch.Tensor, targets: torch.Tensor, settings: Any
) -> torch.Tensor:
    return LOSSES[settings.loss](logits, targets, settings.pos_weight)


def _class_loss(
    logits: torch.Tensor, targets: torch.Tensor, settings: Any
) -> torch.Tensor:
    return cross_entropy_loss(logits, targets, settings.class_weights)


def _count_masks(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return iou_counts(logits > 0, targets)


def _count_classes(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return confusion_matrix(logits.argmax(dim=1), targets, logits.shape[1])


def _start_at_foreground(network: UNet, targets: Sequence[torch.Tensor]) -> None:
    """Start at each mask's share of foreground, refusing what was not divided."""
    for target in targets:
        if target.ndim != 3 or len(target) != network.num_out_channels:
            raise ValueError(
                f"training target {tuple(target.shape)}: expected masks "
                f"({network.num_out_channels}, H, W), one per output of the network; "
                'class ids (H, W) need task="multiclass"'
            )
    if foreground_share(targets) == 0:
        _refuse_nothing_but_ignored(
            targets,
            "no training target has a pixel of 1",
            "masks of 0/255 must be divided by 255, empty ones left out",
        )
    network.set_foreground_share(
        [
            foreground_share(target[number] for target in targets)
            for number in range(network.num_out_channels)
        ]
    )


def _start_at_classes(network: UNet, targets: Sequence[torch.Tensor]) -> None:
    """Start at the share of each class, refusing masks of 0 and 255."""
    for target in targets:
        if target.ndim != 2 or target.dtype != torch.int64:
            raise ValueError(
                f"training target of {target.dtype} {tuple(target.shape)}: expected "
                'class ids, int64 (H, W), as of load_classes; masks need task="binary"'
            )
    shares = shares_of_classes(targets, network.num_out_channels)
    if shares[1:].sum() == 0:
        _refuse_nothing_but_ignored(
            targets,
            "no training target has a class but 0",
            'masks of 0/255 are for load_mask and task="binary"',
        )
    network.set_class_shares(shares.tolist())


def _refuse_nothing_but_ignored(
    targets: Sequence[torch.Tensor], what: str, advice: str
) -> None:
    if any((target == IGNORE_INDEX).any() for target in targets):
        raise ValueError(f"{what}, but some have 255, which means ignored; {advice}")


def _paint_masks(masks: torch.Tensor) -> torch.Tensor:
    """Give each pixel of (K, H, W) the last mask that it is in, as an id from 1 up."""
    numbers = torch.arange(1, len(masks) + 1, device=masks.device).view(-1, 1, 1)
    ids = ((masks == 1) * numbers).amax(dim=0)
    return torch.where((masks == IGNORE_INDEX).all(dim=0), IGNORE_INDEX, ids)


_BINARY = Task(
    predict="predict_mask",
    loss=_mask_loss,
    probabilities=torch.sigmoid,
    count=_count_masks,
    score=iou_of,
    start=_start_at_foreground,
    decide=partial(torch.gt, other=0),
    paint=partial(torch.eq, other=1),
)
TASKS = {
    "binary": _BINARY,
    "multilabel": replace(_BINARY, predict="predict_masks", paint=_paint_masks),
    "multiclass": Task(
        predict="predict_classes",
        loss=_class_loss,
        probabilities=partial(torch.softmax, dim=1),
        count=_count_classes,
        score=mean_iou,
        start=_start_at_classes,
        decide=partial(torch.argmax, dim=0),
        paint=torch.clone,
    ),
}


def quiet_lightning() -> None:
    """Silence what Lightning says about the machine and about small data."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")


class UISegmentationData(pl.LightningDataModule):
    """The pairs of a folder as batches, for training and for validation.

    image_size: (height, width), or one number for both, that all are scaled to.
    overfit_num: train on that many samples of the first pair, and validate on the same
    pair, which says nothing about new pictures. Otherwise `val_share` of the pairs,
    drawn by `seed`, is kept for validation; `scenes` says which scene an image (by file
    name) shows, and no scene is then on both sides. augment: a paired transform for the
    scaled training pictures. patterns, read_target: see `find_pairs`, `PairDataset`;
    `load_classes` as read_target gives class ids, `load_masks` overlapping masks.
    Raises ValueError if a set would be empty or a batch larger than the data.
    (notebooks 04, 05)
    """

    def __init__(
        self,
        data_dir: Path | str,
        batch_size: int = 4,
        image_size: int | tuple[int, int] = (256, 256),
        overfit_num: int = 0,
        *,
        val_share: float = 0.2,
        scenes: Mapping[str, str] | None = None,
        augment: PairTransform | None = None,
        patterns: tuple[str, str] | None = None,
        read_target: ReadTarget = load_mask,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _need_at_least("batch_size", batch_size, 1)
        _need_at_least("overfit_num", overfit_num, 0)
        _need_at_least("num_workers", num_workers, 0)
        _check_share("val_share", val_share)
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.overfit_num = overfit_num
        self.val_share = val_share
        self.scenes = scenes
        self.patterns = patterns
        self.read_target = read_target
        self.num_workers = num_workers
        self.seed = seed
        self.image_size = _height_width(image_size)
        resize, to_tensor = ImageTargetResize(self.image_size), ImageTargetToTensor()
        self.transform = ImageTargetCompose([resize, to_tensor])
        self.train_transform = self.transform
        if augment is not None:
            self.train_transform = ImageTargetCompose([resize, augment, to_tensor])

    def setup(self, stage: str | None = None) -> None:
        """Open the two parts; runs in every process."""
        train, val = self.split(self.trainer.world_size if self.trainer else 1)
        self.train_set = self._dataset(train, self.train_transform)
        self.val_set = self._dataset(val, self.transform)

    def split(self, num_processes: int = 1) -> tuple[list[Pair], list[Pair]]:
        """List the pairs to train and to validate on.

        Raises ValueError if a process would not get one whole batch.
        """
        pairs = find_pairs(self.data_dir, self.patterns)
        if self.overfit_num:
            train, val = pairs[:1] * self.overfit_num, pairs[:1]
        else:
            train, val = self._split(pairs)
        if len(train) < self.batch_size * num_processes:
            each = f" for each of {num_processes} processes" * (num_processes > 1)
            raise ValueError(
                f"batch_size {self.batch_size}: there are only {len(train)} training "
                f"samples, so not one whole batch{each}; expected a smaller batch or "
                "more data"
            )
        return train, val

    def _dataset(self, pairs: list[Pair], transform: PairTransform) -> PairDataset:
        return PairDataset(pairs, transform, read_target=self.read_target, cache=True)

    def _split(self, pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
        if len(pairs) < 2:
            raise ValueError(
                f"{self.data_dir}: {len(pairs)} pairs; expected at least 2, one to "
                "train on and one to validate, or overfit_num"
            )
        groups = [self._scene_of(image) for image, _ in pairs]
        parts = group_split(groups, self.val_share, self.seed)
        train, val = ([pairs[i] for i in part] for part in parts)
        return train, val

    def _scene_of(self, image: Path) -> str:
        """Say which scene an image shows; without scenes each is its own."""
        if self.scenes is None:
            return str(image)
        scene = _scene_of(image.relative_to(self.data_dir).as_posix(), self.scenes)
        if scene is None:
            raise ValueError(
                f"{image}: has no scene; expected one for every image, by file name"
            )
        return scene

    def train_dataloader(self) -> DataLoader:
        """Shuffled whole batches of samples, all of one size, as `Sample` has them."""
        return self._loader(self.train_set, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """All of the validation set, in order."""
        return self._loader(self.val_set)

    def _loader(self, dataset: PairDataset, **options: bool) -> DataLoader:
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=self.num_workers,  # new ones each epoch, so a resume repeats
            **options,
        )


def _sound_targets(samples: Iterable[Sample]) -> list[torch.Tensor]:
    """List the targets of training samples, refusing what cannot be learnt from."""
    targets = []
    for image, target in samples:
        if not isinstance(image, torch.Tensor) or not isinstance(target, torch.Tensor):
            raise ValueError(
                f"training samples hold {type(image).__name__} and "
                f"{type(target).__name__}: expected tensors; add ImageTargetToTensor"
            )
        if image.max() > 16:
            raise ValueError(
                f"training images reach {image.max():g}: expected 0..1; divide by 255"
            )
        targets.append(target)
    return targets


def _check_task(
    task: str,
    num_out_channels: int,
    loss: str,
    pos_weight: float | None,
    class_weights: Sequence[float] | None,
) -> None:
    """Refuse settings that do not go together."""
    if task not in TASKS:
        raise ValueError(
            f"task {task!r}: expected one of {', '.join(TASKS)}"
            f"{_nearest(str(task), TASKS)}"
        )
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r}: expected one of {', '.join(LOSSES)}")
    if task == "binary" and num_out_channels != 1:
        raise ValueError(
            f'num_out_channels {num_out_channels} with task "binary": expected 1; '
            'several classes need task="multiclass", or "multilabel" if they overlap'
        )
    if task == "multiclass":
        if not 2 <= num_out_channels <= IGNORE_INDEX:
            raise ValueError(
                f'num_out_channels {num_out_channels} with task "multiclass": expected '
                f"2 to {IGNORE_INDEX}, one per class, background too"
            )
        if loss != "bce" or pos_weight is not None:
            raise ValueError(
                f'loss {loss!r} and pos_weight {pos_weight} with task "multiclass": '
                "its loss is cross entropy; expected neither, see class_weights"
            )
    if class_weights is not None:
        if task != "multiclass":
            raise ValueError(
                f'class_weights with task "{task}": expected none; see pos_weight'
            )
        _checked_weights(class_weights, torch.empty(1, num_out_channels))


class UISegmentationSystem(pl.LightningModule):
    """A UNet and how it is trained: loss, scores, optimiser and schedule.

    learning_rate: the peak of the OneCycle schedule, which starts at a tenth, peaks
    after 30 % of the steps and ends at a thousandth. image_size: (height, width) to
    predict at; by default that of the `UISegmentationData` it is trained with, and
    without such data each picture's own. network: settings of `UNet`.

    task: what targets are. "binary": one mask (1, H, W). "multilabel": K masks that may
    overlap, (K, H, W). "multiclass": class ids (H, W), each pixel of one class. The
    network then needs num_out_channels=K. loss: "bce" or "bce_dice", and pos_weight,
    are for masks; classes have cross entropy, with class_weights. Logs train_loss,
    val_loss and val_iou: of all pixels and masks together, or the mean over the classes
    of their IoU of all pixels. (notebooks 04, 08)
    """

    def __init__(
        self,
        learning_rate: float = 3e-3,
        max_features: int = 256,
        *,
        task: str = "binary",
        loss: str = "bce",
        pos_weight: float | None = None,
        class_weights: Sequence[float] | None = None,
        image_size: int | tuple[int, int] | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        num_out_channels = network.get("num_out_channels", 1)
        _check_task(task, num_out_channels, loss, pos_weight, class_weights)
        if class_weights is not None:  # plain numbers, for the checkpoint
            class_weights = [float(weight) for weight in class_weights]
        self.save_hyperparameters()
        self.network = UNet(max_features=max_features, **network)

    @property
    def task(self) -> Task:
        """What the kind of target needs."""
        return TASKS[self.hparams.task]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Measure how wrong logits (B, K, H, W) are; targets as the task has them."""
        return self.task.loss(logits, targets, self.hparams)

    def score(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Measure how right logits are, 0..1, as val_iou does."""
        return self.task.score(self.task.count(logits, targets))

    def on_fit_start(self) -> None:
        """Predict, unless told otherwise, at the size that is trained at."""
        data = self.trainer.datamodule
        if self.hparams.image_size is None and isinstance(data, UISegmentationData):
            self.hparams.image_size = data.image_size

    def on_train_start(self) -> None:
        """Start at the data's share of each class; a resumed run has learnt it."""
        self._check_schedule()
        if self.trainer.ckpt_path is None and self.trainer.global_step == 0:
            samples = itertools.islice(self.trainer.train_dataloader.dataset, 100)
            targets = _sound_targets(samples)
            if not self.network.head.bias.any():  # zero only before any training
                self.task.start(self.network, targets)

    def _check_schedule(self) -> None:
        """Refuse to go on with another number of steps than the schedule was made for.

        OneCycle ends at its last step; what a checkpoint holds cannot be stretched.
        """
        schedule = self.lr_schedulers()
        planned = getattr(schedule, "total_steps", None)
        steps = int(self.trainer.estimated_stepping_batches)
        if planned not in (None, steps):
            raise ValueError(
                f"the checkpoint was to train for {planned} steps, the Trainer for "
                f"{steps}; expected the same max_epochs, data and batch size; for more "
                "training, start a new run from its weights"
            )

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        image, target = batch
        loss = self.loss(self(image), target)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        image, target = batch
        logits = self(image)
        loss = self.loss(logits, target)
        self.log("val_loss", loss, batch_size=len(image), sync_dist=True)
        self._val_counts += self.task.count(logits, target)

    def on_validation_epoch_start(self) -> None:
        self._val_counts = 0

    def on_validation_epoch_end(self) -> None:
        counts = self.all_gather(self._val_counts)  # of several processes: one more dim
        counts = counts.reshape(-1, *self._val_counts.shape).sum(dim=0)
        self.log("val_iou", self.task.score(counts))

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam (https://arxiv.org/abs/1412.6980) under OneCycle, stepped each batch."""
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ValueError(
                "training without end: the OneCycle schedule needs a number of steps; "
                "give the Trainer max_epochs or max_steps"
            )
        optimizer = torch.optim.Adam(self.parameters(), self.hparams.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.hparams.learning_rate,
            total_steps=int(steps),
            div_factor=10,
            final_div_factor=100,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm at 1 unless the Trainer says otherwise."""
        if gradient_clip_val is None:
            gradient_clip_val = 1.0
        self.clip_gradients(
            optimizer, gradient_clip_val, gradient_clip_algorithm or "norm"
        )

    def predict_mask(self, image: Image.Image, threshold: float = 0.5) -> np.ndarray:
        """Find the interface in a PIL picture of any size: bool (H, W) of that size.

        threshold: probability, 0..1, from which a pixel counts. Raises ValueError for
        what is not a picture and for a network of another task.
        """
        self._need("predict_mask")
        return self._masks(image, [threshold])[0]

    def predict_masks(
        self, image: Image.Image, threshold: float | Sequence[float] = 0.5
    ) -> np.ndarray:
        """Find overlapping classes in a PIL picture of any size: bool (K, H, W).

        threshold: as in `predict_mask`, or one for each class. (notebook 08)
        """
        self._need("predict_masks")
        num_classes = self.network.num_out_channels
        one = np.ndim(threshold) == 0
        thresholds = [threshold] * num_classes if one else list(threshold)
        if len(thresholds) != num_classes:
            raise ValueError(
                f"{len(thresholds)} thresholds: expected one, or {num_classes}, one "
                "per class"
            )
        return self._masks(image, thresholds)

    def predict_classes(self, image: Image.Image) -> np.ndarray:
        """Find the class of each pixel of a PIL picture of any size: uint8 (H, W).

        Raises ValueError as `predict_mask` does. (notebook 08)
        """
        self._need("predict_classes")
        return self._logits(image).argmax(dim=0).to(torch.uint8).cpu().numpy()

    def _need(self, method: str) -> None:
        """Refuse to predict what the network was not trained for."""
        if self.task.predict != method:
            raise ValueError(
                f"{method}: not for a network of task {self.hparams.task}; use "
                f"{self.task.predict}"
            )

    def _masks(self, image: Image.Image, thresholds: Sequence[float]) -> np.ndarray:
        """Find what is at least as probable as thresholds (K,): bool (K, H, W)."""
        for threshold in thresholds:
            if not 0 <= threshold <= 1:
                raise ValueError(
                    f"threshold {threshold}: a probability, expected 0 to 1"
                )
        probabilities = self._logits(image).sigmoid().cpu()
        return (probabilities >= torch.tensor(thresholds).view(-1, 1, 1)).numpy()

    @torch.inference_mode()
    def _logits(self, image: Image.Image) -> torch.Tensor:
        """Look at a PIL picture of any size: logits (K, H, W) of that size."""
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"prediction got {type(image).__name__}: expected a PIL picture; files "
                "are read by load_image"
            )
        image = _to_rgb(_upright(image), "picture")
        size = (image.height, image.width)
        tensor = v2.functional.to_image(image)
        if self.hparams.image_size:
            size_inside = list(_height_width(self.hparams.image_size))
            tensor = v2.functional.resize(tensor, size_inside, antialias=True)
        tensor = v2.functional.to_dtype(tensor, torch.float32, scale=True)
        with _evaluating(self):
            logits = self(tensor[None].as_subclass(torch.Tensor).to(self.device))
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", antialias=True)
        return logits[0]


class StepProgress(pl.Callback):
    """A progress bar over all steps.

    Without `timed` it goes to stdout and shows neither clock nor rate, so that a
    notebook's output can be compared; with it, to stderr, with the time left.
    """

    UNTIMED = "{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} steps"

    def __init__(self, timed: bool = False) -> None:
        self.timed = timed
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            file=sys.stderr if self.timed else sys.stdout,
            ncols=78,
            desc="training",
            unit="step",
            bar_format=None if self.timed else self.UNTIMED,
        )

    def on_train_batch_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_train_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()


class Watch(pl.Callback):
    """Remembers how training goes on one sample, looking every few steps.

    Fills `steps`, `losses` (of the batch), `ious` and `probabilities` (float (H, W), of
    several classes (K, H, W), on the CPU), from step 0 on: the curves and the frames of
    a GIF.
    """

    def __init__(self, sample: Sample, every_n_steps: int = 5) -> None:
        _need_at_least("every_n_steps", every_n_steps, 1)
        self.sample = sample
        self.every_n_steps = every_n_steps
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.ious: list[float] = []
        self.probabilities: list[torch.Tensor] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        if self.steps:
            return
        image, target = self.sample
        with torch.inference_mode():
            logits = module(image[None].to(module.device)).cpu()
            loss = module.loss(logits, target[None])
        self._look(trainer.global_step, float(loss), module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._look(trainer.global_step, float(outputs["loss"]), module)

    @torch.inference_mode()
    def _look(self, step: int, loss: float, module: pl.LightningModule) -> None:
        image, target = self.sample
        logits = module(image[None].to(module.device)).cpu()
        self.steps.append(step)
        self.losses.append(loss)
        self.ious.append(float(module.score(logits, target[None])))
        self.probabilities.append(module.task.probabilities(logits)[0].squeeze(0))


class SafeCheckpointIO(TorchCheckpointIO):
    """A Trainer plugin: checkpoints whole or not at all, and plain values only."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Write beside and move into place. Raises OSError if that fails."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _beside(path) as part:
                torch.save(checkpoint, part)
        except (RuntimeError, FileExistsError, NotADirectoryError) as error:
            raise OSError(f"{path}: could not be written ({error})") from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read what `read_checkpoint` reads."""
        return read_checkpoint(path)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint's plain values; code in it is never run.

    It holds `state_dict` and `hyper_parameters`, and, to go on training from, what
    Lightning adds. Raises FileNotFoundError, and ValueError for a file that is cut
    short, of another kind, or carries more than plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the checkpoint in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of foreign bytes an unpickler makes anything
        if "GLOBAL" in str(error):
            what = "carries more than tensors and plain values, possibly code"
            _refuse(path, what, "plain values", "it is not loaded")
        what = "damaged, cut short or not a checkpoint"
        _refuse(path, what, "a file that training wrote", "copy or train it again")
    keys = ("state_dict", "hyper_parameters")
    if not isinstance(checkpoint, dict) or not all(key in checkpoint for key in keys):
        _refuse(path, "holds something else", f"{' and '.join(keys)}", "see `train`")
    return checkpoint


def load_system(path: Path | str) -> UISegmentationSystem:
    """Make the trained system that a checkpoint holds, on the CPU.

    Raises what `read_checkpoint` raises, and ValueError for another model's checkpoint.
    (notebook 05)
    """
    checkpoint = read_checkpoint(path)
    try:
        system = UISegmentationSystem(**checkpoint["hyper_parameters"])
        system.load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        what = f"is of another model ({_one_line(error)[:200]})"
        _refuse(path, what, "one of UISegmentationSystem", "train it with this module")
    return system.eval()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class RunFolder(pl.Callback):
    """Keeps a run in a folder, so that nothing is lost when it is killed.

    After each epoch: log.csv, epochs/001.png (image, highest probability, prediction,
    target of some validation samples; where masks overlap, the last is in front),
    best.ckpt (weights of the best val_iou, to predict with), last.ckpt (everything, to
    go on from). At the end: curves.png. Each is written beside and moved into place;
    SafeCheckpointIO does that for checkpoints.
    patience: stop after that many epochs without a better val_iou; 0: never.
    Raises ValueError without validation data and when the loss is no number any more,
    FileExistsError rather than write over another run. (notebook 05)
    """

    def __init__(
        self, folder: Path | str, num_pictures: int = 4, *, patience: int = 0
    ) -> None:
        self.folder = Path(folder)
        self.patience = patience
        self.num_pictures = num_pictures
        self.rows: list[dict[str, float]] = []
        self._losses: list[torch.Tensor] = []
        self._rate = 0.0

    @property
    def best(self) -> dict[str, float]:
        """The row of the log with the best val_iou."""
        return max(self.rows, key=lambda row: row["val_iou"])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "random": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        torch.set_rng_state(state["random"])

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            raise ValueError(
                "RunFolder: there is no validation data, by which it keeps the best; "
                "give fit a second loader"
            )
        last = self.folder / "last.ckpt"
        if trainer.ckpt_path is None and last.exists():
            raise FileExistsError(
                f"{self.folder}: holds a run already; name a new folder, or go on with "
                f"fit(..., ckpt_path={str(last)!r})"
            )
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._stop_without_gain(trainer)

    def on_train_epoch_start(self, *_: Any) -> None:
        self._losses.clear()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule
    ) -> None:
        self.rows.append(self._row(trainer))
        is_best = self.rows[-1] is self.best
        if trainer.is_global_zero:
            self._write_log()
            self._write_pictures(trainer, module)
        if is_best:
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self._stop_without_gain(trainer)

    def _stop_without_gain(self, trainer: pl.Trainer) -> None:
        """Stop; unlike EarlyStopping this counts the log, so it survives a resume."""
        if self.patience and self.rows:
            waited = self.rows[-1]["epoch"] - self.best["epoch"]
            trainer.should_stop = waited >= self.patience

    def on_train_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.rows:
            self._write_curves()

    def _row(self, trainer: pl.Trainer) -> dict[str, float]:
        """Put an epoch's numbers in a row."""
        epoch = trainer.current_epoch + 1
        train_loss = float(torch.stack(self._losses).mean())
        val_loss, val_iou = (
            float(trainer.callback_metrics[name]) for name in ("val_loss", "val_iou")
        )
        for loss in (train_loss, val_loss):
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} in epoch {epoch}: expected a finite number; "
                    "train anew with a lower learning rate"
                )
        return {
            "epoch": epoch,
            "step": trainer.global_step,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_iou": val_iou,
            "learning_rate": self._rate,
        }

    def _write_log(self) -> None:
        path = self.folder / "log.csv"
        with _beside(path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            for row in self.rows:
                writer.writerow({key: f"{value:.6g}" for key, value in row.items()})

    @torch.inference_mode()
    def _write_pictures(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Draw some validation samples, evenly spaced, a row each."""
        dataset = trainer.val_dataloaders.dataset
        count = min(self.num_pictures, len(dataset))
        rows = []
        for index in range(0, len(dataset), max(len(dataset) // count, 1))[:count]:
            image, target = dataset[index]
            logits = module(image[None].to(module.device)).cpu()
            highest = module.task.probabilities(logits)[0].amax(dim=0)
            painted = map(module.task.paint, (module.task.decide(logits[0]), target))
            parts = [to_array(part) for part in (image, highest, *painted)]
            rows.append(np.hstack(parts))
        path = self.folder / "epochs" / f"{len(self.rows):03}.png"
        path.parent.mkdir(exist_ok=True)
        with _beside(path) as part:
            Image.fromarray(np.vstack(rows)).save(part, format="PNG")

    def _write_curves(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in self.rows]
        for name, axis in zip(
            ("train_loss", "val_loss", "val_iou"), (losses, losses, scores), strict=True
        ):
            axis.plot(epochs, [row[name] for row in self.rows], ".-", label=name)
        for axis in (losses, scores):
            axis.set_xlabel("epoch")
            axis.legend()
        with _beside(self.folder / "curves.png") as part:
            figure.savefig(part, format="png")


def train_augmentation() -> ImageTargetCompose:
    """What `train` does to training pictures: mirror half of them, change colours.

    Gentle: shifting and scaling as well scored lower in trainings of 2 to 12 minutes.
    """
    return ImageTargetCompose(
        [
            ImageTargetRandomHorizontalFlip(),
            ImageTargetColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
        ]
    )


# --------------------------------------------------------------------------------------
# 11. Command line: check, train, predict. (notebooks 05 and 10)
# --------------------------------------------------------------------------------------

# The checkpoint that `predict` uses by itself: the project's, not copied with the file.
REFERENCE = Path(__file__).parent / "checkpoints" / "reference.ckpt"
# Settings that describe the machine, so a run may go on with others.
MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "num_workers")
# Pixels; a batch of larger pictures fits into no ordinary memory.
LARGEST_SIDE = 8192
# Settings of `check` too.
READING = ("patterns", "scenes", "threshold", "foreground", "ignore")


def _setting(default: Any, text: str, *flags: str, **options: Any) -> Any:
    metadata = {"help": text, "flags": flags, "options": options}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Every setting of `train`, its default and its meaning; --help shows the same.

    Raises ValueError for a value out of range.
    """

    dataset: str = _setting("", "folder of pairs; see check", "-d", metavar="FOLDER")
    output_dir: str = _setting("runs", "folder of the runs", "-o", metavar="FOLDER")
    batch_size: int = _setting(4, "samples a step, in each process", "-b")
    learning_rate: float = _setting(3e-3, "peak of the OneCycle schedule", "-lr")
    max_epochs: int = _setting(30, "passes over the training pictures")
    image_size: tuple[int, ...] = _setting(
        (256, 256),
        "pixels that pictures are scaled to: height and width, or one number",
    )
    overfit_num: int = _setting(0, "if above 0, samples of the first pair alone")
    val_share: float = _setting(0.2, "share of the pairs to validate on, 0..1")
    augment: bool = _setting(True, "mirror training pictures and change their colours")
    loss: str = _setting("bce_dice", "bce or bce_dice")
    pos_weight: float = _setting(1.0, "how many times a pixel of foreground counts")
    fast: bool = _setting(False, "work at half the resolution inside: a third the time")
    max_features: int = _setting(256, "channels of the network's lowest level")
    weights: str = _setting(
        "", "checkpoint to start from, network and all", metavar="FILE"
    )
    patience: int = _setting(0, "stop after so many epochs without gain; 0: never")
    seed: int = _setting(0, "number that fixes weights, order, split and augmentation")
    num_workers: int = _setting(0, "processes that read pictures; 0: none of their own")
    patterns: tuple[str, ...] = _setting(
        (), 'names of image and target: "{key}_input.*" "{key}_target.*"'
    )
    scenes: str = _setting(
        "", "CSV of image,scene: no scene on both sides of the split"
    )
    threshold: int = _setting(128, "grey from which a mask is foreground, 1..255")
    foreground: tuple[str, ...] = _setting(
        (), "what is foreground in a mask instead: ids 15 or 1-9, colours ff00ff"
    )
    ignore: tuple[str, ...] = _setting((), "what is neither: ids or colours")
    accelerator: str = _setting("auto", "cpu, gpu, mps ... as in Lightning's Trainer")
    devices: str = _setting("auto", "how many of them, on each machine")
    num_nodes: int = _setting(1, "machines")
    strategy: str = _setting("auto", "how processes share the work, such as ddp")
    precision: str = _setting("32-true", "or 16-mixed, bf16-mixed")

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("max_epochs", 1),
            ("overfit_num", 0),
            ("patience", 0),
            ("seed", 0),
            ("num_workers", 0),
            ("num_nodes", 1),
        ):
            _need_at_least(name, getattr(self, name), least)
        if self.seed >= 2**32:
            raise ValueError(f"seed {self.seed}: expected below 2**32")
        if not 1 <= self.threshold <= 255:
            raise ValueError(f"threshold {self.threshold}: expected 1 to 255")
        if self.devices != "auto" and not re.fullmatch("[1-9][0-9]*", self.devices):
            raise ValueError(f"devices {self.devices}: expected a number or auto")
        for name in ("learning_rate", "pos_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: expected above 0")
        if len(self.image_size) not in (1, 2):
            raise ValueError(
                f"image_size {self.image_size}: expected one or two numbers"
            )
        _check_size("image_size", self.size)
        if max(self.size) > LARGEST_SIDE:
            raise ValueError(
                f"image_size {self.image_size}: expected at most {LARGEST_SIDE} pixels "
                "a side; for larger pictures see notebook 09"
            )
        if len(self.patterns) not in (0, 2):
            raise ValueError(f"patterns {self.patterns}: expected two of them")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.image_size[0], self.image_size[-1])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from names and values; lists become tuples.

        Raises ValueError for a name that is none, with the nearest that is one, and for
        a value of another type.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{type(values).__name__}: expected names and values")
        defaults = {field.name: field.default for field in fields(cls)}
        read = {}
        for name, value in values.items():
            if name not in defaults:
                raise ValueError(f"setting {name!r}: unknown{_nearest(name, defaults)}")
            kind = type(defaults[name])
            takes = {float: (float, int), tuple: (tuple, list)}.get(kind, kind)
            if not isinstance(value, takes):
                raise ValueError(f"setting {name} {value!r}: expected {kind.__name__}")
            read[name] = kind(value)
        return cls(**read)


def _mask_values(text: str) -> list[MaskValue]:
    """Read a class id, "15", several, "1-255", or a colour, "ff00ff"."""
    if re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
        return [(red, green, blue)]
    if match := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text):
        first, last = match[1], match[2] or match[1]
        return list(range(int(first), int(last) + 1))
    raise ValueError(
        f"{text!r}: expected a class id like 15, ids like 1-9, or a colour like ff00ff"
    )


def _reading(settings: Settings) -> dict[str, Any]:
    """Say how files are found and read: keywords for the doctor and the data module."""
    foreground, ignore = (
        tuple(itertools.chain.from_iterable(map(_mask_values, texts)))
        for texts in (settings.foreground, settings.ignore)
    )
    _roles(foreground, ignore)
    return {
        "patterns": settings.patterns or None,
        "scenes": read_scenes(settings.scenes) if settings.scenes else None,
        "read_target": partial(
            load_mask,
            threshold=settings.threshold,
            foreground=foreground,
            ignore=ignore,
        ),
    }


def _check(options: argparse.Namespace) -> int:
    """Run `check`: print the doctor's report; 1 if training would refuse the folder."""
    given = vars(options)
    settings = Settings(**{name: given[name] for name in READING if name in given})
    report = check_pairs(options.folder, progress=True, **_reading(settings))
    print(report.to_json() if options.json else report)
    clean = report.ok and not (options.strict and report.problems)
    return 0 if clean else 1


def _train(options: argparse.Namespace) -> int:
    """Run `train`: look at the folder, train, say how to predict."""
    given = dict(vars(options))
    resume = given.pop("resume")
    folder, settings = _continue(resume, given) if resume else (None, Settings(**given))
    if not settings.dataset:
        raise ValueError("train: which folder? give it with -d")
    if settings.weights and not resume:
        settings = replace(settings, **_network_of(settings.weights, given))
    quiet_lightning()
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    reading = _reading(settings)
    is_first = not pl.utilities.rank_zero_only.rank
    if is_first:
        _refuse_sick(settings.dataset, reading)
    system = _new_system(settings)
    data = _new_data(settings, reading)
    keeper = RunFolder(folder or "", patience=settings.patience)
    trainer = _new_trainer(settings, keeper)
    data.split(trainer.world_size)  # refuses too few before there is a folder
    keeper.folder = folder or _new_folder(settings, is_first)
    try:
        trainer.fit(system, data, ckpt_path=_find_last(keeper.folder, system))
    except SystemExit:  # how Lightning answers an interrupt
        resume = _command("train", "--resume", keeper.folder)
        print(f"\ninterrupted; go on with: {resume}")
        return 130
    if is_first:
        print(_farewell(keeper))
    return 0


def _network_of(weights: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a checkpoint's network; what is given must not differ."""
    learnt = _load_binary(weights).hparams
    own = {"max_features": learnt.max_features, "fast": learnt.get("fast", False)}
    for name, value in own.items():
        if given.get(name, value) != value:
            flag = f"--{name.replace('_', '-')}"
            expected = f"{given[name]}, as {flag} says"
            _refuse(weights, f"{name} is {value}", expected, f"leave out {flag}")
    return own


def _continue(run: str, given: Mapping[str, Any]) -> tuple[Path, Settings]:
    """Read an earlier run's settings; only what describes the machine may change."""
    folder = Path(run)
    path = folder / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there; expected the folder of a run, such as runs/001"
        )
    changed = [name for name in given if name not in MACHINE]
    if changed:
        raise ValueError(
            f"--resume goes on with the run's own settings: leave out {changed[0]}, or "
            "start a new run (with --weights to keep what was learnt)"
        )
    try:
        saved = Settings.from_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); start a new run") from error
    if not saved.dataset:
        raise ValueError(f"{path}: names no dataset; start a new run")
    return folder, replace(saved, **given)


def _find_last(folder: Path, system: UISegmentationSystem) -> Path | None:
    """Give a run's last checkpoint, None if it never came to one.

    Raises ValueError for a file that is another run's or not to go on from.
    """
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    needed = {"loops", "optimizer_states", "lr_schedulers", "callbacks"}
    lacks = needed - read_checkpoint(path).keys()
    if lacks or load_system(path).hparams != system.hparams:
        _refuse(path, "not this run's", "its last checkpoint", "start a new run")
    return path


def _refuse_sick(dataset: str, reading: Mapping[str, Any]) -> None:
    """Show what the doctor finds; raise ValueError if it is more than warnings."""
    report = check_pairs(dataset, progress=True, **reading)
    if report.problems:
        print(report)
    if not report.ok:
        raise ValueError(f"{dataset}: has faults, listed above; mend them first")
    if report.foreground_share == 0:
        raise ValueError(
            f"{dataset}: no mask has a pixel of foreground, so there is nothing to "
            "learn; say with --foreground which values are meant"
        )


def _new_system(settings: Settings) -> UISegmentationSystem:
    """Make the system to train, from scratch or from a checkpoint's weights."""
    changes = {
        "learning_rate": settings.learning_rate,
        "loss": settings.loss,
        "pos_weight": settings.pos_weight,
        "image_size": settings.size,
    }
    if not settings.weights:
        return UISegmentationSystem(
            max_features=settings.max_features,
            fast=settings.fast,
            **changes,
        )
    learnt = _load_binary(settings.weights)
    system = UISegmentationSystem(**{**learnt.hparams, **changes})
    system.load_state_dict(learnt.state_dict())
    return system


def _load_binary(path: Path | str) -> UISegmentationSystem:
    """Load a checkpoint of the one task that the commands know."""
    system = load_system(path)
    if system.hparams.task != "binary":
        arrived = f"a network of task {system.hparams.task}"
        advice = "the others are trained and used from Python, see notebook 08"
        _refuse(path, arrived, "one of task binary", advice)
    return system


def _new_data(settings: Settings, reading: Mapping[str, Any]) -> UISegmentationData:
    return UISegmentationData(
        settings.dataset,
        settings.batch_size,
        settings.size,
        settings.overfit_num,
        val_share=settings.val_share,
        augment=train_augmentation() if settings.augment else None,
        num_workers=settings.num_workers,
        seed=settings.seed,
        **reading,
    )


def _output_folder(name: str) -> Path:
    """Make a folder for output. Raises OSError naming the flag."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{name}: cannot be made a folder ({error.strerror}); give another "
            "--output-dir"
        ) from error
    return folder


def _new_folder(settings: Settings, make: bool) -> Path:
    """Name the next run's folder, 001 and so on; make it in the first process."""
    parent = _output_folder(settings.output_dir)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    folder = parent / f"{max(taken, default=0) + 1:03}"
    if make:
        folder.mkdir()
        kept = asdict(settings) | {"dataset": os.path.abspath(settings.dataset)}
        with _beside(folder / "settings.json") as part:
            part.write_text(json.dumps(kept, indent=2) + "\n")
    return folder


def _new_trainer(settings: Settings, keeper: RunFolder) -> pl.Trainer:
    callbacks: list[pl.Callback] = [StepProgress(timed=True), keeper]
    devices = settings.devices
    return pl.Trainer(
        max_epochs=settings.max_epochs,
        accelerator=settings.accelerator,
        devices=int(devices) if devices.isdecimal() else devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=settings.precision,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _command(*words: Any) -> str:
    """Put a command line of this module together, to be copied."""
    return shlex.join(["python", os.path.relpath(__file__), *map(str, words)])


def _farewell(keeper: RunFolder) -> str:
    """Say how good the run was and what to do with it."""
    best = keeper.best
    checkpoint = keeper.folder / "best.ckpt"
    return (
        f"best val_iou {best['val_iou']:.3f}, after epoch {best['epoch']:.0f} of "
        f"{len(keeper.rows)}; all of the run: {keeper.folder}\n"
        f"to predict: {_command('predict', '--checkpoint', checkpoint)} PICTURES ..."
    )


def _predict(options: argparse.Namespace) -> int:
    """Run `predict`: write a mask for every picture; 2 if some could not be read."""
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"threshold {options.threshold}: a probability, 0 to 1")
    pictures = _list_pictures(options.pictures)
    folder = Path(options.output_dir)
    outputs = _outputs(pictures, folder, options.overlay)
    if not options.overwrite:
        _refuse_existing(outputs)
    system = _load_binary(_checkpoint_or_reference(options.checkpoint))
    _output_folder(options.output_dir)
    failures = []
    for path in tqdm(pictures, unit="picture", disable=len(pictures) < 2):
        try:
            _predict_one(system, path, outputs[path], options.threshold)
        except (OSError, ValueError) as error:
            failures.append(_one_line(error))
    print(f"{len(pictures) - len(failures)} of {len(pictures)} pictures: {folder}")
    if failures:
        raise ValueError(f"{len(failures)} not done: {' | '.join(failures)}")
    return 0


def _checkpoint_or_reference(checkpoint: str | None) -> Path:
    if checkpoint is None and not REFERENCE.exists():
        raise FileNotFoundError(
            f"{REFERENCE}: the reference checkpoint is not there; give your own with "
            "--checkpoint, see train"
        )
    return Path(checkpoint or REFERENCE)


def _list_pictures(names: Sequence[str]) -> list[Path]:
    """List the files that files, folders and globs stand for, each once.

    Of a folder, what is named as a target, mask or overlay is left out.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = [file for file in path.iterdir() if _is_input(file)]
        elif path.exists():
            files = [path]
        else:
            files = [Path(match) for match in glob.glob(name, recursive=True)]
            files = [file for file in files if _is_input(file)]
        if not files:
            raise FileNotFoundError(
                f"{name}: no picture; expected files, folders (without what lies in "
                'their subfolders) or globs such as "folder/**/*.png"'
            )
        found |= dict.fromkeys(sorted(files, key=lambda file: natural_key(str(file))))
    return list(found)


def _is_input(path: Path) -> bool:
    """Tell pictures to look at from masks, overlays, hidden and foreign files."""
    made = path.stem.lower().endswith(("_target", "_mask", "_overlay"))
    return _is_picture_file(path) and not made


def _outputs(
    pictures: Sequence[Path], folder: Path, with_overlay: bool
) -> dict[Path, list[Path]]:
    """Name what is written for each picture: its mask and, if wanted, its overlay."""
    endings = ("mask", "overlay") if with_overlay else ("mask",)
    outputs: dict[Path, list[Path]] = {}
    owners: dict[str, Path] = {}
    for path in pictures:
        other = owners.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"{path} and {other} would both become {path.stem}_mask.png; predict "
                "them into two folders"
            )
        outputs[path] = [folder / f"{path.stem}_{ending}.png" for ending in endings]
    return outputs


def _refuse_existing(outputs: Mapping[Path, Sequence[Path]]) -> None:
    existing = [path for paths in outputs.values() for path in paths if path.exists()]
    if existing:
        raise FileExistsError(
            f"{existing[0]}: is there already ({len(existing)} such files); give "
            "another --output-dir, or --overwrite"
        )


def _predict_one(
    system: UISegmentationSystem, path: Path, outputs: Sequence[Path], threshold: float
) -> None:
    """Write the mask of one picture, and its overlay if a second name is given."""
    image = load_image(path)
    mask = system.predict_mask(image, threshold)
    save_mask(mask, outputs[0])
    for name in outputs[1:]:
        with _beside(name) as part:
            overlay(image, mask).save(part, format="PNG")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    """Build the three commands' parser."""
    parser = _Parser(
        description="Train a network that marks what your masks mark, and use it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="examine a folder of images and masks")
    check.add_argument("folder", help="folder of pairs: 1_input.png, 1_target.png ...")
    _add_settings(check, READING)
    check.add_argument("--json", action="store_true", help="print it for programs")
    check.add_argument("--strict", action="store_true", help="warnings count as well")
    check.set_defaults(run=_check, parser=check)
    train = commands.add_parser("train", help="train on a folder of images and masks")
    _add_settings(train, [setting.name for setting in fields(Settings)])
    train.add_argument(
        "--resume", default="", metavar="RUN", help="go on with a run that was stopped"
    )
    train.set_defaults(run=_train, parser=train)
    predict = commands.add_parser("predict", help="write masks for new pictures")
    _add_predict(predict)
    predict.set_defaults(run=_predict, parser=predict)
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Make a flag of each setting; what is not given is left out of the result."""
    for setting in fields(Settings):
        if setting.name not in names:
            continue
        kind = type(setting.default)
        options = {"type": kind}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif kind is tuple:
            options = {"type": type([*setting.default, ""][0]), "nargs": "+"}
        parser.add_argument(
            *setting.metadata["flags"],
            f"--{setting.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{setting.metadata['help']} (default: {_shown(setting.default)})",
            **options | setting.metadata["options"],
        )


def _shown(default: Any) -> str:
    """Write a default as it is typed."""
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default == "" else str(default)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", help="files, folders or globs")
    parser.add_argument(
        "-c", "--checkpoint", help="a run's best.ckpt (default: the reference network)"
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        default="predictions",
        help="folder for NAME_mask.png (default: predictions)",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="write NAME_overlay.png as well"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that are there"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="probability from which a pixel is found (default: 0.5)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `check`, `train` or `predict`; gives the exit code.

    Bad input ends in one line on stderr and SystemExit(2).
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    command = vars(options).pop("parser")
    del options.command
    try:
        if unknown:
            flags = re.findall(r"--[\w-]+", command.format_help())
            advice = _nearest(unknown[0], flags)
            if command.prog.endswith("train") and unknown[0][0] != "-":
                advice = "; the folder of pairs is given with -d"
            raise ValueError(f"{unknown[0]}: unknown{advice}")
        return vars(options).pop("run")(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MisconfigurationException) as error:
        parser.exit(2, f"{parser.prog}: {_one_line(error)}\n")


if __name__ == "__main__":
    sys.exit(main())
