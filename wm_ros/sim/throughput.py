"""
How many camera sets a second the simulator renders: drives, pictures and truth, nothing stored.

`python -m wm_ros.sim.throughput --workers 2` measures on the cores that this process may use
(`taskset -c 0,1` chooses them). A set is what all cameras of the rig see at one instant. Each
worker simulates drives of its own and renders them at 10 Hz, as training and evaluation do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time

import cv2

from wm_ros.image import model_camera
from wm_ros.sim.drive import simulate
from wm_ros.sim.render import Renderer
from wm_ros.sim.rigs import rig as named_rig
from wm_ros.sim.worlds import WORLDS
from wm_ros.types import CameraRig


def rig_of(name: str, full_size: bool) -> CameraRig:
    """Return a rig at the model's input size, or at its own."""
    rig = named_rig(name)
    return rig if full_size else CameraRig(tuple(map(model_camera, rig.cameras)), rig.name)


def work(seed: int, world: str, rig: CameraRig, drive_s: float, until: float) -> dict[str, float]:
    """Render drives from `seed` on until the clock passes `until`; return sets and CPU seconds."""
    cv2.setNumThreads(1)
    sets = 0
    spent = {'simulate': 0.0, 'set up': 0.0, 'render': 0.0, 'truth': 0.0}
    while time.monotonic() < until:
        marks = [time.process_time()]
        drive = simulate(seed, drive_s, world)
        marks.append(time.process_time())
        renderer = Renderer(drive, rig)
        marks.append(time.process_time())
        spent['simulate'] += marks[1] - marks[0]
        spent['set up'] += marks[2] - marks[1]
        for i in range(drive.n):
            start = time.process_time()
            rendered = renderer.render(i)
            middle = time.process_time()
            drive.truth(i, rig, rendered)
            spent['render'] += middle - start
            spent['truth'] += time.process_time() - middle
            sets += 1
            if time.monotonic() >= until:
                break
        seed += 1
    return {'sets': sets, **spent}


def measure(workers: int, seconds: float, world: str, rig: CameraRig, drive_s: float) -> dict:
    """
    Return sets a second over all workers, and the CPU milliseconds a set by part.

    Workers start a thousand seeds apart; the time they take to start is not counted.
    """
    context = multiprocessing.get_context('spawn')
    with context.Pool(workers) as pool:
        pool.starmap(work, [(0, world, rig, drive_s, 0.0)] * workers)     # imports are done
        start = time.monotonic()
        found = pool.starmap(work, [(1000 * n, world, rig, drive_s, start + seconds)
                                    for n in range(workers)], chunksize=1)
        wall = time.monotonic() - start
    sets = sum(part['sets'] for part in found)
    cpu = {name: sum(part[name] for part in found) for name in found[0] if name != 'sets'}
    return {'sets_per_s': round(sets / wall, 2), 'pictures_per_s': round(sets * len(rig) / wall, 1),
            'workers': workers, 'cores': len(os.sched_getaffinity(0)), 'sets': sets,
            'cpu_ms_per_set': {name: round(1e3 * value / max(sets, 1), 2)
                               for name, value in cpu.items()}}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.sim.throughput', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workers', type=int, default=0,
                        help='processes (default: one a core that may be used)')
    parser.add_argument('--seconds', type=float, default=20.0, help='to measure (default: 20)')
    parser.add_argument('--world', default='sim', choices=list(WORLDS))
    parser.add_argument('--rig', default='surround', help='surround, front or kitti')
    parser.add_argument('--drive', type=float, default=10.0, help='length of a drive in seconds')
    parser.add_argument('--full-size', action='store_true', help="the rig's own pictures")
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args(arguments)
    if options.workers < 0 or options.seconds <= 0 or options.drive <= 0:
        parser.error('want workers >= 0, seconds > 0 and drive > 0')
    workers = options.workers or len(os.sched_getaffinity(0))
    rig = rig_of(options.rig, options.full_size)
    found = measure(workers, options.seconds, options.world, rig, options.drive)
    if options.json:
        print(json.dumps(found))
        return 0
    print(f'{found["sets_per_s"]:.1f} sets/s ({found["pictures_per_s"]:.0f} pictures/s) of '
          f'{len(rig)} x {rig.cameras[0].width}x{rig.cameras[0].height} by {workers} workers on '
          f'{found["cores"]} cores')
    print('CPU a set: ' + ', '.join(f'{name} {value:.1f} ms'
                                    for name, value in found['cpu_ms_per_set'].items()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
