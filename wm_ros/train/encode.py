"""
Streams for stage two: what encodes rendered drives into cached maps, once.

`openvino` runs the exported encoder in INT8, as a vehicle will, so what learns time learns it on
the features that it will get. `torch` runs the same fake-quantised encoder on any device; a
teacher's, which is never deployed, stays in float.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from wm_ros.choices import Choices
from wm_ros.export.artifact import calibrate_encoder, write_artifact
from wm_ros.model.quant import fold_batch_norms
from wm_ros.train.clips import FEATURE_STEP
from wm_ros.train.loop import load_model, save_model
from wm_ros.train.samples import Encode, drive_clip, frame_clip, window_clip
from wm_ros.train.store import ClipStore, Make
from wm_ros.train.targets import collate, frame_sample, window_sample


def calibration_frames(folder: Path, batches: int = 24) -> Iterator[dict[str, torch.Tensor]]:
    """Draw frames of the run for calibration."""
    store, rng = ClipStore(folder / 'frames'), np.random.default_rng(7)
    for _ in range(batches):
        yield collate([frame_sample(store.read(rng), rng) for _ in range(4)],
                      torch.device('cpu'))


def calibration_windows(folder: Path, batches: int = 16) -> Iterator[dict[str, torch.Tensor]]:
    """Draw windows of the run for calibration."""
    store, rng = ClipStore(folder / 'windows'), np.random.default_rng(8)
    for _ in range(batches):
        yield collate([window_sample(store.read(rng), rng) for _ in range(2)],
                      torch.device('cpu'))


def encoder_path(folder: Path, encode: str) -> Path:
    """Return where `write_encoder` leaves stage one's encoder."""
    names = {'openvino': 'encoder', 'torch': 'encoder.safetensors'}
    if encode not in names:
        raise ValueError(f'encode: {encode!r}; want {" or ".join(names)}')
    return folder / names[encode]


def write_encoder(folder: Path, encode: str) -> Path:
    """Write stage one for encoding streams, if it is not there: an artifact or a checkpoint."""
    path = encoder_path(folder, encode)
    if path.exists():
        return path
    model = load_model(folder / 'frame_model.safetensors')
    if model.config.teacher and encode != 'torch':
        raise ValueError('a teacher is not exported; want --encode torch')
    if model.config.teacher:
        fold_batch_norms(model)
    else:
        calibrate_encoder(model, calibration_frames(folder))
    if encode == 'torch':
        fold_batch_norms(model)     # the decoder's too: a checkpoint has all norms or none
        save_model(model, path, {'stage': 'frame'})
    else:
        # Cached maps are stored in 255 steps; a scale that cuts the top off would be silent.
        write_artifact(model, path, Choices(),
                       {'stage': 'frame', 'memory_high': 255 * FEATURE_STEP})
    return path


def frame_setup() -> Make:
    """Return the function by which a worker makes a frame clip."""
    return frame_clip


def drive_setup() -> Make:
    """Return the function by which a worker renders a drive clip."""
    return drive_clip


def window_setup(encoder: Path, drives: Path, device: str) -> Make:
    """Return the function by which a worker makes a window clip, rendered ahead or here."""
    encode = torch_encoder(encoder, device) if encoder.is_file() else artifact_encoder(encoder)
    store = ClipStore(drives)

    def make(seed: int) -> dict[str, np.ndarray]:
        path = store.path(seed)
        if not path.exists():
            return window_clip(drive_clip(seed), encode)
        with np.load(path) as clip:
            return window_clip(dict(clip), encode)
    return make


def artifact_encoder(path: Path) -> Encode:
    """Return the encoder of an artifact as a function, on one thread, for any rig."""
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.backend import create_backend
    artifact = load_artifact(path)

    @functools.cache
    def backend(cameras: int):
        return create_backend('openvino', artifact, cameras=cameras, plans=1, threads=1)

    def encode(images: np.ndarray, index: np.ndarray, weight: np.ndarray):
        out = backend(len(images)).run('encode', {'images': images, 'lift_index': index,
                                                  'lift_weight': weight})
        return out['memory'], out['skip']
    return encode


def torch_encoder(path: Path, device: str) -> Encode:
    """Return the encoder of a checkpoint as a function, on one thread where it is a CPU's."""
    if device == 'cpu':
        torch.set_num_threads(1)
    model = load_model(path).eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(images: np.ndarray, index: np.ndarray, weight: np.ndarray):
        given = (torch.from_numpy(images), torch.from_numpy(index).long(),
                 torch.from_numpy(weight))
        # In bfloat16 as it was trained, but not what stands for INT8: a rounded value would move.
        with torch.autocast(device.split(':')[0], torch.bfloat16, enabled=model.config.teacher):
            memory, skip = model.encode(*(tensor[None].to(device) for tensor in given))
        return memory[0].float().cpu().numpy(), skip[0].float().cpu().numpy()
    return encode
