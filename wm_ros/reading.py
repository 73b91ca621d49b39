"""
The raw outputs of a rollout as agents and layers, a plan at a time, plans beside each other.

What is not finite or out of physical bounds is refused: the plan then has nobody and no observed
ground, and a reason.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from wm_ros import decode as dec
from wm_ros.choices import Choices
from wm_ros.footprints import DRAWN_FROM
from wm_ros.runtime.contract import MAX_AGENTS

#: Agents and layers of one plan, and why there are none.
Read = tuple[dec.AgentTable, dec.Layers, tuple[str, ...]]


class OutputReader:
    """Reads with an artifact's choices, `threads` plans at a time; `companions` as `Artifact`'s."""

    def __init__(self, choices: Choices, threads: int, companions: bool) -> None:
        self._choices = choices
        self._first_companion = dec.FIRST_COMPANION if companions else MAX_AGENTS
        self._threads = ThreadPoolExecutor(max(1, threads), 'wm_ros_plans')

    def close(self) -> None:
        """Join the threads."""
        self._threads.shutdown(wait=True)

    def read(self, outputs: dict[str, np.ndarray], count: int, seen: np.ndarray,
             score_threshold: float | None, observed_threshold: float | None) -> list[Read]:
        """
        Read the first `count` plans of a rollout.

        `seen` tells which cells some camera may see (`CameraInput.seen`); thresholds of None are
        the artifact's.
        """
        try:
            dec.check_outputs(outputs)
        except dec.OutputError as err:
            return [(dec.no_agents(), dec.nothing_observed(), (str(err),))] * count
        choices = self._choices
        score = choices.score_threshold if score_threshold is None else score_threshold
        observed = choices.observed_threshold if observed_threshold is None else observed_threshold
        read = partial(self._read_plan, outputs, score, dec.decode_ground(
            outputs, dec.observed_ground(outputs, observed, seen)))
        if count == 1:  # agents beside maps in two threads: what it gains, waking one costs
            return [read(0)]
        return list(self._threads.map(read, range(count)))

    def _read_plan(self, outputs: dict[str, np.ndarray], score: float, ground: dec.Ground,
                   row: int) -> Read:
        try:
            everybody = dec.decode_agents(outputs, row, min(score, DRAWN_FROM), self._choices,
                                          self._first_companion)
            agents = everybody.above(score)
            dec.check_agents(agents)
            layers = dec.decode_layers(outputs, row, ground, everybody,
                                       self._choices.occupancy_weights)
        except dec.OutputError as err:
            return dec.no_agents(), dec.nothing_observed(), (str(err),)
        return agents, layers, ()
