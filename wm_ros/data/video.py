"""
Plain video as camera sets: a file a camera and a rig file that says where each camera sits.

There is no odometry in a video, so the model's trained mask stands in; and no truth. Stamps are the
video's own times after a start that is given: frame i of a constant rate at start + i / rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_ros.data.bag import COMPRESSED, BagWriter
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.sim_bag import camera_info_message, optical_frame, static_transforms
from wm_ros.types import CameraRig

NS = 1_000_000_000


class VideoError(ValueError):
    """A video that cannot be used: which, what was found and what was wanted."""


@dataclass(frozen=True)
class Video:
    """One open file: `frames` as its header counts them (0: not told), `rate_hz`, size."""

    path: Path
    width: int
    height: int
    rate_hz: float
    frames: int


def open_video(path: Path) -> tuple[cv2.VideoCapture, Video]:
    """Open a file; raise VideoError where it holds no video or does not tell its rate."""
    capture = cv2.VideoCapture(str(path))
    if not path.is_file() or not capture.isOpened():
        capture.release()
        raise VideoError(f'{path}: {"not a video" if path.is_file() else "not there"}; want a file '
                         'that OpenCV can decode')
    video = Video(path, int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                  int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
                  float(capture.get(cv2.CAP_PROP_FPS)),
                  max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))
    if not 1.0 <= video.rate_hz <= 240.0:
        capture.release()
        raise VideoError(f'{path}: {video.rate_hz:g} frames a second, want 1 to 240')
    return capture, video


def pictures(path: Path, quality: int, first_s: float = 0.0,
             seconds: float = 0.0) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds from the beginning, JPEG) of the frames from `first_s` on."""
    capture, video = open_video(path)
    try:
        for i in range(1 << 40):
            at = i / video.rate_hz
            if seconds and at >= first_s + seconds:
                return
            if at < first_s:
                if not capture.grab():
                    return
                continue
            good, picture = capture.read()
            if not good:
                return
            good, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if not good:
                raise VideoError(f'{path}: frame {i}: the JPEG encoder refused {picture.shape}')
            yield at, data.tobytes()
    finally:
        capture.release()


def check(rig: CameraRig, files: list[Path]) -> list[Video]:
    """Return the videos of a rig's cameras; raise VideoError where number or size do not fit."""
    if len(files) != len(rig):
        raise VideoError(f'{len(files)} videos for the cameras {", ".join(rig.names)}: want one '
                         'each, in this order')
    videos = []
    for camera, path in zip(rig.cameras, files, strict=True):
        capture, video = open_video(path)
        capture.release()
        if (video.width, video.height) != (camera.width, camera.height):
            raise VideoError(f'{path}: {video.width}x{video.height}, and the rig says '
                             f'{camera.width}x{camera.height} for camera {camera.name!r}; want '
                             'the calibration of these pictures')
        videos.append(video)
    return videos


def write_video(path: Path | str, rig: CameraRig, files: list[Path], start_ns: int = NS,
                quality: int = 90, first_s: float = 0.0, seconds: float = 0.0,
                storage: str = 'mcap',
                progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """
    Write a bag of one video a camera; return the pictures of each.

    Topics: <camera>/image_raw/compressed, <camera>/camera_info, /tf_static. Videos of several
    cameras begin together. `progress` is called with (pictures done, in all as headers say).
    """
    videos = check(rig, files)
    types, store = bag_types(), typestore()
    total = sum(round(seconds * video.rate_hz) if seconds else video.frames for video in videos)
    streams = [pictures(file, quality, first_s, seconds) for file in files]
    heads = [next(stream, None) for stream in streams]
    counts = dict.fromkeys(rig.names, 0)
    with BagWriter(path, storage) as writer:
        writer.note('recording', 'video ' + ' '.join(file.name for file in files))
        writer.note('cameras', ' '.join(rig.names))
        writer.write('/tf_static', start_ns, static_transforms(rig, start_ns), latched=True)
        while any(head is not None for head in heads):
            k = min((i for i, head in enumerate(heads) if head is not None),
                    key=lambda i: heads[i][0])
            (at, data), camera = heads[k], rig.cameras[k]
            stamp = start_ns + round((at - first_s) * NS)
            header = types.header(stamp, optical_frame(camera.name))
            writer.write(f'/{camera.name}/camera_info', stamp, camera_info_message(camera, header))
            writer.write(f'/{camera.name}/image_raw/compressed', stamp, store.types[COMPRESSED](
                header=header, format='jpeg', data=np.frombuffer(data, np.uint8)))
            counts[camera.name] += 1
            heads[k] = next(streams[k], None)
            if progress and total:
                progress(min(sum(counts.values()), total - 1), total)
    if progress and total:
        progress(total, total)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise VideoError(f'{path}: no picture of camera {", ".join(empty)}')
    return counts
