"""
Plain CDR (OMG, version 1, little-endian), as ROS 2 puts messages on the wire.

For messages of hundreds of small parts, which rclpy's classes build and convert one attribute at a
time. A test holds what is written here against what rclpy reads.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

_HEADER = b'\x00\x01\x00\x00'


class CdrWriter:
    """Appends fields; every one is aligned to its size, counted from the end of the header."""

    def __init__(self) -> None:
        self._data = bytearray(_HEADER)

    def pack(self, form: str, *values: float) -> None:
        """Append fields in the letters of `struct`, aligned to the first; the rest must follow."""
        packer, size = _packer(form)
        self._align(size)
        self._data += packer.pack(*values)

    def string(self, text: str) -> None:
        """Append a string."""
        data = text.encode() + b'\0'
        self.pack('I', len(data))
        self._data += data

    def sequence(self, values: np.ndarray) -> None:
        """Append a sequence of structures of equal numbers, (length, fields)."""
        self.pack('I', len(values))
        if len(values):
            self._align(values.itemsize)
            self._data += np.ascontiguousarray(values).tobytes()

    def bytes(self) -> bytes:
        """Return the message."""
        return bytes(self._data)

    def _align(self, size: int) -> None:
        self._data += bytes(-(len(self._data) - len(_HEADER)) % size)


@cache
def _packer(form: str) -> tuple[struct.Struct, int]:
    """Return the packer of a form, and the size of its first field."""
    return struct.Struct(f'<{form}'), struct.calcsize('<' + form.lstrip('0123456789')[0])
