"""
What a run has learnt, and what it knows by heart: `python -m wm_ros.train.held_out --folder RUN`.

The losses of stage two, in evaluation mode, on drives whose streams the run has and on as many of
the last training seeds, which no run that ships draws; those are rendered and encoded the first
time. Where the two columns part, more drives help more than more steps.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wm_ros.sim.seeds import TRAIN_END
from wm_ros.train.encode import window_setup, write_encoder
from wm_ros.train.loop import load_model
from wm_ros.train.mapped import mapped
from wm_ros.train.stages import WindowTrainer
from wm_ros.train.store import ClipStore, complete
from wm_ros.train.targets import collate, window_sample
from wm_ros.train.warm import load_heads

#: Windows that are drawn of each drive.
DRAWS = 4


def losses_of(trainer: WindowTrainer, clips: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return each loss of each clip (N,), `total` among them; the same clips give the same."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    rows: list[dict[str, float]] = []
    for path in clips:
        clip = mapped(path)
        batch = collate([window_sample(clip, rng) for _ in range(DRAWS)], torch.device('cpu'))
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            losses = {name: float(value) for name, value in trainer(batch).items()}
        rows.append({**losses, 'total': sum(losses.values())})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def compared(folder: Path, drives: int, workers: int) -> dict[str, dict[str, np.ndarray]]:
    """
    Return the losses on `seen` and on `unseen` drives of a run's model.

    Raises ValueError for a folder without a trained model and streams.
    """
    seen = sorted((folder / 'windows').glob('clip_*.npz'))
    if not seen or not (folder / 'model.safetensors').is_file():
        raise ValueError(f'{folder}: want the folder of a run with windows/ and model.safetensors')
    model = load_model(folder / 'model.safetensors')
    seeds = range(TRAIN_END - drives, TRAIN_END)
    taken = {path.name for path in seen}
    store = ClipStore(folder / 'held_out')
    known = [seed for seed in seeds if store.path(seed).name in taken]
    if known:
        raise ValueError(f'{folder}: want drives that the run has not seen, got {known}')
    encoder = write_encoder(folder, 'torch' if model.config.teacher else 'openvino')
    complete(store, functools.partial(window_setup, encoder, folder / 'drives', 'cpu'), seeds,
             workers, 'held_out')
    trainer = WindowTrainer(model).eval()
    load_heads(trainer, folder, 'window')
    every = max(1, len(seen) // drives)
    return {'seen': losses_of(trainer, seen[::every][:drives]),
            'unseen': losses_of(trainer, [store.path(seed) for seed in seeds])}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.train.held_out', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, required=True, help='of the run')
    parser.add_argument('--drives', type=int, default=40, help='of each kind (default: 40)')
    parser.add_argument('--workers', type=int, default=2, help='that render (default: 2)')
    options = parser.parse_args(arguments)
    if options.drives < 2:
        parser.error('want --drives of at least 2')
    try:
        both = compared(options.folder, options.drives, options.workers)
    except ValueError as err:
        parser.error(str(err))
    print(f'{"mean and its error":<20}{"seen":>18}{"unseen":>18}')
    for name in both['seen']:
        cells = [f'{values[name].mean():>10.3f} ±{values[name].std() / len(values[name]) ** .5:.3f}'
                 for values in both.values()]
        print(f'{name:<20}' + ''.join(f'{cell:>18}' for cell in cells))
    return 0


if __name__ == '__main__':
    sys.exit(main())
