"""Files that stand in a config, or in a flag, for a part of it: `model: resnet.yaml`, `--model resnet.yaml`.

jsonargparse would read them too, but keep the last of two equal keys, say no file's name, and take what `callbacks+` of
a trainer's file adds for all callbacks. By itself it still reads files of other suffixes, or without a class_path, for
arguments of one's own classes.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.yaml_files import parse_yaml, read_yaml
from errors import UserError, check_reachable, expand_home

SECTIONS = {"model", "data", "trainer"}
FLAGS_ONLY = {"config", "ckpt_path", "run_version"}
# Where a text is the name of a class, or of a file that exists; elsewhere it may be any text
PARTS = SECTIONS | {"model.optimizer", "model.lr_scheduler", "trainer.callbacks", "trainer.logger"}
OF_CLASSES = {"class_path", "init_args", "dict_kwargs"}  # keys whose text names no file
SUFFIXES = (".yaml", ".yml", ".json")
MOST_FILES = 100  # that one config may name


@dataclass
class PartReader:
    """Puts the content of the files that a config names in their place, each read as strictly as the config itself.

    A path is relative to the folder of the file that names it; in a flag, to the directory where the command is typed.

    Args:
        files: names of the files that stand for keys, without those for items of lists.
        count: how many were read.
    """

    files: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def insert(self, value: Any, key: str, name: str, around: list[Path]) -> Any:
        """A value with the content of the files that it names in their place.

        Args:
            value: of a config or of a flag.
            key: as a flag would give it; empty for a whole config.
            name: of the file, or of the flag, that holds the value.
            around: that file and those that name it, the innermost last; none of a flag.

        Raises:
            UserError: as `parse_yaml`, for a file that does not exist or names itself, and for content that cannot be
                the key's.
        """
        if isinstance(value, dict):
            named = {each: item for each, item in value.items() if each not in OF_CLASSES or not isinstance(item, str)}
            keys = {each: flag_name(f"{key}.{each}" if key else str(each)) for each in named}
            return value | {each: self.insert(item, keys[each], name, around) for each, item in named.items()}
        key = key.removesuffix("+")
        if isinstance(value, list):
            items = [self.insert(item, key, name, around) for item in value]
            self.files.pop(key, None)  # of one item
            return items
        if not isinstance(value, str):
            return value
        path = Path(os.path.join(around[-1].parent if around else "", expand_home(value)))
        return self._read(path, key, around) if is_part(value, key, path, name) else value

    def _read(self, path: Path, key: str, around: list[Path]) -> Any:
        """The content of a file that stands for a key."""
        self.count += 1
        if self.count > MOST_FILES or os.path.realpath(path) in map(os.path.realpath, around):
            shown = " -> ".join(map(str, [*around, path][-4:]))
            raise UserError(f"The files of a config name each other without an end ({shown}): write one of them out.")
        content = self.insert(read_yaml(path), key, str(path), [*around, path])
        self.files[key] = str(path)
        if not isinstance(content, dict | list | str):
            shown = "empty" if content is None else content
            raise UserError(f"{path}: {key} is {shown}: give it keys, or leave the file out.")
        if isinstance(content, dict) and key in SECTIONS & content.keys():
            raise UserError(f"{path} holds {key}: and stands for {key}: give it as --config, or leave that line out.")
        refuse_ambiguities({key: content}, str(path))
        return content


def is_part(value: str, key: str, path: Path, name: str) -> bool:
    """Whether a value is the name of a file that stands for a part of a config.

    Args:
        value: of the config.
        key: of the value.
        path: that the value would be.
        name: of the file or flag that holds the value, for errors.

    Raises:
        UserError: for a file that does not exist or cannot be read, where it cannot be a text.
    """
    if key not in PARTS:
        return value.endswith(SUFFIXES) and os.path.isfile(path) and holds_class(path)
    if value.endswith(SUFFIXES):
        check_reachable(path)
    if value.endswith(SUFFIXES) and not os.path.exists(path):
        where = name if name.startswith("--") else f"{name}: {key}"
        raise UserError(f"{where} is {value}, and there is no file {path}: give one that exists, or a class.")
    return os.path.exists(path) and not os.path.isdir(path)


def holds_class(path: Path) -> bool:
    """Whether a file holds a class, or a list of them; another one may be what an argument wants, such as a list."""
    try:
        if b"class_path" not in path.read_bytes().replace(b"\0", b""):  # also in UTF-16
            return False
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable, or give another file.") from error
    content = read_yaml(path)
    items = content if isinstance(content, list) else [content]
    return bool(items) and all(isinstance(item, dict) and "class_path" in item for item in items)


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
        if not isinstance(value, dict) and not (isinstance(value, str) and key in ("model", "data")):
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


def group_flags(words: list[str]) -> list[list[str]]:
    """The words of a command line, those of each flag together."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def split_flag(group: list[str]) -> tuple[str, str]:
    """Name and value of a flag; the value is empty for a flag without one."""
    name, equals, value = group[0].removeprefix("--").partition("=")
    return name, value if equals else "".join(group[1:2])


def flag_keys(words: list[str]) -> list[str]:
    """The keys that the flags of a command line set, in their short form."""
    return [flag_name(split_flag(group)[0]) for group in group_flags(words)]


def read_flag(name: str, text: str, parts: PartReader) -> Any:
    """The value of a flag, as YAML where it is YAML, with the content of the files that it names.

    Raises:
        UserError: as `PartReader`, and for a file that stands for arguments without their class.
    """
    try:
        value = parse_yaml(text, "a flag")
    except UserError:
        value = text
    last = name.rpartition(".")[2]
    if last == "init_args" and not isinstance(value, dict):
        raise UserError(f"--{name} is {text}: give it keys, or a file of the whole class as --model FILE.")
    return value if last == "class_path" else parts.insert(value, flag_name(name), f"--{name}", [])
