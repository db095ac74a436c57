"""What may be imported while the config of a checkpoint is in play: jsonargparse's policy, set for one command."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings  # jsonargparse has no other way to take a policy back

from checkpointing.class_paths import LISTED_MODULES, ConfigNames, is_dotted_name, is_file, is_under, parse_nested


def names_given(words: Sequence[str]) -> list[str]:
    """The dotted names in the values of a command line and in the YAML files that it names.

    Args:
        words: of the command line, without the checkpoint's path.
    """
    return sorted({name for word in words for name in names_in(word.partition("=")[2] or word, 3, {})})


def names_in(value: Any, depth: int, seen: dict[int, Any]) -> Iterator[str]:
    """The dotted names in a value of the user's, and in the file that it names.

    Args:
        value: of a flag or of a YAML file.
        depth: how many files and texts in each other are looked into.
        seen: dicts and lists that were looked at, by their `id`: YAML's aliases can put one into itself.
    """
    if isinstance(value, dict | list):
        if id(value) in seen:
            return
        seen[id(value)] = value
        for item in value.values() if isinstance(value, dict) else value:
            yield from names_in(item, depth, seen)
    elif isinstance(value, str):
        if is_dotted_name(value):
            yield value
        text = Path(value).read_text(errors="replace") if depth and is_config(value) else value
        if nested := parse_nested(text):
            yield from names_in(nested, depth - 1, seen)


def is_config(text: str) -> bool:
    """Whether a text is the path of a YAML or JSON file."""
    return text.endswith((".yaml", ".yml", ".json")) and is_file(text)


def restrict_imports(names: ConfigNames) -> None:
    """Let jsonargparse import what the checkpoint's config may name and what the user names, and nothing else."""
    packages = {name.partition(".")[0] for name in names.trusted if not is_under(name, LISTED_MODULES)}
    allowed = {*LISTED_MODULES, *names.classes, *names.trusted, *packages}
    set_parsing_settings(
        import_path_denylist=["*", *sorted(names.texts)],
        import_path_allowlist=sorted(name for name in allowed if not is_under(name, ["jsonargparse"])),
    )


@contextmanager
def restored_import_policy() -> Iterator[None]:
    """Take back, at the end, what `restrict_imports` has set: it is global, and a report runs several commands."""
    before = dict(parsing_settings)
    try:
        yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)
