"""
The files of a rosbag2 recording as one stream of messages, without ROS.

A folder with metadata.yaml, one whose metadata.yaml was never written (the recorder was killed), or
a single file. What is missing or broken is named in `problems`; the rest is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from wm_ros.data.mcap_stream import McapFile, zstd
from wm_ros.data.sqlite_stream import SqliteFile
from wm_ros.data.stored import Channel, StorageError

METADATA = 'metadata.yaml'
_FILES = {'.mcap': McapFile, '.db3': SqliteFile}
_PACKED = '.zstd'


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: its message type and how many messages it holds."""

    name: str
    type_name: str
    count: int
    latched: bool = False


def storage_files(path: Path) -> list[Path]:
    """Return the storage files in a folder, parts of one recording in their order."""
    found = [file for file in path.iterdir() if _kind(file) and file.is_file()]
    return sorted(found, key=lambda file: (_stem(file)[0], _stem(file)[1], file.name))


def _kind(file: Path) -> str:
    name = file.name.removesuffix(_PACKED)
    return next((suffix for suffix in _FILES if name.endswith(suffix)), '')


def _stem(file: Path) -> tuple[str, int]:
    """Return name and number of a part: ('drive', 3) for drive_3.mcap."""
    stem = name_of(file)
    name, _, number = stem.rpartition('_')
    return (name, int(number)) if name and number.isdecimal() else (stem, 0)


def name_of(path: Path) -> str:
    """Return the name of a bag: that of its folder, or of its file without the ends of storage."""
    return path.name if path.is_dir() else path.name.removesuffix(_PACKED).removesuffix(_kind(path))


def is_bag(path: Path) -> bool:
    """
    Tell whether a path is one recording, rather than a folder of several.

    Storage files beside each other without metadata.yaml are one where they are numbered parts.
    """
    if not path.is_dir():
        return bool(_kind(path))
    if (path / METADATA).is_file():
        return True
    stems = {_stem(file)[0] for file in storage_files(path)}
    return len(stems) == 1 and not any(
        (folder / METADATA).is_file() for folder in path.iterdir() if folder.is_dir())


class BagFiles:
    """
    All files of one recording; a context manager.

    `topics` by name, `notes` (custom_data), `start_ns` and `end_ns` (0 without a message).
    Raises StorageError where nothing can be read, OSError where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: dict[str, str] = {}
        self._problems: list[str] = []
        self._message_packed = False
        self._stack = ExitStack()
        self._parts: list[McapFile | SqliteFile] = []
        try:
            for file in self._list():
                self._open(file)
            if not self._parts:
                raise StorageError('; '.join(self._problems) or 'no .mcap or .db3 file in it')
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def problems(self) -> list[str]:
        """What was wrong with the files so far; grows while messages are read."""
        return [*self._problems, *(
            f'{part.path.name}: {text}' for part in self._parts for text in part.problems)]

    def _list(self) -> list[Path]:
        if not self.path.is_dir():
            if not _kind(self.path):
                raise StorageError(f'{self.path.suffix or "no ending"}, want .mcap or .db3, or '
                                   'the folder of a bag')
            return [self.path]
        there = storage_files(self.path)
        metadata = self._metadata()
        if metadata is None:
            return there
        self.notes = {str(key): str(value) for key, value in
                      (metadata.get('custom_data') or {}).items()}
        self._message_packed = str(metadata.get('compression_mode')).lower() == 'message'
        named = [self.path / PurePath(str(name)).name
                 for name in metadata.get('relative_file_paths') or []]
        lost = [file.name for file in named if not file.is_file()]
        if lost and there:
            self._problems.append(f'{", ".join(lost)}: named in {METADATA} and not there')
        return [file for file in named if file.is_file()] or there

    def _metadata(self) -> dict[str, Any] | None:
        file = self.path / METADATA
        try:
            content = yaml.safe_load(file.read_text(encoding='utf-8'))
            return dict(content['rosbag2_bagfile_information'])
        except FileNotFoundError:
            self._problems.append(f'no {METADATA}: the recording was not ended')
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, ValueError) as err:
            self._problems.append(f'{METADATA} is broken: {" ".join(str(err).split())}')
        return None

    def _open(self, file: Path) -> None:
        if file.name.endswith(_PACKED):
            folder = self._stack.enter_context(TemporaryDirectory())
            whole = Path(folder, file.name.removesuffix(_PACKED))
            try:
                with zstd.open(file, 'rb') as packed, whole.open('wb') as out:
                    shutil.copyfileobj(packed, out)
            except (zstd.ZstdError, EOFError) as err:   # what came before it is there
                self._problems.append(f'{file.name}: {err}')
        else:
            whole = file
        try:
            part = _FILES[_kind(file)](whole)
        except StorageError as err:
            self._problems.append(f'{file.name}: {err}')
            return
        self._stack.callback(part.close)
        self._parts.append(part)

    def _complain(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)

    @property
    def channels(self) -> list[Channel]:
        """The topics of every file."""
        return [channel for part in self._parts for channel in part.channels.values()]

    @property
    def topics(self) -> dict[str, Topic]:
        """The topics by name; of a topic with two types, the one with more messages."""
        counts: dict[tuple[str, str], int] = {}
        latched = set()
        for channel in self.channels:
            key = channel.topic, channel.type_name
            counts[key] = counts.get(key, 0) + channel.count
            if channel.latched:
                latched.add(channel.topic)
        found: dict[str, Topic] = {}
        for (name, kind), count in counts.items():
            if name not in found or count > found[name].count:
                found[name] = Topic(name, kind, count, name in latched)
        return found

    @property
    def start_ns(self) -> int:
        """Time of the first message."""
        return min((part.start_ns for part in self._parts if part.start_ns is not None), default=0)

    @property
    def end_ns(self) -> int:
        """Time of the last message."""
        return max((part.end_ns for part in self._parts if part.end_ns is not None), default=0)

    def messages(self, topics: Iterable[str] | None = None, start_ns: int | None = None,
                 stop_ns: int | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield (topic, type, time in ns, CDR bytes), file after file, by time in each."""
        kinds = {topic.name: topic.type_name for topic in self.topics.values()}
        wanted = kinds.keys() if topics is None else set(topics) & kinds.keys()
        for part in self._parts:
            channels = {number: channel for number, channel in part.channels.items()
                        if channel.topic in wanted and channel.type_name == kinds[channel.topic]}
            for number, time_ns, data in part.messages(set(channels), start_ns, stop_ns):
                if self._message_packed:
                    try:
                        data = zstd.decompress(data)
                    except zstd.ZstdError as err:
                        self._complain(f'{channels[number].topic}: messages that cannot be '
                                       f'unpacked are left out: {err}')
                        continue
                yield channels[number].topic, channels[number].type_name, time_ns, data
