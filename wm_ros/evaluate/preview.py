"""One picture of a report, drawn without a browser: the cameras, and the bird's-eye view beside."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from wm_ros.evaluate.report_data import Report, mosaic_layout
from wm_ros.evaluate.report_page import telling_window
from wm_ros.evaluate.scene_picture import BACK, birds_eye, draw_boxes, text
from wm_ros.types import CameraRig, Forecast

SIZE = 1080
#: The pictures of a single, very wide camera must not dwarf the view beside them.
MAX_CAMERAS_WIDTH = 1600


def write_preview(report: Report, path: Path, window: int | None = None,
                  range_m: float = 40.0) -> None:
    """Write the picture of one window (by default the most telling one) as PNG."""
    index = telling_window(report) if window is None else window
    forecast = report.forecasts[index]
    truth = report.truths.get(forecast.stamp_ns)
    view = birds_eye(forecast, truth, (SIZE, SIZE), range_m)
    parts = [view]
    if report.rig is not None and forecast.stamp_ns in report.mosaics:
        parts.insert(0, cameras(report.rig, report.mosaics[forecast.stamp_ns], forecast, SIZE))
    picture = np.concatenate(parts, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise OSError(f'{path}: cannot write the picture')


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
        draw_boxes(big, rig[name], forecast)
        name_tile(big, name)
        out[top:top + big.shape[0], left:left + width] = big
        cv2.rectangle(out, (left, top), (left + width - 1, top + big.shape[0] - 1), BACK, 2)
    return out


def name_tile(tile: np.ndarray, camera: str, size: int = 18) -> None:
    """Write a camera's name into the corner of its picture."""
    words = camera.replace('_', ' ')
    end = text(tile.copy(), words, (14, size + 8), size, weight=600)
    cv2.rectangle(tile, (7, 7), (end + 7, size + 16), BACK, -1)
    text(tile, words, (14, size + 8), size, weight=600)
