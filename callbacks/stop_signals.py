"""Signals that end a command: Ctrl-C, and SIGTERM and SIGUSR1, which schedulers send."""

import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn, Self

import lightning.pytorch as pl

from callbacks.finite_loss import decide_together
from callbacks.result_writer import gather
from callbacks.run_logger import run_dir
from trainer_settings import settings

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    EXIT_STATUS[signal.SIGUSR1] = 143


class StopSignals(pl.Callback):
    """Ends a training with a checkpoint when a signal asks for it, and any other command at once.

    The first signal lets the training finish its step, or leave its validation; then last.ckpt is written and the
    process exits with status 130 (Ctrl-C) or 143. A second signal ends it at once. As a context manager it handles the
    signals of a whole command; the command line adds it to the Trainer.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.training = False  # whether a signal may wait for the end of the step
        self.leaving_validation = False
        self.validated = self.common_batches = 0  # batches of a validation: done, and those that every process has
        self.process = os.getpid()
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.previous = {number: signal.getsignal(number) for number in EXIT_STATUS}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items() if in_main_thread() else ():
            signal.signal(number, handler)

    def _listen(self) -> None:
        for number in EXIT_STATUS if in_main_thread() else ():
            signal.signal(number, self._handle)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen()  # Lightning takes the signals for itself before every loop

    on_sanity_check_start = on_predict_start = on_test_start

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a loader process that was forked: it ends with this one
        name = signal.Signals(number).name
        if self.training and self.received is None:
            self.received = number
            say(f"{name}: stopping after this step with a checkpoint; a second signal stops at once.")
            return
        say(f"{name}: stopped.")
        raise SystemExit(EXIT_STATUS[signal.Signals(number)])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen()
        self.training = not settings(trainer).fast_dev_run  # which writes no checkpoint

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._asked_to_stop(trainer):  # after the last step
            self._exit(trainer)
        self.training = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between two optimizer steps the gradients that are accumulated would be lost
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if stepped and self._asked_to_stop(trainer):
            self._save_and_exit(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._listen()
        self.leaving_validation, self.validated = False, 0
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            # No image is counted twice, so one process may have a batch more, in which the others do not answer
            self.common_batches = min(gather(trainer, [sum(trainer.num_val_batches)]))

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validated += 1
        if self.validated <= self.common_batches and self._asked_to_stop(trainer):
            self.leaving_validation = True
            raise StopIteration  # ends the validation; averaged weights are swapped back before its end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.leaving_validation:  # before its metrics, of a part of the images, are logged
            self._save_and_exit(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.leaving_validation:
            rewind_validation(checkpoint["loops"]["fit_loop"])

    def _asked_to_stop(self, trainer: pl.Trainer) -> bool:
        return decide_together(trainer, self.received is not None)

    def _save_and_exit(self, trainer: pl.Trainer) -> None:
        folder = run_dir(trainer)
        if folder and trainer.checkpoint_callbacks:
            trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        self._exit(trainer)

    def _exit(self, trainer: pl.Trainer) -> NoReturn:
        self.training = False
        status = EXIT_STATUS[signal.Signals(self.received or signal.SIGTERM)]
        # Lightning kills the process that launched this one as soon as this one's status is not 0
        raise SystemExit(0 if is_launched(trainer) else status)


def rewind_validation(fit_loop: dict[str, Any]) -> None:
    """Let a checkpoint that is written inside a validation read as if it had been written just before.

    Args:
        fit_loop: the state of the loop in the checkpoint, changed in place.
    """
    # Lightning counts a training batch as completed after the hook in which checkpoints are written
    training = fit_loop["epoch_loop.batch_progress"]
    for count in (training["total"], training["current"]):
        count["completed"] -= 1
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    for name, done in validation["current"].items():
        validation["total"][name] -= done
        validation["current"][name] = 0
    validation["is_last_batch"] = False


def is_launched(trainer: pl.Trainer) -> bool:
    """Whether Lightning has launched this process, and another one's exit status is that of the command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)  # strategies of one device have none
    return environment is not None and trainer.local_rank > 0 and not environment.creates_processes_externally


def say(sentence: str) -> None:
    """Print to stderr from a signal handler, where print could be entered twice."""
    os.write(2, f"{sentence}\n".encode())


def in_main_thread() -> bool:
    """Whether this is the main thread, which alone may handle signals."""
    return threading.current_thread() is threading.main_thread()
