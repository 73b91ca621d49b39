"""Small bags and forecasts for tests: everything filled in, nothing simulated."""

from collections import defaultdict
from dataclasses import fields, is_dataclass

import numpy as np

from wm_ros.geometry import camera_pose
from wm_ros.types import (
    HORIZON_STEPS,
    MODES,
    OUTPUT_GRID,
    AgentForecast,
    CameraModel,
    CameraRig,
    CameraState,
    EgoPlan,
    Forecast,
    PlanSource,
    WindowInfo,
)

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


def small_rig(names=('front', 'back')):
    """Return a rig of 160x90 cameras that look ahead and back."""
    k = np.array([[114.0, 0.0, 79.5], [0.0, 114.0, 44.5], [0.0, 0.0, 1.0]])
    return CameraRig(tuple(
        CameraModel(name, 160, 90, k, camera_pose(np.array([1.0, 0.1 * i, 1.5]), i * np.pi, 0.02),
                    (-0.1, 0.02, 0.001, -0.001, 0.0) if i else ())
        for i, name in enumerate(names)), 'small')


def by_topic(path):
    """Return the messages of a bag as they lie in it: (time, bytes) by topic."""
    from wm_ros.data.bag import BagReader

    found = defaultdict(list)
    with BagReader(path) as reader:
        for topic, _, time_ns, data in reader.raw():
            found[topic].append((time_ns, bytes(data)))
    return found


def rich_agent(rng, track=1, xy=(8.0, 2.0)):
    """Return an agent whose every field differs from its default."""
    spread = rng.normal(size=(MODES, HORIZON_STEPS, 2, 2)) * 0.2
    classes = rng.dirichlet(np.ones(8))
    modes = np.sort(rng.dirichlet(np.ones(MODES)))[::-1]
    steps = rng.normal(size=(MODES, HORIZON_STEPS, 2)) * 0.3 + np.array([0.5, 0.1])
    return AgentForecast(
        track_id=bytes([track] * 16), score=float(rng.uniform(0.3, 1)),
        class_probabilities=classes.astype(np.float32), pose=np.array([*xy, 0.4]),
        pose_covariance=np.array([[0.4, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.02]]),
        velocity_mps=np.array([1.5, -0.5]), twist_covariance=np.array([[0.2, 0.05], [0.05, 0.1]]),
        size_m=np.array([4.4, 1.8, 1.6]),
        trajectories_m=(np.cumsum(steps, axis=1) + np.asarray(xy)).astype(np.float32),
        mode_probabilities=modes.astype(np.float32),
        covariances_m2=(spread @ np.swapaxes(spread, -1, -2)).astype(np.float32))


def rich_forecast(stamp_ns=START_NS, seed=0, valid=True, odometry=True):
    """Return a forecast of three agents with all layers filled."""
    rng = np.random.default_rng(seed)
    shape = OUTPUT_GRID.shape
    codes = rng.integers(0, 255, (HORIZON_STEPS + 1, *shape)).astype(np.uint8)
    static = rng.integers(0, 255, shape).astype(np.uint8)
    hidden = rng.random(shape) < 0.2
    codes[:, hidden] = 255
    static[hidden] = 255
    road = rng.integers(0, 255, (3, *shape)).astype(np.uint8)
    road[2] = static
    flow = rng.integers(-100, 100, (HORIZON_STEPS + 1, 2, *shape)) * 0.125
    return Forecast(
        stamp_ns=stamp_ns, valid=valid, reasons=() if valid else ('camera back: missing',),
        window=WindowInfo(15, 1, 2, 2.0, PERIOD_NS, 15 * PERIOD_NS, odometry,
                          {'front': CameraState.OK, 'back': CameraState.BLACK}),
        ego_plan=EgoPlan(np.array([[i + 1.0, 0.1 * i, 0.02 * i] for i in range(HORIZON_STEPS)]),
                         PlanSource.CONSTANT_TURN_RATE if odometry else PlanSource.NONE),
        odom_from_base=np.array([100.0, -20.0, 1.2]) if odometry else None,
        agents=tuple(rich_agent(rng, i + 1, (8.0 + 6 * i, 2.0 - 3 * i)) for i in range(3)),
        occupancy_agents=codes, occupancy_static=static, flow=flow.astype(np.float32), road=road,
        model_hash='ab' * 32, precision={'encode': 'i8', 'fold': 'f32', 'rollout': 'f32'})


def jpeg(width=160, height=90, shade=120):
    """Return a JPEG of a gradient."""
    import cv2
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    picture[..., 2] = shade
    return cv2.imencode('.jpg', picture)[1].tobytes()


def forecast_near(truth, rng=None):
    """Return a forecast that a good model would make: the truth with noise, and six modes."""
    from wm_ros import raster
    rng = rng or np.random.default_rng(truth.stamp_ns % 2**32)
    agents = []
    for i in np.flatnonzero(truth.visible):
        pose = truth.poses[i] + rng.normal(0, [0.3, 0.3, 0.03])
        times = 0.5 * np.arange(1, HORIZON_STEPS + 1)[:, None]
        paths = np.repeat((pose[:2] + truth.velocities[i] * times)[None], MODES, axis=0)
        if np.isfinite(truth.futures[i]).all():
            paths[0] = truth.futures[i, :, :2] + rng.normal(0, 0.2, (HORIZON_STEPS, 2))
        for k in range(1, MODES):
            paths[k] += rng.normal(0, 0.5, 2) * times
        classes = np.full(8, 0.02, np.float32)
        classes[truth.classes[i]] = 0.86
        agents.append(AgentForecast(
            track_id=int(truth.ids[i]).to_bytes(16, 'little', signed=True),
            score=float(rng.uniform(0.5, 1)), class_probabilities=classes, pose=pose,
            pose_covariance=np.eye(3) * 0.1, velocity_mps=truth.velocities[i],
            twist_covariance=np.eye(2) * 0.1, size_m=truth.sizes[i], trajectories_m=paths,
            mode_probabilities=np.array([0.5, 0.2, 0.12, 0.1, 0.05, 0.03], np.float32),
            covariances_m2=np.tile(np.diag([0.4, 0.15]), (MODES, HORIZON_STEPS, 1, 1))
            * np.arange(1, HORIZON_STEPS + 1)[:, None, None]))
    import cv2
    hidden = ~truth.observed
    occupancy = np.stack([cv2.GaussianBlur(raster.agent_occupancy(
        truth, step, agents=truth.visible).astype(np.float32), (0, 0), 0.8 + 0.3 * step)
        for step in range(HORIZON_STEPS + 1)])
    codes = np.rint(np.clip(occupancy, 0, 1) * 254).astype(np.uint8)
    road = (truth.road * 254).astype(np.uint8)
    static = road[2].copy()
    codes[:, hidden] = static[hidden] = 255
    road[:, hidden] = 255
    return Forecast(
        stamp_ns=truth.stamp_ns, valid=True, reasons=(),
        window=WindowInfo(16, 0, 0, 1.0, PERIOD_NS, 15 * PERIOD_NS, True, {}),
        ego_plan=truth.ego_plan, odom_from_base=truth.ego.odom_from_base, agents=tuple(agents),
        occupancy_agents=codes, occupancy_static=static,
        flow=np.zeros((HORIZON_STEPS + 1, 2, *OUTPUT_GRID.shape), np.float32), road=road,
        model_hash='cd' * 32, precision={'encode': 'i8', 'fold': 'f32', 'rollout': 'i8'})


def recording(frames=24, cameras=('front', 'back'), width=160, height=90, noise=False):
    """
    Yield (topic, time, message, latched) of a drive straight on at 10 m/s, a set every 100 ms.

    Pictures differ from set to set; with `noise` nothing can be packed any smaller.
    """
    from wm_ros.data.messages import bag_types, typestore
    from wm_ros.data.sim_bag import (
        camera_info_message,
        odometry_message,
        optical_frame,
        scaled,
        static_transforms,
    )
    from wm_ros.types import EgoState

    rig, types, known = scaled(small_rig(cameras), width), bag_types(), typestore().types
    yield '/tf_static', START_NS, static_transforms(rig, START_NS), True
    for i in range(frames):
        stamp = START_NS + i * PERIOD_NS
        yield '/odometry', stamp, odometry_message(
            EgoState(stamp, np.array([1.0 * i, 2.0, 0.5]), 10.0, 0.1)), False
        for k, camera in enumerate(rig.cameras):
            header = types.header(stamp, optical_frame(camera.name))
            yield f'/{camera.name}/camera_info', stamp, camera_info_message(camera, header), False
            picture = noisy_jpeg(i * 8 + k, width, height) if noise else jpeg(
                width, height, 40 + (i * 7 + k * 50) % 160)
            yield f'/{camera.name}/image_raw/compressed', stamp, known[
                'sensor_msgs/msg/CompressedImage'](
                    header=header, format='jpeg', data=np.frombuffer(picture, np.uint8)), False


def noisy_jpeg(seed, width=160, height=90):
    """Return a JPEG of noise."""
    import cv2
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    return cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def write_recording(path, items, storage='mcap', compress=False):
    """Write what `recording` yields, or what a test made of it."""
    from wm_ros.data.bag import BagWriter
    with BagWriter(path, storage, compress) as writer:
        for topic, time_ns, msg, latched in items:
            writer.write(topic, time_ns, msg, latched)
    return path


def differences(a, b, path=''):
    """Return where two messages differ; arrays have to be equal to the byte."""
    if is_dataclass(a):
        return [found for entry in fields(a) for found in differences(
            getattr(a, entry.name), getattr(b, entry.name), f'{path}.{entry.name}')]
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return [] if same else [path]
    if isinstance(a, list):
        if len(a) != len(b):
            return [f'{path}: {len(a)} and {len(b)} entries']
        return [found for i, (x, y) in enumerate(zip(a, b, strict=True))
                for found in differences(x, y, f'{path}[{i}]')]
    return [] if a == b else [f'{path}: {a} and {b}']
