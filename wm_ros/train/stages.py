"""
The two stages of training: single frames first, then time.

*frame*: encoder, lift and what the decoder says of now, on single frames of a few cameras.
*window*: recurrence, dynamics, futures, on streams that the encoder of stage one has encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wm_ros.model.agents import peaks
from wm_ros.model.bottleneck import TOKEN_ROWS
from wm_ros.model.config import ModelConfig
from wm_ros.model.decoder import STEPS, to_output_grid
from wm_ros.model.teacher import build_model
from wm_ros.model.world_model import WorldModel
from wm_ros.train import losses, targets
from wm_ros.train.companions import companion_losses
from wm_ros.train.store import ClipStore
from wm_ros.types import FEATURE_GRID

#: Peaks of the model's own that stand beside the true agents in training, as they will in use.
EXTRA_QUERIES = 16
#: Outputs that have one row an agent.
AGENT_OUTPUTS = ('agent_class', 'agent_box', 'agent_log_sigma', 'mode_logits', 'trajectories',
                 'trajectory_spread')


class Batches:
    """
    Draws samples from a store ahead of the training step, in a thread or in processes.

    `seed` is what every draw depends on: a number, or several (run, process, step). A thread
    is enough for a CPU; an accelerator wants `loaders` processes.
    """

    def __init__(self, store: ClipStore, sample: Callable, batch: int, device: torch.device,
                 seed: int | tuple[int, ...], loaders: int = 0):
        draws = _Draws(store, sample, batch, seed)
        self._device = device
        self._pool = None if loaders else ThreadPoolExecutor(1)
        self._batches = iter(draws if not loaders else DataLoader(
            draws, batch_size=None, num_workers=loaders, pin_memory=device.type == 'cuda',
            multiprocessing_context='spawn'))
        if self._pool:
            self._next = self._pool.submit(next, self._batches)

    def take(self) -> dict[str, torch.Tensor]:
        """Return the next batch as tensors on the device."""
        if self._pool is None:
            return targets.on_device(next(self._batches), self._device)
        batch = self._next.result()
        self._next = self._pool.submit(next, self._batches)
        return targets.on_device(batch, self._device)


class _Draws(IterableDataset):
    """Batches without end; every process that draws has numbers of its own."""

    def __init__(self, store: ClipStore, sample: Callable, batch: int,
                 seed: int | tuple[int, ...]):
        self._store, self._sample, self._batch = store, sample, batch
        self._seed = (seed,) if isinstance(seed, int) else seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        loader = get_worker_info()
        rng = np.random.default_rng([*self._seed, 0 if loader is None else loader.id])
        while True:
            yield targets.stacked([self._sample(self._store.read(rng), rng)
                                   for _ in range(self._batch)])


class FrameTrainer(nn.Module):
    """Stage one: the model with the small extra heads that only this stage needs."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = build_model(config)
        # The cached map must say by itself what is where: it is all that time will see.
        self.memory_head = nn.Conv2d(config.memory_channels, 4 + config.centre_cells ** 2, 1)
        self.occupancy_head = nn.Conv2d(self.model.decoder.now_channels, 4, 1)
        nn.init.constant_(self.memory_head.bias, -3.0)
        nn.init.constant_(self.occupancy_head.bias, -3.0)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of frames."""
        memory, skip = self.model.encode(batch['images'], batch['index'], batch['weight'])
        return self.losses_of(memory, skip, batch)

    def current(self, skip: torch.Tensor,
                model: WorldModel | None = None) -> dict[str, torch.Tensor]:
        """Return what a model, by default its own, says of now from a map (B, C, R, R) alone."""
        model = model or self.model
        rows, cols = FEATURE_GRID.shape
        blank = skip.new_zeros(skip.shape[0], model.config.decoder_channels, rows, cols)
        return model.decoder.current(skip, blank)

    def losses_of(self, memory: torch.Tensor, skip: torch.Tensor, batch: dict[str, torch.Tensor],
                  current: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """
        Return the named losses of maps (B, C, R, R) of a batch of frames.

        `current` is what `current(skip)` returns, where it is known already.
        """
        model, agents = self.model, batch['agents']
        current = current or self.current(skip)
        state = skip.new_zeros(skip.shape[0], TOKEN_ROWS ** 2, self.config.dim)
        use = targets.inside(agents) & (agents[..., 9] > 0)
        cells = targets.agent_cells(agents, current['centre'].shape[-1])
        bias = torch.where(use, 0.0, -1e4)[:, None, None]
        score = torch.sigmoid(current['centre'].detach()).flatten(1).gather(1, cells)
        queries = model.agents.queries(current['now'], state, score, cells, bias.to(skip.dtype))
        *_, outputs = model.agents.boxes(*queries, current['now'])      # of one frame, no futures
        weight = ground_weight(batch)
        from_memory = self.memory_head(memory)
        box = losses.box_loss(outputs, agents, use)
        return {
            'centre': losses.centre_loss(current['centre'], agents),
            'occupancy': losses.occupancy_loss(to_output_grid(self.occupancy_head(current['now'])),
                                               batch['occupancy'], weight),
            'ground': losses.ground_loss(current['road'], current['observed'], batch['road'],
                                         batch['observed']),
            'memory': 0.5 * losses.centre_loss(
                F.pixel_shuffle(from_memory[:, 4:], self.config.centre_cells)[:, 0], agents)
            + 0.5 * losses.occupancy_loss(to_output_grid(from_memory[:, :4]), batch['occupancy'],
                                          weight),
            'class': 0.3 * box['class'],
            'box': 0.5 * box['place'] + 0.3 * box['heading'] + 0.2 * box['size']}


class WindowTrainer(nn.Module):
    """Stage two: everything after the encoder, on cached features."""

    #: Steps of occupancy and flow that a training step decodes: now, and others drawn at random.
    #: Maps of all seven take more of a training step than everything else together.
    dense_steps = 4

    def __init__(self, model: WorldModel):
        super().__init__()
        self.config = model.config
        self.model = model
        # Motion has to be in the latent itself: of each of a token's cells, read by one layer.
        patch = FEATURE_GRID.rows // TOKEN_ROWS
        self.motion_head = nn.Linear(model.config.dim if model.config.teacher
                                     else model.config.latent_dim, 2 * patch ** 2)
        model.encoder.requires_grad_(False)
        model.lift.requires_grad_(False)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of a batch of windows."""
        return self.losses_of(self.outputs(batch), batch)

    def outputs(self, batch: dict[str, torch.Tensor],
                queries: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """
        Run a batch of windows; agents are read at the true ones' cells and at the own peaks.

        The outputs of the contract, with `states` (B, 7, 256, dim) and what agents were read at:
        `cells` and `bias` (B, A), of which the true agents come first, and the `steps` of the
        dense maps. `queries` are another model's outputs, to be compared with row by row.
        """
        model = self.model
        latent, past = model.fold(batch['memory'], batch['now_from_frame'], batch['age_s'],
                                  batch['frame_mask'], batch['odometry_mask'])
        states = model.dynamics(latent, batch['plans'], batch['ego_motion'],
                                batch['odometry_mask'])
        if queries is not None:
            steps = queries['steps']
        else:
            steps = self._draw_steps() if self.training else torch.arange(STEPS)
        steps = steps.to(states.device)
        dense = model.decoder(states[:, steps], batch['skip'] + past, steps)
        if queries is None:
            queries = agent_queries(dense['centre'], batch['agents'], self.training)
        cells, bias = queries['cells'], queries['bias']
        score = torch.sigmoid(dense['centre'].detach()).flatten(1).gather(1, cells)
        agents = model.agents(dense['now'], states[:, 0], score, cells,
                              bias[:, None, None].to(score.dtype),
                              (batch['plans'], batch['odometry_mask']))
        return {**dense, **agents, 'states': states, 'cells': cells, 'bias': bias, 'steps': steps,
                'motion': self.motion_head(states[:, 0] if self.config.teacher else latent)}

    def _draw_steps(self) -> torch.Tensor:
        others = 1 + torch.randperm(STEPS - 1)[:self.dense_steps - 1]
        return torch.cat([torch.zeros(1, dtype=torch.long), others.sort().values])

    def losses_of(self, outputs: dict[str, torch.Tensor],
                  batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the named losses of `outputs` of a batch of windows."""
        agents = batch['agents']
        use = targets.inside(agents) & (agents[..., 9] > 0)
        rows = {name: outputs[name][:, :agents.shape[1]] for name in AGENT_OUTPUTS}
        weight = ground_weight(batch)
        occupancy, flow = (batch[name][:, outputs['steps']] for name in ('occupancy', 'flow'))
        more = (companion_losses(self.model.agents, outputs, batch, use)
                if self.config.companions else {})
        return {
            'centre': losses.centre_loss(outputs['centre'], agents),
            'occupancy': losses.occupancy_loss(outputs['occupancy'], occupancy, weight),
            'flow': 0.4 * losses.flow_loss(outputs['flow'], flow, occupancy),
            'motion': 0.1 * losses.motion_loss(outputs['motion'], agents, use),
            'ground': losses.ground_loss(outputs['road'], outputs['observed'], batch['road'],
                                         batch['observed']),
            **losses.agent_losses(rows, agents, use, batch.get('stress')), **more}


@torch.no_grad()
def agent_queries(centre: torch.Tensor, agents: torch.Tensor,
                  shaken: bool = True) -> dict[str, torch.Tensor]:
    """
    Return where agents are read in training: `cells` (B, A) and the attention `bias` (B, A).

    The cells of the true agents, if `shaken` 0.6 m off now and then as a detection is, then the
    peaks of the centre logits (B, S, S), which stand beside them in use.
    """
    use = targets.inside(agents) & (agents[..., 9] > 0)
    rows = centre.shape[-1]
    cells = targets.agent_cells(agents, rows)
    _, extra = peaks(centre.float(), EXTRA_QUERIES)
    shift = torch.randint(0 if shaken else 4, 12, cells.shape, device=cells.device)
    step = torch.where(shift < 2, shift * 2 - 1, torch.zeros_like(shift))
    step = step + torch.where((shift >= 2) & (shift < 4), (shift * 2 - 5) * rows,
                              torch.zeros_like(shift))
    cells = (cells + step * (rows // (2 * FEATURE_GRID.rows))).clamp(0, rows ** 2 - 1)
    bias = torch.cat([torch.where(use, 0.0, -1e4), use.new_zeros(extra.shape).float()], 1)
    return {'cells': torch.cat([cells, extra], 1), 'bias': bias}


def ground_weight(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what a cell counts (B, 1, Y, X): less unobserved, not at all under hidden agents."""
    return (~batch['hidden'][:, None]).float() * (0.2 + 0.8 * batch['observed'][:, None])
