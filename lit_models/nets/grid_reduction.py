"""Three ways to halve a feature map and double its channels: Inception-v3, arXiv 1512.00567, section 5.

A d x d map of k channels becomes a d/2 x d/2 map of 2k channels. Pooling first is cheap, but leaves d/2 x d/2 x k
values between the two steps: a representational bottleneck. Widening first costs four times as much. Two parallel
branches of stride 2, a convolution and a pooling, avoid both. The net around the reductions is in no paper.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from errors import check_at_least
from lit_models.nets.layers import check_choice, conv_bn_relu, init_convolutions

Reduction = Literal["pool_first", "widen_first", "parallel"]


class GridReduction(nn.Module):
    """First convolution, stages of 3x3 convolutions with a reduction between two, average pooling, linear classifier.

    Args:
        num_classes: K, the number of logits.
        reduction: see `reduce_grid`.
        width: channels of the first stage; each further stage has twice as many.
        stages: number of stages.
        depth: convolutions in each stage.

    Raises:
        UserError: for an unknown reduction, or a number below 1.
    """

    def __init__(self, num_classes: int, reduction: Reduction, width: int, stages: int, depth: int) -> None:
        super().__init__()
        check_choice("reduction", reduction, get_args(Reduction), "no way to reduce a grid")
        check_at_least(1, width=width, stages=stages, depth=depth)
        self.features = nn.Sequential(conv_bn_relu(3, width, 3))
        for i in range(stages):
            channels = width * 2**i
            if i > 0:
                self.features.append(reduce_grid(reduction, channels // 2))
            self.features.extend(conv_bn_relu(channels, channels, 3) for _ in range(depth))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width * 2 ** (stages - 1), num_classes)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        # Three stages of k, 2k and 4k channels at 32 px
        x = self.features(x)  # [B, 4k, 8, 8]
        return self.fc(torch.flatten(self.avgpool(x), 1))  # [B, K]


def reduce_grid(reduction: Reduction, channels: int) -> nn.Module:
    """From [B, k, d, d] to [B, 2k, d/2, d/2].

    Figure 9 has Inception modules where this has 3x3 convolutions.

    Args:
        reduction: pool_first (Figure 9, left: 18 (d/2)^2 k^2 multiply-adds), widen_first (Figure 9, right: 18 d^2 k^2)
            or parallel (Figure 10, right: 9 (d/2)^2 k^2).
        channels: k.
    """
    if reduction == "pool_first":
        return nn.Sequential(max_pool(), conv_bn_relu(channels, 2 * channels, 3))
    if reduction == "widen_first":
        return nn.Sequential(conv_bn_relu(channels, 2 * channels, 3), max_pool())
    return ParallelReduction(channels)


class ParallelReduction(nn.Module):
    """A 3x3 convolution and a max pooling side by side, both with stride 2, concatenated (Figure 10, right)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(channels, channels, 3, stride=2)
        self.pool = max_pool()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.pool(x)], 1)


def max_pool() -> nn.MaxPool2d:
    """3x3 max pooling with stride 2. Padded, which the paper's is not, so that it halves an even size."""
    return nn.MaxPool2d(3, stride=2, padding=1)
