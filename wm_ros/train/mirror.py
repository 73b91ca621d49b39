"""
Windows seen in a mirror: left is right, and traffic keeps to the other side of the road.

Stage two knows the drives that it has by heart long before it has learnt all that they could
teach. Maps are in metres, so a window may be turned over after the lift, maps and truth alike, as
in BEVDet (Huang et al., 2021, "BEV space data augmentation"). It is no drive more: the convolutions
behind the lift have read the maps before, and saw them as they were. No torch here.
"""

from __future__ import annotations

import numpy as np

from wm_ros.train.targets import window_sample

#: Arrays of a sample whose last axes are rows along y and columns along x.
MAPS = ('memory', 'skip', 'occupancy', 'flow', 'road', 'observed', 'hidden')


def maybe_mirrored(clip: dict[str, np.ndarray], rng: np.random.Generator,
                   share: float) -> dict[str, np.ndarray]:
    """Draw one window of a clip as `window_sample` does, `share` (0-1) of them mirrored."""
    sample = window_sample(clip, rng)
    return mirrored(sample) if rng.random() < share else sample


def mirrored(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a window sample with y turned over, in frame base: headings and turns with it."""
    out = {**sample, **{name: sample[name][..., ::-1, :] for name in MAPS}}
    flow = out['flow'].copy()                                # (7, 2, Y, X): x, y
    flow[:, 1] *= -1.0
    agents = sample['agents'].copy()        # x, y, yaw, sizes, vx, vy, ..., 6 x (x, y): `clips`
    agents[:, [1, 2, 7]] *= -1.0
    agents[:, 11:22:2] *= -1.0
    over = np.array([1.0, -1.0, -1.0], np.float32)           # of x, y, yaw
    return {**out, 'flow': flow, 'agents': agents,
            'now_from_frame': sample['now_from_frame'] * over, 'plans': sample['plans'] * over,
            'ego_motion': sample['ego_motion'] * np.array([1.0, -1.0], np.float32)}
