"""
The managed lifecycle node: parameters, subscriptions, transitions, diagnostics.

`on_configure` creates, `on_cleanup` destroys; what happens in between is in `Pipeline`. Images
are taken as typed messages: a 200 KB JPEG costs 0.02 ms to deserialise, so a raw subscription
would save nothing (docs/node.md has the figures).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import (
    QoSCompatibility,
    QoSProfile,
    qos_check_compatible,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from wm_ros.ros import parameters
from wm_ros.ros.backlog import with_backlog
from wm_ros.ros.calibration import Calibration, tf_lookup
from wm_ros.ros.diagnostics import NodeHealth, diagnostics_message, node_status
from wm_ros.ros.loading import Engine, rig_of, topics_of
from wm_ros.ros.outputs import Outputs
from wm_ros.ros.pipeline import Pipeline

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

#: How often sets are looked at that wait for a camera; half of it is added to a deadline.
TICK_S = 0.02
#: How often TF is asked again, in ticks.
TF_TICKS = 25
#: Messages that a subscription keeps while the process stands still; of odometry, at 200 Hz, more
#: than a second.
DEPTH, ODOMETRY_DEPTH = 5, 250

Transition = Callable[['WorldModelNode', LifecycleState], TransitionCallbackReturn]


class ConfigureError(ValueError):
    """A parameter, file or combination that the node cannot start with."""


class ThreadLeftError(RuntimeError):
    """The inference library did not return in time."""


def reported(transition: Transition) -> Transition:
    """
    Make whatever a transition raises a FAILURE with its cause in the log and in diagnostics.

    rclpy swallows it or dies of it, by version (rclpy #1673).
    """
    @functools.wraps(transition)
    def wrapped(self: WorldModelNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result = transition(self, state)
            self.health.error = ''
            return result
        except Exception as err:
            self.health.error = f'{transition.__name__}: {err or type(err).__name__}'
            self.get_logger().error(self.health.error)
            # A thread that does not come back leaves nothing to go on with.
            return (TransitionCallbackReturn.ERROR if isinstance(err, ThreadLeftError)
                    else TransitionCallbackReturn.FAILURE)
        finally:
            self._report_soon = True
    return wrapped


class WorldModelNode(LifecycleNode):
    """
    Cameras in, forecasts out.

    Add it to any executor beside other nodes; several live in one process under different names or
    namespaces. Keyword arguments are those of `rclpy.lifecycle.LifecycleNode`. Without the
    `autostart` parameter somebody has to drive its lifecycle.
    """

    def __init__(self, node_name: str = 'world_model', **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self.health = NodeHealth()
        self._problems, self._unknown = parameters.declare(self)
        self.add_on_set_parameters_callback(self._parameters_set)
        self.pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._tf: Any = None
        self._inputs: list[Any] = []
        self._tick_timer: Any = None
        self._report_soon = True
        self._reported_ns = 0
        self._levels: tuple[Any, ...] = ()
        self._ticks = 0
        # Liveness and waiting run on a steady clock: timers in ROS time stall when it steps back
        # (rclpy #1490).
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        from diagnostic_msgs.msg import DiagnosticArray

        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=True), post_callback=self._clock_jumped)
        self._timer = self.create_timer(TICK_S, self._tick, clock=self._steady)
        self._autostart = self.get_parameter('autostart').value

    # Transitions.

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, create buffers, subscriptions and publishers."""
        if self._problems:
            raise ConfigureError('; '.join(self._problems))
        if self._unknown:
            self.get_logger().warning(f'parameters passed over, which are none of this node: '
                                      f'{", ".join(self._unknown)}')
        try:
            self._configure()
        except BaseException:
            self._release()
            raise
        self.health.state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread with an empty window."""
        self.pipeline.start()
        self.health.state = 'active'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Join the inference thread."""
        self._stop()
        self.health.state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Destroy what `on_configure` created."""
        self._release()
        self.health.state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Join the inference thread and destroy everything."""
        self._release()
        self.health.state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, with nothing held."""
        self._release()
        self.health.state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    @property
    def finalized(self) -> bool:
        """Tell whether the node was shut down through its lifecycle."""
        return self.health.state == 'finalized'

    def destroy_node(self) -> None:
        """Join the thread and free everything, whatever the state."""
        self._release()
        self._jump.unregister()
        super().destroy_node()

    # What transitions are made of.

    def _configure(self) -> None:
        settings = parameters.read(self)
        rig = rig_of(settings)
        topics = topics_of(settings, rig.names)
        log = self.get_logger()
        if settings.extrinsics != 'rig':
            self._tf = tf_lookup(self, settings.base_frame)
            if self._tf is None and settings.extrinsics == 'tf':
                raise ConfigureError(
                    'parameter extrinsics: tf wants tf2_ros, which is not installed here')
        calibration = Calibration(rig, settings.camera_info, settings.extrinsics, self._tf)
        began = time.monotonic()
        engine = Engine(settings, rig, time.monotonic_ns, log.info)
        log.info(f'model ready after {time.monotonic() - began:.1f} s')
        self._outputs = Outputs(self, self._incompatible)
        self.pipeline = Pipeline(
            settings, calibration, engine, time.monotonic_ns,
            lambda: self.get_clock().now().nanoseconds, self._publish)
        self._subscribe(settings, topics)
        self.health.facts = {
            **({'passed_over': ', '.join(self._unknown)} if self._unknown else {}),
            'artifact': str(engine.artifact.path), 'model_hash': engine.artifact.hash,
            'backend': engine.backend.name,
            **{f'precision.{graph}': form for graph, form in engine.backend.precision.items()}}

    def _subscribe(self, settings: parameters.Settings,
                   topics: dict[str, dict[str, str]]) -> None:
        from nav_msgs.msg import Odometry
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        from wm_ros.msg import EgoPlan

        # An executor takes what is there in the order of subscription: the pictures last, so that
        # what belongs to them is known when they come.
        pipeline = self.pipeline
        for camera, topic in topics['camera_info_topic'].items():
            self._listen(CameraInfo, topic, functools.partial(pipeline.camera_info, camera))
        if settings.odometry != 'ignore':
            self._listen(Odometry, 'odometry', pipeline.odometry, ODOMETRY_DEPTH, backlog=True)
        self._listen(EgoPlan, '~/ego_plan', pipeline.ego_plan, depth=1)
        for camera, topic in topics['image_topic'].items():
            self._listen(Image, topic, functools.partial(pipeline.image, camera))
        for camera, topic in topics['compressed_topic'].items():
            self._listen(CompressedImage, topic, functools.partial(pipeline.compressed, camera))

    def _listen(self, message: type, topic: str, callback: Callable[[Any], None],
                depth: int = DEPTH, backlog: bool = False) -> None:
        """Subscribe; with `backlog` the callback is given lists: all that waits, oldest first."""
        qos = QoSProfile(
            depth=depth, history=qos_profile_sensor_data.history,
            reliability=qos_profile_sensor_data.reliability,
            durability=qos_profile_sensor_data.durability)

        def guarded(msg: Any) -> None:
            try:
                callback(with_backlog(subscription, msg, depth) if backlog else msg)
                self.health.warnings.pop(topic, None)       # what is over is not told for ever
            except Exception as err:  # the process never dies of its input
                self.health.warnings[topic] = f'{topic}: {type(err).__name__}: {err}'
                self.get_logger().error(self.health.warnings[topic], throttle_duration_sec=5.0)

        subscription = self.create_subscription(
            message, topic, guarded, qos,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._incompatible(topic, event)),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._inputs.append(subscription)

    def _stop(self) -> None:
        if self.pipeline and not self.pipeline.stop():
            raise ThreadLeftError('the inference library did not return within 1.5 s; its thread '
                                  'was left behind')

    def _release(self) -> None:
        """Let go of everything that `_configure` made, in any state."""
        pipeline, self.pipeline = self.pipeline, None
        outputs, self._outputs = self._outputs, None
        tf, self._tf = self._tf, None
        self.health.facts = {}
        self.health.warnings.clear()
        with contextlib.ExitStack() as held:    # whatever one of them raises, the others go too
            if tf:
                held.callback(tf.close)
            if outputs:
                held.callback(outputs.destroy)
            if pipeline:
                held.callback(lambda: pipeline.engine.close() if pipeline.stop() else None)
            for subscription in self._inputs:
                held.callback(self.destroy_subscription, subscription)
            self._inputs.clear()

    # Events.

    def _publish(self, forecast: Any) -> Any:
        pipeline, outputs = self.pipeline, self._outputs
        if pipeline is None or outputs is None:
            return forecast
        return outputs.publish(forecast, pipeline.settings, pipeline.odom_frame)

    def _parameters_set(self, changed: list[Any]) -> SetParametersResult:
        """Check a set of values as a whole; take all of them or none."""
        values = {entry.name: entry.value for entry in changed if entry.name in parameters.BY_NAME}
        problems = parameters.problems_of(values)
        if problems:
            return SetParametersResult(successful=False, reason='; '.join(problems))
        if self.pipeline and values:
            self.pipeline.change(parameters.changed(self.pipeline.settings, values))
        return SetParametersResult(successful=True)

    def _incompatible(self, topic: str, event: Any) -> None:
        """Put the profiles of both sides into diagnostics."""
        ours = self.resolve_topic_name(topic)
        kind = event.last_policy_kind
        policy = str(getattr(kind, 'name', kind)).removeprefix('RMW_QOS_POLICY_')
        sides = []
        for title, found in (('publishers', self.get_publishers_info_by_topic(ours)),
                             ('subscribers', self.get_subscriptions_info_by_topic(ours))):
            profiles = [f'{info.node_namespace.rstrip("/")}/{info.node_name} '
                        f'{info.qos_profile.reliability.name.lower()} '
                        f'{info.qos_profile.durability.name.lower()}' for info in found]
            sides.append(f'{title}: {", ".join(profiles) or "none"}')
        self.health.warnings[f'qos {topic}'] = (
            f'{ours}: incompatible QoS ({policy}); {"; ".join(sides)}')
        self.get_logger().warning(self.health.warnings[f'qos {topic}'])
        self._report_soon = True

    def _forget_compatible(self) -> None:
        """Drop what is said of topics where no two sides are incompatible any more."""
        for name in [name for name in self.health.warnings if name.startswith('qos ')]:
            ours = self.resolve_topic_name(name.removeprefix('qos '))
            pairs = itertools.product(self.get_publishers_info_by_topic(ours),
                                      self.get_subscriptions_info_by_topic(ours))
            if not any(qos_check_compatible(sent.qos_profile, taken.qos_profile)[0]
                       == QoSCompatibility.ERROR for sent, taken in pairs):
                del self.health.warnings[name]

    def _clock_jumped(self, jump: Any) -> None:
        if self.pipeline:
            self.pipeline.flush('the clock jumped')

    def _tick(self) -> None:
        if self._autostart:
            self._autostart = False
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        pipeline = self.pipeline
        if pipeline and pipeline.active:
            pipeline.tick()
            self._ticks += 1
            if self._tf and self._ticks % TF_TICKS == 0:
                pipeline.look_up_poses()
            if pipeline.fatal:
                cause = f'deactivated itself: {pipeline.fatal}'
                self.get_logger().error(cause)
                if self.trigger_deactivate() == TransitionCallbackReturn.SUCCESS:
                    self.health.error = cause       # until the next transition succeeds
            levels = pipeline.levels()
            self._report_soon |= levels != self._levels
            self._levels = levels
        period_s = self.get_parameter('diagnostics_period_s').value
        if self._report_soon or time.monotonic_ns() - self._reported_ns > period_s * 1e9:
            self._report()

    def _report(self) -> None:
        self._report_soon = False
        self._reported_ns = time.monotonic_ns()
        self._forget_compatible()
        statuses = [node_status(self.health)]
        if self.pipeline and self.pipeline.active:
            statuses += self.pipeline.statuses()
        self._diagnostics.publish(diagnostics_message(
            self.get_clock().now().to_msg(), self.get_fully_qualified_name(), statuses))
