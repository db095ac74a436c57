"""Runs that are killed at random moments and resumed end with the same bits as runs that were never stopped."""

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import DIGITS
from tests.killing import (
    GroupKill,
    Kill,
    check_whole,
    draw_kill,
    fit_alone,
    fit_together,
    rows,
    run_killed,
    same_weights,
)

SMALL = ["--config", DIGITS, "--trainer.precision", "32-true", "--trainer.max_epochs", "3", "--data.batch_size", "16"]
SMALL += ["--trainer.limit_train_batches", "5", "--trainer.limit_val_batches", "2", "--trainer.log_every_n_steps", "1"]
STEPS = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.filename=step-{step}"]
STEPS += ["--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.auto_insert_metric_name=false"]
EMA = ["--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay=0.9"]
EMA += ["--trainer.callbacks.use_buffers=false", "--trainer.callbacks+=callbacks.PreciseBN"]
FLOW = ["--trainer.callbacks+=callbacks.GradientFlow", "--trainer.callbacks.every_n_steps=2"]
NETS = {
    "dropout": ["--model.dropout", "0.3", "--trainer.accumulate_grad_batches", "2", *FLOW],
    "EMA": EMA,
    "shake-shake": ["--model", "lit_models.LitShakeShake", "--model.optimizer", "torch.optim.SGD"],
    "drop path": ["--model", "lit_models.LitNASNet", "--model.variant", "cifar", "--model.repeats", "1"],
}
NETS["drop path"] += ["--model.filters", "8", "--model.drop_path", "0.4", "--model.optimizer", "torch.optim.SGD"]
for name in ("shake-shake", "drop path"):
    NETS[name] += ["--model.optimizer.lr", "0.1", "--model.optimizer.momentum", "0.9"]
TOGETHER = [*SMALL, *NETS["dropout"], *STEPS, "--trainer.callbacks.every_n_train_steps=2"]
TOGETHER += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="session")
def wholes(tmp_path_factory) -> dict[str, tuple[Path, float]]:
    """Of each net the run that was never stopped, and its seconds of the processor; made when it is first needed."""
    return {}


def gradient_flow(run: Path) -> list[bytes]:
    """The file of norms of a net whose run has one."""
    return [path.read_bytes() for path in run.glob("gradient_flow.csv")]


def play_round(number: int, tmp_path_factory, wholes) -> int:
    """One run, killed twice; returns how many of the kills met it."""
    rng = random.Random(number)
    net = list(NETS)[number % len(NETS)]
    flags = [*SMALL, *NETS[net], *STEPS, f"--trainer.callbacks.every_n_train_steps={[2, 5, 1][number // 4 % 3]}"]
    key = f"{flags}"
    if key not in wholes:
        folder = tmp_path_factory.mktemp("whole")
        status, said = fit_alone(flags, folder, None)
        assert status == 0, said
        wholes[key] = next(folder.glob("runs/*/*/version_0")), float((folder / "seconds.txt").read_text())
    whole, seconds = wholes[key]
    kills = [draw_kill(rng, seconds, validations=6, writings=12) for _ in range(2)]
    elsewhere = {"TMPDIR": "/dev/shm"} if number % 2 and os.access("/dev/shm", os.W_OK) else {}
    fit = partial(fit_alone, environment=elsewhere)
    run, killed = run_killed(flags, tmp_path_factory.mktemp("killed"), kills, fit, check_whole)
    for name in ("last", "best"):
        assert same_weights(whole / f"checkpoints/{name}.ckpt", run / f"checkpoints/{name}.ckpt"), (kills, run)
    assert rows(run) == rows(whole), (kills, run)
    assert gradient_flow(run) == gradient_flow(whole), (kills, run)
    assert not list(run.rglob("*.part"))
    print(f"Round {number}, {net}: {kills}, {killed} met the run", flush=True)
    return killed


def test_a_killed_run_ends_with_the_same_bits(tmp_path_factory, wholes):
    play_round(0, tmp_path_factory, wholes)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 30))
def test_killed_runs_end_with_the_same_bits(number, tmp_path_factory, wholes):
    play_round(number, tmp_path_factory, wholes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "length", [["--trainer.max_epochs", "3"], ["--trainer.max_epochs=-1", "--trainer.max_steps=15"]]
)
def test_killed_in_the_validation_of_an_epoch_it_is_resumed_into_that_validation(tmp_path_factory, length):
    """With a checkpoint of the epoch's last step, and twice in the same epoch, and in the last one."""
    flags = [*SMALL, *length, "--model.dropout", "0.3", *STEPS, "--trainer.callbacks.every_n_train_steps=5"]
    folder = tmp_path_factory.mktemp("whole")
    fit_alone(flags, folder, None)
    whole = next(folder.glob("runs/*/*/version_0"))
    kills = [Kill("in validation", after, signal.SIGKILL) for after in (3, 0, 2)]
    run, killed = run_killed(flags, tmp_path_factory.mktemp("killed"), kills, fit_alone, check_whole)
    assert killed == 3 and rows(run) == rows(whole)
    for name in ("last", "best", "step-15"):
        assert same_weights(whole / f"checkpoints/{name}.ckpt", run / f"checkpoints/{name}.ckpt")


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory) -> tuple[Path, float]:
    """A run of two processes that was never stopped, and the seconds that its training took."""
    folder = tmp_path_factory.mktemp("whole")
    status, said = fit_together(TOGETHER, folder, None)
    assert status == 0, said
    return next(folder.glob("runs/*/*/version_0")), float((folder / "seconds.txt").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_runs_of_two_processes_end_with_the_same_bits(number, tmp_path_factory, whole_of_two):
    """One or both processes are killed, or both are asked to end, as a scheduler does; twice."""
    whole, seconds = whole_of_two
    rng = random.Random(number)
    ways = [(0, signal.SIGKILL), (1, signal.SIGKILL), (None, signal.SIGKILL), (None, signal.SIGTERM)]
    kills = [GroupKill(rng.uniform(0.1, 0.9) * seconds, *rng.choice(ways)) for _ in range(2)]
    run, killed = run_killed(TOGETHER, tmp_path_factory.mktemp("killed"), kills, fit_together, check_whole)
    for name in ("last", "best"):
        assert same_weights(whole / f"checkpoints/{name}.ckpt", run / f"checkpoints/{name}.ckpt"), (kills, run)
    assert rows(run) == rows(whole), (kills, run)
    print(f"Round {number}: {kills}, {killed} met the run", flush=True)
