"""
What makes a training step of gradients: Muon for matrices and convolutions, AdamW for the rest.

Muon (Jordan et al. 2024) moves a matrix by the nearest orthogonal one to its averaged gradient, so
that directions in which gradients are small are learnt as fast as the others. A convolution is a
matrix with a row an output channel. Its steps are scaled to those of AdamW (Liu et al. 2025), so
one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

#: What has fewer rows or columns, as heads with a few outputs, is left to AdamW.
MATRIX_ROWS = 16


class Optimiser:
    """
    One optimiser for all of a model's parameters; every step is given its learning rate.

    `groups` are dictionaries with `params` and, where a group learns slower, `scale` of its rate.
    `kind` is 'muon', or 'adamw' which then takes all; ValueError for another.
    """

    def __init__(self, groups: Sequence[dict], weight_decay: float, kind: str):
        if kind not in ('muon', 'adamw'):
            raise ValueError(f'optimiser: want muon or adamw, got {kind!r}')
        muon, adamw = [], []
        #: Parameters that Muon takes, each with a matrix that lies in the same memory.
        self._matrices: list[tuple[nn.Parameter, nn.Parameter]] = []
        for group in groups:
            params, scale = list(group['params']), group.get('scale', 1.0)
            taken = [p for p in params if kind == 'muon' and is_matrix(p)]
            pairs = [(p, nn.Parameter(_matrix(p.detach(), p))) for p in taken]
            self._matrices += pairs
            rest = [p for p in params if not any(p is other for other in taken)]
            if pairs:
                muon.append({'params': [matrix for _, matrix in pairs], 'scale': scale})
            if rest:
                adamw.append({'params': rest, 'scale': scale})
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if muon:
            self._parts['muon'] = torch.optim.Muon(muon, weight_decay=weight_decay,
                                                   adjust_lr_fn='match_rms_adamw')
        if adamw:
            self._parts['adamw'] = torch.optim.AdamW(adamw, weight_decay=weight_decay,
                                                     betas=(0.9, 0.98))

    def step(self, rate: float) -> None:
        """Move all parameters that have a gradient."""
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad, parameter)
        for part in self._parts.values():
            for group in part.param_groups:
                group['lr'] = rate * group['scale']
            part.step()
        for _, matrix in self._matrices:
            matrix.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Return all that it remembers, by name."""
        return {f'{prefix}{name}': torch.as_tensor(value).contiguous()
                for prefix, part, parameter in self._remembered()
                for name, value in part.state.get(parameter, {}).items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what `state` returned."""
        for prefix, part, parameter in self._remembered():
            found = {name[len(prefix):]: value for name, value in state.items()
                     if name.startswith(prefix)}
            if found:
                # AdamW counts steps on the CPU.
                part.state[parameter] = {
                    name: value.cpu() if name == 'step' else value.to(parameter.device)
                    for name, value in found.items()}

    def _remembered(self) -> Iterator[tuple[str, torch.optim.Optimizer, torch.Tensor]]:
        for kind, part in self._parts.items():
            params = [p for group in part.param_groups for p in group['params']]
            for index, parameter in enumerate(params):
                yield f'{kind}.{index}.', part, parameter


def is_matrix(parameter: torch.Tensor) -> bool:
    """Return whether a parameter is a matrix, or a convolution, that is not very narrow."""
    return (parameter.ndim in (2, 4)
            and min(parameter.shape[0], parameter[0].numel()) >= MATRIX_ROWS)


def _matrix(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter, or its gradient, as a matrix in the order of the parameter's memory."""
    if tensor.ndim == 4 and not parameter.is_contiguous():      # channels last
        tensor = tensor.permute(0, 2, 3, 1)
    matrix = tensor.reshape(len(tensor), -1)
    if tensor.data_ptr() == parameter.data_ptr() and matrix.data_ptr() != parameter.data_ptr():
        raise ValueError(f'want a parameter whose rows lie one after another, got strides '
                         f'{parameter.stride()} of {tuple(parameter.shape)}')
    return matrix
