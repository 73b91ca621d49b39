"""
Write the artifact that the node runs: three INT8 and FP16 ONNX graphs with a manifest.

`--weights` says which of a run's weights: `quantized` of `wm_ros quantize` (the default where they
are there), `post-training`, which are calibrated and no more, or `float`, in FP32 throughout, to
compare the others with. `--choices` are the numbers that `wm_ros evaluate --choose` found for these
weights on validation drives, and with others they are refused; without them scores mean what they
say and occupancy is the dense head's alone. With `--from` an artifact keeps its graphs, and its
choices unless others are given. `--frames` writes future camera frames that were learnt on the
artifact `--from`; beside it, as ARTIFACT-frames, is where they are looked for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm_ros.choices import Choices
    from wm_ros.runtime.artifact import Artifact

WEIGHTS = ('quantized', 'post-training', 'float')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('out', metavar='OUT', type=Path, help='folder of the artifact')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--folder', type=Path, default=Path('work/train'),
                        help='of the training run (default: work/train)')
    source.add_argument('--from', dest='artifact', type=Path, metavar='ARTIFACT',
                        help='take the graphs of this artifact instead of a training run')
    parser.add_argument('--weights', choices=WEIGHTS,
                        help='of the training run (default: quantized where they are there, else '
                             'post-training)')
    parser.add_argument('--choices', type=Path, metavar='FILE',
                        help='of `wm_ros evaluate --choose FILE`')
    parser.add_argument('--frames', type=Path, metavar='CHECKPOINT',
                        help='frames.safetensors of `wm_ros train --stage frames`')


def run(arguments: argparse.Namespace) -> int:
    if arguments.frames is not None:
        return _frames(arguments)
    from wm_ros.choices import Choices, read_choices

    found = None if arguments.choices is None else read_choices(arguments.choices)
    if arguments.artifact is not None:
        return _from_artifact(arguments, found)
    from wm_ros.export.artifact import write_artifact
    from wm_ros.runtime.artifact import load_artifact, rewrite
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
    model, notes = load_model(path), {**training_notes(folder, weights), 'chosen_on': {}}
    if found is None:
        print(write_artifact(model, arguments.out, Choices(), notes))
        return 0
    # Which weights these are is known once they are exported; what is in OUT stays until then.
    with tempfile.TemporaryDirectory() as neutral:
        write_artifact(model, Path(neutral), Choices(), notes)
        artifact = load_artifact(neutral)
        refuse_other_weights(arguments.choices, found[1], artifact,
                             hashlib.sha256(path.read_bytes()).hexdigest())
        print(rewrite(artifact, arguments.out, _changes(artifact, found)))
    return 0


def refuse_other_weights(path: Path, chosen_on: dict[str, Any], artifact: Artifact,
                         checkpoint: str = '') -> None:
    """
    Raise ValueError where choices were made on other weights than an artifact's.

    The same are those of an equal `weights_hash`, whatever the manifests say: float, post-training
    and quantised weights of one run are three. In a file that does not tell it, the artifact itself
    or the `checkpoint` (SHA-256) that it is exported from.
    """
    from wm_ros.runtime.frames import weights_hash

    told, wanted = chosen_on.get('weights'), {weights_hash(artifact)}
    if told is None:
        told, wanted = chosen_on.get('model_hash'), {artifact.hash, checkpoint}
    if not told or told not in wanted:
        raise ValueError(f'{path}: chosen on other weights ({str(told)[:12]}, here '
                         f'{", ".join(sorted(one[:12] for one in wanted if one))}); choose anew: '
                         'wm_ros evaluate --choose')


def _changes(artifact: Artifact, found: tuple[Choices, dict[str, Any]]) -> dict[str, Any]:
    """Return what choices change in an artifact's manifest."""
    choices, chosen_on = found
    return {**choices.to_json(),
            'training': {**artifact.manifest['training'], 'chosen_on': chosen_on}}


def _from_artifact(arguments: argparse.Namespace,
                   found: tuple[Choices, dict[str, Any]] | None) -> int:
    """Write an artifact anew, with other choices where they are given."""
    from wm_ros.runtime.artifact import load_artifact, rewrite

    if arguments.weights is not None:
        raise ValueError('--weights: of a training run, want --folder with it')
    artifact = load_artifact(arguments.artifact)
    if found is not None:
        refuse_other_weights(arguments.choices, found[1], artifact)
    print(rewrite(artifact, arguments.out, _changes(artifact, found) if found else {}))
    return 0


def _frames(arguments: argparse.Namespace) -> int:
    """Write the future camera frames of an artifact."""
    from wm_ros.export.frames import write_frames
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.frames import weights_hash
    from wm_ros.train.frames import learnt_on, load_decoder
    from wm_ros.train.loop import notes_of

    if arguments.artifact is None:
        raise ValueError('--frames: want --from ARTIFACT, the one that they were learnt on')
    artifact, path = load_artifact(arguments.artifact), arguments.frames
    if learnt_on(path) != weights_hash(artifact):
        raise ValueError(f'{path}: learnt on weights {learnt_on(path)[:12]}, want those of '
                         f'{artifact.path}, {weights_hash(artifact)[:12]}')
    notes = notes_of(path)
    print(write_frames(artifact, load_decoder(path), arguments.out,
                       {'steps': int(notes['step']), 'seconds': float(notes['elapsed_s'])}))
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
    if (folder / 'plan.safetensors').is_file():
        stages.append('plan')
    reached = {stage: notes_of(folder / f'{stage}.safetensors') for stage in stages}
    return {'settings': settings, 'weights': weights,
            **{stage: {'steps': int(notes['step']), 'seconds': float(notes['elapsed_s'])}
               for stage, notes in reached.items()}}
