"""What may be imported while the config of a checkpoint is in play: jsonargparse's policy, set for one command."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings  # jsonargparse has no other way to take a policy back

from checkpointing.class_lists import LISTED_MODULES
from checkpointing.class_paths import ConfigNames, import_class, is_dotted_name, is_under
from checkpointing.nested_text import read_nested

# Packages of which a class that the user names brings no other: theirs hold functions that run anything
LIBRARIES = {"jsonargparse", "lightning", "numpy", "timm", "torch", "torchvision", *sys.stdlib_module_names}


def names_given(words: Sequence[str]) -> list[str]:
    """The names in the values of a command line: class paths, and single words.

    Args:
        words: of the command line, without the checkpoint's path, and with the content of the files that it names.
    """
    return sorted({name for word in words for name in names_in(word.partition("=")[2] or word, {})})


def names_in(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    """The names in a value of the user's. A text that cannot be read as YAML names nothing but itself.

    Args:
        value: of a flag or of a YAML file.
        seen: dicts and lists that were looked at, by their `id`: YAML's aliases can put one into itself.
    """
    if isinstance(value, dict | list):
        if id(value) in seen:
            return
        seen[id(value)] = value
        for item in value.values() if isinstance(value, dict) else value:
            yield from names_in(item, seen)
    elif isinstance(value, str):
        if is_dotted_name(value) or (value.isidentifier() and value[0].isupper()):  # SGD is torch.optim.SGD
            yield value
        with suppress(yaml.YAMLError):  # the parser then takes it for text, or says what is wrong
            yield from names_in(read_nested(value), seen)


def restrict_imports(names: ConfigNames, own: Sequence[str] = ()) -> None:
    """Let jsonargparse import the classes of the checkpoint's config and what the user names, and nothing else.

    Args:
        names: of the checkpoint's config.
        own: further class paths of this project's configs.
    """
    allowed = {*names.classes, *own}
    for name in {*names.trusted, *own}:
        allowed |= {name, *defined_names(name)} if is_dotted_name(name) else {name, *listed_names(name)}
        top = name.partition(".")[0]
        allowed |= {top} if "." in name and top not in LIBRARIES else set()
    set_parsing_settings(
        import_path_denylist=["*", *sorted(names.texts)],
        import_path_allowlist=sorted(name for name in allowed if is_allowable(name)),
    )


def is_allowable(name: str) -> bool:
    """Whether jsonargparse takes a name into its list: its own modules it does not."""
    return all(part.isidentifier() for part in name.split(".")) and not is_under(name, ["jsonargparse"])


def defined_names(name: str) -> list[str]:
    """Where the class that the user names is defined."""
    found = import_class(name) if is_under(name, LIBRARIES) else None
    return [f"{found.__module__}.{found.__qualname__}"] if found else []


def listed_names(word: str) -> list[str]:
    """The class paths that jsonargparse may take for a single word, such as SGD."""
    parents = {module.rpartition(".")[0] for module in LISTED_MODULES} | {*LISTED_MODULES}
    paths = [f"{parent}.{word}" for parent in sorted(parents - {""})]
    return [name for path in paths if import_class(path) for name in (path, *defined_names(path))]


@contextmanager
def restored_import_policy() -> Iterator[None]:
    """Take back, at the end, what `restrict_imports` has set: it is global, and a report runs several commands."""
    before = dict(parsing_settings)
    try:
        yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)
