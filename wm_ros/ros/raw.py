"""Messages as CDR bytes: their classes, and their stamps without decoding them."""

from __future__ import annotations

import struct
from importlib import import_module


def message_class(type_name: str) -> type:
    """Return rclpy's class of 'std_msgs/msg/Header'; ImportError or AttributeError where none."""
    package, kind, name = type_name.split('/')
    return getattr(import_module(f'{package}.{kind}'), name)


def header_stamp_ns(cdr: bytes | memoryview) -> int:
    """
    Return the stamp, in ns, of a message that begins with a std_msgs/Header.

    CDR: four bytes of encapsulation, of which the second tells the byte order, then int32 seconds
    and uint32 nanoseconds. Raises ValueError for fewer than twelve bytes.
    """
    if len(cdr) < 12:
        raise ValueError(f'CDR: want at least 12 bytes, got {len(cdr)}')
    seconds, nanoseconds = struct.unpack_from('<iI' if cdr[1] else '>iI', cdr, 4)
    return seconds * 1_000_000_000 + nanoseconds
