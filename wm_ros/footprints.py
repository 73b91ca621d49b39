"""
Where agents may stand, drawn: each agent's modes as one soft box a step, and its motion as flow.

Boxes have sharp edges where the dense head, decoded on coarser cells, has none, and know which
cells move together. So the occupancy forecast is a weighted sum of both (a linear opinion pool:
Stone, Annals of Mathematical Statistics 1961), with the artifact's `occupancy_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, TIME_STEP_S

if TYPE_CHECKING:
    from wm_ros.decode import AgentTable

#: Agents from this existence probability on are drawn, whatever is published.
DRAWN_FROM = 0.1
#: Half of the width over which an edge fades out, in standard deviations of the place, and its
#: bounds. Wider looks better calibrated, but is worse in IoU (validation drives).
FADE_SIGMAS = 0.5
FADE_M = (0.25, 4.0)
#: A path that moves this far in a step says which way the box points.
TURNED_BY_M = 0.5
#: An agent covers a cell surely from here on: its motion is the flow there, and hidden ground under
#: it is not unknown.
SURE_FROM = 0.5
MAX_FLOW_M = 60.0
#: Boxes come in the order of their size: up to these many cells, and more.
_SIZES = (8, 16, 32)
_STEPS = HORIZON_STEPS + 1


@dataclass(frozen=True)
class Footprints:
    """
    What agents cover: one row for each box and cell.

    `cell` (N,) indexes (T + 1, Y, X) flattened, `share` (N,) is the probability that the box's
    agent is there and covers it, `motion_m` (N, 2) how the box moved in the half second before.
    """

    cell: np.ndarray
    share: np.ndarray
    motion_m: np.ndarray

    def add_to(self, occupancy: np.ndarray, weight: float) -> None:
        """Add `weight` times the shares to occupancy (T + 1, Y, X), at most 1, in place."""
        np.add.at(occupancy.reshape(-1), self.cell, np.float32(weight) * self.share)
        np.minimum(occupancy, np.float32(1), out=occupancy)

    def surely(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return which cells of bool (T + 1, Y, X) one agent covers for sure."""
        covered = np.zeros(shape, bool)
        covered.reshape(-1)[self.cell[self.share >= SURE_FROM]] = True
        return covered

    def write_flow(self, flow: np.ndarray) -> None:
        """Write the backward flow (T + 1, 2, Y, X) of cells that an agent covers for sure."""
        sure = np.flatnonzero(self.share >= SURE_FROM)
        step, cell = np.divmod(self.cell[sure], flow[0, 0].size)
        flow.reshape(_STEPS, 2, -1)[step, :, cell] = np.clip(
            -self.motion_m[sure], -MAX_FLOW_M, MAX_FLOW_M)

    def write_hidden(self, codes: np.ndarray, unobserved: int) -> None:
        """
        Write codes (T + 1, Y, X) of ground that is hidden, but surely under an agent.

        What stands on it is seen, or was. Such ground is told to be occupied; never to be free.
        """
        flat = codes.reshape(-1)
        sure = np.flatnonzero(self.share >= SURE_FROM)
        sure = sure[flat[self.cell[sure]] == unobserved]
        flat[self.cell[sure]] = 0
        share = np.minimum(self.share[sure], np.float32(1))
        np.maximum.at(flat, self.cell[sure], np.rint(share * np.float32(254)).astype(np.uint8))


def footprints(agents: AgentTable) -> Footprints:
    """
    Return the cells that agents of at least `DRAWN_FROM` cover, now and at each step.

    The place at a step is Gaussian with mean and covariance of the whole mixture of modes, the box
    points along its motion, and its edges fade out in proportion to the standard deviation along
    each of its sides: what a box covers whose place is uniform over as much.
    """
    drawn = np.flatnonzero(agents.score >= DRAWN_FROM)
    if not len(drawn):
        return Footprints(np.zeros(0, np.intp), np.zeros(0, np.float32),
                          np.zeros((0, 2), np.float32))
    place, covariance = _places(agents, drawn)                       # (A, T + 1, 2), (.., 3)
    before = place[:, :1] - np.float32(TIME_STEP_S) * agents.velocity_mps[drawn, None]
    motion = np.diff(place, axis=1, prepend=before)                  # (A, T + 1, 2)
    cos, sin = _directions(agents.pose[drawn, 2], motion)            # (A, T + 1)
    xx, xy, yy = np.moveaxis(covariance, -1, 0)
    along = cos * cos * xx + 2 * cos * sin * xy + sin * sin * yy
    across = sin * sin * xx - 2 * cos * sin * xy + cos * cos * yy
    half = np.repeat(agents.size_m[drawn, :2] / 2, _STEPS, axis=0)   # (B, 2), B = A (T + 1)
    fade = np.clip(FADE_SIGMAS * np.sqrt(np.maximum(
        np.stack([along, across], -1), 0)), *FADE_M).reshape(-1, 2)
    cell, share, box = _draw(place.reshape(-1, 2), np.stack([cos, sin], -1).reshape(-1, 2), half,
                             fade)
    return Footprints(cell, share * agents.score[drawn][box // _STEPS],
                      motion.reshape(-1, 2)[box])


def _places(agents: AgentTable, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means (A, T + 1, 2) and covariances xx, xy, yy (A, T + 1, 3) of where agents are."""
    weight = agents.mode_probabilities[drawn, :, None]               # (A, K, 1)
    paths, spread = agents.trajectories_m[drawn], agents.covariances_m2[drawn]
    mean = (weight[..., None] * paths).sum(axis=1)                   # (A, T, 2)
    dx, dy = np.moveaxis(paths - mean[:, None], -1, 0)               # (A, K, T)
    later = np.stack([(weight * (spread[..., i, j] + a * b)).sum(axis=1)
                      for i, j, a, b in ((0, 0, dx, dx), (0, 1, dx, dy), (1, 1, dy, dy))], -1)
    now = agents.pose_covariance[drawn][:, [0, 0, 1], [0, 1, 1]]     # (A, 3)
    return (np.concatenate([agents.pose[drawn, None, :2], mean], axis=1),
            np.concatenate([now[:, None], later], axis=1))


def _directions(heading: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine (A, T + 1) of boxes: now the heading, then that of clear motion."""
    cos, sin = (np.empty(motion.shape[:2], np.float32) for _ in range(2))
    cos[:, 0], sin[:, 0] = np.cos(heading), np.sin(heading)
    far = np.hypot(motion[..., 0], motion[..., 1])
    clear = far >= TURNED_BY_M
    unit = motion / np.maximum(far, np.float32(TURNED_BY_M))[..., None]
    for step in range(1, _STEPS):
        cos[:, step] = np.where(clear[:, step], unit[:, step, 0], cos[:, step - 1])
        sin[:, step] = np.where(clear[:, step], unit[:, step, 1], sin[:, step - 1])
    return cos, sin


def _draw(place: np.ndarray, direction: np.ndarray, half: np.ndarray,
          fade: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return cell, probability and box of every cell under boxes (B, 2), one step after the other.

    Along each side, a box of half length h whose place is uniform over +-f covers a point at
    distance d with probability (h + f - d) / 2f, at most 1 and at most h / f.
    """
    grid = OUTPUT_GRID
    one = np.float32(1 / grid.cell_m)
    u = (place[:, 0] - np.float32(grid.x_min_m)) * one - np.float32(0.5)   # cell centres: integers
    v = (place[:, 1] - np.float32(grid.y_min_m)) * one - np.float32(0.5)
    cos, sin = direction.T
    length, width = (half + fade).T * one
    reach_u = np.abs(cos) * length + np.abs(sin) * width
    reach_v = np.abs(sin) * length + np.abs(cos) * width
    slope = np.float32(grid.cell_m / 2) / fade                             # of probability, a cell
    at_edge = half / (2 * fade) + np.float32(0.5)
    most = np.minimum(half / fade, np.float32(1))
    box, row, col = _cells_in_reach(u, v, reach_u, reach_v)
    of_cell = np.column_stack([u, v, cos, sin, slope, at_edge, most])[box]  # (cells, 10)
    u, v, c, s, slope_x, slope_y, edge_x, edge_y, most_x, most_y = of_cell.T
    dx, dy = col.astype(np.float32) - u, row.astype(np.float32) - v
    along = np.abs(slope_x * (c * dx) + slope_x * (s * dy))
    across = np.abs(slope_y * (-s * dx) + slope_y * (c * dy))
    share = np.minimum(np.maximum(edge_x - along, np.float32(0)), most_x)
    share *= np.minimum(np.maximum(edge_y - across, np.float32(0)), most_y)
    there = np.flatnonzero(share)
    box = box[there]
    return ((box % _STEPS * grid.rows + row[there]) * grid.cols + col[there], share[there], box)


def _cells_in_reach(u: np.ndarray, v: np.ndarray, reach_u: np.ndarray,
                    reach_v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return box, row and column of every cell of the grid within reach of boxes (B,), in cells.

    Smaller boxes come before larger ones, whose motion is written over theirs.
    """
    margin = np.float32(0.01)       # more than the rounding of what is computed from places
    first_col, first_row = (np.maximum(np.ceil(at - reach - margin), 0).astype(np.int32)
                            for at, reach in ((u, reach_u), (v, reach_v)))
    cols = np.minimum(np.floor(u + reach_u + margin), OUTPUT_GRID.cols - 1).astype(np.int32)
    rows = np.minimum(np.floor(v + reach_v + margin), OUTPUT_GRID.rows - 1).astype(np.int32)
    cols = np.maximum(cols - first_col + 1, 0)
    rows = np.maximum(rows - first_row + 1, 0)
    order = np.argsort(np.searchsorted(_SIZES, 2 * np.maximum(reach_u, reach_v) + 1), kind='stable')
    line, place = _counted(rows[order])
    line = order[line]                                  # the box of every row of cells
    row = place + first_row[line]
    cell, place = _counted(cols[line])
    box = line[cell]
    return box, row[cell], place + first_col[box]


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of so many things of several kinds its kind and its number within that."""
    ends = np.cumsum(counts)
    kind = np.repeat(np.arange(len(counts)), counts)
    return kind, np.arange(len(kind)) - (ends - counts)[kind]
