"""
Two sets of forecasts of the same windows, window by window: how far apart they are.

Where there is truth, both are scored (`Scores.against`); the differences here need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from wm_ros.decode import UNOBSERVED
from wm_ros.types import AgentForecast, Forecast

#: Agents of the two sides within this distance are one.
SAME_AGENT_M = 2.0
#: Ground counts as occupied from this probability on.
OCCUPIED = 127
#: What says who made a forecast, and not what it says.
_MAKER = ('model_hash', 'precision', 'stages_ms')


@dataclass(frozen=True)
class WindowDifference:
    """
    How far apart two forecasts of one stamp are.

    `identical`: equal to the bit, but for the names of their makers. `agents` of the two sides,
    and how many of each are `matched` within 2 m; `place_m` and `path_m` are how far matched ones
    stand, and how far their most probable paths end, from each other (mean); `occupancy` is the
    largest mean difference of probability of any step, over cells that both observe, and
    `occupied_iou` the overlap of what they call occupied, all steps together (1 where nothing is);
    `observed` is the share of cells about whose being observed they agree.
    """

    stamp_ns: int
    identical: bool
    valid: tuple[bool, bool]
    agents: tuple[int, int]
    matched: int
    place_m: float
    path_m: float
    occupancy: float
    occupied_iou: float
    observed: float

    @property
    def amount(self) -> float:
        """
        How much they differ, 0 to 5: what windows are ordered by.

        The sum of five parts of 0 to 1: validity, agents that only one side has, paths (2 m apart
        and more is 1), occupied ground, observed ground.
        """
        all_agents = sum(self.agents)
        alone = 1 - 2 * self.matched / all_agents if all_agents else 0.0
        return (float(self.valid[0] != self.valid[1]) + alone + min(self.path_m / 2.0, 1.0)
                + (1 - self.occupied_iou) + (1 - self.observed))

    def report(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        values = {key: list(value) if isinstance(value, tuple) else value
                  for key, value in vars(self).items()}
        return {'amount': round(self.amount, 6)} | {
            key: round(value, 6) if isinstance(value, float) else value
            for key, value in values.items()}


def paired(a: Iterator[Forecast], b: Iterator[Forecast]) -> Iterator[
        tuple[Forecast | None, Forecast | None]]:
    """Yield the forecasts of two sides by stamp, both in ascending order; None for none."""
    one, other = next(a, None), next(b, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.stamp_ns < other.stamp_ns):
            yield one, None
            one = next(a, None)
        elif one is None or other.stamp_ns < one.stamp_ns:
            yield None, other
            other = next(b, None)
        else:
            yield one, other
            one, other = next(a, None), next(b, None)


def difference(a: Forecast, b: Forecast) -> WindowDifference:
    """Return how far apart two forecasts of one stamp are; raise ValueError for two stamps."""
    if a.stamp_ns != b.stamp_ns:
        raise ValueError(f'compare: forecasts of {a.stamp_ns} and {b.stamp_ns} ns, want one stamp')
    pairs = _matches(a.agents, b.agents)
    apart = [np.hypot(*(one.pose[:2] - other.pose[:2])) for one, other in pairs]
    ends = [np.hypot(*(_end(one) - _end(other))) for one, other in pairs]
    seen_a, seen_b = (f.occupancy_static != UNOBSERVED for f in (a, b))
    both = seen_a & seen_b
    codes_a, codes_b = (f.occupancy_agents[:, both].astype(np.int16) for f in (a, b))
    steps = np.abs(codes_a - codes_b).mean(axis=1) / 254 if both.any() else np.zeros(1)
    on_a, on_b = codes_a >= OCCUPIED, codes_b >= OCCUPIED
    union = int((on_a | on_b).sum())
    return WindowDifference(
        a.stamp_ns, _identical(a, b), (bool(a.valid), bool(b.valid)),
        (len(a.agents), len(b.agents)), len(pairs),
        float(np.mean(apart)) if pairs else 0.0, float(np.mean(ends)) if pairs else 0.0,
        float(steps.max()), int((on_a & on_b).sum()) / union if union else 1.0,
        float((seen_a == seen_b).mean()))


def _identical(a: Any, b: Any) -> bool:
    if is_dataclass(a):
        return all(_identical(getattr(a, entry.name), getattr(b, entry.name))
                   for entry in fields(a) if entry.name not in _MAKER)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
                and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_identical(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def _matches(a: tuple[AgentForecast, ...], b: tuple[AgentForecast, ...]) -> list[
        tuple[AgentForecast, AgentForecast]]:
    """Return the agents of two sides that are one, nearest pairs first."""
    if not a or not b:
        return []
    places_a, places_b = (np.array([agent.pose[:2] for agent in side]) for side in (a, b))
    distance = np.hypot(*np.moveaxis(places_a[:, None] - places_b[None], -1, 0))
    rows, columns = np.nonzero(distance <= SAME_AGENT_M)
    found, used_a, used_b = [], set(), set()
    for at in np.argsort(distance[rows, columns], kind='stable'):
        row, column = int(rows[at]), int(columns[at])
        if row not in used_a and column not in used_b:
            found.append((a[row], b[column]))
            used_a.add(row)
            used_b.add(column)
    return found


def _end(agent: AgentForecast) -> np.ndarray:
    """Return where the most probable path ends, (2,)."""
    return agent.trajectories_m[int(np.argmax(agent.mode_probabilities)), -1]
