"""The camera sets of a measurement: simulated pictures, rendered and compressed beforehand."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from wm_ros.types import CameraRig, EgoState, Frame, FrameSet

PERIOD_NS = 100_000_000
#: A drive that no model was trained on, and the compression that `wm_ros sim` uses.
SEED = 900_000
JPEG_QUALITY = 90


@dataclass(frozen=True)
class CameraDrive:
    """JPEG files and ego states of a few instants, played to and fro without an end."""

    rig: CameraRig
    pictures: tuple[dict[str, bytes], ...]
    egos: tuple[EgoState, ...]

    def at(self, i: int) -> tuple[FrameSet, EgoState]:
        """Return set number `i` of the endless drive, sets 100 ms apart."""
        last = len(self.pictures) - 1
        turn = i % (2 * last)
        place, back = (turn, 1) if turn <= last else (2 * last - turn, -1)
        stamp = PERIOD_NS * (i + 10)
        frames = {name: Frame(name, stamp, data) for name, data in self.pictures[place].items()}
        ego = self.egos[place]
        return FrameSet(stamp, frames), replace(
            ego, stamp_ns=stamp, speed_mps=back * ego.speed_mps,
            yaw_rate_rps=back * ego.yaw_rate_rps)

    @property
    def jpeg_bytes(self) -> int:
        """Return the mean size of one picture's file."""
        sizes = [len(data) for pictures in self.pictures for data in pictures.values()]
        return round(sum(sizes) / len(sizes))


def camera_drive(rig_name: str, sets: int = 8, width: int = 0) -> CameraDrive:
    """
    Render a drive of a rig: `sets` instants (at least 2), pictures `width` pixels wide.

    0 is the rig's own width. A process of its own renders, so that its memory is not counted to
    what is measured.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(_render, rig_name, max(2, sets), width).result()


def _render(rig_name: str, sets: int, width: int) -> CameraDrive:
    import cv2

    from wm_ros.data.sim_bag import scaled
    from wm_ros.sim.drive import simulate
    from wm_ros.sim.render import Renderer
    from wm_ros.sim.rigs import rig as rig_of

    rig = scaled(rig_of(rig_name), width)
    drive = simulate(SEED, sets * PERIOD_NS / 1e9, 'sim')
    renderer = Renderer(drive, rig, SEED)
    pictures = []
    for i in range(sets):
        files = {}
        for name, image in renderer.render(i).images.items():
            done, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                      [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if not done:
                raise RuntimeError(f'camera {name}: the JPEG encoder refused {image.shape}')
            files[name] = data.tobytes()
        pictures.append(files)
    return CameraDrive(rig, tuple(pictures), tuple(drive.ego(i) for i in range(sets)))
