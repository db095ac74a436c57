from functools import partial

import lightning.pytorch as pl
import pytest
import torch

from callbacks import GradientNorms
from checkpointing.metrics_file import read_metrics
from datamodules import Synthetic
from lit_models import LitResNet


class Norms(pl.Callback):
    """The gradient norms of one layer, computed apart."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append(float(torch.linalg.vector_norm(pl_module.net.conv1.weight.grad)))


def test_the_value_of_an_epoch_is_the_mean_over_its_steps():
    data = Synthetic(classes=4, size=8, train_size=10, val_size=0, test_size=4, batch_size=4)
    model, norms = LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.1)), Norms()
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[GradientNorms(), norms], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1e-3,
    )  # fmt: skip
    trainer.fit(model, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "grad_norm" in name}
    assert len(norms.steps) == 6 and logged["grad_norm/conv1"] == pytest.approx(sum(norms.steps[3:]) / 3)
    assert len(logged) == 20 and min(logged.values()) > 0  # 19 convolutions and the classifier


def test_the_overlay_writes_them_to_metrics_csv(logged_run):
    _, rows = read_metrics(logged_run / "metrics.csv")
    assert sum("grad_norm/layer1.0.conv1" in row for row in rows) == 3
