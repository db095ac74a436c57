"""Runs that were stopped between a batch and what follows it, or whose callbacks had changed the model."""

import csv
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning

from checkpointing.checkpoint_io import AtomicCheckpointIO
from checkpointing.integrity import find_damage
from tests.checkpointing.test_resume import CYCLE, EXPERIMENT, ONE_CYCLE, same
from tests.conftest import DIGITS, TINY

TESTS = ["--allow", "tests"]


@pytest.fixture
def experiment(here: Path) -> Path:
    path = here / "noise" / "net.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    return path


def rows(folder: Path) -> list[tuple[tuple[str, str], ...]]:
    """The rows of metrics.csv without rates."""
    with (folder / "metrics.csv").open(newline="") as file:
        content = list(csv.DictReader(file))
    kept = [{k: v for k, v in row.items() if v and "images_per_s" not in k} for row in content]
    return sorted(tuple(sorted(row.items())) for row in kept if len(row) > 2)


@pytest.mark.parametrize(
    ("flags", "cuts"),
    [
        ([], [4, 12]),  # killed in the validation of an epoch, of the last one too
        pytest.param(["--trainer.val_check_interval", 0.5], [2, 4, 6], marks=pytest.mark.slow),  # inside an epoch
        # And where no validation follows the last batch
        pytest.param(["--trainer.val_check_interval", 3], [3, 4], marks=pytest.mark.slow),
        pytest.param(["--trainer.limit_val_batches", 0], [4, 8], marks=pytest.mark.slow),
        pytest.param(["--trainer.check_val_every_n_epoch", 2], [4, 8], marks=pytest.mark.slow),
        pytest.param(["--trainer.accumulate_grad_batches", 2], [2, 4], marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_after_an_epochs_last_batch_goes_on_with_what_follows(run, experiment, flags, cuts):
    run("fit", "--config", experiment, "--trainer.max_epochs", 3, *flags)
    whole = Path("runs/noise/net/version_0")
    for number, cut in enumerate(cuts, start=1):
        copy = Path(f"runs/noise/net/version_{number}")
        shutil.copytree(whole, copy)
        (copy / "checkpoints" / "last.ckpt").unlink()
        run("fit", "--ckpt_path", copy / "checkpoints" / f"step-{cut}.ckpt", *TESTS)
        for name in ("last", "best"):
            path = whole / "checkpoints" / f"{name}.ckpt"
            assert not path.exists() or same(path, copy / "checkpoints" / path.name), f"{name} from step {cut}"
        assert rows(whole) == rows(copy), f"resumed from step {cut}"
        counts = [torch.load(run / "checkpoints" / "last.ckpt")["loops"]["fit_loop"] for run in (whole, copy)]
        progress = [
            [count[name]["current"] for name in ("epoch_progress", "epoch_loop.batch_progress")] for count in counts
        ]
        assert progress[0] == progress[1]


# Flags of a run of max_steps, and the step of the checkpoint that was left when it was killed after its last step
LAST_STEPS = [
    (["--trainer.max_steps", 8], 8),  # in the validation at an epoch's end
    (["--trainer.max_steps", 6, "--trainer.val_check_interval", 0.5], 6),  # in one inside an epoch
    (["--trainer.max_steps", 7], 7),  # before the end of the epoch that is cut short
    (["--trainer.max_steps", 8, "--trainer.limit_val_batches", 0], 8),
    (["--trainer.max_steps", 3, "--trainer.accumulate_grad_batches", 2], 3),
    (["--trainer.max_steps", 7, "--trainer.max_epochs", 5], 7),
    (["--trainer.max_steps", 11, "--trainer.max_epochs", 3, "--trainer.check_val_every_n_epoch", 2], 11),
]


@pytest.mark.parametrize(
    ("flags", "cut"),
    [*LAST_STEPS[:3], *(pytest.param(*each, marks=pytest.mark.slow) for each in LAST_STEPS[3:])],
)
def test_a_run_killed_after_its_last_step_does_what_was_missing(run, experiment, capsys, flags, cut):
    run("fit", "--config", experiment, "--trainer.max_epochs", -1, *flags)
    whole, copy = Path("runs/noise/net/version_0"), Path("runs/noise/net/version_1")
    shutil.copytree(whole, copy)
    for name in ("last", "best"):
        path = copy / f"checkpoints/{name}.ckpt"
        if path.exists() and torch.load(path)["global_step"] == cut:
            path.unlink()
    capsys.readouterr()
    run("fit", "--ckpt_path", copy, *TESTS)
    assert "Nothing to do" not in capsys.readouterr().out
    assert rows(whole) == rows(copy)
    for path in whole.glob("checkpoints/*.ckpt"):
        assert same(path, copy / "checkpoints" / path.name), path
    states = [torch.load(each / "checkpoints/last.ckpt")["loops"]["fit_loop"] for each in (whole, copy)]
    names = ("epoch_progress", "epoch_loop.batch_progress")
    whole_counts, copied_counts = ([state[name]["current"] for name in names] for state in states)
    assert whole_counts == copied_counts
    for each in (whole, copy):  # ended as it should
        with pytest.raises(SystemExit) as stop:
            run("fit", "--ckpt_path", each, *TESTS)
        assert not stop.value.code and "Nothing to do" in capsys.readouterr().out


class Freeze(pl.Callback):
    """Freezes the first layer in the second epoch, and remembers nothing."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            pl_module.net[0].requires_grad_(False)


class Thaw(BaseFinetuning):
    """Trains the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


@pytest.mark.parametrize("callback", ["Freeze", "Thaw"])
def test_layers_that_a_callback_froze_or_thawed_stay_so(run, experiment, callback):
    text = EXPERIMENT.replace("      init_args: {milestones: [1, 1.5, 2.25]}\n", "")
    experiment.write_text(text.replace("callbacks.StepLRDecay", f"tests.checkpointing.test_interrupted.{callback}"))
    run("fit", "--config", experiment, "--trainer.max_epochs", 4)
    whole, copy = Path("runs/noise/net/version_0"), Path("runs/noise/net/version_1")
    shutil.copytree(whole, copy)
    (copy / "checkpoints" / "last.ckpt").unlink()
    for cut in (8, 10):
        run("fit", "--ckpt_path", copy / "checkpoints" / f"step-{cut}.ckpt", *TESTS)
        assert same(whole / "checkpoints" / "last.ckpt", copy / "checkpoints" / "last.ckpt"), cut


class DeleteRun(pl.Callback):
    """Deletes the run directory after some steps, as another terminal might."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 6:
            shutil.rmtree("runs/digits/resnet20/version_0")


def test_a_run_directory_that_is_deleted_ends_the_run_in_a_sentence(fails, here):
    flags = ["--trainer.callbacks+=tests.checkpointing.test_interrupted.DeleteRun"]
    assert "was deleted or moved while the run was going on" in fails("fit", "--config", DIGITS, *TINY, *flags)
    assert not Path("runs/digits/resnet20/version_0").exists()


@pytest.mark.parametrize("calls", [0, 3, 6, 9])
def test_a_full_disk_ends_the_run_in_a_sentence_and_keeps_the_last_checkpoint(run, fails, here, monkeypatch, calls):
    """After so many files that could be written: the config, run.json, metrics.csv, best and last of three epochs."""
    fsync, done = os.fsync, []

    def full(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) > calls * 2:  # each file, and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr("checkpointing.atomic.os.fsync", full)
    assert "cannot be written (No space left on device)" in fails("fit", "--config", DIGITS, *TINY)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    written = list(Path("runs/digits/resnet20/version_0/checkpoints").glob("*.ckpt"))
    assert not any(map(find_damage, written)) and bool(written) == (calls >= 6)
    if written:
        run("fit", "--ckpt_path", "runs/digits/resnet20")


def test_average_best_takes_only_epochs_that_were_validated(run, here):
    best = ["--config", "configs/overlays/average_best.yaml", "--trainer.callbacks.count", 2]
    best[1] = str(Path(DIGITS).parents[1] / "overlays" / "average_best.yaml")
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 4, *best, "--trainer.check_val_every_n_epoch", 2)
    import json

    content = json.loads(Path("runs/digits/resnet20/version_0/averaging.json").read_text())
    assert content["members"] == ["epoch_1.ckpt", "epoch_3.ckpt"]


def test_what_was_logged_before_a_checkpoint_is_in_the_file_before_it(run, here, monkeypatch):
    """Also the learning rate, which its callback logs into the memory of the logger."""
    steps, write = [], AtomicCheckpointIO.save_checkpoint

    def spy(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:
        with (Path(path).parents[1] / "metrics.csv").open(newline="") as file:
            logged = {int(row["step"]) for row in csv.DictReader(file) if row["lr-SGD"]}
        steps.append(checkpoint["global_step"])
        assert logged == set(range(steps[-1]))
        write(self, checkpoint, path, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", spy)
    saver = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]
    run("fit", "--config", DIGITS, *TINY, *saver, "--trainer.callbacks.every_n_train_steps=3")
    assert {3, 6, 9} <= set(steps)


def test_what_follows_the_training_loss_decides_as_in_the_whole_run(run, here):
    """Resumed inside an epoch, and after its last batch: the mean is that over the whole epoch."""
    Path("noise").mkdir()
    plateau = "lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: train/loss, patience: 0, threshold: 0.3}"
    Path("noise/net.yaml").write_text(CYCLE.replace(ONE_CYCLE, plateau).replace("lr_interval: step", ""))
    run("fit", "--config", "noise/net.yaml", "--trainer.max_epochs", 4)
    whole = Path("runs/noise/net/version_0")
    with (whole / "metrics.csv").open() as file:
        assert len({row["lr-SGD"] for row in csv.DictReader(file) if row["lr-SGD"]}) > 1
    for number, cut in enumerate((2, 4, 7), start=1):
        copy = whole.with_name(f"version_{number}")
        shutil.copytree(whole, copy)
        run("fit", *TESTS, "--ckpt_path", copy / f"checkpoints/step-{cut}.ckpt")
        assert rows(whole) == rows(copy), f"resumed from step {cut}"
        assert same(whole / "checkpoints/last.ckpt", copy / "checkpoints/last.ckpt")
