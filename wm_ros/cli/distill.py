"""
Train a student under a teacher: as `wm_ros train`, with losses against the teacher's beside.

`--teacher` is the folder of a teacher's finished run (`wm_ros train --run teacher`) with the same
seed. The student gets a folder of its own, beside that of one trained alone; rendered clips are
shared by `--clips`, and both go on from the same weights by `--start`. The teacher is asked ahead
about every window of its run (`--stage answer` does that alone); under torchrun, before it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wm_ros.cli.settings import add_fields, add_run, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.config import Settings
    from wm_ros.train.distill import DistillSettings

    add_run(parser)
    parser.add_argument('--stage', choices=('all', 'answer', 'frame', 'window'), default='all')
    parser.add_argument('--teacher', type=Path, required=True, metavar='FOLDER',
                        help="of the teacher's run")
    add_fields(parser, DistillSettings)
    add_fields(parser, Settings)


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.train.config import Settings
    from wm_ros.train.distill import (
        DistillSettings,
        answer,
        distill,
        frame_distill,
        window_distill,
    )

    settings = settings_of(arguments, 'train', Settings)
    if arguments.stage == 'answer':
        print(answer(arguments.teacher, settings).folder)
        return 0
    stage = {'all': distill, 'frame': frame_distill, 'window': window_distill}[arguments.stage]
    print(stage(arguments.folder, arguments.teacher, settings,
                settings_of(arguments, 'distill', DistillSettings)))
    return 0
