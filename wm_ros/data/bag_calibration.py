"""Calibration in a bag: cameras of CameraInfo messages, and where they sit by /tf_static."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from wm_ros.camera_info import camera_from_info
from wm_ros.data.bag_writer import BagError
from wm_ros.geometry import rotation_from_quaternion
from wm_ros.image import ImageError
from wm_ros.types import CameraModel


def static_transforms(messages: Iterable[Any]) -> dict[str, tuple[str, np.ndarray]]:
    """
    Return child frame -> (parent frame, 4x4 parent_from_child) of tf2_msgs/TFMessages.

    As tf2 does, it ignores transforms that are none: no quaternion, or not finite.
    """
    transforms: dict[str, tuple[str, np.ndarray]] = {}
    for msg in messages:
        for t in msg.transforms:
            matrix = np.eye(4)
            q, p = t.transform.rotation, t.transform.translation
            try:
                matrix[:3, :3] = rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
            except ValueError:
                continue
            matrix[:3, 3] = p.x, p.y, p.z
            if not np.isfinite(matrix).all():
                continue
            transforms[t.child_frame_id] = (t.header.frame_id, matrix)
    return transforms


def camera_model(name: str, info: Any, base_from_camera: np.ndarray) -> CameraModel:
    """Return the camera of a CameraInfo; raise BagError for one that the node would refuse."""
    unknown = CameraModel(name, 0, 0, np.eye(3), base_from_camera, ())
    try:
        return camera_from_info(info, unknown)
    except ImageError as err:
        raise BagError(str(err)) from err


def base_from_frame(transforms: dict[str, tuple[str, np.ndarray]], frame: str, base: str,
                    where: str = 'tf_static') -> np.ndarray:
    """Return 4x4 base_from_frame by following parents; raise BagError where the chain ends."""
    matrix, here, seen = np.eye(4), frame, [frame]
    while here != base:
        if here not in transforms:
            raise BagError(f'{where}: no transform from {base!r} to {frame!r} in /tf_static '
                           f'(the chain {" <- ".join(seen)} ends at {here!r})')
        here, parent_from_child = transforms[here]
        matrix = parent_from_child @ matrix
        if here in seen:
            raise BagError(f'{where}: /tf_static has a loop: {" <- ".join([*seen, here])}')
        seen.append(here)
    return matrix
