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
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import binary_jaccard_index

import ui_segmentation_system as ui


@pytest.fixture(params=[{}, {"fast": True}, {"normalize": False}], ids=str)
def small(request: pytest.FixtureRequest) -> ui.UNet:
    torch.manual_seed(0)
    return ui.UNet(3, 2, max_features=32, **request.param)


def random_case(seed: int, shape: tuple[int, ...] = (2, 1, 6, 7)) -> tuple:
    """Draw logits and targets of 0, 1 and some 255."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * 3
    targets = torch.randint(0, 2, shape, generator=generator).float()
    targets[torch.rand(shape, generator=generator) < 0.2] = 255
    return logits, targets


def test_each_image_counts_for_itself_in_training_too(small: ui.UNet) -> None:
    images = torch.rand(3, 3, 20, 36)
    alone = torch.cat([small(image[None]) for image in images])
    for net in (small.train(), small.eval()):
        torch.testing.assert_close(net(images), alone, atol=1e-4, rtol=1e-4)


OURS_AND_TORCHS = {
    "norm": (lambda: ui.InstanceNorm(4), lambda: nn.InstanceNorm2d(4, affine=True)),
    "up": (lambda: ui.UpConv(4, 3), lambda: nn.ConvTranspose2d(4, 3, 2, stride=2)),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", OURS_AND_TORCHS)
def test_a_quicker_layer_is_torchs(layer: str, training: bool) -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 4, 5, 6) * torch.tensor([1, 10, 0.1])[:, None, None, None]
    ours, theirs = (make().train(training) for make in OURS_AND_TORCHS[layer])
    theirs.load_state_dict(
        {k: torch.randn_like(v) for k, v in ours.state_dict().items()}
    )
    ours.load_state_dict(theirs.state_dict())
    taken = []
    for module in (ours, theirs):
        x = image.to(memory_format=torch.channels_last).requires_grad_()
        y = module(x)
        y.backward(torch.arange(y.numel()).view_as(y) % 7.0)
        taken.append([y.detach(), x.grad, module.weight.grad, module.bias.grad])
    for found, wanted in zip(*taken, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_all_levels_but_the_first_are_normalized() -> None:
    def channels(net: ui.UNet) -> list[int]:
        norms = (part for part in net.modules() if isinstance(part, torch.nn.GroupNorm))
        return [norm.num_channels for norm in norms]

    assert channels(ui.UNet(max_features=32)) == [4, 8, 16, 32, 8, 32, 16, 8, 4]
    assert channels(ui.UNet(max_features=32, normalize=False)) == []
    kinds = [type(part) for part in ui.ConvBlock(3, 4, normalize=True)]
    assert kinds == [torch.nn.Conv2d, ui.InstanceNorm, torch.nn.LeakyReLU]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("num_levels", [2, 3, 5, 7])
def test_levels_halve_sides_and_double_channels(num_levels: int, fast: bool) -> None:
    net = ui.UNet(max_features=64, num_levels=num_levels, fast=fast).eval()
    step = 2 ** (num_levels - 1) * (1 + fast)
    kept = net.encode(torch.rand(1, 3, 2 * step, 3 * step))
    first = 64 >> num_levels - 1
    assert [tuple(level.shape[1:]) for level in kept] == [
        (first << n, 2 * step >> n + fast, 3 * step >> n + fast)
        for n in range(num_levels)
    ]
    for height, width in ((1, 1), (step + 1, 2 * step), (37, 100)):
        assert net(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)


def test_both_ways_up_are_used() -> None:
    torch.manual_seed(0)
    up = ui.Up(4, normalize=False)
    x, skip = torch.rand(1, 8, 5, 6), torch.rand(1, 4, 10, 12)
    assert not torch.equal(up(x, skip), up(x, skip * 0))
    assert not torch.equal(up(x, skip), up(x * 0, skip))


def test_every_weight_learns(small: ui.UNet) -> None:
    small(torch.rand(2, 3, 48, 48)).square().mean().backward()
    for name, weight in small.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_a_million_weights_start_as_kaiming_says() -> None:
    torch.manual_seed(0)
    net = ui.UNet()
    assert 0.9e6 < sum(weight.numel() for weight in net.parameters()) < 1.1e6
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 1000:
            spread = layer.weight.std().item()
            expected = math.sqrt(2 / layer.weight[0].numel())
            assert spread == pytest.approx(expected, rel=0.1)
            assert (layer.bias == 0).all()


IMAGE = torch.rand(1, 3, 8, 8)
ONE = ui.UNet(max_features=16)
DOUBLE = copy.deepcopy(ONE).double()
ZERO = torch.zeros(1, 2, 4, 3)
GREY = torch.tensor([0.0, 128, 0]).expand(1, 2, 4, 3)
LOSSES = (ui.bce_loss, ui.dice_loss, ui.bce_dice_loss)
REFUSED: list[tuple[Callable, tuple, str]] = [
    # what is called, with what, and how the message names what arrived and is expected
    (ONE, (IMAGE[:, :1],), r"\(1, 1, 8, 8\): expected torch.float32 \(B, 3, H, W\)"),
    (ONE, (torch.rand(2, 4, 8, 8),), r"\(2, 4, 8, 8\): .*channels num_in_channels"),
    (ONE, (IMAGE[0],), r"\(3, 8, 8\): .*one image needs \[None\]"),
    (ONE, (IMAGE.byte(),), r"got torch.uint8 .*whole numbers / 255"),
    (ONE, (IMAGE.long(),), r"got torch.int64 .*whole numbers / 255"),
    (ONE, (IMAGE[:0],), r"\(0, 3, 8, 8\): expected"),
    (ONE, (IMAGE[:, :, :0],), r"\(1, 3, 0, 8\): expected"),
    (DOUBLE, (IMAGE,), "got torch.float32.*expected torch.float64"),
    (ONE, (IMAGE.bfloat16(),), "got torch.bfloat16.*expected torch.float32"),
    (ui.UNet, (3, 1, 100), "max_features 100: expected a multiple of 16"),
    (ui.UNet, (3, 1, 0), "max_features 0: expected a whole number, 16 or more"),
    (ui.UNet, (3, 1, "64"), "max_features '64': expected a whole number"),
    (partial(ui.UNet, num_levels=7), (3, 1, 96), "max_features 96: .* multiple of 64"),
    (partial(ui.UNet, num_levels=1), (), "num_levels 1: expected .*number, 2 to 9"),
    (ui.UNet, (0,), "num_in_channels 0: expected a whole number, 1 or more"),
    (ui.UNet, (3, -1), "num_out_channels -1: expected a whole number, 1 or more"),
    (ONE.set_prior, ([0.1, 0.9],), "2 shares: expected 1, one per class"),
    *(
        (ui.bce_loss, (ZERO, ZERO, bad), "pos_weight .*: expected a number above 0, or")
        for bad in (0, -1, [1, 2, 3], [1, -1], math.nan)
    ),
    *(
        (score, (ZERO, wrong), message)
        for score in (*LOSSES, ui.binary_iou)
        for wrong, message in (
            (ZERO[0], r"\(1, 2, 4, 3\) and targets \(2, 4, 3\): expected equal sha"),
            (GREY, r"targets of 0 to 128: .*divide masks"),
            (ZERO + math.nan, "expected 0, 1 and 255"),
        )
    ),
]


@pytest.mark.parametrize(("call", "given", "message"), REFUSED)
def test_what_does_not_fit_is_refused(call: Any, given: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_networks_of_other_precision_work(dtype: torch.dtype, training: bool) -> None:
    torch.manual_seed(0)
    net = ui.UNet(np.int64(3), np.int64(2), np.int64(32)).train(training)
    image = torch.rand(2, 3, 20, 33)
    expected = net(image)
    found = net.to(dtype)(image.to(dtype))
    assert (found.dtype, found.shape) == (dtype, (2, 2, 20, 33))
    assert (found - expected).abs().mean() < 0.05
    targets = torch.ones(2, 2, 20, 33)
    for measure in (ui.bce_dice_loss, ui.binary_iou):
        assert measure(found, targets).dtype == torch.float32


class NoFloat64(TorchDispatchMode):
    """Fails as an Apple GPU does where a tensor of float64 would be made."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any, kwargs: Any) -> Any:
        made = func(*args, **kwargs or {})
        for one in torch.utils._pytree.tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError("Cannot convert to float64: the device has none")
        return made


def test_no_float64_is_needed(small: ui.UNet) -> None:
    with NoFloat64():
        with pytest.raises(TypeError, match="has none"):
            IMAGE.double()
        small.set_prior([0.2, 0.7])
        logits, ids = small(IMAGE), torch.randint(0, 2, (1, 8, 8))
        targets = torch.stack([ids, 1 - ids], dim=1).float()
        ui.bce_dice_loss(logits, targets, [2.0, 3.0]).backward()
        assert ui.cross_entropy_loss(logits, ids, [0.5, 2]) > 0
        assert 0 <= ui.binary_iou(logits, targets) <= 1
        matrix = ui.confusion_matrix(logits.argmax(dim=1), ids, 2)
        assert 0 <= ui.mean_iou(matrix) <= 1
        assert ui.foreground_share(targets) == 0.5
        assert ui.shares_of_classes([ids], 2).sum() == 1


SIZES = (
    *((1, 1), (1, 40), (2, 3), (15, 16), (16, 16), (17, 33), (33, 1), (32, 32)),
    *((33, 33), (40, 23), (48, 64), (50, 77), (131, 64), (200, 97)),
)


@pytest.mark.parametrize("fast", [False, True])
def test_exported_networks_are_right_at_every_size(fast: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = ui.UNet(3, 2, 16, fast=fast).eval()
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
        assert expected.shape == (1, 2, *size) and expected.isfinite().all()
        torch.testing.assert_close(exported, expected, atol=1e-3, rtol=1e-3)
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("share", "start"), [(0.25, 0.25), (0.9, 0.9), (0, 0.001), (1, 0.999)]
)
def test_start_at_the_share_of_foreground(share: float, start: float) -> None:
    net = ui.UNet(max_features=16)
    torch.nn.init.zeros_(net.head.weight)
    net.set_prior([share])
    found = net(IMAGE).sigmoid()
    torch.testing.assert_close(found, torch.full((1, 1, 8, 8), float(start)))


WEIGHTS = (None, 0.5, 9.7, [1, 5], torch.tensor([1, 5]), np.array([1.0, 5]))


@pytest.mark.parametrize("weight", WEIGHTS, ids=repr)
def test_bce_against_torch(weight: Any) -> None:
    logits, targets = random_case(0, (2, 2, 4, 2))  # as many columns as classes
    targets[targets == 255] = 0
    each = torch.ones(2) if weight is None else torch.as_tensor(weight).expand(2)
    options = {"pos_weight": each.view(2, 1, 1).float()}
    expected = F.binary_cross_entropy_with_logits(logits, targets, **options)
    torch.testing.assert_close(ui.bce_loss(logits, targets, weight), expected)
    found = ui.bce_loss(logits.double(), targets.long(), weight)
    torch.testing.assert_close(found, expected)
    rough = logits.bfloat16()
    expected = ui.bce_loss(rough.float(), targets, weight)
    torch.testing.assert_close(ui.bce_loss(rough, targets, weight), expected)


@pytest.mark.parametrize("loss", [*LOSSES, partial(ui.bce_loss, pos_weight=2)])
def test_ignored_pixels_do_not_matter(loss: Callable) -> None:
    logits, targets = random_case(2, (1, 1, 9, 9))
    logits.requires_grad_()
    value = loss(logits, targets)
    left = [part[targets != 255].view(1, 1, 1, -1) for part in (logits, targets)]
    torch.testing.assert_close(value, loss(*left))
    for other in (-5.0, math.inf, -math.inf, math.nan):
        changed = torch.where(targets == 255, other, logits.detach()).requires_grad_()
        assert torch.equal(value, loss(changed, targets))
        loss(changed, targets).backward()
        assert changed.grad.isfinite().all()
    nothing = loss(logits, torch.full_like(targets, 255))
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()
    value.backward()
    assert torch.equal(logits.grad == 0, targets == 255)


def test_dice_by_hand() -> None:
    sure = 100.0
    logits = torch.tensor([[[[sure, sure], [-sure, -sure]]]])
    targets = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    # Found 2, wanted 3, both 1, and one pixel more above and below.
    assert ui.dice_loss(logits, targets).item() == pytest.approx(1 - (2 + 1) / (5 + 1))
    assert ui.dice_loss(logits, (logits > 0).float()).item() == pytest.approx(0)
    assert ui.dice_loss(-logits.abs(), targets * 0).item() == pytest.approx(0)
    half = torch.zeros(1, 1, 2, 2)
    assert ui.dice_loss(half, targets).item() == pytest.approx(1 - (3 + 1) / (5 + 1))
    both = ui.bce_loss(half, targets, 2) + ui.dice_loss(half, targets)
    torch.testing.assert_close(ui.bce_dice_loss(half, targets, 2), both)


def test_dice_is_a_mean_over_images_and_classes() -> None:
    logits, targets = random_case(4, (2, 3, 5, 5))
    single = map(ui.dice_loss, *(t.view(6, 1, 1, 5, 5) for t in (logits, targets)))
    expected = torch.stack([*single]).mean()
    torch.testing.assert_close(ui.dice_loss(logits, targets), expected)


@pytest.mark.parametrize("seed", range(5))
def test_iou_against_torchmetrics(seed: int) -> None:
    logits, targets = random_case(seed)
    found = (logits > 0).int()
    expected = binary_jaccard_index(found, targets.int(), ignore_index=255)
    assert ui.binary_iou(logits, targets) == pytest.approx(expected)
    assert ui.binary_iou(logits.sigmoid(), targets) == pytest.approx(expected)
    small = logits.sigmoid() * 0.9 + 0.05
    expected = (targets == 1).sum() / (targets != 255).sum()
    assert ui.binary_iou(small, targets, from_logits=True) == pytest.approx(expected)
    broken = torch.tensor([torch.nan, -3, 0.3])  # logits all the same
    assert ui.binary_iou(broken, torch.tensor([0, 0, 1.0])) == 1
    parts = zip(logits.split(1), targets.split(1), strict=True)
    counts = sum(ui.iou_counts(part > 0, target) for part, target in parts)
    assert counts.dtype == torch.int64
    assert ui.iou_of(counts) == ui.binary_iou(logits, targets)


@pytest.mark.parametrize(
    ("logit", "target", "expected"), [(-1, 0, 1), (2, 0, 0), (-1, 1, 0), (2, 255, 1)]
)
def test_iou_of_nothing_and_of_all_wrong(
    logit: float, target: float, expected: int
) -> None:
    flat = torch.ones(1, 1, 3, 3)
    assert ui.binary_iou(flat * logit, flat * target) == expected


def test_share_of_foreground_leaves_out_ignored() -> None:
    targets = [torch.tensor([[0.0, 1.0, 255.0]]), torch.tensor([[1.0, 1.0, 0.0]])]
    assert ui.foreground_share(targets) == pytest.approx(3 / 5)
    assert ui.foreground_share(iter(targets)) == pytest.approx(3 / 5)
    assert ui.foreground_share([torch.full((2, 2), 255)]) == 0
