"""
Write a bag of a KITTI drive: pictures, CameraInfo, odometry, transforms and the labels.

DIR is a drive of the raw data (image_02/data, oxts, tracklet_labels.xml, with the calibration of
the day beside or above it), a sequence of the tracking data (training/image_02/0000), or a folder
with image_02/*.png, ego_local.csv and tracks.csv. --lidar-check holds forecasts of the drive (a bag
that `wm_ros replay` wrote) against the drive's lidar, and writes no bag.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError
from wm_ros.data.replacing import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('drive', metavar='DIR', type=Path, help='folder of the drive')
    parser.add_argument('out', metavar='OUT_BAG', type=Path, nargs='?',
                        help='folder of the bag to write')
    parser.add_argument('--lidar-check', metavar='FORECASTS', type=Path,
                        help='bag of forecasts to hold against the lidar')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write that result there')
    parser.add_argument('--calibration', type=Path, metavar='DIR',
                        help='folder with calib_cam_to_cam.txt and its two companions')
    parser.add_argument('--rig-file', type=Path, metavar='FILE',
                        help='write the rig there as well, for the node')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--force', action='store_true', help='overwrite a bag that exists')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.kitti_bag import write_bag
    from wm_ros.data.kitti_layouts import load_any as load_drive
    from wm_ros.rig import rig_to_yaml

    if arguments.out is None and arguments.lidar_check is None:
        raise UsageError('want OUT_BAG to write, or --lidar-check FORECASTS')
    drive = load_drive(arguments.drive, arguments.calibration)
    if arguments.lidar_check:
        return _lidar_check(drive, arguments)
    with replacing(arguments.out, arguments.force):
        pictures = write_bag(arguments.out, drive, arguments.storage,
                             Progress('writing', 'pictures'))
    if arguments.rig_file:
        arguments.rig_file.write_text(rig_to_yaml(drive.rig), encoding='utf-8')
    labels = sum(len(track.stamps_ns) for track in drive.tracks)
    print(f'{arguments.out}: {pictures} pictures, {len(drive.tracks)} tracks with {labels} labels')
    return 0


def _lidar_check(drive: Any, arguments: argparse.Namespace) -> int:
    """Print which of the cells that the lidar hit, and of bare ones, were called occupied."""
    from wm_ros.data.bag import BagReader
    from wm_ros.evaluate.lidar import STEP_S, STEPS, against_lidar
    from wm_ros.evaluate.recorded import forecasts_in

    if not drive.sweeps:
        raise ValueError(f'{arguments.drive}: no lidar; want a sweep for each picture')
    with BagReader(arguments.lidar_check) as reader:
        report = against_lidar(
            forecasts_in(reader), np.array([ego.stamp_ns for ego in drive.egos]),
            np.array([ego.odom_from_base for ego in drive.egos]), drive.points).report()
    print(f'{report["windows"]} valid windows; called occupied (agents, static or undrivable):\n'
          f'{"seconds ahead":<26}{"of cells hit":>14}{"of bare ground":>16}')
    for k, step in enumerate(STEPS):
        shares = [report[key][f'{step * STEP_S:g}'] for key in (
            'hit_called_occupied', 'bare_called_occupied')]
        text = [f'{100 * share:.1f} %' if share is not None else '-' for share in shares]
        print(f'{step * STEP_S:<26g}{text[0]:>14}{text[1]:>16}   '
              f'({report["hit_cells"][k]} and {report["bare_cells"][k]} cells)')
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    return 0
