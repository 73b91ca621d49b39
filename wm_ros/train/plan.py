"""
Stage three: the agents' futures learn to read the ego plan; all else stays as it is.

Six modes hold both answers, so in stage two hardly anything pulls at the few weights between the
plan and the futures: where somebody reacts it is one road user among many. Here they alone learn,
from the windows that are told twice and in which somebody does another thing, both tellings side by
side, at ten times the rate. Since nothing before them moves, their queries are worked out once, and
a step takes milliseconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wm_ros.model.world_model import WorldModel
from wm_ros.train import losses
from wm_ros.train.answers import only
from wm_ros.train.config import Settings
from wm_ros.train.loop import Schedule, fit, load_model, notes_of, save_model
from wm_ros.train.parallel import joined
from wm_ros.train.stages import agent_queries
from wm_ros.train.store import ClipStore
from wm_ros.train.targets import INFLUENCED_STRESS, collate, influenced, inside, window_sample

#: Pairs of tellings a step, and what they are learnt with.
PAIRS, RATE, WARMUP = 6, 5e-3, 50
#: Fewer pairs would be learnt by heart.
ENOUGH = 8

Table = dict[str, torch.Tensor]


class PlanTrainer(nn.Module):
    """The weights between plan and futures, in front of heads that are frozen."""

    def __init__(self, model: WorldModel):
        super().__init__()
        self.from_plan = model.agents.from_plan
        self._agents = [model.agents]           # in a list: its other weights are not learnt

    def forward(self, table: Table) -> dict[str, torch.Tensor]:
        """Return the named losses of some windows (B, ...) of `table_of`."""
        known = table['plans'].new_ones(len(table['plans']), 1)
        outputs = self._agents[0].heads(table['queries'], table['places'],
                                        (table['plans'], known))
        agents = table['agents']
        use = inside(agents) & (agents[..., 9] > 0)
        paths = losses.trajectory_loss(outputs, agents, use, table['stress'])
        return {'path': 0.8 * paths['path'], 'likelihood': 0.15 * paths['likelihood'],
                'mode': 0.6 * paths['mode']}


def plan_stage(folder: Path, settings: Settings) -> Path:
    """
    Teach the model of a run that went through stage two to read the ego plan; return it.

    It stays as it is where too few of its windows are told twice to another end.
    """
    path, done = folder / 'model.safetensors', folder / 'plan.safetensors'
    with joined(settings.device) as world:
        if world.rank == 0 and settings.plan_steps:
            model = load_model(path).eval().requires_grad_(False)
            device = world.device(settings.device)
            table = table_of(model.to(device), ClipStore(folder / 'windows'), device)
            if table is not None and model.agents.from_plan is not None:
                if done.exists() and done.stat().st_mtime < path.stat().st_mtime and \
                        notes_of(path).get('stage') != 'plan':
                    done.unlink()               # it was learnt in front of other weights
                learn(model, table, folder, settings)
                save_model(model, path, {'stage': 'plan'})
        world.wait()
    return path


def learn(model: WorldModel, table: Table, folder: Path, settings: Settings) -> None:
    """Fit the weights between plan and futures on pairs drawn from a table."""
    trainer = PlanTrainer(model)
    trainer.requires_grad_(True)
    pairs = len(table['plans']) // 2
    random = np.random.default_rng(settings.seed)

    def step(progress: float) -> dict[str, torch.Tensor]:
        first = 2 * torch.from_numpy(random.integers(pairs, size=PAIRS)).to(table['plans'].device)
        rows = torch.stack([first, first + 1], 1).flatten()
        return trainer({name: value[rows] for name, value in table.items()})

    fit(trainer, step, Schedule(settings.plan_steps, rate=RATE, warmup=WARMUP), folder, 'plan')


def table_of(model: WorldModel, store: ClipStore, device: torch.device) -> Table | None:
    """
    Return queries and truth of all windows told twice to another end, pair by pair.

    `queries` (2 P, A, D), `places` (2 P, A, 2), `plans` (2 P, 6, 3), `agents` (2 P, 64, 29),
    `stress` (2 P, 64); None where there are too few pairs.
    """
    pairs = []
    for path in store.paths():
        with np.load(path) as file:
            if influenced(file).any():
                pairs.append(pair_of(model, dict(file), device))
    print(f'plan: {len(pairs)} windows that are told twice to another end', file=sys.stderr,
          flush=True)
    if len(pairs) < ENOUGH:
        return None
    return {name: torch.cat([pair[name] for pair in pairs]) for name in pairs[0]}


@torch.no_grad()
def pair_of(model: WorldModel, clip: dict[str, np.ndarray], device: torch.device) -> Table:
    """Return the two tellings of a clip's newest window as rows of the table."""
    count, draw = len(clip['ends']), np.random.default_rng(0)
    counts = np.where(influenced(clip), INFLUENCED_STRESS, 1.0).astype(np.float32)
    batch = collate([window_sample(only(clip, i), draw) for i in (count - 2, count - 1)], device)
    for name in ('frame_mask', 'odometry_mask'):
        batch[name] = torch.ones_like(batch[name])
    latent = model.fold(batch['memory'], batch['now_from_frame'], batch['age_s'],
                        batch['frame_mask'], batch['odometry_mask'])
    states = model.dynamics(latent, batch['plans'], batch['ego_motion'], batch['odometry_mask'])
    now = torch.zeros(1, dtype=torch.long, device=device)
    dense = model.decoder(states[:, :1], model.newest(latent, batch['skip']), now)
    read = agent_queries(dense['centre'], batch['agents'], shaken=False)
    score = torch.sigmoid(dense['centre']).flatten(1).gather(1, read['cells'])
    queries, places = model.agents.queries(dense['now'], states[:, 0], score, read['cells'],
                                           read['bias'][:, None, None])
    rows = batch['agents'].shape[1]             # the true ones come first
    return {'queries': queries[:, :rows], 'places': places[:, :rows], 'plans': batch['plans'],
            'agents': batch['agents'],
            'stress': torch.from_numpy(counts).to(device).expand(2, -1)}
