"""
Train a student under a teacher: as `wm_ros train`, with losses against the teacher's beside.

`--teacher` is the folder of a teacher's finished run (`wm_ros train --run teacher`) with the same
seed. The student gets a folder of its own, beside that of one trained alone; rendered clips are
shared by `--clips`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wm_ros.cli.settings import add_fields, add_run, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.config import Settings
    from wm_ros.train.distill import DistillSettings

    add_run(parser)
    parser.add_argument('--teacher', type=Path, required=True, metavar='FOLDER',
                        help="of the teacher's run")
    add_fields(parser, DistillSettings)
    add_fields(parser, Settings)


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.train.config import Settings
    from wm_ros.train.distill import DistillSettings, distill

    print(distill(arguments.folder, arguments.teacher, settings_of(arguments, 'train', Settings),
                  settings_of(arguments, 'distill', DistillSettings)))
    return 0
