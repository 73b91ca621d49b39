"""
How the benchmark runs: every drive through one `Predictor`, a forecast every half second.

Drives are spread over processes; each has its own predictor with one thread. What comes back is
counts alone, so the result does not depend on how many processes there were.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from wm_ros.data.samples import Drive, Sample
from wm_ros.types import WINDOW_FRAMES, CameraRig, Forecast, Truth

#: Frames from one scored forecast to the next: 0.5 s at 10 Hz.
EVERY = 5


class Counter(Protocol):
    """What takes the forecasts of one drive, in order; see `scores.DriveCounter`."""

    def add(self, forecast: Forecast, truth: Truth) -> None:
        """Take one forecast with its truth."""


def forecasts(predictor: Any, drive: Drive, every: int = EVERY) -> Iterator[tuple[Forecast, Truth]]:
    """Run a drive and yield a forecast with its truth from the first whole window on."""
    for forecast, sample in windows(predictor, drive, every):
        yield forecast, sample.truth


def windows(predictor: Any, drive: Drive, every: int = EVERY) -> Iterator[tuple[Forecast, Sample]]:
    """
    Run a drive and yield what is scored: forecasts with the newest sample, which has a truth.

    Every frame is encoded; the rollout runs only for what is scored, under the ego plan that the
    source knows (else the predictor's own).
    """
    predictor.reset('a new drive')
    for sample in drive.samples(every, WINDOW_FRAMES - 1):
        predictor.encode(sample.frames, sample.ego)
        if sample.truth is not None:
            yield predictor.forecast(sample.plan), sample


@dataclass(frozen=True)
class Task:
    """
    What a worker needs to score one drive; has to pickle where there are several workers.

    `open_drive(key)` opens the drive, `open_predictor(rig)` the predictor for its rig, and
    `new_counter()` makes what counts its forecasts.
    """

    open_drive: Callable[[Any], Drive]
    open_predictor: Callable[[CameraRig], Any]
    new_counter: Callable[[], Counter]
    every: int = EVERY

    def __call__(self, key: Any) -> Counter:
        drive = self.open_drive(key)
        counter = self.new_counter()
        for forecast, truth in forecasts(self.open_predictor(drive.rig), drive, self.every):
            counter.add(forecast, truth)
        return counter


def evaluate(task: Task, keys: list[Any], workers: int = 1,
             progress: Callable[[int, int], None] | None = None) -> list[Any]:
    """Score the drives of `keys` and return their counters in the same order; see `spread`."""
    if not keys:
        raise ValueError('evaluate: want at least one drive, got none')
    return spread(task, keys, workers, progress)


def spread(work: Callable[[Any], Any], keys: list[Any], workers: int = 1,
           progress: Callable[[int, int], None] | None = None) -> list[Any]:
    """
    Return `work(key)` of all keys, in their order.

    `workers` processes share the keys; 1 does them here. `progress` is told how many are done.
    """
    results = []

    def collect(done: Iterator[Any]) -> None:
        for result in done:
            results.append(result)
            if progress is not None:
                progress(len(results), len(keys))

    if workers <= 1 or len(keys) == 1:
        collect(map(work, keys))
    else:
        # Spawned, not forked: an inference library's threads do not survive a fork.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(keys)), context) as pool:
            collect(pool.map(work, keys))
    return results
