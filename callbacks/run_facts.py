"""Writes run.json: what a run trains, on what, where, and how each command on it ended."""

import platform
import shlex
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import WandbLogger

from callbacks.finite_loss import Diverged
from callbacks.run_logger import run_dir
from checkpointing.run_facts import DataFacts, ModelFacts, Outcome, RunFacts, Session, read_run_facts
from datamodules.base import ImageData, image_data
from errors import UserError, printable
from lit_models.classifier import LitClassifier
from lit_models.counts import count_used
from trainer_settings import settings


class WriteRunFacts(pl.Callback):
    """Writes run.json when a training begins, and again when it ends: see `checkpointing.run_facts.RunFacts`.

    A resumed run adds a session to those of before. The command line adds this callback to `fit`.
    """

    facts: RunFacts | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder, data = run_dir(trainer), image_data(trainer)
        if folder is None or data is None or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LitClassifier) and pl_module.record is not None
        before, record = read_run_facts(folder), pl_module.record
        command = printable(shlex.join(["python", *sys.argv]))
        session = Session(command, record.code_version, now(), environment(trainer))
        self.facts = RunFacts(
            seed=int(record.config["seed_everything"]),
            model=count_model(pl_module, data),
            data=count_data(data, pl_module),
            sessions=[*(before.sessions if before else []), session],
        )
        self._write(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, "finished" if has_reached_its_end(trainer) else "stopped", "")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SystemExit | KeyboardInterrupt):
            self._end(trainer, "stopped", "")
        else:
            reason = str(exception) if isinstance(exception, UserError) else f"{type(exception).__name__}: {exception}"
            self._end(trainer, "diverged" if isinstance(exception, Diverged) else "failed", printable(reason))

    def _end(self, trainer: pl.Trainer, outcome: Outcome, reason: str) -> None:
        if self.facts is None:
            return
        *earlier, session = self.facts.sessions
        ended = replace(session, ended=now(), outcome=outcome, reason=reason)
        self.facts = replace(self.facts, sessions=[*earlier, ended])
        self._write(trainer)
        self.facts = None

    def _write(self, trainer: pl.Trainer) -> None:
        """Write run.json, and the same to W&B's config."""
        folder = run_dir(trainer)
        assert self.facts is not None and folder is not None
        self.facts.write(folder)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({"facts": asdict(self.facts)})


def has_reached_its_end(trainer: pl.Trainer) -> bool:
    """Whether a training has made all its epochs or steps, or a callback has ended it; else its time was up."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    has_all = (epochs is not None and 0 <= epochs <= trainer.current_epoch) or 0 <= steps <= trainer.global_step
    timers = [callback for callback in settings(trainer).callbacks if isinstance(callback, Timer)]
    return has_all or not any((timer.time_remaining() or 0) < 0 for timer in timers)


def count_model(model: LitClassifier, data: ImageData) -> ModelFacts:
    """The numbers of a model, counted at the size of the data's evaluation crop."""
    size = data.preprocessing["crop"]
    used = count_used(model.net, size)
    return ModelFacts(type(model).__name__, used.parameters, used.multiply_adds, size)


def count_data(data: ImageData, model: LitClassifier) -> DataFacts:
    """The numbers of a data set."""
    assert model.record is not None
    record, held_back = model.record, 0 if data.val_set is None else len(data.val_set)
    sizes = (data.num_classes, len(data.train_set), held_back)
    return DataFacts(type(data).__name__, *sizes, record.data_hash, record.val_hash, record.test_hash)


def environment(trainer: pl.Trainer) -> dict[str, str]:
    """What a training runs on, by name."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "Lightning": pl.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": name,
        "processes": str(trainer.world_size),
        "threads": str(torch.get_num_threads()),
        "precision": str(trainer.precision),
    }


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        lines = []
    return lines[0] if lines else platform.processor() or platform.machine()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
