"""From stored clips to batches of tensors: the targets that losses compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from wm_ros.train.clips import FEATURE_STEP, window_motion
from wm_ros.types import (
    FEATURE_GRID,
    HORIZON_STEPS,
    OUTPUT_GRID,
    ROAD_LAYERS,
    WINDOW_FRAMES,
    centre_grid,
)

STEPS = HORIZON_STEPS + 1
CELLS = OUTPUT_GRID.rows * OUTPUT_GRID.cols
#: How far the Gaussian around a centre is drawn, and how far from a road user that is there but
#: hidden a find is no mistake, in x and in y.
REACH_M, HIDDEN_M = 3.75, 3.0
#: Share of draws from a drive that is told twice, with another ego plan, which take one of the two;
#: who ends so far apart in them, metres, counts so many times: one agent in fifty of those.
TWICE_SHARE, INFLUENCED_M, INFLUENCED_STRESS = 0.4, 1.0, 5.0


def truth_targets(clip: dict[str, np.ndarray], i: int, steps: int) -> dict[str, np.ndarray]:
    """
    Return the targets of frame or window `i` of a clip.

    `agents` (64, 29) as `clips.truth_arrays`; `occupancy` (steps, Y, X) bool; `flow`
    (steps, 2, Y, X) metres; `road` (3, Y, X), `observed`, `hidden` (Y, X) bool.
    """
    shape = OUTPUT_GRID.shape
    cells = clip[f'cells_{i}']
    cells = cells[cells[:, 0] < steps]
    place = cells[:, 0].astype(np.int64) * CELLS + cells[:, 1].astype(np.int64)
    occupancy = np.zeros(steps * CELLS, bool)
    occupancy[place] = True
    flow = np.zeros((2, steps * CELLS), np.float32)
    flow[:, place] = cells[:, 2:].T
    hidden = np.zeros(CELLS, bool)
    hidden[clip[f'hidden_{i}']] = True
    road = np.unpackbits(clip[f'road_{i}'], count=len(ROAD_LAYERS) * CELLS)
    return {'agents': clip[f'agents_{i}'],
            'occupancy': occupancy.reshape(steps, *shape),
            'flow': flow.reshape(2, steps, *shape).transpose(1, 0, 2, 3),
            'road': road.reshape(len(ROAD_LAYERS), *shape).astype(bool),
            'observed': np.unpackbits(clip[f'observed_{i}'], count=CELLS).reshape(shape)
            .astype(bool),
            'hidden': hidden.reshape(shape)}


def frame_sample(clip: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw one frame of a frame clip."""
    i = int(rng.integers(len(clip['images'])))
    return {'images': clip['images'][i], 'index': clip['index'].astype(np.int64),
            'weight': clip['weight'].astype(np.float32), **truth_targets(clip, i, 1)}


def window_sample(clip: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """
    Draw one window of a window clip, with what a vehicle loses: frames and odometry.

    One window in four misses one or two frames, one in twelve up to eight; odometry is missing
    in one of ten; the plan is the truth's. `stress` (64,) is what an agent's future counts: more
    for the few who do another thing under the other plan of a window that is told twice.
    """
    i = int(rng.integers(len(clip['ends'])))
    if told_twice(clip) and rng.random() < TWICE_SHARE:
        i = len(clip['ends']) - int(rng.integers(1, 3))
    stress = np.ones(len(clip['agents_0']), np.float32)
    if i >= len(clip['ends']) - 2:
        stress[influenced(clip)] = INFLUENCED_STRESS
    # `skip`, `plans` and truth are stored in the order of the drive.
    end = int(clip['ends'][i])
    mask = np.ones(WINDOW_FRAMES, np.float32)
    draw = rng.random()
    lost = int(rng.integers(1, 3)) if draw < 0.25 else int(rng.integers(1, 9)) if draw < 0.33 else 0
    mask[rng.choice(WINDOW_FRAMES - 1, size=lost, replace=False)] = 0.0
    known = np.float32(rng.random() > 0.1)
    first = end - WINDOW_FRAMES + 1
    return {'window': np.array(i), 'memory': clip['memory'][first:end + 1], 'skip': clip['skip'][i],
            'now_from_frame': window_motion(clip['poses'], end),
            'age_s': 0.1 * np.arange(WINDOW_FRAMES - 1, -1, -1, dtype=np.float32),
            'frame_mask': mask, 'odometry_mask': np.array([known]),
            'plans': clip['plans'][i], 'ego_motion': clip['motion'][i], 'stress': stress,
            **truth_targets(clip, i, STEPS)}


def told_twice(clip: Mapping[str, np.ndarray]) -> bool:
    """Return whether the last two windows of a clip are one, under two plans of the ego vehicle."""
    ends = clip['ends']
    return len(ends) > 1 and ends[-1] == ends[-2]


def influenced(clip: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return who does another thing under the other plan (64,); nobody where there is none."""
    count = len(clip['ends'])
    if not told_twice(clip):
        return np.zeros(len(clip['agents_0']), bool)
    ends = [clip[f'agents_{i}'][:, 20:22] for i in (count - 2, count - 1)]
    return np.abs(ends[0] - ends[1]).max(1) > INFLUENCED_M


def stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Stack samples into a batch; features stay in the steps they are stored in."""
    return {key: torch.from_numpy(np.stack([sample[key] for sample in samples]))
            for key in samples[0]}


def on_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Bring a batch to a device; features become floats there."""
    batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    for key in batch:
        if key.endswith(('memory', 'skip')):
            batch[key] = batch[key].float() * FEATURE_STEP
    return batch


def collate(samples: list[dict[str, np.ndarray]], device: torch.device) -> dict[str, torch.Tensor]:
    """Stack samples into a batch on the device; features become floats."""
    return on_device(stacked(samples), device)


def centre_heat(agents: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the centre map (B, S, S) of visible agents on `rows` S and the weight of each cell.

    A Gaussian a visible agent with 1 at its cell (CenterNet, Zhou et al. 2019), wider for wider
    road users, so that two people side by side stay two peaks; cells within 3 m in x and y of an
    agent that is there but hidden have weight 0: finding it is no mistake.
    """
    agents = agents[:, :max(1, int(agents[..., 28].sum(1).max()))]           # rows in use
    grid = centre_grid(rows)
    there, visible = agents[..., 28] > 0, agents[..., 9] > 0
    # Only the cells around each centre: beyond REACH_M nothing is left of a Gaussian.
    reach = math.ceil(REACH_M / grid.cell_m)
    steps = torch.arange(-reach, reach + 1, device=agents.device)
    axes = []                                               # of x and y: place in cells, fall-off
    for i, low in enumerate((grid.x_min_m, grid.y_min_m)):
        cells = ((agents[..., i, None] - low) / grid.cell_m).floor() + steps    # (B, A, W)
        offset_m = low + (cells + 0.5) * grid.cell_m - agents[..., i, None]
        sigma_m = 0.25 + 0.3 * agents[..., 4, None]
        fall = torch.exp(-offset_m.square() / (2 * sigma_m ** 2))
        axes.append((cells.long(), fall * ((cells >= 0) & (cells < rows)), offset_m.abs()))
    (col, across, dx), (row, along, dy) = axes
    cell = (row.clamp(0, rows - 1)[..., :, None] * rows + col.clamp(0, rows - 1)[..., None, :])
    heat = along[..., :, None] * across[..., None, :] * (there & visible)[..., None, None]
    hidden = ((dy[..., :, None] < HIDDEN_M) & (dx[..., None, :] < HIDDEN_M)
              & (there & ~visible)[..., None, None])
    blank = heat.new_zeros(len(agents), rows * rows)
    flat = blank.scatter_reduce(1, cell.flatten(1), heat.flatten(1), 'amax')
    gone = blank.scatter_reduce(1, cell.flatten(1), hidden.flatten(1).float(), 'amax')
    # The cell that holds a centre is 1 exactly, wherever in the cell the centre lies.
    peak = there & visible & inside(agents)
    flat = flat.scatter_reduce(1, agent_cells(agents, rows), peak.float(), 'amax')
    weight = torch.where(flat > 0.3, torch.ones_like(flat), 1.0 - gone)
    return flat.unflatten(1, (rows, rows)), weight.unflatten(1, (rows, rows))


def inside(agents: torch.Tensor) -> torch.Tensor:
    """Return which rows (B, A) lie on the feature grid."""
    half = -FEATURE_GRID.x_min_m
    return (agents[..., 0:2].abs() < half).all(-1) & (agents[..., 28] > 0)


def agent_cells(agents: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the flat cell (B, A) of each agent on a centre grid of `rows`, clamped to it."""
    grid = centre_grid(rows)
    col, row = (((agents[..., i] - grid.x_min_m) / grid.cell_m).floor().clamp(0, rows - 1)
                for i in (0, 1))
    return (row * rows + col).long()
