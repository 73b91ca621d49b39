"""
Parity: the same numbers from every backend, held against fake-quantised PyTorch.

Backends get the very inputs that the reference gets, graph by graph, so that one's rounding does
not feed the next. Where floating point is between INT8 products, equal they cannot be: INT8 rounds
at ties, sums in another order fall on the other side of one, and what follows amplifies it. So
errors are held as distributions. The mean
says whether the numbers are the same at all; the 99.9th percentile, whether a place, a channel or
a step is wrong, which a mean would hide. Both are in units of the output's own spread (standard
deviation over the window), and another window has to be several times further away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wm_ros.choices import Choices, existence_probability
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import Backend

DENSE = {'encode': ('memory', 'skip'), 'fold': ('latent', 'past'),
         'rollout': ('occupancy', 'flow', 'road', 'observed')}
#: What is said of each agent beside its score and paths.
OF_AGENTS = ('agent_class', 'agent_box', 'agent_log_sigma', 'mode_logits', 'trajectory_spread')
#: Agents are the same when their centres are this near.
SAME_AGENT_M = 0.5


@dataclass(frozen=True)
class Tolerance:
    """Largest mean and largest 99.9th percentile of errors, in spreads of the reference."""

    mean: float
    p999: float


@dataclass(frozen=True)
class AgentTolerance:
    """
    Least share of agents found again, largest mean error of scores, of paths and of the rest.

    `rest` is of each of `OF_AGENTS`, in spreads of the reference.
    """

    found: float
    score: float
    path_m: float
    rest: float


#: By the coarsest precision of what a graph multiplies: about three times what a right kernel was
#: seen to do. f16 and bf16 keep 11 and 8 bits of each number. Maps of an exact artifact
#: (`wm_ros.model.quant`) are equal; of another one, ground that no camera sees is one constant a
#: channel, and where that lies on the edge between two INT8 steps, a bias rounded to int32, as ONNX
#: Runtime keeps it, moves all of that ground by a step: 0.035 spreads in the mean with one camera.
#: One wrong channel of 32 is a 99.9th percentile near 1. Flow has a tolerance of its own: it is
#: learnt where somebody is, and over all other ground it says whatever the states make of it.
TOLERANCES = {'f32': {'encode': Tolerance(0.05, 0.4), 'fold': Tolerance(1e-5, 1e-4),
                      'rollout': Tolerance(0.008, 0.1), 'flow': Tolerance(0.008, 0.32)},
              'f16': {'encode': Tolerance(0.05, 0.6), 'fold': Tolerance(0.004, 0.03),
                      'rollout': Tolerance(0.01, 0.12), 'flow': Tolerance(0.015, 0.45)},
              'bf16': {'encode': Tolerance(0.08, 0.8), 'fold': Tolerance(0.006, 0.05),
                       'rollout': Tolerance(0.03, 0.2), 'flow': Tolerance(0.03, 0.45)}}
AGENT_TOLERANCES = {'f32': AgentTolerance(0.99, 1e-3, 0.015, 0.01),
                    'f16': AgentTolerance(0.98, 3e-3, 0.05, 0.03),
                    'bf16': AgentTolerance(0.97, 5e-3, 0.2, 0.1)}
#: Another window's output is over so many times as far away as the same window's.
CONTRAST = 3.0


@dataclass
class Errors:
    """The errors of one dense output over windows."""

    means: list[float] = field(default_factory=list)
    p999s: list[float] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)

    def add(self, found: np.ndarray, wanted: np.ndarray, other: np.ndarray | None) -> None:
        """Take one window; `other` is the reference's output of another one."""
        spread = float(wanted.std()) or 1.0
        error = np.abs(found - wanted).ravel() / spread
        at = int(0.999 * (error.size - 1))
        self.means.append(float(error.mean()))
        self.p999s.append(float(np.partition(error, at)[at]))
        if other is not None:
            self.contrasts.append(float(np.abs(found - other).mean()) / spread)

    def result(self) -> dict[str, float]:
        """Return the mean error, the worst window's 99.9th percentile, the mean contrast."""
        return {'mean': float(np.mean(self.means)), 'p999': float(np.max(self.p999s)),
                'contrast': float(np.mean(self.contrasts)) if self.contrasts else float('nan')}


@dataclass
class AgentErrors:
    """Agents above the artifact's threshold: found again, and how far off."""

    wanted: int = 0
    scores: list[float] = field(default_factory=list)
    paths_m: list[float] = field(default_factory=list)
    rest: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in OF_AGENTS})

    def add(self, found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray],
            choices: Choices) -> None:
        """Take the raw rollout outputs of one window, plan by plan."""
        for plan, scores in enumerate(wanted['agent_score']):
            places = found['agent_box'][plan, :, :2]
            told = existence_probability(scores, choices.existence)
            spreads = {name: wanted[name][plan].std(axis=0) for name in OF_AGENTS}
            for row in np.flatnonzero(told >= choices.score_threshold):
                self.wanted += 1
                gap = np.linalg.norm(places - wanted['agent_box'][plan, row, :2], axis=-1)
                near = int(gap.argmin())
                if gap[near] > SAME_AGENT_M:
                    continue
                self.scores.append(abs(float(found['agent_score'][plan, near] - scores[row])))
                apart = found['trajectories'][plan, near] - wanted['trajectories'][plan, row]
                self.paths_m.append(float(np.linalg.norm(apart, axis=-1).mean()))
                for name, spread in spreads.items():    # of each number over all rows
                    error = np.abs(found[name][plan, near] - wanted[name][plan, row])
                    self.rest[name].append(float((error / np.where(spread > 0, spread, 1)).mean()))

    def result(self) -> dict[str, float]:
        """Return the share found and the mean errors of scores, of paths and of the rest."""
        lists = {'score': self.scores, 'path_m': self.paths_m, **self.rest}
        return {'wanted': self.wanted, 'found': len(self.scores) / max(self.wanted, 1),
                **{key: float(np.mean(values)) if values else float('nan')
                   for key, values in lists.items()}}


class Tee:
    """
    A backend for `Predictor` that runs the reference and holds others against it.

    What it returns is the reference's. Others keep their place and owner; closing closes none.
    """

    name = 'parity'
    channels_last: frozenset[str] = frozenset()

    def __init__(self, artifact: Artifact, reference: Backend, others: Mapping[str, Backend]):
        self._choices = artifact.choices
        self._reference, self._others = reference, dict(others)
        self._first: dict[str, dict[str, np.ndarray]] = {}
        self.precision = reference.precision
        self.notes: list[str] = []
        self.runs: dict[str, int] = defaultdict(int)
        self.errors = {name: {output: Errors() for outputs in DENSE.values() for output in outputs}
                       for name in others}
        self.agents = {name: AgentErrors() for name in others}

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Nothing to load: the backends are."""

    def begin(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Begin nothing: what `run` is given is what is held against each other."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run all on the same inputs; return what the reference says."""
        wanted = self._reference.run(graph, inputs)
        first = self._first.get(graph, {})
        for name, backend in self._others.items():
            found = backend.run(graph, inputs)
            for output in DENSE[graph]:
                self.errors[name][output].add(found[output], wanted[output], first.get(output))
            if graph == 'rollout':
                self.agents[name].add(found, wanted, self._choices)
        if not first:
            self._first[graph] = {output: wanted[output].copy() for output in DENSE[graph]}
        self.runs[graph] += 1
        return wanted

    def close(self) -> None:
        """Close nothing: the backends stay with their owner."""

    def result(self, name: str) -> dict[str, dict[str, float]]:
        """Return the errors of one backend: {output: ...} and `agents`."""
        return {output: errors.result() for output, errors in self.errors[name].items()} | {
            'agents': self.agents[name].result()}


def judge(result: Mapping[str, Mapping[str, float]], precision: Mapping[str, str]) -> list[str]:
    """
    Return what of a backend's errors is out of tolerance; empty for parity.

    `precision` is the backend's: what its floating-point parts run in chooses the tolerance.
    """
    failures = []
    for graph, outputs in DENSE.items():
        kind = precision_class(precision[graph])
        for output in outputs:
            found, tolerance = result[output], TOLERANCES[kind].get(output, TOLERANCES[kind][graph])
            for key, limit in (('mean', tolerance.mean), ('p999', tolerance.p999)):
                if not found[key] <= limit:
                    failures.append(f'{output}: {key} error of {found[key]:.3g} spreads, want at '
                                    f'most {limit:g} ({kind})')
            if not found['contrast'] > CONTRAST * found['mean']:
                failures.append(f'{output}: another window is only {found["contrast"]:.3g} spreads '
                                f'away, want over {CONTRAST * found["mean"]:.3g}')
    kind = precision_class(precision['rollout'])
    limits, agents = AGENT_TOLERANCES[kind], result['agents']
    if not agents['found'] >= limits.found:
        failures.append(f'agents: {100 * agents["found"]:.1f} % of {agents["wanted"]:.0f} found '
                        f'again, want {100 * limits.found:g} %')
    for key, limit in (('score', limits.score), ('path_m', limits.path_m),
                       *((name, limits.rest) for name in OF_AGENTS)):
        if not agents[key] <= limit:
            failures.append(f'agents: mean error of {key} {agents[key]:.3g}, want at most '
                            f'{limit:g}')
    return failures


def precision_class(executed: str) -> str:
    """Return 'bf16' or 'f16' where any of a graph's products keeps so few bits, else 'f32'."""
    parts = executed.split('+')
    return next((kind for kind in ('bf16', 'f16') if kind in parts), 'f32')
