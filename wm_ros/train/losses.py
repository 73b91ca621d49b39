"""Losses of the world model, each over a batch; `inputs` are the contract's raw outputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from wm_ros.train.targets import centre_heat
from wm_ros.types import FEATURE_GRID, HORIZON_STEPS, TIME_STEP_S

#: Weight of the mean of all modes beside the winner's, by step: within a second there is little
#: that a road user can do, and modes that part then lose to constant velocity.
LOSERS_SHARE = (0.3, 0.2, 0.1, 0.05, 0.05, 0.05)


def centre_loss(logits: torch.Tensor, agents: torch.Tensor) -> torch.Tensor:
    """
    Penalty-reduced focal loss on centre logits (B, S, S) (CenterNet, Zhou et al. 2019).

    Cells without a centre count by their area, so that a finer map weighs them no more.
    """
    heat, weight = centre_heat(agents, logits.shape[-1])
    p = torch.sigmoid(logits.float()).clamp(1e-4, 1 - 1e-4)
    peak = (heat == 1).float()
    found = -peak * (1 - p).square() * torch.log(p)
    empty = -(1 - peak) * weight * (1 - heat).pow(4) * p.square() * torch.log(1 - p)
    area = (2 * FEATURE_GRID.rows / logits.shape[-1]) ** 2
    return (found + area * empty).sum() / peak.sum().clamp_min(1.0)


def occupancy_loss(logits: torch.Tensor, target: torch.Tensor,
                   weight: torch.Tensor) -> torch.Tensor:
    """
    Cross entropy and soft IoU of occupancy (B, T, Y, X); `weight` (B, 1, Y, X) 0 to ignore.

    Occupied cells are a few in a hundred, and the score is an IoU: the second term is it.
    """
    logits, target = logits.float(), target.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    entropy = (entropy * weight * (1 + 2 * target)).mean() * 10.0
    p = torch.sigmoid(logits) * weight
    target = target * weight
    both = (p * target).sum((0, 2, 3))
    either = (p + target - p * target).sum((0, 2, 3))
    return entropy + (1 - (both + 1) / (either + 1)).mean()


def flow_loss(flow: torch.Tensor, target: torch.Tensor, occupied: torch.Tensor) -> torch.Tensor:
    """Smooth L1 of backward flow (B, T, 2, Y, X) where the truth is occupied, metres."""
    chosen = occupied.bool()
    found, wanted = flow.movedim(2, -1)[chosen], target.movedim(2, -1)[chosen]    # (M, 2)
    return F.smooth_l1_loss(found.float(), wanted, reduction='sum') / max(1, len(found))


def motion_loss(motion: torch.Tensor, agents: torch.Tensor, use: torch.Tensor) -> torch.Tensor:
    """
    Smooth L1 of the agents' velocities, m/s, read from the tokens that they stand in.

    `motion` (B, 256, 2 * P * P) holds x and y of each of a token's P x P cells.
    """
    rows = round(motion.shape[1] ** 0.5)
    patch = round((motion.shape[2] / 2) ** 0.5)
    cells = rows * patch
    half_m = -FEATURE_GRID.x_min_m
    place = ((agents[..., 0:2] + half_m) / (2 * half_m) * cells).long().clamp(0, cells - 1)
    col, row = place.unbind(-1)
    token, cell = (torch.div(row, patch, rounding_mode='floor') * rows
                   + torch.div(col, patch, rounding_mode='floor'),
                   row % patch * patch + col % patch)
    maps = motion.float().unflatten(2, (patch * patch, 2)).flatten(1, 2)      # (B, 256*P*P, 2)
    at = (token * patch * patch + cell)[..., None].expand(-1, -1, 2)
    error = F.smooth_l1_loss(maps.gather(1, at) * 5.0, agents[..., 6:8], reduction='none',
                             beta=0.5).sum(-1)
    weight = use * (1 + 2 * (agents[..., 6:8].norm(dim=-1) > 0.5))
    return (error * weight).sum() / use.sum().clamp_min(1.0)


def ground_loss(road: torch.Tensor, observed: torch.Tensor, road_target: torch.Tensor,
                observed_target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the road layout where the ground is observed, and of `observed`."""
    weight = observed_target[:, None].float() * 0.95 + 0.05
    layout = F.binary_cross_entropy_with_logits(road.float(), road_target.float(),
                                                reduction='none')
    seen = F.binary_cross_entropy_with_logits(observed.float(), observed_target.float())
    return (layout * weight).mean() * 2.0 + seen


def box_loss(outputs: dict[str, torch.Tensor], agents: torch.Tensor,
             use: torch.Tensor) -> dict[str, torch.Tensor]:
    """Losses of class, box and its spread for agents (B, A, 29) where `use` (B, A) is true."""
    count = use.sum().clamp_min(1.0)
    target = agents[use]
    label = F.cross_entropy(outputs['agent_class'].float()[use], target[:, 8].long(),
                            reduction='sum') / count
    box = outputs['agent_box'].float()[use]
    yaw = torch.stack([torch.sin(target[:, 2]), torch.cos(target[:, 2])], -1)
    size = torch.log(target[:, 3:6].clamp_min(0.1))
    errors = torch.cat([box[:, 0:2] - target[:, 0:2], box[:, 7:9] - target[:, 6:8]], -1)
    # Laplace likelihood: a scale that is learnt beside the value weighs hard cases down.
    turn = torch.atan2(box[:, 2] * yaw[:, 1] - box[:, 3] * yaw[:, 0],
                       box[:, 2] * yaw[:, 0] + box[:, 3] * yaw[:, 1])
    sigma = outputs['agent_log_sigma'].float()[use]
    # Alone, the likelihood excuses the hard cases by a large scale: long vehicles kept their
    # centre at the face that is seen, and what moves was said to go at a third of its speed.
    direct = F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction='none', beta=0.5)
    moving = 1 + 2 * (target[:, 6:8].norm(dim=-1, keepdim=True) > 0.5).float()
    place = (laplace(errors[:, :2].abs(), sigma[:, 0:2]) + direct[:, :2]).sum() / count
    speed = (laplace(errors[:, 2:].abs(), sigma[:, 3:5]) + moving * direct[:, 2:]).sum() / count
    heading = ((box[:, 2:4] - yaw).abs().sum() + laplace(turn.abs(), sigma[:, 2]).sum()) / count
    return {'class': label, 'place': place, 'speed': speed, 'heading': heading,
            'size': (box[:, 4:7] - size).abs().sum() / count}


def agent_losses(outputs: dict[str, torch.Tensor], agents: torch.Tensor, use: torch.Tensor,
                 stress: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Return all that stage two asks of rows of agents, weighted; as `trajectory_loss`."""
    box = box_loss(outputs, agents, use)
    paths = trajectory_loss(outputs, agents, use, stress)
    return {'class': 0.2 * box['class'],
            'box': 0.4 * box['place'] + 0.2 * box['heading'] + 0.1 * box['size'],
            'speed': 0.3 * box['speed'],
            'path': 0.8 * paths['path'], 'likelihood': 0.15 * paths['likelihood'],
            'mode': 0.6 * paths['mode']}


def laplace(error: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of an absolute error under a Laplace law of that deviation."""
    return math.sqrt(2) * error * torch.exp(-log_sigma) + log_sigma


def trajectory_loss(outputs: dict[str, torch.Tensor], agents: torch.Tensor,
                    use: torch.Tensor,
                    stress: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """
    Winner-takes-all likelihood of the futures, and cross entropy of the mode probabilities.

    `stress` (B, A) is what each agent counts, 1 where it is not given.

    The winner is the mode whose largest error over the horizon is smallest, as the miss rate
    and scene prediction accuracy count it. Waypoints follow a correlated Gaussian; a smooth L1
    keeps the mean moving where the covariance would excuse it.
    """
    known = agents[..., 22:28]
    use = use & (known.sum(-1) == HORIZON_STEPS)
    count = use.sum().clamp_min(1.0)
    target = agents[use]
    truth = (target[:, 10:22].reshape(-1, HORIZON_STEPS, 2) + target[:, None, 0:2])
    paths = outputs['trajectories'].float()[use]             # (M, K, T, 2)
    spread = outputs['trajectory_spread'].float()[use]
    logits = outputs['mode_logits'].float()[use]
    error = (paths - truth[:, None]).norm(dim=-1)            # (M, K, T)
    best = error.detach().amax(-1).argmin(-1)
    rows = torch.arange(len(best), device=best.device)
    won, won_spread = paths[rows, best], spread[rows, best]
    d = truth - won
    direct = F.smooth_l1_loss(won, truth, reduction='none', beta=0.5).sum(-1)
    # A little for the losers too: a mode that never wins would drift to where nobody goes.
    others = F.smooth_l1_loss(paths, truth[:, None].expand_as(paths), reduction='none', beta=0.5)
    direct = direct + direct.new_tensor(LOSERS_SHARE) * others.sum(-1).mean(1)
    likelihood = gaussian_nll(d, won_spread)
    # Soft labels: modes that end close to the truth are not wrong.
    with torch.no_grad():
        closeness = torch.softmax(-error.amax(-1) / 1.0, -1)
        label = 0.5 * closeness + 0.5 * F.one_hot(best, paths.shape[1])
    mode = -(label * F.log_softmax(logits, -1)).sum(-1)
    time = TIME_STEP_S * torch.arange(1, HORIZON_STEPS + 1, device=d.device)
    direct = (direct * (1.0 / (0.5 + 0.5 * time))).mean(-1)
    each = 1.0 if stress is None else stress[use]
    return {'path': (each * direct).sum() / count,
            'likelihood': (each * likelihood.mean(-1)).sum() / count,
            'mode': (each * mode).sum() / count}


def gaussian_nll(d: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Likelihood, negative log, of offsets (..., 2) by log sx, log sy, atanh rho (Graves 2013)."""
    rho = torch.tanh(spread[..., 2])
    zx = d[..., 0] * torch.exp(-spread[..., 0])
    zy = d[..., 1] * torch.exp(-spread[..., 1])
    rest = 1 - rho.square()
    return (0.5 * (zx.square() + zy.square() - 2 * rho * zx * zy) / rest
            + spread[..., 0] + spread[..., 1] + 0.5 * torch.log(rest))
