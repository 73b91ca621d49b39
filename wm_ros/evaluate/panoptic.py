"""
Video panoptic quality (VPQ): are occupied cells told apart by road user, also over time.

Kim et al., Video Panoptic Segmentation (CVPR 2020), as FIERY (Hu et al., ICCV 2021) applies it to
forecasts: an instance is right at a step when it overlaps a true one by an IoU over one half and
keeps the number under which that one was found before; VPQ = sum of IoU of the right ones /
(TP + FP / 2 + FN / 2) over the steps of all forecasts.
"""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros import raster
from wm_ros.evaluate import metrics
from wm_ros.evaluate.agents import Detections
from wm_ros.evaluate.occupancy import EXTENTS_M, OCCUPIED_FROM, STEPS, UNOBSERVED, extent
from wm_ros.types import OUTPUT_GRID, Truth

#: Occupied cells farther than this from every detected box are an instance of their own.
BOX_REACH_M = 2.0


def instances_of_truth(truth: Truth) -> np.ndarray:
    """Return instance numbers (7, rows, cols), 0 for none, of visible agents at all steps."""
    agents = np.flatnonzero(truth.visible)
    ids = np.zeros((STEPS, *OUTPUT_GRID.shape), dtype=np.int32)
    for step in range(STEPS):
        cells = raster.box_cells(raster.poses_at(truth, step)[agents], truth.sizes[agents, 0],
                                 truth.sizes[agents, 1])
        ids[step, cells.row, cells.col] = cells.box + 1
    return ids


def instances_of_boxes(detections: Detections, future: np.ndarray) -> np.ndarray:
    """Return instance numbers (7, rows, cols) of boxes that move as `future` (D, 6, 3) says."""
    ids = np.zeros((STEPS, *OUTPUT_GRID.shape), dtype=np.int32)
    for step in range(STEPS):
        poses = detections.poses if step == 0 else future[:, step - 1]
        cells = raster.box_cells(poses, detections.sizes[:, 0], detections.sizes[:, 1])
        ids[step, cells.row, cells.col] = cells.box + 1
    return ids


def instances_of_flow(codes: np.ndarray, flow_m: np.ndarray,
                      detections: Detections) -> np.ndarray:
    """
    Return instance numbers (7, rows, cols) of occupied cells (probability 0.5 on).

    Now, a cell belongs to the nearest detected box; later, to the instance that its backward flow
    leads to half a second before, or to the nearest one there within a metre. What has no such
    origin is a new instance for each connected patch.
    """
    occupied = (codes >= OCCUPIED_FROM) & (codes != UNOBSERVED)
    ids = np.zeros(codes.shape, dtype=np.int32)
    row, col = np.nonzero(occupied[0])
    ids[0, row, col] = _nearest_box(OUTPUT_GRID.centres_m()[row, col], detections)
    number = _number_patches(ids[0], occupied[0], len(detections) + 1)
    for step in range(1, STEPS):
        before = _grown(ids[step - 1])
        row, col = np.nonzero(occupied[step])
        dx, dy = flow_m[step][:, row, col] / OUTPUT_GRID.cell_m
        from_row = np.rint(row + dy).astype(np.int64)
        from_col = np.rint(col + dx).astype(np.int64)
        inside = ((from_row >= 0) & (from_row < OUTPUT_GRID.rows)
                  & (from_col >= 0) & (from_col < OUTPUT_GRID.cols))
        ids[step, row[inside], col[inside]] = before[from_row[inside], from_col[inside]]
        number = _number_patches(ids[step], occupied[step], number)
    return ids


def _nearest_box(points: np.ndarray, detections: Detections) -> np.ndarray:
    """Return 1 + index of the box nearest to each point (N, 2), 0 beyond `BOX_REACH_M`."""
    if not len(detections) or not len(points):
        return np.zeros(len(points), dtype=np.int32)
    dx, dy = np.moveaxis(points[:, None] - detections.poses[None, :, :2], -1, 0)
    c, s = np.cos(detections.poses[:, 2]), np.sin(detections.poses[:, 2])
    along = np.abs(c * dx + s * dy) - detections.sizes[:, 0] / 2
    across = np.abs(-s * dx + c * dy) - detections.sizes[:, 1] / 2
    outside = np.hypot(np.maximum(along, 0), np.maximum(across, 0))
    # Inside several boxes, the one in which the point lies deepest.
    distance = outside + np.minimum(np.maximum(along, across), 0)
    nearest = distance.argmin(axis=1)
    far = distance[np.arange(len(points)), nearest] > BOX_REACH_M
    return np.where(far, 0, nearest + 1).astype(np.int32)


def _grown(ids: np.ndarray) -> np.ndarray:
    """Return the numbers with free cells within a metre given to a neighbour's instance."""
    out = ids.copy()
    for _ in range(round(1.0 / OUTPUT_GRID.cell_m)):
        grown = cv2.dilate(out.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        out = np.where(out > 0, out, grown)
    return out


def _number_patches(ids: np.ndarray, occupied: np.ndarray, number: int) -> int:
    """Give the occupied patches without an instance numbers from `number` on; return the next."""
    rest = occupied & (ids == 0)
    if not rest.any():
        return number
    count, labels = cv2.connectedComponents(rest.astype(np.uint8))
    ids[rest] = labels[rest] + number - 1
    return number + count - 1


def count_panoptic(predicted: np.ndarray, true: np.ndarray,
                   scored: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return `panoptic` (2 extents, 4): sum of IoU, TP, FP, FN over the steps that are scored.

    Instance numbers and `scored` are (7, rows, cols); cells that are not scored belong to nothing.
    """
    counts = np.zeros((len(EXTENTS_M), 4))
    for i, side_m in enumerate(EXTENTS_M.values()):
        rows, cols = extent(side_m)
        found_as: dict[int, int] = {}
        for step in range(STEPS):
            known = scored[step, rows, cols]
            if known.any():
                counts[i] += _count_step(np.where(known, predicted[step, rows, cols], 0),
                                         np.where(known, true[step, rows, cols], 0), found_as)
    return {'panoptic': counts}


def _count_step(predicted: np.ndarray, true: np.ndarray, found_as: dict[int, int]) -> np.ndarray:
    """Count one step; `found_as` maps true instances to the numbers they were found under."""
    shape = int(predicted.max()) + 1, int(true.max()) + 1
    joint = np.bincount((predicted * shape[1] + true).ravel(), minlength=shape[0] * shape[1])
    joint = joint.reshape(shape).astype(np.float64)
    area_pred, area_true = joint.sum(axis=1), joint.sum(axis=0)
    overlap = metrics.iou(joint, area_pred[:, None], area_true[None])
    overlap[0], overlap[:, 0] = 0, 0
    total = right = 0.0
    # Over one half, at most one partner is possible on either side.
    for p, t in zip(*np.nonzero(overlap > 0.5), strict=True):
        if found_as.setdefault(int(t), int(p)) == p:
            total += overlap[p, t]
            right += 1
        found_as[int(t)] = int(p)
    return np.array([total, right, (area_pred[1:] > 0).sum() - right,
                     (area_true[1:] > 0).sum() - right])


def panoptic_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return `vpq_near` and `vpq_far` in percent; leading axes (bootstrap draws) are kept."""
    overlap, right, invented, missed = np.moveaxis(counts['panoptic'], -1, 0)
    quality = 100 * metrics.ratio(overlap, right + invented / 2 + missed / 2)
    return {f'vpq_{name}': quality[..., i] for i, name in enumerate(EXTENTS_M)}
