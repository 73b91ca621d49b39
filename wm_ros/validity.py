"""
What a window is worth: what it holds, what keeps a forecast of it from being valid, and its plan.

The rule is that of the node's contract: so many of 16 sets, no gap too long, the newest set whole,
odometry for every set or the trained mask for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import dist

import numpy as np

from wm_ros.ego import MAX_PLAN_M, MAX_SPEED_MPS, constant_turn_rate_plan, extrapolate
from wm_ros.ring import Entry
from wm_ros.types import (
    HORIZON_STEPS,
    WINDOW_FRAMES,
    CameraState,
    EgoPlan,
    EgoState,
    WindowInfo,
)

NS = 1_000_000_000
#: Odometry that far from the frame's stamp says nothing about it.
MAX_EGO_AGE_NS = NS // 5


def judge_window(entries: Sequence[Entry], period_ns: int, cameras: Mapping[str, CameraState],
                 min_frames: int, max_gap_periods: float) -> tuple[WindowInfo, tuple[str, ...]]:
    """
    Describe a window of up to 16 entries, oldest first, and say what keeps it from being valid.

    `cameras` are those of the newest set. The reasons are empty where nothing does.
    """
    used = [entry for entry in entries if entry.present]
    places = [i for i, entry in enumerate(entries) if entry.present]
    steps = [b - a for a, b in pairwise(places)]
    window = WindowInfo(
        frames_used=len(used), frames_missing=WINDOW_FRAMES - len(used),
        frames_partial=sum(entry.partial for entry in used),
        max_gap_periods=float(max(steps, default=0)), period_ns=period_ns,
        span_ns=entries[-1].stamp_ns - entries[0].stamp_ns, odometry=odometry_holds(used),
        cameras=dict(cameras))
    reasons = []
    if len(used) < min_frames:
        reasons.append(f'window: {len(used)} of {WINDOW_FRAMES} frames, '
                       f'want at least {min_frames}')
    if window.max_gap_periods > max_gap_periods:
        reasons.append(f'window: a gap of {window.max_gap_periods:g} periods, '
                       f'want at most {max_gap_periods:g}')
    return window, tuple(reasons)


def checked_plan(plan: EgoPlan | None,
                 ego: EgoState | None) -> tuple[EgoPlan, tuple[str, ...]]:
    """Return the plan to use, by default constant turn rate, and what was wrong with the given."""
    if plan is None or ego is None:  # without odometry the model ignores any plan
        return constant_turn_rate_plan(ego), ()
    poses = np.asarray(plan.poses)
    if poses.shape == (HORIZON_STEPS, 3) and np.abs(poses).max() <= MAX_PLAN_M:
        return plan, ()
    return constant_turn_rate_plan(ego), (
        f'ego plan: {poses.shape} poses, not finite or too far; want ({HORIZON_STEPS}, 3) '
        f'within {MAX_PLAN_M:.0f} m',)


def ego_at_stamp(ego: EgoState | None, stamp_ns: int) -> EgoState | None:
    """Return the ego state at the stamp, None where it is not finite or too far from it."""
    if ego is None or abs(stamp_ns - ego.stamp_ns) > MAX_EGO_AGE_NS:
        return None
    if not np.isfinite([*ego.odom_from_base, ego.speed_mps, ego.yaw_rate_rps]).all():
        return None
    return extrapolate(replace(ego, odom_from_base=np.array(ego.odom_from_base, dtype=float)),
                       stamp_ns)


def odometry_holds(used: Sequence[Entry]) -> bool:
    """Tell whether every set has its pose and no step between two is faster than anything."""
    if not used or any(entry.ego is None for entry in used):
        return False
    places = [entry.ego.odom_from_base[:2].tolist() for entry in used]
    steps = zip(pairwise(places), pairwise(used), strict=True)
    return not any(dist(here, there) > MAX_SPEED_MPS * (b.stamp_ns - a.stamp_ns) / NS + 1.0
                   for (here, there), (a, b) in steps)
