"""Drawing a forecast without a browser: the bird's-eye view, and boxes in camera pictures."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from wm_ros.colours import CLASSES, GROUND, bgr
from wm_ros.evaluate.report_data import (
    GROUND_DRIVABLE,
    GROUND_FREE,
    GROUND_STATIC,
    GROUND_UNOBSERVED,
    GROUND_WALKWAY,
    ground_picture,
)
from wm_ros.geometry import box_corners
from wm_ros.types import (
    AGENT_CLASSES,
    OUTPUT_GRID,
    AgentForecast,
    CameraModel,
    Forecast,
    Truth,
)

BACK = bgr('#0a0d12')
TEXT, MUTED = bgr('#e3e9f2'), bgr('#9aa7b8')
#: By class, and by what the ground is.
COLOURS = tuple(map(bgr, CLASSES['dark']))
GROUND_COLOURS = dict(zip((GROUND_FREE, GROUND_DRIVABLE, GROUND_WALKWAY, GROUND_STATIC),
                          map(bgr, GROUND['dark']), strict=True))
HIDDEN, HATCH = bgr('#07090d'), bgr('#222b37')
EGO = bgr('#eef3fa')
#: Drawing on a larger canvas and shrinking it smooths what OpenCV draws.
OVERSAMPLE = 2
_FACE = cv2.FontFace('sans') if hasattr(cv2, 'FontFace') else None


def text(picture: np.ndarray, words: str, at: tuple[int, int], size: int = 15,
         colour: tuple = TEXT, weight: int = 400) -> int:
    """Write words with their base line at `at`; return where they end."""
    if _FACE is None:       # OpenCV 4 has no letters but its own
        scale = size / 26
        plain = words.encode('ascii', 'replace').decode()
        cv2.putText(picture, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
        return at[0] + cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
    end, _ = cv2.putText(picture, words, at, colour, _FACE, size, weight)
    return int(end[0])


class Canvas:
    """
    A bird's-eye view: x up, y to the left.

    `size` is (height, width) in pixels, `range_m` reaches from the vehicle to the left edge;
    `ahead` is the share of the height that lies ahead of it.
    """

    def __init__(self, size: tuple[int, int], range_m: float, ahead: float = 0.5) -> None:
        self.picture = np.full((*size, 3), BACK, np.uint8)
        self.scale = size[1] / (2 * range_m)
        self.centre = np.array([size[1] / 2, size[0] * ahead])
        #: Widths are those of a view of 1080 pixels.
        self.unit = size[1] / 1080

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Return pixels (..., 2) of points in base_link, as OpenCV's drawing wants them."""
        return np.rint(self.centre - np.asarray(xy)[..., ::-1] * self.scale).astype(np.int32)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.unit))

    def _around(self, pixels: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of the picture around pixels, and the pixels in it."""
        flat = pixels.reshape(-1, 2)
        high = np.array(self.picture.shape[1::-1])
        first = np.clip(flat.min(axis=0) - margin, 0, high)
        last = np.clip(flat.max(axis=0) + margin + 1, 0, high)
        return self.picture[first[1]:last[1], first[0]:last[0]], pixels - first

    def line(self, xy: np.ndarray, colour: tuple, width: float, opacity: float = 1.0,
             closed: bool = False) -> None:
        """Draw a line through points; `opacity` mixes it with what is there."""
        w = self._width(width)
        part, pixels = self._around(self.points(xy), 2 * w)
        if part.size:
            drawn = part.copy()
            cv2.polylines(drawn, [pixels], closed, colour, w, cv2.LINE_AA)
            cv2.addWeighted(drawn, opacity, part, 1 - opacity, 0, part)

    def fill(self, xy: np.ndarray, colour: tuple, opacity: float = 1.0) -> None:
        """Fill a polygon."""
        part, pixels = self._around(self.points(xy), 2)
        if part.size:
            drawn = part.copy()
            cv2.fillPoly(drawn, [pixels], colour, cv2.LINE_AA)
            cv2.addWeighted(drawn, opacity, part, 1 - opacity, 0, part)

    def dot(self, xy: np.ndarray, colour: tuple, radius: float, opacity: float = 1.0) -> None:
        """Draw a filled circle."""
        r = self._width(radius)
        part, pixels = self._around(self.points(xy), r + 2)
        if part.size:
            drawn = part.copy()
            cv2.circle(drawn, tuple(int(v) for v in pixels), r, colour, -1, cv2.LINE_AA)
            cv2.addWeighted(drawn, opacity, part, 1 - opacity, 0, part)

    def dashes(self, xy: np.ndarray, colour: tuple, width: float, length_m: float = 0.7) -> None:
        """Draw a dashed line through points."""
        for a, b in pairwise(xy):
            n = max(1, int(np.hypot(*(b - a)) / length_m))
            for i in range(0, n, 2):
                self.line(np.stack([a + (b - a) * i / n, a + (b - a) * min(i + 1, n) / n]),
                          colour, width)


def birds_eye(forecast: Forecast, truth: Truth | None, size: int | tuple[int, int], range_m: float,
              ahead: float = 0.5, step: int = -1) -> np.ndarray:
    """
    Return the view (height, width, 3) BGR of a forecast, with the occupancy of one step.

    `size` is (height, width), or the side of a square; the rest as in `Canvas`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    canvas = Canvas((height * OVERSAMPLE, width * OVERSAMPLE), range_m, ahead)
    _ground(canvas, forecast, step)
    for ring in np.arange(10, 2 * range_m, 10):
        turn = np.linspace(0, 2 * np.pi, 120)
        canvas.line(ring * np.stack([np.cos(turn), np.sin(turn)], axis=-1), MUTED, 1, 0.25)
    plan = np.concatenate([np.zeros((1, 2)), forecast.ego_plan.poses[:, :2]])
    canvas.line(plan, EGO, 1.9 * canvas.scale / canvas.unit, 0.16)
    canvas.line(plan, EGO, 2, 0.6)
    if truth is not None:
        _truth(canvas, truth)
    for agent in forecast.agents:
        _agent(canvas, agent)
    for (length, wide, at), colour in (((4.6, 1.9, 1.4), EGO), ((1.3, 1.0, 2.6), BACK)):
        canvas.fill(box_corners(np.array([at, 0.0]), np.array(0.0), np.array(length),
                                np.array(wide)), colour)
    return cv2.resize(canvas.picture, (width, height), interpolation=cv2.INTER_AREA)


def _ground(canvas: Canvas, forecast: Forecast, step: int) -> None:
    """Paint the ground, what is not observed hatched, and where agents will be."""
    ground = ground_picture(forecast)
    painted = np.full((*ground.shape, 3), HIDDEN, np.uint8)
    for value, colour in GROUND_COLOURS.items():
        painted[ground == value] = colour
    heat = forecast.occupancy_agents[step].astype(np.float32)
    heat[(heat == 255) | (heat < 26)] = 0
    hidden = (ground == GROUND_UNOBSERVED).astype(np.float32)
    # Pixel (u, v) shows the cell whose row is y and whose column is x.
    cell, (cx, cy) = OUTPUT_GRID.cell_m, canvas.centre
    k = 1 / (canvas.scale * cell)
    matrix = np.array([
        [0.0, -k, cy * k - OUTPUT_GRID.x_min_m / cell - 0.5],
        [-k, 0.0, cx * k - OUTPUT_GRID.y_min_m / cell - 0.5]])
    height, width = canvas.picture.shape[:2]

    def view(layer: np.ndarray, beyond: float | tuple) -> np.ndarray:
        return cv2.warpAffine(layer, matrix, (width, height), borderValue=beyond,
                              flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    canvas.picture[:] = view(painted, HIDDEN)
    rows, cols = np.indices((height, width), dtype=np.int32)
    unseen = view(hidden, 1.0) > 0.5
    gap = max(6, round(22 * canvas.unit))
    canvas.picture[unseen] = HIDDEN
    canvas.picture[((rows + cols) % gap < max(1, gap // 8)) & unseen] = HATCH
    p = (view(heat, 0.0) / 254)[..., None]
    opacity = np.where(p > 0.05, 0.2 + 0.75 * p, 0.0)
    warm = np.concatenate([60 - 30 * p, 190 - 130 * p, np.full_like(p, 255.0)], axis=-1)
    canvas.picture[:] = (canvas.picture * (1 - opacity) + warm * opacity).astype(np.uint8)


def _truth(canvas: Canvas, truth: Truth) -> None:
    for i in np.flatnonzero(truth.visible):
        corners = box_corners(truth.poses[i, :2], truth.poses[i, 2], truth.sizes[i, 0],
                              truth.sizes[i, 1])
        canvas.dashes(np.concatenate([corners, corners[:1]]), (255, 255, 255), 2)
        path = np.concatenate([truth.poses[i:i + 1, :2], truth.futures[i, :, :2]])
        if np.isfinite(path).all():
            canvas.dashes(path, (255, 255, 255), 2)


def _agent(canvas: Canvas, agent: AgentForecast) -> None:
    colour = COLOURS[AGENT_CLASSES.index(agent.label)]
    best = int(np.argmax(agent.mode_probabilities))
    for k in np.argsort(agent.mode_probabilities):
        probability = float(agent.mode_probabilities[k])
        if probability < 0.05 and k != best:
            continue
        path = np.concatenate([agent.pose[None, :2], agent.trajectories_m[k]])
        opacity = min(1.0, 0.2 + 0.8 * probability)
        canvas.line(path, colour, 6 if k == best else 3, opacity)
        canvas.dot(path[-1], colour, 8 if k == best else 4, opacity)
    corners = box_corners(agent.pose[:2], agent.pose[2], agent.size_m[0], agent.size_m[1])
    canvas.fill(corners, colour, 0.38)
    canvas.line(corners, colour, 3, closed=True)
    canvas.line(corners[[0, 3]], colour, 7)


def draw_boxes(tile: np.ndarray, camera: CameraModel, forecast: Forecast) -> None:
    """Draw the agents' boxes and likeliest paths into one camera's picture."""
    matrix = camera.k @ np.linalg.inv(camera.base_from_camera)[:3]
    scale = tile.shape[1] / camera.width

    def segment(a: np.ndarray, b: np.ndarray, colour: tuple, width: int) -> None:
        ends = np.array([a, b]) @ matrix[:, :3].T + matrix[:, 3]
        near = 0.4
        if (ends[:, 2] < near).all():
            return
        for i, j in ((0, 1), (1, 0)):
            if ends[i, 2] < near:
                share = (near - ends[i, 2]) / (ends[j, 2] - ends[i, 2])
                ends[i] = ends[i] + share * (ends[j] - ends[i])
        pixels = (ends[:, :2] / ends[:, 2:] + 0.5) * scale - 0.5
        if np.abs(pixels).max() < 1e5:
            cv2.line(tile, *(tuple(int(round(v)) for v in p) for p in pixels), colour, width,
                     cv2.LINE_AA)

    for agent in forecast.agents:
        colour = COLOURS[AGENT_CLASSES.index(agent.label)]
        low = np.zeros((4, 3))
        low[:, :2] = box_corners(agent.pose[:2], agent.pose[2], agent.size_m[0], agent.size_m[1])
        high = low + np.array([0.0, 0.0, agent.size_m[2]])
        for shade, width in ((BACK, 3), (colour, 1)):
            for i in range(4):
                for a, b in ((low[i], low[(i + 1) % 4]), (high[i], high[(i + 1) % 4]),
                             (low[i], high[i])):
                    segment(a, b, shade, width)
        best = int(np.argmax(agent.mode_probabilities))
        path = np.zeros((len(agent.trajectories_m[best]) + 1, 3))
        path[:, :2] = np.concatenate([agent.pose[None, :2], agent.trajectories_m[best]])
        for a, b in pairwise(path):
            segment(a, b, colour, 2)
