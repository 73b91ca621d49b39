"""A short animated WebP of a drive, for a README: cameras, and forecasts from above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.bag import BagError, BagReader
from wm_ros.evaluate.preview import name_tile
from wm_ros.evaluate.recorded import forecasts_in, replayed_from, truths_in
from wm_ros.evaluate.report_data import decoded, nearest
from wm_ros.evaluate.scene_picture import (
    BACK,
    COLOURS,
    MUTED,
    birds_eye,
    draw_boxes,
    text,
)
from wm_ros.types import AGENT_CLASSES, CameraRig, Forecast, Truth

SECONDS, RATE_HZ = 6.0, 10.0
#: What a README may take without being a burden.
MAX_BYTES = 3_000_000
HEAD, PLAN_WIDTH, FRONT_WIDTH = 34, 400, 600
SMALL = 3       # pictures beside the one ahead
LEGEND = 4      # classes that have room in the head
RANGE_M = 26.0
QUALITIES = (70, 60, 50, 40, 30, 20)


def write_animation(bag: Path, source: Path | None, path: Path, start_s: float | None = None,
                    seconds: float = SECONDS,
                    progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """
    Write the animation of a bag of forecasts; return its `bytes`, `frames`, `quality`, `start_s`.

    The stretch is the liveliest one, or begins `start_s` after the first forecast. `source` is the
    bag with the pictures, as for a report. Raises BagError without forecasts or pictures,
    RuntimeError where OpenCV cannot write animations or no quality fits `MAX_BYTES`.
    """
    if not hasattr(cv2, 'imencodeanimation'):
        raise RuntimeError(f'OpenCV {cv2.__version__} writes no animations, want 4.11 or newer')
    with BagReader(bag) as reader:
        forecasts = sorted(forecasts_in(reader), key=lambda f: f.stamp_ns)
        source = source or (None if reader.camera_topics() else replayed_from(reader))
    if not forecasts:
        raise BagError(f'{bag}: no forecast in it')
    first = forecasts[0].stamp_ns
    chosen = stretch(forecasts, seconds, None if start_s is None else first + int(start_s * 1e9))
    chosen = thinned(chosen)
    with BagReader(source or bag) as reader:
        truths = truths_in(reader)
        names = [name for name in chosen[-1].window.cameras if name in reader.camera_topics()]
        if not names:
            raise BagError(f'{source or bag}: no camera topic; name the bag with the pictures: '
                           '--input')
        rig = reader.rig(cameras=names)
        tiles = _tiles(reader, rig, chosen)
    frames, named = [], classes_shown(chosen)
    for i, forecast in enumerate(chosen):
        frames.append(frame(rig, tiles[forecast.stamp_ns], forecast, named,
                            truths.get(forecast.stamp_ns), (forecast.stamp_ns - first) / 1e9))
        if progress:
            progress(i + 1, len(chosen))
    data, quality = animated(frames, round(1000 / RATE_HZ))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {'bytes': len(data), 'frames': len(frames), 'quality': quality,
            'start_s': round((chosen[0].stamp_ns - first) / 1e9, 1)}


def stretch(forecasts: list[Forecast], seconds: float, start_ns: int | None) -> list[Forecast]:
    """Return the forecasts of a stretch: from a stamp, or where most near agents move."""
    length = round(seconds * 1e9)
    liveliness = np.array([f.valid * sum(
        min(float(np.hypot(*a.velocity_mps)), 6.0) + 1 for a in f.agents
        if np.hypot(*a.pose[:2]) < RANGE_M) for f in forecasts])
    stamps = np.array([f.stamp_ns for f in forecasts])
    if start_ns is None:
        total = np.concatenate([[0], np.cumsum(liveliness)])
        ends = np.searchsorted(stamps, stamps + length)
        whole = stamps + length <= stamps[-1] + round(1e9 / RATE_HZ)
        sums = np.where(whole, total[ends] - total[:-1], -1)
        start_ns = int(stamps[int(np.argmax(sums))])
    found = [f for f in forecasts if start_ns <= f.stamp_ns < start_ns + length]
    if not found:
        raise ValueError(f'--animation-start: no forecast there; the bag holds '
                         f'{(stamps[-1] - stamps[0]) / 1e9:.1f} s')
    return found


def thinned(forecasts: list[Forecast]) -> list[Forecast]:
    """Return forecasts at `RATE_HZ` at most."""
    period = 1e9 / RATE_HZ
    kept, slot = [], -1
    for forecast in forecasts:
        here = int((forecast.stamp_ns - forecasts[0].stamp_ns) / period + 0.25)
        if here > slot:
            kept.append(forecast)
            slot = here
    return kept


def _shown(rig: CameraRig) -> tuple[str, list[str]]:
    """Return the camera that looks ahead, and up to three others from left to right."""
    yaw = {c.name: float(np.arctan2(*c.base_from_camera[[1, 0], 2])) for c in rig.cameras}
    front = min(rig.names, key=lambda name: abs(yaw[name]))
    others = sorted((n for n in rig.names if n != front), key=lambda n: abs(abs(yaw[n]) - 1.2))
    rest = [n for n in rig.names if n != front]
    back = max(rest, key=lambda n: abs(yaw[n]), default=None)
    sides = [n for n in others if n != back][:SMALL - 1]
    left_to_right = sorted(sides, key=lambda n: -yaw[n])
    if back is not None:
        left_to_right.insert(len(left_to_right) // 2 + len(left_to_right) % 2, back)
    return front, left_to_right


def _tiles(reader: BagReader, rig: CameraRig,
           forecasts: list[Forecast]) -> dict[int, dict[str, np.ndarray]]:
    """Return the pictures of every stamp, at the size at which they are shown."""
    front, others = _shown(rig)
    topics = reader.camera_topics()
    named = {topics[name].image: name for name in (front, *others)}
    wanted = {f.stamp_ns for f in forecasts}
    found: dict[int, dict[str, np.ndarray]] = {stamp: {} for stamp in wanted}
    for topic, _, msg in reader.read(named):
        stamp = nearest(msg, wanted)
        if stamp is None:
            continue
        name = named[topic]
        width = FRONT_WIDTH if name == front else FRONT_WIDTH // max(len(others), 1)
        camera = rig[name]
        size = (width, round(width * camera.height / camera.width))
        image = decoded(topics[name], camera, msg, size)
        if image is not None:
            found[stamp][name] = image
    return found


def classes_shown(forecasts: list[Forecast]) -> list[str]:
    """Return the classes that the legend names, the most frequent ones in their usual order."""
    counts = Counter(agent.label for forecast in forecasts for agent in forecast.agents)
    named = {label for label, _ in counts.most_common(LEGEND)}
    return [label for label in AGENT_CLASSES if label in named]


def frame(rig: CameraRig, tiles: dict[str, np.ndarray], forecast: Forecast, classes: list[str],
          truth: Truth | None, time_s: float) -> np.ndarray:
    """Return one frame (height, width, 3) BGR; `classes` are named in its legend."""
    front, others = _shown(rig)
    top = round(FRONT_WIDTH * rig[front].height / rig[front].width)
    width = FRONT_WIDTH // max(len(others), 1)
    below = max((round(width * rig[n].height / rig[n].width) for n in others), default=0)
    height = max(top + below, 360)
    picture = np.full((HEAD + height, FRONT_WIDTH + PLAN_WIDTH, 3), BACK, np.uint8)
    places = [(front, HEAD, 0)] + [(n, HEAD + top, i * width) for i, n in enumerate(others)]
    for name, y, x in places:
        tile = tiles.get(name)
        if tile is None:
            continue
        tile = tile.copy()
        draw_boxes(tile, rig[name], forecast)
        name_tile(tile, name, 13)
        picture[y:y + tile.shape[0], x:x + tile.shape[1]] = tile
        cv2.rectangle(picture, (x, y), (x + tile.shape[1] - 1, y + tile.shape[0] - 1), BACK, 1)
    plan = birds_eye(forecast, truth, (height, PLAN_WIDTH), RANGE_M, ahead=0.62)
    picture[HEAD:, FRONT_WIDTH:] = plan
    cv2.rectangle(picture, (FRONT_WIDTH, HEAD), (FRONT_WIDTH + 2, HEAD + height), BACK, -1)
    _head(picture, forecast, classes, truth, time_s)
    return picture


def _head(picture: np.ndarray, forecast: Forecast, classes: list[str], truth: Truth | None,
          time_s: float) -> None:
    """Write what is seen over it: time, what the colours are."""
    end = text(picture, 'wm_ros', (10, 23), 17, weight=700)
    text(picture, f'{time_s:4.1f} s · {len(forecast.agents)} road users · next 3 s', (end + 14, 23),
         14, MUTED)
    x = FRONT_WIDTH + 10
    for name in classes:
        cv2.circle(picture, (x + 5, 18), 5, COLOURS[AGENT_CLASSES.index(name)], -1, cv2.LINE_AA)
        x = text(picture, name, (x + 14, 23), 13, MUTED) + 12
    if truth is not None:
        for k in (0, 6, 12):
            cv2.line(picture, (x + k, 18), (x + k + 3, 18), (255, 255, 255), 1, cv2.LINE_AA)
        x = text(picture, 'truth', (x + 20, 23), 13, MUTED) + 12


def animated(frames: list[np.ndarray], duration_ms: int,
             budget: int = MAX_BYTES) -> tuple[bytes, int]:
    """Return an endless animated WebP within `budget` bytes, and the quality that this took."""
    animation = cv2.Animation()
    animation.loop_count = 0
    animation.frames = frames
    animation.durations = np.full(len(frames), duration_ms)
    # A few single frames tell which quality to begin with.
    sample = frames[::max(1, len(frames) // 4)]
    for quality in QUALITIES:
        mean = np.mean([len(cv2.imencode('.webp', one, [cv2.IMWRITE_WEBP_QUALITY, quality])[1])
                        for one in sample])
        if mean * len(frames) > 1.15 * budget and quality != QUALITIES[-1]:
            continue
        done, data = cv2.imencodeanimation('.webp', animation,
                                           [cv2.IMWRITE_WEBP_QUALITY, quality])
        if done and len(data) <= budget:
            return np.asarray(data).tobytes(), quality
    raise RuntimeError(f'{len(frames)} frames of {frames[0].shape[1]}x{frames[0].shape[0]} do not '
                       f'fit {budget / 1e6:.1f} MB at any quality')
