"""UNet, losses and scores: any size, known formulas, trusted references."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ui_segmentation_system import (
    ConvBlock,
    InstanceNorm,
    UNet,
    Up,
    bce_dice_loss,
    bce_loss,
    binary_iou,
    confusion_matrix,
    cross_entropy_loss,
    dice_loss,
    foreground_share,
    iou_counts,
    iou_of,
    mean_iou,
    shares_of_classes,
)


@pytest.fixture(params=[{}, {"fast": True}, {"normalize": False}], ids=str)
def small(request: pytest.FixtureRequest) -> UNet:
    """A small UNet, with each option in turn."""
    torch.manual_seed(0)
    return UNet(3, 2, max_features=32, **request.param)


def reference_iou(found: np.ndarray, wanted: np.ndarray) -> float:
    """Count pixel by pixel; 255 in `wanted` is ignored."""
    both = either = 0
    for f, w in zip(found.flat, wanted.flat, strict=True):
        if w == 255:
            continue
        both += bool(f) and w == 1
        either += bool(f) or w == 1
    return both / either if either else 1.0


def random_case(seed: int, shape: tuple[int, ...] = (2, 1, 6, 7)) -> tuple:
    """Draw logits and targets of 0, 1 and some 255."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * 3
    targets = torch.randint(0, 2, shape, generator=generator).float()
    targets[torch.rand(shape, generator=generator) < 0.2] = 255
    return logits, targets


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 32, 33, 40])
@pytest.mark.parametrize("width", [1, 16, 23, 40])
def test_logits_for_any_size(small: UNet, height: int, width: int) -> None:
    logits = small(torch.rand(1, 3, height, width))
    assert logits.shape == (1, 2, height, width)
    assert logits.isfinite().all()


def test_each_image_counts_for_itself(small: UNet) -> None:
    images = torch.rand(3, 3, 20, 36)
    alone = torch.cat([small(image[None]) for image in images])
    torch.testing.assert_close(small(images), alone, atol=1e-4, rtol=1e-4)


def test_training_and_evaluation_agree(small: UNet) -> None:
    image = torch.rand(2, 3, 32, 32)
    training, evaluation = small.train()(image), small.eval()(image)
    torch.testing.assert_close(training, evaluation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_is_that_of_torch_with_its_gradients(training: bool) -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 4, 5, 6) * torch.tensor([1, 10, 0.1])[:, None, None, None]
    scale, shift, sent = torch.rand(4), torch.rand(4), torch.randn_like(image)
    taken = []
    for norm in (InstanceNorm(4), torch.nn.InstanceNorm2d(4, affine=True)):
        norm.train(training)
        norm.load_state_dict({"weight": scale, "bias": shift})
        x = image.to(memory_format=torch.channels_last).requires_grad_()
        y = norm(x)
        y.backward(sent)
        taken.append([y.detach(), x.grad, norm.weight.grad, norm.bias.grad])
    for ours, theirs in zip(*taken, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_all_levels_but_the_first_are_normalized() -> None:
    def channels(net: UNet) -> list[int]:
        norms = (part for part in net.modules() if isinstance(part, torch.nn.GroupNorm))
        return [norm.num_channels for norm in norms]

    assert channels(UNet(max_features=32)) == [4, 8, 16, 32, 8, 32, 16, 8, 4]
    assert channels(UNet(max_features=32, normalize=False)) == []


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("num_levels", [2, 3, 5, 7])
def test_levels_halve_sides_and_double_channels(num_levels: int, fast: bool) -> None:
    net = UNet(max_features=64, num_levels=num_levels, fast=fast).eval()
    step = 2 ** (num_levels - 1) * (1 + fast)
    kept = net.encode(torch.rand(1, 3, 2 * step, 3 * step))
    first = 64 >> num_levels - 1
    assert [tuple(level.shape[1:]) for level in kept] == [
        (first << n, 2 * step >> n + fast, 3 * step >> n + fast)
        for n in range(num_levels)
    ]
    for height, width in ((1, 1), (step + 1, 2 * step), (37, 100)):
        assert net(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)


def test_each_channel_of_each_image_is_normalized() -> None:
    x = torch.rand(2, 3, 20, 30) * 50
    block = ConvBlock(3, 4, normalize=True)
    x = block[1](block[0](x))
    torch.testing.assert_close(x.mean((2, 3)), torch.zeros(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((2, 3)), torch.ones(2, 4), atol=1e-2, rtol=0)


def test_both_ways_up_are_used() -> None:
    torch.manual_seed(0)
    up = Up(4, normalize=False)
    x, skip = torch.rand(1, 8, 5, 6), torch.rand(1, 4, 10, 12)
    assert up(x, skip).shape == (1, 4, 10, 12)
    assert not torch.equal(up(x, skip), up(x, skip * 0))
    assert not torch.equal(up(x, skip), up(x * 0, skip))


def test_every_weight_learns(small: UNet) -> None:
    small(torch.rand(2, 3, 48, 48)).square().mean().backward()
    for name, weight in small.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_about_a_million_parameters() -> None:
    count = sum(weight.numel() for weight in UNet().parameters())
    assert 0.9e6 < count < 1.1e6


def test_without_normalization_far_pixels_do_not_matter() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 512)
    changed = image.clone()
    changed[..., 400:] = 0
    net = UNet(max_features=16, normalize=False)
    assert torch.equal(net(image)[..., :200], net(changed)[..., :200])
    net = UNet(max_features=16)
    assert not torch.equal(net(image)[..., :200], net(changed)[..., :200])


def test_same_seed_same_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(UNet(max_features=16).state_dict().values())

    assert all(map(torch.equal, weights(3), weights(3)))
    assert not all(map(torch.equal, weights(3), weights(4)))


def test_weights_start_as_kaiming_says() -> None:
    torch.manual_seed(0)
    for layer in UNet().modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 1000:
            fan_in = layer.weight[0].numel()
            spread = layer.weight.std().item()
            assert spread == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
            assert (layer.bias == 0).all()


def test_weights_survive_a_file(small: UNet, tmp_path) -> None:
    torch.save(small.state_dict(), tmp_path / "net.pt")
    options = {"normalize": "downs.0.1.1.weight" in small.state_dict()}
    other = UNet(3, 2, max_features=32, fast=small.shrink == 2, **options)
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    image = torch.rand(1, 3, 20, 20)
    assert torch.equal(other(image), small(image))


IMAGE = torch.rand(1, 3, 8, 8)
ONE = UNet(max_features=16)
REFUSED: list[tuple[Callable, tuple, str]] = [
    # what is called, with what, and how the message names what arrived and is expected
    (ONE, (IMAGE[:, :1],), r"\(1, 1, 8, 8\): expected torch.float32 \(B, 3, H, W\)"),
    (ONE, (torch.rand(2, 4, 8, 8),), r"\(2, 4, 8, 8\): .*channels num_in_channels"),
    (ONE, (IMAGE[0],), r"\(3, 8, 8\): .*one image needs \[None\]"),
    (ONE, (IMAGE.byte(),), r"got torch.uint8 .*whole numbers / 255"),
    (ONE, (IMAGE.long(),), r"got torch.int64 .*whole numbers / 255"),
    (ONE, (IMAGE[:0],), r"\(0, 3, 8, 8\): expected"),
    (ONE, (IMAGE[:, :, :0],), r"\(1, 3, 0, 8\): expected"),
    (
        copy.deepcopy(ONE).double(),
        (IMAGE,),
        "got torch.float32.*expected torch.float64",
    ),
    (ONE, (IMAGE.bfloat16(),), "got torch.bfloat16.*expected torch.float32"),
    (UNet, (3, 1, 100), "max_features 100: expected a multiple of 16"),
    (UNet, (3, 1, 0), "max_features 0: expected a whole number, 16 or more"),
    (UNet, (3, 1, "64"), "max_features '64': expected a whole number"),
    (partial(UNet, num_levels=7), (3, 1, 96), "max_features 96: .* multiple of 64"),
    (partial(UNet, num_levels=1), (), "num_levels 1: expected a whole number, 2 to 9"),
    (UNet, (0,), "num_in_channels 0: expected a whole number, 1 or more"),
    (UNet, (3, -1), "num_out_channels -1: expected a whole number, 1 or more"),
    (ONE.set_prior, ([0.1, 0.9],), "2 shares: expected 1, one per class"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_does_not_fit_is_refused(case: int) -> None:
    call, given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(*given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_networks_of_other_precision_work(dtype: torch.dtype, training: bool) -> None:
    torch.manual_seed(0)
    net = UNet(np.int64(3), np.int64(2), np.int64(32)).train(training)
    image = torch.rand(2, 3, 20, 33)
    expected = net(image)
    found = net.to(dtype)(image.to(dtype))
    assert (found.dtype, found.shape) == (dtype, (2, 2, 20, 33))
    assert (found - expected).abs().mean() < 0.05
    targets = torch.ones(2, 2, 20, 33)
    for measure in (bce_dice_loss, binary_iou):
        assert measure(found, targets).dtype == torch.float32


class NoFloat64(TorchDispatchMode):
    """Fails as an Apple GPU does where a tensor of float64 would be made."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **kwargs or {})
        for one in torch.utils._pytree.tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError("Cannot convert to float64: the device has none")
        return made


def test_no_float64_is_needed(small: UNet) -> None:
    with NoFloat64():
        with pytest.raises(TypeError, match="has none"):
            IMAGE.double()
        small.set_prior([0.2, 0.7])
        logits, ids = small(IMAGE), torch.randint(0, 2, (1, 8, 8))
        targets = torch.stack([ids, 1 - ids], dim=1).float()
        bce_dice_loss(logits, targets, [2.0, 3.0]).backward()
        assert cross_entropy_loss(logits, ids, [0.5, 2]) > 0
        assert 0 <= binary_iou(logits, targets) <= 1
        matrix = confusion_matrix(logits.argmax(dim=1), ids, 2)
        assert 0 <= mean_iou(matrix) <= 1
        assert foreground_share(targets) == 0.5
        assert shares_of_classes([ids], 2).sum() == 1


SIZES = (
    *((1, 1), (1, 40), (2, 3), (15, 16), (16, 16), (17, 33), (33, 1), (32, 32)),
    *((33, 33), (48, 64), (50, 77), (131, 64), (200, 97)),
)


@pytest.mark.parametrize("fast", [False, True])
def test_exported_networks_are_right_at_every_size(fast: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = UNet(3, 2, 16, fast=fast).eval()
    side = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    free = {"image": dict(enumerate(side, 2))}
    example = (torch.rand(1, 3, 40, 56),)
    program = torch.export.export(small, example, dynamic_shapes=free)
    path = tmp_path / "network.onnx"
    torch.onnx.export(program, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        with torch.no_grad():
            expected = small(image)
            exported = program.module()(image)
        torch.testing.assert_close(exported, expected, atol=1e-3, rtol=1e-3)
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("share", "start"), [(0.25, 0.25), (0.9, 0.9), (0, 0.001), (1, 0.999)]
)
def test_start_at_the_share_of_foreground(share: float, start: float) -> None:
    net = UNet(max_features=16)
    torch.nn.init.zeros_(net.head.weight)
    net.set_prior([share])
    found = net(IMAGE).sigmoid()
    torch.testing.assert_close(found, torch.full((1, 1, 8, 8), float(start)))


@pytest.mark.parametrize("options", [{}, {"fast": True}], ids=str)
def test_small_image_is_learnt_by_heart(options: dict) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    target = torch.zeros(1, 1, 32, 32)
    target[..., 6:20, 3:27] = 1
    net = UNet(max_features=64, **options)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    first = bce_loss(net(image), target).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = bce_loss(net(image), target)
        loss.backward()
        optimizer.step()
    assert loss < first / 20
    assert binary_iou(net(image), target, from_logits=True) > 0.98


def test_bce_by_its_formula() -> None:
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 3.0]]]])
    targets = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    p = [1 / (1 + math.exp(-x)) for x in (0, 2, -1, 3)]
    terms = [math.log(1 - p[0]), math.log(p[1]), math.log(p[2]), math.log(1 - p[3])]
    assert bce_loss(logits, targets).item() == pytest.approx(-sum(terms) / 4)
    terms[1:3] = [3 * term for term in terms[1:3]]
    assert bce_loss(logits, targets, 3).item() == pytest.approx(-sum(terms) / 4)


@pytest.mark.parametrize("pos_weight", [None, 0.5, 9.7])
def test_bce_against_torch(pos_weight: float | None) -> None:
    logits, targets = random_case(0)
    targets[targets == 255] = 0
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    torch.testing.assert_close(bce_loss(logits, targets, pos_weight), expected)
    torch.testing.assert_close(
        bce_loss(logits.double(), targets.long(), pos_weight), expected
    )


def test_each_class_has_its_own_weight() -> None:
    logits, targets = random_case(7, (2, 2, 4, 2))  # as many columns as classes
    targets[targets == 255] = 0
    weights = torch.tensor([1.0, 5.0])
    expected = F.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=weights.view(2, 1, 1)
    )
    for given in ([1, 5], weights, np.array([1.0, 5.0])):
        torch.testing.assert_close(bce_loss(logits, targets, given), expected)
    first = torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
    assert bce_loss(*first, [1, 5]).item() == pytest.approx(3 * math.log(2))


@pytest.mark.parametrize("weight", [0, -1, [1, 2, 3], [1, -1], math.nan])
def test_bad_weights_are_refused(weight: Any) -> None:
    with pytest.raises(
        ValueError, match=r"pos_weight .*: expected a number above 0, or"
    ):
        bce_loss(torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3), weight)


def test_half_precision_logits_are_judged_in_float32() -> None:
    logits, targets = random_case(1)
    rough = logits.bfloat16()
    loss = bce_loss(rough, targets, 9.7)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, bce_loss(rough.float(), targets, 9.7))


@pytest.mark.parametrize("loss", [bce_loss, bce_dice_loss, dice_loss])
def test_ignored_pixels_do_not_matter(loss) -> None:
    logits, targets = random_case(2)
    logits.requires_grad_()
    value = loss(logits, targets)
    for other in (-5.0, math.inf, -math.inf, math.nan):
        changed = torch.where(targets == 255, other, logits.detach()).requires_grad_()
        assert torch.equal(value, loss(changed, targets))
        loss(changed, targets).backward()
        assert changed.grad.isfinite().all()
    value.backward()
    assert (logits.grad[targets == 255] == 0).all()
    assert (logits.grad[targets != 255] != 0).all()


def test_ignoring_pixels_equals_leaving_them_out() -> None:
    logits, targets = random_case(3)
    known = targets != 255
    left = logits[known][None, None, None], targets[known][None, None, None]
    torch.testing.assert_close(bce_loss(logits, targets, 2), bce_loss(*left, 2))
    first = logits[:1], targets[:1]
    left = tuple(part[known[:1]][None, None, None] for part in first)
    torch.testing.assert_close(dice_loss(*first), dice_loss(*left))


def test_nothing_but_ignored_pixels_costs_nothing() -> None:
    logits = torch.randn(1, 1, 3, 3, requires_grad=True)
    loss = bce_dice_loss(logits, torch.full((1, 1, 3, 3), 255.0))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_dice_by_hand() -> None:
    sure = 100.0
    logits = torch.tensor([[[[sure, sure], [-sure, -sure]]]])
    targets = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    # Found 2, wanted 3, both 1, and one pixel more above and below.
    assert dice_loss(logits, targets).item() == pytest.approx(1 - (2 + 1) / (5 + 1))
    assert dice_loss(logits, (logits > 0).float()).item() == pytest.approx(0)
    assert dice_loss(-logits.abs(), targets * 0).item() == pytest.approx(0)
    half = torch.zeros(1, 1, 2, 2)
    assert dice_loss(half, targets).item() == pytest.approx(1 - (3 + 1) / (5 + 1))
    both = bce_loss(half, targets, 2) + dice_loss(half, targets)
    torch.testing.assert_close(bce_dice_loss(half, targets, 2), both)


def test_dice_is_a_mean_over_images_and_classes() -> None:
    logits, targets = random_case(4, (2, 3, 5, 5))
    single = [
        dice_loss(logits[b : b + 1, k : k + 1], targets[b : b + 1, k : k + 1])
        for b, k in np.ndindex(2, 3)
    ]
    torch.testing.assert_close(dice_loss(logits, targets), torch.stack(single).mean())


@pytest.mark.parametrize("score", [bce_loss, dice_loss, bce_dice_loss, binary_iou])
def test_bad_targets_are_refused(score) -> None:
    logits = torch.zeros(2, 1, 4, 4)
    message = r"\(2, 1, 4, 4\) and targets \(2, 4, 4\): expected equal shapes"
    with pytest.raises(ValueError, match=message):
        score(logits, torch.zeros(2, 4, 4))
    grey = torch.zeros(2, 1, 4, 4)
    grey[0, 0, 0, 0] = 128
    with pytest.raises(ValueError, match=r"targets of 0 to 128: .*divide masks"):
        score(logits, grey)
    with pytest.raises(ValueError, match="expected 0, 1 and 255"):
        score(logits, torch.full((2, 1, 4, 4), math.nan))


@pytest.mark.parametrize("seed", range(5))
def test_iou_against_the_reference(seed: int) -> None:
    logits, targets = random_case(seed)
    expected = reference_iou((logits > 0).numpy(), targets.numpy())
    assert binary_iou(logits, targets).item() == pytest.approx(expected)
    assert binary_iou(logits.sigmoid(), targets).item() == pytest.approx(expected)
    small = logits.sigmoid() * 0.9 + 0.05
    expected = reference_iou(np.ones(targets.shape), targets.numpy())
    iou = binary_iou(small, targets, from_logits=True)
    assert iou.item() == pytest.approx(expected)


def test_iou_of_nothing_and_of_all_wrong() -> None:
    nothing = torch.zeros(1, 1, 3, 3)
    assert binary_iou(nothing - 1, nothing) == 1
    assert binary_iou(nothing + 2, nothing) == 0
    assert binary_iou(nothing - 1, nothing + 1) == 0
    assert binary_iou(nothing + 2, nothing + 255) == 1


def test_counts_of_batches_add_up() -> None:
    logits, targets = random_case(6, (4, 1, 9, 9))
    parts = zip(logits.split(1), targets.split(1), strict=True)
    counts = sum(iou_counts(part > 0, target) for part, target in parts)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, iou_counts(logits > 0, targets))
    assert iou_of(counts) == binary_iou(logits, targets)


def test_share_of_foreground_leaves_out_ignored() -> None:
    targets = [torch.tensor([[0.0, 1.0, 255.0]]), torch.tensor([[1.0, 1.0, 0.0]])]
    assert foreground_share(targets) == pytest.approx(3 / 5)
    assert foreground_share(iter(targets)) == pytest.approx(3 / 5)
    assert foreground_share([torch.full((2, 2), 255)]) == 0
