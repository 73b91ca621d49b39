"""
Cut the most surprising moments out of a bag: small bags, ready to label or to replay.

BAG holds camera topics, or forecasts of a bag that does. A moment surprises where road users or
occupied ground are not where the forecasts made 1, 2 and 3 s before had them; no labels are
needed. DIR gets a folder a clip, with the reason beside it, and a README that ranks them.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', metavar='BAG', type=Path, help='rosbag2 folder, .mcap or .db3')
    parser.add_argument('--top', type=int, default=10, metavar='N', help='clips (default: 10)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write')
    parser.add_argument('--input', type=Path, metavar='BAG', help='bag with the pictures, where '
                        'BAG holds forecasts alone (default: the one that it was replayed from)')
    parser.add_argument('--before', type=float, default=5.0, metavar='S',
                        help='seconds of a clip before its moment (default: 5; a first forecast '
                             'takes 1.6, and is held against 3 s later)')
    parser.add_argument('--after', type=float, default=3.0, metavar='S',
                        help='seconds after it (default: 3)')
    parser.add_argument('--artifact', type=Path, help='folder of the model that forecasts '
                        '(default: the forecasts in BAG, else the model that is installed)')
    parser.add_argument('--backend', default='auto', help='inference library (default: auto)')
    parser.add_argument('--threads', type=int, default=2, help='of the library (default: 2)')
    parser.add_argument('--json', action='store_true', help='print the index of clips as JSON')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.mining import clip_names, find, write_clips

    # Written so that NaN fails too.
    if not (arguments.top >= 1 and 0 < arguments.before < math.inf
            and 0 <= arguments.after < math.inf):
        raise UsageError('want --top of at least 1, --before above 0 and --after of 0 or more; '
                         f'got {arguments.top}, {arguments.before:g} and {arguments.after:g}')
    out = arguments.out
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out}: not empty, want a new folder')
    out.mkdir(parents=True, exist_ok=True)
    work = out / '.forecasts'
    try:
        found = find(arguments.bag, arguments.input, work, arguments.artifact, arguments.backend,
                     arguments.threads, Progress('forecasting', 'camera sets'))
        clips = write_clips(found, out, arguments.top, arguments.before, arguments.after)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.json:
        print(json.dumps(clips))
        return 0
    for name, clip in zip(clip_names(clips), clips['clips'], strict=True):
        print(f'{out / name}: {clip["surprise_nats"]:.1f} nats at {clip["at_s"]:.1f} s: '
              f'{clip["reasons"][0]}')
    print(f'{out / "README.md"}: {len(clips["clips"])} clips of {clips["moments"]} moments')
    return 0
