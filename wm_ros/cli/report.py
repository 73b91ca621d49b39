"""
Make a page to look at from a bag of forecasts: one HTML file that opens anywhere, no server.

It shows the camera pictures, what the model saw and where it said that everyone would be, against
what came, and against the truth where the bag has it; the worst moments first.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from wm_ros.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', metavar='BAG', type=Path, help='bag with the forecasts')
    parser.add_argument('--input', type=Path, help='bag with pictures and truth, where it is '
                        'another one (default: the one that BAG was replayed from)')
    parser.add_argument('--out', type=Path, help='page to write (default: BAG/report.html)')
    parser.add_argument('--preview', type=Path, help='also write one picture of it (PNG)')
    parser.add_argument('--animation', type=Path, metavar='FILE', help='write a short animated '
                        'WebP instead of the page: cameras, and forecasts from above')
    parser.add_argument('--animation-start', type=float, metavar='S', help='second at which it '
                        'begins (default: the liveliest six seconds)')
    parser.add_argument('--rerun', type=Path, metavar='FILE', help='also write a Rerun recording '
                        '(.rrd; needs rerun-sdk)')
    parser.add_argument('--summary', type=Path, help='summary.json of a demo, for latencies')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.preview import write_preview
    from wm_ros.evaluate.report_data import gather
    from wm_ros.evaluate.report_page import write_page

    start = time.monotonic()
    if arguments.animation:
        return _animate(arguments)
    summary = json.loads(arguments.summary.read_text()) if arguments.summary else None
    report = gather(arguments.bag, arguments.input, summary, Progress('reading', 'windows'))
    folder = arguments.bag if arguments.bag.is_dir() else arguments.bag.parent
    out = arguments.out or folder / 'report.html'
    size = write_page(report, out)
    if arguments.preview:
        write_preview(report, arguments.preview)
    if arguments.rerun:
        from wm_ros.evaluate.rerun_recording import write_recording
        write_recording(report, arguments.rerun)
    result = {'page': str(out), 'megabytes': round(size / 1e6, 2), 'windows':
              len(report.forecasts), 'seconds': round(time.monotonic() - start, 1)}
    print(json.dumps(result) if arguments.json else
          f'{out}: {result["windows"]} windows, {result["megabytes"]:.1f} MB, '
          f'{result["seconds"]:.1f} s')
    return 0


def _animate(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.animation import write_animation

    made = write_animation(arguments.bag, arguments.input, arguments.animation,
                           arguments.animation_start, progress=Progress('drawing', 'frames'))
    result = {'animation': str(arguments.animation), **made}
    print(json.dumps(result) if arguments.json else
          f'{arguments.animation}: {made["frames"]} frames from {made["start_s"]:.1f} s on, '
          f'{made["bytes"] / 1e6:.2f} MB at quality {made["quality"]}')
    return 0
