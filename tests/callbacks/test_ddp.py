"""callbacks.DDP: the learning rate in one process, the ranks in two forked ones."""

import os
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import nn
from torch.optim import lr_scheduler

from callbacks import DDP, StepLRDecay
from callbacks.equal_ranks import check_equal_ranks
from callbacks.scaling import measure_scaling_efficiency
from datamodules import Synthetic
from errors import UserError
from lit_models import LitResNet
from tests.conftest import DIGITS, HOME, TINY
from tests.ranks import run_ranks


class Rates(pl.Callback):
    """The learning rate of every step that was taken."""

    def __init__(self):
        self.taken = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.taken.append(optimizer.param_groups[0]["lr"])


def make(scheduler=None, interval="epoch", batch_size=4, **arguments):
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    model = LitResNet(4, depth=20, optimizer=optimizer, lr_scheduler=scheduler, lr_interval=interval, **arguments)
    return model, Synthetic(classes=4, size=8, train_size=12, val_size=0, test_size=4, batch_size=batch_size)


def fit(model, data, callbacks, epochs=4, ckpt_path=None, **arguments):
    rates = Rates()
    options = {"logger": False, "enable_checkpointing": False, "use_distributed_sampler": False} | arguments
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[*callbacks, rates], **quiet, **options)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return rates.taken, trainer


WITHOUT_WARMUP = [
    (None, "epoch"),
    pytest.param(partial(lr_scheduler.StepLR, step_size=1, gamma=0.5), "epoch", marks=pytest.mark.slow),
    (partial(lr_scheduler.CosineAnnealingLR, T_max=12), "step"),
    pytest.param(partial(lr_scheduler.MultiStepLR, milestones=[2, 5], gamma=0.5), "step", marks=pytest.mark.slow),
    (partial(lr_scheduler.CosineAnnealingLR, T_max=4), "epoch"),
]


@pytest.mark.parametrize(("scheduler", "interval"), WITHOUT_WARMUP)
def test_every_schedule_is_scaled_and_warmed_up(scheduler, interval):
    plain, _ = fit(*make(scheduler, interval), [])
    scaled, _ = fit(*make(scheduler, interval), [DDP(reference_batch_size=1, warmup_epochs=2)])
    # 3 steps an epoch: in 6 steps from the recipe's rate to 4 times that
    factors = [1 + 3 * min(1.0, step / 6) for step in range(12)]
    assert scaled == pytest.approx([rate * factor for rate, factor in zip(plain, factors, strict=True)], rel=1e-12)


def test_the_decay_callback_is_scaled_and_warmed_up():
    decay = {"milestones": [1, 3], "gamma": 0.1}
    plain, _ = fit(*make(), [StepLRDecay(**decay)])
    for order in (1, -1):
        callbacks = [DDP(reference_batch_size=2, warmup_epochs=1), StepLRDecay(**decay)][::order]
        scaled, _ = fit(*make(), callbacks)
        factors = [1 + min(1.0, step / 3) for step in range(12)]
        assert scaled == pytest.approx([rate * factor for rate, factor in zip(plain, factors, strict=True)])


def warm_then_cosine(optimizer):
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


ONE_CYCLE = partial(lr_scheduler.OneCycleLR, max_lr=0.4, total_steps=12)


@pytest.mark.parametrize("scheduler", [ONE_CYCLE, pytest.param(warm_then_cosine, marks=pytest.mark.slow)])
def test_a_recipe_that_warms_up_by_itself_is_not_warmed_up_twice(scheduler):
    plain, _ = fit(*make(scheduler, "step"), [])
    scaled, _ = fit(*make(scheduler, "step"), [DDP(reference_batch_size=1)])
    assert scaled == pytest.approx([4 * rate for rate in plain], rel=1e-12)
    decay = StepLRDecay(step_size=9, warmup=2)
    plain, _ = fit(*make(), [decay])
    assert fit(*make(), [DDP(reference_batch_size=1), decay])[0] == pytest.approx([4 * rate for rate in plain])


def test_at_the_recipes_own_batch_nothing_changes(capsys):
    weights = []
    for callbacks in ([], [DDP(reference_batch_size=4)]):
        model, data = make()
        fit(model, data, callbacks, epochs=2)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert capsys.readouterr().out == "1 device: 4 images each of a batch of 4.\n"


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_a_run_resumed_at_any_step_goes_on_to_the_same_bits(tmp_path, step):
    scheduler = partial(lr_scheduler.CosineAnnealingLR, T_max=12)
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    ddp = partial(DDP, reference_batch_size=1, warmup_epochs=3)
    straight, resumed = make(scheduler, "step"), make(scheduler, "step")
    taken, _ = fit(*straight, [ddp(), saver], enable_checkpointing=True)
    rest, _ = fit(*resumed, [ddp()], ckpt_path=tmp_path / f"step={step}.ckpt")
    assert rest == taken[step:]
    final = [model.state_dict() for model, _ in (straight, resumed)]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_the_monitor_logs_the_rates_that_are_taken(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    callbacks = [DDP(reference_batch_size=1, warmup_epochs=2), LearningRateMonitor("step")]
    taken, _ = fit(*make(), callbacks, epochs=2, logger=logger, log_every_n_steps=1)
    rows = [row.split(",") for row in (tmp_path / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("lr-SGD")
    assert [float(row[column]) for row in rows[1:] if row[column]] == pytest.approx(taken)


def test_impossible_arguments_are_refused():
    for arguments in ({"reference_batch_size": 0}, {"warmup_epochs": -1}, {"check_every_n_epochs": -1}):
        with pytest.raises(UserError, match=next(iter(arguments))):
            DDP(**arguments)


def test_a_strategy_that_shards_the_weights_is_refused():
    model, data = make()
    for strategy in (FSDPStrategy(), DeepSpeedStrategy.__new__(DeepSpeedStrategy)):
        trainer = SimpleNamespace(world_size=2, strategy=strategy, datamodule=data)
        with pytest.raises(UserError, match=f"is for the strategy ddp, .* has {type(strategy).__name__}"):
            DDP().setup(trainer, model, "fit")


@pytest.mark.parametrize(("warmup", "said"), [(1, "1 epoch."), (3, "3 epochs (this run ends after 2).")])
def test_a_warm_up_that_the_run_does_not_end_is_said(warmup, said, capsys):
    fit(*make(), [DDP(reference_batch_size=1, warmup_epochs=warmup)], epochs=2)
    assert capsys.readouterr().out.endswith(f"learning rate x 4 (the recipe's batch is 1), reached after {said}\n")


def test_the_overlay_given_twice_is_refused(run, here):
    """The learning rate would be scaled twice."""
    overlay = ["--config", HOME / "configs/overlays/ddp.yaml"]
    with pytest.raises(SystemExit, match="There are two DDP callbacks, and both would scale the learning rate"):
        run("fit", "--config", DIGITS, *overlay, *overlay, *TINY, "--trainer.accelerator", "cpu")
    assert not list(here.rglob("version_*"))


def test_the_reference_is_the_experiments_batch(run, capsys):
    run("fit", "--config", DIGITS, *TINY, "--trainer.callbacks+=callbacks.DDP", "--trainer.max_epochs", 1)
    assert "learning rate x 0.125 (the recipe's batch is 64)" in capsys.readouterr().out
    with open("runs/digits/resnet20/version_0/config.yaml") as file:
        assert "reference_batch_size: 64" in file.read()


def as_rank(rank):
    """Make Lightning take this process for one that a launcher has started."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    return {"accelerator": "cpu", "devices": 2}


class CountExchanges(pl.Callback):
    """Counts how often gradients are sent, and looks at the layout of the gradients."""

    def __init__(self):
        self.sent, self.layouts = 0, set()

    def on_train_start(self, trainer, pl_module):
        def send(state, bucket):
            self.sent += bucket.is_last()
            return (
                torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])
            )

        trainer.strategy.model.register_comm_hook(None, send)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for parameter in pl_module.parameters():
            self.layouts.add((parameter.stride() == parameter.grad.stride(), parameter.dim()))


@pytest.mark.parametrize("options", [pytest.param({"strategy": "ddp"}, marks=pytest.mark.slow), {"as_view": True}])
def test_gradients_are_sent_once_a_step_and_keep_their_layout(tmp_path, options, recwarn):
    """Also under accumulation, and for 1x1 convolutions, whose strides are ambiguous in channels_last."""

    def work(rank):
        strategy = pl.strategies.DDPStrategy(gradient_as_bucket_view=True) if "as_view" in options else "ddp"
        counter = CountExchanges()
        model, data = make(batch_size=4, shortcut="B")
        options_of_rank = as_rank(rank) | {"strategy": strategy, "accumulate_grad_batches": 3}
        taken, _ = fit(model, data, [counter], epochs=2, **options_of_rank)
        return len(taken), counter.sent, counter.layouts, [str(each.message) for each in recwarn]

    for steps, sent, layouts, warnings in run_ranks(work, tmp_path):
        assert steps == 2 and sent == steps
        assert {same for same, _ in layouts} == {True}
        assert not [warning for warning in warnings if "strides" in warning]


def test_ranks_that_differ_end_the_run_with_one_sentence(tmp_path):
    def work(rank):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
        for tensor in net.parameters():
            torch.distributed.broadcast(tensor.data, 0)
        net[1].running_mean += rank  # of each process's own share: not looked at
        check_equal_ranks(net)
        with torch.no_grad():
            net[0].bias[2] += 1e-6 * rank
            net[1].num_batches_tracked += rank
        try:
            check_equal_ranks(net)
        except (UserError, SystemExit) as error:
            return type(error), str(error)

    first, second = run_ranks(work, tmp_path)
    assert first[0] is UserError and first[1].startswith("0.bias is not the same on rank 1 as on rank 0 (2 of 5")
    assert second == (SystemExit, "1")


@pytest.mark.slow
def test_the_training_does_not_notice_that_the_exchange_is_timed(tmp_path, monkeypatch):
    def work(rank):
        states, efficiencies = [], []
        for measured in (True, False):
            if not measured:
                monkeypatch.setattr("callbacks.ddp.measure_scaling_efficiency", lambda *_: None)
            ddp = DDP(reference_batch_size=4)
            model, data = make(batch_size=4, dropout=0.3)
            logged = fit(model, data, [ddp], epochs=1, strategy="ddp", **as_rank(rank))[1].callback_metrics
            states.append(model.state_dict())
            efficiencies.append(logged.get("train/scaling_efficiency"))
        equal = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        return equal, float(efficiencies[0]), efficiencies[1]

    ranks = run_ranks(work, tmp_path)
    assert ranks[0] == ranks[1]
    equal, efficiency, unmeasured = ranks[0]
    assert equal and 0 < efficiency <= 1 and unmeasured is None


@pytest.mark.slow
def test_a_share_of_one_image_can_be_normalised_together(tmp_path):
    def work(rank):
        model, data = make(batch_size=2)
        taken, trainer = fit(model, data, [DDP(reference_batch_size=2)], epochs=1, strategy="ddp", **as_rank(rank))
        return len(taken), bool(torch.isfinite(trainer.callback_metrics["train/loss"]))

    assert run_ranks(work, tmp_path) == [(6, True)] * 2


def test_a_compiled_net_is_not_timed():
    model, data = make(compile=True)
    assert measure_scaling_efficiency(None, model, data) is None
