"""Cut a stretch out of bags into a small one that can be replayed by itself."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wm_ros.data.bag import AGENTS, CAMERA_INFO, COMPRESSED, IMAGE, BagReader, BagWriter
from wm_ros.data.messages import typestore
from wm_ros.messages import stamp_ns

#: Messages from which the recorder's clock is compared with that of the stamps.
_SAMPLE = 20


def recorded_after_ns(reader: BagReader) -> int:
    """
    Return how long after its stamp a message was recorded, the median of the first ones.

    A bag that was played to a live node has stamps of another day than its recording times.
    """
    stamped = [t for kind in (AGENTS, COMPRESSED, IMAGE) for t in reader.topics_of(kind)
               if not t.startswith('/truth/')]
    if not stamped:
        return 0
    delays = []
    for _, time_ns, msg in reader.read(stamped[:1]):
        delays.append(time_ns - stamp_ns(msg.header))
        if len(delays) == _SAMPLE:
            break
    return int(np.median(delays)) if delays else 0


def held(reader: BagReader, topic: str) -> bool:
    """Tell whether what was said on a topic holds until it is said again."""
    return reader.topics[topic].latched or topic.endswith('/tf_static')


def _state(reader: BagReader, start_ns: int, stop_ns: int) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield what was said once and holds for the stretch: transforms, calibration."""
    for topic in filter(lambda topic: held(reader, topic), reader.topics):
        for name, kind, time_ns, data in reader.raw([topic], stop_ns=stop_ns):
            yield name, kind, max(start_ns, time_ns), data
    for topic in reader.topics_of(CAMERA_INFO):
        if next(reader.raw([topic], start_ns, stop_ns), None) is None:
            for name, kind, _, data in reader.raw([topic]):
                yield name, kind, start_ns, data
                break


def cut(sources: Iterable[BagReader], path: Path, start_ns: int, stop_ns: int,
        notes: dict[str, str]) -> int:
    """
    Write what `sources` hold between two stamps into the bag `path`; return the messages.

    A topic that several sources hold is taken from the first; one whose type neither ROS 2 nor
    the bag defines is left out. Latched messages such as /tf_static, and CameraInfo that was
    published only before, are put at the start. Raises BagError where `path` exists.
    """
    taken: set[str] = set()
    streams, latched = [], set()
    for reader in sources:
        topics = [topic.name for topic in reader.topics.values() if topic.name not in taken
                  and topic.type_name in typestore().fielddefs]
        taken.update(topics)
        delay = recorded_after_ns(reader)
        first, last = start_ns + delay, stop_ns + delay + 1     # the stop is part of it
        state = sorted((m for m in _state(reader, first, last) if m[0] in topics),
                       key=lambda message: message[2])
        latched.update(message[0] for message in state if held(reader, message[0]))
        stream = [reader.raw([t for t in topics if t not in latched], first, last)]
        streams += [_shifted(part, delay) for part in (state, *stream)]
    count = 0
    with BagWriter(path, compress=True) as writer:
        for key, value in notes.items():
            writer.note(key, value)
        for topic, kind, time_ns, data in heapq.merge(*streams, key=lambda message: message[2]):
            writer.write_raw(topic, kind, time_ns, data, latched=topic in latched)
            count += 1
    return count


def _shifted(messages: Iterable[tuple[str, str, int, bytes]],
             delay_ns: int) -> Iterator[tuple[str, str, int, bytes]]:
    for topic, kind, time_ns, data in messages:
        yield topic, kind, time_ns - delay_ns, data
