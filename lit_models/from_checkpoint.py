"""A model from a checkpoint, for use in Python. No code in the file is run."""

import importlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from checkpointing.record import read_plain_file
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
    saved = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    class_path = str(saved.get("_class_path", family.__name__ if family else "unnamed"))
    if family is None:
        family = find_family(class_path)
    elif class_path.rpartition(".")[2] != family.__name__:
        raise UserError(f"{path} holds a {class_path} and no {family.__name__}: load it with that class.")
    arguments = {name: value for name, value in saved.items() if not name.startswith("_")}
    model = family(**arguments | {"optimizer": refuse_to_train, "lr_scheduler": None} | kwargs)
    model.load_state_dict(checkpoint["state_dict"])
    return model


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
