"""Image files and folders of images to predict on."""

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch.utils.data import DataLoader

from checkpointing.content import find_mismatch
from datamodules.base import ImageData
from datamodules.crops import CenterCrop
from datamodules.decode import SUFFIXES, Interpolation
from datamodules.folder_walk import FolderWalk
from datamodules.image_files import ImageFiles
from datamodules.packed.index import INDEX
from datamodules.skipped_files import SkippedFiles
from errors import UserError, check_at_least, check_reachable, expand_home, pluralize


class Photos(ImageData):
    """Image files and folders of images to predict on, preprocessed as the validation images were.

    In place of labels a batch holds the indices of its images in `files`. Files that cannot be read are skipped.

    Args:
        paths: an image file, a folder that is searched for image files at any depth, or a list of them.
        preprocessing: resize, crop, mean and std (see `ImageData`); `predict` takes them from the checkpoint.
        class_names: name of each class, from the checkpoint too.
        batch_size: images at a time over all devices together.
        num_workers: loader processes per device; unset, none for a single batch, else see `ImageData`.

    Attributes:
        files: paths of the images.
    """

    native_size = False

    def __init__(
        self,
        paths: Path | list[Path],
        preprocessing: dict[str, Any],
        class_names: list[str],
        batch_size: int = 64,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers)
        check_preprocessing(preprocessing)
        paths = paths if isinstance(paths, list) else [paths]
        if not paths:
            raise UserError("paths is empty: give --data.paths image files and folders to predict on.")
        self.files = [file for path in paths for file in expand_path(expand_home(path))]
        self.preprocessing, self.class_names, self.num_classes = preprocessing, class_names, len(class_names)
        self.skipped = SkippedFiles("skip")

    def load(self, stage: str) -> None:
        settings = self.preprocessing
        transform = CenterCrop(settings["resize"], settings["crop"], settings.get("interpolation", "bilinear"))
        names = np.array([os.fsencode(file) for file in self.files])
        self.predict_set = ImageFiles(Path.cwd(), names, np.arange(len(names)), transform)

    def predict_dataloader(self) -> DataLoader:
        world_size = self.trainer.world_size if self.trainer else 1
        if len(self.files) < world_size:
            raise UserError(
                f"{pluralize(len(self.files), 'photo')} cannot be shared out among {world_size} devices: use fewer "
                "(--trainer.devices)."
            )
        if self.num_workers is None and len(self.files) <= self.batch_size:
            self.num_workers = 0  # a loader process has nothing to read while the net computes
        return self._loader(self.predict_set, shuffle=False)


def expand_path(path: Path) -> list[Path]:
    """The file itself, or all images at any depth below a folder, in the order of their names.

    Raises:
        UserError: if there is no such path, or a folder has no image in it.
    """
    check_reachable(path)
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        problem = (
            f"{path} is neither a file nor a folder" if os.path.exists(path) else f"There is no file or folder {path}"
        )
        raise UserError(f"{problem}: --data.paths takes image files and folders.")
    walk = FolderWalk()
    (files,) = walk.list_images(str(path))
    walk.announce(path)
    if not files and os.path.lexists(path / INDEX):
        raise UserError(f"{path} is a packed data set: give --data.paths the folder that it was packed from.")
    if not files:
        raise UserError(f"The folder {path} holds no image ({', '.join(sorted(SUFFIXES))}).")
    return [Path(file) for file in files]


def check_preprocessing(preprocessing: dict[str, Any]) -> None:
    """Refuse what says of no image how it becomes an input; see `datamodules.base.ImageData`."""
    problem = find_mismatch(preprocessing, {"resize": 0, "crop": 0, "mean": [0.0], "std": [0.0]}, "preprocessing")
    if problem is None:
        check_at_least(1, resize=preprocessing["resize"], crop=preprocessing["crop"])
        lengths = {name: len(preprocessing[name]) for name in ("mean", "std")}
        problem = next((f"{name} has {n} values for 3 channels" for name, n in lengths.items() if n != 3), None)
    if problem is None and (given := preprocessing.get("interpolation", "bilinear")) not in get_args(Interpolation):
        problem = f"interpolation is {str(given)[:80]} and should be one of {', '.join(get_args(Interpolation))}"
    if problem:
        raise UserError(
            f"predict cannot prepare images: {problem}. The checkpoint was changed, or its data module gives another "
            "preprocessing than ImageData asks for; give another checkpoint."
        )
