"""The sizes of the world model, and the presets that ship."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ModelConfig:
    """
    Everything that fixes the shape of a model; it travels in checkpoints and manifests.

    The contract's sizes (input, grids, window, horizon, modes) are constants of `wm_ros.types`
    and `wm_ros.runtime.contract`, not fields: every model keeps them.
    """

    encoder_channels: tuple[int, ...] = (32, 64, 128, 256)  # at strides 2, 4, 8, 16
    encoder_blocks: tuple[int, ...] = (1, 2, 4, 3)
    lift_channels: int = 48         # of the image features that are sampled
    skip_channels: int = 64         # bird's-eye features of the newest frame
    memory_channels: int = 32       # bird's-eye features that are cached for 16 frames
    bev_blocks: int = 3
    latent_dim: int = 128
    dim: int = 192                  # width of the dynamics
    layers: int = 4
    heads: int = 6
    anchors: int = 32               # global tokens
    block: int = 32                 # queries a block; each sees 3 blocks and all anchors
    # Filters over time by which a cell's older features are read beside the latent, and channels
    # of what they find.
    past_filters: int = 6
    past_channels: int = 32
    decoder_channels: int = 32      # of a step's 1.25 m map
    # Centres are looked for on cells so many times finer than 1.25 m. On cells of 0.625 m two
    # people a metre apart are one peak half of the time, and people are two agents in five.
    centre_cells: int = 4
    agent_dim: int = 128
    agent_layers: int = 2
    # Agents' futures read the ego plan beside the scene: from the scene's tokens alone nobody
    # learnt to brake behind an ego vehicle that will.
    plan_in_agents: bool = True
    # How many more a peak of centres may stand for: people who walk side by side often share one.
    companions: int = 2
    # Channels of the map that agents read around them, in their own frames, for speed and futures.
    surroundings: int = 16
    teacher: bool = False           # dense attention over all frames' tokens beside the rest
    dense_every: int = 1            # a teacher's sparse layers to each dense one

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> ModelConfig:
        """Build a config from `to_dict`'s output; ValueError names an unknown field."""
        known = cls.__dataclass_fields__
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(f'model config: unknown fields {unknown}; known are {sorted(known)}')
        # What models had before there was a choice.
        fields = {'centre_cells': 2, 'plan_in_agents': False, 'companions': 0,
                  'past_filters': 0, 'surroundings': 0, **fields}
        return cls(**{key: tuple(value) if isinstance(value, list) else value
                      for key, value in fields.items()})


PRESETS = {
    # What two CPU cores train in an hour and a half.
    'small': ModelConfig(),
    # What the older frames add to the newest map left out, to tell what it brings.
    'small-without-past': ModelConfig(past_filters=0),
    # For an accelerator: a deeper encoder, wider and deeper dynamics.
    'base': ModelConfig(encoder_blocks=(1, 2, 4, 6), lift_channels=64, dim=256, layers=6, heads=8,
                        agent_dim=192),
    # What students of `base` and of `small` are distilled from. All but the encoder is as wide as
    # the student's, so that a teacher can begin as one (wm_ros.train.grow).
    'teacher': ModelConfig(encoder_channels=(48, 96, 192, 384), encoder_blocks=(1, 3, 6, 8),
                           lift_channels=96, bev_blocks=5, dim=256, layers=6, heads=8,
                           agent_dim=192, teacher=True),
    'teacher-small': ModelConfig(encoder_blocks=(1, 2, 6, 6), lift_channels=64, bev_blocks=4,
                                 teacher=True, dense_every=2),
    # For tests: run in a moment, learn nothing.
    'tiny': ModelConfig(encoder_channels=(8, 8, 16, 16), encoder_blocks=(1, 1, 1, 1),
                        lift_channels=8, skip_channels=16, memory_channels=8, bev_blocks=1,
                        latent_dim=32, dim=32, layers=1, heads=2, past_filters=2,
                        past_channels=8, decoder_channels=8, agent_dim=32, agent_layers=1,
                        surroundings=4),
    'teacher-tiny': ModelConfig(encoder_channels=(8, 16, 16, 16), encoder_blocks=(1, 2, 1, 2),
                                lift_channels=12, skip_channels=16, memory_channels=8,
                                bev_blocks=2, latent_dim=32, dim=32, layers=1, heads=2,
                                past_filters=2, past_channels=8, decoder_channels=8,
                                agent_dim=32, agent_layers=1, surroundings=4, teacher=True),
}
