"""
The inference thread: every camera set is encoded, the newest is forecast, nothing queues up.

Under overload forecasts are shed before encodes, because a window lives from its encoded frames:
while another set waits, the one at hand is encoded but not forecast, seven times in a row at most
(one set lost in eight leaves 14 of 16, which is valid). A short stall may leave a few sets
waiting; where that does not help, only the newest one waits and replaces the one before it, so
that what is forecast is never older than one period and the inference itself. All is counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from wm_ros.image import ImageError
from wm_ros.ros.convert import decoded
from wm_ros.types import EgoPlan, EgoState, Forecast, FrameSet

#: Sets that may wait for their encoding after a stall, before the older ones are given up.
MAX_WAITING = 3
#: Forecasts that may be shed one after another.
MAX_SHED_IN_A_ROW = 7


class CorePredictor(Protocol):
    """What the worker calls of `wm_ros.predictor.Predictor`."""

    def encode(self, frames: FrameSet, ego: EgoState | None) -> Any: ...

    def forecast(self, plan: EgoPlan | None = None) -> Forecast: ...


@dataclass(frozen=True)
class Job:
    """One camera set with the ego state at its stamp and the plan that was given for it."""

    frames: FrameSet
    ego: EgoState | None
    plan: EgoPlan | None
    ready_ns: int       # steady clock: when the set was complete


@dataclass(frozen=True)
class Timing:
    """Milliseconds that one forecast spent in the worker, beside the predictor's own stages."""

    wait: float
    encode: float
    forecast: float


@dataclass
class Counters:
    """What the worker did since it began."""

    encoded: int = 0
    forecasts: int = 0
    shed_forecasts: int = 0
    shed_encodes: int = 0
    failures: int = 0


@dataclass
class _Inbox:
    jobs: deque[Job | Callable[[], None]] = field(default_factory=deque)
    waiting: int = 0
    behind: bool = False     # only the newest set waits
    stopping: bool = False


class Worker:
    """
    Runs a predictor in one thread, to which sets and commands come in order.

    `publish(forecast, job, timing)` is called in that thread for each forecast made;
    `refused(camera, error)` for an image that could not be read; `failed(error)` for anything
    else that was raised. None of them ends the thread.
    """

    def __init__(self, predictor: CorePredictor, clock_ns: Callable[[], int],
                 publish: Callable[[Forecast, Job, Timing], None],
                 refused: Callable[[str, ImageError], None],
                 failed: Callable[[BaseException], None]) -> None:
        self.counters = Counters()
        self._predictor = predictor
        self._clock_ns = clock_ns
        self._publish = publish
        self._refused = refused
        self._failed = failed
        self._inbox = _Inbox()
        self._changed = threading.Condition()
        self._left = False
        self._shed_in_a_row = 0
        self._thread = threading.Thread(target=self._run, name='wm_ros inference', daemon=True)

    def start(self) -> None:
        """Start the thread; once only."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a set; where too many wait, the older ones are dropped and counted."""
        with self._changed:
            self._inbox.jobs.append(job)
            self._inbox.waiting += 1
            if self._inbox.waiting > (1 if self._inbox.behind else MAX_WAITING):
                self._fall_behind()
            self._changed.notify()

    def call(self, command: Callable[[], None]) -> None:
        """Run `command` in the thread, after the sets that wait already."""
        with self._changed:
            self._inbox.jobs.append(command)
            self._changed.notify()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; return False where it does not in time."""
        with self._changed:
            self._inbox.stopping = True
            self._changed.notify()
        if self._thread.is_alive() and not self._left:
            self._thread.join(timeout_s)
        self._left = self._thread.is_alive()   # waited for once, not again
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Return the number of sets that wait."""
        return self._inbox.waiting

    def _fall_behind(self) -> None:
        """Drop the sets that wait, except for the newest."""
        self._inbox.behind = True
        if self._inbox.waiting < 2:
            return
        newest = next(entry for entry in reversed(self._inbox.jobs) if isinstance(entry, Job))
        self.counters.shed_encodes += self._inbox.waiting - 1
        # Commands keep their place: a flush that came after the set must not run before it.
        self._inbox.jobs = deque(entry for entry in self._inbox.jobs
                                 if entry is newest or not isinstance(entry, Job))
        self._inbox.waiting = 1

    def _next(self) -> Job | Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._inbox.stopping or self._inbox.jobs)
            if self._inbox.stopping:
                return None
            entry = self._inbox.jobs.popleft()
            if isinstance(entry, Job):
                self._inbox.waiting -= 1
            return entry

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                if isinstance(entry, Job):
                    self._work(entry)
                else:
                    entry()
            except Exception as err:  # a fault of one set must not end the thread
                self.counters.failures += 1
                self._failed(err)

    def _work(self, job: Job) -> None:
        begin_ns = self._clock_ns()
        frames, errors = decoded(job.frames)
        for camera, error in errors.items():
            self._refused(camera, error)
        self._predictor.encode(frames, job.ego)
        self.counters.encoded += 1
        if self._inbox.stopping or self._shed():
            return
        encoded_ns = self._clock_ns()
        forecast = self._predictor.forecast(job.plan)
        self.counters.forecasts += 1
        done_ns = self._clock_ns()
        if self._inbox.stopping:
            return
        self._publish(forecast, job, Timing(
            wait=(begin_ns - job.ready_ns) / 1e6, encode=(encoded_ns - begin_ns) / 1e6,
            forecast=(done_ns - encoded_ns) / 1e6))

    def _shed(self) -> bool:
        """Decide whether the forecast of the set just encoded gives way to a set that waits."""
        with self._changed:
            if not self._inbox.waiting:
                self._inbox.behind = False
            elif self._shed_in_a_row < MAX_SHED_IN_A_ROW:
                self._shed_in_a_row += 1
                self.counters.shed_forecasts += 1
                return True
            else:
                self._fall_behind()
            self._shed_in_a_row = 0
            return False
