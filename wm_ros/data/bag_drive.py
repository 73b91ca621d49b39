"""A recorded bag as camera sets, ego states and truth: what `wm_ros evaluate` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wm_ros.data.bag import TRUTH_TOPIC, BagError, BagReader
from wm_ros.data.samples import Sample
from wm_ros.data.truth import truth_from_message
from wm_ros.ego import EgoHistory
from wm_ros.messages import ego_state_from_odometry, stamp_ns
from wm_ros.timed_plan import TimedPlan, plan_of
from wm_ros.types import CameraRig, EgoState, Frame, FrameSet, Truth
from wm_ros.window import FrameBuffer


class BagDrive:
    """
    One bag with pictures, CameraInfo, /tf_static, odometry and /truth/agents.

    Raises BagError where one of them is missing.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name
        with BagReader(path) as reader:
            if TRUTH_TOPIC not in reader.topics:
                raise BagError(f'{path}: no {TRUTH_TOPIC}, want the truth to score against; '
                               f'topics: {", ".join(reader.topics) or "none"}')
            self.rig: CameraRig = reader.rig()

    def samples(self, every: int = 1, first: int = 0) -> Iterator[Sample]:
        """
        Yield all camera sets, formed by their stamps as the node forms them.

        Sets numbered first, first + every, ... carry their truth, where there is one of their
        stamp. The ego vehicle's plan is the one recorded last before a set, if the bag holds any.
        """
        with BagReader(self.path) as reader:
            truths = {stamp_ns(msg.header): msg for _, _, msg in reader.read([TRUTH_TOPIC])}
            states = self._odometry(reader)
            history = EgoHistory()
            frame = reader.odometry_frame()
            for i, (frames, given) in enumerate(self._sets(reader)):
                while states and states[0].stamp_ns <= frames.stamp_ns:
                    history.push(states.pop(0))
                scored = i >= first and (i - first) % every == 0
                msg = truths.get(frames.stamp_ns) if scored else None
                truth: Truth | None = None if msg is None else truth_from_message(msg)
                ego = history.at(frames.stamp_ns)
                yield Sample(frames, ego, truth, plan_of(given, ego, history, frame))

    def _sets(self, reader: BagReader) -> Iterator[tuple[FrameSet, TimedPlan | None]]:
        buffer, plan = FrameBuffer(self.rig.names), None
        for time_ns, value in reader.values(self.rig.names):
            if isinstance(value, TimedPlan):
                plan = value
            elif isinstance(value, Frame):
                buffer.push(value, time_ns)
                yield from ((frames, plan) for frames in buffer.ready(time_ns))
        buffer.flush()
        yield from ((frames, plan) for frames in buffer.ready(0))

    @staticmethod
    def _odometry(reader: BagReader) -> list[EgoState]:
        topic, states = reader.odometry_topic(), []
        for name, kind, time_ns, data in reader.raw([topic] if topic else []):
            try:
                states.append(ego_state_from_odometry(reader.decode(name, kind, time_ns, data)))
            except (BagError, ValueError):
                continue        # as in the node: what is no pose is left out
        return sorted(states, key=lambda state: state.stamp_ns)
