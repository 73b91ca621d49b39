"""
The teacher: dense attention over all 16 x 256 tokens of a window, and nothing has to be folded.

It is trained to be learnt from, not to be driven with: same inputs, same outputs, a larger
encoder. What it has, it has beside the whole student, so that it can begin as one that is trained
(`wm_ros.train.grow`): after sparse layers of the core, dense ones in which the anchors, the 256
tokens of the latent and the 4,096 tokens of the history all see each other; and the history's
maps, cell by cell at 1.25 m, join the newest frame's features. What these add is multiplied by
weights that begin at 0 (as the gates of Flamingo, Alayrac et al. 2022). None of it has been through
the recurrence, so the latent is one more thing to read, not a neck.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.bottleneck import TOKEN_ROWS, window_warped
from wm_ros.model.config import ModelConfig
from wm_ros.model.dynamics import Dynamics
from wm_ros.model.world_model import WorldModel
from wm_ros.types import FEATURE_GRID, WINDOW_FRAMES

TOKENS = TOKEN_ROWS * TOKEN_ROWS


class History(NamedTuple):
    """
    What stands in the place of a latent, F frames of it, 16 unless training leaves some out.

    `latent` (B, 256, latent_dim) is the student's, `tokens` (B, F * 256, dim) are the history's,
    oldest first, `present` (B, F * 256) tells which of them are there.
    """

    latent: torch.Tensor
    tokens: torch.Tensor
    present: torch.Tensor


class TokenHistory(nn.Module):
    """Pool maps in the newest frame's place to tokens; nothing is folded."""

    def __init__(self, memory_channels: int, dim: int):
        super().__init__()
        self.patch = FEATURE_GRID.rows // TOKEN_ROWS
        self.pool = nn.Linear(memory_channels * self.patch ** 2, dim)
        self.when = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.place = nn.Parameter(torch.randn(TOKENS, dim) * 0.02)

    def forward(self, warped: torch.Tensor, age_s: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of warped maps (B, F, C, R, R), and which are there."""
        x = warped.unflatten(4, (TOKEN_ROWS, self.patch)).unflatten(3, (TOKEN_ROWS, self.patch))
        x = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)     # (B, F, 256, C*5*5)
        when = torch.stack([age_s, odometry_mask.expand_as(age_s)], -1)
        x = self.pool(x) + self.when(when)[:, :, None] + self.place
        present = (frame_mask > 0)[:, :, None].expand(-1, -1, TOKENS)
        return x.flatten(1, 2), present.flatten(1, 2)


class CellHistory(nn.Module):
    """Read the 16 warped maps together at every cell: where each road user was, and when."""

    def __init__(self, memory_channels: int, skip_channels: int):
        super().__init__()
        self.first = nn.Conv2d(WINDOW_FRAMES * memory_channels, skip_channels, 3, padding=1)
        self.lacking = nn.Linear(WINDOW_FRAMES + 1, skip_channels)
        self.mix = nn.ModuleList(nn.Conv2d(skip_channels, skip_channels, 3, padding=reach,
                                           dilation=reach) for reach in (2, 4))
        self.out = begin_at_zero(nn.Conv2d(skip_channels, skip_channels, 1))

    def forward(self, warped: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor) -> torch.Tensor:
        """Return what warped maps (B, 16, C, R, R) add to the newest one's (B, skip, R, R)."""
        there = torch.cat([frame_mask, odometry_mask], 1).to(warped.dtype)
        maps = warped * frame_mask[:, :, None, None, None].to(warped.dtype)
        x = F.relu(self.first(maps.flatten(1, 2)) + self.lacking(there)[:, :, None, None])
        for mix in self.mix:
            x = x + F.relu(mix(x))
        return self.out(x)


class DenseLayer(nn.Module):
    """Pre-norm transformer layer in which every token sees every other; it begins as nothing."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), begin_at_zero(nn.Linear(dim, dim))
        self.up, self.down = nn.Linear(dim, 2 * dim), begin_at_zero(nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor, present: torch.Tensor, wanted: int) -> torch.Tensor:
        """
        Attend over x (B, L, dim); `present` (B, 1, 1, L) tells which tokens may be seen.

        Returns the first `wanted` tokens: after the last layer nobody reads the others.
        """
        qkv = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                # (B, nh, L, hs) each
        read = F.scaled_dot_product_attention(q[:, :, :wanted], k, v, attn_mask=present)
        x = x[:, :wanted] + self.out(read.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class DenseDynamics(Dynamics):
    """The student's core, with a dense layer over all frames after every few sparse ones."""

    def __init__(self, latent_dim: int, dim: int, layers: int, heads: int, block: int,
                 anchors: int, dense_every: int):
        super().__init__(latent_dim, dim, layers, heads, block, anchors, TOKENS)
        # The last sparse layer has one behind it in any case.
        self.dense = nn.ModuleDict({str(i): DenseLayer(dim, heads)
                                    for i in range(layers - 1, -1, -dense_every)})

    def forward(self, latent: History, plans: torch.Tensor, motion: torch.Tensor,
                known: torch.Tensor) -> torch.Tensor:
        """Roll a history out under plans (B, 6, 3): states (B, 7, 256, dim)."""
        offsets, steps = self.ego(plans, motion, known)
        anchors = self.anchors(offsets)
        x = torch.cat([anchors, self.enter(latent.latent) + self.place], 1)
        scene, history = x.shape[1], latent.tokens.to(x.dtype)
        here = latent.present.new_ones(x.shape[0], scene)
        present = torch.cat([here, latent.present], 1)[:, None, None]
        for i, sparse in enumerate(self.layers):
            x = sparse(x)
            if str(i) not in self.dense:
                continue
            both = torch.cat([x, history], 1)
            last = i == len(self.layers) - 1
            both = self.dense[str(i)](both, present, scene if last else both.shape[1])
            x, history = both[:, :scene], both[:, scene:]
        return self.roll(self.norm(x[:, anchors.shape[1]:]), steps)


class Teacher(WorldModel):
    """A world model whose `fold` keeps every token and whose dynamics reads them all."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.dynamics = DenseDynamics(config.latent_dim, config.dim, config.layers, config.heads,
                                      config.block, config.anchors, config.dense_every)
        self.tokens = TokenHistory(config.memory_channels, config.dim)
        self.cells = CellHistory(config.memory_channels, config.skip_channels)
        #: Frames whose tokens are attended to in training; in evaluation it is all of them.
        self.dense_frames = WINDOW_FRAMES

    def fold(self, memory: torch.Tensor, now_from_frame: torch.Tensor, age_s: torch.Tensor,
             frame_mask: torch.Tensor,
             odometry_mask: torch.Tensor) -> tuple[History, torch.Tensor]:
        """
        Bring 16 cached maps (B, 16, C, R, R) into the newest frame's place; keep them all.

        Beside the history, what they add to the newest frame's features (B, skip, R, R).
        """
        warped = window_warped(memory, now_from_frame, odometry_mask)
        latent = self.bottleneck(warped, age_s, frame_mask, odometry_mask)
        past = (self.past_of(warped, frame_mask, odometry_mask)
                + self.cells(warped, frame_mask, odometry_mask))
        if self.training and self.dense_frames < WINDOW_FRAMES:
            chosen = draw_frames(len(memory), self.dense_frames).to(memory.device)
            warped = warped[torch.arange(len(memory), device=memory.device)[:, None], chosen]
            age_s, frame_mask = age_s.gather(1, chosen), frame_mask.gather(1, chosen)
        tokens, present = self.tokens(warped, age_s, frame_mask, odometry_mask)
        return History(latent, tokens, present), past


def draw_frames(count: int, frames: int) -> torch.Tensor:
    """
    Draw which `frames` of the 16 enter the dense layers: (count, frames), ascending.

    The newest always does. Attention over fewer tokens costs less by more than they are fewer, and
    what is learnt on some of them holds for all (PatchDropout, Liu et al. 2022).
    """
    older = torch.rand(count, WINDOW_FRAMES - 1).argsort(1)[:, :frames - 1]
    newest = torch.full((count, 1), WINDOW_FRAMES - 1)
    return torch.cat([older.sort(1).values, newest], 1)


def begin_at_zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Return a layer whose weights are 0: what it is added to begins as it was."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def build_model(config: ModelConfig) -> WorldModel:
    """Return the model that a config describes, student or teacher."""
    return Teacher(config) if config.teacher else WorldModel(config)
