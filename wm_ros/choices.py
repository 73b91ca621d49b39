"""
What of an artifact is not learnt but chosen on validation drives: a few numbers in its manifest.

`wm_ros evaluate --choose` finds them, `wm_ros export --choices` writes them, `decode` applies them.
The neutral values leave the graphs' outputs as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.types import HORIZON_STEPS


@dataclass(frozen=True)
class Choices:
    """
    The numbers, and how each is used.

    `score_threshold`: agents from this existence probability on are published. `observed_threshold`
    (a logit): ground from there on counts as observed. `existence` (slope, offset): what a score
    means, see `existence_probability`. `spread`: factors of the standard deviations of waypoints, a
    step. `occupancy_weights`: of the dense head and of the agents' own boxes in the occupancy
    forecast.
    """

    score_threshold: float = 0.3
    observed_threshold: float = 0.0
    existence: tuple[float, float] = (1.0, 0.0)
    spread: tuple[float, ...] = (1.0,) * HORIZON_STEPS
    occupancy_weights: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be, naming it and its bounds."""
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(low, tuple):
                if not (isinstance(value, (list, tuple)) and len(value) == len(low)
                        and all(map(_within, value, low, high))):
                    raise ValueError(f'{name} {value!r}, want {len(low)} numbers from {low} '
                                     f'to {high}')
                object.__setattr__(self, name, tuple(map(float, value)))
            elif not _within(value, low, high):
                raise ValueError(f'{name} {value!r}, want a number from {low} to {high}')
            else:
                object.__setattr__(self, name, float(value))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choices:
        """Take those of the fields that are there; raise ValueError for one that cannot be."""
        return cls(**{field.name: values[field.name] for field in fields(cls)
                      if field.name in values})

    @staticmethod
    def bounds(name: str) -> tuple[Any, Any]:
        """Return the least and the greatest value of a field."""
        return _BOUNDS[name]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}


def read_choices(path: Path) -> tuple[Choices, dict[str, Any]]:
    """
    Return the choices in a file of `wm_ros evaluate --choose`, and what they were made on.

    Raises ValueError for a file that is none, OSError for one that cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        return Choices.from_json(found['choices']), dict(found['chosen_on'])
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f'{path}: {err}, want a file of `wm_ros evaluate --choose`') from err


_STEPS = HORIZON_STEPS
_BOUNDS: dict[str, tuple[Any, Any]] = {
    'score_threshold': (0.0, 1.0), 'observed_threshold': (-30.0, 30.0),
    'existence': ((0.01, -30.0), (30.0, 30.0)),
    'spread': ((0.05,) * _STEPS, (20.0,) * _STEPS), 'occupancy_weights': ((0.0, 0.0), (1.0, 2.0))}


def _within(value: Any, low: float, high: float) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value) and low <= value <= high)


def existence_probability(score: np.ndarray, existence: tuple[float, float]) -> np.ndarray:
    """
    Return the probability that there is somebody, for each score (0-1), float32 of equal shape.

    sigmoid(slope * logit(score) + offset): Platt, Advances in Large Margin Classifiers 1999, on the
    logit. It rises with the score, so no ranking changes.
    """
    if existence == (1.0, 0.0):
        return score
    slope, offset = np.asarray(existence, dtype=np.float32)
    held = np.clip(score, np.float32(1e-6), np.float32(1 - 1e-6))
    return 1 / (1 + np.exp(-(slope * np.log(held / (1 - held)) + offset)))
