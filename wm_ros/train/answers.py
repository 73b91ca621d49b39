"""
What a teacher says of the windows of its run, worked out once and kept beside them.

A window takes a teacher longer than a student's training step on it, and a student sees each
window many times, so the answers are cached: states, dense outputs, and agents at the cells of the
true ones, in half precision (3 MB a window). The teacher is asked with all frames and with
odometry, also where the student will have to do without.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from wm_ros.train.loop import load_model
from wm_ros.train.stages import AGENT_OUTPUTS, WindowTrainer
from wm_ros.train.store import ClipStore, Make, complete
from wm_ros.train.targets import collate, window_sample

#: What is kept of a window beside its agents.
DENSE = ('states', 'occupancy', 'flow', 'road', 'observed', 'centre')


def answer_store(teacher: Path) -> ClipStore:
    """Return where the answers of a run's model lie: another model's lie elsewhere."""
    path = teacher / 'model.safetensors'
    return ClipStore(teacher / 'answers' / hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def answer_all(teacher: Path, seeds: range, device: str, workers: int) -> ClipStore:
    """Ask the model of a teacher's run about those windows that it has not answered yet."""
    store, windows = answer_store(teacher), ClipStore(teacher / 'windows')
    setup = functools.partial(answer_setup, teacher, device, threads=1 if workers else 0)
    complete(store, setup, [seed for seed in seeds if windows.path(seed).exists()], workers,
             'answers')
    return store


def answer_setup(teacher: Path, device: str, threads: int = 0) -> Make:
    """Return the function by which a worker answers a window clip, by its seed."""
    if threads:
        torch.set_num_threads(threads)
    trainer = WindowTrainer(load_model(teacher / 'model.safetensors')).eval().to(device)
    windows = ClipStore(teacher / 'windows')

    def make(seed: int) -> dict[str, np.ndarray]:
        with np.load(windows.path(seed)) as file:
            clip = dict(file)
        out = {'poses': clip['poses']}
        for i in range(len(clip['ends'])):
            out.update({f'{name}_{i}': value for name, value in
                        answer(trainer, only(clip, i), torch.device(device)).items()})
        return out
    return make


@torch.inference_mode()
def answer(trainer: WindowTrainer, clip: dict[str, np.ndarray],
           device: torch.device) -> dict[str, np.ndarray]:
    """Return the outputs for the one window of a clip, nothing of it missing."""
    batch = collate([window_sample(clip, np.random.default_rng(0))], device)
    for name in ('frame_mask', 'odometry_mask'):
        batch[name] = torch.ones_like(batch[name])
    with torch.autocast(device.type, torch.bfloat16):
        out = trainer.outputs(batch)
    rows = batch['agents'].shape[1]
    out = {name: out[name][0, :rows] if name in AGENT_OUTPUTS else out[name][0]
           for name in (*DENSE, *AGENT_OUTPUTS)}
    return {name: value.cpu().float().numpy().astype(np.float16) for name, value in out.items()}


def only(clip: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    """Return a window clip with its window `i` alone."""
    kept = {key: clip[key][i:i + 1] for key in ('ends', 'plans', 'motion', 'skip')}
    truth = {key.replace(f'_{i}', '_0'): value for key, value in clip.items()
             if key.endswith(f'_{i}')}
    return {'memory': clip['memory'], 'poses': clip['poses'], **kept, **truth}
