"""
Write the artifact that the node runs: three INT8 and FP16 ONNX graphs with a manifest.

`--weights` says which of a run's weights: `quantized` of `wm_ros quantize` (the default where they
are there), `post-training`, which are calibrated and no more, or `float`, in FP32 throughout, to
compare the others with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WEIGHTS = ('quantized', 'post-training', 'float')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', metavar='OUT', type=Path, help='folder of the artifact')
    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='of the training run (default: work/train)')
    parser.add_argument('--weights', choices=WEIGHTS,
                        help='(default: quantized where they are there, else post-training)')
    parser.add_argument('--score-threshold', type=float, default=0.3,
                        help='chosen on validation seeds by `wm_ros evaluate --choose-threshold`')
    parser.add_argument('--spread', type=float, nargs=6, metavar='S', default=[1.0] * 6,
                        help='factors of the standard deviations of waypoints, a step: chosen so '
                             'that `covariance_coverage` holds on validation seeds')
    parser.add_argument('--observed-threshold', type=float, default=0.0,
                        help='logit above which ground counts as observed (default: 0)')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.export.artifact import write_artifact
    from wm_ros.train.loop import load_model
    from wm_ros.train.quantize import QUANTIZED, post_training, up_to_date

    folder = arguments.folder
    weights = arguments.weights
    if weights is None:
        weights = 'quantized' if up_to_date(folder / QUANTIZED) else 'post-training'
    if weights == 'float':
        path = folder / 'model.safetensors'
    elif weights == 'quantized':
        path = folder / QUANTIZED
        if path.exists() and not up_to_date(path):
            raise ValueError(f'{path}: made of another model.safetensors; run `wm_ros quantize`')
    else:
        path = post_training(folder)
    model = load_model(path)
    model.agents.scale_spread(arguments.spread)
    print(write_artifact(model, arguments.out, arguments.score_threshold,
                         arguments.observed_threshold,
                         {**training_notes(folder, weights), 'spread': arguments.spread}))
    return 0


def training_notes(folder: Path, weights: str) -> dict[str, Any]:
    """Return what a manifest says of the training run in `folder`."""
    from wm_ros.train.loop import notes_of

    settings = json.loads((folder / 'settings.json').read_text())
    for stage in settings.values():
        del stage['call_minutes']   # how a run was cut into calls; infinite is no JSON either
    stages = ['frame', 'window']
    if weights == 'quantized':
        stages += ['quantize_encoder', 'quantize_dynamics']
    reached = {stage: notes_of(folder / f'{stage}.safetensors') for stage in stages}
    return {'settings': settings, 'weights': weights,
            **{stage: {'steps': int(notes['step']), 'seconds': float(notes['elapsed_s'])}
               for stage, notes in reached.items()}}
