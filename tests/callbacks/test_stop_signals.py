"""A signal ends a training with a checkpoint from which it goes on to the same bits."""

import csv
import os
import shutil
import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import DIGITS, HOME, TINY

FIT = ["fit", "--config", DIGITS, *TINY]
EMA = ["--config", HOME / "configs/overlays/ema.yaml"]
RUN = Path("runs/digits/resnet20/version_0")
WHOLE = Path("runs/digits/whole/version_0")


class SendSignal(pl.Callback):
    """Sends this process a signal in one hook, once that many optimizer steps are taken.

    Args:
        step: optimizer steps taken.
        name: of the signal.
        hook: of the callback.
        times: how many signals.
    """

    def __init__(self, step: int, name: str = "SIGTERM", hook: str = "on_train_batch_start", times: int = 1) -> None:
        self.step, self.name, self.times, self.sent = step, name, times, False
        setattr(self, hook, self.send)

    def send(self, trainer, *_) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking and not self.sent:
            self.sent = True
            for _ in range(self.times):
                os.kill(os.getpid(), getattr(signal, self.name))


def sending(step: int, **options: object) -> list[str]:
    flags = [f"--trainer.callbacks.{name}={value}" for name, value in {"step": step, **options}.items()]
    return ["--trainer.callbacks+=tests.callbacks.test_stop_signals.SendSignal", *flags]


def stopped(run, *args: object) -> int:
    """Type a command that a signal ends, and return its exit status."""
    with pytest.raises(SystemExit) as stop:
        run(*args)
    return stop.value.code


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def same_weights(first: Path, second: Path) -> bool:
    one, other = (read(path / "checkpoints/last.ckpt")["state_dict"] for path in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        kept = [{k: v for k, v in row.items() if "images_per_s" not in k} for row in csv.DictReader(file)]
    return [row for row in kept if any(row[name] for name in row if name.startswith("val/"))]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143)])
def test_a_signal_saves_after_the_step_and_tells_how_to_go_on(run, here, capfd, name, status):
    assert stopped(run, *FIT, *sending(5, name=name)) == status
    printed = capfd.readouterr()
    assert f"{name}: stopping after this step with a checkpoint" in printed.err
    assert "Stopped. To go on:\n  python main.py fit --ckpt_path" in printed.out
    assert read(RUN / "checkpoints/last.ckpt")["global_step"] == 6
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as before the command


@pytest.mark.parametrize(
    ("step", "hook", "extra"),
    [
        (5, "on_train_batch_start", []),
        (8, "on_validation_batch_start", EMA),
        pytest.param(5, "on_train_batch_start", EMA, marks=pytest.mark.slow),
        pytest.param(8, "on_validation_batch_start", [], marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(run, here, monkeypatch, extra, step, hook):
    """Inside an epoch, and inside its validation, where averaged weights stand in for the trained ones."""
    run(*FIT, *extra, "--run_name", "digits/whole")
    assert stopped(run, *FIT, *extra, *sending(step, hook=hook)) == 143
    monkeypatch.setattr(SendSignal, "send", lambda *_: None)  # the validation begins again at this step
    run("fit", "--ckpt_path", RUN, "--allow", "tests.callbacks.test_stop_signals")
    assert same_weights(WHOLE, RUN)
    assert rows(WHOLE) == rows(RUN)


def test_gradients_are_accumulated_to_the_end_before_saving(run, here):
    accumulate = ["--trainer.accumulate_grad_batches", 2]
    run(*FIT, *accumulate, "--run_name", "digits/whole")
    assert stopped(run, *FIT, *accumulate, *sending(2)) == 143
    assert read(RUN / "checkpoints/last.ckpt")["global_step"] == 3
    run("fit", "--ckpt_path", RUN, "--allow", "tests.callbacks.test_stop_signals")
    assert same_weights(WHOLE, RUN)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
def test_a_second_signal_ends_at_once(run, here, hook):
    assert stopped(run, *FIT, *sending(8, hook=hook, times=2, name="SIGINT")) == 130
    assert read(RUN / "checkpoints/last.ckpt")["global_step"] in (4, 8)  # of an epoch's end


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_end"])
def test_before_and_after_the_training_a_signal_ends_at_once(run, here, hook):
    assert stopped(run, *FIT, *sending(0 if hook == "on_fit_start" else 12, hook=hook)) == 143


def test_a_test_is_ended_at_once_and_writes_no_result(run, tiny_run):
    assert stopped(run, "test", "--ckpt_path", tiny_run, *sending(0, hook="on_test_batch_start")) == 143
    assert not list(tiny_run.glob("test-*.json"))


def test_a_signal_in_fast_dev_run_saves_nothing(run, here):
    assert stopped(run, *FIT, "--trainer.fast_dev_run", 2, *sending(1)) == 143
    assert not list(here.rglob("*.ckpt"))


def test_loader_processes_leave_signals_to_the_main_one(run, here):
    """Ctrl-C and scancel reach every process of a group."""

    assert stopped(run, *FIT, "--data.num_workers", 2, *sending(5)) == 143
    assert read(RUN / "checkpoints/last.ckpt")["global_step"] == 6


JOB = {"SLURM_JOB_ID": "8", "SLURM_JOB_NAME": "interactive"}


def test_a_requeued_job_goes_on_with_its_run(run, here, monkeypatch, capsys):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    run(*FIT, "--run_name", "digits/whole")
    assert stopped(run, *FIT, *sending(5)) == 143
    argv = [*FIT, *sending(5)]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(SendSignal, "send", lambda *_: None)
    run(*argv)
    assert f"This job was requeued: it goes on with its run {RUN}" in capsys.readouterr().out
    assert same_weights(WHOLE, RUN) and not RUN.with_name("version_1").exists()


@pytest.mark.parametrize("change", ["job", "task", "arguments", "no restart", "no checkpoint"])
def test_another_run_is_not_taken_for_the_requeued_one(run, here, monkeypatch, change):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    run(*FIT, "--trainer.max_epochs", 1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0" if change == "no restart" else "1")
    if change == "job":
        monkeypatch.setenv("SLURM_JOB_ID", "9")
    if change == "task":
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "8")
    if change == "no checkpoint":
        shutil.rmtree(RUN / "checkpoints")
    run(*FIT, "--trainer.max_epochs", 1, *(["--seed_everything", 1] if change == "arguments" else []))
    assert (RUN.with_name("version_1") / "checkpoints/last.ckpt").is_file()
