"""Interleaved timing: a real `fit` or `test` that pauses every few steps, so that its competitors take as many."""

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch

from datamodules.base import ImageData, image_data
from lit_models import LitClassifier

WARM_UP_STEPS = 3  # of each turn, not timed: they use up what was loaded while the others ran
# Uses a copy of the run's network on its data; yields the number of images after each step
Competitor = Callable[[LitClassifier, ImageData], Generator[int]]


class TakeTurns(pl.Callback):
    """Pauses a `fit` or `test` every few steps to time its competitors: the noise of the machine meets all alike.

    Args:
        competitors: by their names; they start once the run has had its first turn.
        steps: timed steps of each turn.
        turns: how many there are; then training stops.

    Attributes:
        results: images per second of each turn, by name; the run itself is "fit" or "test".
        first_step_s: seconds from the command to the end of the first step.
        peak_memory_bytes: until the competitors joined in.
        model: what is trained or tested.
        data: what it reads.
    """

    model: LitClassifier
    data: ImageData

    def __init__(self, competitors: Mapping[str, Competitor], steps: int, turns: int) -> None:
        self.competitors, self.steps, self.turns = competitors, steps, turns
        self.started, self.first_step_s = time.perf_counter(), 0.0
        self.steps_taken = self.images = self.peak_memory_bytes = 0
        self.running: dict[str, Generator[int]] = {}
        self.results: list[dict[str, float]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = image_data(trainer)
        assert isinstance(pl_module, LitClassifier) and data is not None
        self.model, self.data = pl_module, data

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.count_step(len(batch[1]))
        trainer.should_stop = len(self.results) == self.turns

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: int
    ) -> None:
        self.count_step(len(batch[1]))

    def count_step(self, images: int) -> None:
        """Note a step of so many images; it may be the last one of a turn."""
        self.steps_taken += 1
        self.images += images
        if not self.first_step_s:
            self.first_step_s = read_clock(self.model.device) - self.started
        if self.steps_taken == WARM_UP_STEPS:
            self.images, self.turn_started = 0, read_clock(self.model.device)
        if self.steps_taken == WARM_UP_STEPS + self.steps:
            self.end_turn(self.images / (read_clock(self.model.device) - self.turn_started))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for steps in self.running.values():
            steps.close()  # ends its loader processes, for each of which the garbage collector would wait five seconds

    def end_turn(self, images_per_s: float) -> None:
        """Note the speed of the run, and let each competitor have its turn."""
        if not self.results:
            self.peak_memory_bytes = peak_memory(self.model.device)
            self.running = {name: compete(self.model, self.data) for name, compete in self.competitors.items()}
        speeds = {name: time_steps(steps, self.steps, self.model.device) for name, steps in self.running.items()}
        self.results.append({"test" if self.model.trainer.testing else "fit": images_per_s, **speeds})
        self.steps_taken = 0


def time_steps(steps: Iterator[int], count: int, device: torch.device) -> float:
    """Images per second over a number of steps, after a few that are not timed.

    Args:
        steps: yields the number of images after each step.
        count: steps to time.
        device: where they run.
    """
    sum(islice(steps, WARM_UP_STEPS))
    start = read_clock(device)
    images = sum(islice(steps, count))
    return images / (read_clock(device) - start)


def read_clock(device: torch.device) -> float:
    """The time in seconds, when a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that CUDA's allocator handed out, or on a CPU the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
