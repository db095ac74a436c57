"""Typed rows out of the YAML files with the papers' tables."""

from argparse import ArgumentError
from pathlib import Path
from typing import TypeVar

import yaml
from jsonargparse import ArgumentParser

from errors import UserError

Row = TypeVar("Row")


def read_rows(path: Path, row_class: type[Row]) -> list[Row]:
    """The rows of a file: a list of groups, whose keys other than `rows` hold for each of their rows.

    Args:
        path: a YAML file.
        row_class: a dataclass; its fields are the keys of a row.

    Raises:
        UserError: for a row with an unknown, a missing or a mistyped key.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(row_class, "row")
    rows = []
    for group in yaml.safe_load(path.read_text()):
        for own in group["rows"]:
            values = {key: value for key, value in group.items() if key != "rows"} | own
            try:
                rows.append(parser.instantiate_classes(parser.parse_object({"row": values})).row)
            except ArgumentError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{path} has a row {values}, which is no {row_class.__name__}: {reason}") from error
    return rows
