"""
Occupancy against rasterised truth boxes, as histograms of the probability that was stated.

Everything that is reported of occupancy (IoU, soft IoU, PR-AUC, Brier, ECE) follows from how often
each of the 256 codes met an occupied and a free cell, so that is all that is summed. Truth is
what the visible agents cover, now and where they go. Cells under agents that are not visible at
the stamp are left out at every step: nobody can be asked for them. A step at which the pose of
some visible agent is unknown is left out too. Unobserved ground (code 255) is not said to be
occupied, so an agent there is a miss; probability scores leave it out.
"""

from __future__ import annotations

import numpy as np

from wm_ros import raster
from wm_ros.evaluate import metrics
from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, TIME_STEP_S, Truth

STEPS = HORIZON_STEPS + 1
#: FIERY's two extents (Hu et al., ICCV 2021): side lengths in metres around the vehicle.
EXTENTS_M = {'near': 30.0, 'far': 100.0}
UNOBSERVED = 255
OCCUPIED_FROM = 127  # round(254 * 0.5)
ECE_BINS = 15


def truth_occupancy(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what visible agents cover and which cells are scored, bool (7, rows, cols) each.

    Steps with an unknown visible agent are not scored anywhere.
    """
    occupied = np.zeros((STEPS, *OUTPUT_GRID.shape), dtype=bool)
    scored = np.ones_like(occupied)
    for step in range(STEPS):
        occupied[step] = raster.agent_occupancy(truth, step, agents=truth.visible)
        if not np.isfinite(raster.poses_at(truth, step)[truth.visible]).all():
            scored[step] = False
        elif not truth.visible.all():
            hidden = raster.agent_occupancy(truth, step, agents=~truth.visible)
            scored[step] = occupied[step] | ~hidden
    return occupied, scored


def extent(side_m: float) -> tuple[slice, slice]:
    """Return rows and columns of the square of `side_m` around the vehicle."""
    cells = round(side_m / OUTPUT_GRID.cell_m)
    first_row = round((-side_m / 2 - OUTPUT_GRID.y_min_m) / OUTPUT_GRID.cell_m)
    first_col = round((-side_m / 2 - OUTPUT_GRID.x_min_m) / OUTPUT_GRID.cell_m)
    return slice(first_row, first_row + cells), slice(first_col, first_col + cells)


def count_occupancy(codes: np.ndarray, occupied: np.ndarray,
                    scored: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return `occupancy` (2 extents, 7 steps, 2, 256): scored cells by truth (free, occupied), code.

    `codes` is uint8 (7, rows, cols) in the coding of `Forecast.occupancy_agents`.
    """
    joint = codes.astype(np.int32) + 256 * occupied
    joint[~scored] = 512
    counts = np.empty((len(EXTENTS_M), STEPS, 2, 256))
    for i, side_m in enumerate(EXTENTS_M.values()):
        rows, cols = extent(side_m)
        for step in range(STEPS):
            histogram = np.bincount(joint[step, rows, cols].ravel(), minlength=513)
            counts[i, step] = histogram[:512].reshape(2, 256)
    return {'occupancy': counts}


def count_flow(flow_m: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """
    Return `flow_error` (7,) metres and `flow_cells` (7,), summed over what visible agents cover.

    End-point error: the norm of predicted less true backward flow (metres in half a second), where
    truth is occupied and both poses are known, by whoever stands too (the Waymo occupancy flow
    challenge averages over what moves alone).
    """
    error, cells = np.zeros(STEPS), np.zeros(STEPS)
    for step in range(STEPS):
        known = (np.isfinite(raster.poses_at(truth, step))
                 & np.isfinite(raster.poses_at(truth, step - 1))).all(axis=1)
        agents = truth.visible & known
        occupied = raster.agent_occupancy(truth, step, agents=agents)
        difference = (flow_m[step] - raster.agent_flow(truth, step, agents=agents))[:, occupied]
        error[step] = np.linalg.norm(difference, axis=0).sum()
        cells[step] = occupied.sum()
    return {'flow_error': error, 'flow_cells': cells}


def occupancy_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return scores from summed counts; leading axes (bootstrap draws) are kept.

    `iou_near`, `iou_far`, `soft_iou_near`, ... (7,) by step, IoU in percent; `.._to_2s` pooled
    over now .. 2 s; `brier`, `ece`, `pr_auc` over all seven steps of the far extent.
    """
    histogram = counts['occupancy']  # (..., 2, 7, 2, 256)
    probability = np.arange(256) / 254.0
    probability[UNOBSERVED] = 0.0
    out = {}
    for i, name in enumerate(EXTENTS_M):
        by_step = histogram[..., i, :, :, :]
        to_2s = by_step[..., :round(2 / TIME_STEP_S) + 1, :, :].sum(axis=-3)
        out[f'iou_{name}'] = 100 * _hard_iou(by_step)
        out[f'iou_{name}_to_2s'] = 100 * _hard_iou(to_2s)
        out[f'soft_iou_{name}'] = _soft_iou(by_step, probability)
        out[f'soft_iou_{name}_to_2s'] = _soft_iou(to_2s, probability)
    everything = histogram[..., 1, :, :, :].sum(axis=-3)
    out['pr_auc'] = metrics.average_precision(_ascending(everything[..., 1, :]),
                                              _ascending(everything[..., 0, :]))
    seen, p = everything[..., :UNOBSERVED], probability[:UNOBSERVED]
    cases = seen.sum(axis=(-2, -1))
    squared = seen[..., 0, :] * p ** 2 + seen[..., 1, :] * (1 - p) ** 2
    out['brier'] = metrics.ratio(squared.sum(axis=-1), cases)
    bin_of = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bin_of]  # (255, bins)
    totals = seen.sum(axis=-2)
    out['ece'] = metrics.expected_calibration_error(
        (totals * p) @ member, seen[..., 1, :] @ member, totals @ member)
    if 'flow_error' in counts:
        out['flow_epe_m'] = metrics.ratio(counts['flow_error'], counts['flow_cells'])
    return out


def reliability(histogram: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return `stated`, `outcome` and `cases` (15,) of occupancy by bin of probability.

    From counts (2, 7, 2, 256) of all observed cells and steps; a bin without a cell is NaN.
    """
    seen = histogram[1].sum(axis=0)[:, :UNOBSERVED]  # (2, 255)
    p = np.arange(UNOBSERVED) / 254.0
    member = np.eye(ECE_BINS)[np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)]
    cases = seen.sum(axis=0) @ member
    return {'stated': metrics.ratio((seen.sum(axis=0) * p) @ member, cases),
            'outcome': metrics.ratio(seen[1] @ member, cases), 'cases': cases}


def _hard_iou(histogram: np.ndarray) -> np.ndarray:
    """IoU of (..., 2, 256) with cells called occupied from probability 0.5 on."""
    called = histogram[..., OCCUPIED_FROM:UNOBSERVED]
    return metrics.iou(called[..., 1, :].sum(axis=-1), called.sum(axis=(-2, -1)),
                       histogram[..., 1, :].sum(axis=-1))


def _soft_iou(histogram: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """
    Return sum(p y) / sum(p + y - p y), (..., 2, 256) -> (...).

    Waymo `occupancy_flow_metrics.py`, `_compute_occupancy_soft_iou`.
    """
    both = (histogram[..., 1, :] * probability).sum(axis=-1)
    stated = (histogram.sum(axis=-2) * probability).sum(axis=-1)
    return metrics.iou(both, stated, histogram[..., 1, :].sum(axis=-1))


def _ascending(histogram: np.ndarray) -> np.ndarray:
    """Put unobserved cells (..., 256) with those of probability 0, (..., 255)."""
    out = histogram[..., :UNOBSERVED].copy()
    out[..., 0] += histogram[..., UNOBSERVED]
    return out
