"""
Reading one .db3 file of rosbag2 as a stream, whole or cut short.

Messages come by time over the index. Where the file was cut short, the index is what is missing
first, so they come in the order in which they were recorded, up to the first page that is not
there.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from wm_ros.data.stored import Channel, Contents, StorageError


class SqliteFile(Contents):
    """
    One open .db3 file; the same members as `wm_ros.data.mcap_stream.McapFile`.

    May be used by another thread than the one that opened it, by one at a time. Raises
    StorageError for a file that is no such database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()
        self.problems: list[str] = []
        self._cut = self._is_cut()
        # Immutable: neither a lock nor a journal is looked for, so a read-only disk will do. A
        # write-ahead log beside it holds messages of its own.
        log = path.with_name(path.name + '-wal')
        mode = 'mode=ro' if log.is_file() and log.stat().st_size else 'immutable=1'
        try:    # '?', '#' and '%' of a path say something else in a URI
            self._base = sqlite3.connect(f'{path.absolute().as_uri()}?{mode}', uri=True,
                                         check_same_thread=False)
        except sqlite3.Error as err:
            raise StorageError(f'not a rosbag2 database: {err}') from err
        if self._cut:   # else it opens no file that is shorter than it should be
            self._base.execute('PRAGMA writable_schema = ON')
        try:
            self._read_topics()
            self._read_counts()
        except sqlite3.Error as err:
            self._base.close()
            raise StorageError(f'not a rosbag2 database: {err}') from err
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _is_cut(self) -> bool:
        """Tell whether the file is shorter than its first page says."""
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            head = file.read(100)
        if not size:
            raise StorageError('an empty file, want a rosbag2 database')
        if len(head) < 100 or not head.startswith(b'SQLite format 3\0'):
            raise StorageError('not a rosbag2 database: its first bytes are not those of SQLite')
        page, = struct.unpack_from('>H', head, 16)
        pages, = struct.unpack_from('>I', head, 28)
        if size >= pages * (65536 if page == 1 else page):
            return False
        self.problems.append(f'the file was cut short: {size} of {pages * page} bytes are there')
        return True

    def _read_topics(self) -> None:
        columns = {row[1] for row in self._base.execute('PRAGMA table_info(topics)')}
        if not {'id', 'name', 'type', 'serialization_format'} <= columns:
            raise StorageError('not a rosbag2 database: no table of topics')
        definitions = {}
        if self._base.execute('PRAGMA table_info(message_definitions)').fetchall():
            definitions = dict(self._base.execute(
                'SELECT topic_type, encoded_message_definition FROM message_definitions'))
        qos = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
        for number, name, kind, encoding, profiles in self._base.execute(
                f'SELECT id, name, type, serialization_format, {qos} FROM topics ORDER BY id'):
            self.channels[number] = Channel(number, name, kind, encoding,
                                            definitions.get(kind, ''), profiles or '')

    def _read_counts(self) -> None:
        if self._cut:
            for number, time_ns, _ in self._recorded():
                self._count(number, time_ns)
            return
        for number, count, first, last in self._base.execute(
                'SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages '
                'GROUP BY topic_id'):
            if number in self.channels:
                self.channels[number].count = count
                self._span(first, last)

    def messages(self, numbers: set[int], start_ns: int | None = None,
                 stop_ns: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yield (topic number, time, data) from `start_ns` up to before `stop_ns`."""
        first = -1 << 62 if start_ns is None else start_ns
        stop = 1 << 62 if stop_ns is None else stop_ns
        if self._cut:
            yield from (item for item in self._recorded()
                        if item[0] in numbers and first <= item[1] < stop)
            return
        # Ties in the order of recording, as in an mcap file. Pictures of topics that are not asked
        # for are not read.
        index = 'INDEXED BY timestamp_idx' if self._has_index() else ''
        rows = self._base.execute(
            f'SELECT topic_id, timestamp, data FROM messages {index} WHERE timestamp >= ? AND '
            f'timestamp < ? AND topic_id IN ({",".join(str(int(n)) for n in sorted(numbers))}) '
            'ORDER BY timestamp, id', (first, stop))
        yield from self._until_broken(rows, numbers)

    def _has_index(self) -> bool:
        return bool(self._base.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'timestamp_idx'"
        ).fetchone())

    def _recorded(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield what is there of a file cut short; not the last one, whose end may be zeros."""
        rows = self._base.execute('SELECT topic_id, timestamp, data FROM messages ORDER BY id')
        for row, _ in pairwise(self._until_broken(rows, set(self.channels))):
            yield row

    def _until_broken(self, rows: sqlite3.Cursor,
                      numbers: set[int]) -> Iterator[tuple[int, int, bytes]]:
        while True:
            try:
                row = rows.fetchone()
            except sqlite3.Error as err:
                text = f'the messages end at a broken page: {err}'
                if text not in self.problems:
                    self.problems.append(text)
                return
            if row is None:
                return
            if row[0] in numbers:
                yield row
