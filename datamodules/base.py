"""What all data modules share: the seeded split, exact sharding, loaders that resume in the middle of an epoch."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.augment import normalise
from datamodules.batch import Batch
from datamodules.loading import ResumableLoader, as_is, worker_count
from datamodules.samplers import ExactSampler, mix_seed
from datamodules.tensor_images import TensorImages
from datamodules.views import Views
from errors import UserError, pluralize


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
                raise UserError(f"{name} is {value}: it must be at least {least}.")
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
            raise UserError(
                f"batch_size {self.batch_size} is for all devices together and cannot be divided among {world_size}: "
                f"choose {self.batch_size - self.batch_size % world_size or world_size} or another multiple of it."
            )
        sets = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}[trainer.state.fn or "fit"]
        for name in sets:
            dataset = getattr(self, f"{name}_set")
            if dataset is None and sets == ["val"]:
                raise UserError(
                    "This run holds no validation images back (val_size is 0): "
                    "run test instead, or give --data.val_size."
                )
            if dataset is not None and len(dataset) < world_size:
                raise UserError(
                    f"The {name} set has {pluralize(len(dataset), 'image')}, fewer than the {world_size} devices: "
                    "each device needs one at least, so use fewer (--trainer.devices)."
                )
        if "train" in sets:
            self._check_last_batch(len(self.train_set) // world_size, self.batch_size // world_size)  # type: ignore[arg-type]

    def _check_last_batch(self, images: int, batch_size: int) -> None:
        if self.drop_last and images < batch_size:
            raise UserError(
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
            raise UserError(
                f"With {pluralize(images, 'training image')} and batch_size {batch_size} per device the last batch "
                "holds one image, of which BatchNorm cannot take statistics: choose another --data.batch_size, or "
                "--data.drop_last true."
            )


def run_seed() -> int:
    """The seed that `seed_everything` was given, which Lightning leaves in the environment for all processes."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))
