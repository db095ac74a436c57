"""Identity of the data: what a checkpoint's record says of them, and whether a command has the run's own."""

import hashlib
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpointing.predictions import data_tag
from checkpointing.record import CheckpointRecord
from checkpointing.split import Split, split_path
from datamodules.base import ImageData, Verb
from datamodules.image_files import ImageFiles
from datamodules.loading import ImageSet
from datamodules.run_data import RunData
from datamodules.run_files import is_copy, search_contents
from datamodules.training_images import refuse_other_training_images
from errors import UserError

SAMPLE = 100  # files that were trained on, whose content is noted


def identify(data: ImageData, split: Split | None) -> dict[str, Any]:
    """The fields of `CheckpointRecord` that identify the data of a training; `split` as `make_split` makes it."""
    val_hash = None if data.val_set is None else data.fingerprint(data.val_set)
    hashes = {"data_hash": data_hash(data), "val_hash": val_hash, "test_hash": data.test_fingerprint()}
    return hashes | {"split_hash": split and split.hash}


def data_hash(data: ImageData) -> str:
    """SHA-256 of classes, labels, and paths or indices of all images to train and to validate on."""
    sets = [images.identity() for images in (data.train_set, data.val_set) if images is not None]
    return hashlib.sha256("\n".join([*sets, *data.class_names]).encode(errors="surrogateescape")).hexdigest()


def make_split(data: ImageData) -> Split | None:
    """The files that a training trains on and holds back; of a resumed run, with those of before.

    Images that `train_images` leaves out count as trained on, so that a resumed run knows them.

    A file that was held back and has another path now replaces that of before, and one that is gone stays in the list.
    """
    trained, held_back = data.train_set, data.val_set
    if not isinstance(trained, ImageFiles):
        return None
    trained_on = trained.portable_paths()
    step = max(1, len(trained) // SAMPLE)
    sample = {trained_on[index]: trained.content(index) for index in range(0, len(trained), step)}
    trained_on += data.passed_over
    contents, own_folder = {}, False
    if isinstance(held_back, ImageFiles):
        contents = {path: held_back.content(index) for index, path in enumerate(held_back.portable_paths())}
        own_folder = held_back.folder != trained.folder
    if data.run is None or (before := data.run.split) is None:
        return Split(trained_on, contents, own_folder, sample)
    replaced = {*data.renamed.values(), *(() if before.own_folder else trained_on)}
    contents = {path: each for path, each in before.held_back.items() if path not in replaced} | contents
    trained_on = list(dict.fromkeys([*before.trained_on, *trained_on]))
    if not before.own_folder:
        trained_on = [path for path in trained_on if path not in contents]
    return Split(trained_on, contents, before.own_folder, sample)


@dataclass(frozen=True)
class EvaluatedImages:
    """The images that `test` or `validate` evaluates.

    Args:
        data_hash: SHA-256 of the set: classes, labels, and pixels or names and contents of files.
        is_run_data: whether they are the very images that the checkpoint's run has for the verb.
        selected_on_test: whether a test evaluates a checkpoint on the images by which it was chosen.
    """

    data_hash: str
    is_run_data: bool
    selected_on_test: bool

    @property
    def tag(self) -> str:
        """The end of the names of files with results: empty for the run's own data."""
        return "" if self.is_run_data else data_tag(self.data_hash)


def matches(data: ImageData, images: ImageSet, hashes: Set[str | None]) -> bool:
    """Whether one of these hashes, of this or of older code, is the fingerprint of images."""
    return data.fingerprint(images) in hashes or data.fingerprint(images, older=True) in hashes


def identify_evaluated(data: ImageData, verb: Verb) -> EvaluatedImages:
    """Compare the images that `test` or `validate` evaluates with those of the checkpoint's run."""
    images, run = data.evaluated_set(verb), data.run
    fingerprint = data.fingerprint(images)
    if run is None:
        return EvaluatedImages(fingerprint, True, False)
    reference = run.record.test_hash if verb == "test" else run.record.val_hash
    references = run.tested_hashes if reference is None else {reference}
    is_run_data = matches(data, images, references) if references else run.same_source
    selected = verb == "test" and run.selected_on_validation
    if selected and not matches(data, images, {run.record.val_hash}):
        selected = not matches(data, images, {reference}) and tests_held_back_images(data, run)
    return EvaluatedImages(fingerprint, is_run_data, selected)


def tests_held_back_images(data: ImageData, run: RunData) -> bool:
    """Whether a test on other images than the run's own evaluates some that the run has held back."""
    images, split = data.test_set, run.split
    if split is None or not isinstance(images, ImageFiles):
        return data.tests_validation_images and (run.record.val_hash is None or run.record.split_hash is not None)
    if data.tests_validation_images and (not split.own_folder or is_copy(images.portable_paths(), [*split.held_back])):
        return True
    return bool(search_contents(images, range(len(images)), split.held_back))


def compare_with_run(data: ImageData, verb: str) -> list[str]:
    """Compare the images of a command with those of the checkpoint's run, where no list of files settles the matter.

    Returns:
        Sentences on what is different.

    Raises:
        UserError: for images in memory that are split otherwise than by the run, and for a run that is resumed on more
            or fewer training images, or on another sample of them.
    """
    run = data.run
    if run is not None and verb == "fit":
        refuse_other_training_images(run.record, data.train_images, data.bootstrap)
    if run is None or run.split or run.record.data_hash is None:
        return []
    if run.record.split_hash is None:
        if verb != "test":
            refuse_other_split(data, run.record)
        return []
    evaluated = data.test_set if verb == "test" else data.val_set
    on_held_back = evaluated is not None and (verb != "test" or data.tests_validation_images)
    if not on_held_back or evaluated is None or matches(data, evaluated, {run.record.val_hash}):
        return []
    return [
        f"{split_path(Path(), run.record.split_hash)}, the run's list of files, is not beside the checkpoint, and the "
        "images have changed since: some of those that are held back now may have been trained on"
    ]


def refuse_other_epoch(data: ImageData, record: CheckpointRecord) -> None:
    """Raise UserError for a checkpoint from inside an epoch if files have come or gone since.

    The order of an epoch's images follows from their number: some would be trained on twice and others not at all.
    """
    if isinstance(data.train_set, ImageFiles) and record.data_hash not in (None, data_hash(data)):
        raise UserError(
            "This checkpoint is from inside an epoch, and images have come or gone since: bring the folder back to "
            "what it was, or resume from a checkpoint of an epoch's end."
        )


def refuse_other_split(data: ImageData, record: CheckpointRecord) -> None:
    """Raise UserError for validation images in memory that the run may have trained on.

    The same images at another size are accepted, and so are other training images beside the same validation images.
    """
    val_hash = None if data.val_set is None else data.fingerprint(data.val_set)
    if val_hash == record.val_hash or data_hash(data) == record.data_hash:
        return
    raise UserError(
        "The validation images are not those that this run held back, and it may have trained on them: leave out "
        "--data.val_size, --data.split_seed and other data, or start a new run from the weights with --model.weights."
    )
