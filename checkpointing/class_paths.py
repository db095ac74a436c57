"""Which classes the config inside a checkpoint may name.

A checkpoint is data, wherever it comes from. Its config is checked before it is parsed: the name of each class decides
before anything is imported, then its kind before anything is called. What the rule refuses, the user can allow: with
`--allow MODULE`, or by naming the class in a config file or a flag of their own. While a checkpoint's config is in
play, jsonargparse's own policy denies every other import as well (`checkpointing.import_policy`).
"""

import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from errors import UserError

REGISTERED_NAME = re.compile(r"[A-Za-z][\w-]*")  # Lightning's strategy: ddp, profiler: simple, accelerator: cpu
CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
TOO_LARGE = "The config in this checkpoint is too large: `main.py fit` writes no such one. Give another checkpoint."
LONGEST_TEXT = 4096
MOST_VALUES = 100_000  # of a config; YAML inside of text can multiply a few lines without an end


@dataclass(frozen=True)
class Slot:
    """A place of a config that takes a class.

    Args:
        kind: what the class must be derived from.
        modules: where it may come from; the modules inside them count too.
        registered: whether a name without a dot is allowed, which Lightning looks up in a table of its own.
    """

    kind: type | tuple[type, ...]
    modules: tuple[str, ...]
    registered: bool = False


NET = Slot(nn.Module, ("lit_models", "torch.nn", "torchvision.models", "timm.models"))
DATA_SET = Slot(Dataset, ("datamodules", "torchvision.datasets", "torch.utils.data"))
TRANSFORM = Slot(object, ("torchvision.transforms",))
TRAINER_PART = Slot(
    (Accelerator, Strategy, Precision, ClusterEnvironment, CheckpointIO, LayerSync, Profiler),
    ("lightning.pytorch", "lightning.fabric"),
    registered=True,
)
# The slots of each section by the name of the argument; "" is the section itself, "*" is any other argument
SLOTS: dict[str, dict[str, Slot]] = {
    "model": {
        "": Slot(LightningModule, ("lit_models",)),
        "optimizer": Slot(Optimizer, ("torch.optim", "timm.optim")),
        "lr_scheduler": Slot(LRScheduler, ("torch.optim.lr_scheduler", "lightning.pytorch.cli")),
        "*": NET,
    },
    "data": {
        "": Slot(LightningDataModule, ("datamodules",)),
        **dict.fromkeys(("transform", "transforms", "target_transform"), TRANSFORM),
        "*": DATA_SET,
    },
    "trainer": {
        "callbacks": Slot(Callback, ("callbacks", "lightning.pytorch.callbacks")),
        "logger": Slot(Logger, ("callbacks", "lightning.pytorch.loggers")),
        **dict.fromkeys(("accelerator", "strategy", "plugins", "profiler"), TRAINER_PART),
        "*": TRAINER_PART,
    },
}
# Arguments that are slots in one class only: elsewhere text there may be text
SLOTS_OF_CLASS = {"datamodules.TorchvisionData": {"train": DATA_SET, "test": DATA_SET}}
# Data sets that unpickle a file beside their images
UNPICKLING = ("torchvision.datasets.lsun", "torchvision.datasets.LSUN")
LISTED_MODULES = sorted({module for slots in SLOTS.values() for slot in slots.values() for module in slot.modules})


@dataclass
class ConfigNames:
    """The names in a checkpoint's config.

    Args:
        trusted: modules and class paths that the user allows or names.
        classes: class paths that were checked, with the modules in which these classes are defined.
        texts: text that looks like a class path and stands elsewhere, such as a loader: nothing may be imported by it.
    """

    trusted: Sequence[str] = ()
    classes: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    values: int = 0

    def check_section(self, section: str, value: Any) -> None:
        """Check one of the topmost sections of a config; others than model, data and trainer hold no classes."""
        slots = SLOTS.get(section, {})
        self._check(value, section, slots.get(""), slots)

    def _check(self, value: Any, where: str, slot: Slot | None, slots: dict[str, Slot]) -> None:
        """Check a value and all that is in it.

        Args:
            value: of the config.
            where: its dotted key.
            slot: that this value fills; None for an argument that need not be a class.
            slots: of the section.
        """
        self.values += 1
        if self.values > MOST_VALUES or (isinstance(value, str) and len(value) > LONGEST_TEXT):
            raise UserError(TOO_LARGE)
        if isinstance(value, dict):
            self._check_dict(value, where, slot, slots)
        elif isinstance(value, list | tuple):
            for item in value:
                self._check(item, where, slot, slots)
        elif isinstance(value, str):
            self._check_text(value, where, slot, slots)
        elif not isinstance(value, int | float | None):
            raise UserError(
                f"{where} is a {type(value).__name__} in the config of this checkpoint, and no plain value."
            )

    def _check_dict(self, value: dict[Any, Any], where: str, slot: Slot | None, slots: dict[str, Slot]) -> None:
        inner, found = slots, None
        if value.keys() & CLASS_KEYS or slot:
            if not isinstance(value.get("class_path"), str) or not value.keys() <= CLASS_KEYS:
                raise UserError(f"{where} should be a class with its init_args in the config of this checkpoint.")
            found = self._check_class(value["class_path"], where, slot or slots.get("*"))
            inner = slots | SLOTS_OF_CLASS.get(value["class_path"], {})
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(f"{where} has a key that is no text ({key!r}) in the config of this checkpoint.")
            if key == "class_path":
                continue
            if key in CLASS_KEYS:
                self._check_arguments(item, where, found, inner, slots)
            else:
                self._check(item, f"{where}.{key}", inner.get(key) if where == "trainer" else None, slots)

    def _check_arguments(
        self, arguments: Any, where: str, found: type | None, own: dict[str, Slot], slots: dict[str, Slot]
    ) -> None:
        """Check the arguments of a class; a key with a dot or a plus would reach into another one.

        Args:
            arguments: of the config.
            where: the dotted key of the class.
            found: the class; None for one that the user trusts.
            own: slots of the class.
            slots: of the section.
        """
        if not isinstance(arguments, dict) or not all(str(key).isidentifier() for key in arguments):
            raise UserError(f"The arguments of {where} have no plain names in the config of this checkpoint.")
        functions = default_functions(found) if found else {}
        for key, item in arguments.items():
            if key in functions and isinstance(item, str):
                if item != functions[key] and not is_under(item, self.trusted):
                    raise refusal(item, f"{where}.{key}", f"which is {functions[key]} where nobody sets it")
                self.classes.add(item)
            else:
                self._check(item, f"{where}.{key}", own.get(key), slots)

    def _check_text(self, text: str, where: str, slot: Slot | None, slots: dict[str, Slot]) -> None:
        if slot and not (slot.registered and REGISTERED_NAME.fullmatch(text)):
            raise UserError(
                f"{where} is the text {text[:80]!r} in the config of this checkpoint, and should be a class with its "
                "init_args: give it in a --config file of your own if you trust it."
            )
        if is_dotted_name(text) and not is_under(text, self.trusted):
            self.texts.add(text)
        section = where.partition(".")[0]
        if section in ("model", "trainer") and not slot and is_file(text):
            raise UserError(
                f"{where} names the file {text} in the config of this checkpoint, which would be read as a config: "
                "give it in a --config file of your own if you trust it."
            )
        if nested := parse_nested(text):  # jsonargparse reads text as YAML where a class is wanted
            self._check(nested, where, slot, slots)

    def _check_class(self, name: str, where: str, slot: Slot | None) -> type | None:
        """Check the name of a class, and then its kind. Returns the class; None for one that the user trusts."""
        if is_under(name, self.trusted):
            self.classes.add(name)
            return None
        hidden = any(part.startswith("_") for part in name.split("."))
        listed = slot is not None and is_under(name, slot.modules) and not is_under(name, UNPICKLING)
        if slot is None or hidden or not listed or not is_dotted_name(name):
            raise refusal(name, where, "none of the classes that a checkpoint may name there")
        found = import_class(name)
        if found is None or not issubclass(found, slot.kind):
            raise refusal(name, where, "no class of the kind that belongs there")
        defined = f"{found.__module__}.{found.__qualname__}"
        if not is_under(defined, [module.partition(".")[0] for module in slot.modules]) or is_under(
            defined, UNPICKLING
        ):
            raise refusal(name, where, f"{defined}, none of the classes that a checkpoint may name there")
        self.classes |= {name, defined}
        return found


def check_config(config: dict[str, Any], trusted: Sequence[str] = ()) -> ConfigNames:
    """Check all that a checkpoint's config names; nothing of it is called.

    Args:
        config: the part of the checkpoint's config that the command uses.
        trusted: modules and class paths that the user allows or names.

    Raises:
        UserError: with the class path, its place in the config, and --allow MODULE.
    """
    names = ConfigNames(trusted)
    for section, value in config.items():
        if not str(section).isidentifier():  # "model.class_path" would reach into the section
            raise UserError(f"The config in this checkpoint has the key {section!r}, which is none of `main.py fit`.")
        try:
            names.check_section(section, value)
        except RecursionError as error:  # text that is YAML of a list that holds itself
            raise UserError(TOO_LARGE) from error
    return names


def refusal(name: str, where: str, reason: str) -> UserError:
    """The error for a class path."""
    module = name.rpartition(".")[0] or name
    return UserError(
        f"The config in this checkpoint names {name[:200]} for {where}, {reason}: it is not loaded, since a checkpoint "
        f"is not trusted to run code. If you trust it, allow the module with --allow {module[:200]}."
    )


def is_under(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is one of the modules, or is in one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def is_dotted_name(text: str) -> bool:
    """Whether a text is a name that Python could import, such as torch.optim.SGD."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def import_class(name: str) -> type | None:
    """The class of a dotted name; None if there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def default_functions(found: type) -> dict[str, str]:
    """The arguments of a class whose default is a function, such as a loader of files, with that function's name."""
    functions = {name: each.default for name, each in inspect.signature(found).parameters.items()}
    return {
        name: f"{function.__module__}.{function.__qualname__}"
        for name, function in functions.items()
        if inspect.isfunction(function)
    }


def is_file(text: str) -> bool:
    """Whether a text is the path of a file that exists."""
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, or a home that is unknown
        return False


def parse_nested(text: str) -> dict[Any, Any] | list[Any] | None:
    """The dict or list that a text is in YAML; None if it is plain text."""
    if not re.search(r"[{\[:\n-]", text):
        return None
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
