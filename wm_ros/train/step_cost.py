"""
What a training step costs on one thread: `python -m wm_ros.train.step_cost --folder RUN`.

Draws one batch of a run's frames and one of its windows, and times steps of its model, of the
teacher that begins as it (by how many frames enter its dense layers), and of the distillation of
one into the other. Times are of the processor, the best of some steps, so that what else runs
disturbs them little; nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wm_ros.model.config import PRESETS
from wm_ros.train.answers import answer, only
from wm_ros.train.distill import PREFIX, DistillSettings, FrameDistiller, WindowDistiller
from wm_ros.train.grow import WIDER, grown
from wm_ros.train.stages import FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore
from wm_ros.train.targets import collate, frame_sample, window_sample
from wm_ros.train.warm import load_start
from wm_ros.types import WINDOW_FRAMES

CPU = torch.device('cpu')
Batch = dict[str, torch.Tensor]


def step_costs(folder: Path, preset: str, batch: int, frames: tuple[int, ...],
               rounds: int) -> dict[str, float]:
    """Return processor seconds of each kind of step, of one answer and of one encoding."""
    student = load_start(folder)
    wider = {name: getattr(PRESETS[preset], name) for name in (*WIDER, 'teacher', 'dense_every')}
    teacher = grown(student, replace(student.config, **wider))
    rng, drives = np.random.default_rng(0), ClipStore(folder / 'windows')
    pictures = ClipStore(folder / 'frames')
    seen = collate([frame_sample(pictures.read(rng), rng) for _ in range(batch)], CPU)
    clip = drives.read(rng)
    window = window_sample(clip, rng)
    asked = WindowTrainer(teacher).eval()
    said = answer(asked, only(clip, int(window['window'])), CPU)
    windows = collate([{**window, **{PREFIX + name: value for name, value in said.items()}}]
                      * batch, CPU)

    def best(run: Callable[[], object]) -> float:
        times = []
        for _ in range(rounds + 1):
            begin = time.process_time()
            run()
            times.append(time.process_time() - begin)
        return min(times[1:])           # the first one warms up

    costs = {'answer': best(lambda: answer(asked, only(clip, int(window['window'])), CPU))}
    settings = DistillSettings()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        one = [seen[name][:1] for name in ('images', 'index', 'weight')]
        costs[f'teacher encodes {one[0].shape[1]} pictures'] = best(lambda: teacher.encode(*one))
    for name, trainer in (('student', WindowTrainer(student)),
                          ('distilled', WindowDistiller(student, teacher.config, settings)),
                          ('teacher', WindowTrainer(teacher))):
        for count in frames if name == 'teacher' else (WINDOW_FRAMES,):
            teacher.dense_frames = count
            costs[f'window, {name}' + (f', {count} frames' if name == 'teacher' else '')] = \
                best(lambda trainer=trainer: step(trainer, windows))
    student.requires_grad_(True)        # stage two had frozen the encoders
    distiller = FrameDistiller(student.config, teacher, settings)
    for name, trainer in (('student', FrameTrainer(student.config)), ('distilled', distiller),
                          ('teacher', FrameTrainer(teacher.config))):
        trainer.model = teacher if name == 'teacher' else student
        trainer.model.requires_grad_(True)
        costs[f'frame, {name}'] = best(lambda trainer=trainer: step(trainer, seen))
    return costs


def step(trainer: nn.Module, batch: Batch) -> None:
    """Run one step without its optimiser's part, which is the same for all."""
    trainer.train()
    with torch.autocast('cpu', torch.bfloat16):
        total = sum(trainer(batch).values())
    total.backward()
    trainer.zero_grad(set_to_none=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python -m wm_ros.train.step_cost', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, default=Path('work/train'), help='of a run')
    parser.add_argument('--preset', default='teacher-small', help='of the teacher')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--frames', type=int, nargs='+', default=[4, 5, 6, 16])
    parser.add_argument('--rounds', type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    costs = step_costs(given.folder, given.preset, given.batch, tuple(given.frames), given.rounds)
    for name, seconds in costs.items():
        print(f'{name:<28}{seconds:8.3g} s')


if __name__ == '__main__':
    main()
