"""What the files of a bag have in common: their topics, and the error of one that is none."""

from __future__ import annotations

from dataclasses import dataclass


class StorageError(ValueError):
    """A file that cannot be read as what it should be: what was found and what was wanted."""


@dataclass
class Channel:
    """
    One topic of one file.

    `definition` is the text of its type, empty where the file has none; `qos` that of the profiles
    that publishers offered; `count` its messages.
    """

    number: int
    topic: str
    type_name: str
    encoding: str
    definition: str
    qos: str
    count: int = 0

    @property
    def latched(self) -> bool:
        """Whether its publisher kept the last message for those who come later."""
        words = self.qos.replace('"', '').split()
        pairs = list(zip(words, words[1:], strict=False))
        return ('durability:', '1') in pairs or ('durability:', 'transient_local') in pairs


class Contents:
    """What a file holds: `channels` by number, and the times (ns) of its first and last message."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None

    def _count(self, number: int, time_ns: int) -> None:
        if number in self.channels:
            self.channels[number].count += 1
            self._span(time_ns, time_ns)

    def _span(self, first_ns: int, last_ns: int) -> None:
        self.start_ns = first_ns if self.start_ns is None else min(self.start_ns, first_ns)
        self.end_ns = last_ns if self.end_ns is None else max(self.end_ns, last_ns)
