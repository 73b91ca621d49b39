"""Flags of the commands that train: one for each field of their settings, over a named run."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

T = TypeVar('T')


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a run, and torch's threads."""
    from wm_ros.train.config import RUNS_FILE, run_names

    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='of the run (default: work/train)')
    parser.add_argument('--run', default='cpu',
                        help=f'settings to start from: {", ".join(run_names())} (default: cpu)')
    parser.add_argument('--config', type=Path, default=RUNS_FILE, metavar='FILE',
                        help='of runs (default: the one that ships, wm_ros/train/runs.yaml)')
    parser.add_argument('--threads', type=int, default=0, help='of torch (default: its own)')


def add_fields(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add a flag for each field of a dataclass of settings."""
    for item in fields(kind):
        default = item.default if item.default != '' else 'none'
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=None,
                            type=type(item.default),
                            help=f"overrides the run's (default of runs: {default})")


def settings_of(arguments: argparse.Namespace, section: str, kind: type[T]) -> T:
    """Return the settings of a section: the run's, with what was given over them."""
    import torch

    from wm_ros.train.config import load_settings

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = {item.name: getattr(arguments, item.name) for item in fields(kind)
             if getattr(arguments, item.name) is not None}
    return load_settings(arguments.run, section, kind, given, arguments.config)
