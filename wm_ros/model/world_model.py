"""The student: camera images to forecasts, in the three parts that are exported."""

from __future__ import annotations

import torch
from torch import nn

from wm_ros.model.agents import AgentDecoder
from wm_ros.model.bottleneck import TemporalBottleneck, window_warped
from wm_ros.model.config import ModelConfig
from wm_ros.model.decoder import Decoder
from wm_ros.model.dynamics import Dynamics
from wm_ros.model.encoder import ImageEncoder
from wm_ros.model.lift import Lift
from wm_ros.model.past import Past


class WorldModel(nn.Module):
    """
    encode once a frame, fold once a window, roll out once an ego plan.

    Shapes and names are those of `wm_ros.runtime.contract`, with a batch dimension in front.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.encoder_channels, config.encoder_blocks,
                                    config.lift_channels)
        self.lift = Lift(config.lift_channels, config.skip_channels, config.memory_channels,
                         config.bev_blocks)
        self.bottleneck = TemporalBottleneck(config.memory_channels, config.latent_dim)
        self.past = (Past(config.memory_channels, config.skip_channels, config.past_filters,
                          config.past_channels) if config.past_filters else None)
        self.dynamics = Dynamics(config.latent_dim, config.dim, config.layers, config.heads,
                                 config.block, config.anchors)
        self.decoder = Decoder(config.dim, config.skip_channels, config.decoder_channels,
                               config.centre_cells)
        self.agents = AgentDecoder(config.dim, self.decoder.now_channels, config.agent_dim,
                                   config.agent_layers, config.centre_cells,
                                   config.plan_in_agents, config.companions, config.surroundings)

    def encode(self, images: torch.Tensor, lift_index: torch.Tensor,
               lift_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images (B, N, H, W, 3) by lift tables (B, P, 4): maps to cache and to skip."""
        features = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.lift(features, lift_index, lift_weight)

    def fold(self, memory: torch.Tensor, now_from_frame: torch.Tensor, age_s: torch.Tensor,
             frame_mask: torch.Tensor, odometry_mask: torch.Tensor
             ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Fold 16 cached maps (B, 16, C, R, R) into the latent (B, 256, latent_dim).

        Beside it, what the older of them add to the newest frame's features, (B, skip, R, R).
        """
        warped = window_warped(memory, now_from_frame, odometry_mask)
        latent = self.bottleneck(warped, age_s, frame_mask, odometry_mask)
        return latent, self.past_of(warped, frame_mask, odometry_mask)

    def past_of(self, warped: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor) -> torch.Tensor:
        """Return what warped maps add to the newest frame's features; 0 of a model without."""
        if self.past is None:
            blank = warped[:, 0, :1] * 0.0
            return blank.expand(-1, self.config.skip_channels, -1, -1)
        return self.past(warped, frame_mask, odometry_mask)

    def rollout(self, latent: torch.Tensor, skip: torch.Tensor, past: torch.Tensor,
                plans: torch.Tensor, ego_motion: torch.Tensor,
                odometry_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Forecast from the latent under plans (B, 6, 3), all inputs with the same batch.

        With latent, `skip` and `past` of one scene, (1, ...), the plans are alternatives in it: who
        is there now is looked for once, so every plan has the same agents in the same rows.
        """
        states = self.dynamics(latent, plans, ego_motion, odometry_mask)
        dense = self.decoder(states, skip + past)
        there = self.agents.everybody(dense['now'], states[:, 0], dense['centre'],
                                      (plans, odometry_mask))
        score = there['agent_score'].expand(states.shape[0], -1)
        return {**dense, **there, 'agent_score': score}

    def forward(self, images: torch.Tensor, lift_index: torch.Tensor, lift_weight: torch.Tensor,
                now_from_frame: torch.Tensor, age_s: torch.Tensor, frame_mask: torch.Tensor,
                odometry_mask: torch.Tensor, plans: torch.Tensor,
                ego_motion: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run a whole window of images (B, 16, N, H, W, 3): encode, fold, roll out."""
        frames = [self.encode(images[:, t], lift_index, lift_weight)
                  for t in range(images.shape[1])]
        memory = torch.stack([memory for memory, _ in frames], 1)
        latent, past = self.fold(memory, now_from_frame, age_s, frame_mask, odometry_mask)
        return self.rollout(latent, frames[-1][1], past, plans, ego_motion, odometry_mask)
