"""
Everything that an artifact carries and nobody trained, chosen on validation drives in one pass.

The model runs with neutral choices. Scores get their meaning first (`fit_existence`); the rest
follows from it: the threshold, the spread of the paths of what is found at that threshold, and the
weights of the occupancy forecast, in which agents count by their existence probability.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from wm_ros.choices import Choices, existence_probability
from wm_ros.decode import AgentTable, no_agents
from wm_ros.evaluate import metrics
from wm_ros.evaluate.agents import RANGES_M, Detections, found_by, in_range
from wm_ros.evaluate.bootstrap import draw_weights, interval
from wm_ros.evaluate.calibration import LEVELS
from wm_ros.evaluate.fit_existence import existence_ece, fit_existence
from wm_ros.evaluate.fit_occupancy import OccupancyCounts, pack, unpack
from wm_ros.evaluate.fit_spread import fit_spread
from wm_ros.evaluate.occupancy import truth_occupancy
from wm_ros.evaluate.threshold import Judged, Point, judge, pooled, sweep
from wm_ros.footprints import footprints
from wm_ros.types import HORIZON_STEPS, TIME_STEP_S, AgentForecast, Forecast, Truth

#: Detections from this raw score on are looked at.
FROM_SCORE = 0.02


@dataclass(frozen=True)
class Seen:
    """
    What is kept of one forecast and its truth.

    `outcomes` (A, T, 2) is where the visible agent within 30 m that a detection found went, NaN
    where it found none. `head` (T + 1, Y, X) holds codes; `occupied` and `scored` are packed bits.
    """

    agents: AgentTable
    judged: Judged
    outcomes: np.ndarray
    head: np.ndarray
    occupied: np.ndarray
    scored: np.ndarray


class Collector:
    """Keeps the forecasts of one drive, made with `neutral` choices; invalid ones say nothing."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def add(self, forecast: Forecast, truth: Truth) -> None:
        """Take one forecast with its truth."""
        detections = Detections.of(forecast)
        partner, _, right = found_by(detections, truth)
        near = right & in_range(truth.poses[partner, :2], RANGES_M[0]) if len(truth.ids) else right
        outcomes = np.full((len(detections), HORIZON_STEPS, 2), np.nan)
        outcomes[near] = truth.futures[partner[near], :, :2]
        occupied, scored = truth_occupancy(truth)
        self.seen.append(Seen(
            _table(forecast.agents if forecast.valid else ()), judge(detections, truth), outcomes,
            forecast.occupancy_agents, pack(occupied), pack(scored if forecast.valid
                                                            else np.zeros_like(scored))))


def neutral(observed_threshold: float) -> Choices:
    """Return the choices under which the model has to run for a `Collector`."""
    return Choices(score_threshold=FROM_SCORE, observed_threshold=observed_threshold)


def choose_existence(drives: list[Collector]) -> tuple[tuple[float, float], list[Point]]:
    """Return what scores mean on these drives, and the scores at every threshold of that."""
    judged = _judged(drives)
    existence = fit_existence(judged.score, judged.hit)
    return existence, sweep(replace(judged, score=_meant(judged.score, existence)))


def choose_all(drives: list[Collector], existence: tuple[float, float], point: Point,
               observed_threshold: float) -> tuple[Choices, dict[str, Any]]:
    """Return all choices, given the first two, and as JSON what they reach on these drives."""
    seen = [one for drive in drives for one in drive.seen]
    judged = _judged(drives)
    spread, coverage = _spread(seen, existence, point.threshold)
    counts = OccupancyCounts()
    for one in seen:
        drawn = footprints(decoded(one.agents, existence, spread))
        boxes = np.zeros(one.head.shape, np.float32)
        drawn.add_to(boxes, 1.0)
        counts.add(one.head, boxes, drawn.surely(one.head.shape), unpack(one.occupied),
                   unpack(one.scored))
    weighed = counts.choose()
    choices = Choices(point.threshold, observed_threshold, existence, spread, weighed.weights)
    seconds = [f'{TIME_STEP_S * (step + 1):g}' for step in range(HORIZON_STEPS)]
    return choices, {
        'at_threshold': {**vars(point),
                         'precision_ci': _precision_ci(drives, existence, point.threshold)},
        'existence_ece': {
            'score': existence_ece(judged.score, judged.hit, Choices().existence,
                                   _raw(point.threshold, existence)),
            'existence': existence_ece(judged.score, judged.hit, existence, point.threshold),
            'existence_other_drives': _held_out(drives, point.threshold)},
        'covariance_coverage': {f'{100 * level:g}': dict(zip(seconds, map(float, column),
                                                             strict=True))
                                for level, column in zip(LEVELS, coverage.T, strict=True)},
        'occupancy': {'chosen': weighed.to_json(),
                      'head': counts.weigh((1.0, 0.0)).to_json(),
                      'boxes': counts.weigh((0.0, 1.0)).to_json()}}


def table(choices: Choices, evidence: dict[str, Any]) -> str:
    """Return the choices with what they reach, as lines for a terminal."""
    reached, ece = evidence['at_threshold'], evidence['existence_ece']
    other, (low, high) = ece['existence_other_drives'], reached['precision_ci']
    lines = [
        f'threshold {choices.score_threshold:g}: SPA top-6 {reached["spa_top6"]:.1f}, precision '
        f'{reached["precision"]:.3f} [{low:.3f}, {high:.3f}], '
        f'recall {reached["recall"]:.3f}, EPA {reached["epa"]:.3f}',
        f'existence {choices.existence}: ECE {ece["existence"]:.3f} (raw scores '
        f'{ece["score"]:.3f}' + ('' if other is None else f'; chosen on the other half of the '
                                 f'drives {other:.3f}') + ')',
        f'spread {choices.spread}: ' + '; '.join(
            f'{level} % regions hold ' + ' '.join(f'{value:.2f}' for value in by_step.values())
            for level, by_step in evidence['covariance_coverage'].items())]
    lines += [f'occupancy, {name} {tuple(one["weights"])}: IoU to 2 s near '
              f'{one["iou_near_to_2s"]:.1f}, far {one["iou_far_to_2s"]:.1f}, Brier '
              f'{one["brier"]:.4f}' for name, one in evidence['occupancy'].items()]
    return '\n'.join(lines)


def _judged(drives: list[Collector]) -> Judged:
    if not any(drive.seen for drive in drives):
        raise ValueError('choose: want at least one drive with a forecast, got none')
    return pooled(one.judged for drive in drives for one in drive.seen)


def _meant(score: np.ndarray, existence: tuple[float, float]) -> np.ndarray:
    """Return existence probabilities as the decoder computes them, in float32."""
    return existence_probability(np.asarray(score, np.float32), existence).astype(np.float64)


def decoded(agents: AgentTable, existence: tuple[float, float],
            spread: tuple[float, ...]) -> AgentTable:
    """Return agents as the decoder gives them with these choices: their boxes are drawn so."""
    wider = np.square(np.array(spread, np.float32))[:, None, None]
    return replace(agents, score=existence_probability(agents.score, existence),
                   covariances_m2=agents.covariances_m2 * wider)


def _raw(threshold: float, existence: tuple[float, float]) -> float:
    """Return the score that means `threshold`."""
    scores = np.linspace(0, 1, 10_001)
    return float(scores[np.searchsorted(_meant(scores, existence), threshold)])


def _precision_ci(drives: list[Collector], existence: tuple[float, float],
                  threshold: float) -> list[float]:
    """Return the 95 % interval of precision over drives: what other drives may well show."""
    counts = []
    for drive in drives:
        told = [_meant(one.judged.score, existence) >= threshold for one in drive.seen]
        counts.append([sum((one.judged.hit & above).sum() for one, above in
                           zip(drive.seen, told, strict=True)), sum(map(np.sum, told))])
    sums = draw_weights(len(counts)) @ np.array(counts, np.float64)
    return [float(end) for end in interval(metrics.ratio(sums[:, 0], sums[:, 1]))]


def _held_out(drives: list[Collector], threshold: float) -> float | None:
    """Return the ECE where each half of the drives is told what the other half's scores mean."""
    if len(drives) < 2:
        return None
    even, odd = _judged(drives[::2]), _judged(drives[1::2])
    return float(np.mean([
        existence_ece(mine.score, mine.hit, fit_existence(other.score, other.hit), threshold)
        for mine, other in ((even, odd), (odd, even))]))


def _spread(seen: list[Seen], existence: tuple[float, float],
            threshold: float) -> tuple[tuple[float, ...], np.ndarray]:
    """Return `fit_spread` of the agents that are found at the threshold."""
    columns = []
    for one in seen:
        found = np.flatnonzero((_meant(one.agents.score, existence) >= threshold)
                               & np.isfinite(one.outcomes).any(axis=(1, 2)))
        columns.append((one.agents.trajectories_m[found], one.agents.covariances_m2[found],
                        one.agents.mode_probabilities[found], one.outcomes[found]))
    return fit_spread(*(np.concatenate(column).astype(np.float64)
                        for column in zip(*columns, strict=True)))


def _table(agents: tuple[AgentForecast, ...]) -> AgentTable:
    """Return the rows that a forecast's agents were."""
    if not agents:
        return no_agents()
    return AgentTable(*(np.stack([np.asarray(getattr(agent, field.name), np.float32)
                                  for agent in agents]) for field in fields(AgentTable)))
