"""Agents: centre peaks become queries, look at the scene and at each other, and get futures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.bottleneck import TOKEN_ROWS
from wm_ros.model.companions import Companions
from wm_ros.model.rows import divided, gather_rows
from wm_ros.model.surroundings import Surroundings, turned
from wm_ros.runtime.contract import COMPANIONS, MAX_AGENTS
from wm_ros.types import (
    AGENT_CLASSES,
    FEATURE_GRID,
    HORIZON_STEPS,
    MODES,
    TIME_STEP_S,
    centre_grid,
)

#: From here on motion tells which end of a road user is its front.
MOVING_MPS = 0.5
#: A logit of what is no maximum; half precision holds it.
NOWHERE = -1e4
#: Offsets of the ego plan from an agent are read on a scale that is finest within these metres.
NEAR_M = 10.0


def peaks(centre: torch.Tensor, count: int = MAX_AGENTS) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return scores and cells (B, count) of the highest local maxima of centre logits (B, S, S).

    A cell is a maximum when nothing within about 0.6 m of it is higher; cells are flat indices.
    Where there are fewer maxima, the rest has a score of 0.
    """
    heat = centre[:, None]
    highest = F.max_pool2d(heat, 3, stride=1, padding=1)
    fine = centre.shape[-1] > 2 * FEATURE_GRID.cols
    if fine:    # cells of 0.31 m: the two cells next to it on each side too, which makes a disc
        for length in ((1, 5), (5, 1)):
            padding = (length[0] // 2, length[1] // 2)
            highest = torch.maximum(highest, F.max_pool2d(heat, length, 1, padding))
    heat = torch.where(heat >= highest, heat, NOWHERE)
    if not fine:
        best, cell = torch.topk(heat.flatten(1), count, dim=1)
        return torch.sigmoid(best), cell
    # Of four cells in a square one at most is a maximum: a quarter of the places to sort.
    half = centre.shape[-1] // 2
    best, which = F.pixel_unshuffle(heat, 2).max(1)                          # (B, S/2, S/2)
    best, square = torch.topk(best.flatten(1), count, dim=1)
    which = which.flatten(1).gather(1, square)
    (row, col), (down, right) = divided(square, half), divided(which, 2)
    return torch.sigmoid(best), (2 * row + down) * (2 * half) + 2 * col + right


class Attention(nn.Module):
    """Plain multi-head attention of queries over a memory."""

    def __init__(self, dim: int, memory_dim: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(memory_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, memory: torch.Tensor,
                bias: torch.Tensor | None = None) -> torch.Tensor:
        """Add to x (B, A, D) what it reads from memory (B, M, E); bias (B, 1, 1, M)."""
        def split(t):  # (B, L, D) -> (B, nh, L, hs)
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q = split(self.query(self.norm(x)))
        k, v = (split(t) for t in self.key_value(memory).chunk(2, -1))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        read = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
        return x + self.out(read)


class AgentDecoder(nn.Module):
    """From cells of the bird's-eye map to classes, boxes and K = 6 modes with covariance."""

    def __init__(self, dim: int, now_channels: int, agent_dim: int, layers: int,
                 centre_cells: int, sees_plan: bool, companions: int, surroundings: int):
        super().__init__()
        self.companions = Companions(agent_dim, companions) if companions else None
        #: How many peaks it is to be asked about; with their companions they are `MAX_AGENTS`.
        self.peaks = MAX_AGENTS - (COMPANIONS if companions else 0)
        self.centre_cells, self.grid = centre_cells, centre_grid(FEATURE_GRID.rows * centre_cells)
        self.from_map = nn.Linear(9 * now_channels, agent_dim)
        self.from_token = nn.Linear(dim, agent_dim)
        self.from_place = nn.Linear(4, agent_dim)
        self.from_score = nn.Linear(1, agent_dim)
        self.scene = nn.ModuleList(Attention(agent_dim, dim) for _ in range(layers))
        self.others = nn.ModuleList(Attention(agent_dim, agent_dim) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(agent_dim), nn.Linear(agent_dim, 2 * agent_dim), nn.ReLU(),
                          nn.Linear(2 * agent_dim, agent_dim)) for _ in range(layers))
        self.box = nn.Sequential(nn.Linear(agent_dim, agent_dim), nn.ReLU(),
                                 nn.Linear(agent_dim, 9 + 5 + len(AGENT_CLASSES)))
        self.surroundings = (Surroundings(now_channels, surroundings, agent_dim)
                             if surroundings else None)
        # Begins as nothing, so that a model that did without can be trained on.
        self.from_plan = nn.Sequential(nn.Linear(4 * HORIZON_STEPS, agent_dim), nn.ReLU(),
                                       nn.Linear(agent_dim, agent_dim)) if sees_plan else None
        if self.from_plan is not None:
            nn.init.zeros_(self.from_plan[-1].weight)
            nn.init.zeros_(self.from_plan[-1].bias)
        self.mode_query = nn.Parameter(torch.randn(MODES, agent_dim) * 0.5)
        self.mode = nn.Sequential(nn.Linear(agent_dim, 2 * agent_dim), nn.ReLU(),
                                  nn.Linear(2 * agent_dim, 1 + HORIZON_STEPS * 5))
        # All modes begin as constant velocity and part from there; begun apart, it takes most of a
        # short training until they are plausible.
        nn.init.normal_(self.mode[-1].weight, std=0.01)
        nn.init.zeros_(self.mode[-1].bias)
        time = TIME_STEP_S * torch.arange(1, HORIZON_STEPS + 1, dtype=torch.float32)
        self.register_buffer('time_s', time, persistent=False)

    def forward(self, now: torch.Tensor, state: torch.Tensor, score: torch.Tensor,
                cell: torch.Tensor, bias: torch.Tensor | None = None,
                ego: tuple[torch.Tensor, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """
        Decode agents at cells (B, A) from the map `now` (B, C, R, R) and tokens (B, 256, dim).

        Over one scene, plans have one map (1, C, R, R), and cells and scores (1, A) for all.
        Cells are flat indices of the centre grid. `score` (B, A) is the centre probability, `bias`
        (B, 1, 1, A) masks padding. `ego` are the plans (B, 6, 3) and whether they hold (B, 1), as
        `WorldModel.rollout` takes them; where time plays no part they are left out. Returns the
        `agent_*`, `mode_logits`, `trajectories` and `trajectory_spread` rows of the contract but
        `agent_score`, in the order of the cells.
        """
        return self.heads(*self.queries(now, state, score, cell, bias), now, ego)

    def everybody(self, now: torch.Tensor, state: torch.Tensor, centre: torch.Tensor,
                  ego: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Decode who is there: the highest peaks of centre logits (B, S, S), and their companions.

        As `forward`, with `agent_score` (1 or B, A) of A = `MAX_AGENTS` rows.
        """
        score, cell = peaks(centre, self.peaks)
        query, place = self.queries(now, state, score, cell)
        if self.companions is not None:
            query, place, score = self.companions(query, place, score)
        return {'agent_score': score, **self.heads(query, place, now, ego)}

    def queries(self, now: torch.Tensor, state: torch.Tensor, score: torch.Tensor,
                cell: torch.Tensor, bias: torch.Tensor | None = None
                ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what agents are read from, (B, A, D), and their cells' middles (B, A, 2), m."""
        row, col = divided(cell, self.grid.cols)
        around = self.neighbourhood(now, row, col)
        patch = self.grid.rows // TOKEN_ROWS
        (token_row, down), (token_col, right) = divided(row, patch), divided(col, patch)
        tokens = gather_rows(state, token_row * TOKEN_ROWS + token_col)
        place = torch.stack([self.grid.x_min_m + (col + 0.5) * self.grid.cell_m,
                             self.grid.y_min_m + (row + 0.5) * self.grid.cell_m], -1)   # (B, A, 2)
        where = torch.cat([place / 50.0, torch.stack([down, right], -1) / patch], -1)
        query = (self.from_map(around) + self.from_place(where.to(around.dtype))
                 + self.from_score(score[..., None].to(around.dtype)) + self.from_token(tokens))
        for scene, others, mlp in zip(self.scene, self.others, self.mlps, strict=True):
            query = scene(query, state)
            query = others(query, query, bias)
            query = query + mlp(query)
        return query, place

    def neighbourhood(self, now: torch.Tensor, row: torch.Tensor,
                      col: torch.Tensor) -> torch.Tensor:
        """
        Gather the 3x3 cells of `now` around each row and column (B, A) of the centre grid.

        Returns (B, A, 9 * C); outside the map is zero.
        """
        rows, cols = FEATURE_GRID.shape
        row, _ = divided(row, self.centre_cells)
        col, _ = divided(col, self.centre_cells)
        offset = torch.arange(9, device=row.device) - 4     # of the middle one in reading order
        down = torch.div(offset + 4, 3, rounding_mode='trunc') - 1
        row, col = row[..., None] + down, col[..., None] + offset - 3 * down    # (B, A, 9)
        inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
        index = row.clamp(0, rows - 1) * cols + col.clamp(0, cols - 1)
        around = gather_rows(now.permute(0, 2, 3, 1).flatten(1, 2), index.flatten(1))
        return (around.unflatten(1, (-1, 9)) * inside[..., None].to(around.dtype)).flatten(2)

    def heads(self, query: torch.Tensor, place: torch.Tensor, now: torch.Tensor,
              ego: tuple[torch.Tensor, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """
        Read boxes and modes from queries (B, A, D) at places (B, A, 2) in metres.

        `now` and `ego` as `forward` takes them.
        """
        query, ahead, boxes = self.boxes(query, place, now)
        return {**boxes, **self.futures(query, ahead, boxes['agent_box'], ego)}

    def boxes(self, query: torch.Tensor, place: torch.Tensor, now: torch.Tensor
              ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """
        Return what futures are read from, and the `agent_*` rows of the contract but the scores.

        That is queries (B, A, D) and sine and cosine (B, A, 2) of where agents go if they go ahead.
        Queries and velocities know what the map `now` has around each box.
        """
        box, log_sigma, label = self.box(query).float().split([9, 5, len(AGENT_CLASSES)], -1)
        position = place + box[..., :2] * FEATURE_GRID.cell_m
        heading = box[..., 2:4] / (box[..., 2:4].square().sum(-1, keepdim=True) + 1e-6).sqrt()
        velocity = box[..., 7:9] * 5.0
        # Front and back are easily confused, forward and backward hardly: motion decides. It does
        # so once, or what was read to an agent's left would be told of its right.
        ahead = heading.detach() * facing(heading, velocity)[..., None]
        if self.surroundings is not None:
            more, faster, unsure = self.surroundings(now, position.detach(), ahead)
            query, velocity = query + more, velocity + faster
            log_sigma = torch.cat([log_sigma[..., :3], log_sigma[..., 3:] + unsure], -1)
        return query, ahead, {
            'agent_class': label,
            'agent_box': torch.cat([position, heading, box[..., 4:7], velocity], -1),
            'agent_log_sigma': log_sigma.clamp(-5.0, 3.0)}

    def futures(self, query: torch.Tensor, ahead: torch.Tensor, box: torch.Tensor,
                ego: tuple[torch.Tensor, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """
        Return the modes of agents from what `boxes` has found of them.

        `query` (B, A, D) and `ahead` (B, A, 2), and the `agent_box` (B, A, 9) of the contract.
        """
        position, velocity = box[..., :2], box[..., 7:9]
        if self.from_plan is not None and ego is not None:
            plans, known = ego
            meeting = relative_plan(plans, position.detach(), ahead, velocity.detach(), self.time_s)
            query = query + self.from_plan(meeting.to(query.dtype)) * known[:, None].to(query.dtype)
        modes = self.mode(F.relu(query[:, :, None] + self.mode_query)).float()  # (B, A, K, 31)
        logits = modes[..., 0]
        path = modes[..., 1:].unflatten(-1, (HORIZON_STEPS, 5))
        # Offsets are learnt along and across the heading, on top of constant velocity, and grow
        # with time: a turn then looks alike wherever the agent points.
        along, across = path[..., 0] * self.time_s * 2.0, path[..., 1] * self.time_s * 2.0
        offset = torch.stack(turned(along, across, *ahead[..., None, None, :].unbind(-1)), -1)
        straight = position[:, :, None, None] + velocity[:, :, None, None] * self.time_s[:, None]
        spread = torch.cat([path[..., 2:4].clamp(-4.0, 3.0),
                            path[..., 4:5].clamp(-2.0, 2.0)], -1)
        return {'mode_logits': logits, 'trajectories': straight + offset,
                'trajectory_spread': spread}


def relative_plan(plans: torch.Tensor, position: torch.Tensor, ahead: torch.Tensor,
                  velocity: torch.Tensor, time_s: torch.Tensor) -> torch.Tensor:
    """
    Return where the ego vehicle will be, as each agent sees it: (B, A, 24), within -1 and 1.

    Of every step of the plans (B, 6, 3) two offsets, along and across the agent's heading `ahead`
    (B, A, 2; sin, cos): from where the agent is, `position` (B, A, 2), and from where it would be
    at its `velocity` (B, A, 2). Who would drive into the ego vehicle reads it off the second.
    """
    still = plans[:, None, :, :2] - position[:, :, None]                     # (B, A, 6, 2)
    both = torch.stack([still, still - velocity[:, :, None] * time_s[:, None]], 2)
    sin, cos = ahead[:, :, None, None].unbind(-1)
    x, y = both.unbind(-1)                                                   # (B, A, 2, 6)
    offsets = torch.stack([cos * x + sin * y, cos * y - sin * x], -1)
    return (offsets / (offsets.abs() + NEAR_M)).flatten(2)


def facing(heading: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
    """Return 1, or -1 where a heading (..., 2; sin, cos) points against a clear motion."""
    along = (heading[..., 1] * velocity[..., 0] + heading[..., 0] * velocity[..., 1]).detach()
    return torch.where(along < -MOVING_MPS, -torch.ones_like(along), torch.ones_like(along))
