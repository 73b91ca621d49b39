"""A tiny artifact, never trained, with future camera frames beside it."""

import torch
from tiny_run import make_run

from wm_ros.choices import Choices
from wm_ros.cli.main import main
from wm_ros.export.artifact import write_artifact
from wm_ros.model.config import PRESETS
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.frames import find_frames, frames_path, weights_hash
from wm_ros.train.frames import FramesTrainer
from wm_ros.train.loop import load_model, save_model

#: Exporting one takes seconds: a session needs it once.
_made = []


def frames_artifact(tmp_path_factory):
    """Return it, made when first asked for; its decoder is fresh: it moves the newest picture."""
    if not _made:
        _made.append(_make(tmp_path_factory))
    return _made[0]


def _make(tmp_path_factory):
    folder = tmp_path_factory.mktemp('frames')
    make_run(folder / 'run', clips=1)
    path = folder / 'model'
    write_artifact(load_model(folder / 'run' / 'model.safetensors'), path, Choices(), {})
    artifact = load_artifact(path)
    assert find_frames(artifact) is None
    torch.manual_seed(0)
    checkpoint = folder / 'frames.safetensors'
    save_model(FramesTrainer(PRESETS['tiny'], weights_hash(artifact)), checkpoint,
               {'step': '3', 'elapsed_s': '1.5'})
    assert main(['export', str(frames_path(path)), '--from', str(path), '--frames',
                 str(checkpoint)]) == 0
    return artifact
