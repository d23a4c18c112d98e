"""Find the user interface in a screenshot: image segmentation in one file.

Everything that the notebooks of the series build, in its finished form: masks,
datasets, paired transforms, a UNet, losses, training. To use it, copy this file.

    print(check_pairs("my_folder"))            # 1_input.png, 1_target.png, ...: sound?
    pairs = find_pairs("my_folder")            # their paths, in natural order
    data = UISegmentationData("my_folder", batch_size=4)
    system = UISegmentationSystem()
    pl.Trainer(max_epochs=20).fit(system, data)
    mask = system.predict_mask(load_image("new.png"))      # bool (H, W)

Tensors: image float32 (3, H, W) in 0..1; binary target float32 (1, H, W) of 0 and 1;
class target int64 (H, W); overlapping target float32 (K, H, W); 255 is ignored
everywhere. A network gives logits; a sigmoid or softmax makes them probabilities, a
threshold or argmax a prediction. Letters: B batch, C channels, K classes, H height, W
width.

Contents, in the order of the notebooks; delete from the bottom what you do not need:

    1. Pictures and masks            5. Losses and scores
    2. Pairs, doctor and datasets    6. Showing
    3. Paired transforms             7. Lightning system and data module
    4. UNet

Notable choices:
- Transforms are thin layers over torchvision v2: one draw, masks never blended.
- UNet (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with one convolution
  a block, Kaiming weights (https://arxiv.org/abs/1502.01852) and the head's bias at the
  share of foreground (https://arxiv.org/abs/1708.02002, section 4.1).
- OneCycle learning rates (https://arxiv.org/abs/1708.07120).

Version 0.1.0 of the series "ui-segmentation-system". Licence: MIT.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset
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


def _refuse(path: Path | str, arrived: str, expected: str, advice: str) -> NoReturn:
    raise ValueError(f"{path}: {arrived}; expected {expected}; {advice}")


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


def load_mask(path: Path | str, threshold: int = 128) -> Image.Image:
    """Read a mask as a picture of mode "L" that holds only 0 and 255.

    Grey values from `threshold` (1..255) on become 255, so the grey rings that JPEG
    leaves vanish. A mask of 0 and 1 is recognised. Raises ValueError, with the file and
    the way out, for what is not a two-valued mask: class ids, colours, a mask so dark
    that nothing would be left, a mask hidden in the alpha channel. (notebook 01)
    """
    if not 1 <= threshold <= 255:
        raise ValueError(f"threshold {threshold}: expected 1 to 255")
    picture = _open_picture(path)
    grey = _grey_values(path, picture)
    brightest = int(grey.max())
    if brightest <= 1:
        grey = grey * 255
    elif brightest < threshold:
        _refuse(
            path,
            f"its brightest value is {brightest}, values {_listed(grey)}",
            f"some of {threshold} or more",
            "for class ids use colors_to_classes or notebook 08, for a dark mask pass "
            f"threshold={max(brightest // 2, 1)} to load_mask",
        )
    elif _looks_like_ids(grey, picture.format == "JPEG"):
        _refuse(
            path,
            f"values {_listed(grey)} look like class ids",
            "0 and 255",
            "read them as such, see notebook 08",
        )
    return Image.fromarray(np.where(grey >= threshold, 255, 0).astype(np.uint8))


def _listed(values: np.ndarray) -> str:
    """List the distinct values, the first eight of them."""
    distinct = np.unique(values)
    more = ", ..." if len(distinct) > 8 else ""
    return ", ".join(map(str, distinct[:8].tolist())) + more


def _looks_like_ids(grey: np.ndarray, is_jpeg: bool) -> bool:
    """Tell class ids from a mask with grey edges.

    Ids are a few small numbers beside 255, or many values, none of them rare.
    """
    distinct = np.unique(grey)
    inner = distinct[(distinct > 0) & (distinct < 255)]
    if not is_jpeg and len(inner) and inner.max() < 64 and distinct[-1] == 255:
        return True
    between = (grey > grey.max() / 4) & (grey < grey.max() * 3 / 4)
    return len(distinct) > 8 and between.mean() > 0.3


def _grey_values(path: Path | str, picture: Image.Image) -> np.ndarray:
    """Give a mask's grey values, int (H, W), 0..255, refusing colour and alpha."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535 or picture.mode == "F":
            _refuse(path, f"mode {picture.mode}", "8 or 16 bits", "save it as 8 bits")
        if values.max() <= 255:
            return values.astype(int)
        if values.max() < 2 * 257:  # would pass for a mask of 0 and 1
            _refuse(
                path,
                f"its brightest value is {values.max()} of 65535",
                "a mask up to 65535, or in 8 bits",
                "save it as 8 bits",
            )
        return values.astype(int) // 257
    if _has_alpha(picture):
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            _refuse(
                path,
                "it has transparent parts",
                "an opaque mask",
                "save its alpha channel, or the mask flattened, as a grey PNG",
            )
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")).astype(int)
    channels = np.asarray(picture.convert("RGB")).astype(int)
    if np.ptp(channels, axis=2).max() > GREY_TOLERANCE:
        colours = len(np.unique(channels.reshape(-1, 3), axis=0))
        _refuse(
            path,
            f"it has {colours} colours",
            "a grey mask of 0 and 255",
            "turn colours into class ids with colors_to_classes",
        )
    return channels[..., 0] if picture.mode != "P" else channels.max(axis=2)


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


def classes_to_colors(
    classes: torch.Tensor | np.ndarray,
    palette: Sequence[tuple[int, int, int]],
    ignore_index: int = IGNORE_INDEX,
    *,
    ignore_color: tuple[int, int, int] = (224, 224, 192),
) -> Image.Image:
    """Turn class ids, integers (H, W), into an RGB picture, the way back.

    Raises ValueError for an id that the palette has no colour for. (notebook 01)
    """
    ids = torch.as_tensor(classes).long()
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


# --------------------------------------------------------------------------------------
# 2. Pairs, the dataset doctor and datasets: from a folder to samples. (notebook 02)
# --------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One image and the target that belongs to it: pictures, or tensors.

    Tensors: image float32 (3, H, W) in 0..1; target float32 (1, H, W) of 0 and 1, or
    class ids int64 (H, W). 255 in a target means ignored.
    """

    image: Any
    target: Any


Pair = tuple[Path, Path]
PairTransform = Callable[[Any, Any], tuple[Any, Any]]


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key that reads numbers as numbers: "2_input" before "10_input"."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def find_pairs(data_dir: Path | str) -> list[Pair]:
    """List the pairs (image path, target path) of a folder in natural order.

    `KEY_input.*` belongs to `KEY_target.*`, whatever the picture formats. Hidden files
    and files of other names are passed over. Raises FileNotFoundError or
    NotADirectoryError for the folder, ValueError for one without pairs, for an image
    without a target, a target without an image, and two files for one key.
    (notebook 02)
    """
    inputs, targets = _files_by_key(Path(data_dir))
    faults = [fault.line() for fault in _key_faults(inputs, targets)]
    if faults:
        raise ValueError(f"{data_dir}: {len(faults)} faults\n  " + "\n  ".join(faults))
    return [
        (inputs[key][0], targets[key][0]) for key in sorted(inputs, key=natural_key)
    ]


FilesByKey = dict[str, list[Path]]


def _files_by_key(folder: Path) -> tuple[FilesByKey, FilesByKey]:
    """Sort the pictures of a folder into inputs and targets by key."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is a file; expected a folder of pairs")
    found: dict[str, FilesByKey] = {"_input": {}, "_target": {}}
    for path in sorted(folder.iterdir()):
        key, mark, rest = path.stem.rpartition("_")
        role = found.get(mark + rest.lower())
        hidden = path.name.startswith(".")
        picture = path.suffix.lower() in PICTURE_SUFFIXES
        if role is not None and picture and not hidden and path.is_file():
            role.setdefault(key, []).append(path)
    if not any(found.values()):
        raise ValueError(
            f"{folder}: holds no pairs; expected files named like 1_input.png and "
            "1_target.png"
        )
    return found["_input"], found["_target"]


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
    """What the doctor found in a folder; prints as a table."""

    folder: str
    num_pairs: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the folder can be trained on: no errors; warnings may be there."""
        return all(problem.severity != "error" for problem in self.problems)

    def __str__(self) -> str:
        state = "ok" if self.ok else "not ok"
        lines = [f"{self.folder}: {self.num_pairs} whole pairs, {state}"]
        width = max((len(problem.file) for problem in self.problems), default=0)
        for problem in self.problems:
            lines.append(
                f"  {problem.severity:7}  {problem.file:{width}}  {problem.what}"
            )
            lines.append(f"  {'':7}  {'':{width}}  -> {problem.mend}")
        return "\n".join(lines)


def check_pairs(data_dir: Path | str) -> PairReport:
    """Examine every pair of a folder and report all that is wrong, not just the first.

    Looks for orphans, doubles, files that cannot be read, masks in another encoding,
    sizes that differ, empty and full masks, and JPEG masks. Raises only what
    `find_pairs` raises for the folder itself, never for its content. (notebook 01)
    """
    inputs, targets = _files_by_key(Path(data_dir))
    problems = list(_key_faults(inputs, targets))
    keys = sorted(inputs.keys() & targets.keys(), key=natural_key)
    num_whole = 0
    num_lossy = 0
    for key in keys:
        found = list(_pair_faults(inputs[key][0], targets[key][0]))
        problems += found
        single = len(inputs[key]) == len(targets[key]) == 1
        num_whole += single and all(p.severity != "error" for p in found)
        num_lossy += targets[key][0].suffix.lower() in (".jpg", ".jpeg")
    if num_lossy:
        problems.append(
            Problem(
                f"{num_lossy} targets",
                "are JPEG, which blurs edges into grey",
                "read with a threshold they are fine; save new ones as PNG",
                "warning",
            )
        )
    return PairReport(str(data_dir), num_whole, tuple(problems))


def _key_faults(inputs: FilesByKey, targets: FilesByKey) -> Iterator[Problem]:
    """Find keys that do not have exactly one image and one target."""
    for files, others, wanted in (
        (inputs, targets, "_target"),
        (targets, inputs, "_input"),
    ):
        for key in sorted(files, key=natural_key):
            names = [path.name for path in files[key]]
            if key not in others:
                yield Problem(
                    names[0],
                    f"no file is named {key}{wanted}.*",
                    "add it, or take this one away",
                )
            if len(names) > 1:
                yield Problem(
                    names[0],
                    f"{len(names)} files have the same key: {', '.join(names)}",
                    "keep one of them",
                )


def _pair_faults(image_path: Path, target_path: Path) -> Iterator[Problem]:
    """Find what is wrong inside the two files of a pair."""
    image = yield from _try_to_read(load_image, image_path)
    target = yield from _try_to_read(load_mask, target_path)
    if target is not None and target.getextrema()[0] == target.getextrema()[1]:
        what = "black: nothing" if target.getextrema()[0] == 0 else "white: everything"
        yield Problem(
            target_path.name,
            f"all {what} is foreground",
            "look whether that is meant",
            "warning",
        )
    if image is not None and target is not None and image.size != target.size:
        yield Problem(
            target_path.name,
            f"{_size(target)}, but {image_path.name} is {_size(image)}",
            "cut or turn the mask as the picture was, or scale it without smoothing",
        )


def _try_to_read(
    read: Callable[[Path], Image.Image], path: Path
) -> Generator[Problem, None, Image.Image | None]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        what, _, mend = str(error).removeprefix(f"{path}: ").rpartition("; ")
        yield Problem(path.name, what, mend)
        return None


def _size(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"


class PairDataset(Dataset[Sample]):
    """Samples of a list of pairs, map-style: `len(dataset)` and `dataset[i]`.

    Each sample goes through `transform(image, target)`; without one it holds pictures.
    cache: keep decoded pictures (uint8, H * W * 4 bytes a pair) so that each is read
    once; with worker processes each worker keeps its own. (notebook 02)
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        transform: PairTransform | None = None,
        *,
        cache: bool = False,
    ) -> None:
        self.pairs = list(pairs)
        self.transform = transform
        self._cache: dict[Pair, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        sample = self._read(self.pairs[index])
        if self.transform is None:
            return sample
        return Sample(*self.transform(*sample))

    def read_target(self, path: Path) -> Image.Image:
        """Read one target file; the place to read other masks in a subclass."""
        return load_mask(path)

    def _read(self, pair: Pair) -> Sample:
        if self._cache is not None and pair in self._cache:
            return self._cache[pair]
        image_path, target_path = pair
        sample = Sample(load_image(image_path), self.read_target(target_path))
        if sample.image.size != sample.target.size:
            raise ValueError(
                f"{target_path}: {_size(sample.target)}, but {image_path} is "
                f"{_size(sample.image)}; expected equal sizes; see check_pairs"
            )
        if self._cache is not None:
            self._cache[pair] = sample
        return sample


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
        cache: bool = False,
    ) -> None:
        _need_at_least("overfit_num", overfit_num, 0)
        pairs = find_pairs(data_dir)
        if overfit_num:
            pairs = pairs[:1] * overfit_num
        super().__init__(pairs, transform, cache=cache)


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


def _check_size(name: str, size: int | Sequence[int]) -> None:
    numbers = _height_width(size)
    pair = isinstance(numbers, Sequence) and len(numbers) == 2
    if not pair or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise ValueError(
            f"{name}: size {size}; expected a positive number of pixels or a pair of "
            "them (height, width)"
        )


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


class ConvBlock(nn.Sequential):
    """One 3x3 convolution and ReLU, the channels normalised in between if asked to.

    (B, C_in, H, W) -> (B, C_out, H, W). GroupNorm with a group per channel is
    InstanceNorm (https://arxiv.org/abs/1607.08022) with a faster kernel.
    """

    def __init__(self, num_in: int, num_out: int, normalize: bool) -> None:
        layers: list[nn.Module] = [nn.Conv2d(num_in, num_out, 3, padding=1)]
        if normalize:
            layers.append(nn.GroupNorm(num_out, num_out))
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

    def __init__(self, num_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * num_out, num_out, 2, stride=2)
        self.block = ConvBlock(2 * num_out, num_out, normalize=False)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return x + self.block(torch.cat([x, skip], dim=1))


class UNet(nn.Module):
    """Logits for every pixel: (B, C, H, W) in 0..1 -> (B, K, H, W), any H, W >= 1.

    Five levels, `max_features` channels on the lowest (a multiple of 16; 256 gives 1 M
    parameters). Only the way down is normalised, each image for itself; normalize=False
    makes a pixel depend on its neighbourhood alone, which tiles need (notebook 09).
    fast: work at half the resolution inside; faster, coarser on fine lines.

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
        self.shrink = 2 if fast else 1  # pixels per side of a cell inside
        first = max_features // 16
        widths = [first, 2 * first, 4 * first, 8 * first]
        cell = self.shrink**2
        self.first = ConvBlock(num_in_channels * cell, first, normalize=False)
        self.downs = nn.ModuleList(Down(width, normalize) for width in widths)
        self.ups = nn.ModuleList(Up(width) for width in reversed(widths))
        self.head = nn.Conv2d(first, num_out_channels * cell, 1)
        self.apply(_kaiming)
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self._check(image)
        height, width = image.shape[-2:]
        x = F.pixel_unshuffle((self._pad(image) - 0.5) * 4, self.shrink)  # -2..2
        skips = [self.first(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        logits = F.pixel_shuffle(self.head(x), self.shrink)
        return logits[..., :height, :width]

    def set_foreground_share(self, share: float) -> None:
        """Start at the prior: the head's bias becomes log(p / (1 - p)).

        share: of foreground pixels in the training data, 0..1; kept off both ends.
        """
        share = min(max(share, 1e-3), 1 - 1e-3)
        with torch.no_grad():
            self.head.bias.fill_(math.log(share / (1 - share)))

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
        step = 16 * self.shrink
        height, width = image.shape[-2:]
        foot, right = (max(-side % step, 2 * step - side) for side in (height, width))
        return F.pad(image, (0, right, 0, foot), mode="replicate")


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


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
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}: "
            "expected equal shapes (B, K, H, W); the logits come first"
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


# --------------------------------------------------------------------------------------
# 6. Showing: the same colours in every figure. (notebook 01)
# --------------------------------------------------------------------------------------

# Colours of classes 1, 2, ...; class 0 stays as it is.
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
        return np.array(classes_to_colors(values, PALETTE))
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
    """Bool (H, W) of a mask of any kind; ignored pixels are not in it."""
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().numpy()
    values = np.asarray(mask)
    if values.ndim < 2 or any(side != 1 for side in values.shape[:-2]):
        raise ValueError(f"mask of shape {values.shape}: expected (H, W) or (1, H, W)")
    values = values.reshape(values.shape[-2:])
    if values.dtype == bool:
        return values
    if (values == 1).any() and values.max() == IGNORE_INDEX:
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
            for color in PALETTE[1 : len(legend) + 1]
        ]
        figure.legend(handles, legend, loc="outside lower center", ncols=5, fontsize=8)
    plt.show()


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
    beside = path.with_name(f".{path.name}.part")
    iio.imwrite(beside, pictures, extension=".gif", duration=duration, loop=0)
    beside.replace(path)


# --------------------------------------------------------------------------------------
# 7. Lightning system and data module: the training loop, bought. (notebook 04)
# --------------------------------------------------------------------------------------

# Imported here and not above: what stands before this section runs without Lightning.
import pytorch_lightning as pl  # noqa: E402

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "bce": bce_loss,
    "bce_dice": bce_dice_loss,
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
    drawn by `seed`, is kept for validation. Raises ValueError if a set would be empty
    or a batch larger than the data. (notebook 04)
    """

    def __init__(
        self,
        data_dir: Path | str,
        batch_size: int = 4,
        image_size: int | tuple[int, int] = (256, 256),
        overfit_num: int = 0,
        *,
        val_share: float = 0.2,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _need_at_least("batch_size", batch_size, 1)
        _need_at_least("overfit_num", overfit_num, 0)
        if not 0 < val_share < 1:
            raise ValueError(
                f"val_share {val_share}: expected more than 0, less than 1"
            )
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.overfit_num = overfit_num
        self.val_share = val_share
        self.num_workers = num_workers
        self.seed = seed
        self.transform = ImageTargetCompose(
            [ImageTargetResize(_height_width(image_size)), ImageTargetToTensor()]
        )

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs and split them; runs in every process."""
        pairs = find_pairs(self.data_dir)
        if self.overfit_num:
            train, val = pairs[:1] * self.overfit_num, pairs[:1]
        else:
            train, val = self._split(pairs)
        if len(train) < self.batch_size:
            raise ValueError(
                f"batch_size {self.batch_size}: there are only {len(train)} training "
                "samples, so not one whole batch; expected a smaller batch or more data"
            )
        self.train_set = PairDataset(train, self.transform, cache=True)
        self.val_set = PairDataset(val, self.transform, cache=True)

    def _split(self, pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(pairs), generator=generator).tolist()
        num_val = max(round(len(pairs) * self.val_share), 1)
        if num_val >= len(pairs):
            raise ValueError(
                f"{self.data_dir}: {len(pairs)} pairs; expected at least 2, one to "
                "train on and one to validate, or overfit_num"
            )
        return (
            [pairs[i] for i in sorted(order[num_val:])],
            [pairs[i] for i in sorted(order[:num_val])],
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled whole batches (B, 3, H, W) and (B, 1, H, W)."""
        return self._loader(self.train_set, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """All of the validation set, in order."""
        return self._loader(self.val_set)

    def _loader(self, dataset: PairDataset, **options: bool) -> DataLoader:
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )


def _share_of_sound_samples(samples: Iterable[Sample]) -> float:
    """Count the foreground of training samples, refusing what cannot be learnt from."""
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
    share = foreground_share(targets)
    if share == 0 and any((target == IGNORE_INDEX).any() for target in targets):
        raise ValueError(
            "no training target has a pixel of 1, but some have 255, which means "
            "ignored; masks of 0/255 must be divided by 255"
        )
    return share


class UISegmentationSystem(pl.LightningModule):
    """A UNet and how it is trained: loss, scores, optimiser and schedule.

    learning_rate: the peak of the OneCycle schedule, which starts at a tenth, peaks
    after 30 % of the steps and ends at a thousandth. loss: "bce" or "bce_dice".
    image_size: (height, width) to predict at; by default the picture's own. Logs
    train_loss, val_loss, val_iou (pooled over all pixels). (notebook 04)
    """

    def __init__(
        self,
        learning_rate: float = 3e-3,
        max_features: int = 256,
        *,
        loss: str = "bce",
        pos_weight: float | None = None,
        image_size: int | tuple[int, int] | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r}: expected one of {', '.join(LOSSES)}")
        self.save_hyperparameters()
        self.network = UNet(max_features=max_features, **network)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Measure how wrong logits are, both (B, K, H, W)."""
        return LOSSES[self.hparams.loss](logits, targets, self.hparams.pos_weight)

    def on_train_start(self) -> None:
        """Start at the data's share of foreground; a resumed run has learnt it."""
        if self.trainer.ckpt_path is None and self.trainer.global_step == 0:
            samples = itertools.islice(self.trainer.train_dataloader.dataset, 100)
            self.network.set_foreground_share(_share_of_sound_samples(samples))

    def training_step(self, batch: Sample, batch_idx: int) -> torch.Tensor:
        image, target = batch
        loss = self.loss(self(image), target)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        image, target = batch
        logits = self(image)
        self.log("val_loss", self.loss(logits, target), batch_size=len(image))
        self._val_counts += iou_counts(logits > 0, target)

    def on_validation_epoch_start(self) -> None:
        self._val_counts = torch.zeros(2, dtype=torch.long, device=self.device)

    def on_validation_epoch_end(self) -> None:
        self.log("val_iou", iou_of(self._val_counts))

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

    @torch.inference_mode()
    def predict_mask(self, image: Image.Image, threshold: float = 0.5) -> np.ndarray:
        """Find the interface in a PIL picture of any size: bool (H, W) of that size.

        threshold: probability, 0..1, from which a pixel counts. Raises ValueError for
        what is not a picture and for a network of several classes.
        """
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"predict_mask got {type(image).__name__}: expected a PIL picture; "
                "files are read by load_image"
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold}: a probability, expected 0 to 1")
        image = _to_rgb(_upright(image), "picture")
        size = (image.height, image.width)
        tensor = v2.functional.to_image(image)
        if self.hparams.image_size:
            size_inside = list(_height_width(self.hparams.image_size))
            tensor = v2.functional.resize(tensor, size_inside, antialias=True)
        tensor = v2.functional.to_dtype(tensor, torch.float32, scale=True)
        was_training = self.training
        self.eval()
        logits = self(tensor[None].as_subclass(torch.Tensor).to(self.device))
        self.train(was_training)
        if logits.shape[1] != 1:
            raise ValueError(
                f"predict_mask: the network knows {logits.shape[1]} classes, not one"
            )
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", antialias=True)
        return (logits[0, 0].sigmoid() >= threshold).cpu().numpy()


class StepProgress(pl.Callback):
    """A progress bar on stdout without clock or rate, so that it can be compared."""

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        self.bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            file=sys.stdout,
            ncols=78,
            desc="training",
            bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} steps",
        )

    def on_train_batch_end(self, *_: Any) -> None:
        self.bar.update()

    def on_train_end(self, *_: Any) -> None:
        self.bar.close()


class Watch(pl.Callback):
    """Remembers how training goes on one sample, looking every few steps.

    Fills `steps`, `losses` (of the batch), `ious` and `probabilities` (float (H, W), on
    the CPU), from step 0 on: the curves and the frames of a GIF.
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
        self.ious.append(float(binary_iou(logits, target[None], from_logits=True)))
        self.probabilities.append(logits[0, 0].sigmoid())
