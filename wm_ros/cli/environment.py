"""
What ROS wants from the environment when it lives in a virtual environment of PyPI wheels.

A sourced ROS installation has set all of this already, and nothing here changes it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare() -> None:
    """Name the running virtual environment as the ROS prefix, unless another one is sourced."""
    if 'AMENT_PREFIX_PATH' not in os.environ and Path(sys.prefix, 'share', 'rclpy').is_dir():
        os.environ['AMENT_PREFIX_PATH'] = sys.prefix


def profile_variable() -> str:
    """
    Return what names an XML profile to the Fast DDS that is here.

    Version 2, of ROS up to Jazzy, takes no notice of the name that version 3 has, and is told apart
    by the name of its package; 3 warns of the old one.
    """
    prefixes = os.environ.get('AMENT_PREFIX_PATH', sys.prefix).split(os.pathsep)
    old = any(Path(prefix, 'share', 'fastrtps').is_dir() for prefix in prefixes)
    return 'FASTRTPS_DEFAULT_PROFILES_FILE' if old else 'FASTDDS_DEFAULT_PROFILES_FILE'


def child_environment(**changes: str) -> dict[str, str]:
    """
    Return a copy of the environment, with `changes`, for a Python process that is to use ROS.

    The wheels restart Python once with LD_LIBRARY_PATH set and leave a flag that they have; a
    child that inherits the flag but lost LD_LIBRARY_PATH cannot import rclpy, so the flag goes.
    """
    prepare()
    environment = {**os.environ, **changes}
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    # `python -m` would import from the current folder first: in a checkout, no messages.
    environment['PYTHONSAFEPATH'] = '1'
    return environment
