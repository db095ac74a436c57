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

from callbacks.stop_signals import EXIT_STATUS
from cli.command_line import run_cli
from cli.messages import HOME
from errors import UserError


class CommandFailed(UserError):
    """A command of main.py that has ended with a sentence on stderr."""


def run_command(words: Sequence[str], log: Path) -> None:
    """Run one command of main.py.

    Args:
        words: behind main.py.
        log: file to which the output is appended.

    Raises:
        CommandFailed: with the command's own sentence.
        SystemExit: if a signal has ended it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a+", encoding="utf-8", buffering=1) as output:
        begin = output.tell()
        with redirect_output(output):
            status = call(words)
        output.seek(begin)
        end_if_failed(status, output.read())
    gc.collect()  # a Trainer and its parts hold each other


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """The whole config of a command of main.py, as --print_config prints it.

    Raises:
        CommandFailed: for a command that cannot be parsed, with its sentence.
    """
    output = io.StringIO()
    with redirect_output(output):
        status = call([*words, "--print_config"])
    end_if_failed(status, output.getvalue())
    return yaml.safe_load(output.getvalue())


def call(words: Sequence[str]) -> int | str | None:
    """The exit status of a command of main.py; a text is its sentence."""
    try:
        with patch.object(sys, "argv", [str(HOME / "main.py"), *words]):  # which the run directory notes
            run_cli(list(words))
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
def redirect_output(output: TextIO) -> Iterator[None]:
    """Write what is printed, and what Lightning logs, to a file."""
    handlers = [each for each in logging.getLogger("lightning.pytorch").handlers if isinstance(each, StreamHandler)]
    streams = [handler.stream for handler in handlers]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        for handler in handlers:
            handler.setStream(output)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
