"""A resumed run has each of its rows once in W&B's files, as in metrics.csv."""

import shutil
from pathlib import Path

import pytest
import torch

from checkpointing.metrics_file import read_metrics
from checkpointing.transaction_log import HEADER, read_records, write_records
from checkpointing.wandb_rows import truncate_offline_rows
from cli.command_line import run_cli
from tests.conftest import DIGITS, STEP_CHECKPOINTS, TINY
from tests.wandb_files import of_type, parts, read_part

EPOCH = ("train/loss", "val/loss", "val/top1_error")


def rows_of(run_dir):
    return [record["item"] for part in parts(run_dir) for record in of_type(read_part(part), "history")]


def assert_complete(run_dir):
    rows = rows_of(run_dir)
    for name in EPOCH:
        assert [row["epoch"] for row in rows if name in row] == [0, 1, 2], name
    steps = [row["trainer/global_step"] for row in rows if "train/batch_loss" in row]
    assert steps == list(range(12))
    steps = [row["trainer/global_step"] for row in rows if "gradient_norm/00.conv1" in row]
    assert steps == [0, 3, 7, 11]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run of 12 steps, logged by W&B offline."""
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        flow = "    - class_path: callbacks.GradientFlow\n      init_args: {every_n_steps: 4}\n"
        Path("steps.yaml").write_text("trainer:\n  callbacks+:" + STEP_CHECKPOINTS + flow)
        run_cli(["fit", "--config", DIGITS, *TINY, "--config", "steps.yaml"])
    return folder


@pytest.fixture
def run_dir(finished, here, monkeypatch):
    """A copy of the run."""
    shutil.copytree(finished / "runs", "runs", symlinks=True)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return Path("runs/digits/resnet20/version_0")


def test_rows_that_a_resumed_run_repeats_are_removed_and_kept_in_a_copy(run, run_dir):
    (part,) = parts(run_dir)
    (log,) = part.glob("*.wandb")
    before = log.read_bytes()
    run("fit", "--ckpt_path", run_dir / "checkpoints/step-6.ckpt")
    assert_complete(run_dir)
    (copy,) = part.glob("*.wandb-until_step_*")
    assert copy.read_bytes() == before


@pytest.mark.slow
def test_rows_that_a_kill_has_taken_along_are_logged_again_from_the_metrics(run, run_dir):
    """As W&B leaves its file: cut off before the last rows, or before all of them."""
    (log,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    for part_left in (0.8, 0.3):
        records = list(read_records(log))
        write_records(log, records[: int(len(records) * part_left)])
    assert not any("val/loss" in row for row in rows_of(run_dir))
    assert torch.load(run_dir / "checkpoints/step-8.ckpt", weights_only=True)["global_step"] == 8
    run("fit", "--ckpt_path", run_dir / "checkpoints/step-8.ckpt")
    assert_complete(run_dir)
    assert len(read_metrics(run_dir / "metrics.csv")[1]) <= len(rows_of(run_dir))


def test_files_that_were_uploaded_or_cannot_be_read_are_left_alone(run_dir):
    (log,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    before = log.read_bytes()
    Path(f"{log}.synced").touch()
    assert max(row["trainer/global_step"] for row in truncate_offline_rows(run_dir, 4)) >= 11
    assert log.read_bytes() == before
    Path(f"{log}.synced").unlink()
    for damaged in (b"", b"no file of W&B's", HEADER + b"\0" * 100):
        log.write_bytes(damaged)
        assert truncate_offline_rows(run_dir, 4) == [] and log.read_bytes() == damaged
    log.write_bytes(before)
    assert max(row["trainer/global_step"] for row in truncate_offline_rows(run_dir, 4)) == 3
