"""
Camera sets in, forecasts out: the one path that node, replay and evaluation share.

Each set is encoded once and its features are kept in a ring of 16; a forecast folds the ring and
rolls it out under a plan. Nothing here reads a clock: stage times come from the clock handed in,
and no forecast depends on it. Not thread safe; one worker owns a predictor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_ros import decode as dec
from wm_ros.association import Associator
from wm_ros.camera_input import CameraInput
from wm_ros.periods import skipped_between
from wm_ros.reading import OutputReader
from wm_ros.ring import Entry, FeatureRing, WindowInputs
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import Backend
from wm_ros.types import (
    HORIZON_STEPS,
    WINDOW_FRAMES,
    AgentForecast,
    CameraRig,
    CameraState,
    EgoPlan,
    EgoState,
    Forecast,
    Frame,
    FrameSet,
    WindowInfo,
)
from wm_ros.validity import checked_plan, ego_at_stamp, judge_window, odometry_holds

NS = 1_000_000_000


@dataclass(frozen=True)
class PredictorSettings:
    """
    When a forecast is valid, and how much the host may use.

    `min_frames` of 16 sets have to be there and no step between two may be longer than
    `max_gap_periods`. A camera whose picture stays the same `frozen_after` times is frozen (0:
    never). `score_threshold` and `observed_threshold` replace the artifact's where given.
    `decode_threads` decode pictures beside each other.
    """

    min_frames: int = 14
    max_gap_periods: float = 2.0
    frozen_after: int = 4
    decode_threads: int = 2
    score_threshold: float | None = None
    observed_threshold: float | None = None


@dataclass(frozen=True)
class EncodeInfo:
    """
    What became of one camera set.

    `cameras` gives the state of each camera, `problems` names what was wrong with those that are
    not OK; `skipped` periods before it were masked; `reset` says why the window began anew, empty
    where it went on; `stages_ms` holds decode, resize, lift and encode.
    """

    stamp_ns: int
    cameras: dict[str, CameraState]
    problems: tuple[str, ...]
    skipped: int
    reset: str
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Scene:
    """
    What the newest forecast was made from, for what is drawn from it later.

    `images` (N, 160, 400, 3) are the newest pictures, of the cameras in `available`; `latent` and
    `skip` the model's, `ego_motion` (2,) speed and yaw rate. Arrays hold until the next set.
    """

    stamp_ns: int
    images: np.ndarray
    available: tuple[bool, ...]
    latent: np.ndarray
    skip: np.ndarray
    ego_motion: np.ndarray


class Predictor:
    """
    Forecasts for one rig with one artifact on one loaded backend.

    `rig` holds the cameras as calibrated, in the model's order; the backend was loaded for as
    many, and for `plans` ego plans a run. `clock_ns` times the stages (default: all 0). The
    caller keeps and closes the backend.
    """

    def __init__(self, artifact: Artifact, backend: Backend, rig: CameraRig,
                 settings: PredictorSettings | None = None, plans: int = 1,
                 clock_ns: Callable[[], int] = lambda: 0) -> None:
        self.artifact = artifact
        self._settings = settings or PredictorSettings()
        self._backend = backend
        self._clock = clock_ns
        self._ring = FeatureRing(artifact.specs['encode'].outputs[0].shape,
                                 'memory' in backend.channels_last)
        self._window, self._coming = WindowInputs(), WindowInputs()
        self._odometry_mask = self._window.odometry_mask
        self._ego_motion = np.zeros(2, dtype=np.float32)
        self._plans = np.zeros((plans, HORIZON_STEPS, 3), dtype=np.float32)
        self._associator = Associator()
        self._reader = OutputReader(artifact.choices, self.settings.decode_threads,
                                    artifact.companions)
        self._cameras = CameraInput(rig, self.settings.decode_threads,
                                    self.settings.frozen_after, clock_ns)
        self.reset('start')

    # --- rig and window -------------------------------------------------------------------------

    @property
    def rig(self) -> CameraRig:
        """The cameras as calibrated, in the model's order."""
        return self._cameras.rig

    @property
    def settings(self) -> PredictorSettings:
        """What holds for the next set and forecast; the decoding threads stay as they are."""
        return self._settings

    @settings.setter
    def settings(self, settings: PredictorSettings) -> None:
        self._settings = settings
        self._cameras.frozen_after = settings.frozen_after

    def set_rig(self, rig: CameraRig) -> None:
        """Take a new calibration of the same cameras; the window begins anew."""
        self._cameras.set_rig(rig)
        self.reset('calibration')

    def set_uncalibrated(self, problems: Mapping[str, str]) -> None:
        """Leave cameras out whose calibration cannot be used: why, by name. The window goes on."""
        self._cameras.uncalibrated = dict(problems)

    def reset(self, reason: str) -> None:
        """Drop the window and the tracks; `reason` is told by the next `EncodeInfo`."""
        self._problems: tuple[str, ...] = ()
        self._ring.clear()
        self._cameras.reset()
        self._encoded: dict[str, np.ndarray] | None = None
        self._folded: dict[str, np.ndarray] | None = None
        self._begun: tuple[Any, ...] | None = None
        self._encode_ms: dict[str, float] = {}
        self._associator.reset()
        self._reset_reason = reason

    def take_tracks(self, tracks: Associator) -> None:
        """Go on with these tracks, so that ids continue those of forecasts made before."""
        self._associator = tracks

    def close(self) -> None:
        """Join the decoding threads; the backend stays with its owner."""
        self._cameras.close()
        self._reader.close()

    def prepare(self, frame: Frame) -> None:
        """
        Begin to decode a frame that will come in a set.

        Of all methods this one alone may be called from another thread, before `close`.
        """
        self._cameras.prepare(frame)

    # --- encode ---------------------------------------------------------------------------------

    def encode(self, frame_set: FrameSet, ego: EgoState | None) -> EncodeInfo:
        """
        Decode, check and encode one camera set and make it the newest of the window.

        A camera that is missing or whose picture is refused is taken out of the lift tables. A
        stamp that is not newer than the last one, or a gap of a whole window, begins it anew.
        """
        skipped = self._step_to(frame_set)
        last_ns = self._ring.entries[-1].stamp_ns if self._ring.entries else frame_set.stamp_ns
        for i in range(1, skipped + 1):
            step_ns = (frame_set.stamp_ns - last_ns) * i // (skipped + 1)
            self._ring.append(Entry(last_ns + step_ns, present=False), None)
        ego = ego_at_stamp(ego, frame_set.stamp_ns)
        self._begin_fold(frame_set.stamp_ns, ego)
        self._begun = None
        stages = self._cameras.take(frame_set)
        start = self._clock()
        index, weight = self._cameras.tables()
        lifted = self._clock()
        self._problems = self._cameras.problems
        available = self._cameras.available
        self._folded = None
        self._encoded = self._run_encode(index, weight) if any(available) else None
        encoded = self._clock()
        self._ring.append(
            Entry(frame_set.stamp_ns, self._encoded is not None, not all(available), ego),
            self._encoded['memory'] if self._encoded else None)
        self._encode_ms = {**stages, 'lift': (lifted - start) / 1e6,
                           'encode': (encoded - lifted) / 1e6}
        reason, self._reset_reason = self._reset_reason, ''
        return EncodeInfo(frame_set.stamp_ns, self._cameras.states, self._problems, skipped, reason,
                          self._encode_ms)

    def _step_to(self, frame_set: FrameSet) -> int:
        """Return how many periods to mask before a set; begin anew where it cannot follow."""
        if not self._ring.entries:
            return 0
        last_ns = self._ring.entries[-1].stamp_ns
        interval = frame_set.stamp_ns - last_ns
        if interval <= 0:
            self.reset(f'stamp {frame_set.stamp_ns} after {last_ns}')
            return 0
        skipped = max(frame_set.skipped, skipped_between(interval, self._ring.period_ns()))
        if skipped >= WINDOW_FRAMES:
            self.reset(f'gap of {interval / NS:.1f} s')
            return 0
        return skipped

    def _run_encode(self, index: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray] | None:
        outputs = self._backend.run('encode', {
            'images': self._cameras.images, 'lift_index': index, 'lift_weight': weight})
        try:
            dec.check_outputs(outputs)
        except dec.OutputError as err:  # one bad frame must not stay in the window for 16
            self._problems += (f'encode: {err}',)
            return None
        return outputs

    # --- forecast -------------------------------------------------------------------------------

    def forecast(self, plan: EgoPlan | None = None,
                 following: tuple[FrameSet, EgoState | None] | None = None) -> Forecast:
        """
        Forecast from the window under `plan`, by default constant turn rate and velocity.

        Always returns one; `valid` and `reasons` say what it is worth. Below `min_frames` the
        model does not run and the forecast holds no agents and no observed ground. `following`
        is what will be encoded next, where that is known: the backend may begin with its window
        meanwhile. Raises ValueError before the first set.
        """
        return self._forecasts([plan], remember=True, following=following)[0]

    def forecast_plans(self, plans: Sequence[EgoPlan]) -> list[Forecast]:
        """Forecast under each of several plans; they share one encoding, ids stay as they are."""
        return self._forecasts(list(plans), remember=False)

    def pictures(self) -> dict[str, np.ndarray]:
        """Return the newest pictures (160, 400, 3) of the cameras that gave one, by name."""
        return {name: image for name, image, there in zip(
            self.rig.names, self._cameras.images, self._cameras.available, strict=True) if there}

    def scene(self) -> Scene | None:
        """Return what the newest forecast was made from; None where odometry or model lacked."""
        if self._folded is None or self._encoded is None or not self._odometry_mask[0]:
            return None
        return Scene(self._ring.entries[-1].stamp_ns, self._cameras.images, self._cameras.available,
                     self._folded['latent'], self._encoded['skip'] + self._folded['past'],
                     self._ego_motion)

    def _forecasts(self, plans: list[EgoPlan | None], remember: bool,
                   following: tuple[FrameSet, EgoState | None] | None = None) -> list[Forecast]:
        if not self._ring.entries:
            raise ValueError('forecast: the window holds 0 sets, want at least 1')
        window, ego, reasons = self._judge()
        taken = [checked_plan(plan, ego) for plan in plans]
        stages: dict[str, float] = dict(self._encode_ms)
        runnable = (self._encoded is not None
                    and window.frames_used >= self.settings.min_frames)
        broken = ''
        if runnable:
            stages['fold'], broken = self._fold(window.odometry, ego)
            reasons = (*reasons, broken) if broken else reasons
        if broken or not runnable:
            return [self._result(window, ego, plan, (*reasons, *why), dec.no_agents(), [],
                                 dec.nothing_observed(), stages) for plan, why in taken]
        if following is not None:
            self._begin_following(*following)
        out = []
        capacity = len(self._plans)
        for at in range(0, len(taken), capacity):
            part = taken[at:at + capacity]
            outputs, stages['rollout'] = self._rollout([plan for plan, _ in part])
            start = self._clock()
            parsed = self._reader.read(
                outputs, len(part), self._cameras.seen(), self.settings.score_threshold,
                self.settings.observed_threshold)
            timed = {**stages, 'parse': (self._clock() - start) / 1e6}
            for (plan, why), (agents, layers, bad) in zip(part, parsed, strict=True):
                ids = self._identify(agents, ego, remember) if not bad else []
                out.append(self._result(window, ego, plan, (*reasons, *why, *bad), agents, ids,
                                        layers, timed))
        return out

    def _judge(self) -> tuple[WindowInfo, EgoState | None, tuple[str, ...]]:
        """Describe the window and say what keeps a forecast from being valid."""
        entries = list(self._ring.entries)
        window, reasons = judge_window(
            entries, self._ring.period_ns(), self._cameras.states, self.settings.min_frames,
            self.settings.max_gap_periods)
        return window, entries[-1].ego if window.odometry else None, (*reasons, *self._problems)

    def _fold(self, odometry: bool, ego: EgoState | None) -> tuple[float, str]:
        """
        Fold the window, once a set; return the milliseconds it took and what is wrong with it.

        A latent that is not finite would be rounded to INT8 at once, and nothing be seen behind it.
        """
        if self._folded is not None:
            return 0.0, ''
        start = self._clock()
        self._ego_motion[:] = (ego.speed_mps, ego.yaw_rate_rps) if odometry else 0
        folded = self._backend.run('fold', self._ring.fold_inputs(
            self._window, list(self._ring.entries), odometry, ego))
        try:
            # A teacher's latent is all of its history, and never INT8.
            dec.check_outputs({name: array for name, array in folded.items()
                               if isinstance(array, np.ndarray)})
        except dec.OutputError as err:
            return (self._clock() - start) / 1e6, f'fold: {err}'
        self._folded = folded
        return (self._clock() - start) / 1e6, ''

    def _begin_following(self, frame_set: FrameSet, ego: EgoState | None) -> None:
        """Let the backend start on the window of a set to come, if it follows this one at once."""
        interval = frame_set.stamp_ns - self._ring.entries[-1].stamp_ns
        if (interval > 0 and frame_set.skipped == 0
                and skipped_between(interval, self._ring.period_ns()) == 0):
            self._begin_fold(frame_set.stamp_ns, ego_at_stamp(ego, frame_set.stamp_ns))

    def _begin_fold(self, stamp_ns: int, ego: EgoState | None) -> None:
        """Let the backend start on a fold, as it will be if the set of that stamp is encoded."""
        what = (stamp_ns, None if ego is None else (*ego.odom_from_base, ego.speed_mps))
        entries = self._ring.with_next(Entry(stamp_ns, present=True, ego=ego))
        used = [entry for entry in entries if entry.present]
        if what == self._begun or len(used) < self.settings.min_frames:
            return
        self._begun = what
        odometry = odometry_holds(used)
        self._backend.begin('fold', self._ring.fold_inputs(
            self._coming, entries, odometry, ego if odometry else None))

    def _rollout(self, plans: list[EgoPlan]) -> tuple[dict[str, np.ndarray], float]:
        start = self._clock()
        for i in range(len(self._plans)):
            self._plans[i] = plans[min(i, len(plans) - 1)].poses
        outputs = self._backend.run('rollout', {
            **self._folded, 'skip': self._encoded['skip'], 'plans': self._plans,
            'ego_motion': self._ego_motion, 'odometry_mask': self._odometry_mask})
        return outputs, (self._clock() - start) / 1e6

    def _identify(self, agents: dec.AgentTable, ego: EgoState | None,
                  remember: bool) -> list[bytes]:
        identify = self._associator.update if remember else self._associator.match
        return identify(self._ring.entries[-1].stamp_ns,
                        None if ego is None else ego.odom_from_base, agents.pose[:, :2],
                        agents.velocity_mps, agents.class_probabilities)

    def _result(self, window: WindowInfo, ego: EgoState | None, plan: EgoPlan,
                reasons: tuple[str, ...], agents: dec.AgentTable, ids: list[bytes],
                layers: dec.Layers, stages_ms: dict[str, float]) -> Forecast:
        rows = tuple(AgentForecast(
            track_id, float(agents.score[i]), agents.class_probabilities[i], agents.pose[i],
            agents.pose_covariance[i], agents.velocity_mps[i], agents.twist_covariance[i],
            agents.size_m[i], agents.trajectories_m[i], agents.mode_probabilities[i],
            agents.covariances_m2[i]) for i, track_id in enumerate(ids))
        return Forecast(
            self._ring.entries[-1].stamp_ns, not reasons, reasons, window, plan,
            None if ego is None else ego.odom_from_base, rows, layers.occupancy_agents,
            layers.occupancy_static, layers.flow, layers.road, self.artifact.hash,
            dict(self._backend.precision), stages_ms)
