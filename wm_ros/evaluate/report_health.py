"""What a bag says of the node's health: the levels on /diagnostics and how late forecasts came."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from wm_ros.data.bag import BagReader
from wm_ros.evaluate.recorded import forecast_topics
from wm_ros.messages import stamp_ns

LEVELS = ('ok', 'warning', 'error', 'stale')
#: A recording time this long after a stamp is not a delay: the stamps are of another clock.
MOST_DELAY_NS = 5_000_000_000


@dataclass
class Health:
    """
    What a page shows of the node, by stamp.

    `latency_ms` maps the stamps of forecasts to how long after it they were recorded; `reports`
    are (stamp, level 0-3, lines that say why) of /diagnostics.
    """

    latency_ms: dict[int, float] = field(default_factory=dict)
    reports: list[tuple[int, int, list[str]]] = field(default_factory=list)


def health(reader: BagReader) -> Health:
    """Return the health that a bag of forecasts holds; empty where it was not recorded live."""
    agents, _ = forecast_topics(reader)
    recorded = [(time_ns, stamp_ns(msg.header)) for _, time_ns, msg in reader.read([agents])]
    delays = np.array([time_ns - stamp for time_ns, stamp in recorded])
    found = Health()
    # A replay records at the stamp itself; a bag played to a live node has stamps of another day.
    if 0 < np.median(delays) < MOST_DELAY_NS:
        found.latency_ms = {stamp: (time_ns - stamp) / 1e6 for time_ns, stamp in recorded}
    times = [time_ns for time_ns, _ in recorded]
    for topic in reader.topics_of('diagnostic_msgs/msg/DiagnosticArray'):
        for _, time_ns, msg in reader.read([topic]):
            bad = [entry for entry in msg.status if _level(entry.level)]
            nearest = recorded[min(bisect_left(times, time_ns), len(recorded) - 1)]
            found.reports.append((
                nearest[1], max((_level(entry.level) for entry in bad), default=0),
                [f'{entry.name.split(": ", 1)[-1]}: {entry.message}' for entry in bad]))
    return found


def _level(value: object) -> int:
    """Return the level of a DiagnosticStatus, a byte by one reader and a number by another."""
    return value[0] if isinstance(value, bytes) else int(value)
