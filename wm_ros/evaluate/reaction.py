"""
Do forecasts of others follow the ego plan? `python -m wm_ros.evaluate.reaction` tells.

Held-out drives are told twice: the same pictures up to now, but from now on the ego vehicle goes on
or brakes to a halt. In the simulator's truth some road users then do another thing, those behind it
above all. The model forecasts under both plans. What counts is how far apart the two forecasts of
such an agent end (the means of their mixtures, at 3 s), in the direction in which the two truths
are apart, over how far those are. 1 is a model that reacts as the simulator does, 0 one that takes
no notice. Agents to whom the ego vehicle makes no difference should stay where they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_ros.data.simulator import SimulatedDrive
from wm_ros.data.two_plans import INFLUENCED_M, RATE_HZ, influenced_drive
from wm_ros.evaluate import bootstrap
from wm_ros.evaluate.agents import Detections, match
from wm_ros.evaluate.datasets import parse_seeds
from wm_ros.evaluate.metrics import ratio
from wm_ros.evaluate.predictors import PredictorSource, open_model_file
from wm_ros.share import share_path
from wm_ros.sim.worlds import WORLDS
from wm_ros.types import WINDOW_FRAMES, EgoPlan, Truth

#: Whose truths end at most so far apart is not.
UNTOUCHED_M = 0.1
RANGE_M = 35.0
#: An ego vehicle that is slower has hardly anything to brake.
EGO_MPS = 3.0


@dataclass(frozen=True)
class TwoTruths:
    """What happens under two ego plans from the newest frame of a drive on."""

    drive: SimulatedDrive
    plans: tuple[EgoPlan, EgoPlan]
    truths: tuple[Truth, Truth]

    def apart_m(self) -> np.ndarray:
        """Return what going on adds to each agent's place at 3 s (A, 2), metres."""
        return self.truths[0].futures[:, -1, :2] - self.truths[1].futures[:, -1, :2]


@dataclass(frozen=True)
class Reaction:
    """
    What one agent's forecast does: `truth_m` apart in truth, `model_m` in that direction.

    For one who is not influenced `model_m` is the distance between its two forecasts.
    """

    seed: int
    influenced: bool
    truth_m: float
    model_m: float


def tell_twice(seed: int, world: str, frames: int = WINDOW_FRAMES) -> TwoTruths | None:
    """Simulate a drive under both plans; None where nobody near is influenced."""
    told = influenced_drive(seed, world, frames, EGO_MPS, RANGE_M)
    if told is None:
        return None
    newest, drive = frames - 1, SimulatedDrive(seed, frames / RATE_HZ, world)
    plans, truths = zip(*((one.ego_plan(newest), one.truth(newest, drive.rig)) for one in told),
                        strict=True)
    return TwoTruths(drive, plans, truths)


def reactions(both: TwoTruths, source: PredictorSource) -> Iterator[Reaction]:
    """Forecast under both plans and compare, agent by agent; those that are not found give none."""
    predictor = source(both.drive.rig)
    predictor.reset('a drive begins')
    for sample in both.drive.samples():
        predictor.encode(sample.frames, sample.ego)
    seen = sample.truth             # of the newest instant, with what is visible
    goes, stops = ({row: end for row, end in ends(Detections.of(forecast), seen)}
                   for forecast in predictor.forecast_plans(both.plans))
    for row in sorted(goes.keys() & stops.keys()):
        moved = goes[row] - stops[row]
        apart = both.apart_m()[row]
        far = float(np.linalg.norm(apart))
        if not seen.visible[row] or np.linalg.norm(seen.poses[row, :2]) > RANGE_M:
            continue
        if far > INFLUENCED_M:
            yield Reaction(both.drive.seed, True, far, float(moved @ apart / far))
        elif far < UNTOUCHED_M:
            yield Reaction(both.drive.seed, False, far, float(np.linalg.norm(moved)))


def ends(detections: Detections, truth: Truth) -> Iterator[tuple[int, np.ndarray]]:
    """
    Yield which row of the truth each detection found, and where it is expected to end.

    Who is found, and in which order, may depend on the plan by a little.
    """
    partner = match(detections.poses[:, :2], detections.scores, truth.poses[:, :2], truth.visible)
    expected = expected_end(detections)
    for i in np.flatnonzero(partner >= 0):
        yield int(partner[i]), expected[i]


def expected_end(detections: Detections) -> np.ndarray:
    """Return the mean of each agent's modes at 3 s, (D, 2)."""
    return np.einsum('dk,dkx->dx', detections.probabilities, detections.trajectories[:, :, -1])


def summary(found: list[Reaction]) -> dict[str, float | int | list[float] | None]:
    """
    Return the scores of reactions; raise ValueError where nobody is influenced.

    `reaction` pools them: metres of the model over metres of truth, with `ci` over drives;
    `followed` is the share of influenced agents whose reaction is at least half of the truth's;
    `untouched_m` the median distance between the two forecasts of those who do not care, None
    without any.
    """
    seeds = sorted({one.seed for one in found if one.influenced})
    if not seeds:
        raise ValueError('reaction: want an agent who is influenced by the ego vehicle and found, '
                         f'got {len(found)} who are not; take more seeds')
    sums = np.zeros((len(seeds), 2))
    for one in found:
        if one.influenced:
            sums[seeds.index(one.seed)] += one.model_m, one.truth_m
    drawn = bootstrap.draw_weights(len(seeds)) @ sums
    influenced = [one for one in found if one.influenced]
    others = [one.model_m for one in found if not one.influenced]
    return {'n_drives': len(seeds), 'n_influenced': len(influenced),
            'truth_m': float(np.mean([one.truth_m for one in influenced])),
            'model_m': float(np.mean([one.model_m for one in influenced])),
            'reaction': float(ratio(*sums.sum(0))),
            'ci': [float(v) for v in bootstrap.interval(ratio(drawn[:, 0], drawn[:, 1]))],
            'followed': float(np.mean([one.model_m >= one.truth_m / 2 for one in influenced])),
            'n_untouched': len(others),
            'untouched_m': float(np.median(others)) if others else None}


def main(argv: list[str] | None = None) -> int:
    """Score a range of seeds and print what comes of it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1],
                                     prog='python -m wm_ros.evaluate.reaction')
    parser.add_argument('--artifact', default=str(share_path('models', 'world-model')))
    parser.add_argument('--world', default='sim', choices=list(WORLDS))
    parser.add_argument('--seeds', default='900000:900200', help='A:B, half-open')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(argv)
    try:
        seeds = parse_seeds(args.seeds)
    except ValueError as err:
        parser.error(str(err))
    try:
        open_model_file(args.artifact)      # now, not minutes later with the first that reacts
        scores = summary(_score(seeds, args.world, PredictorSource(args.artifact,
                                                                   threads=args.threads)))
        print(json.dumps(scores, indent=1))
        if args.json:
            args.json.write_text(json.dumps(scores, indent=1) + '\n')
    except (OSError, ValueError, RuntimeError) as err:
        print(f'{parser.prog}: {err}', file=sys.stderr)
        return 1
    return 0


def _score(seeds: list[int], world: str, source: PredictorSource) -> list[Reaction]:
    found: list[Reaction] = []
    for seed in seeds:
        both = tell_twice(seed, world)
        if both is not None:
            found += reactions(both, source)
            print(f'\r{seed}: {sum(one.influenced for one in found)} influenced', end='',
                  file=sys.stderr)
    print(file=sys.stderr)
    return found


if __name__ == '__main__':
    sys.exit(main())
