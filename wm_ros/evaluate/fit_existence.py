"""What a detection's score means: the map from scores to existence probabilities, by its hits."""

from __future__ import annotations

import numpy as np

from wm_ros.choices import Choices, existence_probability
from wm_ros.evaluate import metrics
from wm_ros.evaluate.calibration import EXISTENCE_BINS

#: Standard deviation of the prior around "a score is what it says": it decides only where there is
#: next to nothing to learn from.
PRIOR_SIGMA = 5.0
_NEUTRAL = np.array(Choices().existence)


def fit_existence(score: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    """
    Return (slope, offset) of `choices.existence_probability`, most likely of scores and hits (D,).

    Logistic regression on the logit, by Newton's method.
    """
    held = np.clip(np.asarray(score, np.float64), 1e-6, 1 - 1e-6)
    columns = np.column_stack([np.log(held / (1 - held)), np.ones(len(held))])
    weights, prior = _NEUTRAL, np.eye(2) / PRIOR_SIGMA ** 2
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(columns @ weights, -40, 40)))
        slope = columns.T @ (p - hit) + prior @ (weights - _NEUTRAL)
        bend = columns.T @ (columns * (p * (1 - p))[:, None]) + prior
        step = np.linalg.solve(bend, slope)
        weights = weights - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    low, high = Choices.bounds('existence')
    return tuple(round(float(value), 4) for value in np.clip(weights, low, high))


def existence_ece(score: np.ndarray, hit: np.ndarray,
                  existence: tuple[float, float], threshold: float) -> float:
    """Return the expected calibration error of detections from `threshold` on, as it is scored."""
    stated = existence_probability(np.asarray(score, np.float32), existence).astype(np.float64)
    told = stated >= threshold
    bins = np.minimum((stated[told] * EXISTENCE_BINS).astype(int), EXISTENCE_BINS - 1)
    sums = [np.bincount(bins, weights, minlength=EXISTENCE_BINS)
            for weights in (stated[told], np.asarray(hit, float)[told], np.ones(told.sum()))]
    return float(metrics.expected_calibration_error(*sums))
