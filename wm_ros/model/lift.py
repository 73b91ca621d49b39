"""Lift: image features are sampled where ground cells project, at several heights."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.model.quant import ConvBlock
from wm_ros.model.rows import weighted_rows
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
        sampled = weighted_rows(table, index.reshape(-1, 4), weight.reshape(-1, 4), self.training)
        x = sampled.reshape(batch, rows, cols, -1).permute(0, 3, 1, 2)  # (B, Z*(C+1), R, R)
        skip = self.mix(x)
        return self.memory(skip), skip
