"""
Stable ids for agents: a small, deterministic tracker beside the model.

It only names what the model found; no forecast depends on it. The same detections in the same
order give the same ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from wm_ros.geometry import transform_points

NS = 1_000_000_000
#: How far from where it was expected an agent may be found, plus what its speed adds a second.
GATE_M = 2.0
GATE_PER_MPS = 0.3
MAX_GATE_M = 6.0
#: Metres that a wholly different class costs.
CLASS_COST_M = 3.0
#: A track lives this long without being seen.
KEEP_NS = NS


@dataclass
class _Track:
    track_id: bytes
    stamp_ns: int
    xy: np.ndarray        # odom, or base_link while there is no odometry
    velocity: np.ndarray
    classes: np.ndarray


class Associator:
    """Gives each agent the id of the track that it continues, or a new one."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._counter = 0
        self._start_ns: int | None = None
        self._in_odom = False
        self._last_ns: int | None = None

    def reset(self) -> None:
        """Forget all tracks; ids begin anew."""
        self.__init__()

    def update(self, stamp_ns: int, odom_from_base: np.ndarray | None, xy: np.ndarray,
               velocity: np.ndarray, classes: np.ndarray) -> list[bytes]:
        """
        Return a 16-byte id for each agent and remember them.

        `xy` (A, 2) and `velocity` (A, 2) over ground in `base_link`, `classes` (A, 8)
        probabilities. A stamp that is not newer than the last one only asks: nothing changes.
        """
        if self._last_ns is not None and stamp_ns <= self._last_ns:
            return self.match(stamp_ns, odom_from_base, xy, velocity, classes)
        if self._start_ns is None:
            self._start_ns = stamp_ns
        in_odom = odom_from_base is not None
        if in_odom != self._in_odom:  # places of the other frame mean nothing
            self._tracks, self._in_odom = [], in_odom
        self._last_ns = stamp_ns
        place, speed = _in_frame(odom_from_base, xy, velocity)
        live = [track for track in self._tracks if stamp_ns - track.stamp_ns <= KEEP_NS]
        matches = _assign(live, stamp_ns, place, classes)
        ids = []
        for row in range(len(place)):
            track_id = live[matches[row]].track_id if row in matches else self._new_id()
            ids.append(track_id)
        found = set(matches.values())
        self._tracks = [track for i, track in enumerate(live) if i not in found] + [
            _Track(track_id, stamp_ns, place[row], speed[row], classes[row])
            for row, track_id in enumerate(ids)]
        return ids

    def match(self, stamp_ns: int, odom_from_base: np.ndarray | None, xy: np.ndarray,
              velocity: np.ndarray, classes: np.ndarray) -> list[bytes]:
        """
        Return ids as `update` does and remember nothing: for what-if plans of the same stamp.

        Agents that continue no track get ids that hold for this call only.
        """
        place, _ = _in_frame(odom_from_base, xy, velocity)
        known = [track for track in self._tracks if stamp_ns - track.stamp_ns <= KEEP_NS]
        if (odom_from_base is not None) != self._in_odom:
            known = []
        matches = _assign(known, stamp_ns, place, classes)
        return [known[matches[row]].track_id if row in matches
                else _uuid(f'{self._start_ns}:{self._counter}:{stamp_ns}:{row}')
                for row in range(len(place))]

    def _new_id(self) -> bytes:
        self._counter += 1
        return _uuid(f'{self._start_ns}:{self._counter}')


def _in_frame(odom_from_base: np.ndarray | None, xy: np.ndarray,
              velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    xy, velocity = np.asarray(xy, dtype=np.float64), np.asarray(velocity, dtype=np.float64)
    if odom_from_base is None:
        return xy, velocity
    turn = np.array([0.0, 0.0, odom_from_base[2]])
    return transform_points(odom_from_base, xy), transform_points(turn, velocity)


def _assign(tracks: list[_Track], stamp_ns: int, xy: np.ndarray,
            classes: np.ndarray) -> dict[int, int]:
    """Return {row: track} by the cheapest pair first; ties go to the older track, higher row."""
    if not tracks or not len(xy):
        return {}
    seconds = np.array([(stamp_ns - track.stamp_ns) / NS for track in tracks])
    velocity = np.array([track.velocity for track in tracks])
    expected = np.array([track.xy for track in tracks]) + velocity * seconds[:, None]
    away = xy[:, None] - expected                                                # (A, tracks, 2)
    distance = np.hypot(away[..., 0], away[..., 1])
    gate = np.minimum(GATE_M + GATE_PER_MPS * np.hypot(velocity[:, 0], velocity[:, 1]), MAX_GATE_M)
    known = np.array([track.classes for track in tracks])                        # (tracks, 8)
    overlap = np.minimum(classes[:, None], known[None]).sum(axis=-1)
    cost = distance + CLASS_COST_M * (1 - overlap)
    rows, columns = np.nonzero(distance <= gate)
    order = np.lexsort((rows, columns, cost[rows, columns]))
    matches: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in matches and column not in taken:
            matches[row] = column
            taken.add(column)
    return matches


def _uuid(text: str) -> bytes:
    """Return a UUID of version 8 (RFC 9562: custom) from a text."""
    digest = bytearray(hashlib.blake2b(text.encode(), digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)

