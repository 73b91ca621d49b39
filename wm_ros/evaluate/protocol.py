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
from typing import Any

from wm_ros.data.samples import Drive
from wm_ros.evaluate.scores import DriveCounter, Scores
from wm_ros.types import WINDOW_FRAMES, Forecast, Truth

#: Frames from one scored forecast to the next: 0.5 s at 10 Hz.
EVERY = 5


def forecasts(predictor: Any, drive: Drive, every: int = EVERY) -> Iterator[tuple[Forecast, Truth]]:
    """
    Run a drive and yield a forecast with its truth from the first whole window on.

    Every frame is encoded; the rollout runs only for what is scored, under the ego plan that the
    source knows (else the predictor's own).
    """
    predictor.reset()
    for sample in drive.samples(every, WINDOW_FRAMES - 1):
        predictor.encode(sample.frames, sample.ego)
        if sample.truth is not None:
            yield predictor.forecast(sample.plan), sample.truth


def score_drive(predictor: Any, drive: Drive, thresholds: tuple[float, ...],
                every: int = EVERY) -> list[DriveCounter]:
    """Return the counts of one drive, one `DriveCounter` a score threshold."""
    counters = [DriveCounter(threshold) for threshold in thresholds]
    for forecast, truth in forecasts(predictor, drive, every):
        for counter in counters:
            counter.add(forecast, truth)
    return counters


@dataclass(frozen=True)
class Task:
    """What a worker needs to score one drive: `open_drive(key)` opens it there."""

    open_drive: Callable[[Any], Drive]
    open_predictor: Callable[[Any], Any]
    thresholds: tuple[float, ...]
    every: int = EVERY

    def __call__(self, key: Any) -> list[DriveCounter]:
        drive = self.open_drive(key)
        return score_drive(self.open_predictor(drive.rig), drive, self.thresholds, self.every)


def evaluate(task: Task, keys: list[Any], workers: int = 1,
             progress: Callable[[int, int], None] | None = None) -> list[Scores]:
    """
    Score the drives of `keys` and return one `Scores` a threshold, drives in the order of `keys`.

    `workers` processes share the drives; 1 runs them here. `progress` is told how many are done.
    """
    if not keys:
        raise ValueError('evaluate: want at least one drive, got none')
    scores = [Scores() for _ in task.thresholds]

    def collect(results: Iterator[list[DriveCounter]]) -> None:
        for done, counters in enumerate(results, 1):
            for score, counter in zip(scores, counters, strict=True):
                score.add(counter)
            if progress is not None:
                progress(done, len(keys))

    if workers <= 1:
        collect(map(task, keys))
    else:
        # Spawned, not forked: an inference library's threads do not survive a fork.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(keys)), context) as pool:
            collect(pool.map(task, keys))
    return scores
