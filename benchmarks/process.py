"""Measurements in processes of their own. This file imports nothing heavy: every new process imports it."""

import io
import logging
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


class FakeTerminal(io.StringIO):
    """Where output is kept; a terminal to those who draw a progress bar in a terminal only."""

    def isatty(self) -> bool:
        return True


def run_in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function quietly in a new process, so that no case inherits another's memory, imports or compiled nets.

    Raises:
        SystemExit: if the function does, with all that it has printed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_quietly, function, *args).result()


def run_quietly(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process that has no other use: what is printed is kept, what Lightning logs is dropped."""
    output = FakeTerminal()
    logging.disable(logging.INFO)
    with redirect_stdout(output), redirect_stderr(output):
        try:
            return function(*args)
        except SystemExit as stop:
            sys.exit(f"{output.getvalue()}\n{stop.code}")
