"""Sky and ground, the far parts of every picture."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.ground import Ground
from wm_ros.sim.view import Camera, View


class Backdrop:
    """Draws the panorama `sky` above the horizon and the ground's raster below it."""

    def __init__(self, style, ground: Ground, sky: np.ndarray) -> None:
        self.style = style
        self._ground = ground
        self._sky = sky
        self._fog: np.ndarray | None = None

    def draw(self, view: View, item: Camera, yaw: float) -> None:
        """Sky above the horizon, ground below."""
        canvas, m = view.canvas, view.matrix
        h, w = view.height, view.width
        # The horizon: points at infinity on the ground, a line a*u + b*v + c = 0.
        line = np.cross(m[:, 0], m[:, 1])
        line = line / (np.hypot(line[0], line[1]) + 1e-12)
        below = np.sign(line @ np.array([item.k[0, 2], 1e7, 1.]))
        line = line * (below if below else 1)
        at = [-(line[0] * u + line[2]) / (line[1] if abs(line[1]) > 1e-6 else 1e-6)
              for u in (0, w - 1)]
        top = int(np.clip(np.floor(min(at)), 0, h))
        bottom = int(np.clip(np.ceil(max(at)) + 2, 0, h))
        step = item.sky_step
        sky_rows = bottom // step + 2
        pano = self._sky
        columns = pano.shape[1] // 2
        px = item.azimuth[:sky_rows] * np.float32(columns / np.pi) + np.float32(
            (yaw / np.pi % 2.0) * columns)
        px[px >= 2 * columns] -= 2 * columns
        px[px < 0] += 2 * columns
        # Elevation counts from where the swaying horizon is now.
        drift = (np.mean(at) - self._still_horizon(item)) / item.k[1, 1]
        py = (np.float32(82 - np.rad2deg(drift)) - item.elevation[:sky_rows]) * np.float32(
            pano.shape[0] / 90)
        if bottom > 0:
            sky = cv2.remap(pano, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            sky = cv2.resize(sky, (sky.shape[1] * step, sky.shape[0] * step))
            canvas[:bottom] = sky[:bottom, :w]
        if top >= h:
            return
        # Bands of ground: the farther, the coarser the raster.
        height = max(view.position[2], .3)
        edges = [h]
        for limit in (14.0, 30.0):
            row = int(np.mean(at) + item.k[1, 1] * height / limit)
            edges.append(int(np.clip(row, top, edges[-1])))
        edges.append(top)
        for level, (high, low) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if high <= low:
                continue
            image, cell = self._ground.levels[level]
            a = np.array([[cell, 0, self._ground.origin[0] + cell / 2],
                          [0, cell, self._ground.origin[1] + cell / 2], [0, 0, 1.]])
            hom = np.array([[1, 0, 0], [0, 1, -low], [0, 0, 1.]]) @ m[:, [0, 1, 3]] @ a
            if low >= bottom:
                cv2.warpPerspective(image, hom, (w, high - low), canvas[low:high],
                                           cv2.INTER_LINEAR, cv2.BORDER_CONSTANT,
                                           self._ground.border)
                self._ground_light(view, canvas[low:high], low, at, item, height)
                continue
            band = cv2.warpPerspective(image, hom, (w, high - low), flags=cv2.INTER_LINEAR,
                                       borderMode=cv2.BORDER_CONSTANT,
                                       borderValue=self._ground.border)
            self._ground_light(view, band, low, at, item, height)
            mask = np.zeros((high - low, w), np.uint8)
            points = np.array([[0, at[0] - low + .5], [w - 1, at[1] - low + .5],
                               [w - 1, 4 * h], [0, 4 * h]])
            cv2.fillConvexPoly(mask, np.round(np.clip(points, -30000, 30000) * 8).astype(
                np.int32), 255, cv2.LINE_8, 3)
            cv2.copyTo(band, mask, canvas[low:high])

    def _still_horizon(self, item: Camera) -> float:
        forward = item.camera.base_from_camera[:3, 2]
        return item.k[1, 2] + item.k[1, 1] * forward[2] / max(np.hypot(*forward[:2]), 1e-3)

    def _ground_light(self, view, band, low, at, item, height) -> None:
        """Haze by distance, and the ego's headlights at night, row by row."""
        rows = np.arange(low, low + len(band)) + .5 - np.mean(at)
        distance = np.minimum(item.k[1, 1] * height / np.maximum(rows, .3), 400.0)
        haze = 1 - np.exp(-self.style.fog_per_m * distance)
        gain = np.ones(len(band))
        if view.beam:
            gain = view.headlights(distance)
        # Both change slowly from row to row: rows of one level go together.
        if gain.max() > 1.02:
            for first, last in _runs(np.round(gain * 40)):
                cv2.convertScaleAbs(band[first:last], band[first:last], alpha=float(gain[first]))
        for first, last in _runs(np.round(haze * 128)):
            if haze[first] > .012:
                part = band[first:last]
                cv2.addWeighted(part, 1 - haze[first], self._mist(part.shape), haze[first], 0, part)

    def _mist(self, shape) -> np.ndarray:
        rows, width = shape[:2]
        if self._fog is None or self._fog.shape[0] < rows or self._fog.shape[1] != width:
            self._fog = np.zeros((rows, width, 4), np.uint8)
            self._fog[..., :3] = np.clip(self.style.fog, 0, 255)
        return self._fog[:rows]


def _runs(levels: np.ndarray):
    """Yield (first, end) of each run of equal values."""
    edges = np.flatnonzero(np.diff(levels)) + 1
    yield from zip([0, *edges.tolist()], [*edges.tolist(), len(levels)], strict=True)
