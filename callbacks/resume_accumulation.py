"""Going on between two optimizer steps, with the gradients that were accumulated before a checkpoint."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from callbacks.finite_loss import decide_together
from checkpointing.content import check_content
from checkpointing.progress import inside_accumulation
from trainer_settings import settings

GRADIENTS_KEY = "accumulated_gradients"  # in a checkpoint: by parameter, [P, *shape] of P processes


class ResumeAccumulation(pl.Callback):
    """Lets a run go on inside an accumulation of gradients with the same bits, whatever the checkpoint was written for.

    Checkpoints by the clock, of a validation in the middle of an accumulation and of `max_time` fall between two
    optimizer steps, and so does the first batch after resuming. To write them later would give a file other weights
    than those that its name and its metric belong to; therefore they hold the gradients too. The command line adds this
    callback to `fit`, behind those of the config.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}  # of the checkpoint

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if inside_accumulation(checkpoint["loops"]["fit_loop"], trainer.accumulate_grad_batches):
            checkpoint[GRADIENTS_KEY] = gather_gradients(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.gradients = checkpoint.pop(GRADIENTS_KEY, {})
        check_gradients(self.gradients, pl_module, str(trainer.ckpt_path))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parameters = dict(pl_module.named_parameters())
        for name, of_processes in self.gradients.items():
            same_processes = len(of_processes) == trainer.world_size
            mine = of_processes[trainer.global_rank] if same_processes else of_processes.mean(0)  # as DDP does
            # In the parameter's memory format, of which DDP takes a gradient to be
            parameters[name].grad = torch.empty_like(parameters[name]).copy_(mine)
        self.gradients = {}
        if trainer.fit_loop.restarted_mid_epoch:  # Lightning calls `on_train_epoch_start` in whole epochs only
            for callback in settings(trainer).callbacks:
                if isinstance(callback, GradientAccumulationScheduler):
                    callback.on_train_epoch_start(trainer)


def gather_gradients(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
    """The gradients of every process, [P, *shape] by parameter, on the CPU; every process must call this."""
    gathered = {}
    for name, parameter in module.named_parameters():
        if decide_together(trainer, parameter.grad is not None):
            mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            each = [mine]
            if trainer.world_size > 1:
                each = [torch.empty(mine.shape).to(mine) for _ in range(trainer.world_size)]
                torch.distributed.all_gather(each, mine.contiguous())
            gathered[name] = torch.stack([gradient.cpu() for gradient in each])
    return gathered


def check_gradients(gradients: Any, module: pl.LightningModule, path: str) -> None:
    """Refuse gradients that do not belong to the parameters of a module."""
    check_content(gradients, {}, path)
    parameters = dict(module.named_parameters())
    check_content(parameters, dict.fromkeys(gradients), path)
    for name, of_processes in gradients.items():
        processes = len(of_processes) if isinstance(of_processes, Tensor) and of_processes.dim() else 1
        expected = parameters[name].new_empty(()).expand(max(1, processes), *parameters[name].shape)
        check_content({name: of_processes}, {name: expected}, path)
