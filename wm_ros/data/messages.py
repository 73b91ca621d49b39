"""
The message classes for bags: those of ROS 2 that `rosbags` knows, and our own from the .msg text.

The .msg files are part of a checkout and of an installation, so that reading a bag needs no ROS.
"""

from __future__ import annotations

from functools import lru_cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from wm_ros.messages import MessageTypes
from wm_ros.share import share_path

PACKAGE = 'wm_ros'


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Return the type store with ROS 2's and our own messages; the same object every time."""
    store = get_typestore(Stores.ROS2_JAZZY)
    definitions = {}
    for path in sorted(share_path('msg').glob('*.msg')):
        definitions.update(get_types_from_msg(path.read_text(), f'{PACKAGE}/msg/{path.stem}'))
    store.register(definitions)
    return store


@lru_cache(maxsize=1)
def bag_types() -> MessageTypes:
    """Return the message classes of bags, for the functions of `wm_ros.messages`."""
    store = typestore()
    return MessageTypes(store.types.__getitem__, lambda array: array,
                        lambda message: store.serialize_cdr(message, message.__msgtype__))
