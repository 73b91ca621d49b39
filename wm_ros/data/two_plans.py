"""
A simulated drive under two ego plans: from its newest frame on the ego goes on, or brakes.

Up to there both are the same. Training looks for drives in which somebody then does another thing,
and evaluation asks how a model follows them: this says which drives those are.
"""

from __future__ import annotations

import numpy as np

from wm_ros.sim.drive import FUTURE_S, Drive, simulate

RATE_HZ = 10.0
#: Whose two truths end at least so far apart is influenced; the benchmark's threshold of a miss.
INFLUENCED_M = 2.0


def stop_s(newest: int) -> float:
    """Return when in a drive the ego vehicle begins to brake, so that frame `newest` is as was."""
    return newest / RATE_HZ + 0.05


def influenced_drive(seed: int, world: str, frames: int, ego_mps: float,
                     near_m: float) -> tuple[Drive, Drive] | None:
    """
    Return a drive of `frames` at 10 Hz as the ego goes on, and as it brakes after the last frame.

    None where it is slower than `ego_mps` then (it has hardly anything to brake), or where nobody
    whom the last frame shows within `near_m` ends elsewhere because of it.
    """
    newest, seconds = frames - 1, frames / RATE_HZ
    goes = simulate(seed, seconds, world, RATE_HZ)
    if goes.ego(newest).speed_mps < ego_mps:
        return None
    brakes = simulate(seed, seconds, world, RATE_HZ, ego_stops_s=stop_s(newest))
    now_s, rows = goes.time_s(newest), goes.near(newest)
    far_m = np.hypot(*(goes.poses_at(now_s)[rows] - goes.base_at(now_s))[:, :2].T)
    apart_m = np.hypot(*(goes.poses_at(now_s + FUTURE_S)[rows]
                         - brakes.poses_at(now_s + FUTURE_S)[rows])[:, :2].T)
    return (goes, brakes) if np.any((apart_m > INFLUENCED_M) & (far_m < near_m)) else None
