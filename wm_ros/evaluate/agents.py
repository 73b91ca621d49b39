"""
Which agents are found, and whether a path of theirs is right: sums over the agents of one forecast.

Rules of the benchmark. Truth agents count when they are visible and within range at the stamp. A
detection takes the nearest visible truth agent within 2 m that none with a higher score has
taken. One that finds only an agent that exists but is not visible counts neither as a hit nor as a
false positive. Range is the truth agent's where there is one, else the detection's own, so an
agent on the border is not missed and invented at once. Paths are judged on agents whose whole
future is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wm_ros.evaluate import metrics
from wm_ros.geometry import wrap_angle
from wm_ros.types import AGENT_CLASSES, HORIZON_STEPS, TIME_STEP_S, Forecast, Truth

#: Ranges in metres; the first is the headline.
RANGES_M = (30, 50)
#: Bands of range in metres that are reported apart, the far end left out.
BANDS_M = ((0, 10), (10, 20), (20, 30), (30, 40), (40, 50))
#: Waypoints of 1, 2 and 3 s.
HORIZON_WAYPOINTS = (2, 4, 6)
#: Scores are counted in this many bins for the curve of precision over recall.
SCORE_BINS = 100
MOTIONS = ('standing', 'steady', 'speeding', 'turning', 'braking', 'starting')
#: Groups of truth agents that are counted apart, in the order of the counts.
GROUPS = ('all', 'moving', 'manoeuvring', *AGENT_CLASSES, *MOTIONS)

STANDING_SPEED_MPS = 0.5
TURN_RAD = np.radians(15.0)
SPEED_CHANGE_MPS = 2.0


@dataclass(frozen=True)
class Detections:
    """
    The agents of one forecast as arrays of equal order, in `base_link` at the stamp.

    `poses` (D, 3), `velocities` (D, 2), `sizes` (D, 3), `trajectories` (D, K, 6, 2) with
    `probabilities` (D, K) and `covariances` (D, K, 6, 2, 2); K is 1 for the baselines, whose
    covariances are None.
    """

    scores: np.ndarray
    track_ids: tuple[bytes, ...]
    classes: np.ndarray
    poses: np.ndarray
    velocities: np.ndarray
    sizes: np.ndarray
    trajectories: np.ndarray
    probabilities: np.ndarray
    covariances: np.ndarray | None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, forecast: Forecast, threshold: float = 0.0) -> Detections:
        """Take the agents of a score at or above `threshold`; none of an invalid forecast."""
        agents = [a for a in forecast.agents if a.score >= threshold] if forecast.valid else []
        n = len(agents)
        modes = len(agents[0].mode_probabilities) if n else 1

        def stack(values: list, *shape: int) -> np.ndarray:
            return np.asarray(values, dtype=np.float64).reshape(n, *shape)

        return cls(
            scores=stack([a.score for a in agents]),
            track_ids=tuple(bytes(a.track_id) for a in agents),
            classes=np.array([int(np.argmax(a.class_probabilities)) for a in agents], dtype=int),
            poses=stack([a.pose for a in agents], 3),
            velocities=stack([a.velocity_mps for a in agents], 2),
            sizes=stack([a.size_m for a in agents], 3),
            trajectories=stack([a.trajectories_m for a in agents], modes, HORIZON_STEPS, 2),
            probabilities=stack([a.mode_probabilities for a in agents], modes),
            covariances=stack([a.covariances_m2 for a in agents], modes, HORIZON_STEPS, 2, 2))

    def above(self, threshold: float) -> Detections:
        """Return those of a score at or above `threshold`."""
        keep = np.flatnonzero(self.scores >= threshold)
        if len(keep) == len(self):
            return self
        return Detections(
            self.scores[keep], tuple(self.track_ids[i] for i in keep), self.classes[keep],
            self.poses[keep], self.velocities[keep], self.sizes[keep], self.trajectories[keep],
            self.probabilities[keep],
            None if self.covariances is None else self.covariances[keep])

    def with_paths(self, paths: np.ndarray) -> Detections:
        """Return the same boxes with one path (D, 6, 2) each, for a baseline."""
        return replace(self, trajectories=paths[:, None], probabilities=np.ones((len(self), 1)),
                       covariances=None)


def match(detections_xy: np.ndarray, scores: np.ndarray, truth_xy: np.ndarray,
          visible: np.ndarray, limit_m: float = metrics.HIT_DISTANCE_M) -> np.ndarray:
    """
    Return for each detection the truth agent that it found, -1 for none; int (D,).

    Greedy by descending score, nearest first, visible agents before others, each taken once.
    Because of the order, the matches among detections above a threshold do not depend on the ones
    below it. nuScenes detection matches in the same way (centre distance, 2 m).
    """
    partner = np.full(len(scores), -1, dtype=np.int64)
    if not len(scores) or not len(truth_xy):
        return partner
    distance = np.linalg.norm(detections_xy[:, None] - truth_xy[None], axis=-1)
    # Within the limit, distances are far below this: any visible agent comes first.
    rank = np.where(distance < limit_m, distance + np.where(visible, 0.0, 1e3), np.inf)
    for i in np.argsort(-scores, kind='stable'):
        nearest = int(np.argmin(rank[i]))
        if np.isfinite(rank[i, nearest]):
            partner[i] = nearest
            rank[:, nearest] = np.inf
    return partner


def motion_of(truth: Truth) -> np.ndarray:
    """
    Return the kind of motion of each truth agent as an index into `MOTIONS`, -1 where unknown.

    Judged by now and the 3 s ahead, as the simulator does. Standing: under 0.5 m/s throughout;
    starting: under 0.5 m/s now, not later; turning: heading changes by 15 degrees or more; braking
    and speeding: slower or faster at the end by 2 m/s or more; else steady. All but standing
    agents are moving; those that turn, brake or start are manoeuvring.
    """
    kinds = np.full(len(truth.ids), -1, dtype=np.int64)
    known = whole_future(truth)
    path = np.concatenate([truth.poses[known, None], truth.futures[known]], axis=1)
    speed = np.linalg.norm(truth.velocities[known], axis=-1)
    later = np.linalg.norm(np.diff(path[..., :2], axis=1), axis=-1) / TIME_STEP_S
    still = speed < STANDING_SPEED_MPS
    turn = np.abs(wrap_angle(path[:, -1, 2] - path[:, 0, 2]))
    kinds[known] = np.select(
        [still & (later < STANDING_SPEED_MPS).all(axis=1), still, turn > TURN_RAD,
         later[:, -1] <= speed - SPEED_CHANGE_MPS, later[:, -1] >= speed + SPEED_CHANGE_MPS],
        [MOTIONS.index(m) for m in ('standing', 'starting', 'turning', 'braking', 'speeding')],
        default=MOTIONS.index('steady'))
    return kinds


def whole_future(truth: Truth) -> np.ndarray:
    """Say of each truth agent whether all six future poses are known; bool (A,)."""
    return np.isfinite(truth.futures).all(axis=(1, 2))


def groups_of(truth: Truth) -> np.ndarray:
    """Say which truth agents belong to which of `GROUPS`; bool (A, G)."""
    motion = motion_of(truth)
    return np.column_stack(
        [np.ones(len(truth.ids), dtype=bool), motion >= 1, motion >= MOTIONS.index('turning')]
        + [truth.classes == i for i in range(len(AGENT_CLASSES))]
        + [motion == i for i in range(len(MOTIONS))])


def in_range(xy: np.ndarray, range_m: float) -> np.ndarray:
    """Say which points (..., 2) of `base_link` lie within `range_m` of its origin."""
    return np.linalg.norm(xy, axis=-1) <= range_m


def count_agents(detections: Detections, truth: Truth) -> dict[str, np.ndarray]:
    """
    Return what is summed over forecasts to score agents.

    Keys carry their range in metres. `truths`, `found`, `futures` (agents with a whole future)
    are (G,) by group; `right_6`, `right_1` (3, G) count found agents with a path of the six (the
    one) most probable that stays right for 1, 2, 3 s; `false_positives` is one number;
    `ade_6`, `fde_6`, `missed_6`, `ended_6` (minFDE_6 under 2 m) sum over `pathed` agents: found
    ones with a whole future.
    """
    partner = match(detections.poses[:, :2], detections.scores, truth.poses[:, :2],
                    truth.visible)
    groups, known = groups_of(truth), whole_future(truth)
    judged = np.flatnonzero((partner >= 0) & truth.visible[partner] & known[partner]
                            if len(truth.ids) else np.zeros(len(detections), dtype=bool))
    agent = partner[judged]
    future = truth.futures[agent, :, :2]
    errors = {k: metrics.displacements(
        metrics.top_modes(detections.trajectories[judged], detections.probabilities[judged], k),
        future) for k in (1, 6)}
    right = {k: np.array([np.ones(len(judged), dtype=bool),
                          *(metrics.path_is_right(error[..., :steps])
                            for steps in HORIZON_WAYPOINTS)])
             for k, error in errors.items()}
    found = np.zeros(len(truth.ids), dtype=bool)
    found[partner[partner >= 0]] = True

    counts = {}
    for range_m in RANGES_M:
        counted = truth.visible & in_range(truth.poses[:, :2], range_m)
        invented = (partner < 0) & in_range(detections.poses[:, :2], range_m)
        near = counted[agent]
        best = errors[6][near]
        counts |= {
            f'truths_{range_m}': groups[counted].sum(axis=0),
            f'found_{range_m}': groups[counted & found].sum(axis=0),
            f'futures_{range_m}': groups[counted & known].sum(axis=0),
            f'false_positives_{range_m}': invented.sum(),
            f'right_6_{range_m}': right[6][:, near] @ groups[agent[near]].astype(np.int64),
            f'right_1_{range_m}': right[1][:, near] @ groups[agent[near]].astype(np.int64),
            f'pathed_{range_m}': near.sum(),
            f'ade_6_{range_m}': metrics.min_ade(best).sum() if near.any() else 0.0,
            f'fde_6_{range_m}': metrics.min_fde(best).sum() if near.any() else 0.0,
            f'missed_6_{range_m}': near.sum() - right[6][-1, near].sum(),
            f'ended_6_{range_m}': (
                (metrics.min_fde(best) < metrics.HIT_DISTANCE_M).sum() if near.any() else 0),
        }
    distance = np.linalg.norm(truth.poses[:, :2], axis=-1)
    band = np.array([(low <= distance) & (distance < high) & truth.visible
                     for low, high in BANDS_M])
    member = groups.astype(np.int64)
    counts |= {'band_truths': band @ member, 'band_found': (band & found) @ member,
               'band_futures': (band & known) @ member,
               **{f'band_right_{k}': (band[:, agent] & right[k][-1]) @ member[agent]
                  for k in (6, 1)}}
    return {key: np.asarray(value, dtype=np.float64) for key, value in counts.items()}


def agent_scores(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return rates from summed counts; leading axes (bootstrap draws) are kept.

    SPA, the share of visible agents in range that are detected and have a right path, is in
    percent, the rest 0-1 and metres. `.._by_horizon` ends in (4,), `.._by_group` in (G,) and
    `.._by_range` in (B, G).
    """
    headline, wide = RANGES_M
    out = {}
    for range_m, suffix in ((headline, ''), (wide, f'_{wide}m')):
        futures = counts[f'futures_{range_m}']
        for k in (6, 1):
            spa = 100 * metrics.ratio(counts[f'right_{k}_{range_m}'], futures[..., None, :])
            out[f'spa_top{k}{suffix}'] = spa[..., -1, 0]
            out[f'spa_top{k}_by_horizon{suffix}'] = spa[..., :, 0]
            out[f'spa_top{k}_moving_by_horizon{suffix}'] = spa[..., :, GROUPS.index('moving')]
            out[f'spa_top{k}_by_group{suffix}'] = spa[..., -1, :]
            out[f'spa_top{k}_moving{suffix}'] = spa[..., -1, GROUPS.index('moving')]
            out[f'spa_top{k}_manoeuvring{suffix}'] = spa[..., -1, GROUPS.index('manoeuvring')]
        found, false = counts[f'found_{range_m}'], counts[f'false_positives_{range_m}']
        recall = metrics.ratio(found, counts[f'truths_{range_m}'])
        pathed = counts[f'pathed_{range_m}']
        out |= {
            f'recall{suffix}': recall[..., 0],
            f'recall_by_group{suffix}': recall,
            f'precision{suffix}': metrics.ratio(found[..., 0], found[..., 0] + false),
            f'epa{suffix}': metrics.end_to_end_prediction_accuracy(
                counts[f'ended_6_{range_m}'], false, futures[..., 0]),
            f'min_ade_6{suffix}': metrics.ratio(counts[f'ade_6_{range_m}'], pathed),
            f'min_fde_6{suffix}': metrics.ratio(counts[f'fde_6_{range_m}'], pathed),
            f'miss_rate_6{suffix}': metrics.ratio(counts[f'missed_6_{range_m}'], pathed)}
    for k in (6, 1):
        out[f'spa_top{k}_by_range'] = 100 * metrics.ratio(counts[f'band_right_{k}'],
                                                          counts['band_futures'])
    out['recall_by_range'] = metrics.ratio(counts['band_found'], counts['band_truths'])
    return out


def found_by(detections: Detections,
             truth: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return what each of D detections found, greedily by score.

    `partner` (D,) the row of the truth or -1, `place` (D, 2) where it counts: the partner's
    place, else its own, metres; `right` (D,) whether the partner is visible.
    """
    partner = match(detections.poses[:, :2], detections.scores, truth.poses[:, :2],
                    truth.visible)
    place = detections.poses[:, :2].copy()
    place[partner >= 0] = truth.poses[partner[partner >= 0], :2]
    right = np.zeros(len(detections), dtype=bool)
    right[partner >= 0] = truth.visible[partner[partner >= 0]]
    return partner, place, right


def count_scores(detections: Detections, truth: Truth) -> dict[str, np.ndarray]:
    """
    Return `scores` (2, bins): detections within 30 m by score, invented ones and right ones.

    Those that found only an agent that is not visible are left out. Greedy matching by score
    makes every bin what it would be under any threshold below it.
    """
    partner, place, right = found_by(detections, truth)
    near = in_range(place, RANGES_M[0])
    bins = np.minimum((detections.scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
    return {'scores': np.array([np.bincount(bins[which], minlength=SCORE_BINS) for which in
                                (near & (partner < 0), near & right)], dtype=np.float64)}
