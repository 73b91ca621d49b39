"""A tiny artifact, never trained, with future camera frames beside it."""

import functools

import torch
from tiny_run import make_run

from wm_ros.choices import Choices
from wm_ros.export.artifact import write_artifact
from wm_ros.export.frames import write_frames
from wm_ros.model.config import PRESETS
from wm_ros.model.frames import FrameDecoder, map_channels
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.frames import find_frames, frames_path
from wm_ros.train.loop import load_model


@functools.cache        # exporting it takes seconds: once a session
def frames_artifact(tmp_path_factory):
    """Write it and return it; its decoder is a fresh one, which moves the newest picture."""
    folder = tmp_path_factory.mktemp('frames')
    make_run(folder / 'run', clips=1)
    path = folder / 'model'
    write_artifact(load_model(folder / 'run' / 'model.safetensors'), path, Choices(), {})
    artifact = load_artifact(path)
    assert find_frames(artifact) is None
    torch.manual_seed(0)
    decoder = FrameDecoder(map_channels(PRESETS['tiny']))
    write_frames(artifact, decoder.state_dict(), frames_path(path), {'steps': 1})
    return artifact
