"""
Geometry of future camera frames: from where each will be taken, and what to look up for it.

A *view* is one camera at one step of the ego plan. For each of its pixels the decoder
(`wm_ros.model.frames`) follows the ray into the rolled-out scene and looks up what lies there in
the newest pictures. All that depends on calibration is worked out here, on the host, so that the
same graph serves any rig.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from wm_ros.geometry import invert, monotonic_radius, project
from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.types import CameraModel, CameraRig

#: Size of a predicted picture: half of the model's input.
HEIGHT, WIDTH = IMAGE_HEIGHT // 2, IMAGE_WIDTH // 2
#: Newest pictures that a view looks into: its own camera's, and the one that helps most.
SOURCES = 2
#: Numbers of a source camera: camera_from_base (3x4), fx, skew, cx, fy, cy, k1 k2 p1 p2 k3 k4 k5
#: k6, the largest undistorted radius, first and last row with a picture, 1 if there is a picture.
LENS = 12 + 5 + 8 + 4
#: How far away what is not ground is taken to be where nothing says otherwise.
FAR_M = 200.0


def rays(camera: CameraModel, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """
    Return unit directions (height, width, 3) in `base_link` of a model camera's pixels.

    Pixels are those of the input size, `height` x `width` of them: each stands for the mean of a
    block, and its direction is that of the block's middle.
    """
    u = (np.arange(width) + 0.5) * (camera.width / width) - 0.5
    v = (np.arange(height) + 0.5) * (camera.height / height) - 0.5
    pixels = np.stack(np.meshgrid(u, v), -1).reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)
    flat = cv2.undistortPoints(pixels, camera.k, np.array(camera.distortion or [0.0] * 4),
                               criteria=stop).reshape(-1, 2)
    # Beyond the monotonic range of a lens there is no ray; the nearest that exists stands in.
    limit = monotonic_radius(camera.distortion)
    radius = np.hypot(*flat.T)[:, None]
    flat = flat * np.minimum(1.0, limit / np.maximum(radius, 1e-9))
    directions = np.column_stack([flat, np.ones(len(flat))]) @ camera.base_from_camera[:3, :3].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions.reshape(height, width, 3).astype(np.float32)


def lens(camera: CameraModel, available: bool = True) -> np.ndarray:
    """Return the `LENS` numbers of a model camera."""
    distortion = np.zeros(8)
    distortion[:len(camera.distortion)] = camera.distortion
    k = camera.k
    rows = getattr(camera, 'rows', (0, IMAGE_HEIGHT))
    return np.concatenate([
        invert(camera.base_from_camera)[:3].reshape(-1),
        [k[0, 0], k[0, 1], k[0, 2], k[1, 1], k[1, 2]], distortion,
        [min(monotonic_radius(camera.distortion), 1e3), *rows, float(available)],
    ]).astype(np.float32)


def empty_world(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return where rays from (3,) along (..., 3) end if there is nothing but flat ground."""
    down = np.minimum(directions[..., 2], -1e-6)
    length = np.where(directions[..., 2] < 0, np.minimum(-origin[2] / down, FAR_M), FAR_M)
    return origin + length[..., None] * directions


def moved(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return points (..., 3) of `base_link` at a planned pose (x, y, yaw) in `base_link` now."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    x, y = points[..., 0], points[..., 1]
    return np.stack([c * x - s * y + pose[0], s * x + c * y + pose[1], points[..., 2]], -1)


class ViewGeometry:
    """Views of one rig of model cameras (`image.model_camera`)."""

    def __init__(self, rig: CameraRig) -> None:
        self.rig = rig
        self._rays = np.stack([rays(camera) for camera in rig.cameras])
        self._origins = np.stack([c.base_from_camera[:3, 3] for c in rig.cameras])
        # A few pixels are enough to find out which other camera helps.
        self._coarse = [empty_world(origin, rays(camera, 8, 20)) for camera, origin in
                        zip(rig.cameras, self._origins, strict=True)]

    def arrays(self, views: Sequence[tuple[int, int]], plan: np.ndarray, images: np.ndarray,
               available: Sequence[bool]) -> dict[str, np.ndarray]:
        """
        Return what the decoder needs of views (camera, step 1-6) under a plan (6, 3).

        `images` (N, 160, 400, 3) are the newest pictures. `step` (M,) int32, `rays` (M, 80, 200,
        3), `origin` (M, 3), `lens` (M, 2, 29) and `sources` (M, 2, 160, 400, 3) uint8.
        """
        lenses = np.stack([lens(camera, there) for camera, there in
                           zip(self.rig.cameras, available, strict=True)])
        chosen = np.array([[camera, self.helper(camera, plan[step - 1], available)]
                           for camera, step in views])
        cameras = [camera for camera, _ in views]
        looks = lenses[chosen]
        looks[:, 1, -1] *= chosen[:, 1] != chosen[:, 0]
        return {'step': np.array([step for _, step in views], np.int32),
                'rays': self._rays[cameras], 'lens': looks, 'sources': images[chosen],
                'origin': self._origins[cameras].astype(np.float32)}

    def helper(self, camera: int, pose: np.ndarray, available: Sequence[bool]) -> int:
        """Return the other camera that now sees most of what `camera` will see and does not."""
        points = moved(self._coarse[camera], pose)
        unseen = ~_sees(self.rig.cameras[camera], points)
        seen = [0 if i == camera or not available[i] else
                np.count_nonzero(unseen & _sees(other, points))
                for i, other in enumerate(self.rig.cameras)]
        return int(np.argmax(seen)) if max(seen) else camera


def _sees(camera: CameraModel, points: np.ndarray) -> np.ndarray:
    pixels, depth = project(camera, points)
    begin, end = getattr(camera, 'rows', (0, IMAGE_HEIGHT))
    return ((depth > 0.1) & (pixels[..., 0] > -0.5) & (pixels[..., 0] < IMAGE_WIDTH - 0.5)
            & (pixels[..., 1] > begin - 0.5) & (pixels[..., 1] < end - 0.5))
