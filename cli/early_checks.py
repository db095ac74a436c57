"""The mistakes that are refused before torch and Lightning are imported, which takes seconds.

Nothing that this module imports may import either of them: a test keeps it so. The command line makes the same checks
again, at their place among all others.
"""

import argparse
import os
import re
import sys

from checkpointing.run_dir import refuse_missing_checkpoint
from cli.config_files import read_config
from cli.messages import NO_VERB, describe_unknown_verb, missing_checkpoint
from cli.rank_variables import defer_to_first_process, is_first_process
from cli.yaml_files import parse_yaml, read_text
from errors import UserError, expand_home, printable_lines

VERBS = ("fit", "validate", "test", "predict")


def check_early(argv: list[str]) -> None:
    """Refuse a command line without a verb (exit status 2), and a missing checkpoint or a config that cannot be read.

    Args:
        argv: the command line, without the program.

    Raises:
        UserError: see `find_checkpoint` and `read_config`.
    """
    if asks_for_help(argv):
        return
    verb, argv = take_verb(argv)
    if verb is None:
        refuse_verb(argv)
        return
    paths, argv = take_flag(argv, "--ckpt_path")
    if paths and paths[-1]:
        refuse_missing_checkpoint(expand_home(paths[-1]))
    elif verb != "fit":
        raise UserError(missing_checkpoint(verb))
    for config in take_flag(argv, "--config", "-c")[0]:
        check_config(config)


def refuse_verb(argv: list[str]) -> None:
    """Exit with status 2 if the first word is no verb, or if there is none; flags without a verb are left alone."""
    if not argv or not argv[0].startswith("-"):
        sentence = describe_unknown_verb(argv[0], VERBS) if argv else NO_VERB
        defer_to_first_process()
        sys.stderr.write(f"error: {printable_lines(sentence)}\n")
        sys.exit(2)


def check_config(given: str) -> None:
    """Refuse a --config that is not there, and a file that is no YAML.

    Pipes, YAML in the command line and files that a config names are left to the command line, which reads each once.
    """
    path = expand_home(given)
    if os.path.isfile(path):
        parse_yaml(read_text(path), given)
    elif not os.path.exists(path) and not given.startswith("{"):
        read_config(given)


def announce_start() -> None:
    """Say at once, in a terminal, that the command has begun; a file or a pipe gets no line more."""
    if is_first_process() and all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr)):
        print("Starting: loading PyTorch and Lightning takes a few seconds.", file=sys.stderr, flush=True)


def take_verb(argv: list[str]) -> tuple[str | None, list[str]]:
    """The verb, and the command line without it.

    The value of a flag may be a verb's name too (`--run_name test fit`). It counts as the verb only where no other word
    is one (`--print_config fit`).
    """
    found = [index for index, word in enumerate(argv) if word in VERBS]
    values = [index for index in found if index and re.fullmatch(r"--?[a-zA-Z][^=]*", argv[index - 1])]
    index = next((index for index in found if index not in values), found[0] if found else None)
    return (None, argv) if index is None else (argv[index], [*argv[:index], *argv[index + 1 :]])


def take_flag(argv: list[str], *names: str) -> tuple[list[str], list[str]]:
    """The values of a flag, once for each time that it is given, and the command line without it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(*names, dest="values", action="append", default=[])
    try:
        found, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{names[0]} needs a value behind it.") from error
    return found.values, rest


def asks_for_help(argv: list[str]) -> bool:
    """Whether a command line asks for help: with -h, --help, or that of a class, such as --data.help."""
    return any(re.fullmatch(r"-h|--([\w.]+\.)?help(=.*)?", arg) for arg in argv)
