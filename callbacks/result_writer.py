"""The result of a test, and the check that it counted every image once."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from callbacks.evaluation_mode import evaluation_name
from checkpointing.atomic import atomic_write
from checkpointing.predictions import result_path
from datamodules.base import image_data
from datamodules.identity import identify_evaluated
from errors import UserError, pluralize
from trainer_settings import settings


class ResultWriter(pl.Callback):
    """Prints the result of a `test` and writes it to test-<checkpoint>-<protocol>.json in the run directory.

    The command line adds this callback.

    Raises:
        UserError: if a test of the whole set did not count each of its images once; at the end, if the file could not
            be written.
    """

    unwritten: str | None = None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_unwritten(self.unwritten)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        images = int(metrics.pop("test/images"))
        skipped = 0 if data is None else len(gather(trainer, data.skipped.indices))
        if data is not None and not is_partial_evaluation(trainer):
            check_count(images, skipped, len(data.test_set))
        if not trainer.is_global_zero or not trainer.ckpt_path:
            return
        checkpoint = Path(trainer.ckpt_path)
        tested = data and identify_evaluated(data, "test")
        result = {
            "checkpoint": str(checkpoint.absolute()),
            "protocol": evaluation_name(trainer, data),
            "images": images,
            "metrics": metrics,
            "partial": is_partial_evaluation(trainer) or skipped > 0,
            "data_hash": tested and tested.data_hash,
            "is_run_data": tested and tested.is_run_data,
            "selected_on_test": tested and tested.selected_on_test,
        }
        part = " (a part of the set)" if result["partial"] else ""
        errors = [f"top-{k} error {metrics[key]:.2%}" for k in (1, 5) if (key := f"test/top{k}_error") in metrics]
        seen = pluralize(images, "image")
        print(f"Tested {checkpoint} on {seen}{part}: {', '.join(errors)}, loss {metrics['test/loss']:.4f}")
        if tested and tested.selected_on_test:
            print("The checkpoint was chosen by its error on these images: this error is optimistic.")
        if tested and not tested.is_run_data:
            print("These are other images than the run's own, so the result goes to a file of its own.")
        path = result_path(checkpoint, str(result["protocol"]), tested.tag if tested else "")
        try:
            with atomic_write(path) as file:
                file.write(json.dumps(result, indent=2) + "\n")
            print(f"Wrote {path}", flush=True)
        except OSError as error:
            self.unwritten = f"{path} could not be written ({error.strerror})"
            print(f"{self.unwritten}; it would hold:\n{json.dumps(result)}", flush=True)


def refuse_unwritten(problem: str | None) -> None:
    """End the command with status 1 where a result could not be written: what follows it would miss the file."""
    if problem:
        raise UserError(f"{problem}: make room for it, and type the command again.")


def check_count(seen: int, skipped: int, size: int) -> None:
    """Raise UserError if a test did not count each image of the set once: its errors would be wrong."""
    if not seen:
        raise UserError(f"None of the {size:,} images of the test can be read: there is no error to tell.")
    if seen + skipped != size:
        raise UserError(f"The test counted {seen:,} of the set's {size:,} images: the errors would be wrong.")


def is_partial_evaluation(trainer: pl.Trainer) -> bool:
    """Whether the trainer was told to test, or to validate, only a part of the set."""
    # 1.0 is all batches, 1 is one batch
    limit = trainer.limit_val_batches if trainer.state.fn == "validate" else trainer.limit_test_batches
    return bool(settings(trainer).fast_dev_run) or limit != 1.0 or isinstance(limit, int)


def gather(trainer: pl.Trainer, mine: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other; each of them must call this."""
    if trainer.world_size == 1:
        return mine
    everyone: list[list[Any]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return [item for part in everyone for item in part]
