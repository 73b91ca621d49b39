"""
A nuScenes scene as camera sets, ego states and truth, from the public table layout.

DIR holds `<version>/*.json` (v1.0-mini, v1.0-trainval or another; the tables scene, sample,
sample_data, calibrated_sensor, sensor, ego_pose, sample_annotation, instance and category) and the
files that sample_data names. Frames, quaternions (wxyz) and sizes (width, length, height) are those
of the nuScenes schema: Caesar et al., nuScenes (CVPR 2020), and the devkit's schema page. The ego
frame is on the ground below the middle of the rear axle: our `base_link`. Times are microseconds.

The six cameras fire one after another while the lidar turns, some 45 ms from the first to the last.
A set here is the frames nearest to one of the front camera, and carries the stamp of its newest: at
10 m/s its oldest picture shows what was up to 0.45 m away from where the set says.

Labels come twice a second; between them agents are interpolated, like poses between keyframes in
the devkit.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.data.recorded_drive import RecordedDrive
from wm_ros.data.tracks import Track
from wm_ros.geometry import rotation_from_quaternion, wrap_angle
from wm_ros.types import AGENT_CLASSES, CameraModel, CameraRig, EgoState

#: nuScenes cameras by our names, in the order of our surround rig; the first one sets the pace.
CAMERAS = {'front': 'CAM_FRONT', 'front_left': 'CAM_FRONT_LEFT', 'front_right': 'CAM_FRONT_RIGHT',
           'back': 'CAM_BACK', 'back_left': 'CAM_BACK_LEFT', 'back_right': 'CAM_BACK_RIGHT'}
#: Categories (their beginnings) by our classes; trailers, bicycle racks, and whatever else is
#: movable or static are no agents here.
CLASSES = (
    ('vehicle.car', 'car'), ('vehicle.emergency.police', 'car'),
    ('vehicle.emergency.ambulance', 'van'), ('vehicle.truck', 'truck'),
    ('vehicle.construction', 'truck'), ('vehicle.bus', 'bus'), ('vehicle.motorcycle', 'motorcycle'),
    ('vehicle.bicycle', 'bicycle'), ('human.pedestrian', 'pedestrian'), ('animal', 'animal'))
_TABLES = ('scene', 'sample', 'sample_data', 'calibrated_sensor', 'sensor', 'ego_pose',
           'sample_annotation', 'instance', 'category')
#: Labels are 0.5 s apart, give or take.
LABEL_GAP_S = 0.75
#: A camera's frame belongs to a set up to this far from the front camera's.
NEAR_US = 50_000
_US = 1000


class NuscenesError(ValueError):
    """Tables that are not such a data set: which, what was found and what was wanted."""


def version_folder(folder: Path) -> Path:
    """Return the folder of the tables in DIR, or DIR itself; raise NuscenesError for none."""
    for place in [folder, *sorted(folder.glob('v1.0-*'))]:
        if (place / 'scene.json').is_file():
            return place
    raise NuscenesError(f'{folder}: no scene.json in it or in a folder v1.0-*, want the tables of '
                        'nuScenes')


def scene_names(folder: Path | str) -> list[str]:
    """Return the names of all scenes, in the order of the table."""
    return [scene['name'] for scene in _table(version_folder(Path(folder)), 'scene')]


def load_scene(folder: Path | str, name: str) -> RecordedDrive:
    """Read one scene; raise NuscenesError naming the table, what was found and wanted."""
    try:
        return _load_scene(Path(folder), name)
    except KeyError as err:
        raise NuscenesError(f'{folder}: scene {name}: no {err} in the tables, where a row names it '
                            'or should have it') from err


def _load_scene(folder: Path, name: str) -> RecordedDrive:
    place = version_folder(folder)
    root = place.parent if place != folder else (
        folder if (folder / 'samples').is_dir() else folder.parent)
    tables = {table: _table(place, table) for table in _TABLES}
    scene = next((row for row in tables['scene'] if row['name'] == name), None)
    if scene is None:
        raise NuscenesError(f'{place}: no scene {name!r}; there are '
                            f'{", ".join(row["name"] for row in tables["scene"]) or "none"}')
    samples = {row['token'] for row in tables['sample'] if row['scene_token'] == scene['token']}
    frames, sensors = _frames(tables, samples)
    if not frames.get(CAMERAS['front']):
        raise NuscenesError(f'{place}: scene {name}: no frames of {CAMERAS["front"]}; channels: '
                            f'{", ".join(sorted(frames)) or "none"}')
    cameras = {ours: channel for ours, channel in CAMERAS.items() if frames.get(channel)}
    rig = CameraRig(tuple(_camera(ours, sensors[channel], frames[channel][0])
                          for ours, channel in cameras.items()), 'nuscenes')
    poses = _poses(tables['ego_pose'], frames)
    pictures, egos = [], []
    for newest_us, chosen in _sets(cameras, frames):
        egos.append(_ego(poses, newest_us))
        pictures.append({ours: root / row['filename'] for ours, row in chosen.items()})
    lost = [path for files in pictures for path in files.values() if not path.is_file()]
    if lost:
        raise NuscenesError(f'{lost[0]}: named by sample_data and not there '
                            f'({len(lost)} of {sum(map(len, pictures))} files are missing)')
    tracks, labels = _tracks(tables, samples, poses)
    return RecordedDrive(name, rig, tuple(pictures), tuple(egos), tracks, labelled=labels > 0)


def _table(place: Path, name: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads((place / f'{name}.json').read_text(encoding='utf-8'))
    except OSError as err:
        raise NuscenesError(f'{place / name}.json: {err.strerror}, want the table') from err
    except ValueError as err:
        raise NuscenesError(f'{place / name}.json: {err}, want JSON') from err
    if not isinstance(rows, list):
        raise NuscenesError(f'{place / name}.json: {type(rows).__name__}, want a list of rows')
    return rows


def _frames(tables: dict[str, list], samples: set[str]) -> tuple[dict[str, list], dict[str, dict]]:
    """Return the scene's frames by channel in order of time, and each channel's calibration."""
    channels = {row['token']: row['channel'] for row in tables['sensor']}
    calibrated = {row['token']: row for row in tables['calibrated_sensor']}
    frames, sensors = defaultdict(list), {}
    for row in tables['sample_data']:
        if row['sample_token'] in samples:
            sensor = calibrated[row['calibrated_sensor_token']]
            channel = channels[sensor['sensor_token']]
            frames[channel].append(row)
            sensors[channel] = sensor
    for rows in frames.values():
        rows.sort(key=lambda row: row['timestamp'])
    return dict(frames), sensors


def _camera(name: str, sensor: dict[str, Any], frame: dict[str, Any]) -> CameraModel:
    pose = np.eye(4)
    pose[:3, :3] = _rotation(sensor['rotation'])
    pose[:3, 3] = sensor['translation']
    return CameraModel(name, int(frame['width']), int(frame['height']),
                       np.array(sensor['camera_intrinsic'], dtype=np.float64).reshape(3, 3), pose)


def _rotation(wxyz: list[float]) -> np.ndarray:
    return rotation_from_quaternion(np.array([*wxyz[1:], wxyz[0]], dtype=np.float64))


def _yaw(wxyz: list[float]) -> float:
    turned = _rotation(wxyz)
    return float(np.arctan2(turned[1, 0], turned[0, 0]))


def _sets(cameras: dict[str, str], frames: dict[str, list]) -> list[tuple[int, dict[str, dict]]]:
    """Return (newest time in us, frame by camera) of each instant of the front camera."""
    times = {channel: [row['timestamp'] for row in frames[channel]]
             for channel in cameras.values()}
    found = []
    for front in frames[CAMERAS['front']]:
        chosen = {}
        for ours, channel in cameras.items():
            at = bisect_left(times[channel], front['timestamp'])
            near = min((i for i in (at - 1, at) if 0 <= i < len(times[channel])),
                       key=lambda i: abs(times[channel][i] - front['timestamp']))  # noqa: B023
            if abs(times[channel][near] - front['timestamp']) <= NEAR_US:
                chosen[ours] = frames[channel][near]
        found.append((max(row['timestamp'] for row in chosen.values()), chosen))
    # A set has its own time; two that share their newest frame are one.
    return [item for i, item in enumerate(found) if i == 0 or item[0] > found[i - 1][0]]


def _poses(rows: list[dict[str, Any]], frames: dict[str, list]) -> np.ndarray:
    """Return the ego poses of a scene's frames (P, 5): time in us, x, y, unwrapped yaw, z."""
    wanted = {row['ego_pose_token'] for channel in frames.values() for row in channel}
    found = {row['timestamp']: (*row['translation'][:2], _yaw(row['rotation']),
                                row['translation'][2])
             for row in rows if row['token'] in wanted}
    poses = np.array([(time, *pose) for time, pose in sorted(found.items())], dtype=np.float64)
    if len(poses) < 2:
        raise NuscenesError(f'ego_pose: {len(poses)} poses of this scene, want two at least')
    poses[:, 3] = np.unwrap(poses[:, 3])
    return poses


def _ego(poses: np.ndarray, time_us: int) -> EgoState:
    """Return the ego state at a time: the pose between its neighbours, motion over 0.1 s."""
    def at(times: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(times, poses[:, 0], poses[:, i]) for i in (1, 2, 3)], axis=-1)

    ends = np.clip([time_us - 50_000, time_us + 50_000], poses[0, 0], poses[-1, 0])
    here, (before, after) = at(np.array([time_us], float))[0], at(ends)
    seconds = (ends[1] - ends[0]) * 1e-6
    heading = np.array([np.cos(here[2]), np.sin(here[2])])
    return EgoState(time_us * _US, np.array([here[0], here[1], float(wrap_angle(here[2]))]),
                    float((after - before)[:2] @ heading / seconds),
                    float((after - before)[2] / seconds))


def _class_of(category: str) -> int | None:
    for start, ours in CLASSES:
        if category.startswith(start):
            return AGENT_CLASSES.index(ours)
    return None


def _tracks(tables: dict[str, list], samples: set[str],
            poses: np.ndarray) -> tuple[tuple[Track, ...], int]:
    """Return the tracks of the classes that we have, and how many labels the scene has in all."""
    times = {row['token']: row['timestamp'] for row in tables['sample']}
    categories = {row['token']: row['name'] for row in tables['category']}
    kinds = {row['token']: categories[row['category_token']] for row in tables['instance']}
    by_instance, labels = defaultdict(list), 0
    for row in tables['sample_annotation']:
        if row['sample_token'] in samples:
            labels += 1
            if _class_of(kinds[row['instance_token']]) is not None:
                by_instance[row['instance_token']].append(row)
    tracks = []
    for number, (token, rows) in enumerate(sorted(by_instance.items())):
        rows.sort(key=lambda row: times[row['sample_token']])
        stamps = np.array([times[row['sample_token']] for row in rows], dtype=np.int64)
        centre = np.array([row['translation'] for row in rows], dtype=np.float64)
        width, length, height = np.median([row['size'] for row in rows], axis=0)
        ground = np.interp(stamps, poses[:, 0], poses[:, 4])
        tracks.append(Track(
            number, _class_of(kinds[token]), stamps * _US,
            np.column_stack([centre[:, :2], [_yaw(row['rotation']) for row in rows]]),
            np.array([length, width, height]), centre[:, 2] - height / 2 - ground,
            max_gap_s=LABEL_GAP_S, velocity_span_s=LABEL_GAP_S))
    return tuple(tracks), labels
