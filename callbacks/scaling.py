"""Scaling efficiency: how much gradient synchronisation slows training down."""

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import lightning.pytorch as pl
import torch
from torch.nn.parallel import DistributedDataParallel

from datamodules.base import ImageData
from lit_models.classifier import LitClassifier

TIMED_STEPS = 3  # with synchronisation and as many without, after a warm-up step of each


def measure_scaling_efficiency(trainer: pl.Trainer, module: LitClassifier, data: ImageData) -> float | None:
    """Rate of forward and backward passes with gradient synchronisation, divided by their rate without (`no_sync`).

    It does not include loading, the optimizer's step, the communication of SyncBatchNorm, or the contention of devices
    for cores, memory and files: both rates have the same of them. The passes take turns, medians of three, on a copy of
    the net and on noise of the batch's size: weights, statistics, gradients and random state of the training stay
    untouched. Every process must call this.

    Returns:
        The mean over the processes in (0, 1], 1 where synchronisation costs nothing; None for a net that is compiled,
        whose copy would have to be compiled too.
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

        def step_time(synchronisation: AbstractContextManager[None]) -> float:
            torch.distributed.barrier()
            start = time.perf_counter()
            with synchronisation, trainer.precision_plugin.forward_context():
                loss = module.loss(net(images), labels)
                loss.backward()
            if cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - start

        times = [(step_time(nullcontext()), step_time(net.no_sync())) for _ in range(1 + TIMED_STEPS)][1:]
    seconds = torch.tensor([median(each) for each in zip(*times, strict=True)], device=device)
    torch.distributed.all_reduce(seconds)
    synchronised, unsynchronised = seconds.tolist()
    return min(1.0, unsynchronised / synchronised)
