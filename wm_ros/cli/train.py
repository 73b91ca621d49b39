"""
Train a model on simulated drives: single frames first, then time.

One folder holds everything, and the same command takes a run up where it stopped. `--run` names
an overlay of settings: `cpu` for two cores, `cuda` for one accelerator, `rehearsal` to see that
it all works in a minute.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.pipeline import RUNS, Settings

    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='clips, checkpoints, curves (default: work/train)')
    parser.add_argument('--run', choices=tuple(RUNS), default='cpu', help='settings to start from')
    parser.add_argument('--stage', choices=('all', 'frame', 'window'), default='all')
    parser.add_argument('--threads', type=int, default=0, help='of torch (default: its own)')
    for item in fields(Settings):
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=None,
                            type={'str': str, 'int': int, 'float': float}[item.type],
                            help=f"overrides the run's ({item.default} for cpu)")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from wm_ros.train.pipeline import RUNS, Settings, frame_stage, train, window_stage

    given = {item.name: getattr(arguments, item.name) for item in fields(Settings)
             if getattr(arguments, item.name) is not None}
    settings = replace(RUNS[arguments.run], **given)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    stage = {'all': train, 'frame': frame_stage, 'window': window_stage}[arguments.stage]
    print(stage(arguments.folder, settings))
    return 0
