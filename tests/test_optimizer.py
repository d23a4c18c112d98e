"""Muon: what a step does to kernels and to other weights; freed memory is kept."""

import ctypes
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch
from torch import nn

import ui_segmentation_system as ui


def textbook_step(kernel: torch.Tensor, grads: list[torch.Tensor]) -> torch.Tensor:
    """Iterate on the matrix itself, as published, in float64."""
    mean = torch.zeros_like(kernel)
    for grad in grads:
        mean = 0.95 * mean + grad
        x = (grad + 0.95 * mean).flatten(1).double()
        tall = len(x) > x.shape[1]
        x = (x.T if tall else x) / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        x = x.T if tall else x
        scale = max(1, x.shape[0] / x.shape[1]) ** 0.5
        kernel = kernel - 0.03 * scale * x.view_as(kernel).float()
    return kernel


@pytest.mark.parametrize(
    "shape", [(16, 8, 1, 1), (16, 16, 1, 1), (16, 16, 3, 3), (64, 8, 2, 2)]
)
def test_kernels_move_as_published(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    start, grads = kernel.detach().clone(), [*torch.randn(3, *shape) * 1e-3]
    optimizer = ui.Muon([kernel], 4e-3)
    for grad in grads:
        kernel.grad = grad.clone()
        optimizer.step()
    assert torch.allclose(kernel, textbook_step(start, grads), atol=1e-4)


@pytest.mark.parametrize("shape", [(15, 8, 3, 3), (16, 7, 1, 1), (16,), (64, 64)])
def test_all_else_moves_as_under_adam(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.ones(shape)) for _ in range(2)]
    optimizers = [
        ui.Muon(weights[:1], 4e-3),
        torch.optim.Adam(weights[1:], 4e-3, betas=(0.95, 0.999)),
    ]
    for _ in range(5):
        grad = torch.randn(shape)
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = grad.clone()
            optimizer.step()
    assert torch.allclose(*weights, atol=1e-6)


def test_a_weight_without_gradient_stays_and_a_closure_is_called() -> None:
    kernel, bias = nn.Parameter(torch.ones(16, 8, 1, 1)), nn.Parameter(torch.ones(2))
    optimizer = ui.Muon([kernel, bias])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = bias.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (kernel == 1).all() and (bias < 1).all()


@pytest.mark.parametrize("library", [Mock(side_effect=OSError), lambda _: object()])
def test_other_systems_keep_their_memory(
    library: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows and macOS, and with musl."""
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert ui.keep_freed_memory() is False


def test_memory_is_kept_by_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    mallopt = Mock(return_value=1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Mock(mallopt=mallopt))
    assert ui.keep_freed_memory() is True
    assert mallopt.call_args_list == [call(-4, 0), call(-1, 2**31 - 1)]
