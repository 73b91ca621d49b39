"""Surroundings: the map as an agent has it before and beside it, wherever it is and points to."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.model.rows import weighted_rows
from wm_ros.types import FEATURE_GRID

#: Where an agent's surroundings are read, metres along and across its heading: as far as a car in
#: a street goes in three seconds, and as far aside as a turn to either side takes it.
ALONG_M = (-3.0, 2.0, 6.0, 10.0, 15.0, 22.0)
ACROSS_M = (-12.0, -7.0, -3.5, 0.0, 3.5, 7.0, 12.0)


class Surroundings(nn.Module):
    """
    What lies around agents, read from the map of now on a grid that turns with each of them.

    Tokens hold 6 m of ground by where it is; whether a lane turns off ahead of an agent would have
    to be learnt anew for every place and direction. Read in its own frame it looks alike
    everywhere, as in rotated regions of interest (Casas et al., IntentNet, 2018; Djuric et al.,
    MultiXNet, 2021).
    """

    def __init__(self, now_channels: int, channels: int, agent_dim: int):
        super().__init__()
        self.reduce = nn.Linear(now_channels, channels)
        points = len(ALONG_M) * len(ACROSS_M)
        self.read = nn.Sequential(nn.Linear(points * channels, agent_dim), nn.ReLU(),
                                  nn.Linear(agent_dim, agent_dim))
        # Begins as nothing, so that a model that did without can be trained on.
        nn.init.zeros_(self.read[-1].weight)
        nn.init.zeros_(self.read[-1].bias)
        along, across = torch.meshgrid(torch.tensor(ALONG_M), torch.tensor(ACROSS_M),
                                       indexing='ij')
        self.register_buffer('along', along.flatten(), persistent=False)
        self.register_buffer('across', across.flatten(), persistent=False)

    def forward(self, now: torch.Tensor, position: torch.Tensor,
                ahead: torch.Tensor) -> torch.Tensor:
        """
        Return what agents find around them (B, A, D) on the map `now` (B, C, R, R).

        `position` (B, A, 2) in metres, `ahead` (B, A, 2) sine and cosine of the heading; a map of
        one scene (1, C, R, R) serves agents under several plans. Outside the map is zero.
        """
        table = self.reduce(now.permute(0, 2, 3, 1).flatten(1, 2))          # (B, R * R, c)
        index, weight = self.taps(position, ahead)
        if now.shape[0] > 1:
            index = index + (torch.arange(now.shape[0], device=index.device)
                             * table.shape[1])[:, None, None, None]
        around = weighted_rows(table.flatten(0, 1), index.flatten(0, 2),
                               weight.flatten(0, 2).to(table.dtype), self.training)
        points = self.along.shape[0]
        return self.read(around.reshape(position.shape[0], -1, points * table.shape[2]))

    def taps(self, position: torch.Tensor,
             ahead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return flat cells of the feature grid and their bilinear weights, (B, A, points, 4).

        Bilinear, not the nearest: a run time that rounds otherwise must not read another cell.
        """
        sin, cos = ahead[..., None, :].unbind(-1)                            # (B, A, 1)
        x = position[..., 0:1] + cos * self.along - sin * self.across
        y = position[..., 1:2] + sin * self.along + cos * self.across
        grid = FEATURE_GRID
        rows, cols = grid.shape
        inside, axes = 1.0, []
        for metres, low_m, count in ((y, grid.y_min_m, rows), (x, grid.x_min_m, cols)):
            cells = (metres - low_m) / grid.cell_m - 0.5
            held = cells.clamp(0.0, count - 1.0)
            # Beyond the last middle it fades to nothing over a cell, as in a frame of zeros.
            inside = inside * (1.0 - (cells - held).abs()).clamp_min(0.0)
            first = held.floor().clamp_max(count - 2.0)
            axes.append((first.long(), held - first))
        (row, down), (col, right) = axes
        corner = row * cols + col
        index = torch.stack([corner, corner + 1, corner + cols, corner + cols + 1], -1)
        weight = torch.stack([(1.0 - down) * (1.0 - right), (1.0 - down) * right,
                              down * (1.0 - right), down * right], -1)
        return index, weight * inside[..., None]
