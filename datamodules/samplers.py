"""Samplers: the order of the images, sharded exactly over processes and resumable inside an epoch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler, SequentialSampler

CHUNK_WINDOW = 16  # chunks that are read at a time; of JPEGs, 16,000 images


@dataclass(frozen=True)
class SampleSpec:
    """Everything that a training image is made from: any process makes the same image of it.

    Args:
        index: of the image in its set.
        seed: of the random choices for this image in this epoch.
        size: pixels per side of the epoch's crops.
    """

    index: int
    seed: int
    size: int


def index_of(item: SampleSpec | int) -> int:
    """The index of the image that a sampler asks for, in training by a SampleSpec."""
    return item.index if isinstance(item, SampleSpec) else item


def mix_seed(*numbers: int) -> int:
    """Hash several numbers (seed, epoch, step, rank) to one seed; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def run_seed() -> int:
    """The seed that `seed_everything` was given, which Lightning leaves in the environment for all processes."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generator of the CPU, and that of a device.

    torch.manual_seed would also seed devices that are not there, and takes a third of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).manual_seed(seed)


class ExactSampler(DistributedSampler, SequentialSampler):
    """One rank's images: every image exactly once, none twice, the order a function of (seed, epoch).

    Being a DistributedSampler keeps Lightning from sharding it a second time; torch's own pads the last round with
    copies. Being a SequentialSampler keeps Lightning from replacing it for `overfit_batches`. In training the last
    `size % world_size` images of the epoch's order are left out, so that all ranks take equally many steps.

    Args:
        size: images in the set.
        shuffle: a new order for each epoch (training), or the set's own (evaluation).
        seed: the run's seed.
        rank: of this process.
        world_size: number of processes that share the set.
        repeats: how often each image occurs in an epoch of training. Copies follow each other, so they go to different
            devices. The epoch keeps its length, so fewer different images take part.
        crop_size: from the epoch to the pixels per side of its crops, for training images that are cut out of files:
            the sampler gives a SampleSpec for each. Without it, it gives their indices.
        same_every_epoch: the order, and all that is drawn, of the first epoch in every one.
        chunk_of: [size] the chunk of each image, for sets that are read chunk by chunk: see `permute_by_chunk`.
        bootstrap: train on `size` draws with replacement instead of each image once: see `draw_with_replacement`.
        order: [size] the images in the order in which they are evaluated; unset, the set's own.
    """

    def __init__(
        self,
        size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        crop_size: Callable[[int], int] | None = None,
        same_every_epoch: bool = False,
        chunk_of: np.ndarray | None = None,
        bootstrap: bool = False,
        order: np.ndarray | None = None,
    ) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.num_images = size
        self.size = size - size % world_size if shuffle else size
        self.repeats, self.crop_size, self.same_every_epoch = repeats, crop_size, same_every_epoch
        self.chunk_of, self.order = chunk_of, np.arange(size) if order is None else order
        self.drawn = draw_with_replacement(size, seed) if bootstrap else None
        self.start = 0  # number of this rank's images that the epoch has seen already

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(0 if self.same_every_epoch else epoch)

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng(mix_seed(self.seed, self.epoch))
        order = self._permute(rng).repeat(self.repeats) if self.shuffle else self.order
        indices = self._own(order[: self.size])
        if self.crop_size is None:
            return iter(indices)
        size, seeds = self.crop_size(self.epoch), self._own(rng.integers(2**63, size=self.size))
        return (SampleSpec(index, seed, size) for index, seed in zip(indices, seeds, strict=True))

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))

    def _permute(self, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(self.num_images) if self.chunk_of is None else permute_by_chunk(self.chunk_of, rng)
        return order if self.drawn is None else self.drawn[order]

    def _own(self, values: np.ndarray) -> list[int]:
        """This rank's share of all ranks' values, without those of images that the epoch has seen already."""
        return values[self.rank :: self.num_replicas][self.start :].tolist()


def permute_by_chunk(chunk_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N] indices in an order that reads about `CHUNK_WINDOW` chunks at a time.

    Chunks take turns in random order, and each image is drawn from the window that begins with its chunk's turn: chunks
    are entered, and done with, one by one.

    Args:
        chunk_of: [N] the chunk of each image.
        rng: the source of the order.
    """
    turns = rng.permutation(int(chunk_of.max()) + 1)[chunk_of]
    return np.argsort(turns + CHUNK_WINDOW * rng.random(len(chunk_of)), kind="stable")


def draw_with_replacement(size: int, seed: int) -> np.ndarray:
    """[size] indices of a bootstrap sample, the same in every epoch: of many images 63 % are in it, some several times.

    Ascending, so that in a set that is read chunk by chunk each draw lies near the image whose place it takes.
    """
    # More numbers than those of an epoch, which the hash fills up with zeros
    rng = np.random.default_rng(mix_seed(seed, 0, 0, 0, 1994))  # Breiman's "Bagging Predictors"
    return np.sort(rng.integers(size, size=size))
