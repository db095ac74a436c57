"""SyncBatchNorm by --trainer.sync_batchnorm, and what recomputes the statistics of its layers."""

import pytest
import torch
from torch import nn

from callbacks import DDP
from callbacks.precise_bn import update_bn_stats
from callbacks.sync_batch_norm import SyncBatchNorm
from cli.trainer import Trainer
from lit_models.nets.sync_batch_norm import sync_batch_norms
from tests.conftest import DIGITS, TINY
from tests.ranks import run_ranks
from trainer_settings import settings


def test_precise_statistics_of_two_processes_are_those_of_one(tmp_path):
    torch.manual_seed(0)
    batches = [torch.randn(6, 3, 5, 5).double() for _ in range(3)]
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)).double()

    def work(rank):
        sync_batch_norms(net, torch.device("cpu"))
        update_bn_stats(net, net, [batch.split([4, 2])[rank] for batch in batches])
        return dict(net.named_buffers())

    ranks = run_ranks(work, tmp_path)
    update_bn_stats(net, net, batches)
    for name, buffer in net.named_buffers():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], buffer, rtol=0, atol=1e-12)


def test_a_model_without_batch_norms_to_synchronise_is_refused(run):
    with pytest.raises(SystemExit, match="true for a LitResNet, and it has no BatchNorm: leave it out."):
        run("fit", "--config", DIGITS, *TINY, "--model.norm", "group", "--trainer.sync_batchnorm", "true")


def test_in_one_process_the_flag_is_a_note(run, capsys):
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, "--trainer.sync_batchnorm", "true")
    assert "One process: sync_batchnorm changes nothing." in capsys.readouterr().out


def test_ddp_finds_the_layers_that_the_flag_synchronises():
    trainer = Trainer(sync_batchnorm=True, callbacks=[DDP()], logger=False, enable_checkpointing=False)
    kinds = [type(callback) for callback in settings(trainer).callbacks]
    assert kinds.index(SyncBatchNorm) < kinds.index(DDP)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert not DDP().synchronises(net, images=32, devices=2)
    sync_batch_norms(net, torch.device("cpu"))
    assert DDP().synchronises(net, images=32, devices=2)
