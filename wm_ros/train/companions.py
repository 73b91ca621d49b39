"""
What a model's own peaks stand for: somebody, nobody, or several (`wm_ros.model.companions`).

In use, road users are read at peaks, which lie beside them, mostly too near or too far: so boxes
and futures are learnt there too. Peaks are matched with the truth as the benchmark matches
detections (the highest first; by the peak's own score, which does not move with what is learnt
here), so what a score learns to say is whether there is a road user within 2 m of the box. Who is
left over, and stands that near to the box of a peak that has found another, is that peak's
companion. Whoever is still left over is what the box of the nearest peak that has found nobody
should have been.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from wm_ros.decode import ON_FOOT, without_duplicates
from wm_ros.evaluate.agents import match
from wm_ros.evaluate.metrics import HIT_DISTANCE_M
from wm_ros.model.agents import AgentDecoder, peaks
from wm_ros.train import losses

#: Peaks of a score under STRONG have no companions. One above WEAK that has found nobody should
#: have found somebody who is left within MISPLACED_M of its box.
STRONG, WEAK, MISPLACED_M = 0.2, 0.1, 4.0
NOBODY, LEFT_OUT = -1, -2


def companion_losses(agents: AgentDecoder, outputs: dict[str, torch.Tensor],
                     batch: dict[str, torch.Tensor],
                     use: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Return the named losses of peaks and companions in `outputs` of a batch of windows.

    Agents are read once more, at the peaks alone, as in use: beside the true ones' cells, as stage
    two reads them, a companion's own cell would be among the rows that a peak looks at. `use`
    (B, 64) are the true agents that count. `own` asks of peaks what stage two asks of rows read at
    the true cells.
    """
    truth, companions, stress = batch['agents'], agents.companions, batch.get('stress')
    ego = batch['plans'], batch['odometry_mask']
    score, cells = peaks(outputs['centre'].detach().float(), agents.peaks)
    query, place = agents.queries(outputs['now'], outputs['states'][:, 0], score, cells)
    somebody, another = companions.judged(query, score)
    found = agents.heads(query, place, outputs['now'], ego)
    with torch.no_grad():
        first, others, misplaced = what_peaks_are(score, found['agent_box'], found['agent_class'],
                                                  truth, companions.count)
        sight = truth[..., 9].gather(1, first.clamp_min(0))
        hit = (first >= 0) & (sight > 0)
        # To find somebody hidden is no mistake, and none is expected to.
        counts = hit | (first == NOBODY)
        beside = others >= 0                                                # (B, A, count)
    many = use.sum().clamp_min(1.0)
    existence = F.binary_cross_entropy_with_logits(somebody, hit.float(), reduction='none')
    chance = F.binary_cross_entropy_with_logits(another, beside.float(), reduction='none')
    whose = torch.where(hit, first, misplaced)
    row = whose.clamp_min(0)
    own = losses.agent_losses(found, _rows_of(truth, row), (whose >= 0) & use.gather(1, row),
                              None if stress is None else stress.gather(1, row))
    # The second companion is asked for where there is a first, by which its chance is multiplied.
    asked = (hit & (score > STRONG))[..., None]
    asked = torch.cat([asked, asked & beside[..., :-1]], -1)
    parts = {'existence': 0.5 * (existence * counts).sum() / many,
             'companion': (chance * asked).sum() / many,
             'own': sum(own.values())}
    rows = agents.heads(companions.queries(query).flatten(1, 2),
                        place.repeat_interleave(companions.count, 1), outputs['now'], ego)
    wanted = _rows_of(truth, others.clamp_min(0).flatten(1))
    there = beside.flatten(1)
    box = losses.box_loss(rows, wanted, there)
    paths = losses.trajectory_loss(rows, wanted, there)
    return {**parts, 'beside': 0.2 * (box['place'] + 0.5 * box['speed'] + 0.2 * box['class']
                                      + 0.2 * box['heading'] + 0.1 * box['size']
                                      + paths['path'] + 0.2 * paths['likelihood']
                                      + 0.5 * paths['mode'])}


def _rows_of(truth: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows (B, M) of true agents (B, 64, 29)."""
    return truth.gather(1, rows[..., None].expand(-1, -1, truth.shape[-1]))


def what_peaks_are(score: torch.Tensor, box: torch.Tensor, label: torch.Tensor,
                   truth: torch.Tensor, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Return whom each peak has found, its `count` companions, and whom it should have found.

    That is (B, A), (B, A, count) and (B, A). Takes scores (B, A), boxes (B, A, 9) and class logits
    (B, A, 8) of peaks, and the true agents (B, 64, 29). All are rows of the truth; NOBODY where
    there is none, LEFT_OUT of a peak that is another one's double. The nearest companion comes
    first. Only a peak that has found nobody should have found somebody: the nearest who is left.
    """
    found = []
    for peak_score, peak_box, peak_label, agents in zip(
            score.float().cpu().numpy(), box.float().cpu().numpy(), label.float().cpu().numpy(),
            truth.float().cpu().numpy(), strict=True):
        found.append(_one(peak_score, peak_box, ON_FOOT[peak_label.argmax(-1)], agents, count))
    first, others, misplaced = (torch.from_numpy(np.stack(rows)).to(score.device)
                                for rows in zip(*found, strict=True))
    return first, others, misplaced


def _one(score: np.ndarray, box: np.ndarray, on_foot: np.ndarray, agents: np.ndarray,
         count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `what_peaks_are` does of one window."""
    first = np.full(len(score), LEFT_OUT)
    beside = np.full((len(score), count), NOBODY)
    misplaced = np.full(len(score), NOBODY)
    rows = np.argsort(-score, kind='stable')
    rows = rows[without_duplicates(box[rows], on_foot[rows])]
    there = np.flatnonzero(agents[:, 28] > 0)
    visible = agents[there, 9] > 0
    partner = match(box[rows, :2], score[rows], agents[there, :2], visible)
    first[rows] = np.where(partner >= 0, there[partner] if len(there) else NOBODY, NOBODY)
    hits = rows[(partner >= 0) & (score[rows] > STRONG)]
    left = np.setdiff1d(there[visible], first[hits])
    taken = dict.fromkeys(hits, 0)
    for peak, who in _nearest_first(box[hits], agents[left], HIT_DISTANCE_M, again=True):
        if taken[hits[peak]] < count:
            beside[hits[peak], taken[hits[peak]]] = left[who]
        taken[hits[peak]] += 1
    left = np.setdiff1d(left, np.concatenate([first, beside.ravel()]))
    lonely = rows[(partner < 0) & (score[rows] > WEAK)]
    for peak, who in _nearest_first(box[lonely], agents[left], MISPLACED_M, again=False):
        misplaced[lonely[peak]] = left[who]
    return first, beside, misplaced


def _nearest_first(box: np.ndarray, agents: np.ndarray, limit_m: float,
                   again: bool) -> list[tuple[int, int]]:
    """Return pairs of boxes and agents, each agent once, each box too unless `again`."""
    distance = np.linalg.norm(agents[None, :, :2] - box[:, None, :2], axis=-1)
    pairs = []
    while distance.size and distance.min() < limit_m:
        peak, who = np.unravel_index(distance.argmin(), distance.shape)
        pairs.append((int(peak), int(who)))
        distance[:, who] = np.inf
        if not again:
            distance[peak] = np.inf
    return pairs
