"""Pictures of where a model fails most: the cameras, and truth against forecast from above."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from wm_ros.data.samples import Drive, Sample
from wm_ros.evaluate.outcome import Outcome, judge
from wm_ros.evaluate.preview import birds_eye
from wm_ros.evaluate.protocol import windows
from wm_ros.evaluate.report_data import mosaic_layout
from wm_ros.geometry import box_corners
from wm_ros.types import CameraModel, CameraRig, Forecast, Frame, Truth

RANGE_M = 35.0
_VIEW, _TILE, _LEGEND = 630, 500, 28
_QUALITY = 72
#: BGR: found with a right path, found with none, not found, invented.
RIGHT, WRONG, MISSED, INVENTED = (96, 200, 96), (0, 165, 255), (60, 60, 255), (255, 80, 220)


@dataclass(frozen=True)
class WorstWindow:
    """The worst window of a drive: what was right of `visible` agents within 30 m, and a WebP."""

    drive: str
    seconds: float
    visible: int
    right: int
    wrong: int
    missed: int
    invented: int
    picture: bytes


def worst_windows(keys: Iterable[Any], open_drive: Callable[[Any], Drive],
                  open_predictor: Callable[[CameraRig], Any], threshold: float,
                  every: int) -> Iterator[WorstWindow]:
    """Run the drives of `keys` once more and yield the window of each with most agents failed."""
    for key in keys:
        drive = open_drive(key)
        worst: tuple[int, Forecast, Sample, Outcome] | None = None
        start_ns = None
        for forecast, sample in windows(open_predictor(drive.rig), drive, every):
            start_ns = sample.frames.stamp_ns if start_ns is None else start_ns
            told = replace(forecast, agents=tuple(
                agent for agent in forecast.agents if agent.score >= threshold))
            judged = judge(told, sample.truth)
            if worst is None or judged.failed > worst[0]:
                worst = judged.failed, told, sample, judged
        if worst is not None:
            _, forecast, sample, judged = worst
            yield WorstWindow(
                drive.name, (sample.frames.stamp_ns - start_ns) * 1e-9 + 1.5,
                len(judged.right) + judged.failed, len(judged.right), len(judged.wrong),
                len(judged.missed), len(judged.invented),
                _picture(drive.rig, forecast, sample, judged))


def _picture(rig: CameraRig, forecast: Forecast, sample: Sample, judged: Outcome) -> bytes:
    truth = sample.truth
    view = birds_eye(forecast, truth, _VIEW, RANGE_M)
    scale, half = _VIEW / (2 * RANGE_M), _VIEW / 2
    rings = ((judged.right, truth.poses, RIGHT), (judged.wrong, truth.poses, WRONG),
             (judged.missed, truth.poses, MISSED),
             (judged.invented, np.array([a.pose for a in forecast.agents]).reshape(-1, 3),
              INVENTED))
    for which, poses, colour in rings:
        for x, y in poses[which, :2]:
            cv2.circle(view, (round(half - y * scale), round(half - x * scale)), 14, colour, 2,
                       cv2.LINE_AA)
    strip = _cameras(rig, sample, forecast, judged)
    view = cv2.copyMakeBorder(view, 0, len(strip) - len(view), 0, 0, cv2.BORDER_CONSTANT,
                              value=(24, 24, 24))
    picture = np.concatenate([strip, view], axis=1)
    done, code = cv2.imencode('.webp', picture, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f'picture of {picture.shape}: cannot be encoded')
    return code.tobytes()


def _cameras(rig: CameraRig, sample: Sample, forecast: Forecast, judged: Outcome) -> np.ndarray:
    """Return the cameras as they look, in two columns, with forecast boxes and those not found."""
    names = [name for row in mosaic_layout(rig) for name in row]
    columns = 1 if len(names) == 1 else 2
    rows = -(-len(names) // columns)
    shapes = [np.column_stack([agent.pose, agent.size_m]) for agent in forecast.agents]
    tiles = [_tile(rig[name], sample.frames.frames.get(name), _TILE, shapes, sample.truth, judged)
             for name in names]
    height = max(map(len, tiles))
    out = np.full((max(rows * height + _LEGEND, _VIEW), columns * _TILE, 3), 24, np.uint8)
    for i, tile in enumerate(tiles):
        # Left to right as they look: the front row goes down the left column.
        top, left = i % rows * height, i // rows * _TILE
        out[top:top + len(tile), left:left + _TILE] = tile
    _legend(out)
    return out


def _tile(camera: CameraModel, frame: Frame | None, width: int, shapes: list[np.ndarray],
          truth: Truth, judged: Outcome) -> np.ndarray:
    height = round(width * camera.height / camera.width)
    if frame is None:
        return np.zeros((height, width, 3), np.uint8)
    if isinstance(frame.image, np.ndarray):
        picture = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
    else:
        picture = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    for shape in shapes:
        _box(picture, camera, shape[:, 0], shape[:, 1], (255, 194, 76))
    for which, colour in ((judged.missed, MISSED), (judged.wrong, WRONG)):
        for agent in which:
            _box(picture, camera, truth.poses[agent], truth.sizes[agent], colour)
    cv2.putText(picture, camera.name.replace('_', ' '), (5, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def _box(picture: np.ndarray, camera: CameraModel, pose: np.ndarray, size: np.ndarray,
         colour: tuple) -> None:
    """Draw the rectangle around a box that lies wholly before the camera."""
    corners = np.zeros((8, 3))
    corners[:4, :2] = corners[4:, :2] = box_corners(pose[:2], pose[2], size[0], size[1])
    corners[4:, 2] = size[2]
    matrix = camera.k @ np.linalg.inv(camera.base_from_camera)[:3]
    points = corners @ matrix[:, :3].T + matrix[:, 3]
    if (points[:, 2] < 0.3).any():
        return
    pixels = (points[:, :2] / points[:, 2:] + 0.5) * picture.shape[1] / camera.width
    low, high = np.clip(pixels.min(0), -9999, 9999), np.clip(pixels.max(0), -9999, 9999)
    cv2.rectangle(picture, tuple(map(int, low)), tuple(map(int, high)), colour, 1, cv2.LINE_AA)


def _legend(out: np.ndarray) -> None:
    entries = (('found, path right', RIGHT), ('found, no path right', WRONG),
               ('not found', MISSED), ('invented', INVENTED))
    for i, (text, colour) in enumerate(entries):
        at = (14 + i * 190, len(out) - 14)
        cv2.circle(out, at, 7, colour, 2, cv2.LINE_AA)
        cv2.putText(out, text, (at[0] + 14, at[1] + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                    (235, 235, 235), 1, cv2.LINE_AA)
