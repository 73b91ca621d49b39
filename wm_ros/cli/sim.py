"""
Write a bag of a simulated drive: JPEG pictures, CameraInfo, odometry, transforms and the truth.

The same options give the same drive. Seeds from 900000 on are held out: no model was trained on
them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError
from wm_ros.data.replacing import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', metavar='OUT_BAG', type=Path, help='folder of the bag to write')
    parser.add_argument('--seed', type=int, required=True, help='of the drive')
    parser.add_argument('--seconds', type=float, default=20.0, help='length (default: 20)')
    parser.add_argument('--rig', default='surround', choices=('surround', 'front', 'kitti'),
                        help='cameras (default: surround, six of 1600x900)')
    parser.add_argument('--world', default='sim',
                        help='sim (default), sim-hard, rural, snow or animal')
    parser.add_argument('--quality', type=int, default=90, help='of the JPEGs (default: 90)')
    parser.add_argument('--width', type=int, default=0,
                        help='of the pictures; the default is that of the rig')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--workers', type=int, default=2, help='processes that render')
    parser.add_argument('--force', action='store_true', help='overwrite a bag that exists')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.sim_bag import DriveSettings, leaves_road_s, write_drive
    from wm_ros.sim.worlds import WORLDS

    if not (math.isfinite(arguments.seconds) and arguments.seconds > 0
            and 1 <= arguments.quality <= 100 and arguments.width >= 0):
        raise UsageError('want seconds > 0, a quality of 1 to 100 and a width of 0 or more, got '
                         f'{arguments.seconds}, {arguments.quality} and {arguments.width}')
    if arguments.world not in WORLDS:
        raise UsageError(f'--world {arguments.world}: want one of {", ".join(WORLDS)}')
    settings = DriveSettings(arguments.seed, arguments.seconds, arguments.rig, arguments.world,
                             arguments.quality, width=arguments.width)
    off_s = leaves_road_s(settings)
    if off_s is not None:
        print(f'wm_ros sim: warning: from {off_s:.1f} s on the ego vehicle of seed '
              f'{arguments.seed} is past the end of its road, on grass; want --seconds of at most '
              f'{off_s:.1f}', file=sys.stderr)
    start = time.monotonic()
    with replacing(arguments.out, arguments.force):
        sets = write_drive(arguments.out, settings, arguments.storage, arguments.workers,
                           Progress('rendering', 'camera sets'))
    size_mb = sum(f.stat().st_size for f in arguments.out.iterdir()) / 1e6
    result = {'bag': str(arguments.out), 'camera_sets': sets, 'megabytes': round(size_mb, 1),
              'seconds': round(time.monotonic() - start, 1)}
    print(json.dumps(result) if arguments.json else
          f'{arguments.out}: {sets} camera sets, {size_mb:.0f} MB, '
          f'{result["seconds"]:.0f} s')
    return 0
