"""What became of the road users of one window, by the rules of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.evaluate import agents, metrics
from wm_ros.types import Forecast, Truth


@dataclass(frozen=True)
class Outcome:
    """
    Indices of truth agents and of detections within 30 m, by what they came to.

    Agents that are visible and whose future is known: found with a `right` path among six, found
    with only `wrong` ones, `missed`. Detections that found nobody are `invented`.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    invented: np.ndarray

    @property
    def failed(self) -> int:
        return len(self.wrong) + len(self.missed)


def judge(forecast: Forecast, truth: Truth) -> Outcome:
    """Sort truth agents and detections within 30 m as SPA does, by their six paths."""
    told = agents.Detections.of(forecast)
    partner = agents.match(told.poses[:, :2], told.scores, truth.poses[:, :2], truth.visible)
    counted = (truth.visible & agents.whole_future(truth)
               & agents.in_range(truth.poses[:, :2], agents.RANGES_M[0]))
    found_by = {int(agent): i for i, agent in enumerate(partner) if agent >= 0}
    lists: tuple[list[int], ...] = ([], [], [])
    for agent in np.flatnonzero(counted):
        detection = found_by.get(int(agent))
        if detection is None:
            lists[2].append(agent)
            continue
        error = metrics.displacements(told.trajectories[detection], truth.futures[agent, :, :2])
        lists[0 if metrics.path_is_right(error) else 1].append(agent)
    invented = np.flatnonzero((partner < 0) & agents.in_range(told.poses[:, :2],
                                                              agents.RANGES_M[0]))
    return Outcome(*(np.array(entries, dtype=int) for entries in lists), invented)
