"""The metrics of training, validation and test, and how Lightning is told of them."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from lit_models.metrics import ImageMean, MeanLoss, make_metrics


class LoggedMetrics(pl.LightningModule):
    """A LightningModule with metrics of training, validation and test.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head_losses = nn.ModuleDict()  # of the outputs of a net with auxiliary heads
        self.train_metrics = make_metrics(num_classes)
        self.val_metrics = make_metrics(num_classes)
        self.test_metrics = make_metrics(num_classes)
        self.test_images = SumMetric(nan_strategy="disable")
        self.logged: set[str] = set()  # names of the metrics that Lightning knows of in this epoch

    @property
    def train_means(self) -> dict[str, ImageMean]:
        """The means over the training images of an epoch so far, by the names under which they are logged."""
        heads = {f"train/{name}_loss": loss for name, loss in self.head_losses.items()}
        means = {f"train/{name}": metric for name, metric in self.train_metrics.items()} | heads
        return {name: mean for name, mean in means.items() if isinstance(mean, ImageMean)}

    def update_metrics(self, stage: str, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            stage: train, val or test.
            loss: mean over the batch.
            scores: [B, K].
            labels: [B] int64.
        """
        metrics = getattr(self, f"{stage}_metrics")
        metrics.update(loss=loss, images=len(labels), scores=scores, target=labels)
        for name, metric in metrics.items():
            self.log_once(f"{stage}/{name}", metric)

    def log_once(self, name: str, metric: Metric) -> None:
        """Tell Lightning, with the first batch of an epoch, of a metric to log at its end.

        Once is enough, and with each batch it would cost as much as a step of a small net.
        """
        if name not in self.logged:
            self.logged.add(name)
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=name.endswith("top1_error"))

    def on_fit_start(self) -> None:
        if self.dtype == torch.float64:  # torchmetrics keeps its states from being converted with the weights
            for loss in self.modules():
                if isinstance(loss, MeanLoss):
                    loss.set_dtype(torch.float64)

    def _forget_logged(self) -> None:
        self.logged.clear()

    on_train_epoch_start = on_validation_epoch_start = on_test_epoch_start = _forget_logged
