"""Write the artifact that the node runs: three INT8 and FP16 ONNX graphs with a manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', metavar='OUT', type=Path, help='folder of the artifact')
    parser.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='of the training run (default: work/train)')
    parser.add_argument('--score-threshold', type=float, default=0.3,
                        help='chosen on validation seeds by `wm_ros evaluate --choose-threshold`')
    parser.add_argument('--observed-threshold', type=float, default=0.0,
                        help='logit above which ground counts as observed (default: 0)')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.export.artifact import calibrate_dynamics, calibrate_encoder, write_artifact
    from wm_ros.train.loop import load_model, notes_of
    from wm_ros.train.pipeline import calibration_frames, calibration_windows

    folder = arguments.folder
    model = load_model(folder / 'model.safetensors')
    calibrate_encoder(model, calibration_frames(folder))
    calibrate_dynamics(model, calibration_windows(folder))
    settings = json.loads((folder / 'settings.json').read_text())
    del settings['call_minutes']    # how a run was cut into calls; infinite is no JSON either
    reached = {stage: notes_of(folder / f'{stage}.safetensors') for stage in ('frame', 'window')}
    training = {'settings': settings,
                **{stage: {'steps': int(notes['step']), 'seconds': float(notes['elapsed_s'])}
                   for stage, notes in reached.items()}}
    print(write_artifact(model, arguments.out, arguments.score_threshold,
                         arguments.observed_threshold, training))
    return 0
