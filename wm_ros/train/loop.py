"""The training loop: one schedule, checkpoints that resume exactly, progress that can be read."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from wm_ros.model.config import ModelConfig
from wm_ros.model.quant import fold_batch_norms
from wm_ros.model.teacher import build_model
from wm_ros.model.world_model import WorldModel
from wm_ros.train.curves import draw_curves
from wm_ros.train.optimiser import Optimiser
from wm_ros.train.parallel import World

#: From how much of the run is done, 0-1, to the losses of one step.
Step = Callable[[float], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Schedule:
    """
    One cosine with warm-up, over `steps` optimiser steps or `minutes`, whichever ends first.

    Both count over all calls of a run; `call_minutes` ends one call, to be resumed by the next.
    """

    steps: int
    minutes: float = math.inf
    call_minutes: float = math.inf
    rate: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 5.0
    optimiser: str = 'adamw'        # or 'muon', for matrices and convolutions
    checkpoint_every: int = 250

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how much of the run is done, 0-1."""
        return min(1.0, max(step / self.steps, elapsed_s / (60 * self.minutes)))

    def rate_at(self, step: int, elapsed_s: float) -> float:
        """Return the learning rate of a step."""
        warm = min(1.0, (step + 1) / self.warmup)
        return self.rate * warm * (0.5 + 0.5 * math.cos(math.pi * self.progress(step, elapsed_s)))


def fit(model: nn.Module, losses: Step, schedule: Schedule, folder: Path, stage: str,
        groups: list[dict] | None = None, log: Callable[[str], None] | None = None,
        world: World = World()) -> int:  # noqa: B008 (frozen)
    """
    Train until the schedule or its minutes end; return the step that was reached.

    `losses(progress)` returns named losses, whose sum is minimised; progress goes from 0 to 1 over
    the schedule. Model and optimiser are written to `folder` every `checkpoint_every` steps and at
    the end, and taken up again from there. Of several processes the first writes and logs, and its
    clock counts.
    """
    first_of_all = world.rank == 0
    log = log or (lambda line: print(line, file=sys.stderr, flush=True))
    log = log if first_of_all else (lambda line: None)
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = Optimiser(groups or [{'params': trained}], schedule.weight_decay,
                          schedule.optimiser)
    step, before_s = resume(model, optimiser, folder, stage)
    started, first, sums, counted = time.monotonic(), step, {}, 0
    elapsed_s, device = before_s, trained[0].device
    while (schedule.progress(step, elapsed_s) < 1.0
           and elapsed_s - before_s < schedule.call_minutes * 60):
        parts = losses(schedule.progress(step, elapsed_s))
        total = sum(parts.values())
        model.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(trained, schedule.clip)
        if not torch.isfinite(norm):
            log(f'{stage} step {step}: gradient not finite, step left out')
            model.zero_grad(set_to_none=True)
        else:
            optimiser.step(schedule.rate_at(step, elapsed_s))
        step += 1
        counted += 1
        elapsed_s = world.agreed(before_s + time.monotonic() - started, device)
        for name, value in {**parts, 'total': total}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()   # a float would wait for a GPU
        if step % 50 == 0 or step == schedule.steps:
            rate = (step - first) / (elapsed_s - before_s)
            means = {name: float(value) / counted for name, value in sums.items()}
            left = min((schedule.steps - step) / rate, 60 * schedule.minutes - elapsed_s) / 60
            log(f'{stage} step {step}  {rate:.2f} steps/s, {left:.0f} min left  '
                + '  '.join(f'{name} {value:.3f}' for name, value in means.items()))
            if first_of_all:
                with open(folder / f'{stage}.jsonl', 'a', encoding='utf-8') as curve:
                    curve.write(json.dumps({'step': step, **means}) + '\n')
            sums, counted = {}, 0
        if step % schedule.checkpoint_every == 0 and first_of_all:
            checkpoint(model, optimiser, folder, stage, step, elapsed_s)
    if first_of_all:
        checkpoint(model, optimiser, folder, stage, step, elapsed_s)
        draw_curves(folder)
    world.wait()
    return step


def checkpoint(model: nn.Module, optimiser: Optimiser, folder: Path, stage: str, step: int,
               elapsed_s: float) -> None:
    """Write weights and optimiser state as safetensors, atomically."""
    _save(folder / f'{stage}.optimiser.safetensors', optimiser.state(), {'step': str(step)})
    save_model(model, folder / f'{stage}.safetensors',
               {'step': str(step), 'elapsed_s': f'{elapsed_s:.1f}', 'stage': stage})


def save_model(model: nn.Module, path: Path, notes: dict[str, str]) -> None:
    """Write a model's weights, with its config among the notes."""
    weights = {name: value.detach().cpu().contiguous() for name, value in
               model.state_dict().items()}
    config = getattr(model, 'config', None)
    if config is not None:
        notes = {**notes, 'config': json.dumps(asdict(config))}
    _save(path, weights, notes)


def _save(path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> None:
    part = path.with_suffix('.part')
    save_file({name: value.clone() for name, value in tensors.items()}, part, metadata=notes)
    part.rename(path)


def resume(model: nn.Module, optimiser: Optimiser, folder: Path,
           stage: str) -> tuple[int, float]:
    """Load what `checkpoint` wrote, if it is there; return step and seconds to go on from."""
    path = folder / f'{stage}.safetensors'
    if not path.exists():
        return 0, 0.0
    model.load_state_dict(tensors_of(path))
    optimiser.load(tensors_of(folder / f'{stage}.optimiser.safetensors'))
    notes = notes_of(path)
    return int(notes['step']), float(notes['elapsed_s'])


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint; ValueError for a file that is none, or not whole."""
    with _whole(path):
        return load_file(path)


def notes_of(path: Path) -> dict[str, str]:
    """Return the notes that a checkpoint carries; ValueError as `tensors_of`."""
    with _whole(path), safe_open(path, 'pt') as file:
        return file.metadata() or {}


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as err:
        raise ValueError(f'{path}: want a whole checkpoint, got a file that is none ({err})') \
            from err


def step_reached(folder: Path, stage: str) -> int:
    """Return the step of a stage's checkpoint, 0 where there is none."""
    path = folder / f'{stage}.safetensors'
    return int(notes_of(path)['step']) if path.exists() else 0


def load_model(path: Path) -> WorldModel:
    """Rebuild a world model from a checkpoint; ValueError where it holds no config."""
    notes = notes_of(path)
    if 'config' not in notes:
        raise ValueError(f'{path}: want a checkpoint with a model config, got notes '
                         f'{sorted(notes)}')
    model = build_model(ModelConfig.from_dict(json.loads(notes['config'])))
    weights = tensors_of(path)
    if not any(name.endswith('.running_mean') for name in weights):
        fold_batch_norms(model)     # a quantised checkpoint: its norms were folded before
    model.load_state_dict(weights)
    return model
