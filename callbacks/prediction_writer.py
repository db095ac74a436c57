"""The predictions of a test for every image: reports compute ensembles, intervals and calibration from them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from callbacks.result_writer import is_partial_evaluation
from checkpointing.predictions import Predictions, file_hash, predictions_path
from datamodules.base import Verb, image_data


class PredictionWriter(pl.Callback):
    """Writes predictions-<checkpoint>-<protocol>.npz for every `test`, val_predictions-... for every `validate`.

    The command line adds it to these two verbs. Predictions for a part of a set (`limit_test_batches`)
    are not written, and replace no complete ones.
    """

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        self.hash = ""  # of the checkpoint when the test began

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path and trainer.is_global_zero:
            self.hash = file_hash(Path(trainer.ckpt_path))

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.batches.append({"scores": outputs["log_probabilities"].cpu(), "labels": outputs["labels"].cpu()})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    on_validation_start, on_validation_batch_end, on_validation_end = on_test_start, on_test_batch_end, on_test_end

    def _write(self, trainer: pl.Trainer) -> None:
        data = image_data(trainer)
        batches, self.batches = self.batches, []
        if data is None or is_partial_evaluation(trainer) or not trainer.ckpt_path:
            return
        verb: Verb = "validate" if trainer.state.fn == "validate" else "test"
        mine = {name: torch.cat([batch[name] for batch in batches]).numpy() for name in ("scores", "labels")}
        mine["indices"] = data.evaluated_indices(verb)
        everyone = gather(trainer, [mine])
        if not trainer.is_global_zero:
            return
        checkpoint = Path(trainer.ckpt_path)
        if file_hash(checkpoint) != self.hash:
            print(
                f"{checkpoint} has changed during the test: its predictions are not kept, rerun `main.py {verb}`.",
                flush=True,
            )
            return
        indices = np.concatenate([part["indices"] for part in everyone])
        order = indices.argsort()
        scores, labels = (np.concatenate([part[name] for part in everyone])[order] for name in ("scores", "labels"))
        names = data.evaluated_set(verb).file_names
        predictions = Predictions(
            indices=indices[order],
            files=np.array([names[index] for index in sorted(indices)] if names else [], dtype=str),
            labels=labels,
            log_probabilities=scores,
            class_names=np.array(data.class_names),
            protocol=data.protocol,
            views=data.views.count,
            checkpoint=str(checkpoint.absolute()),
            checkpoint_hash=self.hash,
            data_hash=data.fingerprint(verb),
            complete=len(indices) == len(data.evaluated_set(verb)),
        )
        path = predictions_path(checkpoint, data.protocol, verb)
        try:
            predictions.write(path)
            print(f"Wrote {path}", flush=True)
        except OSError as error:
            print(f"{path} could not be written ({error.strerror}).", flush=True)


def gather(trainer: pl.Trainer, mine: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other."""
    if trainer.world_size == 1:
        return mine
    everyone: list[list[Any]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return [batch for part in everyone for batch in part]
