"""Two processes on one CPU."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import DIGITS, HOME, TINY

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def type_it(*args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HOME / "main.py"), *map(str, args)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_two_processes_share_one_run_and_count_each_image_once(run, here, capsys):
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, "--trainer.max_epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert [p.name for p in Path("runs/digits/resnet20").iterdir()] == ["version_0"]
    checkpoint = torch.load("runs/digits/resnet20/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # 32 images in batches of 8 over both: 4 each
    with open("runs/digits/resnet20/version_0/metrics.csv") as file:
        in_fit = next(float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"])
    run("validate", "--ckpt_path", "runs/digits/resnet20/version_0/checkpoints/last.ckpt")
    assert float(re.search(r"val/loss\D+([0-9.]+)", capsys.readouterr().out)[1]) == pytest.approx(in_fit, rel=1e-4)
    test = ["test", "--ckpt_path", "runs/digits/resnet20", "--data.test_size", 5]
    stored = Path("runs/digits/resnet20/version_0/test-best-center.json")
    done = type_it(*test, *TWO)
    assert done.returncode == 0, done.stderr
    together = json.loads(stored.read_text())
    run(*test)
    alone = json.loads(stored.read_text())
    assert together["images"] == alone["images"] == 5
    assert abs(together["metrics"]["test/loss"] - alone["metrics"]["test/loss"]) < 1e-5


UNSHAREABLE = [
    (["--data.batch_size", 9], "batch_size 9 is for all devices together and cannot be divided among 2"),
    pytest.param(["--data.val_size", 1], "The val set has 1 image, fewer than the 2 devices", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("flags", "message"), UNSHAREABLE)
def test_what_cannot_be_shared_out_is_said_in_one_sentence(here, flags, message):
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, *flags)
    assert done.returncode != 0 and message in done.stderr
    assert not list(here.rglob("version_*"))
