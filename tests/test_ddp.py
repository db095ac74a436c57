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


def test_two_processes_share_one_run_and_count_each_image_once(here):
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, "--trainer.max_epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert [p.name for p in Path("runs/digits/resnet20").iterdir()] == ["version_0"]
    checkpoint = torch.load("runs/digits/resnet20/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # 32 images in batches of 8 over both: 4 each
    with open("runs/digits/resnet20/version_0/metrics.csv") as file:
        in_fit = next(float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"])
    alone = type_it("validate", "--ckpt_path", "runs/digits/resnet20/version_0/checkpoints/last.ckpt")
    assert float(re.search(r"val/loss\D+([0-9.]+)", alone.stdout)[1]) == pytest.approx(in_fit, rel=1e-4)
    results = []
    for devices in (TWO, []):
        done = type_it("test", "--ckpt_path", "runs/digits/resnet20", *devices, "--data.test_size", 5)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(Path("runs/digits/resnet20/version_0/test-best-center.json").read_text()))
    assert results[0]["images"] == results[1]["images"] == 5
    assert abs(results[0]["metrics"]["test/loss"] - results[1]["metrics"]["test/loss"]) < 1e-5


UNSHAREABLE = [
    (["--data.batch_size", 9], "batch_size 9 is for all devices together and cannot be divided among 2"),
    pytest.param(["--data.val_size", 1], "The val set has 1 image, fewer than the 2 devices", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("flags", "message"), UNSHAREABLE)
def test_what_cannot_be_shared_out_is_said_in_one_sentence(here, flags, message):
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, *flags)
    assert done.returncode != 0 and message in done.stderr
    assert not list(here.rglob("version_*"))
