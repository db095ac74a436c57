"""The logger of Weights & Biases, and what a training tells W&B about itself."""

import os
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from lit_models.classifier import LitClassifier


class WandbLogger(LightningWandbLogger):
    """Logs a training to Weights & Biases: offline, below the run directory, unless WANDB_MODE=online.

    Args:
        project: by default WANDB_PROJECT, or else lit-classics.
        group: runs that W&B shows together; by default WANDB_RUN_GROUP, or else <dataset>/<experiment>.
        job_type: by default WANDB_JOB_TYPE, or else fit.
        tags: one or several; by default those of WANDB_TAGS, which are separated by commas.
        notes: by default WANDB_NOTES.
        name: by default WANDB_NAME, or else <dataset>/<experiment>/version_N.
        entity: user or team whose account the run belongs to; by default WANDB_ENTITY.
        id: of the W&B run; by default WANDB_RUN_ID, or else a new one. A resumed run keeps its own.
        log_model: true uploads best.ckpt and last.ckpt as versions of the artifact model-<id>, with best and last as
            their aliases, when the training has ended; all uploads every checkpoint that the run has kept by then, each
            with its name as alias.
        save_dir, offline: the command line fills them in.
        **kwargs: see Lightning and `wandb.init`.
    """

    trainer: pl.Trainer | None = None  # once a training has begun

    def __init__(
        self,
        project: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | str | None = None,
        notes: str | None = None,
        name: str | None = None,
        entity: str | None = None,
        id: str | None = None,
        log_model: Literal["all"] | bool = False,
        save_dir: str = ".",
        offline: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"group": group, "job_type": job_type, "tags": tags, "notes": notes, "entity": entity}
        # A config holds null for each argument of wandb.init, for some of which Lightning has other defaults
        kwargs = {argument: value for argument, value in kwargs.items() if value is not None}
        save_dir = os.path.abspath(save_dir)  # W&B's own process may have begun in another directory
        self.log_model = log_model  # Lightning's refuses it offline
        super().__init__(name=name, save_dir=save_dir, offline=offline, id=id, project=project, **kwargs)

    def begin(self, trainer: pl.Trainer, module: LitClassifier, config: dict[str, Any]) -> None:
        """Log the config, and tell W&B how to draw and sum up the metrics of an epoch."""
        self.trainer = trainer
        self.log_hyperparams(config)
        for name in (*module.train_means, *(f"val/{name}" for name in module.val_metrics)):
            # Lightning has named the x-axis of all other metrics: the step
            self.experiment.define_metric(name, step_metric="epoch", summary="min,last")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log a row; LearningRateMonitor's have no epoch of their own."""
        epoch = {"epoch": self.trainer.current_epoch} if self.trainer else {}
        super().log_metrics(epoch | metrics, step)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"trainer": None}  # of a copy, or for another process
