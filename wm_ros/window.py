"""
Camera sets from single frames, by their stamps alone.

Sets are formed, ordered and thinned out by what the stamps say. Arrival times only end the wait
for a camera that does not deliver, so any order of arrival that keeps each camera's own order
gives the same sets, live or from a bag.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from statistics import median

from wm_ros.periods import SLOT_NS, period_of, skipped_between
from wm_ros.types import WINDOW_FRAMES, Frame, FrameSet

MS = 1_000_000
#: How far the stamps of one set may lie apart unless told, in a live node and in a replay alike.
TOLERANCE_NS = 25 * MS
#: A camera whose frames lie closer than this, by the median, is faster than 15 Hz.
FAST_PERIOD_NS = 58 * MS
#: The same for a single interval, which jitter moves more.
FAST_INTERVAL_NS = 52 * MS
#: How much of a period the stamps of one set may lie apart at most.
SHARE_OF_PERIOD = 0.45
_HISTORY = 9
#: A camera counts as delivering for this long after its last frame.
LIVE_NS = 300 * MS
#: Frames of one camera that wait for their set at most.
_MAX_PENDING = 32
#: Frames of a camera that are kept while it alone is at another time.
_MAX_STRAYS = 8


class PushResult(IntEnum):
    """What became of a frame."""

    ACCEPTED = 0
    OUT_OF_ORDER = 1    # older than the camera's newest, in time still: accepted, in its place
    DUPLICATE = 2       # this camera's frame of this stamp is known
    LATE = 3            # its set is closed
    STAMP_JUMP = 4      # the clock jumped: the window was flushed, this frame begins a new one
    UNKNOWN_CAMERA = 5
    OVERFLOW = 6        # too many frames wait for their set
    STRAY = 7           # far from the time of the other cameras: left out unless they follow

    @property
    def accepted(self) -> bool:
        return self in (PushResult.ACCEPTED, PushResult.OUT_OF_ORDER, PushResult.STAMP_JUMP)


@dataclass
class _Pending:
    frame: Frame
    arrival_ns: int

    def __lt__(self, other: _Pending) -> bool:
        return (self.frame.stamp_ns, self.frame.camera) < (other.frame.stamp_ns, other.frame.camera)


@dataclass
class _Cluster:
    """Frames within the tolerance of the first one's stamp, one a camera."""

    frames: dict[str, _Pending]
    end_ns: int   # the first one's stamp and the tolerance

    @property
    def first_ns(self) -> int:
        return min(item.frame.stamp_ns for item in self.frames.values())

    @property
    def newest_ns(self) -> int:
        return max(item.frame.stamp_ns for item in self.frames.values())

    @property
    def arrival_ns(self) -> int:
        return min(item.arrival_ns for item in self.frames.values())


class Thinning:
    """
    Lets every set through at up to 15 Hz, one a 100 ms slot from faster cameras.

    Of a slot the first whole set is taken, or the first one where none is whole. Fast is told by
    the median spacing of a camera's own frames: jitter around the limit does not flip it, and
    cameras out of step are not taken for fast ones.
    """

    def __init__(self) -> None:
        #: Whether some camera runs faster than 15 Hz.
        self.fast = False
        #: Period of the fastest camera, once there are two intervals of it.
        self.camera_period_ns: int | None = None
        self._stamps: dict[str, deque[int]] = {}
        self._slot: int | None = None   # the slot that is served
        self._held: _Cluster | None = None

    def push(self, cluster: _Cluster, whole: bool) -> list[_Cluster]:
        """Take the next set; return those to be used, oldest first."""
        stamp = cluster.newest_ns
        out = []
        if self._held and self._held.newest_ns // SLOT_NS != stamp // SLOT_NS:
            out += self.release()
        self._learn(cluster)
        slot = stamp // SLOT_NS
        if not self.fast:
            out += self.release()
            self._slot = slot
            out.append(cluster)
        elif slot != self._slot:
            if whole:
                self._held, self._slot = None, slot
                out.append(cluster)
            elif self._held is None:
                self._held = cluster
        return out

    def release(self) -> list[_Cluster]:
        """Return the set that waited for a whole one of its slot, if there is one."""
        held, self._held = self._held, None
        if held is None:
            return []
        self._slot = held.newest_ns // SLOT_NS
        return [held]

    def _learn(self, cluster: _Cluster) -> None:
        """Update the cameras' periods; a single interval tells less and has a stricter limit."""
        periods = []
        self.fast = False
        for camera, item in cluster.frames.items():
            self._stamps.setdefault(camera, deque(maxlen=_HISTORY + 1)).append(
                item.frame.stamp_ns)
        for stamps in self._stamps.values():
            intervals = [b - a for a, b in pairwise(stamps)]
            if len(intervals) == 1:
                self.fast |= intervals[0] < FAST_INTERVAL_NS
            elif intervals:
                periods.append(int(median(intervals)))
                self.fast |= periods[-1] < FAST_PERIOD_NS
        self.camera_period_ns = min(periods, default=None)

    @property
    def held(self) -> _Cluster | None:
        return self._held


class FrameBuffer:
    """
    Collects the frames of all cameras and hands out synchronised sets, oldest first.

    `tolerance_ns`: how far the stamps of one set may lie apart, held under half a period of the
    fastest camera, so that a lost frame does not pair a camera with its neighbours' next.
    `deadline_ns`: how long a set waits for a missing camera, on the stamps of the others and on the
    clock given to `push` and `ready`.

    What time it is, the cameras decide together, so that one with a wrong clock takes none of the
    others down: a set waits no longer once half of those that deliver have come to it. A step back
    of more than `jump_back_ns`, or ahead of more than `jump_ahead_ns` (a window's length), is a
    clock jump where more than half of them make it; until then their frames are strays. A smaller
    step back is one where more than half of them give two frames in a row, in order, that are too
    late for their sets and behind what they gave themselves.
    No clock is read here; not thread safe.
    """

    def __init__(self, cameras: Iterable[str], tolerance_ns: int = TOLERANCE_NS,
                 deadline_ns: int = 90 * MS, jump_back_ns: int = 1000 * MS,
                 jump_ahead_ns: int = WINDOW_FRAMES * SLOT_NS, max_ready: int = 20) -> None:
        self.cameras = tuple(cameras)
        self.tolerance_ns = tolerance_ns
        self.deadline_ns = deadline_ns
        self.jump_back_ns = jump_back_ns
        self.jump_ahead_ns = jump_ahead_ns
        #: Number of flushes, and of sets dropped because nobody took them.
        self.flushes = 0
        self.overruns = 0
        #: Sets that were formed, that were used (of fast cameras one a slot), and that closed after
        #: a newer one was out; periods between two that were used in which none came.
        self.formed = 0
        self.used = 0
        self.overtaken = 0
        self.skipped = 0
        self._ready: deque[FrameSet] = deque()
        self._max_ready = max_ready
        self._forget()

    def _forget(self) -> None:
        """Start anew: no stamp seen so far says anything about the next."""
        self._pending: list[_Pending] = []
        self._newest: dict[str, int] = {}
        self._arrived: dict[str, int] = {}  # when its last new frame came, a camera
        self._strays = {camera: deque(maxlen=_MAX_STRAYS) for camera in self.cameras}
        self._behind = {camera: deque(maxlen=_MAX_STRAYS) for camera in self.cameras}
        self._closed: dict[str, int] = {}   # stamps up to these are closed, a camera
        self._seen = {camera: deque(maxlen=64) for camera in self.cameras}
        self._thinning = Thinning()
        self._intervals: deque[int] = deque(maxlen=_HISTORY)
        self._last_ns: int | None = None

    @property
    def thins_out(self) -> bool:
        """Whether frames come faster than sets are taken: most of them will not be used."""
        return self._thinning.fast

    def push(self, frame: Frame, now_ns: int) -> PushResult:
        """Take one frame that arrived at `now_ns` (a steady clock)."""
        camera, stamp = frame.camera, frame.stamp_ns
        if camera not in self._seen:
            return PushResult.UNKNOWN_CAMERA
        if self._is_stray(stamp, now_ns):
            return self._push_stray(frame, now_ns)
        self._strays[camera].clear()
        if stamp < self._newest.get(camera, stamp) - self.jump_back_ns:
            self._return(camera)
        if stamp in self._seen[camera]:
            return PushResult.DUPLICATE
        # A late frame too tells where its camera is.
        newest = self._newest[camera] = max(stamp, self._newest.get(camera, stamp))
        self._arrived[camera] = now_ns
        if stamp <= self._closed.get(camera, stamp - 1):
            return self._push_late(frame, now_ns) if stamp < newest else PushResult.LATE
        self._behind[camera].clear()
        if sum(item.frame.camera == camera for item in self._pending) >= _MAX_PENDING:
            return PushResult.OVERFLOW
        self._add(frame, now_ns)
        self._close(now_ns)
        return PushResult.OUT_OF_ORDER if stamp < self._newest[camera] else PushResult.ACCEPTED

    def _add(self, frame: Frame, now_ns: int) -> None:
        self._seen[frame.camera].append(frame.stamp_ns)
        insort(self._pending, _Pending(frame, now_ns))

    def _is_stray(self, stamp: int, now_ns: int) -> bool:
        """Tell whether a stamp lies a clock jump away from where the cameras are."""
        known = self._live(now_ns) or self._newest.keys()
        if not known:
            return False
        reached = self._reached(known)
        return stamp < reached - self.jump_back_ns or stamp > reached + self.jump_ahead_ns

    def _push_stray(self, frame: Frame, now_ns: int) -> PushResult:
        """Keep a frame aside; where most cameras that deliver have followed, begin anew there."""
        self._strays[frame.camera].append(frame)
        there = {camera: kept for camera, kept in self._strays.items()
                 if kept and abs(kept[-1].stamp_ns - frame.stamp_ns) <= self.jump_ahead_ns}
        if len(there) <= len(self._live(now_ns) - there.keys()):
            return PushResult.STRAY
        return self._begin_anew([kept for frames in there.values() for kept in frames], frame,
                                now_ns)

    def _push_late(self, frame: Frame, now_ns: int) -> PushResult:
        """Keep a frame that is behind its own camera's; begin anew where most cameras are."""
        behind = self._behind[frame.camera]
        if behind and frame.stamp_ns <= behind[-1].stamp_ns:
            behind.clear()
        behind.append(frame)
        back = {camera: kept for camera, kept in self._behind.items() if len(kept) > 1}
        if len(back) <= len(self._live(now_ns) - back.keys()):
            return PushResult.LATE
        return self._begin_anew([kept for frames in self._behind.values() for kept in frames],
                                frame, now_ns)

    def _begin_anew(self, frames: Iterable[Frame], where: Frame, now_ns: int) -> PushResult:
        """Flush, and take those of some frames that are near the one that told of a jump."""
        self.flush()
        for kept in sorted(frames, key=lambda kept: kept.stamp_ns):
            if (abs(kept.stamp_ns - where.stamp_ns) <= self.jump_ahead_ns
                    and kept.stamp_ns not in self._seen[kept.camera]):
                self._newest[kept.camera] = kept.stamp_ns
                self._arrived[kept.camera] = now_ns
                self._add(kept, now_ns)
        self._close(now_ns)
        return PushResult.STAMP_JUMP

    def _return(self, camera: str) -> None:
        """Forget where a camera was whose own clock was ahead and is with the others again."""
        self._pending = [item for item in self._pending if item.frame.camera != camera]
        self._seen[camera].clear()
        del self._newest[camera]

    def _live(self, now_ns: int) -> set[str]:
        """Return the cameras that deliver frames at the time of the window."""
        return {camera for camera, at in self._arrived.items() if now_ns - at <= LIVE_NS}

    def _reached(self, cameras: Iterable[str]) -> int:
        """Return the newest stamp that half of these cameras (one at least) have come to."""
        stamps = sorted((self._newest[camera] for camera in cameras), reverse=True)
        return stamps[(len(stamps) - 1) // 2]

    def ready(self, now_ns: int) -> list[FrameSet]:
        """Return the sets that are complete at `now_ns` and were not returned yet."""
        self._close(now_ns)
        out = list(self._ready)
        self._ready.clear()
        return out

    def flush(self) -> None:
        """End the window: what waits is closed as it is, and the next frame begins anew."""
        while self._pending:
            self._emit(self._cluster())
        for cluster in self._thinning.release():
            self._deliver(cluster)
        self._forget()
        self.flushes += 1

    def _close(self, now_ns: int) -> None:
        """Emit clusters, oldest first, up to the first one that may still grow."""
        while self._pending:
            cluster = self._cluster()
            if not self._complete(cluster, now_ns):
                break
            self._emit(cluster)
        held = self._thinning.held
        if held and now_ns - held.arrival_ns > self.deadline_ns + SLOT_NS:
            for cluster in self._thinning.release():
                self._deliver(cluster)

    def _cluster(self) -> _Cluster:
        """Return the oldest cluster: the first pending frame and what lies in its tolerance."""
        period_ns = self._thinning.camera_period_ns
        tolerance_ns = self.tolerance_ns
        if period_ns is not None:
            tolerance_ns = min(tolerance_ns, int(SHARE_OF_PERIOD * period_ns))
        end_ns = self._pending[0].frame.stamp_ns + tolerance_ns
        frames: dict[str, _Pending] = {}
        for item in self._pending:
            if item.frame.stamp_ns > end_ns:
                break
            frames.setdefault(item.frame.camera, item)
        return _Cluster(frames, end_ns)

    def _complete(self, cluster: _Cluster, now_ns: int) -> bool:
        missing = [camera for camera in self.cameras if camera not in cluster.frames]
        if all(self._newest.get(camera, cluster.end_ns) > cluster.end_ns for camera in missing):
            return True
        live = self._live(now_ns)
        reached = self._reached(live or self._newest)
        if reached > cluster.end_ns + self.deadline_ns:
            return True
        # Counted from when half of the cameras came to it: one whose clock is ahead must not close
        # a time that the others are yet to come to.
        arrivals = sorted(item.arrival_ns for item in cluster.frames.values())
        half = min(len(arrivals) - 1, max(0, len(live) - 1) // 2)
        return (now_ns - arrivals[half] >= self.deadline_ns
                and (not live or reached >= cluster.first_ns))

    def _emit(self, cluster: _Cluster) -> None:
        """Take a cluster out of the pending frames, close its time and thin out."""
        taken = {id(item) for item in cluster.frames.values()}
        self._pending = [item for item in self._pending if id(item) not in taken]
        for camera in self.cameras:
            item = cluster.frames.get(camera)
            self._closed[camera] = item.frame.stamp_ns if item else cluster.end_ns
        self.formed += 1
        whole = len(cluster.frames) == len(self.cameras)
        for used in self._thinning.push(cluster, whole):
            self._deliver(used)

    def _deliver(self, cluster: _Cluster) -> None:
        stamp, skipped = cluster.newest_ns, 0
        if self._last_ns is not None:
            if stamp <= self._last_ns:  # an older set closed late; the model's time only goes on
                self.overtaken += 1
                return
            interval = stamp - self._last_ns
            # One set a slot is uneven (50 to 150 ms at 20 Hz) around a period that is known.
            period = SLOT_NS if self._thinning.fast else period_of(self._intervals)
            skipped = skipped_between(interval, period)
            self._intervals.append(interval)
        self._last_ns = stamp
        frames = {camera: cluster.frames[camera].frame
                  for camera in self.cameras if camera in cluster.frames}
        if len(self._ready) >= self._max_ready:
            self._ready.popleft()
            self.overruns += 1
        self.used += 1
        self.skipped += skipped
        self._ready.append(FrameSet(stamp, frames, skipped))
