"""The parser of the command line: mistakes in one sentence, help that begins with the flags that people use."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ActionSubCommands, ArgumentParser, DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

import callbacks
import datamodules
import lit_models
from cli.messages import HOME, rephrase, rephrase_for_outer_parser

VERBS = ("fit", "validate", "test", "predict")


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's formatter, which keeps the line breaks of descriptions."""


class Verbs(ActionSubCommands):
    """The verbs, each with the first line of its description as its help."""

    def add_subcommand(self, name: str, parser: ArgumentParser, **kwargs: Any) -> ArgumentParser:
        return super().add_subcommand(name, parser, help=(parser.description or "").partition("\n")[0])


class Parser(LightningArgumentParser):
    """LightningArgumentParser with errors of one sentence, and the project's own text for --ckpt_path."""

    verbs: ActionSubCommands | None = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason, with the nearest name that exists, and exit with status 2."""
        if not self.exit_on_error:  # the parser of a class's arguments, inside the one of a verb
            raise argparse.ArgumentError(None, rephrase_for_outer_parser(message, self.known_names())) from ex
        sys.stderr.write(f"error: {rephrase(message, self.known_names())}\n")
        sys.exit(2)

    def add_subcommands(self, *args: Any, **kwargs: Any) -> ActionSubCommands:
        """Add the verbs, and remember them: their parsers know the flags."""
        self.verbs = super().add_subcommands(*args, action=Verbs, **kwargs)
        return self.verbs

    def known_names(self) -> list[str]:
        """The parser's flags, the classes of this repository and torch's optimizers."""
        parsers = list(self.verbs.choices.values()) if self.verbs else [self]
        for parser in parsers:
            parser.default_config_files = []  # the mistake may be in one of them
        flags = [f"--{name}" for parser in parsers for name, _ in parser.get_defaults(skip_validation=True).items()]
        classes = [getattr(module, name) for module in (lit_models, datamodules, callbacks) for name in module.__all__]
        paths = [f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in classes]
        paths += [f"torch.optim.{name}" for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)]
        return [*flags, "--print_config", *paths]

    def add_method_arguments(self, *args: Any, skip: set[str | int] | None = None, **kwargs: Any) -> list[str]:
        """Add the arguments of one of the Trainer's verbs; --ckpt_path takes more here than Lightning's text says."""
        added = super().add_method_arguments(*args, skip={*(skip or ()), "ckpt_path"}, **kwargs)
        self.add_argument(
            "--ckpt_path",
            type=str | None,
            help="a .ckpt file, a version folder, or an experiment folder, which stands for its newest version",
        )
        return [*added, "ckpt_path"]


def parser_settings() -> dict[str, Any]:
    """The arguments of the parsers: of the outer one, and under its name of each verb's."""
    verbs: dict[str, dict[str, Any]] = {
        verb: {
            "usage": f"python main.py {verb} [--FLAG VALUE ...]",
            "allow_abbrev": False,  # jsonargparse before 4.53 does not hand it down
            "description": (Path(__file__).parent / "help" / f"{verb}.txt").read_text(),
        }
        for verb in VERBS
    }
    verbs["fit"]["default_config_files"] = [str(HOME / "configs" / "base.yaml")]
    return {"allow_abbrev": False, "formatter_class": HelpFormatter, **verbs}
