"""
Intervals from resampling drives, the unit within which everything is correlated.

Efron and Tibshirani, An Introduction to the Bootstrap (1993): percentile intervals; a paired
difference draws the same drives for both sides.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from wm_ros.evaluate import metrics

DRAWS = 2000
LEVEL = 0.95


def draw_weights(n_drives: int, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """
    Return how often each drive is in each draw with replacement, (draws, n_drives).

    One drive says nothing about others: NaN, and so are all intervals.
    """
    if n_drives < 1:
        raise ValueError(f'bootstrap: want at least 1 drive, got {n_drives}')
    if n_drives == 1:
        return np.full((draws, 1), np.nan)
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_drives, np.full(n_drives, 1 / n_drives), size=draws)


def interval(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Return the percentile interval (2, ...) of draws (draws, ...); NaN draws are left out."""
    tails = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'All-NaN')  # what is never known has no interval: NaN
        return np.nanpercentile(values, tails, axis=0)


@dataclass(frozen=True)
class Difference:
    """`mean` of A less B with its interval; it `excludes_zero` when both ends have one sign."""

    mean: float
    low: float
    high: float
    n_drives: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired_bootstrap(per_drive_a: np.ndarray, per_drive_b: np.ndarray, seed: int = 0,
                     scale: float = 1.0) -> Difference:
    """
    Return the difference of two rates that were measured on the same drives.

    Each side is (drives, 2): part and whole of a rate, one row a drive in equal order. Rates are
    pooled (sum of parts over sum of wholes), also within each draw.
    """
    a, b = (np.asarray(side, dtype=np.float64) for side in (per_drive_a, per_drive_b))
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 2:
        raise ValueError(f'paired bootstrap: want two (drives, 2) arrays, got {a.shape}, {b.shape}')
    weights = draw_weights(len(a), seed)

    def rates(weight: np.ndarray) -> np.ndarray:
        sums_a, sums_b = weight @ a, weight @ b
        return scale * (metrics.ratio(sums_a[..., 0], sums_a[..., 1])
                        - metrics.ratio(sums_b[..., 0], sums_b[..., 1]))

    low, high = interval(rates(weights))
    return Difference(float(rates(np.ones(len(a)))), float(low), float(high), len(a))
