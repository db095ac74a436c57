"""A callback that kills a process of a training."""

import multiprocessing
import os
import signal

import lightning.pytorch as pl


class Kill(pl.Callback):
    """Kills a process once that many optimizer steps are taken.

    Args:
        step: optimizer steps taken.
        rank: of the process; -1 for a loader process of the first one.
        name: of the signal.
    """

    def __init__(self, step: int, rank: int, name: str = "SIGKILL") -> None:
        self.step, self.rank, self.signal = step, rank, getattr(signal, name)

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == self.step and self.rank in (-1, trainer.global_rank):
            process = multiprocessing.active_children()[0].pid if self.rank == -1 else os.getpid()
            os.kill(process, self.signal)
