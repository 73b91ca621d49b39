"""
Symmetric INT8 fake quantisation, and the layers that carry it.

A `Quantizer` is an identity until `calibrate` has seen data; then it rounds as the exported graph
will: int8, zero point 0, one scale a tensor for activations, one a channel for weights. The same
modules serve calibration, quantisation-aware training and export (QuantizeLinear and
DequantizeLinear pairs, as TensorRT and OpenVINO read them).

Convolutions are *exact*: scales of their inputs are powers of two, those of their weights have at
most four significant bits, and biases are whole steps of the product. Single precision then holds
every sum, scaled sum and result without rounding, in whatever order a run time computes them, and a
tie falls the same way everywhere: the encoder's maps are equal to the bit on every backend.
Otherwise one value in some 100,000 would be rounded the other way, and the eighteen layers behind
turn that into noise everywhere. Powers of two as scales are trained as in Jain et al. (MLSys 2020).
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

QMAX = 127
#: Significant bits of the scales of exact weights, and what they are at least multiples of: finer
#: ones would leave more than 24 bits between a result at the end of the INT8 range and a tie.
SCALE_BITS, SCALE_STEP = 4, 2.0 ** -15


class Quantizer(nn.Module):
    """Fake-quantises an activation with one scale, a power of two if `exact`, once calibrated."""

    def __init__(self, percentile: float = 0.9999, exact: bool = False):
        super().__init__()
        self.percentile, self.exact = percentile, exact
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('enabled', torch.zeros((), dtype=torch.bool))
        self.register_parameter('log_scale', None)
        self.observing = False
        self.active = False  # plain copy of `enabled`, so that a traced graph has no branch on it
        self._highs: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.observing:
            self._observe(x.detach())
            return x
        if not self.active:
            return x
        if self.log_scale is not None:
            return torch._fake_quantize_learnable_per_tensor_affine(
                x, self._learnt(), torch.zeros_like(self.log_scale), -QMAX - 1, QMAX)
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, torch.zeros((), dtype=torch.int32, device=x.device), -QMAX - 1, QMAX)

    def finely(self, x: torch.Tensor, parts: int = 16) -> torch.Tensor:
        """Round x to that part of a step, once calibrated: short weights then have exact sums."""
        if not self.active or self.training:
            return x
        part = self.scale * (1.0 / parts)
        return torch.round(x / part) * part

    def _learnt(self) -> torch.Tensor:
        """Return the scale as learnt so far; the gradient passes by the rounding to its power."""
        scale = self.log_scale.exp()
        return scale + (power_of_two(scale) - scale).detach() if self.exact else scale

    def _observe(self, x: torch.Tensor) -> None:
        values = x.abs().flatten().float()
        if values.numel() > 200_000:  # a sample is enough
            values = values[torch.randint(values.numel(), (200_000,), device=x.device)]
        above = max(1, round((1 - self.percentile) * values.numel()))
        self._highs.append(float(values.topk(above).values[-1]))    # `quantile` would sort all

    def finish(self) -> None:
        """Fix the scale from what was observed: the mean of the batches' high percentiles."""
        if self._highs:
            high = max(sum(self._highs) / len(self._highs), 1e-4)
            self.scale.fill_(high / QMAX)
            self.sharpen()
            self.enabled.fill_(True)
            self.active = True
            self._highs = []
        self.observing = False

    def learn(self) -> None:
        """
        Let training move the scale (learned step size, Esser et al. 2020), until `settle`.

        It is learnt as a logarithm: scales differ a hundredfold, and none may pass zero.
        """
        if self.active:
            self.log_scale = nn.Parameter(self.scale.log().reshape(1))

    @torch.no_grad()
    def settle(self) -> None:
        """Fix the scale where training has left it."""
        if self.log_scale is not None:
            self.scale.copy_(self._learnt()[0])
            self.log_scale = None
            self.sharpen()

    @torch.no_grad()
    def sharpen(self) -> None:
        """Make the scale a power of two where it has to be one."""
        if self.exact:
            self.scale.copy_(power_of_two(self.scale))

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.active = bool(self.enabled)


class _QuantWeight:
    """What the two quantised layers share: an INT8 input, INT8 weights, one scale a channel."""

    def _init_quantizers(self, exact: bool) -> None:
        self.input = Quantizer(exact=exact)
        self.register_buffer('weight_scale', torch.ones(self.weight.shape[0]))

    @torch.no_grad()
    def update_weight_scale(self) -> None:
        """Set the scales from the weights: the largest of each output channel."""
        scale = self.weight.abs().flatten(1).amax(1).clamp_min(1e-8) / QMAX
        self.weight_scale.copy_(few_bits(scale) if self.input.exact else scale)

    @torch.no_grad()
    def sharpen(self) -> None:
        """Make scales and bias exact, if they have to be and the layer is calibrated."""
        if not (self.input.exact and self.input.active):
            return
        self.input.sharpen()
        self.weight_scale.copy_(few_bits(self.weight_scale))
        step = (self.input.scale * self.weight_scale).double()
        self.bias.copy_(torch.round(self.bias.double() / step) * step)

    def rounded_weight(self) -> torch.Tensor:
        if not self.input.active:
            return self.weight
        if self.training:  # in evaluation and export the scales are constants
            self.update_weight_scale()
        zero = torch.zeros_like(self.weight_scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_scale, zero, 0, -QMAX - 1, QMAX)


class QuantConv2d(_QuantWeight, nn.Conv2d):
    """Convolution with a bias, an INT8 input and INT8 weights once calibrated, and exact then."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_quantizers(exact=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(self.input(x), self.rounded_weight(), self.bias, self.stride,
                        self.padding)


class QuantLinear(_QuantWeight, nn.Linear):
    """Linear layer with an INT8 input and INT8 weights once calibrated."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._init_quantizers(exact=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.input(x), self.rounded_weight(), self.bias)


class ConvBlock(nn.Module):
    """3x3 (or 1x1) convolution, batch norm, ReLU; `fold` merges the norm before quantisation."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, kernel: int = 3):
        super().__init__()
        self.conv = QuantConv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=True)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Merge batch norm into the convolution (exact in evaluation mode)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            merge_norm(self.conv, self.norm)
            self.norm = nn.Identity()


class NormedConv(nn.Sequential):
    """Convolution, batch norm, ReLU for a stage that stays in half precision."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3):
        super().__init__(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2,
                                   bias=False),
                         nn.BatchNorm2d(channels_out), nn.ReLU())

    def fold(self) -> None:
        """Merge batch norm into the convolution (exact in evaluation mode)."""
        if isinstance(self[1], nn.BatchNorm2d):
            self[0].bias = nn.Parameter(torch.zeros_like(self[0].weight[:, 0, 0, 0]))
            merge_norm(self[0], self[1])
            self[1] = nn.Identity()


@torch.no_grad()
def merge_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Scale and shift a convolution (with a bias) by the running statistics of a batch norm."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.mul_(gain[:, None, None, None])
    conv.bias.sub_(norm.running_mean).mul_(gain).add_(norm.bias)


def fold_batch_norms(model: nn.Module) -> None:
    """Fold every `ConvBlock` of a model, and every plain convolution with a norm, in place."""
    for module in model.modules():
        if isinstance(module, (ConvBlock, NormedConv)):
            module.fold()


@contextmanager
def calibration(model: nn.Module):
    """Observe activations inside the block; quantise with what was seen after it."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    for quantizer in quantizers:
        quantizer.observing = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.finish()
        for module in model.modules():
            if isinstance(module, _QuantWeight):
                module.update_weight_scale()


def power_of_two(scale: torch.Tensor) -> torch.Tensor:
    """Return the power of two next to each scale, by ratio."""
    return torch.ldexp(torch.ones_like(scale), torch.log2(scale).round())


def few_bits(scale: torch.Tensor) -> torch.Tensor:
    """Round scales up to `SCALE_BITS` significant bits and to multiples of `SCALE_STEP`."""
    _, exponent = torch.frexp(scale)
    step = torch.ldexp(torch.ones_like(scale), exponent - SCALE_BITS).clamp_min(SCALE_STEP)
    return torch.ceil(scale / step) * step


def sharpen(model: nn.Module) -> None:
    """Make every calibrated convolution of a model exact, in place; a second call does nothing."""
    for module in model.modules():
        if isinstance(module, _QuantWeight):
            module.sharpen()


def learn_scales(model: nn.Module) -> None:
    """Let training move the activation scales of a calibrated model."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.learn()


def settle_scales(model: nn.Module) -> None:
    """Fix all scales where training has left them, those of the weights by the weights."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.settle()
        if isinstance(module, _QuantWeight):
            module.update_weight_scale()
    sharpen(model)
