"""
The choice of the one score threshold of an artifact, on validation drives.

SPA never falls when the threshold does, since it knows no false positives; precision does. So the
threshold is the one of the highest SPA among those that are precise enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.evaluate.agents import Detections, agent_scores, count_agents
from wm_ros.types import Forecast, Truth

CANDIDATES = tuple(round(0.05 + 0.025 * i, 3) for i in range(37))
MIN_PRECISION = 0.85


class SweepCounter:
    """Counts the forecasts of one drive at every candidate threshold."""

    def __init__(self, thresholds: tuple[float, ...] = CANDIDATES) -> None:
        self.thresholds = thresholds
        self.counts: list[dict[str, np.ndarray]] = [{} for _ in thresholds]

    def add(self, forecast: Forecast, truth: Truth) -> None:
        """Take one forecast, made with a threshold no higher than the lowest candidate."""
        everything = Detections.of(forecast)
        for counts, threshold in zip(self.counts, self.thresholds, strict=True):
            for key, value in count_agents(everything.above(threshold), truth).items():
                counts[key] = counts[key] + value if key in counts else value


@dataclass(frozen=True)
class Point:
    """Scores at one threshold: SPA in percent, precision, recall and EPA 0-1."""

    threshold: float
    spa_top6: float
    precision: float
    recall: float
    epa: float


def sweep(drives: list[SweepCounter]) -> list[Point]:
    """Return the scores at every threshold, pooled over drives."""
    points = []
    for i, threshold in enumerate(drives[0].thresholds):
        counted = [drive.counts[i] for drive in drives if drive.counts[i]]
        if not counted:
            raise ValueError('threshold: want at least one drive with a forecast, got none')
        rates = agent_scores({key: sum(counts[key] for counts in counted) for key in counted[0]})
        points.append(Point(threshold, *(float(rates[key]) for key in
                                         ('spa_top6', 'precision', 'recall', 'epa'))))
    return points


def choose(points: list[Point], min_precision: float = MIN_PRECISION) -> Point:
    """
    Return the point of the highest SPA at a precision of at least `min_precision`.

    Of equal ones the highest threshold. Raises ValueError where none is precise enough, naming the
    best precision there is.
    """
    fit = [point for point in points if point.precision >= min_precision]
    if not fit:
        best = max((p.precision for p in points if np.isfinite(p.precision)), default=float('nan'))
        raise ValueError(f'threshold: the best precision is {best:.3f}, '
                         f'want at least {min_precision}')
    return max(fit, key=lambda point: (point.spa_top6, point.threshold))
