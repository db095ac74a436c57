"""BatchNorm over the batch of all processes: on CUDA PyTorch's SyncBatchNorm, elsewhere one of our own that is exact.

PyTorch's runs on CUDA alone. Ours takes the place of BatchNorm2d and of timm's BatchNormAct2d, with the same state-dict
keys, and equals BatchNorm on the whole batch up to rounding, in both passes and in the running statistics. The shares
of the processes may differ in size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_models.nets.layers import BatchNorm, find_batch_norms


class GlobalBatchNorm(torch.autograd.Function):
    """Normalise by mean and variance over the values of all processes, each channel by its own.

    Every process must take part, in the forward and in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        """Output [B, C, H, W], and over all processes the mean [C], the biased variance [C] and the count [].

        Args:
            ctx: of autograd.
            values: [B, C, H, W], this process's share.
            weight: gamma, [C].
            bias: beta, [C].
            eps: added to the variance.
        """
        mean, variance, count = global_statistics(values)
        # Of the dtype of gamma, as `batch_norm` wants it; statistics are float32 or float64
        mean, variance = (each.to(values.dtype if weight is None else weight.dtype) for each in (mean, variance))
        ctx.save_for_backward(values, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        values, weight, mean, variance, count = ctx.saved_tensors
        # As if mean and variance were constants; the other two sum gradient * normalised value, and gradient
        grad_values, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([grad_weight, grad_bias]).double()
        torch.distributed.all_reduce(sums)
        # What the mean and the variance of all processes pass on to each value
        of_variance, of_mean = (sums / count).to(mean.dtype)
        scale = (variance + ctx.eps).rsqrt()
        of_mean, of_variance = (each if weight is None else each * weight for each in (of_mean * scale, of_variance))
        grad_values -= F.batch_norm(values, mean, variance, of_variance * scale, of_mean, training=False, eps=ctx.eps)
        _, has_weight, has_bias, _ = ctx.needs_input_grad
        return grad_values, grad_weight if has_weight else None, grad_bias if has_bias else None, None


def global_statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and count [] of the values of all processes by channel, as float64.

    The means of the processes are gathered with the squares centred on them, which loses no digits where a mean is
    large beside its deviation.

    Args:
        values: [B, C, H, W], this process's share.
    """
    channels = values.shape[1]
    # Given buffers in float32, `batch_norm_update_stats` computes in float32 for bfloat16 values
    buffers = torch.zeros(2, channels, dtype=torch.promote_types(values.dtype, torch.float32), device=values.device)
    mean, variance = torch.batch_norm_update_stats(values.detach(), buffers[0], buffers[1], 1.0)
    mine = torch.stack([torch.full_like(mean, values.numel() // channels), mean, variance]).double()
    shares = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(shares, mine)
    counts, means, variances = torch.stack(shares, 1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    return mean, (counts * (variances + (means - mean).square())).sum(0) / count, count[0]


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the batch of all processes; in evaluation mode, or in one process, BatchNorm2d itself."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same; in training mode every process must call it."""
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.training and several and torch.distributed.get_world_size() > 1:
            return self.normalise_global_batch(input)
        return super().forward(input)

    @torch.compiler.disable  # the net is compiled around it
    def normalise_global_batch(self, values: Tensor) -> Tensor:
        """Normalise over all processes and update the running statistics, as BatchNorm2d does in training mode."""
        output, mean, variance, count = GlobalBatchNorm.apply(values, self.weight, self.bias, self.eps)
        momentum = self.momentum
        if self.num_batches_tracked is not None and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        if self.running_mean is not None and self.running_var is not None and self.track_running_stats:
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum or 0.0)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum or 0.0)
        return output


class SyncBatchNormAct2d(SyncBatchNorm2d):
    """The same for timm's BatchNormAct2d, which drops out and activates what it has normalised."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same; in training mode every process must call it."""
        return self.act(self.drop(super().forward(input)))


SYNC_CLASSES: dict[str, type[SyncBatchNorm2d]] = {  # by the full name of the class that each replaces
    "torch.nn.modules.batchnorm.BatchNorm2d": SyncBatchNorm2d,
    "timm.layers.norm_act.BatchNormAct2d": SyncBatchNormAct2d,  # by name: timm takes two seconds to import
}


def sync_batch_norms(module: nn.Module, device: torch.device) -> int:
    """Let the BatchNorms of a module take their statistics from all processes, in place; frozen ones are left alone.

    Parameters, buffers and their names stay the same. In one process they are BatchNorms as before.

    Args:
        module: holds them.
        device: where it is going to be trained.

    Returns:
        How many BatchNorms are synchronised now.
    """
    for path, norm in list(module.named_modules()):
        if isinstance(norm, BatchNorm) and not is_synchronised(norm) and not is_frozen(norm):
            kind = f"{type(norm).__module__}.{type(norm).__qualname__}"
            if device.type == "cuda":
                module.set_submodule(path, convert_for_cuda(norm))
            elif kind in SYNC_CLASSES:
                norm.__class__ = SYNC_CLASSES[kind]  # its hooks and all that refers to it stay
    return sum(map(is_synchronised, find_batch_norms(module)))


def convert_for_cuda(norm: nn.Module) -> nn.Module:
    """PyTorch's SyncBatchNorm with the parameters of a BatchNorm; of timm's BatchNormAct2d, timm's."""
    if "timm" not in type(norm).__module__:
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(norm)


def is_frozen(norm: BatchNorm) -> bool:
    """Whether gamma, beta and the running statistics are kept from training, see `layers.freeze_batch_norms`."""
    return not norm.training and norm.weight is not None and not norm.weight.requires_grad


def is_synchronised(norm: nn.Module) -> bool:
    """Whether a BatchNorm takes its statistics from all processes."""
    return isinstance(norm, nn.SyncBatchNorm | SyncBatchNorm2d)
