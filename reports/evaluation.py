"""Predictions of checkpoints: read where a test has left them beside its run, and tested where they are missing.

A report never trains, and never tests an unchanged checkpoint twice.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from checkpointing.predictions import Predictions, file_hash, predictions_path
from checkpointing.run_dir import find_checkpoint
from cli import command_line
from datamodules.views import Views
from errors import UserError

VERB_TITLES = {"test": "Test", "validate": "Validation"}
# Another process would start the report again, not the test
MULTI_DEVICE_FLAGS = ("--trainer.devices", "--trainer.num_nodes", "--trainer.strategy")


def load_predictions(
    requests: Sequence[tuple[Path, str]], verb: str = "test", flags: Sequence[str] = ()
) -> list[Predictions]:
    """Predictions of several checkpoints and protocols, all on the same images, in the order of `requests`.

    Mistakes that can be found without a test are found before the first test is run.

    Args:
        requests: a checkpoint (a file, a version folder or an experiment folder, see `find_checkpoint`) and a protocol,
            see `datamodules.views`, for each result.
        verb: test or validate.
        flags: of main.py, for tests that are missing, such as --data.root=DIR.

    Raises:
        UserError: if there is no such checkpoint or protocol, if a test leaves no predictions, if predictions are NaN,
            or if they are of different images or classes.
        SystemExit: if a test fails, with its message.
    """
    if not requests:
        raise UserError("No checkpoints are given: name runs or files, such as runs/digits/resnet20.")
    refuse_multiple_devices(flags)
    for _, protocol in requests:
        Views(protocol, size=1)  # no shorter side is too small for 1 pixel: only the name can be wrong
    pairs = [(find_checkpoint(path.expanduser(), verb), protocol) for path, protocol in requests]
    found = {pair: predictions for pair in pairs if (predictions := read_cached_predictions(*pair, verb))}
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in found]
    for number, (file, protocol) in enumerate(missing, 1):
        print(f"{VERB_TITLES[verb]} {number} of {len(missing)}: {file}, {protocol}", flush=True)
        found[file, protocol] = evaluate(file, protocol, verb, flags)
    if flags and len(missing) < len(found):
        print(f"Read, without {' '.join(flags)}: {len(found) - len(missing)} that had been tested before.", flush=True)
    results = [found[pair] for pair in pairs]
    check_finite(results)
    check_same_images(results)
    return results


def read_cached_predictions(checkpoint: Path, protocol: str, verb: str) -> Predictions | None:
    """Read the predictions beside a checkpoint; None if there is no readable file, or if the checkpoint has changed."""
    try:
        predictions = Predictions.read(predictions_path(checkpoint, protocol, verb))
    except UserError:
        return None
    if predictions.checkpoint_hash != file_hash(checkpoint):
        return None
    return replace(predictions, checkpoint=str(checkpoint.absolute()))  # the run may have been moved since


def evaluate(checkpoint: Path, protocol: str, verb: str, flags: Sequence[str]) -> Predictions:
    """Run main.py's test or validate on one device; its errors end the program with their message and status 1."""
    command = [verb, "--ckpt_path", checkpoint, *flags, "--data.protocol", protocol, "--trainer.devices", 1]
    try:
        command_line.run_cli([str(word) for word in command])
    except SystemExit as stop:
        if stop.code:
            sys.exit(stop.code if isinstance(stop.code, str) else 1)
    predictions = read_cached_predictions(checkpoint, protocol, verb)
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


def check_finite(members: Sequence[Predictions]) -> None:
    """Raise UserError for predictions of a net that has diverged."""
    for member in members:
        if not np.isfinite(member.log_probabilities).all():
            raise UserError(f"{label(member)} has predictions that are NaN: its net has diverged, leave it out.")


def check_same_images(members: Sequence[Predictions]) -> None:
    """Raise UserError unless all predictions are of the same images, and of the same classes in the same order."""
    first = members[0]
    for other in members[1:]:
        names = f"{label(other)} and {label(first)}"
        check_same_classes(names, first.class_names.tolist(), other.class_names.tolist())
        if not np.array_equal(first.indices, other.indices):
            raise UserError(
                f"{names} are of different images ({len(other.indices):,} and {len(first.indices):,}, with different "
                "indices): repair the files that could not be read and test both again, on the same data."
            )
        if not np.array_equal(first.labels, other.labels) or first.data_hash != other.data_hash:
            raise UserError(
                f"{names} are of different data sets of the same size: remove the file with predictions of the wrong "
                "one, and test again."
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
