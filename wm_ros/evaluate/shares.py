"""
What a world's traffic is like: shares of motion kinds, and what constant velocity reaches.

Run `python -m wm_ros.evaluate.shares sim 0 20` for seeds 0 to 19.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from wm_ros.evaluate import agents, metrics
from wm_ros.evaluate.baselines import paths
from wm_ros.geometry import cells_of
from wm_ros.sim.drive import simulate
from wm_ros.sim.rigs import rig
from wm_ros.sim.worlds import WORLDS
from wm_ros.types import AGENT_CLASSES, OUTPUT_GRID, Truth


def shares(world: str, seeds: range, seconds: float = 8.0, range_m: float = 30.0) -> dict:
    """
    Return percentages over observed agents within `range_m`, a frame a second of every drive.

    Keys: `cv_spa` (constant velocity from truth), `cv_spa_moving`, the kinds of motion, and the
    classes. An agent counts when a surround rig sees its cell (no picture is rendered).
    """
    surround = rig('surround')
    hits, groups = [], []
    for seed in seeds:
        drive = simulate(seed, seconds, world)
        for i in range(0, drive.n, 10):
            truth = drive.truth(i, surround)
            near = agents.in_range(truth.poses[:, :2], range_m)
            near[near] = truth.observed[cells_of(OUTPUT_GRID, truth.poses[near, :2])]
            hits.append(constant_velocity_is_right(truth)[near])
            groups.append(agents.groups_of(truth)[near])
    hit, member = np.concatenate(hits), np.concatenate(groups)
    moving = member[:, agents.GROUPS.index('moving')]
    return {'agents': len(hit), 'cv_spa': 100 * hit.mean(),
            'cv_spa_moving': 100 * hit[moving].mean(),
            **{name: 100 * member[:, agents.GROUPS.index(name)].mean()
               for name in (*agents.MOTIONS, *AGENT_CLASSES)}}


def constant_velocity_is_right(truth: Truth) -> np.ndarray:
    """Say of each agent whether constant velocity from truth is right for 3 s; bool (A,)."""
    path = paths('constant_velocity', truth.poses, truth.velocities, np.zeros(len(truth.ids)))
    return metrics.path_is_right(metrics.displacements(path[:, None, :, :2],
                                                       truth.futures[..., :2]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.evaluate.shares', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('world', nargs='?', default='sim', choices=list(WORLDS))
    parser.add_argument('first', nargs='?', type=int, default=0, help='seed (default: 0)')
    parser.add_argument('end', nargs='?', type=int, help='one past the last (default: FIRST + 20)')
    options = parser.parse_args(arguments)
    end = options.first + 20 if options.end is None else options.end
    if end <= options.first:
        parser.error(f'want FIRST < END, got {options.first} and {end}')
    for name, value in shares(options.world, range(options.first, end)).items():
        print(f'{name:15s} {value:7.1f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
