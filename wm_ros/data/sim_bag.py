"""
A simulated drive as a bag: what a vehicle's recorder would have kept, and the truth beside it.

Rendering runs in worker processes; a drive is a function of its seed, so each worker simulates it
itself and renders every frame that it is given, in any order.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.bag import TRUTH_TOPIC, BagWriter
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.render_cache import code_version
from wm_ros.data.truth import truth_message
from wm_ros.geometry import wrap_angle
from wm_ros.types import CameraModel, CameraRig, EgoState, Truth

ODOMETRY_RATE_HZ = 50
SECOND_NS = 1_000_000_000
#: Sets that each process may be ahead of the writer, which bounds the memory.
AHEAD = 4


@dataclass(frozen=True)
class DriveSettings:
    """What a simulated drive is made from; equal settings give equal bags."""

    seed: int
    seconds: float
    rig: str = 'surround'
    world: str = 'sim'
    quality: int = 90
    rate_hz: float = 10.0
    width: int = 0      # 0: the rig's own

    def text(self) -> str:
        """Return the settings in one line, as the bag's notes hold them."""
        return ' '.join(f'{name}={value}' for name, value in vars(self).items())


def scaled(rig: CameraRig, width: int) -> CameraRig:
    """Return the rig with all pictures scaled to `width` pixels (0: as they are)."""
    if not width:
        return rig
    cameras = []
    for camera in rig.cameras:
        height = round(camera.height * width / camera.width)
        sx, sy = width / camera.width, height / camera.height
        k = camera.k.copy()
        # Pixel centres lie at integers, so that u' = s * (u + 0.5) - 0.5.
        k[0] *= sx
        k[1] *= sy
        k[0, 2] += 0.5 * sx - 0.5
        k[1, 2] += 0.5 * sy - 0.5
        cameras.append(CameraModel(camera.name, width, height, k, camera.base_from_camera,
                                   camera.distortion))
    return CameraRig(tuple(cameras), rig.name)


def write_drive(path: Path | str, settings: DriveSettings, storage: str = 'mcap',
                workers: int = 2, progress: Callable[[int, int], None] | None = None) -> int:
    """
    Simulate, render and write a drive; return the number of camera sets in it.

    Topics: <camera>/image_raw/compressed, <camera>/camera_info, /odometry at 50 Hz, /tf_static,
    /truth/agents. `progress` is called with (sets done, sets in all).
    """
    from wm_ros.sim.drive import simulate
    from wm_ros.sim.rigs import rig as rig_of

    rig = scaled(rig_of(settings.rig), settings.width)
    drive = simulate(settings.seed, settings.seconds, settings.world, settings.rate_hz)
    stamps = [int(stamp) for stamp in drive.stamps_ns]
    types, store = bag_types(), typestore()
    odometry = _odometry_states([drive.ego(i) for i in range(drive.n)], stamps)
    with BagWriter(path, storage) as writer:
        writer.note('simulated', settings.text())
        writer.note('simulator', code_version())
        writer.note('cameras', ' '.join(rig.names))
        writer.write('/tf_static', stamps[0], static_transforms(rig, stamps[0]), latched=True)
        for i, (pictures, truth) in enumerate(_rendered(settings, drive.n, workers)):
            while odometry and odometry[0].stamp_ns <= stamps[i]:
                state = odometry.pop(0)
                writer.write('/odometry', state.stamp_ns, odometry_message(state))
            for camera in rig.cameras:
                header = types.header(stamps[i], optical_frame(camera.name))
                writer.write(f'/{camera.name}/camera_info', stamps[i],
                             camera_info_message(camera, header))
                writer.write(f'/{camera.name}/image_raw/compressed', stamps[i],
                             store.types['sensor_msgs/msg/CompressedImage'](
                                 header=header, format='jpeg',
                                 data=np.frombuffer(pictures[camera.name], np.uint8)))
            writer.write(TRUTH_TOPIC, stamps[i], truth_message(types, truth, rig.names))
            if progress:
                progress(i + 1, drive.n)
    return drive.n


def leaves_road_s(settings: DriveSettings) -> float | None:
    """Return the second of a drive from which on the ego vehicle is off its road, None for none."""
    from wm_ros.sim.drive import simulate
    from wm_ros.sim.furniture import classes_at
    from wm_ros.sim.roads import DRIVABLE

    drive = simulate(settings.seed, settings.seconds, settings.world, settings.rate_hz)
    places = np.array([drive.base_at(drive.time_s(i))[:2] for i in range(drive.n)])
    off = np.flatnonzero((classes_at(drive.layout, places) & DRIVABLE) == 0)
    return float(off[0] / settings.rate_hz) if len(off) else None


def optical_frame(camera: str) -> str:
    """Return the frame id of a camera's pictures."""
    return f'{camera}_optical_frame'


class _Worker:
    """One process's drive and renderer, made once."""

    def __init__(self, settings: DriveSettings) -> None:
        from wm_ros.sim.drive import simulate
        from wm_ros.sim.render import Renderer
        from wm_ros.sim.rigs import rig as rig_of

        self.quality = settings.quality
        self.rig = scaled(rig_of(settings.rig), settings.width)
        self.drive = simulate(settings.seed, settings.seconds, settings.world, settings.rate_hz)
        self.renderer = Renderer(self.drive, self.rig, settings.seed)

    def frame(self, i: int) -> tuple[dict[str, bytes], Truth]:
        rendered = self.renderer.render(i)
        pictures = {}
        for name, image in rendered.images.items():
            done, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                      [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            if not done:
                raise RuntimeError(f'camera {name}: the JPEG encoder refused {image.shape}')
            pictures[name] = data.tobytes()
        return pictures, self.drive.truth(i, self.rig, rendered)


_worker: _Worker | None = None


def _start_worker(settings: DriveSettings) -> None:
    global _worker
    cv2.setNumThreads(1)
    _worker = _Worker(settings)


def _frame(i: int) -> tuple[dict[str, bytes], Truth]:
    return _worker.frame(i)


def _rendered(settings: DriveSettings, n: int,
              workers: int) -> Iterator[tuple[dict[str, bytes], Truth]]:
    """Yield pictures and truth of all instants, in order."""
    if workers < 2:
        worker = _Worker(settings)
        yield from (worker.frame(i) for i in range(n))
        return
    # Forked workers would share locks with whatever threads this process runs. An executor, not a
    # Pool: where a worker is killed, a Pool waits for ever.
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _start_worker,
                             (settings,)) as pool:
        waiting = deque(pool.submit(_frame, i) for i in range(min(n, AHEAD * workers)))
        for i in range(n):
            try:
                result = waiting.popleft().result()
            except BrokenProcessPool as err:
                raise RuntimeError(f'a rendering process died at set {i} of {n}') from err
            if i + AHEAD * workers < n:
                waiting.append(pool.submit(_frame, i + AHEAD * workers))
            yield result


def _odometry_states(states: list[EgoState], stamps: list[int]) -> list[EgoState]:
    """Return the ego motion at 50 Hz, exact at the given stamps and interpolated between them."""
    poses = np.array([state.odom_from_base for state in states])
    yaw = np.unwrap(poses[:, 2])
    times = np.array(stamps, dtype=np.int64)
    wanted = np.arange(times[0], times[-1] + 1, SECOND_NS // ODOMETRY_RATE_HZ)
    wanted = np.unique(np.concatenate([wanted, times]))
    # Stamps of the pictures that fall between two ticks would double a sample.
    after = np.searchsorted(times, wanted).clip(1, max(1, len(times) - 1))
    apart = np.minimum(*(np.abs(wanted - times[at.clip(0, len(times) - 1)])
                         for at in (after - 1, after)))
    keep = (apart == 0) | (apart >= SECOND_NS // ODOMETRY_RATE_HZ // 2)
    wanted = wanted[keep]
    relative = (wanted - times[0]) / 1e9
    known = (times - times[0]) / 1e9
    columns = [np.interp(relative, known, values) for values in (
        poses[:, 0], poses[:, 1], yaw, [s.speed_mps for s in states],
        [s.yaw_rate_rps for s in states])]
    return [EgoState(int(stamp), np.array([x, y, float(wrap_angle(a))]), float(v), float(w))
            for stamp, x, y, a, v, w in zip(wanted, *columns, strict=True)]


def odometry_message(state: EgoState) -> Any:
    """Return a nav_msgs/Odometry of one ego state."""
    types, known = bag_types(), typestore().types
    covariance = np.diag([1e-4, 1e-4, 0.0, 0.0, 0.0, 1e-6]).reshape(-1)
    return known['nav_msgs/msg/Odometry'](
        header=types.header(state.stamp_ns, 'odom'), child_frame_id='base_link',
        pose=types.PoseWithCovariance(pose=types.pose(*state.odom_from_base),
                                      covariance=covariance),
        twist=types.TwistWithCovariance(
            twist=types.Twist(linear=types.vector(state.speed_mps, 0.0),
                              angular=types.vector(0.0, 0.0, state.yaw_rate_rps)),
            covariance=covariance.copy()))


def camera_info_message(camera: CameraModel, header: Any) -> Any:
    """Return a sensor_msgs/CameraInfo of one camera, pictures not rectified."""
    known = typestore().types
    size = 8 if len(camera.distortion) > 5 else 5
    distortion = np.zeros(size)
    distortion[:len(camera.distortion)] = camera.distortion
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.k
    return known['sensor_msgs/msg/CameraInfo'](
        header=header, height=camera.height, width=camera.width,
        distortion_model='plumb_bob' if size == 5 else 'rational_polynomial', d=distortion,
        k=np.ascontiguousarray(camera.k, np.float64).reshape(-1), r=np.eye(3).reshape(-1),
        p=projection.reshape(-1), binning_x=0, binning_y=0,
        roi=known['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False))


def static_transforms(rig: CameraRig, stamp: int) -> Any:
    """Return the tf2_msgs/TFMessage of all cameras in base_link."""
    types = bag_types()
    transforms = []
    for camera in rig.cameras:
        x, y, z, w = quaternion_from_rotation(camera.base_from_camera[:3, :3])
        transforms.append(types.TransformStamped(
            header=types.header(stamp, 'base_link'), child_frame_id=optical_frame(camera.name),
            transform=types.Transform(
                translation=types.vector(*camera.base_from_camera[:3, 3]),
                rotation=types.Quaternion(x=x, y=y, z=z, w=w))))
    return typestore().types['tf2_msgs/msg/TFMessage'](transforms=transforms)


def quaternion_from_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """
    Return the ROS quaternion (x, y, z, w) of a 3x3 rotation.

    It is the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix (J. Guidance, 2000),
    which has no special cases.
    """
    m = rotation
    matrix = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
        [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
        [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
    ]) / 3
    _, vectors = np.linalg.eigh(matrix)     # reads the lower triangle
    q = vectors[:, -1]
    q = q if q[3] >= 0 else -q
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])
