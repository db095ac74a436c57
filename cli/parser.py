"""The parser of the command line."""

import argparse
import sys
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from cli.messages import known_names, sentence, sentence_of_class


class Parser(LightningArgumentParser):
    """A parser that says what is wrong in one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason, with the nearest name that exists, and exit with status 2."""
        if not self.exit_on_error:  # the parser of a class's arguments
            raise argparse.ArgumentError(None, sentence_of_class(message, known_names(self))) from ex
        sys.stderr.write(f"error: {sentence(message, known_names(self))}\n")
        sys.exit(2)
