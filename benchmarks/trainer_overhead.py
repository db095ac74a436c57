"""The overhead of training here: a tiny net in a bare Trainer, and in ours with everything that belongs to it."""

from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.cases import OVERHEAD
from benchmarks.measure import CONFIGS, run_fit, summarize
from benchmarks.timing import WARM_UP_STEPS, TakeTurns
from datamodules.loading import keep_batch
from datamodules.tensor_images import TensorImages
from lit_models import LitClassifier

BATCH = 8


class LitTinyNet(LitClassifier):
    """A net whose step costs next to nothing, so that what is around it shows."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(tiny_net(num_classes), num_classes, **kwargs)


class BareModule(pl.LightningModule):
    """The least that a Trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


def tiny_net(num_classes: int) -> nn.Module:
    """A convolution and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)
    )


def measure_overhead(turns: int, steps: int = 300) -> dict[str, Any]:
    """The results of the case, for JSON; "plain" is the bare Trainer with a progress bar and a CSV logger."""
    size = BATCH * (steps + WARM_UP_STEPS)
    noise = TensorImages(torch.randn(size, 3, 16, 16), torch.randint(10, (size,)))  # whole batches, as ours
    flags = [
        "--config", CONFIGS / "digits/resnet20.yaml", "--model=benchmarks.trainer_overhead.LitTinyNet",
        "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.001", "--model.optimizer.momentum=0.9",
        "--data=datamodules.Synthetic", "--data.size=16", "--data.classes=10", f"--data.train_size={size}",
        f"--data.batch_size={BATCH}", "--trainer.precision=32-true",
        "--trainer.log_every_n_steps=50",  # the Trainer's default, as on the other side; digits log more often
        "--trainer.accelerator=cpu",
    ]  # fmt: skip
    results = []
    for _ in range(turns):
        bare, ours = TakeTurns({}, steps, turns=1), TakeTurns({}, steps, turns=1)
        logger, callbacks = CSVLogger("bare"), [bare, TQDMProgressBar()]
        trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=logger, callbacks=callbacks)
        trainer.fit(BareModule(), DataLoader(noise, BATCH, shuffle=True, collate_fn=keep_batch))
        run_fit(OVERHEAD, [*flags, "--trainer.enable_checkpointing=true"], ours)
        results.append({"plain": bare.results[0]["fit"], "fit": ours.results[0]["fit"]})
    return summarize(OVERHEAD, results)
