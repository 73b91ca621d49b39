"""
The deterministic offline run: bag -> frame buffer -> predictor -> forecasts.

Time is that of the bag, so the outcome does not depend on the machine. Bags stream through: a long
one needs no more memory than a short one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from wm_ros.data.bag import AGENTS, BagWriter
from wm_ros.data.messages import bag_types
from wm_ros.ego import EgoHistory, EgoPush
from wm_ros.faults import Faults
from wm_ros.messages import (
    FrameOfReference,
    agents_cdr,
    flow_message,
    grid_message,
    occupancy_message,
)
from wm_ros.timed_plan import TimedPlan, plan_of
from wm_ros.types import CameraState, EgoPlan, EgoState, Forecast, Frame, FrameSet
from wm_ros.window import FrameBuffer, PushResult

#: A complete set waits this long, in the bag's time, for odometry that reaches its stamp.
ODOMETRY_WAIT_NS = 200_000_000
#: What outcomes of a frame say about a topic's stamps.
_STAMP_FAULTS = {
    PushResult.STAMP_JUMP: 'its stamps jump, and the window begins anew',
    PushResult.STRAY: 'stamps far from those of the other cameras',
    PushResult.LATE: 'stamps that go back: older than sets that are closed',
    PushResult.DUPLICATE: 'a stamp that was there before'}


class CorePredictor(Protocol):
    """What a replay calls of `wm_ros.predictor.Predictor`."""

    def encode(self, frame_set: FrameSet, ego: EgoState | None) -> Any: ...

    def forecast(self, plan: EgoPlan | None = None,
                 following: tuple[FrameSet, EgoState | None] | None = None) -> Forecast: ...


@dataclass
class Counts:
    """
    What a replay met: frames taken, what was refused (by reason), sets, forecasts.

    `planned` forecasts are for a plan that the bag gives.
    """

    frames: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    sets: int = 0
    partial_sets: int = 0
    forecasts: int = 0
    valid: int = 0
    planned: int = 0


class Replay:
    """
    Runs frames, ego states and ego plans, in the order of a bag, through one predictor.

    `buffer` holds the cameras of the predictor's rig. The window is that of the node: sets are
    built from stamps alone, and the ego state of a set is the one that `EgoHistory` gives for its
    stamp. `odometry` tells whether the bag has any: a set then waits for it. The plan of a set is
    the last one recorded before it goes on, in `odom_frame` or `base_frame`; one that does not fit
    is not used. `faults` collects what was wrong, by topic.
    """

    def __init__(self, predictor: CorePredictor, buffer: FrameBuffer, odometry: bool = True,
                 faults: Faults | None = None, base_frame: str = 'base_link',
                 odom_frame: str = 'odom') -> None:
        self.counts = Counts()
        self.faults = Faults() if faults is None else faults
        #: The time of the bag up to which values came.
        self.now_ns = 0
        self._known_ns: int | None = None
        self._before_first: Callable[[], None] | None = None
        self._odometry = odometry
        self._frames = {'base_frame': base_frame, 'odom_frame': odom_frame}
        self._given: TimedPlan | None = None
        self._plan: EgoPlan | None = None       # of the set that was encoded last
        self._predictor = predictor
        self._buffer = buffer
        self._history = EgoHistory()
        self._waiting: deque[FrameSet] = deque()
        self._wanted = False        # whether the set that was encoded last awaits its forecast

    def run(self, values: Iterable[tuple[int, Frame | EgoState | TimedPlan]],
            known_ns: int | None = None,
            before_first: Callable[[], None] | None = None) -> Iterator[Forecast]:
        """
        Yield one forecast a camera set, as `BagReader.values` feeds it.

        A set is forecast as soon as the next one is known, whose fold can begin meanwhile, and
        before that is encoded. Sets up to the stamp `known_ns` are encoded alone: their forecasts
        are known. `before_first` is called before the first forecast.
        """
        self._known_ns, self._before_first = known_ns, before_first
        for now_ns, value in values:
            self.now_ns = now_ns
            if isinstance(value, EgoState):
                self._push_ego(value, now_ns)
            elif isinstance(value, TimedPlan):
                self._given = value
            else:
                self._push(value, now_ns)
            self._waiting.extend(self._buffer.ready(now_ns))
            yield from self._forecasts(now_ns)
        self._buffer.flush()
        self._waiting.extend(self._buffer.ready(self.now_ns))
        yield from self._forecasts(None)

    def _forecasts(self, now_ns: int | None) -> Iterator[Forecast]:
        for frames, ego in self._due(now_ns):
            if self._wanted:
                yield self._forecast((frames, ego))
            self._wanted = self._encode(frames, ego)
            self._plan = plan_of(self._given, ego, self._history, **self._frames)
        if now_ns is None and self._wanted:
            self._wanted = False
            yield self._forecast(None)

    def _forecast(self, following: tuple[FrameSet, EgoState | None] | None) -> Forecast:
        if self._before_first is not None:
            self._before_first()
            self._before_first = None
        forecast = self._predictor.forecast(self._plan, following)
        self.counts.forecasts += 1
        self.counts.planned += self._plan is not None
        self.counts.valid += forecast.valid
        return forecast

    def _push_ego(self, state: EgoState, now_ns: int) -> None:
        self.faults.saw('odometry', state.stamp_ns)
        result = self._history.push(state)
        if result is EgoPush.REFUSED:
            self._count_refused('odometry')
        elif result is EgoPush.STAMP_JUMP:
            self.faults.add('odometry', 'its stamps go back', now_ns)

    def _push(self, frame: Frame, now_ns: int) -> None:
        result = self._buffer.push(frame, now_ns)
        self.faults.saw(frame.camera, frame.stamp_ns)
        self.counts.frames += result.accepted
        if not result.accepted:
            self._count_refused(result.name.lower())
        elif isinstance(frame.image, ValueError):
            self._count_refused('bad_image')
        if result in _STAMP_FAULTS:
            self.faults.add(frame.camera, _STAMP_FAULTS[result], now_ns)

    def _count_refused(self, reason: str) -> None:
        self.counts.refused[reason] = self.counts.refused.get(reason, 0) + 1

    def _due(self, now_ns: int | None) -> Iterator[tuple[FrameSet, EgoState | None]]:
        """Yield the sets whose odometry has come or will not come; all of them at the end."""
        while self._waiting:
            frames = self._waiting[0]
            waits = (self._odometry and now_ns is not None
                     and now_ns - frames.stamp_ns < ODOMETRY_WAIT_NS)
            if waits and not self._history.settled(frames.stamp_ns):
                return
            yield self._waiting.popleft(), self._history.at(frames.stamp_ns)

    def _encode(self, frames: FrameSet, ego: EgoState | None) -> bool:
        """Encode a set; tell whether its forecast is wanted."""
        info = self._predictor.encode(frames, ego)
        if self._known_ns is not None and frames.stamp_ns <= self._known_ns:
            return False
        for name, state in info.cameras.items():
            if state is CameraState.CORRUPT:
                self.faults.add(name, _problem_of(name, info.problems), frames.stamp_ns)
        self.counts.sets += 1
        self.counts.partial_sets += len(frames.frames) < len(self._buffer.cameras)
        return True


def _problem_of(camera: str, problems: tuple[str, ...]) -> str:
    """Return what `EncodeInfo.problems` says about one camera."""
    start = f'camera {camera}: '
    return next((text.removeprefix(start) for text in problems if text.startswith(start)),
                'a picture that cannot be used')


class ForecastWriter:
    """Writes forecasts into a bag as the node's own messages, under the node's topics."""

    def __init__(self, writer: BagWriter, node: str = '/world_model', flow: bool = True,
                 grids: bool = True, base_frame: str = 'base_link',
                 odom_frame: str = 'odom') -> None:
        self._writer = writer
        self._node = node.rstrip('/')
        self._flow = flow
        self._grids = grids
        self._frame = FrameOfReference(base_frame)
        self._odom_frame = odom_frame

    def write(self, forecast: Forecast) -> None:
        """Write all messages of one forecast at its stamp."""
        types, stamp, frame = bag_types(), forecast.stamp_ns, self._frame
        self._writer.write_raw(f'{self._node}/agents', AGENTS, stamp,
                               agents_cdr(types, forecast, frame, self._odom_frame))
        messages = {
            'occupancy': occupancy_message(types, forecast, frame, self._odom_frame)}
        if self._flow:
            messages['flow'] = flow_message(types, forecast, frame, self._odom_frame)
        if self._grids and forecast.valid:      # as the node: a grid cannot say that it is invalid
            messages['occupancy_grid'] = grid_message(types, forecast, horizon=False, frame=frame)
            messages['risk_grid'] = grid_message(types, forecast, horizon=True, frame=frame)
        for name, message in messages.items():
            self._writer.write(f'{self._node}/{name}', stamp, message)
