"""
From sums a drive to a report: `Scores` pools drives, gives intervals and writes stable keys.

Everything that is measured is a sum over forecasts, kept by drive under the name of who said it
(the model, a baseline on the model's boxes, an oracle on truth), so that any rate, its interval and
any paired difference come from the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_ros.evaluate import (
    agents,
    baselines,
    calibration,
    detection,
    metrics,
    occupancy,
    panoptic,
)
from wm_ros.evaluate.bootstrap import Difference, draw_weights, interval, paired_bootstrap
from wm_ros.types import AGENT_CLASSES, HORIZON_STEPS, TIME_STEP_S, Forecast, Truth

MODEL = 'model'
BASELINES = baselines.NAMES
ORACLES = tuple(f'oracle_{name}' for name in baselines.NAMES)

#: Detections from this score on are drawn in the curve of precision over recall, whatever the
#: threshold is.
CURVE_FROM = 0.05

Counts = dict[str, np.ndarray]
_CHUNK = 200


class DriveCounter:
    """Counts the forecasts of one drive, in order of their stamps, against their truths."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.counts: dict[str, Counts] = {}
        self.forecasts = self.invalid = 0
        #: Numbers of the visible agents within 30 m.
        self.tracks: set[int] = set()
        self._seen_turns = baselines.TurnRates()
        self._true_turns = baselines.TurnRates()

    def add(self, forecast: Forecast, truth: Truth) -> None:
        """Add one forecast; an invalid one says nothing, so all of its agents are missed."""
        if forecast.stamp_ns != truth.stamp_ns:
            raise ValueError(f'score: a forecast of {forecast.stamp_ns} ns, want {truth.stamp_ns} '
                             'ns as the truth')
        self.forecasts += 1
        self.invalid += not forecast.valid
        everything = agents.Detections.of(forecast)
        odom_yaw = None if forecast.odom_from_base is None else float(forecast.odom_from_base[2])
        turns = self._seen_turns.update(forecast.stamp_ns, list(everything.track_ids),
                                        everything.poses[:, 2], odom_yaw)
        near = truth.visible & agents.in_range(truth.poses[:, :2], agents.RANGES_M[0])
        self.tracks.update(int(i) for i in truth.ids[near])
        kept = everything.scores >= self.threshold
        detections = everything.above(self.threshold)
        occupied, scored = occupancy.truth_occupancy(truth)
        instances = panoptic.instances_of_truth(truth)
        codes = (forecast.occupancy_agents if forecast.valid
                 else np.full_like(forecast.occupancy_agents, occupancy.UNOBSERVED))
        self._sum(MODEL, agents.count_agents(detections, truth)
                  | agents.count_scores(everything, truth)
                  | detection.count_detection(everything, self.threshold, truth)
                  | calibration.count_calibration(detections, truth)
                  | occupancy.count_occupancy(codes, occupied, scored)
                  | occupancy.count_flow(forecast.flow if forecast.valid
                                         else np.zeros_like(forecast.flow), truth)
                  | panoptic.count_panoptic(
                      panoptic.instances_of_flow(codes, forecast.flow, detections), instances,
                      scored))
        for name in BASELINES:
            told, future = baselines.baseline_detections(name, detections, turns[kept])
            boxes = baselines.box_occupancy(told, future)
            self._sum(name, agents.count_agents(told, truth)
                      | occupancy.count_occupancy(boxes, occupied, scored)
                      | panoptic.count_panoptic(panoptic.instances_of_boxes(told, future),
                                                instances, scored))
        self._add_oracles(truth)

    def _add_oracles(self, truth: Truth) -> None:
        turns = self._true_turns.update(truth.stamp_ns, [int(i) for i in truth.ids],
                                        truth.poses[:, 2], float(truth.ego.odom_from_base[2]))
        for name, oracle in zip(BASELINES, ORACLES, strict=True):
            self._sum(oracle, agents.count_agents(
                baselines.oracle_detections(name, truth, turns), truth))

    def _sum(self, name: str, counts: Counts) -> None:
        mine = self.counts.setdefault(name, {})
        for key, value in counts.items():
            mine[key] = mine[key] + value if key in mine else value


class Scores:
    """The counts of many drives, and what follows from them."""

    def __init__(self, drives: list[DriveCounter], names: list[str] | None = None) -> None:
        """Take counted drives and their names; those without a forecast are left out."""
        names = [str(i) for i in range(len(drives))] if names is None else names
        used = [(drive, name) for drive, name in zip(drives, names, strict=True)
                if drive.forecasts]
        if not used:
            raise ValueError('scores: want at least one drive with a forecast, got none')
        self._drives, self._names = map(list, zip(*used, strict=True))
        self._draws: dict[int, dict[str, np.ndarray]] = {}

    @property
    def n_drives(self) -> int:
        return len(self._drives)

    def per_drive(self, name: str, key: str) -> np.ndarray:
        """Return one count of every drive, (drives, ...); 0 for a drive without it."""
        values = [drive.counts[name].get(key) for drive in self._drives]
        shape = next(value.shape for value in values if value is not None)
        return np.array([np.zeros(shape) if value is None else value for value in values])

    def rates(self, name: str, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """
        Return all rates of one source, of all drives or of each bootstrap draw.

        `weights` (draws, drives) says how often each drive counts.
        """
        if weights is None:
            weights = np.ones((1, self.n_drives))
        elif len(weights) > _CHUNK:  # a histogram a draw: all draws at once would not be small
            parts = [self.rates(name, weights[at:at + _CHUNK])
                     for at in range(0, len(weights), _CHUNK)]
            return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        keys = {key for drive in self._drives for key in drive.counts[name]}
        counts = {key: np.tensordot(weights, self.per_drive(name, key), axes=1)
                  for key in sorted(keys)}
        rates = agents.agent_scores(counts)
        if 'occupancy' in counts:
            rates |= occupancy.occupancy_scores(counts) | panoptic.panoptic_scores(counts)
        if 'misses' in counts:
            rates |= detection.detection_scores(counts)
        if 'existence' in counts:
            rates |= calibration.calibration_scores(counts)
        return rates

    def difference(self, name: str, baseline: str, top: int = 1, horizon: int = 3,
                   group: str = 'all', seed: int = 0) -> Difference:
        """
        Return the SPA points by which `name` leads `baseline` within 30 m, drives paired.

        `top` modes of `name` (a baseline has one), `horizon` 1, 2, 3 in seconds.
        """
        column, range_m = agents.GROUPS.index(group), agents.RANGES_M[0]

        def side(source: str, modes: int) -> np.ndarray:
            right = self.per_drive(source, f'right_{modes}_{range_m}')[:, horizon, column]
            return np.column_stack([
                right, self.per_drive(source, f'futures_{range_m}')[:, column]])

        return paired_bootstrap(side(name, top), side(baseline, 1), seed, scale=100.0)

    def report(self, seed: int = 0) -> dict[str, Any]:
        """
        Return the report as JSON-ready values with stable keys; unknown rates are None.

        SPA and IoU in percent, every other rate 0-1. `ci` holds 95 % bootstrap intervals over
        drives of the headline figures; `differences` the paired lead over each baseline.
        """
        rates = {name: _first(self.rates(name)) for name in (MODEL, *BASELINES, *ORACLES)}
        draws = self._drawn(seed)
        model = rates[MODEL]
        truths, wide, futures = (self.per_drive(MODEL, key).sum(axis=0) for key in (
            f'truths_{agents.RANGES_M[0]}', f'truths_{agents.RANGES_M[1]}',
            f'futures_{agents.RANGES_M[0]}'))
        report = {
            'n_drives': self.n_drives,
            'n_forecasts': sum(drive.forecasts for drive in self._drives),
            'n_invalid': sum(drive.invalid for drive in self._drives),
            'n_tracks': sum(len(drive.tracks) for drive in self._drives),
            'n_agents': int(truths[0]),
            'n_agents_50m': int(wide[0]),
            'n_agents_with_future': int(futures[0]),
            'n_agents_by_group': _by_group(truths.astype(int)),
            'n_agents_with_future_by_group': _by_group(futures.astype(int)),
            'threshold': self._drives[0].threshold,
            **_named(model),
            'oracle_cv_spa': rates['oracle_constant_velocity']['spa_top1'],
            'baselines': {name: _named(rates[name]) for name in BASELINES},
            'oracles': {name: _named(rates[name], SHORT) for name in ORACLES},
            'mix': self._mix(),
            'confusion': self._confusion(),
            'ci': {key: interval(draws[key]) for key in HEADLINE}
            | {key: _named_intervals(key, interval(draws[key])) for key in CURVES_WITH_INTERVALS},
            'differences': self._differences(seed),
            'curves': self._curves(),
            'drives': self._by_drive(),
        }
        return plain(report)

    def against(self, other: Scores, seed: int = 0) -> dict[str, Any]:
        """
        Return the headline figures of two models over the same drives, JSON-ready.

        Each key of `HEADLINE` holds `this`, `other`, their `difference` and `ratio` with 95 %
        intervals that draw the same drives for both. Raises ValueError for other drives.
        """
        if self._names != other._names:
            raise ValueError(f'compare: {self.n_drives} and {other.n_drives} drives that are not '
                             'the same')
        mine, theirs = _first(self.rates(MODEL)), _first(other.rates(MODEL))
        my_draws, their_draws = self._drawn(seed), other._drawn(seed)
        out = {}
        for key in HEADLINE:
            low, high = interval(my_draws[key] - their_draws[key])
            ratio_low, ratio_high = interval(metrics.ratio(my_draws[key], their_draws[key]))
            if np.any(their_draws[key] <= 0):   # EPA may be: such draws have no ratio
                ratio_low = ratio_high = np.nan
            out[key] = {'this': mine[key], 'other': theirs[key],
                        'difference': mine[key] - theirs[key], 'low': low, 'high': high,
                        'excludes_zero': bool(low > 0 or high < 0),
                        'ratio': metrics.ratio(mine[key], theirs[key]), 'ratio_low': ratio_low,
                        'ratio_high': ratio_high}
        return plain(out)

    def _drawn(self, seed: int) -> dict[str, np.ndarray]:
        """Return the model's rates in every bootstrap draw; equal seeds draw equal drives."""
        if seed not in self._draws:
            self._draws[seed] = self.rates(MODEL, draw_weights(self.n_drives, seed))
        return self._draws[seed]

    def _curves(self) -> dict[str, Any]:
        """Return the points of the curves that a page draws, from all drives."""
        wrong, right = self.per_drive(MODEL, 'scores').sum(axis=0)[:, ::-1].cumsum(axis=-1)
        truths = self.per_drive(MODEL, f'truths_{agents.RANGES_M[0]}').sum(axis=0)[0]
        thresholds = np.arange(agents.SCORE_BINS)[::-1] / agents.SCORE_BINS
        told = np.flatnonzero(np.diff(right + wrong, prepend=0) > 0)
        stated, outcome, cases = self.per_drive(MODEL, 'existence').sum(axis=0)
        return {
            'precision_recall': {
                'threshold': thresholds[told], 'recall': metrics.ratio(right, truths)[told],
                'precision': metrics.ratio(right, right + wrong)[told]},
            'existence': {'stated': metrics.ratio(stated, cases),
                          'outcome': metrics.ratio(outcome, cases), 'cases': cases},
            'occupancy': occupancy.reliability(self.per_drive(MODEL, 'occupancy').sum(axis=0))}

    def _by_drive(self) -> list[dict[str, Any]]:
        """Return a few figures of each drive, the worst SPA first."""
        each = self.rates(MODEL, np.eye(self.n_drives))
        truths = self.per_drive(MODEL, f'truths_{agents.RANGES_M[0]}')[:, 0]
        rows = [{'drive': name, 'n_agents': int(truths[i]),
                 **{key: each[key][i] for key in ('spa_top6', 'precision', 'recall')}}
                for i, name in enumerate(self._names)]
        return sorted(rows, key=lambda row: np.nan_to_num(row['spa_top6'], nan=np.inf))

    def _mix(self) -> dict[str, float]:
        """Return the shares of motions and classes among visible agents within 30 m."""
        range_m = agents.RANGES_M[0]
        futures = self.per_drive(MODEL, f'futures_{range_m}').sum(axis=0)
        truths = self.per_drive(MODEL, f'truths_{range_m}').sum(axis=0)
        share = {name: metrics.ratio(futures[agents.GROUPS.index(name)], futures[0])
                 for name in agents.MOTIONS}
        return share | {name: metrics.ratio(truths[agents.GROUPS.index(name)], truths[0])
                        for name in AGENT_CLASSES}

    def _confusion(self) -> dict[str, dict[str, int]]:
        """Return how many found agents of each class were told to be what."""
        counts = self.per_drive(MODEL, 'confusion').sum(axis=0).astype(int)
        return {name: dict(zip(AGENT_CLASSES, row, strict=True))
                for name, row in zip(AGENT_CLASSES, counts, strict=True) if row.any()}

    def _differences(self, seed: int) -> dict[str, Any]:
        """Return the lead in SPA points: by baseline, modes used, horizon; manoeuvring apart."""
        def plain(*case: Any, **choice: Any) -> dict[str, Any]:
            d = self.difference(MODEL, *case, **choice, seed=seed)
            return {'mean': d.mean, 'low': d.low, 'high': d.high,
                    'excludes_zero': d.excludes_zero}

        return {baseline: {f'spa_top{top}': {
            **{seconds: plain(baseline, top, horizon)
               for horizon, seconds in enumerate(_HORIZONS_S) if horizon},
            'manoeuvring_3': plain(baseline, top, group='manoeuvring')} for top in (1, 6)}
            for baseline in (*BASELINES, 'oracle_constant_velocity')}


#: Headline figures: each has an interval, and is compared between models.
HEADLINE = ('spa_top6', 'spa_top1', 'spa_top6_50m', 'spa_top6_moving', 'precision', 'recall',
            'epa', 'min_ade_6', 'min_fde_6', 'miss_rate_6', 'iou_near_to_2s', 'iou_far_to_2s',
            'vpq_near', 'vpq_far', 'brier', 'ece')
CURVES_WITH_INTERVALS = (
    'spa_top6_by_horizon', 'spa_top1_by_horizon', 'spa_top6_by_group', 'spa_top6_by_range',
    'recall_by_range', 'iou_near', 'iou_far', 'covariance_coverage')
SHORT = ('spa_top1', 'spa_top1_50m', 'spa_top1_moving', 'spa_top1_manoeuvring',
         'spa_top1_by_horizon', 'spa_top1_by_group')
_HORIZONS_S = ('0', '1', '2', '3')
_BANDS = tuple(f'{low}-{high}' for low, high in agents.BANDS_M)
_STEPS_S = tuple(f'{TIME_STEP_S * step:g}' for step in range(HORIZON_STEPS + 1))


def _first(rates: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value[0] for key, value in rates.items()}


def _named(rates: dict[str, np.ndarray], only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Give the entries of arrays their names: groups, horizons, steps in seconds, levels."""
    out: dict[str, Any] = {}
    for key, value in rates.items():
        if only is not None and key not in only:
            continue
        if '_by_group' in key:
            out[key] = _by_group(value)
        elif '_by_range' in key:
            out[key] = dict(zip(_BANDS, map(_by_group, value), strict=True))
        elif '_by_horizon' in key:
            out[key] = dict(zip(_HORIZONS_S, value, strict=True))
        elif key == 'covariance_coverage':
            out[key] = {f'{100 * level:g}': dict(zip(_HORIZONS_S[1:], row, strict=True))
                        for level, row in zip(calibration.LEVELS, value, strict=True)}
        elif np.ndim(value) == 1:
            out[key] = dict(zip(_STEPS_S, value, strict=True))
        else:
            out[key] = value
    if 'soft_iou_far' in out:
        out['soft_iou'] = {'near': out.pop('soft_iou_near'), 'far': out.pop('soft_iou_far')}
        out['vpq'] = {'near': out.pop('vpq_near'), 'far': out.pop('vpq_far')}
    return out


def _by_group(values: np.ndarray) -> dict[str, Any]:
    return dict(zip(agents.GROUPS, values, strict=True))


def _named_intervals(key: str, ends: np.ndarray) -> dict[str, Any]:
    """Give the interval (2, ...) of an array that `_named` names the same names."""
    def pair(low: Any, high: Any) -> Any:
        return ({name: pair(low[name], high[name]) for name in low} if isinstance(low, dict)
                else [low, high])

    return pair(*(_named({key: end})[key] for end in ends))


def plain(value: Any) -> Any:
    """Return `value` with NumPy numbers as Python's and NaN as None."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [plain(entry) for entry in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating, np.ndarray)):
        return float(value) if np.isfinite(value) else None
    return value
