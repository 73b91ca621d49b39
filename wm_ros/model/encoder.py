"""Image encoder: plain 3x3 convolutions, from 400x160 pixels to features at 1/8 of that."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.quant import ConvBlock


class ImageEncoder(nn.Module):
    """
    Four stages of plain convolutions and one step back up, in the manner of RepVGG.

    No depthwise convolution and no attention over patches: in INT8 on a CPU a dense 3x3 runs at
    more than twice the rate of a depthwise one, and weights fold to a single kernel.
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], out_channels: int):
        super().__init__()
        stages, width = [], 3
        for stage_width, count in zip(channels, blocks, strict=True):
            layers = [ConvBlock(width, stage_width, stride=2)]
            layers += [ConvBlock(stage_width, stage_width) for _ in range(count - 1)]
            stages.append(nn.Sequential(*layers))
            width = stage_width
        self.stages = nn.ModuleList(stages)
        self.lateral = ConvBlock(channels[2], out_channels * 2, kernel=1)
        self.top = ConvBlock(channels[3], out_channels * 2, kernel=1)
        self.out = ConvBlock(out_channels * 2, out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode uint8 RGB images (N, 160, 400, 3) to features (N, C, 20, 50)."""
        x = images.permute(0, 3, 1, 2)                      # (N, H, W, 3) -> (N, 3, H, W)
        x = (x.to(torch.float32) - 118.0) * (1.0 / 64.0)
        x = self.stages[1](self.stages[0](x))
        fine = self.stages[2](x)                            # (N, c2, 20, 50)
        coarse = self.stages[3](fine)                       # (N, c3, 10, 25)
        raised = F.interpolate(self.top(coarse), scale_factor=2.0, mode='nearest')
        return self.out(self.lateral(fine) + raised)
