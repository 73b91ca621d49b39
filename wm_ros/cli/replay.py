"""
Run the model over a bag, as fast as the machine can, and write what the node would have published.

The bag holds Image or CompressedImage topics, CameraInfo and, where it is known, Odometry and
/tf_static; a rig file stands in for calibration. Topics are guessed; --dry-run shows how, and
--camera, --odometry or a mapping file say otherwise. The same bag gives the same forecasts. Where
BAG is a folder of bags, all of them are replayed, --jobs beside each other.

Exit codes: 0 done; 1 nothing could be done; 2 wrong usage; 3 done, but the bag has faults, which
are named on stderr (cut short, stamps that go back, a topic that stops, messages that cannot be
used), or no forecast is valid; 4 the disk became full: what was written can be read, and --resume
goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from wm_ros.cli.progress import Progress

FAULTS = 3
DISK_FULL = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', metavar='BAG', type=Path,
                        help='rosbag2 folder, .mcap or .db3, or a folder of such')
    parser.add_argument('--out', type=Path, help='bag to write; for a folder of bags, the folder '
                        'for theirs')
    parser.add_argument('--resume', action='store_true',
                        help='go on where an earlier replay into --out was stopped')
    parser.add_argument('--force', action='store_true', help='begin anew where --out exists')
    parser.add_argument('--dry-run', action='store_true',
                        help='print what was found in the bag, and run nothing')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    parser.add_argument('--copy-inputs', action='store_true',
                        help="write the bag's own messages beside the forecasts")
    parser.add_argument('--no-flow', action='store_true', help='leave the large flow topic out')
    parser.add_argument('--start', type=float, default=0.0, metavar='S',
                        help='begin so many seconds into the bag')
    parser.add_argument('--seconds', type=float, default=0.0, metavar='S',
                        help='end so many seconds later (default: at the end)')

    model = parser.add_argument_group('model')
    model.add_argument('--artifact', type=Path, help='folder of the model (default: the one '
                       'that is installed)')
    model.add_argument('--backend', default='auto', help='inference library (default: auto)')
    model.add_argument('--threads', type=int, default=2, help='of the library (default: 2)')
    model.add_argument('--jobs', type=int, default=1, metavar='N',
                       help='bags of a folder at a time, which share the threads (default: 1)')
    model.add_argument('--node', default='/world_model',
                       help='name under which topics are written (default: /world_model)')

    topics = parser.add_argument_group('topics')
    topics.add_argument('--map', type=Path, metavar='FILE',
                        help='mapping file (YAML): topics, rates, rig; see docs/replay.md')
    topics.add_argument('--camera', action='append', default=[], metavar='NAME=TOPIC',
                        help='images of a camera; may be given several times')
    topics.add_argument('--info', action='append', default=[], metavar='NAME=TOPIC',
                        help='CameraInfo of a camera given with --camera')
    topics.add_argument('--cameras', nargs='+', metavar='NAME',
                        help="cameras to use, in the model's order")
    topics.add_argument('--max-hz', type=float, metavar='HZ',
                        help='take at most so many pictures a second of each camera that is '
                        'mapped (default: all; the window takes what it needs)')
    topics.add_argument('--odometry', metavar='TOPIC', help="odometry, or 'none'")
    topics.add_argument('--ego-plan', metavar='TOPIC', help="the ego vehicle's plans, or 'none'")
    topics.add_argument('--base-frame', metavar='FRAME', help='of the vehicle (default: base_link)')
    topics.add_argument('--stamps', choices=('header', 'receive'),
                        help='what the time of a message is (default: header)')
    topics.add_argument('--tolerance-ms', type=float, metavar='MS',
                        help='how far the stamps of one set may lie apart (default: 25)')
    topics.add_argument('--rig', type=Path, help="rig file, instead of the bag's CameraInfo and "
                        '/tf_static')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.bag_files import is_bag
    from wm_ros.replay_job import replay_bag

    settings = settings_of(arguments)
    several = arguments.bag.is_dir() and not is_bag(arguments.bag)
    if arguments.dry_run:
        return _describe(bags_in(arguments.bag) if several else [arguments.bag], settings,
                         arguments.json)
    if arguments.out is None:
        print('wm_ros replay: want --out BAG (or --dry-run)', file=sys.stderr)
        return 2
    if several:
        return _replay_all(arguments, settings)
    progress = Progress('replay', 's of the bag')
    result = replay_bag(arguments.bag, arguments.out, settings, arguments.resume, arguments.force,
                        progress)
    return _tell(result, arguments.json)


def settings_of(arguments: argparse.Namespace) -> Any:
    """Return the settings that the options stand for; raise MappingError for what does not fit."""
    from dataclasses import replace

    from wm_ros.data.bag_topics import Mapping, load_mapping, overlaid, pairs
    from wm_ros.replay_job import Settings
    from wm_ros.share import share_path

    mapping = load_mapping(arguments.map) if arguments.map else Mapping()
    odometry, plan = ('' if topic == 'none' else topic
                      for topic in (arguments.odometry, arguments.ego_plan))
    mapping = overlaid(mapping, pairs(arguments.camera, '--camera'),
                       pairs(arguments.info, '--info'),
                       odometry=odometry, ego_plan=plan, base_frame=arguments.base_frame,
                       stamps=arguments.stamps, tolerance_ms=arguments.tolerance_ms)
    if arguments.max_hz is not None:
        if not mapping.cameras:
            raise ValueError('--max-hz: want the cameras mapped (--camera NAME=TOPIC, or --map)')
        mapping = replace(mapping, cameras={
            name: replace(camera, max_hz=arguments.max_hz)
            for name, camera in mapping.cameras.items()})
    return Settings(
        artifact=arguments.artifact or share_path('models', 'world-model'),
        backend=arguments.backend, threads=arguments.threads, mapping=mapping, rig=arguments.rig,
        cameras=tuple(arguments.cameras or ()), node=arguments.node.rstrip('/'),
        flow=not arguments.no_flow, copy_inputs=arguments.copy_inputs, start_s=arguments.start,
        seconds=arguments.seconds)


def bags_in(folder: Path) -> list[Path]:
    """Return the bags in a folder, by name; raise ValueError where there is none."""
    from wm_ros.data.bag_files import is_bag

    found = sorted(path for path in folder.iterdir() if is_bag(path))
    if not found:
        raise ValueError(f'{folder}: no bag in it; want a rosbag2 folder, .mcap or .db3 files')
    return found


def _replay_all(arguments: argparse.Namespace, settings: Any) -> int:
    """Replay every bag of a folder; one that cannot be replayed does not end the others."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from dataclasses import replace

    from wm_ros.data.bag_files import name_of
    from wm_ros.replay_job import replay_bag

    bags = bags_in(arguments.bag)
    jobs = max(1, min(arguments.jobs, len(bags)))
    settings = replace(settings, threads=max(1, settings.threads // jobs))
    arguments.out.mkdir(parents=True, exist_ok=True)
    progress, codes = Progress('replay', 'bags'), []
    # Spawned, not forked: an inference library's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context('spawn')) as pool:
        futures = {pool.submit(replay_bag, bag, arguments.out / name_of(bag), settings,
                               arguments.resume, arguments.force): bag for bag in bags}
        for done, future in enumerate(as_completed(futures), 1):
            progress(done, len(bags))
            try:
                codes.append(_tell(future.result(), arguments.json))
            except (OSError, ValueError, RuntimeError) as err:
                print(f'wm_ros replay: {" ".join(str(err).split())}', file=sys.stderr)
                codes.append(1)
    if all(code == 1 for code in codes):
        return 1
    # Of several, the worst that is not a total loss: a script looks at stderr for the rest.
    return max(FAULTS if code == 1 else code for code in codes)


def _tell(result: Any, as_json: bool) -> int:
    """Print how a replay went; return the exit code."""
    counts = result.counts
    for line in result.faults:
        print(f'wm_ros replay: {line}', file=sys.stderr)
    if as_json:
        print(json.dumps(result.report()))
    else:
        known = f' ({result.resumed} of them were there)' if result.resumed else ''
        print(f'{result.out}: {counts.forecasts + result.resumed} forecasts{known}, '
              f'{counts.valid} of the new ones valid, {counts.partial_sets} of incomplete sets; '
              f'{result.seconds:.1f} s, {result.times_real_time} times real time')
    if not result.finished:
        print(f'wm_ros replay: {result.error}; make room and go on with --resume',
              file=sys.stderr)
        return DISK_FULL
    if not counts.valid and not result.resumed_valid:
        print(f'wm_ros replay: {result.out}: no valid forecast', file=sys.stderr)
        return FAULTS
    return FAULTS if result.faults else 0


def _describe(bags: list[Path], settings: Any, as_json: bool) -> int:
    """Print what was found in each bag; return 1 where one of them cannot be replayed."""
    from wm_ros.data.bag import BagReader
    from wm_ros.data.bag_describe import describe, lines
    from wm_ros.replay_job import open_rig

    code = 0
    for bag in bags:
        with BagReader(bag, settings.mapping) as reader:
            found = describe(reader)
            try:
                found['rig'] = list(open_rig(reader, settings).names)
            except (RuntimeError, ValueError) as err:
                found['lacks'] = ' '.join(str(err).split())
                code = 1
        print(json.dumps(found) if as_json else '\n'.join(lines(found)))
    return code
