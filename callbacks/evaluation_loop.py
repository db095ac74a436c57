"""Evaluation of weights on the validation images, outside of the Trainer's loop."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from checkpointing.record import read_checkpoint
from datamodules.base import ImageData
from lit_models.classifier import LitClassifier
from lit_models.metrics import MeanLoss, TopKError, make_metrics


@dataclass(frozen=True)
class Result:
    """Errors on the validation images.

    Args:
        label: of the weights.
        top1_error, top5_error: in [0, 1]; the second is None where there are at most five classes.
        loss: mean negative log-likelihood, in nats.
    """

    label: str
    top1_error: float
    top5_error: float | None
    loss: float


class Evaluator:
    """Evaluates weights on the validation images as `validate` does: each process its share, metrics over all.

    Args:
        trainer: whose precision and processes are used.
        module: which computes; weights of checkpoints are loaded into it.
        data: with validation images.
    """

    def __init__(self, trainer: pl.Trainer, module: LitClassifier, data: ImageData) -> None:
        self.trainer, self.module, self.data = trainer, module, data
        self.evaluated: dict[int, Result] = {}  # checkpoints by their optimizer steps

    def evaluate(self, label: str) -> Result:
        """Evaluate the weights that the module has."""
        return self._measure(label, *self._log_probabilities())

    def evaluate_checkpoint(self, path: Path) -> Result:
        """Evaluate a checkpoint; one of the same step only once."""
        checkpoint = read_checkpoint(path)
        if checkpoint.step not in self.evaluated:
            self.module.load_state_dict(checkpoint.state_dict)
            self._record_result(checkpoint.step, self.evaluate(path.stem))
        return replace(self.evaluated[checkpoint.step], label=path.stem)

    def evaluate_ensemble(self, paths: list[Path]) -> Result:
        """Evaluate the mean of the probabilities of several checkpoints, and each of them."""
        ensemble = labels = torch.empty(0)
        for count, path in enumerate(paths):
            checkpoint = read_checkpoint(path)
            self.module.load_state_dict(checkpoint.state_dict)
            log_probs, labels = self._log_probabilities()
            self._record_result(checkpoint.step, self._measure(path.stem, log_probs, labels))
            ensemble = torch.logaddexp(ensemble, log_probs) if count else log_probs
        return self._measure(f"ensemble of the {len(paths)}", ensemble - math.log(len(paths)), labels)

    def _record_result(self, step: int, result: Result) -> None:
        self.evaluated[step] = result
        if self.trainer.is_global_zero:
            print(f"Validated {result.label}: top-1 error {result.top1_error:.2%}", flush=True)

    def _log_probabilities(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, K] float32 and labels [n] of this process's validation images, on the CPU."""
        self.module.eval()
        parts = []
        for batch in self.data.batches(training=False, device=self.module.device):
            with self.trainer.precision_plugin.forward_context():
                log_probs = self.module.log_probabilities(batch.images, batch.view_weights)
            parts.append((log_probs.cpu(), batch.labels.cpu()))
        return torch.cat([log_probs for log_probs, _ in parts]), torch.cat([labels for _, labels in parts])

    def _measure(self, label: str, log_probs: Tensor, labels: Tensor) -> Result:
        """The metrics over the images of all processes."""
        device = self.module.device  # NCCL moves nothing else
        values = {}
        for name, metric in make_metrics(self.module.num_classes).to(device).items():
            if isinstance(metric, MeanLoss):
                metric.update(F.nll_loss(log_probs, labels).to(device), len(labels))
            assert isinstance(metric, Metric)
            if isinstance(metric, TopKError):
                metric.update(log_probs.to(device), labels.to(device))
            values[name] = float(metric.compute())
        return Result(label, values["top1_error"], values.get("top5_error"), values["loss"])
