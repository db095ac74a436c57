"""The parser of the command line: mistakes in one sentence, help that begins with the flags that people use."""

import argparse
import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ActionSubCommands, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

import callbacks
import datamodules
import lit_models
from checkpointing.confinement import TO_FILL_IN
from cli.config_files import Layer
from cli.messages import HOME, rephrase, rephrase_for_outer_parser
from cli.rank_variables import defer_to_first_process
from errors import expand_home, printable_lines

BASE = HOME / "configs" / "base.yaml"  # which every fit starts from


def make_device(name: object) -> torch.device:
    """A device by its name; a number is none, because classes that take numbers take them as they are."""
    if not isinstance(name, str):
        raise TypeError(f"{name} is no name of a device")
    return torch.device(name)


# A config holds the device that is a default of Lightning's StochasticWeightAveraging as text
register_type(torch.device, deserializer=make_device, deserializer_exceptions=(RuntimeError, TypeError))


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's formatter, which keeps the line breaks of descriptions."""


class Verbs(ActionSubCommands):
    """The verbs, each with the first line of its description as its help."""

    def add_subcommand(self, name: str, parser: ArgumentParser, **kwargs: Any) -> ArgumentParser:
        return super().add_subcommand(name, parser, help=(parser.description or "").partition("\n")[0])


class Parser(LightningArgumentParser):
    """LightningArgumentParser with errors of one sentence, and the project's own text for --ckpt_path."""

    verbs: ActionSubCommands | None = None
    layers: Sequence[Layer] = ()
    flags: Sequence[str] = ()
    complete: Callable[[Namespace], object] | None = None
    config_file: str | None = None  # that is being parsed

    def set_layers(
        self, layers: Sequence[Layer], flags: Sequence[str], complete: Callable[[Namespace], object]
    ) -> None:
        """Give the parser and those of the verbs the layers that they are to merge.

        Args:
            layers: in their order, with those of flags.
            flags: above them, as they are typed.
            complete: completes a merged config in place, and prints notes on it.
        """
        for parser in (self, *(self.verbs.choices.values() if self.verbs else ())):
            parser.layers, parser.flags, parser.complete = layers, flags, complete

    def dump(self, cfg: Namespace, *args: Any, **kwargs: Any) -> str:
        """The config in YAML; of --print_config, which exits behind it, the notes are printed first."""
        if self.complete and any(word.partition("=")[0] == "--print_config" for word in self.flags):
            self.complete(cfg.clone())
        return super().dump(cfg, *args, **kwargs)

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """Parse a --config file, which has been read; the sentence for a mistake in it begins with its name."""
        self.config_file = str(path)
        text = next(layer.text for layer in self.layers if layer.name == self.config_file)
        with contextlib.chdir(expand_home(path).absolute().parent):  # of files that this one names
            config = self.parse_string(text, *args, **kwargs)
        self.config_file = None
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason, with the nearest name that exists, and exit with status 2."""
        if not self.exit_on_error:  # the parser of a class's arguments, inside the one of a verb
            raise argparse.ArgumentError(None, rephrase_for_outer_parser(message, self.known_names())) from ex
        sentence = rephrase(message, self.known_names())
        where = self.find_file(sentence)
        defer_to_first_process()
        sys.stderr.write(f"error: {printable_lines(f'{where}: {sentence}' if where else sentence)}\n")
        sys.exit(2)

    def find_file(self, sentence: str) -> str | None:
        """The file that sets the flag of a sentence; None if the command line itself does."""
        name = re.search(r"--[\w.]+", sentence)
        key = name[0][2:] if name else ""
        layers = [layer for layer in self.layers if layer.sets(key)]
        if self.config_file:
            return next((layer.file_of(key) for layer in layers if layer.name == self.config_file), self.config_file)
        typed = any(word.partition("=")[0] == f"--{key}" for word in self.flags)
        file = layers[-1].file_of(key) if layers and (not typed or key in layers[-1].files) else "--"
        return None if file.startswith("--") else file

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

    def add_class_arguments(
        self,
        theclass: type,
        nested_key: str | None = None,
        *args: Any,
        skip: set[str | int] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add the arguments of a class; a logger's `save_dir` needs no value, because the command line fills it in."""
        if nested_key or not needs_save_dir(theclass):
            return super().add_class_arguments(theclass, nested_key, *args, skip=skip, **kwargs)
        added = super().add_class_arguments(theclass, nested_key, *args, skip={*(skip or ()), "save_dir"}, **kwargs)
        self.add_argument("--save_dir", type=str, default=TO_FILL_IN, help="by default, a folder in that of the run")
        return [*added, "save_dir"]

    def add_method_arguments(self, *args: Any, skip: set[str | int] | None = None, **kwargs: Any) -> list[str]:
        """Add the arguments of one of the Trainer's verbs; --ckpt_path takes more here than Lightning's text says."""
        added = super().add_method_arguments(*args, skip={*(skip or ()), "ckpt_path"}, **kwargs)
        self.add_argument(
            "--ckpt_path",
            type=str | None,
            help="a .ckpt file, a version folder, or an experiment folder, which stands for its newest version; "
            "--allow MODULE, once or several times, lets it name classes of other modules than those of SECURITY.md",
        )
        return [*added, "ckpt_path"]


def needs_save_dir(theclass: type) -> bool:
    """Whether a class is a logger that cannot be made without its `save_dir`."""
    if not (isinstance(theclass, type) and issubclass(theclass, Logger)):
        return False
    parameter = inspect.signature(theclass).parameters.get("save_dir")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def parser_settings(verbs: Collection[str]) -> dict[str, Any]:
    """The arguments of the parsers: of the outer one, and under its name of each verb's."""
    settings: dict[str, dict[str, Any]] = {
        verb: {
            "usage": f"python main.py {verb} [--FLAG VALUE ...]",
            "allow_abbrev": False,  # jsonargparse before 4.53 does not hand it down
            "description": (Path(__file__).parent / "help" / f"{verb}.txt").read_text(),
        }
        for verb in verbs
    }
    if "fit" in settings:
        settings["fit"]["default_config_files"] = [str(BASE)]
    return {"allow_abbrev": False, "formatter_class": HelpFormatter, **settings}
