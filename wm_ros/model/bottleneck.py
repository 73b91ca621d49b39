"""Temporal bottleneck: 16 frames of 256 tokens are folded into one latent of 256 tokens."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.types import FEATURE_GRID, WINDOW_FRAMES

TOKEN_ROWS = 16


class TemporalBottleneck(nn.Module):
    """
    Pool every warped map to tokens, run one recurrence over them.

    A masked frame leaves the state as it is. Weights are trained and stored for half precision.
    """

    def __init__(self, memory_channels: int, dim: int):
        super().__init__()
        self.dim = dim
        patch = FEATURE_GRID.rows // TOKEN_ROWS
        self.pool = nn.Conv2d(memory_channels, dim, patch, stride=patch)
        self.when = nn.Linear(2, dim)
        self.inputs = nn.Linear(dim, 3 * dim)
        self.mix = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.recur = nn.Linear(dim, 3 * dim, bias=False)
        self.place = nn.Parameter(torch.randn(TOKEN_ROWS * TOKEN_ROWS, dim) * 0.02)

    def forward(self, warped: torch.Tensor, age_s: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor) -> torch.Tensor:
        """
        Fold the maps of `window_warped` (B, 16, C, R, R) into a latent (B, 256, dim).

        `age_s`, `frame_mask` (B, 16); `odometry_mask` (B, 1).
        """
        tokens = self.tokens(warped, age_s, odometry_mask)
        state = torch.zeros_like(tokens[:, 0, :, :self.dim])
        # One gradient for all slices in training; plain slices are what exports well.
        inputs = tokens.unbind(1) if self.training else [tokens[:, t] for t in range(WINDOW_FRAMES)]
        for step in range(WINDOW_FRAMES):
            state = self.observe(state, inputs[step], frame_mask[:, step])
        return state

    def tokens(self, warped: torch.Tensor, age_s: torch.Tensor,
               odometry_mask: torch.Tensor) -> torch.Tensor:
        """Pool every frame: the recurrence's inputs (B, 16, 256, 3 * dim)."""
        pool = self._pool_for_training if self.training else self._pool
        x = pool(warped.flatten(0, 1)).reshape(
            len(warped), WINDOW_FRAMES, TOKEN_ROWS * TOKEN_ROWS, self.dim)
        when = torch.stack([age_s, odometry_mask.expand_as(age_s)], -1)
        x = F.relu(x + self.when(when)[:, :, None] + self.place)
        return self.inputs(x)

    def _pool(self, maps: torch.Tensor) -> torch.Tensor:
        return self.pool(maps).flatten(2).transpose(1, 2)   # (M, D, 16, 16) -> (M, 256, D)

    def _pool_for_training(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool as a product of patches: a strided convolution's weight gradient is slow on CPUs."""
        patch = self.pool.kernel_size[0]
        x = maps.unflatten(3, (TOKEN_ROWS, patch)).unflatten(2, (TOKEN_ROWS, patch))
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)        # (M, 256, C*5*5)
        return F.linear(x, self.pool.weight.flatten(1), self.pool.bias)

    def observe(self, state: torch.Tensor, inputs: torch.Tensor,
                present: torch.Tensor) -> torch.Tensor:
        """Advance the state (B, 256, dim) by one frame; gates after Cho et al. (GRU, 2014)."""
        grid = state.transpose(1, 2).reshape(state.shape[0], self.dim, TOKEN_ROWS, TOKEN_ROWS)
        mixed = state + self.mix(grid).flatten(2).transpose(1, 2)
        update_x, reset_x, new_x = inputs.chunk(3, -1)
        update_h, reset_h, new_h = self.recur(mixed).chunk(3, -1)
        update = torch.sigmoid(update_x + update_h) * present[:, None, None].to(state.dtype)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return state + update * (new - state)


def window_warped(memory: torch.Tensor, now_from_frame: torch.Tensor,
                  odometry_mask: torch.Tensor) -> torch.Tensor:
    """
    Bring a window's maps (B, 16, C, R, R), oldest frame first, to the newest frame's place.

    `now_from_frame` (B, 16, 3) holds x, y, yaw of each frame's base in the newest base. It is done
    on cells of 1.25 m, before pooling: a token of 6.25 m would smear what the vehicle's own motion
    shifts by less.
    """
    pose = now_from_frame * odometry_mask[:, :, None]       # unknown motion: no warp, and said so
    return warp(memory.flatten(0, 1), pose.flatten(0, 1)).reshape(memory.shape)


def warp(maps: torch.Tensor, now_from_frame: torch.Tensor) -> torch.Tensor:
    """
    Resample maps (M, C, R, R) of earlier frames on the newest frame's grid.

    `now_from_frame` (M, 3) is x, y, yaw; a cell of the newest grid reads the frame's map where
    the same ground lay then. Ground outside the old map is zero.
    """
    rows, cols = FEATURE_GRID.shape
    half_x = FEATURE_GRID.cell_m * cols / 2
    half_y = FEATURE_GRID.cell_m * rows / 2
    centres = _centres(maps.device)                         # (R, R, 2)
    x, y = centres[..., 0], centres[..., 1]
    pose = now_from_frame.float()
    dx = x[None] - pose[:, 0, None, None]
    dy = y[None] - pose[:, 1, None, None]
    c, s = torch.cos(pose[:, 2])[:, None, None], torch.sin(pose[:, 2])[:, None, None]
    then_x = (c * dx + s * dy) / half_x                     # the grid is centred on base_link
    then_y = (c * dy - s * dx) / half_y
    where = torch.stack([then_x, then_y], -1)               # columns first, as grid_sample wants
    return F.grid_sample(maps, where.to(maps.dtype), mode='bilinear', padding_mode='zeros',
                         align_corners=False)


@cache
def _centres(device: torch.device) -> torch.Tensor:
    """Return the grid's cell centres on a device; a CUDA graph may not fetch them from the host."""
    with torch.inference_mode(False):
        return torch.as_tensor(FEATURE_GRID.centres_m(), device=device)
