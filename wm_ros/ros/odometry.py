"""What the node hears of the ego vehicle's motion, whether it comes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wm_ros.ego import EgoHistory, EgoPush
from wm_ros.messages import ego_state_from_odometry
from wm_ros.ros.diagnostics import status
from wm_ros.ros.monitor import PROBLEM_NS, Level, Problem
from wm_ros.types import EgoState

#: Odometry that is silent for this long is not waited for.
SILENT_NS = 500_000_000
#: Before the first of it has come, pictures may be older than any by this much: their latency.
FIRST_NS = 1_000_000_000


class OdometryMonitor:
    """
    Keeps the odometry of the last seconds, and when the last of it came.

    `wanted` is the node's parameter: required, optional or ignore; `frame` is that of the poses,
    until a message names it, `body` what they are to be poses of. Times are of the steady clock;
    those called awake leave out pauses of the process.
    """

    def __init__(self, wanted: str, frame: str, body: str) -> None:
        self.history = EgoHistory()
        self.frame = self._default_frame = frame
        self._named = ''        # by the messages so far
        self._body = body
        self._wanted = wanted
        self._came_ns: int | None = None
        self._came_awake_ns = 0
        self._problem = Problem()
        self._apart = ''        # how the newest set lacks what comes, if it does

    def take(self, messages: Sequence[Any], now_ns: int, awake_ns: int) -> bool:
        """Take some nav_msgs/Odometry, oldest first; tell whether any is of use."""
        if not any([self._take(msg, now_ns) for msg in messages]):
            return False
        self._came_ns, self._came_awake_ns = now_ns, awake_ns
        return True

    def _take(self, msg: Any, now_ns: int) -> bool:
        try:
            state = ego_state_from_odometry(msg)
        except ValueError as err:
            self._problem = Problem(str(err), Level.ERROR, now_ns + PROBLEM_NS)
            return False
        frame, body = msg.header.frame_id or self._default_frame, msg.child_frame_id
        if self._named and frame != self._named:    # poses in two frames are no path
            self.history.clear()
            self._problem = Problem(f'odometry: in {frame} after {self._named}, want one frame: '
                                    'the samples before are dropped', Level.ERROR,
                                    now_ns + PROBLEM_NS)
        elif body and body != self._body:
            self._problem = Problem(f'odometry: of {body}, want {self._body} (base_frame); its '
                                    'poses are taken for those', Level.WARN, now_ns + PROBLEM_NS)
        if self.history.push(state) is EgoPush.REFUSED:
            self._problem = Problem(
                f'odometry: pose {list(state.odom_from_base)}, speed {state.speed_mps:g} m/s, yaw '
                f'rate {state.yaw_rate_rps:g} rad/s: beyond physical bounds', Level.ERROR,
                now_ns + PROBLEM_NS)
            return False
        self.frame = self._named = frame
        return True

    @property
    def _lacking(self) -> Level:
        return Level.ERROR if self._wanted == 'required' else Level.WARN

    @property
    def awaited(self) -> bool:
        """Whether it is wanted and has never come."""
        return self._wanted != 'ignore' and self._came_ns is None

    def pending(self, stamp_ns: int, awake_ns: int) -> bool:
        """Tell whether what belongs to a stamp is yet to come, as far as anybody can say."""
        return self._comes(awake_ns) and not self.history.settled(stamp_ns)

    def at(self, stamp_ns: int, awake_ns: int) -> EgoState | None:
        """Return the ego state of a set's stamp; note where all that comes is of another time."""
        ego, newest = self.history.at(stamp_ns), self.history.newest_ns
        self._apart = ''
        if ego is None and newest is not None and self._comes(awake_ns):
            seconds = (newest - stamp_ns) / 1e9
            if newest < stamp_ns or newest - stamp_ns > FIRST_NS:
                self._apart = (f'odometry: its newest stamp is {abs(seconds):.1f} s '
                               f'{"behind" if seconds < 0 else "ahead of"} the pictures')
        return ego

    def _comes(self, awake_ns: int) -> bool:
        return self._came_ns is not None and awake_ns - self._came_awake_ns < SILENT_NS

    def status(self, now_ns: int) -> Any:
        """Return its diagnostic status."""
        level, text = Level.OK, 'ok'
        if self._wanted == 'ignore':
            text = 'ignored by parameter'
        elif now_ns < self._problem.until_ns:
            level, text = self._problem.level, self._problem.text
        elif self._came_ns is None or now_ns - self._came_ns > SILENT_NS:
            level, text = self._lacking, 'no odometry: the trained mask stands in for it'
        elif self._apart:
            level, text = self._lacking, self._apart
        return status('odometry', level, text, {'frame': self.frame})
