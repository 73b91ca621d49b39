"""
Pixels of a `sensor_msgs/Image` as RGB, without cv_bridge (which breaks with NumPy 2).

Encodings are those of `sensor_msgs/image_encodings.hpp`.
"""

from __future__ import annotations

import cv2
import numpy as np

#: Encoding -> (bytes a pixel, OpenCV's conversion to RGB or None). REP-118 and image_encodings.hpp:
#: 'yuv422' is UYVY, 'yuv422_yuy2' is YUYV.
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    '8UC4': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUYV),
    'yuyv': (2, cv2.COLOR_YUV2RGB_YUYV),
    'bayer_rggb8': (1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGRBG2RGB),
}

ENCODINGS = tuple(_ENCODINGS)


def rgb_from_image(data: np.ndarray | memoryview | bytes, encoding: str, height: int, width: int,
                   step: int) -> np.ndarray:
    """
    Return the picture as (height, width, 3) uint8 RGB; rgb8 shares the memory of `data`.

    `step` is the length of a row in bytes, padding included. Raises ValueError, naming what was
    found and wanted, for an encoding that is not in `ENCODINGS` or another number of bytes.
    """
    if encoding not in _ENCODINGS:
        raise ValueError(f'image encoding {encoding!r}; want one of {", ".join(_ENCODINGS)}')
    size, conversion = _ENCODINGS[encoding]
    values = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1 or step < width * size or len(values) != step * height:
        raise ValueError(f'{encoding} image {width}x{height}: want {width * size} bytes or more a '
                         f'row and {step * height} in all, got step {step} and {len(values)}')
    rows = values.reshape(height, step)[:, :width * size]
    picture = rows.reshape(height, width, size) if step == width * size else np.ascontiguousarray(
        rows).reshape(height, width, size)
    if conversion is None:
        return picture
    if size == 2 and width % 2:
        raise ValueError(f'{encoding} image: want an even width, got {width}')
    return cv2.cvtColor(picture, conversion)
