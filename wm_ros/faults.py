"""What was wrong with a recording, gathered by topic and said in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

NS = 1_000_000_000
#: A topic whose last message lies this long before the others' last has stopped.
STOPPED_NS = NS


@dataclass
class Faults:
    """
    Counts faults by source (a camera's name, 'odometry', a topic) and kind.

    `saw` tells it the stamps, so that it knows which source stopped.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_ns: dict[tuple[str, str], int] = field(default_factory=dict)
    newest_ns: dict[str, int] = field(default_factory=dict)

    def add(self, source: str, what: str, time_ns: int) -> None:
        """Count one fault at a time."""
        self.counts[source, what] += 1
        self.first_ns.setdefault((source, what), time_ns)

    def saw(self, source: str, stamp_ns: int) -> None:
        """Note the stamp of a message."""
        self.newest_ns[source] = max(stamp_ns, self.newest_ns.get(source, stamp_ns))

    def lines(self, topics: dict[str, str], start_ns: int) -> list[str]:
        """
        Return a line a fault: topic, what, how often, and the time of the first.

        `topics` names the topic of a source; `start_ns` is where the recording begins.
        """
        lines = [f'{topics.get(source, source)}: {what}: {count} times, first at '
                 f'{when(self.first_ns[source, what], start_ns)}'
                 for (source, what), count in self.counts.items()]
        end = max(self.newest_ns.values(), default=0)
        for source, newest in self.newest_ns.items():
            if end - newest > STOPPED_NS:
                lines.append(f'{topics.get(source, source)}: stops at {when(newest, start_ns)}, '
                             f'{(end - newest) / NS:.1f} s before the others')
        return lines


def when(time_ns: int, start_ns: int) -> str:
    """Return a time in seconds, and how far into the recording that is."""
    return f'{time_ns / NS:.3f} s ({(time_ns - start_ns) / NS:+.1f} s)'
