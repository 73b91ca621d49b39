"""
Write a bag of a KITTI raw drive: pictures, CameraInfo, odometry, transforms and the labels.

DIR holds image_02/*.png, ego_local.csv and tracks.csv; the calibration of the day lies in it, or
beside it in kitti_labels_calib/raw_calib_<day>, or where --calibration says.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from wm_ros.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('drive', metavar='DIR', type=Path, help='folder of the drive')
    parser.add_argument('out', metavar='OUT_BAG', type=Path, help='folder of the bag to write')
    parser.add_argument('--calibration', type=Path, metavar='DIR',
                        help='folder with calib_cam_to_cam.txt and its two companions')
    parser.add_argument('--rig-file', type=Path, metavar='FILE',
                        help='write the rig there as well, for the node')
    parser.add_argument('--storage', default='mcap', choices=('mcap', 'sqlite3'))
    parser.add_argument('--force', action='store_true', help='overwrite a bag that exists')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.kitti import load_drive
    from wm_ros.data.kitti_bag import write_bag
    from wm_ros.rig import rig_to_yaml

    drive = load_drive(arguments.drive, arguments.calibration)
    if arguments.force and (arguments.out / 'metadata.yaml').is_file():
        shutil.rmtree(arguments.out)
    pictures = write_bag(arguments.out, drive, arguments.storage,
                         Progress('writing', 'pictures'))
    if arguments.rig_file:
        arguments.rig_file.write_text(rig_to_yaml(drive.rig), encoding='utf-8')
    labels = sum(len(track.stamps_ns) for track in drive.tracks)
    print(f'{arguments.out}: {pictures} pictures, {len(drive.tracks)} tracks with {labels} labels')
    return 0
