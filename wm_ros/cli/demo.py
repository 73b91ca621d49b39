"""
The live node on a simulated six-camera drive, over real DDS, from pictures to a page to look at.

Writes into the output folder: drive (the bag that is played), forecasts (what the node published),
report.html, preview.png and summary.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError

#: Held out: no model was trained or tuned on it.
SEED = 900_001


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', type=Path, default=Path('out/demo'),
                        help='folder to write (default: out/demo)')
    parser.add_argument('--seconds', type=float, default=20.0, help='of the drive (default: 20)')
    parser.add_argument('--seed', type=int, default=SEED, help=f'of the drive (default: {SEED})')
    parser.add_argument('--rig', default='surround', choices=('surround', 'front'))
    parser.add_argument('--world', default='sim', help='kind of traffic: sim, sim-hard')
    parser.add_argument('--artifact', type=Path, help='folder of the model (default: the one '
                        'that is installed)')
    parser.add_argument('--backend', default='openvino', help='inference library')
    parser.add_argument('--threads', type=int, default=2, help='of the library (default: 2)')
    parser.add_argument('--rate', type=float, default=1.0, help='of playing (default: 1)')
    parser.add_argument('--domain', type=int, help='ROS domain, 0 to 101 (default: one of its own: '
                        'nobody else is to hear simulated cameras)')
    parser.add_argument('--json', action='store_true', help='print the summary as JSON')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.cli.report import add_frames
    from wm_ros.data.sim_bag import DriveSettings
    from wm_ros.demo.live import page_text, run_live, summarise
    from wm_ros.evaluate.preview import write_preview
    from wm_ros.evaluate.recorded import score_table
    from wm_ros.evaluate.report_data import gather
    from wm_ros.evaluate.report_page import write_page
    from wm_ros.share import share_path

    if arguments.domain is not None and not 0 <= arguments.domain <= 101:
        raise UsageError(f'--domain {arguments.domain}: want 0 to 101')
    began = time.monotonic()
    artifact = (arguments.artifact or share_path('models', 'world-model')).resolve()
    if not (artifact / 'manifest.json').is_file():
        raise FileNotFoundError(f'{artifact}: no manifest.json, want the folder of a model')
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    drive = folder / 'drive'
    prepare_drive(drive, DriveSettings(arguments.seed, arguments.seconds, arguments.rig,
                                       arguments.world))
    say(f'playing {arguments.seconds:.0f} s to the node, over DDS')
    live = run_live(drive, folder, share_path('params', 'rigs', f'{arguments.rig}.yaml'), artifact,
                    arguments.backend, arguments.threads, say, arguments.rate, arguments.domain)
    say('scoring and drawing')
    latency = {str(stamp): round(ms, 1) for stamp, ms in live.latency_ms.items()}
    report = gather(live.bag, drive, {'latency_ms': latency}, Progress('reading', 'windows'))
    report.title = f'demo: {arguments.world} drive {arguments.seed}'
    add_frames(report, 3, artifact)
    summary = summarise(live, report.forecasts, report.scores)
    summary['seconds'] = round(time.monotonic() - began, 1)
    (folder / 'summary.json').write_text(json.dumps(summary, indent=1, allow_nan=False))
    size = write_page(report, folder / 'report.html')
    write_preview(report, folder / 'preview.png')
    table = score_table(report.scores) if report.scores else []
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(f'\n{page_text(summary, table)}\n\n'
              f'  {folder / "report.html"} ({size / 1e6:.1f} MB): open it in a browser\n'
              f'  {folder / "preview.png"}, {live.bag} (mcap); '
              f'{time.monotonic() - began:.0f} s in all')
    if not any(forecast.valid for forecast in report.forecasts):
        reasons = report.forecasts[-1].reasons
        raise RuntimeError(f'no forecast was valid; the last one: {"; ".join(reasons)}')
    return 0


def prepare_drive(path: Path, settings: object) -> None:
    """
    Write the drive, unless a whole one with the same settings lies there already.

    One with other settings, or of another version of the simulator, is replaced. Raises
    FileExistsError for anything else that is there.
    """
    from wm_ros.data.bag import BagError, BagReader
    from wm_ros.data.render_cache import code_version
    from wm_ros.data.sim_bag import write_drive

    if path.exists():
        try:
            with BagReader(path) as reader:
                found, code = reader.notes.get('simulated'), reader.notes.get('simulator')
        except BagError:
            found = code = None
        if (found, code) == (settings.text(), code_version()):
            say(f'{path}: there already')
            return
        if found is None:
            raise FileExistsError(f'{path}: there already, and no simulated drive; want another '
                                  'folder to write (--out)')
        shutil.rmtree(path)
    say(f'simulating {settings.seconds:.0f} s with the {settings.rig} rig')
    # A run that is stopped must not leave what looks like a drive.
    part = path.with_name('unfinished')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    write_drive(part / path.name, settings, progress=Progress('rendering', 'camera sets'))
    (part / path.name).rename(path)
    part.rmdir()


def say(text: str) -> None:
    """Say what happens now."""
    print(f'demo: {text}', file=sys.stderr, flush=True)
