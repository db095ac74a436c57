"""Processes of one training wait for each other in bounded time, and train with one config or not at all."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from cli import rendezvous
from cli.processes import refuse_other_launch
from cli.rank_variables import find_launch
from cli.rendezvous import Rendezvous, check_address, check_port, find_difference, flatten, reports_error
from errors import UserError
from lit_models.optimization import refuse_to_train

SETTINGS = {"seed_everything": "0", "trainer.max_epochs": "3"}


@pytest.fixture
def port() -> int:
    """A port of this machine that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def join(port: int, rank: int, seconds: float = 60, nodes: int = 2, devices: int = 1, **settings: str) -> Store:
    """Let a process with these settings wait for the others."""
    node, local = divmod(rank, devices)
    trainer = SimpleNamespace(global_rank=rank, node_rank=node, local_rank=local, num_devices=devices, num_nodes=nodes)
    environment = SimpleNamespace(main_address="127.0.0.1", main_port=port)
    strategy = SimpleNamespace(cluster_environment=environment)
    return Rendezvous(trainer, strategy, seconds).agree({**SETTINGS, **settings})


def join_together(*processes: dict) -> list[Store | BaseException]:
    """What becomes of several processes that come at the same time."""

    def try_to(process: dict) -> Store | BaseException:
        try:
            return join(**process)
        except (UserError, SystemExit) as end:
            return end

    with ThreadPoolExecutor(len(processes)) as pool:
        return [*pool.map(try_to, processes)]


def test_processes_that_agree_share_a_store(port, capsys):
    first, second = join_together({"port": port, "rank": 0}, {"port": port, "rank": 1})
    first.set("a", "b")
    assert second.get("a") == b"b"
    said = capsys.readouterr().out
    assert f"Waiting for 1 of 2 nodes at 127.0.0.1:{port}, at most 60 s." in said
    assert f"Waiting for the first node at 127.0.0.1:{port}" in said


def test_another_config_is_said_by_the_first_process_with_its_first_flag(port):
    processes = [{"port": port, "rank": rank, "devices": 2} for rank in range(4)]
    for process in processes[2:]:
        process["trainer.max_epochs"] = "4"
    ends = join_together(*processes)
    assert "Node 1 was started with trainer.max_epochs 4, and the first node with 3" in str(ends[0])
    assert "The first node has stopped this command" in str(ends[2])
    assert isinstance(ends[1], SystemExit) and isinstance(ends[3], SystemExit)  # without a word


@pytest.mark.parametrize(
    ("nodes", "devices", "missing"), [(3, 1, "2 of 3 nodes (NODE_RANK 1, 2)"), (1, 2, "1 process of this node")]
)
def test_missing_processes_are_named_after_a_bounded_time(port, nodes, devices, missing):
    with pytest.raises(UserError, match="Missing at 127.0.0.1") as refusal:
        join(port, 0, seconds=0.2, nodes=nodes, devices=devices)
    assert missing in str(refusal.value) and "--trainer.node_timeout" in str(refusal.value)


def test_a_first_node_that_does_not_answer_is_said_after_a_bounded_time(port):
    with pytest.raises(UserError, match=r"Nobody has answered at 127.0.0.1:\d+ within 0.2 s \(Connection refused\)"):
        join(port, 1, seconds=0.2)


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as server, pytest.raises(UserError, match="Port .* of this machine is in use"):
        join(server.getsockname()[1], 0)


@pytest.mark.parametrize("value", ["0", "65536", "x", "-1", ""])
def test_a_port_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("MASTER_PORT", value)
    with pytest.raises(UserError, match="MASTER_PORT is"):
        check_port()


@pytest.mark.parametrize("name", ["no.such.host.invalid", "a" * 70, "a..b"])
def test_a_name_without_an_address_is_refused(name):
    with pytest.raises(UserError, match="no address is found for that name"):
        check_address(name)


def test_the_first_difference_is_told_by_its_flag():
    config = {"model": {"class_path": "LitResNet", "init_args": {"depth": 20}}, "data": {"init_args": {"root": "/a"}}}
    config["trainer"] = {"callbacks": [{"class_path": "A"}], "logger": [{"save_dir": "x"}], "devices": 1}
    config["model"]["init_args"]["optimizer"] = refuse_to_train  # of `test`, without the address in memory
    settings = dict(flatten(config))
    assert settings == {
        "model.class_path": '"LitResNet"',
        "model.depth": "20",
        "model.optimizer": '"lit_models.optimization.refuse_to_train"',
        "trainer.callbacks.0.class_path": '"A"',
        "trainer.devices": "1",
    }  # where the data lie, and what is logged, may differ
    assert find_difference(settings, dict(settings)) is None
    assert (find_difference(settings, settings | {"model.depth": "32"}) or "").startswith("with model.depth 32, and")
    assert "trainer.x 1, and the first node with no such argument" in str(
        find_difference(settings, settings | {"trainer.x": "1"})
    )


def test_one_process_says_why_the_command_ends(monkeypatch):
    assert reports_error()
    monkeypatch.setattr(rendezvous, "shared_stores", [HashStore()])
    assert [reports_error() for _ in range(3)] == [True, False, False]


def test_a_first_process_that_has_gone_leaves_one_sentence_and_no_stack(monkeypatch, capfd):
    gone = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    store = PrefixStore("here", TCPStore("127.0.0.1", gone.port, None, False))
    monkeypatch.setattr(rendezvous, "shared_stores", [store])
    assert [reports_error() for _ in range(2)] == [True, False]
    del gone
    assert reports_error()
    assert capfd.readouterr().err == ""


def test_the_first_process_that_fails_ends_a_stopped_one(monkeypatch):
    monkeypatch.setattr(rendezvous, "shared_stores", [HashStore()])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(rendezvous, "launched_processes", [process])
        assert reports_error()
        assert process.wait() == -signal.SIGKILL


LAUNCHES = [
    ({"TORCHELASTIC_RUN_ID": "a", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}, "torchrun", 2, 4),
    ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_NAME": "train"}, "srun", 2, 4),
    ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train"}, "srun", 1, 2),
]


@pytest.mark.parametrize(("variables", "name", "nodes", "devices"), LAUNCHES)
def test_another_number_of_processes_than_was_started_is_refused_in_each(monkeypatch, variables, name, nodes, devices):
    """Those of one device would train on their own, and write over each other."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    refuse_other_launch(SimpleNamespace(num_nodes=nodes, num_devices=devices))
    with pytest.raises(UserError, match=f"{name} has started {devices} processes on") as refusal:
        refuse_other_launch(SimpleNamespace(num_nodes=1, num_devices=1))
    assert f"give --trainer.devices {devices} --trainer.num_nodes {nodes}" in str(refusal.value)


def test_a_process_that_nobody_launched_is_alone(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert find_launch() is None
