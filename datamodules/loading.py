"""Loaders that resume in the middle of an epoch, and how many processes load."""

import os
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from datamodules.samplers import ExactSampler
from errors import UserError


class ResumableLoader(DataLoader):
    """A DataLoader that enters an epoch where the trainer stands in it; its sampler is an ExactSampler.

    Lightning saves `state_dict` in checkpoints and hands it back on resuming.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator: this line runs at the first batch, when the trainer has restored its progress
        done = self.trainer.fit_loop.batch_idx + 1 if self.trainer else 0
        self.sampler.start = done * self.batch_size  # type: ignore[attr-defined,operator]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        sampler = self.sampler
        assert isinstance(sampler, ExactSampler) and self.batch_size is not None
        return {"batch_size": self.batch_size * sampler.num_replicas, "number of batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Refuse to enter an epoch in its middle with another way of cutting it into batches.

        Lightning does not call this for a checkpoint from an epoch's end.
        """
        for name, now in self.state_dict().items():
            if state[name] != now:
                raise UserError(
                    f"This epoch was begun with {name} {state[name]}, and the resumed run has {now}: keep the data and "
                    "--data.batch_size as they were, or resume from a checkpoint of an epoch's end."
                )


def as_is(batch: Any) -> Any:
    """The collate function of sets that give whole batches (a named function, so that workers can be spawned)."""
    return batch


def worker_count(trainer: pl.Trainer | None) -> int:
    """How many loader processes to run per device: all cores feed GPUs; where they train themselves, one in eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = trainer.num_devices if trainer else 1
    on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
    return max(1, min(16, cores // devices // (8 if on_cpu else 1)))
