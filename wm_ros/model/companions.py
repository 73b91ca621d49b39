"""Companions: how sure a peak of the centre map is, and who else stands too near to be another."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.model.rows import divided, gather_rows
from wm_ros.runtime.contract import COMPANIONS

#: Of a score, so that its logit is finite in half precision too.
EPSILON = 1e-4


class Companions(nn.Module):
    """
    Several road users from one peak, and a second opinion on each.

    Where an error of place is as wide as people walk apart, a map of centres has one peak for two
    of them, however fine it is. So every peak's query also says how many more it stands for, and
    gives each a query of its own, by which it is decoded like any other: one proposal, multiple
    predictions (Chu et al., CVPR 2020). The same query, which has seen the scene and the other
    agents, corrects the peak's score, as second stages do.
    """

    def __init__(self, agent_dim: int, count: int):
        super().__init__()
        self.count = count
        self.judge = nn.Sequential(nn.LayerNorm(agent_dim), nn.Linear(agent_dim, agent_dim),
                                   nn.ReLU(), nn.Linear(agent_dim, 1 + count))
        self.apart = nn.Sequential(nn.LayerNorm(agent_dim), nn.Linear(agent_dim, 2 * agent_dim),
                                   nn.ReLU(), nn.Linear(2 * agent_dim, count * agent_dim))
        # Begins as a model without: scores as they are, hardly a companion.
        for last in (self.judge[-1], self.apart[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.judge[-1].bias[1:], -3.0)

    def judged(self, query: torch.Tensor,
               score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Judge peaks by queries (B, A, D) and scores (B, A).

        Returns logits that there is somebody (B, A), and, if so, that there is another beside the
        ones before (B, A, count).
        """
        held = score.float().clamp(EPSILON, 1.0 - EPSILON)
        verdict = self.judge(query).float()
        return torch.log(held / (1.0 - held)) + verdict[..., 0], verdict[..., 1:]

    def queries(self, query: torch.Tensor) -> torch.Tensor:
        """Return a query (B, A, count, D) for each companion of queries (B, A, D)."""
        return query[:, :, None] + self.apart(query).unflatten(-1, (self.count, -1))

    def forward(self, query: torch.Tensor, place: torch.Tensor, score: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return queries, places and scores of all peaks and behind them of `COMPANIONS` companions.

        Takes queries (B, A, D), places (B, A, 2) and scores (B, A); of several plans in one scene
        places and scores are (1, ...). Who is a companion is then judged by the queries of the
        first plan, so that all plans of one call have the same agents in the same rows.
        """
        somebody, another = self.judged(query[:len(score)], score)
        score = chance = torch.sigmoid(somebody)
        chances = []
        for i in range(self.count):
            chance = chance * torch.sigmoid(another[..., i])
            chances.append(chance)
        best, row = torch.topk(torch.stack(chances, -1).flatten(1), COMPANIONS, dim=1)
        theirs = gather_rows(self.queries(query).flatten(1, 2), row)
        there = gather_rows(place, divided(row, self.count)[0])
        return (torch.cat([query, theirs], 1), torch.cat([place, there], 1),
                torch.cat([score, best], 1))
