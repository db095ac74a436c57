"""A model from a checkpoint, for use in Python. No code in the file is run."""

import importlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from checkpointing.record import INITIAL_WEIGHTS, read_plain_file
from errors import UserError
from lit_models.optimization import refuse_to_train


def load_model(family: type[pl.LightningModule] | None, path: Path, **kwargs: Any) -> pl.LightningModule:
    """The model of a checkpoint with its weights, on the CPU.

    Args:
        family: its class; None for that which the checkpoint names.
        path: a .ckpt file.
        **kwargs: arguments of the family in place of the saved ones.

    Raises:
        UserError: if the file cannot be read, or names another class than `family`, or one outside `lit_models`.
    """
    checkpoint = read_plain_file(path)
    saved = saved_arguments(checkpoint, path)
    class_path = str(saved.get("_class_path", family.__name__ if family else "unnamed"))
    if family is None:
        family = find_family(class_path)
    elif class_path.rpartition(".")[2] != family.__name__:
        raise UserError(f"{path} holds a {class_path} and no {family.__name__}: load it with that class.")
    arguments = {name: value for name, value in saved.items() if not name.startswith("_")}
    arguments |= {"optimizer": refuse_to_train, "lr_scheduler": None} | kwargs
    weights, classes = checkpoint.get("state_dict"), arguments.get("num_classes")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no weights: give a .ckpt file that `main.py fit` wrote.")
    if not any(len(value) == classes for value in weights.values() if value.ndim):
        raise UserError(f"{path} has no layer for {classes} classes, as its arguments say: it is damaged.")
    try:
        model = family(**arguments)
        model.load_state_dict(weights)
    except (TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} holds no {family.__name__} of this version of the code: {reason}") from error
    return model


def saved_arguments(checkpoint: Any, path: Path) -> dict[str, Any]:
    """The arguments of the model that a checkpoint holds, without those of its training: nothing to call or to open.

    Raises:
        UserError: if they name a function or a class.
    """
    saved = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else None
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds no arguments of a model: give a .ckpt file that `main.py fit` wrote.")
    of_training = INITIAL_WEIGHTS | {"optimizer", "lr_scheduler"}
    arguments = {name: value for name, value in saved.items() if name not in of_training}
    for name, value in arguments.items():
        if name == "_instantiator" or not is_plain([name, value]):
            raise UserError(
                f"{path} is not loaded: its hyper-parameter {name} names something to call ({str(value)[:80]}), and a "
                "checkpoint is not trusted to run code. Files of `main.py fit` hold none; an older one can be tested "
                "with `python main.py test --ckpt_path`, and its weights load with --model.weights."
            )
    return arguments


def is_plain(value: Any) -> bool:
    """Whether a value is made of numbers and text, and of lists and dicts of them, none of which names a class."""
    waiting, seen = [value], set()  # each container once: a few lists in each other can stand for billions
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += [*item, *(item.values() if isinstance(item, dict) else ())]
        if isinstance(item, dict) and "class_path" in item:
            return False
        if not isinstance(item, dict | list | tuple | str | int | float | None):
            return False
    return True


def find_family(class_path: str) -> type[pl.LightningModule]:
    """The family that a checkpoint names, such as lit_models.LitResNet or lit_models.mynet.LitMyNet.

    Raises:
        UserError: if it is not a class of `lit_models`.
    """
    module, _, name = class_path.rpartition(".")
    ours = module.split(".")[0] == "lit_models"  # decided by the name, before anything is imported
    try:
        family = getattr(importlib.import_module(module), name, None) if ours else None
    except ModuleNotFoundError:
        family = None
    if not (isinstance(family, type) and issubclass(family, pl.LightningModule)):
        raise UserError(
            f"The checkpoint names the model class {class_path}, which is not one of lit_models: load it with that "
            "class, YourClass.load_from_checkpoint(path)."
        )
    return family
