"""Self-scores of a whole bag: sums by horizon, calibration, and every window by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.evaluate.bag_forecasts import forecasts_of
from wm_ros.evaluate.calibration import LEVELS
from wm_ros.evaluate.occupancy import OCCUPIED_FROM, UNOBSERVED, count_occupancy, occupancy_scores
from wm_ros.evaluate.self_scores import HORIZONS_S, Held, SelfScorer
from wm_ros.types import HORIZON_STEPS, OUTPUT_GRID, Forecast

#: Columns of `Held.followed` with the names under which their means are reported.
PATHS = ('likeliest', 'nearest', 'constant_velocity', 'static')
_STEP_OF = {seconds: 2 * seconds for seconds in HORIZONS_S}


class SelfScores:
    """Takes the forecasts of one bag in order; `report` then says how they held."""

    def __init__(self) -> None:
        self._scorer = SelfScorer()
        self._held: dict[int, list[dict[str, Any]]] = {}
        self._rows: dict[int, list[np.ndarray]] = {seconds: [] for seconds in HORIZONS_S}
        self._sums = {seconds: np.zeros(8) for seconds in HORIZONS_S}
        self._occupancy = {name: 0.0 for name in ('forecast', 'static')}
        self._counts = {'n_forecasts': 0, 'n_invalid': 0, 'n_without_odometry': 0}
        self.model_hashes: set[str] = set()

    def add(self, forecast: Forecast) -> list[Held]:
        """Take the next forecast; return what earlier ones said of its moment."""
        self._counts['n_forecasts'] += 1
        self._counts['n_invalid'] += not forecast.valid
        self._counts['n_without_odometry'] += forecast.valid and forecast.odom_from_base is None
        self.model_hashes.add(forecast.model_hash)
        held = self._scorer.add(forecast)
        for one in held:
            self._take(one)
        return held

    def _take(self, one: Held) -> None:
        self._sums[one.horizon_s] += [
            1, one.agent_nll, one.agents, one.agent_surprise, one.occupancy_surprise,
            one.occupancy_log_loss, one.cells, one.expected]
        self._rows[one.horizon_s].append(one.followed)
        step = _STEP_OF[one.horizon_s]
        # The same ground for both, or what one of them does not speak of would be the other's.
        known = ((one.seen_codes != UNOBSERVED) & (one.codes != UNOBSERVED)
                 & (one.first_codes != UNOBSERVED))
        for name, codes in (('forecast', one.codes), ('static', one.first_codes)):
            stack = np.zeros((HORIZON_STEPS + 1, *OUTPUT_GRID.shape), np.uint8)
            stack[step] = codes
            seen = np.zeros(stack.shape, bool)
            seen[step] = (one.seen_codes >= OCCUPIED_FROM) & (one.seen_codes != UNOBSERVED)
            scored = np.zeros(stack.shape, bool)
            scored[step] = known
            self._occupancy[name] = self._occupancy[name] + count_occupancy(
                stack, seen, scored)['occupancy']
        paths = one.followed
        self._held.setdefault(one.made_ns, []).append({
            'horizon_s': one.horizon_s, 'seen_ns': one.seen_ns,
            'agent_nll': round(one.agent_nll, 3), 'agents': one.agents,
            'agent_surprise': round(one.agent_surprise, 3),
            'occupancy_surprise': round(one.occupancy_surprise, 3),
            'occupancy_log_loss': _ratio(one.occupancy_log_loss, one.cells),
            'occupancy_iou': _number(_iou(one)), 'followed': len(paths),
            'expected': one.expected,
            'displacement_m': _number(paths[:, 0].mean()) if len(paths) else None,
            'displacement_nearest_m': _number(paths[:, 1].mean()) if len(paths) else None})

    def report(self) -> dict[str, Any]:
        """
        Return everything as JSON-ready values; None where nothing can be said.

        Raises ValueError where no forecast could be held against another.
        """
        pairs = int(sum(sums[0] for sums in self._sums.values()))
        if not pairs:
            raise ValueError(
                'no forecast could be held against a later one: want valid forecasts with '
                f'odometry at least {HORIZONS_S[0]} s apart, got '
                + ', '.join(f'{value} {name[2:]}' for name, value in self._counts.items()))
        occupancy = {name: occupancy_scores({'occupancy': counts})
                     for name, counts in self._occupancy.items()}
        by_horizon = {str(s): self._horizon(s, occupancy) for s in HORIZONS_S}
        forecast = occupancy['forecast']
        return {
            **self._counts, 'n_pairs': pairs, 'model_hashes': sorted(self.model_hashes),
            'by_horizon': by_horizon, 'occupancy_brier': _number(forecast['brier'], 5),
            'occupancy_ece': _number(forecast['ece'], 5),
            'windows': [{'stamp_ns': stamp, 'held': held}
                        for stamp, held in sorted(self._held.items())]}

    def _horizon(self, seconds: int, occupancy: dict[str, Any]) -> dict[str, Any]:
        n, nll, terms, agents, cells_surprise, log_loss, cells, expected = self._sums[seconds]
        rows = np.concatenate([np.zeros((0, 5)), *self._rows[seconds]])
        step = _STEP_OF[seconds]
        out = {
            'moments': int(n), 'agents': int(terms), 'agent_nll': _ratio(nll, terms),
            'agent_surprise': _ratio(agents, n), 'occupancy_surprise': _ratio(cells_surprise, n),
            'occupancy_log_loss': _ratio(log_loss, cells, 5), 'followed': len(rows),
            'expected': int(expected), 'followed_share': _ratio(len(rows), expected)}
        for i, name in enumerate(PATHS):
            out[f'displacement_{name}_m'] = _ratio(rows[:, i].sum(), len(rows))
            out[f'within_2m_{name}'] = _ratio(
                (rows[:, i] < metrics.HIT_DISTANCE_M).sum(), len(rows))
        for level in LEVELS:
            out[f'covariance_coverage_{100 * level:.0f}'] = _ratio(
                (rows[:, 4] <= level).sum(), len(rows))
        for name, scores in occupancy.items():
            for extent in ('near', 'far'):
                out[f'iou_{extent}_{name}'] = _number(scores[f'iou_{extent}'][step], 2)
        return out


def _iou(one: Held) -> float:
    """Return the IoU in percent of what was forecast and what was seen, on cells known in both."""
    known = (one.codes != UNOBSERVED) & (one.seen_codes != UNOBSERVED)
    said, seen = one.codes[known] >= OCCUPIED_FROM, one.seen_codes[known] >= OCCUPIED_FROM
    return float(100 * metrics.iou((said & seen).sum(), said.sum(), seen.sum()))


def _ratio(part: float, whole: float, digits: int = 4) -> float | None:
    return _number(float(metrics.ratio(part, whole)), digits)


def _number(value: float, digits: int = 4) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def score_bag(path: Path, artifact: Path | None = None, backend: str = 'auto', threads: int = 2,
              progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """
    Return the self-scores of a bag: of the forecasts in it, or of those that a model makes.

    The bag streams through; what is kept of each forecast are its figures. Raises BagError for a
    bag that holds neither forecasts nor pictures, ValueError where nothing could be scored.
    """
    scores = SelfScores()
    for forecast in forecasts_of(path, artifact, backend, threads, progress):
        scores.add(forecast)
    return scores.report()


#: Rows of the table: label, key, digits.
_ROWS = (
    ('agents: NLL (nats an agent)', 'agent_nll', 2),
    ('agents: surprise (nats)', 'agent_surprise', 2),
    ('agents seen again', 'followed_share', 2),
    ('displacement, likeliest (m)', 'displacement_likeliest_m', 2),
    ('  nearest of the modes', 'displacement_nearest_m', 2),
    ('  constant velocity', 'displacement_constant_velocity_m', 2),
    ('  static', 'displacement_static_m', 2),
    ('within 2 m, likeliest', 'within_2m_likeliest', 2),
    ('50 % region holds', 'covariance_coverage_50', 2),
    ('90 % region holds', 'covariance_coverage_90', 2),
    ('occupancy: log loss (nats)', 'occupancy_log_loss', 4),
    ('occupancy: surprise (nats)', 'occupancy_surprise', 2),
    ('IoU near (%)', 'iou_near_forecast', 1),
    ('  nothing moves', 'iou_near_static', 1),
    ('IoU far (%)', 'iou_far_forecast', 1),
    ('  nothing moves', 'iou_far_static', 1))


def table(report: dict[str, Any]) -> str:
    """Return the report as lines for a terminal."""
    lines = [f'{report["n_forecasts"]} forecasts ({report["n_invalid"]} invalid, '
             f'{report["n_without_odometry"]} without odometry), held against what was seen later '
             f'{report["n_pairs"]} times; agreement with itself, not accuracy', '',
             f'{"":<30}' + ''.join(f'{s + " s":>9}' for s in report['by_horizon'])]
    for label, key, digits in _ROWS:
        values = [horizon[key] for horizon in report['by_horizon'].values()]
        lines.append(f'{label:<30}' + ''.join(
            f'{"-" if v is None else format(v, f".{digits}f"):>9}' for v in values))
    lines += ['', *(f'{label:<30}{"-" if report[key] is None else format(report[key], ".4f"):>9}'
                    for label, key in (('occupancy Brier', 'occupancy_brier'),
                                       ('occupancy ECE', 'occupancy_ece')))]
    return '\n'.join(lines)
