"""Two processes on one CPU."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.conftest import DIGITS, HOME, STEP_CHECKPOINTS, TINY

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
OVERLAY = ["--config", HOME / "configs/overlays/ddp_2cpu.yaml"]


def type_it(*args: object, launch: Sequence[str] = (str(HOME / "main.py"),)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, *map(str, args)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_two_processes_share_one_run_and_train_as_one(run, here, capsys):
    # Of 9 images to validate on, one process has 2 batches of 4 and the other has one
    fit = ["fit", "--config", DIGITS, *TINY, "--data.val_size", 9, "--trainer.max_epochs", 1, "--model.dropout", 0.5]
    fit += ["--trainer.precision", "64-true", "--config", HOME / "configs/overlays/gradient_flow.yaml"]
    done = type_it(*fit, *OVERLAY, "--trainer.callbacks.equal_to_one_process", "true")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert [p.name for p in Path("runs/digits/resnet20").iterdir()] == ["version_0"]
    checkpoint = torch.load("runs/digits/resnet20/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4  # 32 images in batches of 8 over both: 4 each
    with open("runs/digits/resnet20/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    in_fit = next(float(row["val/loss"]) for row in rows if row["val/loss"])
    rates = {name: float(rate) for name, rate in rows[-1].items() if name.startswith("train/images_per_s")}
    assert rates.pop("train/images_per_s") == pytest.approx(sum(rates.values()))
    assert [*rates] == ["train/images_per_s_rank_0", "train/images_per_s_rank_1"]
    run("validate", "--ckpt_path", "runs/digits/resnet20/version_0/checkpoints/last.ckpt")
    assert float(re.search(r"val/loss\D+([0-9.]+)", capsys.readouterr().out)[1]) == pytest.approx(in_fit, rel=1e-4)
    run(*fit, "--trainer.callbacks+=callbacks.DDP")
    one = torch.load("runs/digits/resnet20/version_1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert max((one[name] - checkpoint["state_dict"][name]).abs().max() for name in one) < 1e-9
    norms = [Path(f"runs/digits/resnet20/version_{version}/gradient_flow.csv").read_bytes() for version in (0, 1)]
    assert norms[0] == norms[1] and norms[0].count(b"\n") == 21


@pytest.mark.slow
def test_processes_that_torchrun_starts_know_the_run_directory(here):
    """Only the first one makes it; averaging reads the checkpoints in every process."""
    average = ["--config", HOME / "configs/overlays/average_last.yaml", "--trainer.callbacks.count", 2]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", str(HOME / "main.py")]
    done = type_it("fit", "--config", DIGITS, *average, *TINY, *TWO, "--trainer.max_epochs", 3, launch=launch)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in Path("runs").iterdir()] == ["digits"]
    assert Path("runs/digits/resnet20/version_0/checkpoints/averaged.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 2, 5, 63, 64, 65])
def test_two_processes_and_one_find_the_same_errors(run, tiny_run, images):
    test = ["test", "--ckpt_path", tiny_run, "--data.test_size", images]
    done = type_it(*test, *TWO)
    if images == 1:
        assert done.returncode == 1 and "fewer than the 2 devices" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    results = sorted(tiny_run.glob("test-best-center*.json"))
    together = json.loads(results[-1].read_text())
    results[-1].unlink()
    run(*test)
    alone = json.loads(results[-1].read_text())
    assert together["images"] == alone["images"] == images
    for name in ("test/top1_error", "test/top5_error"):
        assert together["metrics"][name] == alone["metrics"][name]
    assert abs(together["metrics"]["test/loss"] - alone["metrics"]["test/loss"]) < 1e-5


@pytest.mark.slow
def test_two_processes_go_on_between_two_steps_to_the_same_bits(here):
    saver = (
        "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: inside, monitor: val/loss}}"
    )
    inside = ["--trainer.accumulate_grad_batches", 2, "--trainer.val_check_interval", 3, "--trainer.max_epochs", 1]
    done = type_it("fit", "--config", DIGITS, *TINY, *inside, f"--trainer.callbacks+={saver}", *TWO)
    assert done.returncode == 0, done.stderr
    folder = here / "runs/digits/resnet20/version_0/checkpoints"
    whole = torch.load(folder / "last.ckpt")["state_dict"]
    done = type_it("fit", "--ckpt_path", folder / "inside.ckpt")
    assert done.returncode == 0, done.stderr
    resumed = torch.load(folder / "last.ckpt")["state_dict"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_two_processes_and_one_train_alike(run, here, norm):
    """Twenty steps in float64; in float32 rounding alone makes a difference of 3e-4."""
    record = "--trainer.callbacks+=tests.dying_process.RecordLosses"
    fit = ["fit", "--config", DIGITS, *TINY, "--trainer.precision", "64-true", "--trainer.max_epochs", 5]
    fit += ["--model.norm", norm, "--model.optimizer.lr", 0.01, record]
    sync = ["--trainer.sync_batchnorm", "true"] if norm == "batch" else []
    done = type_it(*fit, "--trainer.callbacks.path=two.json", *TWO, *sync)
    assert done.returncode == 0, done.stderr
    assert ("SyncBatchNorm: 19 layers over 2 processes." in done.stdout) == bool(sync)
    two = torch.load("runs/digits/resnet20/version_0/checkpoints/last.ckpt")["state_dict"]
    run(*fit, "--trainer.callbacks.path=one.json")
    losses = [json.loads((here / f"{name}.json").read_text()) for name in ("one", "two")]
    assert len(losses[0]) == 20
    assert max(abs(one - two) for one, two in zip(*losses, strict=True)) < 1e-10
    one = torch.load("runs/digits/resnet20/version_1/checkpoints/last.ckpt")["state_dict"]
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-9
    run("test", "--ckpt_path", "runs/digits/resnet20/version_0")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_is_killed_the_other_ends_with_one_sentence(here, rank):
    kill = ["--trainer.callbacks+=tests.dying_process.Kill", "--trainer.callbacks.step=5"]
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, *kill, f"--trainer.callbacks.rank={rank}")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.count("error: Another process of this command has ended, or cannot be reached") == 1
    assert Path("runs/digits/resnet20/version_0/checkpoints/last.ckpt").is_file()


UNSHAREABLE = [
    (["--data.batch_size", 9], "batch_size 9 is for all devices together and cannot be divided among 2"),
    (["--data.val_size", 1], "The val set has 1 image, fewer than the 2 devices"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "message"), UNSHAREABLE)
def test_what_cannot_be_shared_out_is_said_in_one_sentence(here, flags, message):
    done = type_it("fit", "--config", DIGITS, *TINY, *TWO, *flags)
    assert done.returncode != 0 and message in done.stderr
    assert not list(here.rglob("version_*"))


# The batch is four times that of the recipe, which is reached after two epochs
SCALED = ["--trainer.callbacks.reference_batch_size", 2, "--trainer.callbacks.warmup_epochs", 2]


AVERAGED = ["fit", "--config", DIGITS, "--config", HOME / "configs/overlays/ema.yaml"]


@pytest.mark.slow
def test_a_scaled_run_of_two_processes_is_that_of_one(run, here):
    """In float64, with SyncBatchNorm, EMA and recomputed statistics."""
    options = [*TINY, "--trainer.precision", "64-true", "--model.optimizer.lr", 0.01]
    done = type_it(*AVERAGED, *OVERLAY, *options, *SCALED)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    said = "2 devices: 4 images each of a batch of 8; SyncBatchNorm (19 layers); learning rate x 4 (the recipe's batch "
    assert f"{said}is 2), reached after 2 epochs; scaling efficiency" in done.stdout
    run(*AVERAGED, *options, "--trainer.callbacks+=callbacks.DDP", *SCALED)
    files = [f"runs/digits/resnet20/version_{number}/checkpoints/last.ckpt" for number in (0, 1)]
    two, one = (torch.load(file)["state_dict"] for file in files)
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-9
    run("test", "--ckpt_path", files[0])


@pytest.mark.slow
def test_a_scaled_run_of_two_processes_is_resumed_inside_its_warm_up_to_the_same_bits(here, tmp_path):
    every_step = tmp_path / "every_step.yaml"
    every_step.write_text(f"trainer:\n  callbacks+:{STEP_CHECKPOINTS}")
    done = type_it(*AVERAGED, "--config", every_step, *OVERLAY, *TINY, *SCALED)
    assert done.returncode == 0, done.stderr
    folder = here / "runs/digits/resnet20/version_0/checkpoints"
    whole = torch.load(folder / "last.ckpt")
    done = type_it("fit", "--ckpt_path", folder / "step-5.ckpt")
    assert done.returncode == 0, done.stderr
    resumed = torch.load(folder / "last.ckpt")
    assert all(torch.equal(whole["state_dict"][name], resumed["state_dict"][name]) for name in whole["state_dict"])
    assert whole["optimizer_states"][0]["param_groups"] == resumed["optimizer_states"][0]["param_groups"]


@pytest.mark.slow
def test_processes_whose_weights_differ_end_with_one_sentence(here):
    disturb = ["--trainer.callbacks+=tests.dying_process.Disturb"]
    done = type_it("fit", "--config", DIGITS, *OVERLAY, *TINY, *disturb)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "error: net.conv1.weight is not the same on rank 1 as on rank 0 (1 of " in done.stderr


@pytest.mark.slow
def test_a_net_without_batch_norm_is_refused_by_one_process(here):
    done = type_it("fit", "--config", DIGITS, *OVERLAY, *TINY, "--trainer.callbacks.sync_batchnorm", "true",
                   "--model.norm", "group")  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert "error: sync_batchnorm is true for a LitResNet, and it has no BatchNorm: leave it out." in done.stderr
