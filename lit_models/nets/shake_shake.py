"""Shake-Shake nets for CIFAR: Gastaldi, "Shake-Shake regularization", arXiv 1705.07485, sections 1-2 and Table 1.

A residual net with two branches per block. Training mixes them with random weights, alpha in the forward and beta in
the backward pass; evaluation averages them. Table 1 names a net by its first width (26 2x32d: 26 layers, two branches
of 32 channels) and the mixing by forward, backward and level: S-S-I is shake, shake, image; S-E-B is shake, even,
batch; S-K is shake, keep; E-E is even in both passes, so that nothing is random at either level.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.nets.layers import check_choice, init_convolutions
from random_draws import draw_per_batch, draw_per_image

Forward = Literal["shake", "even"]
Backward = Literal["shake", "keep", "even"]
Level = Literal["image", "batch"]

# Table 1 has 32, 64 and 96; 112 is from AutoAugment (arXiv 1805.09501); 8 and 16 are ours, for a CPU
WIDTHS = (32, 64, 96, 112, 8, 16)
STEM = 16  # channels
BLOCKS = 4  # in each of three stages: 26 layers = 3 stages * 4 blocks * 2 convolutions + first + last


class ShakeShake(nn.Module):
    """First convolution, three stages of four blocks, global average pooling, linear classifier.

    Args:
        num_classes: K, the number of logits.
        width: channels of the branches in the first stage, one of `WIDTHS`; doubled in each further stage.
        shake: how every block mixes its two branches.

    Raises:
        UserError: for an unknown width.
    """

    def __init__(self, num_classes: int, width: int, shake: "Shake") -> None:
        super().__init__()
        check_choice("width", width, WIDTHS, "no Shake-Shake net")
        self.conv1 = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = stage(STEM, width, 1, shake)
        self.layer2 = stage(width, 2 * width, 2, shake)
        self.layer3 = stage(2 * width, 4 * width, 2, shake)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        init_convolutions(self)  # as in the authors' code
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        # 26 2x32d at 32 px
        x = self.bn1(self.conv1(x))  # [B, 16, 32, 32]; no ReLU, every block begins with one
        x = self.layer1(x)  # [B, 32, 32, 32]
        x = self.layer2(x)  # [B, 64, 16, 16]
        x = self.relu(self.layer3(x))  # [B, 128, 8, 8]
        return self.fc(torch.flatten(self.avgpool(x), 1))  # [B, K]


def stage(channels: int, width: int, stride: int, shake: "Shake") -> nn.Sequential:
    """Blocks of one width, the first with the stride; they share one Shake, which has no state."""
    first = Block(channels, width, stride, shake)
    return nn.Sequential(first, *(Block(width, width, 1, shake) for _ in range(BLOCKS - 1)))


class Block(nn.Module):
    """Two branches of ReLU-conv-BN-ReLU-conv-BN, mixed and added to the skip connection; no ReLU follows (Figure 1)."""

    def __init__(self, channels: int, width: int, stride: int, shake: "Shake") -> None:
        super().__init__()
        self.relu = nn.ReLU()  # one for both branches, and not in place: the skip connection takes x itself
        self.branch1 = branch(channels, width, stride)
        self.branch2 = branch(channels, width, stride)
        self.shake = shake
        self.downsample = None if channels == width else Shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(x)
        mixed = self.shake(self.branch1(activated), self.branch2(activated))
        return mixed + (x if self.downsample is None else self.downsample(activated))


def branch(channels: int, width: int, stride: int) -> nn.Sequential:
    """The layers of a branch after its first ReLU: conv-BN-ReLU-conv-BN."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )


class Shortcut(nn.Module):
    """Two 1x1 convolutions of every stride-th pixel, then BN, where a block changes the channels (in stage 1 too).

    The second convolution gets the image shifted by one pixel to the right and downwards, so that it samples other
    pixels than the first.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, width // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, width // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        s = self.stride
        shifted = F.pad(x, (1, -1, 1, -1))
        paths = self.conv1(x[:, :, ::s, ::s]), self.conv2(shifted[:, :, ::s, ::s])
        return self.bn(torch.cat(paths, 1))


class Shake(nn.Module):
    """Mix two branches: alpha * first + (1 - alpha) * second in training, with beta for the gradient; else evenly.

    Args:
        forward: alpha: shake draws it from U(0, 1), even is 0.5.
        backward: beta: shake draws another number, keep is alpha, even is 0.5.
        level: draw one number per image, or one per batch; in each block other ones.

    Raises:
        UserError: for an unknown forward, backward or level.
    """

    def __init__(self, forward: Forward, backward: Backward, level: Level) -> None:
        super().__init__()
        check_choice("forward", forward, get_args(Forward), "no way to mix branches")
        check_choice("backward", backward, get_args(Backward), "no way to mix branches")
        check_choice("level", level, get_args(Level), "no way to mix branches")
        self.forward_mode, self.backward_mode, self.level = forward, backward, level

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if not self.training:
            return (first + second) / 2
        alpha = self._draw_weight(self.forward_mode, first)
        beta = alpha if self.backward_mode == "keep" else self._draw_weight(self.backward_mode, first)
        return Mix.apply(first, second, alpha, beta)

    def _draw_weight(self, mode: str, x: Tensor) -> Tensor:
        """Weight of the first branch: [B, 1, 1, 1] for level "image", else [1, 1, 1, 1]."""
        if mode == "even":
            return x.new_full((1, 1, 1, 1), 0.5)

        def draw(images: int = 1) -> Tensor:
            return torch.rand(images, 1, 1, 1, device=x.device)

        # Drawn in float32, so that a seed means the same at any precision
        drawn = draw_per_image(draw, len(x)) if self.level == "image" else draw_per_batch(draw)
        return drawn.to(x.dtype)


class Mix(torch.autograd.Function):
    """Mix two branches with alpha in the forward and beta in the backward pass."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(second, first, alpha)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return beta * gradient, (1 - beta) * gradient, None, None
