"""Results of a run, logged to its W&B run: errors as summary values, and the errors of single classes and images."""

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np

from callbacks.checkpoint_averaging import CheckpointAveraging
from callbacks.evaluation_loop import Result
from callbacks.prediction_writer import PredictionWriter
from callbacks.run_logger import run_dir
from callbacks.wandb_checkpoints import log_checkpoints
from callbacks.wandb_logger import WandbLogger
from checkpointing.predictions import Predictions
from checkpointing.run_dir import results_folder
from datamodules.base import image_data
from datamodules.loading import ImageSet
from datamodules.thumbnails import make_thumbnail
from trainer_settings import settings

if TYPE_CHECKING:
    from wandb import Run, Table
    from wandb.plot import CustomChart

MAX_CONFUSION = 30  # classes of a confusion matrix that is still legible
MAX_MISTAKES = 32  # images
SIZE = 112  # pixels of the shorter side of an image at most


class WandbResults(pl.Callback):
    """Logs the result of a `test` or `validate` to the W&B run that the checkpoint belongs to, once it is complete.

    Only results on the run's own images are logged, and none of a part of the set. The command line adds this callback
    to every verb but `predict`; in `fit` it logs what checkpoint averaging has found, and the checkpoints if W&B's
    logger is asked to (`log_model`).

    Args:
        predictions: the callback that has made the predictions; None in `fit`.
        open_run: opens the W&B run of the checkpoint; returns None where there is nothing to log to.
    """

    def __init__(
        self, predictions: PredictionWriter | None = None, open_run: Callable[[], "Run | None"] = lambda: None
    ) -> None:
        self.writer, self.open_run = predictions, open_run

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        evaluation = self.writer.evaluation if self.writer else None
        if data is None or evaluation is None or not evaluation.is_run_data or not trainer.is_global_zero:
            return
        if (run := self.open_run()) is None:
            return
        verb = evaluation.verb
        checkpoint = Path(str(trainer.ckpt_path))
        name = result_name(checkpoint, evaluation.predictions.protocol, verb)
        metrics = {key.partition("/")[2]: float(value) for key, value in trainer.callback_metrics.items()}
        log_result(run, name, metrics, evaluation.predictions, name == "test/center", data.evaluated_set(verb))
        run.summary.update(averaging_summary(trainer))
        finish(run, results_folder(checkpoint))

    on_validation_end = on_test_end

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_dir(trainer)
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if not isinstance(logger, WandbLogger) or logger.experiment.disabled:
                continue
            if found := averaging_summary(trainer):
                logger.experiment.summary.update(found)
            if folder and logger.log_model:
                log_checkpoints(logger.experiment, folder, keep_all=logger.log_model == "all")


def finish(run: "Run", folder: Path) -> None:
    """Close the W&B run of a run directory, and say where to find what was logged."""
    run.finish()
    where = str(run.url)
    if run.offline:
        where = f"offline. To upload it:\n  python -m reports.wandb_sync {shlex.quote(str(folder))}"
    print(f"Logged to W&B run {run.id}, {where}", flush=True)


def result_name(checkpoint: Path, protocol: str, verb: str) -> str:
    """The beginning of the names under which W&B has a result: test/<protocol>, or test/<checkpoint>/<protocol>.

    The first is of the checkpoint that stands for the run: best.ckpt, or last.ckpt where there is no best one.
    """
    prefix = {"test": "test", "validate": "val"}[verb]
    main = "best" if os.path.exists(checkpoint.with_name("best.ckpt")) else "last"
    return f"{prefix}/{protocol}" if checkpoint.stem == main else f"{prefix}/{checkpoint.stem}/{protocol}"


def averaging_summary(trainer: pl.Trainer) -> dict[str, float]:
    """What CheckpointAveraging has measured, by name: averaging/<weights>/top1_error and so on; empty without it."""
    results: list[Result] = []
    for callback in settings(trainer).callbacks:
        results += callback.results if isinstance(callback, CheckpointAveraging) else []
    rows = {re.sub(r"\W+", "_", result.label): asdict(result) for result in results}
    return {
        f"averaging/{label}/{name}": value
        for label, row in rows.items()
        for name, value in row.items()
        if name != "label" and value is not None
    }


def log_result(
    run: "Run",
    name: str,
    metrics: dict[str, float],
    predictions: Predictions,
    stands_for_run: bool,
    images: ImageSet | None = None,
) -> None:
    """Log a result to W&B.

    Args:
        run: that is open.
        name: see `result_name`.
        metrics: by name, such as top1_error.
        predictions: that it follows from.
        stands_for_run: whether it is the run's result: its errors are test/top1_error and so on too.
        images: of the predictions; None to show no images.
    """
    facts = {"data_hash": predictions.data_hash, "selected_on_test": predictions.selected_on_test}
    facts |= {"partial": not predictions.complete, "images": len(predictions.labels)}
    values = {f"{name}/{key}": value for key, value in (metrics | facts).items()}
    if stands_for_run:
        values |= {f"test/{key}": value for key, value in metrics.items() if key != "images"}
    run.log({f"{name}/{key}": table for key, table in make_tables(predictions, images).items()})
    run.summary.update(values)


def make_tables(predictions: Predictions, images: ImageSet | None) -> dict[str, Any]:
    """The errors of each class, the surest mistakes and, of few classes, the confusion matrix."""
    import wandb

    names, labels = predictions.class_names.tolist(), predictions.labels
    predicted = predictions.log_probabilities.argmax(axis=1)
    has_diverged = np.isnan(predictions.log_probabilities).any(axis=1)
    wrong = (predicted != labels) | has_diverged  # NaN is an error, as in every metric
    counts, errors = (np.bincount(each, minlength=len(names)) for each in (labels, labels[wrong]))
    rows = [[n, int(c), int(e), e / c] for n, c, e in zip(names, counts, errors, strict=True) if c]
    tables: dict[str, Any] = {"classes": wandb.Table(["class", "images", "errors", "top1_error"], rows)}
    if len(names) <= MAX_CONFUSION:
        tables["confusion"] = confusion_chart(predictions, predicted)
    if len(mistakes := np.flatnonzero(wrong & ~has_diverged)):
        tables["mistakes"] = mistakes_table(predictions, mistakes, images)
    return tables


def confusion_chart(predictions: Predictions, predicted: np.ndarray) -> "CustomChart":
    """W&B's own chart of a confusion matrix; `wandb.plot.confusion_matrix` misnames classes where one has no image."""
    import wandb

    names, count = predictions.class_names.tolist(), len(predictions.class_names)
    cells = np.bincount(predictions.labels * count + predicted, minlength=count**2).tolist()
    rows = [[names[cell // count], names[cell % count], images] for cell, images in enumerate(cells)]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        data_table=wandb.Table(columns, rows),
        vega_spec_name="wandb/confusion_matrix/v1",
        fields={str(name): str(name) for name in columns},
        string_fields={"title": "Confusion matrix"},
    )


def mistakes_table(predictions: Predictions, wrong: np.ndarray, images: ImageSet | None) -> "Table":
    """The most probable of the wrong predictions, whose rows are given, with their images."""
    import wandb

    surest = wrong[np.argsort(-predictions.log_probabilities[wrong].max(axis=1), kind="stable")][:MAX_MISTAKES]
    names, rows = predictions.class_names.tolist(), []
    for row in surest.tolist():
        label, guess = int(predictions.labels[row]), int(predictions.log_probabilities[row].argmax())
        probabilities = np.exp(predictions.log_probabilities[row, [guess, label]]).tolist()
        index = int(predictions.indices[row])
        file = str(predictions.files[row]) if len(predictions.files) else str(index)
        picture = make_thumbnail(images, index, SIZE) if images else None
        shown = [] if images is None else [picture and wandb.Image(picture)]
        rows.append([*shown, file, names[label], names[guess], *probabilities])
    columns: list[str | int] = [] if images is None else ["image"]
    columns += ["file or index", "class", "predicted", "probability", "probability of the class"]
    return wandb.Table(columns, rows)
