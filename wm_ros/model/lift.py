"""Lift: image features are sampled where ground cells project, at several heights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.quant import ConvBlock
from wm_ros.runtime.contract import LIFT_HEIGHTS_M
from wm_ros.types import FEATURE_GRID


class Lift(nn.Module):
    """
    Image features to a bird's-eye map, after Simple-BEV (Harley et al., 2023).

    For a fixed rig the sampling places are fixed, so they come as tables (`wm_ros.lift`) and the
    lift is a gather: the same weights serve one camera or six, with any calibration.
    """

    def __init__(self, lift_channels: int, skip_channels: int, memory_channels: int, blocks: int):
        super().__init__()
        heights = len(LIFT_HEIGHTS_M)
        # Beside the features each height tells whether any camera sees it at all.
        layers = [ConvBlock(heights * (lift_channels + 1), skip_channels, kernel=1)]
        layers += [ConvBlock(skip_channels, skip_channels) for _ in range(blocks)]
        self.mix = nn.Sequential(*layers)
        self.memory = ConvBlock(skip_channels, memory_channels, kernel=1)

    def forward(self, features: torch.Tensor, index: torch.Tensor,
                weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Sample features (B, N, C, h, w) by tables index and weight (B, Z*R*R, 4).

        Returns the maps to cache (B, memory, R, R) and to keep for the newest frame
        (B, skip, R, R).
        """
        batch, _, channels = features.shape[:3]
        rows, cols = FEATURE_GRID.shape
        heights = len(LIFT_HEIGHTS_M)
        # A sixteenth of a step of what reads them: weighted sums are then the same everywhere.
        features = self.mix[0].conv.input.finely(features)
        table = features.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)  # (B, N*h*w, C)
        # A channel of ones: what is sampled from it is the sum of the weights, 0 where unseen.
        ones = table[..., :1] * 0.0 + 1.0  # `ones_like` would fix the exported number of cameras
        table = torch.cat([table, ones], -1)
        offsets = torch.arange(batch, device=table.device)[:, None, None] * table.shape[1]
        table = table.reshape(-1, channels + 1)
        # The small tables are reordered, not the features: cells outermost, heights beside the
        # channels is what the convolutions read.
        index, weight = (t.reshape(batch, heights, rows * cols, 4).transpose(1, 2)
                         .reshape(batch, -1, 4) for t in (index, weight))
        index, weight = index + offsets, weight.to(table.dtype)
        if self.training:
            sampled = Sampled.apply(table, index.reshape(-1, 4), weight.reshape(-1, 4))
        else:   # taps added up one by one: products and sums fuse, a sum over an axis would not
            sampled = sum(torch.index_select(table, 0, index[..., tap].reshape(-1))
                          * weight[..., tap].reshape(-1, 1) for tap in range(4))
        x = sampled.reshape(batch, rows, cols, -1).permute(0, 3, 1, 2)  # (B, Z*(C+1), R, R)
        skip = self.mix(x)
        return self.memory(skip), skip


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
