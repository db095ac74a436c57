"""The --config files of a command: read, and refused where a key could not be meant as it stands."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cli.messages import missing_config
from cli.yaml_files import parse_yaml, read_text
from errors import UserError, check_reachable, expand_home

SECTIONS = {"model", "data", "trainer"}
FLAGS_ONLY = {"config", "ckpt_path"}


@dataclass(frozen=True)
class Layer:
    """One of the configs that the config of a command is merged of.

    Args:
        name: as it is given to --config, or what the layer is, for sentences.
        content: as YAML holds it.
        text: in YAML.
        is_file: whether it is one; else it is a checkpoint's config, or YAML in the command line.
    """

    name: str
    content: dict[str, Any]
    text: str
    is_file: bool = True


def read_config(given: str) -> Layer:
    """The layer of a --config: a file, or YAML in the command line itself, which begins with a brace.

    Raises:
        UserError: as `parse_yaml`, for a file that does not exist, and as `refuse_ambiguities`.
    """
    is_file = not given.startswith("{")
    name = given if is_file else "--config"
    if is_file:
        check_reachable(path := expand_home(given))
        if not os.path.exists(path):
            raise UserError(missing_config(given))
    text = read_text(path) if is_file else given
    content = parse_yaml(text, name)
    refuse_ambiguities(content, name)
    return Layer(name, content, text, is_file)


def refuse_ambiguities(content: Any, name: str) -> None:
    """Refuse what jsonargparse would take for less than it says.

    Args:
        content: of a --config.
        name: of the file, for errors.

    Raises:
        UserError: for content without keys, an empty section, a key given twice in two ways (`callbacks` and
            `callbacks+`, or `trainer.max_epochs: 3` beside `trainer: {max_epochs: 3}`), and another file in it.
    """
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no keys: a config begins with one, such as `trainer:`.")
    for key in FLAGS_ONLY & content.keys():
        if content[key]:
            raise UserError(f"{name}: {key} is {content[key]}, but it is read from the command line: give it there.")
    for key, value in [*((key, content[key]) for key in SECTIONS & content.keys()), *find_arguments(content)]:
        if not isinstance(value, dict) and not (isinstance(value, str) and key in SECTIONS):
            raise UserError(f"{name}: {key} is {'empty' if value is None else value}: give it keys, or leave it out.")
    counts = Counter(key.removesuffix("+") for key, _ in flatten(content))
    if repeated := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"{name}: {repeated[0]} is given twice, in two ways of writing: write it once.")


def find_arguments(content: Any) -> Iterator[tuple[str, Any]]:
    """Every `init_args` of a config, at any depth."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == "init_args":
            yield key, value
    for part in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from find_arguments(part)


def flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of a config as flags would give them: model.optimizer.lr, and model for the model's class."""
    for name, value in content.items():
        key = flag_name(f"{prefix}{name}")
        if isinstance(value, dict):
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def flag_name(key: str) -> str:
    """The short form of a key: model.optimizer.lr for model.init_args.optimizer.init_args.lr."""
    return re.sub(r"\.(init_args|class_path)(?=\.|$)", "", key)
