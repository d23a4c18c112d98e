"""Muon: what a step does to kernels and to other weights; freed memory is kept."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import ui_segmentation_system as ui


@pytest.mark.parametrize("shape", [(16, 16), (16, 27), (64, 16), (32, 8, 3, 3)])
def test_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape).flatten(1) * 1e-3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = ui.Muon.nearest_orthogonal(matrix)
    assert found.shape == matrix.shape
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3 and values[:-1].min() > 0.4
    # The same directions as the nearest orthogonal matrix, each about as long.
    assert torch.cosine_similarity(found.ravel(), (left @ right).ravel(), 0) > 0.95


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


@pytest.mark.parametrize("shape", [(16, 8, 1, 1), (16, 16, 3, 3), (64, 8, 2, 2)])
def test_kernels_move_as_published(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    start, grads = kernel.detach().clone(), [torch.randn(shape) for _ in range(3)]
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


def test_a_stored_state_goes_on_as_if_never_stored() -> None:
    ends = []
    for stored in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 1, 1))
        optimizer = ui.Muon(net.parameters())
        for step in range(6):
            if stored and step == 3:
                state = optimizer.state_dict()
                optimizer = ui.Muon(net.parameters())
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            net(torch.ones(1, 8, 9, 9)).square().mean().backward()
            optimizer.step()
        ends.append([weight.detach() for weight in net.parameters()])
    assert all(map(torch.equal, *ends))


def other_system(_: str) -> Any:
    raise OSError


@pytest.mark.parametrize("library", [other_system, lambda _: object()])
def test_other_systems_keep_their_memory(
    library: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows and macOS, and with musl."""
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert ui.keep_freed_memory() is False


def test_memory_is_kept_by_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Library:
        @staticmethod
        def mallopt(option: int, value: int) -> int:
            calls.append((option, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    assert ui.keep_freed_memory() is True
    assert calls == [(-4, 0), (-1, 2**31 - 1)]
