"""Many classes: maps of ids, cross entropy and confusion against trusted references."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as metrics
from PIL import Image

import ui_segmentation_system as ui
from tests.conftest import colours, draw_image, indexed, levels, regions

CLASS_MAPS = Path(__file__).parents[1] / "test_inputs" / "classes"
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
PAINTED = colours(RED, GREEN, BLUE)
# As the benchmark's own development kit lists them: from bits of the id.
VOC = {0: BLACK, 1: (128, 0, 0), 3: (128, 128, 0), 8: (64, 0, 0), 20: (0, 64, 128)}
VOC |= {13: (192, 0, 128), 255: (224, 224, 192)}


def deep(*values: int) -> Image.Image:
    return levels(*values, dtype=np.uint16)


def clear(picture: Image.Image, *numbers: int) -> Image.Image:
    """Make regions transparent."""
    hidden = np.isin(regions(), numbers)
    picture.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype("u1")))
    return picture


def saved(folder: Path, picture: Image.Image, suffix: str = "png") -> Path:
    path = folder / f"1_classes.{suffix}"
    picture.save(path, quality=90)
    return path


SHUFFLED = {9: RED, 4: GREEN, 7: BLUE}
GREY_OF = {0: BLACK, 1: (128,) * 3, 2: WHITE}
BY_COLOUR, ZERO_ONE = [[RED], [GREEN, BLUE]], [[0], [1]]
RED_GREEN, RED_BLUE = [[RED], [GREEN]], [[RED], [BLUE]]
CLEAR_1, CLEAR_1_2 = clear(PAINTED.copy(), 1), clear(PAINTED.copy(), 1, 2)
CLEAR_IDS = [clear(levels(0, 1, 2).convert("LA"), number) for number in range(3)]
READ: list[tuple] = [
    # picture, options, what the regions become; saved as, if not "png"
    (levels(0, 1, 20), {"num_classes": 21}, [0, 1, 20]),
    (levels(0, 1, 20).convert("RGB"), {"num_classes": 21}, [0, 1, 20]),
    (deep(0, 1, 255), {"num_classes": 2}, [0, 1, 255]),
    (indexed(SHUFFLED), {}, [9, 4, 7]),
    (indexed({n: (n, n, n) for n in (0, 1, 20)}), {}, [0, 1, 20]),
    (levels(0, 3, 255), {"num_classes": np.int64(4)}, [0, 3, 255]),
    # Values that nobody judged.
    (levels(0, 1, 11), {"num_classes": 2, "ignore": [11]}, [0, 1, 255]),
    (deep(0, 1, 300), {"num_classes": 2, "ignore": [300]}, [0, 1, 255]),
    (indexed(SHUFFLED), {"ignore": [9]}, [255, 4, 7]),
    (indexed(SHUFFLED), {"ignore": [BLUE]}, [9, 4, 255]),
    (CLEAR_IDS[1], {}, [0, 255, 2]),
    # By a palette.
    (PAINTED, {"palette": [RED, GREEN, BLUE]}, [0, 1, 2]),
    (PAINTED, {"palette": [BLUE, RED], "num_classes": 2}, [1, 255, 0]),
    (PAINTED, {"palette": [RED, GREEN], "ignore": [BLUE]}, [0, 1, 255]),
    (PAINTED, {"palette": [(190, 0, 0)], "max_distance": 10}, [0, 255, 255]),
    (PAINTED.quantize(4), {"palette": [RED, GREEN, BLUE]}, [0, 1, 2]),
    (indexed(SHUFFLED), {"palette": [RED, GREEN, BLUE]}, [0, 1, 2]),
    (indexed(GREY_OF), {"palette": [*GREY_OF.values()]}, [0, 1, 2]),
    (colours(BLACK, WHITE), {"palette": [BLACK, WHITE, RED]}, [0, 1]),
    (clear(PAINTED.copy(), 2), {"palette": [RED, GREEN, BLUE]}, [0, 1, 255]),
    # By lists of what each class has in the file.
    (levels(0, 1, 2), {"classes": [[0], range(1, 3)]}, [0, 1, 1]),
    (levels(0, 1, 2), {"classes": [[0, 1], []], "ignore": [2]}, [0, 0, 255]),
    (levels(0, 1, 255), {"classes": ZERO_ONE, "ignore": [255]}, [0, 1, 255]),
    (levels(0, 1, 255), {"classes": [[0], [1], [255]]}, [0, 1, 2]),
    (levels(0, 1, 255), {"classes": ZERO_ONE}, [0, 1, 255]),  # void
    (levels(0, 2, 255), {"classes": ZERO_ONE, "ignore": [2]}, [0, 255, 255]),
    (deep(0, 300, 40000), {"classes": [[0], [300], [40000]]}, [0, 1, 2]),
    (levels(0, 90, 200), {"classes": [[0], [90], [200]]}, [0, 1, 2], "jpg"),
    (PAINTED, {"classes": BY_COLOUR}, [0, 1, 1]),
    (PAINTED, {"classes": RED_GREEN, "ignore": [BLUE]}, [0, 1, 255]),
    (PAINTED, {"classes": RED_GREEN}, [0, 1, 255]),
    (PAINTED, {"classes": BY_COLOUR}, [0, 1, 1], "jpg"),
    (CLEAR_1, {"classes": RED_BLUE, "ignore": [GREEN]}, [0, 255, 1]),
    # What is transparent hides the colour of a class.
    (CLEAR_1, {"classes": BY_COLOUR}, [0, 255, 1]),
    (CLEAR_1_2, {"classes": RED_GREEN, "ignore": [BLUE]}, [0, 255, 255]),
    # A transparent background, named as the first class.
    (clear(PAINTED.copy(), 0), {"classes": BY_COLOUR}, [0, 1, 1]),
    (CLEAR_IDS[0], {"classes": [[0], [1], [2]]}, [0, 1, 2]),
    (indexed(SHUFFLED), {"classes": BY_COLOUR}, [0, 1, 1]),
    (indexed(GREY_OF), {"classes": [[g] for g in GREY_OF.values()]}, [0, 1, 2]),
    (colours(BLACK, WHITE), {"classes": [[BLACK], [WHITE], [RED]]}, [0, 1]),
    (CLEAR_IDS[2], {"classes": ZERO_ONE}, [0, 1, 255]),
    # An empty map in a smaller mode.
    (Image.new("1", (96, 64)), {"num_classes": 3}, [0]),
    (Image.new("RGB", (96, 64)), {"num_classes": 3}, [0]),
    (Image.new("1", (96, 64)), {"classes": [[0], [5]]}, [0]),
    (Image.new("L", (96, 64)), {"palette": [BLACK, RED]}, [0]),
    (Image.new("1", (96, 64)), {"classes": [[BLACK], [RED]]}, [0]),
]


@pytest.mark.parametrize("case", READ)
def test_ids_are_what_was_said(case: tuple, tmp_path: Path) -> None:
    picture, options, expected, suffix = (*case, "png")[:4]
    found = ui.load_classes(saved(tmp_path, picture, suffix), **options)
    assert found.mode == "P"
    assert np.array_equal(np.array(found), np.array(expected)[regions(len(expected))])
    _, target = ui.ImageTargetToTensor()(draw_image(0, (96, 64)), found)
    assert target.dtype == torch.int64
    assert np.array_equal(target.numpy(), np.array(found))


REFUSED: list[tuple] = [
    # picture, options, words of the message; saved as, if not "png"
    (levels(0, 3, 4), {"num_classes": 3}, "3, 4 512 6144 2 255"),
    (levels(0, 3, 255), {"num_classes": 3, "ignore": [255]}, "3"),
    (deep(0, 1, 257), {"num_classes": 2}, "257"),
    (PAINTED, {}, "colours (200,0,0) palette"),
    (PAINTED, {"palette": [(1, 2, 3), (4, 5, 6)]}, "(200,0,0)"),
    (PAINTED, {"classes": [[(1, 2, 3)], [(4, 5, 6)]]}, "(200,0,0)"),
    (PAINTED, {"palette": [RED, GREEN, BLUE], "num_classes": 2}, "2"),
    (PAINTED, {"classes": ZERO_ONE}, "(200,0,0) ids"),
    (levels(0, 1, 2), {"classes": [[BLACK], [RED]]}, "1 2 colours"),
    (levels(0, 1, 2), {"classes": ZERO_ONE}, "2"),
    (indexed(GREY_OF), {}, "128"),
    (levels(0, 255).convert("1"), {}, "255"),
    (levels(0, 90, 200), {}, "90 200 lossy ids classes=", "jpg"),
    (levels(0, 1, 2, 3), {"num_classes": 4}, "3 lossy ids classes=", "jpg"),
    (levels(0, 1, 2), {"classes": [[0], [1], [2]]}, "lossy PNG", "jpg"),
    (colours(BLACK, (0, 0, 1), (0, 0, 2)), {}, "(0,0,2)"),
    (colours(BLACK, (1, 0, 0), (2, 0, 0)), {"num_classes": 3}, "(2,0,0)"),
]


@pytest.mark.parametrize("case", REFUSED)
def test_what_says_no_class_is_refused(case: tuple, tmp_path: Path) -> None:
    picture, options, words, suffix = (*case, "png")[:4]
    path = saved(tmp_path, picture, suffix)
    with pytest.raises(ValueError, match=r"; expected .*; ") as told:
        ui.load_classes(path, **options)
    assert str(told.value).startswith(f"{path}: ")
    for word in words.split():
        assert word in str(told.value).replace(", ", "," if "(" in word else ", ")
    named = "colour that was named" in str(told.value)
    assert named or "two levels" not in str(told.value)


def test_options_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, levels(0, 1), "png")
    assert ui.load_classes(path, classes={"a": [0], "b": [1]}.values()).getextrema()
    for name, options in (
        ("classes 2", {"classes": 2}),
        ("ignore 255", {"classes": [[0], [1]], "ignore": 255}),
        (r"foreground, .* 255\]", {"classes": [[0], [1]], "ignore": [[0, 0, 0]]}),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a list"):
            ui.load_classes(path, **options)


@pytest.mark.parametrize("ids", [(0, 1, 2, 3, 4), (0, 4), (0, 1), (255, 251)])
def test_class_ids_in_a_lossy_file_are_no_background(tmp_path: Path, ids: Any) -> None:
    path = saved(tmp_path, levels(*ids), "jpg")
    with pytest.raises(ValueError, match=r"1_classes\.jpg: greys of unknown meaning"):
        ui.load_mask(path)


def test_committed_class_maps_are_read_as_they_are() -> None:
    for path in sorted(CLASS_MAPS.iterdir()):
        found = ui.load_classes(path, 9)
        with Image.open(path) as picture:
            assert np.array_equal(np.array(found), np.array(picture))
            assert found.convert("RGB").tobytes() == picture.convert("RGB").tobytes()


def test_every_class_has_a_colour_of_its_own_in_figures(tmp_path: Path) -> None:
    assert {number: ui.VOC_PALETTE[number] for number in VOC} == VOC
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = ui.load_classes(saved(tmp_path, Image.fromarray(ids)))
    shown = ui.to_array(torch.from_numpy(ids).long())
    assert np.array_equal(shown, ui.to_array(picture))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 256
    assert [tuple(colour) for colour in shown[0, :9].tolist()] == list(ui.PALETTE)
    painted = ui.classes_to_colors(picture, ui.CLASS_COLOURS[:255])
    assert np.array_equal(np.array(painted), shown)
    matrix = ui.confusion_matrix(np.where(ids == 255, 0, ids), picture, 255)
    assert torch.equal(matrix, torch.eye(255, dtype=torch.int64))


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4, 4)), np.zeros((3, 0, 5))])
def test_no_masks_are_not_packed(nothing: Any) -> None:
    message = r"masks of shape \(.*expected \(1..63, H, W\)"
    with pytest.raises(ValueError, match=message):
        ui.pack_masks(nothing)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_packed_masks_are_unpacked(tmp_path: Path, count: int) -> None:
    masks = np.random.default_rng(count).integers(0, 2, (count, 6, 9))
    masks[:, 0, 0] = 1
    path = saved(tmp_path, Image.fromarray(ui.pack_masks(masks).numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ui.load_masks(path, count)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), masks)
    sample = ui.PairDataset([(path, path)], read_target=lambda _: found, cache=True)
    sample[0].target.zero_()
    assert torch.equal(sample[0].target, found), "the cache was written to"
    packed = Image.fromarray(ui.pack_masks(masks).numpy())
    packed.save(clear := tmp_path / "clear.png", transparency=2**count - 1)
    with pytest.raises(ValueError, match=r"clear.png: transparent pixels; expected"):
        ui.load_masks(clear, count)
    if count > 1:
        words = f"1_classes.png: .*{2**count - 1}.*expected.* {2 ** (count - 1) - 1}"
        with pytest.raises(ValueError, match=words):
            ui.load_masks(path, count - 1)


# ---- losses and scores


def class_case(seed: int, num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw logits (2, K, 5, 7) and ids (2, 5, 7), a fifth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 5, 7, generator=generator) * 3
    targets = torch.randint(0, num_classes, (2, 5, 7), generator=generator)
    targets[torch.rand(2, 5, 7, generator=generator) < 0.2] = 255
    return logits, targets


def reference_loss(logits: torch.Tensor, targets: torch.Tensor, weights: Any) -> float:
    """Average -log of the wanted classes' softmax, weighted by the class."""
    judged = targets != 255
    wanted = targets[judged]
    powers = logits.movedim(1, -1)[judged].double().exp()
    chances = powers[range(len(wanted)), wanted] / powers.sum(dim=1)
    return float(np.average(-chances.log(), weights=np.asarray(weights)[wanted]))


WEIGHTS = [None, [1, 1, 1, 1], [0.5, 2, 0, 7.5], torch.tensor([0.5, 2, 0, 7.5])]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_is_the_formula(seed: int, weights: Any) -> None:
    logits, targets = class_case(seed)
    loss = ui.cross_entropy_loss(logits, targets, weights)
    expected = reference_loss(logits, targets, [1] * 4 if weights is None else weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    rough = logits.bfloat16()
    loss = ui.cross_entropy_loss(rough, targets, weights)
    assert loss.dtype == torch.float32
    trusted = ui.cross_entropy_loss(rough.float(), targets, weights)
    torch.testing.assert_close(loss, trusted)


def test_ignored_pixels_do_not_matter_to_cross_entropy() -> None:
    logits, targets = class_case(3)
    logits.requires_grad_()
    ignored = (targets == 255)[:, None]
    changed = torch.where(ignored, torch.inf, logits.detach())
    loss = ui.cross_entropy_loss(logits, targets)
    assert torch.equal(loss, ui.cross_entropy_loss(changed, targets))
    loss.backward()
    assert (logits.grad[ignored.expand_as(logits)] == 0).all()
    assert (logits.grad[~ignored.expand_as(logits)] != 0).all()


@pytest.mark.parametrize(
    ("target", "weights"), [(255, None), (255, [1, 2, 3]), (1, [1, 0, 1])]
)
def test_what_does_not_count_costs_nothing(target: int, weights: list | None) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = ui.cross_entropy_loss(logits, torch.full((2, 4, 4), target), weights)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("num_classes", [2, 4, 21])
@pytest.mark.parametrize("seed", range(3))
def test_scores_against_references(seed: int, num_classes: int) -> None:
    logits, targets = class_case(seed, num_classes)
    found = logits.argmax(dim=1)
    matrix = ui.confusion_matrix(found, targets, num_classes)
    assert matrix.dtype == torch.int64
    options = {"num_classes": num_classes, "ignore_index": 255}
    trusted = metrics.multiclass_confusion_matrix(found, targets, **options)
    assert torch.equal(matrix, trusted)
    parts = zip(found.numpy().astype(np.uint8), targets.numpy(), strict=True)
    added = sum(ui.confusion_matrix(*part, num_classes) for part in parts)
    assert torch.equal(added, matrix)
    deep = (part.numpy().astype(np.uint16) for part in (found, targets))
    assert torch.equal(ui.confusion_matrix(*deep, num_classes), matrix)
    deep = torch.from_numpy(targets.numpy().astype(np.uint16))
    shares = ui.shares_of_classes([deep], num_classes)
    assert torch.equal(shares, ui.shares_of_classes([targets], num_classes))
    ious = ui.class_iou(matrix)
    assert ious.dtype == torch.float32
    matrix_of = trusted.numpy()
    both = matrix_of.diagonal()
    by_hand = both / (matrix_of.sum(axis=0) + matrix_of.sum(axis=1) - both)
    np.testing.assert_allclose(ious, by_hand, rtol=1e-6)
    assert ui.mean_iou(matrix).item() == pytest.approx(np.nanmean(by_hand))


def test_iou_of_classes_that_are_nowhere() -> None:
    targets, found = torch.tensor([[0, 0, 1]]), torch.tensor([[1, 1, 1]])
    matrix = ui.confusion_matrix(found, targets, 2)
    assert matrix.tolist() == [[0, 2], [0, 1]], "a row is a target"
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert ui.class_iou(matrix)[:2].tolist() == pytest.approx([3 / 4, 4 / 5])
    assert ui.class_iou(matrix)[2].isnan()
    assert ui.mean_iou(matrix).item() == pytest.approx((3 / 4 + 4 / 5) / 2)
    found_only = torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert ui.class_iou(found_only)[2] == 0
    nothing = ui.confusion_matrix(targets, torch.full_like(targets, 255), 3)
    assert nothing.sum() == 0
    assert ui.class_iou(nothing).isnan().all()
    assert ui.mean_iou(nothing) == 1


def test_shares_of_classes_leave_out_ignored() -> None:
    maps = [torch.tensor([[0, 1, 255]]), torch.tensor([[1, 1, 3]])]
    expected = torch.tensor([1, 3, 0, 1]) / 5
    torch.testing.assert_close(ui.shares_of_classes(maps, 4), expected)
    torch.testing.assert_close(ui.shares_of_classes(iter(maps), 4), expected)
    assert ui.shares_of_classes([torch.full((2, 2), 255)], 2).tolist() == [0, 0]


@pytest.mark.parametrize("fast", [False, True])
def test_head_starts_at_the_prior(fast: bool) -> None:
    network = ui.UNet(3, 3, 16, fast=fast)
    torch.nn.init.zeros_(network.head.weight)
    image = torch.rand(1, 3, 20, 22)
    shares = torch.tensor([0.7, 0.25, 0.05]).view(3, 1, 1).expand(3, 20, 22)
    with torch.no_grad():
        network.set_prior([0.7, 0.25, 0.05], exclusive=True)
        torch.testing.assert_close(network(image).softmax(dim=1)[0], shares)
        network.set_prior([0.7, 0.25, 0.05])
        torch.testing.assert_close(network(image).sigmoid()[0], shares)
        network.set_prior([1, 0, 0], exclusive=True)
        assert network(image).softmax(dim=1)[0, 1:].mean() == pytest.approx(1e-3, 0.01)
