"""
Which cells of the output grid some camera sees: a ray cast on the ground plane.

Each camera scans the heights of what stands around in polar order. Ground at range r is hidden
when something nearer reaches above the line of sight from the lens to that ground: a wall hides
everything behind it, a car the ground up to where the sight line over its roof comes down.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from wm_ros.geometry import box_corners, cells_of, project
from wm_ros.types import OUTPUT_GRID, CameraModel, CameraRig

RANGE_M = 70.0
_RANGE_STEP_M = 0.5
_ANGLE_STEP = np.deg2rad(0.6)


class _Scan:
    """The fixed part of one camera: cells by (angle, range), and the other way round."""

    def __init__(self, camera: CameraModel) -> None:
        origin = camera.base_from_camera[:3, 3]
        self.height_m = max(float(origin[2]), 0.2)
        centres = OUTPUT_GRID.centres_m().astype(np.float64)
        rel = centres - origin[:2]
        distance = np.hypot(rel[..., 0], rel[..., 1])
        angle = np.arctan2(rel[..., 1], rel[..., 0])
        self.ground_seen = _in_picture(camera, centres, 0.0) & (distance < RANGE_M)
        self.bodies_seen = _in_picture(camera, centres, 1.0) & (distance < RANGE_M)
        either = self.ground_seen | self.bodies_seen
        axis = np.arctan2(camera.base_from_camera[1, 2], camera.base_from_camera[0, 2])
        turn = np.angle(np.exp(1j * (angle - axis)))
        low, high = (turn[either].min(), turn[either].max()) if either.any() else (0.0, 0.0)
        count = max(int(np.ceil((high - low) / _ANGLE_STEP)) + 1, 1)
        angles = axis + low + np.arange(count) * _ANGLE_STEP
        ranges = (np.arange(int(RANGE_M / _RANGE_STEP_M)) + 0.5) * _RANGE_STEP_M
        self.ranges = ranges.astype(np.float32)
        points = origin[:2] + ranges[None, :, None] * np.stack(
            [np.cos(angles), np.sin(angles)], -1)[:, None]
        row, col = cells_of(OUTPUT_GRID, points)
        inside = (row >= 0) & (row < OUTPUT_GRID.rows) & (col >= 0) & (col < OUTPUT_GRID.cols)
        # Outside the grid lies one extra cell of height 0.
        self.cell = np.where(inside, row * OUTPUT_GRID.cols + col,
                             OUTPUT_GRID.rows * OUTPUT_GRID.cols)
        self.target = np.flatnonzero(either)
        a = np.clip(np.round((turn.ravel()[self.target] - low) / _ANGLE_STEP), 0, count - 1)
        r = np.clip(distance.ravel()[self.target] / _RANGE_STEP_M, 0, len(ranges) - 1)
        self.polar = a.astype(np.int64) * len(ranges) + r.astype(np.int64)
        self.ground_target = self.ground_seen.ravel()[self.target]

    def cast(self, heights: np.ndarray) -> np.ndarray:
        """Return the seen cells (flat bool over the grid) for flat heights plus one extra cell."""
        h = heights[self.cell]                                    # (angles, ranges)
        camera = self.height_m
        # A body of height h at r' hides the ground up to r' * camera / (camera - h).
        until = np.where(h >= camera - 0.02, np.float32(1e6),
                         self.ranges * camera / np.maximum(camera - h, 0.02))
        until[h < 0.15] = 0
        hidden_until = np.zeros_like(until)
        np.maximum.accumulate(until[:, :-1], axis=1, out=hidden_until[:, 1:])
        slope = (h - camera) / self.ranges
        above = np.full_like(slope, -1e6)
        np.maximum.accumulate(slope[:, :-1], axis=1, out=above[:, 1:])
        # Its own near cells may stand in front of a body's far ones: half a metre of grace.
        body = (h >= 0.15) & (slope >= above - 0.05 / self.ranges)
        seen = np.where(h >= 0.15, body, hidden_until <= self.ranges).ravel()[self.polar]
        stands = heights[self.target] >= 0.15
        out = np.zeros(OUTPUT_GRID.rows * OUTPUT_GRID.cols, bool)
        out[self.target] = seen & (self.ground_target | stands)
        return out


def _in_picture(camera: CameraModel, centres: np.ndarray, z: float) -> np.ndarray:
    points = np.concatenate([centres, np.full((*centres.shape[:2], 1), z)], -1)
    pixels, depth = project(camera, points)
    return ((depth > 0.1) & (pixels[..., 0] >= -0.5) & (pixels[..., 0] < camera.width - 0.5)
            & (pixels[..., 1] >= -0.5) & (pixels[..., 1] < camera.height - 0.5))


def _key(camera: CameraModel) -> tuple:
    return (camera.width, camera.height, camera.k.tobytes(), camera.base_from_camera.tobytes(),
            camera.distortion)


@lru_cache(maxsize=64)
def _scan(key: tuple) -> _Scan:
    width, height, k, pose, distortion = key
    return _Scan(CameraModel('', width, height, np.frombuffer(k).reshape(3, 3),
                             np.frombuffer(pose).reshape(4, 4), distortion))


def observed_cells(rig: CameraRig, static_heights_m: np.ndarray, poses: np.ndarray,
                   sizes: np.ndarray) -> np.ndarray:
    """
    Return (rows, cols) bool on OUTPUT_GRID: some camera of `rig` sees this cell.

    `static_heights_m` (rows, cols) is what stands there for good; `poses[A, 3]` and `sizes[A, 3]`
    are the agents' boxes in `base_link`. A body counts as observed where its top is seen, an
    agent as a whole once any of its cells is.
    """
    heights = np.ascontiguousarray(static_heights_m, np.float32)
    labels = np.zeros(OUTPUT_GRID.shape, np.uint8)
    if len(poses):
        corners = box_corners(poses[:, :2], poses[:, 2], sizes[:, 0], sizes[:, 1])
        cells = (corners - [OUTPUT_GRID.x_min_m, OUTPUT_GRID.y_min_m]) / OUTPUT_GRID.cell_m - 0.5
        fixed = np.round(cells * 16).astype(np.int32)
        heights = heights.copy()
        for a in np.argsort(sizes[:, 2], kind='stable'):
            cv2.fillConvexPoly(heights, fixed[a], float(sizes[a, 2]), shift=4)
            cv2.fillConvexPoly(labels, fixed[a], int(a) + 1, shift=4)
    flat = np.append(heights.ravel(), np.float32(0))
    seen = np.zeros(OUTPUT_GRID.rows * OUTPUT_GRID.cols, bool)
    for camera in rig.cameras:
        seen |= _scan(_key(camera)).cast(flat)
    seen = seen.reshape(OUTPUT_GRID.shape)
    if len(poses):
        known = np.zeros(256, bool)
        known[np.unique(labels[seen])] = True
        known[0] = False
        seen |= known[labels]
    return seen
