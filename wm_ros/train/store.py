"""
A folder of clips that worker processes fill while training reads from it.

Workers write one `.npz` a clip and stop at `limit`; training draws from whatever is there, so it
starts after the first clips and never waits for the last. The folder can be kept for a next run,
or lie on a RAM disk.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wm_ros.train.mapped import mapped

Make = Callable[[int], dict[str, np.ndarray]]


class ClipStore:
    """Clips `clip_<seed>.npz` in a folder; writing is atomic, so a reader sees whole files."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._paths: list[Path] = []
        self._listed = 0.0

    def write(self, seed: int, clip: dict[str, np.ndarray]) -> None:
        part = self.folder / f'.{seed}.{os.getpid()}.part'
        with open(part, 'wb') as file:
            np.savez(file, **clip)
        part.rename(self.path(seed))

    def path(self, seed: int) -> Path:
        return self.folder / f'clip_{seed:07d}.npz'

    def paths(self) -> list[Path]:
        """Return the clips there now (looked up again every few seconds)."""
        if time.monotonic() - self._listed > 5.0:
            self._paths = sorted(self.folder.glob('clip_*.npz'))
            self._listed = time.monotonic()
        return self._paths

    def wait(self, count: int) -> None:
        """Block until `count` clips are there."""
        while len(self.paths()) < count:
            time.sleep(1.0)

    def read(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return one clip, drawn at random, as views of its file; see `draw`."""
        return mapped(self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Path:
        """Return the path of a clip, drawn at random; ValueError where there is none."""
        paths = self.paths()
        if not paths:
            raise ValueError(f'{self.folder}: want clips to draw from, got none')
        return paths[int(rng.integers(len(paths)))]


def produce(folder: Path, setup: Callable[[], Make], seeds: Sequence[int], workers: int,
            nice: int = 0) -> list[multiprocessing.Process]:
    """
    Start workers that make the clips of `seeds` that are not there yet.

    `setup` runs once in each worker and returns the function that makes a clip; it must be
    importable, because workers are spawned. Returns the started processes.
    """
    context = multiprocessing.get_context('spawn')
    processes = []
    for worker in range(workers):
        process = context.Process(target=_work, daemon=True,
                                  args=(folder, setup, seeds[worker::workers], nice))
        process.start()
        processes.append(process)
    return processes


def complete(store: ClipStore, setup: Callable[[], Make], seeds: Sequence[int], workers: int,
             what: str) -> None:
    """
    Make the clips of `seeds` that are not there yet, in this process where there are no workers.

    Says on stderr how far it is, as `what`. Raises RuntimeError where a worker fails.
    """
    lacking = [seed for seed in seeds if not store.path(seed).exists()]
    if not workers:
        make = setup() if lacking else None
        for seed in lacking:
            store.write(seed, make(seed))
        return
    begin = time.monotonic()
    started = produce(store.folder, setup, lacking, min(workers, len(lacking)))
    while any(process.is_alive() for process in started):
        for process in started:
            process.join(10.0)
        left = sum(not store.path(seed).exists() for seed in lacking)
        print(f'{what}: {len(seeds) - left} of {len(seeds)} drives, '
              f'{(time.monotonic() - begin) / 60:.1f} min', file=sys.stderr, flush=True)
    if any(process.exitcode for process in started):
        raise RuntimeError(f'{store.folder}: a worker has failed, see above')


def _work(folder: Path, setup: Callable[[], Make], seeds: Sequence[int], nice: int) -> None:
    import cv2
    cv2.setNumThreads(1)
    os.nice(nice)
    store, make = ClipStore(folder), setup()
    for seed in seeds:
        if not store.path(seed).exists():
            store.write(seed, make(seed))
