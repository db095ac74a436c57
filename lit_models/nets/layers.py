"""Layers that more than one network needs."""

from torch import nn

from errors import UserError

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def groups(channels: int) -> int:
    """Groups of a GroupNorm (arXiv 1803.08494): 32 as in the paper, whose narrowest layer has 64 channels.

    Narrower layers, which the paper has not, take the largest divisor that leaves at least four channels in a group:
    32 groups of one channel would be InstanceNorm.
    """
    most = 32 if channels >= 64 else max(channels // 4, 1)
    return max(n for n in range(1, min(32, most) + 1) if channels % n == 0)


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
