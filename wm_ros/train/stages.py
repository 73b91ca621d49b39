"""
The two stages of training: single frames first, then time.

*frame*: encoder, lift and what the decoder says of now, on single frames of a few cameras.
*window*: recurrence, dynamics, futures, on streams that the encoder of stage one has encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from wm_ros.model.agents import peaks
from wm_ros.model.bottleneck import TOKEN_ROWS
from wm_ros.model.config import ModelConfig
from wm_ros.model.decoder import to_output_grid
from wm_ros.model.world_model import WorldModel
from wm_ros.train import losses, targets
from wm_ros.train.store import ClipStore
from wm_ros.types import FEATURE_GRID

#: Peaks of the model's own that stand beside the true agents in training, as they will in use.
EXTRA_QUERIES = 16


class Batches:
    """Draws samples from a store in a thread, one batch ahead of the training step."""

    def __init__(self, store: ClipStore, sample: Callable, batch: int, device: torch.device,
                 seed: int):
        self._store, self._sample, self._batch = store, sample, batch
        self._device, self._rng = device, np.random.default_rng(seed)
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(self._draw)

    def _draw(self) -> list[dict[str, np.ndarray]]:
        return [self._sample(self._store.read(self._rng), self._rng) for _ in range(self._batch)]

    def take(self) -> dict[str, torch.Tensor]:
        """Return the next batch as tensors on the device."""
        samples = self._next.result()
        self._next = self._pool.submit(self._draw)
        return targets.collate(samples, self._device)


class FrameTrainer(nn.Module):
    """Stage one: the model with the small extra heads that only this stage needs."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = WorldModel(config)
        # The cached map must say by itself what is where: it is all that time will see.
        self.memory_head = nn.Conv2d(config.memory_channels, 1 + 4, 1)
        self.occupancy_head = nn.Conv2d(self.model.decoder.now_channels, 4, 1)
        nn.init.constant_(self.memory_head.bias, -3.0)
        nn.init.constant_(self.occupancy_head.bias, -3.0)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of frames."""
        model, agents = self.model, batch['agents']
        memory, skip = model.encode(batch['images'], batch['index'], batch['weight'])
        rows, cols = FEATURE_GRID.shape
        blank = skip.new_zeros(skip.shape[0], self.config.decoder_channels, rows, cols)
        current = model.decoder.current(skip, blank)
        state = skip.new_zeros(skip.shape[0], TOKEN_ROWS ** 2, self.config.dim)
        use = targets.inside(agents) & (agents[..., 9] > 0)
        cells = targets.agent_cells(agents)
        bias = torch.where(use, 0.0, -1e4)[:, None, None]
        score = torch.sigmoid(current['centre'].detach()).flatten(1).gather(1, cells)
        outputs = model.agents(current['now'], state, score, cells, bias.to(skip.dtype))
        weight = (~batch['hidden'][:, None]).float() * (0.2 + 0.8 * batch['observed'][:, None])
        from_memory = self.memory_head(memory)
        box = losses.box_loss(outputs, agents, use)
        return {
            'centre': losses.centre_loss(current['centre'], agents),
            'occupancy': losses.occupancy_loss(to_output_grid(self.occupancy_head(current['now'])),
                                               batch['occupancy'], weight),
            'ground': losses.ground_loss(current['road'], current['observed'], batch['road'],
                                         batch['observed']),
            'memory': 0.5 * losses.centre_loss(from_memory[:, 0], agents)
            + 0.5 * losses.occupancy_loss(to_output_grid(from_memory[:, 1:]), batch['occupancy'],
                                          weight),
            'class': 0.3 * box['class'],
            'box': 0.5 * box['place'] + 0.3 * box['heading'] + 0.2 * box['size']}


class WindowTrainer(nn.Module):
    """Stage two: everything after the encoder, on cached features."""

    def __init__(self, model: WorldModel):
        super().__init__()
        self.config = model.config
        self.model = model
        model.encoder.requires_grad_(False)
        model.lift.requires_grad_(False)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of windows."""
        model, agents = self.model, batch['agents']
        latent = model.fold(batch['memory'], batch['now_from_frame'], batch['age_s'],
                            batch['frame_mask'], batch['odometry_mask'])
        use = targets.inside(agents) & (agents[..., 9] > 0)
        cells = targets.agent_cells(agents)
        states = model.dynamics(latent, batch['plans'], batch['ego_motion'],
                                batch['odometry_mask'])
        dense = model.decoder(states, batch['skip'])
        with torch.no_grad():
            _, extra = peaks(dense['centre'].float(), EXTRA_QUERIES)
            # A detection is a cell off now and then; an agent must be read from there as well.
            shift = torch.randint(0, 12, cells.shape, device=cells.device)
            step = torch.where(shift < 2, shift * 2 - 1, torch.zeros_like(shift))
            step = step + torch.where((shift >= 2) & (shift < 4), (shift * 2 - 5) * 80,
                                      torch.zeros_like(shift))
            cells = (cells + step).clamp(0, FEATURE_GRID.rows * FEATURE_GRID.cols - 1)
        count = cells.shape[1]
        cells = torch.cat([cells, extra], 1)
        bias = torch.cat([torch.where(use, 0.0, -1e4), use.new_zeros(extra.shape).float()], 1)
        score = torch.sigmoid(dense['centre'].detach()).flatten(1).gather(1, cells)
        outputs = model.agents(dense['now'], states[:, 0], score, cells,
                               bias[:, None, None].to(score.dtype))
        outputs = {name: value[:, :count] for name, value in outputs.items()}
        weight = (~batch['hidden'][:, None]).float() * (0.2 + 0.8 * batch['observed'][:, None])
        box = losses.box_loss(outputs, agents, use)
        paths = losses.trajectory_loss(outputs, agents, use)
        return {
            'centre': losses.centre_loss(dense['centre'], agents),
            'occupancy': losses.occupancy_loss(dense['occupancy'], batch['occupancy'], weight),
            'flow': 0.4 * losses.flow_loss(dense['flow'], batch['flow'], batch['occupancy']),
            'ground': losses.ground_loss(dense['road'], dense['observed'], batch['road'],
                                         batch['observed']),
            'class': 0.2 * box['class'],
            'box': 0.4 * box['place'] + 0.2 * box['heading'] + 0.1 * box['size'],
            'speed': 0.3 * box['speed'],
            'path': 0.8 * paths['path'], 'likelihood': 0.15 * paths['likelihood'],
            'mode': 0.6 * paths['mode']}
