"""
Rig files: the cameras of a vehicle with their calibration, in YAML.

    cameras:
      - name: front
        width: 1600
        height: 900
        k: [1266.4, 0, 816.3, 0, 1266.4, 491.5, 0, 0, 1]
        distortion: []                      # or 4, 5 or 8 numbers in OpenCV's order
        translation: [1.7, 0.0, 1.5]        # of the optical frame in base_link, metres
        rotation_xyzw: [-0.5, 0.5, -0.5, 0.5]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wm_ros.geometry import rotation_from_quaternion
from wm_ros.image import ImageError, check_camera
from wm_ros.types import CameraModel, CameraRig

_FIELDS = ('name', 'width', 'height', 'k', 'distortion', 'translation', 'rotation_xyzw')
MAX_CAMERAS = 16


class RigError(ValueError):
    """A rig file that cannot be used: path, field, what was found and what was wanted."""


def load_rig(path: str | Path) -> CameraRig:
    """Read and check a rig file; raise RigError naming path, field, found and wanted."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as err:
        raise RigError(f'{path}: {err.strerror}, want a readable rig file') from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise RigError(f'{path}: {err}, want YAML') from err
    return rig_from_dict(content, str(path), path.stem)


def rig_from_dict(content: Any, source: str, name: str = '') -> CameraRig:
    """Return the rig of a parsed file; `source` stands for it in errors (RigError)."""
    if not isinstance(content, dict) or not isinstance(content.get('cameras'), list):
        raise RigError(f'{source}: {type(content).__name__} at the top, want `cameras:` and a list')
    unknown = sorted(set(map(str, content)) - {'cameras', 'name'})
    if unknown:
        raise RigError(f'{source}: unknown key {", ".join(unknown)}, want cameras, name')
    entries = content['cameras']
    if not 1 <= len(entries) <= MAX_CAMERAS:
        raise RigError(f'{source}: {len(entries)} cameras, want 1 to {MAX_CAMERAS}')
    cameras = tuple(_camera(entry, f'{source}: cameras[{i}]') for i, entry in enumerate(entries))
    names = [camera.name for camera in cameras]
    for camera in names:
        if names.count(camera) > 1:
            raise RigError(f'{source}: cameras named {camera!r} {names.count(camera)} times, '
                           'want each name once')
    return CameraRig(cameras, str(content.get('name', name)))


def _camera(entry: Any, where: str) -> CameraModel:
    if not isinstance(entry, dict):
        raise RigError(f'{where}: {type(entry).__name__}, want a mapping of {", ".join(_FIELDS)}')
    for key in entry:
        if key not in _FIELDS:
            raise RigError(f'{where}.{key}: unknown field, want {", ".join(_FIELDS)}')
    for key in _FIELDS:
        if key not in entry and key != 'distortion':
            raise RigError(f'{where}.{key}: missing, want it')
    name = entry['name']
    if not isinstance(name, str) or not name:
        raise RigError(f'{where}.name: {name!r}, want a name')
    for key in ('width', 'height'):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int):
            raise RigError(f'{where}.{key}: {entry[key]!r}, want a whole number of pixels')
    pose = np.eye(4)
    pose[:3, 3] = _numbers(entry, 'translation', where, (3,))
    try:
        pose[:3, :3] = rotation_from_quaternion(_numbers(entry, 'rotation_xyzw', where, (4,)))
    except ValueError as err:
        if isinstance(err, RigError):
            raise
        raise RigError(f'{where}.rotation_xyzw: {err}') from err
    camera = CameraModel(
        name, entry['width'], entry['height'],
        _numbers(entry, 'k', where, (9,)).reshape(3, 3), pose,
        tuple(_numbers(entry, 'distortion', where, (0, 4, 5, 8)).tolist()))
    try:
        check_camera(camera)
    except ImageError as err:
        raise RigError(f'{where}: {err}') from err
    return camera


def _numbers(entry: dict, key: str, where: str, counts: tuple[int, ...]) -> np.ndarray:
    """Return a finite float64 vector of one of the given lengths; raise RigError otherwise."""
    found = entry.get(key) or []
    wanted = ' or '.join(map(str, counts))
    if not isinstance(found, list) or len(found) not in counts:
        raise RigError(f'{where}.{key}: {found!r}, want a list of {wanted} numbers')
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in found):
        raise RigError(f'{where}.{key}: {found!r}, want numbers only')
    values = np.array(found, dtype=np.float64)
    if not np.isfinite(values).all():
        raise RigError(f'{where}.{key}: {found!r}, want finite numbers')
    return values


def quaternion_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Return the ROS quaternion (x, y, z, w), w >= 0, of a 3x3 rotation (Bar-Itzhack 2000)."""
    m = np.asarray(rotation, dtype=np.float64)
    symmetric = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
        [0, m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
        [0, 0, m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [0, 0, 0, m[0, 0] + m[1, 1] + m[2, 2]]]) / 3
    quaternion = np.linalg.eigh(symmetric, UPLO='U')[1][:, -1]
    return quaternion if quaternion[3] >= 0 else -quaternion


def rig_to_yaml(rig: CameraRig) -> str:
    """Return the text of a rig file that `load_rig` reads back."""
    cameras = []
    for camera in rig.cameras:
        pose = camera.base_from_camera
        cameras.append({
            'name': camera.name, 'width': int(camera.width), 'height': int(camera.height),
            'k': [float(value) for value in np.asarray(camera.k).reshape(-1)],
            'distortion': [float(value) for value in camera.distortion],
            'translation': [float(value) for value in pose[:3, 3]],
            'rotation_xyzw': [float(value) for value in quaternion_from_rotation(pose[:3, :3])]})
    content = {'name': rig.name, 'cameras': cameras} if rig.name else {'cameras': cameras}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
