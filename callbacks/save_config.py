"""The config of a training and the lists of its images, kept where they can be found again."""

import copy
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks.run_logger import run_dir
from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.record import CheckpointRecord, code_version
from checkpointing.requeue import note_job
from checkpointing.split import Split
from datamodules.base import image_data
from datamodules.identity import identify, make_split
from errors import printable
from lit_models.classifier import LitClassifier


class SaveConfig(SaveConfigCallback):
    """Writes the config of a training to config.yaml and W&B, and hands the model the record for its checkpoints.

    Of image files, split-<hash>.json lists those that are trained on and those that are held back. The config.yaml of
    a resumed run keeps the first command. LightningCLI adds this callback, but for `fast_dev_run`.

    Args:
        *args, **kwargs: see Lightning.
        arguments: of the command, by which it finds its run again when its job is requeued.
    """

    def __init__(self, *args: Any, arguments: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arguments = arguments

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(pl_module, LitClassifier)
        data = image_data(trainer)
        split = None if data is None else make_split(data)
        pl_module.record = record = self.make_record(trainer, split)
        folder = run_dir(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        if split:
            split.write(folder)
        path = folder / self.config_filename
        if not os.path.exists(path):
            command = shlex.join(["python", *sys.argv])
            with end_run_if_unwritable(path), atomic_write(path) as file:
                file.write(f"# {printable(command)}\n" + self.parser.dump(self.config, skip_none=False))
            note_job(folder, self.arguments)
        config = copy.deepcopy(record.config)
        config["model"]["init_args"]["num_classes"] = pl_module.num_classes  # which a link has filled in
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(config)

    def make_record(self, trainer: pl.Trainer, split: Split | None) -> CheckpointRecord:
        """The record of this run."""
        data = image_data(trainer)
        wandb_ids = [str(logger.version) for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        return CheckpointRecord(
            config=yaml.safe_load(self.parser.dump(self.config, skip_none=False)),
            class_names=[] if data is None else list(data.class_names),
            preprocessing={} if data is None else dict(data.preprocessing),
            code_version=code_version(),
            wandb_run_id=wandb_ids[0] if wandb_ids else None,
            **({} if data is None else identify(data, split)),
        )
