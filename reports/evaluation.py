"""The tests that reports stand on: read where they lie beside a run, run where they are missing.

A report never trains and never tests an unchanged checkpoint twice.
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

NAMES = {"test": "Test", "validate": "Validation"}
# A further process would start the report once more, not the test
OF_MANY_DEVICES = ("--trainer.devices", "--trainer.num_nodes", "--trainer.strategy")


def predictions_of(checkpoint_arg: Path, protocol: str, verb: str = "test", flags: Sequence[str] = ()) -> Predictions:
    """What a checkpoint says of the images of its test, or validation, set.

    Args:
        checkpoint_arg: a file, a version folder or an experiment folder, see `find_checkpoint`.
        protocol: how the images are looked at, see `datamodules.views`.
        verb: test or validate.
        flags: more of the command line for a test that has to be run, such as --data.root DIR.

    Raises:
        ValueError, FileNotFoundError: if there is no such checkpoint or protocol, or its test left no predictions.
        SystemExit: if the test fails, with its own sentence.
    """
    return all_predictions([(checkpoint_arg, protocol)], verb, flags)[0]


def all_predictions(
    wanted: Sequence[tuple[Path, str]], verb: str = "test", flags: Sequence[str] = ()
) -> list[Predictions]:
    """The same for several pairs of checkpoint and protocol, in their order.

    Whatever can be refused is refused before the first test is run.
    """
    refuse_many_devices(flags)
    for _, protocol in wanted:
        Views(protocol, size=1)  # no length is too small for that: only the name can be wrong
    pairs = [(find_checkpoint(Path(given).expanduser(), verb), protocol) for given, protocol in wanted]
    if not pairs:
        raise UserError("No checkpoints are given: name runs or files, such as runs/digits/resnet20.")
    hashes = {file: file_hash(file) for file, _ in pairs}
    found = {pair: stored(*pair, verb, hashes[pair[0]]) for pair in pairs}
    missing = [pair for pair, predictions in found.items() if predictions is None]
    for number, (file, protocol) in enumerate(missing, 1):
        print(f"{NAMES[verb]} {number} of {len(missing)}: {file}, {protocol}", flush=True)
        evaluate(file, protocol, verb, flags)
        found[file, protocol] = stored(file, protocol, verb, hashes[file])
        if found[file, protocol] is None:
            raise UserError(
                f"The {verb} left no predictions in {predictions_path(file, protocol, verb)}: test whole sets (no "
                "limit_test_batches, no fast_dev_run), and runs that lie in a folder that can be written to."
            )
    if flags and len(missing) < len(found):
        print(f"Read, without {' '.join(flags)}: {len(found) - len(missing)} that had been tested before.", flush=True)
    for predictions in found.values():
        assert predictions is not None
        if not np.isfinite(predictions.log_probabilities).all():
            raise UserError(
                f"{who(predictions)} has predictions that are no numbers: its net has diverged, leave it out."
            )
    return [found[pair] for pair in pairs]  # type: ignore[misc]


def stored(checkpoint: Path, protocol: str, verb: str, digest: str) -> Predictions | None:
    """The predictions beside a checkpoint; None where there are none that can be read, or they are another file's.

    Args:
        digest: SHA-256 of the checkpoint as it is now.
    """
    path = predictions_path(checkpoint, protocol, verb)
    try:
        predictions = Predictions.read(path) if path.is_file() else None
    except ValueError:
        return None
    if predictions is None or predictions.checkpoint_hash != digest:
        return None
    return replace(predictions, checkpoint=str(checkpoint.absolute()))  # the run may have been moved since


def evaluate(checkpoint: Path, protocol: str, verb: str, flags: Sequence[str]) -> None:
    """Type a test, on one device; its errors end the program with their sentence and status 1."""
    command = [verb, "--ckpt_path", checkpoint, *flags, "--data.protocol", protocol, "--trainer.devices", 1]
    try:
        command_line.main([str(word) for word in command])
    except SystemExit as stop:
        if stop.code:
            sys.exit(stop.code if isinstance(stop.code, str) else 1)


def refuse_many_devices(flags: Sequence[str]) -> None:
    """Raise ValueError for flags that would start further processes."""
    for flag in flags:
        if flag.startswith(OF_MANY_DEVICES):
            raise UserError(
                f"A report tests on one device and takes no {flag}: type `python main.py test --ckpt_path ... "
                "--data.protocol ...` on several, and the report reads what it leaves behind."
            )


def check_same_set(members: Sequence[Predictions]) -> None:
    """Raise ValueError unless all predictions are of the same images, and of the same classes in the same order."""
    if not members:
        raise UserError("No predictions are given: there is nothing to average.")
    first = members[0]
    for other in members[1:]:
        names = f"{who(other)} and {who(first)}"
        check_same_classes(names, first.class_names.tolist(), other.class_names.tolist())
        if not np.array_equal(first.places, other.places):
            raise UserError(
                f"{names} are of other images ({len(other.places):,} and {len(first.places):,}, some of them at other "
                "places of the set): mend the files that could not be read and test both once more, on the same data."
            )
        if not np.array_equal(first.labels, other.labels) or first.data_hash != other.data_hash:
            raise UserError(
                f"{names} are of different data, though of as many images: remove the file of predictions that is of "
                "the wrong ones, and test once more."
            )


def check_same_classes(names: str, ours: list[str], theirs: list[str]) -> None:
    """Raise ValueError where two lists of classes are not the same.

    Args:
        names: of what has the second list, and what the first, for the sentence.
    """
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        difference = f"{len(theirs)} and {len(ours)} of them"
    else:
        number = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        order = ", the same ones in another order" if sorted(ours) == sorted(theirs) else ""
        difference = f"number {number} is {theirs[number]} and {ours[number]}{order}"
    raise UserError(f"{names} disagree on the classes ({difference}): take runs that were trained on one set.")


def who(predictions: Predictions) -> str:
    """What predictions are called in a sentence."""
    return f"{predictions.checkpoint} ({predictions.protocol})"
