"""
What a report shows, taken from bags into small JSON: pictures, forecasts, truth, health.

Lengths go as integer decimetres, probabilities as percent, so that twenty seconds stay readable in
every browser without a server.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.bag import BagError, BagReader, CameraTopics, frame_of
from wm_ros.evaluate.moments import Moment
from wm_ros.evaluate.recorded import forecasts_in, replayed_from, score, truths_in
from wm_ros.evaluate.report_health import Health, health
from wm_ros.evaluate.report_judged import Judged, held_moments, judged
from wm_ros.frame_predictor import FutureFrames
from wm_ros.messages import UNOBSERVED, stamp_ns
from wm_ros.types import AGENT_CLASSES, OUTPUT_GRID, CameraModel, CameraRig, Forecast, Truth

#: Steps of the occupancy that the page holds: now, 1, 2 and 3 s.
SHOWN_STEPS = (0, 2, 4, 6)
#: Occupancy below this code (of 254) is not shown; what is left is kept in steps of 16.
MIN_CODE = 26
#: Modes less likely than this are left out, the most likely one apart.
MIN_MODE = 0.03
#: Values of the ground picture.
GROUND_UNOBSERVED, GROUND_FREE, GROUND_DRIVABLE, GROUND_WALKWAY, GROUND_STATIC = range(5)
#: Bytes that the pictures of one page may take, before base64 adds a third.
PICTURE_BUDGET = 9_500_000
TILE_WIDTH = 400
#: Of a track's id that the page holds; with two, four of ten pages of 300 ids had two alike.
ID_BYTES = 5
#: A set that is not whole this long after its stamp never will be.
LATEST_NS = 1_000_000_000
QUALITIES = (60, 50, 40, 30, 20)


@dataclass
class Report:
    """
    All that a page is made from; truths, pictures, moments and judgements by stamp.

    `mosaics` holds one WebP of all cameras a stamp; `summary` is a demo's, for its latencies.
    `source` is the bag with the pictures; `frames` are predicted ones of some stamps.
    """

    title: str
    rig: CameraRig | None
    forecasts: list[Forecast]
    truths: dict[int, Truth]
    mosaics: dict[int, bytes] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    moments: dict[int, Moment] = field(default_factory=dict)
    judged: dict[int, Judged] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    source: Path | None = None
    frames: dict[int, FutureFrames] = field(default_factory=dict)


def mosaic_layout(rig: CameraRig) -> list[list[str]]:
    """
    Return the cameras in rows as a driver would look: ahead, left to right, then behind.

    A camera that looks behind stands in the second row, its left side on the left.
    """
    yaw = {c.name: float(np.degrees(np.arctan2(*c.base_from_camera[[1, 0], 2])))
           for c in rig.cameras}
    ahead = sorted((n for n in rig.names if abs(yaw[n]) <= 90), key=lambda n: -yaw[n])
    behind = sorted((n for n in rig.names if abs(yaw[n]) > 90), key=lambda n: yaw[n] % 360)
    return [row for row in (ahead, behind) if row]


def gather(bag: Path, source: Path | None, summary: dict[str, Any] | None = None,
           progress: Callable[[int, int], None] | None = None) -> Report:
    """
    Read forecasts from `bag` and pictures, rig and truth from `source` (or `bag` itself).

    Without `source` it is the bag from which `bag` says that it was replayed, where that is there.
    Without pictures the page shows the bird's-eye view alone. Raises BagError where there is no
    forecast.
    """
    with BagReader(bag) as reader:
        forecasts = sorted(forecasts_in(reader), key=lambda f: f.stamp_ns)
        if not forecasts:
            raise BagError(f'{bag}: no forecast in it')
        report = Report(title=bag.name, rig=None, forecasts=forecasts, truths={},
                        summary=summary or {}, health=health(reader))
        source = source or (None if reader.camera_topics() else replayed_from(reader))
        report.source = source or bag
    # Decoding pictures leaves the interpreter to the scores, which take as long.
    with BagReader(report.source) as reader, ThreadPoolExecutor(1) as beside:
        cameras = list(forecasts[-1].window.cameras)
        known = reader.camera_topics()
        mosaics: Future[dict[int, bytes]] | None = None
        if cameras and all(name in known for name in cameras):
            report.rig = reader.rig(cameras=cameras)
            mosaics = beside.submit(_mosaics, reader, report.rig,
                                    {f.stamp_ns for f in forecasts}, progress)
        with BagReader(report.source) as other:
            report.truths = truths_in(other)
        report.moments = held_moments(forecasts)
        report.scores = score(forecasts, report.truths)
        report.judged = {f.stamp_ns: judged(f, report.truths[f.stamp_ns]) for f in forecasts
                         if f.valid and f.stamp_ns in report.truths}
        if mosaics is not None:
            report.mosaics = mosaics.result()
    return report


def _mosaics(reader: BagReader, rig: CameraRig, wanted: set[int],
             progress: Callable[[int, int], None] | None) -> dict[int, bytes]:
    """Return one picture of all cameras for every wanted stamp, within the budget."""
    layout = mosaic_layout(rig)
    columns = max(len(row) for row in layout)
    width = TILE_WIDTH if columns > 1 else 2 * TILE_WIDTH
    tiles = {c.name: (width, round(width * c.height / c.width)) for c in rig.cameras}
    height = max(h for _, h in tiles.values())
    place = {name: (r * height, i * width + (columns - len(row)) * width // 2)
             for r, row in enumerate(layout) for i, name in enumerate(row)}
    found = reader.camera_topics()
    named = {found[name].image: found[name] for name in rig.names}
    canvases: dict[int, np.ndarray] = {}
    placing: dict[int, dict[str, Future[None]]] = {}
    own: dict[int, set[str]] = {}       # cameras whose picture has the very stamp
    pictures: dict[int, Future[bytes]] = {}
    quality = 0
    # Decoding and encoding release the interpreter's lock: two threads use two cores.
    with ThreadPoolExecutor(2) as pool:
        def finish(stamp: int) -> None:
            nonlocal quality
            jobs, picture = placing.pop(stamp), canvases.pop(stamp)
            for job in jobs.values():
                job.result()
            if not quality and len(jobs) == len(rig):
                quality = fitting_quality(picture, PICTURE_BUDGET // max(len(wanted), 1))
            pictures[stamp] = pool.submit(encoded, picture, quality or QUALITIES[1])
            if progress:
                progress(len(pictures), len(wanted))

        for topic, kind, time_ns, data in reader.raw(named):
            try:
                msg = reader.decode(topic, kind, time_ns, data)
            except BagError:
                continue                # its place stays black: the node had nothing of it either
            name, stamp = named[topic].camera, nearest(msg, wanted)
            if stamp is None or stamp in pictures:
                continue
            for old in [old for old in canvases if old < stamp - LATEST_NS]:
                finish(old)             # a camera was missing, or has other stamps
            if stamp not in canvases:
                canvases[stamp] = np.zeros((height * len(layout), columns * width, 3), np.uint8)
                placing[stamp], own[stamp] = {}, set()
            jobs = placing[stamp]
            if name in own[stamp]:
                continue
            if name in jobs:            # of a faster camera: a nearer one lies over an earlier one
                jobs[name].result()
            jobs[name] = pool.submit(_place, canvases[stamp], place[name], named[topic], rig[name],
                                     msg, tiles[name])
            if stamp_ns(msg.header) == stamp:
                own[stamp].add(name)
            if len(own[stamp]) == len(rig):
                finish(stamp)
        for stamp in list(canvases):
            finish(stamp)
        return {stamp: picture.result() for stamp, picture in pictures.items()}


def _place(canvas: np.ndarray, corner: tuple[int, int], topics: CameraTopics, camera: CameraModel,
           msg: Any, size: tuple[int, int]) -> None:
    """Draw one camera's picture into its place; leave that black where it cannot be read."""
    image = decoded(topics, camera, msg, size)
    if image is not None:
        top, at = corner
        canvas[top:top + size[1], at:at + size[0]] = image


def nearest(msg: Any, wanted: set[int], tolerance_ns: int = 30_000_000) -> int | None:
    """Return the wanted stamp to which a picture belongs: its own, or the next within 30 ms."""
    stamp = stamp_ns(msg.header)
    if stamp in wanted:
        return stamp
    later = [s for s in wanted if 0 <= s - stamp <= tolerance_ns]
    return min(later) if later else None


def decoded(topics: CameraTopics, camera: CameraModel, msg: Any,
            size: tuple[int, int]) -> np.ndarray | None:
    """Return a picture as BGR at `size`, None where it cannot be read."""
    if topics.compressed:
        # Decoding at a fraction of the size is several times faster, and enough for a tile.
        flag = next((flag for factor, flag in (
            (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
            if camera.width // factor >= size[0]), cv2.IMREAD_COLOR)
        # OpenCV raises for no bytes at all.
        image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), flag) if len(msg.data) else None
        if image is None:
            return None
    else:
        try:
            image = cv2.cvtColor(frame_of(topics, msg).image, cv2.COLOR_RGB2BGR)
        except ValueError:
            return None
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def encoded(picture: np.ndarray, quality: int) -> bytes:
    """Return a picture as WebP, a third smaller than JPEG at these sizes."""
    done, data = cv2.imencode('.webp', picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise RuntimeError(f'the WebP encoder refused a picture of {picture.shape}')
    return data.tobytes()


def fitting_quality(picture: np.ndarray, budget: int) -> int:
    """Return the best of `QUALITIES` at which a picture stays within `budget` bytes."""
    for quality in QUALITIES[:-1]:
        if len(encoded(picture, quality)) <= budget:
            return quality
    return QUALITIES[-1]


def ground_picture(forecast: Forecast) -> np.ndarray:
    """Return (rows, cols) uint8: what the forecast says of the ground, as GROUND_* values."""
    half = 127
    ground = np.full(OUTPUT_GRID.shape, GROUND_FREE, np.uint8)
    known = forecast.road < UNOBSERVED
    ground[known[0] & (forecast.road[0] >= half)] = GROUND_DRIVABLE
    ground[known[1] & (forecast.road[1] >= half)
           & (forecast.road[1] > forecast.road[0])] = GROUND_WALKWAY
    static = forecast.occupancy_static
    drivable = np.isin(ground, (GROUND_DRIVABLE, GROUND_WALKWAY))
    ground[(static >= half) & (static < UNOBSERVED) & ~drivable] = GROUND_STATIC
    ground[static == UNOBSERVED] = GROUND_UNOBSERVED
    return ground


def occupancy_picture(forecast: Forecast) -> np.ndarray:
    """Return (steps * rows, cols) uint8: agents' occupancy at `SHOWN_STEPS`, in 16 levels."""
    codes = forecast.occupancy_agents[list(SHOWN_STEPS)].reshape(-1, OUTPUT_GRID.cols)
    shown = codes.copy()
    shown[(codes < MIN_CODE) | (codes == UNOBSERVED)] = 0
    return shown & 0xF0


def png_text(picture: np.ndarray) -> str:
    """Return a picture as base64 of a PNG."""
    done, data = cv2.imencode('.png', picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise RuntimeError(f'the PNG encoder refused a picture of {picture.shape}')
    return base64.b64encode(data).decode()


def decimetres(values: np.ndarray) -> list:
    """Return lengths in metres as integer decimetres."""
    return np.rint(np.asarray(values, np.float64) * 10).astype(int).tolist()


def angle(value: float) -> float:
    """Return radians with two digits."""
    return round(float(value), 2)


def window_json(forecast: Forecast, truth: Truth | None, start_ns: int,
                latency_ms: float | None) -> dict[str, Any]:
    """Return one window as the page wants it; README of the keys in `page.html`."""
    agents = []
    for agent in forecast.agents:
        keep = agent.mode_probabilities >= MIN_MODE
        keep[int(np.argmax(agent.mode_probabilities))] = True
        best = int(np.argmax(agent.mode_probabilities))
        spread = agent.covariances_m2[best, 1::2]       # at 1, 2 and 3 s
        agents.append({
            'i': agent.track_id[:ID_BYTES].hex(), 'c': AGENT_CLASSES.index(agent.label),
            's': round(100 * agent.score), 'p': [*decimetres(agent.pose[:2]), angle(agent.pose[2])],
            'd': decimetres(agent.size_m), 'v': decimetres(agent.velocity_mps),
            'm': [round(100 * float(p)) for p in agent.mode_probabilities[keep]],
            't': [decimetres(path.reshape(-1)) for path in agent.trajectories_m[keep]],
            'e': [[round(float(x), 2) for x in (m[0, 0], m[0, 1], m[1, 1])] for m in spread],
            'b': int(np.flatnonzero(keep).tolist().index(best))})
    entry = {
        't': round((forecast.stamp_ns - start_ns) / 1e9, 3), 'ok': int(forecast.valid),
        'why': list(forecast.reasons), 'lat': latency_ms,
        'used': forecast.window.frames_used, 'cams': [int(s) for s in
                                                      forecast.window.cameras.values()],
        'odo': None if forecast.odom_from_base is None else [
            round(float(v), 4) for v in forecast.odom_from_base],
        'plan': [[*decimetres(p[:2]), angle(p[2])] for p in forecast.ego_plan.poses],
        'a': agents, 'g': png_text(ground_picture(forecast)),
        'o': png_text(occupancy_picture(forecast))}
    if truth is not None:
        entry['truth'] = [{
            'c': int(truth.classes[i]), 'vis': int(truth.visible[i]),
            'p': [*decimetres(truth.poses[i, :2]), angle(truth.poses[i, 2])],
            'd': decimetres(truth.sizes[i]),
            't': decimetres(truth.futures[i, :, :2].reshape(-1))
            if np.isfinite(truth.futures[i]).all() else []}
            for i in range(len(truth.ids)) if np.abs(truth.poses[i, :2]).max() < 60]
    return entry


def camera_json(rig: CameraRig) -> list[dict[str, Any]]:
    """Return the cameras with their place in the mosaic and what it takes to project into them."""
    layout = mosaic_layout(rig)
    columns = max(len(row) for row in layout)
    cameras = []
    for r, row in enumerate(layout):
        for i, name in enumerate(row):
            camera = rig[name]
            camera_from_base = np.linalg.inv(camera.base_from_camera)
            cameras.append({
                'name': name, 'row': r, 'col': i + (columns - len(row)) / 2,
                'w': camera.width, 'h': camera.height,
                'p': np.round(camera.k @ camera_from_base[:3], 5).reshape(-1).tolist()})
    return cameras
