"""
Reading one mcap file as a stream, whole or cut short.

`rosbags` keeps an index of all chunks as Python objects (some hundred MB for a recording of
100 GB) and refuses a file without its end. This reader keeps 28 bytes a chunk, one chunk's
messages at a time, and takes what is there. Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import heapq
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import lz4.frame

from wm_ros.data.stored import Channel, Contents, StorageError

try:
    from compression import zstd
except ModuleNotFoundError:     # before Python 3.14
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 0x03, 0x04, 0x05, 0x06, 0x07
CHUNK_INDEX, STATISTICS, FOOTER, DATA_END = 0x08, 0x0B, 0x02, 0x0F
_HEAD = struct.Struct('<BQ')            # opcode, length
_CHUNK_HEAD = struct.Struct('<QQQI')    # first time, last time, size unpacked, CRC
_MESSAGE_HEAD = struct.Struct('<HIQQ')  # channel, sequence, log time, publish time
_PIECE = 1 << 16


@dataclass
class _Chunks:
    """
    Where the chunks lie: file offset of the record, first and last log time, and what is in them.

    Few different sets of topics fill many chunks, so each set is kept once.
    """

    offsets: array = field(default_factory=lambda: array('q'))
    first_ns: array = field(default_factory=lambda: array('q'))
    last_ns: array = field(default_factory=lambda: array('q'))
    kinds: array = field(default_factory=lambda: array('i'))
    sets: dict[frozenset[int], int] = field(default_factory=dict)

    def add(self, offset: int, first_ns: int, last_ns: int, numbers: frozenset[int]) -> None:
        self.offsets.append(offset)
        self.first_ns.append(first_ns)
        self.last_ns.append(last_ns)
        self.kinds.append(self.sets.setdefault(numbers, len(self.sets)))

    def holding(self, numbers: set[int]) -> list[int]:
        """Return the chunks, by time, that may hold one of these channels."""
        # A chunk without a list of its channels may hold any.
        useful = [not found or bool(found & numbers) for found in self.sets]
        return sorted((i for i, kind in enumerate(self.kinds) if useful[kind]),
                      key=lambda i: (self.first_ns[i], self.offsets[i]))


class McapFile(Contents):
    """
    One open mcap file; a context manager.

    `channels` by number; `start_ns` and `end_ns` (None without a message); `problems` says what
    was wrong with the file, in words, and grows while messages are read. Raises StorageError for a
    file that is no mcap file, OSError where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()
        self.problems: list[str] = []
        self._schemas: dict[int, tuple[str, str]] = {}
        self._chunks = _Chunks()
        self._loose = False     # messages outside of chunks
        self._file: BinaryIO = path.open('rb')
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            if self._file.read(len(MAGIC)) != MAGIC:
                raise StorageError('not an mcap file: its first bytes are no mcap magic'
                                if self.size else 'an empty file, want an mcap file')
            self._data_start = len(MAGIC)
            if not self._read_summary():
                self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # --- what the file holds --------------------------------------------------------------------

    def _read_summary(self) -> bool:
        """Read topics, counts and chunk places from the file's end; tell whether it has one."""
        tail = 8 + _HEAD.size + 20
        if self.size < self._data_start + tail:
            return False
        self._file.seek(self.size - tail)
        footer = self._file.read(tail)
        if footer[-8:] != MAGIC or footer[0] != FOOTER:
            return False
        begin, = struct.unpack_from('<Q', footer, _HEAD.size)
        if not self._data_start <= begin < self.size - tail:
            return False
        try:
            counts = self._read_records(begin, self.size - tail)
        except struct.error:    # a record that is shorter than what it should hold
            counts = None
        if counts is None or not self.channels:
            return self._forget()
        for number, channel in self.channels.items():
            channel.count = counts.get(number, 0)
        self._loose = not self._chunks.offsets
        return True

    def _read_records(self, begin: int, end: int) -> dict[int, int] | None:
        """Take the summary's records; return messages by channel, None where they are not told."""
        counts: dict[int, int] | None = None
        self._file.seek(begin)
        while self._file.tell() < end:
            record = self._record()
            if record is None:
                return None
            code, data = record
            if code == STATISTICS:
                total, = struct.unpack_from('<Q', data)
                first, last = struct.unpack_from('<QQ', data, 26)
                if total:
                    self.start_ns, self.end_ns = first, last
                counts = dict(struct.iter_unpack('<HQ', data[46:]))
            elif code == CHUNK_INDEX:
                first, last, offset = struct.unpack_from('<QQQ', data)
                size, = struct.unpack_from('<I', data, 32)
                self._chunks.add(offset, first, last, frozenset(
                    number for number, _ in struct.iter_unpack('<HQ', data[36:36 + size])))
            else:
                self._learn(code, data)
        return counts

    def _forget(self) -> bool:
        self.channels, self._schemas, self._chunks = {}, {}, _Chunks()
        self.start_ns = self.end_ns = None
        return False

    def _scan(self) -> None:
        """
        Go through a file that lacks its end, record by record.

        Chunks are passed over where the message index behind them says what is in them and all of
        it is of known topics; the others are opened.
        """
        at = self._data_start
        self.problems.append('the end of the file is missing: it was cut short or is still written')
        while True:
            self._file.seek(at)
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            code, length = _HEAD.unpack(head)
            end = at + _HEAD.size + length
            if code == CHUNK:
                indexed = self._indexed(end) if end <= self.size else None
                times = self._file_at(at + _HEAD.size, 16)
                if len(times) == 16 and indexed is not None and indexed.keys() <= (
                        self.channels.keys()):
                    first, last = struct.unpack('<QQ', times)
                    self._chunks.add(at, first, last, frozenset(indexed))
                    self._span(first, last)
                    for number, count in indexed.items():
                        self.channels[number].count += count
                else:
                    self._count_chunk(at)
            elif code == MESSAGE:
                content = self._file_at(at + _HEAD.size, _MESSAGE_HEAD.size)
                if end <= self.size and len(content) == _MESSAGE_HEAD.size:
                    self._loose = True
                    number, _, time_ns, _ = _MESSAGE_HEAD.unpack(content)
                    self._count(number, time_ns)
            elif code in (SCHEMA, CHANNEL) and end <= self.size:
                self._learn_what_is_whole(code, self._file_at(at + _HEAD.size, length))
            if end > self.size or code == DATA_END:
                break
            at = end

    def _indexed(self, at: int) -> dict[int, int] | None:
        """Return messages by channel from the index records at `at`, None where there is none."""
        counts: dict[int, int] = {}
        while True:
            head = self._file_at(at, _HEAD.size + 6)
            if len(head) < _HEAD.size + 6 or head[0] != MESSAGE_INDEX:
                return counts or None
            _, length = _HEAD.unpack_from(head)
            number, size = struct.unpack_from('<HI', head, _HEAD.size)
            counts[number] = size // 16
            at += _HEAD.size + length

    def _count_chunk(self, offset: int) -> None:
        """Open a chunk to learn what is in it."""
        times, numbers = [], set()
        for number, time_ns, _ in self._open_chunk(offset):
            times.append(time_ns)
            numbers.add(number)
            self._count(number, time_ns)
        if times:
            self._chunks.add(offset, min(times), max(times), frozenset(numbers))

    def _learn(self, code: int, data: bytes) -> None:
        """Take a schema or a channel; anything else says nothing here."""
        if code == SCHEMA:
            number, = struct.unpack_from('<H', data)
            name, at = _text(data, 2)
            _, at = _text(data, at)
            self._schemas[number] = name, _text(data, at)[0]
        elif code == CHANNEL:
            number, schema = struct.unpack_from('<HH', data)
            topic, at = _text(data, 4)
            encoding, at = _text(data, at)
            size, = struct.unpack_from('<I', data, at)
            at, end, notes = at + 4, at + 4 + size, {}
            while at < end:
                key, at = _text(data, at)
                notes[key], at = _text(data, at)
            name, definition = self._schemas.get(schema, ('', ''))
            if number not in self.channels:
                self.channels[number] = Channel(
                    number, topic, name, encoding, definition,
                    notes.get('offered_qos_profiles', ''))

    def _learn_what_is_whole(self, code: int, data: bytes) -> None:
        """Take a schema or a channel; one that is broken is left out and named."""
        try:
            self._learn(code, data)
        except struct.error as err:
            self._complain(f'the record of a topic or of its type is broken: {err}')

    # --- messages -------------------------------------------------------------------------------

    def messages(self, numbers: set[int], start_ns: int | None = None,
                 stop_ns: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield (channel number, log time, data) from `start_ns` up to before `stop_ns`, by time.

        Messages of one time come in the order of the file. Chunks are opened one after another,
        so only those whose times overlap are in memory together. A chunk that cannot be unpacked
        is left out and named in `problems`.
        """
        first = -1 << 62 if start_ns is None else start_ns
        stop = 1 << 62 if stop_ns is None else stop_ns
        if self._loose:
            # Recorded without chunks: in the order of the file, which is that of their arrival.
            yield from (item for item in self._loose_messages()
                        if item[0] in numbers and first <= item[1] < stop)
            return
        chunks = self._chunks
        heap: list[tuple[int, int, int, int, bytes]] = []
        for i in chunks.holding(numbers):
            if chunks.last_ns[i] < first or chunks.first_ns[i] >= stop:
                continue
            while heap and heap[0][0] < chunks.first_ns[i]:
                time_ns, _, _, number, data = heapq.heappop(heap)
                yield number, time_ns, data
            for place, (number, time_ns, data) in enumerate(self._open_chunk(chunks.offsets[i])):
                if number in numbers and first <= time_ns < stop:
                    heapq.heappush(heap, (time_ns, chunks.offsets[i], place, number, data))
        while heap:
            time_ns, _, _, number, data = heapq.heappop(heap)
            yield number, time_ns, data

    def _loose_messages(self) -> Iterator[tuple[int, int, bytes]]:
        at = self._data_start
        while True:
            self._file.seek(at)
            record = self._record()
            if record is None or record[0] == DATA_END:
                return
            here, at = at, self._file.tell()
            code, data = record
            if code == MESSAGE and len(data) >= _MESSAGE_HEAD.size:
                number, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(data)
                yield number, time_ns, data[_MESSAGE_HEAD.size:]
            elif code == CHUNK:
                yield from self._open_chunk(here)
            else:
                self._learn_what_is_whole(code, data)

    def _open_chunk(self, offset: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (channel, time, data) of a chunk in its order; of a broken one what can be had."""
        head = self._file_at(offset, _HEAD.size + _CHUNK_HEAD.size + 4)
        if len(head) < _HEAD.size + _CHUNK_HEAD.size + 4:
            return
        _, length = _HEAD.unpack_from(head)
        _, _, size, crc = _CHUNK_HEAD.unpack_from(head, _HEAD.size)
        name, = struct.unpack_from('<I', head, _HEAD.size + _CHUNK_HEAD.size)
        at = offset + _HEAD.size + _CHUNK_HEAD.size + 4
        inner = self._file_at(at, min(name, 64) + 8)
        compression = inner[:name].decode('ascii', 'replace')
        left = offset + _HEAD.size + length - at - name - 8
        packed = self._file_at(at + name + 8, max(0, min(left, self.size)))
        raw, why = _unpack(packed, compression)
        whole = len(raw) == size and not why
        if whole and crc and crc32(raw) != crc:
            self._complain(f'the chunk at byte {offset} has a wrong checksum and is left out')
            return
        if not whole:
            self._complain(f'the chunk at byte {offset} is broken: {len(raw)} of {size} bytes '
                           f'could be read{why and ": " + why}')
        view, at = memoryview(raw), 0
        while at + _HEAD.size <= len(raw):
            code, length = _HEAD.unpack_from(raw, at)
            begin, end = at + _HEAD.size, at + _HEAD.size + length
            if end > len(raw):
                return
            if code == MESSAGE and length >= _MESSAGE_HEAD.size:
                number, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(raw, begin)
                yield number, time_ns, bytes(view[begin + _MESSAGE_HEAD.size:end])
            elif code in (SCHEMA, CHANNEL):
                self._learn_what_is_whole(code, raw[begin:end])
            at = end

    def _complain(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _record(self) -> tuple[int, bytes] | None:
        """Return opcode and content of the record at the file's place, None for half a one."""
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        code, length = _HEAD.unpack(head)
        data = self._file.read(length) if length <= self.size else b''
        return (code, data) if len(data) == length else None

    def _file_at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Return the text at `at`, which its length stands before, and where it ends."""
    size, = struct.unpack_from('<I', data, at)
    return data[at + 4:at + 4 + size].decode('utf-8', 'replace'), at + 4 + size


def _unpack(packed: bytes, compression: str) -> tuple[bytes, str]:
    """Return what can be unpacked and, where that is not all, why."""
    if not compression:
        return packed, ''
    if compression not in ('zstd', 'lz4'):
        return b'', f'compression {compression!r}, want zstd or lz4'
    unpacker = zstd.ZstdDecompressor() if compression == 'zstd' else (
        lz4.frame.LZ4FrameDecompressor())
    parts = []
    try:
        for at in range(0, len(packed), _PIECE):    # what comes before a broken byte is kept
            if not unpacker.eof:
                parts.append(unpacker.decompress(packed[at:at + _PIECE]))
    except (zstd.ZstdError, RuntimeError, EOFError) as err:
        return b''.join(parts), str(err)
    return b''.join(parts), ''
