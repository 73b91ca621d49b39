"""
Start from what is there: a folded, quantised model becomes one that can be trained again.

In an artifact batch norms are merged into their convolutions. Training goes better with them, so
each gets one back whose gain and shift are what the convolution gives on a few batches: the
function stays the same, and statistics are counted from there on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from wm_ros.export.weights import load_artifact_model
from wm_ros.model.quant import ConvBlock, NormedConv, Quantizer, fold_batch_norms
from wm_ros.model.world_model import WorldModel
from wm_ros.train.loop import load_model, tensors_of


def load_start(path: Path) -> WorldModel:
    """Return the model of an artifact or of a run's folder: norms folded, in float."""
    checkpoint = path / 'model.safetensors'
    model = load_model(checkpoint) if checkpoint.is_file() else load_artifact_model(path)
    fold_batch_norms(model)
    switch_off_quantizers(model)
    return model.eval()


def load_heads(trainer: nn.Module, start: Path, stage: str) -> None:
    """Take a stage's own heads, which no artifact holds, from a run's folder where they fit."""
    path = start / f'{stage}.safetensors'
    if path.is_file():
        own = trainer.state_dict()
        trainer.load_state_dict({name: value for name, value in tensors_of(path).items()
                                 if not name.startswith('model.') and name in own
                                 and value.shape == own[name].shape}, strict=False)


def switch_off_quantizers(model: nn.Module) -> None:
    """Let a quantised model compute in float again."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.enabled.fill_(False)
            module.active = False


@torch.no_grad()
def restore_norms(model: WorldModel, run: Callable[[], None]) -> None:
    """
    Give every folded convolution that `run` reaches its batch norm back, in place.

    `run()` passes some batches through the model. In evaluation mode the model computes the same
    before and after; in training mode nearly so, on data like that.
    """
    model.eval()
    convs = {}
    for module in model.modules():
        if isinstance(module, ConvBlock) and isinstance(module.norm, nn.Identity):
            convs[module] = module.conv
        elif isinstance(module, NormedConv) and isinstance(module[1], nn.Identity):
            convs[module] = module[0]
    with _statistics(convs.values()) as seen:
        run()
    for module, conv in convs.items():
        if conv not in seen:
            continue
        mean, var = seen[conv].mean_and_var()
        norm = nn.BatchNorm2d(conv.out_channels).to(conv.weight.device)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_((var + norm.eps).sqrt())
        norm.bias.copy_(mean)
        if isinstance(module, ConvBlock):
            module.norm = norm
        else:  # its convolution has no bias of its own
            norm.running_mean.sub_(conv.bias)
            conv.bias = None
            module[1] = norm


class _Moments:
    """Mean and variance of each channel over all that was seen."""

    def __init__(self):
        self._count, self._sum, self._square = 0, 0.0, 0.0

    def add(self, x: torch.Tensor) -> None:
        x = x.double().transpose(0, 1).flatten(1)
        self._count += x.shape[1]
        self._sum = self._sum + x.sum(1)
        self._square = self._square + x.square().sum(1)

    def mean_and_var(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self._sum / self._count
        return mean.float(), (self._square / self._count - mean.square()).clamp_min(0).float()


@contextmanager
def _statistics(convs):
    seen: dict[nn.Module, _Moments] = {}
    handles = [conv.register_forward_hook(
        lambda module, _, output: seen.setdefault(module, _Moments()).add(output.detach()))
        for conv in convs]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
