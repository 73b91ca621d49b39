"""
Going on with a replay that was stopped: its forecasts are taken over, byte for byte.

The file of a process that was killed has no end; what is whole in it is read all the same. Agent
ids depend on all forecasts before, so the tracker is led through those that are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.association import Associator
from wm_ros.data.bag import EGO_PLAN, BagError, BagReader
from wm_ros.decode import UNOBSERVED
from wm_ros.messages import stamp_ns
from wm_ros.received import forecast_from_messages
from wm_ros.types import Forecast

#: Beside the bag's files: what it was made from, and how it ended.
NOTES = 'replay.json'


class ResumeError(RuntimeError):
    """Forecasts that cannot be gone on with: why."""


def read_notes(bag: Path) -> dict[str, Any]:
    """Return what `write_notes` wrote into a bag's folder, empty where there is nothing."""
    try:
        content = json.loads((bag / NOTES).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_notes(bag: Path, notes: dict[str, Any]) -> None:
    """Write notes into a bag's folder; they are replaced as a whole."""
    part = bag / f'{NOTES}.part'
    part.write_text(json.dumps(notes, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    part.replace(bag / NOTES)


@dataclass(frozen=True)
class Known:
    """Forecasts that are there: how many, valid ones, the newest stamp, and the tracks after it."""

    forecasts: int
    valid: int
    newest_ns: int
    tracks: Associator


def known_forecasts(bag: Path, node: str) -> Known | None:
    """
    Return what can be taken over from a bag that was not ended, None where that is nothing.

    The newest stamp is left out, since not all of its messages may be there. Raises ResumeError
    where stamps go back or ids are not those that the tracker gives.
    """
    tracks, count, valid, newest = Associator(), 0, 0, -1
    before: Forecast | None = None
    try:
        with BagReader(bag) as reader:
            for forecast in _forecasts(reader, node):
                if forecast.stamp_ns <= newest:
                    raise ResumeError(f'{bag}: a forecast of {forecast.stamp_ns} ns after one of '
                                      f'{newest} ns')
                newest = forecast.stamp_ns
                if before is not None:
                    tracks = _followed(tracks, before)
                    count, valid = count + 1, valid + before.valid
                before, kept_ns = forecast, before.stamp_ns if before else -1
    except BagError:
        return None
    return Known(count, valid, kept_ns, tracks) if count else None


def _forecasts(reader: BagReader, node: str) -> Iterator[Forecast]:
    topics = [f'{node}/agents', f'{node}/occupancy']
    parts: dict[str, Any] = {}
    for topic, _, msg in reader.read(topics):
        parts[topic] = msg
        if len(parts) == 2 and len({stamp_ns(part.header) for part in parts.values()}) == 1:
            yield forecast_from_messages(*(parts[name] for name in topics))


def _followed(tracks: Associator, forecast: Forecast) -> Associator:
    """Return the tracks after a forecast, begun anew where its ids say that they were."""
    if (forecast.occupancy_static == UNOBSERVED).all():
        return tracks       # the model did not run, and the tracker was not asked
    ids = [agent.track_id for agent in forecast.agents]
    for candidate in (tracks, Associator()):
        if ids == _update(candidate, forecast):
            return candidate
    raise ResumeError(f'ids at {forecast.stamp_ns} ns are not those of this version')


def _update(tracks: Associator, forecast: Forecast) -> list[bytes]:
    agents = forecast.agents
    return tracks.update(
        forecast.stamp_ns, forecast.odom_from_base,
        np.reshape([agent.pose[:2] for agent in agents], (-1, 2)),
        np.reshape([agent.velocity_mps for agent in agents], (-1, 2)),
        np.reshape([agent.class_probabilities for agent in agents], (len(agents), -1)))


def forecast_messages(bag: Path, node: str,
                      newest_ns: int) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield (topic, type, time, CDR bytes) of the forecasts up to a stamp, as they are."""
    with BagReader(bag) as reader:
        topics = [topic.name for topic in reader.topics.values()
                  if topic.name.startswith(f'{node}/') and topic.type_name != EGO_PLAN]
        yield from reader.raw(topics, stop_ns=newest_ns + 1)
