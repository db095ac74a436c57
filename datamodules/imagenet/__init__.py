"""ImageNet, and any images in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images: see __main__.py
python -m datamodules.imagenet pack SRC DST          # a copy with many images in each file
"""

import os
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from batch import Batch
from checkpointing.split import Split
from datamodules.augment import Augmentation, Mixing
from datamodules.base import ImageData
from datamodules.class_folders import find_classes, find_images, find_splits
from datamodules.crops import CenterCrop, TrainCrop
from datamodules.decode import Interpolation
from datamodules.folder_walk import announce, list_folder
from datamodules.identity import matches
from datamodules.image_files import ImageFiles
from datamodules.imagenet.labels import describe_classes, read_flat_labels
from datamodules.loading import ImageSet
from datamodules.packed.images import PackedImages, open_packed
from datamodules.run_data import compare_arguments
from datamodules.run_files import divide_as_run, holds_sample, is_run_folder
from datamodules.samplers import ExactSampler
from datamodules.skipped_files import Policy, SkippedFiles
from datamodules.splits import split_validation
from datamodules.trained_on import describe_sample, find_moved, find_sample, leave_out_moved, leave_out_sample
from errors import UserError, check_at_least, expand_home, pluralize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images
DEFAULT_AUGMENTATION = Augmentation()


class ImageNet(ImageData):
    """ImageNet, or any images in folders named after their classes.

    `root` holds train/<class>/ and val/<class>/, or the official flat val/ beside LOC_val_solution.csv or the devkit,
    and perhaps test/<class>/; class folders right in `root` will do too. JPEG, PNG, WebP and other formats that Pillow
    reads, grey, CMYK, transparent or turned by EXIF, become upright RGB. `root` may also be a packed copy of such a
    folder, which `python -m datamodules.imagenet pack` writes, also in an object store (s3://bucket/folder).

    Validation images are those of val/ or, with `val_size`, a stratified part of the training images. A test reads
    test/, else val/, else the images held back. The log says which.

    Args:
        root: the folder.
        size: pixels per side of the images in training.
        eval_size: pixels per side of the images in evaluation; unset, `size`.
        resize: in evaluation, the length of the image's shorter side before the centre square is cut out; unset, 8/7 of
            `eval_size`, which is 256 for 224.
        augmentation: augmentation of the training images.
        interpolation: how images are resized; always antialiased.
        mean: of the pixels per channel, in units of [0, 1]; some published weights need their own.
        std: standard deviation of the pixels per channel, in units of [0, 1].
        val_size: training images to hold back: their number, or below 1 their share. Unset, none where there is a
            val/, else a tenth.
        split_seed: which images are held back.
        on_bad_image: at a file that cannot be read, stop the run, or skip the file, log and count it.
        batch_size: images in a training or evaluation batch, over all devices together.
        num_workers: loader processes per device; see `ImageData`.
        **kwargs: see `ImageData`.

    Raises:
        UserError: if there are no class folders, or an argument is out of its range.
    """

    native_size = False

    def __init__(
        self,
        root: Path,
        size: int = 224,
        eval_size: int | None = None,
        resize: int | None = None,
        augmentation: Augmentation = DEFAULT_AUGMENTATION,
        interpolation: Interpolation = "bilinear",
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        val_size: int | float | None = None,
        split_seed: int = 0,
        on_bad_image: Policy = "stop",
        batch_size: int = 256,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size, num_workers, **kwargs)
        eval_size = size if eval_size is None else eval_size
        resize = round(eval_size * 8 / 7) if resize is None else resize
        check_at_least(1, size=size, eval_size=eval_size)
        check_at_least(eval_size, resize=resize)
        augmentation.check(size)
        self.root = expand_home(root)
        self.packed = open_packed(self.root)
        self.splits = self.packed.splits if self.packed else find_splits(self.root)
        self.train_folder = self.splits.train
        self.classes = self.packed.index.classes if self.packed else find_classes(self.train_folder)
        self.num_classes, self.class_names = len(self.classes), describe_classes(self.classes)
        self.preprocessing = {
            "resize": resize,
            "crop": eval_size,
            "mean": list(mean),
            "std": list(std),
            "interpolation": interpolation,
        }
        self.size, self.val_size, self.split_seed = size, val_size, split_seed
        self.augmentation, self.mixing = augmentation, Mixing(augmentation, self.num_classes)
        self.center_crop = CenterCrop(resize, eval_size, interpolation)
        self.skipped = SkippedFiles(on_bad_image)

    def load(self, stage: str) -> None:
        val, self.test_folder = self.splits.val, self._find_test_folder()
        val_size = 0.1 if self.val_size is None and val is None else self.val_size or 0
        if self.run and self.run.split:
            val, val_size = self._follow_split(self.run.split, stage, val)
        if val_size and self.packed and self.packed.store:
            raise UserError(
                f"{self.packed.store.address} is read chunk by chunk, and images held back for validation would lie in "
                "all of them: pack a val/ folder too, and leave out val_size, or copy the data set to a disk."
            )
        self.has_test_images = bool(self.test_folder or val_size)
        self.tests_validation_images = self.test_folder in (None, None if val_size else val)
        if stage == "test" and self.test_folder:
            self.test_set = self._leave_out_trained_on(self.list_images(self.test_folder))
            announce(f"test: {pluralize(len(self.test_set), 'image')} in {self.test_folder}")
        elif stage == "validate" and val and not val_size:
            self.val_set = self._leave_out_trained_on(self.list_images(val))
            announce(f"validation: {pluralize(len(self.val_set), 'image')} in {val}")
        else:
            self._split_training_images(stage, val, val_size)
            if stage == "test":
                if self.val_set is None:
                    raise UserError(
                        f"There are no images to test on: {self.root} has no test/ and no val/ folder, and val_size is "
                        "0, so that none are held back."
                    )
                self.test_set, count = self.val_set, pluralize(len(self.val_set), "image")
                origin = ", held back for validation" if self.tests_validation_images else ""
                announce(f"test: {count} of {self.train_folder}{origin}")
            else:
                self._announce_split(f"in {val}" if val and not val_size else "held back from the same folder")
                if self.val_set and self.tests_validation_images:
                    announce("there is no test/ folder: `test` reads the validation images, so its error is optimistic")

    def test_fingerprint(self) -> str | None:
        images = self.val_set
        if not self.tests_validation_images:
            assert self.test_folder is not None
            try:
                images = self.list_images(self.test_folder)
            except UserError:  # a training does not need the folder
                return None
        return None if images is None else self.fingerprint(images)

    def make_sampler(self, images: ImageSet, shuffle: bool, **options: Any) -> ExactSampler:
        if shuffle:
            if isinstance(images, PackedImages) and images.is_remote:
                options["chunk_of"] = images.chunk_of
            options["repeats"] = self.augmentation.repeats
            options["crop_size"] = partial(self.augmentation.crop_size, size=self.size)
        return super().make_sampler(images, shuffle, **options)

    def augment(self, images: Tensor) -> Tensor:
        return self.augmentation.apply(images, fill=[255 * value for value in self.preprocessing["mean"]])

    @property
    def train_size(self) -> int:
        return self.size

    def to_inputs(self, batch: Batch, training: bool) -> Batch:
        if not training or len(batch.labels) < 2:  # one image has no neighbour to be mixed with
            return super().to_inputs(batch, training)
        return self.mixing.mix(super().to_inputs(self.mixing.shuffle(batch), training))

    def _find_test_folder(self) -> Path | None:
        """The folder that `test` reads: test/, if it holds class folders (ImageNet's has no labels), or else val/."""
        test = self.splits.test
        if test and not self.packed and not list_folder(test)[0]:
            announce(f"{test} is not read: it holds no class folders")
            test = None
        return test or self.splits.val

    def list_images(self, folder: Path) -> ImageFiles:
        """The images of a split's folder and their labels, to be evaluated."""
        if self.packed:
            return self.packed.list_images(folder, self.center_crop)
        folders, files = list_folder(folder)
        class_to_idx = {name: index for index, name in enumerate(self.classes)}
        if folders:
            names, labels = find_images(folder, class_to_idx)
        else:
            names, labels = read_flat_labels(folder, files, class_to_idx)
        return ImageFiles(folder, names, labels, self.center_crop)

    @cached_property
    def _packed_training_names(self) -> frozenset[str]:
        """Names of the training images of a packed data set, relative to their folder."""
        assert self.packed
        return frozenset(self.packed.read_split(self.train_folder.name).names)

    def _is_training_image(self, name: str) -> bool:
        """Whether the folder of the training images has a file of a name."""
        return name in self._packed_training_names if self.packed else os.path.exists(self.train_folder / name)

    def _leave_out_trained_on(self, images: ImageFiles) -> ImageFiles:
        """The images of val/ or test/; where they are not the run's own, without those that it has trained on."""
        run, folder = self.run, Path(os.fsdecode(images.folder))
        if run is None or (split := run.split) is None:
            return images
        validated = split.held_back if split.own_folder and folder == self.splits.val else ()
        moved, known = find_moved(images, split, validated, self._is_training_image), find_sample(images, split)
        if not (moved | known).any():
            return images
        if matches(self, images, {run.record.test_hash, run.record.val_hash}):
            if known.any():
                announce(f"{describe_sample(known, images, split)}: the error on {folder} is optimistic")
            return images
        # Otherwise another data set's, whose files have the same names
        if moved.any() and (holds_sample(images, split) or is_run_folder(self.list_images(self.train_folder), split)):
            images = leave_out_moved(images, moved, folder, self.train_folder)
        return leave_out_sample(images, split)

    def _follow_split(self, split: Split, stage: str, val: Path | None) -> tuple[Path | None, int]:
        """The run's folder of validation images; and how many it has held back of the training images."""
        assert self.run is not None
        if stage == "test" and self.test_folder:
            return val, 0 if split.own_folder else len(split.held_back)
        if split.own_folder and val is None:
            raise UserError(
                f"The images that this run has validated on are gone: there is no folder {self.root / 'val'}. Bring it "
                "back, or start a new run from the weights with --model.weights."
            )
        arguments = {"val_size": self.val_size, "split_seed": self.split_seed}
        for note in compare_arguments(self.run.record, stage, **arguments):
            announce(note)
        return (val, 0) if split.own_folder else (None, len(split.held_back))

    def _split_training_images(self, stage: str, val: Path | None, val_size: float) -> None:
        images, run = self.list_images(self.train_folder), self.run
        val_images = self.list_images(val) if val and not val_size else None
        if run and run.split:
            division = divide_as_run(images, run.split, val_images, stage)
            images, held_back = division.train, division.held_back
            self.tests_validation_images &= not division.other_folder
            self.renamed = division.renamed
            for note in division.notes:
                announce(note)
        else:
            by_name = run is None or run.record.data_hash is not None  # older runs drew positions in the list
            images, held_back = split_validation(images, val_size, self.split_seed, by_name)
        self.train_set = images.with_transform(TrainCrop(self.augmentation, self.preprocessing["interpolation"]))
        self.val_set = held_back if val_images is None else self._leave_out_trained_on(val_images)

    def _announce_split(self, val_source: str) -> None:
        train = f"{pluralize(len(self.train_set), 'training image')} of {self.num_classes:,} classes"
        val = f"{pluralize(len(self.val_set), 'validation image')} {val_source}" if self.val_set else "no validation"
        announce(f"{train} in {self.train_folder}, {val}")
