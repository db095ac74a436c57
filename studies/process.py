"""Commands of main.py in this process, one after the other: their output goes to a log file."""

import contextlib
import gc
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from logging import StreamHandler
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

import yaml
from lightning.pytorch.callbacks import Callback

from callbacks.stop_signals import EXIT_STATUS
from cli.command_line import run_cli
from cli.messages import HOME
from errors import UserError


class CommandFailed(UserError):
    """A command of main.py that has ended with a sentence on stderr."""


def run_command(words: Sequence[str], log: Path, callbacks: Sequence[Callback] = ()) -> None:
    """Run one command of main.py.

    Args:
        words: behind main.py.
        log: file to which the output is appended.
        callbacks: for its Trainer.

    Raises:
        CommandFailed: with the command's own sentence.
        SystemExit: if a signal has ended it.
    """
    with log.open("a+", encoding="utf-8", errors="backslashreplace", buffering=1) as output:
        begin = output.tell()
        try:
            with redirect_output(output):
                status = call(words, callbacks)
        finally:
            gc.collect()  # a Trainer and its parts hold each other
        output.seek(begin)
        end_if_failed(status, output.read())


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """The whole config of a command of main.py, as --print_config prints it.

    Raises:
        CommandFailed: for a command that cannot be parsed, with its sentence.
    """
    printed, messages = io.StringIO(), io.StringIO()
    with redirect_output(printed, messages):
        status = call([*words, "--print_config"])
    end_if_failed(status, messages.getvalue())
    return yaml.safe_load(printed.getvalue())


def call(words: Sequence[str], callbacks: Sequence[Callback] = ()) -> int | str | None:
    """The exit status of a command of main.py; a text is its sentence."""
    try:
        with patch.object(sys, "argv", [str(HOME / "main.py"), *words]):  # which the run directory notes
            run_cli(list(words), callbacks)
    except SystemExit as stop:
        return stop.code
    return 0


def end_if_failed(status: int | str | None, output: str) -> None:
    """Raise CommandFailed, or SystemExit for the status of a signal, unless a command has succeeded."""
    if status in EXIT_STATUS.values():
        raise SystemExit(status)
    if status:
        lines = [status] if isinstance(status, str) else output.splitlines()
        sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise CommandFailed(sentences[-1] if sentences else f"the command has ended with status {status}")


@contextlib.contextmanager
def redirect_output(output: TextIO, messages: TextIO | None = None) -> Iterator[None]:
    """Write what is printed to a file, and to the same or another one what goes to stderr and what Lightning logs."""
    messages = messages or output
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    handlers = [each for logger in loggers for each in logger.handlers if isinstance(each, StreamHandler)]
    streams = [handler.stream for handler in handlers]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        for handler in handlers:
            handler.setStream(messages)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
