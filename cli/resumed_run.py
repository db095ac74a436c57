"""The checkpoint of --ckpt_path, and what a command line may not say beside it: place and weights of the run.

The record of a resumed run keeps both as they are, whatever the command line has named.
"""

import re
from pathlib import Path

import lightning.pytorch as pl
from jsonargparse import Namespace

from checkpointing.confinement import refuse_links
from checkpointing.predictions import read_tested_hashes
from checkpointing.record import (
    INITIAL_WEIGHTS,
    Checkpoint,
    CheckpointRecord,
    as_recorded,
    read_checkpoint,
    selected_on_validation,
)
from checkpointing.run_dir import find_checkpoint, results_folder, version_folder, version_number
from checkpointing.split import read_split
from cli.config_parts import flag_keys
from cli.messages import missing_checkpoint
from datamodules.base import ImageData
from datamodules.photos import Photos
from datamodules.run_data import RunData, names_same_data
from errors import UserError, expand_home


def read_given_checkpoint(verb: str, paths: list[str]) -> Checkpoint | None:
    """The checkpoint that a command is given; None for a `fit` without one.

    Args:
        verb: fit, validate, test or predict.
        paths: values of --ckpt_path, of which the last one counts.

    Raises:
        UserError: if there is none, it cannot be read, or its run directory holds links.
    """
    if paths and paths[-1]:
        checkpoint = read_checkpoint(find_checkpoint(expand_home(paths[-1]), verb))
        refuse_links(results_folder(checkpoint.path))
        return checkpoint
    if verb != "fit":
        raise UserError(missing_checkpoint(verb))
    return None


def keep_place(config: Namespace, checkpoint: Path, flags: list[str]) -> None:
    """Write into the config where the resumed run lies, which may have been moved.

    Args:
        config: of fit; `runs` and `run_name` are changed in place.
        checkpoint: to resume from; one that lies in no version folder is continued in a new run directory.
        flags: words of the command line.

    Raises:
        UserError: if a flag names another place.
    """
    folder = version_folder(checkpoint)
    if folder is None:
        return
    experiment = folder.parent.resolve()
    parts = Path(config.run_name).parts
    is_named = experiment.parts[-len(parts) :] == parts
    runs = experiment.parents[len(parts) - 1 if is_named else 1]
    is_there = expand_home(config.runs).resolve() == runs
    typed = flag_keys(flags)
    is_version = config.get("run_version") == version_number(folder)
    for name, agrees in (("run_name", is_named), ("runs", is_there), ("run_version", is_version)):
        if name in typed and not agrees:
            raise UserError(
                f"{name} is {config[name]}, but a resumed run goes on in its own folder, {folder}: leave it out, or "
                f"start a new run from its weights with --model.weights {checkpoint}."
            )
    config.run_name = config.run_name if is_named else "/".join(experiment.parts[-2:])
    config.runs = config.runs if is_there else runs


def refuse_optimizer_flags(verb: str, flags: list[str]) -> None:
    """Refuse flags of the optimizer and its schedule, which only `fit` builds; a --config file may hold them."""
    for key in flag_keys(flags):
        if verb != "fit" and re.match(r"model\.(optimizer|lr_scheduler)(\.|$)", key):
            raise UserError(f"--{key} is a setting of a training, and {verb} builds no optimizer: leave it out.")


def refuse_other_preprocessing(config: Namespace, record: CheckpointRecord) -> None:
    """Refuse to predict with other data than image files, prepared and named as the checkpoint was trained."""
    if config.data.class_path != "datamodules.Photos":
        raise UserError(
            f"data is {config.data.class_path}, but predict takes image files: give them with --data.paths, or run "
            "test on a labelled set."
        )
    for name, own in (("preprocessing", record.preprocessing), ("class_names", record.class_names)):
        if as_recorded(config.data.init_args[name]) != as_recorded(own):
            raise UserError(
                f"{name} is {config.data.init_args[name]} here, but predict takes that of the checkpoint: leave it out."
            )


def leave_out_weights(config: Namespace) -> None:
    """Let the model be built without initial weights, for which no file is read: the checkpoint has its own."""
    for name in INITIAL_WEIGHTS & {*config.model.init_args.keys()}:
        config.model.init_args[name] = None


def keep_weights(config: Namespace, checkpoint: Checkpoint) -> None:
    """Write into the config, once the model is built, from which weights the run was begun."""
    for name in INITIAL_WEIGHTS & checkpoint.record.model_args.keys():
        if isinstance(weights := checkpoint.record.model_args[name], str):
            config.model.init_args[name] = weights


def follow_run(data: pl.LightningDataModule, config: Namespace, checkpoint: Checkpoint) -> None:
    """Tell the data which run they continue: its classes, and the files that it has trained on and held back.

    Args:
        data: of this command.
        config: of the data.
        checkpoint: which names the run.
    """
    record = checkpoint.record
    if not isinstance(data, ImageData) or isinstance(data, Photos) or not record.class_names:
        return
    split = read_split(results_folder(checkpoint.path), record.split_hash) if record.split_hash else None
    same_source = names_same_data(record, config.as_dict())
    tested_hashes = read_tested_hashes(checkpoint.path)
    data.follow(RunData(record, split, same_source, selected_on_validation(checkpoint), tested_hashes))
