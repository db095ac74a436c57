"""What `test` and `validate` have left in a run directory, as far as it is of the run's own images and checkpoints."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.content import find_mismatch
from checkpointing.predictions import Predictions, file_hash, read_arrays
from checkpointing.run_facts import RunFacts
from errors import UserError, shorten
from reports import metrics
from reports.run import EvaluationResult, Run
from reports.run_sources.curves import to_number
from reports.run_sources.run_files import find_file, list_files, read_json

RESULT: dict[str, Any] = {"checkpoint": "", "protocol": "", "images": 0, "metrics": {}}
NAME = re.compile(r"[^/\0]{1,200}")  # of a protocol or a checkpoint, which stand in names of files
ROUNDING = 0.005  # between the error of a result and that of its predictions, which may differ where classes tie
VALIDATION_FILE = re.compile(r"val_predictions-(?P<stem>.+)-(?P<protocol>\w+)\.npz", re.DOTALL)


def read_results(run_dir: Path, facts: RunFacts | None) -> tuple[list[EvaluationResult], list[str]]:
    """The results of a run, in the order of their names, and what is wrong with files of results in a few words.

    Results count if they are of the run's own images: as `test` has noted, and by the hash of run.json where it has
    one. A result that is older than its checkpoint counts if the predictions beside it are of that checkpoint.
    Validation leaves predictions alone: its result has no metrics.
    """
    results: list[EvaluationResult] = []
    problems: list[str] = []
    readers = (("test-*.json", read_test), ("val_predictions-*.npz", read_validation))
    for path, read in [(path, read) for pattern, read in readers for path in list_files(run_dir, run_dir, pattern)]:
        try:
            results += filter(None, [read(run_dir, path, facts)])
        except UserError as error:
            problems.append(str(error))
    return results, problems


def read_test(run_dir: Path, path: Path, facts: RunFacts | None) -> EvaluationResult | None:
    """The result in a test-<checkpoint>-<protocol>.json; None if it does not count.

    Raises:
        UserError: in a few words, for a file that is no result.
    """
    content = read_json(run_dir, path)
    if content is None or find_mismatch(content, RESULT):
        raise UserError(f"{path.name} is no result of a test")
    checkpoint, protocol = Path(content["checkpoint"]).stem, content["protocol"]
    if not NAME.fullmatch(checkpoint) or not NAME.fullmatch(protocol):
        raise UserError(f"{path.name} is no result of a test")
    data_hash = content.get("data_hash")
    if content.get("is_run_data") is False or is_other_data(data_hash, facts.data.test_hash if facts else None):
        return None
    predictions = find_predictions(run_dir, f"predictions-{checkpoint}-{protocol}.npz")
    if is_older_than_checkpoint(path, run_dir, checkpoint, predictions):
        return None
    found = parse_metrics({str(name).removeprefix("test/"): value for name, value in content["metrics"].items()})
    if found is None or not content["images"]:
        raise UserError(f"{path.name} is no result of a test")
    return EvaluationResult(
        verb="test",
        checkpoint=checkpoint,
        protocol=protocol,
        metrics=found,
        images=content["images"],
        data_hash=data_hash if isinstance(data_hash, str) else None,
        selected_on_test=content.get("selected_on_test") is True,
        partial=content.get("partial") is True,
        predictions=predictions,
    )


def read_validation(run_dir: Path, path: Path, facts: RunFacts | None) -> EvaluationResult | None:
    """The result, without metrics, that stands for the predictions of a validation; None if it does not count."""
    match = VALIDATION_FILE.fullmatch(path.name)
    if not match or not find_file(run_dir, path):
        return None
    fields = read_fields(path, ("data_hash", "checkpoint_hash", "selected_on_test", "indices"))
    data_hash = fields["data_hash"].item()
    if not isinstance(data_hash, str) or is_other_data(data_hash, facts.data.val_hash if facts else None):
        return None
    checkpoint = match["stem"]
    if is_older_than_checkpoint(path, run_dir, checkpoint, path):
        return None
    images = len(np.atleast_1d(fields["indices"]))
    return EvaluationResult("validate", checkpoint, match["protocol"], {}, images, data_hash, predictions=path)


def parse_metrics(values: Mapping[str, Any]) -> dict[str, float] | None:
    """The metrics of a result; None if an error among them is not in [0, 1]."""
    found = {name: number for name, value in values.items() if (number := to_number(value)) is not None}
    errors = [value for name, value in found.items() if name.endswith("_error")]
    return found if all(0 <= error <= 1 for error in errors) else None


def find_predictions(run_dir: Path, name: str) -> Path | None:
    """A file of predictions; None where there is none, or a pipe or a link in its place."""
    try:
        return run_dir / name if find_file(run_dir, run_dir / name) else None
    except UserError:
        return None


def is_other_data(data_hash: object, expected: str | None) -> bool:
    """Whether a result is of other images than those of the run, where the run says which they are."""
    return expected is not None and data_hash != expected


def is_older_than_checkpoint(path: Path, run_dir: Path, checkpoint: str, predictions: Path | None) -> bool:
    """Whether a result was written before its checkpoint, by a run that has been resumed since.

    Copies may carry any time: predictions decide where there are some. A result without its checkpoint counts.
    """
    file = run_dir / "checkpoints" / f"{checkpoint}.ckpt"
    try:
        if not find_file(run_dir, file) or os.stat(file).st_mtime <= os.stat(path).st_mtime:
            return False
        if predictions is None:
            return True
        return read_fields(predictions, ("checkpoint_hash",))["checkpoint_hash"].item() != file_hash(file)
    except (UserError, OSError):
        return True


def read_fields(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Some of the fields of a file of predictions.

    Raises:
        UserError: in a few words, if the file is truncated or of another kind.
    """
    try:
        fields = read_arrays(path, names)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    if any(name not in fields for name in names if name != "selected_on_test"):
        raise UserError(f"{path.name} is truncated or corrupt")
    return fields


def load_predictions(result: EvaluationResult, run: Run) -> Predictions:
    """The predictions behind a result, checked to be of the run's checkpoint and images.

    Args:
        result: of the run.
        run: a local one.

    Raises:
        UserError: if there are none, or if they cannot be read or are of another checkpoint or of other images.
    """
    path = result.predictions
    again = f"rerun `main.py {result.verb} --ckpt_path {shorten(run.location)}`"
    if path is None:
        raise UserError(f"{shorten(run.location)} has no predictions for {result.checkpoint}.ckpt: {again}.")
    predictions = Predictions.read(path)
    checkpoint = Path(run.location, "checkpoints", f"{result.checkpoint}.ckpt")
    expected = (("data_hash", result.data_hash, "images"), ("protocol", result.protocol, "views"))
    for name, value, words in expected:
        if value is not None and getattr(predictions, name) != value:
            raise UserError(f"{shorten(path)} has predictions for other {words} than the result beside it: {again}.")
    if result.metrics and differs(predictions, result):
        raise UserError(f"{shorten(path)} has other errors than the result beside it: {again}.")
    try:
        is_stale = find_file(Path(run.location), checkpoint) and file_hash(checkpoint) != predictions.checkpoint_hash
    except (UserError, OSError) as error:
        raise UserError(f"{shorten(checkpoint)} cannot be read, whose predictions are asked for: {again}.") from error
    if is_stale:
        raise UserError(
            f"{shorten(path)} has predictions of another state of {result.checkpoint}.ckpt, which a resumed training "
            f"has written since: {again}."
        )
    return predictions


def differs(predictions: Predictions, result: EvaluationResult) -> bool:
    """Whether predictions have another error than a result, by more than equally probable classes make up."""
    error = metrics.topk_errors(predictions.log_probabilities, predictions.labels).mean()
    is_whole = len(predictions.labels) == result.images
    return not is_whole or abs(error - result.metrics.get("top1_error", error)) > ROUNDING
