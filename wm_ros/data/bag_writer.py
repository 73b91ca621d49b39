"""
Writing rosbag2 (mcap and sqlite3) without ROS: what `ros2 bag`, Foxglove and `rosbags` read.

An mcap file on a disk that has become full is cut back to its last whole chunk and ended there, so
that what was written before can be read.
"""

from __future__ import annotations

import os
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter, PendingChunk

from wm_ros.data.messages import typestore

STORAGE = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}


class BagError(RuntimeError):
    """A bag that cannot be read or written; the message names the bag and the cause."""


class DiskError(BagError):
    """A bag that could not be written to its end: the disk is full, or the like."""


def _transient_local() -> Qos:
    return Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
               QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)


class BagWriter:
    """
    Write a rosbag2 folder; a context manager that leaves a readable bag even after an error.

    `storage` is 'mcap' or 'sqlite3'; `compress` packs the chunks of an mcap file with zstd. Topics
    are added on first use. Raises BagError where the folder exists or cannot be made, DiskError,
    naming the topic and time that did not fit any more, where the disk is full.
    """

    def __init__(self, path: Path | str, storage: str = 'mcap', compress: bool = False) -> None:
        if storage not in STORAGE:
            raise BagError(f'{path}: storage {storage!r}; want one of {", ".join(STORAGE)}')
        self.path = Path(path)
        if storage == 'sqlite3' and set(str(path)) & set('?#%'):
            # rosbags hands the path to SQLite as a URI: it would write to another file.
            raise BagError(f"{path}: a sqlite3 bag cannot be written to a path with '?', '#' or "
                           "'%'; want another path, or mcap")
        self._store = typestore()
        self._connections: dict[tuple[str, str], Any] = {}
        try:
            self._writer = Writer(self.path, version=8, storage_plugin=STORAGE[storage])
            if compress and storage == 'mcap':
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError) as err:
            raise BagError(f'{path}: cannot write a bag: {err}') from err
        self._whole = _Whole(self._writer)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def note(self, key: str, value: str) -> None:
        """Store a line of text in the bag's metadata (`custom_data`)."""
        self._writer.set_custom_data(key, value)

    def write(self, topic: str, stamp: int, msg: Any, latched: bool = False) -> None:
        """Serialise and write one message at `stamp` (ns); `latched` records that QoS."""
        name = msg.__msgtype__
        self.write_raw(topic, name, stamp, self._store.serialize_cdr(msg, name), latched)

    def write_raw(self, topic: str, type_name: str, stamp: int, cdr: bytes | memoryview,
                  latched: bool = False) -> None:
        """Write the CDR bytes of one message of type `type_name` ('std_msgs/msg/Header')."""
        connection = self._connections.get((topic, type_name))
        try:
            if connection is None:
                if type_name not in self._store.fielddefs:
                    raise BagError(f'{self.path}: topic {topic}: unknown type {type_name}')
                connection = self._writer.add_connection(
                    topic, type_name, typestore=self._store,
                    offered_qos_profiles=[_transient_local()] if latched else [])
                self._connections[topic, type_name] = connection
            self._writer.write(connection, stamp, cdr)
            self._whole.note()
        except WriterError as err:
            raise BagError(f'{self.path}: {topic}: {err}') from err
        except OSError as err:
            self._end_early()
            raise DiskError(f'{self.path}: {topic} at {stamp / 1e9:.3f} s: {err.strerror or err}; '
                            'what was written before it can be read') from err

    def flush(self) -> None:
        """Hand what was written so far to the system; raise DiskError where that fails."""
        storage = self._writer.storage
        if isinstance(storage, McapWriter):
            try:
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
                self._whole.note()
            except OSError as err:
                self._end_early()
                raise DiskError(f'{self.path}: {err.strerror or err}') from err

    def close(self) -> None:
        """Write the index and metadata.yaml; harmless when called again."""
        if self._writer.storage is None:
            return
        try:
            self._writer.close()
        except OSError as err:
            self._end_early()
            raise DiskError(f'{self.path}: cannot finish the bag: {err.strerror or err}; what was '
                            'written before can be read') from err

    def _end_early(self) -> None:
        """End the bag after its last whole chunk; where even that fails, leave it without end."""
        if self._writer.storage is None:
            return
        try:
            self._whole.restore()
            self._writer.close()
        except OSError:
            self._writer.abort()


class _Whole:
    """Where the last whole chunk of an mcap file ends, and what was counted up to there."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._chunks = -1
        self.note()

    def note(self) -> None:
        """Remember the state if a chunk has just been written."""
        storage = self._writer.storage
        if not isinstance(storage, McapWriter) or len(storage.chunks) == self._chunks:
            return
        self._chunks = len(storage.chunks)
        self._end = storage.bio.tell()
        self._counts = dict(self._writer.counts), dict(storage.channel_stats)
        self._span = (self._writer.min_timestamp, self._writer.max_timestamp,
                      storage.message_start_time, storage.message_end_time)

    def restore(self) -> None:
        """Cut the file back to there; raises OSError."""
        storage = self._writer.storage
        if not isinstance(storage, McapWriter):
            return
        os.ftruncate(storage.bio.fileno(), self._end)   # first: it makes the room to flush
        storage.bio.seek(self._end)
        storage.bio.truncate()
        del storage.chunks[self._chunks:]
        storage.chunk = PendingChunk(2**63 - 1, 0, BytesIO(), defaultdict(list))
        counts, stats = self._counts
        self._writer.counts = {number: counts.get(number, 0) for number in self._writer.counts}
        storage.channel_stats = {number: stats.get(number, 0) for number in storage.channel_stats}
        (self._writer.min_timestamp, self._writer.max_timestamp,
         storage.message_start_time, storage.message_end_time) = self._span
