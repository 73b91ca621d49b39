"""
Stage three: the agents' futures learn to read the ego plan; all else stays as it is.

Six modes hold both answers, so in stage two hardly anything pulls at the few weights between the
plan and the futures: where somebody reacts it is one road user among many. Here they alone learn,
at ten times the rate: half of each step from windows that are told twice and in which somebody does
another thing, both tellings side by side, half from any windows, without which everybody else's
futures become worse. Since nothing before them moves, their queries are worked out once, and a step
takes milliseconds.
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

#: Pairs of tellings a step, other windows beside them, and what they are learnt with.
PAIRS, OTHERS, RATE, WARMUP = 6, 12, 5e-3, 50
#: Fewer pairs would be learnt by heart.
ENOUGH = 8
#: Clips of which one window is among the others: so many show what everybody else does.
OTHER_CLIPS = 800

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
        outputs = self._agents[0].futures(table['queries'], table['ahead'], table['boxes'],
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
            tables = tables_of(model.to(device), ClipStore(folder / 'windows'), device)
            if tables is not None and model.agents.from_plan is not None:
                if done.exists() and done.stat().st_mtime < path.stat().st_mtime and \
                        notes_of(path).get('stage') != 'plan':
                    done.unlink()               # it was learnt in front of other weights
                learn(model, *tables, folder, settings)
                save_model(model, path, {'stage': 'plan'})
        world.wait()
    return path


def learn(model: WorldModel, told: Table, others: Table, folder: Path,
          settings: Settings) -> None:
    """Fit the weights between plan and futures on rows drawn from both tables."""
    trainer = PlanTrainer(model)
    trainer.requires_grad_(True)
    pairs, device = len(told['plans']) // 2, told['plans'].device
    random = np.random.default_rng(settings.seed)

    def drawn(below: int, count: int) -> torch.Tensor:
        return torch.from_numpy(random.integers(below, size=count)).to(device)

    def step(progress: float) -> dict[str, torch.Tensor]:
        first = 2 * drawn(pairs, PAIRS)
        rows = torch.stack([first, first + 1], 1).flatten()
        other = drawn(len(others['plans']), OTHERS)
        return trainer({name: torch.cat([told[name][rows], others[name][other]])
                        for name in told})

    fit(trainer, step, Schedule(settings.plan_steps, rate=RATE, warmup=WARMUP), folder, 'plan')


def tables_of(model: WorldModel, store: ClipStore,
              device: torch.device) -> tuple[Table, Table] | None:
    """
    Return queries and truth of windows told twice to another end, and of one window of some clips.

    `queries` of futures (M, A, D), `ahead` (M, A, 2), `boxes` (M, A, 9), `plans` (M, 6, 3),
    `agents` (M, 64, 29), `stress` (M, 64); the rows of the first table are pairs, as it went before
    as it goes if the ego vehicle brakes. None where there are too few of those.
    """
    told, others = [], []
    paths = store.paths()
    beside = set(np.random.default_rng(0).permutation(len(paths))[:OTHER_CLIPS].tolist())
    for i, path in enumerate(paths):
        with np.load(path) as file:
            count = len(file['ends'])
            if influenced(file).any():
                told.append(rows_of(model, dict(file), (count - 2, count - 1), device))
            if i in beside:
                others.append(rows_of(model, dict(file), (0,), device))
    print(f'plan: {len(told)} windows that are told twice to another end', file=sys.stderr,
          flush=True)
    if len(told) < ENOUGH:
        return None
    return tuple({name: torch.cat([rows[name] for rows in table]) for name in table[0]}
                 for table in (told, others))


@torch.no_grad()
def rows_of(model: WorldModel, clip: dict[str, np.ndarray], windows: tuple[int, ...],
            device: torch.device) -> Table:
    """Return windows of a clip as rows of a table, nothing missing in them."""
    draw = np.random.default_rng(0)
    counts = np.where(influenced(clip) if len(windows) > 1 else False, INFLUENCED_STRESS, 1.0)
    counts = np.broadcast_to(counts, (len(windows), len(clip['agents_0']))).astype(np.float32)
    batch = collate([window_sample(only(clip, i), draw) for i in windows], device)
    for name in ('frame_mask', 'odometry_mask'):
        batch[name] = torch.ones_like(batch[name])
    latent, past = model.fold(batch['memory'], batch['now_from_frame'], batch['age_s'],
                              batch['frame_mask'], batch['odometry_mask'])
    states = model.dynamics(latent, batch['plans'], batch['ego_motion'], batch['odometry_mask'])
    now = torch.zeros(1, dtype=torch.long, device=device)
    dense = model.decoder(states[:, :1], batch['skip'] + past, now)
    read = agent_queries(dense['centre'], batch['agents'], shaken=False)
    score = torch.sigmoid(dense['centre']).flatten(1).gather(1, read['cells'])
    queries, places = model.agents.queries(dense['now'], states[:, 0], score, read['cells'],
                                           read['bias'][:, None, None])
    rows = batch['agents'].shape[1]             # the true ones come first
    queries, ahead, boxes = model.agents.boxes(queries[:, :rows], places[:, :rows], dense['now'])
    return {'queries': queries, 'ahead': ahead, 'boxes': boxes['agent_box'],
            'plans': batch['plans'], 'agents': batch['agents'],
            'stress': torch.from_numpy(counts).to(device)}
