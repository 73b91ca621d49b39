"""From stored clips to batches of tensors: the targets that losses compare with."""

from __future__ import annotations

import numpy as np
import torch

from wm_ros.train.clips import FEATURE_STEP, window_motion
from wm_ros.types import CENTRE_GRID, HORIZON_STEPS, OUTPUT_GRID, ROAD_LAYERS, WINDOW_FRAMES

STEPS = HORIZON_STEPS + 1
CELLS = OUTPUT_GRID.rows * OUTPUT_GRID.cols


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
    in one of ten; the plan is the truth's.
    """
    i = int(rng.integers(len(clip['ends'])))
    # `skip`, `plans` and truth are stored in the order of the drive.
    end = int(clip['ends'][i])
    mask = np.ones(WINDOW_FRAMES, np.float32)
    draw = rng.random()
    lost = int(rng.integers(1, 3)) if draw < 0.25 else int(rng.integers(1, 9)) if draw < 0.33 else 0
    mask[rng.choice(WINDOW_FRAMES - 1, size=lost, replace=False)] = 0.0
    known = np.float32(rng.random() > 0.1)
    first = end - WINDOW_FRAMES + 1
    # Distillation has the teacher's maps of the same window beside the student's.
    maps = {key: clip[key][first:end + 1] for key in ('memory', 'teacher_memory') if key in clip}
    maps |= {key: clip[key][i] for key in ('skip', 'teacher_skip') if key in clip}
    return {**maps, 'now_from_frame': window_motion(clip['poses'], end),
            'age_s': 0.1 * np.arange(WINDOW_FRAMES - 1, -1, -1, dtype=np.float32),
            'frame_mask': mask, 'odometry_mask': np.array([known]),
            'plans': clip['plans'][i], 'ego_motion': clip['motion'][i],
            **truth_targets(clip, i, STEPS)}


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


def centre_heat(agents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the centre map (B, R, R) of visible agents on `CENTRE_GRID` and the weight of each cell.

    A Gaussian a visible agent with 1 at its cell (CenterNet, Zhou et al. 2019), wider for wider
    road users, so that two people side by side stay two peaks; cells within 3 m in x and y of an
    agent that is there but hidden have weight 0: finding it is no mistake.
    """
    agents = agents[:, :max(1, int(agents[..., 28].sum(1).max()))]           # rows in use
    axis = torch.as_tensor(CENTRE_GRID.centres_m()[0, :, 0], device=agents.device)     # (R,)
    sigma_m = (0.4 + 0.25 * agents[..., 4])[..., None]
    dx, dy = (axis - agents[..., i, None] for i in (0, 1))                   # (B, A, R)
    there, visible = agents[..., 28, None], agents[..., 9, None]
    across = torch.exp(-dx.square() / (2 * sigma_m ** 2)) * there * visible
    along = torch.exp(-dy.square() / (2 * sigma_m ** 2))
    heat = along[..., :, None] * across[..., None, :]                        # (B, A, R, R)
    cells = agent_cells(agents)
    heat = heat.amax(1)
    peak = ((agents[..., 9] * agents[..., 28]) > 0) & inside(agents)
    flat = heat.flatten(1)
    # The cell that holds a centre is 1 exactly, wherever in the cell the centre lies.
    flat = flat.scatter_reduce(1, cells, peak.float(), 'amax')
    gone = (dx.abs() < 3.0) & (there > 0) & (visible == 0)
    near = (dy.abs() < 3.0).float().transpose(1, 2) @ gone.float()
    weight = (near == 0).float()
    weight = torch.where(flat.reshape(heat.shape) > 0.3, torch.ones_like(weight), weight)
    return flat.reshape(heat.shape), weight


def inside(agents: torch.Tensor) -> torch.Tensor:
    """Return which rows (B, A) lie on the feature grid."""
    half = CENTRE_GRID.cell_m * CENTRE_GRID.rows / 2
    return (agents[..., 0:2].abs() < half).all(-1) & (agents[..., 28] > 0)


def agent_cells(agents: torch.Tensor) -> torch.Tensor:
    """Return the flat cell of `CENTRE_GRID` (B, A) of each agent, clamped to the grid."""
    rows, cols = CENTRE_GRID.shape
    col = ((agents[..., 0] - CENTRE_GRID.x_min_m) / CENTRE_GRID.cell_m).floor().clamp(0, cols - 1)
    row = ((agents[..., 1] - CENTRE_GRID.y_min_m) / CENTRE_GRID.cell_m).floor().clamp(0, rows - 1)
    return (row * cols + col).long()
