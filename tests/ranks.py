"""Work done by several processes of one group, without starting Python anew for each."""

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch


def run_ranks(work: Callable[[int], Any], folder: Path, processes: int = 2, seconds: float = 120) -> list[Any]:
    """What `work(rank)` returned in each of some processes that share a group (gloo).

    Args:
        work: called with the rank in a fork of this process: it may be a closure. What it returns must be picklable.
        folder: empty; holds the file by which the processes find each other.
        processes: how many.
        seconds: after which a process that has not answered is ended.

    Raises:
        AssertionError: with the traceback of the first rank that failed.
    """
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    started = [
        context.Process(target=run_rank, args=(work, rank, processes, folder / "group", pipe), daemon=True)
        for rank, (_, pipe) in enumerate(pipes)
    ]
    for process in started:
        process.start()
    sent = [receiver.recv_bytes() if receiver.poll(seconds) else None for receiver, _ in pipes]
    answers = [pickle.loads(answer) if answer else ("no answer", None) for answer in sent]
    for process in started:
        process.join(5)
        process.kill()
    failed = [error for error, _ in answers if error]
    assert not failed, failed[0]
    return [answer for _, answer in answers]


def run_rank(work: Callable[[int], Any], rank: int, processes: int, file: Path, pipe: Connection) -> None:
    """Do the work of one rank and send (traceback, answer), one of which is None."""
    try:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=processes)
        answer = (None, work(rank))
    except BaseException:
        answer = (traceback.format_exc(), None)
    pipe.send_bytes(pickle.dumps(answer))  # `send` would share the memory of tensors with a process that ends
