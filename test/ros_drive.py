"""Cameras, odometry and a listener on real DDS, for the tests of the node."""

from __future__ import annotations

import array
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from fakes import picture
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from wm_ros.msg import AgentForecastArray, EgoPlan, OccupancyFlow, OccupancyForecast
from wm_ros.rig import rig_to_yaml
from wm_ros.types import CameraModel, CameraRig

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
#: How long anything may take on a machine that others use too.
PATIENCE_S = 60.0
OUTPUTS = {
    'agents': AgentForecastArray, 'occupancy': OccupancyForecast, 'flow': OccupancyFlow,
    'occupancy_grid': OccupancyGrid, 'risk_grid': OccupancyGrid, 'markers': MarkerArray}


def parameters(**values: Any) -> list[Parameter]:
    """Return parameter overrides."""
    return [Parameter(name, value=value) for name, value in values.items()]


def write_rig(rig: CameraRig, folder: Path) -> str:
    """Write a rig file; return its path."""
    path = folder / 'rig.yaml'
    path.write_text(rig_to_yaml(rig), encoding='utf-8')
    return str(path)


def jpeg(seed: int, width: int = 640, height: int = 360) -> bytes:
    """Return a JPEG file of a random picture."""
    return cv2.imencode('.jpg', picture(seed, width, height))[1].tobytes()


def info_of(camera: CameraModel) -> CameraInfo:
    """Return the CameraInfo of a camera."""
    msg = CameraInfo(width=camera.width, height=camera.height, distortion_model='plumb_bob',
                     d=list(camera.distortion) or [0.0] * 5, k=np.asarray(camera.k).reshape(-1))
    msg.header.frame_id = f'{camera.name}_optical'
    return msg


def set_stamp(msg: Any, stamp_ns: int) -> None:
    """Stamp a message."""
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, NS)


class Ros:
    """One context whose nodes are spun in a thread; `with` shuts all of it down."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._running = True

    def __enter__(self) -> Ros:
        self._thread.start()
        return self

    def add(self, node: Node) -> Node:
        """Spin a node."""
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def _spin(self) -> None:
        while self._running:
            self.executor.spin_once(timeout_sec=0.05)

    def __exit__(self, *raised: object) -> None:
        self._running = False
        self._thread.join(PATIENCE_S)
        for node in self.nodes:
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown(timeout_sec=1.0)
        rclpy.shutdown(context=self.context)


class Drive:
    """
    The world around one node: publishes camera sets with stamps of its own, keeps what comes back.

    Runs in its own context, so that everything travels over DDS. Pictures change with every set.
    """

    def __init__(self, ros: Ros, rig: CameraRig, node: str = 'world_model', namespace: str = '',
                 outputs: Iterable[str] = ('agents',)) -> None:
        self.rig = rig
        self.node = ros.add(Node('drive', namespace=namespace, context=ros.context))
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.diagnostics: list[DiagnosticArray] = []
        self.stamp_ns = self.start_ns = START_NS
        self.sets = 0
        self.edit: Callable[[str, CompressedImage], CompressedImage | None] = lambda _, msg: msg
        sensor = qos_profile_sensor_data
        create = self.node.create_publisher
        self.images = {name: create(CompressedImage, f'{name}/image_raw/compressed', sensor)
                       for name in rig.names}
        self.raw_images = {name: create(Image, f'{name}/image_raw', sensor) for name in rig.names}
        self.infos = {name: create(CameraInfo, f'{name}/camera_info', sensor)
                      for name in rig.names}
        self.odometry = create(Odometry, 'odometry', sensor)
        self.plan = create(EgoPlan, f'{node}/ego_plan', 1)
        for name in outputs:
            self.node.create_subscription(
                OUTPUTS[name], f'{node}/{name}', self.got[name].append, 10)
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self.diagnostics.append, 50)
        camera = rig.cameras[0]
        self._files = [jpeg(seed, camera.width, camera.height) for seed in range(8)]

    def wait_connected(self, node: Node | None = None) -> None:
        """
        Wait until the node is there and its topics are found, both ways where it is given.

        One in another process may still miss the first messages: see `prime`.
        """
        wait_for(lambda: all(entry.get_subscription_count() for entry in (
            *self.infos.values(), self.odometry, self.plan)) and all(
                self.images[name].get_subscription_count()
                or self.raw_images[name].get_subscription_count() for name in self.rig.names),
            PATIENCE_S, 'the node to subscribe')
        if node:
            wait_matched(node, self.node)

    def prime(self) -> None:
        """Send sets until the first forecast comes."""
        def forecast() -> bool:
            self.send_set()
            try:
                wait_for(lambda: bool(self.got['agents']), 0.5, 'a forecast')
            except TimeoutError:
                return False
            return True

        wait_for(forecast, PATIENCE_S, 'the first forecast')
        self.forecast(self.stamp_ns)

    def calibrate(self, node: str = 'world_model') -> None:
        """Publish CameraInfo and odometry until the node has them: the first ones may get lost."""
        def ready() -> bool:
            return (all(self.value(f'camera {name}', 'calibration', node) == 'ok'
                        for name in self.rig.names)
                    and self.status('odometry', node).level == bytes([0]))

        until = time.monotonic() + PATIENCE_S
        while not ready():
            self.send_info()
            self.send_odometry(self.stamp_ns)
            try:
                wait_for(ready, 0.3, f'{node} to take the calibration')
            except TimeoutError:
                if time.monotonic() > until:
                    raise

    def send_info(self, **changes: CameraInfo) -> None:
        """Publish CameraInfo for every camera, `changes` by name instead of the right ones."""
        for camera in self.rig.cameras:
            msg = changes.get(camera.name) or info_of(camera)
            set_stamp(msg, self.stamp_ns)
            self.infos[camera.name].publish(msg)

    def send_odometry(self, stamp_ns: int) -> None:
        """Publish odometry of a vehicle that drives along x at 5 m/s."""
        msg = Odometry(child_frame_id='base_link')
        msg.header.frame_id = 'odom'
        set_stamp(msg, stamp_ns)
        msg.pose.pose.position.x = 5.0 * (stamp_ns - self.start_ns) / NS
        msg.twist.twist.linear.x = 5.0
        self.odometry.publish(msg)

    def send_set(self, odometry: bool = True, skip: Iterable[str] = ()) -> int:
        """Publish one set 100 ms after the last; return its stamp."""
        self.stamp_ns += NS // 10
        self.sets += 1
        if odometry:
            self.send_odometry(self.stamp_ns)
        for number, name in enumerate(self.rig.names):
            msg = CompressedImage(format='jpeg', data=array.array(
                'B', self._files[(self.sets + number) % len(self._files)]))
            msg.header.frame_id = f'{name}_optical'
            set_stamp(msg, self.stamp_ns)
            edited = None if name in skip else self.edit(name, msg)
            if edited is not None:
                self.images[name].publish(edited)
        return self.stamp_ns

    def run(self, sets: int, period_s: float | None = None, pause_s: float = 0.0,
            **options: Any) -> list[int]:
        """
        Publish sets and return their stamps.

        Each waits for the forecast of the one before and `pause_s`, or, with `period_s`, for
        nobody: then a busy machine may lose some.
        """
        stamps = []
        began = time.monotonic()
        for number in range(sets):
            stamps.append(self.send_set(**options))
            if period_s is None:
                self.forecast(stamps[-1])
                time.sleep(pause_s)
            else:
                time.sleep(max(0.0, began + (number + 1) * period_s - time.monotonic()))
        return stamps

    def stamps(self, output: str = 'agents') -> list[int]:
        """Return the stamps that have come back."""
        return [msg.header.stamp.sec * NS + msg.header.stamp.nanosec for msg in self.got[output]]

    def forecast(self, stamp_ns: int, output: str = 'agents') -> Any:
        """Return the message of one stamp, waiting for it."""
        wait_for(lambda: stamp_ns in self.stamps(output), PATIENCE_S, f'{output} of {stamp_ns}')
        return self.got[output][self.stamps(output).index(stamp_ns)]

    def status(self, name: str, node: str = 'world_model') -> Any:
        """Return the newest diagnostic status of that name of a node."""
        for msg in reversed(self.diagnostics):
            for entry in msg.status:
                if entry.name == f'{node}: {name}':
                    return entry
        return None

    def value(self, name: str, key: str, node: str = 'world_model') -> str | None:
        """Return one value of the newest diagnostic status of that name."""
        entry = self.status(name, node)
        return next((pair.value for pair in entry.values if pair.key == key), None
                    ) if entry else None

    def wait_status(self, name: str, level: int, text: str = '', node: str = 'world_model',
                    meanwhile: Callable[[], Any] = lambda: None) -> Any:
        """Wait until a status of that level and text has come, ever; `meanwhile` is repeated."""
        def found() -> Any:
            return next((entry for msg in list(self.diagnostics) for entry in msg.status
                         if entry.name == f'{node}: {name}' and entry.level == bytes([level])
                         and text in entry.message), None)
        try:
            wait_for(lambda: meanwhile() or found() is not None, PATIENCE_S, name)
        except TimeoutError:
            entry = self.status(name, node)
            raise AssertionError(f'{name}: want level {level} with {text!r}, got at last '
                                 f'{entry and (entry.level, entry.message)}') from None
        return found()


def wait_matched(*nodes: Node) -> None:
    """Wait until each publisher of these nodes knows each subscription of theirs, and back."""
    def topics(kind: str) -> Counter[str]:
        return Counter(entry.topic_name for node in nodes for entry in getattr(node, kind))

    def matched() -> bool:
        published, subscribed = topics('publishers'), topics('subscriptions')
        return all(
            getattr(entry, count)() >= wanted[entry.topic_name]
            for kind, count, wanted in (('publishers', 'get_subscription_count', subscribed),
                                        ('subscriptions', 'get_publisher_count', published))
            for node in nodes for entry in getattr(node, kind) if hasattr(entry, count))

    wait_for(matched, PATIENCE_S, 'publishers and subscriptions to find each other')


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition holds; raise TimeoutError naming it."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f'waited {timeout_s} s for {what}')
        time.sleep(0.01)
