"""Moments at which what was seen was not what had been forecast: how surprising, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_ros.evaluate.self_scores import Event, Held, Patch

#: Events that a moment names.
MOST_EVENTS = 5
#: Nats a vehicle from which a patch of ground is named.
LEAST_PATCH = 0.5
_SEEN = {True: 'occupied that was forecast free', False: 'free that was forecast occupied'}


@dataclass(frozen=True)
class Moment:
    """
    One stamp, and what the forecasts made 1, 2 and 3 s before it had said of it.

    Nats are means over those forecasts; `by_horizon` holds each one's sum of both. `events` are
    the strongest, one a road user, and `patch` the ground, each with the horizon of the forecast
    that it surprised.
    """

    stamp_ns: int
    agents: float
    occupancy: float
    by_horizon: dict[int, float]
    events: tuple[tuple[int, Event], ...]
    patch: tuple[int, Patch] | None = None

    @property
    def surprise(self) -> float:
        """Nats of agents and occupancy together."""
        return self.agents + self.occupancy

    def reasons(self) -> list[str]:
        """Return what happened, a line a road user, most surprising first."""
        lines = [sentence(event, horizon) for horizon, event in self.events]
        if self.patch is not None:
            horizon, patch = self.patch
            lines.insert(0 if self.occupancy > self.agents else 1, (
                f'ground {_SEEN[patch.came]} ({_place(*patch.at_m)}; forecast {horizon} s before): '
                f'{patch.nats:.1f} nats a vehicle'))
        return lines or ['nothing stands out; many small deviations']

    def json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            'stamp_ns': self.stamp_ns, 'surprise_nats': round(self.surprise, 3),
            'agents_nats': round(self.agents, 3), 'occupancy_nats': round(self.occupancy, 3),
            'by_horizon_nats': {str(h): round(v, 3) for h, v in self.by_horizon.items()},
            'reasons': self.reasons(),
            'events': [{'horizon_s': horizon, **vars(event)} for horizon, event in self.events]}


def sentence(event: Event, horizon_s: int) -> str:
    """Return an event as a line of English."""
    if event.kind == 'moved':
        off = np.hypot(event.seen_m[0] - event.expected_m[0],
                       event.seen_m[1] - event.expected_m[1])
        text = f'{event.label} {off:.1f} m from where it was likeliest'
    elif event.kind == 'appeared':
        text = f'{event.label} that nobody expected'
    else:
        text = f'{event.label} that was expected is not there'
    place = _place(*(event.seen_m or event.expected_m))
    return f'{text} ({place}; forecast {horizon_s} s before): {event.nats:.1f} nats'


def _place(x: float, y: float) -> str:
    return (f'{abs(x):.0f} m {"ahead" if x >= 0 else "behind"}, '
            f'{abs(y):.0f} m {"left" if y >= 0 else "right"}')


def moment_of(held: Iterable[Held]) -> Moment | None:
    """Return the moment that forecasts were held against, None where there was none."""
    held = list(held)
    if not held:
        return None
    found = sorted(((one.horizon_s, event) for one in held for event in one.events),
                   key=lambda pair: -pair[1].nats)
    events, known = [], set()
    for horizon, event in found:
        if event.track_id not in known:
            known.add(event.track_id)
            events.append((horizon, event))
    most = max(held, key=lambda one: one.patch.nats)
    return Moment(
        held[0].seen_ns, float(np.mean([one.agent_surprise for one in held])),
        float(np.mean([one.occupancy_surprise for one in held])),
        {one.horizon_s: one.surprise for one in held}, tuple(events[:MOST_EVENTS]),
        (most.horizon_s, most.patch) if most.patch.nats >= LEAST_PATCH else None)


def worst(moments: Iterable[Moment], count: int, apart_ns: int) -> list[Moment]:
    """
    Return the most surprising moments, each at least `apart_ns` from those before it.

    Ranked are those that most forecasts were held against, all three but in a very short bag: after
    a start or a gap a mean is of less, and a model that has just started is easily surprised.
    """
    moments = list(moments)
    most = max((len(moment.by_horizon) for moment in moments), default=0)
    chosen: list[Moment] = []
    for moment in sorted((moment for moment in moments if len(moment.by_horizon) == most),
                         key=lambda moment: (-moment.surprise, moment.stamp_ns)):
        if len(chosen) == count:
            break
        if all(abs(moment.stamp_ns - other.stamp_ns) >= apart_ns for other in chosen):
            chosen.append(moment)
    return chosen
