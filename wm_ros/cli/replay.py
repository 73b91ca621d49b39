"""
Run the model over a bag, as fast as the machine can, and write what the node would have published.

The bag holds Image or CompressedImage topics, CameraInfo and, where it is known, Odometry and
/tf_static; a rig file stands in for calibration. The same bag gives the same forecasts.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from wm_ros.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', metavar='BAG', type=Path, help='rosbag2 folder, .mcap or .db3')
    parser.add_argument('--out', type=Path, required=True, help='bag to write')
    parser.add_argument('--artifact', type=Path, help='folder of the model (default: the one '
                        'that is installed)')
    parser.add_argument('--backend', default='auto', help='inference library (default: auto)')
    parser.add_argument('--threads', type=int, default=2, help='of the library (default: 2)')
    parser.add_argument('--rig', type=Path, help="rig file, instead of the bag's CameraInfo and "
                        '/tf_static')
    parser.add_argument('--cameras', nargs='+', help="cameras to use, in the model's order")
    parser.add_argument('--node', default='/world_model',
                        help='name under which topics are written')
    parser.add_argument('--no-flow', action='store_true', help='leave the large flow topic out')
    parser.add_argument('--dry-run', action='store_true', help='print what was found in the bag')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.bag import BagReader, BagWriter
    from wm_ros.predictor import Predictor
    from wm_ros.replay import ForecastWriter, Replay
    from wm_ros.rig import load_rig
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.backend import create_backend
    from wm_ros.share import share_path
    from wm_ros.types import CameraRig
    from wm_ros.window import FrameBuffer

    with BagReader(arguments.bag) as reader:
        rig = load_rig(arguments.rig) if arguments.rig else reader.rig(cameras=arguments.cameras)
        if arguments.rig and arguments.cameras:
            rig = CameraRig(tuple(rig[name] for name in arguments.cameras), rig.name)
        topics = reader.camera_topics()
        missing = [name for name in rig.names if name not in topics]
        if missing:
            raise ValueError(f'{arguments.bag}: no image topic of {", ".join(missing)}; cameras '
                             f'found: {", ".join(sorted(topics)) or "none"}')
        if arguments.dry_run:
            print(describe(reader, rig))
            return 0
        artifact = load_artifact(arguments.artifact or share_path('models', 'world-model'))
        backend = create_backend(arguments.backend, artifact, len(rig), threads=arguments.threads)
        try:
            predictor = Predictor(artifact, backend, rig)
            replay = Replay(predictor, FrameBuffer(rig.names, deadline_ns=500_000_000),
                            odometry=reader.odometry_topic() is not None)
            expected = max(reader.topics[topics[name].image].count for name in rig.names)
            progress = Progress('replay', 'camera sets')
            start = time.monotonic()
            with BagWriter(arguments.out, compress=True) as writer:
                writer.note('replayed', str(arguments.bag))
                writer.note('cameras', ' '.join(rig.names))
                out = ForecastWriter(writer, arguments.node, flow=not arguments.no_flow)
                for forecast in replay.run(reader.values(rig.names)):
                    out.write(forecast)
                    progress(min(replay.counts.sets, expected - 1), expected)
            progress(expected, expected)
            predictor.close()
        finally:
            backend.close()
        seconds = time.monotonic() - start
        length = (reader.end_ns - reader.start_ns) / 1e9
    result = {'bag': str(arguments.out), **vars(replay.counts), 'seconds': round(seconds, 2),
              'times_real_time': round(length / seconds, 2), 'backend': backend.name}
    print(json.dumps(result) if arguments.json else
          f'{arguments.out}: {result["forecasts"]} forecasts, {result["valid"]} valid, '
          f'{result["partial_sets"]} of incomplete sets; {seconds:.1f} s, '
          f'{result["times_real_time"]} times real time')
    return 0


def describe(reader: object, rig: object) -> str:
    """Return what a replay found in a bag, one line a camera."""
    topics = reader.camera_topics()
    lines = [f'{reader.path}: {(reader.end_ns - reader.start_ns) / 1e9:.1f} s']
    for camera in rig.cameras:
        found = topics[camera.name]
        lines.append(f'  camera {camera.name}: {found.image}, {camera.width}x{camera.height}, '
                     f'{reader.topics[found.image].count} pictures, calibration from '
                     f'{found.info or "the rig file"}')
    lines.append(f'  odometry: {reader.odometry_topic() or "none: the trained mask stands in"}')
    return '\n'.join(lines)
