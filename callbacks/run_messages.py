"""What a run tells the user when it begins and ends."""

import shlex
from typing import Any

import lightning.pytorch as pl

from callbacks.finite_loss import Diverged
from callbacks.result_writer import gather
from callbacks.run_logger import run_dir
from checkpointing.run_dir import has_checkpoint, keep_version
from datamodules.base import image_data
from errors import UserError, pluralize


class RunMessages(pl.Callback):
    """Prints model and run directory of a training, the command to type when it ends, results of `validate`, and how
    many files were skipped.

    The command line adds this callback to every verb.
    """

    training_begun = False  # whether a batch was trained on, or an epoch that was trained before is validated

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = run_dir(trainer)
        if stage != "fit" or folder is None or not trainer.is_global_zero:
            return
        parameters = sum(p.numel() for p in pl_module.parameters())
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        part = "" if trained == parameters else f", {trained:,} of them trained"
        print(f"Model: {type(pl_module).__name__}, {parameters:,} parameters{part}")
        print(f"Run directory: {folder}", flush=True)

    def on_train_batch_start(self, *_: Any) -> None:
        self.training_begun = True
        keep_version()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training_begun |= trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training_begun = True  # also where it was resumed after its last step, and only this was left to do

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.training_begun:
            raise UserError(
                f"Nothing was trained: max_epochs is {trainer.max_epochs}, max_steps is {trainer.max_steps}, and these "
                "or max_time leave no batch: give more (--trainer.max_epochs, --trainer.max_steps, --trainer.max_time)."
            )
        folder = run_dir(trainer)
        if not trainer.is_global_zero or folder is None or not has_checkpoint(folder):
            return
        run = f"--ckpt_path {shlex.quote(str(folder))}"
        data = image_data(trainer)
        if data is None or data.has_test_images:
            print(f"Trained. To test it:\n  python main.py test {run}", flush=True)
        else:
            command = f"python main.py predict {run} --data.paths '[photo.jpg, folder/]'"
            print(f"Trained. There are no images to test it on; to use it:\n  {command}", flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        folder = run_dir(trainer)
        if not trainer.is_global_zero or folder is None or not self.training_begun:
            return  # refused
        if not has_checkpoint(folder):
            print(f"Stopped before the first checkpoint: there is nothing to resume from in {folder}.", flush=True)
        elif not isinstance(exception, Diverged):
            print(f"Stopped. To go on:\n  python main.py fit --ckpt_path {shlex.quote(str(folder))}", flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            parts = [f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items()]
            print(f"Validated {trainer.ckpt_path}: {'  '.join(parts)}", flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = image_data(trainer)
        if data is None or data.skipped.policy == "stop" or stage == "predict":  # predict counts them below its table
            return
        skipped = set(gather(trainer, list(data.skipped.paths)))  # of all processes, so all take part
        data.skipped.paths.clear()
        if skipped and trainer.is_global_zero:
            print(f"Data: skipped {pluralize(len(skipped), 'file')} that could not be read", flush=True)
