"""
The contract between an artifact and whatever runs it: names, shapes and types of three graphs.

`N` (cameras) and `P` (ego plans) are the only sizes that are fixed when a backend loads a graph;
everything else is fixed when the artifact is exported.

encode   one synchronised set of images -> the frame's bird's-eye features, computed once a frame
fold     the cached features of 16 frames, ego-motion and masks -> the 256-token latent, and what
         the older frames add to the newest one's features
rollout  latent + newest features + what the older add + ego plans -> raw outputs, one row a plan
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRAPHS = ('encode', 'fold', 'rollout')

IMAGE_HEIGHT = 160
IMAGE_WIDTH = 400
#: Heights above ground, in metres, at which a ground cell looks into the images.
LIFT_HEIGHTS_M = (0.0, 0.7, 1.5, 2.6)
#: Image features are sampled at 1/8 of the input size.
FEATURE_STRIDE = 8
#: Agents decoded a plan: the highest peaks of the centre map, and so many companions at the end,
#: who stand so near to one of the peaks that the map does not tell them apart.
MAX_AGENTS, COMPANIONS = 64, 16


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of one graph input or output; letters stand for free sizes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def resolve(self, **sizes: int) -> tuple[int, ...]:
        """Return the shape with its letters replaced; raise KeyError for one not given."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def check(self, array: np.ndarray, **sizes: int) -> None:
        """Raise ValueError where `array` does not fit, naming what was found and wanted."""
        want = self.resolve(**sizes)
        if array.shape != want or array.dtype != np.dtype(self.dtype):
            raise ValueError(f'{self.name}: want {self.dtype} {want}, '
                             f'got {array.dtype} {array.shape}')


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def graph_specs(memory_channels: int = 32, skip_channels: int = 64, latent_dim: int = 128,
                cells: int = 80, tokens: int = 256) -> dict[str, GraphSpec]:
    """
    Return the specification of the three graphs for the sizes of one model.

    Poses are x, y, yaw in metres and radians. Masks are 1.0 for present. Logits are raw.
    """
    f, points = 'float32', len(LIFT_HEIGHTS_M) * cells * cells
    memory = (memory_channels, cells, cells)
    skip = (skip_channels, cells, cells)
    return {
        'encode': GraphSpec(
            inputs=(
                TensorSpec('images', 'uint8', ('N', IMAGE_HEIGHT, IMAGE_WIDTH, 3)),  # RGB
                # Rows of the flattened (N, h/8, w/8) feature map and their bilinear weights; all
                # weights 0 where no camera sees the point. Points: heights x rows x columns.
                TensorSpec('lift_index', 'int32', (points, 4)),
                TensorSpec('lift_weight', f, (points, 4)),
            ),
            outputs=(TensorSpec('memory', f, memory), TensorSpec('skip', f, skip)),
        ),
        'fold': GraphSpec(
            inputs=(
                TensorSpec('memory', f, (16, *memory)),        # oldest first
                TensorSpec('now_from_frame', f, (16, 3)),      # newest base_link <- frame's
                TensorSpec('age_s', f, (16,)),                 # newest stamp - frame's stamp
                TensorSpec('frame_mask', f, (16,)),
                TensorSpec('odometry_mask', f, (1,)),
            ),
            outputs=(TensorSpec('latent', f, (tokens, latent_dim)),
                     TensorSpec('past', f, skip)),
        ),
        'rollout': GraphSpec(
            inputs=(
                TensorSpec('latent', f, (tokens, latent_dim)),
                TensorSpec('skip', f, skip),
                TensorSpec('past', f, skip),                   # is added to `skip`
                TensorSpec('plans', f, ('P', 6, 3)),           # poses every 0.5 s from 0.5 s
                TensorSpec('ego_motion', f, (2,)),             # speed m/s, yaw rate rad/s
                TensorSpec('odometry_mask', f, (1,)),          # 0: plans, ego_motion are ignored
            ),
            outputs=(
                TensorSpec('agent_score', f, ('P', MAX_AGENTS)),             # 0-1
                TensorSpec('agent_class', f, ('P', MAX_AGENTS, 8)),          # logits
                # x, y, sin yaw, cos yaw, log length, log width, log height, vx, vy
                TensorSpec('agent_box', f, ('P', MAX_AGENTS, 9)),
                # log standard deviation of x, y (m), yaw (rad), vx, vy (m/s)
                TensorSpec('agent_log_sigma', f, ('P', MAX_AGENTS, 5)),
                TensorSpec('mode_logits', f, ('P', MAX_AGENTS, 6)),
                # Waypoints in base_link at the stamp.
                TensorSpec('trajectories', f, ('P', MAX_AGENTS, 6, 6, 2)),
                # log sigma of x, log sigma of y, atanh of the correlation
                TensorSpec('trajectory_spread', f, ('P', MAX_AGENTS, 6, 6, 3)),
                TensorSpec('occupancy', f, ('P', 7, 200, 200)),              # logits, now .. 3 s
                TensorSpec('flow', f, ('P', 7, 2, 200, 200)),                # m, backward
                TensorSpec('road', f, (3, 200, 200)),                        # logits
                TensorSpec('observed', f, (200, 200)),                       # logit
            ),
        ),
    }
