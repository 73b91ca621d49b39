"""The report as a Rerun recording: the same pictures, forecasts, truth and scores."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from wm_ros.evaluate.report_data import (
    GROUND_UNOBSERVED,
    SHOWN_STEPS,
    TILE_WIDTH,
    Report,
    ground_picture,
    mosaic_layout,
    occupancy_picture,
)
from wm_ros.evaluate.report_page import frames_tiles
from wm_ros.evaluate.scene_picture import COLOURS, EGO, GROUND_COLOURS, MUTED
from wm_ros.types import AGENT_CLASSES, OUTPUT_GRID, CameraModel, Forecast, Truth

MODULE = 'rerun-sdk'
#: Occupancy is shown now and at the horizon: places of `SHOWN_STEPS` with their names.
OCCUPANCY = {0: 'now', len(SHOWN_STEPS) - 1: 'in_3_s'}
#: Modes less likely than this are left out, the likeliest one apart.
MIN_MODE = 0.05
JPEG_QUALITY = 75


class RerunError(RuntimeError):
    """Rerun is not installed; the message says how to install it."""


def load() -> ModuleType:
    """Return the library; raise RerunError where it is missing."""
    try:
        import rerun
    except ImportError as err:
        raise RerunError(f'--rerun: {MODULE} is not installed; pip install -r '
                         'requirements/rerun.txt') from err
    return rerun


def write_recording(report: Report, path: Path) -> int:
    """Write what the page shows as an .rrd file; return its size in bytes."""
    rr = load()
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = rr.RecordingStream('wm_ros', recording_id=report.title)
    recording.save(path, default_blueprint=_layout(report))
    recording.log('world', rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for camera in report.rig.cameras if report.rig is not None else ():
        _log_camera(rr, recording, camera, _tile_width(report) / camera.width)
    for name, colour in (('agents', (90, 180, 255)), ('occupancy', (255, 192, 77))):
        recording.log(f'surprise/{name}', rr.SeriesLines(
            colors=[colour], names=f'{name} (nats)'), static=True)
    latency = report.health.latency_ms | {
        int(stamp): ms for stamp, ms in report.summary.get('latency_ms', {}).items()}
    for forecast in report.forecasts:
        stamp = forecast.stamp_ns
        recording.set_time('stamp', timestamp=np.datetime64(stamp, 'ns'))
        if forecast.odom_from_base is not None:
            x, y, yaw = (float(v) for v in forecast.odom_from_base)
            recording.log('world/base_link', rr.Transform3D(
                translation=[x, y, 0.0],
                rotation=rr.RotationAxisAngle(axis=[0, 0, 1], angle=rr.Angle(rad=yaw))))
        _log_pictures(rr, recording, report, stamp)
        if stamp in report.frames and report.rig is not None:
            recording.log('future', rr.Image(frames_tiles(report.frames[stamp], report.rig)))
        _log_ground(rr, recording, forecast)
        _log_agents(rr, recording, forecast)
        if stamp in report.truths:
            _log_truth(rr, recording, report.truths[stamp])
        moment, one = report.moments.get(stamp), report.judged.get(stamp)
        if moment is not None:
            recording.log('surprise/agents', rr.Scalars(moment.agents))
            recording.log('surprise/occupancy', rr.Scalars(moment.occupancy))
        if one is not None and one.visible:
            recording.log('right', rr.Scalars(100 * one.right / one.visible))
        if stamp in latency:
            recording.log('latency_ms', rr.Scalars(latency[stamp]))
        if not forecast.valid:
            recording.log('health', rr.TextLog(
                '; '.join(forecast.reasons) or 'invalid', level='WARN'))
    for stamp, level, lines in report.health.reports:
        if lines:
            recording.set_time('stamp', timestamp=np.datetime64(stamp, 'ns'))
            recording.log('health', rr.TextLog(
                '; '.join(lines), level=('INFO', 'WARN', 'ERROR', 'ERROR')[level]))
    recording.flush()
    recording.disconnect()
    return path.stat().st_size


def _layout(report: Report) -> Any:
    """Return how the viewer arranges it: the scene, the cameras beside, the scores below."""
    import rerun.blueprint as rrb

    names = [] if report.rig is None else [
        name for row in mosaic_layout(report.rig) for name in row]
    cameras = [rrb.Spatial2DView(origin=f'world/base_link/{name}', name=name) for name in names]
    scene = rrb.Spatial3DView(origin='world/base_link', name='scene')
    if report.frames:
        cameras.append(rrb.Spatial2DView(origin='future', name='predicted in 1, 2 and 3 s'))
    upper = rrb.Horizontal(scene, rrb.Grid(*cameras)) if cameras else scene
    lines = ['right', 'latency_ms']
    lower = rrb.Horizontal(
        rrb.TimeSeriesView(origin='surprise', name='surprise (nats)'),
        rrb.TimeSeriesView(origin='/', contents=lines, name='right (%), latency (ms)'),
        rrb.TextLogView(origin='health', name='health'))
    return rrb.Blueprint(rrb.Vertical(upper, lower, row_shares=[3, 1]), collapse_panels=True)


def _log_camera(rr: ModuleType, recording: Any, camera: CameraModel, scale: float) -> None:
    """Log where a camera sits, and its calibration for pictures of `scale` times its size."""
    place = f'world/base_link/{camera.name}'
    recording.log(place, rr.Transform3D(translation=camera.base_from_camera[:3, 3],
                                        mat3x3=camera.base_from_camera[:3, :3]), static=True)
    k = camera.k * scale
    k[:2, 2] += 0.5 * scale - 0.5       # pixel centres lie at integers
    k[2, 2] = 1.0
    recording.log(place, rr.Pinhole(
        image_from_camera=k, resolution=[camera.width * scale, camera.height * scale],
        camera_xyz=rr.ViewCoordinates.RDF, image_plane_distance=1.5), static=True)


def _tile_width(report: Report) -> int:
    """Return how wide a camera's picture is in the mosaics."""
    columns = max(len(row) for row in mosaic_layout(report.rig))
    return TILE_WIDTH if columns > 1 else 2 * TILE_WIDTH


def _log_pictures(rr: ModuleType, recording: Any, report: Report, stamp: int) -> None:
    """Cut the tiles out of a stamp's mosaic."""
    mosaic = report.mosaics.get(stamp)
    if mosaic is None or report.rig is None:
        return
    picture = cv2.imdecode(np.frombuffer(mosaic, np.uint8), cv2.IMREAD_COLOR)
    layout = mosaic_layout(report.rig)
    columns = max(len(row) for row in layout)
    width, height = picture.shape[1] // columns, picture.shape[0] // len(layout)
    for r, row in enumerate(layout):
        for i, name in enumerate(row):
            camera = report.rig[name]
            left = round((i + (columns - len(row)) / 2) * width)
            tile = picture[r * height:r * height + round(width * camera.height / camera.width),
                           left:left + width]
            done, data = cv2.imencode('.jpg', tile, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if done:
                recording.log(f'world/base_link/{name}', rr.EncodedImage(
                    contents=data.tobytes(), media_type='image/jpeg'))


def _log_ground(rr: ModuleType, recording: Any, forecast: Forecast) -> None:
    """Put the ground under the vehicle, and the occupancy just above it."""
    ground = ground_picture(forecast)
    painted = np.zeros((*ground.shape, 4), np.uint8)
    for value, colour in GROUND_COLOURS.items():
        painted[ground == value] = (*colour[::-1], 255)
    painted[ground == GROUND_UNOBSERVED] = (0, 0, 0, 0)
    recording.log('world/base_link/ground', _plane(rr, painted, -0.02))
    codes = occupancy_picture(forecast).reshape(len(SHOWN_STEPS), *OUTPUT_GRID.shape)
    for k, name in OCCUPANCY.items():
        layer, p = codes[k], codes[k] / 254.0
        heat = np.stack([np.full_like(p, 255), 190 - 130 * p, 60 - 30 * p,
                         np.where(layer > 0, 60 + 190 * p, 0)], axis=-1)
        recording.log(f'world/base_link/occupancy/{name}',
                      _plane(rr, heat.astype(np.uint8), 0.02 + 0.01 * k))


def _plane(rr: ModuleType, cells: np.ndarray, z: float) -> Any:
    """Return a textured square over the grid; row is y and column is x."""
    x0, y0 = OUTPUT_GRID.x_min_m, OUTPUT_GRID.y_min_m
    x1 = x0 + OUTPUT_GRID.cols * OUTPUT_GRID.cell_m
    y1 = y0 + OUTPUT_GRID.rows * OUTPUT_GRID.cell_m
    return rr.Mesh3D(
        vertex_positions=[[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]],
        vertex_texcoords=[[0, 0], [1, 0], [1, 1], [0, 1]],
        triangle_indices=[[0, 1, 2], [0, 2, 3]], albedo_texture=cells)


def _log_agents(rr: ModuleType, recording: Any, forecast: Forecast) -> None:
    boxes, paths, path_colours, ends, spreads, turns, colours, labels = ([] for _ in range(8))
    for agent in forecast.agents:
        kind = AGENT_CLASSES.index(agent.label)
        rgb = COLOURS[kind][::-1]
        boxes.append((agent.pose, agent.size_m))
        colours.append(rgb)
        labels.append(f'{agent.label} {np.hypot(*agent.velocity_mps):.0f} m/s')
        best = int(np.argmax(agent.mode_probabilities))
        for k, probability in enumerate(agent.mode_probabilities):
            if probability >= MIN_MODE or k == best:
                paths.append(_lifted(np.concatenate([agent.pose[None, :2],
                                                     agent.trajectories_m[k]])))
                path_colours.append((*rgb, round(255 * min(1.0, 0.2 + 0.8 * float(probability)))))
        values, vectors = np.linalg.eigh(agent.covariances_m2[best, -1].astype(np.float64))
        ends.append([*agent.trajectories_m[best, -1], 0.1])
        spreads.append([*(2 * np.sqrt(np.maximum(values, 1e-4))), 0.05])
        turns.append(float(np.arctan2(vectors[1, 0], vectors[0, 0])))
    recording.log('world/base_link/agents', _boxes(rr, boxes, colours, labels))
    recording.log('world/base_link/paths', rr.LineStrips3D(
        paths, colors=path_colours or None, radii=0.08))
    recording.log('world/base_link/covariances', rr.Ellipsoids3D(
        centers=np.array(ends).reshape(-1, 3), half_sizes=np.array(spreads).reshape(-1, 3),
        rotation_axis_angles=[_about_z(rr, turn) for turn in turns], colors=colours or None))
    plan = np.concatenate([np.zeros((1, 2)), forecast.ego_plan.poses[:, :2]])
    recording.log('world/base_link/plan', rr.LineStrips3D(
        [_lifted(plan)], colors=[EGO[::-1]], radii=0.12))


def _log_truth(rr: ModuleType, recording: Any, truth: Truth) -> None:
    seen = np.flatnonzero(truth.visible)
    recording.log('world/base_link/truth', _boxes(
        rr, [(truth.poses[i], truth.sizes[i]) for i in seen], [(255, 255, 255)] * len(seen), None))
    paths = [_lifted(np.concatenate([truth.poses[i:i + 1, :2], truth.futures[i, :, :2]]))
             for i in seen if np.isfinite(truth.futures[i]).all()]
    recording.log('world/base_link/truth/paths', rr.LineStrips3D(
        paths, colors=[MUTED[::-1]], radii=0.05))


def _lifted(path: np.ndarray) -> np.ndarray:
    return np.concatenate([path, np.full((len(path), 1), 0.1)], axis=1)


def _about_z(rr: ModuleType, angle: float) -> Any:
    return rr.RotationAxisAngle(axis=[0, 0, 1], angle=rr.Angle(rad=angle))


def _boxes(rr: ModuleType, boxes: list[tuple[np.ndarray, np.ndarray]], colours: list,
           labels: list[str] | None) -> Any:
    """Return boxes of poses (x, y, yaw) and sizes that stand on the ground."""
    return rr.Boxes3D(
        centers=np.array([[p[0], p[1], s[2] / 2] for p, s in boxes]).reshape(-1, 3),
        half_sizes=np.array([s / 2 for _, s in boxes]).reshape(-1, 3),
        rotation_axis_angles=[_about_z(rr, float(p[2])) for p, _ in boxes],
        colors=colours or None, labels=labels or None)
