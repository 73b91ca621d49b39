"""Forecasts back from their messages: of a bag, or of a node that runs elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_ros.messages import duration_ns, planar_pose, stamp_ns
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    AgentForecast,
    CameraState,
    EgoPlan,
    Forecast,
    PlanSource,
    WindowInfo,
)


def _info_fields(msg: Any) -> dict[str, Any]:
    """Return the fields of `Forecast` that a ForecastInfo holds."""
    info, window = msg.info, msg.info.window
    poses = np.array([planar_pose(pose) for pose in info.ego_plan.poses])
    return {
        'stamp_ns': stamp_ns(msg.header), 'valid': bool(info.valid),
        'reasons': tuple(info.invalid_reasons),
        'window': WindowInfo(
            frames_used=int(window.frames_used), frames_missing=int(window.frames_missing),
            frames_partial=int(window.frames_partial),
            max_gap_periods=float(window.max_gap_periods), period_ns=duration_ns(window.period),
            span_ns=duration_ns(window.span), odometry=bool(window.odometry),
            cameras={name: CameraState(int(state)) for name, state in
                     zip(window.cameras, window.camera_states, strict=True)}),
        'ego_plan': EgoPlan(poses if len(poses) else np.zeros((HORIZON_STEPS, 3)),
                            PlanSource(int(info.ego_plan.source))),
        'odom_from_base': planar_pose(info.odom_from_base_link) if info.odom_known else None,
        'model_hash': info.model_hash,
        'precision': dict(entry.split('=', 1) for entry in info.precision),
    }


def agents_from_message(msg: Any) -> tuple[AgentForecast, ...]:
    """
    Return the agents of a wm_ros/AgentForecastArray, in the frame of its header.

    Arrays have as many modes and steps as the message holds: K and T need not be those of the
    node (the truth of a simulated drive has one mode).
    """
    agents = []
    rows = np.array([0, 1, 5])
    for agent in msg.agents:
        modes, steps = len(agent.modes), int(msg.steps)
        waypoints = np.array([np.asarray(mode.waypoints) for mode in agent.modes], np.float32)
        spread = np.array([np.asarray(mode.covariances) for mode in agent.modes], np.float32)
        spread = spread.reshape(modes, steps, 3)[..., [0, 1, 1, 2]].reshape(modes, steps, 2, 2)
        covariance = np.asarray(agent.pose.covariance).reshape(6, 6)
        linear = agent.twist.twist.linear
        agents.append(AgentForecast(
            track_id=bytes(np.asarray(agent.uuid, np.uint8)),
            score=float(agent.existence_probability),
            class_probabilities=np.array(agent.class_probabilities, np.float32),
            pose=planar_pose(agent.pose.pose), pose_covariance=covariance[np.ix_(rows, rows)],
            velocity_mps=np.array([linear.x, linear.y]),
            twist_covariance=np.asarray(agent.twist.covariance).reshape(6, 6)[:2, :2].copy(),
            size_m=np.array([agent.size.x, agent.size.y, agent.size.z]),
            trajectories_m=waypoints.reshape(modes, steps, 2),
            mode_probabilities=np.array([mode.probability for mode in agent.modes], np.float32),
            covariances_m2=spread))
    return tuple(agents)


def forecast_from_messages(agents: Any, occupancy: Any, flow: Any = None) -> Forecast:
    """
    Return the forecast that the messages of one stamp describe, in the frame of their header.

    Raises ValueError where the stamps differ or the grid is not `OUTPUT_GRID`. Without a flow
    message the flow is zero. The static obstacle layer is not in the messages: where the ground is
    neither drivable nor walkway, it is part of `occupancy_static`, which stands in for it.
    """
    stamps = {stamp_ns(msg.header) for msg in (agents, occupancy, flow) if msg is not None}
    if len(stamps) != 1:
        raise ValueError(f'messages of one forecast: want one stamp, got {sorted(stamps)}')
    shape = (occupancy.grid.height, occupancy.grid.width)
    if shape != OUTPUT_GRID.shape:
        raise ValueError(f'occupancy grid: want {OUTPUT_GRID.shape}, got {shape}')
    steps = len(occupancy.times_from_start)
    static = np.asarray(occupancy.static_ground, np.uint8).reshape(shape)
    road = np.stack([np.asarray(layer, np.uint8).reshape(shape) for layer in
                     (occupancy.drivable, occupancy.walkway, occupancy.static_ground)])
    vectors = np.zeros((steps, 2, *shape), np.float32)
    if flow is not None:
        for axis, units in enumerate((flow.dx, flow.dy)):
            vectors[:, axis] = np.asarray(units, np.int8).reshape(steps, *shape)
        vectors *= np.float32(flow.metres_per_unit)
    return Forecast(
        agents=agents_from_message(agents),
        occupancy_agents=np.asarray(occupancy.agents, np.uint8).reshape(steps, *shape),
        occupancy_static=static, flow=vectors, road=road, **_info_fields(agents))
