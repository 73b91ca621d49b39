"""Decoder: rolled-out states and the newest bird's-eye map become occupancy, flow and road."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.bottleneck import TOKEN_ROWS
from wm_ros.model.quant import NormedConv
from wm_ros.types import FEATURE_GRID, HORIZON_STEPS, OUTPUT_GRID, ROAD_LAYERS

STEPS = HORIZON_STEPS + 1


class Decoder(nn.Module):
    """
    Dense outputs, decoded at 1.25 m and raised to the 0.5 m output grid at the end.

    Tokens of 6.25 m are too coarse for a footprint, so the newest frame's features skip to
    every step; what moved, and where to, comes from the state of that step.
    """

    def __init__(self, dim: int, skip_channels: int, channels: int, centre_cells: int):
        super().__init__()
        self.patch = FEATURE_GRID.rows // TOKEN_ROWS
        self.channels, self.centre_cells = channels, centre_cells
        self.now_channels = channels + 16
        self.raise_tokens = nn.Linear(dim, channels * self.patch ** 2)
        self.skip = nn.Conv2d(skip_channels, channels, 1)
        self.step_bias = nn.Parameter(torch.zeros(STEPS, channels))
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.occupancy = nn.Conv2d(channels, 4 * 3, 1)      # occupancy, flow x, y; 2x2 sub-cells
        self.now = nn.Sequential(NormedConv(skip_channels + channels, self.now_channels),
                                 NormedConv(self.now_channels, self.now_channels))
        self.centre = nn.Conv2d(self.now_channels, centre_cells ** 2, 1)    # sub-cells
        self.ground = nn.Conv2d(self.now_channels, 4 * (len(ROAD_LAYERS) + 1), 1)
        nn.init.constant_(self.centre.bias, -4.0)
        nn.init.constant_(self.occupancy.bias[:4], -3.0)

    def raised(self, states: torch.Tensor) -> torch.Tensor:
        """Spread tokens (M, 256, dim) over their 5x5 cells: (M, R, R, channels)."""
        rows, cols = FEATURE_GRID.shape
        patch = self.patch
        # The layer's rows are ordered channel, row, column. With channels innermost a whole row
        # of a patch is one block of memory, and the convolutions read it as it lies.
        weight, bias = (
            t.unflatten(0, (self.channels, patch, patch)).movedim(0, 2).flatten(0, 2)
            for t in (self.raise_tokens.weight, self.raise_tokens.bias))
        x = F.linear(states, weight, bias)                  # (M, 256, 25 * C)
        x = x.reshape(-1, TOKEN_ROWS, TOKEN_ROWS, patch, patch * self.channels)
        return x.transpose(2, 3).reshape(-1, rows, cols, self.channels)

    def forward(self, states: torch.Tensor, skip: torch.Tensor,
                chosen: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """
        Decode states (B, 7, 256, dim) with skip features (B, skip, R, R).

        Skip features of one scene (1, skip, R, R) serve states under several plans; what is there
        now is then decoded once, from the first of them, and has a batch of 1, or is the same for
        all where it is the first of the steps.

        `chosen` are the steps of the states where they are not all seven; the first has to be 0.

        Returns `occupancy` (B, 7, Y, X) logits, `flow` (B, 7, 2, Y, X) metres backward, `road`
        (B, 3, Y, X) and `observed` (B, Y, X) logits, `centre` (B, S, S) logits of agent centres on
        `centre_grid(S)` and `now` (B, C, R, R), the map that agents are read from.
        """
        if skip.shape[0] == 1 and chosen is None:
            raised, x = self.steps(states[:1, :1], skip, slice(0, 1))
            now = self.dense(x, 1).expand(states.shape[0], -1, -1, -1, -1)
            _, x = self.steps(states[:, 1:], skip, slice(1, STEPS))
            dense = torch.cat([now, self.dense(x, HORIZON_STEPS)], 1)
        else:
            raised, x = self.steps(states, skip, chosen)
            dense = self.dense(x, states.shape[1])
        return {'occupancy': dense[:, :, 0], 'flow': dense[:, :, 1:],
                **self.current(skip, raised[:skip.shape[0], 0].permute(0, 3, 1, 2))}

    def dense(self, maps: torch.Tensor, steps: int) -> torch.Tensor:
        """Decode maps of so many steps (B * T, C, R, R): occupancy and flow (B, T, 3, Y, X)."""
        return to_output_grid(self.occupancy(maps)).unflatten(0, (-1, steps))

    def steps(self, states: torch.Tensor, skip: torch.Tensor,
              chosen: torch.Tensor | slice | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Spread states over the ground and add the newest frame's features, as `forward` takes them.

        Returns the raised states (B, T, R, R, C) and the maps of the steps (B * T, C, R, R).
        """
        maps = self.raised(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        # Something of the input is added, or the exporter would cut the parameter into constants
        # without its name, by which an artifact's weights are read back.
        whole = self.step_bias + states[0, 0, 0, 0] * 0.0
        bias = whole if chosen is None else whole[chosen]
        still = self.skip(skip).permute(0, 2, 3, 1)         # (B, C, R, R) -> (B, R, R, C)
        x = F.relu(maps + still[:, None] + bias[:, None, None])
        x = x.flatten(0, 1).permute(0, 3, 1, 2)             # (B, 7, R, R, C) -> (B*7, C, R, R)
        return maps, x + F.relu(self.mix(x))

    def current(self, skip: torch.Tensor, raised: torch.Tensor) -> dict[str, torch.Tensor]:
        """Decode what is there now from skip features and the raised state (B, C, R, R)."""
        # Joined with channels innermost, as both lie in memory where a run time holds them so.
        both = torch.cat([skip.permute(0, 2, 3, 1), raised.permute(0, 2, 3, 1)], -1)
        now = self.now(both.permute(0, 3, 1, 2))            # (B, R, R, C) -> (B, C, R, R)
        ground = to_output_grid(self.ground(now))
        return {'now': now, 'centre': F.pixel_shuffle(self.centre(now), self.centre_cells)[:, 0],
                'road': ground[:, :-1], 'observed': ground[:, -1]}


def to_output_grid(x: torch.Tensor) -> torch.Tensor:
    """Raise (M, 4 * C, R, R) at 1.25 m to (M, C, Y, X) at 0.5 m: sub-cells, then bilinear."""
    fine = F.pixel_shuffle(x, 2)                            # 0.625 m
    return F.interpolate(fine, size=OUTPUT_GRID.shape, mode='bilinear', align_corners=False)
