"""
The stage of future camera frames: a small decoder learns on a frozen artifact.

`futures/` keeps rendered clips, which need no weights; `scenes-<weights>/` what the artifact makes
of them, so that another artifact only has to encode again.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.export.weights import load_artifact_model
from wm_ros.frames import ViewGeometry
from wm_ros.model.config import ModelConfig
from wm_ros.model.frames import FrameDecoder, map_channels, scene_maps
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import Backend, create_backend
from wm_ros.runtime.frames import weights_hash
from wm_ros.sim.seeds import TRAIN_END
from wm_ros.train.config import Settings
from wm_ros.train.future import RATE_HZ, future_clip, rig_of, scene
from wm_ros.train.loop import Schedule, fit, step_reached, tensors_of
from wm_ros.train.parallel import joined
from wm_ros.train.pipeline import begin, seeds_of, workers
from wm_ros.train.stages import Batches
from wm_ros.train.store import ClipStore, Make
from wm_ros.types import HORIZON_STEPS, WINDOW_FRAMES

#: Views of one scene in a batch.
VIEWS = 4
#: How much one minus structural similarity counts beside the mean difference.
STRUCTURE = 0.2
STAGE = 'frames'


class FramesTrainer(nn.Module):
    """The decoder of future frames, with the hash of the frozen weights that it learns on."""

    def __init__(self, config: ModelConfig, weights: str):
        super().__init__()
        self.frames = FrameDecoder(map_channels(config))
        self.register_buffer('weights', torch.tensor(list(bytes.fromhex(weights)),
                                                     dtype=torch.uint8))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of scenes (B) with V views each."""
        view = {key: value.flatten(0, 1) for key, value in batch.items()}
        picture, _, sketch = self.frames.draw(view['maps'].float(), view['drift'].float(),
                                              view['pose'], view)
        target = view['target'].permute(0, 3, 1, 2).float() / 255.0
        return {'difference': (picture - target).abs().mean(),
                'structure': STRUCTURE * (1.0 - similarity(picture, target).mean()),
                'sketch': (sketch - F.avg_pool2d(target, 2)).abs().mean()}


def similarity(a: torch.Tensor, b: torch.Tensor, window: int = 3) -> torch.Tensor:
    """
    Return the structural similarity of pictures (M, 3, H, W) of values 0-1, a value a window.

    Wang et al. 2004, with plain windows; `wm_ros.evaluate.pictures` has the Gaussian ones.
    """
    def mean(t: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(t, window, 1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a ** 2, mean(b * b) - mean_b ** 2
    cov = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01 ** 2, 0.03 ** 2
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)
            / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2)))


def scene_sample(stored: dict[str, np.ndarray], rng: np.random.Generator,
                 views: int = VIEWS) -> dict[str, np.ndarray]:
    """Draw views of a scene: any camera, any step, what the camera will show there."""
    cameras = rng.integers(len(stored['k']), size=views)
    steps = rng.integers(1, HORIZON_STEPS + 1, size=views)
    return view_sample(stored, cameras, steps)


def view_sample(stored: dict[str, np.ndarray], cameras: np.ndarray,
                steps: np.ndarray) -> dict[str, np.ndarray]:
    """Return views (V,) of a scene with what the cameras will show there, `target`."""
    geometry = ViewGeometry(rig_of(stored))
    return {'maps': stored['maps'][steps - 1], 'drift': stored['drift'][steps - 1],
            'pose': stored['plan'][steps - 1], 'target': stored['later'][steps - 1, cameras],
            **geometry.arrays(list(zip(cameras, steps, strict=True)), stored['plan'],
                              stored['now'], [True] * len(geometry.rig))}


def frames_stage(folder: Path, settings: Settings) -> Path:
    """Learn future frames on the artifact `settings.start`; return the checkpoint."""
    if not settings.start:
        raise ValueError('--stage frames: want --start ARTIFACT, whose weights it learns on')
    path = folder / f'{STAGE}.safetensors'
    artifact = load_artifact(settings.start)
    weights = weights_hash(artifact)
    with joined(settings.device) as world:
        begin(folder, settings, world, STAGE)
        device = world.device(settings.device)
        config = ModelConfig.from_dict(dict(artifact.manifest['model']))
        trainer = FramesTrainer(config, weights).to(device)
        if path.exists() and learnt_on(path) != weights:
            raise ValueError(f'{path}: learnt on other weights than those of {settings.start}; '
                             'want another --folder, and --frames-start to begin from it')
        if settings.frames_start and not path.exists():
            trainer.frames.load_state_dict(load_decoder(Path(settings.frames_start)))
        store = ClipStore(folder / f'scenes-{weights[:12]}')
        setup = functools.partial(scene_setup, Path(settings.start),
                                  Path(settings.clips or folder) / 'futures')
        with workers(store, setup, future_seeds(settings), settings, world):
            store.wait(min(8, settings.frames_clips))
            seed = (settings.seed, 2, world.rank, step_reached(folder, STAGE))
            batches = Batches(store, scene_sample, settings.frames_batch, device, seed,
                              settings.loaders)
            spread = world.spread(trainer)

            def step(_: int) -> dict[str, torch.Tensor]:
                with torch.autocast(device.type, torch.bfloat16):
                    return spread(batches.take())

            schedule = Schedule(steps=settings.steps, minutes=settings.frames_minutes,
                                call_minutes=settings.call_minutes, rate=settings.rate, warmup=50)
            fit(trainer, step, schedule, folder, STAGE, world=world)
        world.wait()
    return path


def learnt_on(path: Path) -> str:
    """
    Return the hash of the weights on which a checkpoint of this stage was learnt.

    Raises ValueError for another checkpoint.
    """
    stored = tensors_of(path)
    if 'weights' not in stored:
        raise ValueError(f'{path}: want a checkpoint of `wm_ros train --stage frames`, got one '
                         f'with {", ".join(sorted(stored)[:3]) or "nothing"}')
    return bytes(stored['weights'].tolist()).hex()


def load_decoder(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the `FrameDecoder` in a checkpoint of this stage."""
    start = 'frames.'
    return {name.removeprefix(start): value for name, value in tensors_of(path).items()
            if name.startswith(start)}


def future_seeds(settings: Settings) -> range:
    """Return the training seeds of future clips: others than the windows'."""
    return seeds_of(settings, settings.frames_clips, first=TRAIN_END // 2 + 25_000)


def scene_setup(path: Path, futures: Path) -> Make:
    """Return the function by which a worker renders a clip, once, and makes its scene."""
    torch.set_num_threads(1)
    artifact, clips = load_artifact(path), ClipStore(futures)
    model = load_artifact_model(artifact)

    @functools.cache
    def backend(cameras: int) -> Backend:
        return create_backend('auto', artifact, cameras=cameras, plans=1, threads=1)

    def make(seed: int) -> dict[str, np.ndarray]:
        if not clips.path(seed).exists():
            clips.write(seed, future_clip(seed))
        with np.load(clips.path(seed)) as stored:
            clip = dict(stored)
        loaded = backend(clip['jpeg_bytes'].shape[1])

        def encode(images: np.ndarray, index: np.ndarray,
                   weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            out = loaded.run('encode', {'images': images, 'lift_index': index,
                                        'lift_weight': weight})
            return out['memory'], out['skip']

        @torch.inference_mode()
        def roll(memory: np.ndarray, now_from_frame: np.ndarray, skip: np.ndarray,
                 plan: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            known = np.ones(1, np.float32)
            folded = loaded.run('fold', {
                'memory': memory, 'now_from_frame': now_from_frame,
                'age_s': np.arange(WINDOW_FRAMES - 1, -1, -1, dtype=np.float32) / RATE_HZ,
                'frame_mask': np.ones(WINDOW_FRAMES, np.float32),
                'odometry_mask': known})
            given = (torch.from_numpy(value)[None] for value in (
                folded['latent'], skip + folded['past'], plan, motion, known))
            return tuple(out[0].numpy() for out in scene_maps(model, *given))

        return scene(clip, encode, roll)
    return make
