"""Inception-ResNet-v1: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", arXiv 1602.07261, Figures 7 and 10 to 15, and Table 1.

Its plain counterpart has the same layers in the same places, without the shortcuts. Neither torchvision nor timm has
the network; timm has Inception-ResNet-v2.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from errors import check_at_least
from lit_models.nets.layers import Stem, check_stem, conv_bn_relu, init_convolutions, scale_channels

Kernel = int | tuple[int, int]


class Convolution(NamedTuple):
    """A convolution of a branch: channels, kernel, and stride; those of stride 2 are not padded."""

    channels: int
    kernel: Kernel = 1
    stride: int = 1


Branches = tuple[tuple[Convolution, ...], ...]
C = Convolution

# Figure 14. From 299 px: 149, 147, 147, pooled to 73, 73, 71, 35
STEM_CHANNELS = (32, 32, 64, 80, 192, 256)
BLOCKS = (5, 10, 5)  # Figure 15
# The branches of the three kinds of blocks, and the factor of their residual. The paper scales residuals by "0.1 to
# 0.3" (section 3.3) and gives no numbers for each kind: these are those of its authors' Inception-ResNet-v2.
RESIDUALS: tuple[tuple[Branches, float], ...] = (
    (((C(32),), (C(32), C(32, 3)), (C(32), C(32, 3), C(32, 3))), 0.17),  # Figure 10, at 35 x 35
    (((C(128),), (C(128), C(128, (1, 7)), C(128, (7, 1)))), 0.10),  # Figure 11, at 17 x 17
    (((C(192),), (C(192), C(192, (1, 3)), C(192, (3, 1)))), 0.20),  # Figure 13, at 8 x 8
)
# The branches of the two reductions, beside a 3x3 max pooling
REDUCTIONS: tuple[Branches, ...] = (
    ((C(384, 3, 2),), (C(192), C(192, 3), C(256, 3, 2))),  # Figure 7 with k, l, m, n of Table 1: 35 to 17
    ((C(256), C(384, 3, 2)), (C(256), C(256, 3, 2)), (C(256), C(256, 3), C(256, 3, 2))),  # Figure 12: 17 to 8
)


class InceptionResNetV1(nn.Module):
    """Stem, three stages of residual Inception blocks with reductions between, average pooling, linear classifier.

    Args:
        num_classes: K, the number of logits.
        residual: add the input of each block to its output. False gives the plain net of the same layers.
        blocks: of each of the three stages; the paper's are 5, 10 and 5.
        width: multiplier of all channels; 1 gives the paper's.
        stem: "imagenet", or "cifar": the first stride and the pool left out, the convolutions padded, so that blocks
            see 32-px images at 15, 7 and 3 px.

    Raises:
        UserError: for an unknown stem, fewer than one block in a stage, or a width that is not above 0.
    """

    def __init__(
        self,
        num_classes: int,
        residual: bool = True,
        blocks: tuple[int, int, int] = BLOCKS,
        width: float = 1.0,
        stem: Stem = "imagenet",
    ) -> None:
        super().__init__()
        check_stem(stem)
        check_at_least(1, blocks=min(blocks))
        self.stem = inception_stem([scale_channels(channels, width) for channels in STEM_CHANNELS], stem)
        channels = scale_channels(STEM_CHANNELS[-1], width)
        self.stages = nn.ModuleList()
        for i, (number, (branches, scale)) in enumerate(zip(blocks, RESIDUALS, strict=True)):
            stage = nn.Sequential()
            if i > 0:
                reduction = Reduction(channels, scale_branches(REDUCTIONS[i - 1], width))
                stage.append(reduction)
                channels = reduction.channels
            scaled = scale_branches(branches, width)
            stage.extend(ResidualInception(channels, scaled, scale, residual) for _ in range(number))
            self.stages.append(stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)  # Figure 15: "keep 0.8"
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self)  # the paper gives no initialisation

    def forward(self, x: Tensor) -> Tensor:
        # ImageNet at 299 px | CIFAR at 32 px
        x = self.stem(x)  # [B, 256, 35, 35] | [B, 256, 15, 15]
        for stage in self.stages:
            x = stage(x)  # [B, 256, 35, 35], [B, 896, 17, 17], [B, 1792, 8, 8] | [B, 256, 15, 15], ..., [B, 1792, 3, 3]
        return self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))  # [B, K]


def inception_stem(widths: list[int], stem: Stem) -> nn.Sequential:
    """The layers of Figure 14 with these channels, or those of the CIFAR form."""
    imagenet = stem == "imagenet"
    return nn.Sequential(
        conv_bn_relu(3, widths[0], 3, stride=2 if imagenet else 1, padded=not imagenet),
        conv_bn_relu(widths[0], widths[1], 3, padded=not imagenet),
        conv_bn_relu(widths[1], widths[2], 3),
        nn.MaxPool2d(3, stride=2) if imagenet else nn.Identity(),
        conv_bn_relu(widths[2], widths[3], 1),
        conv_bn_relu(widths[3], widths[4], 3, padded=not imagenet),
        conv_bn_relu(widths[4], widths[5], 3, stride=2, padded=False),
    )


def scale_branches(branches: Branches, width: float) -> Branches:
    """Branches with their channels times the width multiplier."""
    return tuple(tuple(conv._replace(channels=scale_channels(conv.channels, width)) for conv in b) for b in branches)


def make_branch(inputs: int, convolutions: tuple[Convolution, ...]) -> nn.Sequential:
    """The convolutions of a branch, each with BatchNorm and ReLU."""
    layers = nn.Sequential()
    for channels, kernel, stride in convolutions:
        layers.append(conv_bn_relu(inputs, channels, kernel, stride, padded=stride == 1))
        inputs = channels
    return layers


class ResidualInception(nn.Module):
    """relu(x + scale * projection(branches(x))), or relu(projection(branches(x))) in a plain net.

    The projection is the figures' "1x1 Conv (Linear)". It has a bias and no BatchNorm, as in the authors' code.
    """

    def __init__(self, channels: int, branches: Branches, scale: float, residual: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make_branch(channels, branch) for branch in branches)
        self.projection = nn.Conv2d(sum(branch[-1].channels for branch in branches), channels, 1)
        assert self.projection.bias is not None
        nn.init.zeros_(self.projection.bias)
        self.relu = nn.ReLU(inplace=True)
        self.scale, self.residual = scale, residual

    def forward(self, x: Tensor) -> Tensor:
        projected = self.projection(torch.cat([branch(x) for branch in self.branches], 1))  # the shape of x
        return self.relu(x + self.scale * projected if self.residual else projected)


class Reduction(nn.Module):
    """Branches that end with stride 2 and a 3x3 max pooling with stride 2, concatenated."""

    def __init__(self, inputs: int, branches: Branches) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make_branch(inputs, branch) for branch in branches)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.channels = inputs + sum(branch[-1].channels for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pool(x), *(branch(x) for branch in self.branches)], 1)
