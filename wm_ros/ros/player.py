"""
Play a bag over DDS in real time, from a process of its own.

    python -m wm_ros.ros.player BAG [--rate 1.0] [--log FILE]

Messages go out as the CDR bytes that the bag holds, at the times at which they were recorded, so
playing costs next to nothing. `rosbag2_py` is not needed. The log, one JSON object, holds for every
stamp when the last picture of it was given to the middleware, on the host's steady clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from wm_ros.data.bag import COMPRESSED, IMAGE, BagError, BagReader
from wm_ros.ros.raw import header_stamp_ns, message_class

#: Topics of these types wait for a subscriber before the bag starts.
PICTURES = (COMPRESSED, IMAGE)
#: What a player sends beforehand and once: transforms are latched.
LATCHED_SUFFIX = '/tf_static'
#: Seconds that the player outlives its last message: one that is under way is lost with its writer.
LINGER_S = 1.0


class Player:
    """Publishes a bag's topics through one rclpy node."""

    def __init__(self, node: Node, reader: BagReader, exclude: tuple[str, ...] = ()) -> None:
        self._node = node
        self._reader = reader
        self._publishers: dict[str, Any] = {}
        for topic in reader.topics.values():
            if topic.name.startswith(exclude) or not topic.count:
                continue
            latched = topic.name.endswith(LATCHED_SUFFIX)
            try:
                kind = message_class(topic.type_name)
            except (ImportError, AttributeError):
                # tf2_msgs is not among the PyPI wheels; the rig file stands in for it.
                node.get_logger().info(f'{topic.name}: {topic.type_name} is not installed; left '
                                       'out')
                continue
            self._publishers[topic.name] = node.create_publisher(kind, topic.name, QoSProfile(
                depth=10, reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched
                else DurabilityPolicy.VOLATILE))

    def wait_for_subscribers(self, timeout_s: float) -> list[str]:
        """Return the picture topics that nobody subscribed to within `timeout_s`."""
        pictures = [name for name, topic in self._reader.topics.items()
                    if topic.type_name in PICTURES and name in self._publishers]
        end = time.monotonic() + timeout_s
        while True:
            missing = [name for name in pictures
                       if not self._publishers[name].get_subscription_count()]
            if not missing or time.monotonic() > end:
                return missing
            time.sleep(0.05)

    def play(self, rate: float) -> dict[str, Any]:
        """
        Play the bag once at `rate` times its own speed; return what was sent and how punctually.

        `published_ns` maps a stamp to the steady time of its last picture, `lag_ms` is the longest
        that a message went out after its time.
        """
        published: dict[int, int] = {}
        counts: dict[str, int] = {}
        lag_ns = 0
        first_ns, start_ns = self._reader.start_ns, time.monotonic_ns()
        for topic, type_name, time_ns, data in self._reader.raw(self._publishers):
            due_ns = start_ns + round((time_ns - first_ns) / rate)
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            now_ns = time.monotonic_ns()
            lag_ns = max(lag_ns, now_ns - due_ns)
            self._publishers[topic].publish(bytes(data))
            counts[topic] = counts.get(topic, 0) + 1
            if type_name in PICTURES:
                published[header_stamp_ns(data)] = now_ns
        pictures = {name: count for name, count in counts.items()
                    if self._reader.topics[name].type_name in PICTURES}
        return {'counts': counts, 'pictures': pictures, 'published_ns': published,
                'lag_ms': lag_ns / 1e6, 'seconds': (time.monotonic_ns() - start_ns) / 1e9}


def main(arguments: list[str] | None = None) -> int:
    """Run the player; return 0, or 1 with a line on stderr."""
    parser = argparse.ArgumentParser(prog='player', description=__doc__.split('\n\n')[0])
    parser.add_argument('bag', type=Path)
    parser.add_argument('--rate', type=float, default=1.0)
    parser.add_argument('--wait', type=float, default=30.0,
                        help='seconds to wait for subscribers of every camera')
    parser.add_argument('--exclude', nargs='*',
                        default=['/truth/', '/world_model/', '/diagnostics'],
                        help='topics that begin so are not played')
    parser.add_argument('--log', type=Path, help='JSON file to write')
    parsed, _ = parser.parse_known_args(arguments)
    rclpy.init()
    node = Node('wm_ros_player', enable_rosout=False)
    try:
        with BagReader(parsed.bag) as reader:
            player = Player(node, reader, tuple(parsed.exclude))
            missing = player.wait_for_subscribers(parsed.wait)
            if missing:
                print(f'player: nobody subscribes to {", ".join(missing)}', file=sys.stderr)
                return 1
            time.sleep(0.5)     # discovery of the last subscriber settles
            result = player.play(parsed.rate)
            time.sleep(LINGER_S)
    except BagError as err:
        print(f'player: {err}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    if parsed.log:
        parsed.log.write_text(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
