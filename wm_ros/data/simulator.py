"""
Simulated drives as camera sets, ego states and truth, rendered as they are asked for.

Cameras are rendered straight at the model's input size, which takes a fifteenth of the pixels; the
size at which visibility is judged is the same either way. Where a picture would not fill the
input, the camera is rendered at its own size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from wm_ros.data.samples import Sample
from wm_ros.image import model_camera
from wm_ros.runtime.contract import IMAGE_HEIGHT
from wm_ros.sim.drive import simulate
from wm_ros.sim.rigs import rig as rig_of
from wm_ros.types import CameraModel, CameraRig, Frame, FrameSet


@dataclass(frozen=True)
class SimulatedDrive:
    """
    The drive of one seed in one world (`sim.worlds.WORLDS`), seen by a fixed rig.

    Equal arguments give equal samples, byte for byte. `full_size` renders the rig's own pictures.
    """

    seed: int
    seconds: float = 10.0
    world: str = 'sim'
    rig_name: str = 'surround'
    full_size: bool = False

    @property
    def name(self) -> str:
        return f'{self.world}:{self.seed}'

    @cached_property
    def rig(self) -> CameraRig:
        rig = rig_of(self.rig_name)
        if self.full_size:
            return rig
        return CameraRig(tuple(_at_input_size(camera) for camera in rig.cameras), rig.name)

    def samples(self, every: int = 1, first: int = 0) -> Iterator[Sample]:
        """Yield all instants; those numbered first, first + every, ... carry their truth."""
        from wm_ros.sim.render import Renderer

        drive = simulate(self.seed, self.seconds, self.world)
        renderer = Renderer(drive, self.rig, self.seed)
        for i in range(drive.n):
            rendered = renderer.render(i)
            stamp = int(drive.stamps_ns[i])
            frames = {name: Frame(name, stamp, picture)
                      for name, picture in rendered.images.items()}
            scored = i >= first and (i - first) % every == 0
            yield Sample(FrameSet(stamp, frames), drive.ego(i),
                         drive.truth(i, self.rig, rendered) if scored else None,
                         drive.ego_plan(i) if scored else None)


def _at_input_size(camera: CameraModel) -> CameraModel:
    seen = model_camera(camera)
    if seen.rows != (0, IMAGE_HEIGHT):
        return camera
    return CameraModel(seen.name, seen.width, seen.height, seen.k, seen.base_from_camera,
                       seen.distortion)
