"""Which drive seeds are for what. Training must never touch the other two ranges."""

from __future__ import annotations

import numpy as np

TRAIN_END = 800_000        # training: [0, TRAIN_END)
VALIDATION_START = 800_000
VALIDATION_END = 900_000   # thresholds and choices: [VALIDATION_START, VALIDATION_END)
HELD_OUT_START = 900_000   # benchmark drives: from here on


def generator(seed: int, stream: int) -> np.random.Generator:
    """
    Return an independent generator for one part of one drive.

    The same (seed, stream) gives the same numbers in every process. Parts use streams of their
    own, so that a change in the traffic leaves the layout as it was.
    """
    return np.random.default_rng([seed % 2**63, stream])


LAYOUT, TRAFFIC, APPEARANCE, RENDER = range(4)
