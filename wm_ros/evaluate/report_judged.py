"""What a page says of each window: how it held, against truth and what came; the worst first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wm_ros.evaluate.moments import Moment, moment_of, worst
from wm_ros.evaluate.outcome import judge
from wm_ros.evaluate.self_scores import SelfScorer
from wm_ros.types import Forecast, Truth

#: Moments of each kind that a page lists, and how far apart they lie.
MOST_MOMENTS = 8
APART_NS = 1_500_000_000


@dataclass(frozen=True)
class Judged:
    """
    A forecast against the truth of its stamp, within 30 m.

    Of `visible` agents `found` were found, and `right` had one of six paths under 2 m error for
    the whole 3 s; `invented` detections found nobody.
    """

    visible: int
    found: int
    right: int
    invented: int

    @property
    def wrong(self) -> int:
        """Agents missed or forecast wrongly, and agents invented."""
        return self.visible - self.right + self.invented


def judged(forecast: Forecast, truth: Truth) -> Judged:
    """Return how one forecast stands against its truth, by the rules of the benchmark."""
    came = judge(forecast, truth)
    found = len(came.right) + len(came.wrong)
    return Judged(found + len(came.missed), found, len(came.right), len(came.invented))


def held_moments(forecasts: Iterable[Forecast]) -> dict[int, Moment]:
    """Return by stamp how much what was seen surprised the forecasts made before it."""
    scorer = SelfScorer()
    found = (moment_of(scorer.add(forecast)) for forecast in forecasts)
    return {moment.stamp_ns: moment for moment in found if moment is not None}


def moments_to_look_at(forecasts: list[Forecast], moments: dict[int, Moment],
                       against_truth: dict[int, Judged]) -> list[dict[str, Any]]:
    """
    Return the moments to look at, worst first, by kind: surprise, truth, health.

    Each has `kind`, `i` (its window), `value` with `unit`, a `title` and `lines`.
    """
    index = {forecast.stamp_ns: i for i, forecast in enumerate(forecasts)}
    entries = []
    for moment in worst(moments.values(), MOST_MOMENTS, APART_NS):
        lines = moment.reasons()
        entries.append({'kind': 'surprise', 'i': index[moment.stamp_ns],
                        'value': round(moment.surprise, 1), 'unit': 'nats', 'title': lines[0],
                        'lines': lines[1:4]})
    running = False
    chosen: list[int] = []
    for stamp, one in sorted(against_truth.items(), key=lambda item: (-item[1].wrong, item[0])):
        if len(chosen) == MOST_MOMENTS or one.wrong == 0:
            break
        if not forecasts[index[stamp]].valid or any(
                abs(stamp - other) < APART_NS for other in chosen):
            continue
        chosen.append(stamp)
        entries.append({
            'kind': 'truth', 'i': index[stamp], 'value': one.wrong, 'unit': 'wrong',
            'title': f'{one.right} of {one.visible} visible road users right for 3 s',
            'lines': [f'{one.visible - one.found} missed, {one.found - one.right} found with no '
                      f'right path, {one.invented} invented']})
    for i, forecast in enumerate(forecasts):
        if running and not forecast.valid and forecasts[i - 1].valid:
            length = next((k for k, later in enumerate(forecasts[i:]) if later.valid),
                          len(forecasts) - i)
            entries.append({'kind': 'health', 'i': i, 'value': length, 'unit': 'windows',
                            'title': forecast.reasons[0] if forecast.reasons else 'invalid',
                            'lines': list(forecast.reasons[1:])})
        running |= forecast.valid
    return entries
