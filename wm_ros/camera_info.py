"""What a sensor_msgs/CameraInfo says of a camera: live and in a bag the same is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_ros.image import ImageError, calibrated
from wm_ros.types import CameraModel, CameraState

#: Numbers of coefficients that each distortion model may bring.
_DISTORTIONS = {'': (0,), 'plumb_bob': (0, 4, 5), 'rational_polynomial': (8,)}


def camera_from_info(msg: Any, camera: CameraModel) -> CameraModel:
    """
    Return `camera` with the intrinsics of a sensor_msgs/CameraInfo.

    Raises ImageError (UNCALIBRATED) naming the field that cannot be used. `k` and `d` describe the
    whole picture, so binning and regions of interest are refused rather than guessed at.
    """
    def refuse(field: str, found: object, wanted: str) -> None:
        raise ImageError(f'{camera.name}: CameraInfo.{field} {found}, want {wanted}',
                         CameraState.UNCALIBRATED)

    distortion = [float(value) for value in msg.d]
    model = msg.distortion_model
    if model not in _DISTORTIONS:
        refuse('distortion_model', repr(model), 'plumb_bob or rational_polynomial')
    if not any(distortion):
        distortion = []
    elif len(distortion) not in _DISTORTIONS[model]:
        if any(distortion[8:]) or len(distortion) not in (12, 14):
            refuse('d', f'of {len(distortion)} numbers',
                   ' or '.join(map(str, _DISTORTIONS[model])) + f' for {model or "no model"}')
        distortion = distortion[:8]    # thin prism and tilt terms that are zero
    if max(msg.binning_x, msg.binning_y) > 1:
        refuse('binning', f'{msg.binning_x}x{msg.binning_y}', 'none')
    roi = msg.roi
    if roi.x_offset or roi.y_offset or (roi.width, roi.height) not in (
            (0, 0), (msg.width, msg.height)):
        refuse('roi', f'{roi.width}x{roi.height}+{roi.x_offset}+{roi.y_offset}', 'none')
    try:
        return calibrated(camera, np.array(msg.k).reshape(3, 3), tuple(distortion),
                          int(msg.width), int(msg.height))
    except ImageError as err:
        raise ImageError(f'CameraInfo of {err}', err.state) from err
