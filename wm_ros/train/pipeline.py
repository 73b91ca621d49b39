"""
The whole run: render, learn single frames, encode streams, learn time, learn to read the plan.

Everything lies in one folder: `frames/`, `drives/` and `windows/` with clips, checkpoints and
loss curves, and stage one's encoder, by which workers encode the streams of stage two. Each part
is taken up where it stopped.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from wm_ros.model.config import PRESETS, ModelConfig
from wm_ros.model.teacher import Teacher
from wm_ros.model.world_model import WorldModel
from wm_ros.sim.seeds import TRAIN_END
from wm_ros.train.config import RUNS, Settings
from wm_ros.train.encode import (
    calibration_frames,
    calibration_windows,
    drive_setup,
    frame_setup,
    window_setup,
    write_encoder,
)
from wm_ros.train.grow import MORE, grown
from wm_ros.train.loop import Schedule, fit, load_model, save_model, step_reached
from wm_ros.train.mirror import maybe_mirrored
from wm_ros.train.parallel import World, joined
from wm_ros.train.plan import plan_stage
from wm_ros.train.stages import Batches, FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore, complete, produce
from wm_ros.train.targets import frame_sample
from wm_ros.train.warm import load_heads, load_start, restore_norms
from wm_ros.types import FEATURE_GRID, WINDOW_FRAMES

__all__ = ['RUNS', 'Settings', 'calibration_frames', 'calibration_windows', 'encode',
           'frame_stage', 'render', 'train', 'window_stage']


def train(folder: Path, settings: Settings) -> Path:
    """Run all stages; return the checkpoint of the last."""
    frame_stage(folder, settings)
    window_stage(folder, settings)
    return plan_stage(folder, settings)


def begin(folder: Path, settings: Settings, world: World, stage: str) -> None:
    """Fix the seed and leave the settings beside what they made, a stage."""
    folder.mkdir(parents=True, exist_ok=True)
    if world.rank == 0:
        path = folder / 'settings.json'
        stages = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**stages, stage: asdict(settings)}, indent=1) + '\n')
        for name in ('frames', 'drives') if settings.clips else ():
            shared = (Path(settings.clips) / name).resolve()
            if shared.exists() and not (folder / name).exists():
                (folder / name).symlink_to(shared)
    world.wait()
    torch.manual_seed(settings.seed + world.rank)
    torch.set_float32_matmul_precision('high')


def render(folder: Path, settings: Settings) -> Path:
    """Render the clips of both stages ahead, frames first; return the folder."""
    begin(folder, settings, World(), 'render')
    for name, setup, seeds in (('frames', frame_setup, frame_seeds(settings)),
                               ('drives', drive_setup, window_seeds(settings))):
        complete(ClipStore(folder / name), setup, seeds, settings.workers, name)
    return folder


def encode(folder: Path, settings: Settings) -> Path:
    """Encode the streams of stage two ahead, with stage one's encoder; return their folder."""
    begin(folder, settings, World(), 'encode')
    store = ClipStore(folder / 'windows')
    setup = functools.partial(window_setup, write_encoder(folder, settings.encode),
                              folder / 'drives', settings.device)
    complete(store, setup, window_seeds(settings), settings.workers, 'windows')
    return store.folder


def frame_stage(folder: Path, settings: Settings,
                make: Callable[[ModelConfig], FrameTrainer] = FrameTrainer) -> Path:
    """Learn single frames while workers render; return the checkpoint."""
    path = folder / 'frame_model.safetensors'
    with joined(settings.device) as world:
        begin(folder, settings, world, 'frame')
        store = ClipStore(folder / 'frames')
        trainer = make(PRESETS[settings.preset])
        with workers(store, frame_setup, frame_seeds(settings), settings, world):
            store.wait(min(8, settings.frame_clips))
            if settings.start and not (folder / 'frame.safetensors').exists():
                trainer.model = started(settings, folder)
                load_heads(trainer, Path(settings.start), 'frame')
            learn(trainer, store, frame_sample,
                  settings.frame_batch, settings, folder, 'frame', world)
        if world.rank == 0:
            save_model(for_stage_two(trainer.model, settings, folder), path, {'stage': 'frame'})
        world.wait()
    return path


def for_stage_two(model: WorldModel, settings: Settings, folder: Path) -> WorldModel:
    """
    Return what stage two begins with: the model of stage one.

    Where its start has been through stage two, only encoder and lift are stage one's, and all else
    is the start's: a decoder that learns on single frames forgets what it knew of time.
    """
    start = Path(settings.start) if settings.start else None
    if start is None or not ((start / 'window.safetensors').is_file()
                             or (start / 'manifest.json').is_file()):
        return model
    whole = started(settings, folder)
    whole.encoder.load_state_dict(model.encoder.state_dict())
    whole.lift.load_state_dict(model.lift.state_dict())
    return whole


def window_stage(folder: Path, settings: Settings,
                 make: Callable[[WorldModel], WindowTrainer] = WindowTrainer,
                 store_at: Callable[[Path], ClipStore] = ClipStore,
                 sample: Callable | None = None) -> Path:
    """
    Encode streams with stage one's encoder, learn time on them; return the checkpoint.

    `sample` draws a window of a clip; by default some of them in a mirror.
    """
    sample = sample or functools.partial(maybe_mirrored, share=settings.mirrored)
    path = folder / 'model.safetensors'
    with joined(settings.device) as world:
        begin(folder, settings, world, 'window')
        if settings.start and world.rank == 0 and not (folder / 'frame.safetensors').exists():
            adopt(folder, settings)
        world.wait()
        store = store_at(folder / 'windows')
        if world.rank == 0:
            write_encoder(folder, settings.encode)
        world.wait()
        setup = functools.partial(window_setup, write_encoder(folder, settings.encode),
                                  folder / 'drives', str(world.device(settings.device)))
        trainer = make(load_model(folder / 'frame_model.safetensors'))
        if settings.start:
            load_heads(trainer, Path(settings.start), 'window')
        with workers(store, setup, window_seeds(settings), settings, world):
            store.wait(min(8, settings.window_clips))
            learn(trainer, store, sample,
                  settings.window_batch, settings, folder, 'window', world)
        if world.rank == 0:
            save_model(trainer.model, path, {'stage': 'window'})
        world.wait()
    return path


def learn(trainer: nn.Module, store: ClipStore, sample: Callable, batch: int, settings: Settings,
          folder: Path, stage: str, world: World) -> None:
    """Fit a stage's trainer on batches of a store, in mixed precision."""
    device = world.device(settings.device)
    trainer.to(device, memory_format=torch.channels_last)
    # No draw comes twice in a run of several calls, or of several processes.
    seed = (settings.seed, ('frame', 'window').index(stage), world.rank,
            step_reached(folder, stage))
    batches = Batches(store, sample, batch, device, seed, settings.loaders)
    spread = world.spread(trainer)

    def step(progress: float) -> dict[str, torch.Tensor]:
        trainer.train()
        if isinstance(trainer.model, Teacher):
            whole = progress >= 1.0 - settings.whole_share
            trainer.model.dense_frames = WINDOW_FRAMES if whole else settings.dense_frames
        with torch.autocast(device.type, torch.bfloat16):
            return spread(batches.take())

    fit(trainer, step, schedule_of(settings, stage), folder, stage, world=world)


def started(settings: Settings, folder: Path) -> WorldModel:
    """Return the model to start from, grown to the preset, in float and with its norms back."""
    model = load_start(Path(settings.start))
    config = PRESETS[settings.preset]
    if model.config != config:
        model = grown(model, config)

    def run() -> None:
        for batch in calibration_frames(folder):
            _, skip = model.encode(batch['images'], batch['index'], batch['weight'])
            rows, cols = FEATURE_GRID.shape
            model.decoder.current(skip, skip.new_zeros(len(skip), model.config.decoder_channels,
                                                       rows, cols))
    restore_norms(model, run)
    return model


def adopt(folder: Path, settings: Settings) -> None:
    """
    Take stage one from the run to start from, if it is not there: its model and its streams.

    A model that has grown encodes as the one that it began as. Raises ValueError where the start is
    no run's folder with streams.
    """
    path, source = folder / 'frame_model.safetensors', Path(settings.start).resolve()
    if path.exists():
        return
    if not (source / 'windows').is_dir():
        raise ValueError(f'{source}: stage two alone wants a run with encoded streams to start '
                         'from, got no windows/ there')
    model = started(settings, folder)
    before = load_start(source).config
    same = replace(before, **{name: getattr(model.config, name) for name in MORE}) == model.config
    for name in ('windows', *(('encoder', 'frame.safetensors') if same else ())):
        if (source / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to(source / name)
    save_model(model, path, {'stage': 'frame'})


def schedule_of(settings: Settings, stage: str) -> Schedule:
    """Return the schedule of a stage: by minutes, since machines differ."""
    minutes = {'frame': settings.frame_minutes, 'window': settings.window_minutes}[stage]
    return Schedule(steps=settings.steps, minutes=minutes, call_minutes=settings.call_minutes,
                    rate=settings.rate if stage == 'frame' else settings.rate * 0.5,
                    optimiser=settings.optimiser)


def frame_seeds(settings: Settings) -> range:
    """Return the training seeds of frame clips."""
    return seeds_of(settings, settings.frame_clips)


def window_seeds(settings: Settings) -> range:
    """Return the training seeds of drives for windows: others than the frames'."""
    return seeds_of(settings, settings.window_clips, first=TRAIN_END // 2)


def seeds_of(settings: Settings, count: int, first: int = 0) -> range:
    """Return training seeds; other runs use other drives."""
    start = first + settings.seed * 50_000 % (TRAIN_END // 2)
    if start + count > TRAIN_END:
        raise ValueError(f'want seeds under {TRAIN_END}, got {start} to {start + count}')
    return range(start, start + count)


@contextmanager
def workers(store: ClipStore, setup, seeds: range, settings: Settings,
            world: World) -> Iterator[None]:
    """Render in worker processes while the block runs; hosts share the seeds out."""
    count = settings.workers if world.local_rank == 0 else 0
    started = produce(store.folder, setup, seeds[world.host::world.hosts], count, nice=10)
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join()
