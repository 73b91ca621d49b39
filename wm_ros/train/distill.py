"""
Distillation: a student is trained as ever, and held to what a teacher says of the same data.

*frame*: the student's maps, through a projection, are held to the teacher's maps of the frame.
*window*: its states, through a projection, and all its outputs are held to the teacher's:
occupancy, flow, ground, centres, and agents, mode by mode. The teacher encodes streams with an
encoder of its own, so each window comes with its maps too.

No gradient reaches the teacher, and nothing of it is written into the student's checkpoints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wm_ros.model.config import ModelConfig
from wm_ros.model.world_model import WorldModel
from wm_ros.train.config import Settings
from wm_ros.train.loop import load_model
from wm_ros.train.match import map_gap, output_gaps
from wm_ros.train.pipeline import frame_stage, window_seeds, window_stage
from wm_ros.train.stages import FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore


@dataclass(frozen=True)
class DistillSettings:
    """How much the teacher counts beside the truth, for each kind of loss."""

    map_weight: float = 1.0
    state_weight: float = 1.0
    output_weight: float = 1.0


class _Taught(nn.Module):
    """Holds a frozen teacher that follows to every device but is no part of the module."""

    def teach(self, teacher: nn.Module) -> None:
        self._teacher = [teacher.eval().requires_grad_(False)]   # in a list: not a submodule

    @property
    def teacher(self) -> nn.Module:
        return self._teacher[0]

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)


class FrameDistiller(_Taught, FrameTrainer):
    """Stage one under a teacher."""

    def __init__(self, config: ModelConfig, teacher: WorldModel, settings: DistillSettings):
        super().__init__(config)
        self.settings = settings
        self.project_memory = nn.Conv2d(config.memory_channels, teacher.config.memory_channels, 1)
        self.project_skip = nn.Conv2d(config.skip_channels, teacher.config.skip_channels, 1)
        self.teach(teacher)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of frames, those against the teacher among them."""
        given = batch['images'], batch['index'], batch['weight']
        with torch.no_grad():
            memory_wanted, skip_wanted = self.teacher.encode(*given)
        memory, skip = self.model.encode(*given)
        weight = self.settings.map_weight
        return {'like_memory': weight * map_gap(self.project_memory(memory), memory_wanted),
                'like_skip': weight * map_gap(self.project_skip(skip), skip_wanted),
                **self.losses_of(memory, skip, batch)}


class WindowDistiller(_Taught, WindowTrainer):
    """Stage two under a teacher."""

    def __init__(self, model: WorldModel, teacher: WorldModel, settings: DistillSettings):
        super().__init__(model)
        self.settings = settings
        self.project = nn.Linear(model.config.dim, teacher.config.dim)
        self.teach(WindowTrainer(teacher))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of windows, those against the teacher among them."""
        outputs = self.outputs(batch)
        with torch.no_grad():   # read where the student reads, so that rows can be compared
            want = self.teacher.outputs({**batch, 'memory': batch['teacher_memory'],
                                         'skip': batch['teacher_skip']}, outputs)
        gaps = {f'like_{name}': self.settings.output_weight * value
                for name, value in output_gaps(outputs, want, batch).items()}
        states = map_gap(self.project(outputs['states']), want['states'])
        return {**gaps, 'like_states': self.settings.state_weight * states,
                **self.losses_of(outputs, batch)}


class PairedStore(ClipStore):
    """Window clips that a student and a teacher have both encoded, of the same drives."""

    def __init__(self, folder: Path, teacher: Path):
        super().__init__(folder)
        self.teacher = ClipStore(teacher)

    def paths(self) -> list[Path]:
        """Return the student's clips of which the teacher has its own."""
        theirs = {path.name for path in self.teacher.paths()}
        return [path for path in super().paths() if path.name in theirs]

    def read(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return one clip, drawn at random, with `teacher_memory` and `teacher_skip`."""
        paths = self.paths()
        path = paths[int(rng.integers(len(paths)))]
        with np.load(path) as mine, np.load(self.teacher.folder / path.name) as theirs:
            clip = dict(mine)
            if not np.array_equal(clip['poses'], theirs['poses']):
                raise ValueError(f'{path} and {self.teacher.folder / path.name}: want the same '
                                 'drive, got other poses')
            return {**clip, 'teacher_memory': theirs['memory'], 'teacher_skip': theirs['skip']}


def distill(folder: Path, teacher: Path, settings: Settings, weights: DistillSettings) -> Path:
    """
    Train a student in `folder` under the model of a teacher's run; return its checkpoint.

    Raises ValueError where the teacher has encoded too few of the student's drives.
    """
    seeds = window_seeds(settings)
    store = PairedStore(folder / 'windows', teacher / 'windows')
    theirs = sum(store.teacher.path(seed).exists() for seed in seeds)
    if theirs < min(8, len(seeds)):
        raise ValueError(f'{store.teacher.folder}: {theirs} of the drives {seeds.start} to '
                         f'{seeds.stop} are encoded, want 8 at least: train both with one --seed')
    frame_stage(folder, settings, functools.partial(
        FrameDistiller, teacher=load_model(teacher / 'frame_model.safetensors'),
        settings=weights))
    return window_stage(folder, settings, functools.partial(
        WindowDistiller, teacher=load_model(teacher / 'model.safetensors'), settings=weights),
        store)
