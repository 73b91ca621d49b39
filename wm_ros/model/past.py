"""Past: what the older frames of a window saw at every cell, beside the newest frame's map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.types import FEATURE_GRID, WINDOW_FRAMES

#: Frames of a window before the newest, whose own map goes to the decoders as it is.
OLDER_FRAMES = WINDOW_FRAMES - 1


class Past(nn.Module):
    """
    Read the older frames' warped maps at every cell, through a few filters over time.

    A token of the latent covers 25 cells, too many for it to keep what stood on each of them. Who
    was seen well a second ago and is half hidden now, or is a little elsewhere in every frame, is
    known from here. Each filter is a weighted sum of 15 maps, the same for all channels, so the
    whole is one product of a small matrix with maps that are there already.
    """

    def __init__(self, memory_channels: int, skip_channels: int, filters: int, width: int):
        super().__init__()
        self.filters = nn.Parameter(begin_as_means(filters))
        self.first = nn.Linear(filters * memory_channels, width)
        self.lacking = nn.Linear(OLDER_FRAMES + 1, width)
        # Begins as nothing, so that a model that did without can be trained on.
        self.out = nn.Conv2d(width, skip_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, warped: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor) -> torch.Tensor:
        """
        Return what the past adds to the newest frame's map: (B, skip, R, R).

        `warped` (B, 16, C, R, R) are maps in the newest frame's place, oldest first, `frame_mask`
        (B, 16) tells which are there, `odometry_mask` (B, 1) whether they could be warped.
        """
        rows, cols = FEATURE_GRID.shape
        count = rows * cols * warped.shape[2]
        there = frame_mask[:, :OLDER_FRAMES].to(warped.dtype)
        filters = self.filters.to(warped.dtype) * there[:, None]            # (B, F, 15)
        # Channels innermost, as a run time has the maps after the warp.
        maps = warped.flatten(0, 1).permute(0, 2, 3, 1).reshape(len(there), WINDOW_FRAMES, count)
        x = filters @ maps[:, :OLDER_FRAMES]                                # (B, F, R * R * C)
        x = x.reshape(len(there), len(self.filters), rows * cols, -1).transpose(1, 2).flatten(2)
        lacking = self.lacking(torch.cat([there, odometry_mask.to(warped.dtype)], 1))
        x = F.relu(self.first(x) + lacking[:, None])                        # (B, R * R, width)
        return self.out(x.transpose(1, 2).reshape(len(there), -1, rows, cols))


def begin_as_means(filters: int) -> torch.Tensor:
    """Return filters (F, 15) that begin as means of the last 1, 2, 4, ... frames, and noise."""
    rows = torch.randn(filters, OLDER_FRAMES) / OLDER_FRAMES
    for row, frames in zip(rows, (1, 2, 4, 8, OLDER_FRAMES), strict=False):
        row[-frames:] += 1.0 / frames
    return rows
