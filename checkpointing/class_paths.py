"""Which classes the config inside a checkpoint may name.

A checkpoint is data, wherever it comes from. Its config is a tree of plain values in which classes stand as dicts, and
is checked before it is parsed: the name of each class decides before anything is imported, then its kind before
anything is called (`checkpointing.class_lists`). Text stays text: what jsonargparse would read as YAML or as the path
of a file is refused. What the rule refuses, the user can allow: with `--allow MODULE`, or by naming the class in a
config file or a flag of their own. While a checkpoint's config is in play, jsonargparse's own policy denies every other
import as well (`checkpointing.import_policy`).
"""

import importlib
import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from checkpointing.class_lists import (
    FREE_TEXT,
    FUNCTION_ARGUMENTS,
    FUNCTION_CALLERS,
    FUNCTIONS,
    SLOTS,
    SLOTS_OF_CLASS,
    WANDB_ARGUMENTS,
    Slot,
)
from checkpointing.nested_text import read_nested
from errors import UserError

REGISTERED_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)  # Lightning's strategy: ddp, profiler: simple
ARGUMENT = re.compile(r"[A-Za-z]\w*", re.ASCII)
KEY = re.compile(r"[A-Za-z]\w*|\d+", re.ASCII)  # of other dicts: {4: 2} of a GradientAccumulationScheduler
LONGEST_KEY = 100  # characters; the parser takes minutes to complain of a million
CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
TOO_LARGE = "The config in this checkpoint is too large: `main.py fit` writes no such one. Give another checkpoint."
LONGEST_TEXT = 4096
MOST_VALUES = 100_000  # of a config


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
            self._check_text(value, where, slot)
        elif not isinstance(value, int | float | None):
            raise UserError(
                f"{where} is a {type(value).__name__} in the config of this checkpoint, and no plain value."
            )

    def _check_dict(self, value: dict[Any, Any], where: str, slot: Slot | None, slots: dict[str, Slot]) -> None:
        found, is_class = None, bool(value.keys() & CLASS_KEYS or slot)
        check_keys(value, where, KEY)
        if is_class:
            if not isinstance(value.get("class_path"), str) or not value.keys() <= CLASS_KEYS:
                raise UserError(f"{where} should be a class with its init_args in the config of this checkpoint.")
            found = self._check_class(value["class_path"], where, slot or slots.get("*"))
        for key, item in value.items():
            if key in ("init_args", "dict_kwargs"):
                self._check_arguments(item, where, found, slots)
            elif key != "class_path":
                self._check(item, f"{where}.{key}", slots.get(key) if where == "trainer" else None, slots)

    def _check_arguments(self, arguments: Any, where: str, found: type | None, slots: dict[str, Slot]) -> None:
        """Check the arguments of a class; a key with a dot or a plus would reach into another one.

        Args:
            arguments: of the config.
            where: the dotted key of the class.
            found: the class; None for one that the user trusts.
            slots: of the section.
        """
        if not isinstance(arguments, dict):
            raise UserError(f"The arguments of {where} have no names in the config of this checkpoint.")
        check_keys(arguments, where, ARGUMENT)
        functions = default_functions(found) if found else {}
        own = {**slots, **slots_of(found)}
        for key, item in arguments.items():
            argument = f"{where}.{key}"
            if found and found.__name__ == "WandbLogger" and item and key not in WANDB_ARGUMENTS:
                raise argument_refusal(argument, item)
            if item is not None and (key in FUNCTION_ARGUMENTS or (key in functions and isinstance(item, str))):
                self._check_function(item, argument, functions.get(key))
            else:
                self._check(item, argument, own.get(key), slots)

    def _check_function(self, item: Any, where: str, default: str | None) -> None:
        """Check the value of an argument that is a function: its default, or one of a few."""
        if not isinstance(item, str):
            raise argument_refusal(where, item)
        if item != default and item not in FUNCTIONS and not is_under(item, self.trusted):
            raise refusal(item, where, f"which is {default} where nobody sets it" if default else "a function")
        self.classes.add(item)

    def _check_text(self, text: str, where: str, slot: Slot | None) -> None:
        section, _, key = where.partition(".")
        if slot and not (slot.registered and REGISTERED_NAME.fullmatch(text)):
            raise UserError(
                f"{where} is the text {text[:80]!r} in the config of this checkpoint, and should be a class with its "
                "init_args: give it in a --config file of your own if you trust it."
            )
        if is_dotted_name(text) and not is_under(text, self.trusted):
            self.texts.add(text)
        if is_read_as_file(text):
            raise UserError(
                f"{where} names the file {text} in the config of this checkpoint, which would be read as a config: "
                "give it in a --config file of your own if you trust it."
            )
        is_free = section == "trainer" and key.rpartition(".")[2] in FREE_TEXT
        if section in SLOTS and not is_free and holds_config(text):
            raise UserError(
                f"{where} is the text {text[:80]!r} in the config of this checkpoint, which would be read as a config: "
                "give it in a --config file or a flag of your own if you want it."
            )

    def _check_class(self, name: str, where: str, slot: Slot | None) -> type | None:
        """Check the name of a class, and then its kind. Returns the class; None for one that the user trusts."""
        is_trusted = is_under(name, self.trusted)
        if slot is None or not may_be_listed(name, slot):
            if not is_trusted:
                raise refusal(name, where, "none of the classes that a checkpoint may name there")
            self.classes.add(name)
            return None
        found = import_class(name)
        if found is None or not issubclass(found, slot.kind):
            raise refusal(name, where, "no class of the kind that belongs there")
        defined = f"{found.__module__}.{found.__qualname__}"
        own_package = is_under(found.__module__, [name.rpartition(".")[0]])
        if (not own_package or not is_listed(defined, slot)) and not is_trusted:
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
        # "model.class_path" would reach into the section, and `config` would be another config
        if not ARGUMENT.fullmatch(str(section)) or (section in ("config", "print_config") and value):
            raise UserError(f"The config in this checkpoint has the key {section!r}, which is none of `main.py fit`.")
        try:
            names.check_section(section, value)
        except RecursionError as error:
            raise UserError(TOO_LARGE) from error
    return names


def refusal(name: str, where: str, reason: str) -> UserError:
    """The error for a class path."""
    module = name.rpartition(".")[0] or name
    return UserError(
        f"The config in this checkpoint names {name[:200]} for {where}, {reason}: it is not loaded, since a checkpoint "
        f"is not trusted to run code. If you trust it, allow the module with --allow {module[:200]}."
    )


def argument_refusal(where: str, value: Any) -> UserError:
    """The error for an argument that no checkpoint may set."""
    return UserError(
        f"{where} is {str(value)[:80]!r} in the config of this checkpoint, and a checkpoint may not set it: give it in "
        "a --config file of your own if you trust it."
    )


def check_keys(value: dict[Any, Any], where: str, pattern: re.Pattern[str]) -> None:
    """Refuse keys that jsonargparse reads as more than a name, such as a.b, a+ and __path__."""
    for key in value:
        if not isinstance(key, str) or len(key) > LONGEST_KEY or not pattern.fullmatch(key):
            raise UserError(
                f"{where} has a key that is no plain name ({str(key)[:80]!r}) in the config of this checkpoint."
            )


def is_under(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is one of the modules, or is in one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def may_be_listed(name: str, slot: Slot) -> bool:
    """Whether a class path may stand for a listed class: its module is a listed one, one inside or one around it."""
    package, _, last = name.rpartition(".")
    plain = name.isascii() and is_dotted_name(name) and not any(part.startswith("_") for part in name.split("."))
    modules = [module for module, allowed in slot.modules.items() if not allowed or last in allowed]
    return plain and any(is_under(package, [module]) or is_under(module, [package]) for module in modules)


def is_listed(defined: str, slot: Slot) -> bool:
    """Whether a class is listed, by the module in which it is defined and its name."""
    last = defined.rpartition(".")[2]
    listed = any(is_under(defined, [module]) and (not each or last in each) for module, each in slot.modules.items())
    return listed and last not in FUNCTION_CALLERS


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


def slots_of(found: type | None) -> Mapping[str, Slot]:
    """The slots that a class has beside those of its section: its own, and those of the classes it is derived from."""
    bases = [f"{base.__module__}.{base.__qualname__}" for base in found.__mro__] if found else []
    return next((SLOTS_OF_CLASS[base] for base in bases if base in SLOTS_OF_CLASS), {})


def is_read_as_file(text: str) -> bool:
    """Whether jsonargparse could open a text as a file: one that exists, also with file:// in front of its path."""
    try:
        paths = [os.path.expanduser(text), re.sub("^file:/*", "/", text, flags=re.IGNORECASE)]
        return any(os.path.exists(path) and not os.path.isdir(path) for path in paths)
    except (OSError, ValueError):  # too long, or a null character
        return False


def holds_config(text: str) -> bool:
    """Whether jsonargparse may read a text as a dict or list; a folder's name stays text."""
    if text.startswith("/") and os.path.isdir(text):
        return False
    try:
        return read_nested(text) is not None
    except yaml.YAMLError:  # whatever else may be made of it, it is no plain text
        return True
