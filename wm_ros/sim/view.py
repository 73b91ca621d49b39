"""One camera of the simulator: what stays over a drive, and its projection at one instant."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.lens import Grain, Lens
from wm_ros.types import CameraModel

NEAR_M = 0.25


class View:
    """
    One camera at one instant: the canvas and the projection into it.

    `matrix` (3, 4) maps layout points to canvas pixels; `position` is the lens in the layout;
    `beam` is true where the ego's headlights shine on what the camera sees.
    """

    def __init__(self, canvas: np.ndarray, matrix: np.ndarray, position: np.ndarray,
                 focal: float, fog_per_m: float, fog: np.ndarray, beam: bool = False) -> None:
        self.canvas, self.matrix, self.position = canvas, matrix, position
        self.focal, self.fog_per_m, self.fog, self.beam = focal, fog_per_m, fog, beam
        self.height, self.width = canvas.shape[:2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (..., 2) and depth (...,) of layout points (..., 3)."""
        p = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        z = p[..., 2]
        return p[..., :2] / np.where(np.abs(z) < 1e-6, 1e-6, z)[..., None], z

    def haze(self, depth: float) -> float:
        return 1.0 - float(np.exp(-self.fog_per_m * depth))

    def headlights(self, distance):
        """Return by how much the ego's headlights brighten things at a distance, 1 for none."""
        return 1 + 2.2 * np.exp(-((distance - 9) / 11)**2) if self.beam else 1.0

    def colour(self, rgb, depth: float, tag: int = 0) -> tuple:
        """Return a drawing colour through the haze, with the id in the fourth channel."""
        a = self.haze(depth)
        c = np.asarray(rgb) * ((1 - a) * self.headlights(depth)) + self.fog * a
        return (float(c[0]), float(c[1]), float(c[2]), float(tag))

    def polygon(self, pixels: np.ndarray, colour: tuple) -> None:
        cv2.fillConvexPoly(self.canvas, np.round(pixels * 8).astype(np.int32), colour,
                           cv2.LINE_8, 3)

    def clipped(self, quad: np.ndarray) -> np.ndarray | None:
        """Return the part of a layout polygon (n, 3) before the lens as pixels, or None."""
        z = quad @ self.matrix[2, :3] + self.matrix[2, 3]
        if z.min() >= NEAR_M:
            return np.clip(self.project(quad)[0], -16000, 16000)
        out = []
        for i in range(len(quad)):
            j = (i + 1) % len(quad)
            if z[i] >= NEAR_M:
                out.append(quad[i])
            if (z[i] < NEAR_M) != (z[j] < NEAR_M):
                out.append(quad[i] + (quad[j] - quad[i]) * (NEAR_M - z[i]) / (z[j] - z[i]))
        if len(out) < 3:
            return None
        return np.clip(self.project(np.array(out))[0], -16000, 16000)


class Camera:
    """What stays the same for one camera over a drive."""

    def __init__(self, camera: CameraModel, style, rng, grain: Grain) -> None:
        self.camera = camera
        self.sub = 2 if camera.width <= 640 else 1
        s = self.sub
        w, h = camera.width, camera.height
        k = camera.k.astype(float).copy()
        self.maps = None
        offset, size = np.zeros(2), np.array([w, h])
        if camera.distortion:
            # Draw a larger plain picture, then bend it.
            u, v = np.meshgrid((np.arange(w * s) + .5) / s - .5, (np.arange(h * s) + .5) / s - .5)
            flat = np.stack([u.ravel(), v.ravel()], -1)[:, None].astype(np.float64)
            plain = cv2.undistortPoints(flat, k, np.array(camera.distortion), P=k).reshape(-1, 2)
            low = np.clip(np.floor(plain.min(0)) - 1, -w, 0)
            high = np.clip(np.ceil(plain.max(0)) + 2, 0, 2 * w)
            offset, size = -low, (high - low).astype(int)
            canvas_px = ((plain + offset + .5) * s - .5).astype(np.float32)
            self.maps = canvas_px.reshape(h * s, w * s, 2)
        k[:2, 2] += offset
        k[:2] *= s
        k[:2, 2] += (s - 1) / 2
        self.k = k
        self.canvas = np.zeros((int(size[1]) * s, int(size[0]) * s, 4), np.uint8)
        self.lens = Lens(style, rng, camera, grain)
        # Directions of coarse sky pixels.
        self.sky_step = 2 if s == 2 else 4
        rows, cols = self.canvas.shape[0] // self.sky_step + 1, \
            self.canvas.shape[1] // self.sky_step + 1
        u, v = np.meshgrid(np.arange(cols) * self.sky_step, np.arange(rows) * self.sky_step)
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u, float)],
                        -1) @ camera.base_from_camera[:3, :3].T
        self.azimuth = np.arctan2(rays[..., 1], rays[..., 0]).astype(np.float32)
        self.elevation = np.rad2deg(np.arctan2(rays[..., 2], np.hypot(
            rays[..., 0], rays[..., 1]))).astype(np.float32)
