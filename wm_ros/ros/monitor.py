"""
What the node knows about its own health: counters, rates, ages, latencies. No ROS in here.

Liveness is judged on the steady clock that callers pass in, so it works whatever time the stamps
are in and whether that time runs.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from wm_ros.types import CameraState

#: A camera is missing after this many periods without an image: in time to report within two.
SILENT_PERIODS = 1.75
#: Before its first image a camera may take this long after activation.
START_NS = 2_000_000_000
#: A problem with an input is told for this long after it was seen, so that a report catches it.
PROBLEM_NS = 2_000_000_000


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass
class Problem:
    """The last thing that was wrong with one input, and until when it is worth telling."""

    text: str = ''
    level: Level = Level.OK
    until_ns: int = 0


@dataclass
class CameraMonitor:
    """Arrivals of one camera; `now_ns` and all times are of the steady clock."""

    name: str
    since_ns: int
    counts: Counter[str] = field(default_factory=Counter)
    arrivals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    uncalibrated: str = 'no CameraInfo yet'   # why the camera cannot be used, empty when it can
    state: CameraState = CameraState.OK       # in the newest set
    problem: Problem = field(default_factory=Problem)

    def arrived(self, now_ns: int) -> None:
        """Note an image, good or bad."""
        self.counts['received'] += 1
        self.arrivals_ns.append(now_ns)

    def refused(self, text: str, now_ns: int) -> None:
        """Note an image that cannot be used."""
        self.counts['refused'] += 1
        self.problem = Problem(text, Level.ERROR, now_ns + PROBLEM_NS)

    def rate_hz(self, now_ns: int) -> float:
        """Return images a second over the last two seconds."""
        recent = [at for at in self.arrivals_ns if now_ns - at <= 2_000_000_000]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) * 1e9 / max(recent[-1] - recent[0], 1)

    def age_ms(self, now_ns: int) -> float | None:
        """Return the time since the last image, None before the first."""
        return (now_ns - self.arrivals_ns[-1]) / 1e6 if self.arrivals_ns else None

    def silent(self, now_ns: int, period_ns: int) -> bool:
        """Tell whether an image is overdue."""
        if not self.arrivals_ns:
            return now_ns - self.since_ns > START_NS
        return now_ns - self.arrivals_ns[-1] > SILENT_PERIODS * period_ns

    def judge(self, now_ns: int, period_ns: int) -> tuple[Level, str]:
        """Return level and message, the gravest first."""
        if self.silent(now_ns, period_ns):
            age = self.age_ms(now_ns)
            return Level.ERROR, ('no image yet' if age is None
                                 else f'no image: more than {SILENT_PERIODS} periods late')
        if self.uncalibrated:
            return Level.ERROR, self.uncalibrated
        level, text = self._of_pictures()
        if now_ns < self.problem.until_ns and self.problem.level >= level:
            return self.problem.level, self.problem.text
        return level, text

    def _of_pictures(self) -> tuple[Level, str]:
        """Return level and message of what the newest set made of the camera."""
        if not self.arrivals_ns:
            return Level.WARN, 'waiting for the first image'
        if self.state in (CameraState.BLACK, CameraState.OVEREXPOSED, CameraState.FROZEN):
            return Level.WARN, f'image is {self.state.name.lower()}'
        if self.state != CameraState.OK:
            return Level.ERROR, f'image is {self.state.name.lower()}'
        return Level.OK, 'ok'


class Latencies:
    """Milliseconds by stage since the last report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, deque[float]] = {}

    def add(self, **stages_ms: float) -> None:
        """Note one duration a stage."""
        with self._lock:
            for stage, value in stages_ms.items():
                self._values.setdefault(stage, deque(maxlen=1000)).append(value)

    def take(self) -> dict[str, tuple[float, float, float]]:
        """Return p50, p95 and maximum by stage of what came since the last call."""
        with self._lock:
            values, self._values = self._values, {}
        return {stage: (float(np.percentile(found, 50)), float(np.percentile(found, 95)),
                        float(max(found))) for stage, found in values.items()}
