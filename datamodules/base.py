"""What all data modules share: the seeded split, exact sharding, loaders that resume in the middle of an epoch."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.augment import normalise
from datamodules.views import Views

Images = Tensor | list[Tensor]
Batch = tuple[Images, Tensor]


class Loaded(NamedTuple):
    """A batch from files, as a loader process hands it over.

    Args:
        images: [B, 3, H, W] uint8 of those that could be read, or their views: [B, V, 3, H, W], a tensor for each
            size.
        labels: [B] int64.
        unreadable: files and the reasons why they could not be.
        left_out: the places of these in the set.
    """

    images: Images
    labels: Tensor
    unreadable: list[tuple[str, str]]
    left_out: list[int]


class Draw(NamedTuple):
    """What a training image is made from, so that nothing of it depends on who makes it.

    Args:
        place: in the set.
        seed: of this image in this epoch.
        size: pixels per side of the epoch's crops.
    """

    place: int
    seed: int
    size: int


class TensorImages(Dataset):
    """Images and labels in memory, handed out a whole batch at a time.

    Args:
        images: [N, 3, H, W] uint8.
        labels: [N] int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        places = torch.tensor(indices)
        if self.images.is_cuda:
            # Out of pinned memory they come when they come; lists would be waited for, one for images, one for labels
            places = places.pin_memory().to(self.images.device, non_blocking=True)
        return self.images[places], self.labels[places]

    def to(self, device: torch.device) -> "TensorImages":
        """The same images in the memory of a device, where batches are cut without a transfer."""
        return TensorImages(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        """A hash of images and labels."""
        content = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        content.update(self.images.cpu().numpy().tobytes())
        return content.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "TensorImages":
        """The images at these places, in this order."""
        return TensorImages(self.images[indices], self.labels[indices])


def counted(number: int, thing: str) -> str:
    """A number of things, for a sentence: "1 image", "2,000 images"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def stratified_split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the places 0..N-1 in two, each class in proportion to its share.

    Args:
        labels: [N] class of each image.
        size: how many images the second part gets. Shares that are no whole numbers are rounded so that the sizes
            are exact (largest remainders first), and so that the first part keeps an image of each class as long as
            other classes have more than one left there.
        seed: the same seed gives the same split on every machine.

    Returns:
        The places of the first part (N - size) and of the second (size), both ascending.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quota = np.floor(shares).astype(int)
    quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
    for emptied in np.flatnonzero(quota == counts):
        rich = np.flatnonzero(counts - quota > 1)
        if len(rich):
            quota[emptied] -= 1
            quota[rich[np.argmax((shares - quota)[rich])]] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    second = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), second), second


def mix_seed(*numbers: int) -> int:
    """One seed out of several numbers (seed, epoch, step, rank), none of which shows through in the draws."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class ExactSampler(DistributedSampler):
    """The places of one rank: every image exactly once, none twice, the order a function of (seed, epoch).

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


class DrawSampler(ExactSampler):
    """An ExactSampler for training images that are cut out of files: it hands out a Draw for each.

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

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]
        rng = np.random.default_rng(mix_seed(self.seed, self.epoch))
        order = rng.permutation(len(self.dataset)).repeat(self.repeats)[: self.size]  # type: ignore[arg-type]
        seeds = rng.integers(2**63, size=self.size)
        own = slice(self.rank + self.start * self.num_replicas, None, self.num_replicas)
        size = self.sizes(self.epoch)
        return (Draw(place, seed, size) for place, seed in zip(order[own].tolist(), seeds[own].tolist(), strict=True))


class ResumableLoader(DataLoader):
    """A DataLoader that enters an epoch where the trainer stands in it; its sampler is an ExactSampler.

    Lightning saves `state_dict` in checkpoints and hands it back on resuming.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator: this line runs at the first batch, when the trainer has restored its progress
        done = self.trainer.fit_loop.batch_idx + 1 if self.trainer else 0
        self.sampler.start = done * self.batch_size  # type: ignore[attr-defined,operator]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        sampler = self.sampler
        assert isinstance(sampler, ExactSampler) and self.batch_size is not None
        return {"batch_size": self.batch_size * sampler.num_replicas, "number of batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Refuse to enter an epoch in its middle with another way of cutting it into batches.

        Lightning does not call this for a checkpoint from an epoch's end.
        """
        for name, now in self.state_dict().items():
            if state[name] != now:
                raise ValueError(
                    f"This epoch was begun with {name} {state[name]}, and the resumed run has {now}: keep the data and "
                    "--data.batch_size as they were, or resume from a checkpoint of an epoch's end."
                )


class ImageData(pl.LightningDataModule):
    """Train, validation and test images as uint8, brought to the device, augmented there and normalised.

    A subclass has `num_classes`, `class_names` and `preprocessing` after its `__init__` and fills `train_set`,
    `val_set` and `test_set` in `load`; it may override `augment`. `preprocessing` says, in plain types, how any photo
    becomes an input: shorter side to `resize`, centre square of `crop` pixels, (pixel / 255 - `mean`) / `std`.

    Args:
        batch_size: images in a training or evaluation batch over all devices together.
        num_workers: loader processes per device; 0 loads in the main process, the fastest for images in memory.
            None takes what the machine has: see `worker_count`.
        drop_last: leave out a last training batch that is not full.
        protocol: how `test` and `validate` look at an image: see `datamodules.views`. Validation within `fit` looks at
            its centre. A batch holds `batch_size` views, or those of one image if they are more.
    """

    num_classes: int
    class_names: list[str]
    preprocessing: dict[str, Any]
    framed = True  # images come at the net's own size: crops of another place need a margin, see `Views`
    mirrors = True  # mirror images show the same classes
    left_out: Sequence[int] = ()  # places of those images of this process's share of a test that could not be read
    can_test = True  # whether there are images for a test

    train_set: Dataset
    val_set: Dataset | None
    test_set: Dataset

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int | None = 0,
        drop_last: bool = False,
        protocol: str = "center",
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}: it must be at least {least}.")
        self.batch_size, self.num_workers, self.drop_last = batch_size, num_workers, drop_last
        self.protocol = protocol
        self._loaded: set[str] = set()

    def load(self, stage: str) -> None:
        """Read the images for fit, validate or test; only test may look at the test set.

        Raises:
            ValueError, FileNotFoundError: with the path and the fix, where that fails.
        """
        raise NotImplementedError

    def augment(self, images: Tensor) -> Tensor:
        """Augment a training batch, uint8 [B, 3, H, W], on its device."""
        return images

    @cached_property
    def views(self) -> Views:
        """What the protocol shows of an image."""
        how = self.preprocessing
        interpolation = how.get("interpolation", "bilinear")
        return Views(self.protocol, how["crop"], how["resize"], self.framed, self.mirrors, interpolation)

    @property
    def by_views(self) -> bool:
        """Whether images are looked at otherwise than at their centre."""
        return self.protocol != "center" and self.trainer is not None and self.trainer.state.fn in ("validate", "test")

    def prepare_data(self) -> None:
        # Before any logger opens a file: whatever is wrong with the data is said without leaving a run behind
        if self.trainer is not None:
            self.views  # noqa: B018 - a protocol that there is not is refused here
            self.setup(self.trainer.state.fn or "fit")
            self._check_sizes()

    def setup(self, stage: str) -> None:
        if stage not in self._loaded:
            self.load(stage)
            self._loaded.add(stage)

    def train_dataloader(self) -> ResumableLoader:
        loader = self._loader(self.train_set, shuffle=True)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return [] if self.val_set is None else self._loader(self.val_set, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test_set, shuffle=False)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        if trainer is not None and trainer.training and trainer.state.fn == "fit":
            loader = trainer.train_dataloader
            assert isinstance(loader, ResumableLoader) and isinstance(loader.sampler, ExactSampler)
            self.seed_batch(loader.sampler.epoch, trainer.fit_loop.batch_idx + 1)
        return batch

    def seed_batch(self, epoch: int, number: int) -> None:
        """Let crops, dropout and every other draw follow from these numbers: a resumed run repeats them."""
        trainer = self.trainer
        assert trainer is not None
        seed = mix_seed(run_seed(), epoch, number, trainer.global_rank)
        # What torch.manual_seed does, without the devices that are not there: it takes a third of a millisecond
        torch.default_generator.manual_seed(seed)
        if trainer.strategy.root_device.type in ("cuda", "mps"):
            getattr(torch, trainer.strategy.root_device.type).manual_seed(seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            assert isinstance(images, Tensor)
            images = self.augment(images)
        elif isinstance(images, Tensor) and self.framed and self.by_views:
            images = self.views.of_batch(images)
        mean, std = self.preprocessing["mean"], self.preprocessing["std"]
        if isinstance(images, Tensor):
            return normalise(images, mean, std), labels
        views = [normalise(each.flatten(0, 1), mean, std).unflatten(0, each.shape[:2]) for each in images]
        return views[0] if len(views) == 1 else views, labels

    def images_per_batch(self, training: bool) -> int:
        """Images in a batch of one device."""
        images = self.batch_size // (self.trainer.world_size if self.trainer else 1)
        if training or not self.by_views:
            return images
        # Whole pictures have sizes of their own, and only equal ones make a batch
        return 1 if self.views.dense and not self.framed else max(1, images // self.views.count)

    def sampler(self, size: int, shuffle: bool, rank: int, world_size: int) -> ExactSampler:
        """Who decides which images come when, of a set of this size."""
        return ExactSampler(size, shuffle, run_seed(), rank, world_size)

    def _loader(self, dataset: Dataset, shuffle: bool) -> ResumableLoader:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        workers = worker_count(trainer) if self.num_workers is None else self.num_workers
        on_cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
        if on_cuda and workers == 0 and isinstance(dataset, TensorImages):
            dataset = dataset.to(trainer.strategy.root_device)  # type: ignore[union-attr]
            on_cuda = False  # what is there needs no pinned memory to go there
        return ResumableLoader(
            dataset,
            batch_size=self.images_per_batch(training=shuffle),
            sampler=self.sampler(len(dataset), shuffle, rank, world_size),  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=as_is,
            drop_last=shuffle and self.drop_last,
            pin_memory=on_cuda,
            persistent_workers=workers > 0,
        )

    def _check_sizes(self) -> None:
        """Raise where a batch or a set cannot be shared out among the devices, or the last batch is too small."""
        trainer = self.trainer
        assert trainer is not None
        world_size = trainer.world_size
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size {self.batch_size} is for all devices together and cannot be divided among {world_size}: "
                f"choose {self.batch_size - self.batch_size % world_size or world_size} or another multiple of it."
            )
        sets = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}[trainer.state.fn or "fit"]
        for name in sets:
            dataset = getattr(self, f"{name}_set")
            if dataset is None and sets == ["val"]:
                raise ValueError(
                    "This run holds no validation images back (val_size is 0): "
                    "run test instead, or give --data.val_size."
                )
            if dataset is not None and len(dataset) < world_size:
                raise ValueError(
                    f"The {name} set has {counted(len(dataset), 'image')}, fewer than the {world_size} devices: "
                    "each device needs one at least, so use fewer (--trainer.devices)."
                )
        if "train" in sets:
            self._check_last_batch(len(self.train_set) // world_size, self.batch_size // world_size)  # type: ignore[arg-type]

    def _check_last_batch(self, images: int, batch_size: int) -> None:
        if self.drop_last and images < batch_size:
            raise ValueError(
                f"With {images} training images and batch_size {batch_size} per device there is no full batch, and "
                "drop_last leaves out all others: choose a smaller --data.batch_size, or --data.drop_last false."
            )
        assert self.trainer is not None
        if self.drop_last or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        batch_norm = nn.modules.batchnorm._BatchNorm
        if (images % batch_size or batch_size) == 1 and any(
            isinstance(module, batch_norm) and module.training for module in self.trainer.lightning_module.modules()
        ):
            raise ValueError(
                f"With {counted(images, 'training image')} and batch_size {batch_size} per device the last batch holds "
                "one image, of which BatchNorm cannot take statistics: choose another --data.batch_size, or "
                "--data.drop_last true."
            )


def as_is(batch: Any) -> Any:
    """The collate function of sets that give whole batches (a named function, so that workers can be spawned)."""
    return batch


def worker_count(trainer: pl.Trainer | None) -> int:
    """How many loader processes to run per device: all cores feed GPUs; where they train themselves, one in eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = trainer.num_devices if trainer else 1
    on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
    return max(1, min(16, cores // devices // (8 if on_cpu else 1)))


def run_seed() -> int:
    """The seed that `seed_everything` was given, which Lightning leaves in the environment for all processes."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))
