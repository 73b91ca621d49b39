"""What `--dataset` names: how its drives are opened, which there are, what a report says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_ros.data.samples import Drive
from wm_ros.evaluate.protocol import EVERY


class DatasetError(ValueError):
    """A name or seeds that stand for no drives: what was asked for and what can be."""


@dataclass(frozen=True)
class Dataset:
    """
    Drives to score.

    `open_drive(key)` opens the one of each of `keys`; `head` is what a report says of them;
    `ensure(key)` renders a simulated one ahead and is None for the others.
    """

    name: str
    open_drive: Callable[[Any], Drive]
    keys: list[Any]
    head: dict[str, Any] = field(default_factory=dict)
    ensure: Callable[[Any], int] | None = None


def open_dataset(name: str, seeds: str | None = None, seconds: float = 10.0,
                 rig: str = 'surround', every: int = EVERY,
                 cache: Path | None = None) -> Dataset:
    """
    Return the data set of a name: a simulated world, `kitti:DIR`, `nuscenes:DIR` or `bag:BAG`.

    `seeds` ('A:B', B left out), `seconds` and `rig` are of simulated drives, which by default are
    those of `bench-v1`; `cache` is the folder where they are kept rendered (None: nowhere). Raises
    DatasetError for a name or seeds that cannot be.
    """
    kind, _, place = name.partition(':')
    if kind == 'kitti' and place:
        from wm_ros.data.kitti_layouts import load_any
        return Dataset(name, load_any, [place])
    if kind == 'nuscenes' and place:
        from functools import partial

        from wm_ros.data.nuscenes import load_scene, scene_names
        return Dataset(name, partial(load_scene, place), scene_names(place))
    if kind == 'bag' and place:
        from wm_ros.data.bag_drive import BagDrive
        return Dataset(name, BagDrive, [place])
    from wm_ros.sim.worlds import WORLDS
    if kind not in WORLDS or place:
        raise DatasetError(f'--dataset {name}: want {", ".join(WORLDS)}, kitti:DIR, '
                         'nuscenes:DIR or bag:BAG')
    from wm_ros.data.render_cache import RenderedDrives
    from wm_ros.evaluate import benchmark

    first, end = benchmark.seeds_of(name)
    numbers = parse_seeds(seeds) if seeds else list(range(first, end))
    drives = RenderedDrives(kind, seconds, rig, every, benchmark.FIRST, cache,
                            benchmark.simulator_version())
    head = {'benchmark': benchmark.name_of_run(kind, numbers, seconds, rig, every),
            'benchmark_hash': benchmark.frozen()['hash'], 'render_key': drives.key,
            'seeds': f'{numbers[0]}:{numbers[-1] + 1}', 'seconds': seconds, 'rig': rig}
    return Dataset(name, drives, numbers, head, None if cache is None else drives.ensure)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds A .. B-1 of 'A:B'; raise DatasetError for anything else."""
    first, _, end = text.partition(':')
    if not first.isdecimal() or not end.isdecimal() or int(end) <= int(first):
        raise DatasetError(f'--seeds {text}: want A:B with A < B, such as 900000:900200')
    return list(range(int(first), int(end)))
