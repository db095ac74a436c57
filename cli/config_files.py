"""The --config files of a command, and the flags that name files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.config_parts import PartReader, flatten, group_flags, read_flag, refuse_ambiguities, split_flag
from cli.messages import missing_config
from cli.yaml_files import parse_yaml, read_text, write_yaml
from errors import UserError, check_reachable, expand_home


@dataclass(frozen=True)
class Layer:
    """One of the configs that the config of a command is merged of.

    Args:
        name: as it is given to --config, or what the layer is, for sentences.
        content: as YAML holds it, with the content of the files that it names.
        text: in YAML.
        is_file: whether it is one; else it is a checkpoint's config, a flag, or YAML in the command line.
        files: names of the files in it, by the keys that they stand for.
    """

    name: str
    content: dict[str, Any]
    text: str
    is_file: bool = True
    files: dict[str, str] = field(default_factory=dict)

    def sets(self, key: str) -> bool:
        """Whether the layer gives a value to a key."""
        return any(key == each for each, _ in flatten(self.content))

    def file_of(self, key: str) -> str:
        """The name of the file that sets a key: the layer's own, or that of a file that it names."""
        around = [each for each in self.files if key == each or key.startswith(f"{each}.")]
        return self.files[max(around, key=len)] if around else self.name


def read_config(given: str) -> Layer:
    """The layer of a --config: a file, or YAML in the command line itself, which begins with a brace.

    Raises:
        UserError: as `parse_yaml`, `PartReader` and `refuse_ambiguities`, and for a file that does not exist.
    """
    is_file = not given.startswith("{")
    name, path = given if is_file else "--config", expand_home(given)
    if is_file:
        check_reachable(path)
        if not os.path.exists(path):
            raise UserError(missing_config(given))
    text, parts = read_text(path) if is_file else given, PartReader()
    content = parts.insert(parse_yaml(text, name), "", name, [path] if is_file else [])
    refuse_ambiguities(content, name)
    return Layer(name, content, write_yaml(content) if parts.count else text, is_file, parts.files)


@dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Args:
        words: as they were typed; behind the value, words that belong to no flag.
        name: without the dashes.
        text: the value, as it was typed; empty without one.
        value: as YAML holds it, with the content of the files that it names.
        parts: which files these were.
    """

    words: list[str]
    name: str
    text: str
    value: Any
    parts: PartReader

    @property
    def shown(self) -> str:
        return f"--{self.name} {self.text}"


def read_flags(words: list[str]) -> list[Flag]:
    """The flags of a command line; each file that they name is read once, here, for it may be a pipe."""
    flags = []
    for group in group_flags(words):
        (name, text), parts = split_flag(group), PartReader()
        value = read_flag(name, text, parts) if group[0].startswith("--") else None
        flags.append(Flag(group, name, text, value, parts))
    return flags


def insert_files(flags: list[Flag]) -> tuple[list[str], list[Layer]]:
    """The words of flags with the content of the files that they name, and a layer for each flag that holds keys.

    The trainer's section becomes a --config: in a flag, jsonargparse takes its `callbacks+` for all callbacks.
    """
    words: list[str] = []
    layers: list[Layer] = []
    for flag in flags:
        is_section = flag.name == "trainer" and isinstance(flag.value, dict)
        typed = flag.words
        if flag.parts.count or is_section:
            value = flag.value if isinstance(flag.value, str) else write_yaml(flag.value)
            word = f"--config={write_yaml({flag.name: flag.value})}" if is_section else f"--{flag.name}={value}"
            typed = [word, *typed[1 if "=" in typed[0] else 2 :]]
        words += typed
        if flag.parts.count or isinstance(flag.value, dict):
            content = {flag.name: flag.value}
            layers.append(Layer(flag.shown, content, flag.text, is_file=False, files=flag.parts.files))
    return words, layers


def list_values(layers: Sequence[Layer], flags: Sequence[Flag]) -> list[dict[str, Any]]:
    """What layers and flags hold; the value of a flag under the last part of its name."""
    return [*(layer.content for layer in layers), *({flag.name.rpartition(".")[2]: flag.value} for flag in flags)]
