"""The layers of a config, the lowest first; where two say something of the same key, the higher one wins:

1. configs/base.yaml, which every `fit` starts from;
2. the config inside the checkpoint that --ckpt_path names, as far as the verb needs it (`checkpoint_layer`);
3. the --config files in their order;
4. flags.

jsonargparse reads base.yaml as defaults, and merges files and flags in the order of the command line. The checkpoint's
layer is therefore put in front of the user's arguments, as a --config of its own. Once merged, the config is completed:
lists, absolute paths, and what one key means for another.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from checkpointing.record import INITIAL_WEIGHTS, CheckpointRecord
from cli.trainer import resolve_precision
from errors import UserError


def take_flag(argv: list[str], *names: str) -> tuple[list[str], list[str]]:
    """The values of a flag, once for each time that it is given, and the command line without it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="values", action="append", default=[])
    found, rest = parser.parse_known_args(argv)
    return found.values, rest


def insert_checkpoint_layer(argv: list[str], verb: str, record: CheckpointRecord) -> list[str]:
    """The command line with the checkpoint's config right behind the verb, below all that the user gives."""
    start = argv.index(verb) + 1
    layer = checkpoint_layer(verb, record, keep_trainer=not experiment_files(argv))
    return [*argv[:start], "--config", json.dumps(layer), *argv[start:]]


def checkpoint_layer(verb: str, record: CheckpointRecord, keep_trainer: bool) -> dict[str, Any]:
    """The part of a checkpoint's config that a verb starts from.

    Args:
        verb: fit takes everything; validate and test take seed, model and data; predict takes seed, model, and the
            preprocessing and class names of the data.
        record: of the checkpoint.
        keep_trainer: whether fit takes the trainer's section too: yes, unless the user names an experiment file again,
            which then says how to train.
    """
    config = copy.deepcopy(record.config)
    for name in INITIAL_WEIGHTS & record.model_args.keys():
        config["model"]["init_args"][name] = None  # the checkpoint has its own weights: no file is looked for again
    if verb == "fit":
        excluded = {"runs"} if keep_trainer else {"runs", "trainer"}
        return {key: value for key, value in config.items() if key not in excluded}
    layer = {key: config[key] for key in ("seed_everything", "model", "data")}
    if verb == "predict":
        if not record.preprocessing:
            raise UserError(
                f"predict cannot prepare images: {config['data']['class_path']}, on which this checkpoint was trained, "
                "holds no preprocessing. Derive it from datamodules.ImageData and train again, or run test."
            )
        init_args = {"preprocessing": record.preprocessing, "class_names": record.class_names}
        layer["data"] = {"class_path": "datamodules.Photos", "init_args": init_args}
    return layer


def experiment_files(argv: list[str]) -> list[Path]:
    """The --config files of a command line that are no overlays."""
    configs, _ = take_flag(argv, "--config", "-c")
    paths = [Path(config) for config in configs if not config.startswith("{")]  # a brace begins a checkpoint's layer
    return [path for path in paths if path.absolute().parent.name != "overlays"]


def name_run(argv: list[str]) -> str:
    """<dataset>/<experiment>: folder and name of the first experiment file of a command line."""
    paths = experiment_files(argv)
    if not paths:
        raise UserError(
            "This run has no name: give --config configs/<dataset>/<experiment>.yaml, "
            "or --run_name <dataset>/<experiment>."
        )
    return f"{paths[0].absolute().parent.name}/{paths[0].stem}"


def make_paths_absolute(config: Namespace) -> None:
    """Write the paths of a class and of the classes nested in it so that they hold in any directory.

    A path is any value of the type Path, and any `root`: torchvision's data sets take it as text.
    """
    for key, value in config.items():  # dotted keys, down to the values of nested classes
        if isinstance(value, Path) or (isinstance(value, str) and key.endswith(".root")):
            config[key] = type(value)(Path(value).expanduser().absolute())
        for item in value if isinstance(value, list) else ():
            if isinstance(item, Namespace):
                make_paths_absolute(item)


def complete_trainer(trainer: Namespace, verb: str) -> None:
    """Write loggers and callbacks as lists, resolve `auto`, and switch off what the verb has no use for."""
    for name in ("logger", "callbacks"):
        trainer[name] = normalize_to_list(trainer[name])
    trainer.precision = resolve_precision(trainer.precision)
    if trainer.fast_dev_run:
        trainer.logger = []  # Lightning swaps them too late: EMA copies the model with its loggers, which starts W&B
    if verb != "fit" or not trainer.logger:
        trainer.enable_checkpointing = False  # checkpoints lie in the run directory, or nowhere
    if verb == "predict" and trainer.devices == "auto":
        trainer.devices = 1  # a few images are not worth more, and may be fewer than the devices
    remove_unusable_callbacks(trainer)


def normalize_to_list(value: Any) -> list[Namespace]:
    """True, None, one item or a list, as a list; True, Lightning's default, is no item of ours."""
    return value if isinstance(value, list) else [value] if isinstance(value, Namespace) else []


def remove_unusable_callbacks(trainer: Namespace) -> None:
    """Remove callbacks of base.yaml that Lightning would refuse, since a flag has taken away what they need."""
    names = {"ModelCheckpoint"} if trainer.enable_checkpointing is False else set()
    names |= set() if trainer.logger else {"LearningRateMonitor"}
    trainer.callbacks = [c for c in trainer.callbacks if c.class_path.rsplit(".")[-1] not in names]
