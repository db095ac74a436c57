"""The record of a run: its config, what its checkpoints carry, and what its tests find."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks.run_logger import RunLogger
from checkpointing.record import code_version, resolved
from checkpointing.resume import enter_unfinished_epoch, rebase, set_later_aside
from checkpointing.run_dir import results_folder
from datamodules.base import ImageData, image_data
from errors import UserError, pluralize


class RunRecord(SaveConfigCallback):
    """Writes config.yaml, hands the resolved config to W&B and the checkpoints, writes the results of tests.

    Resuming goes on in the run's own folder: config.yaml keeps the first command, metrics.csv its rows up to the
    resumed step, and best.ckpt stays the best of the whole run, also after the folder was moved. The command line
    adds it to every verb.
    """

    resumed_step: int | None = None
    begun = False  # whether a batch was trained on

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        pl_module.record = self._record(trainer)  # type: ignore[assignment]
        folder = run_folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        path = folder / self.config_filename
        if not path.exists():
            command = shlex.join(["python", *sys.argv])
            path.write_text(f"# {command}\n" + self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(resolved(pl_module.record["config"], trainer))  # type: ignore[arg-type, index]
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        parameters = sum(p.numel() for p in pl_module.parameters())
        part = "" if trained == parameters else f", {trained:,} of them trained"
        print(f"Model: {type(pl_module).__name__}, {parameters:,} parameters{part}")
        print(f"Run directory: {folder}", flush=True)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the states of the ModelCheckpoints point to where the run lies now."""
        if trainer.state.fn != "fit" or (folder := run_folder(trainer)) is None:
            return
        for name, state in checkpoint["callbacks"].items():
            if name.startswith("ModelCheckpoint") and state["dirpath"]:
                rebase(state, Path(state["dirpath"]), folder / "checkpoints")
        enter_unfinished_epoch(checkpoint["loops"]["fit_loop"])
        self.resumed_step = checkpoint["global_step"]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        # Only now, when nothing can refuse to resume any more, is anything of the old run moved
        if self.resumed_step is not None and trainer.is_global_zero and (folder := run_folder(trainer)):
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.cut(self.resumed_step)
            set_later_aside(folder / "checkpoints", self.resumed_step)
        self.resumed_step, self.begun = None, True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        if not trainer.is_global_zero or folder is None or not has_checkpoint(folder):
            return
        given = f"--ckpt_path {shlex.quote(str(folder))}"
        data = image_data(trainer)
        if data is None or data.has_test_images:
            print(f"Trained. To test it:\n  python main.py test {given}", flush=True)
        else:
            command = f"python main.py predict {given} --data.paths '[photo.jpg, folder/]'"
            print(f"Trained. There are no images to test it on; to use it:\n  {command}", flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        folder = run_folder(trainer)
        if not trainer.is_global_zero or folder is None or not (folder / self.config_filename).exists():
            return  # refused before anything was written
        if not has_checkpoint(folder):
            print(f"Stopped before the first checkpoint: there is nothing to resume from in {folder}.", flush=True)
        elif self.begun:
            print(f"Stopped. To go on:\n  python main.py fit --ckpt_path {shlex.quote(str(folder))}", flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            parts = [f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items()]
            print(f"Validated {trainer.ckpt_path}: {'  '.join(parts)}", flush=True)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        skipped = 0 if data is None else count_skipped(trainer, data)  # asks all processes
        partial = limited(trainer) or skipped > 0
        images = int(trainer.callback_metrics["test/images"])
        if data is not None and not limited(trainer):
            check_count(images, skipped, len(data.test_set))
        if not trainer.is_global_zero or not trainer.ckpt_path:
            return
        checkpoint = Path(trainer.ckpt_path)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        del metrics["test/images"]
        protocol = "center" if data is None else data.protocol
        result = {
            "checkpoint": str(checkpoint.absolute()),
            "protocol": protocol,
            "images": images,
            "metrics": metrics,
            "partial": partial,
        }
        part = " (a part of the set)" if result["partial"] else ""
        errors = [f"top-{k} error {metrics[key]:.2%}" for k in (1, 5) if (key := f"test/top{k}_error") in metrics]
        seen = pluralize(images, "image")
        print(f"Tested {checkpoint} on {seen}{part}: {', '.join(errors)}, loss {metrics['test/loss']:.4f}")
        path = results_folder(checkpoint) / f"test-{checkpoint.stem}-{protocol}.json"
        try:
            path.write_text(json.dumps(result, indent=2) + "\n")
            print(f"Wrote {path}", flush=True)
        except OSError as error:
            print(f"{path} could not be written ({error.strerror}); it would hold:\n{json.dumps(result)}", flush=True)

    def _record(self, trainer: pl.Trainer) -> dict[str, Any]:
        data = image_data(trainer)
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        wandb_ids = [logger.version for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        return {
            "config": config,  # seed, model and data among it, as it would be written to a YAML file
            "class_names": [] if data is None else list(data.class_names),
            "preprocessing": {} if data is None else dict(data.preprocessing),
            "code_version": code_version(),
            "wandb_run_id": wandb_ids[0] if wandb_ids else None,
        }


def count_skipped(trainer: pl.Trainer, data: ImageData) -> int:
    """How many images of the test could not be read, on all devices together."""
    # On the device: NCCL moves nothing else
    count = torch.tensor(len(data.skipped.indices), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(count, reduce_op="sum"))


def check_count(seen: int, skipped: int, size: int) -> None:
    """Raise UserError if a test counted other images than the set has: the errors would be wrong."""
    if not seen:
        raise UserError(f"None of the {size:,} images of the test can be read: there is no error to tell.")
    if seen + skipped != size:
        raise UserError(f"The test counted {seen:,} of the set's {size:,} images: the errors would be wrong.")


def limited(trainer: pl.Trainer) -> bool:
    """Whether the trainer was told to test, or to validate, a part of the set only."""
    # 1.0 is all of them, 1 is one batch
    limit = trainer.limit_val_batches if trainer.state.fn == "validate" else trainer.limit_test_batches
    return bool(trainer.fast_dev_run) or limit != 1.0 or isinstance(limit, int)  # type: ignore[attr-defined]


def run_folder(trainer: pl.Trainer) -> Path | None:
    """The folder that this fit writes to; None where it writes nothing."""
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            return Path(logger.log_dir)
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved anything to resume from or to test."""
    return any((folder / "checkpoints").glob("*.ckpt"))
