"""
Dynamics: a sparse transformer over the latent, conditioned on where the ego vehicle will go.

Every layer attends with 128 key slots a query: three blocks of 32 tokens (a sliding window over
token rows) and 32 global anchors. 256 queries x 128 slots = 32,768 pairs, half of dense
attention at 256 tokens, and linear in the number of tokens beyond.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.quant import Quantizer, QuantLinear
from wm_ros.types import HORIZON_STEPS


class SparseAttention(nn.Module):
    """
    Sliding window plus anchors, as dense batched products over blocks (static graphs).

    Tokens see their own block, the two beside it and every anchor; anchors see everything.
    Blocks past either end are masked slots. Both products run in INT8 once calibrated.
    """

    def __init__(self, dim: int, heads: int, block: int, anchors: int):
        super().__init__()
        self.heads, self.block, self.anchors = heads, block, anchors
        self.qkv = QuantLinear(dim, 3 * dim)
        self.out = QuantLinear(dim, dim)
        self.query, self.key, self.value, self.share = (Quantizer() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over (B, anchors + tokens, dim): anchors first, then tokens in blocks."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                # (B, nh, L, hs) each
        q = q * (dim // self.heads) ** -0.5
        a = self.anchors
        anchors = self._attend(q[:, :, :a], k, v)           # anchors read all
        blocks = (length - a) // self.block

        def split(t):  # (B, nh, T, hs) -> (B, nh, blocks, block, hs)
            return t[:, :, a:].reshape(batch, self.heads, blocks, self.block, -1)

        def around(t):  # each block with its neighbours and the anchors
            own = split(t)
            edge = own[:, :, :1] * 0.0  # `zeros_like` would fix the exported batch
            before = torch.cat([edge, own[:, :, :-1]], 2)
            after = torch.cat([own[:, :, 1:], edge], 2)
            shared = t[:, :, None, :a].expand(-1, -1, blocks, -1, -1)
            return torch.cat([before, own, after, shared], 3)

        tokens = self._attend(split(q), around(k), around(v), self._edges(blocks, x))
        tokens = tokens.reshape(batch, self.heads, length - a, -1)
        y = torch.cat([anchors, tokens], 2).transpose(1, 2).reshape(batch, length, dim)
        return self.out(y)

    def _attend(self, q, k, v, bias=None):
        # Rounded where they are multiplied: run times see an INT8 product only without slices and
        # joins between. The numbers are the same, since those change none.
        scores = self.query(q) @ self.key(k.transpose(-1, -2))
        if bias is not None:
            scores = scores + bias
        return self.share(torch.softmax(scores, -1)) @ self.value(v)

    def _edges(self, blocks: int, like: torch.Tensor) -> torch.Tensor:
        """Return the mask (blocks, 1, slots): no block before the first or after the last."""
        mask = torch.zeros(blocks, 1, 3 * self.block + self.anchors, device=like.device)
        mask[0, :, :self.block] = -1e4
        mask[-1, :, 2 * self.block:3 * self.block] = -1e4
        return mask.to(like.dtype)

    def pairs(self, tokens: int) -> dict[str, int]:
        """Count query-key pairs: slots of the tokens, those masked, and the anchors' reads."""
        slots = tokens * (3 * self.block + self.anchors)
        return {'slots': slots, 'masked': 2 * self.block * self.block,
                'anchor_reads': self.anchors * (self.anchors + tokens)}


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, dim: int, heads: int, block: int, anchors: int):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SparseAttention(dim, heads, block, anchors)
        self.up, self.down = QuantLinear(dim, 3 * dim), QuantLinear(3 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_attention(x))
        return x + self.down(F.relu(self.up(self.norm_mlp(x))))


class EgoEncoder(nn.Module):
    """Embed the ego plan and motion; without odometry a learned vector stands in."""

    def __init__(self, dim: int, slots: int):
        super().__init__()
        self.slots = slots
        self.up, self.down = nn.Linear(4 * HORIZON_STEPS + 2, 128), nn.Linear(128, slots * dim)
        self.unknown = nn.Parameter(torch.zeros(slots * dim))
        self.step = nn.Linear(4, dim)

    def forward(self, plans: torch.Tensor, motion: torch.Tensor,
                known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return anchor offsets (B, slots, dim) and step embeddings (B, 6, dim)."""
        poses = torch.cat([plans[..., :2] / 20.0, torch.sin(plans[..., 2:]),
                           torch.cos(plans[..., 2:]) - 1.0], -1)           # (B, 6, 4)
        flat = torch.cat([poses.flatten(1), motion / 10.0], -1)
        whole = self.down(F.relu(self.up(flat)))
        whole = known * whole + (1.0 - known) * self.unknown
        return (whole.reshape(whole.shape[0], self.slots, -1),
                self.step(poses) * known[:, :, None])


class Dynamics(nn.Module):
    """The heavy core, once a plan, and the light step cell, every 0.5 s."""

    EGO_SLOTS = 4

    def __init__(self, latent_dim: int, dim: int, layers: int, heads: int, block: int,
                 anchors: int, tokens: int = 256):
        super().__init__()
        self.enter = QuantLinear(latent_dim, dim)
        self.place = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        self.anchor_tokens = nn.Parameter(torch.randn(anchors, dim) * 0.02)
        self.ego = EgoEncoder(dim, self.EGO_SLOTS)
        self.layers = nn.ModuleList(Layer(dim, heads, block, anchors) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.step_in, self.step_out = QuantLinear(dim, dim), QuantLinear(dim, dim)
        self.step_norm = nn.LayerNorm(dim)

    def forward(self, latent: torch.Tensor, plans: torch.Tensor, motion: torch.Tensor,
                known: torch.Tensor) -> torch.Tensor:
        """
        Roll the latent (B, 256, latent_dim) out under plans (B, 6, 3), one (1, ...) under all.

        `motion` (B, 2) is speed and yaw rate, `known` (B, 1) the odometry mask. Returns the
        states of now and of every 0.5 s, (B, 7, 256, dim).
        """
        offsets, steps = self.ego(plans, motion, known)
        anchors = self.anchors(offsets)
        tokens = self.enter(latent) + self.place
        if latent.shape[0] == 1:
            tokens = tokens.expand(anchors.shape[0], -1, -1)
        x = torch.cat([anchors, tokens], 1)
        for layer in self.layers:
            x = layer(x)
        return self.roll(self.norm(x[:, anchors.shape[1]:]), steps)

    def anchors(self, offsets: torch.Tensor) -> torch.Tensor:
        """Return the anchor tokens (B, anchors, dim), the first of which know the ego plan."""
        anchors = self.anchor_tokens.expand(offsets.shape[0], -1, -1)
        return torch.cat([anchors[:, :self.EGO_SLOTS] + offsets.to(anchors.dtype),
                          anchors[:, self.EGO_SLOTS:]], 1)

    def roll(self, state: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Return the state of now and those after each step of the plan: (B, 7, 256, dim)."""
        states = [state]
        for step in range(HORIZON_STEPS):
            state = self.advance(state, steps[:, step])
            states.append(state)
        return torch.stack(states, 1)

    def advance(self, state: torch.Tensor, plan_step: torch.Tensor) -> torch.Tensor:
        """Advance the state (B, 256, dim) by 0.5 s of the plan (B, dim)."""
        hidden = F.relu(self.step_in(self.step_norm(state) + plan_step[:, None]))
        return state + self.step_out(hidden)
