"""
From messages to forecasts: what the node does while it is active, with no ROS entity in it.

Callbacks run in the executor's thread and only check, buffer and hand over; decoding and
inference run in the worker's. The steady clock comes in as `clock_ns`. What a set waits for, it
waits for while callbacks run: a process that stood still has messages to take, and the time until
then is no camera's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from wm_ros.image import ImageError
from wm_ros.messages import stamp_ns
from wm_ros.periods import SLOT_NS
from wm_ros.ros.calibration import Calibration
from wm_ros.ros.convert import frame_from_compressed, frame_from_image
from wm_ros.ros.diagnostics import camera_status, inference_status, window_status
from wm_ros.ros.loading import same_camera
from wm_ros.ros.monitor import PROBLEM_NS, CameraMonitor, Latencies, Level, Problem
from wm_ros.ros.odometry import OdometryMonitor
from wm_ros.ros.parameters import Settings
from wm_ros.ros.worker import Job, Timing, Worker
from wm_ros.timed_plan import PlanError, TimedPlan, plan_from_message
from wm_ros.types import CameraRig, EgoPlan, EgoState, Forecast, Frame, FrameSet
from wm_ros.window import FrameBuffer, PushResult

MS = 1_000_000
#: DDS keeps the order within a topic only, so the first picture may overtake its CameraInfo and the
#: first odometry: sets wait for those this long from the first one on, as many as the worker then
#: takes at once.
FIRST_WAIT_NS = 150 * MS
#: A longer pause between two callbacks counts as this long: ticks come twice as often.
AWAKE_STEP_NS = 40 * MS
#: After this many failures in a row the node deactivates itself.
MAX_FAILURES = 5
#: What the frame buffer says about the stamps of a camera.
CLOCK_PROBLEMS = {
    PushResult.STAMP_JUMP: ('stamps jumped: window flushed', Level.WARN),
    PushResult.STRAY: ("stamps far from the other cameras': left out", Level.ERROR),
    PushResult.LATE: ('stamps behind the other cameras: too late for their set', Level.WARN),
    PushResult.DUPLICATE: ('the same stamp again: dropped', Level.WARN)}


class Pipeline:
    """
    One engine with its buffers and its thread.

    `publish(forecast)` sends a forecast and returns it as it went out; `now_ns()` is the node's
    ROS time, against which stamps are compared for latency alone. After `stop` the pipeline can be
    started again; the window then begins anew.
    """

    def __init__(self, settings: Settings, calibration: Calibration, engine: Any,
                 clock_ns: Callable[[], int], now_ns: Callable[[], int],
                 publish: Callable[[Forecast], Forecast]) -> None:
        self.settings = settings
        self.calibration = calibration
        self.engine = engine
        self.active = False
        self.fatal: str = ''
        self.latencies = Latencies()
        self._clock_ns = clock_ns
        self._now_ns = now_ns
        self._publish = publish
        self._seen_ns, self._awake_ns = clock_ns(), 0
        self._paused = False
        self._odometry = OdometryMonitor(settings.odometry, settings.odom_frame,
                                         settings.base_frame)
        self._plan: TimedPlan | None = None
        self._plan_problem = Problem()
        self._failures_in_a_row = 0
        self._recalibrated = True
        self._rig: CameraRig | None = None      # that the engine was given last
        self._first_set_ns: int | None = None
        self._flushed = 0
        self.last_failure = ''
        self._last: tuple[Forecast, int] | None = None
        self._reported = (0, 0)
        self.cameras = {name: CameraMonitor(name, clock_ns())
                        for name in calibration.rig.names}
        self._buffer = self._new_buffer()
        self._waiting: deque[tuple[FrameSet, int]] = deque()
        self._worker = self._new_worker()

    def _new_buffer(self) -> FrameBuffer:
        return FrameBuffer(
            self.calibration.rig.names, tolerance_ns=round(self.settings.sync_tolerance_ms * MS),
            deadline_ns=round(self.settings.set_deadline_ms * MS))

    def _new_worker(self) -> Worker:
        return Worker(self.engine, self._clock_ns, self._made, self._refused, self._failed)

    # Life.

    def start(self) -> None:
        """Begin: an empty window, a new thread."""
        now = self._clock_ns()
        for camera in self.cameras.values():
            camera.since_ns = now
            camera.arrivals_ns.clear()
        self._buffer = self._new_buffer()
        self._waiting.clear()
        self._last = None
        self._rig = None
        self._first_set_ns = None
        self._flushed = 0
        self.fatal = ''
        self._failures_in_a_row = 0
        self.engine.reset('activated')
        self.engine.change(self.settings)       # what was set meanwhile, or as it was stopped
        self._worker = self._new_worker()
        self._reported = (0, 0)
        self._worker.start()
        self.active = True
        self.look_up_poses()
        self.recalibrate()

    def stop(self, timeout_s: float = 1.5) -> bool:
        """End the thread; return False where it is still inside the inference library by then."""
        self.active = False
        self._waiting.clear()
        return self._worker.stop(timeout_s)

    def flush(self, reason: str) -> None:
        """Forget all that came so far: the clock jumped."""
        if self.active:
            self._buffer.flush()
            self._flushed += len(self._buffer.ready(self._awake())) + len(self._waiting)
            self._waiting.clear()
            self._odometry.history.clear()
            self._plan = None
            self._worker.call(lambda: self.engine.reset(reason))

    def change(self, settings: Settings) -> None:
        """Take new values of the parameters that may change, all at once."""
        self.settings = settings
        if self.active:
            self._worker.call(lambda: self.engine.change(settings))

    @property
    def odom_frame(self) -> str:
        """Return the frame of odometry."""
        return self._odometry.frame

    def _awake(self) -> int:
        """Return the time by which sets wait: the steady clock's without pauses of the process."""
        now = self._clock_ns()
        self._awake_ns += min(now - self._seen_ns, AWAKE_STEP_NS)
        self._seen_ns = now
        return self._awake_ns

    # Messages in, in the executor's thread.

    def image(self, camera: str, msg: Any) -> None:
        """Take a sensor_msgs/Image."""
        self._take(camera, msg, frame_from_image)

    def compressed(self, camera: str, msg: Any) -> None:
        """Take a sensor_msgs/CompressedImage."""
        self._take(camera, msg, frame_from_compressed)

    def _take(self, name: str, msg: Any, convert: Callable[[Any, str, int], Frame]) -> None:
        if not self.active:
            return
        now, awake = self._clock_ns(), self._awake()
        camera = self.cameras[name]
        camera.arrived(now)
        self.calibration.picture_frame(name, msg.header.frame_id)
        try:
            frame = convert(msg, name, self.settings.max_image_bytes)
        except ImageError as err:
            camera.refused(str(err), now)
            # It keeps its place in the set: without it every set would wait its deadline out.
            frame = Frame(name, stamp_ns(msg.header), err)
        result = self._buffer.push(frame, awake)
        # A picture is decoded while its set still waits for the others. Not where most pictures
        # are left out of the sets, nor while the worker is behind and may give sets up.
        if result.accepted and not self._buffer.thins_out and not self._worker.waiting:
            self.engine.prepare(frame)
        camera.counts[result.name.lower()] += 1
        if result in CLOCK_PROBLEMS:
            camera.problem = Problem(*CLOCK_PROBLEMS[result], now + PROBLEM_NS)
        self._collect(awake)

    def camera_info(self, name: str, msg: Any) -> None:
        """Take a sensor_msgs/CameraInfo; what it changes is used from the next set on."""
        if self.calibration.info(name, msg):
            self.recalibrate()
            self._dispatch(self._awake())

    def look_up_poses(self) -> None:
        """Ask TF again."""
        if self.calibration.refresh_poses():
            self.recalibrate()

    def recalibrate(self) -> None:
        """Have the calibration handed to the engine before the next set."""
        problems = self.calibration.problems
        for name, camera in self.cameras.items():
            camera.uncalibrated = problems.get(name, '')
        self._recalibrated = True

    def odometry(self, messages: Sequence[Any]) -> None:
        """Take all nav_msgs/Odometry that wait, so that no set goes on between them."""
        awake = self._awake()
        if self._odometry.take(messages, self._clock_ns(), awake):
            self._dispatch(awake)

    def ego_plan(self, msg: Any) -> None:
        """Take a wm_ros/EgoPlan."""
        try:
            self._plan = plan_from_message(msg)
        except PlanError as err:
            self._plan_problem = Problem(str(err), Level.WARN, self._clock_ns() + PROBLEM_NS)

    def tick(self) -> None:
        """Do what is due: sets that waited long enough go on."""
        if not self.active:
            return
        # After a pause the messages that came meanwhile are taken first. Not so the tick
        # behind: on a machine where all come late a set would wait for ever.
        self._paused = not self._paused and self._clock_ns() - self._seen_ns > AWAKE_STEP_NS
        now = self._awake()
        if not self._paused:
            self._collect(now)

    # Sets out.

    def _collect(self, now: int) -> None:
        wait_ns = round(self.settings.odometry_wait_ms * MS)
        self._waiting.extend((found, now + wait_ns) for found in self._buffer.ready(now))
        self._dispatch(now)

    def _dispatch(self, now: int) -> None:
        """Hand over the sets that have calibration and odometry, or waited long enough."""
        if self._waiting and self._first_set_ns is None:
            self._first_set_ns = now
        while self._waiting:
            frames, until = self._waiting[0]
            first = now - self._first_set_ns < FIRST_WAIT_NS
            if first and (self.calibration.awaits_info or self._odometry.awaited):
                return
            if now < until and self._odometry.pending(frames.stamp_ns, now):
                return
            self._waiting.popleft()
            if self._recalibrated:
                self._calibrate_engine()
            ego = self._odometry.at(frames.stamp_ns, now)
            self._worker.submit(Job(frames, ego, self._plan_for(ego), self._clock_ns()))

    def _calibrate_engine(self) -> None:
        self._recalibrated = False
        rig = self.calibration.rig
        for old, new in zip((self._rig or rig).cameras, rig.cameras, strict=True):
            if not same_camera(old, new):
                camera = self.cameras[new.name]
                camera.counts['recalibrated'] += 1
                camera.problem = Problem('another calibration: the window begins anew', Level.WARN,
                                         self._clock_ns() + PROBLEM_NS)
        self._rig = rig
        problems = {name: text if text.startswith((name, 'CameraInfo')) else f'{name}: {text}'
                    for name, text in self.calibration.problems.items()}
        self._worker.call(lambda: self.engine.calibrate(rig, problems))

    def _plan_for(self, ego: EgoState | None) -> EgoPlan | None:
        """Return the given plan as the model takes it, or None: constant turn rate then."""
        if self._plan is None or ego is None:
            return None
        try:
            return self._plan.at(ego, self._odometry.history, self.settings.base_frame,
                                 self.odom_frame, round(self.settings.plan_timeout_s * 1e9))
        except PlanError as err:
            self._plan_problem = Problem(str(err), Level.WARN, self._clock_ns() + PROBLEM_NS)
            return None

    # The worker's thread.

    def _made(self, forecast: Forecast, job: Job, timing: Timing) -> None:
        begin = self._clock_ns()
        forecast = self._publish(forecast)
        now = self._clock_ns()
        self._failures_in_a_row = 0
        for name, state in forecast.window.cameras.items():
            self.cameras[name].state = state
        self._last = (forecast, now)
        self.latencies.add(
            wait=timing.wait, encode=timing.encode, forecast=timing.forecast,
            publish=(now - begin) / 1e6, set_to_publish=(now - job.ready_ns) / 1e6,
            stamp_to_publish=(self._now_ns() - forecast.stamp_ns) / 1e6,
            **{f'predictor.{stage}': value for stage, value in forecast.stages_ms.items()})

    def _refused(self, camera: str, error: ImageError) -> None:
        self.cameras[camera].refused(str(error), self._clock_ns())

    def _failed(self, error: BaseException) -> None:
        self._failures_in_a_row += 1
        text = f'{type(error).__name__}: {error}'
        self.last_failure = text
        if isinstance(error, MemoryError) or self._failures_in_a_row >= MAX_FAILURES:
            self.fatal = text

    # Diagnostics, in the executor's thread.

    @property
    def period_ns(self) -> int:
        """Return the period of the camera sets, 100 ms until it is known."""
        return self._last[0].window.period_ns or SLOT_NS if self._last else SLOT_NS

    def levels(self) -> tuple[Level, ...]:
        """Return the level of each camera, for a report as soon as one changes."""
        now, period = self._clock_ns(), self.period_ns
        return tuple(camera.judge(now, period)[0] for camera in self.cameras.values())

    def statuses(self) -> list[Any]:
        """Return the statuses of cameras, odometry, window and inference."""
        now, period = self._clock_ns(), self.period_ns
        found = [camera_status(camera, now, period) for camera in self.cameras.values()]
        found.append(self._odometry.status(now))
        forecast, made = self._last or (None, 0)
        found.append(window_status(forecast, now, made, period, {
            'sets_formed': self._buffer.formed, 'sets_used': self._buffer.used,
            'sets_skipped': self._buffer.skipped, 'sets_overtaken': self._buffer.overtaken,
            'sets_flushed': self._flushed, 'flushes': self._buffer.flushes,
            'buffer_overruns': self._buffer.overruns,
            'plan_problem': self._plan_problem.text if now < self._plan_problem.until_ns else ''}))
        counters = self._worker.counters
        shed = counters.shed_forecasts + counters.shed_encodes
        before_shed, before_failures = self._reported
        self._reported = (shed, counters.failures)
        found.append(inference_status(
            counters, self.latencies.take(), shed - before_shed,
            counters.failures - before_failures,
            {'last_failure': self.last_failure, 'waiting': self._worker.waiting}))
        return found
