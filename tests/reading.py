"""A callback that writes down which images a training process reads for each of its steps, and kills it."""

import json
import os
import signal
from pathlib import Path

import lightning.pytorch as pl

from datamodules.image_files import ImageFiles


class RecordReads(pl.Callback):
    """Appends to reads-<rank>.jsonl, after each step, the epoch, the step and the indices of its images.

    The environment variable KILL_AT is the number of steps after which the process is killed.

    Args:
        name: beginning of the file's name.
    """

    def __init__(self, name: str = "reads") -> None:
        self.name, self.reads = name, []

    def on_train_start(self, trainer, *_) -> None:
        read, reads = ImageFiles.__getitems__, self.reads

        def recorded(images, items):
            if not isinstance(items[0], int):  # training images come as SampleSpecs
                reads.append([item.index for item in items])
            return read(images, items)

        type(trainer.datamodule.train_set).__getitems__ = recorded

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == int(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer, *_) -> None:
        # The loader reads one batch ahead
        line = json.dumps([trainer.current_epoch, trainer.global_step, self.reads.pop(0)])
        with Path(f"{self.name}-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(line + "\n")
