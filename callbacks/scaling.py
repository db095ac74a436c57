"""Scaling efficiency: how much the exchange of gradients slows training down."""

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import lightning.pytorch as pl
import torch
from torch.nn.parallel import DistributedDataParallel

from datamodules.base import ImageData
from lit_models.classifier import LitClassifier

TIMED_STEPS = 3  # with the exchange and as many without, after a warm-up step of each


def measure_scaling_efficiency(trainer: pl.Trainer, module: LitClassifier, data: ImageData) -> float | None:
    """Rate of forward and backward passes with the exchange of gradients over the rate of the same without (`no_sync`).

    All devices work in both cases, so that what they take from each other otherwise (cores, memory, files) is not in
    it; nor are loading, the optimizer's step, and the exchange of SyncBatchNorm, which both have. It is measured on a
    copy of the net and on noise of the batch's size, in turns, medians of three: weights, statistics, gradients and
    random state of the training stay untouched. Every process must call this.

    Returns:
        The mean over the processes, 1 where the exchange costs nothing; None for a net that is compiled, whose copy
        would have to be compiled too.
    """
    if module.compile_net:
        return None
    device = module.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda, device_type=device.type if cuda else "cuda"):
        net = DistributedDataParallel(copy.deepcopy(module.net).train(), device_ids=cuda or None)
        size = (data.images_per_batch(training=True), 3, data.train_size, data.train_size)
        images = torch.rand(size, device=device).to(module.dtype, memory_format=module.memory_format)
        labels = torch.arange(len(images), device=device) % module.num_classes

        def step_time(exchange: AbstractContextManager[None]) -> float:
            torch.distributed.barrier()
            start = time.perf_counter()
            with exchange, trainer.precision_plugin.forward_context():
                loss = module.loss(net(images), labels)
                loss.backward()
            if cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - start

        times = [(step_time(nullcontext()), step_time(net.no_sync())) for _ in range(1 + TIMED_STEPS)][1:]
    seconds = torch.tensor([median(each) for each in zip(*times, strict=True)], device=device)
    torch.distributed.all_reduce(seconds)
    with_exchange, without_exchange = seconds.tolist()
    return min(1.0, without_exchange / with_exchange)
