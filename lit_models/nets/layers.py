"""Shared by the networks: checks of arguments, named layers and outputs, He initialisation, BatchNorms, GroupNorm."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from errors import UserError

Stem = Literal["imagenet", "cifar"]
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


class AuxiliaryOutputs(NamedTuple):
    """Output of a net with one auxiliary classifier in training mode: logits [B, K] of both classifiers."""

    logits: Tensor
    aux: Tensor


def check_choice(name: str, value: Any, choices: Iterable[Any], reason: str = "unknown") -> None:
    """Raise UserError for an argument that is none of `choices`: "<name> <value> is <reason>: choose one of ..."."""
    if value not in choices:
        raise UserError(f"{name} {value} is {reason}: choose one of {', '.join(map(str, choices))}.")


def check_stem(stem: str) -> None:
    """Raise UserError for an unknown stem."""
    check_choice("stem", stem, get_args(Stem))


def named_sequential(**layers: nn.Module) -> nn.Sequential:
    """Layers in a row, with names in place of numbers in the state dict."""
    return nn.Sequential(OrderedDict(layers))


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True
) -> nn.Sequential:
    """Convolution without bias, BatchNorm and ReLU.

    Args:
        inputs, outputs: channels.
        kernel: its sides, odd numbers.
        stride: of the convolution.
        padded: pad with zeros, so that with stride 1 the image keeps its size ("same"; else "valid").
    """
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (height // 2, width // 2) if padded else 0
    return named_sequential(
        conv=nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False),
        bn=nn.BatchNorm2d(outputs, eps=0.001),  # epsilon as in the authors' code of the Inceptions
        relu=nn.ReLU(inplace=True),
    )


def scale_channels(channels: int, width: float) -> int:
    """A number of channels times the width multiplier of a net, rounded, at least 1.

    Raises:
        UserError: for a width that is not above 0.
    """
    if width <= 0:
        raise UserError(f"width is {width}: it must be above 0 (1 is the paper's).")
    return max(1, round(channels * width))


def init_convolutions(net: nn.Module) -> None:
    """Draw the weights of all convolutions: He initialisation (arXiv 1502.01852) over the fan-out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def num_groups(channels: int) -> int:
    """Number of groups of a GroupNorm (arXiv 1803.08494): 32 as in the paper, whose narrowest layer has 64 channels.

    In narrower layers, which the paper does not have, the largest divisor that leaves at least four channels in a
    group: 32 groups of one channel would be InstanceNorm.
    """
    most = 32 if channels >= 64 else max(channels // 4, 1)
    return max(n for n in range(1, most + 1) if channels % n == 0)


def find_batch_norms(module: nn.Module) -> list[BatchNorm]:
    """All BatchNorm layers of a module, of any dimension, SyncBatchNorm too."""
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm)]


def freeze_batch_norms(net: nn.Module) -> None:
    """Keep gamma and beta of every BatchNorm from training. Their statistics stand still while they are in eval mode.

    Raises:
        UserError: if the net has none.
    """
    norms = find_batch_norms(net)
    if not norms:
        raise UserError(f"freeze_batch_norm is true, but {type(net).__name__} has no BatchNorm: leave it out.")
    for norm in norms:
        norm.requires_grad_(False)
