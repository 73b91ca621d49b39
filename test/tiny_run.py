"""The folder of a training run as the commands after training want it: tiny, never trained."""

import numpy as np
import torch
from truths import make_truth

from wm_ros.model.config import PRESETS
from wm_ros.train.clips import truth_arrays
from wm_ros.train.loop import save_model
from wm_ros.train.stages import FrameTrainer
from wm_ros.train.store import ClipStore

#: Of the first window clip of a run whose own seed is 0.
WINDOW_SEED = 400_000


def truths(rng, count):
    """Return arrays of `count` truths of six road users each, as a clip holds them."""
    arrays = {}
    for i in range(count):
        poses = np.column_stack([rng.uniform(-35, 35, (6, 2)), rng.uniform(-3, 3, 6)])
        truth = make_truth(poses, velocities=rng.normal(0, 4, (6, 2)))
        arrays.update({f'{key}_{i}': value for key, value in truth_arrays(truth).items()})
    return arrays


def frame_clip(seed):
    """Return a frame clip of two frames of one camera that sees the ground in smooth noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (2, 1, 8, 20, 3), dtype=np.uint8)
    return {'images': coarse.repeat(20, 2).repeat(20, 3),
            'index': rng.integers(0, 1000, (25600, 4)).astype(np.uint16),
            'weight': rng.random((25600, 4)).astype(np.float16) / 2, **truths(rng, 2)}


def window_clip(seed, config):
    """Return a window clip of one window of random features."""
    rng = np.random.default_rng(seed)
    side = (80, 80)
    return {'memory': rng.integers(0, 90, (16, config.memory_channels, *side), dtype=np.uint8),
            'skip': rng.integers(0, 90, (1, config.skip_channels, *side), dtype=np.uint8),
            'poses': np.cumsum(np.full((16, 3), [0.5, 0.0, 0.01]), 0), 'ends': np.array([15]),
            'plans': rng.normal(0, 2, (1, 6, 3)).astype(np.float32),
            'motion': np.array([[5.0, 0.1]], np.float32), **truths(rng, 1)}


def make_run(folder, clips=3, seed=0, preset='tiny'):
    """Write clips, `frame.safetensors` and `model.safetensors` into `folder`."""
    torch.manual_seed(seed)
    trainer = FrameTrainer(PRESETS[preset]).train()
    with torch.no_grad():   # a graph would keep equal weights, such as those of norms, only once
        for parameter in trainer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    frames, windows = ClipStore(folder / 'frames'), ClipStore(folder / 'windows')
    for i in range(clips):
        clip = frame_clip(i)
        frames.write(i, clip)
        windows.write(WINDOW_SEED + i, window_clip(i, trainer.config))
        given = [torch.from_numpy(clip[key].astype(kind)) for key, kind in
                 (('images', np.uint8), ('index', np.int64), ('weight', np.float32))]
        with torch.no_grad():   # batch norms see what they will see
            trainer.model.encode(given[0], given[1].expand(2, -1, -1), given[2].expand(2, -1, -1))
    notes = {'step': '1', 'elapsed_s': '1.0'}
    for name in ('frame', 'window'):
        save_model(trainer, folder / f'{name}.safetensors', notes)
    for name in ('frame_model', 'model'):
        save_model(trainer.model, folder / f'{name}.safetensors', {'stage': name})
    (folder / 'settings.json').write_text('{"window": {"preset": "tiny", "call_minutes": 1.0}}')
    return folder
