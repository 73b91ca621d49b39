"""
Train a model on simulated drives: single frames first, then time, then the ego plan.

One folder holds everything, and the same command takes a run up where it stopped; with
`--call-minutes` it stops early and leaves the rest to the next call. `--run` names an overlay of
settings, those that ship are in wm_ros/train/runs.yaml. On several accelerators or hosts:
`torchrun --nproc-per-node N -m -- wm_ros.cli.main train ...`, all in one (shared) folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wm_ros.cli.settings import add_fields, add_run, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.config import Settings

    add_run(parser)
    parser.add_argument('--stage', choices=('all', 'render', 'frame', 'encode', 'window', 'plan',
                                             'frames'),
                        default='all', help='frames: future camera frames, on the artifact of '
                        '--start, which stays as it is (default: all but that)')
    parser.add_argument('--pack', type=Path, metavar='OUT',
                        help='train nothing: write the checkpoints of the folder to OUT in half '
                             'precision, in files of at most 16 MiB')
    parser.add_argument('--unpack', type=Path, metavar='IN',
                        help='train nothing: bring what --pack wrote back into the folder')
    add_fields(parser, Settings)


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.train.config import Settings
    from wm_ros.train.frames import frames_stage
    from wm_ros.train.pipeline import (
        encode,
        frame_stage,
        plan_stage,
        render,
        train,
        window_stage,
    )
    from wm_ros.train.shards import pack, unpack

    if arguments.pack or arguments.unpack:
        done = (pack(arguments.folder, arguments.pack) if arguments.pack
                else unpack(arguments.unpack, arguments.folder))
        print(*done, sep='\n')
        return 0
    settings = settings_of(arguments, 'train', Settings)
    stage = {'all': train, 'render': render, 'frame': frame_stage, 'encode': encode,
             'window': window_stage, 'plan': plan_stage, 'frames': frames_stage}[arguments.stage]
    print(stage(arguments.folder, settings))
    return 0
