"""`null` for an argument that needs a value.

jsonargparse takes null in a class's arguments for one that was not given, and hands it on to the class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from checkpointing.class_paths import import_class
from cli.messages import rephrase
from errors import UserError

PARTS_OF_CLASSES = ("model", "data", "trainer.callbacks", "trainer.logger", "trainer.strategy", "trainer.profiler")


def refuse_nulls(config: Namespace) -> None:
    """Refuse null where the class of a part of the config does not take it.

    Args:
        config: of a verb, parsed: its classes are imported.

    Raises:
        UserError: with the flag of the first one.
    """
    for part in PARTS_OF_CLASSES:
        check_part(config[part], f"--{part}")


def check_part(value: object, flag: str) -> None:
    """Check a class with its arguments, a list of them, or any other value; see `refuse_nulls`."""
    if isinstance(value, list):
        for each in value:
            check_part(each, flag)
    if not isinstance(value, Namespace) or "class_path" not in value:
        return
    for name, argument in vars(value.get("init_args", Namespace())).items():
        # The number of classes comes from the data, later
        if argument is None and name != "num_classes":
            check_null(value.class_path, name, flag)
        check_part(argument, f"{flag}.{name}")


def check_null(class_path: str, name: str, flag: str) -> None:
    """Raise UserError if null is no value of an argument of a class; functions and nested classes check their own."""
    if (parser := argument_parser(class_path)) is None:
        return
    # Some libraries' defaults are null although their types do not say so
    if parser.get_defaults(skip_validation=True).get(f"it.{name}") is None:
        return
    with null_is_a_value():
        try:
            parser.validate(Namespace(it=Namespace({name: None})), skip_required=True)
        except (TypeError, KeyError) as error:
            raise UserError(rephrase(str(error), []).replace("--it.", f"{flag}.")) from error


@cache
def argument_parser(class_path: str) -> ArgumentParser | None:
    """A parser of a class's arguments, under "it"; None where the name is not of a class in a module."""
    if (found := import_class(class_path)) is None:
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(found, "it", fail_untyped=False)
    return parser


@contextmanager
def null_is_a_value() -> Iterator[None]:
    """Let jsonargparse tell null from an argument that was not given."""
    set_parsing_settings(unset_sentinel=True)
    try:
        yield
    finally:
        set_parsing_settings(unset_sentinel=False)
