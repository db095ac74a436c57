"""Runs that are killed: fits in processes of their own, forked from one that has imported everything."""

import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import lightning.pytorch as pl
import torch

from checkpointing.integrity import find_damage
from checkpointing.record import resumable_step
from tests.conftest import HOME

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.killing", "cli.command_line", "lit_models.nasnet", "timm", "sklearn.datasets"])
K = TypeVar("K")  # a kind of kill
WAYS = ("anywhere", "in validation", "in writing")  # where a run is killed


@dataclass(frozen=True)
class Kill:
    """A kill.

    Args:
        way: one of WAYS.
        after: seconds of the processor, validation batches, or calls of fsync before it.
        signal: SIGKILL or SIGTERM.
    """

    way: str
    after: float
    signal: int


@dataclass(frozen=True)
class GroupKill:
    """A kill of one or all of several processes that train together.

    Args:
        after: seconds after the training began.
        rank: of the process; None for all of them.
        signal: SIGKILL or SIGTERM.
    """

    after: float
    rank: int | None
    signal: int


class KillInValidation(pl.Callback):
    """Kills its process before a validation batch."""

    def __init__(self, kill: Kill) -> None:
        self.kill, self.seen = kill, 0

    def on_validation_batch_start(self, trainer: pl.Trainer, *_) -> None:
        self.seen += not trainer.sanity_checking
        if self.seen > self.kill.after:
            os.kill(os.getpid(), self.kill.signal)


def kill_in_writing(kill: Kill) -> None:
    """Let a call of fsync, between the writing of a file and its renaming, kill this process."""
    calls, fsync = 0, os.fsync

    def counted(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > kill.after:
            os.kill(os.getpid(), kill.signal)
        fsync(descriptor)

    os.fsync = counted


def kill_anywhere(kill: Kill) -> None:
    """Kill this process after some time of the processor, in the middle of whatever it does."""
    if kill.signal == signal.SIGTERM:
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_PROF, kill.after)  # SIGPROF itself ends a process as SIGKILL does


def fit(args: list[str], folder: Path, kill: Kill | None, environment: dict[str, str]) -> None:
    """Type `main.py fit` in a folder; a kill may end it."""
    os.chdir(folder)
    os.environ |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", **environment}
    output = os.open(f"output-{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1), os.dup2(output, 2)
    torch.set_num_threads(1)
    from cli.command_line import run_cli

    callbacks = []
    if kill and kill.way == "anywhere":
        kill_anywhere(kill)
    if kill and kill.way == "in writing":
        kill_in_writing(kill)
    if kill and kill.way == "in validation":
        callbacks = [KillInValidation(kill)]
    started = time.process_time()
    run_cli(["fit", *args], callbacks=callbacks)
    Path("seconds.txt").write_text(str(time.process_time() - started))


def start(function: Callable[..., None], *args: object) -> BaseProcess:
    process = FORK.Process(target=function, args=args)
    process.start()
    return process


def fit_alone(
    args: list[str], folder: Path, kill: Kill | None, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """`main.py fit` in one process.

    Returns:
        Its exit status, and what it printed.
    """
    process = start(fit, args, folder, kill, environment or {})
    process.join()
    said = "".join(path.read_text()[-2000:] for path in folder.glob(f"output-{process.pid}.txt"))
    assert "error:" not in said, said
    return process.exitcode, said


def fit_together(args: list[str], folder: Path, kill: GroupKill | None) -> tuple[int, str]:
    """`main.py fit` in two processes on one CPU; see `fit_alone`."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
    command = [sys.executable, "-m", "tests.dying_main", "fit", *args]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"KILL": json.dumps(asdict(kill)) if kill else ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,
    )
    one = kill is not None and kill.rank is not None and kill.signal == signal.SIGKILL
    assert "error:" not in done.stdout or (one and "error: Another process" in done.stdout), done.stdout
    if kill is not None and kill.rank is None and kill.signal == signal.SIGTERM:
        assert done.returncode in (0, 143), done.stdout  # 0 where it came after the end
    return done.returncode, done.stdout


def run_killed(
    flags: list[str],
    folder: Path,
    kills: list[K],
    fit: Callable[[list[str], Path, K | None], tuple[int, str]],
    check: Callable[[Path], None],
) -> tuple[Path, int]:
    """A run that is killed and resumed as often as there are kills, and then to its end.

    Returns:
        Its run directory, and how many of the kills met a living process.
    """
    killed, checkpoint = 0, None
    for kill in [*kills, None]:
        args = ["--ckpt_path", str(checkpoint)] if checkpoint else flags
        status, said = fit(args, folder, kill)
        killed += status != 0
        assert "Traceback" not in said, said
        assert kill or status == 0, said
        runs = sorted(folder.glob("runs/*/*/version_*"), key=lambda path: int(path.name.split("_")[1]))
        if runs:
            check(runs[-1])
            checkpoint = runs[-1] if list(runs[-1].glob("checkpoints/*.ckpt")) else None
        if checkpoint and status == 0:
            break
    assert checkpoint is not None
    return checkpoint, killed


def check_whole(run_dir: Path) -> None:
    """Every checkpoint can be read, at every moment."""
    for path in run_dir.glob("checkpoints/*.ckpt"):
        assert not find_damage(path) and resumable_step(path) >= 0, path


def rows(run_dir: Path) -> list[tuple[tuple[str, str], ...]]:
    """The rows of metrics.csv, sorted, without rates, which depend on the machine."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        content = list(csv.DictReader(file))
    kept = []
    for row in content:
        values = {name: value for name, value in row.items() if value and "images_per_s" not in name}
        kept.append(tuple(sorted(values.items())))
    return sorted(kept)


def same_weights(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same weights, to the bit, those beside an average too."""
    a, b = (torch.load(path, map_location="cpu", weights_only=True) for path in (first, second))
    return all(
        a[part].keys() == b[part].keys() and all(torch.equal(a[part][name], b[part][name]) for name in a[part])
        for part in ("state_dict", "current_model_state")
        if part in a
    )


def draw_kill(rng: random.Random, seconds: float, validations: int, writings: int) -> Kill:
    """A random kill of a run of so many seconds of the processor, validation batches and calls of fsync."""
    way = rng.choice(WAYS)
    latest = {"anywhere": seconds, "in validation": validations, "in writing": writings}[way]
    after = rng.uniform(0.1, 0.9) * latest
    return Kill(way, after if way == "anywhere" else int(after), rng.choice([signal.SIGKILL, signal.SIGTERM]))
