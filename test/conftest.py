"""
Tests run against the installed package, which has the generated messages; the checkout has none.

`make develop` makes the installed package read the Python files of the checkout.
"""

import fcntl
import os
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the checkout first; processes that tests start must not do that either.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != REPO]
os.environ['PYTHONSAFEPATH'] = '1'


def own_domain():
    """Return a ROS domain that no other test process on this machine has, and its lock."""
    for number in range(1, 102):
        try:
            lock = Path(tempfile.gettempdir(), f'wm_ros_test_domain_{number}').open('a')
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:     # another process has it, or another user
            continue
        return number, lock
    raise RuntimeError('domains 1 to 101 are all in use by other tests')


# Nodes of tests, and of processes that they start, meet nobody else's.
ROS_DOMAIN, _lock = own_domain()
os.environ['ROS_DOMAIN_ID'] = str(ROS_DOMAIN)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
