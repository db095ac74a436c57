"""main.py for processes that train together, of which a kill is to come: KILL is a `GroupKill` as JSON, or empty."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import lightning.pytorch as pl

from tests.killing import GroupKill


class KillLater(pl.Callback):
    """Kills processes at some moment of the training, in the middle of whatever they do."""

    def __init__(self, kill: GroupKill) -> None:
        self.kill = kill

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_rank == (self.kill.rank or 0):
            timer = threading.Timer(self.kill.after, self.strike)
            timer.daemon = True
            timer.start()

    def strike(self) -> None:
        kill = os.killpg if self.kill.rank is None else os.kill
        kill(os.getpgid(0) if self.kill.rank is None else os.getpid(), self.kill.signal)


class TakeTime(pl.Callback):
    """Writes the seconds that the training took into seconds.txt."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            Path("seconds.txt").write_text(str(time.perf_counter() - self.started))


if __name__ == "__main__":
    from cli.command_line import run_cli

    text = os.environ["KILL"]
    run_cli(sys.argv[1:], callbacks=[KillLater(GroupKill(**json.loads(text))) if text else TakeTime()])
