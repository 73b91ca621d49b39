"""
Drives for learning to see ahead: one window of a whole rig, and its pictures up to 3 s later.

A *future clip* is rendered once and needs no weights. A *scene* is what a frozen artifact makes of
it, beside the newest pictures and the later ones at low resolution. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from wm_ros.frames import HEIGHT, WIDTH
from wm_ros.lift import lift_tables
from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.sim.drive import simulate
from wm_ros.sim.render import Renderer
from wm_ros.train.clips import window_motion
from wm_ros.train.samples import Encode, drive_setting, pictures_of, to_jpeg
from wm_ros.types import HORIZON_STEPS, TIME_STEP_S, WINDOW_FRAMES, CameraModel, CameraRig

RATE_HZ = 10.0
#: Frames from one predicted picture to the next.
STRIDE = round(TIME_STEP_S * RATE_HZ)
#: Rolls out what 16 cached maps (16, C, R, R), now_from_frame (16, 3), the newest map (C, R, R),
#: the plan (6, 3) and the ego motion (2,) tell: maps (6, C, R, R) and drift (6, 2, S, S).
Roll = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
                tuple[np.ndarray, np.ndarray]]


def future_clip(seed: int) -> dict[str, np.ndarray]:
    """
    Render a window of 16 frames and the pictures of every half second of the next 3 s.

    `jpeg`, `jpeg_bytes` (22, N), `index` and `weight` as in `samples.drive_clip`; `poses` (16, 3)
    odometry of the window; `plan` (6, 3) and `motion` (2,) of its newest frame; `k` (N, 3, 3),
    `base_from_camera` (N, 4, 4) and `distortion` (N, 8) of the cameras.
    """
    rig, world = drive_setting(seed)
    newest = WINDOW_FRAMES - 1
    wanted = [*range(WINDOW_FRAMES),
              *range(newest + STRIDE, newest + HORIZON_STEPS * STRIDE + 1, STRIDE)]
    drive = simulate(seed, (wanted[-1] + 1) / RATE_HZ, world, rate_hz=RATE_HZ)
    renderer = Renderer(drive, rig, seed)
    index, weight = lift_tables(rig, [True] * len(rig))
    pictures = []
    for i in wanted:
        images = renderer.render(i).images
        pictures += [to_jpeg(images[name]) for name in rig.names]
    ego = drive.ego(newest)
    return {'index': index, 'weight': weight, 'jpeg': np.concatenate(pictures),
            'jpeg_bytes': np.array([len(p) for p in pictures]).reshape(len(wanted), len(rig)),
            'poses': np.stack([drive.ego(i).odom_from_base for i in range(WINDOW_FRAMES)]),
            'plan': drive.ego_plan(newest).poses.astype(np.float32),
            'motion': np.array([ego.speed_mps, ego.yaw_rate_rps], np.float32),
            **rig_arrays(rig)}


def rig_arrays(rig: CameraRig) -> dict[str, np.ndarray]:
    """Return the calibration of a rig of model cameras as arrays."""
    distortion = np.zeros((len(rig), 8))
    for row, camera in zip(distortion, rig.cameras, strict=True):
        row[:len(camera.distortion)] = camera.distortion
    return {'k': np.stack([camera.k for camera in rig.cameras]), 'distortion': distortion,
            'base_from_camera': np.stack([c.base_from_camera for c in rig.cameras])}


def rig_of(clip: dict[str, np.ndarray]) -> CameraRig:
    """Return the cameras of a clip or scene."""
    return CameraRig(tuple(
        CameraModel(f'camera_{i}', IMAGE_WIDTH, IMAGE_HEIGHT, k, pose, tuple(distortion))
        for i, (k, pose, distortion) in enumerate(zip(
            clip['k'], clip['base_from_camera'], clip['distortion'], strict=True))))


def scene(clip: dict[str, np.ndarray], encode: Encode, roll: Roll) -> dict[str, np.ndarray]:
    """
    Encode and roll out a future clip.

    `maps` (6, C, R, R) and `drift` (6, 2, S, S) float16 as `wm_ros.model.frames.scene_maps`, `now`
    (N, 160, 400, 3) and `later` (6, N, 80, 200, 3) pictures, and what the clip says of the ego
    vehicle and the cameras.
    """
    memory, later = [], []
    now, skip = np.zeros(0), np.zeros(0)
    for i, images in enumerate(pictures_of(clip)):
        if i < WINDOW_FRAMES:
            frame_memory, frame_skip = encode(images, clip['index'], clip['weight'])
            memory.append(np.array(frame_memory))
            now, skip = images, np.array(frame_skip)
        else:
            later.append(np.stack([lowered(image) for image in images]))
    maps, drift = roll(np.stack(memory), window_motion(clip['poses'], WINDOW_FRAMES - 1), skip,
                       clip['plan'], clip['motion'])
    kept = ('plan', 'motion', 'k', 'base_from_camera', 'distortion')
    return {'maps': maps.astype(np.float16), 'drift': drift.astype(np.float16), 'now': now,
            'later': np.stack(later), **{key: clip[key] for key in kept}}


def lowered(image: np.ndarray) -> np.ndarray:
    """Return a picture (160, 400, 3) at the size that is predicted: means of 2x2 pixels."""
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
