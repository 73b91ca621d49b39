"""Pictures of the next set decoded while the model is busy with the one at hand."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

from wm_ros.predictor import EncodeInfo, Predictor
from wm_ros.types import EgoPlan, EgoState, Forecast, Frame, FrameSet

#: Pictures of one camera on their way: those of the set at hand and of the next one. A predictor
#: keeps no more.
ON_THE_WAY = 2


class EarlyDecoding:
    """
    A predictor that is told of frames by the thread that reads them.

    Stands in for the predictor in `wm_ros.replay.Replay`; `offered` runs in the reading thread.
    What is decoded early is the same to the byte.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._lock = threading.Lock()
        self._stamps: dict[str, list[int]] = {}

    def offered(self, values: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Pass values on and have those decoded early that soon come in a set."""
        for time_ns, value in values:
            if isinstance(value, Frame) and self._takes(value):
                self._predictor.prepare(value)
            yield time_ns, value

    def _takes(self, frame: Frame) -> bool:
        with self._lock:
            stamps = self._stamps.setdefault(frame.camera, [])
            if stamps and frame.stamp_ns <= stamps[-1]:     # a clock that went back
                stamps.clear()
            if len(stamps) >= ON_THE_WAY:
                return False
            stamps.append(frame.stamp_ns)
            return True

    def encode(self, frame_set: FrameSet, ego: EgoState | None) -> EncodeInfo:
        """Encode a set; its pictures, and older ones, are no more on the way."""
        info = self._predictor.encode(frame_set, ego)
        with self._lock:
            for stamps in self._stamps.values():
                stamps[:] = [stamp for stamp in stamps if stamp > frame_set.stamp_ns]
        return info

    def forecast(self, plan: EgoPlan | None = None,
                 following: tuple[FrameSet, EgoState | None] | None = None) -> Forecast:
        """Forecast from the window, as the predictor does."""
        return self._predictor.forecast(plan, following)
