"""
Distillation: a student is trained as ever, and held to what a teacher says of the same data.

*frame*: the student's maps, through a projection, are held to the teacher's maps of the frame, and
what it sees in them (centres, ground) to what the teacher sees.
*window*: its states, through a projection, and all its outputs are held to the teacher's:
occupancy, flow, ground, centres, and agents, mode by mode. The teacher was asked ahead
(`wm_ros.train.answers`).

No gradient reaches the teacher, and nothing of it is written into the student's checkpoints.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wm_ros.model.config import ModelConfig
from wm_ros.model.world_model import WorldModel
from wm_ros.train.answers import DENSE, answer_all, answer_store
from wm_ros.train.config import Settings
from wm_ros.train.loop import load_model
from wm_ros.train.mapped import mapped
from wm_ros.train.match import current_gaps, map_gap, output_gaps
from wm_ros.train.pipeline import frame_stage, window_seeds, window_stage
from wm_ros.train.plan import plan_stage
from wm_ros.train.stages import AGENT_OUTPUTS, FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore
from wm_ros.train.targets import window_sample

#: Answers are handed to the training step under these names.
PREFIX = 'teacher_'


@dataclass(frozen=True)
class DistillSettings:
    """How much the teacher counts beside the truth, for each kind of loss."""

    map_weight: float = 1.0
    state_weight: float = 1.0
    output_weight: float = 1.0


class FrameDistiller(FrameTrainer):
    """Stage one under a teacher."""

    def __init__(self, config: ModelConfig, teacher: WorldModel, settings: DistillSettings):
        super().__init__(config)
        self.settings = settings
        self.project_memory = same_at_first(nn.Conv2d(
            config.memory_channels, teacher.config.memory_channels, 1))
        self.project_skip = same_at_first(nn.Conv2d(
            config.skip_channels, teacher.config.skip_channels, 1))
        self._teacher = [teacher.eval().requires_grad_(False)]   # in a list: not a submodule

    @property
    def teacher(self) -> WorldModel:
        return self._teacher[0]

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        self.teacher._apply(fn, recurse)    # it follows to every device
        return super()._apply(fn, recurse)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of frames, those against the teacher among them."""
        given = batch['images'], batch['index'], batch['weight']
        with torch.no_grad():
            memory_wanted, skip_wanted = self.teacher.encode(*given)
            wanted = self.current(skip_wanted, self.teacher)
        memory, skip = self.model.encode(*given)
        current = self.current(skip)
        maps, seen = self.settings.map_weight, self.settings.output_weight
        return {'like_memory': maps * map_gap(self.project_memory(memory), memory_wanted),
                'like_skip': maps * map_gap(self.project_skip(skip), skip_wanted),
                **{f'like_{name}': seen * gap
                   for name, gap in current_gaps(current, wanted).items()},
                **self.losses_of(memory, skip, batch, current)}


class WindowDistiller(WindowTrainer):
    """Stage two under a teacher, whose answers come with the batch."""

    def __init__(self, model: WorldModel, teacher: ModelConfig, settings: DistillSettings):
        super().__init__(model)
        self.settings = settings
        self.project = same_at_first(nn.Linear(model.config.dim, teacher.dim))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of windows, those against the teacher among them."""
        outputs = self.outputs(batch)
        want = {name: batch[PREFIX + name] for name in (*DENSE, *AGENT_OUTPUTS)}
        want |= {name: want[name][:, outputs['steps']] for name in ('occupancy', 'flow')}
        gaps = {f'like_{name}': self.settings.output_weight * value
                for name, value in output_gaps(outputs, want, batch).items()}
        states = map_gap(self.project(outputs['states']), want['states'])
        return {**gaps, 'like_states': self.settings.state_weight * states,
                **self.losses_of(outputs, batch)}


def same_at_first(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Return a projection that begins as the identity, as far as its sizes go."""
    nn.init.zeros_(layer.bias)
    weight = layer.weight.data.flatten(1)
    weight.copy_(torch.eye(*weight.shape))
    return layer


class AnsweredStore(ClipStore):
    """A student's window clips of whose drives a teacher has answered the windows."""

    def __init__(self, folder: Path, answers: ClipStore):
        super().__init__(folder)
        self.answers = answers

    def paths(self) -> list[Path]:
        """Return the student's clips that are answered."""
        answered = {path.name for path in self.answers.paths()}
        return [path for path in super().paths() if path.name in answered]

    def read(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return one clip, drawn at random, and under `answers` where its answers lie."""
        path = self.draw(rng)
        return {**mapped(path), 'answers': self.answers.folder / path.name}


def answered_sample(clip: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw one window of a clip as `window_sample` does, with the teacher's answers."""
    sample = window_sample(clip, rng)
    i = int(sample['window'])
    answers = mapped(clip['answers'])
    if not np.array_equal(clip['poses'], answers['poses']):
        raise ValueError(f'{clip["answers"]}: want the drive of the student, got other poses')
    return {**sample, **{PREFIX + name: answers[f'{name}_{i}']
                         for name in (*DENSE, *AGENT_OUTPUTS)}}


def frame_distill(folder: Path, teacher: Path, settings: Settings,
                  weights: DistillSettings) -> Path:
    """Train stage one of a student under a teacher's run; return the checkpoint."""
    return frame_stage(folder, settings, functools.partial(
        FrameDistiller, teacher=load_model(teacher / 'frame_model.safetensors'),
        settings=weights))


def window_distill(folder: Path, teacher: Path, settings: Settings,
                   weights: DistillSettings) -> Path:
    """
    Ask the teacher, then train stage two of a student under it; return the checkpoint.

    Raises ValueError where the teacher has encoded too few of the student's drives.
    """
    answers = answer(teacher, settings)
    config = load_model(teacher / 'model.safetensors').config
    return window_stage(folder, settings, functools.partial(
        WindowDistiller, teacher=config, settings=weights),
        functools.partial(AnsweredStore, answers=answers), answered_sample)


def answer(teacher: Path, settings: Settings) -> ClipStore:
    """
    Ask a teacher about the drives of a student's settings, where that is not done.

    Of several processes nobody asks: that is for a call before them.
    """
    if not (teacher / 'model.safetensors').is_file():
        raise ValueError(f"{teacher}: no model.safetensors; want the folder of a teacher's "
                         'finished run')
    if 'WORLD_SIZE' in os.environ:
        return answer_store(teacher)
    seeds = window_seeds(settings)
    windows = ClipStore(teacher / 'windows')
    theirs = sum(windows.path(seed).exists() for seed in seeds)
    if theirs < min(8, len(seeds)):
        raise ValueError(f'{windows.folder}: {theirs} of the drives {seeds.start} to '
                         f'{seeds.stop} are encoded, want 8 at least: train both with one --seed')
    return answer_all(teacher, seeds, settings.device, settings.workers)


def distill(folder: Path, teacher: Path, settings: Settings, weights: DistillSettings) -> Path:
    """Train a student under the model of a teacher's run, all stages; return its checkpoint."""
    answer(teacher, settings)
    frame_distill(folder, teacher, settings, weights)
    window_distill(folder, teacher, settings, weights)
    return plan_stage(folder, settings)
