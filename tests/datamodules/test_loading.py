"""Who loads images: threads between the steps of a net on the same cores, or processes."""

import os
import pickle
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules import Synthetic
from datamodules.loading import NICENESS, choose_num_workers, make_worker_init, map_in_threads, usable_cores


def trainer_on(device: str, devices: int = 1) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=SimpleNamespace(type=device)), num_devices=devices)


@pytest.mark.parametrize(
    ("device", "devices", "remote", "count"),
    [("cpu", 1, False, 0), ("cpu", 2, False, 0), ("cpu", 1, True, 1), ("cuda", 1, False, 16), ("cuda", 8, True, 12)],
)
def test_processes_load_for_gpus_and_ahead_of_an_object_store(monkeypatch, device, devices, remote, count):
    monkeypatch.setattr("datamodules.loading.usable_cores", lambda: 96)
    assert choose_num_workers(trainer_on(device, devices), SimpleNamespace(is_remote=remote)) == count


def test_each_device_has_a_loader_process_on_few_cores():
    assert choose_num_workers(trainer_on("cuda", usable_cores() + 1), SimpleNamespace(is_remote=False)) == 1


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_of_torch_share_the_images_and_keep_their_order(three_threads):
    together = threading.Barrier(3, timeout=60)

    def work(item: int) -> tuple[int, int]:
        if item < 3:
            together.wait()  # a single thread would wait here for the others
        return item**2, threading.get_ident()

    results = map_in_threads(work, range(10))
    assert [square for square, _ in results] == [item**2 for item in range(10)]
    assert len({thread for _, thread in results}) == 3
    assert map_in_threads(work, []) == []


def test_what_a_thread_raises_reaches_the_caller(three_threads):
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 // item, [3, 2, 1, 0])


def test_no_thread_goes_on_when_another_has_failed(three_threads):
    computed = []

    def work(item: int) -> None:
        computed.append(1 // item)
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        map_in_threads(work, range(3000))
    assert len(computed) < 1000  # of 2,000 in the other threads


@pytest.mark.parametrize(("device", "lowered_by"), [("cpu", [NICENESS]), ("cuda", [])])
def test_loader_processes_yield_to_a_net_on_their_cores(monkeypatch, device, lowered_by):
    lowered: list[int] = []
    monkeypatch.setattr(os, "nice", lowered.append)
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    pickle.loads(pickle.dumps(make_worker_init(trainer_on(device))))(0)  # as spawned workers get it
    assert lowered == lowered_by


def test_the_loaders_of_a_data_module_start_their_processes_so():
    data = Synthetic(classes=2, size=8, train_size=8)
    data.setup("fit")
    assert data.train_dataloader().worker_init_fn.keywords == {"niceness": NICENESS}
