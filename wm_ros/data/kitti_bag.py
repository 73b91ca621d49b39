"""A KITTI drive as a bag, as a vehicle with that one camera would have recorded it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_ros.data.bag import COMPRESSED, TRUTH_TOPIC, BagWriter
from wm_ros.data.kitti import CAMERA, KittiDrive
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.sim_bag import (
    camera_info_message,
    odometry_message,
    optical_frame,
    static_transforms,
)
from wm_ros.data.truth import truth_message


def write_bag(path: Path | str, drive: KittiDrive, storage: str = 'mcap',
              progress: Callable[[int, int], None] | None = None) -> int:
    """
    Write a drive; return the number of pictures in it.

    Topics: front/image_raw/compressed (the PNG files as they are), front/camera_info, /odometry at
    the stamps of the pictures, /tf_static, /truth/agents. `progress` is called with (done, total).
    """
    types, store = bag_types(), typestore()
    with BagWriter(path, storage) as writer:
        writer.note('recording', f'KITTI {drive.name}')
        writer.note('cameras', CAMERA)
        first = drive.egos[0].stamp_ns
        writer.write('/tf_static', first, static_transforms(drive.rig, first), latched=True)
        for i, ego in enumerate(drive.egos):
            header = types.header(ego.stamp_ns, optical_frame(CAMERA))
            picture = drive.frame_set(i).frames[CAMERA].image
            writer.write('/odometry', ego.stamp_ns, odometry_message(ego))
            writer.write(f'/{CAMERA}/camera_info', ego.stamp_ns,
                         camera_info_message(drive.rig[CAMERA], header))
            writer.write(f'/{CAMERA}/image_raw/compressed', ego.stamp_ns, store.types[COMPRESSED](
                header=header, format='png', data=np.frombuffer(picture, np.uint8)))
            writer.write(TRUTH_TOPIC, ego.stamp_ns,
                         truth_message(types, drive.truth(i), drive.rig.names))
            if progress:
                progress(i + 1, len(drive))
    return len(drive)
