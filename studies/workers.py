"""Processes that make results at the same time.

Each computes with one thread: so the numbers do not depend on how many cores there are, and two small nets on two cores
take less time than one after the other with two threads each.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from datamodules.loading import usable_cores


def default_processes() -> int:
    """As many as there are cores, but one where a GPU or the like does the work."""
    return 1 if torch.accelerator.is_available() else usable_cores()


@contextmanager
def work_beside(number: int, work: Callable[..., None], arguments: Sequence[Any]) -> Iterator[None]:
    """Let other processes work until the context ends.

    Args:
        number: of other processes; none are started below 1.
        work: a function that they call, and that can be imported.
        arguments: of the function.
    """
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=call_quietly, args=(work, arguments)) for _ in range(number)]
    for each in others:
        each.start()
    try:
        yield
    finally:
        for each in others:
            each.terminate()  # a run that is being trained is saved first
        for each in others:
            each.join()


def call_quietly(work: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Call a function in a process of its own, without its output: the first process says what there is to say."""
    prepare_worker()
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the process ends
    work(*arguments)


def prepare_worker() -> None:
    """In a process that others have started: one thread, and an end with the process that started it."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        # What a kill loses, the next command trains to its end. Windows has one signal, which kills
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=end_with_parent, daemon=True).start()
