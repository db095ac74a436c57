"""Loader processes: their priority beside a net on the same cores."""

import os
import pickle
import signal
from types import SimpleNamespace

import pytest

from datamodules import Synthetic
from datamodules.loading import NICENESS, make_worker_init


@pytest.mark.parametrize(("device", "lowered_by"), [("cpu", [NICENESS]), ("cuda", [])])
def test_loader_processes_yield_to_a_net_on_their_cores(monkeypatch, device, lowered_by):
    lowered: list[int] = []
    monkeypatch.setattr(os, "nice", lowered.append)
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=SimpleNamespace(type=device)))
    pickle.loads(pickle.dumps(make_worker_init(trainer)))(0)  # as spawned workers get it
    assert lowered == lowered_by


def test_the_loaders_of_a_data_module_start_their_processes_so():
    data = Synthetic(classes=2, size=8, train_size=8)
    data.setup("fit")
    assert data.train_dataloader().worker_init_fn.keywords == {"niceness": NICENESS}
