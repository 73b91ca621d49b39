"""
The formulas, on plain arrays, each with its source.

`K` modes, `T` waypoints 0.5 s apart; distances in metres; rates 0-1. Sums are kept apart from
ratios (`Scores` pools the sums of many drives), so most functions here return what is summed.
"""

from __future__ import annotations

import numpy as np

#: An agent is found, and a path is right, within this distance (nuScenes prediction challenge).
HIT_DISTANCE_M = 2.0


def displacements(trajectories_m: np.ndarray, future_m: np.ndarray) -> np.ndarray:
    """Return the distance of every waypoint, (..., K, T), of (..., K, T, 2) from (..., T, 2)."""
    return np.linalg.norm(trajectories_m - future_m[..., None, :, :], axis=-1)


def top_modes(trajectories_m: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return the `k` most probable modes, (..., min(k, K), T, 2), most probable first."""
    order = np.argsort(-probabilities, axis=-1, kind='stable')[..., :k]
    return np.take_along_axis(trajectories_m, order[..., None, None], axis=-3)


def min_ade(distances: np.ndarray) -> np.ndarray:
    """
    Return minADE_k: the mean distance over time of the best mode, (..., K, T) -> (...).

    nuScenes prediction challenge, `MinADEK`.
    """
    return distances.mean(axis=-1).min(axis=-1)


def min_fde(distances: np.ndarray) -> np.ndarray:
    """
    Return minFDE_k: the last distance of the mode that ends nearest, (..., K, T) -> (...).

    nuScenes prediction challenge, `MinFDEK`.
    """
    return distances[..., -1].min(axis=-1)


def path_is_right(distances: np.ndarray, limit_m: float = HIT_DISTANCE_M) -> np.ndarray:
    """
    Say whether some mode stays under `limit_m` at every waypoint, (..., K, T) -> bool (...).

    Its complement is the miss of MR_k (nuScenes `MissRateTopK`: a miss is taken from the maximum
    over the horizon, not from the end point).
    """
    return (distances.max(axis=-1) < limit_m).any(axis=-1)


def end_to_end_prediction_accuracy(hits: float, false_positives: float, truths: float) -> float:
    """
    Return EPA = (hits - 0.5 FP) / GT, from -inf to 1.

    A hit is a detected agent whose minFDE_6 is under 2 m. ViP3D (Gu et al., CVPR 2023), eq. 5;
    UniAD reports it with the same 0.5.
    """
    return ratio(hits - 0.5 * false_positives, truths)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0: a rate of nothing is not 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def iou(intersection: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return intersection over union of cell counts: I / (P + T - I), NaN of nothing."""
    return ratio(intersection, np.asarray(predicted) + true - intersection)


def expected_calibration_error(confidence: np.ndarray, positives: np.ndarray,
                               counts: np.ndarray) -> np.ndarray:
    """
    Return ECE = sum over bins of |positives - confidence| / sum of counts, (..., B) -> (...).

    The three are sums within each bin: of stated probability, of outcomes, of cases. Guo et al.,
    ICML 2017, eq. 3.
    """
    return ratio(np.abs(positives - confidence).sum(axis=-1), counts.sum(axis=-1))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """
    Return the area under precision over recall from histograms of probability, (..., B) -> (...).

    Bins ascend with probability; each bin is one threshold, and the area is the sum of
    precision times the step in recall (as scikit-learn's `average_precision_score`).
    """
    true_positives = np.cumsum(positives[..., ::-1], axis=-1)
    false_positives = np.cumsum(negatives[..., ::-1], axis=-1)
    precision = np.nan_to_num(ratio(true_positives, true_positives + false_positives))
    area = (precision * positives[..., ::-1]).sum(axis=-1)
    return ratio(area, positives.sum(axis=-1))
