"""
All messages of a topic that wait, at once.

An executor of rclpy takes one message of each subscription a cycle. After a pause of the process
ten pictures of a camera and a hundred times odometry may wait, and the pictures would be long
through before the odometry that belongs to them.
"""

from __future__ import annotations

from typing import Any


def with_backlog(subscription: Any, first: Any, depth: int) -> list[Any]:
    """
    Return a message that was just taken and those that wait behind it, oldest first.

    At most `depth` in all: a publisher that never pauses cannot hold the thread. `subscription` is
    an `rclpy.subscription.Subscription`; what the executor does with `handle` is done here again.
    """
    messages = [first]
    with subscription.handle:
        while len(messages) < depth:
            found = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if found is None:
                break
            messages.append(found[0])
    return messages
