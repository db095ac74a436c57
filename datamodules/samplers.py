"""Samplers: which images come when, exactly sharded over processes and resumable inside an epoch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DistributedSampler


@dataclass(frozen=True)
class SampleSpec:
    """All that a training image is made from, so that it is the same whichever process makes it.

    Args:
        index: of the image in its set.
        seed: of the random choices for this image in this epoch.
        size: pixels per side of the epoch's crops.
    """

    index: int
    seed: int
    size: int


def mix_seed(*numbers: int) -> int:
    """One seed out of several numbers (seed, epoch, step, rank), none of which shows through in the draws."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def run_seed() -> int:
    """The seed that `seed_everything` was given, which Lightning leaves in the environment for all processes."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class ExactSampler(DistributedSampler):
    """The indices of one rank: every image exactly once, none twice, the order a function of (seed, epoch).

    Being a DistributedSampler keeps Lightning from sharding it a second time; torch's own pads the last round with
    copies. In training the last `size % world_size` images of the epoch's order sit out, so that all ranks take
    equally many steps.

    Args:
        size: images in the set.
        shuffle: a new order for each epoch (training), or the set's own (evaluation).
        seed: the run's seed.
        rank, world_size: this process among all that share the set.
    """

    def __init__(self, size: int, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size = size - size % world_size if shuffle else size
        self.start = 0  # how many of this rank's images the epoch has seen already

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            rng = np.random.default_rng(mix_seed(self.seed, self.epoch))
            order = rng.permutation(len(self.dataset))[: self.size]  # type: ignore[arg-type]
        else:
            order = np.arange(self.size)
        return iter(order[self.rank :: self.num_replicas][self.start :].tolist())

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))


class SampleSpecSampler(ExactSampler):
    """An ExactSampler for training images that are cut out of files: it hands out a SampleSpec for each.

    Args:
        sizes: pixels per side of the crops of an epoch.
        repeats: how often each image occurs in an epoch, one after the other and so, with several devices, on different
            ones; the epoch is as long as without, so as many images fewer take part.
        size, seed, rank, world_size: see `ExactSampler`.
    """

    def __init__(
        self, size: int, sizes: Callable[[int], int], repeats: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(size, True, seed, rank, world_size)
        self.sizes, self.repeats = sizes, repeats

    def __iter__(self) -> Iterator[SampleSpec]:  # type: ignore[override]
        rng = np.random.default_rng(mix_seed(self.seed, self.epoch))
        order = rng.permutation(len(self.dataset)).repeat(self.repeats)[: self.size]  # type: ignore[arg-type]
        seeds = rng.integers(2**63, size=self.size)
        own = slice(self.rank + self.start * self.num_replicas, None, self.num_replicas)
        size = self.sizes(self.epoch)
        return (
            SampleSpec(index, seed, size) for index, seed in zip(order[own].tolist(), seeds[own].tolist(), strict=True)
        )
