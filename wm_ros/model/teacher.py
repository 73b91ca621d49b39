"""
The teacher: no bottleneck, dense attention over all 16 x 256 tokens of a window.

It is trained to be learnt from, not to be driven with: same inputs, same outputs, a larger
encoder, and every token of every frame sees every other in every layer. Only what comes after,
the step cell and the decoders, is built as in the student.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.bottleneck import TOKEN_ROWS, warp
from wm_ros.model.config import ModelConfig
from wm_ros.model.dynamics import Dynamics
from wm_ros.model.world_model import WorldModel
from wm_ros.types import FEATURE_GRID, WINDOW_FRAMES

TOKENS = TOKEN_ROWS * TOKEN_ROWS


class History(NamedTuple):
    """What stands in the place of a latent: tokens (B, 4096, D), and which are there (B, 4096)."""

    tokens: torch.Tensor
    present: torch.Tensor


class TokenHistory(nn.Module):
    """Warp every cached map into the newest frame and pool it to tokens; nothing is folded."""

    def __init__(self, memory_channels: int, dim: int):
        super().__init__()
        patch = FEATURE_GRID.rows // TOKEN_ROWS
        self.pool = nn.Conv2d(memory_channels, dim, patch, stride=patch)
        self.when = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, memory: torch.Tensor, now_from_frame: torch.Tensor, age_s: torch.Tensor,
                frame_mask: torch.Tensor, odometry_mask: torch.Tensor) -> History:
        """Take what `TemporalBottleneck` takes; return the tokens of all frames, oldest first."""
        pose = now_from_frame * odometry_mask[:, :, None]
        warped = warp(memory.flatten(0, 1), pose.flatten(0, 1))
        x = self.pool(warped).flatten(2).transpose(1, 2)    # (B*16, D, 16, 16) -> (B*16, 256, D)
        x = x.unflatten(0, memory.shape[:2])                # (B, 16, 256, D)
        when = torch.stack([age_s, odometry_mask.expand_as(age_s)], -1)
        x = F.relu(x + self.when(when)[:, :, None])
        present = (frame_mask > 0)[:, :, None].expand(-1, -1, TOKENS)
        return History(x.flatten(1, 2), present.flatten(1, 2))


class DenseLayer(nn.Module):
    """Pre-norm transformer layer in which every token sees every other."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Attend over x (B, L, dim); `present` (B, 1, 1, L) tells which tokens may be seen."""
        qkv = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                # (B, nh, L, hs) each
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=present)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class DenseDynamics(Dynamics):
    """Dynamics over all frames; the newest frame's tokens become the state that is rolled out."""

    def __init__(self, latent_dim: int, dim: int, layers: int, heads: int, block: int,
                 anchors: int):
        super().__init__(latent_dim, dim, 0, heads, block, anchors, TOKENS)
        self.layers = nn.ModuleList(DenseLayer(dim, heads) for _ in range(layers))

    def forward(self, latent: History, plans: torch.Tensor, motion: torch.Tensor,
                known: torch.Tensor) -> torch.Tensor:
        """Roll a history out under plans (B, 6, 3): states (B, 7, 256, dim)."""
        offsets, steps = self.ego(plans, motion, known)
        anchors = self.anchors(offsets)
        tokens = self.enter(latent.tokens) + self.place.repeat(WINDOW_FRAMES, 1)
        x = torch.cat([anchors, tokens], 1)
        here = latent.present.new_ones(x.shape[0], anchors.shape[1])
        present = torch.cat([here, latent.present], 1)[:, None, None]
        for layer in self.layers:
            x = layer(x, present)
        return self.roll(self.norm(x[:, -TOKENS:]), steps)


class Teacher(WorldModel):
    """A world model whose `fold` keeps every token and whose dynamics reads them all."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.bottleneck = TokenHistory(config.memory_channels, config.latent_dim)
        self.dynamics = DenseDynamics(config.latent_dim, config.dim, config.layers, config.heads,
                                      config.block, config.anchors)


def build_model(config: ModelConfig) -> WorldModel:
    """Return the model that a config describes, student or teacher."""
    return Teacher(config) if config.teacher else WorldModel(config)
