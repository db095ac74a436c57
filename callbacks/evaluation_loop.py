"""Evaluation of weights on the validation images, outside of the Trainer's loop."""

import functools
import math
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.base import ImageData
from lit_models.classifier import LitClassifier
from lit_models.metrics import make_metrics


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


@dataclass
class Evaluator:
    """Evaluates weights on the validation images as `validate` does: each process its share, metrics over all.

    Args:
        trainer: whose precision and processes are used.
        module: which computes; the weights are loaded into it, and stay there.
        data: with validation images.
    """

    trainer: pl.Trainer
    module: LitClassifier
    data: ImageData

    def evaluate(self, label: str, *state_dicts: dict[str, Tensor]) -> Result:
        """Evaluate weights, or the ensemble of several: the mean of their probabilities; print a row of a table."""
        predictions = [self._predict(state_dict) for state_dict in state_dicts]
        log_probs = functools.reduce(torch.logaddexp, [each for each, _ in predictions]) - math.log(len(predictions))
        result = self._measure(label, log_probs, predictions[0][1])
        if self.trainer.is_global_zero:
            top5 = "" if result.top5_error is None else f"{result.top5_error:.2%}"
            print(f"{label:40}  {result.top1_error:11.2%}  {top5:>11}  {result.loss:6.4f}", flush=True)
        return result

    def _predict(self, state_dict: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, K] float32 and labels [n] of this process's validation images, on the CPU."""
        self.module.load_state_dict(state_dict)
        self.module.eval()
        log_probs, labels = [], []
        for batch in self.data.batches(training=False, device=self.module.device):
            with self.trainer.precision_plugin.forward_context():
                log_probs.append(self.module.log_probabilities(batch.images, batch.view_weights).cpu())
            labels.append(batch.labels.cpu())
        return torch.cat(log_probs), torch.cat(labels)

    def _measure(self, label: str, log_probs: Tensor, labels: Tensor) -> Result:
        """The metrics over the images of all processes."""
        device = self.module.device  # NCCL moves nothing else
        metrics = make_metrics(self.module.num_classes).to(device)
        loss = F.nll_loss(log_probs, labels).to(device)
        metrics.update(loss=loss, images=len(labels), scores=log_probs.to(device), target=labels.to(device))
        values = {name: float(value) for name, value in metrics.compute().items()}
        return Result(label, values["top1_error"], values.get("top5_error"), values["loss"])
