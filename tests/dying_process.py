"""Callbacks for trainings of several processes: to kill one, to change its weights, to record the loss of all."""

import json
import multiprocessing
import os
import signal

import lightning.pytorch as pl
import torch


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


class Disturb(pl.Callback):
    """Changes a weight of the second process in its first training batch."""

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            with torch.no_grad():
                pl_module.net.conv1.weight[0, 0, 0, 0] += 1e-3


class RecordLosses(pl.Callback):
    """Writes the loss of every step, the mean over all processes, into a file.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.losses = path, []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        loss = outputs["loss"].clone()
        if trainer.world_size > 1:
            torch.distributed.all_reduce(loss)
        self.losses.append(float(loss) / trainer.world_size)

    def on_train_end(self, trainer, *_) -> None:
        if trainer.is_global_zero:
            with open(self.path, "w") as file:
                json.dump(self.losses, file)


class EndOfTime(pl.Callback):
    """Sends SIGUSR1 to each process once that many optimizer steps are taken, unless its job was requeued.

    Args:
        step: optimizer steps taken.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == self.step and "SLURM_RESTART_COUNT" not in os.environ:
            os.kill(os.getpid(), signal.SIGUSR1)
