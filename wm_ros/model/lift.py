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
        flat = (index + offsets).reshape(-1) if batch > 1 else index.reshape(-1)
        taps = torch.index_select(table.reshape(-1, channels), 0, flat)
        taps = taps.reshape(batch, -1, 4, channels)
        sampled = (taps * weight[..., None].to(taps.dtype)).sum(2)          # (B, Z*R*R, C)
        seen = weight.sum(-1, keepdim=True).to(taps.dtype)
        x = torch.cat([sampled, seen], -1).reshape(batch, heights, rows, cols, channels + 1)
        x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)          # (B, Z, R, R, C) -> (B, Z*C, R, R)
        skip = self.mix(x)
        return self.memory(skip), skip
