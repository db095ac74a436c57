"""A training run as the reports see it, wherever it was read from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpointing.gradient_flow import GradientFlowTable
from checkpointing.run_facts import RunFacts

# empty: no epoch has ended; unreadable: there is too little to tell, such as a folder without config and metrics
State = Literal["running", "finished", "stopped", "killed", "diverged", "failed", "empty", "unreadable"]


@dataclass(frozen=True)
class Curve:
    """A metric over a training.

    Args:
        epochs: [T] epochs trained when it was measured, ascending: 1 at the end of the first.
        values: [T], perhaps NaN or infinite in a run that has diverged.
    """

    epochs: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        """The last value."""
        return float(self.values[-1])


@dataclass(frozen=True)
class EvaluationResult:
    """What `test` or `validate` found with a checkpoint of the run, on its own images.

    Args:
        verb: test or validate.
        checkpoint: stem of the file, such as best.
        protocol: see `datamodules.views`.
        metrics: by name without the verb, such as top1_error in [0, 1].
        images: counted.
        data_hash: SHA-256 of the images; None if unknown.
        selected_on_test: whether the checkpoint was chosen by its error on these images.
        partial: whether images were left out.
        predictions: file with those for each image, of this very checkpoint; None if there is none.
    """

    verb: Literal["test", "validate"]
    checkpoint: str
    protocol: str
    metrics: dict[str, float]
    images: int
    data_hash: str | None
    selected_on_test: bool = False
    partial: bool = False
    predictions: Path | None = None


@dataclass
class Run:
    """A training run.

    Args:
        location: its run directory, or ENTITY/PROJECT/ID on W&B.
        experiment: <dataset>/<experiment>, such as digits/resnet20.
        version: version_N, or the run's id on W&B.
        state: how far it came.
        reason: why it is in this state, one sentence; empty where the state says it all.
        config: of the run, as a YAML file would hold it; empty if unknown.
        facts: in numbers; None if unknown.
        curves: by the name that metrics.csv gives them, such as val/top1_error, train/loss, lr-SGD.
        results: of `test` and `validate`.
        gradient_flow: norms of gradients, weights and updates by layer; None where they were not measured.
    """

    location: str
    experiment: str
    version: str
    state: State
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    facts: RunFacts | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    results: list[EvaluationResult] = field(default_factory=list)
    gradient_flow: GradientFlowTable | None = None

    @property
    def name(self) -> str:
        """Experiment and version, as tables show it."""
        return f"{self.experiment}/{self.version}"

    @property
    def seed(self) -> int | None:
        """Of the run; None if unknown."""
        seed = self.config.get("seed_everything")
        is_number = isinstance(seed, int) and not isinstance(seed, bool)
        return seed if is_number else self.facts.seed if self.facts else None

    def find_test(self, protocol: str = "center", checkpoint: str | None = None) -> EvaluationResult | None:
        """The result of a whole test; None without one.

        Args:
            protocol: of the test.
            checkpoint: stem of the file that was tested; None for best, or where that was not tested, for another.
        """
        tests = [
            each
            for each in self.results
            if (each.verb, each.protocol) == ("test", protocol)
            and checkpoint in (None, each.checkpoint)
            and not each.partial
            and "top1_error" in each.metrics
        ]
        return min(tests, key=lambda each: (each.checkpoint != "best", each.checkpoint != "last"), default=None)

    def curve(self, names: Sequence[str]) -> Curve | None:
        """The first curve that the run has of several names."""
        return next((self.curves[name] for name in names if name in self.curves), None)


def training_seconds(run: Run) -> Curve | None:
    """Seconds of training until each epoch, without validation; None if they cannot be told.

    Those of an epoch are its images by the images per second. Where an epoch has no finite rate, the time ends.
    """
    rates, images = run.curve(["train/images_per_s"]), images_per_epoch(run)
    if rates is None or not images:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.cumsum(np.diff(rates.epochs, prepend=0) * images / rates.values)
    known = np.isfinite(seconds)
    return Curve(rates.epochs[known], seconds[known]) if known.any() else None


def images_per_epoch(run: Run) -> float | None:
    """Images that an epoch trains on; None if they are unknown."""
    if run.facts is None:
        return None
    images = run.facts.data.train_images
    limit, batch_size = find_setting(run, "trainer", "limit_train_batches"), find_setting(run, "data", "batch_size")
    if isinstance(limit, float) and 0 <= limit <= 1:
        return images * limit
    is_limited = all(isinstance(each, int) and each > 0 for each in (limit, batch_size))
    return min(images, limit * batch_size) if is_limited else images


def find_setting(run: Run, section: str, name: str) -> Any:
    """An argument in a section of the run's config, whether a class has it or not; None where there is none."""
    arguments = run.config.get(section)
    if isinstance(arguments, dict) and "init_args" in arguments:
        arguments = arguments["init_args"]
    return arguments.get(name) if isinstance(arguments, dict) else None
