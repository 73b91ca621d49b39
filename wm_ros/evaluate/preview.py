"""One picture of a report, drawn without a browser: the cameras, and the bird's-eye view beside."""

from __future__ import annotations

from itertools import pairwise, zip_longest
from pathlib import Path

import cv2
import numpy as np

from wm_ros.evaluate.report_data import (
    GROUND_DRIVABLE,
    GROUND_FREE,
    GROUND_STATIC,
    GROUND_UNOBSERVED,
    GROUND_WALKWAY,
    Report,
    ground_picture,
    mosaic_layout,
)
from wm_ros.evaluate.report_page import telling_window
from wm_ros.geometry import box_corners
from wm_ros.types import (
    AGENT_CLASSES,
    OUTPUT_GRID,
    AgentForecast,
    CameraModel,
    CameraRig,
    Forecast,
    Truth,
)

BACK = (18, 13, 10)     # BGR throughout
COLOURS = tuple(tuple(int(c[i:i + 2], 16) for i in (5, 3, 1)) for c in (
    '#4cc2ff', '#7aa2ff', '#b48cff', '#e08cff', '#ffb454', '#ffe066', '#ff6f91', '#a6e36b'))
GROUND_COLOURS = {GROUND_FREE: (38, 30, 24), GROUND_DRIVABLE: (67, 54, 45),
                  GROUND_WALKWAY: (74, 54, 62), GROUND_STATIC: (46, 62, 74)}
SIZE = 1080
#: The pictures of a single, very wide camera must not dwarf the view beside them.
MAX_CAMERAS_WIDTH = 1600
#: Drawing on a larger canvas and shrinking it smooths what OpenCV draws.
OVERSAMPLE = 2
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Canvas:
    """The bird's-eye view: x up, y to the left, `range_m` from the vehicle to the edge."""

    def __init__(self, size: int, range_m: float) -> None:
        self.picture = np.full((size, size, 3), BACK, np.uint8)
        self.scale = size / (2 * range_m)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Return pixels (..., 2) of points in base_link, as OpenCV's drawing wants them."""
        half = self.picture.shape[0] / 2
        return np.rint(np.stack([half - xy[..., 1] * self.scale, half - xy[..., 0] * self.scale],
                                axis=-1)).astype(np.int32)

    def line(self, xy: np.ndarray, colour: tuple, width: int, opacity: float = 1.0,
             closed: bool = False) -> None:
        """Draw a line through points; `opacity` mixes it with what is there."""
        target = self.picture if opacity >= 1 else self.picture.copy()
        cv2.polylines(target, [self.points(xy)], closed, colour, width, cv2.LINE_AA)
        if opacity < 1:
            cv2.addWeighted(target, opacity, self.picture, 1 - opacity, 0, self.picture)

    def dashes(self, xy: np.ndarray, colour: tuple, width: int, length_m: float = 0.7) -> None:
        """Draw a dashed line through points."""
        for a, b in pairwise(xy):
            n = max(1, int(np.hypot(*(b - a)) / length_m))
            for i in range(0, n, 2):
                self.line(np.stack([a + (b - a) * i / n, a + (b - a) * min(i + 1, n) / n]),
                          colour, width)


def write_preview(report: Report, path: Path, window: int | None = None,
                  range_m: float = 40.0) -> None:
    """Write the picture of one window (by default the most telling one) as PNG."""
    index = telling_window(report) if window is None else window
    forecast = report.forecasts[index]
    truth = report.truths.get(forecast.stamp_ns)
    view = birds_eye(forecast, truth, SIZE, range_m)
    parts = [view]
    if report.rig is not None and forecast.stamp_ns in report.mosaics:
        parts.insert(0, cameras(report.rig, report.mosaics[forecast.stamp_ns], forecast, SIZE))
    picture = np.concatenate(parts, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise OSError(f'{path}: cannot write the picture')


def birds_eye(forecast: Forecast, truth: Truth | None, size: int, range_m: float) -> np.ndarray:
    """Return the bird's-eye view (size, size, 3) BGR of a forecast, occupancy at 3 s."""
    canvas = Canvas(size * OVERSAMPLE, range_m)
    _ground(canvas, forecast, range_m)
    for ring in np.arange(10, range_m, 10):
        turn = np.linspace(0, 2 * np.pi, 120)
        canvas.line(ring * np.stack([np.cos(turn), np.sin(turn)], axis=-1), (150, 130, 110), 1,
                    0.3)
    plan = forecast.ego_plan.poses[:, :2]
    canvas.line(np.concatenate([np.zeros((1, 2)), plan]), (161, 209, 79), 6)
    if truth is not None:
        _truth(canvas, truth)
    for agent in forecast.agents:
        _agent(canvas, agent)
    ego = box_corners(np.array([1.4, 0.0]), np.array(0.0), np.array(4.6), np.array(1.9))
    cv2.fillPoly(canvas.picture, [canvas.points(ego)], (247, 238, 232), cv2.LINE_AA)
    return cv2.resize(canvas.picture, (size, size), interpolation=cv2.INTER_AREA)


def _ground(canvas: Canvas, forecast: Forecast, range_m: float) -> None:
    """Paint the ground, what is not observed hatched, and where agents will be in 3 s."""
    size = canvas.picture.shape[0]
    ground = ground_picture(forecast)
    painted = np.full((*ground.shape, 3), BACK, np.uint8)
    for value, colour in GROUND_COLOURS.items():
        painted[ground == value] = colour
    heat = forecast.occupancy_agents[-1].astype(np.float32)
    heat[(heat == 255) | (heat < 26)] = 0
    layers = [painted, heat, (ground == GROUND_UNOBSERVED).astype(np.float32)]
    cells = round(2 * range_m / OUTPUT_GRID.cell_m)
    low = (OUTPUT_GRID.rows - cells) // 2
    # Rows are y and columns x; the view has x up and y to the left.
    views = [cv2.resize(np.ascontiguousarray(
        layer[low:low + cells, low:low + cells].swapaxes(0, 1)[::-1, ::-1]), (size, size),
        interpolation=cv2.INTER_LINEAR) for layer in layers]
    canvas.picture[:] = views[0]
    rows, cols = np.indices((size, size), dtype=np.int32)
    hatch = ((rows + cols) % 22 < 3) & (views[2] > 0.5)
    canvas.picture[views[2] > 0.5] = (13, 9, 7)
    canvas.picture[hatch] = (48, 38, 30)
    p = (views[1] / 254)[..., None]
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
        canvas.line(path, colour, 6 if k == best else 3, min(1.0, 0.2 + 0.8 * probability))
        cv2.circle(canvas.picture, tuple(int(v) for v in canvas.points(path[-1])),
                   8 if k == best else 4, colour, -1, cv2.LINE_AA)
    corners = box_corners(agent.pose[:2], agent.pose[2], agent.size_m[0], agent.size_m[1])
    filled = canvas.picture.copy()
    cv2.fillPoly(filled, [canvas.points(corners)], colour, cv2.LINE_AA)
    cv2.addWeighted(filled, 0.35, canvas.picture, 0.65, 0, canvas.picture)
    canvas.line(corners, colour, 3, closed=True)
    canvas.line(corners[[0, 3]], colour, 7)


def cameras(rig: CameraRig, mosaic: bytes, forecast: Forecast, height: int) -> np.ndarray:
    """Return the camera pictures, one below the other in two columns, with the boxes in them."""
    picture = cv2.imdecode(np.frombuffer(mosaic, np.uint8), cv2.IMREAD_COLOR)
    layout = mosaic_layout(rig)
    columns = max(len(row) for row in layout)
    tile_w, tile_h = picture.shape[1] // columns, picture.shape[0] // len(layout)
    tiles = []
    for r, row in enumerate(layout):
        for i, name in enumerate(row):
            at = round((i + (columns - len(row)) / 2) * tile_w)
            tiles.append((name, picture[r * tile_h:(r + 1) * tile_h, at:at + tile_w]))
    wide = 1 if len(tiles) == 1 else 2
    rows = -(-len(tiles) // wide)
    width = min(round(height / rows * tile_w / tile_h), MAX_CAMERAS_WIDTH // wide)
    row_height = round(width * tile_h / tile_w)
    out = np.full((height, width * wide, 3), BACK, np.uint8)
    order = [t for r in zip_longest(tiles[:rows], tiles[rows:]) for t in r if t]
    for k, (name, tile) in enumerate(order):
        top, left = k // wide * row_height, k % wide * width
        big = cv2.resize(tile, (width, row_height), interpolation=cv2.INTER_CUBIC)
        _boxes(big, rig[name], forecast)
        cv2.rectangle(big, (8, 8), (20 + 11 * len(name), 36), BACK, -1)
        cv2.putText(big, name.replace('_', ' '), (14, 28), FONT, 0.55, (255, 255, 255), 1,
                    cv2.LINE_AA)
        out[top:top + big.shape[0], left:left + width] = big
        cv2.rectangle(out, (left, top), (left + width - 1, top + big.shape[0] - 1), BACK, 2)
    return out


def _boxes(tile: np.ndarray, camera: CameraModel, forecast: Forecast) -> None:
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
        for i in range(4):
            for a, b in ((low[i], low[(i + 1) % 4]), (high[i], high[(i + 1) % 4]),
                         (low[i], high[i])):
                segment(a, b, colour, 1)
        best = int(np.argmax(agent.mode_probabilities))
        path = np.zeros((7, 3))
        path[:, :2] = np.concatenate([agent.pose[None, :2], agent.trajectories_m[best]])
        for a, b in pairwise(path):
            segment(a, b, colour, 2)
