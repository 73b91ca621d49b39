"""
Write a bag of plain video: one file a camera, and a rig file with their calibration.

The bag holds pictures (JPEG), CameraInfo and /tf_static. There is no odometry, so forecasts are
made with the model's trained mask for it. `wm_ros replay` and `wm_ros report` take the bag.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError
from wm_ros.data.replacing import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('files', metavar='FILE', type=Path, nargs='+',
                        help="one video a camera, in the rig's order")
    parser.add_argument('--rig', type=Path, required=True, help='rig file with these cameras')
    parser.add_argument('--out', type=Path, required=True, help='bag to write')
    parser.add_argument('--start', type=float, default=0.0, metavar='S',
                        help='begin so many seconds into the video')
    parser.add_argument('--seconds', type=float, default=0.0, metavar='S',
                        help='end so many seconds later (default: at the end)')
    parser.add_argument('--stamp', type=float, default=1.0, metavar='S',
                        help='stamp of the first picture (default: 1)')
    parser.add_argument('--quality', type=int, default=90, choices=range(1, 101), metavar='1-100',
                        help='of the JPEG pictures (default: 90)')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--force', action='store_true', help='overwrite a bag that exists')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.video import write_video
    from wm_ros.rig import load_rig

    for name in ('start', 'seconds', 'stamp'):
        if not 0 <= getattr(arguments, name) < math.inf:
            raise UsageError(f'--{name} {getattr(arguments, name):g}: want 0 or more')
    rig = load_rig(arguments.rig)
    with replacing(arguments.out, arguments.force):
        counts = write_video(arguments.out, rig, arguments.files, round(arguments.stamp * 1e9),
                             arguments.quality, arguments.start, arguments.seconds,
                             arguments.storage, Progress('writing', 'pictures'))
    print(f'{arguments.out}: ' + ', '.join(f'{count} pictures of {name}'
                                           for name, count in counts.items()))
    return 0
