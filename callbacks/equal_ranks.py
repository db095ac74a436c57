"""Whether all processes of a training hold the same weights."""

import zlib

import torch
from torch import Tensor, nn

from errors import UserError
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_synchronised


def check_equal_ranks(module: nn.Module) -> None:
    """Refuse to go on where parameters or buffers differ between the ranks, in any bit; every process must call this.

    Running statistics of BatchNorms that each process takes of its own share are left out: they differ from one step
    to the next, when DDP sends all processes those of rank 0, which are also the validated and the saved ones.

    Args:
        module: whose parameters and buffers are compared, by checksums.

    Raises:
        UserError: on rank 0, with the name of the first that differs; the other ranks end without a word.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for norm in find_batch_norms(module):
        own = set() if is_synchronised(norm) else {id(norm.running_mean), id(norm.running_var)}
        tensors = {name: tensor for name, tensor in tensors.items() if id(tensor) not in own}
    device = next(iter(tensors.values())).device
    mine = torch.tensor([checksum(tensor) for tensor in tensors.values()], device=device)
    ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(ranks, mine)
    differing = {name: sums for name, *sums in zip(tensors, *ranks, strict=True) if len({*map(int, sums)}) > 1}
    if not differing:
        return
    if torch.distributed.get_rank() > 0:
        raise SystemExit(1)
    name, sums = next(iter(differing.items()))
    other = next(rank for rank, value in enumerate(sums) if value != sums[0])
    raise UserError(
        f"{name} is not the same on rank {other} as on rank 0 ({len(differing)} of {len(tensors)} parameters and "
        "buffers differ): something changes weights in one process alone; look for a callback or hook that asks for "
        "the rank."
    )


def checksum(tensor: Tensor) -> int:
    """A number that follows from every bit of a tensor."""
    return zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
