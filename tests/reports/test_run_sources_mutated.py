"""Run directories that were damaged or changed at random are read without a traceback."""

import contextlib
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from errors import UserError
from reports.groups import group_runs
from reports.run import Run, State
from reports.run_sources.local import find_runs, read_run
from reports.run_sources.results import load_predictions
from tests.reports.run_folders import make_config, make_rows, write_run

NUMBER = re.compile(rb"-?\d+(\.\d+)?")
NASTY = [
    b"",
    b"nan",
    b"-1",
    b"1e400",
    b"null",
    b"true",
    b"'",
    b'"',
    b"[",
    b"{}",
    b"9" * 5000,
    b"\xff\xfe",
    b"\0",
    b"\x1b]0;x\x07",
]
NASTY += [b"*a", b"&a [*a]", b"!!python/object:os.system", b"- - - -", b"\r", b"1_000", b"0x10", b"../../etc", b"- 1\n"]


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 20))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def zero(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(rng.randrange(size))
        file.write(b"\0" * (size // 4))


def swap_numbers(path: Path, rng: random.Random) -> None:
    path.write_bytes(NUMBER.sub(lambda match: rng.choice(NASTY) if rng.random() < 0.1 else match[0], path.read_bytes()))


def swap_lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().split(b"\n")
    for _ in range(3):
        lines.insert(rng.randrange(len(lines)), rng.choice([*lines, *NASTY]))
    path.write_bytes(b"\n".join(lines))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def replace_by_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["/etc/passwd", path.name, "..", "/dev/zero", "nowhere", "config.yaml"]))


def replace_by_pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def nest(path: Path, rng: random.Random) -> None:
    path.write_bytes(
        rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"a: " * 3_000, b"- " * 100_000, b",\n" * 100_000])
    )


Mutation = Callable[[Path, random.Random], None]
MUTATIONS: list[Mutation] = [truncate, flip, zero, swap_numbers, swap_lines, remove, replace_by_folder, replace_by_link]
MUTATIONS += [replace_by_pipe, nest]


def check(run: Run, whole: Run) -> None:
    """What a report relies on."""
    assert run.state in get_args(State)
    assert run.reason.isprintable() and len(run.reason) < 400 and not re.search(r"root:|Traceback", run.reason)
    for curve in run.curves.values():
        assert len(curve.epochs) == len(curve.values) > 0 and (np.diff(curve.epochs) > 0).all()
        assert np.isfinite(curve.epochs).all() and curve.epochs[0] >= 0
    for result in run.results:
        assert all(isinstance(value, float) for value in result.metrics.values())
        with contextlib.suppress(UserError):
            load_predictions(result, run)
    assert 1 <= len({group.label for group in group_runs([whole, run])}) <= 2
    assert (isinstance(run.name, str) and run.seed is None) or isinstance(run.seed, int)


def mutate(path: Path, seed: int) -> list[str]:
    """Change one to three files of a run directory; returns what was done."""
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        files = [
            each for each in sorted(path.rglob("*")) if each.is_file() and not each.is_symlink() and each.stat().st_size
        ]
        file, change = rng.choice(files), rng.choice(MUTATIONS)
        change(file, rng)
        done.append(f"{change.__name__} {file.relative_to(path)}")
    return done


@pytest.mark.slow
def test_forty_mutated_runs_are_read(real_runs, tmp_path):
    source = real_runs / "digits/resnet20/version_0"
    whole = read_run(source)
    for seed in range(40):
        path = tmp_path / f"version_{seed}"
        shutil.copytree(source, path, symlinks=True)
        if seed % 5:  # W&B's files take a second each
            shutil.rmtree(path / "wandb")
        done = mutate(path, seed)
        try:
            check(read_run(path), whole)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {done}") from error
    assert len(find_runs([str(tmp_path)])) == 40


@pytest.mark.slow
def test_fifty_long_runs_are_read(tmp_path):
    """About 4,000 rows of 9 columns each."""
    source = write_run(tmp_path / "runs" / "digits" / "resnet20" / "version_0", 1, make_config(trainer__max_epochs=200))
    write_long(source / "metrics.csv")
    for number in range(1, 50):
        shutil.copytree(source, source.with_name(f"version_{number}"))
    runs = [read_run(path) for path in find_runs([str(tmp_path)])]
    assert len(runs) == 50 and {len(run.curves["val/loss"].values) for run in runs} == {200}


def write_long(path: Path) -> None:
    """A metrics.csv of 200 epochs, of 20 rows each."""
    names = sorted({name for row in make_rows(1) for name in row} | {"val/top5_error", "train/top5_error"})
    lines = [",".join(names)]
    for epoch in range(200):
        for batch in range(9):
            row = {"step": epoch * 90 + batch * 10, "epoch": epoch, "train/batch_loss": batch / 7}
            lines.append(",".join(str(row.get(name, "")) for name in names))
            lines.append(",".join(str({"step": row["step"], "lr-SGD": 0.1 / 3}.get(name, "")) for name in names))
        last = {"step": epoch * 90 + 89, "epoch": epoch}
        for prefix in ("val/", "train/"):
            row = last | {name: 1 / (epoch + 3) for name in names if name.startswith(prefix) and "batch" not in name}
            lines.append(",".join(str(row.get(name, "")) for name in names))
    path.write_text("\n".join(lines) + "\n")
