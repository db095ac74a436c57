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
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from callbacks.run_logger import run_dir
from callbacks.wandb_logger import WandbLogger
from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.record import CheckpointRecord, code_version
from checkpointing.requeue import note_job
from checkpointing.split import Split
from datamodules.base import image_data
from datamodules.identity import identify, make_split
from errors import UserError, printable
from lit_models.classifier import LitClassifier

UNWRITABLE = "Unable to serialize instance "  # by which jsonargparse replaces a value


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
        config["code_version"] = record.code_version
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.begin(trainer, pl_module, config)
            elif isinstance(logger, LightningWandbLogger):
                logger.log_hyperparams(config)

    def make_record(self, trainer: pl.Trainer, split: Split | None) -> CheckpointRecord:
        """The record of this run."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        refuse_unwritable(config)
        data = image_data(trainer)
        wandb_ids = [str(logger.version) for logger in trainer.loggers if isinstance(logger, LightningWandbLogger)]
        return CheckpointRecord(
            config=config,
            class_names=[] if data is None else list(data.class_names),
            preprocessing={} if data is None else dict(data.preprocessing),
            code_version=code_version(),
            wandb_run_id=wandb_ids[0] if wandb_ids else None,
            **({} if data is None else identify(data, split)),
        )


def refuse_unwritable(config: Any, name: str = "") -> None:
    """Refuse a config with a class's own default that YAML cannot hold: the run could not be resumed with it."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        refuse_unwritable(value, f"{name}.{key}" if name else str(key))
    if isinstance(config, str) and config.startswith(UNWRITABLE):
        raise UserError(
            f"{name} is {config.removeprefix(UNWRITABLE)} by default, which no config can hold, and the run could not "
            f"be resumed: give it a value of its own (null, a number or a text) behind --config, as {name} there."
        )
