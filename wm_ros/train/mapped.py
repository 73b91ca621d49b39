"""
Arrays of an uncompressed `.npz` as views of the file: what is not looked at is not read.

A training sample is a part of its clip, one frame of six or 16 of 20, and reading whole clips took
a sixth of the time of a step.
"""

from __future__ import annotations

import functools
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: A member's own header in a zip file: 30 bytes, the last four of them the lengths of its name and
#: of what else stands before the data (PKWARE's APPNOTE 4.3.7).
_LOCAL_HEADER = 30


class _Place(NamedTuple):
    """Where an array lies in its file, and how."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool


def mapped(path: Path) -> dict[str, np.ndarray]:
    """Return what `numpy.savez` wrote, read-only; ValueError where it is packed or no numbers."""
    data, stat = np.memmap(path, np.uint8, 'r'), path.stat()
    return {name: np.ndarray(place.shape, place.dtype, data, place.offset,
                             order='F' if place.fortran else 'C')
            for name, place in _places(path, (stat.st_ino, stat.st_mtime_ns)).items()}


@functools.cache
def _places(path: Path, _version: tuple[int, int]) -> dict[str, _Place]:
    """Return where the arrays of a file lie; it is asked about many times, and read once."""
    places = {}
    with zipfile.ZipFile(path) as archive, open(path, 'rb') as file:
        for item in archive.infolist():
            if item.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f'{path}: {item.filename}: want it as numpy.savez writes it, got '
                                 f'it packed (method {item.compress_type})')
            file.seek(item.header_offset + _LOCAL_HEADER - 4)
            file.seek(sum(struct.unpack('<HH', file.read(4))), 1)
            version = np.lib.format.read_magic(file)
            read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                    else np.lib.format.read_array_header_2_0)
            shape, fortran, dtype = read(file)
            if dtype.hasobject:     # its bytes would be taken for addresses
                raise ValueError(f'{path}: {item.filename}: want numbers, got {dtype}')
            places[item.filename.removesuffix('.npy')] = _Place(file.tell(), dtype, shape, fortran)
    return places
