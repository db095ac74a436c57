"""ImageNet, and any photos that lie in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images: see __main__.py
"""

import logging
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchvision.transforms import v2

from batch import Batch
from datamodules.augment import Augmentation, random_colour, random_erasing, random_flip, random_lighting
from datamodules.base import ImageData, run_seed
from datamodules.crops import CentreCrop, TrainCrop
from datamodules.decode import Interpolation
from datamodules.image_files import (
    ImageFiles,
    class_folders,
    is_image,
    labelled,
    readable,
    scan,
    split,
    tree,
    unreadable,
)
from datamodules.loading import ImageSet, RawBatch
from datamodules.samplers import ExactSampler, SampleSpecSampler
from datamodules.skipped_files import SkippedFiles
from errors import UserError, pluralize

log = logging.getLogger(__name__)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images
NO_CHOICE = Augmentation()


class ImageNet(ImageData):
    """ImageNet, or any photos in folders named after their classes.

    `root` holds train/<class>/ and val/<class>/, or the official flat val/ beside LOC_val_solution.csv or the devkit,
    and perhaps test/<class>/; class folders right in `root` will do too. JPEG, PNG, WebP and what else Pillow reads,
    grey, CMYK, transparent or turned by EXIF, become upright RGB.

    Validation images are those of val/ or, with `val_size`, a stratified part of the training images. A test reads
    test/, else val/, else the images held back. The log says what is what.

    Args:
        root: the folder.
        size: pixels per side of the images in training.
        eval_size: pixels per side of the images in evaluation; unset, `size`.
        resize: in evaluation, the length of the shorter side of the image out of whose centre the square is cut; unset,
            8/7 of `eval_size`, which is 256 for 224.
        augmentation: how training images are varied.
        interpolation: how images are resized; always antialiased.
        mean: of the pixels per channel, in units of [0, 1]; some published weights want their own.
        std: standard deviation of the pixels per channel, in the same units.
        val_size: training images to hold back: how many, or below 1 which share of them. Unset, none where there is a
            val/, else a tenth.
        split_seed: which ones.
        on_bad_image: at a file that cannot be read, stop, or skip it: leave it out, say so and count it.
        num_workers: loader processes per device; unset, what the machine has.
        batch_size, drop_last, protocol: see `ImageData`.

    Raises:
        ValueError, FileNotFoundError: if there are no class folders, or an argument is out of its range.
    """

    native_size = False

    def __init__(
        self,
        root: Path,
        size: int = 224,
        eval_size: int | None = None,
        resize: int | None = None,
        augmentation: Augmentation = NO_CHOICE,
        interpolation: Interpolation = "bilinear",
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        val_size: int | float | None = None,
        split_seed: int = 0,
        on_bad_image: Literal["stop", "skip"] = "stop",
        batch_size: int = 256,
        num_workers: int | None = None,
        drop_last: bool = False,
        protocol: str = "center",
    ) -> None:
        super().__init__(batch_size, num_workers, drop_last, protocol)
        eval_size = size if eval_size is None else eval_size
        resize = round(eval_size * 8 / 7) if resize is None else resize
        for name, value, least in (("size", size, 1), ("eval_size", eval_size, 1), ("resize", resize, eval_size)):
            if value < least:
                raise UserError(f"{name} is {value}: it must be at least {least}.")
        if min(std) <= 0:
            raise UserError(f"std is {list(std)}: every channel's must be above 0.")
        augmentation.check(size)
        self.augmentation = augmentation
        self.root = Path(root).expanduser()
        self.train_folder = self.root / "train" if (self.root / "train").is_dir() else self.root
        self.classes = class_folders(self.train_folder)
        self.num_classes, self.class_names = len(self.classes), readable(self.classes)
        self.preprocessing = {
            "resize": resize,
            "crop": eval_size,
            "mean": list(mean),
            "std": list(std),
            "interpolation": interpolation,
        }
        self.size, self.val_size, self.split_seed = size, val_size, split_seed
        self.on_bad_image = on_bad_image
        alphas = ((v2.MixUp, self.augmentation.mixup), (v2.CutMix, self.augmentation.cutmix))
        self.mixes = [mix(alpha=alpha, num_classes=self.num_classes) for mix, alpha in alphas if alpha]
        self.look = CentreCrop(resize, eval_size, interpolation)

    def load(self, stage: str) -> None:
        val, test = self._folder("val"), self._folder("test")
        if stage == "test" and (test or val):
            self.test_set = self._listed(test or val)
            say(f"test: {pluralize(len(self.test_set), 'image')} in {test or val}")
            return
        held_back = 0.1 if self.val_size is None and val is None else self.val_size or 0
        if stage == "validate" and val and not held_back:
            self.val_set = self._listed(val)
            say(f"validation: {len(self.val_set):,} images in {val}")
            return
        everything = self._listed(self.train_folder)
        train, rest = split(everything, held_back, self.split_seed)
        self.train_set = train.with_transform(TrainCrop(self.augmentation, self.look.interpolation))
        self.val_set = rest if held_back else self._listed(val) if val else None
        if stage == "test":
            if self.val_set is None:
                raise UserError(
                    f"There are no images to test on: {self.root} has no test/ and no val/ folder, and val_size is 0."
                )
            self.test_set = self.val_set
            say(f"test: {pluralize(len(rest), 'image')} of {self.train_folder}, held back for validation")
            return
        self.has_test_images = test is not None or self.val_set is not None
        where = "" if self.val_set is None else f"{len(rest):,} of them held back" if held_back else f"those in {val}"
        same = "" if test or (held_back and val) or not where else ", which a test would read too"
        say(
            f"{pluralize(len(train), 'training image')} of {self.num_classes:,} classes in {self.train_folder}; "
            + (f"validation: {where}{same}" if where else "no validation")
        )

    def make_sampler(self, size: int, shuffle: bool, rank: int, world_size: int) -> ExactSampler:
        if not shuffle:
            return super().make_sampler(size, shuffle, rank, world_size)
        sizes = partial(self.augmentation.size, size=self.size)
        return SampleSpecSampler(size, sizes, self.augmentation.repeats, run_seed(), rank, world_size)

    def teardown(self, stage: str) -> None:
        """Say how many files all processes together have left out."""
        if self.trainer is None or self.on_bad_image == "stop":
            return
        if count := self.skipped.count_over_processes():
            say(f"left out {pluralize(count, 'file')} that could not be read")
        self.skipped = SkippedFiles()

    def augment(self, images: Tensor) -> Tensor:
        how = self.augmentation
        if how.flip:
            images = random_flip(images)
        if how.colour:
            images = random_colour(images, how.colour)
        if how.lighting:
            images = random_lighting(images, how.lighting)
        if how.erasing:
            images = random_erasing(images, how.erasing, [255 * value for value in self.preprocessing["mean"]])
        return images

    def show_views(self, images: ImageSet) -> ImageSet:
        assert isinstance(images, ImageFiles)
        return images.with_transform(self.views)

    @property
    def train_size(self) -> int:
        return self.size

    def to_inputs(self, batch: Batch, training: bool) -> Batch:
        mixing = self.mixes and training and len(batch.labels) > 1
        if mixing and self.augmentation.repeats > 1:
            # Neighbours are mixed, and without this they would be crops of one file
            order = torch.randperm(len(batch.labels), device=batch.labels.device)
            assert isinstance(batch.images, Tensor)
            batch = Batch(batch.images[order], batch.labels[order])
        batch = super().to_inputs(batch, training)
        if mixing:
            return Batch(*self.mixes[int(torch.randint(len(self.mixes), ()))](batch.images, batch.labels))
        return batch

    def _folder(self, name: str) -> Path | None:
        """The folder beside train/ if it holds images that can be scored: those of test/ in ImageNet have no labels."""
        folder = self.root / name
        if self.train_folder == self.root or not folder.is_dir():
            return None
        return folder if name == "val" or any(entry.is_dir() for entry in scan(folder)) else None

    def _listed(self, folder: Path | None) -> "ImageFiles":
        """The images of a folder and their labels."""
        assert folder is not None
        entries = scan(folder)
        if folder != self.train_folder and not any(entry.is_dir() for entry in entries):
            names, labels = labelled(folder, [entry.name for entry in entries if is_image(entry.name)], self.classes)
        else:
            names, labels = tree(folder, self.classes)
        return ImageFiles(folder, names, labels, self.look)

    def handle_unreadable(self, batch: RawBatch, training: bool) -> None:
        """Stop because of images that cannot be read, or say that they are left out."""
        assert self.trainer is not None
        if self.on_bad_image == "stop":
            found, complete = unreadable(self._sets(), self.look)
            given = [(file.path, file.reason) for file in batch.unreadable]
            lines = [f"{path} ({why})" for path, why in dict([*given, *found]).items()][:10]
            count = pluralize(len(lines), "file") if complete else f"{len(lines)} or more files"
            raise UserError(
                f"{count} cannot be read: {', '.join(lines)}. Mend or "
                "remove them, or go on without them: --data.on_bad_image skip."
            )
        super().handle_unreadable(batch, training)
        size = self.images_per_batch(training)
        # A batch without images is left out, unless other devices wait for its step, or it is a whole one of several
        waited_for = training and self.trainer.world_size > 1
        if not len(batch.labels) and (waited_for or 1 < len(batch.unreadable) == size):
            raise UserError(
                f"A batch of {pluralize(len(batch.unreadable), 'image')} has none that can be read, such as "
                f"{batch.unreadable[0].path}: remove such files."
            )

    def _sets(self) -> list["ImageFiles"]:
        return [getattr(self, f"{name}_set") for name in ("train", "val", "test") if getattr(self, f"{name}_set", None)]


@rank_zero_only
def say(text: str) -> None:
    """Print a line about the data, in one process."""
    print(f"Data: {text}", flush=True)
