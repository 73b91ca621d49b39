"""Camera rigs: fixed ones for benchmark and demo, random ones for training."""

from __future__ import annotations

import numpy as np

from wm_ros.geometry import camera_pose
from wm_ros.types import CameraModel, CameraRig

# name, x, y, z (m in base_link), yaw (degrees)
_SURROUND = (
    ('front', 1.70, 0.02, 1.51, 0.0),
    ('front_left', 1.52, 0.49, 1.51, 55.0),
    ('front_right', 1.55, -0.49, 1.50, -56.0),
    ('back', 0.03, 0.00, 1.57, 180.0),
    ('back_left', 1.04, 0.48, 1.56, 108.0),
    ('back_right', 1.01, -0.48, 1.56, -110.0),
)


def pinhole(name: str, width: int, height: int, hfov_deg: float, xyz_m: tuple, yaw: float,
            pitch: float = 0.0, roll: float = 0.0, horizon: float = 0.5,
            distortion: tuple[float, ...] = ()) -> CameraModel:
    """Return a camera of horizontal field of view `hfov_deg`; `horizon` is cy / height."""
    f = width / 2 / np.tan(np.deg2rad(hfov_deg) / 2)
    k = np.array([[f, 0, (width - 1) / 2], [0, f, horizon * (height - 1)], [0, 0, 1.0]])
    return CameraModel(name, width, height, k,
                       camera_pose(np.asarray(xyz_m, float), yaw, pitch, roll), distortion)


def rig(name: str) -> CameraRig:
    """
    Return a fixed rig: `surround` (six 1600x900 cameras), `front` (one), `kitti` (1242x375).

    The surround rig has 70 degree cameras all round and a 110 degree one to the back, placed
    like those of nuScenes (Caesar et al. 2020).
    """
    if name == 'surround':
        return CameraRig(tuple(
            pinhole(n, 1600, 900, 110.0 if n == 'back' else 70.0, (x, y, z), np.deg2rad(yaw))
            for n, x, y, z, yaw in _SURROUND), name)
    if name == 'front':
        return CameraRig((pinhole('front', 1600, 900, 70.0, (1.70, 0.0, 1.51), 0.0),), name)
    if name == 'kitti':
        k = np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1.0]])
        return CameraRig((CameraModel(
            'image_02', 1242, 375, k, camera_pose(np.array([1.0, 0.0, 1.65]), 0.0)),), name)
    raise ValueError(f'rig: want surround, front or kitti, got {name!r}')


def random_rig(rng: np.random.Generator, cameras: int) -> CameraRig:
    """
    Return a random rig of `cameras` (1-6) cameras of 1600x900 for training.

    The cameras look round the vehicle roughly evenly, from a random start (one camera mostly
    forwards); height, pitch, roll, focal length and sometimes distortion vary.
    """
    if not 1 <= cameras <= 6:
        raise ValueError(f'cameras: want 1 to 6, got {cameras}')
    height = rng.uniform(1.2, 2.2)
    pitch = np.deg2rad(rng.uniform(-3, 3))
    forward = rng.random() < 0.6
    start = rng.normal(0, np.deg2rad(8)) if forward else rng.uniform(-np.pi, np.pi)
    spread = np.deg2rad(rng.uniform(50, 62)) if rng.random() < 0.7 else 2 * np.pi / cameras
    hfov = rng.uniform(52, 100)
    wide = rng.random() < 0.4
    distorted = rng.random() < 0.3
    out = []
    for i in range(cameras):
        yaw = start + (i + 1) // 2 * (spread if i % 2 else -spread) + rng.normal(0, 0.04)
        angle = hfov + rng.normal(0, 2)
        if wide and i == cameras - 1 and cameras > 1:
            angle = rng.uniform(95, 115)
        radius = rng.uniform(0.2, 1.0)
        xyz = (0.9 + radius * np.cos(yaw), 0.6 * radius * np.sin(yaw),
               height + rng.normal(0, 0.05))
        distortion: tuple[float, ...] = ()
        if distorted and angle < 90:
            k1 = rng.uniform(-0.12, 0.02)
            distortion = (k1, -0.2 * k1, rng.normal(0, 5e-4), rng.normal(0, 5e-4), 0.0)
        out.append(pinhole(
            f'cam{i}', 1600, 900, float(np.clip(angle, 45, 115)), xyz, yaw,
            float(np.clip(pitch + np.deg2rad(rng.normal(0, 0.5)), -0.0524, 0.0524)),
            np.deg2rad(np.clip(rng.normal(0, 0.6), -1.5, 1.5)),
            rng.uniform(0.42, 0.58), distortion))
    return CameraRig(tuple(out), 'random')
