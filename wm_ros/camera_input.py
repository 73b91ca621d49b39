"""
The pictures of a camera set into the encoder's input arrays, judged camera by camera.

What cannot be used is blanked and taken out of the lift tables, with its state and its reason.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from wm_ros.image import (
    ImageError,
    ImageMap,
    check_array,
    checksum,
    decode_bgr,
    inspect,
    model_camera,
)
from wm_ros.lift import LiftGeometry
from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.types import CameraModel, CameraRig, CameraState, Frame, FrameSet, ImageForm

#: Lift tables are kept for this many sets of cameras; a flickering one must not fill the memory.
_MAX_TABLES = 8
#: Pictures of one camera that are decoded before their set is complete, at most.
_MAX_EARLY = 2


@dataclass
class _Picture:
    """
    Outcome of one camera's decoding.

    `mark` is its checksum; `image` is there only where it was decoded before its set came.
    """

    state: CameraState
    problem: str = ''
    decode_ns: int = 0
    resize_ns: int = 0
    mark: int = 0
    image: np.ndarray | None = None


@dataclass(frozen=True)
class _Early:
    """A picture that is being decoded before its set is complete."""

    frame: Frame
    placed: ImageMap        # of its camera as calibrated when it began
    done: Future[_Picture]


@dataclass(frozen=True)
class _Tables:
    """Lift tables and seen ground for one set of available cameras."""

    index: np.ndarray
    weight: np.ndarray
    seen: np.ndarray


class CameraInput:
    """
    Decodes and judges the camera sets of one rig.

    After `take`: `images` (N, 160, 400, 3) uint8 RGB, 0 where a camera is not OK; `states` and
    `problems` of that set. A camera whose picture stays the same `frozen_after` times is frozen
    (0: never). Cameras in `uncalibrated` are left out, for the reason that it gives by name, and so
    are those that see no place that is looked up: their calibration must be wrong, and a forecast
    with nobody in their view would be valid.
    """

    def __init__(self, rig: CameraRig, threads: int, frozen_after: int,
                 clock_ns: Callable[[], int]) -> None:
        self.images = np.zeros((len(rig), IMAGE_HEIGHT, IMAGE_WIDTH, 3), dtype=np.uint8)
        self.frozen_after = frozen_after
        self.uncalibrated: dict[str, str] = {}
        self._clock = clock_ns
        self._pool = ThreadPoolExecutor(max(1, threads), 'wm_ros_decode')
        self._lock = threading.Lock()
        self._early: dict[str, deque[_Early]] = {
            name: deque(maxlen=_MAX_EARLY) for name in rig.names}
        self.set_rig(rig)

    def set_rig(self, rig: CameraRig) -> None:
        """Take a calibration of the same number of cameras; raise ValueError for another."""
        if len(rig) != len(self.images):
            raise ValueError(f'rig: {len(rig)} cameras, want {len(self.images)} as loaded')
        self.rig = rig
        # Replaced as a whole: another thread may be about to begin with it.
        self._maps = {camera.name: ImageMap(camera) for camera in rig.cameras}
        self._lift = LiftGeometry(
            CameraRig(tuple(model_camera(camera) for camera in rig.cameras), rig.name))
        self._tables: dict[tuple[bool, ...], _Tables] = {}
        self._blind = {camera.name for camera, blind in
                       zip(rig.cameras, self._lift.blind, strict=True) if blind}
        self.reset()

    def reset(self) -> None:
        """Forget the pictures seen so far."""
        self.states = {name: CameraState.MISSING for name in self.rig.names}
        self.problems: tuple[str, ...] = ()
        self._repeats: list[tuple[int, int]] = [(0, 0)] * len(self.rig)

    def close(self) -> None:
        """Join the decoding threads."""
        self._pool.shutdown(wait=True)

    def take(self, frame_set: FrameSet) -> dict[str, float]:
        """Fill `images`, `states` and `problems` from a set; return milliseconds by stage."""
        start = self._clock()
        frames = [frame_set.frames.get(name) for name in self.rig.names]
        # Decoding releases the GIL; each camera writes its own picture, so order cannot matter.
        begun = [self._begin(i, frame) for i, frame in enumerate(frames)]
        pictures = [self._end(i, picture) for i, picture in enumerate(begun)]
        for i, picture in enumerate(pictures):
            if picture.state is not CameraState.OK:
                self.images[i] = 0
        self.states = {name: picture.state
                       for name, picture in zip(self.rig.names, pictures, strict=True)}
        self.problems = tuple(f'camera {picture.problem}' for picture in pictures
                              if picture.problem)
        return _split(self._clock() - start, pictures)

    def prepare(self, frame: Frame) -> None:
        """
        Begin to decode a JPEG or PNG that will come in a set; any thread may call this.

        What `take` makes of the set is the same either way.
        """
        if not isinstance(frame.image, (bytes, memoryview)):
            return
        placed = self._maps[frame.camera]
        image = np.empty((IMAGE_HEIGHT, IMAGE_WIDTH, 3), dtype=np.uint8)
        early = _Early(frame, placed, self._pool.submit(self._picture, placed, frame, image))
        with self._lock:
            self._early[frame.camera].append(early)

    @property
    def available(self) -> tuple[bool, ...]:
        """Which cameras the newest set can be encoded from."""
        return tuple(state is CameraState.OK for state in self.states.values())

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lift index and weight (`lift.lift_tables`) for the available cameras."""
        tables = self._tables_now()
        return tables.index, tables.weight

    def seen(self) -> np.ndarray:
        """Return the ground that the available cameras see (`lift.seen_mask`)."""
        return self._tables_now().seen

    def _tables_now(self) -> _Tables:
        available = self.available
        if available not in self._tables:
            if len(self._tables) >= _MAX_TABLES:
                self._tables.clear()
            self._tables[available] = _Tables(*self._lift.tables(available),
                                              self._lift.seen(available))
        return self._tables[available]

    def _begin(self, i: int, frame: Frame | None) -> _Picture | Future[_Picture]:
        """Return the picture of camera i, or what is decoding it, begun now or before."""
        name = self.rig.names[i]
        if name in self.uncalibrated:
            return _Picture(CameraState.UNCALIBRATED, self.uncalibrated[name])
        if name in self._blind:
            return _Picture(CameraState.UNCALIBRATED, f'{name}: as calibrated it sees no place '
                            'within 50 m; want k, distortion and pose of this camera')
        if frame is None:
            return _Picture(CameraState.MISSING, f'{name}: no frame in the set')
        placed = self._maps[name]
        with self._lock:
            begun = next((early for early in self._early[name] if early.frame is frame), None)
            if begun:
                self._early[name].remove(begun)
        if begun and begun.placed is placed:
            return begun.done
        return self._pool.submit(self._picture, placed, frame, self.images[i])

    def _end(self, i: int, begun: _Picture | Future[_Picture]) -> _Picture:
        """Wait for a picture, bring it into its place, and say whether it is a frozen one."""
        picture = begun if isinstance(begun, _Picture) else begun.result()
        if picture.image is not None:
            self.images[i] = picture.image
        if picture.state is CameraState.OK and self._is_frozen(i, picture.mark):
            return replace(picture, state=CameraState.FROZEN,
                           problem=_shows(self.rig.cameras[i], CameraState.FROZEN))
        return picture

    def _picture(self, placed: ImageMap, frame: Frame, out: np.ndarray) -> _Picture:
        """Write one camera's picture into `out` (160, 400, 3) and judge it by itself."""
        camera = placed.camera
        start = self._clock()
        try:
            if isinstance(frame.image, ImageError):  # refused by whoever received it
                raise frame.image
            if frame.form is ImageForm.ARRAY:
                check_array(frame.image, camera)
                image, bgr = frame.image, False
            else:
                image, bgr = decode_bgr(frame.image, camera, placed.reduction), True
        except ImageError as err:
            return _Picture(err.state, str(err), self._clock() - start)
        decoded = self._clock()
        placed.apply(image, out, bgr)
        state = inspect(out[slice(*placed.rows)])
        return _Picture(state, '' if state is CameraState.OK else _shows(camera, state),
                        decoded - start, self._clock() - decoded, checksum(out),
                        None if out.base is self.images else out)

    def _is_frozen(self, i: int, value: int) -> bool:
        """Count how often camera i has shown the picture of this checksum in a row."""
        last, count = self._repeats[i]
        self._repeats[i] = (value, count + 1 if value == last else 0)
        return 0 < self.frozen_after <= self._repeats[i][1]


def _shows(camera: CameraModel, state: CameraState) -> str:
    return f'{camera.name}: picture is {state.name}'


def _split(wall_ns: int, pictures: list[_Picture]) -> dict[str, float]:
    """Share the wall time of the threads between decoding and resizing."""
    decode = sum(picture.decode_ns for picture in pictures)
    resize = sum(picture.resize_ns for picture in pictures)
    share = decode / max(1, decode + resize)
    return {'decode': wall_ns * share / 1e6, 'resize': wall_ns * (1 - share) / 1e6}
