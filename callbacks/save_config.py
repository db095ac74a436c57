"""The config of a training, kept where it can be found again."""

import copy
import shlex
import sys

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks.run_logger import run_dir
from checkpointing.record import CheckpointRecord, code_version
from datamodules.base import image_data
from lit_models.classifier import LitClassifier


class SaveConfig(SaveConfigCallback):
    """Writes the config of a training to config.yaml and W&B, and hands the model the record for its checkpoints.

    The config.yaml of a resumed run keeps the first command. LightningCLI adds this callback, but for `fast_dev_run`.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(pl_module, LitClassifier)
        pl_module.record = record = self.make_record(trainer)
        folder = run_dir(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        path = folder / self.config_filename
        if not path.exists():
            command = shlex.join(["python", *sys.argv])
            path.write_text(f"# {command}\n" + self.parser.dump(self.config, skip_none=False))
        config = copy.deepcopy(record.config)
        config["model"]["init_args"]["num_classes"] = pl_module.num_classes  # which a link has filled in
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(config)

    def make_record(self, trainer: pl.Trainer) -> CheckpointRecord:
        """The record of this run."""
        data = image_data(trainer)
        wandb_ids = [str(logger.version) for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        return CheckpointRecord(
            config=yaml.safe_load(self.parser.dump(self.config, skip_none=False)),
            class_names=[] if data is None else list(data.class_names),
            preprocessing={} if data is None else dict(data.preprocessing),
            code_version=code_version(),
            wandb_run_id=wandb_ids[0] if wandb_ids else None,
        )
