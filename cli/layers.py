"""The layers of a config: base.yaml, the checkpoint's, the --config files, flags."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from errors import UserError


def flags(*names: str) -> argparse.ArgumentParser:
    """A parser for these flags alone, to look at a command line before it is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}")
    return parser


def config_below(verb: str, record: dict[str, Any], experiment: list[Path]) -> dict[str, Any]:
    """What a checkpoint says of the config, to lie below what the user says.

    Resuming takes all of it, unless the user names the experiment file again: then that file says how to train.
    Evaluation takes seed, model and data; predict takes how photos are brought to the net.
    """
    config = copy.deepcopy(record["config"])
    for name in {"weights", "init_from"} & config["model"]["init_args"].keys():
        config["model"]["init_args"][name] = None  # the checkpoint has its own weights: no file is looked for again
    if verb == "fit":
        return {k: v for k, v in config.items() if k not in ("trainer", "runs") or (k == "trainer" and not experiment)}
    if verb == "predict":
        init_args = {"preprocessing": record["preprocessing"], "class_names": record["class_names"]}
        data = {"class_path": "datamodules.Photos", "init_args": init_args}
        return {"seed_everything": config["seed_everything"], "model": config["model"], "data": data}
    return {k: config[k] for k in ("seed_everything", "model", "data")}


def experiments(argv: list[str]) -> list[Path]:
    """The --config files of a command line that are no overlays."""
    parser = flags()
    parser.add_argument("--config", "-c", action="append", default=[])
    given = [Path(config) for config in parser.parse_known_args(argv)[0].config if not config.startswith("{")]
    return [path for path in given if path.absolute().parent.name != "overlays"]


def run_name(argv: list[str]) -> str:
    """<dataset>/<experiment> after the first experiment file of a command line."""
    paths = experiments(argv)
    if not paths:
        raise UserError(
            "This run has no name: give --config configs/<dataset>/<experiment>.yaml, "
            "or --run_name <dataset>/<experiment>."
        )
    return f"{paths[0].absolute().parent.name}/{paths[0].stem}"


def make_absolute(data: Namespace) -> None:
    """Write paths so that the checkpoint finds the data from any directory."""
    init_args = data.get("init_args") or Namespace()
    for name, value in vars(init_args).items():
        if isinstance(value, Path):
            init_args[name] = value.expanduser().absolute()


def as_lists(trainer: Namespace) -> None:
    """Bring loggers and callbacks to the one form of the several that Lightning takes."""
    for name in ("logger", "callbacks"):
        value = trainer[name]
        trainer[name] = value if isinstance(value, list) else [value] if isinstance(value, Namespace) else []


def drop_idle_callbacks(trainer: Namespace) -> None:
    """Leave out callbacks of base.yaml whose ground a flag has taken away, which Lightning would refuse."""
    names = {"ModelCheckpoint"} if trainer.enable_checkpointing is False else set()
    names |= set() if trainer.logger else {"LearningRateMonitor"}
    trainer.callbacks = [c for c in trainer.callbacks if c.class_path.rsplit(".")[-1] not in names]


def one_path_as_list(argv: list[str]) -> list[str]:
    """Take `--data.paths photo.jpg` for `--data.paths '[photo.jpg]'`; jsonargparse would read the photo as a list."""
    given, rest = flags("data.paths").parse_known_args(argv)
    path = getattr(given, "data.paths")
    return argv if path is None or path.startswith("[") else [*rest, f"--data.paths={json.dumps([path])}"]
