"""A labelled drive from files: what every adapter of a data set gives, and how it becomes a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_ros.data.bag import COMPRESSED, TRUTH_TOPIC, BagWriter
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.samples import Sample
from wm_ros.data.sim_bag import (
    camera_info_message,
    odometry_message,
    optical_frame,
    static_transforms,
)
from wm_ros.data.tracks import Track, truth_at
from wm_ros.data.truth import truth_message
from wm_ros.types import CameraRig, EgoState, Frame, FrameSet, Truth


@dataclass(frozen=True)
class RecordedDrive:
    """
    One drive: camera sets as files, ego states of equal order, and labelled tracks.

    `pictures[i]` gives the JPEG or PNG file of each camera that has one at instant i; world poses
    of `egos` and `tracks` are in one frame. Without labels `labelled` is false and there is no
    truth.
    """

    name: str
    rig: CameraRig
    pictures: tuple[Mapping[str, Path], ...]
    egos: tuple[EgoState, ...]
    tracks: tuple[Track, ...]
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.pictures)

    def frame_set(self, i: int) -> FrameSet:
        """Return the set of instant `i`: the bytes of its files."""
        stamp = self.egos[i].stamp_ns
        return FrameSet(stamp, {name: Frame(name, stamp, path.read_bytes())
                                for name, path in self.pictures[i].items()})

    def truth(self, i: int) -> Truth:
        """Return the labels at instant `i` with their futures, NaN after a track's end."""
        return truth_at(self.egos[i], list(self.egos), list(self.tracks), self.rig)

    def samples(self, every: int = 1, first: int = 0) -> Iterator[Sample]:
        """Yield all instants; no plan, because a recording does not say what was meant."""
        for i in range(len(self)):
            scored = self.labelled and i >= first and (i - first) % every == 0
            yield Sample(self.frame_set(i), self.egos[i], self.truth(i) if scored else None, None)


def write_recorded(path: Path | str, drive: RecordedDrive, storage: str = 'mcap',
                   progress: Callable[[int, int], None] | None = None) -> int:
    """
    Write a drive as a bag, as a vehicle would have recorded it; return the number of pictures.

    Topics: <camera>/image_raw/compressed (the files as they are), <camera>/camera_info, /odometry
    at the stamps of the sets, /tf_static and, where there are labels, /truth/agents. `progress` is
    called with (sets done, sets in all).
    """
    types, store, count = bag_types(), typestore(), 0
    with BagWriter(path, storage) as writer:
        writer.note('recording', drive.name)
        writer.note('cameras', ' '.join(drive.rig.names))
        first = drive.egos[0].stamp_ns
        writer.write('/tf_static', first, static_transforms(drive.rig, first), latched=True)
        for i, ego in enumerate(drive.egos):
            writer.write('/odometry', ego.stamp_ns, odometry_message(ego))
            for name, frame in drive.frame_set(i).frames.items():
                header = types.header(ego.stamp_ns, optical_frame(name))
                writer.write(f'/{name}/camera_info', ego.stamp_ns,
                             camera_info_message(drive.rig[name], header))
                form = 'png' if frame.image[:4] == b'\x89PNG' else 'jpeg'
                writer.write(f'/{name}/image_raw/compressed', ego.stamp_ns,
                             store.types[COMPRESSED](header=header, format=form, data=np.frombuffer(
                                 frame.image, np.uint8)))
                count += 1
            if drive.labelled:
                writer.write(TRUTH_TOPIC, ego.stamp_ns,
                             truth_message(types, drive.truth(i), drive.rig.names))
            if progress:
                progress(i + 1, len(drive))
    return count
