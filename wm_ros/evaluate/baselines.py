"""
What the model has to beat: paths that need no learning, from its own detections and from truth.

A baseline keeps the boxes and gives each one path: standing still, constant velocity, or constant
turn rate and velocity. The turn rate is how far the agent's heading turned since the forecast (or
truth) before, 0 for one that was not there.
"""

from __future__ import annotations

import numpy as np

from wm_ros import raster
from wm_ros.evaluate.agents import Detections
from wm_ros.geometry import wrap_angle
from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, TIME_STEP_S, Truth

NAMES = ('static', 'constant_velocity', 'constant_turn_rate')
#: Faster turns are taken for an error of the heading.
MAX_TURN_RATE_RPS = 1.0
#: Slower agents are taken to go straight.
MIN_TURNING_SPEED_MPS = 1.0
_TIMES_S = TIME_STEP_S * np.arange(1, HORIZON_STEPS + 1)


def paths(name: str, poses: np.ndarray, velocities: np.ndarray,
          turn_rates: np.ndarray) -> np.ndarray:
    """
    Return the future poses (A, 6, 3) of agents with `poses` (A, 3) and `velocities` (A, 2).

    Constant turn rate and velocity moves along a circle: the displacement after t is the integral
    of the velocity turned by w t (Schubert et al., FUSION 2008, eq. 12 with constant speed).
    """
    future = np.repeat(np.asarray(poses, dtype=np.float64)[:, None], HORIZON_STEPS, axis=1)
    if name == 'static':
        return future
    turned = np.zeros((len(future), HORIZON_STEPS))
    if name == 'constant_turn_rate':
        speed = np.linalg.norm(velocities, axis=-1)
        rate = np.where((speed >= MIN_TURNING_SPEED_MPS)
                        & (np.abs(turn_rates) <= MAX_TURN_RATE_RPS), turn_rates, 0.0)
        turned = rate[:, None] * _TIMES_S
    elif name != 'constant_velocity':
        raise ValueError(f'baseline: want one of {", ".join(NAMES)}, got {name!r}')
    # Integral of the rotation by w t over 0 .. t: t sinc(wt) and t (1 - cos wt) / wt.
    along = _TIMES_S * np.sinc(turned / np.pi)
    half = turned / 2
    across = _TIMES_S * np.sin(half) * np.sinc(half / np.pi)
    vx, vy = velocities[:, :1], velocities[:, 1:]
    future[..., 0] += along * vx - across * vy
    future[..., 1] += across * vx + along * vy
    future[..., 2] = wrap_angle(future[..., 2] + turned)
    return future


class TurnRates:
    """
    Estimates turn rates from one instant to the next, by agent id.

    `update` takes the instants of a drive in order; `reset` starts a new drive.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._stamp_ns, self._headings = 0, {}

    def update(self, stamp_ns: int, ids: list, headings_base: np.ndarray,
               odom_yaw: float | None) -> np.ndarray:
        """
        Return turn rates (A,) in rad/s of agents with these headings in `base_link`.

        0 for an agent that was not there before, or was more than a second ago, and for all
        without odometry (`odom_yaw` None). A heading turned by more than a right angle is taken
        for one that was read backwards.
        """
        rates = np.zeros(len(ids))
        headings = {}
        if odom_yaw is not None:
            elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
            for i, (key, heading) in enumerate(zip(ids, headings_base, strict=True)):
                headings[key] = float(heading + odom_yaw)
                before = self._headings.get(key)
                if before is not None and 0 < elapsed_s <= 1.0:
                    turn = float(wrap_angle(headings[key] - before))
                    rates[i] = turn / elapsed_s if abs(turn) < np.pi / 2 else 0.0
        self._stamp_ns, self._headings = stamp_ns, headings
        return rates


def baseline_detections(name: str, detections: Detections,
                        turn_rates: np.ndarray) -> tuple[Detections, np.ndarray]:
    """Return the same boxes with the baseline's path, and their future poses (D, 6, 3)."""
    future = paths(name, detections.poses, detections.velocities, turn_rates)
    return detections.with_paths(future[..., :2]), future


def oracle_detections(name: str, truth: Truth, turn_rates: np.ndarray) -> Detections:
    """
    Return the boxes of the truth's visible agents, found without fail, with the baseline's path.

    Of those alone: a hidden one's box would be matched with a visible agent near to it.
    """
    seen = np.flatnonzero(truth.visible)
    future = paths(name, truth.poses[seen], truth.velocities[seen], turn_rates[seen])
    n = len(seen)
    return Detections(
        scores=np.ones(n), track_ids=tuple(str(i).encode() for i in truth.ids[seen]),
        classes=truth.classes[seen], poses=truth.poses[seen], velocities=truth.velocities[seen],
        sizes=truth.sizes[seen], trajectories=future[:, None, :, :2],
        probabilities=np.ones((n, 1)), covariances=None)


def box_occupancy(detections: Detections, future: np.ndarray) -> np.ndarray:
    """Return the codes (7, rows, cols) of boxes that move as `future` (D, 6, 3) says."""
    codes = np.zeros((HORIZON_STEPS + 1, *OUTPUT_GRID.shape), dtype=np.uint8)
    for step in range(HORIZON_STEPS + 1):
        poses = detections.poses if step == 0 else future[:, step - 1]
        cells = raster.box_cells(poses, detections.sizes[:, 0], detections.sizes[:, 1])
        codes[step, cells.row, cells.col] = 254
    return codes
