"""Data sets that give whole batches, and their loader, which can resume inside an epoch."""

import copy
import os
import signal
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Self, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from batch import Images
from checkpointing.resume import refuse_other_batches
from datamodules.samplers import ExactSampler, index_of

NICENESS = 10  # of loader processes beside a net on the same cores: they take what its threads leave
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class UnreadableFile:
    """An image file that cannot be read.

    Args:
        index: of the image in its set.
        path: of the file.
        reason: why it cannot be read.
    """

    index: int
    path: str
    reason: str


class RawBatch(NamedTuple):
    """A batch as a loader process hands it over: bytes, before augmentation and normalisation.

    Args:
        images: [B, 3, H, W] uint8 of the images that could be read, or their views: a list of [B, V, 3, H, W], one
            tensor for each size.
        labels: [B] int64.
        unreadable: the files that could not be read; the batch lacks them.
    """

    images: Images
    labels: Tensor
    unreadable: Sequence[UnreadableFile] = ()


class ImageSet(Dataset):
    """Labelled images that are read a whole batch at a time."""

    labels: Any  # [N] int64, a tensor or an array
    is_remote = False  # whether its images are fetched from an object store
    in_memory = False  # whether a loader only cuts batches out of tensors
    numbered_as_run = False  # whether the labels follow the order of the classes of a checkpoint's run

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def file_names(self) -> Sequence[str]:
        """[N] names relative to the folder of the set; empty where images are not files."""
        return ()

    @abstractmethod
    def __getitems__(self, items: Sequence[Any]) -> RawBatch:
        """Read the images that a sampler asks for."""

    def check_file(self, index: int) -> UnreadableFile | None:
        """The file of an image and the reason why it cannot be read; None where it can, or where there are no files."""
        return None

    def to(self, device: torch.device) -> "ImageSet":
        """The same images in the memory of a device, if they are in memory at all."""
        return self

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of the labels and of the pixels, or of the names and contents of the files."""

    def older_fingerprint(self) -> str:
        """The fingerprint as older code computed it, which is in the records of its checkpoints."""
        return self.fingerprint()

    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of the labels, and of names or indices: which images they are, at little cost."""

    @abstractmethod
    def subset(self, indices: np.ndarray) -> Self:
        """The images with these indices, in this order."""


class ResumableLoader(DataLoader):
    """A DataLoader with an ExactSampler that skips the batches of the epoch that the trainer has done already.

    Lightning saves its `state_dict` in checkpoints and restores it on resuming.
    """

    trainer: pl.Trainer | None = None
    has_ended = False  # gives no more batches: the run has taken its last step inside of an epoch
    dataset: ImageSet
    sampler: ExactSampler
    batch_size: int

    def __iter__(self) -> Any:
        # A generator: this runs at the first batch, when the trainer has restored its progress
        if self.trainer:
            self.sampler.start = (self.trainer.fit_loop.batch_idx + 1) * self.batch_size
        if not self.has_ended:
            yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        return {"batch_size": self.batch_size * self.sampler.num_replicas, "number of batches": len(self)}

    def batch_indices(self, number: int) -> list[int]:
        """The indices of the images in a batch of the current epoch, of this process's share."""
        sampler = copy.copy(self.sampler)
        sampler.start = number * self.batch_size
        return [index_of(item) for item in islice(sampler, self.batch_size)]

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Refuse other batches inside an epoch; checkpoints of an epoch's end are loaded without this state."""
        refuse_other_batches(state, self.state_dict())


def make_loader(
    images: ImageSet,
    trainer: pl.Trainer | None,
    num_workers: int | None,
    batch_size: int,
    sampler: ExactSampler,
    drop_last: bool,
) -> ResumableLoader:
    """The loader of this process's share of a set.

    Args:
        images: of the set.
        trainer: whose device the batches are for.
        num_workers: loader processes; None for `choose_num_workers`.
        batch_size: of this process.
        sampler: of this process.
        drop_last: leave out a last batch that is not full.
    """
    workers = choose_num_workers(trainer, images) if num_workers is None else num_workers
    on_cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
    if on_cuda and workers == 0 and images.in_memory:
        assert trainer is not None
        images = images.to(trainer.strategy.root_device)
        on_cuda = False  # without a transfer there is no need of pinned memory
    return ResumableLoader(
        images,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=keep_batch,
        drop_last=drop_last,
        pin_memory=on_cuda,
        persistent_workers=workers > 0,
        worker_init_fn=make_worker_init(trainer),
    )


def keep_batch(batch: Any) -> Any:
    """The collate function of sets that read whole batches; a named function, which spawned workers can import.

    A loader process moves the tensors into shared memory here, from where a failure (/dev/shm is full) reaches the main
    process. In the thread that sends the batch it would be lost, and the main process would wait for ever.
    """
    if get_worker_info() is not None and isinstance(batch, RawBatch):
        images = batch.images if isinstance(batch.images, list) else [batch.images]
        for tensor in (*images, batch.labels):
            tensor.share_memory_()
    return batch


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results of a function for all items, in their order: computed by as many threads as torch uses.

    In a loader process it is one thread, for the others are at work as well. Where a thread raises, or a signal ends
    the wait for them, no thread begins another item.
    """
    count = 1 if get_worker_info() else min(len(items), torch.get_num_threads())
    if count <= 1:
        return [function(item) for item in items]
    results: list[Any] = [None] * len(items)
    remaining = iter([*enumerate(items)])  # of all threads, for some items take longer than others

    def compute(_: int) -> None:
        for position, item in remaining:
            results[position] = function(item)

    with ThreadPoolExecutor(count) as pool:  # a task for each item would cost a tenth of a packed image's decoding
        try:
            list(pool.map(compute, range(count)))
        finally:
            list(remaining)  # leaves none
    return results


def choose_num_workers(trainer: pl.Trainer | None, images: ImageSet) -> int:
    """Loader processes per device: all cores where they feed GPUs, none where the net computes on the same cores.

    A net's threads wait for each other, so that a loader process which takes half of one core costs half of all; all
    cores decode a batch between two steps instead: see `map_in_threads`. An object store needs one that reads ahead.
    """
    if computes_on_cpu(trainer):
        return int(images.is_remote)
    return max(1, min(16, usable_cores() // (trainer.num_devices if trainer else 1)))


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes_on_cpu(trainer: pl.Trainer | None) -> bool:
    """Whether the net runs on the cores that load."""
    return trainer is None or trainer.strategy.root_device.type == "cpu"


def make_worker_init(trainer: pl.Trainer | None) -> Callable[[int], None]:
    """The worker_init_fn of a trainer's loaders; a partial function, which spawned workers can import."""
    return partial(start_worker, niceness=NICENESS if computes_on_cpu(trainer) else 0)


def start_worker(worker: int, niceness: int) -> None:
    """Ignore Ctrl-C and a scheduler's SIGTERM, which reach all processes: the main one decides. Lower the priority."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if niceness and hasattr(os, "nice"):
        os.nice(niceness)
