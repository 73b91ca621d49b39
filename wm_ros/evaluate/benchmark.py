"""
`bench-v1`: which drives a score is of, frozen.

`bench_v1.json` holds the definition of each data set, the digest of all that follows from it, and a
fingerprint of pictures and truth of some drives. A test holds the simulator against it. After a
change that is meant to be, `python -m wm_ros.evaluate.benchmark --freeze` writes it anew; without
the option it prints what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.render_cache import code_version, digest, libraries, world_definition
from wm_ros.data.simulator import SimulatedDrive
from wm_ros.sim.drive import VISIBLE_PIXELS, VISIBLE_SILHOUETTE, simulate
from wm_ros.types import Truth

NAME = 'bench-v1'
FILE = Path(__file__).with_name('bench_v1.json')
SECONDS = 10.0
RIG = 'surround'
#: A forecast every half second, from the first whole window on.
EVERY, FIRST = 5, 15
#: Held-out seeds of each data set, end left out. The last three are worlds never trained on.
SEEDS = {'sim': (900_000, 900_200), 'sim-hard': (900_000, 900_200), 'rural': (900_000, 900_040),
         'snow': (900_000, 900_040), 'animal': (900_000, 900_040)}
UNSEEN = ('rural', 'snow', 'animal')
#: Seeds and frames of the fingerprint.
_PROBES = {'sim': (900_003, 900_057, 900_117), 'sim-hard': (900_004, 900_058, 900_118),
           'rural': (900_005, 900_022), 'snow': (900_006, 900_023), 'animal': (900_007, 900_024)}
_PROBE_FRAMES = (15, 70)
#: How far grey levels of a picture's parts may be off on a machine that computes otherwise.
_TOLERANCE_GREY = 1.5


def definition() -> dict[str, Any]:
    """Return what the benchmark is: data sets, worlds, rig and rules, as JSON-ready values."""
    return {'name': NAME, 'visible': {'pixels': VISIBLE_PIXELS, 'silhouette': VISIBLE_SILHOUETTE},
            'datasets': {name: {'seeds': list(seeds), **world_definition(
                name, SECONDS, RIG, EVERY, FIRST)} for name, seeds in SEEDS.items()}}


def fingerprint(world: str, seed: int) -> list[dict[str, Any]]:
    """
    Return what pictures and truth of some frames of a drive come to.

    `exact` is a digest of every pixel and number; `grey` (mean and deviation of the parts of each
    picture) and `truth` (counts and sums) are compared where another processor rounds otherwise.
    """
    from wm_ros.sim.render import Renderer

    drive = simulate(seed, SECONDS, world)
    rig = SimulatedDrive(seed, SECONDS, world, RIG).rig
    renderer = Renderer(drive, rig, seed)
    found = []
    for i in _PROBE_FRAMES:
        rendered = renderer.render(i)
        truth = drive.truth(i, rig, rendered)
        exact = hashlib.sha256()
        for name in rig.names:
            exact.update(rendered.images[name].tobytes())
        for value in (truth.ids, truth.classes, truth.poses, truth.velocities, truth.sizes,
                      truth.futures, truth.pixels, truth.silhouettes, truth.visible, truth.road,
                      truth.observed, truth.ego_plan.poses):
            exact.update(np.ascontiguousarray(value).tobytes())
        found.append({'frame': i, 'exact': exact.hexdigest()[:32],
                      'grey': [_parts(rendered.images[name]) for name in rig.names],
                      'truth': _sums(truth)})
    return found


def _parts(picture: np.ndarray) -> list[float]:
    """Return mean and deviation of 2 x 4 parts of a picture (H, W, 3)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    parts = [part for row in np.array_split(grey, 2) for part in np.array_split(row, 4, axis=1)]
    return [round(float(value), 1) for part in parts for value in (part.mean(), part.std())]


def _sums(truth: Truth) -> list[float]:
    values = (len(truth.ids), truth.visible.sum(), truth.classes.sum(), np.abs(truth.poses).sum(),
              np.abs(truth.velocities).sum(), truth.sizes.sum(), np.abs(truth.futures).sum(),
              truth.pixels.sum(), truth.silhouettes.sum(), truth.road.sum(), truth.observed.sum(),
              np.abs(truth.ego_plan.poses).sum())
    return [round(float(value), 3) for value in values]


def arithmetic() -> str:
    """Return what decides about the last bit of a pixel: libraries and the processor's features."""
    return f'{libraries()}, {cv2.getCPUFeaturesLine()}'


def content() -> dict[str, list[dict[str, Any]]]:
    """Return the fingerprints of all probes by `world:seed`."""
    return {f'{world}:{seed}': fingerprint(world, seed)
            for world, seeds in _PROBES.items() for seed in seeds}


def frozen() -> dict[str, Any]:
    """Return what is stored in `bench_v1.json`."""
    return json.loads(FILE.read_text(encoding='utf-8'))


def simulator_version() -> str:
    """
    Return what the render cache knows the simulator by.

    While its code is the frozen one (or one of which `--freeze` has found the pictures to be the
    same) that is the frozen hash, so that moving code does not cost a rendering.
    """
    stored = frozen()
    same = stored['code'] == code_version()
    return f'{stored["hash"] if same else code_version()} {libraries()}'


def seeds_of(dataset: str) -> tuple[int, int]:
    """Return the seeds of a data set, end left out; of other worlds as of `sim`."""
    return SEEDS.get(dataset, SEEDS['sim'])


def name_of_run(dataset: str, seeds: list[int], seconds: float, rig: str,
                every: int) -> str | None:
    """Return `bench-v1` where a run is one of its data sets, whole, else None."""
    whole = (dataset in SEEDS and seeds == list(range(*SEEDS[dataset])) and seconds == SECONDS
             and rig == RIG and every == EVERY)
    return NAME if whole and frozen()['code'] == code_version() else None


def differences(stored: dict[str, Any], found: dict[str, Any], exact: bool) -> list[str]:
    """Return what differs between two fingerprints of `content`, in words; empty for nothing."""
    out = [f'{key}: not in both' for key in sorted(set(stored) ^ set(found))]
    for key in sorted(set(stored) & set(found)):
        for a, b in zip(stored[key], found[key], strict=True):
            where = f'{key} frame {b["frame"]}'
            grey = float(np.abs(np.subtract(a['grey'], b['grey'])).max())
            truth = float((np.abs(np.subtract(a['truth'], b['truth']))
                           / (1 + np.abs(a['truth']))).max())
            if grey > _TOLERANCE_GREY:
                out.append(f'{where}: pictures differ by {grey:.1f} grey levels')
            if truth > 1e-3:
                out.append(f'{where}: truth differs by {100 * truth:.1f} %')
            if exact and a['exact'] != b['exact'] and not out:
                out.append(f'{where}: pictures or truth differ in some last places')
    return out


def check(stored: dict[str, Any], only: tuple[str, ...] | None = None) -> list[str]:
    """
    Return how the simulator differs from what was frozen; `only` looks at some of the probes.

    Where libraries and processor are those of the freezing, every bit has to be the same.
    """
    out = [f'{name}: its definition differs' for name, value in definition()['datasets'].items()
           if digest(value) != stored['definitions'].get(name)]
    keys = tuple(stored['content']) if only is None else only
    found = {key: fingerprint(key.split(':')[0], int(key.split(':')[1])) for key in keys}
    return out + differences({key: stored['content'][key] for key in keys}, found,
                             stored['arithmetic'] == arithmetic())


def freeze() -> dict[str, Any]:
    """Return what is to be stored for the simulator as it is now."""
    defined = definition()
    entries = {'content': content()}
    definitions = {name: digest(value) for name, value in defined['datasets'].items()}
    return {'name': NAME, 'hash': digest([defined, entries]), 'code': code_version(),
            'arithmetic': arithmetic(), 'definitions': definitions, 'definition': defined,
            **entries}


def main(arguments: list[str] | None = None) -> int:
    """Print how the simulator differs from the frozen benchmark, or freeze it as it is."""
    parser = argparse.ArgumentParser(prog='python -m wm_ros.evaluate.benchmark',
                                     description=__doc__)
    parser.add_argument('--freeze', action='store_true', help='write bench_v1.json anew')
    chosen = parser.parse_args(arguments)
    if not chosen.freeze:
        stored = frozen()
        found = check(stored)
        print('\n'.join([f'{NAME} {stored["hash"]}', *(found or ['the simulator is the frozen one']
                                                       )]))
        return 1 if found else 0
    before = frozen()['hash'] if FILE.is_file() else ''
    stored = freeze()
    # Numbers of one list in one line: the file is to be read in a diff.
    text = re.sub(r'\[\s+([-\d.,\s]+?)\s+\]', lambda found: f'[{" ".join(found[1].split())}]',
                  json.dumps(stored, indent=1))
    FILE.write_text(text + '\n', encoding='utf-8')
    print(f'{NAME} {stored["hash"]}' + (': pictures and truth are the same' if
                                        stored['hash'] == before else f' (was {before})'))
    return 0


if __name__ == '__main__':
    sys.exit(main())
