"""
Road users as cells: which ground a box covers at each step, and where it came from.

A cell is occupied when its centre lies in a box, or when it holds the centre of a box, so that no
pedestrian falls between two cells. Rows grow with y, columns with x (`types.BevGrid`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, TIME_STEP_S, BevGrid, Truth


@dataclass(frozen=True)
class BoxCells:
    """
    The cells under some boxes, one row a (box, cell) pair that lies in the grid.

    `box`, `row`, `col` are integer (N,); `local_m` (N, 2) is the cell's centre in the box's own
    frame (x along its length).
    """

    box: np.ndarray
    row: np.ndarray
    col: np.ndarray
    local_m: np.ndarray


def box_cells(poses: np.ndarray, lengths: np.ndarray, widths: np.ndarray,
              grid: BevGrid = OUTPUT_GRID) -> BoxCells:
    """
    Return the cells of `grid` that boxes with poses (A, 3) of x, y, yaw cover.

    Lengths (A,) run along yaw, widths (A,) across it, in metres. Boxes whose pose is not finite
    cover nothing. Each box is tested only within its own bounding window.
    """
    poses = np.asarray(poses, dtype=np.float64).reshape(-1, 3)
    known = np.flatnonzero(np.isfinite(poses).all(axis=1))
    x, y, yaw = poses[known].T
    half_l = np.asarray(lengths, dtype=np.float64)[known] / 2
    half_w = np.asarray(widths, dtype=np.float64)[known] / 2
    c, s = np.cos(yaw), np.sin(yaw)
    # In units of cells, with cell centres at integers.
    u = (x - grid.x_min_m) / grid.cell_m - 0.5
    v = (y - grid.y_min_m) / grid.cell_m - 0.5
    reach_u = (np.abs(c) * half_l + np.abs(s) * half_w) / grid.cell_m
    reach_v = (np.abs(s) * half_l + np.abs(c) * half_w) / grid.cell_m
    nearest_u, nearest_v = np.floor(u + 0.5), np.floor(v + 0.5)
    # The window is clipped to the grid, or to nothing beside it.
    first_col = np.clip(np.minimum(np.ceil(u - reach_u), nearest_u), 0, grid.cols).astype(np.int64)
    first_row = np.clip(np.minimum(np.ceil(v - reach_v), nearest_v), 0, grid.rows).astype(np.int64)
    end_col = np.clip(np.maximum(np.floor(u + reach_u), nearest_u) + 1, 0,
                      grid.cols).astype(np.int64)
    end_row = np.clip(np.maximum(np.floor(v + reach_v), nearest_v) + 1, 0,
                      grid.rows).astype(np.int64)
    width = end_col - first_col
    counts = width * (end_row - first_row)

    box = np.repeat(np.arange(len(known)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row = first_row[box] + offset // np.maximum(width[box], 1)
    col = first_col[box] + offset % np.maximum(width[box], 1)
    dx = (col - u[box]) * grid.cell_m
    dy = (row - v[box]) * grid.cell_m
    along = c[box] * dx + s[box] * dy
    across = -s[box] * dx + c[box] * dy
    inside = (np.abs(along) <= half_l[box]) & (np.abs(across) <= half_w[box])
    inside |= (row == nearest_v[box]) & (col == nearest_u[box])
    return BoxCells(box=known[box[inside]], row=row[inside], col=col[inside],
                    local_m=np.stack([along[inside], across[inside]], axis=-1))


def poses_at(truth: Truth, step: int) -> np.ndarray:
    """
    Return the poses (A, 3) of a truth's agents at a step, NaN where unknown.

    Step 0 is now and step t lies t * 0.5 s ahead, up to 6; step -1 is half a second ago by the
    velocity of now, because a truth holds no past.
    """
    if step == 0:
        return truth.poses
    if step == -1:
        past = np.array(truth.poses, dtype=np.float64)
        past[:, :2] -= TIME_STEP_S * truth.velocities
        return past
    if not 1 <= step <= HORIZON_STEPS:
        raise ValueError(f'step: want -1 .. {HORIZON_STEPS}, got {step}')
    return truth.futures[:, step - 1]


def agent_occupancy(truth: Truth, step: int, grid: BevGrid = OUTPUT_GRID,
                    agents: np.ndarray | None = None) -> np.ndarray:
    """
    Return what road users cover at a step, bool (rows, cols), in `base_link` at the stamp.

    `agents` is a boolean mask or an index of those to draw (all without it).
    """
    chosen = slice(None) if agents is None else agents
    cells = box_cells(poses_at(truth, step)[chosen], truth.sizes[chosen, 0],
                      truth.sizes[chosen, 1], grid)
    occupied = np.zeros(grid.shape, dtype=bool)
    occupied[cells.row, cells.col] = True
    return occupied


def agent_flow(truth: Truth, step: int, grid: BevGrid = OUTPUT_GRID,
               agents: np.ndarray | None = None) -> np.ndarray:
    """
    Return the backward flow of road users at a step, float32 (2, rows, cols), metres.

    The content of a cell at `step` came from cell + flow at `step - 1`; boxes move rigidly, turn
    included. At step 0 the past is the velocity's, so a turn of the last half second is not in
    it. Zero off the road users and where the pose half a second before is unknown.
    """
    chosen = slice(None) if agents is None else agents
    now, before = poses_at(truth, step)[chosen], poses_at(truth, step - 1)[chosen]
    cells = box_cells(now, truth.sizes[chosen, 0], truth.sizes[chosen, 1], grid)
    flow = np.zeros((2, *grid.shape), dtype=np.float32)
    flow[:, cells.row, cells.col] = came_from(cells, now, before).T
    return flow


def came_from(cells: BoxCells, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return where the ground under each cell's box was before, less where it is: (N, 2) metres."""
    moved = []
    for poses in (before, now):
        x, y, yaw = poses[cells.box].T
        c, s = np.cos(yaw), np.sin(yaw)
        along, across = cells.local_m.T
        moved.append(np.stack([x + c * along - s * across, y + s * along + c * across], axis=-1))
    return np.nan_to_num(moved[0] - moved[1], nan=0.0)
