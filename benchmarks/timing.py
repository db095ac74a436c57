"""Interleaved timing: a real `fit` that pauses every few steps, so that its competitors take as many."""

import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from callbacks import PreciseBN
from datamodules.base import ImageData, image_data
from lit_models import LitClassifier

WARM_UP_STEPS = 3  # of each turn, not timed: they use up what was loaded while the others ran
Turn = Callable[[], float]  # takes some steps, and returns images per second


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that CUDA's allocator handed out, or on a CPU the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class TakeTurns(pl.Callback):
    """Pauses a `fit` every few steps to time its competitors, so that the noise of the machine meets all alike.

    Args:
        competitors: each is built once the fit has had its first turn.
        steps: steps of each turn.
        turns: how many there are; then training stops.

    Attributes:
        results: images per second of each turn, by name; the fit itself is "fit".
        first_step_s: seconds from the command to the end of the first step.
        peak_memory_bytes: until the competitors joined in.
        blueprint: the network on the meta device, not compiled.
        trainer: of the fit; there once a competitor has joined in, as are `model` and `data`.
        model: what the fit trains.
        data: what it trains on.
    """

    blueprint: nn.Module
    trainer: pl.Trainer
    model: LitClassifier
    data: ImageData

    def __init__(self, competitors: "dict[str, Competitor]", steps: int, turns: int) -> None:
        self.competitors, self.steps, self.turns = competitors, steps, turns
        self.started, self.first_step_s = time.perf_counter(), 0.0
        self.taken = self.images = self.peak_memory_bytes = 0
        self.ready: dict[str, Turn] = {}
        self.results: list[dict[str, float]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module.net, nn.Module)
        self.blueprint = copy.deepcopy(pl_module.net).to("meta")  # before it is compiled and cannot be copied

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.taken += 1
        self.images += len(batch[1])
        if self.first_step_s and self.taken not in (WARM_UP_STEPS, WARM_UP_STEPS + self.steps):
            return
        synchronize(pl_module.device)
        now = time.perf_counter()
        self.first_step_s = self.first_step_s or now - self.started
        if self.taken == WARM_UP_STEPS:
            self.images, self.turn_started = 0, now
        if self.taken == WARM_UP_STEPS + self.steps:
            self.end_turn(self.images / (now - self.turn_started), trainer, pl_module)

    def end_turn(self, images_per_s: float, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the competitors, and stop after the last turn."""
        if not self.results:
            self.peak_memory_bytes = peak_memory(pl_module.device)
        if self.competitors and not self.ready:
            data = image_data(trainer)
            assert isinstance(pl_module, LitClassifier) and data is not None
            self.trainer, self.model, self.data = trainer, pl_module, data
            self.ready = {name: competitor(self) for name, competitor in self.competitors.items()}
        self.results.append({"fit": images_per_s} | {name: turn() for name, turn in self.ready.items()})
        self.taken = 0
        trainer.should_stop = len(self.results) == self.turns
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's callback connector sets it
            if isinstance(callback, PreciseBN):
                callback.batches = 0  # it would take 200 at the end of the training, untimed

    def copy_net(self, memory_format: torch.memory_format) -> nn.Module:
        """The network with its present weights, to be trained by itself."""
        net = copy.deepcopy(self.blueprint).to_empty(device=self.model.device)
        net.load_state_dict(self.model.net.state_dict())
        return net.to(memory_format=memory_format).train()

    def time_steps(self, step: Callable[[Any], int], batches: Iterable[Any]) -> Turn:
        """A turn of a competitor.

        Args:
            step: trains on a batch and returns the number of its images.
            batches: taken over and over.
        """
        endless = itertools.chain.from_iterable(itertools.repeat(batches))

        def turn() -> float:
            for _ in range(WARM_UP_STEPS):
                step(next(endless))
            synchronize(self.model.device)
            start = time.perf_counter()
            images = sum(step(next(endless)) for _ in range(self.steps))
            synchronize(self.model.device)
            return images / (time.perf_counter() - start)

        return turn


Competitor = Callable[[TakeTurns], Turn]
