"""
Make an INT8 model of a training run: calibrate, then tune under fake quantisation.

Reads `model.safetensors`, `frame.safetensors` and the clips of a run's folder and writes
`quantized.safetensors` there, which `wm_ros export` takes. The FP32 model is the teacher. The
same command takes a run up where it stopped, and begins anew for another model.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.config import RUNS_FILE
    from wm_ros.train.quantize import QuantizeSettings

    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='of the training run (default: work/train)')
    parser.add_argument('--run', default='cpu', help='settings to start from (default: cpu)')
    parser.add_argument('--config', type=Path, default=RUNS_FILE, metavar='FILE',
                        help='of runs (default: the one that ships)')
    parser.add_argument('--post-training', action='store_true',
                        help='calibrate only, and write post_training.safetensors')
    parser.add_argument('--threads', type=int, default=0, help='of torch (default: its own)')
    for item in fields(QuantizeSettings):
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=None,
                            type=type(item.default),
                            help=f"overrides the run's (default: {item.default})")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from wm_ros.train.config import load_settings
    from wm_ros.train.quantize import QuantizeSettings, post_training, quantize

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.post_training:
        print(post_training(arguments.folder))
        return 0
    given = {item.name: getattr(arguments, item.name) for item in fields(QuantizeSettings)
             if getattr(arguments, item.name) is not None}
    print(quantize(arguments.folder, load_settings(arguments.run, 'quantize', QuantizeSettings,
                                                   given, arguments.config)))
    return 0
