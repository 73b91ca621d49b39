"""
Make a page to look at from a bag of forecasts: one HTML file that opens anywhere, no server.

It shows the camera pictures, what the model saw and where it said that everyone would be, against
what came, and against the truth where the bag has it; the worst moments first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wm_ros.cli.progress import Progress

if TYPE_CHECKING:
    from wm_ros.evaluate.report_data import Report


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
    parser.add_argument('--frames', type=int, default=4, metavar='N',
                        help='draw predicted camera frames of so many moments, where the model '
                        'has them (default: 4)')
    parser.add_argument('--artifact', type=Path, help='folder of the model that draws them '
                        '(default: the one that is installed)')
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
    if arguments.frames:
        add_frames(report, arguments.frames, arguments.artifact)
    folder = arguments.bag if arguments.bag.is_dir() else arguments.bag.parent
    out = arguments.out or folder / 'report.html'
    size = write_page(report, out)
    if arguments.preview:
        write_preview(report, arguments.preview)
    if arguments.rerun:
        from wm_ros.evaluate.rerun_recording import write_recording
        write_recording(report, arguments.rerun)
    result = {'page': str(out), 'megabytes': round(size / 1e6, 2), 'windows':
              len(report.forecasts), 'drawn': len(report.frames),
              'seconds': round(time.monotonic() - start, 1)}
    print(json.dumps(result) if arguments.json else
          f'{out}: {result["windows"]} windows, {result["megabytes"]:.1f} MB, '
          f'{result["seconds"]:.1f} s')
    return 0


def add_frames(report: Report, count: int, folder: Path | None = None) -> None:
    """Draw predicted frames of `count` moments, where the model has them and pictures are there."""
    from wm_ros.evaluate.future_frames import draw_frames
    from wm_ros.evaluate.report_page import drawn_moments
    from wm_ros.runtime.artifact import ArtifactError, load_artifact
    from wm_ros.runtime.frames import find_frames
    from wm_ros.share import share_path

    try:
        artifact = load_artifact(folder or share_path('models', 'world-model'))
        graph = find_frames(artifact)
    except (ArtifactError, FileNotFoundError) as err:
        print(f'wm_ros report: no predicted camera frames: {err}', file=sys.stderr)
        return
    if graph is None:
        print(f'wm_ros report: no predicted camera frames: none beside {artifact.path}',
              file=sys.stderr)
    elif report.rig is not None:
        made_by = {forecast.model_hash for forecast in report.forecasts}
        if artifact.hash not in made_by:
            print('wm_ros report: predicted camera frames are those of model '
                  f'{artifact.hash[:12]}, the forecasts of '
                  f'{", ".join(sorted(one[:12] for one in made_by))} (--artifact)', file=sys.stderr)
        report.frames = draw_frames(report.source, report.rig, artifact, graph,
                                    drawn_moments(report, count),
                                    progress=Progress('drawing', 'moments'))


def _animate(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.animation import write_animation

    made = write_animation(arguments.bag, arguments.input, arguments.animation,
                           arguments.animation_start, progress=Progress('drawing', 'frames'))
    result = {'animation': str(arguments.animation), **made}
    print(json.dumps(result) if arguments.json else
          f'{arguments.animation}: {made["frames"]} frames from {made["start_s"]:.1f} s on, '
          f'{made["bytes"] / 1e6:.2f} MB at quality {made["quality"]}')
    return 0
