"""What a study measures: numbers, and lists of them, from the files that a run and its test leave.

- test/top1_error, test/top5_error, test/loss: of the test.
- train/loss, val/top1_error and any other column of metrics.csv: the last value; train/loss@3: at the end of epoch 3;
  curve:train/loss: the values of all epochs.
- parameters, multiply_adds: see run.json; fc_share, of a study that trains nothing: of the parameters, those of fully
  connected layers.
- gradient_flow/first: norm of the first layer's gradient at the first step, of runs with `callbacks.GradientFlow`;
  gradient_flow/first_over_last: by that of the last layer; gradient_flow/profile: those of all layers, a list;
  gradient_flow/profile_at_end: the same at the last step that was measured.
- search/val_accuracy, search/test_accuracy: of a search, see `studies.searching`.
"""

import difflib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.gradient_flow import GradientFlowTable, read_gradient_flow
from checkpointing.predictions import Predictions
from errors import UserError
from reports.metrics import ensemble_mean, negative_log_likelihood, reported_k, topk_errors
from reports.run import Curve, Run
from studies.units import CURVE

COUNTS = ("parameters", "multiply_adds")
FC_SHARE = "fc_share"
TEST = ("test/top1_error", "test/top5_error", "test/loss")
LOGGED = tuple(f"{part}/{name}" for part in ("train", "val") for name in ("loss", "top1_error", "top5_error"))
FLOW: dict[str, Callable[[GradientFlowTable], float | np.ndarray]] = {
    "gradient_flow/first": lambda table: table.first,
    "gradient_flow/first_over_last": lambda table: table.first_over_last,
    "gradient_flow/profile": lambda table: table.gradient[0],
    "gradient_flow/profile_at_end": lambda table: table.gradient[-1],
}
FIRST = ("gradient_flow/first", "gradient_flow/first_over_last", "gradient_flow/profile")  # of the first step
DIGITS = 6  # significant ones of a value of a curve


@dataclass(frozen=True)
class TestMetrics:
    """The result of a test.

    Args:
        metrics: by name, such as test/top1_error.
        images: how many were counted.
    """

    __test__ = False  # pytest's sign of a class of tests

    metrics: dict[str, float]
    images: int


def read_metrics(path: Path) -> TestMetrics:
    """The result of a test.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        return TestMetrics(dict(content["metrics"]), int(content["images"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it, and run the study again.") from error


def check_measures(names: Sequence[str], where: str) -> None:
    """Raise UserError for the name of a measure of test, training or validation that there is not.

    Callbacks log values of other names, which are known once a run has ended.
    """
    known = [*TEST, *LOGGED, *COUNTS, FC_SHARE, *FLOW]
    for name in names:
        bare = name.removeprefix(CURVE).partition("@")[0]
        if "/" in bare and bare.partition("/")[0] not in ("test", "val", "gradient_flow", "search"):
            continue
        check_known([bare], known, where)


def check_known(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise UserError for the first measure that is not among those that are known."""
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(known)}."
            raise UserError(f"{where} names the measure {name}: {meant}")


def read_measures(
    names: Sequence[str], runs: Sequence[Run], tests: Sequence[TestMetrics], files: Sequence[Path]
) -> dict[str, Any]:
    """The measures of one result: of a run, or of several whose predictions are averaged.

    Args:
        names: of the measures.
        runs: of the members.
        tests: result of each member's test.
        files: predictions of each.

    Raises:
        UserError: for a measure that the runs have not.
    """
    tested = tests[0].metrics if len(tests) == 1 else measure_ensemble([Predictions.read(path) for path in files])
    return {name: round_value(tested[name]) if name in tested else read_members(name, runs) for name in names}


def read_first_gradients(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    """The measures of a result that diverged: its first gradients, where they were logged, and None for all others."""
    are_known = all(read_gradient_flow(Path(run.location)) is not None for run in runs)
    return {name: read_members(name, runs) if are_known and name in FIRST else None for name in names}


def measure_ensemble(members: Sequence[Predictions]) -> dict[str, float]:
    """The metrics of the mean of the members' probabilities."""
    labels = members[0].labels
    mean = ensemble_mean([member.log_probabilities for member in members])
    errors = {f"test/top{k}_error": float(topk_errors(mean, labels, k).mean()) for k in reported_k(mean.shape[1])}
    return errors | {"test/loss": negative_log_likelihood(mean, labels)}


def read_members(name: str, runs: Sequence[Run]) -> Any:
    """A measure of training: counts of an ensemble are sums over its members, everything else is a mean."""
    values = [read_measure(name, run) for run in runs]
    if len(values) == 1:
        return values[0]
    if name in COUNTS:
        return sum(values)
    if any(value is None or (isinstance(value, list) and None in value) for value in values):
        return None
    means = np.mean(values, axis=0)
    return [round_value(value) for value in means] if means.ndim else round_value(float(means))


def read_measure(name: str, run: Run) -> Any:
    """A measure of one run's training.

    Raises:
        UserError: if the run has not got it.
    """
    if name in COUNTS:
        return None if run.facts is None else getattr(run.facts.model, name)
    if name in FLOW:
        return read_flow(name, run)
    bare, _, epoch = name.removeprefix(CURVE).partition("@")
    if bare not in run.curves:
        similar = difflib.get_close_matches(bare, [*run.curves], n=1)
        meant = f": did you mean {similar[0]}?" if similar else "."
        raise UserError(f"the run {run.location} has no {name}{meant}")
    curve = run.curves[bare]
    if name.startswith(CURVE):
        return [round_value(value) for value in curve.values]
    return round_value(value_at(curve, float(epoch), name, run) if epoch else curve.last)


def read_flow(name: str, run: Run) -> Any:
    """A measure of the gradients of a run.

    Raises:
        UserError: if they were not logged.
    """
    table = read_gradient_flow(Path(run.location))
    if table is None:
        raise UserError(
            f"the run {run.location} has no {name}: log it with the overlay configs/overlays/gradient_flow.yaml."
        )
    values = FLOW[name](table)
    return [round_value(value) for value in values] if isinstance(values, np.ndarray) else round_value(values)


def value_at(curve: Curve, epoch: float, name: str, run: Run) -> float:
    """The value of a curve at the end of an epoch."""
    found = curve.values[np.isclose(curve.epochs, epoch)]
    if not len(found):
        raise UserError(f"the run {run.location} has no {name}: it has {curve.epochs[-1]:g} epochs.")
    return float(found[-1])


def round_value(value: float) -> float | None:
    """A value to as many digits as are kept; None for NaN and infinity, which JSON has not."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
