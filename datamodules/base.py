"""What a data set owes the rest of the project: `ImageData`, the base class of the data modules here."""

import copy
import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from batch import Batch
from datamodules.augment import normalise
from datamodules.image_files import ImageFiles
from datamodules.loading import ImageSet, RawBatch, ResumableLoader, make_loader
from datamodules.run_data import RunData, match_classes, number_classes
from datamodules.samplers import ExactSampler, mix_seed, run_seed, seed_generators
from datamodules.skipped_files import SkippedFiles
from datamodules.training_images import choose_training_images
from datamodules.views import Views
from errors import UserError, check_at_least
from random_draws import LOCAL_DRAWS
from trainer_settings import settings

Verb = Literal["test", "validate"]


class ImageData(pl.LightningDataModule):
    """Training, validation and test images: read as uint8, moved to the device, augmented there and normalised.

    A subclass sets `num_classes`, `class_names` and `preprocessing` in its `__init__`, without opening an image, and
    fills `train_set`, `val_set` and `test_set` in `load`, with `TensorImages` or `ImageFiles`. It may override
    `augment`, and the class attributes `native_size` and `hflip_preserves_label`. Its other arguments are passed on to
    this class as `**kwargs`. `Digits` is the shortest example; `TorchvisionData` wraps a data set of torchvision.

    Attributes:
        num_classes: K.
        class_names: [K], in the order of the labels.
        preprocessing: how any image becomes an input, in plain types: `resize`, the length of the shorter side in
            pixels; `crop`, the side of the centre square; `mean` and `std`, [3] each, in units of [0, 1]; perhaps
            `interpolation`. Checkpoints carry it, and `predict` follows it.
        native_size: whether the images have the net's own size, as CIFAR-10's: protocols zero-pad them, see `Views`.
        hflip_preserves_label: whether a horizontally flipped image shows the same class; protocols flip only then.
        has_test_images: whether there are images for `test`.
        tests_validation_images: whether those are the validation images, for want of others.
        run: the data of the run whose checkpoint a command starts from; None without a checkpoint.
        renamed: the path in the run's list of each held-back file that has another path now, by this path.
        passed_over: paths of the training images that `train_images` leaves out, where they are files.
        evaluates_by_class: whether the images of a class are evaluated one after the other.
        skipped: decides about files that cannot be read, and keeps those that were skipped.
        train_set, val_set, test_set: the images; `val_set` is None where none are held back.

    Args:
        batch_size: images in a training or evaluation batch, over all devices together.
        num_workers: loader processes per device; 0 loads in the main process, in threads; unset, all cores where they
            feed GPUs, none where the net computes on the same cores. One or more read ahead from a slow disk.
        drop_last: leave out a last training batch that is not full.
        protocol: the views of an image that `test` and `validate` evaluate: see `datamodules.views`. Validation within
            `fit` evaluates the centre crop. A batch holds `batch_size` views, or those of one image if they are more.
        train_images: how many of the training images to train on: the same ones for every seed of a run, of each class
            in proportion. Unset, all.
        bootstrap: train on as many draws with replacement as there are training images, by the run's seed (bagging,
            Breiman 1994): in each epoch an image takes part as often as it was drawn.
    """

    num_classes: int
    class_names: list[str]
    preprocessing: dict[str, Any]
    native_size = True
    hflip_preserves_label = True
    has_test_images = True
    tests_validation_images = False
    evaluates_by_class = False
    run: RunData | None = None

    train_set: ImageSet
    val_set: ImageSet | None
    test_set: ImageSet

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int | None = 0,
        drop_last: bool = False,
        protocol: str = "center",
        train_images: int | None = None,
        bootstrap: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, train_images=train_images)
        check_at_least(0, num_workers=num_workers)
        self.batch_size, self.num_workers, self.drop_last = batch_size, num_workers, drop_last
        self.protocol, self.train_images, self.bootstrap = protocol, train_images, bootstrap
        self.skipped = SkippedFiles()
        self.renamed: dict[str, str] = {}
        self.passed_over: list[str] = []
        self.draws = LOCAL_DRAWS  # a context of the augmentation
        self._loaded: set[str] = set()
        self._label_map: np.ndarray | None = None  # from the data's own numbers of the classes to those of the run

    def load(self, stage: str) -> None:
        """Read the images for fit, validate or test; only test may read the test set.

        Raises:
            UserError: with the path and the fix, where that fails.
        """
        raise NotImplementedError

    def augment(self, images: Tensor) -> Tensor:
        """Augment a training batch, uint8 [B, 3, H, W], on its device; the result may be float32 in 0..255."""
        return images

    @cached_property
    def views(self) -> Views:
        """The views of an image that the protocol evaluates."""
        settings = self.preprocessing
        size, resize, interpolation = settings["crop"], settings["resize"], settings.get("interpolation", "bilinear")
        return Views(self.protocol, size, resize, self.native_size, self.hflip_preserves_label, interpolation)

    @property
    def uses_tta(self) -> bool:
        """Whether more than the centre crop of an image is evaluated (test-time augmentation)."""
        return self.protocol != "center" and self.trainer is not None and self.trainer.state.fn in ("validate", "test")

    @property
    def train_size(self) -> int:
        """Pixels per side of a training image."""
        return self.preprocessing["crop"]

    def evaluated_set(self, verb: Verb) -> ImageSet:
        """The images that `test` or `validate` evaluates."""
        images = self.test_set if verb == "test" else self.val_set
        assert images is not None
        return images

    def evaluated_indices(self, verb: Verb) -> np.ndarray:
        """This process's share of the evaluated set: [n] indices in the order of the batches, without skipped files."""
        indices = np.array(list(self.make_sampler(self.evaluated_set(verb), shuffle=False)), dtype=np.int64)
        return indices[~np.isin(indices, self.skipped.indices)]

    def follow(self, run: RunData) -> None:
        """Take over the order of the classes and the split of the run whose checkpoint a command starts from.

        Raises:
            UserError: if the classes are not those of the run.
        """
        self.run, self._label_map = run, match_classes(self.class_names, run.record.class_names)
        self.class_names = list(run.record.class_names)

    def test_fingerprint(self) -> str | None:
        """`fingerprint` of the test images, for the record of a training, which must not use them; None if unknown."""
        return self.fingerprint(self.test_set) if hasattr(self, "test_set") else None

    def fingerprint(self, images: ImageSet, older: bool = False) -> str:
        """SHA-256 of images (pixels, or names and contents), labels and class names, in the run's order of classes.

        `older` gives that of older code: see `ImageSet.older_fingerprint`.
        """
        if self._label_map is not None:
            images = copy.copy(images)
            number_classes([images], self._label_map)
        content = [images.older_fingerprint() if older else images.fingerprint(), *self.class_names]
        return hashlib.sha256("\n".join(content).encode(errors="surrogateescape")).hexdigest()

    def prepare_data(self) -> None:
        # Before any logger opens a file: data that are refused leave no run directory behind
        if self.trainer is not None:
            self.setup(self.trainer.state.fn or "fit")

    def setup(self, stage: str) -> None:
        _ = self.views  # refuses a protocol that does not exist
        if min(std := self.preprocessing["std"]) <= 0:
            raise UserError(f"std is {list(std)}: every channel's must be above 0.")
        if stage not in self._loaded:
            self.load(stage)
            if stage == "fit" and self.train_images is not None:
                self.train_set, self.passed_over = choose_training_images(self.train_set, self.train_images)
            if self._label_map is not None:
                number_classes([each for each in vars(self).values() if isinstance(each, ImageSet)], self._label_map)
            self._loaded.add(stage)

    def train_dataloader(self) -> ResumableLoader:
        loader = self._loader(self.train_set, shuffle=True)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        self.skipped.indices.clear()
        return [] if self.val_set is None else self._loader(self.val_set, shuffle=False)

    def test_dataloader(self) -> DataLoader:
        self.skipped.indices.clear()
        return self._loader(self.test_set, shuffle=False)

    def batches(self, training: bool, device: torch.device, epoch: int = 0) -> Iterator[Batch]:
        """One pass over the training or the validation set, outside of the Trainer's loop: the net's input batches.

        Args:
            training: the training images, augmented; else the validation images.
            device: where the batches lie.
            epoch: whose augmentation is drawn; each training batch is seeded as that epoch's.
        """
        images = self.train_set if training else self.val_set
        assert images is not None
        loader = self._loader(images, shuffle=training)
        loader.sampler.set_epoch(epoch)  # whose crops may have a size of their own
        for number, raw in enumerate(loader):
            batch = self.transfer_batch_to_device(self._receive(raw, training), device, 0)
            if training:
                self.seed_batch(epoch, number)
            if len(batch.labels):  # otherwise none of its images could be read
                yield self.to_inputs(batch, training)

    def on_before_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        training = trainer is not None and trainer.training
        received = self._receive(batch, training)
        if trainer is not None and training and trainer.state.fn == "fit":
            loader = trainer.train_dataloader
            assert isinstance(loader, ResumableLoader)
            self.seed_batch(loader.sampler.epoch, trainer.fit_loop.batch_idx + 1)
        return received

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.to_inputs(batch, training=self.trainer is not None and self.trainer.training)

    def seed_batch(self, epoch: int, number: int) -> None:
        """Seed torch for a training batch, for crops, dropout and every other draw: a resumed run repeats them."""
        trainer = self.trainer
        assert trainer is not None
        rank = trainer.global_rank if self.draws is LOCAL_DRAWS else 0
        seed_generators(mix_seed(run_seed(), epoch, number, rank), trainer.strategy.root_device)

    def to_inputs(self, batch: Batch, training: bool) -> Batch:
        """Turn uint8 images on the device into inputs: augmented in training, the protocol's views in evaluation."""
        images, labels = batch.images, batch.labels
        if training:
            assert isinstance(images, Tensor)
            with self.draws:
                images = self.augment(images)
        elif isinstance(images, Tensor) and self.uses_tta:
            images = self.views.cut_batch(images)
        mean, std = self.preprocessing["mean"], self.preprocessing["std"]
        if isinstance(images, Tensor):
            return Batch(normalise(images, mean, std), labels)
        views = [normalise(each.flatten(0, 1), mean, std).unflatten(0, each.shape[:2]) for each in images]
        dense_size = self.views.size if self.views.dense else None
        if len(views) == 1:
            return Batch(views[0], labels, dense_size=dense_size)
        return Batch(views, labels, tuple(self.views.weights), dense_size)

    def images_per_batch(self, training: bool) -> int:
        """Images in a batch of one device."""
        images = max(1, self.batch_size // (self.trainer.world_size if self.trainer else 1))
        if training or not self.uses_tta:
            return images
        # Whole images have sizes of their own, and only equal ones make a batch
        return 1 if self.views.dense and not self.native_size else max(1, images // self.views.count)

    def count_train_batches(self, world_size: int) -> int:
        """Batches of an epoch on each device."""
        images, batch_size = len(self.train_set) // world_size, self.batch_size // world_size
        return images // batch_size if self.drop_last else -(-images // batch_size)

    def make_sampler(self, images: ImageSet, shuffle: bool, **options: Any) -> ExactSampler:
        """The sampler of this process's share of a set; `options` are those of `ExactSampler`."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        overfits = self.trainer is not None and settings(self.trainer).overfit_batches > 0
        options["bootstrap"] = shuffle and self.bootstrap
        if self.evaluates_by_class and not shuffle:
            options["order"] = np.argsort(np.asarray(images.labels), kind="stable")
        return ExactSampler(len(images), shuffle, run_seed(), rank, world_size, same_every_epoch=overfits, **options)

    def _loader(self, images: ImageSet, shuffle: bool) -> ResumableLoader:
        if self.uses_tta and not shuffle and isinstance(images, ImageFiles):
            images = images.with_transform(self.views)
        batch_size, sampler = self.images_per_batch(training=shuffle), self.make_sampler(images, shuffle)
        return make_loader(images, self.trainer, self.num_workers, batch_size, sampler, shuffle and self.drop_last)

    def _receive(self, raw: RawBatch, training: bool) -> Batch:
        """The batch without the files that could not be read, after deciding about them."""
        if raw.unreadable:
            trainer = self.trainer
            # Other devices wait for this one's training step; a full batch of unreadable files is no accident
            awaited = training and trainer is not None and trainer.world_size > 1
            full = 1 < len(raw.unreadable) == self.images_per_batch(training)
            predicting = trainer is not None and trainer.predicting
            loaded = [images for images in vars(self).values() if isinstance(images, ImageSet)]
            self.skipped.handle(raw, loaded, training, may_be_empty=predicting or not (awaited or full))
        return Batch(raw.images, raw.labels)


def image_data(trainer: pl.Trainer) -> ImageData | None:
    """The trainer's data module if it is one of this project; None for any other LightningDataModule."""
    data = settings(trainer).datamodule
    return data if isinstance(data, ImageData) else None
