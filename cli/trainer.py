"""Lightning's Trainer, and what `precision: auto` means on this machine."""

import math
from enum import Enum
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.io import CheckpointIO

from callbacks.finite_loss import FiniteLoss
from callbacks.resume_run import ResumeRun
from callbacks.sync_batch_norm import SyncBatchNorm
from checkpointing.checkpoint_io import AtomicCheckpointIO
from cli.devices import LONGEST_WAIT
from cli.memory import keep_freed_memory
from cli.processes import alone_in_allocation
from datamodules.base import ImageData, image_data
from errors import UserError, check_at_least
from trainer_settings import settings


class Trainer(pl.Trainer):
    """Lightning's Trainer, which chooses the precision by the hardware where `precision` is auto.

    Args:
        precision: see Lightning, or auto: bf16-mixed where the hardware has it. The run's config records the outcome.
        node_timeout: seconds to wait for the other nodes and processes at the start.
        **kwargs: see Lightning.
    """

    # Lightning sets it but where the clock tells when to validate (`val_check_interval: 00:00:30:00`)
    val_check_interval: int | float = math.inf

    def __init__(
        self, precision: Literal["auto"] | int | str | None = None, node_timeout: float = 600, **kwargs: Any
    ) -> None:
        check_at_least(0, gradient_clip_val=kwargs.get("gradient_clip_val"), node_timeout=node_timeout)
        if node_timeout > (longest := LONGEST_WAIT.total_seconds()):
            raise UserError(f"node_timeout is {node_timeout:g}: give at most {longest:.0f} seconds, a week.")
        interval = kwargs.get("val_check_interval")
        check_at_least(
            1,
            accumulate_grad_batches=kwargs.get("accumulate_grad_batches"),
            check_val_every_n_epoch=kwargs.get("check_val_every_n_epoch"),
            val_check_interval=interval if isinstance(interval, int) else None,
        )
        for unit in ("epochs", "steps"):
            least, most = kwargs.get(f"min_{unit}") or 0, kwargs.get(f"max_{unit}")
            if most is not None and 0 <= most < least:
                raise UserError(
                    f"min_{unit} is {least}, but max_{unit} {most} ends the run before: raise it to {least}."
                )
        if kwargs.pop("sync_batchnorm", False):  # Lightning's is for CUDA only; before DDP, which looks for it
            callbacks = kwargs.get("callbacks") or []
            kwargs["callbacks"] = [SyncBatchNorm(), *(callbacks if isinstance(callbacks, list) else [callbacks])]
        plugins = kwargs.pop("plugins", None) or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), *alone_in_allocation()]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):  # Lightning takes one
            plugins.append(AtomicCheckpointIO())
        try:
            super().__init__(precision=resolve_precision(precision), plugins=plugins, **kwargs)
        except (
            ValueError,
            TypeError,
            RuntimeError,
            ModuleNotFoundError,
        ) as error:  # Lightning's checks of its flags; elsewhere they would be bugs
            raise UserError(str(error)) from error
        if self.strategy.root_device.type == "cpu":
            keep_freed_memory()

    @property
    def max_steps(self) -> int:
        """The last step of the run; the loop's own limit is larger while `ResumeRun` lets it end an epoch after it."""
        callbacks = settings(self).callbacks
        return super().max_steps - any(callback.ends_epoch for callback in callbacks if isinstance(callback, ResumeRun))

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, see Lightning; never of a net that has diverged: see `FiniteLoss`."""
        callbacks = settings(self).callbacks
        allowed = all(callback.may_save(self) for callback in callbacks if isinstance(callback, FiniteLoss))
        if isinstance(writer := self.strategy.checkpoint_io, AtomicCheckpointIO):
            writer.removes = allowed  # a ModelCheckpoint removes an older file once it has saved
        if allowed:
            super().save_checkpoint(*args, **kwargs)

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps of the whole run; Lightning's own count where the data are not this project's.

        Lightning's count builds the loaders, and those of a resumed run would then never get back the state by which
        they refuse other batches inside an epoch.
        """
        data = image_data(self)
        return super().estimated_stepping_batches if data is None else count_steps(self, data)


def count_steps(trainer: pl.Trainer, data: ImageData) -> int | float:
    """Optimizer steps of a whole run on this project's data; infinite for one without an end."""
    batches, limit = data.count_train_batches(trainer.num_devices * trainer.num_nodes), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
    epochs = math.inf if trainer.max_epochs == -1 else trainer.max_epochs or 1
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def refuse_root_dir(trainer: Namespace) -> None:
    """Refuse --trainer.default_root_dir, in which Lightning would also look for the checkpoint of another job."""
    if trainer.default_root_dir is not None:
        raise UserError(
            f"default_root_dir is {trainer.default_root_dir}: leave it out, a run writes below --runs DIR and nowhere "
            "else."
        )


def write_plainly(callback: Namespace) -> None:
    """Write the arguments of Lightning's Timer as a record can hold them.

    Raises:
        UserError: for a duration in keys, of which jsonargparse records the text.
    """
    for name, value in callback.get("init_args", Namespace()).items():
        if isinstance(value, Enum):
            callback.init_args[name] = value.value
        if name == "duration" and isinstance(value, dict):
            raise UserError(f"duration is {value}: write it as days, hours, minutes and seconds, such as 00:00:05:00.")


def resolve_precision(precision: Any) -> Any:
    """What "auto" comes to on this machine: bf16-mixed where the hardware computes in bfloat16, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def cpu_has_bf16() -> bool:
    """Whether the processor computes in bfloat16; where torch is too old to be asked, it is taken not to."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
