"""
ROS messages to the core's values and back, as pure functions.

What a forecast looks like as a message is in `wm_ros.messages`, shared with the replay; this file
adds rclpy's classes to it, and everything that comes in. Nothing here keeps state.
"""

from __future__ import annotations

import array
import functools
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from wm_ros.encodings import ENCODINGS, rgb_from_image
from wm_ros.geometry import rotation_from_quaternion
from wm_ros.image import ImageError
from wm_ros.messages import FrameOfReference, MessageTypes, stamp_ns
from wm_ros.types import TIME_STEP_S, Forecast, Frame, FrameSet


@functools.lru_cache(maxsize=1)
def message_types() -> MessageTypes:
    """Return rclpy's message classes; sequences become `array.array`, which it takes as is."""
    def find(name: str) -> type:
        package, kind, message = name.split('/')
        return getattr(import_module(f'{package}.{kind}'), message)

    from rclpy.serialization import serialize_message

    def sequence(values: np.ndarray) -> array.array:
        numbers = array.array(values.dtype.char)
        numbers.frombytes(values.view(np.uint8))
        return numbers

    return MessageTypes(find, sequence, serialize_message)


@dataclass(frozen=True)
class RawImage:
    """
    Pixels of a sensor_msgs/Image that are not yet RGB.

    The worker turns them into RGB; the executor's thread only looks at the message's fields.
    """

    camera: str
    data: memoryview
    encoding: str
    height: int
    width: int
    step: int

    def rgb(self) -> np.ndarray:
        """Return the picture as (H, W, 3) uint8 RGB; raise ImageError for fields that disagree."""
        try:
            return rgb_from_image(self.data, self.encoding, self.height, self.width, self.step)
        except ValueError as err:
            raise ImageError(f'{self.camera}: {err}') from err


def frame_from_image(msg: Any, camera: str, max_bytes: int) -> Frame:
    """
    Return the frame of a sensor_msgs/Image, its pixels still as they came (`RawImage`).

    Raises ImageError for an unknown encoding, or where width, height, step and the bytes present
    do not agree. `is_bigendian` means nothing for 8-bit channels and is ignored.
    """
    if msg.encoding not in ENCODINGS:
        raise ImageError(f'{camera}: encoding {msg.encoding!r}, want one of '
                         f'{", ".join(ENCODINGS)}')
    size = len(msg.data)
    if not 0 < size <= max_bytes:
        raise ImageError(f'{camera}: an image of {size} bytes, want 1 to {max_bytes}')
    if not msg.width or size != msg.step * msg.height:
        raise ImageError(f'{camera}: an image of {msg.width}x{msg.height} with {size} bytes, want '
                         f'step * height = {msg.step * msg.height}')
    image = RawImage(camera, memoryview(msg.data), msg.encoding, msg.height, msg.width, msg.step)
    return Frame(camera, stamp_ns(msg.header), image)


def frame_from_compressed(msg: Any, camera: str, max_bytes: int) -> Frame:
    """Return the frame of a sensor_msgs/CompressedImage; raise ImageError over the byte cap."""
    size = len(msg.data)
    if not 0 < size <= max_bytes:
        raise ImageError(f'{camera}: a compressed image of {size} bytes, want 1 to {max_bytes}')
    return Frame(camera, stamp_ns(msg.header), memoryview(msg.data))


def decoded(frames: FrameSet) -> tuple[FrameSet, dict[str, ImageError]]:
    """
    Return the set with every `RawImage` as an RGB array, and by camera what had none to give.

    Runs in the worker. A frame that cannot be read holds its error in the place of the image.
    """
    read, errors = dict(frames.frames), {}
    for name, frame in frames.frames.items():
        if isinstance(frame.image, RawImage):
            try:
                read[name] = replace(frame, image=frame.image.rgb())
            except ImageError as err:
                read[name] = replace(frame, image=err)
                errors[name] = err
    return replace(frames, frames=read), errors


def pose_from_transform(transform: Any) -> np.ndarray:
    """Return the 4x4 matrix of a geometry_msgs/Transform; raise ValueError where not finite."""
    q, t = transform.rotation, transform.translation
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
    pose[:3, 3] = (t.x, t.y, t.z)
    if not np.isfinite(pose).all():
        raise ValueError(f'transform: want a finite translation, got {[t.x, t.y, t.z]}')
    return pose


def frame_of_reference(forecast: Forecast, output: str, base_frame: str,
                       odom_frame: str) -> tuple[Forecast, FrameOfReference]:
    """
    Return the frame in which a forecast is published: `output` is 'base' or 'odom'.

    Without odometry there is no odom to publish in: the forecast comes back invalid, in base.
    """
    if output == 'base':
        return forecast, FrameOfReference(base_frame)
    if forecast.odom_from_base is None:
        reasons = (*forecast.reasons, f'output frame {odom_frame}: no odometry')
        return replace(forecast, valid=False, reasons=reasons), FrameOfReference(base_frame)
    return forecast, FrameOfReference(odom_frame, np.asarray(forecast.odom_from_base))


def within_horizon(forecast: Forecast, horizon_s: float) -> Forecast:
    """Return the forecast with occupancy cut to the steps up to `horizon_s` (at least now)."""
    steps = int(horizon_s / TIME_STEP_S + 1e-6) + 1
    return replace(forecast, occupancy_agents=forecast.occupancy_agents[:steps])
