"""Muon moves matrices and convolutions as published, AdamW everything else."""

import pytest
import torch

from wm_ros.train.optimiser import Optimiser, is_matrix


def gradient_of(parameter, seed=0):
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_by_the_nearest_orthogonal_matrix(layout):
    conv = torch.nn.Conv2d(24, 32, 3, bias=False).to(memory_format=layout)
    before, gradient = conv.weight.detach().clone(), gradient_of(conv.weight)
    conv.weight.grad = gradient.to(memory_format=layout)
    Optimiser([{'params': conv.parameters()}], 0.0, 'muon').step(1e-2)
    moved = (before - conv.weight.detach()).flatten(1)
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    # Five iterations of Newton and Schulz bring singular values to 0.7 to 1.2, not to 1; the step
    # is 0.2 sqrt(max(rows, columns)) of the rate.
    nearest = u @ v * 1e-2 * 0.2 * 216 ** 0.5
    alike = (moved * nearest).sum() / (moved.norm() * nearest.norm())
    assert alike > 0.97
    assert moved.norm() / nearest.norm() == pytest.approx(0.9, abs=0.15)


def test_both_layouts_move_alike():
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(3)
        conv = torch.nn.Conv2d(16, 16, 3).to(memory_format=layout)
        optimiser = Optimiser([{'params': conv.parameters()}], 0.01, 'muon')
        for seed in range(3):
            conv.weight.grad = gradient_of(conv.weight, seed).to(memory_format=layout)
            conv.bias.grad = gradient_of(conv.bias, seed)
            optimiser.step(1e-2)
        moved.append(conv.weight.detach().contiguous())
    torch.testing.assert_close(*moved, atol=2e-3, rtol=0)      # bfloat16 within


def test_narrow_ones_and_vectors_are_left_to_adamw():
    shapes = {(32, 32): True, (16, 1, 3, 3): False, (4, 64): False, (64,): False,
              (48, 16, 1, 1): True, (2, 32, 32): False}
    assert {shape: is_matrix(torch.zeros(shape)) for shape in shapes} == shapes
    bias = torch.nn.Parameter(torch.zeros(8))
    bias.grad = gradient_of(bias)
    other = torch.nn.Parameter(torch.zeros(8))
    other.grad = bias.grad.clone()
    Optimiser([{'params': [bias]}], 0.01, 'muon').step(1e-2)
    torch.optim.AdamW([other], lr=1e-2, weight_decay=0.01, betas=(0.9, 0.98)).step()
    assert torch.equal(bias, other)


def test_a_group_learns_at_its_own_scale():
    fast, slow = (torch.nn.Parameter(torch.zeros(20, 20)) for _ in range(2))
    for parameter in (fast, slow):
        parameter.grad = gradient_of(parameter)
    Optimiser([{'params': [fast]}, {'params': [slow], 'scale': 0.1}], 0.0, 'muon').step(1e-2)
    torch.testing.assert_close(slow.detach() * 10, fast.detach())


def test_who_has_no_gradient_stays():
    still = torch.nn.Parameter(torch.ones(20, 20))
    Optimiser([{'params': [still]}], 0.1, 'muon').step(1e-2)
    assert torch.equal(still, torch.ones(20, 20))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="want muon or adamw, got 'sgd'"):
        Optimiser([], 0.0, 'sgd')
