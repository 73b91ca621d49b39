"""
Whether probabilities and covariances mean what they say.

Existence: Brier score and ECE of detection scores against being right. Coverage: how often the
outcome lies in the highest-density region of the whole mixture that should hold it half the time,
or nine times of ten.
"""

from __future__ import annotations

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.evaluate.agents import (
    HORIZON_WAYPOINTS,
    RANGES_M,
    Detections,
    found_by,
    in_range,
)
from wm_ros.types import Truth

LEVELS = (0.5, 0.9)
EXISTENCE_BINS = 10
_SAMPLES = 256


def mixture_density(points: np.ndarray, means: np.ndarray, covariances: np.ndarray,
                    weights: np.ndarray) -> np.ndarray:
    """
    Return the density of Gaussian mixtures in the plane at points.

    `points` (N, S, 2), `means` (N, K, 2), `covariances` (N, K, 2, 2), `weights` (N, K) -> (N, S).
    """
    a, b, c = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]  # (N, K)
    determinant = a * c - b * b
    dx, dy = np.moveaxis(points[:, :, None] - means[:, None], -1, 0)  # (N, S, K)
    a, b, c, det, w = (value[:, None] for value in (a, b, c, determinant, weights))
    exponent = -0.5 * (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / det
    return (w * np.exp(exponent) / (2 * np.pi * np.sqrt(det))).sum(axis=-1)


def density_rank(outcomes: np.ndarray, means: np.ndarray, covariances: np.ndarray,
                 weights: np.ndarray, seed: int = 0) -> np.ndarray:
    """
    Return the mass of the mixture where it is denser than at the outcome, (N,) in 0-1.

    The outcome lies in the highest-density region of level q where this is at most q (Hyndman,
    1996: the density quantile, estimated from a sample of the mixture; 256 draws, so +-0.03 a
    case at worst and nothing on average). Uniform over cases where the mixture is right.
    """
    n, k = weights.shape
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((n, _SAMPLES, 2))
    # One draw in each of equal slices of probability: each mode gets its share.
    slices = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    mode = (slices[None, :, None] > np.cumsum(weights, axis=1)[:, None]).sum(axis=-1)
    mode = np.minimum(mode, k - 1)  # (N, S)
    root = np.linalg.cholesky(covariances)
    each = np.arange(n)[:, None]
    points = means[each, mode] + (root[each, mode] @ normal[..., None])[..., 0]
    denser = (mixture_density(points, means, covariances, weights)
              > mixture_density(outcomes[:, None], means, covariances, weights))
    return denser.mean(axis=1)


def count_calibration(detections: Detections, truth: Truth) -> dict[str, np.ndarray]:
    """
    Return the sums for calibration within the headline range.

    `existence` (3, bins): stated score, right ones, cases; `existence_brier` and its cases;
    `covered` (levels, horizons) and `covered_of` (horizons,) over found agents whose pose at that
    horizon is known. Detections of agents that are not visible are left out.
    """
    partner, place, right = found_by(detections, truth)
    judged = in_range(place, RANGES_M[0]) & (right | (partner < 0))

    score, outcome = detections.scores[judged], right[judged].astype(np.float64)
    bins = np.minimum((score * EXISTENCE_BINS).astype(int), EXISTENCE_BINS - 1)
    existence = np.array([np.bincount(bins, weights, minlength=EXISTENCE_BINS)
                          for weights in (score, outcome, np.ones(len(score)))])
    counts = {'existence': existence,
              'existence_brier': np.asarray(((score - outcome) ** 2).sum())}
    if detections.covariances is not None:
        counts |= _count_coverage(detections, truth, np.flatnonzero(judged & right), partner)
    return counts


def _count_coverage(detections: Detections, truth: Truth, judged: np.ndarray,
                    partner: np.ndarray) -> dict[str, np.ndarray]:
    covered = np.zeros((len(LEVELS), len(HORIZON_WAYPOINTS)))
    covered_of = np.zeros(len(HORIZON_WAYPOINTS))
    for h, steps in enumerate(HORIZON_WAYPOINTS):
        outcomes = truth.futures[partner[judged], steps - 1, :2]
        known = np.isfinite(outcomes).all(axis=-1)
        if not known.any():
            continue
        agents = judged[known]
        rank = density_rank(outcomes[known], detections.trajectories[agents, :, steps - 1],
                            detections.covariances[agents, :, steps - 1],
                            detections.probabilities[agents])
        covered[:, h] = [(rank <= level).sum() for level in LEVELS]
        covered_of[h] = len(rank)
    return {'covered': covered, 'covered_of': covered_of}


def calibration_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return `existence_brier`, `existence_ece` and `covariance_coverage` (levels, horizons), 0-1.

    Leading axes (bootstrap draws) are kept.
    """
    confidence, positives, cases = np.moveaxis(counts['existence'], -2, 0)
    out = {'existence_brier': metrics.ratio(counts['existence_brier'], cases.sum(axis=-1)),
           'existence_ece': metrics.expected_calibration_error(confidence, positives, cases)}
    if 'covered' in counts:
        out['covariance_coverage'] = metrics.ratio(counts['covered'],
                                                   counts['covered_of'][..., None, :])
    return out
