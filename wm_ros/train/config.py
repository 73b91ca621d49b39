"""Settings of training runs: defaults in dataclasses, named overlays of them in `runs.yaml`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

RUNS_FILE = Path(__file__).with_name('runs.yaml')
T = TypeVar('T')


@dataclass(frozen=True)
class Settings:
    """One run of training. Clips are drives, of training seeds alone."""

    preset: str = 'small'           # of the model (wm_ros.model.config)
    seed: int = 0
    workers: int = 2                # processes that render and encode
    loaders: int = 0                # processes that read clips; 0: one thread
    frame_clips: int = 6000
    frame_batch: int = 6
    frame_minutes: float = 45.0
    window_clips: int = 1000
    window_batch: int = 6
    window_minutes: float = 45.0
    mirrored: float = 0.25          # share of windows that stage two sees in a mirror, but for
                                    # one under a teacher: answers are of windows as they were
    plan_steps: int = 4000          # in which the futures learn to read the ego plan (--stage plan)
    frames_clips: int = 400         # of future camera frames (--stage frames)
    frames_batch: int = 3
    frames_minutes: float = 20.0
    frames_start: str = ''          # a checkpoint of that stage to begin from, else from nothing
    steps: int = 1_000_000          # of each stage at most
    call_minutes: float = math.inf  # of this call; the next one goes on
    rate: float = 2e-3
    optimiser: str = 'muon'         # or 'adamw', of the stages frame and window
    device: str = 'cpu'
    encode: str = 'openvino'        # what encodes streams: 'openvino', or 'torch' on the device
    start: str = ''                 # an artifact or a run to go on from, else from nothing
    dense_frames: int = 5           # whose tokens a teacher attends to in most of stage two
    whole_share: float = 0.15       # of stage two at its end, in which it is all 16
    clips: str = ''                 # a run's folder whose rendered clips are used, else its own


def run_names(path: Path = RUNS_FILE) -> tuple[str, ...]:
    """Return the names of the runs in a file."""
    return tuple(_read(path))


def load_settings(run: str, section: str, kind: type[T], given: Mapping[str, Any] | None = None,
                  path: Path = RUNS_FILE) -> T:
    """
    Return the `kind` of settings of a run's section, `given` values over the file's.

    Raises ValueError for a run, a section or a field that is not known, naming those that are.
    """
    runs = _read(path)
    if run not in runs:
        raise ValueError(f'{path}: no run {run!r}; there are {", ".join(runs)}')
    overlay = dict((runs[run] or {}).get(section) or {})
    types = {item.name: type(item.default) for item in fields(kind)}
    unknown = sorted(set(overlay) - set(types))
    if unknown:
        raise ValueError(f'{path}: {run}: {section}: unknown fields {unknown}; known are '
                         f'{sorted(types)}')
    return kind(**{name: types[name](value)
                   for name, value in {**overlay, **(given or {})}.items()})


def _read(path: Path) -> dict[str, Any]:
    runs = yaml.safe_load(path.read_text(encoding='utf-8'))
    sections = {'train', 'quantize', 'distill'}
    for name, run in runs.items():
        unknown = sorted(set(run or {}) - sections)
        if unknown:
            raise ValueError(f'{path}: {name}: unknown sections {unknown}; known are '
                             f'{sorted(sections)}')
    return runs


#: The settings of training of every run that ships.
RUNS = {name: load_settings(name, 'train', Settings) for name in run_names()}
