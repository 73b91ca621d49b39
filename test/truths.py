"""Truths and forecasts with only what a test cares about filled in."""

import numpy as np

from wm_ros.types import (
    HORIZON_STEPS,
    MODES,
    OUTPUT_GRID,
    AgentForecast,
    CameraState,
    EgoPlan,
    EgoState,
    Forecast,
    PlanSource,
    Truth,
    WindowInfo,
)


def make_truth(poses, sizes=None, velocities=None, futures=None, classes=None, visible=None,
               ids=None, stamp_ns=0):
    """Return a `Truth` of cars (4.5 x 1.9 m) that stand still and are visible, unless told."""
    poses = np.asarray(poses, dtype=np.float64).reshape(-1, 3)
    n = len(poses)
    visible = np.ones(n, dtype=bool) if visible is None else np.asarray(visible, dtype=bool)
    velocities = np.zeros((n, 2)) if velocities is None else np.asarray(velocities, dtype=float)
    if futures is None:
        futures = np.repeat(poses[:, None], HORIZON_STEPS, axis=1)
        times = 0.5 * np.arange(1, HORIZON_STEPS + 1)
        futures[..., :2] += velocities[:, None] * times[:, None]
    return Truth(
        stamp_ns=stamp_ns,
        ego=EgoState(stamp_ns, np.zeros(3), 0.0, 0.0),
        ego_plan=EgoPlan(np.zeros((HORIZON_STEPS, 3)), PlanSource.GIVEN),
        ids=np.arange(n) if ids is None else np.asarray(ids),
        classes=np.zeros(n, dtype=np.int64) if classes is None else np.asarray(classes),
        poses=poses,
        velocities=velocities,
        sizes=np.tile([4.5, 1.9, 1.5], (n, 1)) if sizes is None else np.asarray(sizes, float),
        futures=np.asarray(futures, dtype=np.float64),
        pixels=np.where(visible, 500, 3),
        silhouettes=np.where(visible, 1.0, 0.0),
        visible=visible,
        road=np.ones((3, *OUTPUT_GRID.shape), dtype=bool),
        observed=np.ones(OUTPUT_GRID.shape, dtype=bool))


def make_agent(xy, score=0.9, yaw=0.0, velocity=(0.0, 0.0), trajectories=None, probabilities=None,
               size=(4.5, 1.9, 1.5), label=0, covariance_m2=0.25):
    """Return an `AgentForecast` at `xy`; all modes stand still unless told otherwise."""
    if trajectories is None:
        trajectories = np.broadcast_to(np.asarray(xy, dtype=float), (MODES, HORIZON_STEPS, 2))
    if probabilities is None:
        probabilities = np.full(MODES, 1 / MODES)
    classes = np.full(8, 0.01)
    classes[label] = 0.93
    return AgentForecast(
        track_id=bytes(16), score=score, class_probabilities=classes,
        pose=np.array([*xy, yaw], dtype=float), pose_covariance=np.eye(3) * 0.1,
        velocity_mps=np.asarray(velocity, dtype=float), twist_covariance=np.eye(2) * 0.1,
        size_m=np.asarray(size, dtype=float), trajectories_m=np.array(trajectories, dtype=float),
        mode_probabilities=np.asarray(probabilities, dtype=float),
        covariances_m2=np.tile(np.eye(2) * covariance_m2, (MODES, HORIZON_STEPS, 1, 1)))


def make_forecast(agents=(), occupancy=None, stamp_ns=0, valid=True, flow=None):
    """Return a valid `Forecast` of these agents over empty ground."""
    rows, cols = OUTPUT_GRID.shape
    steps = HORIZON_STEPS + 1
    if occupancy is None:
        occupancy = np.zeros((steps, rows, cols), dtype=np.uint8)
    window = WindowInfo(16, 0, 0, 1.0, 100_000_000, 1_500_000_000, True,
                        {'front': CameraState.OK})
    return Forecast(
        stamp_ns=stamp_ns, valid=valid, reasons=() if valid else ('window: 3 of 16',),
        window=window, ego_plan=EgoPlan(np.zeros((HORIZON_STEPS, 3)), PlanSource.GIVEN),
        odom_from_base=np.zeros(3), agents=tuple(agents), occupancy_agents=occupancy,
        occupancy_static=np.zeros((rows, cols), dtype=np.uint8),
        flow=np.zeros((steps, 2, rows, cols), np.float32) if flow is None else flow,
        road=np.zeros((3, rows, cols), dtype=np.uint8))
