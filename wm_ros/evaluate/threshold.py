"""
The choice of the one score threshold of an artifact, on validation drives.

SPA never falls when the threshold does, since it knows no false positives; precision does. So the
threshold is the one of the highest SPA among those that are precise enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.evaluate.agents import RANGES_M, Detections, found_by, in_range, whole_future
from wm_ros.types import Truth

CANDIDATES = tuple(round(0.05 + 0.01 * i, 2) for i in range(91))
MIN_PRECISION = 0.85


@dataclass(frozen=True)
class Judged:
    """
    Detections within the headline range, and how many agents there were to find.

    `score`, `hit` (found a visible agent), `right` (and has a path that stays right for 3 s),
    `ended` (and one that ends under 2 m off) are (D,). `truths` counts visible agents, `futures`
    those whose whole future is known. Detections of agents that are not visible are left out.
    """

    score: np.ndarray
    hit: np.ndarray
    right: np.ndarray
    ended: np.ndarray
    truths: int
    futures: int


def judge(detections: Detections, truth: Truth) -> Judged:
    """Judge the detections of one forecast by the rules of `count_agents`."""
    partner, place, hit = found_by(detections, truth)
    visible = truth.visible & in_range(truth.poses[:, :2], RANGES_M[0])
    known = whole_future(truth)
    pathed = np.flatnonzero(hit)
    pathed = pathed[known[partner[pathed]]]
    error = metrics.displacements(detections.trajectories[pathed],
                                  truth.futures[partner[pathed], :, :2])
    right, ended = (np.zeros(len(detections), dtype=bool) for _ in range(2))
    if len(pathed):
        right[pathed] = metrics.path_is_right(error)
        ended[pathed] = metrics.min_fde(error) < metrics.HIT_DISTANCE_M
    told = in_range(place, RANGES_M[0]) & (hit | (partner < 0))
    return Judged(detections.scores[told], hit[told], right[told], ended[told],
                  int(visible.sum()), int((visible & known).sum()))


def pooled(parts: Iterable[Judged]) -> Judged:
    """Return the detections of many forecasts as one."""
    parts = list(parts)
    return Judged(*(np.concatenate([getattr(part, name) for part in parts])
                    for name in ('score', 'hit', 'right', 'ended')),
                  sum(part.truths for part in parts), sum(part.futures for part in parts))


@dataclass(frozen=True)
class Point:
    """Scores at one threshold: SPA in percent, precision, recall and EPA 0-1."""

    threshold: float
    spa_top6: float
    precision: float
    recall: float
    epa: float


def sweep(judged: Judged, thresholds: Iterable[float] = CANDIDATES) -> list[Point]:
    """Return the scores at every threshold."""
    points = []
    for threshold in thresholds:
        told = judged.score >= threshold
        hits, invented = (judged.hit & told).sum(), (told & ~judged.hit).sum()
        points.append(Point(
            threshold, *map(float, (
                100 * metrics.ratio((judged.right & told).sum(), judged.futures),
                metrics.ratio(hits, hits + invented), metrics.ratio(hits, judged.truths),
                metrics.end_to_end_prediction_accuracy((judged.ended & told).sum(), invented,
                                                       judged.futures)))))
    return points


def choose(points: list[Point], min_precision: float = MIN_PRECISION) -> Point:
    """
    Return the point of the highest SPA at a precision of at least `min_precision`.

    Of equal ones the highest threshold. Raises ValueError where none is precise enough, naming the
    best precision there is.
    """
    if not any(np.isfinite(point.spa_top6) for point in points):
        raise ValueError('threshold: want agents whose whole future is known, got none')
    fit = [point for point in points if point.precision >= min_precision]
    if not fit:
        best = max((p.precision for p in points if np.isfinite(p.precision)), default=float('nan'))
        raise ValueError(f'threshold: the best precision is {best:.3f}, '
                         f'want at least {min_precision}')
    return max(fit, key=lambda point: (point.spa_top6, point.threshold))
