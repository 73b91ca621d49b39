"""
How well what is found is described, and why the rest is not found: sums within 30 m.

Errors of found agents are the true-positive metrics of the nuScenes detection task (Caesar et al.,
CVPR 2020): centre distance in the plane (ATE), 1 - IoU of the sizes laid on each other (ASE), angle
of heading (AOE) and norm of the velocity error (AVE).
"""

from __future__ import annotations

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.evaluate.agents import RANGES_M, Detections, groups_of, in_range, match
from wm_ros.geometry import wrap_angle
from wm_ros.types import AGENT_CLASSES, Truth

ERRORS = ('position_error_m', 'size_error', 'heading_error_rad', 'velocity_error_mps',
          'class_accuracy')
#: Why a visible agent was not found, the first that holds: a detection within 2 m belongs to
#: somebody else; the nearest one lies 2 to 4 m off; there is one under the threshold within 2 m;
#: there is nothing of the kind.
MISSES = ('taken', 'displaced', 'unsure', 'unseen')
DISPLACED_M = 4.0


def count_detection(everything: Detections, threshold: float, truth: Truth) -> dict:
    """
    Return the sums over visible agents within 30 m by group.

    `errors` (5, G) in the order of `ERRORS` and `errors_of` (G,) over found agents; `confusion`
    (8, 8) true by stated class; `misses` (4, G). `everything` also holds detections under the
    threshold.
    """
    told = everything.above(threshold)
    partner = match(told.poses[:, :2], told.scores, truth.poses[:, :2], truth.visible)
    groups = groups_of(truth).astype(np.int64)
    counted = truth.visible & in_range(truth.poses[:, :2], RANGES_M[0])
    found = np.zeros(len(truth.ids), dtype=bool)
    found[partner[partner >= 0]] = True

    hits = np.flatnonzero(partner >= 0)
    hits = hits[counted[partner[hits]]]
    agent = partner[hits]
    values = np.stack([
        np.linalg.norm(told.poses[hits, :2] - truth.poses[agent, :2], axis=-1),
        1 - _size_iou(told.sizes[hits], truth.sizes[agent]),
        np.abs(wrap_angle(told.poses[hits, 2] - truth.poses[agent, 2])),
        np.linalg.norm(told.velocities[hits] - truth.velocities[agent], axis=-1),
        told.classes[hits] == truth.classes[agent]])
    confusion = np.zeros((len(AGENT_CLASSES),) * 2)
    np.add.at(confusion, (truth.classes[agent], told.classes[hits]), 1)
    missed = np.flatnonzero(counted & ~found)
    above, below = (_nearest(poses, truth.poses[missed, :2]) for poses in (
        told.poses, everything.poses[everything.scores < threshold]))
    why = np.select([above < metrics.HIT_DISTANCE_M, above < DISPLACED_M,
                     below < metrics.HIT_DISTANCE_M], [0, 1, 2], default=3)
    return {'errors': values @ groups[agent], 'errors_of': groups[agent].sum(axis=0).astype(float),
            'confusion': confusion,
            'misses': np.array([groups[missed[why == kind]].sum(axis=0)
                                for kind in range(len(MISSES))], dtype=float)}


def detection_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return the mean of each of `ERRORS`, `.._by_group` (G,), and `missed_..` shares of agents.

    Leading axes (bootstrap draws) are kept.
    """
    out = {}
    means = metrics.ratio(counts['errors'], counts['errors_of'][..., None, :])
    for i, name in enumerate(ERRORS):
        out[name] = means[..., i, 0]
        out[f'{name}_by_group'] = means[..., i, :]
    shares = metrics.ratio(counts['misses'],
                           counts[f'truths_{RANGES_M[0]}'][..., None, :])
    for i, name in enumerate(MISSES):
        out[f'missed_{name}'] = shares[..., i, 0]
        out[f'missed_{name}_by_group'] = shares[..., i, :]
    return out


def _size_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU (N,) of boxes (N, 3) with one centre and one heading."""
    both = np.minimum(a, b).prod(axis=-1)
    return metrics.iou(both, a.prod(axis=-1), b.prod(axis=-1))


def _nearest(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance of each point (N, 2) to the nearest of poses (D, 3), inf of none."""
    distance = np.linalg.norm(points[:, None] - poses[None, :, :2], axis=-1)
    return distance.min(axis=1, initial=np.inf)
