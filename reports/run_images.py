"""Small pictures of the images that a run was tested on, where its data are found.

The class of the data is that of the checkpoint's config, which may come from a stranger: it is checked and built as
`main.py test` does it. Nothing is downloaded, and no image is shown unless the set is that of the predictions.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from jsonargparse import ArgumentParser

from checkpointing.class_paths import check_config
from checkpointing.confinement import refuse_links, refuse_roots
from checkpointing.import_policy import names_given, restored_import_policy, restrict_imports
from checkpointing.predictions import Predictions
from checkpointing.record import read_checkpoint
from checkpointing.run_dir import results_folder
from cli.config_files import list_values, read_flags
from cli.early_checks import take_flag
from cli.literal_values import read_names_literally
from cli.messages import find_user_error
from cli.resumed_run import follow_run
from cli.yaml_files import write_yaml
from datamodules.base import ImageData
from datamodules.cifar10 import CIFAR10
from datamodules.identity import matches
from datamodules.image_files import ImageFiles
from datamodules.loading import ImageSet
from datamodules.synthetic import Synthetic
from datamodules.thumbnails import make_thumbnail
from datamodules.torchvision_data import TorchvisionData
from errors import UserError, pluralize
from reports.run import Run

SIZE = 64  # pixels of a picture's shorter side at most
FILES_READ = 1000  # of larger sets the names and labels are compared, and not the contents
LONGEST_REASON = 200  # characters of another library's
PIXELS_READ = 2**30  # of a set that is read into memory: 3 GB


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of images.

    Args:
        pngs: content of a PNG file for each image; None for one that is not found.
        note: why there are none, one sentence; empty if there are any.
    """

    pngs: list[bytes | None]
    note: str = ""


def thumbnails(run: Run, predictions: Predictions, rows: Sequence[int], flags: Sequence[str] = ()) -> Thumbnails:
    """Small pictures of images that a run was tested on: see `load_thumbnails`; none of a run on W&B."""
    checkpoint = Path(run.location) / "checkpoints" / Path(predictions.checkpoint).name
    return load_thumbnails(checkpoint, predictions, rows, flags)


def load_thumbnails(
    checkpoint: Path, predictions: Predictions, rows: Sequence[int], flags: Sequence[str] = ()
) -> Thumbnails:
    """Small pictures of images that a checkpoint was tested on.

    Args:
        checkpoint: whose config names the data.
        predictions: of a test of the checkpoint.
        rows: of the images in the predictions.
        flags: of main.py, of which those for the data are used, such as --data.root=DIR, and --allow.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what data modules say of themselves
            images = find_images(checkpoint, predictions, flags)
            pngs = [make_png(images, int(predictions.indices[row])) for row in rows]
    except Exception as error:  # data sets of torchvision raise different ones where their files are missing
        return Thumbnails([None] * len(rows), f"The images are not shown: {describe(error, checkpoint)}")
    return Thumbnails(pngs)


def describe(error: BaseException, checkpoint: Path) -> str:
    """Why images are not found, one sentence."""
    if mistake := find_user_error(error):
        return str(mistake)
    while error.__cause__ or error.__context__:  # jsonargparse wraps what a data set raises
        error = error.__cause__ or error.__context__ or error
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"the data of {checkpoint} cannot be read ({reason[:LONGEST_REASON].rstrip('.')})."


def find_images(checkpoint: Path, predictions: Predictions, flags: Sequence[str]) -> ImageSet:
    """The images of predictions; arguments as of `load_thumbnails`.

    Raises:
        UserError: if they are not found, or are others.
    """
    data = build_data(checkpoint, flags)
    check_size(data, predictions)
    data.setup("test")
    images = data.evaluated_set("test")
    if not holds_images(data, images, predictions):
        raise UserError(
            f"the data of {checkpoint} are no longer those that it was tested on: name their folder with --data.root, "
            "or test again."
        )
    return images


@restored_import_policy()
def build_data(checkpoint: Path, flags: Sequence[str]) -> ImageData:
    """The data module of a checkpoint's config, without any image.

    Raises:
        UserError: if the config may not name it, its folder is missing, or it is none of this project's.
    """
    refuse_links(results_folder(checkpoint))
    loaded = read_checkpoint(checkpoint, verify=False)
    allowed, words = take_flag(list(flags), "--allow")
    words = [word for word in words if word.startswith("--data")]
    recorded = loaded.record.config["data"]
    restrict_imports(check_config({"data": recorded}, [*allowed, *names_given(words)]))
    config = without_downloads(recorded)
    read_names_literally()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    parsed = parser.parse_args([f"--data={write_yaml(config)}", *words])
    refuse_roots(parsed.data.as_dict(), parsed.data.as_dict(), list_values([], read_flags(words)))
    data = parser.instantiate_classes(parsed).data
    if not isinstance(data, ImageData):
        raise UserError(f"{type(data).__name__} is no datamodules.ImageData, so nothing is known of its images.")
    if isinstance(data, CIFAR10):
        data.may_download = False
    follow_run(data, parsed.data, loaded)
    return data


def without_downloads(config: Any) -> Any:
    """A copy of a config in which no data set is told to download itself."""
    if isinstance(config, dict):
        return {name: False if name == "download" else without_downloads(value) for name, value in config.items()}
    return [without_downloads(item) for item in config] if isinstance(config, list) else config


def check_size(data: ImageData, predictions: Predictions) -> None:
    """Refuse images that would fill the memory: a config of one line can name any number of them.

    Raises:
        UserError: for a set that is too large.
    """
    count, side = 0, data.preprocessing["crop"]
    if isinstance(data, Synthetic):
        count, side = sum(data.sizes), data.size
    elif isinstance(data, TorchvisionData):
        sets: list[Any] = [data.train_data, data.test_data]
        count = sum(map(len, sets))
    if count * side**2 > PIXELS_READ:
        raise UserError(f"{pluralize(count, 'image')} of {side:,} pixels per side are too many to be read for a page.")


def holds_images(data: ImageData, images: ImageSet, predictions: Predictions) -> bool:
    """Whether a set is the one of predictions."""
    indices, files = predictions.indices, predictions.files
    if not len(indices) or not 0 <= indices.min() <= indices.max() < len(images):
        return False
    if not isinstance(images, ImageFiles) or len(images) <= FILES_READ:
        return matches(data, images, {predictions.data_hash})
    names = np.array(images.file_names)
    whole = len(images) == len(indices) or not predictions.complete
    return (
        whole and np.array_equal(names[indices], files) and np.array_equal(images.labels[indices], predictions.labels)
    )


def make_png(images: ImageSet, index: int) -> bytes | None:
    """A picture of an image as a PNG file; None if the image cannot be read."""
    picture = make_thumbnail(images, index, SIZE)
    if picture is None:
        return None
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
