"""Predictions of checkpoints: read where a test has left them beside its run, and tested where they are missing.

A report never trains, and never tests an unchanged checkpoint twice on the same images. It takes results on the run's
own data, unless flags name others.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np

from checkpointing.predictions import Predictions, file_hash, predictions_path
from checkpointing.record import read_checkpoint
from checkpointing.run_dir import find_checkpoint
from cli import command_line
from datamodules.base import image_data
from datamodules.identity import identify_evaluated
from datamodules.run_data import LOADING_ARGUMENTS
from datamodules.views import Views
from errors import UserError, expand_home

VERB_TITLES = {"test": "Test", "validate": "Validation"}
# Another process would start the report again, not the test
MULTI_DEVICE_FLAGS = ("--trainer.devices", "--trainer.num_nodes", "--trainer.strategy")


def load_predictions(
    requests: Sequence[tuple[Path, str]], verb: str = "test", flags: Sequence[str] = (), refuse_nan: bool = True
) -> list[Predictions]:
    """Predictions of several checkpoints and protocols, all on the same images, in the order of `requests`.

    Mistakes that can be found without a test are found before the first test is run.

    Args:
        requests: a checkpoint (a file, a version folder or an experiment folder, see `find_checkpoint`) and a protocol,
            see `datamodules.views`, for each result.
        verb: test or validate.
        flags: of main.py, for tests that are missing, such as --data.root=DIR.
        refuse_nan: whether predictions of a net that has diverged are an error.

    Raises:
        UserError: if there is no such checkpoint or protocol, if a test leaves no predictions, if predictions are NaN
            and may not be, or if they are of different images or classes.
        SystemExit: if a test fails, with its message.
    """
    if not requests:
        raise UserError("No checkpoints are given: name runs or files, such as runs/digits/resnet20.")
    refuse_multiple_devices(flags)
    for _, protocol in requests:
        Views(protocol, size=1)  # no shorter side is too small for 1 pixel: only the name can be wrong
    pairs = [(find_checkpoint(expand_home(path), verb), protocol) for path, protocol in requests]
    found = {}
    if not names_data(flags):
        found = {pair: predictions for pair in pairs if (predictions := read_cached_predictions(*pair, verb))}
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in found]
    for number, (file, protocol) in enumerate(missing, 1):
        print(f"{VERB_TITLES[verb]} {number} of {len(missing)}: {file}, {protocol}", flush=True)
        found[file, protocol] = evaluate(file, protocol, verb, flags)
    if flags and len(missing) < len(found):
        print(f"Read, without {' '.join(flags)}: {len(found) - len(missing)} that had been tested before.", flush=True)
    results = [found[pair] for pair in pairs]
    if refuse_nan:
        check_finite(results)
    check_same_images(results)
    return results


def names_data(flags: Sequence[str]) -> bool:
    """Whether flags of main.py may name other images than a run's own."""
    names = [flag.partition("=")[0] for flag in flags]
    loading = {f"--data.{name}" for name in LOADING_ARGUMENTS}
    return any(name.startswith(("--data", "--config")) and name not in loading for name in names)


def read_cached_predictions(
    checkpoint: Path, protocol: str, verb: str, tag: str = "", data_hash: str | None = None
) -> Predictions | None:
    """Read the predictions beside a checkpoint.

    Args:
        checkpoint: file.
        protocol: see `datamodules.views`.
        verb: test or validate.
        tag: of other data than the run's, see `checkpointing.predictions`.
        data_hash: of the images; unset, that of the run's own, as far as the checkpoint says it.

    Returns:
        The predictions; None if there is no readable file, or if it is of another checkpoint or of other images.
    """
    try:
        predictions = Predictions.read(predictions_path(checkpoint, protocol, verb, tag))
    except UserError:
        return None
    expected_hash = data_hash or run_data_hash(checkpoint, verb)
    if predictions.checkpoint_hash != file_hash(checkpoint) or expected_hash not in (None, predictions.data_hash):
        return None
    return replace(predictions, checkpoint=str(checkpoint.absolute()))  # the run may have been moved since


def run_data_hash(checkpoint: Path, verb: str) -> str | None:
    """SHA-256 of the images that a checkpoint's run has for a verb; None if the checkpoint does not say it."""
    try:
        record = read_checkpoint(checkpoint).record
    except UserError:  # the test will say so
        return None
    return record.test_hash if verb == "test" else record.val_hash


class AlreadyTested(Exception):
    """The predictions of a test that begins are there already."""


class CachedTest(pl.Callback):
    """Ends a test whose predictions are there already: raises AlreadyTested.

    Args:
        checkpoint: that is tested.
        protocol: see `datamodules.views`.

    Attributes:
        tag: of the images, once the test has begun: see `checkpointing.predictions`.
        data_hash: theirs; None for a data module of another project.
    """

    def __init__(self, checkpoint: Path, protocol: str) -> None:
        self.checkpoint, self.protocol = checkpoint, protocol
        self.tag = ""
        self.data_hash: str | None = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data, verb = image_data(trainer), trainer.state.fn
        if data is None or verb is None:
            return
        images = identify_evaluated(data, "validate" if verb == "validate" else "test")
        self.tag, self.data_hash = images.tag, images.data_hash
        if read_cached_predictions(self.checkpoint, self.protocol, verb, self.tag, self.data_hash):
            raise AlreadyTested

    on_validation_start = on_test_start


def evaluate(checkpoint: Path, protocol: str, verb: str, flags: Sequence[str]) -> Predictions:
    """Run main.py's test or validate on one device; its errors end the program with their message and status 1."""
    command = [verb, "--ckpt_path", checkpoint, *flags, "--data.protocol", protocol, "--trainer.devices", 1]
    cached = CachedTest(checkpoint, protocol)
    try:
        command_line.run_cli([str(word) for word in command], callbacks=[cached])
    except AlreadyTested:
        print(f"Tested before: {predictions_path(checkpoint, protocol, verb, cached.tag)}", flush=True)
    except SystemExit as stop:
        if stop.code:
            sys.exit(stop.code if isinstance(stop.code, str) else 1)
    predictions = read_cached_predictions(checkpoint, protocol, verb, cached.tag, cached.data_hash)
    if predictions is None:
        raise UserError(
            f"The {verb} left no predictions in {predictions_path(checkpoint, protocol, verb)}: test whole sets (no "
            "limit_test_batches, no fast_dev_run), and runs in a folder that can be written to."
        )
    return predictions


def refuse_multiple_devices(flags: Sequence[str]) -> None:
    """Raise UserError for flags that would start more processes."""
    for flag in flags:
        if flag.startswith(MULTI_DEVICE_FLAGS):
            raise UserError(
                f"A report tests on one device and takes no {flag}: type `python main.py test --ckpt_path ... "
                "--data.protocol ...` on several, and the report reads the predictions."
            )


def is_finite(predictions: Predictions) -> bool:
    """Whether all predictions are numbers; those of a net that has diverged are NaN."""
    return bool(np.isfinite(predictions.log_probabilities).all())


def check_finite(members: Sequence[Predictions]) -> None:
    """Raise UserError for predictions of a net that has diverged."""
    for member in members:
        if not is_finite(member):
            raise UserError(f"{label(member)} has predictions that are NaN: its net has diverged, leave it out.")


def check_same_images(members: Sequence[Predictions]) -> None:
    """Raise UserError unless all predictions are of the same images, and of the same classes in the same order."""
    first = members[0]
    for other in members[1:]:
        names = f"{label(other)} and {label(first)}"
        check_same_classes(names, first.class_names.tolist(), other.class_names.tolist())
        if first.data_hash != other.data_hash:
            raise UserError(
                f"{names} are of different images ({len(other.labels):,} and {len(first.labels):,}, of the data "
                f"{other.data_hash[:6]} and {first.data_hash[:6]}): name the folder for all tests with --data.root, "
                "or take runs that are tested on the same images."
            )
        if not np.array_equal(first.indices, other.indices) or not np.array_equal(first.labels, other.labels):
            raise UserError(
                f"{names} are of different images ({len(other.indices):,} and {len(first.indices):,}, with different "
                "indices): repair the files that could not be read and test both again, on the same data."
            )


def check_same_classes(names: str, ours: list[str], theirs: list[str]) -> None:
    """Raise UserError if two lists of classes differ.

    Args:
        names: of what has the second list and what has the first, for the message.
    """
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        difference = f"{len(theirs)} and {len(ours)} of them"
    else:
        index = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        order = ", the same ones in another order" if sorted(ours) == sorted(theirs) else ""
        difference = f"number {index} is {theirs[index]} and {ours[index]}{order}"
    raise UserError(f"{names} disagree on the classes ({difference}): take runs that were trained on one set.")


def label(predictions: Predictions) -> str:
    """Checkpoint and protocol of predictions, for messages."""
    return f"{predictions.checkpoint} ({predictions.protocol})"
