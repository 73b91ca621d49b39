"""
Raw outputs of the rollout graph -> agents, occupancy and road layout, in NumPy.

Everything that leaves here is finite and within physical bounds, or a `OutputError` says what was
not: INT8 kernels turn broken input into plausible numbers, so this is the last of several checks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from wm_ros.choices import Choices, existence_probability
from wm_ros.footprints import MAX_FLOW_M, footprints
from wm_ros.runtime.contract import COMPANIONS, MAX_AGENTS
from wm_ros.types import AGENT_CLASSES, HORIZON_STEPS, MODES, OUTPUT_GRID, ROAD_LAYERS

#: An agent's centre lies on the grid, give or take; nothing drives or grows beyond these.
MAX_CENTRE_M = 75.0
MAX_WAYPOINT_M = 500.0
MAX_SPEED_MPS = 100.0
MAX_LOGIT = 1e4
#: Length, width, height are held to these.
MIN_SIZE_M = np.array([0.2, 0.2, 0.3], dtype=np.float32)
MAX_SIZE_M = np.array([25.0, 4.0, 5.0], dtype=np.float32)
_LOG_SIZE = np.log(MIN_SIZE_M), np.log(MAX_SIZE_M)
#: Log standard deviations are held to 1 cm .. 50 m; the correlation short of singular.
LOG_SIGMA = (-4.6, 3.9)
MAX_CORRELATION = 0.98
#: Two boxes nearer than this are one road user; those on foot may stand closer. So are two where
#: the less likely one's centre lies well inside the other's box (this share of its sides).
DUPLICATE_M = 1.0
DUPLICATE_ON_FOOT_M = 0.5
DUPLICATE_INSIDE = 0.8
#: Rows of the raw outputs from here on are companions of the ones before, if a model has any.
FIRST_COMPANION = MAX_AGENTS - COMPANIONS
#: From here on motion tells which end of a road user is its front.
MOVING_MPS = 0.5
NEUTRAL = Choices()
ON_FOOT = np.array([name in ('pedestrian', 'animal') for name in AGENT_CLASSES])
UNOBSERVED = 255


class OutputError(ValueError):
    """An output that is not finite or beyond physical bounds."""


@dataclass(frozen=True)
class AgentTable:
    """
    The agents of one plan as rows, highest score first, in `base_link` at the stamp.

    Fields as in `types.AgentForecast`, with a leading axis of A agents. `score` is the probability
    that there is somebody.
    """

    score: np.ndarray                # (A,)
    class_probabilities: np.ndarray  # (A, 8)
    pose: np.ndarray                 # (A, 3)
    pose_covariance: np.ndarray      # (A, 3, 3)
    velocity_mps: np.ndarray         # (A, 2)
    twist_covariance: np.ndarray     # (A, 2, 2)
    size_m: np.ndarray               # (A, 3)
    trajectories_m: np.ndarray       # (A, K, T, 2)
    mode_probabilities: np.ndarray   # (A, K)
    covariances_m2: np.ndarray       # (A, K, T, 2, 2)

    def __len__(self) -> int:
        return len(self.score)

    def above(self, score: float) -> AgentTable:
        """Return the rows of a score of at least `score`."""
        count = np.count_nonzero(self.score >= score)
        return AgentTable(*(getattr(self, field.name)[:count] for field in fields(self)))


@dataclass(frozen=True)
class Layers:
    """The dense layers of one plan, coded as in `types.Forecast`."""

    occupancy_agents: np.ndarray  # (T + 1, Y, X) uint8
    occupancy_static: np.ndarray  # (Y, X) uint8
    flow: np.ndarray              # (T + 1, 2, Y, X) float32
    road: np.ndarray              # (3, Y, X) uint8


def check_outputs(outputs: Mapping[str, np.ndarray]) -> None:
    """Raise OutputError where any raw output is NaN, infinite or absurd, naming it."""
    for name, array in outputs.items():
        limit = MAX_FLOW_M if name == 'flow' else MAX_LOGIT
        # NaN passes through minimum and maximum and fails both comparisons.
        low, high = array.min(), array.max()
        if not (low >= -limit and high <= limit):
            raise OutputError(f'output {name}: {low:g} to {high:g}, want -{limit:g} to {limit:g}')


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def decode_agents(outputs: Mapping[str, np.ndarray], plan: int, score_threshold: float,
                  choices: Choices = NEUTRAL,
                  first_companion: int = FIRST_COMPANION) -> AgentTable:
    """
    Return the agents of one plan whose score reaches the threshold, without duplicates.

    `outputs` as `contract.graph_specs()['rollout'].outputs`; `choices` are the artifact's; rows
    from `first_companion` on are companions. Who is there does not depend on who is below the
    threshold.
    """
    score = existence_probability(outputs['agent_score'][plan], choices.existence)
    keep = np.flatnonzero(score >= score_threshold)
    keep = keep[np.argsort(-score[keep], kind='stable')]
    box = outputs['agent_box'][plan][keep]                                  # (A, 9)
    classes = softmax(outputs['agent_class'][plan][keep])                   # (A, 8)
    alone = without_duplicates(box, ON_FOOT[classes.argmax(axis=-1)], keep >= first_companion)
    keep, box, classes = keep[alone], box[alone], classes[alone]
    sigma = np.exp(_held(outputs['agent_log_sigma'][plan][keep], *LOG_SIGMA))
    modes = softmax(outputs['mode_logits'][plan][keep])                     # (A, K)
    order = np.argsort(-modes, axis=-1, kind='stable')
    rows = np.arange(len(keep))[:, None]
    waypoints = outputs['trajectories'][plan][keep][rows, order]            # (A, K, T, 2)
    spread = outputs['trajectory_spread'][plan][keep][rows, order]          # (A, K, T, 3)
    # Front and back look much alike; where it clearly moves, the motion tells them apart.
    backward = box[:, 3] * box[:, 7] + box[:, 2] * box[:, 8] < -MOVING_MPS
    pose = box[:, :3].copy()
    np.arctan2(*np.where(backward, -box[:, 2:4].T, box[:, 2:4].T), out=pose[:, 2])
    size = np.exp(_held(box[:, 4:7], *_LOG_SIZE))
    return AgentTable(
        score[keep], classes, pose,
        sigma[:, :3, None] ** 2 * np.eye(3, dtype=np.float32), box[:, 7:9],
        sigma[:, 3:, None] ** 2 * np.eye(2, dtype=np.float32), size,
        waypoints, modes[rows, order],
        _covariances(spread, np.log(np.array(choices.spread, dtype=np.float32))))


def _held(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Return `np.clip(values, low, high)`, without what takes it longer for so few."""
    return np.minimum(np.maximum(values, low), high)


def check_agents(agents: AgentTable) -> None:
    """Raise OutputError for an agent beyond physical bounds."""
    _bounded('agent centre', agents.pose[:, :2], MAX_CENTRE_M, 'm')
    _bounded('agent velocity', agents.velocity_mps, MAX_SPEED_MPS, 'm/s')
    _bounded('waypoint', agents.trajectories_m, MAX_WAYPOINT_M, 'm')


def _bounded(what: str, values: np.ndarray, limit: float, unit: str) -> None:
    worst = float(np.abs(values).max(initial=0.0))
    if not worst <= limit:
        raise OutputError(f'{what}: {worst:g} {unit}, want at most {limit:g} {unit}')


def without_duplicates(box: np.ndarray, on_foot: np.ndarray,
                       companion: np.ndarray | None = None) -> np.ndarray:
    """
    Return the rows (A, 9) that no earlier kept row lies too near to; rows come best first.

    On foot, a companion is no double of the nearest peak before it, nor of that one's other
    companions, however near they are: it is there because the two were seen as one. Vehicles do
    not stand in each other. A companion goes where that peak goes.
    """
    x, y = box[:, 0], box[:, 1]
    dx, dy = x - x[:, None], y - y[:, None]                               # from row to column
    away_m = np.hypot(dx, dy)
    radius = np.where(on_foot[:, None] & on_foot, DUPLICATE_ON_FOOT_M, DUPLICATE_M)
    sin, cos = box[:, 2, None], box[:, 3, None]
    half = 0.5 * DUPLICATE_INSIDE * np.exp(np.minimum(box[:, 4:6], _LOG_SIZE[1][:2]))
    inside = ((np.abs(cos * dx + sin * dy) < half[:, :1])
              & (np.abs(cos * dy - sin * dx) < half[:, 1:]))
    near = (away_m < radius) | inside
    if companion is not None and companion.any() and not companion.all():
        peaks = np.flatnonzero(~companion)
        owner = np.arange(len(box))
        # Of the peaks before it: its own is, and who is less likely than it has no say.
        before = peaks < np.flatnonzero(companion)[:, None]
        owner[companion] = peaks[np.where(before, away_m[np.ix_(companion, peaks)],
                                          np.inf).argmin(axis=1)]
        strangers = owner[:, None] != owner
        near = ((near & (strangers | ~(on_foot[:, None] & on_foot)))
                | (near[:, owner] & companion & strangers))
    rows = np.arange(len(box))
    near &= rows > rows[:, None]
    alive = np.ones(len(box), dtype=bool)
    for row in np.flatnonzero(near.any(axis=1)):
        if alive[row]:
            alive[near[row]] = False
    return np.flatnonzero(alive)


def _covariances(spread: np.ndarray, log_factors: np.ndarray) -> np.ndarray:
    """
    Return 2x2 matrices (..., T, 2, 2) of log sigma x, log sigma y, atanh correlation (..., T, 3).

    Standard deviations are widened by a factor a step, `log_factors` (T,): calibration after
    training (Guo et al., ICML 2017; for regression Levi et al., Sensors 2022).
    """
    sigma = np.exp(_held(spread[..., :2] + log_factors[:, None], *LOG_SIGMA))
    rho = _held(np.tanh(spread[..., 2]), -MAX_CORRELATION, MAX_CORRELATION)
    out = np.empty((*spread.shape[:-1], 2, 2), dtype=np.float32)
    out[..., (0, 1), (0, 1)] = sigma ** 2
    out[..., 0, 1] = out[..., 1, 0] = rho * sigma[..., 0] * sigma[..., 1]
    return out


def probability(logits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the float32 sigmoid, computed in `out` or in one new array."""
    out = np.negative(logits, out=out)
    with np.errstate(over='ignore'):  # exp of a large number is inf, and 1 / inf the right 0
        np.exp(out, out=out)
    out += np.float32(1)
    return np.divide(np.float32(1), out, out=out)


def coded(probabilities: np.ndarray) -> np.ndarray:
    """Return round(254 * p) as uint8; `probabilities` are overwritten."""
    probabilities *= np.float32(254)
    probabilities += np.float32(0.5)
    return probabilities.astype(np.uint8)


_own = threading.local()


def _workspace(*shape: int) -> np.ndarray:
    """
    Return float32 memory of this thread, up to (T + 1, Y, X); what it held before is gone.

    In memory that is new every time the kernel would hand out the maps page by page, which takes
    several times as long as what is computed in them.
    """
    if not hasattr(_own, 'memory'):
        _own.memory = np.empty((HORIZON_STEPS + 1, *OUTPUT_GRID.shape), np.float32).reshape(-1)
    return _own.memory[:math.prod(shape)].reshape(shape)


@dataclass(frozen=True)
class Ground:
    """What is the same under every plan: which ground is hidden, static ground and road layout."""

    hidden: np.ndarray            # (Y, X) uint8, all bits set where not observed
    occupancy_static: np.ndarray  # (Y, X) uint8
    road: np.ndarray              # (3, Y, X) uint8


def decode_ground(outputs: Mapping[str, np.ndarray], observed: np.ndarray) -> Ground:
    """
    Return static ground and road layout, 255 where not `observed` (200, 200) bool.

    Static ground is what a static obstacle stands on or what cannot be driven on:
    1 - (1 - p(static obstacle)) * p(drivable).
    """
    # All bits set is UNOBSERVED: 80 times faster than assigning through a mask.
    hidden = np.where(observed, np.uint8(0), np.uint8(UNOBSERVED))
    layout = probability(outputs['road'], _workspace(*outputs['road'].shape))    # (3, Y, X)
    free = layout[ROAD_LAYERS.index('drivable')] * (
        1 - layout[ROAD_LAYERS.index('static_obstacle')])
    static, road = coded(1 - free), coded(layout)
    for layer in (static, road):
        np.bitwise_or(layer, hidden, out=layer)
    return Ground(hidden, static, road)


def decode_layers(outputs: Mapping[str, np.ndarray], plan: int, ground: Ground,
                  agents: AgentTable | None = None,
                  weights: tuple[float, float] = NEUTRAL.occupancy_weights) -> Layers:
    """
    Return the dense layers of one plan over `ground`.

    Occupancy is weights[0] times the dense head's and weights[1] times what the boxes of `agents`
    cover (`footprints`), which should hold all of an existence of `footprints.DRAWN_FROM` on; where
    an agent surely stands, the flow is its motion, and ground that is not observed is told to be
    occupied.
    """
    logits, flow = outputs['occupancy'][plan], outputs['flow'][plan].copy()
    occupancy = probability(logits, _workspace(*logits.shape))
    dense, boxes = weights
    if dense != 1:
        occupancy *= np.float32(dense)
    drawn = footprints(agents) if agents is not None and boxes > 0 else None
    if drawn is not None:
        drawn.add_to(occupancy, boxes)
        drawn.write_flow(flow)
    occupied = coded(occupancy)
    np.bitwise_or(occupied, ground.hidden, out=occupied)
    if drawn is not None:
        drawn.write_hidden(occupied, UNOBSERVED)
    return Layers(occupied, ground.occupancy_static, flow, ground.road)


def observed_ground(outputs: Mapping[str, np.ndarray], observed_threshold: float,
                    seen: np.ndarray) -> np.ndarray:
    """Return bool (200, 200): the model says observed and some camera has it in its picture."""
    return (outputs['observed'] >= observed_threshold) & seen


def no_agents() -> AgentTable:
    """Return a table without rows."""
    def empty(*shape: int) -> np.ndarray:
        return np.zeros((0, *shape), dtype=np.float32)
    return AgentTable(empty(), empty(len(AGENT_CLASSES)), empty(3), empty(3, 3), empty(2),
                      empty(2, 2), empty(3), empty(MODES, HORIZON_STEPS, 2), empty(MODES),
                      empty(MODES, HORIZON_STEPS, 2, 2))


def nothing_observed() -> Layers:
    """Return layers that say of no ground that it was observed."""
    steps, shape = HORIZON_STEPS + 1, OUTPUT_GRID.shape
    return Layers(np.full((steps, *shape), UNOBSERVED, dtype=np.uint8),
                  np.full(shape, UNOBSERVED, dtype=np.uint8),
                  np.zeros((steps, 2, *shape), dtype=np.float32),
                  np.full((len(ROAD_LAYERS), *shape), UNOBSERVED, dtype=np.uint8))
