"""Calibration in force: intrinsics from CameraInfo or the rig file, poses from TF or the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from wm_ros.camera_info import camera_from_info
from wm_ros.image import ImageError
from wm_ros.types import CameraRig

#: Looks up `base_from_camera` (4x4) of an optical frame; None where it is not known.
TransformLookup = Callable[[str], 'np.ndarray | None']
#: Metres, and radians, by which a pose may differ and be the same: TF interpolates, and rounds
#: otherwise every time, and each new calibration begins the window anew.
SAME_POSE = 1e-3


class Calibration:
    """
    What is known of each camera of a rig, and why a camera cannot be used.

    `camera_info` and `extrinsics` are the parameters of those names; `lookup` is None where TF is
    not to be had. `rig` always names all cameras; those in `problems` must not be used.
    """

    def __init__(self, rig: CameraRig, camera_info: str, extrinsics: str,
                 lookup: TransformLookup | None) -> None:
        self._file = rig
        self._cameras = {camera.name: camera for camera in rig.cameras}
        self._extrinsics = extrinsics
        self._lookup = lookup if extrinsics != 'rig' else None
        self._frame_ids: dict[str, str] = {}            # as CameraInfo names them
        self._picture_frame_ids: dict[str, str] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._intrinsics: dict[str, str] = dict.fromkeys(
            rig.names, 'no CameraInfo yet' if camera_info == 'required' else '')
        self._poses: dict[str, str] = dict.fromkeys(
            rig.names, 'no transform yet' if extrinsics == 'tf' else '')

    @property
    def rig(self) -> CameraRig:
        """Return the rig with the newest good calibration of each camera."""
        return CameraRig(tuple(self._cameras[name] for name in self._file.names), self._file.name)

    @property
    def problems(self) -> dict[str, str]:
        """Return why cameras cannot be used, by name; those that can are not in it."""
        found = {name: self._intrinsics[name] or self._poses[name] for name in self._file.names}
        return {name: text for name, text in found.items() if text}

    @property
    def awaits_info(self) -> bool:
        """Tell whether a camera that needs a CameraInfo has never had one, good or bad."""
        return any(text and name not in self._seen for name, text in self._intrinsics.items())

    def info(self, name: str, msg: Any) -> bool:
        """Take a CameraInfo; return whether it changed anything. A bad one takes the camera out."""
        if msg.header.frame_id:
            self._frame_ids[name] = msg.header.frame_id
        roi = msg.roi
        content = (msg.width, msg.height, msg.distortion_model, tuple(msg.k), tuple(msg.d),
                   msg.binning_x, msg.binning_y, roi.x_offset, roi.y_offset, roi.width, roi.height)
        # NaN is unlike itself, so compare by representation.
        if repr(content) == repr(self._seen.get(name)):
            return False
        self._seen[name] = content
        try:
            self._cameras[name] = camera_from_info(msg, self._cameras[name])
            self._intrinsics[name] = ''
        except ImageError as err:
            self._intrinsics[name] = str(err)
        return True

    def picture_frame(self, name: str, frame_id: str) -> None:
        """Note the optical frame that a picture names; what CameraInfo says goes before it."""
        if frame_id:
            self._picture_frame_ids[name] = frame_id

    def refresh_poses(self) -> bool:
        """Look all cameras up in TF again; return whether anything changed."""
        if self._lookup is None:
            if self._extrinsics == 'tf':
                self._poses = dict.fromkeys(self._poses, 'no TF: tf2_ros is not installed')
            return False
        changed = False
        for name in self._file.names:
            frame_id = self._frame_ids.get(name) or self._picture_frame_ids.get(name)
            pose = self._lookup(frame_id) if frame_id else None
            problem = ''
            if pose is None:
                pose = self._file[name].base_from_camera
                if self._extrinsics == 'tf':
                    pose = self._cameras[name].base_from_camera
                    problem = (f'no transform from {frame_id}' if frame_id
                               else 'no transform: its messages name no frame yet')
            if problem != self._poses[name] or not np.allclose(
                    pose, self._cameras[name].base_from_camera, rtol=0.0, atol=SAME_POSE):
                self._poses[name] = problem
                self._cameras[name] = replace(self._cameras[name], base_from_camera=pose)
                changed = True
        return changed


class TfLookup:
    """`base_from_camera` from TF. Needs tf2_ros, which PyPI's ROS wheels do not have."""

    def __init__(self, node: Any, base_frame: str) -> None:
        from tf2_ros import Buffer, TransformListener

        self._base_frame = base_frame
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def __call__(self, frame_id: str) -> np.ndarray | None:
        """Return the newest pose of an optical frame in the vehicle frame, or None."""
        from rclpy.time import Time
        from tf2_ros import TransformException

        from wm_ros.ros.convert import pose_from_transform

        try:
            found = self._buffer.lookup_transform(self._base_frame, frame_id, Time())
            return pose_from_transform(found.transform)
        except (TransformException, ValueError):
            return None

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()


def tf_lookup(node: Any, base_frame: str) -> TfLookup | None:
    """Return a lookup, or None where tf2_ros is not installed."""
    try:
        return TfLookup(node, base_frame)
    except ImportError:
        return None
