"""
A drive with its pictures, ego states, plans and truths in one file, so that it is rendered once.

Pictures are JPEG of quality 95, as a camera would send them, and are read as such by the predictor.
The file is a zip of NumPy arrays, whose check sums tell a damaged one; equal drives give equal
bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.samples import Drive, Sample
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    ROAD_LAYERS,
    CameraModel,
    CameraRig,
    EgoPlan,
    EgoState,
    Frame,
    FrameSet,
    PlanSource,
    Truth,
)

#: To be raised when the same drive is written in another way.
FORMAT = 1
JPEG_QUALITY = 95
#: Fields of `Truth` that hold a row an agent, kept one instant after the other.
_ROWS = ('ids', 'classes', 'poses', 'velocities', 'sizes', 'futures', 'pixels', 'silhouettes',
         'visible')
_PICTURES = 'pictures'


class RenderedFileError(ValueError):
    """A file that holds no drive, or not the one that was asked for."""


@dataclass(frozen=True)
class RenderedDrive:
    """
    A drive as arrays, with the camera pictures as JPEG files one behind the other.

    `arrays` has `stamps_ns` (N,), `ego` (N, 5) of x, y, yaw, speed and yaw rate, `ends` (N, C) the
    end of each picture in `pictures`, `scored` (S,) the instants with a truth, `plans` (S, 6, 3),
    `agents` (S,) how many each truth has, the `Truth` fields of all of them, and `road` (S, bytes)
    and `observed` (S, bytes) as bits. `meta` names the drive and holds its rig and its `key`.
    """

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return str(self.meta['name'])

    @cached_property
    def rig(self) -> CameraRig:
        cameras = [CameraModel(c['name'], c['width'], c['height'], np.array(c['k']),
                               np.array(c['base_from_camera']), tuple(c['distortion']))
                   for c in self.meta['rig']['cameras']]
        return CameraRig(tuple(cameras), self.meta['rig']['name'])

    def samples(self, every: int, first: int) -> Iterator[Sample]:
        """Yield all instants; `every` and `first` have to be what the drive was rendered for."""
        n, arrays = len(self.arrays['stamps_ns']), self.arrays
        scored = {int(i): row for row, i in enumerate(arrays['scored'])}
        if list(scored) != list(range(first, n, every)):
            raise RenderedFileError(f'{self.name}: truth of instants {list(scored)}, want '
                                    f'every {every} from {first}')
        pictures = memoryview(np.ascontiguousarray(arrays[_PICTURES]))
        begin = 0
        for i in range(n):
            stamp = int(arrays['stamps_ns'][i])
            frames = {}
            for name, end in zip(self.rig.names, arrays['ends'][i], strict=True):
                frames[name] = Frame(name, stamp, pictures[begin:int(end)])
                begin = int(end)
            ego = EgoState(stamp, arrays['ego'][i, :3].copy(), float(arrays['ego'][i, 3]),
                           float(arrays['ego'][i, 4]))
            truth = self._truth(scored[i], ego) if i in scored else None
            yield Sample(FrameSet(stamp, frames), ego, truth,
                         None if truth is None else truth.ego_plan)

    def _truth(self, row: int, ego: EgoState) -> Truth:
        arrays = self.arrays
        begin = int(arrays['agents'][:row].sum())
        rows = slice(begin, begin + int(arrays['agents'][row]))
        cells = OUTPUT_GRID.rows * OUTPUT_GRID.cols
        road = np.unpackbits(arrays['road'][row], count=len(ROAD_LAYERS) * cells)
        observed = np.unpackbits(arrays['observed'][row], count=cells)
        return Truth(
            stamp_ns=ego.stamp_ns, ego=ego,
            ego_plan=EgoPlan(arrays['plans'][row], PlanSource.GIVEN),
            **{name: arrays[name][rows] for name in _ROWS},
            road=road.reshape(len(ROAD_LAYERS), *OUTPUT_GRID.shape).astype(bool),
            observed=observed.reshape(OUTPUT_GRID.shape).astype(bool))

    def to_bytes(self) -> bytes:
        """Return the file; pictures are stored as they are, the rest deflated."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as archive:
            # Entries carry the date of 1980: equal drives shall give equal bytes.
            archive.writestr(zipfile.ZipInfo('meta.json'), json.dumps(self.meta, sort_keys=True))
            for name, array in self.arrays.items():
                entry = zipfile.ZipInfo(f'{name}.npy')
                entry.compress_type = (zipfile.ZIP_STORED if name == _PICTURES
                                       else zipfile.ZIP_DEFLATED)
                with archive.open(entry, 'w', force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        return out.getvalue()

    @classmethod
    def load(cls, path: Path, key: str) -> RenderedDrive:
        """
        Read the drive that was rendered under `key`.

        Raises FileNotFoundError where there is none, and RenderedFileError for a file that is
        damaged (check sums), no such file at all, or another drive's.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                meta = json.loads(archive.read('meta.json'))
                arrays = {}
                for entry in archive.namelist():
                    if entry.endswith('.npy'):
                        # `read` looks at the check sum, a stream that is read in part does not.
                        arrays[entry[:-4]] = np.lib.format.read_array(
                            io.BytesIO(archive.read(entry)), allow_pickle=False)
            missing = {'stamps_ns', 'ego', 'ends', 'scored', 'plans', 'agents', 'road', 'observed',
                       _PICTURES, *_ROWS} - set(arrays)
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError,
                NotImplementedError) as err:
            raise RenderedFileError(f'{path}: {err}') from err
        if missing:
            raise RenderedFileError(f'{path}: no {", ".join(sorted(missing))}')
        if meta.get('key') != key:
            raise RenderedFileError(f'{path}: rendered as {meta.get("key")}, want {key}')
        return cls(meta, arrays)


def render(drive: Drive, every: int, first: int, key: str = '') -> RenderedDrive:
    """
    Run through `drive`, whose pictures are arrays, and keep everything.

    Truths are of the instants first, first + every, ...; ego state and plan have to be known.
    """
    stamps, egos, ends, scored, truths, plans = [], [], [], [], [], []
    pictures, size = [], 0
    for i, sample in enumerate(drive.samples(every, first)):
        ends.append([])
        for name in drive.rig.names:
            code = _jpeg(sample.frames.frames[name].image)
            pictures.append(code)
            size += len(code)
            ends[-1].append(size)
        stamps.append(sample.frames.stamp_ns)
        egos.append([*sample.ego.odom_from_base, sample.ego.speed_mps, sample.ego.yaw_rate_rps])
        if sample.truth is not None:
            scored.append(i)
            truths.append(sample.truth)
            plans.append(sample.plan.poses)
    arrays = {
        'stamps_ns': np.array(stamps, np.int64), 'ego': np.array(egos).reshape(-1, 5),
        'ends': np.array(ends, np.int64), 'scored': np.array(scored, np.int64),
        'plans': np.array(plans).reshape(-1, HORIZON_STEPS, 3),
        'agents': np.array([len(truth.ids) for truth in truths], np.int64),
        'road': _bits([truth.road for truth in truths]),
        'observed': _bits([truth.observed for truth in truths]),
        _PICTURES: np.concatenate(pictures)}
    for name in _ROWS:
        arrays[name] = (np.concatenate([getattr(truth, name) for truth in truths])
                        if truths else np.zeros(0))
    rig = {'name': drive.rig.name, 'cameras': [camera_numbers(c) for c in drive.rig.cameras]}
    return RenderedDrive({'name': drive.name, 'rig': rig, 'key': key}, arrays)


def camera_numbers(camera: CameraModel) -> dict[str, Any]:
    """Return a camera as JSON-ready values; they give the very same camera back."""
    return {'name': camera.name, 'width': camera.width, 'height': camera.height,
            'k': np.asarray(camera.k).tolist(),
            'base_from_camera': np.asarray(camera.base_from_camera).tolist(),
            'distortion': list(camera.distortion)}


def _jpeg(picture: np.ndarray) -> np.ndarray:
    done, code = cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f'picture of {picture.shape} {picture.dtype}: cannot be encoded')
    return code


def _bits(layers: list[np.ndarray]) -> np.ndarray:
    return np.array([np.packbits(layer) for layer in layers], np.uint8)
