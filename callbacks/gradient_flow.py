"""How large the gradient, the weight and the update of each layer are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from batch import Batch
from callbacks.run_logger import RunLogger, run_dir
from checkpointing.atomic import end_run_if_unwritable
from checkpointing.gradient_flow import FILE, name_for_loggers
from checkpointing.metrics_file import append_metrics
from errors import check_at_least
from lit_models.classifier import LitClassifier
from lit_models.counts import layers_by_depth


@dataclass(frozen=True)
class Measurement:
    """A step that is being measured, whose weights have not changed yet.

    Args:
        step: optimizer steps taken before it.
        epoch: counted from 0.
        gradients: norm of each layer's gradient, by the layer's name; without layers that have none.
        weights: copies of the layers' weights.
    """

    step: int
    epoch: int
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


class GradientFlow(pl.Callback):
    """Log the L2 norms of gradient, weight and update of each convolution and each linear layer.

    They are measured at the first step of a training and then every few steps, and written to gradient_flow.csv in the
    run directory, the layers in the order of the forward pass; see `checkpointing.gradient_flow`. W&B and other loggers
    get the norms of the gradients, of at most 60 layers. The gradient is the one that the optimizer's step starts from,
    before it is clipped: averaged over all devices, accumulated over batches, and unscaled where half precision scales
    the loss. The update is the difference that the step makes to the weight, whatever the optimizer. A layer without
    gradient, as a frozen one, has an empty value.

    Norm layers and biases are left out: norms of vectors are of another size, and would hide the course over depth.
    So are auxiliary heads, which lie beside it. A measured step copies the weights, and waits for the device once;
    others do neither.

    Args:
        every_n_steps: optimizer steps from one measured step to the next: those of this count, of twice this count and
            so on are measured, beside the first.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check_at_least(1, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self.layers: dict[str, nn.Conv2d | nn.Linear] = {}  # none in processes that write nothing
        self.measured: Measurement | None = None
        self.columns: list[str] = []  # of the file

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.layers, self.measured, self.columns = {}, None, []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self.layers and trainer.is_global_zero and trainer.loggers:
            assert isinstance(pl_module, LitClassifier)
            self.layers = layers_by_depth(pl_module.net, Batch(*batch).images[0].shape[-1])

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        step = trainer.global_step
        is_due = step == 0 or (step + 1) % self.every_n_steps == 0
        if not self.layers or not is_due or self.measured:  # an optimizer may compute its gradients more than once
            return
        weights = {name: layer.weight for name, layer in self.layers.items()}
        gradients = {name: norm(weight.grad) for name, weight in weights.items() if weight.grad is not None}
        copies = {name: weight.detach().clone() for name, weight in weights.items()}
        self.measured = Measurement(step, trainer.current_epoch, gradients, copies)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._write(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._write(trainer)  # first: another callback may save a checkpoint after a step and end the training

    def _write(self, trainer: pl.Trainer) -> None:
        """Write the rows of a measured step, once the step is taken."""
        if self.measured is None:
            return
        measured, self.measured = self.measured, None
        rows = measure_update(measured, {name: layer.weight for name, layer in self.layers.items()})
        log_gradients(trainer, rows, measured.step)
        if folder := run_dir(trainer):
            with end_run_if_unwritable(folder / FILE):
                self.columns = append_metrics(folder / FILE, self.columns, map(format_norms, rows))


def measure_update(before: Measurement, weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The rows of a step that is taken, one for each layer; waits for the device.

    Args:
        before: the step.
        weights: of the layers now.
    """
    sizes = [norm(before.weights[name]) for name in weights]
    changes = [norm(widen(weight) - widen(before.weights[name])) for name, weight in weights.items()]
    values = torch.stack([*before.gradients.values(), *sizes, *changes]).tolist()
    gradients = dict(zip(before.gradients, values, strict=False))
    norms = zip(weights, values[-2 * len(weights) :], values[-len(weights) :], strict=False)
    return [
        {"step": before.step, "epoch": before.epoch, "layer": name}
        | {"gradient": gradients.get(name), "weight": size, "update": change}
        for name, size, change in norms
    ]


def widen(tensor: Tensor) -> Tensor:
    """The values in float32 at least, without the graph."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def norm(tensor: Tensor) -> Tensor:
    """The L2 norm, a scalar that stays on the device."""
    return torch.linalg.vector_norm(widen(tensor))


def log_gradients(trainer: pl.Trainer, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Log the norms of the gradients to W&B, and to whatever loggers there are beside that of the run."""
    names = name_for_loggers([row["layer"] for row in rows])
    values = {names[row["layer"]]: row["gradient"] for row in rows if row["layer"] in names}
    for logger in trainer.loggers:
        if not isinstance(logger, RunLogger):
            logger.log_metrics({name: value for name, value in values.items() if value is not None}, step)


def format_norms(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the file has it: seven digits, nothing for None."""
    return {name: f"{value:.7g}" if isinstance(value, float) else value for name, value in row.items()}
