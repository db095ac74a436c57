"""What the benchmark measures: a real `fit`, interrupted every few steps by a plain loop and by the bare step."""

import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import BatchNormReestimation
from errors import UserError
from lit_models import LitClassifier

Round = Callable[[], float]  # takes some steps, and returns images per second

WARM_UP = 3  # steps of each round that are not counted: what was loaded while the others ran is used up


class Rounds(pl.Callback):
    """Stops a `fit` every few steps to let others take as many; all of them meet the same noise of the machine.

    Args:
        steps: steps of each round.
        rounds: how many there are; then training stops.
    """

    others: dict[str, Callable[[pl.Trainer, pl.LightningModule, int], Round]] = {}  # noqa: RUF012 - set by the report
    results: list[dict[str, float]] = []  # noqa: RUF012 - images per second of each round
    data: Any = None  # what was trained on, and what was trained
    module: Any = None
    on = torch.device("cpu")  # where
    started = 0.0  # when the command began
    first_step = 0.0  # seconds until the first step was over
    peak = 0  # bytes of memory at most, until others joined in

    def __init__(self, steps: int, rounds: int) -> None:
        self.steps, self.rounds, self.taken, self.images = steps, rounds, 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Rounds.results = []
        Rounds.first_step, Rounds.peak = 0.0, 0
        Rounds.data, Rounds.module = trainer.datamodule, pl_module  # type: ignore[attr-defined]
        Rounds.on = pl_module.device
        self.measure: dict[str, Round] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.first_step:
            synchronise(pl_module.device)
            Rounds.first_step = time.perf_counter() - self.started
        self.taken += 1
        if self.taken == WARM_UP:
            synchronise(pl_module.device)
            self.images, self.mark = 0, time.perf_counter()
        elif self.taken > WARM_UP:
            self.images += len(batch[1])
        if self.taken == WARM_UP + self.steps:
            synchronise(pl_module.device)
            fit = self.images / (time.perf_counter() - self.mark)
            if not self.results:
                Rounds.peak = peak_memory(pl_module.device)
                self.measure = {name: make(trainer, pl_module, self.steps) for name, make in self.others.items()}
            Rounds.results.append({"fit": fit, **{name: measure() for name, measure in self.measure.items()}})
            self.taken = 0
            trainer.should_stop = len(self.results) == self.rounds
            if trainer.should_stop:  # a last look at 200 batches is not measured any more
                trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, BatchNormReestimation)]  # type: ignore[attr-defined]


def step_rate(step: Callable[[Any], int], batches: Iterator[Any], steps: int, device: torch.device) -> float:
    """Images per second of some steps, after as many as are needed to warm up."""
    for _ in range(WARM_UP):
        step(next(batches))
    synchronise(device)
    start, images = time.perf_counter(), 0
    for _ in range(steps):
        images += step(next(batches))
    synchronise(device)
    return images / (time.perf_counter() - start)


def plain_loop(loader: DataLoader) -> Callable[[pl.Trainer, pl.LightningModule, int], Round]:
    """(a) The loop of a tutorial: float32, the layout torch starts from, and this loader."""

    def make(trainer: pl.Trainer, pl_module: pl.LightningModule, steps: int) -> Round:
        if not len(loader):
            raise UserError(
                f"The plain loop has fewer images than a batch of {loader.batch_size}, and leaves out what is no whole "
                "batch: give more with --cifar or --images."
            )
        net = fresh(pl_module.net, torch.contiguous_format)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        batches = forever(loader)

        def step(batch: tuple[Tensor, Tensor]) -> int:
            images, labels = (part.to(pl_module.device, non_blocking=True) for part in batch)
            optimizer.zero_grad()
            pl_module.loss(net(images), labels).backward()  # type: ignore[operator]
            optimizer.step()
            return len(labels)

        return lambda: step_rate(step, batches, steps, pl_module.device)

    return make


def bare_step(trainer: pl.Trainer, pl_module: pl.LightningModule, steps: int) -> Round:
    """(c) The limit: the step of our `fit` on one batch that lies there, without Trainer, loader or metrics."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    net = fresh(pl_module.net, torch.channels_last)
    if pl_module.compile_net:
        net.compile()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    size = getattr(data, "train_size", data.preprocessing["crop"])
    images = torch.randn(data.batch_size, 3, size, size, device=pl_module.device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(data.num_classes, (data.batch_size,), device=pl_module.device)

    def step(_: None) -> int:
        optimizer.zero_grad()
        with trainer.precision_plugin.forward_context():
            loss = pl_module.loss(net(images), labels)  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        return len(labels)

    return lambda: step_rate(step, forever([None]), steps, pl_module.device)


def fresh(net: nn.Module, layout: torch.memory_format) -> nn.Module:
    """A copy of a net to train on its own."""
    compiled, net._compiled_call_impl = net._compiled_call_impl, None  # a compiled forward cannot be copied
    other = copy.deepcopy(net)
    net._compiled_call_impl = compiled
    return other.to(memory_format=layout).train()


def forever(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches over and over."""
    while True:
        yield from batches


def synchronise(device: torch.device) -> None:
    """Wait until a CUDA device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: what CUDA's allocator handed out at most, or on a CPU the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class TinyNet(LitClassifier):
    """A net whose step costs next to nothing, so that what is around it shows."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(tiny(num_classes), num_classes, **kwargs)


def tiny(num_classes: int) -> nn.Module:
    """A convolution and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)
    )


class BareModule(pl.LightningModule):
    """The least that a Trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)
