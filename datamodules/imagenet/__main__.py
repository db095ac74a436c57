"""Prepare ImageNet, or any images in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images, which loads several times faster
python -m datamodules.imagenet pack SRC DST          # the same with many images in each file, as JPEG or as pixels
"""

import re
import sys
from collections.abc import Callable
from typing import NoReturn

from jsonargparse import ArgumentParser, auto_cli

from datamodules.imagenet.pack import pack_tree
from datamodules.resize import resize_tree
from errors import UserError, printable_lines, protect_output

COMMANDS: dict[str, Callable[..., None]] = {"resize": resize_tree, "pack": pack_tree}
# Patterns of jsonargparse's messages, and the sentences that say the same
SENTENCES = {
    r"key \"(\w+)\".*Expected a <class 'int'>\. Got value: (.*)": "{0} is {1}: it must be a whole number.",
    r"key \"(\w+)\".*Literal\[(.*)\]\. Got value: (.*)": "{0} is {2}: it must be one of {1}.",
    r"nrecognized arguments: (\S+)": "There is no argument {0} here. See --help.",
    r"argument (--\w+): expected one argument": "{0} needs a value.",
    r"invalid choice: '(.*?)'": f"There is no command {{0}}: choose from {', '.join(COMMANDS)}.",
    r"File does not exist: '(.*)'": "There is no config file {0}.",
    'are required|expected "subcommand"': "Give a command and two folders: pack SRC DST, or resize SRC DST.",
}


class Parser(ArgumentParser):
    """A parser that reports mistakes in one sentence, as main.py does."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the program with status 1."""
        for pattern, sentence in SENTENCES.items():
            if match := re.search(pattern, message, re.DOTALL):
                message = sentence.format(*match.groups())
                break  # what a user typed may look like another message
        sys.exit(f"error: {printable_lines(message)}")


def main(args: list[str] | None = None) -> None:
    """The command line of this module."""
    protect_output()
    try:
        auto_cli(
            {**COMMANDS},
            args=args,
            prog="python -m datamodules.imagenet",
            description=__doc__,
            parser_class=Parser,
        )
    except (OSError, UserError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on where it stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
