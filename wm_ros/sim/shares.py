"""
What a world's traffic is like: shares of motion kinds, and what constant velocity reaches.

Run `python -m wm_ros.sim.shares sim 0 20` for seeds 0 to 19.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from wm_ros.geometry import wrap_angle
from wm_ros.sim.drive import simulate
from wm_ros.sim.rigs import rig
from wm_ros.sim.worlds import WORLDS
from wm_ros.types import AGENT_CLASSES, HORIZON_STEPS, TIME_STEP_S, Truth


def constant_velocity_hits(truth: Truth) -> np.ndarray:
    """Return (A,) bool: constant velocity from truth stays within 2 m for the whole 3 s."""
    t = (np.arange(HORIZON_STEPS) + 1) * TIME_STEP_S
    path = truth.poses[:, None, :2] + t[:, None] * truth.velocities[:, None]
    return np.all(np.hypot(*np.moveaxis(path - truth.futures[..., :2], -1, 0)) < 2.0, axis=1)


def motion_kinds(truth: Truth) -> dict[str, np.ndarray]:
    """
    Return masks (A,) of agents: standing, starting, braking, turning, steady.

    By the 3 s ahead: standing stays below 0.5 m/s; starting comes from below 0.5 m/s; turning
    changes heading by 15 degrees or more; braking or speeding changes speed by 2 m/s or more.
    """
    now = np.hypot(truth.velocities[:, 0], truth.velocities[:, 1])
    line = np.concatenate([truth.poses[:, None], truth.futures], 1)
    speeds = np.hypot(*np.moveaxis(np.diff(line[..., :2], axis=1), -1, 0)) / TIME_STEP_S
    standing = (now < 0.5) & (speeds.max(1) < 0.5)
    starting = (now < 0.5) & ~standing
    turned = np.abs(wrap_angle(line[:, -1, 2] - line[:, 0, 2])) > np.deg2rad(15)
    rest = ~standing & ~starting
    turning = rest & turned
    braking = rest & ~turned & (now - speeds[:, -1] > 2.0)
    speeding = rest & ~turned & (speeds[:, -1] - now > 2.0)
    return {'standing': standing, 'starting': starting, 'turning': turning, 'braking': braking,
            'speeding up': speeding, 'steady': rest & ~turning & ~braking & ~speeding}


def shares(world: str, seeds: range, seconds: float = 8.0, range_m: float = 30.0) -> dict:
    """
    Return percentages over observed agents within `range_m`, a frame a second of every drive.

    Keys: `cv_spa` (constant velocity from truth), `cv_spa_moving`, the kinds of motion, and the
    classes. An agent counts when a surround rig sees its cell (no picture is rendered).
    """
    surround = rig('surround')
    hits, kinds, classes, moving = [], {}, [], []
    for seed in seeds:
        drive = simulate(seed, seconds, world)
        for i in range(0, drive.n, 10):
            truth = drive.truth(i, surround)
            row = np.floor((truth.poses[:, 1] + 50) / 0.5).astype(int)
            col = np.floor((truth.poses[:, 0] + 50) / 0.5).astype(int)
            near = np.hypot(truth.poses[:, 0], truth.poses[:, 1]) < range_m
            near[near] = truth.observed[row[near], col[near]]
            hits.append(constant_velocity_hits(truth)[near])
            for name, mask in motion_kinds(truth).items():
                kinds.setdefault(name, []).append(mask[near])
            moving.append(np.hypot(*truth.velocities.T)[near] > 0.5)
            classes.append(truth.classes[near])
    hit, move = np.concatenate(hits), np.concatenate(moving)
    kind = np.concatenate(classes)
    out = {'agents': len(hit), 'cv_spa': 100 * hit.mean(), 'cv_spa_moving': 100 * hit[move].mean()}
    out.update({name: 100 * np.concatenate(m).mean() for name, m in kinds.items()})
    out.update({name: 100 * np.mean(kind == c) for c, name in enumerate(AGENT_CLASSES)})
    return out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.sim.shares', description=__doc__,
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
