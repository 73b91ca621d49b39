"""
Make an INT8 model of a training run: calibrate, then tune under fake quantisation.

Reads `model.safetensors`, `frame.safetensors` and the clips of a run's folder and writes
`quantized.safetensors` there, which `wm_ros export` takes. The FP32 model is the teacher. The
same command takes a run up where it stopped, and begins anew for another model.
"""

from __future__ import annotations

import argparse

from wm_ros.cli.settings import add_fields, add_run, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.train.quantize import QuantizeSettings

    add_run(parser)
    parser.add_argument('--post-training', action='store_true',
                        help='calibrate only, and write post_training.safetensors')
    add_fields(parser, QuantizeSettings)


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.train.quantize import QuantizeSettings, post_training, quantize

    settings = settings_of(arguments, 'quantize', QuantizeSettings)
    if arguments.post_training:
        print(post_training(arguments.folder))
    else:
        print(quantize(arguments.folder, settings))
    return 0
