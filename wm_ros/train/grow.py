"""
Grow a trained model: a larger one begins by computing what the smaller one does.

After Net2Net (Chen, Goodfellow and Shlens 2016). A deeper encoder has further blocks that begin as
the identity: a 3x3 kernel with a 1 in its middle, behind a ReLU, changes nothing. In a wider one
the further channels begin at random and are not read by those that were there: unlike copies with
shared weights, as Net2Net has them, no two are alike. What a teacher has beside the student's core
begins with weights of 0 (`wm_ros.model.teacher`), and so do what the
past adds to the newest map, the ego plan and an agent's surroundings in the agents' queries (and in
velocities), and what a peak's companions are decoded from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from wm_ros.model.config import ModelConfig
from wm_ros.model.encoder import ImageEncoder
from wm_ros.model.lift import Lift
from wm_ros.model.quant import ConvBlock, fold_batch_norms
from wm_ros.model.teacher import build_model
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.contract import LIFT_HEIGHTS_M

#: Fields of a config in which a model may be larger than the one it begins as.
WIDER = ('encoder_channels', 'encoder_blocks', 'lift_channels', 'bev_blocks')
#: Those that say what a teacher has beside, and what any model may have.
BESIDE, MORE = ('teacher', 'dense_every'), ('plan_in_agents', 'companions', 'past_filters',
                                             'surroundings')


@torch.no_grad()
def grown(small: WorldModel, config: ModelConfig) -> WorldModel:
    """
    Return a model of `config` with batch norms folded, which computes what `small` does.

    Where companions come in, the last peaks make room for them: the rows before are as they were.
    `small` has its norms folded and its quantisers off. Raises ValueError, naming the field, where
    `config` differs in something that cannot grow, or is smaller.
    """
    refuse(small.config, config)
    model = build_model(config).eval()
    fold_batch_norms(model)
    rest = {name: value for name, value in small.state_dict().items()
            if not name.startswith(('encoder.', 'lift.'))}
    unknown = model.load_state_dict(rest, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f'to grow: want the same parts, got {unknown[0]} beside them')
    grow_encoder(small.encoder, model.encoder)
    grow_lift(small.lift, model.lift)
    return model


def refuse(small: ModelConfig, large: ModelConfig) -> None:
    """Raise ValueError where a model of one config cannot begin as one of the other."""
    mine, theirs = large.to_dict(), small.to_dict()
    for name, wanted in theirs.items():
        got = mine[name]
        fits = (name in BESIDE and large.teacher >= small.teacher) or got == wanted or (
            name in MORE and got > wanted)
        if name in WIDER:
            pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
            fits = all(more >= less for more, less in pairs)
        if not fits:
            raise ValueError(f'to begin as a smaller model: {name}: want {wanted}'
                             f'{" or more" if name in WIDER else ""}, got {got}')


def grow_encoder(small: ImageEncoder, large: ImageEncoder) -> None:
    """Let a larger encoder compute in its first channels what the smaller one does."""
    for less, more in zip(small.stages, large.stages, strict=True):
        grow_blocks(less, more)
    for name in ('lateral', 'top', 'out'):
        widen(getattr(small, name).conv, getattr(large, name).conv)


def grow_lift(small: Lift, large: Lift) -> None:
    """Let a larger lift compute what the smaller one does, from wider image features."""
    heights = len(LIFT_HEIGHTS_M)
    less, more = small.mix[0].conv, large.mix[0].conv
    # Its input is, for each height, the features and then the channel that tells what is seen.
    old = less.weight.unflatten(1, (heights, -1))
    new = torch.zeros_like(more.weight).unflatten(1, (heights, -1))
    new[:, :, :old.shape[2] - 1], new[:, :, -1] = old[:, :, :-1], old[:, :, -1]
    more.weight.copy_(new.flatten(1, 2))
    more.bias.copy_(less.bias)
    grow_blocks(small.mix[1:], large.mix[1:])
    widen(small.memory.conv, large.memory.conv)


def grow_blocks(small: Sequence[ConvBlock], large: Sequence[ConvBlock]) -> None:
    """Widen the blocks that were there; the further ones become the identity."""
    for i, block in enumerate(large):
        if i < len(small):
            widen(small[i].conv, block.conv)
        else:
            nn.init.dirac_(block.conv.weight)
            nn.init.zeros_(block.conv.bias)


def widen(small: nn.Conv2d, large: nn.Conv2d) -> None:
    """Copy a convolution; further channels begin at random, and the old ones read none of them."""
    rows, cols = small.weight.shape[:2]
    nn.init.kaiming_normal_(large.weight, nonlinearity='relu')
    nn.init.zeros_(large.bias)
    large.weight[:rows] = 0.0
    large.weight[:rows, :cols] = small.weight
    large.bias[:rows] = small.bias
