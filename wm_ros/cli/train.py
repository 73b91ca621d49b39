"""
Train a model on simulated drives: single frames first, then time.

One folder holds everything, and the same command takes a run up where it stopped; with
`--call-minutes` it stops early and leaves the rest to the next call. `--run` names an overlay of
settings, those that ship are in wm_ros/train/runs.yaml. On several accelerators or hosts:
`torchrun --nproc-per-node N -m wm_ros.cli.main train ...`, all in one (shared) folder.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.config import RUNS_FILE, Settings

    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='clips, checkpoints, curves.svg (default: work/train)')
    parser.add_argument('--run', default='cpu', help='settings to start from (default: cpu)')
    parser.add_argument('--config', type=Path, default=RUNS_FILE, metavar='FILE',
                        help='of runs (default: the one that ships)')
    parser.add_argument('--stage', choices=('all', 'render', 'frame', 'window'), default='all')
    parser.add_argument('--threads', type=int, default=0, help='of torch (default: its own)')
    parser.add_argument('--pack', type=Path, metavar='OUT',
                        help='train nothing: write the checkpoints of the folder to OUT in half '
                             'precision, in files of at most 16 MiB')
    parser.add_argument('--unpack', type=Path, metavar='IN',
                        help='train nothing: bring what --pack wrote back into the folder')
    for item in fields(Settings):
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=None,
                            type=type(item.default),
                            help=f"overrides the run's (default: {item.default or 'none'})")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from wm_ros.train.config import Settings, load_settings
    from wm_ros.train.pipeline import frame_stage, render, train, window_stage
    from wm_ros.train.shards import pack, unpack

    if arguments.pack or arguments.unpack:
        done = (pack(arguments.folder, arguments.pack) if arguments.pack
                else unpack(arguments.unpack, arguments.folder))
        print(*done, sep='\n')
        return 0
    given = {item.name: getattr(arguments, item.name) for item in fields(Settings)
             if getattr(arguments, item.name) is not None}
    settings = load_settings(arguments.run, 'train', Settings, given, arguments.config)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    stage = {'all': train, 'render': render, 'frame': frame_stage,
             'window': window_stage}[arguments.stage]
    print(stage(arguments.folder, settings))
    return 0
