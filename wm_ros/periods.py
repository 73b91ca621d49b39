"""How far camera sets lie apart, by their stamps, and how many a step between two leaves out."""

from __future__ import annotations

from collections.abc import Iterable

MS = 1_000_000
#: The period of sets of fast cameras, and of any until it is known.
SLOT_NS = 100 * MS
#: A step of more periods than this holds a gap.
GAP_PERIODS = 1.75
#: Cameras slower than 10 Hz do not stretch the period: what they leave out are gaps.
PERIOD_RANGE_NS = (50 * MS, 110 * MS)


def period_of(intervals_ns: Iterable[int]) -> int:
    """Return the period of sets this far apart: their median, 100 ms for fewer than three."""
    intervals = sorted(intervals_ns)
    if len(intervals) < 3:
        return SLOT_NS
    return held_to_range(intervals[(len(intervals) - 1) // 2])


def held_to_range(period_ns: int) -> int:
    """Return a period no shorter or longer than what cameras of 10 Hz and more give."""
    low, high = PERIOD_RANGE_NS
    return min(max(period_ns, low), high)


def skipped_between(interval_ns: int, period_ns: int) -> int:
    """Return how many periods a step between two sets leaves out (0 up to 1.75 periods)."""
    if interval_ns <= GAP_PERIODS * period_ns:
        return 0
    return max(1, int(interval_ns / period_ns + 0.5) - 1)       # `round` would take 2.5 for 2
