"""
Ego-motion at a stamp and the plan that a forecast is made for.

Everything is causal and comes from stamps alone: a sample newer than the stamp asked for is never
used, so that a live run and its replay see the same pose.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from enum import IntEnum

import numpy as np

from wm_ros.geometry import relative_pose, wrap_angle
from wm_ros.types import HORIZON_STEPS, TIME_STEP_S, EgoPlan, EgoState, PlanSource

NS = 1_000_000_000
#: Odometry beyond these is a fault of its source.
MAX_SPEED_MPS = 100.0
MAX_YAW_RATE_RPS = 6.0
MAX_POSITION_M = 1e7
#: So many samples in a row behind the newest: the clock went back.
BACK_SAMPLES = 3
#: A plan may ask for poses up to this far away.
MAX_PLAN_M = 400.0


class EgoPush(IntEnum):
    """What became of an odometry sample."""

    ACCEPTED = 0
    DUPLICATE = 1     # a sample of this stamp is there already
    OUT_OF_ORDER = 2  # older than the newest; kept, in its place
    STAMP_JUMP = 3    # the clock went back: the history was dropped, this sample begins a new one
    REFUSED = 4       # not finite or beyond physical bounds


class EgoHistory:
    """The odometry of the last seconds, by stamp."""

    def __init__(self, max_age_ns: int = NS // 5, keep_ns: int = 5 * NS,
                 jump_ns: int = NS, capacity: int = 4096) -> None:
        self.max_age_ns = max_age_ns
        self._keep_ns = keep_ns
        self._jump_ns = jump_ns
        self._capacity = capacity
        self._stamps: list[int] = []
        self._states: list[EgoState] = []
        self._behind: list[EgoState] = []   # those in a row, in order, that were behind the newest

    def push(self, state: EgoState) -> EgoPush:
        """
        Take one sample; where the clock went back, drop what was there.

        It did where a sample is more than `jump_ns` behind the newest, or BACK_SAMPLES in a row, in
        order, are more than `max_age_ns` behind it: what is only late has newer ones between.
        """
        if not _plausible(state):
            return EgoPush.REFUSED
        result = EgoPush.ACCEPTED
        if self._stamps and state.stamp_ns < self._stamps[-1] - self._jump_ns:
            self.clear()
            result = EgoPush.STAMP_JUMP
        elif self._goes_back(state):
            behind = self._behind[:-1]
            self.clear()
            self._states, self._stamps = behind, [known.stamp_ns for known in behind]
            result = EgoPush.STAMP_JUMP
        at = bisect_left(self._stamps, state.stamp_ns)
        if at < len(self._stamps):
            if self._stamps[at] == state.stamp_ns:
                return EgoPush.DUPLICATE
            result = EgoPush.OUT_OF_ORDER
        self._stamps.insert(at, state.stamp_ns)
        self._states.insert(at, state)
        drop = max(bisect_left(self._stamps, self._stamps[-1] - self._keep_ns),
                   len(self._stamps) - self._capacity)
        if drop > 0:
            del self._stamps[:drop], self._states[:drop]
        return result

    def at(self, stamp_ns: int) -> EgoState | None:
        """
        Return the ego state at a stamp, or None where no sample of the last `max_age_ns` is there.

        The newest sample that is not newer than `stamp_ns`, moved on at constant turn rate and
        velocity.
        """
        at = bisect_right(self._stamps, stamp_ns)
        if not at or stamp_ns - self._stamps[at - 1] > self.max_age_ns:
            return None
        return extrapolate(self._states[at - 1], stamp_ns)

    def settled(self, stamp_ns: int) -> bool:
        """
        Tell whether `at(stamp_ns)` is final: a sample of that stamp or newer has come.

        A live node waits for this, up to its deadline, so that a replay gives the same.
        """
        return bool(self._stamps) and self._stamps[-1] >= stamp_ns

    @property
    def newest_ns(self) -> int | None:
        """Return the newest stamp, None before the first sample."""
        return self._stamps[-1] if self._stamps else None

    def _goes_back(self, state: EgoState) -> bool:
        """Tell whether a sample is one of several that only a clock that went back gives."""
        if not self._stamps or state.stamp_ns >= self._stamps[-1] - self.max_age_ns:
            self._behind.clear()
            return False
        if self._behind and state.stamp_ns <= self._behind[-1].stamp_ns:
            self._behind.clear()
        self._behind.append(state)
        return len(self._behind) >= BACK_SAMPLES

    def clear(self) -> None:
        """Drop all samples."""
        self._stamps, self._states, self._behind = [], [], []

    def __len__(self) -> int:
        return len(self._stamps)


def _plausible(state: EgoState) -> bool:
    pose = np.asarray(state.odom_from_base, dtype=np.float64)
    return bool(pose.shape == (3,) and np.isfinite(pose).all()
                and np.abs(pose[:2]).max() <= MAX_POSITION_M
                and abs(state.speed_mps) <= MAX_SPEED_MPS
                and abs(state.yaw_rate_rps) <= MAX_YAW_RATE_RPS)


def _turn(speed_mps: float, yaw_rate_rps: float, seconds: np.ndarray) -> np.ndarray:
    """Return the poses (..., 3) that constant speed and turn rate reach after `seconds`."""
    yaw = yaw_rate_rps * seconds
    # np.sinc(x) is sin(pi x) / (pi x); the chord of an arc lies along half its angle.
    chord = speed_mps * seconds * np.sinc(yaw / (2 * np.pi))
    return np.stack([chord * np.cos(yaw / 2), chord * np.sin(yaw / 2), yaw], axis=-1)


def _compose(a_from_b: np.ndarray, b_from_c: np.ndarray) -> np.ndarray:
    """Return `a_from_c` of planar poses (3,) and (..., 3)."""
    c, s = np.cos(a_from_b[2]), np.sin(a_from_b[2])
    x, y = b_from_c[..., 0], b_from_c[..., 1]
    return np.stack([a_from_b[0] + c * x - s * y, a_from_b[1] + s * x + c * y,
                     wrap_angle(a_from_b[2] + b_from_c[..., 2])], axis=-1)


def extrapolate(state: EgoState, stamp_ns: int) -> EgoState:
    """Return `state` moved to another stamp at constant turn rate and velocity."""
    if stamp_ns == state.stamp_ns:
        return state
    moved = _turn(state.speed_mps, state.yaw_rate_rps, np.float64((stamp_ns - state.stamp_ns) / NS))
    pose = _compose(np.asarray(state.odom_from_base, dtype=np.float64), moved)
    return EgoState(stamp_ns, pose, state.speed_mps, state.yaw_rate_rps)


def constant_turn_rate_plan(ego: EgoState | None) -> EgoPlan:
    """Return the plan of constant turn rate and velocity; without odometry zeros and NONE."""
    if ego is None:
        return EgoPlan(np.zeros((HORIZON_STEPS, 3), dtype=np.float32), PlanSource.NONE)
    times = TIME_STEP_S * np.arange(1, HORIZON_STEPS + 1)
    poses = _turn(ego.speed_mps, ego.yaw_rate_rps, times)
    poses[:, 2] = wrap_angle(poses[:, 2])
    return EgoPlan(poses.astype(np.float32), PlanSource.CONSTANT_TURN_RATE)


def plan_from_poses(stamps_ns: np.ndarray, poses: np.ndarray, stamp_ns: int,
                    frame_from_base: np.ndarray) -> EgoPlan:
    """
    Resample a timed path to the model's plan: a pose every 0.5 s in `base_link` at `stamp_ns`.

    `stamps_ns` (M,) ascending and `poses` (M, 3) x, y, yaw in any planar frame, in which
    `frame_from_base` (3,) is the pose of `base_link` at `stamp_ns`. Between poses the path is
    linear; before the first it starts from where the vehicle is; past the last one it goes on as
    in the last half second of the path. Raises ValueError for a path that is not finite, not
    ascending, out of bounds, faster than `MAX_SPEED_MPS`, ends less than 0.5 s after `stamp_ns`, or
    begins when the model's plan is over: such stamps are of another clock, and a way to the first
    pose would be invented.
    """
    stamps = np.asarray(stamps_ns, dtype=np.int64)
    poses = np.asarray(poses, dtype=np.float64)
    if stamps.ndim != 1 or not len(stamps) or poses.shape != (len(stamps), 3):
        raise ValueError(f'ego plan: want M stamps and (M, 3) poses, got {stamps.shape} and '
                         f'{poses.shape}')
    if not np.isfinite(poses).all() or not np.isfinite(frame_from_base).all():
        raise ValueError('ego plan: want finite poses, got NaN or infinity')
    if (np.diff(stamps) <= 0).any():
        raise ValueError('ego plan: want ascending times, got some that are not')
    if stamps[-1] - stamp_ns < TIME_STEP_S * NS:
        raise ValueError(f'ego plan: ends {(stamps[-1] - stamp_ns) / NS:.3f} s after the frame, '
                         f'want at least {TIME_STEP_S} s')
    horizon_s = TIME_STEP_S * HORIZON_STEPS
    if stamps[0] - stamp_ns > horizon_s * NS:
        raise ValueError(f'ego plan: begins {(stamps[0] - stamp_ns) / NS:.3f} s after the frame, '
                         f'want at most {horizon_s:g} s')
    times = (stamps - stamp_ns) / NS
    base = relative_pose(np.asarray(frame_from_base, dtype=np.float64), poses)
    if times[0] > 0:
        times, base = np.append(0.0, times), np.concatenate([np.zeros((1, 3)), base])
    base[:, 2] = np.unwrap(base[:, 2])
    wanted = TIME_STEP_S * np.arange(1, HORIZON_STEPS + 1)
    out = _interpolate(wanted, times, base)
    beyond = wanted > times[-1]
    if beyond.any():
        back = max(times[-1] - TIME_STEP_S, times[0])
        last, before = base[-1], _interpolate(np.array([back]), times, base)[0]
        span = times[-1] - back
        step = relative_pose(before, last)
        # An arc from a chord: it leaves the last pose turned by half its angle once more.
        speed = np.hypot(step[0], step[1]) / span * (1.0 if step[0] >= 0 else -1.0)
        tail = _turn(speed, step[2] / span, wanted[beyond] - times[-1])
        out[beyond] = _compose(last, tail)
    out[:, 2] = wrap_angle(out[:, 2])
    if not np.abs(out[:, :2]).max() <= MAX_PLAN_M:      # nor where it is none: too large to turn
        raise ValueError(f'ego plan: a pose {np.abs(out[:, :2]).max():.0f} m away, '
                         f'want at most {MAX_PLAN_M:.0f} m')
    steps = np.hypot(*np.diff(out[:, :2], axis=0, prepend=0.0).T)
    if steps.max() > MAX_SPEED_MPS * TIME_STEP_S:
        raise ValueError(f'ego plan: {steps.max():.0f} m within {TIME_STEP_S} s, from where the '
                         f'vehicle is on, want at most {MAX_SPEED_MPS * TIME_STEP_S:.0f} m')
    return EgoPlan(out.astype(np.float32), PlanSource.GIVEN)


def _interpolate(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(at, times, values[:, i]) for i in range(values.shape[1])], axis=-1)
