"""
Twenty stored windows for the parity gate: one simulated drive of 35 frames, two cameras.

`windows.npz` holds camera pictures and ego states alone, no output of any model, so it serves
every artifact. One set is left out and one camera is missing once, so that the masks count.
`python test/windows.py` makes the file again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wm_ros.types import CameraModel, CameraRig, EgoState, Frame, FrameSet

PATH = Path(__file__).parent / 'data' / 'windows.npz'
FRAMES = 35
SEED, WORLD = 800_000, 'sim-hard'
CAMERAS = ('front', 'front_left')
JPEG_QUALITY = 80
#: The set that is left out, and the one that lacks its last camera.
MISSING_SET, MISSING_CAMERA = 10, 22


def make(path: Path = PATH) -> None:
    """Render the drive and write it."""
    from wm_ros.data.simulator import SimulatedDrive

    drive = SimulatedDrive(SEED, FRAMES / 10, WORLD)
    cameras = [camera for camera in drive.rig.cameras if camera.name in CAMERAS]
    assert len(cameras) == len(CAMERAS), drive.rig.names
    jpegs, stamps, ego = [], [], []
    for sample in drive.samples(every=10 * FRAMES):
        stamps.append(sample.frames.stamp_ns)
        ego.append([*sample.ego.odom_from_base, sample.ego.speed_mps, sample.ego.yaw_rate_rps])
        for camera in cameras:
            picture = sample.frames.frames[camera.name].image
            done, jpeg = cv2.imencode('.jpg', picture[..., ::-1],
                                      [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            assert done
            jpegs.append(jpeg)
    rig = [{'name': c.name, 'width': c.width, 'height': c.height, 'k': c.k.tolist(),
            'base_from_camera': c.base_from_camera.tolist(), 'distortion': list(c.distortion)}
           for c in cameras]
    path.parent.mkdir(exist_ok=True)
    np.savez(path, jpegs=np.concatenate(jpegs), ends=np.cumsum([len(j) for j in jpegs]),
             stamps_ns=np.array(stamps[:FRAMES]), ego=np.array(ego[:FRAMES]),
             rig=np.array(json.dumps(rig)))


def rig() -> CameraRig:
    """Return the rig of the stored pictures."""
    with np.load(PATH) as stored:
        cameras = json.loads(str(stored['rig']))
    return CameraRig(tuple(CameraModel(
        c['name'], c['width'], c['height'], np.array(c['k']), np.array(c['base_from_camera']),
        tuple(c['distortion'])) for c in cameras), 'parity')


def frames() -> Iterator[tuple[FrameSet, EgoState]]:
    """Yield 34 camera sets with their ego states; each of the last 20 ends a window."""
    names = rig().names
    with np.load(PATH) as stored:
        jpegs, ends, stamps, ego = (stored[key] for key in ('jpegs', 'ends', 'stamps_ns', 'ego'))
    files = np.split(jpegs, ends[:-1])
    for i, stamp in enumerate(int(stamp) for stamp in stamps):
        if i == MISSING_SET:
            continue
        present = names[:-1] if i == MISSING_CAMERA else names
        pictures = {name: Frame(name, stamp, files[i * len(names) + names.index(name)].tobytes())
                    for name in present}
        yield (FrameSet(stamp, pictures),
               EgoState(stamp, ego[i, :3], float(ego[i, 3]), float(ego[i, 4])))


if __name__ == '__main__':
    make()
    print(f'{PATH}: {PATH.stat().st_size} bytes')
