"""How the processes of a training find each other: in bounded time, and with one config.

They connect to a store (torch.distributed.TCPStore) at MASTER_ADDR:MASTER_PORT, in the first process or in torchrun's
agent, before torch.distributed takes it over to form its group. Torch alone waits half an hour without a word, and lets
nodes with other settings train together.
"""

import inspect
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from subprocess import Popen
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from torch.distributed import DistNetworkError, PrefixStore, Store, TCPStore

from checkpointing.record import Checkpoint
from cli.failures import OTHER_PROCESS, first_line
from cli.processes import refuse_ranks_of_another_job
from cli.rank_variables import defer_to_first_process
from errors import UserError, pluralize

# What may differ between nodes: where they keep files, and how they load them
NODE_SETTINGS = {"config", "runs", "root", "paths", "save_dir", "dirpath", "default_root_dir", "num_workers", "logger"}
POLL_SECONDS = 0.1
CONNECT_SECONDS = 10  # an address, once
shared_stores: list[Store] = []  # that of this training, once all of its processes are there
launched_processes: list[Popen[bytes]] = []  # by Lightning, from this one


def prepare_processes(trainer: pl.Trainer, config: Namespace, checkpoint: Checkpoint | None) -> None:
    """Refuse ranks and addresses that cannot be, and let the processes wait for each other once they are started.

    Args:
        trainer: whose strategy may have several processes.
        config: of the verb.
        checkpoint: the one that is resumed or evaluated.

    Raises:
        UserError: for a mistake in the variables of a launcher.
    """
    shared_stores.clear()
    launched_processes.clear()
    refuse_ranks_of_another_job(trainer)
    strategy = trainer.strategy
    if not isinstance(strategy, ParallelStrategy) or trainer.world_size == 1:
        return
    check_port()
    if trainer.num_nodes > 1:
        check_address(find_environment(strategy).main_address)
    settings = dict(flatten({**config.as_dict(), "ckpt_path": checkpoint and checkpoint.path.name}))
    set_up, launcher = strategy.setup_environment, strategy.launcher

    def agree_and_set_up() -> None:
        launched_processes[:] = getattr(launcher, "procs", [])
        shared_stores[:] = [Rendezvous(trainer, strategy, config.trainer.node_timeout).agree(settings)]
        set_up()

    # Lightning has no hook between the start of its processes and the forming of their group
    strategy.setup_environment = agree_and_set_up  # type: ignore[method-assign]


def find_environment(strategy: ParallelStrategy) -> ClusterEnvironment:
    """The cluster environment of a strategy that a Trainer has completed."""
    assert strategy.cluster_environment is not None
    return strategy.cluster_environment


class Rendezvous:
    """Waits for all processes of a training at a store, and compares their configs.

    Args:
        trainer: of this process.
        strategy: of the trainer, whose processes are started.
        seconds: to wait for missing processes.
    """

    def __init__(self, trainer: pl.Trainer, strategy: ParallelStrategy, seconds: float) -> None:
        environment = find_environment(strategy)
        self.host, self.port = environment.main_address, environment.main_port
        self.rank, self.node, self.is_leader = trainer.global_rank, trainer.node_rank, trainer.local_rank == 0
        self.devices, self.nodes = trainer.num_devices, trainer.num_nodes
        self.seconds, self.deadline = seconds, time.monotonic() + seconds

    def agree(self, settings: dict[str, str]) -> Store:
        """Wait for all processes, and refuse a config that differs from the first one's.

        Args:
            settings: of this process: see `flatten`.

        Returns:
            A store that all processes share.

        Raises:
            UserError: in the first process, for missing processes and other settings; in the first one of each other
                node, for one that has refused the training; in all, for a first one that is not reached.
        """
        store = self._open_store()
        if self.rank == 0:
            verdict = self._find_mistake(store, settings)
            store.set("verdict", verdict or "")
            if verdict:
                wait_until(lambda: store.add("refused", 0) >= store.add("arrived", 0), CONNECT_SECONDS)
                raise UserError(verdict)
            return store
        store.set(f"process {store.add('arrived', 1)}", json.dumps([self.node, settings]))
        # The first one may have begun to wait later, and tells when it gives up
        if not wait_until(lambda: store.check(["verdict"]), self.seconds + 2 * CONNECT_SECONDS):
            raise UserError(OTHER_PROCESS)
        if store.get("verdict"):
            store.add("refused", 1)
            if self.is_leader:
                raise UserError("The first node has stopped this command: its message says why.")
            raise SystemExit(1)
        return store

    def _open_store(self) -> Store:
        """Host the store where this is the first process and no agent does; else connect to it once it is there."""
        if self.is_leader and self.nodes > 1:
            others = f"{self.nodes - 1} of {self.nodes} nodes" if self.rank == 0 else "the first node"
            print(f"Waiting for {others} at {self.host}:{self.port}, at most {self.seconds:g} s.", flush=True)
        hosts = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        timeout = timedelta(seconds=max(self.seconds, CONNECT_SECONDS))
        try:
            if hosts:  # which torch.distributed finds in this process (multi_tenant)
                store = TCPStore("127.0.0.1", self.port, None, True, timeout, wait_for_workers=False, multi_tenant=True)
            self._reach(1 if hosts else self.seconds)
            if not hosts:
                store = TCPStore(self.host, self.port, None, False, timeout, wait_for_workers=False)
        except DistNetworkError as error:
            raise UserError(self._explain(str(error))) from error
        return PrefixStore("lit-classics", store)

    def _reach(self, seconds: float) -> None:
        """Wait until somebody listens at the address; signals are handled meanwhile."""
        reason = ""

        def listens() -> bool:
            nonlocal reason
            try:
                socket.create_connection((self.host, self.port), CONNECT_SECONDS).close()
            except OSError as error:
                reason = error.strerror or str(error)
                return False
            return True

        if wait_until(listens, seconds):
            return
        if self.rank == 0:
            raise UserError(
                f"MASTER_ADDR is {self.host}, and this first process is not reached there ({reason}): give the address "
                "of the node whose NODE_RANK is 0, on all nodes."
            )
        raise UserError(
            f"Nobody has answered at {self.host}:{self.port} within {self.seconds:g} s ({reason}): start the first "
            "node (NODE_RANK 0), correct MASTER_ADDR and MASTER_PORT, or wait longer (--trainer.node_timeout)."
        )

    def _explain(self, message: str) -> str:
        """The sentence for a store that cannot be opened."""
        if "EADDRINUSE" in message:
            return (
                f"Port {self.port} of this machine is in use, maybe by another first node (NODE_RANK 0) of this "
                "training: give another MASTER_PORT, the same on all nodes."
            )
        if "EACCES" in message:
            return f"Port {self.port} may not be used: give a MASTER_PORT above 1023, the same on all nodes."
        return OTHER_PROCESS

    def _find_mistake(self, store: Store, settings: dict[str, str]) -> str | None:
        """Wait for the other processes, and return what is wrong with them; None once all are there."""
        arrived: list[int] = []
        for number in range(1, self.devices * self.nodes):
            key = f"process {number}"
            if not wait_until(lambda: store.check([key]), self.deadline - time.monotonic()):  # noqa: B023
                return self._name_missing(arrived)
            node, theirs = json.loads(store.get(key))
            if difference := find_difference(settings, theirs):
                return f"{f'Node {node}' if node else 'A process'} was started {difference}"
            arrived.append(node)
        return None

    def _name_missing(self, arrived: list[int]) -> str:
        """The sentence for processes that have not come.

        Args:
            arrived: the nodes of those that have.
        """
        present = [0, *arrived]
        nodes = [str(node) for node in range(self.nodes) if present.count(node) < self.devices]
        if nodes == ["0"]:
            missing = f"{pluralize(self.devices - present.count(0), 'process')} of this node"
            remedy = "look at the messages above"
        else:
            missing = f"{len(nodes)} of {self.nodes} nodes (NODE_RANK {', '.join(nodes)})"
            remedy = "start all nodes with the same MASTER_ADDR, MASTER_PORT and --trainer.num_nodes"
        return (
            f"Missing at {self.host}:{self.port} after {self.seconds:g} s: {missing}; {remedy}, or wait longer "
            "(--trainer.node_timeout)."
        )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask for a condition again and again until it holds; signals are handled meanwhile.

    Returns:
        Whether it held in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def check_port() -> None:
    """Refuse a MASTER_PORT that is no port."""
    port = os.environ.get("MASTER_PORT", "29500")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"MASTER_PORT is {port!r}: give a port from 1024 to 65535, the same on all nodes.")


def check_address(host: str) -> None:
    """Refuse the name of a machine that is not known here."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"MASTER_ADDR is {host!r}, and no address is found for that name ({first_line(error)}): give the name or "
            "the address of the first node, the same on all nodes."
        ) from error


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flags and values of a config, as text, without what may differ between nodes."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for name, value in items:
        flag = f"{prefix}.{name}".removeprefix(".").replace(".init_args", "")
        if name in NODE_SETTINGS:
            continue
        if isinstance(value, dict | list) and value:
            yield from flatten(value, flag)
        else:
            yield flag, json.dumps(value, default=describe)


def describe(value: object) -> str:
    """The same text in every process: the text of a function would hold its address."""
    return f"{value.__module__}.{value.__qualname__}" if inspect.isroutine(value) else str(value)


def find_difference(first: dict[str, str], other: dict[str, str]) -> str | None:
    """How the settings of another process differ from those of the first; None if they do not."""
    missing = "no such argument"
    for flag in dict.fromkeys([*first, *other]):
        one, two = first.get(flag, missing), other.get(flag, missing)
        if one != two:
            return f"with {flag} {two}, and the first node with {one}: type the same command on all nodes."
    return None


def reports_error() -> bool:
    """Whether this process is the first that fails, and tells the user why. Each process that fails calls this once.

    The first one ends those that it has launched, which have nothing to say.
    """
    if not shared_stores:
        defer_to_first_process()
        return True
    failed: list[int] = []
    # In a thread, because the network to the store may be what has failed
    thread = threading.Thread(target=lambda: failed.append(count_failed(shared_stores[0])), daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    is_first = failed in ([], [1])
    for process in launched_processes if is_first else ():
        process.kill()  # one that is stopped or hangs would outlive the command
    return is_first


def count_failed(store: Store) -> int:
    """The number of processes that have failed, this one included; 1 where the store is gone."""
    inner = store.underlying_store if isinstance(store, PrefixStore) else store
    try:
        if isinstance(inner, TCPStore):  # of a connection that is lost, torch prints the C++ frames
            socket.create_connection((inner.host, inner.port), CONNECT_SECONDS).close()
        return store.add("failed", 1)
    except (RuntimeError, OSError):
        return 1
