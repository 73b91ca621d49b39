"""From JPEG messages to a forecast, as the node does it, with the time of every stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_ros.bench.drive import CameraDrive
from wm_ros.predictor import Predictor, PredictorSettings
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import Backend
from wm_ros.types import WINDOW_FRAMES, EgoPlan, Forecast
from wm_ros.window import FrameBuffer

#: Stages by the names of the report, each with the predictor's names of what it is made of.
STAGES = {'jpeg_decode': ('decode',), 'resize': ('resize',), 'encode': ('lift', 'encode'),
          'fold': ('fold',), 'dynamics': ('rollout',), 'decode': ('parse',)}
#: What the report adds: matching by stamp and the ring of features; messages.
WINDOW, PUBLISH = 'window', 'publish'

Publish = Callable[[Forecast], Any]


@dataclass
class Times:
    """Milliseconds of every measured frame: from the last JPEG to the forecast, and by stage."""

    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    def add(self, total: float, stages: Mapping[str, float]) -> None:
        self.total.append(total)
        for name, value in stages.items():
            self.stages.setdefault(name, []).append(value)

    def latency(self) -> dict[str, float]:
        """Return p50, p95 and p99 in milliseconds."""
        return percentiles(self.total)

    def by_stage(self) -> dict[str, dict[str, float]]:
        return {name: percentiles(values) for name, values in self.stages.items()}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of some numbers."""
    return {f'p{q}': round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


class System:
    """
    One backend with its predictor and frame buffer, fed set by set from an endless drive.

    `publish(forecast)` is what follows the forecast in the node, and not part of its latency.
    """

    def __init__(self, artifact: Artifact, backend: Backend, drive: CameraDrive, plans: int = 1,
                 publish: Publish | None = None) -> None:
        self._drive = drive
        self._publish = publish
        self._predictor = Predictor(artifact, backend, drive.rig, PredictorSettings(), plans,
                                    time.perf_counter_ns)
        self._buffer = FrameBuffer(drive.rig.names)
        self._next = 0

    def fill(self) -> None:
        """Fill the window, and warm up what it touches."""
        for _ in range(WINDOW_FRAMES):
            forecast, _, _ = self.step()
        if not forecast.valid:
            raise RuntimeError('the forecasts to be measured are not valid: '
                               + '; '.join(forecast.reasons))

    def step(self, plans: Sequence[EgoPlan] = (),
             apart_s: float = 0.0) -> tuple[Forecast, float, dict[str, float]]:
        """
        Run one set, as the node does: pictures are decoded as they come, the rest follows the last.

        They come `apart_s` seconds apart; all at once is the worst case for the latency. Returns a
        forecast, the milliseconds from the last picture to it, and those of each stage. `plans`
        are candidates to be forecast instead of the vehicle's own.
        """
        frames, ego = self._drive.at(self._next)
        self._next += 1
        begin = time.perf_counter_ns()
        for number, frame in enumerate(frames.frames.values()):
            if apart_s and number:
                time.sleep(apart_s)
                begin = time.perf_counter_ns()
            self._buffer.push(frame, frames.stamp_ns)
            self._predictor.prepare(frame)
        ready, = self._buffer.ready(frames.stamp_ns)
        self._predictor.encode(ready, ego)
        forecast = (self._predictor.forecast_plans(plans)[-1] if plans
                    else self._predictor.forecast())
        total = (time.perf_counter_ns() - begin) / 1e6
        stages = {name: sum(forecast.stages_ms.get(part, 0.0) for part in parts)
                  for name, parts in STAGES.items()}
        stages[WINDOW] = max(0.0, total - sum(stages.values()))
        if self._publish:
            begin = time.perf_counter_ns()
            self._publish(forecast)
            stages[PUBLISH] = (time.perf_counter_ns() - begin) / 1e6
        return forecast, total, stages

    def measure(self, frames: int, into: Times, plans: Sequence[EgoPlan] = (),
                apart_s: float = 0.0) -> None:
        """Run so many sets and note their times."""
        for _ in range(frames):
            _, total, stages = self.step(plans, apart_s)
            into.add(total, stages)

    def close(self) -> None:
        """Join the decoding threads; the backend stays with its owner."""
        self._predictor.close()


def measure_beside(systems: Mapping[str, System], frames: int, block: int = 5) -> dict[str, Times]:
    """
    Measure several systems in turns of a few frames, so that they meet the same machine.

    The first frame of a turn, whose caches the one before has filled, is not counted.
    """
    found = {name: Times() for name in systems}
    for _ in range(max(1, round(frames / block))):
        for name, system in systems.items():
            system.step()
            system.measure(block, found[name])
    return found
