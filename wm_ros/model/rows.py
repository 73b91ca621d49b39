"""Whole numbers and rows of tables, computed so that they export to few and plain nodes."""

from __future__ import annotations

import torch


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
