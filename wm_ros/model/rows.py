"""
Whole numbers and rows of tables, computed so that they export to few and plain nodes.

Weighted sums of rows have a gradient of their own besides, for training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def divided(number: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return quotient and remainder of whole numbers from 0 on."""
    # Floored division and % export to a dozen nodes, for negative numbers.
    quotient = torch.div(number, by, rounding_mode='trunc')
    return quotient, number - quotient * by


def gather_rows(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return table (B, L, C) at rows (B, A), or at the same rows (1, A) for all: (B, A, C)."""
    if rows.shape[0] == 1:
        return torch.index_select(table, 1, rows[0])
    return torch.gather(table, 1, rows[..., None].expand(-1, -1, table.shape[-1]))


def weighted_rows(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor,
                  training: bool) -> torch.Tensor:
    """Return weighted sums (M, C) of a table's rows (T, C) by index and weight (M, taps)."""
    if training:
        return Sampled.apply(table, index, weight)
    # Taps added up one by one: products and sums fuse, a sum over an axis would not.
    return sum(torch.index_select(table, 0, index[:, tap]) * weight[:, tap, None]
               for tap in range(index.shape[1]))


class Sampled(torch.autograd.Function):
    """
    Weighted sums of a table's rows, for training: (M, C) from rows (T, C) by index, weight (M, 4).

    Both ways as one sum over rows of memory, the way back by the taps sorted by what they read, and
    without those that read nothing. Four gathers and their gradients take three times as long.
    """

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, index: torch.Tensor,
                weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index, weight)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, mode='sum', per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        index, weight = ctx.saved_tensors
        used = weight.flatten().nonzero()[:, 0]
        rows, order = index.flatten()[used].sort()
        taps = used[order]
        begins = torch.searchsorted(rows, torch.arange(ctx.rows, device=rows.device))
        point = torch.div(taps, index.shape[1], rounding_mode='floor')
        return F.embedding_bag(point, gradient.contiguous(), begins, mode='sum',
                               per_sample_weights=weight.flatten()[taps]), None, None
