"""
The whole run: render, learn single frames, encode streams, learn time.

Everything lies in one folder: `frames/` and `windows/` with clips, checkpoints and loss curves,
and `encoder/`, the artifact of stage one, by which workers encode the streams of stage two. Each
part is taken up where it stopped.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wm_ros.export.artifact import calibrate_encoder, write_artifact
from wm_ros.export.weights import load_artifact_model
from wm_ros.model.config import PRESETS
from wm_ros.model.world_model import WorldModel
from wm_ros.sim.seeds import TRAIN_END
from wm_ros.train.clips import FEATURE_STEP
from wm_ros.train.loop import Schedule, fit, load_model, save_model
from wm_ros.train.samples import Encode, drive_clip, frame_clip, window_clip
from wm_ros.train.stages import Batches, FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore, Make, produce
from wm_ros.train.targets import collate, frame_sample, window_sample
from wm_ros.train.warm import restore_norms, switch_off_quantizers
from wm_ros.types import FEATURE_GRID


@dataclass(frozen=True)
class Settings:
    """One run; `overlays` of it are in `RUNS`. Clips are drives, of training seeds alone."""

    preset: str = 'small'
    seed: int = 0
    workers: int = 2
    frame_clips: int = 6000
    frame_batch: int = 6
    frame_minutes: float = 45.0
    window_clips: int = 1000
    window_batch: int = 6
    window_minutes: float = 45.0
    call_minutes: float = float('inf')
    rate: float = 2e-3
    device: str = 'cpu'
    start: str = ''                 # an artifact to go on from, else from nothing


RUNS = {
    'cpu': Settings(),
    'cuda': Settings(preset='base', workers=15, frame_clips=40_000, frame_batch=64,
                     frame_minutes=10.0, window_clips=8000, window_batch=48,
                     window_minutes=18.0, device='cuda'),
    'rehearsal': Settings(preset='tiny', frame_clips=4, frame_batch=2, frame_minutes=0.2,
                          window_clips=3, window_batch=2, window_minutes=0.2, workers=1),
}


def train(folder: Path, settings: Settings) -> Path:
    """Run both stages; return the checkpoint of the last."""
    frame_stage(folder, settings)
    return window_stage(folder, settings)


def begin(folder: Path, settings: Settings) -> None:
    """Fix the seed and leave the settings beside what they made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'settings.json').write_text(json.dumps(asdict(settings), indent=1) + '\n')
    torch.manual_seed(settings.seed)


def frame_stage(folder: Path, settings: Settings) -> Path:
    """Learn single frames while workers render; return the checkpoint."""
    begin(folder, settings)
    store = ClipStore(folder / 'frames')
    device = torch.device(settings.device)
    trainer = FrameTrainer(PRESETS[settings.preset])
    with workers(store, frame_setup, seeds_of(settings, settings.frame_clips), settings):
        store.wait(min(8, settings.frame_clips))
        if settings.start:
            trainer.model = started(settings, folder)
        trainer.to(device, memory_format=torch.channels_last)
        batches = Batches(store, frame_sample, settings.frame_batch, device, settings.seed)
        fit(trainer, step_of(trainer, batches, settings), schedule_of(settings, 'frame'), folder,
            'frame')
    path = folder / 'frame_model.safetensors'
    save_model(trainer.model, path, {'stage': 'frame'})
    return path


def started(settings: Settings, folder: Path) -> WorldModel:
    """Return the model of the artifact to start from, in float and with its norms back."""
    model = load_artifact_model(Path(settings.start))
    if model.config != PRESETS[settings.preset]:
        raise ValueError(f'{settings.start}: {model.config}, want preset {settings.preset}')
    switch_off_quantizers(model)

    def run() -> None:
        for batch in calibration_frames(folder):
            _, skip = model.encode(batch['images'], batch['index'], batch['weight'])
            rows, cols = FEATURE_GRID.shape
            model.decoder.current(skip, skip.new_zeros(len(skip), model.config.decoder_channels,
                                                       rows, cols))
    restore_norms(model, run)
    return model


def window_stage(folder: Path, settings: Settings) -> Path:
    """Encode streams with stage one's encoder, learn time on them; return the checkpoint."""
    begin(folder, settings)
    store = ClipStore(folder / 'windows')
    device = torch.device(settings.device)
    artifact = folder / 'encoder'
    if not (artifact / 'manifest.json').exists():
        export_encoder(folder, artifact)
    setup = functools.partial(window_setup, artifact, folder / 'drives')
    seeds = seeds_of(settings, settings.window_clips, first=TRAIN_END // 2)
    trainer = WindowTrainer(load_model(folder / 'frame_model.safetensors')).to(device)
    with workers(store, setup, seeds, settings):
        store.wait(min(8, settings.window_clips))
        batches = Batches(store, window_sample, settings.window_batch, device, settings.seed + 1)
        fit(trainer, step_of(trainer, batches, settings), schedule_of(settings, 'window'), folder,
            'window')
    path = folder / 'model.safetensors'
    save_model(trainer.model, path, {'stage': 'window'})
    return path


def step_of(trainer: nn.Module, batches: Batches, settings: Settings):
    """Return the function that gives one step's losses, in mixed precision."""
    def step(_: int) -> dict[str, torch.Tensor]:
        trainer.train()
        with torch.autocast(settings.device, torch.bfloat16):
            return trainer(batches.take())
    return step


def schedule_of(settings: Settings, stage: str) -> Schedule:
    """Return the schedule of a stage: by minutes, since machines differ."""
    minutes = {'frame': settings.frame_minutes, 'window': settings.window_minutes}[stage]
    return Schedule(steps=1_000_000, minutes=minutes, call_minutes=settings.call_minutes,
                    rate=settings.rate if stage == 'frame' else settings.rate * 0.5)


def seeds_of(settings: Settings, count: int, first: int = 0) -> range:
    """Return training seeds: windows use other drives than frames, other runs other drives."""
    start = first + settings.seed * 50_000 % (TRAIN_END // 2)
    if start + count > TRAIN_END:
        raise ValueError(f'want seeds under {TRAIN_END}, got {start} to {start + count}')
    return range(start, start + count)


@contextmanager
def workers(store: ClipStore, setup, seeds: range, settings: Settings) -> Iterator[None]:
    """Render in worker processes while the block runs."""
    started = produce(store.folder, setup, seeds, settings.workers, nice=10)
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join()


def frame_setup() -> Make:
    """Return the function by which a worker makes a frame clip."""
    return frame_clip


def drive_setup() -> Make:
    """Return the function by which a worker renders a drive clip."""
    return drive_clip


def window_setup(artifact: Path, drives: Path) -> Make:
    """Return the function by which a worker makes a window clip, rendered ahead or here."""
    encode, store = encoder_of(artifact), ClipStore(drives)

    def make(seed: int) -> dict[str, np.ndarray]:
        path = store.path(seed)
        if not path.exists():
            return window_clip(drive_clip(seed), encode)
        with np.load(path) as clip:
            return window_clip(dict(clip), encode)
    return make


def encoder_of(path: Path) -> Encode:
    """Return the encoder of an artifact as a function, on one thread, for any rig."""
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.backend import create_backend
    artifact, backends = load_artifact(path), {}

    def encode(images: np.ndarray, index: np.ndarray, weight: np.ndarray):
        if len(images) not in backends:
            backends[len(images)] = create_backend('openvino', artifact, cameras=len(images),
                                                   plans=1, threads=1)
        out = backends[len(images)].run('encode', {'images': images, 'lift_index': index,
                                                   'lift_weight': weight})
        return out['memory'], out['skip']
    return encode


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


def export_encoder(folder: Path, artifact: Path) -> None:
    """
    Write stage one as an artifact, of which only the encoder means anything.

    Streams are encoded in INT8, as they will be on the vehicle, so what learns time learns it on
    the features that it will get.
    """
    model = load_model(folder / 'frame_model.safetensors')
    calibrate_encoder(model, calibration_frames(folder))
    # Cached maps are stored in 255 steps; a scale that cuts the top off would be silent.
    high = 255 * FEATURE_STEP
    write_artifact(model, artifact, 0.1, 0.0, {'stage': 'frame', 'memory_high': high})
