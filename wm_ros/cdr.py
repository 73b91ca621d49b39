"""
Plain CDR (OMG, version 1, little-endian), as ROS 2 puts messages on the wire.

For messages of hundreds of small parts, which rclpy's classes build and convert one attribute at a
time. A test holds what is written here against what rclpy reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

import numpy as np

_HEADER = b'\x00\x01\x00\x00'


class CdrWriter:
    """
    Appends fields; every one is aligned to its size, counted from the end of the header.

    Goes on after `begun`, a message or the beginning of one; ValueError where that is no plain
    little-endian CDR.
    """

    def __init__(self, begun: bytes | memoryview = _HEADER) -> None:
        if begun[:len(_HEADER)] != _HEADER:
            raise ValueError(f'CDR: want it to begin with {_HEADER!r}, got '
                             f'{bytes(begun[:len(_HEADER)])!r}')
        self._data = bytearray(begun)

    def reopen(self, length: int) -> None:
        """Begin the sequence again that the message ends with: it was empty, and has a length."""
        self._data[-4:] = length.to_bytes(4, 'little')

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

    def put(self, data: bytes, align: int) -> None:
        """Append fields that lie as they are to lie, the first of which is aligned to `align`."""
        self._align(align)
        self._data += data

    def bytes(self) -> bytes:
        """Return the message."""
        return bytes(self._data)

    def _align(self, size: int) -> None:
        self._data += bytes(-(len(self._data) - len(_HEADER)) % size)


def fields(write: Callable[[CdrWriter], None]) -> bytes:
    """
    Return what `write` appends, to be put wherever it is needed at four bytes.

    It has no field of more than four bytes: how those lie depends on where they begin.
    """
    out = CdrWriter()
    write(out)
    return out.bytes()[len(_HEADER):]


@cache
def _packer(form: str) -> tuple[struct.Struct, int]:
    """Return the packer of a form, and the size of its first field."""
    return struct.Struct(f'<{form}'), struct.calcsize('<' + form.lstrip('0123456789')[0])
