"""The best cell as an experiment: a YAML file that `main.py fit` trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from checkpointing.atomic import atomic_write
from cli.config_files import read_config
from cli.messages import HOME
from errors import UserError
from studies.search.spaces import Choices, Space

TABLE_EXPERIMENT = HOME / "configs" / "cifar10" / "nasbench201.yaml"  # the recipe of the table's accuracies
CHILD_EXPERIMENT = HOME / "configs" / "digits" / "nasnet_child.yaml"


def write_best(path: Path, experiment: Path, space: Space, choices: Choices, header: Sequence[str]) -> None:
    """Write an experiment with a cell in place of its own.

    Args:
        path: of the file.
        experiment: a YAML file with the family of the space.
        space: of the cell.
        choices: the cell.
        header: lines of a comment: where the cell is from, and the command.

    Raises:
        UserError: if the file cannot be written.
    """
    content: dict[str, Any] = read_config(str(experiment)).content
    content["model"].setdefault("init_args", {}).update(space.arguments(choices))
    text = "".join(f"# {line}".rstrip() + "\n" for line in header)
    text += yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another file with --best.") from error
    print(f"Wrote {path}")
