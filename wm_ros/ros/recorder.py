"""
Record what a node publishes into an mcap bag, as the CDR bytes that arrive.

    python -m wm_ros.ros.recorder OUT_BAG --topics '/world_model/.*' '/diagnostics' [--log FILE]

Topics are subscribed to as they appear, with the reliability and durability that their publishers
offer. Ends on SIGINT or SIGTERM and leaves a whole bag. The log is written as things happen, a line
each: [topic, stamp, steady time of arrival], and with null for a stamp when a topic was found.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from wm_ros.data.bag import BagError, BagWriter
from wm_ros.data.messages import typestore
from wm_ros.ros.raw import header_stamp_ns, message_class

LOOK_S = 0.1


class Recorder:
    """Subscribes to matching topics of one rclpy node and writes what comes."""

    def __init__(self, node: Node, writer: BagWriter, patterns: list[str],
                 log: TextIO | None = None) -> None:
        self._node = node
        self._log = log
        self._writer = writer
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._subscriptions: dict[str, Any] = {}
        node.create_timer(LOOK_S, self.look)

    def look(self) -> None:
        """Subscribe to matching topics that have a publisher and are not yet recorded."""
        for topic, kinds in self._node.get_topic_names_and_types():
            if topic in self._subscriptions or not any(
                    pattern.fullmatch(topic) for pattern in self._patterns):
                continue
            publishers = self._node.get_publishers_info_by_topic(topic)
            if not publishers or kinds[0] not in typestore().fielddefs:
                continue
            profiles = [publisher.qos_profile for publisher in publishers]
            reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
            latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
            self._subscriptions[topic] = self._node.create_subscription(
                message_class(kinds[0]), topic, self._callback(topic, kinds[0]), QoSProfile(
                    depth=50,
                    reliability=ReliabilityPolicy.RELIABLE if reliable
                    else ReliabilityPolicy.BEST_EFFORT,
                    durability=DurabilityPolicy.TRANSIENT_LOCAL if latched
                    else DurabilityPolicy.VOLATILE),
                raw=True)
            self._note(topic, None)

    def _callback(self, topic: str, kind: str) -> Any:
        fields = typestore().fielddefs[kind][1]
        stamped = bool(fields) and fields[0][1][1] == 'std_msgs/msg/Header'

        def received(data: bytes) -> None:
            self._note(topic, header_stamp_ns(data) if stamped else 0)
            self._writer.write_raw(topic, kind, time.time_ns(), data)
        return received

    def _note(self, topic: str, stamp_ns: int | None) -> None:
        if self._log:
            print(json.dumps([topic, stamp_ns, time.monotonic_ns()]), file=self._log, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Record until a signal; return 0, or 1 with a line on stderr."""
    parser = argparse.ArgumentParser(prog='recorder', description=__doc__.split('\n\n')[0])
    parser.add_argument('out', type=Path)
    parser.add_argument('--topics', nargs='+', required=True, help='regular expressions')
    parser.add_argument('--log', type=Path, help='file to write, JSON lines')
    parsed, _ = parser.parse_known_args(arguments)
    # Signals are ours: a bag is whole only when it is closed.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    node = Node('wm_ros_recorder', enable_rosout=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with (open(parsed.log, 'w') if parsed.log else nullcontext() as log,
              BagWriter(parsed.out, compress=True) as writer):
            Recorder(node, writer, parsed.topics, log)      # held by its timer
            while not stopped:
                executor.spin_once(timeout_sec=0.2)
    except (BagError, OSError) as err:
        print(f'recorder: {err}', file=sys.stderr)
        return 1
    except ExternalShutdownException:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
