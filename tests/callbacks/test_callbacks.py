import csv
import math
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import nn

from callbacks import PreciseBN, RunLogger, StepLRDecay, Throughput
from callbacks.precise_bn import update_bn_stats
from checkpointing.metrics_file import truncate_metrics
from checkpointing.resume import rebase_paths
from checkpointing.run_dir import claim_version, find_checkpoint, release_version, version_folder
from datamodules import Synthetic
from datamodules.augment import normalise
from errors import UserError
from lit_models import LitResNet
from tests.conftest import DIGITS, TINY


class Rates(pl.Callback):
    """The learning rate of every step that was taken."""

    def __init__(self):
        self.taken = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.taken.append(optimizer.param_groups[0]["lr"])


def fit(tmp_path, decay, epochs, model=None, ckpt_path=None, max_steps=-1, extra=()):
    rates = Rates()
    model = model or LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.4))
    data = Synthetic(classes=4, size=8, train_size=10, val_size=0, test_size=4, batch_size=4)  # 3 steps an epoch
    trainer = pl.Trainer(
        max_epochs=epochs, max_steps=max_steps, callbacks=[decay, rates, *extra], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    return rates.taken, trainer


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"step_size": 2}, [0.4] * 6 + [0.04] * 6),
        ({"step_size": 1, "gamma": 0.5}, [0.4] * 3 + [0.2] * 3 + [0.1] * 3 + [0.05] * 3),
        ({"milestones": [1, 3]}, [0.4] * 3 + [0.04] * 6 + [0.004] * 3),
        ({"milestones": [4, 7], "interval": "step"}, [0.4] * 4 + [0.04] * 3 + [0.004] * 5),
        ({"step_size": 5, "interval": "step"}, [0.4] * 5 + [0.04] * 5 + [0.004] * 2),
        ({"step_size": 4 / 3, "gamma": 0.5}, [0.4] * 4 + [0.2] * 4 + [0.1] * 4),
        (
            {"milestones": [6], "interval": "step", "warmup": 4, "warmup_factor": 0.1, "warmup_shape": "constant"},
            [0.04] * 4 + [0.4] * 2 + [0.04] * 6,
        ),
        (
            {"milestones": [3], "warmup": 1, "warmup_factor": 0.25, "warmup_shape": "linear"},
            [0.1, 0.2, 0.3] + [0.4] * 6 + [0.04] * 3,
        ),
    ],
)
def test_step_decay_straight_and_resumed(tmp_path, settings, expected):
    straight, _ = fit(tmp_path, StepLRDecay(**settings), epochs=4)
    assert straight == pytest.approx(expected, rel=1e-6)
    first, _ = fit(tmp_path, StepLRDecay(**settings), epochs=2)
    second, _ = fit(tmp_path, StepLRDecay(**settings), epochs=4, ckpt_path=tmp_path / "x.ckpt")
    assert first + second == straight


def test_step_decay_equals_torchs_multi_step(tmp_path):
    scheduler = partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 2], gamma=0.2)
    model = LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.4), lr_scheduler=scheduler)
    theirs, _ = fit(tmp_path, Throughput(), epochs=3, model=model)
    ours, _ = fit(tmp_path, StepLRDecay(milestones=[1, 2], gamma=0.2), epochs=3)
    assert ours == pytest.approx(theirs)


def test_the_monitor_sees_at_an_epochs_start_what_the_epoch_uses(tmp_path):
    logger = RunLogger(save_dir=tmp_path, name="x", version=0)
    trainer = pl.Trainer(
        max_epochs=3, callbacks=[StepLRDecay(step_size=1), LearningRateMonitor("epoch")], logger=logger,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    data = Synthetic(classes=4, size=8, train_size=10, val_size=0, test_size=4, batch_size=4)
    trainer.fit(LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.4)), data)
    with open(tmp_path / "x" / "version_0" / "metrics.csv") as file:
        rows = [(int(row["step"]), float(row["lr-SGD"])) for row in csv.DictReader(file) if row["lr-SGD"]]
    assert [step for step, _ in rows] == [0, 3, 6] and [rate for _, rate in rows] == pytest.approx([0.4, 0.04, 0.004])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either step_size or milestones"),
        ({"step_size": 2, "milestones": [1]}, "either step_size or milestones"),
        ({"step_size": 0}, "step_size is 0"),
        ({"step_size": math.nan}, "step_size is nan"),
        ({"milestones": [3, 1]}, "must ascend"),
        ({"milestones": [1, math.nan]}, "must ascend"),
        ({"step_size": 1, "warmup": math.nan}, "warmup nan"),
        ({"step_size": 1, "gamma": 0}, "gamma 0"),
        ({"step_size": 1, "warmup": -1}, "warmup -1"),
    ],
)
def test_step_decay_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        StepLRDecay(**settings)


def test_step_decay_refuses_a_second_hand_on_the_rate(tmp_path):
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    model = LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.4), lr_scheduler=scheduler)
    with pytest.raises(ValueError, match="StepLRDecay and the model's lr_scheduler StepLR"):
        fit(tmp_path, StepLRDecay(step_size=1), epochs=1, model=model)
    with pytest.raises(ValueError, match="two StepLRDecay"):
        fit(tmp_path, StepLRDecay(step_size=1), epochs=1, extra=[StepLRDecay(step_size=2)])


def test_one_cycle_takes_the_length_of_the_run(tmp_path):
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.4, total_steps=None)
    model = LitResNet(
        4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.4, momentum=0.9), lr_scheduler=cycle, lr_interval="step"
    )
    rates, trainer = fit(tmp_path, Throughput(), epochs=3, model=model)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 9 and max(rates) == pytest.approx(0.4, rel=0.05)
    with pytest.raises(ValueError, match="laid out for 9 steps and this run takes 12"):
        fit(tmp_path, Throughput(), epochs=4, model=model, ckpt_path=tmp_path / "x.ckpt")


def test_throughput_counts_images_over_time(tmp_path, monkeypatch):
    clock = iter(float(t) for t in range(1000))  # each look at the clock is a second later
    monkeypatch.setattr("callbacks.throughput.time.perf_counter", lambda: next(clock))
    _, trainer = fit(tmp_path, Throughput(), epochs=2)
    # 10 images in batches of 4, 4 and 2: after the first one 6 images in 2 seconds
    assert trainer.callback_metrics["train/images_per_s"] == 3.0


@pytest.mark.parametrize(
    ("flags", "validated"),
    [
        (["check_val_every_n_epoch", 2], [False, True, False, True]),
        (["check_val_every_n_epoch", 3], [False, False, True, False]),
        (["limit_val_batches", 0], [False] * 4),
        (["val_check_interval", 0.5], [True] * 4),
    ],
)
def test_a_line_of_progress_shows_validation_only_of_its_own_epoch(run, here, capsys, flags, validated):
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 4, f"--trainer.{flags[0]}", flags[1])
    lines = [line for line in capsys.readouterr().out.splitlines() if "train/loss" in line]
    assert ["val/loss" in line and "val/top1_error" in line for line in lines] == validated


def test_truncated_metrics_keep_the_whole_file(tmp_path):
    logger = RunLogger(save_dir=tmp_path, name="x", version=0)
    for step in range(6):
        logger.log_metrics({"a": step}, step)
    logger.save()
    again = RunLogger(save_dir=tmp_path, name="x", version=0)
    assert again.experiment is not None
    truncate_metrics(tmp_path / "x" / "version_0" / "metrics.csv", 4)
    again.log_metrics({"a": 40, "b": 1}, 4)
    again.save()
    folder = tmp_path / "x" / "version_0"
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [(row["a"], row["step"]) for row in rows] == [("0", "0"), ("1", "1"), ("2", "2"), ("3", "3"), ("40", "4")]
    assert len(list(csv.DictReader((folder / "metrics-until_step_5.csv").open()))) == 6


def test_each_run_claims_a_version_of_its_own(tmp_path):
    first, second = claim_version(tmp_path / "d" / "e"), claim_version(tmp_path / "d" / "e")
    assert [first.name, second.name] == ["version_0", "version_1"]
    (first / "config.yaml").touch()  # written before the run was refused
    release_version(first)
    assert not first.exists() and second.exists()
    release_version(second)
    assert not list(tmp_path.iterdir())


def test_a_version_can_be_chosen_once(tmp_path):
    assert claim_version(tmp_path / "e", 7).name == "version_7"
    assert claim_version(tmp_path / "e").name == "version_8"
    with pytest.raises(UserError, match=r"run_version is 7, and there is .*version_7: give another number"):
        claim_version(tmp_path / "e", 7)
    with pytest.raises(UserError, match="run_version is -1: it must be at least 0"):
        claim_version(tmp_path / "e", -1)


def test_a_run_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be made .*--runs"):
        claim_version(tmp_path / "file" / "x")


def test_checkpoints_are_found_by_file_version_and_experiment(tmp_path):
    for version, names in ((0, ("best", "last")), (9, ("best", "last")), (10, ("last",)), (11, ())):
        folder = tmp_path / f"version_{version}" / "checkpoints"
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.ckpt").touch()
    at = lambda version, name: tmp_path / f"version_{version}" / "checkpoints" / f"{name}.ckpt"  # noqa: E731
    assert find_checkpoint(tmp_path, "fit") == find_checkpoint(tmp_path, "test") == at(10, "last")
    assert find_checkpoint(tmp_path / "version_9", "test") == at(9, "best")
    assert find_checkpoint(tmp_path / "version_9", "fit") == at(9, "last")
    assert find_checkpoint(at(0, "best"), "fit") == at(0, "best")
    assert version_folder(at(0, "best")) == tmp_path / "version_0"
    assert version_folder(Path("/somewhere/x.ckpt")) is None
    (tmp_path / "version_11" / "config.yaml").touch()  # the run was stopped in its first epoch
    assert find_checkpoint(tmp_path, "fit") == at(10, "last")
    for wrong, message in (
        (tmp_path / "version_11", "its run was stopped before the first one, so start a new one"),
        (tmp_path / "version_11" / "checkpoints", "should be an experiment folder"),
        (tmp_path / "no", "There is no checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            find_checkpoint(wrong, "test")


def test_a_moved_run_keeps_its_best():
    state = {
        "dirpath": "/old/checkpoints", "best_model_path": "/old/checkpoints/best.ckpt", "kth_best_model_path": "",
        "last_model_path": "", "best_k_models": {"/old/checkpoints/best.ckpt": torch.tensor(0.1)},
    }  # fmt: skip
    rebase_paths(state, Path("/old/checkpoints"), Path("/new/checkpoints"))
    assert state["dirpath"] == "/new/checkpoints" and state["best_model_path"] == "/new/checkpoints/best.ckpt"
    assert list(state["best_k_models"]) == ["/new/checkpoints/best.ckpt"]


def test_precise_statistics_are_those_of_all_images_together():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    net.train()
    batches = [torch.randn(n, 3, 8, 8) * n for n in (2, 5, 3)]  # the batches drift
    update_bn_stats(net, net, batches)
    values = torch.cat([net[0](b).transpose(0, 1).flatten(1) for b in batches], dim=1)
    torch.testing.assert_close(net[1].running_mean, values.mean(1))
    torch.testing.assert_close(net[1].running_var, values.var(1))
    assert net[2].training and net[1].training and net[1].momentum == 0.1
    # the second norm saw what the first made of each batch, without dropout
    second = []
    for b in batches:
        x = net[0](b)
        x = nn.functional.batch_norm(x, None, None, net[1].weight, net[1].bias, training=True)
        second.append(net[3](x).transpose(0, 1).flatten(1))
    torch.testing.assert_close(net[4].running_mean, torch.cat(second, 1).mean(1))


@pytest.mark.parametrize("val_batches", [2, 0])
def test_statistics_are_recomputed_and_saved(run, here, val_batches):
    """The weights are those of a run without; what was validated is what a test finds in best.ckpt."""
    again = ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks.batches=4"]
    tiny = [*TINY, "--trainer.max_epochs", 1, "--trainer.limit_val_batches", val_batches]
    run("fit", "--config", DIGITS, *tiny)
    run("fit", "--config", DIGITS, *tiny, *again)
    states = [
        torch.load(f"runs/digits/resnet20/version_{k}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for k in (0, 1)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) == ("running_" not in name), name


def test_averaged_weights_get_statistics_of_their_own(run, here):
    average = ["--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"]
    average += ["--trainer.callbacks.decay=0.5", "--trainer.callbacks.use_buffers=false"]
    again = ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks.batches=4"]
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, *average, *again)
    folder = Path("runs/digits/resnet20/version_0")
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    averaged, current = state["state_dict"], state["current_model_state"]
    assert not torch.equal(averaged["net.conv1.weight"], current["net.conv1.weight"])
    assert not torch.equal(averaged["net.bn1.running_mean"], current["net.bn1.running_mean"])
    data = Synthetic(classes=6, size=16, train_size=32)
    data.load("fit")
    images = normalise(data.train_set.images, data.preprocessing["mean"], data.preprocessing["std"])
    seen = nn.functional.conv2d(images, averaged["net.conv1.weight"], padding=1).transpose(0, 1).flatten(1)
    torch.testing.assert_close(averaged["net.bn1.running_mean"], seen.mean(1))
    torch.testing.assert_close(averaged["net.bn1.running_var"], seen.var(1))
    with pytest.raises(SystemExit, match="stands before the averaging of weights"):
        run("fit", "--config", DIGITS, *TINY, *again, *average)


class Drawing(Synthetic):
    """Noise that keeps what was drawn for each training batch."""

    def __init__(self) -> None:
        super().__init__(4, 8, train_size=12, val_size=4, test_size=4, batch_size=4)
        self.drawn: list[float] = []

    def augment(self, images: torch.Tensor) -> torch.Tensor:
        self.drawn.append(float(torch.rand(())))
        return images


def test_statistics_are_taken_from_the_images_of_the_epoch_each_augmented_on_its_own():
    data, model = Drawing(), LitResNet(4, depth=20, optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[PreciseBN()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    first, again, second, once_more = (data.drawn[place : place + 3] for place in (0, 3, 6, 9))
    assert len(data.drawn) == 12 and len(set(data.drawn)) == 6
    assert first == again and second == once_more
