"""
Future camera frames against what the cameras then took, with two baselines beside them.

*newest* repeats the newest picture, *moved* is that picture moved by the ego vehicle's planned
motion over flat ground. All are compared at the size that is predicted, for cameras that gave a
picture both times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from wm_ros.data.samples import Drive
from wm_ros.evaluate.bootstrap import draw_weights, interval
from wm_ros.evaluate.pictures import psnr, ssim
from wm_ros.frame_predictor import FramePredictor, FutureFrames
from wm_ros.frames import HEIGHT, WIDTH
from wm_ros.predictor import Predictor
from wm_ros.runtime.frames import frames_path, load_frames
from wm_ros.types import WINDOW_FRAMES, CameraRig, Forecast

KINDS = ('frames', 'newest', 'moved')
MEASURES = ('psnr', 'ssim')
#: All pictures, and those of an ego vehicle that goes at least so fast at the stamp.
GROUPS = ('all', 'moving')
MOVING_MPS = 1.0
#: A picture this far from the second that was predicted is another one.
TOLERANCE_NS = 30_000_000
NS = 1_000_000_000


def lowered(picture: np.ndarray) -> np.ndarray:
    """Return a picture of the model's input at the size that is predicted."""
    return cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


@dataclass
class FrameCounter:
    """
    Sums of one drive.

    `sums` maps seconds to (groups, kinds, measures), `counts` to (groups,) pictures.
    """

    sums: dict[float, np.ndarray] = field(default_factory=dict)
    counts: dict[float, np.ndarray] = field(default_factory=dict)
    _waiting: list[tuple[int, float, bool, dict[str, tuple[np.ndarray, ...]]]] = field(
        default_factory=list)

    def predicted(self, frames: FutureFrames, newest: dict[str, np.ndarray],
                  moving: bool) -> None:
        """Take predicted frames, with the newest pictures (160, 400, 3) they were made from."""
        for i, seconds in enumerate(frames.seconds):
            due = frames.stamp_ns + round(seconds * NS)
            self._waiting.append((due, seconds, moving, {
                name: (frames.pictures[name][i], lowered(newest[name]), frames.moved[name][i])
                for name in frames.pictures}))

    def came(self, stamp_ns: int, pictures: dict[str, np.ndarray]) -> None:
        """Take the pictures (160, 400, 3) of a stamp: what was predicted for it is compared."""
        later = []
        for entry in self._waiting:
            due, seconds, moving, guesses = entry
            if due - stamp_ns > TOLERANCE_NS:
                later.append(entry)
            if abs(due - stamp_ns) > TOLERANCE_NS:      # not yet, or never
                continue
            for name in set(guesses) & set(pictures):
                self._compare(seconds, moving, guesses[name], lowered(pictures[name]))
        self._waiting = later

    def _compare(self, seconds: float, moving: bool, guesses: tuple[np.ndarray, ...],
                 real: np.ndarray) -> None:
        sums = self.sums.setdefault(seconds, np.zeros((len(GROUPS), len(KINDS), len(MEASURES))))
        counts = self.counts.setdefault(seconds, np.zeros(len(GROUPS)))
        groups = [True, moving]
        sums[groups] += [[psnr(guess, real), ssim(guess, real)] for guess in guesses]
        counts[groups] += 1


@dataclass(frozen=True)
class FrameTask:
    """
    Scores the frames of one drive; pickles where there are several workers.

    `open_drive(key)` opens the drive, `open_predictor(rig)` the predictor for its rig.
    """

    open_drive: Callable[[Any], Drive]
    open_predictor: Callable[[CameraRig], Predictor]
    every: int

    def __call__(self, key: Any) -> FrameCounter:
        drive, counter = self.open_drive(key), FrameCounter()
        predictor = self.open_predictor(drive.rig)
        artifact = predictor.artifact
        draw = FramePredictor(load_frames(frames_path(artifact.path), artifact, threads=1),
                              drive.rig)
        predictor.reset('a new drive')
        for sample in drive.samples(self.every, WINDOW_FRAMES - 1):
            predictor.encode(sample.frames, sample.ego)
            counter.came(sample.frames.stamp_ns, predictor.pictures())
            if sample.truth is None:
                continue
            forecast: Forecast = predictor.forecast(sample.plan)
            scene = predictor.scene()
            if forecast.valid and scene is not None:
                counter.predicted(draw(scene, forecast.ego_plan.poses), predictor.pictures(),
                                  bool(scene.ego_motion[0] >= MOVING_MPS))
        return counter


def report(counters: list[FrameCounter]) -> dict[str, Any]:
    """
    Return the scores of drives as JSON-ready values, by second, then group.

    Of each kind PSNR (dB) and SSIM are means over pictures; `lead_..` is by how much `frames` are
    ahead of each baseline, with 95 % intervals over drives; `n_pictures` says of how much it is.
    """
    weights = draw_weights(len(counters))
    out: dict[str, Any] = {}
    for seconds in sorted({second for counter in counters for second in counter.sums}):
        sums = np.stack([c.sums.get(seconds, np.zeros((len(GROUPS), len(KINDS), len(MEASURES))))
                         for c in counters])
        counts = np.stack([c.counts.get(seconds, np.zeros(len(GROUPS))) for c in counters])
        out[f'{seconds:g}'] = {group: _of_group(sums[:, g], counts[:, g], weights)
                               for g, group in enumerate(GROUPS)}
    return out


def _of_group(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Return what `report` says of sums (drives, kinds, measures) of one group."""
    with np.errstate(invalid='ignore', divide='ignore'):
        means = sums.sum(0) / counts.sum()
        drawn = np.einsum('bd,dkm->bkm', weights, sums) / (weights @ counts)[:, None, None]
        ends = interval(drawn[:, :1] - drawn[:, 1:])        # (2, baselines, measures)
    out: dict[str, Any] = {'n_pictures': int(counts.sum())}
    for m, measure in enumerate(MEASURES):
        for k, kind in enumerate(KINDS):
            out[measure if k == 0 else f'{measure}_{kind}'] = _plain(means[k, m])
        for k, kind in enumerate(KINDS[1:]):
            out[f'lead_{measure}_{kind}'] = [_plain(means[0, m] - means[k + 1, m]),
                                             *(_plain(end[k, m]) for end in ends)]
    return out


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def table(scores: dict[str, Any]) -> str:
    """Return the scores as text: a line a second, of an ego vehicle that moves and of all."""
    lines = [f'{"future frames":<16}{"PSNR dB":>9}{"newest":>8}{"moved":>8}'
             f'{"SSIM":>8}{"newest":>8}{"moved":>8}{"pictures":>10}']
    for group in GROUPS:
        for seconds, by_group in scores.items():
            row = by_group[group]
            figures = ''.join(
                f'{"–" if row[key] is None else format(row[key], form):>{width}}'
                for key, form, width in (('psnr', '.2f', 9), ('psnr_newest', '.2f', 8),
                                         ('psnr_moved', '.2f', 8), ('ssim', '.3f', 8),
                                         ('ssim_newest', '.3f', 8), ('ssim_moved', '.3f', 8)))
            lines.append(f'{group + ", " + seconds + " s":<16}{figures}{row["n_pictures"]:>10}')
    return '\n'.join(lines)
