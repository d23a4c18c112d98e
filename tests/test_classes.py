"""Many classes: maps of ids, cross entropy and confusion against trusted references."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.classification as metrics
from conftest import MakePairs, draw_image
from PIL import Image

import ui_segmentation_system as ui

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "test_inputs"
CLASS_MAPS = ("{key}_input.png", "classes/{key}_classes.png")
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
COLOURS = [RED, GREEN, BLUE]
# As the benchmark's own development kit lists them.
VOC_START = [
    *[(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)],
    *[(128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0)],
    *[(64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128)],
    *[(192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0)],
    (0, 64, 128),
]


def some_ids(count: int = 3, seed: int = 0) -> np.ndarray:
    """Draw class ids 0 to count - 1, all of them, and 255; uint8 (12, 24)."""
    ids = np.random.default_rng(seed).integers(0, count, (12, 24), dtype=np.uint8)
    ids[0, :count] = range(count)
    ids[5, :4] = 255
    return ids


def saved(folder: Path, picture: Any, suffix: str = "png", **options: Any) -> Path:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    path = folder / f"1_classes.{suffix}"
    picture.save(path, **options)
    return path


def in_palette(ids: np.ndarray, colours: list | tuple) -> Image.Image:
    picture = Image.fromarray(ids, "P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def as_ids(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "P"
    return np.array(picture)


WAYS: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "grey": Image.fromarray,
    "grey in three channels": lambda ids: Image.fromarray(ids).convert("RGB"),
    "palette": partial(in_palette, colours=ui.VOC_PALETTE),
    "palette of greys": partial(in_palette, colours=[(n, n, n) for n in range(256)]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_ids_are_read_as_they_are(tmp_path: Path, way: Callable) -> None:
    ids = some_ids(21)
    picture = ui.load_classes(saved(tmp_path, way(ids)), 21)
    assert np.array_equal(as_ids(picture), ids)
    _, target = ui.ImageTargetToTensor()(draw_image(0, (24, 12)), picture)
    assert target.dtype == torch.int64
    assert np.array_equal(target.numpy(), ids)


def test_committed_class_maps_are_read_as_they_are() -> None:
    for path in sorted((PICTURES / "classes").iterdir()):
        found = ui.load_classes(path, 9)
        with Image.open(path) as picture:
            assert np.array_equal(as_ids(found), np.array(picture))
            assert found.convert("RGB").tobytes() == picture.convert("RGB").tobytes()


def test_colours_become_ids_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    ids = some_ids()
    picture = ui.classes_to_colors(ids, COLOURS)
    path = saved(tmp_path, picture)
    found = ui.load_classes(path, 3, palette=COLOURS)
    assert np.array_equal(as_ids(found), ids)
    picture.putpixel((9, 9), (190, 0, 0))
    saved(tmp_path, picture)
    for distance, expected in ((0, 255), (9, 255), (10, 0)):
        found = ui.load_classes(path, palette=COLOURS, max_distance=distance)
        assert as_ids(found)[9, 9] == expected


def test_a_palette_reads_colours_whatever_the_files_indices(tmp_path: Path) -> None:
    ids = some_ids()
    shuffled = ui.classes_to_colors(ids, COLOURS).quantize(4)
    assert np.array_equal(
        as_ids(ui.load_classes(saved(tmp_path, shuffled), palette=COLOURS)), ids
    )


def test_voc_masks_are_read_by_index_and_by_colour(tmp_path: Path) -> None:
    assert list(ui.VOC_PALETTE[:21]) == VOC_START
    assert ui.VOC_PALETTE[255] == (224, 224, 192)
    picture = in_palette(some_ids(21), ui.VOC_PALETTE)
    by_index = ui.load_classes(saved(tmp_path, picture), 21)
    painted = saved(tmp_path, picture.convert("RGB"))
    by_colour = ui.load_classes(painted, 21, palette=ui.VOC_PALETTE[:21])
    assert np.array_equal(as_ids(by_index), as_ids(by_colour))
    assert np.array_equal(as_ids(by_index), some_ids(21))


def test_every_class_has_a_colour_of_its_own_in_figures(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = ui.load_classes(saved(tmp_path, ids))
    shown = ui.to_array(torch.from_numpy(ids).long())
    assert np.array_equal(shown, ui.to_array(picture))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 256
    assert [tuple(colour) for colour in shown[0, :9].tolist()] == list(ui.PALETTE)


def test_what_is_transparent_is_ignored(tmp_path: Path) -> None:
    ids = some_ids()
    alpha = np.full(ids.shape, 255, np.uint8)
    alpha[:, 7:] = 0
    expected = np.where(alpha > 0, ids, 255)
    grey = Image.merge("LA", [Image.fromarray(ids), Image.fromarray(alpha)])
    assert np.array_equal(as_ids(ui.load_classes(saved(tmp_path, grey))), expected)
    painted = ui.classes_to_colors(ids, COLOURS)
    painted.putalpha(Image.fromarray(alpha))
    found = ui.load_classes(saved(tmp_path, painted), palette=COLOURS)
    assert np.array_equal(as_ids(found), expected)


@pytest.mark.parametrize(
    ("make", "suffix", "options", "words"),
    [
        (
            lambda: some_ids(5),
            "png",
            {"num_classes": 3},
            ["class ids 3, 4 in ", " of 288 pixels; expected 0 to 2, or 255"],
        ),
        (
            lambda: ui.classes_to_colors(some_ids(), COLOURS),
            "png",
            {},
            ["it has colours, most frequent are (", "palette=[(0, 0, 0), ...]"],
        ),
        (
            lambda: ui.classes_to_colors(some_ids(), COLOURS),
            "png",
            {"palette": [(1, 2, 3), (4, 5, 6)]},
            ["no pixel has a colour of the palette", "expected some of (1, 2, 3), (4"],
        ),
        (lambda: some_ids().astype(np.uint16), "png", {}, ["16 or 32 bits (I;16)"]),
        (lambda: some_ids().astype(np.int32), "tif", {}, ["16 or 32 bits (I)"]),
        (lambda: some_ids() > 0, "png", {}, ["values of 1 bit", "load_mask"]),
        (lambda: some_ids(), "jpg", {}, ["a lossy file", "as PNG"]),
    ],
)
def test_what_is_no_class_map_is_refused(
    tmp_path: Path, make: Callable, suffix: str, options: dict, words: list[str]
) -> None:
    path = saved(tmp_path, make(), suffix)
    with pytest.raises(ValueError) as told:
        ui.load_classes(path, **options)
    for word in [str(path), *words]:
        assert word in str(told.value)


def test_ids_beyond_are_counted(tmp_path: Path) -> None:
    ids = np.zeros((4, 5), np.uint8)
    ids[0, :3], ids[1, 0] = (9, 9, 7), 255
    path = saved(tmp_path, ids)
    with pytest.raises(ValueError, match="class ids 7, 9 in 3 of 20 pixels"):
        ui.load_classes(path, 7)
    assert np.array_equal(as_ids(ui.load_classes(path, 10)), ids)
    for number in (0, 256):
        with pytest.raises(
            ValueError, match=f"num_classes {number}: expected 1 to 255"
        ):
            ui.load_classes(path, number)


def test_bad_files_are_named(bad_files: dict[str, Path], tmp_path: Path) -> None:
    for path in bad_files.values():
        with pytest.raises(ValueError, match="expected a whole picture"):
            ui.load_classes(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ui.load_classes(tmp_path / "none.png")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_packed_masks_are_unpacked(tmp_path: Path, count: int) -> None:
    masks = np.random.default_rng(count).integers(0, 2, (count, 6, 9))
    masks[:, 0, 0] = 1
    path = saved(tmp_path, ui.pack_masks(masks).numpy())
    found = ui.load_masks(path, count)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), masks)
    if count > 1:
        with pytest.raises(ValueError, match=rf"at most {2 ** (count - 1) - 1}, the"):
            ui.load_masks(path, count - 1)
    with pytest.raises(ValueError, match="num_classes 9: expected 1 to 8"):
        ui.load_masks(path, 9)


def test_one_bit_too_many_is_named_with_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([[4, 0]], np.uint8))
    with pytest.raises(ValueError, match=r"1_classes.png: values 0, 4; .* most 3, the"):
        ui.load_masks(path, 2)


# ---- the doctor


def test_doctor_reads_class_maps_without_a_false_alarm() -> None:
    read = partial(ui.load_classes, num_classes=9)
    report = ui.check_pairs(PICTURES, CLASS_MAPS, read_target=read)
    assert report.problems == ()
    assert report.num_pairs == 120
    assert report.foreground_share is None
    files = [target for _, target in ui.find_pairs(PICTURES, CLASS_MAPS)]
    counts = [np.bincount(np.array(read(path)).ravel(), minlength=9) for path in files]
    expected = np.sum(counts, axis=0) / np.sum(counts)
    assert report.class_shares == pytest.approx(expected)
    assert f"0 {expected[0]:.2%}, 1 {expected[1]:.2%}" in str(report)


def class_folder(folder: Path, maps: list[np.ndarray], suffix: str = "png") -> Path:
    """Write images and class maps that belong together."""
    folder.mkdir(exist_ok=True)
    for number, ids in enumerate(maps, start=1):
        draw_image(number, ids.shape[::-1]).save(folder / f"{number}_input.png")
        Image.fromarray(ids).save(folder / f"{number}_target.{suffix}")
    return folder


def findings(folder: Path, **options: Any) -> list[tuple[str, str, str]]:
    read = partial(ui.load_classes, **options)
    report = ui.check_pairs(folder, read_target=read)
    return [(found.severity, found.file, found.what) for found in report.problems]


def test_doctor_says_what_is_wrong_with_class_maps(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "a", [some_ids(5, n) for n in range(3)])
    assert findings(folder, num_classes=5) == []
    assert findings(folder) == []
    missing = ("warning", "3 targets", "have no pixel of class 5, 6")
    assert findings(folder, num_classes=7) == [missing]
    greys = np.repeat(np.arange(7), 3).reshape(7, 3)
    assert findings(folder, palette=greys) == [missing]
    faults = findings(folder, num_classes=4)
    assert [(kind, file) for kind, file, _ in faults] == [
        ("error", f"{number}_target.png") for number in (1, 2, 3)
    ]
    maps = [some_ids(5), np.full((12, 24), 255, np.uint8), np.full((12, 24), 3)]
    folder = class_folder(tmp_path / "b", [ids.astype(np.uint8) for ids in maps])
    assert [what for _, _, what in findings(folder)] == [
        "all is ignored: nothing can be learnt",
        "all is class 3",
    ]


def test_doctor_knows_masks_of_two_levels_from_class_maps(
    make_pairs: MakePairs,
) -> None:
    folder = make_pairs(6)
    errors = [found for found in findings(folder, num_classes=3) if found[0] == "error"]
    told = "hold nothing but 0 and 255, and 255 is ignored"
    assert errors == [("error", "6 targets", told)]


def test_doctor_lets_more_than_half_be_classes(tmp_path: Path) -> None:
    maps = [some_ids(9, seed) for seed in range(8)]
    assert np.mean([ids > 0 for ids in maps]) > 0.5
    assert findings(class_folder(tmp_path / "a", maps), num_classes=9) == []


def test_doctor_speaks_of_colours_in_a_lossy_map(tmp_path: Path) -> None:
    blocks = np.kron(some_ids(), np.ones((8, 8), np.uint8))
    folder = class_folder(tmp_path / "a", [blocks])
    (folder / "1_target.png").unlink()
    colours = ui.classes_to_colors(blocks, COLOURS)
    colours.save(folder / "1_target.jpg", quality=95)
    (found,) = findings(folder, palette=COLOURS, max_distance=60)
    assert found == ("warning", "1 targets", "are JPEG, which blurs colours")


def test_doctor_reads_packed_masks(tmp_path: Path) -> None:
    masks = np.zeros((2, 12, 16), int)
    masks[0, 2:8, 2:9] = masks[1, 5:11, 6:12] = 1
    folder = class_folder(tmp_path / "a", [ui.pack_masks(masks).numpy()])
    read = partial(ui.load_masks, num_classes=2)
    report = ui.check_pairs(folder, read_target=read)
    assert report.problems == ()
    assert report.foreground_share == pytest.approx((masks.max(axis=0) == 1).mean())
    sample = ui.UIImageMaskDataset(folder, read_target=read, cache=True)
    assert torch.equal(sample[0].target, torch.from_numpy(masks).float())
    sample[0].target.zero_()
    assert sample[0].target.sum() == masks.sum(), "the cache was written to"
    image = draw_image(9, (17, 12))
    image.save(folder / "1_input.png")
    (problem,) = ui.check_pairs(folder, read_target=read).problems
    assert problem.what == "16x12, but 1_input.png is 17x12"
    with pytest.raises(ValueError, match=r"16x12, but .* is 17x12"):
        ui.UIImageMaskDataset(folder, read_target=read)[0]


# ---- losses and scores


def class_case(seed: int, num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw logits (2, K, 5, 7) and ids (2, 5, 7), a fifth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 5, 7, generator=generator) * 3
    targets = torch.randint(0, num_classes, (2, 5, 7), generator=generator)
    targets[torch.rand(2, 5, 7, generator=generator) < 0.2] = 255
    return logits, targets


def reference_loss(logits: np.ndarray, targets: np.ndarray, weights: list) -> float:
    """Sum pixel by pixel, as the formula says."""
    total = mass = 0.0
    for b, y, x in np.ndindex(*targets.shape):
        wanted = targets[b, y, x]
        if wanted == 255:
            continue
        exponents = [math.exp(value) for value in logits[b, :, y, x].tolist()]
        total -= weights[wanted] * math.log(exponents[wanted] / sum(exponents))
        mass += weights[wanted]
    return total / mass


@pytest.mark.parametrize("weights", [None, [1, 1, 1, 1], [0.5, 2, 0, 7.5]], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_is_the_formula(seed: int, weights: list | None) -> None:
    logits, targets = class_case(seed)
    loss = ui.cross_entropy_loss(logits, targets, weights)
    expected = reference_loss(logits.numpy(), targets.numpy(), weights or [1] * 4)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    tensor = None if weights is None else torch.tensor(weights).float()
    trusted = F.cross_entropy(logits, targets, tensor, ignore_index=255)
    torch.testing.assert_close(loss, trusted)
    if tensor is not None:
        assert torch.equal(loss, ui.cross_entropy_loss(logits, targets, tensor))


def test_ignored_pixels_do_not_matter_to_cross_entropy() -> None:
    logits, targets = class_case(3)
    logits.requires_grad_()
    ignored = (targets == 255)[:, None]
    changed = torch.where(ignored, -5 * logits.detach(), logits.detach())
    loss = ui.cross_entropy_loss(logits, targets)
    assert torch.equal(loss, ui.cross_entropy_loss(changed, targets))
    loss.backward()
    assert (logits.grad[ignored.expand_as(logits)] == 0).all()
    assert (logits.grad[~ignored.expand_as(logits)] != 0).all()
    other = torch.where(targets == 255, 77, targets)
    assert torch.equal(loss, ui.cross_entropy_loss(logits, other, ignore_index=77))


@pytest.mark.parametrize("weights", [None, [1, 2, 3]])
def test_nothing_but_ignored_pixels_costs_nothing(weights: list | None) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = ui.cross_entropy_loss(logits, torch.full((2, 4, 4), 255), weights)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_pixels_that_weigh_nothing_cost_nothing() -> None:
    logits = torch.randn(1, 2, 3, 3)
    assert ui.cross_entropy_loss(logits, torch.ones(1, 3, 3).long(), [1, 0]) == 0


def test_half_precision_logits_are_judged_in_float32() -> None:
    logits, targets = class_case(4)
    rough = logits.bfloat16()
    loss = ui.cross_entropy_loss(rough, targets, [1, 2, 3, 4])
    assert loss.dtype == torch.float32
    trusted = ui.cross_entropy_loss(rough.float(), targets, [1, 2, 3, 4])
    torch.testing.assert_close(loss, trusted)


IDS = torch.zeros(2, 4, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(2, 3, 4, 5), r"argmax\(dim=1\) makes class ids of one-hot"),
        (IDS[:, None], r"expected class ids \(2, 4, 5\); targets\[:, 0\]"),
        (IDS[:, :3], r"targets \(2, 3, 5\): expected class ids \(2, 4, 5\)"),
        (IDS[:1], r"targets \(1, 4, 5\): expected class ids \(2, 4, 5\)"),
        (IDS.float(), "targets of torch.float32: expected class ids, int64"),
        (IDS.to(torch.uint8), "targets of torch.uint8: expected class ids, int64"),
        (IDS + 3, "class id 3: expected 0 to 2 or 255 for ignored"),
        (IDS - 1, "class id -1: expected 0 to 2"),
        (IDS + 254, "class id 254: expected 0 to 2"),
    ],
)
def test_targets_that_are_no_class_ids_are_refused(
    targets: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ui.cross_entropy_loss(torch.zeros(2, 3, 4, 5), targets)


def test_other_logits_and_weights_are_refused() -> None:
    logits = torch.zeros(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 5\): .*at least 2 classes"):
        ui.cross_entropy_loss(logits[:, :1], IDS)
    with pytest.raises(ValueError, match=r"logits \(2, 4, 5\): expected \(B, K, H, W"):
        ui.cross_entropy_loss(IDS.float(), IDS)
    for weights, message in (
        ([1, 2], r"shape \(2,\): expected 3, one per class"),
        ([[1, 2, 3]], r"shape \(1, 3\): expected 3"),
        ([1, 2, -1], r"\[1.0, 2.0, -1.0\]: expected finite numbers from 0 up"),
        ([1, 2, math.nan], "expected finite numbers"),
        ([0, 0, 0], "not all of them 0"),
        ([1, 2, math.inf], "expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            ui.cross_entropy_loss(logits, IDS, weights)


def test_a_loaded_class_map_is_counted_and_painted(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "map.png")
    picture = ui.load_classes(tmp_path / "map.png")
    palette = ui.CLASS_COLOURS[:3]
    painted = ui.classes_to_colors(picture, palette)
    assert np.array_equal(painted, ui.classes_to_colors(ids, palette))
    found = np.where(ids == 255, 0, ids)
    matrix = ui.confusion_matrix(found, picture, 3)
    assert torch.equal(matrix, torch.diag(torch.tensor([2, 1, 2])))


def test_masks_say_where_class_ids_belong() -> None:
    with pytest.raises(ValueError, match=r'class ids are for .*task="multiclass"'):
        ui.bce_loss(torch.zeros(2, 1, 4, 5), IDS)


def reference_counts(found: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    matrix = np.zeros((count, count), int)
    for f, w in zip(found.flat, wanted.flat, strict=True):
        if w != 255:
            matrix[w, f] += 1
    return matrix


def reference_ious(found: np.ndarray, wanted: np.ndarray, count: int) -> list[float]:
    known = wanted != 255
    scores = []
    for number in range(count):
        both = ((found == number) & (wanted == number) & known).sum()
        either = (((found == number) | (wanted == number)) & known).sum()
        scores.append(both / either if either else math.nan)
    return scores


@pytest.mark.parametrize("num_classes", [2, 4, 21])
@pytest.mark.parametrize("seed", range(3))
def test_scores_against_references(seed: int, num_classes: int) -> None:
    logits, targets = class_case(seed, num_classes)
    found = logits.argmax(dim=1)
    matrix = ui.confusion_matrix(found, targets, num_classes)
    assert matrix.dtype == torch.int64
    expected = reference_counts(found.numpy(), targets.numpy(), num_classes)
    assert np.array_equal(matrix.numpy(), expected)
    options = {"num_classes": num_classes, "ignore_index": 255}
    trusted = metrics.multiclass_confusion_matrix(found, targets, **options)
    assert torch.equal(matrix, trusted)
    ious = ui.class_iou(matrix)
    assert ious.dtype == torch.float32
    by_hand = reference_ious(found.numpy(), targets.numpy(), num_classes)
    np.testing.assert_allclose(ious.numpy(), by_hand, rtol=1e-6)
    trusted = metrics.multiclass_jaccard_index(
        found, targets, average="none", **options
    )
    torch.testing.assert_close(ious.nan_to_num(0), trusted)
    assert ui.mean_iou(matrix).item() == pytest.approx(np.nanmean(by_hand))


def test_rows_are_targets_and_batches_add_up() -> None:
    targets, found = torch.tensor([[0, 0, 1]]), torch.tensor([[1, 1, 1]])
    assert ui.confusion_matrix(found, targets, 2).tolist() == [[0, 2], [0, 1]]
    logits, targets = class_case(5)
    found = logits.argmax(dim=1)
    parts = zip(found, targets, strict=True)
    total = sum(ui.confusion_matrix(*part, 4) for part in parts)
    assert torch.equal(total, ui.confusion_matrix(found, targets, 4))
    arrays = found.numpy().astype(np.uint8), targets.numpy()
    assert torch.equal(total, ui.confusion_matrix(*arrays, 4))


def test_iou_of_classes_that_are_nowhere() -> None:
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert ui.class_iou(matrix)[:2].tolist() == pytest.approx([3 / 4, 4 / 5])
    assert ui.class_iou(matrix)[2].isnan()
    assert ui.mean_iou(matrix).item() == pytest.approx((3 / 4 + 4 / 5) / 2)
    found_only = torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert ui.class_iou(found_only)[2] == 0
    nothing = ui.confusion_matrix(IDS, torch.full_like(IDS, 255), 3)
    assert nothing.sum() == 0
    assert ui.class_iou(nothing).isnan().all()
    assert ui.mean_iou(nothing) == 1


def test_predictions_that_are_no_class_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 .*logits need argmax\(dim=1\)"):
        ui.confusion_matrix(torch.zeros(2, 4, 5), IDS, 3)
    with pytest.raises(ValueError, match="expected class ids of one shape"):
        ui.confusion_matrix(IDS, IDS.float(), 3)
    with pytest.raises(ValueError, match=r"\(2, 3, 5\) .* one shape"):
        ui.confusion_matrix(IDS[:, :3], IDS, 3)
    with pytest.raises(
        ValueError, match=r"prediction with class id 3: expected 0 to 2$"
    ):
        ui.confusion_matrix(IDS + 3, IDS, 3)
    with pytest.raises(ValueError, match="prediction with class id 255"):
        ui.confusion_matrix(IDS + 255, IDS, 3)
    with pytest.raises(ValueError, match=r"targets with class id 9: .*or 255"):
        ui.confusion_matrix(IDS, IDS + 9, 3)


def test_shares_of_classes_leave_out_ignored() -> None:
    maps = [torch.tensor([[0, 1, 255]]), torch.tensor([[1, 1, 3]])]
    expected = torch.tensor([1, 3, 0, 1]) / 5
    torch.testing.assert_close(ui.shares_of_classes(maps, 4), expected)
    torch.testing.assert_close(ui.shares_of_classes(iter(maps), 4), expected)
    assert ui.shares_of_classes([torch.full((2, 2), 255)], 2).tolist() == [0, 0]
    with pytest.raises(ValueError, match="target with class id 3: expected 0 to 2"):
        ui.shares_of_classes(maps, 3)


# ---- the network's start


@pytest.mark.parametrize("fast", [False, True])
def test_head_starts_at_the_prior(fast: bool) -> None:
    network = ui.UNet(3, 3, 16, fast=fast)
    torch.nn.init.zeros_(network.head.weight)
    image = torch.rand(1, 3, 20, 22)
    shares = torch.tensor([0.7, 0.25, 0.05]).view(3, 1, 1).expand(3, 20, 22)
    with torch.no_grad():
        network.set_class_shares([0.7, 0.25, 0.05])
        torch.testing.assert_close(network(image).softmax(dim=1)[0], shares)
        network.set_foreground_share([0.7, 0.25, 0.05])
        torch.testing.assert_close(network(image).sigmoid()[0], shares)
        network.set_foreground_share(0.2)
        alike = torch.full_like(shares, 0.2)
        torch.testing.assert_close(network(image).sigmoid()[0], alike)
        network.set_class_shares([1, 0, 0])
        assert network(image).softmax(dim=1)[0, 1:].mean() == pytest.approx(1e-3, 0.01)


def test_as_many_shares_as_classes() -> None:
    network = ui.UNet(3, 3, 16)
    for start in (network.set_class_shares, network.set_foreground_share):
        with pytest.raises(ValueError, match="2 shares: expected 3, one per class"):
            start([0.5, 0.5])
