"""Surroundings: the map as an agent has it around it, wherever it is and points to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.rows import weighted_rows
from wm_ros.types import FEATURE_GRID

#: Where an agent's surroundings are read, metres along and across its heading: as far as a car in
#: a street goes in three seconds, and as far aside as a turn to either side takes it; behind it
#: the way that it may have come, where older frames have left their traces.
ALONG_M = (-3.0, 2.0, 6.0, 10.0, 15.0, 22.0)
ACROSS_M = (-12.0, -7.0, -3.5, 0.0, 3.5, 7.0, 12.0)
BEHIND_M = (-1.5, -4.5, -6.0, -8.0, -10.0, -13.0, -16.0)
POINTS_M = (*((along, across) for along in ALONG_M for across in ACROSS_M),
            *((along, 0.0) for along in BEHIND_M))
#: Metres a second of a speed correction of 1.
SPEED_MPS = 2.0


class Surroundings(nn.Module):
    """
    What lies around agents, read from the map of now on a grid that turns with each of them.

    Tokens hold 6 m of ground by where it is; whether a lane turns off ahead of an agent would have
    to be learnt anew for every place and direction. Read in its own frame it looks alike
    everywhere, as in rotated regions of interest (Casas et al., IntentNet, 2018; Djuric et al.,
    MultiXNet, 2021). So does the trace behind it, from which its speed is read.
    """

    def __init__(self, now_channels: int, channels: int, agent_dim: int):
        super().__init__()
        self.reduce = nn.Linear(now_channels, channels)
        self.read = nn.Linear(len(POINTS_M) * channels, agent_dim)
        self.query, self.speed = nn.Linear(agent_dim, agent_dim), nn.Linear(agent_dim, 4)
        for last in (self.query, self.speed):
            # Begins as nothing, so that a model that did without can be trained on.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        along, across = torch.tensor(POINTS_M).unbind(-1)
        self.register_buffer('along', along, persistent=False)
        self.register_buffer('across', across, persistent=False)

    def forward(self, now: torch.Tensor, position: torch.Tensor,
                ahead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return what agents find around them on the map `now` (B, C, R, R).

        It is to be added: to queries, (B, A, D), velocities, (B, A, 2) in m/s, and log sigmas of
        velocities, (B, A, 2).
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
        around = around.reshape(position.shape[0], -1, len(POINTS_M) * table.shape[2])
        found = F.relu(self.read(around))
        speed, log_sigma = self.speed(found).float().split(2, -1)
        along, across = (speed * SPEED_MPS).unbind(-1)
        faster = torch.stack(turned(along, across, *ahead.unbind(-1)), -1)
        return self.query(found), faster, log_sigma

    def taps(self, position: torch.Tensor,
             ahead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return flat cells of the feature grid and their bilinear weights, (B, A, points, 4).

        Bilinear, not the nearest: a run time that rounds otherwise must not read another cell.
        """
        x, y = turned(self.along, self.across, *ahead[..., None, :].unbind(-1))  # (B, A, points)
        x, y = x + position[..., 0:1], y + position[..., 1:2]
        grid = FEATURE_GRID
        rows, cols = grid.shape
        inside, axes = 1.0, []
        for metres, low_m, count in ((y, grid.y_min_m, rows), (x, grid.x_min_m, cols)):
            cells = (metres - low_m) / grid.cell_m - 0.5
            held = cells.clamp(0.0, count - 1.0)
            # Beyond the last middle it fades to nothing over a cell, as in a frame of zeros.
            inside = inside * (1.0 - (cells - held).abs()).clamp_min(0.0)
            first = held.floor().clamp_max(count - 2.0)
            # Held as a number too: of what is not a number, the cell would be anywhere.
            axes.append((first.long().clamp(0, count - 2), held - first))
        (row, down), (col, right) = axes
        corner = row * cols + col
        index = torch.stack([corner, corner + 1, corner + cols, corner + cols + 1], -1)
        weight = torch.stack([(1.0 - down) * (1.0 - right), (1.0 - down) * right,
                              down * (1.0 - right), down * right], -1)
        return index, weight * inside[..., None]


def turned(along: torch.Tensor, across: torch.Tensor, sin: torch.Tensor,
           cos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of what lies so far along and across a heading."""
    return cos * along - sin * across, sin * along + cos * across
