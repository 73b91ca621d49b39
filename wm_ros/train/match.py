"""
How far one model's outputs are from another's: what distillation minimises.

Every loss is 0 where the outputs are the same. `student` and `teacher` are outputs of
`WindowTrainer.outputs` for the same batch and the same agent queries; the teacher's carry no
gradient.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from wm_ros.train import targets
from wm_ros.train.stages import ground_weight
from wm_ros.types import MODES

Outputs = dict[str, torch.Tensor]


def map_gap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the squared difference of two feature maps, relative to the teacher's square."""
    error = (student.float() - teacher.float()).square().mean()
    return error / teacher.float().square().mean().clamp_min(1e-6)


def bernoulli_gap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the divergence of the student's probabilities from the teacher's, by logits."""
    student, teacher = student.float(), teacher.float()
    p = torch.sigmoid(teacher)
    return (F.binary_cross_entropy_with_logits(student, p, reduction='none')
            - F.binary_cross_entropy_with_logits(teacher, p, reduction='none'))


def choice_gap(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the divergence (...) of two distributions over the last axis, by logits."""
    log_p = F.log_softmax(teacher.float(), -1)
    return (log_p.exp() * (log_p - F.log_softmax(student.float(), -1))).sum(-1)


def dense_gaps(student: Outputs, teacher: Outputs, weight: torch.Tensor) -> Outputs:
    """Return the named losses of occupancy, flow, ground and centres; `weight` (B, 1, Y, X)."""
    p = torch.sigmoid(teacher['occupancy'].float())          # (B, 7, Y, X)
    occupancy = bernoulli_gap(student['occupancy'], teacher['occupancy'])
    flow = F.smooth_l1_loss(student['flow'].float(), teacher['flow'].float(), reduction='none')
    return {'occupancy': 10.0 * (occupancy * weight * (1 + 2 * p)).mean(),
            'flow': 0.4 * (flow.sum(2) * p).sum() / p.sum().clamp_min(1.0),
            **current_gaps(student, teacher)}


def current_gaps(student: Outputs, teacher: Outputs) -> Outputs:
    """Return the named losses of what is there now: ground and centres."""
    centre = bernoulli_gap(student['centre'], teacher['centre'])
    found = torch.sigmoid(teacher['centre'].float()) > 0.3
    ground = (bernoulli_gap(student['road'], teacher['road']).mean() * 2.0
              + bernoulli_gap(student['observed'], teacher['observed']).mean())
    return {'ground': ground, 'centre': centre.sum() / found.sum().clamp_min(1.0)}


def match_modes(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """
    Return for each mode of the teacher the student's (M, K), one to one, of the least distance.

    Paths are (M, K, T, 2); the distance is the mean over the waypoints. Exact: all orders are
    tried, 720 for six modes.
    """
    cost = (student[:, None] - teacher[:, :, None]).norm(dim=-1).mean(-1)   # (M, Kt, Ks)
    orders = torch.tensor(list(itertools.permutations(range(MODES))), device=cost.device)
    rows = torch.arange(MODES, device=cost.device)
    total = cost[:, rows, orders].sum(-1)                    # (M, 720)
    return orders[total.argmin(-1)]


def agent_gaps(student: Outputs, teacher: Outputs, use: torch.Tensor) -> Outputs:
    """Return the named losses of boxes and futures over agents where `use` (B, A) is true."""
    mine = {name: student[name][:, :use.shape[1]][use].float() for name in (
        'agent_class', 'agent_box', 'agent_log_sigma', 'mode_logits', 'trajectories',
        'trajectory_spread')}
    want = {name: teacher[name][:, :use.shape[1]][use].float() for name in mine}
    count = use.sum().clamp_min(1.0)
    with torch.no_grad():
        order = match_modes(mine['trajectories'], want['trajectories'])
    rows = torch.arange(len(order), device=order.device)[:, None]
    for name in ('mode_logits', 'trajectories', 'trajectory_spread'):
        mine[name] = mine[name][rows, order]
    share = torch.softmax(want['mode_logits'], -1)           # (M, K)
    path = F.smooth_l1_loss(mine['trajectories'], want['trajectories'], reduction='none',
                            beta=0.5).sum(-1).mean(-1)       # (M, K)
    spread = (mine['trajectory_spread'] - want['trajectory_spread']).abs().mean((-1, -2))
    box = F.smooth_l1_loss(mine['agent_box'], want['agent_box'], reduction='none', beta=0.2)
    sigma = (mine['agent_log_sigma'] - want['agent_log_sigma']).abs()
    return {'class': 0.2 * choice_gap(mine['agent_class'], want['agent_class']).sum() / count,
            'box': (0.4 * box.sum() + 0.05 * sigma.sum()) / count,
            'path': 0.8 * (path * share).sum() / count,
            'spread': 0.1 * (spread * share).sum() / count,
            'mode': 0.6 * choice_gap(mine['mode_logits'], want['mode_logits']).sum() / count}


def output_gaps(student: Outputs, teacher: Outputs, batch: Outputs) -> Outputs:
    """Return every named loss between two models' outputs of a batch of windows."""
    agents = batch['agents']
    use = targets.inside(agents) & (agents[..., 9] > 0)
    return {**dense_gaps(student, teacher, ground_weight(batch)),
            **agent_gaps(student, teacher, use)}
