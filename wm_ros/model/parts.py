"""The three graphs of the contract as torch modules: what is exported, and what torch runs."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.contract import GraphSpec


class Part(nn.Module):
    """One graph: no batch dimension except the plans', outputs as a tuple in order."""

    def __init__(self, model: WorldModel, spec: GraphSpec):
        super().__init__()
        self.model, self.spec = model, spec


class Encode(Part):
    """Images and lift tables to the frame's bird's-eye features."""

    def forward(self, images, lift_index, lift_weight) -> tuple[torch.Tensor, ...]:
        memory, skip = self.model.encode(images[None], lift_index[None], lift_weight[None])
        return memory[0], skip[0]


class Fold(Part):
    """The window to the latent, and to what the past adds to the newest features."""

    def forward(self, memory, now_from_frame, age_s, frame_mask,
                odometry_mask) -> tuple[torch.Tensor, ...]:
        latent, past = self.model.fold(memory[None], now_from_frame[None], age_s[None],
                                       frame_mask[None], odometry_mask[None])
        return latent[0], past[0]


class Rollout(Part):
    """The latent under P plans to the raw outputs."""

    def forward(self, latent, skip, past, plans, ego_motion,
                odometry_mask) -> tuple[torch.Tensor, ...]:
        count = plans.shape[0]
        out = self.model.rollout(
            latent[None], skip[None], past[None], plans, ego_motion[None].expand(count, -1),
            odometry_mask[None].expand(count, -1))
        # What lies there now is the same under every plan.
        out = {**out, 'road': out['road'][0], 'observed': out['observed'][0]}
        return tuple(out[spec.name] for spec in self.spec.outputs)


PARTS: dict[str, type[Part]] = {'encode': Encode, 'fold': Fold, 'rollout': Rollout}
