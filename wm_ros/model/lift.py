"""Lift: image features are sampled where ground cells project, at several heights."""

from __future__ import annotations

import torch
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
        table = features.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)  # (B, N*h*w, C)
        offsets = torch.arange(batch, device=table.device)[:, None, None] * table.shape[1]
        table = table.reshape(-1, channels)
        weight = weight.to(table.dtype)
        # Four taps added up one by one: products and sums fuse, a sum over an axis would not.
        sampled = sum(
            torch.index_select(table, 0, (index[..., tap:tap + 1] + offsets).reshape(-1))
            * weight[..., tap].reshape(-1, 1) for tap in range(4))
        sampled = sampled.reshape(batch, -1, channels)      # (B, Z*R*R, C)
        seen = sum(weight[..., tap:tap + 1] for tap in range(4))
        x = torch.cat([sampled, seen], -1).reshape(batch, heights, rows, cols, channels + 1)
        x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)          # (B, Z, R, R, C) -> (B, Z*C, R, R)
        skip = self.mix(x)
        return self.memory(skip), skip
