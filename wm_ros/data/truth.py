"""The simulator's truth as messages and back: topic /truth/agents, type AgentForecastArray."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from wm_ros.geometry import wrap_angle
from wm_ros.messages import BASE_LINK, MessageTypes, ego_plan, planar_pose, stamp_ns
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    TIME_STEP_S,
    CameraState,
    EgoPlan,
    EgoState,
    PlanSource,
    Truth,
)

#: Below this length a path's step does not tell the heading.
MIN_STEP_M = 0.15


def truth_message(types: MessageTypes, truth: Truth, cameras: tuple[str, ...] = (),
                  odom_frame: str = 'odom') -> Any:
    """
    Return the truth of one instant as an AgentForecastArray.

    Each agent has one mode of probability 1, or none where its future is not known to the end;
    its existence probability is 1 where the benchmark counts it as visible, else 0.
    """
    info = types.ForecastInfo(
        valid=True, invalid_reasons=[],
        window=types.WindowInfo(
            frames_wanted=0, frames_used=0, frames_missing=0, frames_partial=0,
            max_gap_periods=0.0, period=types.duration(0), span=types.duration(0), odometry=True,
            cameras=list(cameras),
            camera_states=types.sequence(np.full(len(cameras), CameraState.OK, np.uint8))),
        ego_plan=ego_plan(types, truth.ego_plan, truth.stamp_ns, BASE_LINK), odom_known=True,
        odom_from_base_link=types.pose(*truth.ego.odom_from_base), odom_frame=odom_frame,
        model_hash='', precision=[])
    return types.AgentForecastArray(
        header=types.header(truth.stamp_ns, 'base_link'), info=info, time_step_s=TIME_STEP_S,
        steps=HORIZON_STEPS,
        agents=[_agent(types, truth, i) for i in range(len(truth.ids))])


def _agent(types: MessageTypes, truth: Truth, i: int) -> Any:
    future = truth.futures[i, :, :2]
    modes = []
    if np.isfinite(future).all():
        modes.append(types.TrajectoryMode(
            probability=1.0,
            waypoints=types.sequence(np.ascontiguousarray(future, np.float32).reshape(-1)),
            covariances=types.sequence(np.zeros(HORIZON_STEPS * 3, np.float32))))
    probabilities = np.zeros(8, np.float32)
    probabilities[truth.classes[i]] = 1.0
    zero = types.vector(0.0, 0.0)
    return types.AgentForecast(
        uuid=uuid_of(int(truth.ids[i])), classification=int(truth.classes[i]) + 1,
        class_probability=1.0, class_probabilities=probabilities,
        existence_probability=float(truth.visible[i]),
        pose=types.PoseWithCovariance(pose=types.pose(*truth.poses[i]), covariance=np.zeros(36)),
        twist=types.TwistWithCovariance(
            twist=types.Twist(linear=types.vector(*truth.velocities[i]), angular=zero),
            covariance=np.zeros(36)),
        size=types.vector(*truth.sizes[i]), modes=modes)


def uuid_of(agent_id: int) -> np.ndarray:
    """Return a UUID (16,) uint8 whose first eight bytes are the agent's number, big-endian."""
    number = agent_id.to_bytes(8, 'big', signed=True)
    return np.frombuffer(number + hashlib.sha256(number).digest()[:8], np.uint8).copy()


def truth_from_message(msg: Any) -> Truth:
    """
    Return the truth in an AgentForecastArray of /truth/agents.

    What the message does not hold is filled in: headings along a path follow its steps, the ego
    motion is that of the first planned pose, `pixels` and `silhouettes` are 0, `road` is false and
    `observed` true everywhere.
    """
    agents = msg.agents
    n = len(agents)
    poses = np.array([planar_pose(a.pose.pose) for a in agents]).reshape(n, 3)
    futures = np.full((n, HORIZON_STEPS, 3), np.nan)
    for i, agent in enumerate(agents):
        if agent.modes:
            futures[i, :, :2] = np.asarray(agent.modes[0].waypoints).reshape(HORIZON_STEPS, 2)
            futures[i, :, 2] = _headings(poses[i], futures[i, :, :2])
    plan = np.array([planar_pose(pose) for pose in msg.info.ego_plan.poses])
    plan = plan if len(plan) else np.zeros((HORIZON_STEPS, 3))
    stamp = stamp_ns(msg.header)
    return Truth(
        stamp_ns=stamp,
        ego=EgoState(stamp, planar_pose(msg.info.odom_from_base_link),
                     float(plan[0, 0] / TIME_STEP_S), float(plan[0, 2] / TIME_STEP_S)),
        ego_plan=EgoPlan(plan, PlanSource(int(msg.info.ego_plan.source))),
        ids=np.array([int.from_bytes(bytes(np.asarray(a.uuid, np.uint8)[:8]), 'big', signed=True)
                      for a in agents], dtype=np.int64),
        classes=np.array([a.classification - 1 for a in agents], dtype=np.int64),
        poses=poses,
        velocities=np.array([[a.twist.twist.linear.x, a.twist.twist.linear.y]
                             for a in agents]).reshape(n, 2),
        sizes=np.array([[a.size.x, a.size.y, a.size.z] for a in agents]).reshape(n, 3),
        futures=futures, pixels=np.zeros(n), silhouettes=np.zeros(n),
        visible=np.array([a.existence_probability >= 0.5 for a in agents], dtype=bool),
        road=np.zeros((3, *OUTPUT_GRID.shape), dtype=bool),
        observed=np.ones(OUTPUT_GRID.shape, dtype=bool))


def _headings(pose: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Return the heading (T,) at each waypoint (T, 2): that of the step that led to it."""
    headings = np.empty(len(future))
    here, heading = pose[:2], pose[2]
    for t, point in enumerate(future):
        step = point - here
        if np.hypot(*step) >= MIN_STEP_M:
            heading = np.arctan2(step[1], step[0])
            # A vehicle that reverses does not turn round.
            if abs(wrap_angle(heading - pose[2])) > 0.75 * np.pi:
                heading = wrap_angle(heading + np.pi)
        headings[t], here = heading, point
    return headings
