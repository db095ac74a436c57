"""Stacks of small convolutions against one large convolution with the same receptive field.

VGG, arXiv 1409.1556, section 2.3: two 3x3 convolutions see 5x5 pixels and three see 7x7, with a ReLU after each and
fewer weights. From C channels to C channels three take 27 C^2, one 7x7 takes 49 C^2. Inception-v3, arXiv 1512.00567,
section 3.2: a 7x1 and a 1x7 convolution see 7x7 pixels with 14 C^2.

The net is in no paper. All its layers have the same width, so that these counts hold in each of its stages.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from errors import UserError, check_at_least
from lit_models.nets.layers import init_convolutions


class KernelStacks(nn.Module):
    """A 3x3 convolution, stages of one stack of convolutions each, global average pooling, linear classifier.

    A 2x2 max pooling stands between two stages. Two nets whose stacks have the same receptive field have the same
    receptive field as a whole, too.

    Args:
        num_classes: K, the number of logits.
        kernels: height x width of each convolution of a stack, such as ("3x3", "3x3") or ("7x1", "1x7"); odd numbers.
        width: C, channels of every convolution.
        stages: number of stacks.
        batch_norm: BatchNorm after each convolution, in place of its bias. VGG has none.
        relu_between: a ReLU after every convolution of a stack, not after its last one alone (arXiv 1512.00567, section
            3.1, compares both).

    Raises:
        UserError: for no kernels, a kernel that keeps no image's size, or a number below 1.
    """

    def __init__(
        self,
        num_classes: int,
        kernels: Sequence[str],
        width: int,
        stages: int,
        batch_norm: bool,
        relu_between: bool,
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, stages=stages)
        shapes = parse_kernels(kernels)
        self.features = stack(3, width, [(3, 3)], batch_norm, relu_between)
        for i in range(stages):
            if i > 0:
                self.features.append(nn.MaxPool2d(2))
            self.features.extend(stack(width, width, shapes, batch_norm, relu_between))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        # Three stages of C channels at 32 px
        x = self.features(x)  # [B, C, 8, 8]
        return self.fc(torch.flatten(self.avgpool(x), 1))  # [B, K]


def stack(
    inputs: int, width: int, kernels: Sequence[tuple[int, int]], batch_norm: bool, relu_between: bool
) -> nn.Sequential:
    """Convolutions one after the other that keep the size of the image; the last one always ends with a ReLU."""
    layers = nn.Sequential()
    for i, (height, breadth) in enumerate(kernels):
        padding = (height // 2, breadth // 2)
        layers.append(nn.Conv2d(inputs, width, (height, breadth), padding=padding, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        if relu_between or i == len(kernels) - 1:
            layers.append(nn.ReLU(inplace=True))
        inputs = width
    return layers


def parse_kernels(kernels: Sequence[str]) -> list[tuple[int, int]]:
    """Height and width of each kernel: "7x1" is (7, 1).

    Raises:
        UserError: for no kernels, or one whose sides are not odd numbers.
    """
    if not kernels:
        raise UserError("kernels is empty: give the convolutions of a stack, such as [3x3, 3x3].")
    shapes = []
    for kernel in kernels:
        match = re.fullmatch(r"(\d{0,2}[13579])x(\d{0,2}[13579])", str(kernel))
        if match is None:
            raise UserError(f"kernels has {kernel}: write height x width, both odd, such as 3x3 or 1x7.")
        shapes.append((int(match[1]), int(match[2])))
    return shapes
