"""How clips are stored: what the workers that render write, and what training reads. No torch."""

from __future__ import annotations

import numpy as np

from wm_ros.geometry import relative_pose
from wm_ros.raster import box_cells, came_from, poses_at
from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, WINDOW_FRAMES, Truth

MAX_TRUTH = 64
#: Cached maps are stored as uint8 in steps of this; the maps end in a ReLU.
FEATURE_STEP = 1.0 / 32.0


def truth_arrays(truth: Truth) -> dict[str, np.ndarray]:
    """
    Return a truth as arrays of fixed or sparse form.

    `agents` (64, 29): x, y, yaw, length, width, height, vx, vy, class, visible (1, or 0 for one
    that is there but hidden), then 6 x (x, y) relative to now, then 6 flags for known steps and
    one for the row itself. `cells` (M, 4) float32: step, flat cell of the output grid, backward
    flow x, y; only agents that are visible now. `hidden` (H,) the flat cells of the others now.
    """
    order = np.argsort(np.hypot(truth.poses[:, 0], truth.poses[:, 1]))[:MAX_TRUTH]
    rows = np.zeros((MAX_TRUTH, 29), np.float32)
    n = len(order)
    future = truth.futures[order, :, :2] - truth.poses[order, None, :2]
    known = np.isfinite(future).all(-1)
    rows[:n, 0:3] = truth.poses[order]
    rows[:n, 3:6] = truth.sizes[order]
    rows[:n, 6:8] = truth.velocities[order]
    rows[:n, 8] = truth.classes[order]
    rows[:n, 9] = truth.visible[order]
    rows[:n, 10:22] = np.nan_to_num(future).reshape(n, -1)
    rows[:n, 22:28] = known
    rows[:n, 28] = 1.0
    visible = np.flatnonzero(truth.visible)
    parts = []
    for step in range(HORIZON_STEPS + 1):
        now, before = poses_at(truth, step)[visible], poses_at(truth, step - 1)[visible]
        cells = box_cells(now, truth.sizes[visible, 0], truth.sizes[visible, 1])
        flat = cells.row * OUTPUT_GRID.cols + cells.col
        flow = came_from(cells, now, before)
        parts.append(np.column_stack([np.full(len(flat), step), flat, flow]))
    gone = np.flatnonzero(~truth.visible)
    cells = box_cells(truth.poses[gone], truth.sizes[gone, 0], truth.sizes[gone, 1])
    return {'agents': rows, 'cells': np.concatenate(parts).astype(np.float32),
            'hidden': (cells.row * OUTPUT_GRID.cols + cells.col).astype(np.int32),
            'road': np.packbits(truth.road), 'observed': np.packbits(truth.observed)}


def to_bytes(features: np.ndarray) -> np.ndarray:
    """Store non-negative features as uint8 in steps of `FEATURE_STEP`."""
    return np.clip(np.rint(features / FEATURE_STEP), 0, 255).astype(np.uint8)


def window_motion(poses: np.ndarray, end: int) -> np.ndarray:
    """Return now_from_frame (16, 3) for the window that ends at frame `end` of a clip."""
    past = poses[end - WINDOW_FRAMES + 1:end + 1]
    return relative_pose(poses[end][None], past).astype(np.float32)
