"""An ego plan that somebody gives: timed poses, checked when they come, read at a stamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_ros.ego import EgoHistory, plan_from_poses
from wm_ros.geometry import relative_pose
from wm_ros.messages import duration_ns, planar_pose, stamp_ns
from wm_ros.types import EgoPlan, EgoState

#: An ego plan that is older is not used: the default of the node's `plan_timeout_s`.
TIMEOUT_NS = 1_000_000_000
#: Poses of a plan at most: the node reads them one by one, and takes no picture meanwhile.
MAX_POSES = 1000


class PlanError(ValueError):
    """A plan that cannot be used: what was found and what was wanted."""


@dataclass(frozen=True)
class TimedPlan:
    """
    A wm_ros/EgoPlan: planar poses (n, 3) in `frame_id` at `times_ns` (n,), ascending.

    Where `frame_id` is the vehicle's, it is that frame as it was at `stamp_ns`.
    """

    frame_id: str
    stamp_ns: int
    times_ns: np.ndarray
    poses: np.ndarray

    def at(self, ego: EgoState, history: EgoHistory, base_frame: str, odom_frame: str,
           max_age_ns: int) -> EgoPlan:
        """
        Return the plan as the model takes it, for the vehicle at `ego`.

        Raises PlanError where it is too old, of another frame, or of no use at that instant.
        """
        age_ns = ego.stamp_ns - self.stamp_ns
        if age_ns > max_age_ns:
            raise PlanError(f'ego plan: {age_ns / 1e9:.2f} s old, want at most '
                            f'{max_age_ns / 1e9:g} s')
        if self.frame_id == odom_frame:
            frame_from_base = np.asarray(ego.odom_from_base)
        elif self.frame_id == base_frame:
            then = history.at(self.stamp_ns)
            if then is None:
                raise PlanError(f'ego plan: in {base_frame} at its stamp, for which there is no '
                                'odometry')
            frame_from_base = relative_pose(np.asarray(then.odom_from_base),
                                            np.asarray(ego.odom_from_base))
        else:
            raise PlanError(f'ego plan: frame {self.frame_id!r}, want {odom_frame!r} or '
                            f'{base_frame!r}')
        try:
            return plan_from_poses(self.times_ns, self.poses, ego.stamp_ns, frame_from_base)
        except ValueError as err:
            raise PlanError(str(err)) from err


def plan_of(given: TimedPlan | None, ego: EgoState | None, history: EgoHistory,
            odom_frame: str, base_frame: str = 'base_link',
            max_age_ns: int = TIMEOUT_NS) -> EgoPlan | None:
    """Return a given plan for the vehicle at `ego`; None where it is of no use, or none is."""
    if given is None or ego is None:
        return None
    try:
        return given.at(ego, history, base_frame, odom_frame, max_age_ns)
    except PlanError:
        return None


def plan_from_message(msg: Any) -> TimedPlan:
    """Return the checked plan of a wm_ros/EgoPlan; raise PlanError naming the field."""
    count = len(msg.poses)
    if not count or len(msg.times_from_start) != count:
        raise PlanError(f'ego plan: {count} poses and {len(msg.times_from_start)} '
                        'times_from_start, want the same number, at least one')
    if count > MAX_POSES:
        raise PlanError(f'ego plan: {count} poses, want at most {MAX_POSES}')
    if not msg.header.frame_id:
        raise PlanError("ego plan: header.frame_id '', want the frame of its poses")
    stamp = stamp_ns(msg.header)
    times = np.array([stamp + duration_ns(time) for time in msg.times_from_start], dtype=np.int64)
    if (np.diff(times) <= 0).any():
        raise PlanError('ego plan: times_from_start, want them ascending')
    try:
        poses = np.array([planar_pose(pose) for pose in msg.poses])
    except ValueError as err:
        raise PlanError(f'ego plan: {err}') from err
    if not np.isfinite(poses).all():
        raise PlanError('ego plan: poses, want finite ones')
    return TimedPlan(msg.header.frame_id, stamp, times, poses)
