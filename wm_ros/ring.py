"""
The newest 16 camera sets: their cached maps, as one block of memory, and what is known of each.

What the fold takes of a window is worked out here, for the one at hand and for one to come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from wm_ros.geometry import relative_pose
from wm_ros.periods import SLOT_NS, held_to_range
from wm_ros.types import WINDOW_FRAMES, EgoState

NS = 1_000_000_000
#: Periods that a mean is taken over at least.
MIN_PERIODS = 8


@dataclass(frozen=True)
class Entry:
    """One place in the window; without `present` it is masked."""

    stamp_ns: int
    present: bool
    partial: bool = False
    ego: EgoState | None = None


class WindowInputs:
    """What the fold takes beside the maps; see `runtime.contract`."""

    def __init__(self) -> None:
        self.now_from_frame = np.zeros((WINDOW_FRAMES, 3), dtype=np.float32)
        self.age_s = np.zeros(WINDOW_FRAMES, dtype=np.float32)
        self.frame_mask = np.zeros(WINDOW_FRAMES, dtype=np.float32)
        self.odometry_mask = np.zeros(1, dtype=np.float32)


class FeatureRing:
    """
    A ring of 16 entries with the maps (C, R, R) that were cached for them.

    With `channels_last` the maps lie in memory with their channels innermost.
    """

    def __init__(self, shape: tuple[int, ...], channels_last: bool) -> None:
        channels, *cells = shape
        # Every frame is written twice, 16 places apart, so that the last 16 are always one block.
        places = 2 * WINDOW_FRAMES
        self._maps = (np.moveaxis(np.zeros((places, *cells, channels), np.float32), -1, 1)
                      if channels_last else np.zeros((places, channels, *cells), np.float32))
        self.entries: deque[Entry] = deque(maxlen=WINDOW_FRAMES)
        self._head = 0

    def clear(self) -> None:
        """Forget all entries."""
        self.entries.clear()
        self._head = 0
        self._maps[:] = 0

    def append(self, entry: Entry, maps: np.ndarray | None) -> None:
        """Make an entry the newest, with its maps or, where it has none, zeros."""
        for place in (self._head, self._head + WINDOW_FRAMES):
            self._maps[place] = 0 if maps is None else maps
        self._head = (self._head + 1) % WINDOW_FRAMES
        self.entries.append(entry)

    def with_next(self, entry: Entry) -> list[Entry]:
        """Return the entries as they will be with one more."""
        return [*self.entries, entry][-WINDOW_FRAMES:]

    def fold_inputs(self, into: WindowInputs, entries: list[Entry], odometry: bool,
                    ego: EgoState | None) -> dict[str, np.ndarray]:
        """
        Return what the fold takes of entries: those that are here, or those of `with_next`.

        Of the latter the newest maps are not there yet. `ego` is the newest entry's with
        `odometry`. All but the maps are written into `into`.
        """
        newest, period = entries[-1], self.period_ns()
        here = bool(self.entries) and newest is self.entries[-1]
        head = self._head if here else (self._head + 1) % WINDOW_FRAMES
        first = WINDOW_FRAMES - len(entries)
        for i in range(first):  # places that were never filled: as if the rate had held before
            into.age_s[i] = (newest.stamp_ns - entries[0].stamp_ns + (first - i) * period) / NS
        into.age_s[first:] = [(newest.stamp_ns - entry.stamp_ns) / NS for entry in entries]
        into.frame_mask[:first] = 0
        into.frame_mask[first:] = there = [entry.present for entry in entries]
        into.now_from_frame[:] = 0
        if odometry:
            into.now_from_frame[first:][there] = relative_pose(
                ego.odom_from_base,
                np.array([entry.ego.odom_from_base for entry in entries if entry.present]))
        into.odometry_mask[0] = odometry
        return {'memory': self._maps[head:head + WINDOW_FRAMES],
                'now_from_frame': into.now_from_frame, 'age_s': into.age_s,
                'frame_mask': into.frame_mask, 'odometry_mask': into.odometry_mask}

    def period_ns(self) -> int:
        """
        Return the mean period in the window; masked places count as one period each.

        The mean, because one set a slot of a fast camera comes at uneven steps; 100 ms while
        there are too few for one.
        """
        used = [(i, entry.stamp_ns) for i, entry in enumerate(self.entries) if entry.present]
        places = used[-1][0] - used[0][0] if used else 0
        if places < MIN_PERIODS:
            return SLOT_NS
        return held_to_range((used[-1][1] - used[0][1]) // places)
