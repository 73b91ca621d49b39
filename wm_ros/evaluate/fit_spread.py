"""How much wider the paths' covariances have to be, so that their regions hold what they say."""

from __future__ import annotations

import numpy as np

from wm_ros.evaluate.calibration import LEVELS, density_rank

#: Factors of the standard deviations that are tried; between them coverage is interpolated.
FACTORS = np.geomspace(0.5, 6.0, 16)
#: What the regions of 50 % and 90 % are to hold, give or take.
TOLERANCE = (0.05, 0.03)
#: Cases a step; more cost time and say little more.
MAX_CASES = 1000


def fit_spread(means: np.ndarray, covariances: np.ndarray, weights: np.ndarray,
               outcomes: np.ndarray) -> tuple[tuple[float, ...], np.ndarray]:
    """
    Return a factor of the standard deviations for each step, and coverage (T, levels) with it.

    Of found agents: `means` (N, K, T, 2), `covariances` (N, K, T, 2, 2), `weights` (N, K),
    `outcomes` (N, T, 2), NaN where unknown. The factor is the one whose worse miss of the two
    levels, in their tolerances, is least. A step without a case keeps its factor of 1.
    """
    factors, reached = [], []
    for step in range(means.shape[2]):
        known = np.flatnonzero(np.isfinite(outcomes[:, step]).all(axis=-1))
        known = known[::max(1, -(-len(known) // MAX_CASES))]
        if not len(known):
            factors.append(1.0)
            reached.append(np.full(len(LEVELS), np.nan))
            continue
        covered = np.array([[
            (rank <= level).mean() for level in LEVELS] for rank in (
            density_rank(outcomes[known, step], means[known, :, step],
                         factor ** 2 * covariances[known, :, step], weights[known])
            for factor in FACTORS)])                                  # (factors, levels)
        fine = np.geomspace(FACTORS[0], FACTORS[-1], 400)
        between = np.column_stack([np.interp(np.log(fine), np.log(FACTORS), column)
                                   for column in covered.T])
        off = (np.abs(between - LEVELS) / TOLERANCE).max(axis=1)
        best = int(off.argmin())
        factors.append(round(float(fine[best]), 3))
        reached.append(between[best])
    return tuple(factors), np.array(reached)
