"""ResNets and their plain counterparts: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385.

Table 1 (ImageNet) and section 4.2 (CIFAR-10). One class holds them all, because torchvision's has neither shortcut
options A and C, nor the plain nets, nor the CIFAR nets. Its state-dict keys are torchvision's, so that the published
weights load into it.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from errors import UserError
from lit_models.nets.layers import Stem, check_stem, init_convolutions, named_sequential

Shortcut = Literal["A", "B", "C", "none"]

# Table 1: residual blocks in each stage, and the width of its 3x3 convolutions.
IMAGENET_WIDTHS: tuple[int, ...] = (64, 128, 256, 512)
IMAGENET_STAGES: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
# Section 4.2: 6n + 2 layers, n blocks in each of three stages.
CIFAR_WIDTHS: tuple[int, ...] = (16, 32, 64)
CIFAR_STAGES: dict[int, tuple[int, ...]] = {depth: ((depth - 2) // 6,) * 3 for depth in (20, 32, 44, 56, 110, 1202)}
BOTTLENECK_DEPTHS = (50, 101, 152)


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pooling, linear classifier: ImageNet (Table 1) or CIFAR (4.2).

    Args:
        num_classes: K, the number of logits.
        depth: 18, 34, 50, 101 or 152 for ImageNet; 20, 32, 44, 56, 110 or 1202 for CIFAR.
        shortcut: the shortcut of a block that changes the shape: A pads with zero channels, B projects, C projects in
            every block, "none" gives the plain net. None means the paper's choice: B on ImageNet, A on CIFAR.
        stride_in_1x1: halve the image in the first 1x1 convolution of a bottleneck, as in the paper, and not in its
            3x3, as torchvision and every published weight do ("v1.5"; 4.09 instead of 3.86 G multiply-adds at depth
            50).
        zero_init_last: start the last gamma of each block at 0, so that the block starts as the identity (arXiv
            1706.02677, section 5.1).
        stem: stem of an ImageNet net: "imagenet" downsamples by 4; "cifar", for images of 32 px, is the 3x3
            convolution without pooling that the CIFAR nets have anyway. The weights keep their keys and, but for the
            first convolution, their shapes.

    Raises:
        UserError: for an unknown depth, or a combination of arguments that makes no network.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int,
        shortcut: Shortcut | None = None,
        stride_in_1x1: bool = False,
        zero_init_last: bool = False,
        stem: Stem = "imagenet",
    ) -> None:
        super().__init__()
        check_arguments(depth, shortcut, stride_in_1x1, zero_init_last, stem)
        for_cifar = depth in CIFAR_STAGES
        shortcut = shortcut or ("A" if for_cifar else "B")
        stages, widths = (CIFAR_STAGES, CIFAR_WIDTHS) if for_cifar else (IMAGENET_STAGES, IMAGENET_WIDTHS)
        block = Bottleneck if depth in BOTTLENECK_DEPTHS else BasicBlock
        channels = widths[0]
        if for_cifar or stem == "cifar":
            self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        for i, (blocks, width) in enumerate(zip(stages[depth], widths, strict=True)):
            stage = nn.Sequential()
            for j in range(blocks):
                stride, outputs = 2 if i > 0 and j == 0 else 1, width * block.expansion
                layer = block(channels, width, stride, shortcut_layer(shortcut, channels, outputs, stride))
                if stride_in_1x1:
                    layer.conv1.stride, layer.conv2.stride = layer.conv2.stride, layer.conv1.stride
                if zero_init_last:
                    nn.init.zeros_((layer.bn3 if isinstance(layer, Bottleneck) else layer.bn2).weight)
                stage.append(plain_block(layer) if shortcut == "none" else layer)
                channels = outputs
            self.add_module(f"layer{i + 1}", stage)
        self.num_stages = len(widths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self)  # over the fan-out as the authors of both papers do in code

    def forward(self, x: Tensor) -> Tensor:
        # ImageNet at 224 px | CIFAR at 32 px
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [B, 64, 56, 56] | [B, 16, 32, 32]
        for i in range(self.num_stages):
            x = self.get_submodule(f"layer{i + 1}")(x)  # [B, 512 or 2048, 7, 7] | [B, 64, 8, 8]
        return self.fc(torch.flatten(self.avgpool(x), 1))  # [B, K]


def shortcut_layer(shortcut: Shortcut, channels: int, outputs: int, stride: int) -> nn.Module | None:
    """Shortcut of a residual block (section 3.3): padding or projection; None is the identity."""
    changes = stride != 1 or channels != outputs
    if shortcut == "C" or (shortcut == "B" and changes):
        projection = nn.Conv2d(channels, outputs, 1, stride, bias=False)
        return nn.Sequential(projection, nn.BatchNorm2d(outputs))
    return PadShortcut(channels, outputs, stride) if shortcut == "A" and changes else None


def plain_block(block: BasicBlock | Bottleneck) -> nn.Sequential:
    """The layers of a residual block in a row, under the same names: a block of a plain net."""
    layers: dict[str, nn.Module] = {}
    for i in range(1, 4 if isinstance(block, Bottleneck) else 3):
        layers[f"conv{i}"], layers[f"bn{i}"] = block.get_submodule(f"conv{i}"), block.get_submodule(f"bn{i}")
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
    return named_sequential(**layers)


class PadShortcut(nn.Module):
    """Option A: every stride-th pixel, and half of the missing channels as zeros on each side."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (outputs - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


def check_arguments(
    depth: int, shortcut: Shortcut | None, stride_in_1x1: bool, zero_init_last: bool, stem: Stem
) -> None:
    """Raise UserError for an unknown depth, or a combination of arguments that makes no network."""
    check_stem(stem)
    if depth not in CIFAR_STAGES and depth not in IMAGENET_STAGES:
        raise UserError(
            f"depth {depth} is no ResNet of the paper: choose one of {', '.join(map(str, IMAGENET_STAGES))} (ImageNet) "
            f"or {', '.join(map(str, CIFAR_STAGES))} (CIFAR)."
        )
    if depth in CIFAR_STAGES and stem == "cifar":
        raise UserError(f"stem cifar is for the ImageNet depths: depth {depth} begins so anyway, leave stem out.")
    if stride_in_1x1 and depth not in BOTTLENECK_DEPTHS:
        raise UserError(f"stride_in_1x1 needs bottleneck blocks, which depth {depth} has not: use 50, 101 or 152.")
    if zero_init_last and shortcut == "none":
        raise UserError("zero_init_last needs shortcuts: every signal through a plain net would be zero.")
