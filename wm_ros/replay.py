"""
The deterministic offline run: bag -> frame buffer -> predictor -> forecasts.

Time is that of the bag, so the outcome does not depend on the machine. Bags stream through: a long
one needs no more memory than a short one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from wm_ros.data.bag import BagWriter
from wm_ros.data.messages import bag_types
from wm_ros.ego import EgoHistory, EgoPush
from wm_ros.messages import agents_message, flow_message, grid_message, occupancy_message
from wm_ros.types import EgoPlan, EgoState, Forecast, Frame, FrameSet
from wm_ros.window import FrameBuffer

#: A complete set waits this long, in the bag's time, for odometry that reaches its stamp.
ODOMETRY_WAIT_NS = 200_000_000


class CorePredictor(Protocol):
    """What a replay calls of `wm_ros.predictor.Predictor`."""

    def encode(self, frame_set: FrameSet, ego: EgoState | None) -> Any: ...

    def forecast(self, plan: EgoPlan | None = None) -> Forecast: ...


@dataclass
class Counts:
    """What a replay met: frames taken, what was refused (by reason), sets, valid forecasts."""

    frames: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    sets: int = 0
    partial_sets: int = 0
    forecasts: int = 0
    valid: int = 0


class Replay:
    """
    Runs frames and ego states, in the order of a bag, through one predictor.

    `buffer` holds the cameras of the predictor's rig. The window is that of the node: sets are
    built from stamps alone, and the ego state of a set is the one that `EgoHistory` gives for its
    stamp. `odometry` tells whether the bag has any: a set then waits for it.
    """

    def __init__(self, predictor: CorePredictor, buffer: FrameBuffer,
                 odometry: bool = True) -> None:
        self.counts = Counts()
        self._odometry = odometry
        self._predictor = predictor
        self._buffer = buffer
        self._history = EgoHistory()
        self._waiting: deque[FrameSet] = deque()

    def run(self, values: Iterable[tuple[int, Frame | EgoState]]) -> Iterator[Forecast]:
        """Yield one forecast a camera set, as `BagReader.values` feeds it."""
        now_ns = 0
        for now_ns, value in values:
            if isinstance(value, EgoState):
                if self._history.push(value) is EgoPush.REFUSED:
                    self._count_refused('odometry')
            else:
                self._push(value, now_ns)
            self._waiting.extend(self._buffer.ready(now_ns))
            yield from self._due(now_ns)
        self._buffer.flush()
        self._waiting.extend(self._buffer.ready(now_ns))
        yield from self._due(None)

    def _push(self, frame: Frame, now_ns: int) -> None:
        result = self._buffer.push(frame, now_ns)
        self.counts.frames += result.accepted
        if not result.accepted:
            self._count_refused(result.name.lower())
        elif isinstance(frame.image, ValueError):
            self._count_refused('bad_image')

    def _count_refused(self, reason: str) -> None:
        self.counts.refused[reason] = self.counts.refused.get(reason, 0) + 1

    def _due(self, now_ns: int | None) -> Iterator[Forecast]:
        """Forecast the sets whose odometry has come or will not come; all of them at the end."""
        while self._waiting:
            frames = self._waiting[0]
            waits = (self._odometry and now_ns is not None
                     and now_ns - frames.stamp_ns < ODOMETRY_WAIT_NS)
            if waits and not self._history.settled(frames.stamp_ns):
                return
            self._waiting.popleft()
            self._predictor.encode(frames, self._history.at(frames.stamp_ns))
            forecast = self._predictor.forecast()
            self.counts.sets += 1
            self.counts.partial_sets += len(frames.frames) < len(self._buffer.cameras)
            self.counts.forecasts += 1
            self.counts.valid += forecast.valid
            yield forecast


class ForecastWriter:
    """Writes forecasts into a bag as the node's own messages, under the node's topics."""

    def __init__(self, writer: BagWriter, node: str = '/world_model', flow: bool = True,
                 grids: bool = True, odom_frame: str = 'odom') -> None:
        self._writer = writer
        self._node = node.rstrip('/')
        self._flow = flow
        self._grids = grids
        self._odom_frame = odom_frame

    def write(self, forecast: Forecast) -> None:
        """Write all messages of one forecast at its stamp."""
        types, stamp = bag_types(), forecast.stamp_ns
        messages = {
            'agents': agents_message(types, forecast, odom_frame=self._odom_frame),
            'occupancy': occupancy_message(types, forecast, odom_frame=self._odom_frame)}
        if self._flow:
            messages['flow'] = flow_message(types, forecast, odom_frame=self._odom_frame)
        if self._grids and forecast.valid:      # as the node: a grid cannot say that it is invalid
            messages['occupancy_grid'] = grid_message(types, forecast, horizon=False)
            messages['risk_grid'] = grid_message(types, forecast, horizon=True)
        for name, message in messages.items():
            self._writer.write(f'{self._node}/{name}', stamp, message)
