"""The predictions of a test for every image: reports compute ensembles, intervals and calibration from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from callbacks.evaluation_mode import evaluation_name
from callbacks.result_writer import gather, is_partial_evaluation, refuse_unwritten
from checkpointing.predictions import Predictions, file_hash, predictions_path
from datamodules.base import Verb, image_data
from datamodules.identity import identify_evaluated
from errors import UserError
from lit_models.classifier import LitClassifier


@dataclass(frozen=True)
class Evaluation:
    """What a `test` or `validate` has found.

    Args:
        verb: test or validate.
        predictions: for every image.
        is_run_data: whether these are the very images that the checkpoint's run has for the verb.
    """

    verb: Verb
    predictions: Predictions
    is_run_data: bool


class PredictionWriter(pl.Callback):
    """Writes predictions-<checkpoint>-<protocol>.npz for every `test`, val_predictions-... for every `validate`.

    The command line adds it to these two verbs. Predictions for a part of a set (`limit_test_batches`)
    are not written, and replace no complete ones.
    """

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        self.unwritten: str | None = None
        self.hash = ""  # of the checkpoint when the test began
        self.evaluation: Evaluation | None = None  # in the first process, once a whole set was evaluated

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            raise UserError(
                "PredictionWriter writes the predictions of test and validate, and none in fit: leave it out of the "
                "callbacks, and run `main.py validate` afterwards."
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path and trainer.is_global_zero:
            self.hash = file_hash(Path(trainer.ckpt_path))

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.batches.append({name: value.cpu() for name, value in outputs.items()})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        batches, self.batches = self.batches, []
        if data is None or is_partial_evaluation(trainer) or not trainer.ckpt_path:
            return
        verb: Verb = "validate" if trainer.state.fn == "validate" else "test"
        mine = merge_batches(batches) | {"indices": torch.from_numpy(data.evaluated_indices(verb))}
        images = sort_by_index(gather(trainer, [mine]))
        if not trainer.is_global_zero:
            return
        checkpoint = Path(trainer.ckpt_path)
        if file_hash(checkpoint) != self.hash:
            print(
                f"{checkpoint} has changed during the test: its predictions are not kept, rerun `main.py {verb}`.",
                flush=True,
            )
            return
        evaluated, identity = data.evaluated_set(verb), identify_evaluated(data, verb)
        names, indices = evaluated.file_names, images["indices"].numpy()
        predictions = Predictions(
            indices=indices,
            files=np.array([names[index] for index in indices] if names else [], dtype=str),
            labels=images["labels"].numpy(),
            log_probabilities=images["log_probabilities"].numpy(),
            class_names=np.array(data.class_names),
            protocol=evaluation_name(trainer, data),
            views=data.views.count * (pl_module.view_average.passes if isinstance(pl_module, LitClassifier) else 1),
            checkpoint=str(checkpoint.absolute()),
            checkpoint_hash=self.hash,
            data_hash=identity.data_hash,
            complete=len(indices) == len(evaluated),
            selected_on_test=identity.selected_on_test,
        )
        self.evaluation = Evaluation(verb, predictions, identity.is_run_data)
        path = predictions_path(checkpoint, predictions.protocol, verb, identity.tag)
        try:
            predictions.write(path)
            print(f"Wrote {path}", flush=True)
        except OSError as error:
            self.unwritten = f"{path} could not be written ({error.strerror})"
            print(f"{self.unwritten}.", flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_unwritten(self.unwritten)

    on_validation_start, on_validation_end = on_test_start, on_test_end

    def on_validation_batch_end(self, *args: Any) -> None:
        self.on_test_batch_end(*args)


def sort_by_index(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The rows of all batches, in the order of the images' `indices`."""
    merged = merge_batches(batches)
    order = merged["indices"].argsort()
    return {name: value[order] for name, value in merged.items()}


def merge_batches(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The rows of all batches under each name."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
