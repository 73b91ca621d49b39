"""
How much the occupancy forecast takes from the dense head, and how much from the agents' boxes.

Every pair of weights follows from one histogram: how often which pair of probabilities, the head's
and the boxes', met an occupied and a free cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.evaluate.occupancy import EXTENTS_M, UNOBSERVED, extent
from wm_ros.types import OUTPUT_GRID, TIME_STEP_S

HEAD_WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))
BOX_WEIGHTS = tuple(round(0.1 * i, 1) for i in range(13))
#: IoU points, near and far together, that are given for a better Brier score.
FLAT_TOP_POINTS = 0.5
_HEAD_BINS, _BOX_BINS = 128, 64
_TO_2S = round(2 / TIME_STEP_S) + 1


@dataclass(frozen=True)
class Weighed:
    """One pair of weights: IoU to 2 s in percent, Brier score of all steps."""

    weights: tuple[float, float]
    iou_near_to_2s: float
    iou_far_to_2s: float
    brier: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {**vars(self), 'weights': list(self.weights)}


class OccupancyCounts:
    """The histogram over forecasts, and scores of any weights from it."""

    def __init__(self) -> None:
        shape = (_HEAD_BINS, _BOX_BINS, 2)
        self._to_2s = {name: np.zeros(shape) for name in EXTENTS_M}
        self._all = np.zeros(shape)
        #: Cells on ground that is not observed, whatever the weights are: called occupied under
        #: a box or not, by truth (free, occupied).
        self._hidden = {name: np.zeros((2, 2)) for name in EXTENTS_M}

    def add(self, head: np.ndarray, boxes: np.ndarray, surely: np.ndarray, occupied: np.ndarray,
            scored: np.ndarray) -> None:
        """
        Take one forecast, all (T + 1, Y, X): codes of the head alone and what boxes cover (0-1).

        `surely` is what one box alone covers for sure, `occupied` the truth, and `scored` says
        which cells count.
        """
        known = scored & (head != UNOBSERVED)
        bins = (head >> 1).astype(np.int32) * _BOX_BINS
        bins += (boxes * np.float32(_BOX_BINS - 1) + np.float32(0.5)).astype(np.int32)
        bins = 2 * bins + occupied
        self._all += self._histogram(bins, known)
        for name, side_m in EXTENTS_M.items():
            near = (slice(0, _TO_2S), *extent(side_m))
            self._to_2s[name] += self._histogram(bins[near], known[near])
            hidden = (scored & ~known)[near]
            called = 2 * surely[near][hidden] + occupied[near][hidden]
            self._hidden[name] += np.bincount(called, minlength=4).reshape(2, 2)

    @staticmethod
    def _histogram(bins: np.ndarray, known: np.ndarray) -> np.ndarray:
        shape = (_HEAD_BINS, _BOX_BINS, 2)
        return np.bincount(bins[known], minlength=int(np.prod(shape))).reshape(shape)

    def weigh(self, weights: tuple[float, float]) -> Weighed:
        """Return the scores of one pair of weights."""
        head = (2 * np.arange(_HEAD_BINS)[:, None] + 0.5) / 254
        p = np.minimum(weights[0] * head + weights[1] * np.arange(_BOX_BINS) / (_BOX_BINS - 1), 1)
        called = p >= 0.5
        iou = []
        for name, counts in self._to_2s.items():
            hidden = self._hidden[name]
            under = hidden[1] if weights[1] > 0 else np.zeros(2)    # no boxes, none to stand there
            iou.append(100 * float(metrics.iou(
                counts[called, 1].sum() + under[1], counts[called].sum() + under.sum(),
                counts[..., 1].sum() + hidden[:, 1].sum())))
        squared = (self._all[..., 0] * p ** 2 + self._all[..., 1] * (1 - p) ** 2).sum()
        return Weighed(weights, *iou, float(metrics.ratio(squared, self._all.sum())))

    def choose(self) -> Weighed:
        """
        Return the weights of the lowest Brier score among those of nearly the highest IoU.

        IoU is that of both extents together; its top is flat, and how sure to be is free there.
        """
        tried = [self.weigh((head, boxes)) for head in HEAD_WEIGHTS for boxes in BOX_WEIGHTS]
        iou = np.nan_to_num([one.iou_near_to_2s + one.iou_far_to_2s for one in tried])
        return min((one for one, value in zip(tried, iou, strict=True)
                    if value >= iou.max() - FLAT_TOP_POINTS), key=lambda one: one.brier)


def pack(mask: np.ndarray) -> np.ndarray:
    """Return a bool array (T + 1, Y, X) as bits; `unpack` gives it back."""
    return np.packbits(mask)


def unpack(bits: np.ndarray) -> np.ndarray:
    """Return the bool array (T + 1, Y, X) that was packed."""
    cells = OUTPUT_GRID.rows * OUTPUT_GRID.cols
    steps = 8 * len(bits) // cells
    return np.unpackbits(bits, count=steps * cells).reshape(steps, *OUTPUT_GRID.shape).astype(bool)
