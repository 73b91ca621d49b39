"""
Forecasts without labels: what was said at t for t + h, against what the node itself saw at t + h.

Agents are held as a set. The forecast is a Poisson multi-Bernoulli density: every agent that was
forecast is seen again with some probability, at a place drawn from the mixture of its modes, and
new ones may appear anywhere. Its negative log likelihood judges existence, place and covariance at
once, and needs no ids, which a jump would break (Pinho, Fröjd, Svensson: An uncertainty-aware
performance measure for multi-object tracking, IEEE SPL 2021). Occupancy is held cell by cell, by
its log loss.

Both are proper scores: they reward a forecast for being sure. Surprise is another question, how far
what came lies from what was expected: the logarithm of how much likelier the likeliest outcome was
than the one that came. Where that came which the forecast held for likeliest it is 0, however many
road users there are and however unsure it was of them.

docs/evaluation.md has the formulas. What the node never sees cannot surprise it: these scores
compare runs, they are not accuracy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from wm_ros.evaluate.agents import HORIZON_WAYPOINTS, RANGES_M, Detections
from wm_ros.evaluate.calibration import density_rank, mixture_density
from wm_ros.evaluate.occupancy import OCCUPIED_FROM, UNOBSERVED
from wm_ros.geometry import cells_of, relative_pose, se2, transform_points
from wm_ros.types import AGENT_CLASSES, OUTPUT_GRID, TIME_STEP_S, Forecast

#: Horizons in seconds with their waypoint: 1, 2 and 3 s.
HORIZONS_S = tuple(round(steps * TIME_STEP_S) for steps in HORIZON_WAYPOINTS)
#: A forecast for t + h is held against the one whose stamp lies at most this far from it.
TOLERANCE_NS = 60_000_000
#: An agent that exists, on ground that is observed, is found with this probability.
FOUND_AGAIN = 0.9
#: Agents that appear, on a square metre of ground that had been observed.
NEW_PER_M2 = 1e-3
#: Cells under one vehicle (4.5 x 1.9 m) stand or fall together and count once.
FOOTPRINT_CELLS = 34.0
_PATCH_CELLS = 7
#: Agents and cells count up to this distance: the headline range.
RANGE_M = float(RANGES_M[0])
_FULL = 254.0
_METRES_FROM_CELL = np.array([
    [OUTPUT_GRID.cell_m, 0.0, OUTPUT_GRID.x_min_m + OUTPUT_GRID.cell_m / 2],
    [0.0, OUTPUT_GRID.cell_m, OUTPUT_GRID.y_min_m + OUTPUT_GRID.cell_m / 2], [0.0, 0.0, 1.0]])
_CELL_FROM_METRES = np.linalg.inv(_METRES_FROM_CELL)
_CENTRES_M = OUTPUT_GRID.centres_m()
_CODE_P = np.clip(np.arange(256) / _FULL, 0.5 / _FULL, 1 - 0.5 / _FULL)
#: Nats by what was seen (free, occupied) and by the code that was forecast.
_LOG_LOSS = -np.log(np.stack([1 - _CODE_P, _CODE_P]))
#: The same less that of the outcome that the forecast held for likelier.
_SURPRISE = _LOG_LOSS + np.log(np.maximum(_CODE_P, 1 - _CODE_P))


@dataclass(frozen=True)
class Said:
    """What is kept of a forecast until its last horizon has come."""

    stamp_ns: int
    odom_from_base: np.ndarray
    agents: Detections
    #: Covariance of each agent's place, (D, 2, 2).
    spread: np.ndarray
    occupancy: np.ndarray

    @classmethod
    def of(cls, forecast: Forecast) -> Said | None:
        """Return it, None of a forecast that is invalid or does not know where it was made."""
        if not forecast.valid or forecast.odom_from_base is None:
            return None
        spread = np.array([agent.pose_covariance[:2, :2] for agent in forecast.agents], float)
        return cls(forecast.stamp_ns, np.asarray(forecast.odom_from_base, float),
                   Detections.of(forecast), spread.reshape(-1, 2, 2), forecast.occupancy_agents)


@dataclass(frozen=True)
class Event:
    """
    One agent that did what its forecast did not expect, in `base_link` when it was seen.

    `kind` is moved, appeared or vanished; `expected_m` is the likeliest place forecast, `seen_m`
    where it was (None where there is none), `nats` its share of the surprise.
    """

    kind: str
    label: str
    track_id: str
    nats: float
    expected_m: tuple[float, float] | None
    seen_m: tuple[float, float] | None


@dataclass(frozen=True)
class Patch:
    """
    Where occupancy surprised most: the middle of some 3.5 x 3.5 m, in `base_link` when it was seen.

    `nats` is the patch's share in vehicle footprints; `came` says whether it was occupied against
    the forecast, or free against it.
    """

    nats: float
    came: bool
    at_m: tuple[float, float]


@dataclass(frozen=True)
class Held:
    """
    One forecast held against one later moment.

    `made_ns` is the forecast's stamp, `seen_ns` that of what it is held against. Nats: `agent_nll`
    (over `agents` terms), `agent_surprise`, `occupancy_surprise` (in vehicle footprints) and
    `occupancy_log_loss` (sum over `cells`). `followed` holds, a row an agent that was seen again
    under its id: distance in metres of the likeliest path, of the nearest one, of constant
    velocity and of standing still, then the mass of the forecast density above the outcome (0-1).
    `expected` agents were to be in range on observed ground. `events` and `patch` say who and where
    surprised most. `codes`, `first_codes` and `seen_codes` (rows, cols) are the occupancy that was
    forecast, that of the forecast's own stamp and what was seen, in the frame of the forecast.
    """

    made_ns: int
    seen_ns: int
    horizon_s: int
    agent_nll: float
    agents: int
    agent_surprise: float
    occupancy_surprise: float
    occupancy_log_loss: float
    cells: int
    expected: int
    followed: np.ndarray
    events: tuple[Event, ...]
    patch: Patch
    codes: np.ndarray
    first_codes: np.ndarray
    seen_codes: np.ndarray

    @property
    def surprise(self) -> float:
        """Nats of agents and occupancy together."""
        return self.agent_surprise + self.occupancy_surprise


class SelfScorer:
    """Holds each forecast against those made 1, 2 and 3 s before it; takes them in order."""

    def __init__(self) -> None:
        self._said: deque[Said] = deque()

    def add(self, forecast: Forecast) -> list[Held]:
        """Return what the earlier forecasts said of this moment, nearest horizon first."""
        now = Said.of(forecast)
        if now is None:
            return []
        if self._said and now.stamp_ns <= self._said[-1].stamp_ns:
            self._said.clear()      # the bag begins anew
        oldest = now.stamp_ns - HORIZONS_S[-1] * 1_000_000_000 - TOLERANCE_NS
        while self._said and self._said[0].stamp_ns < oldest:
            self._said.popleft()
        held = []
        for seconds, steps in zip(HORIZONS_S, HORIZON_WAYPOINTS, strict=True):
            wanted = now.stamp_ns - seconds * 1_000_000_000
            earlier = min(self._said, key=lambda said, w=wanted: abs(said.stamp_ns - w),
                          default=None)
            if earlier is not None and abs(earlier.stamp_ns - wanted) <= TOLERANCE_NS:
                held.append(hold(earlier, now, seconds, steps))
        self._said.append(now)
        return held


def hold(earlier: Said, now: Said, seconds: int, steps: int) -> Held:
    """Hold what `earlier` said for `seconds` (waypoint `steps`) ahead against `now`."""
    earlier_from_now = relative_pose(earlier.odom_from_base, now.odom_from_base)
    seen_codes = warped(now.occupancy[0], earlier_from_now)
    # Where somebody would be at the horizon itself, not a few milliseconds beside it.
    ahead_s = (earlier.stamp_ns - now.stamp_ns) / 1e9 + seconds
    seen = transform_points(earlier_from_now,
                            now.agents.poses[:, :2] + now.agents.velocities * ahead_s)
    c, s = np.cos(earlier_from_now[2]), np.sin(earlier_from_now[2])
    turn = np.array([[c, -s], [s, c]])
    spread = turn @ now.spread @ turn.T
    codes = earlier.occupancy[steps]
    place = earlier_from_now[:2]
    agents = _Set(earlier, now, steps, seen, spread, place, seen_codes)
    near = np.linalg.norm(_CENTRES_M - place, axis=-1) <= RANGE_M
    known = near & (codes != UNOBSERVED) & (seen_codes != UNOBSERVED)
    occupied = (seen_codes >= OCCUPIED_FROM) & known
    pair = occupied[known].astype(int), codes[known]
    surprise = np.zeros(codes.shape, np.float32)
    surprise[known] = _SURPRISE[pair]
    now_from_earlier = relative_pose(earlier_from_now, np.zeros(3))
    return Held(
        earlier.stamp_ns, now.stamp_ns, seconds, agents.nll, agents.terms, agents.surprise,
        float(surprise.sum()) / FOOTPRINT_CELLS, float(_LOG_LOSS[pair].sum()),
        int(known.sum()), agents.expected, agents.followed(seconds),
        tuple(agents.events(now_from_earlier)), _patch(surprise, occupied, now_from_earlier),
        codes, earlier.occupancy[0], seen_codes)


def _patch(surprise: np.ndarray, occupied: np.ndarray, now_from_earlier: np.ndarray) -> Patch:
    """Return the square of `_PATCH_CELLS` cells that holds most of the surprise."""
    size = (_PATCH_CELLS, _PATCH_CELLS)
    total = cv2.boxFilter(surprise, -1, size, normalize=False)
    row, col = np.unravel_index(np.argmax(total), total.shape)
    came = cv2.boxFilter(surprise * occupied, -1, size, normalize=False)[row, col]
    x, y = transform_points(now_from_earlier, _CENTRES_M[row, col])
    return Patch(round(float(total[row, col]) / FOOTPRINT_CELLS, 2),
                 bool(came > total[row, col] / 2), (round(float(x), 1), round(float(y), 1)))


def warped(layer: np.ndarray, earlier_from_now: np.ndarray) -> np.ndarray:
    """Return a layer of codes (rows, cols) in the frame of an earlier vehicle; 255 beyond it."""
    forward = _CELL_FROM_METRES @ se2(*earlier_from_now) @ _METRES_FROM_CELL
    return cv2.warpAffine(layer, forward[:2], OUTPUT_GRID.shape[::-1], flags=cv2.INTER_NEAREST,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=UNOBSERVED)


def observed_at(codes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Say which points (..., 2) lie in the grid on ground that these codes call observed."""
    row, col = cells_of(OUTPUT_GRID, points)
    inside = (row >= 0) & (row < OUTPUT_GRID.rows) & (col >= 0) & (col < OUTPUT_GRID.cols)
    return inside & (codes[row.clip(0, OUTPUT_GRID.rows - 1),
                           col.clip(0, OUTPUT_GRID.cols - 1)] != UNOBSERVED)


class _Set:
    """The agents of one forecast and of one later moment, matched, in the forecast's frame."""

    def __init__(self, earlier: Said, now: Said, steps: int, seen: np.ndarray,
                 spread: np.ndarray, place: np.ndarray, seen_codes: np.ndarray) -> None:
        then = earlier.agents
        self._then, self._now, self._seen = then, now.agents, seen
        self._means = then.trajectories[:, :, steps - 1]                 # (D, K, 2)
        covariances = (np.zeros((*self._means.shape, 2)) if then.covariances is None
                       else then.covariances[:, :, steps - 1])
        best = np.argmax(then.probabilities, axis=1) if len(then) else np.zeros(0, int)
        self._expected_m = self._means[np.arange(len(then)), best].reshape(-1, 2)
        # (D, K, M, 2, 2): the place that was seen is itself uncertain.
        both = covariances[:, :, None] + spread[None, None]
        shown = (then.probabilities * observed_at(seen_codes, self._means)).sum(axis=1)
        self._found = np.minimum(then.scores * FOUND_AGAIN * shown, 0.999)
        self._shown = shown >= 0.5
        density, peak, self._rank_parts = self._densities(both)
        with np.errstate(divide='ignore'):
            log_density = np.log(np.maximum(density, 1e-300))
            log_peak = np.log(np.maximum(peak, 1e-300))
            log_found = np.log(np.maximum(self._found, 1e-12))
        existing = self._now.scores
        self._missed = -np.log1p(-self._found)                            # (D,)
        self._new = np.full(len(seen), -np.log(NEW_PER_M2))               # (M,)
        # Expected over whether what was seen is there at all: its score.
        together = (existing * (-log_found[:, None] - log_density)
                    + (1 - existing) * self._missed[:, None])
        apart = self._missed[:, None] + existing * self._new
        self._partner = _assign(apart - together)                         # (D,), -1 for none
        self._moved = np.maximum(existing * (log_peak - log_density), 0.0)
        self._sum(together, existing, place, earlier)

    def _densities(self, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the density at what was seen and at the likeliest place, (D, M) each."""
        d, k, m = covariances.shape[:3]
        pairs = d * m
        means = np.repeat(self._means[:, None], m, axis=1).reshape(pairs, k, 2)
        weights = np.repeat(self._then.probabilities[:, None], m, axis=1).reshape(pairs, k)
        matrices = np.moveaxis(covariances, 2, 1).reshape(pairs, k, 2, 2)
        points = np.tile(self._seen, (d, 1)).reshape(pairs, 1, 2)
        if not pairs:
            return np.zeros((d, m)), np.zeros((d, m)), matrices
        density = mixture_density(points, means, matrices, weights).reshape(d, m)
        # The mode of a Gaussian mixture lies at, or very near, one of its means.
        peak = mixture_density(means, means, matrices, weights).max(axis=1).reshape(d, m)
        return density, peak, matrices.reshape(d, m, k, 2, 2)

    def _sum(self, together: np.ndarray, existing: np.ndarray, place: np.ndarray,
             earlier: Said) -> None:
        """Add up what lies within the range; what stood on unseen ground could not be forecast."""
        new = np.setdiff1d(np.arange(len(self._seen)), self._partner)
        in_reach = np.linalg.norm(self._seen - place, axis=1) <= RANGE_M
        known = observed_at(earlier.occupancy[0], self._seen)
        self._new_judged = [j for j in new if in_reach[j] and known[j]]
        close = np.linalg.norm(self._expected_m - place, axis=1) <= RANGE_M
        pairs = [(i, j) for i, j in enumerate(self._partner) if j >= 0]
        self._pairs = [(i, j) for i, j in pairs if in_reach[j]]
        self._gone = [i for i, j in enumerate(self._partner) if j < 0 and close[i]]
        self.nll = float(sum(together[i, j] for i, j in self._pairs)
                         + sum(self._missed[i] for i in self._gone)
                         + sum(existing[j] * self._new[j] for j in self._new_judged))
        self.terms = len(self._pairs) + len(self._gone) + len(self._new_judged)
        self.surprise = float(sum(self._moved[i, j] for i, j in self._pairs)
                              + sum(self._missed[i] for i in self._gone)
                              + sum(existing[j] * self._new[j] for j in self._new_judged))
        self._close = close

    @property
    def expected(self) -> int:
        """How many agents were to be in range, rather on observed ground than not."""
        return int((self._close & self._shown).sum())

    def followed(self, seconds: int) -> np.ndarray:
        """Return the rows of `Held.followed`, of agents whose id is there again."""
        later = {track: j for j, track in enumerate(self._now.track_ids)}
        pairs = [(i, later[track]) for i, track in enumerate(self._then.track_ids)
                 if track in later and self._close[i] and self._shown[i]]
        if not pairs:
            return np.zeros((0, 5))
        i, j = np.array(pairs).T
        outcome = self._seen[j]
        paths = np.linalg.norm(self._means[i] - outcome[:, None], axis=-1)
        still = self._then.poses[i, :2]
        moving = still + self._then.velocities[i] * seconds
        rank = density_rank(outcome, self._means[i], self._rank_parts[i, j],
                            self._then.probabilities[i])
        return np.stack([np.linalg.norm(self._expected_m[i] - outcome, axis=-1),
                         paths.min(axis=1), np.linalg.norm(moving - outcome, axis=-1),
                         np.linalg.norm(still - outcome, axis=-1), rank], axis=1)

    def events(self, now_from_earlier: np.ndarray) -> Iterator[Event]:
        """Yield what surprised by a nat or more, most first, in the frame of the later vehicle."""
        def place(point: np.ndarray) -> tuple[float, float]:
            x, y = transform_points(now_from_earlier, point)
            return round(float(x), 2), round(float(y), 2)

        found = [(self._moved[i, j], 'moved', i, j) for i, j in self._pairs]
        found += [(self._missed[i], 'vanished', i, None) for i in self._gone]
        found += [(self._now.scores[j] * self._new[j], 'appeared', None, j)
                  for j in self._new_judged]
        for nats, kind, i, j in sorted(found, key=lambda entry: -entry[0]):
            if nats < 1.0:
                return
            source, row = (self._then, i) if i is not None else (self._now, j)
            yield Event(kind, AGENT_CLASSES[source.classes[row]], source.track_ids[row].hex(),
                        round(float(nats), 2), None if i is None else place(self._expected_m[i]),
                        None if j is None else place(self._seen[j]))


def _assign(gain: np.ndarray) -> np.ndarray:
    """
    Return for each row its column, -1 for none: the largest gain first, none that loses.

    Greedy, so the likelihood is a lower bound of that of the best assignment; equal gains go to
    the first row.
    """
    partner = np.full(gain.shape[0], -1, dtype=np.int64)
    left = np.array(gain, dtype=np.float64)
    while left.size:
        row, col = np.unravel_index(np.argmax(left), left.shape)
        if not left[row, col] > 0:
            break
        partner[row] = col
        left[row], left[:, col] = -np.inf, -np.inf
    return partner
