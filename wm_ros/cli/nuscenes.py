"""
Write a bag of a nuScenes scene: pictures, CameraInfo, odometry, transforms and the labels.

DIR holds the tables (v1.0-mini/*.json or another version) and the samples and sweeps that they
name. Without --scene the scenes are listed; --all writes every one of them into a folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError
from wm_ros.data.replacing import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='DIR', type=Path, help='folder of the data set')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--scene', metavar='NAME', help='scene to write, such as scene-0061')
    which.add_argument('--all', action='store_true', help='write all scenes, each into OUT/NAME')
    parser.add_argument('--out', type=Path, help='bag to write, with --all the folder for bags')
    parser.add_argument('--rig-file', type=Path, metavar='FILE',
                        help='write the rig there as well, for the node (with --scene)')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--force', action='store_true', help='overwrite a bag that exists')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.nuscenes import load_scene, scene_names
    from wm_ros.data.recorded_drive import write_recorded
    from wm_ros.rig import rig_to_yaml

    names = scene_names(arguments.folder)
    if not (arguments.scene or arguments.all):
        print('\n'.join(names))
        return 0
    if arguments.out is None:
        raise UsageError('want --out: where to write')
    if arguments.rig_file and not arguments.scene:
        raise UsageError('--rig-file: of one scene, want --scene; every scene has its own rig')
    for name in names if arguments.all else [arguments.scene]:
        drive = load_scene(arguments.folder, name)
        out = arguments.out / name if arguments.all else arguments.out
        with replacing(out, arguments.force):
            pictures = write_recorded(out, drive, arguments.storage, Progress(name, 'camera sets'))
        if arguments.rig_file:
            arguments.rig_file.write_text(rig_to_yaml(drive.rig), encoding='utf-8')
        labels = sum(len(track.stamps_ns) for track in drive.tracks)
        print(f'{out}: {len(drive)} sets of {len(drive.rig)} cameras, {pictures} pictures, '
              f'{len(drive.tracks)} tracks with {labels} labels')
    return 0
