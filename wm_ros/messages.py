"""
Forecasts as messages, for any library that has the message classes; `received.py` reads them.

rclpy's generated classes and those of `rosbags` take the same keyword arguments and differ only in
how they want a sequence of numbers, so the functions here get the classes as a `MessageTypes`. The
node and the replay therefore write the same bytes, and nothing in this file imports either library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from wm_ros.agent_rows import BEFORE_POSE, agent_rows
from wm_ros.cdr import CdrWriter
from wm_ros.geometry import (
    quaternion_from_yaw,
    se2,
    transform_points,
    wrap_angle,
    yaw_from_quaternion,
)
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    TIME_STEP_S,
    WINDOW_FRAMES,
    EgoPlan,
    EgoState,
    Forecast,
    PlanSource,
    WindowInfo,
)

#: Message types by the short name under which `MessageTypes` offers them.
TYPE_NAMES = {name.rsplit('/', 1)[1]: name for name in (
    'builtin_interfaces/msg/Duration', 'builtin_interfaces/msg/Time',
    'geometry_msgs/msg/Point', 'geometry_msgs/msg/Pose', 'geometry_msgs/msg/PoseWithCovariance',
    'geometry_msgs/msg/Quaternion', 'geometry_msgs/msg/Transform',
    'geometry_msgs/msg/TransformStamped', 'geometry_msgs/msg/Twist',
    'geometry_msgs/msg/TwistWithCovariance', 'geometry_msgs/msg/Vector3',
    'nav_msgs/msg/MapMetaData', 'nav_msgs/msg/OccupancyGrid', 'std_msgs/msg/Header',
    'wm_ros/msg/AgentForecast', 'wm_ros/msg/AgentForecastArray', 'wm_ros/msg/EgoPlan',
    'wm_ros/msg/ForecastInfo', 'wm_ros/msg/OccupancyFlow', 'wm_ros/msg/OccupancyForecast',
    'wm_ros/msg/TrajectoryMode', 'wm_ros/msg/WindowInfo')}

#: Coding of probability in the occupancy layers: 0-254 for 0-1, 255 for ground not observed.
UNOBSERVED = 255
#: round(254 * 0.5)
OCCUPIED_FROM = 127
#: Percent by one more than the code of a probability.
_PERCENT = np.rint(np.arange(-1, 255).clip(0).astype(np.float32) * (100 / 254)).astype(np.int8)
#: Scale of the flow message's integers: 127 of them are 15.9 m in half a second, 114 km/h.
FLOW_METRES_PER_UNIT = 0.125


class MessageTypes:
    """
    The message classes of one library, as attributes under their short names.

    `find` returns the class of a full name such as 'std_msgs/msg/Header'; `sequence` turns a
    contiguous one-dimensional array into what the library wants in an unbounded sequence field:
    `array.array` for rclpy, the array itself for `rosbags`. Fixed-size arrays are NumPy in both.
    `serialise` returns a message as CDR.
    """

    def __init__(self, find: Callable[[str], type], sequence: Callable[[np.ndarray], Any],
                 serialise: Callable[[Any], bytes | memoryview]) -> None:
        for short, name in TYPE_NAMES.items():
            setattr(self, short, find(name))
        self.sequence = sequence
        self.serialise = serialise

    def time(self, stamp_ns: int) -> Any:
        """Return a builtin_interfaces/Time of integer nanoseconds."""
        return self.Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)

    def duration(self, ns: int) -> Any:
        """Return a builtin_interfaces/Duration of integer nanoseconds."""
        return self.Duration(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Return a std_msgs/Header."""
        return self.Header(stamp=self.time(stamp_ns), frame_id=frame_id)

    def pose(self, x: float, y: float, yaw: float) -> Any:
        """Return a planar geometry_msgs/Pose (metres, radians)."""
        qx, qy, qz, qw = quaternion_from_yaw(float(yaw))
        return self.Pose(position=self.Point(x=float(x), y=float(y), z=0.0),
                         orientation=self.Quaternion(x=qx, y=qy, z=qz, w=qw))

    def vector(self, x: float, y: float, z: float = 0.0) -> Any:
        """Return a geometry_msgs/Vector3."""
        return self.Vector3(x=float(x), y=float(y), z=float(z))


def stamp_ns(header: Any) -> int:
    """Return the stamp of a header in integer nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def duration_ns(duration: Any) -> int:
    """Return a builtin_interfaces/Duration in integer nanoseconds."""
    return duration.sec * 1_000_000_000 + duration.nanosec


def planar_pose(pose: Any) -> np.ndarray:
    """Return x, y, yaw (3,) of a geometry_msgs/Pose; raise ValueError for a bad quaternion."""
    q = pose.orientation
    return np.array([pose.position.x, pose.position.y,
                     yaw_from_quaternion(np.array([q.x, q.y, q.z, q.w]))])


def ego_state_from_odometry(msg: Any) -> EgoState:
    """Return the planar ego state of a nav_msgs/Odometry; raise ValueError where not finite."""
    pose = planar_pose(msg.pose.pose)
    speed, rate = float(msg.twist.twist.linear.x), float(msg.twist.twist.angular.z)
    if not np.isfinite([*pose, speed, rate]).all():
        raise ValueError(f'odometry: want finite values, got pose {pose.tolist()}, '
                         f'speed {speed}, yaw rate {rate}')
    return EgoState(stamp_ns(msg.header), pose, speed, rate)


class FrameOfReference:
    """
    The frame in which a forecast is published: `base_link` at the stamp, or `odom`.

    `frame_from_base` is the planar pose (3,) of `base_link` at the stamp in that frame.
    """

    def __init__(self, frame_id: str = 'base_link',
                 frame_from_base: np.ndarray | None = None) -> None:
        self.frame_id = frame_id
        self.moved = frame_from_base is not None
        self.frame_from_base = np.zeros(3) if frame_from_base is None else frame_from_base
        self.rotation = se2(0.0, 0.0, float(self.frame_from_base[2]))[:2, :2]

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of `base_link` in this frame."""
        return transform_points(self.frame_from_base, points) if self.moved else points

    def pose(self, pose: np.ndarray) -> np.ndarray:
        """Return poses (..., 3) of `base_link` in this frame."""
        if not self.moved:
            return pose
        xy = self.points(pose[..., :2])
        yaw = wrap_angle(pose[..., 2:] + self.frame_from_base[2])
        return np.concatenate([xy, yaw], axis=-1)

    def vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (..., 2) turned into this frame's axes."""
        return vectors @ self.rotation.T if self.moved else vectors

    def pose_covariances(self, matrices: np.ndarray) -> np.ndarray:
        """Return covariances (..., 3, 3) of x, y, yaw in this frame's axes."""
        if not self.moved:
            return matrices
        turn = np.eye(3)
        turn[:2, :2] = self.rotation
        return turn @ matrices @ turn.T

    def covariances(self, matrices: np.ndarray) -> np.ndarray:
        """Return covariances (..., 2, 2) in this frame's axes."""
        return self.rotation @ matrices @ self.rotation.T if self.moved else matrices


BASE_LINK = FrameOfReference()


def window_info(types: MessageTypes, window: WindowInfo) -> Any:
    """Return a wm_ros/WindowInfo."""
    states = np.fromiter(window.cameras.values(), np.uint8, len(window.cameras))
    return types.WindowInfo(
        frames_wanted=WINDOW_FRAMES, frames_used=int(window.frames_used),
        frames_missing=int(window.frames_missing), frames_partial=int(window.frames_partial),
        max_gap_periods=float(window.max_gap_periods), period=types.duration(window.period_ns),
        span=types.duration(window.span_ns), odometry=bool(window.odometry),
        cameras=list(window.cameras), camera_states=types.sequence(states))


def ego_plan(types: MessageTypes, plan: EgoPlan, stamp: int, frame: FrameOfReference) -> Any:
    """Return the wm_ros/EgoPlan that a forecast was made for; no poses where there was none."""
    step_ns = round(TIME_STEP_S * 1e9)
    poses = [] if plan.source == PlanSource.NONE else list(frame.pose(np.asarray(plan.poses)))
    return types.EgoPlan(
        header=types.header(stamp, frame.frame_id), source=int(plan.source),
        times_from_start=[types.duration(step_ns * (i + 1)) for i in range(len(poses))],
        poses=[types.pose(*pose) for pose in poses])


def forecast_info(types: MessageTypes, forecast: Forecast, frame: FrameOfReference,
                  odom_frame: str) -> Any:
    """Return the wm_ros/ForecastInfo that every message of a forecast carries."""
    known = forecast.odom_from_base is not None
    return types.ForecastInfo(
        valid=bool(forecast.valid), invalid_reasons=list(forecast.reasons),
        window=window_info(types, forecast.window),
        ego_plan=ego_plan(types, forecast.ego_plan, forecast.stamp_ns, frame),
        odom_known=known,
        odom_from_base_link=types.pose(*(forecast.odom_from_base if known else (0.0, 0.0, 0.0))),
        odom_frame=odom_frame if known else '', model_hash=forecast.model_hash,
        precision=[f'{stage}={form}' for stage, form in sorted(forecast.precision.items())])


def agent_message(types: MessageTypes, row: np.void) -> Any:
    """Return a wm_ros/AgentForecast of one of `agent_rows`."""
    return types.AgentForecast(
        uuid=row['uuid'].copy(), classification=int(row['classification']),
        class_probability=float(row['class_probability']),
        class_probabilities=row['class_probabilities'].copy(),
        existence_probability=float(row['existence_probability']),
        pose=types.PoseWithCovariance(
            pose=types.Pose(position=types.Point(**_axes('xyz', row['position'])),
                            orientation=types.Quaternion(**_axes('xyzw', row['orientation']))),
            covariance=row['pose_covariance'].reshape(-1)),
        twist=types.TwistWithCovariance(
            twist=types.Twist(linear=types.vector(*row['linear']),
                              angular=types.vector(*row['angular'])),
            covariance=row['twist_covariance'].reshape(-1)),
        size=types.vector(*row['size']),
        modes=[types.TrajectoryMode(
            probability=float(mode['probability']),
            waypoints=types.sequence(mode['waypoints'].reshape(-1)),
            covariances=types.sequence(mode['covariances'].reshape(-1))) for mode in row['modes']])


def _axes(names: str, values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def agents_message(types: MessageTypes, forecast: Forecast, frame: FrameOfReference = BASE_LINK,
                   odom_frame: str = 'odom') -> Any:
    """Return the wm_ros/AgentForecastArray of a forecast."""
    return types.AgentForecastArray(
        header=types.header(forecast.stamp_ns, frame.frame_id),
        info=forecast_info(types, forecast, frame, odom_frame),
        time_step_s=TIME_STEP_S, steps=HORIZON_STEPS,
        agents=[agent_message(types, row) for row in agent_rows(forecast.agents, frame)])


def agents_cdr(types: MessageTypes, forecast: Forecast, frame: FrameOfReference = BASE_LINK,
               odom_frame: str = 'odom') -> bytes:
    """
    Return `agents_message` serialised: what node and replay send.

    The library writes the message without agents, and their rows follow as they lie: objects of
    every agent and mode take it ten times as long.
    """
    nobody = agents_message(types, replace(forecast, agents=()), frame, odom_frame)
    out = CdrWriter(types.serialise(nobody))
    rows = agent_rows(forecast.agents, frame)
    out.reopen(len(rows))
    for row in rows.view((np.void, rows.itemsize)).tolist():
        out.put(row[:BEFORE_POSE], 4)
        out.put(row[BEFORE_POSE:], 8)
    return out.bytes()


def map_meta_data(types: MessageTypes, frame: FrameOfReference) -> Any:
    """Return the nav_msgs/MapMetaData of `OUTPUT_GRID` in the given frame."""
    corner = np.array([OUTPUT_GRID.x_min_m, OUTPUT_GRID.y_min_m, 0.0])
    return types.MapMetaData(
        map_load_time=types.time(0), resolution=OUTPUT_GRID.cell_m, width=OUTPUT_GRID.cols,
        height=OUTPUT_GRID.rows, origin=types.pose(*frame.pose(corner)))


def _step_times(types: MessageTypes, steps: int) -> list[Any]:
    return [types.duration(round(TIME_STEP_S * 1e9) * i) for i in range(steps)]


def _layer(types: MessageTypes, layer: np.ndarray) -> Any:
    return types.sequence(np.ascontiguousarray(layer, dtype=np.uint8).reshape(-1))


def occupancy_message(types: MessageTypes, forecast: Forecast, frame: FrameOfReference = BASE_LINK,
                      odom_frame: str = 'odom') -> Any:
    """Return the wm_ros/OccupancyForecast of a forecast."""
    return types.OccupancyForecast(
        header=types.header(forecast.stamp_ns, frame.frame_id),
        info=forecast_info(types, forecast, frame, odom_frame), grid=map_meta_data(types, frame),
        times_from_start=_step_times(types, len(forecast.occupancy_agents)),
        agents=_layer(types, forecast.occupancy_agents),
        static_ground=_layer(types, forecast.occupancy_static),
        drivable=_layer(types, forecast.road[0]), walkway=_layer(types, forecast.road[1]))


def flow_message(types: MessageTypes, forecast: Forecast, frame: FrameOfReference = BASE_LINK,
                 odom_frame: str = 'odom') -> Any:
    """Return the wm_ros/OccupancyFlow of a forecast; flow beyond 15.9 m a step is clipped."""
    units = _flow_units(forecast.flow, frame)
    return types.OccupancyFlow(
        header=types.header(forecast.stamp_ns, frame.frame_id),
        info=forecast_info(types, forecast, frame, odom_frame), grid=map_meta_data(types, frame),
        times_from_start=_step_times(types, len(forecast.flow)),
        metres_per_unit=FLOW_METRES_PER_UNIT,
        dx=types.sequence(units[0].reshape(-1)), dy=types.sequence(units[1].reshape(-1)))


def _flow_units(flow: np.ndarray, frame: FrameOfReference) -> np.ndarray:
    """Return flow (T, 2, Y, X) in metres as dx and dy of the message, (2, T, Y, X) int8."""
    units = np.empty((2, len(flow), *flow.shape[2:]), np.int8)
    for step, metres in enumerate(flow):    # one at a time: what is in between stays in the cache
        vectors = frame.vectors(np.moveaxis(metres, 0, -1)) / FLOW_METRES_PER_UNIT
        np.rint(vectors, out=vectors)
        np.clip(vectors, -127, 127, out=vectors)
        units[:, step] = np.moveaxis(vectors, -1, 0)
    return units


def grid_message(types: MessageTypes, forecast: Forecast, horizon: bool,
                 frame: FrameOfReference = BASE_LINK) -> Any:
    """
    Return a nav_msgs/OccupancyGrid: now, or with `horizon` the highest risk over all steps.

    A cell holds the larger probability of agents and of static or undrivable ground in percent,
    and -1 where the ground is not observed, unless it is told to be occupied.
    """
    layers = forecast.occupancy_agents if horizon else forecast.occupancy_agents[:1]
    static = forecast.occupancy_static
    hidden = np.maximum(layers.max(axis=0), static) == UNOBSERVED
    # One more than the code: of ground that is not observed it is 0, the least there is.
    worst = np.maximum((layers + np.uint8(1)).max(axis=0), static + np.uint8(1))
    unknown = hidden & (worst <= OCCUPIED_FROM)
    percent = _PERCENT[worst] | -unknown.view(np.int8)      # -1 has all bits set
    return types.OccupancyGrid(
        header=types.header(forecast.stamp_ns, frame.frame_id), info=map_meta_data(types, frame),
        data=types.sequence(percent.reshape(-1)))
