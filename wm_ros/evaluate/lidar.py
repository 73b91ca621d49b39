"""
Occupancy forecasts against what a lidar hit: a truth that needs no labels.

A cell is hit where points lie at the height of obstacles, and bare where there is ground alone; of
all others the lidar says nothing. Points of the time forecast are moved into `base_link` at the
stamp, so that a forecast is held against where things really were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from wm_ros.decode import UNOBSERVED
from wm_ros.geometry import relative_pose, transform_points
from wm_ros.types import OUTPUT_GRID, Forecast

#: Points between these heights over the ground are an obstacle, those below `GROUND_M` are ground.
OBSTACLE_M = (0.4, 2.5)
GROUND_M = 0.2
#: Points that a cell needs to count, so that a stray one does not.
MIN_POINTS = 2
#: Steps of the forecast that are looked at: 0, 1, 2 and 3 s.
STEPS = (0, 2, 4, 6)
STEP_S = 0.5


def hit_and_bare(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells (Y, X) that points (N, 3) in `base_link` hit, and those that are bare."""
    low, high = OBSTACLE_M

    def counted(chosen: np.ndarray) -> np.ndarray:
        place = np.floor((points[chosen, :2] - (OUTPUT_GRID.x_min_m, OUTPUT_GRID.y_min_m))
                         / OUTPUT_GRID.cell_m).astype(np.int64)
        inside = ((place >= 0) & (place < (OUTPUT_GRID.cols, OUTPUT_GRID.rows))).all(axis=1)
        cells = place[inside, 1] * OUTPUT_GRID.cols + place[inside, 0]
        counts = np.bincount(cells, minlength=OUTPUT_GRID.rows * OUTPUT_GRID.cols)
        return counts.reshape(OUTPUT_GRID.shape) >= MIN_POINTS

    height = points[:, 2]
    hit = counted((height >= low) & (height <= high))
    return hit, counted(height < GROUND_M) & ~hit


@dataclass
class LidarCounts:
    """Cells by step: hit and bare ones that the model observes, and those it calls occupied."""

    windows: int = 0
    hit: np.ndarray = field(default_factory=lambda: np.zeros(len(STEPS), np.int64))
    hit_occupied: np.ndarray = field(default_factory=lambda: np.zeros(len(STEPS), np.int64))
    bare: np.ndarray = field(default_factory=lambda: np.zeros(len(STEPS), np.int64))
    bare_occupied: np.ndarray = field(default_factory=lambda: np.zeros(len(STEPS), np.int64))

    def add(self, k: int, forecast: Forecast, points: np.ndarray) -> None:
        """Take the points (N, 3), in `base_link` at the forecast's stamp, of step `STEPS[k]`."""
        static = forecast.occupancy_static
        codes = forecast.occupancy_agents[STEPS[k]]
        observed = (codes != UNOBSERVED) & (static != UNOBSERVED)
        occupied = np.maximum(codes, static) >= 127
        hit, bare = hit_and_bare(points)
        for cells, all_of, called in ((hit, self.hit, self.hit_occupied),
                                      (bare, self.bare, self.bare_occupied)):
            all_of[k] += int((cells & observed).sum())
            called[k] += int((cells & observed & occupied).sum())

    def report(self) -> dict[str, object]:
        """Return the shares that are called occupied, by seconds ahead; None where no cell is."""
        def shares(part: np.ndarray, whole: np.ndarray) -> dict[str, float | None]:
            return {f'{STEPS[k] * STEP_S:g}': float(part[k] / whole[k]) if whole[k] else None
                    for k in range(len(STEPS))}

        return {'windows': self.windows, 'hit_cells': self.hit.tolist(),
                'bare_cells': self.bare.tolist(),
                'hit_called_occupied': shares(self.hit_occupied, self.hit),
                'bare_called_occupied': shares(self.bare_occupied, self.bare)}


def against_lidar(forecasts: Iterable[Forecast], stamps_ns: np.ndarray, poses: np.ndarray,
                  points_at: Callable[[int], np.ndarray]) -> LidarCounts:
    """
    Hold valid forecasts against sweeps.

    `stamps_ns` (M,) and `poses` (M, 3) of `base_link` in the world are those of the sweeps;
    `points_at(i)` returns points (N, 3) of sweep i in `base_link` at its own time. A step without a
    sweep within 50 ms is left out.
    """
    counts = LidarCounts()
    for forecast in forecasts:
        now = int(np.abs(stamps_ns - forecast.stamp_ns).argmin())
        if not forecast.valid or abs(stamps_ns[now] - forecast.stamp_ns) > 50_000_000:
            continue
        counts.windows += 1
        for k, step in enumerate(STEPS):
            wanted = forecast.stamp_ns + round(step * STEP_S * 1e9)
            i = int(np.abs(stamps_ns - wanted).argmin())
            if abs(stamps_ns[i] - wanted) <= 50_000_000:
                points = points_at(i).copy()
                points[:, :2] = transform_points(relative_pose(poses[now], poses[i]),
                                                 points[:, :2])
                counts.add(k, forecast, points)
    return counts
