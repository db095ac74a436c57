"""The stored results of a study: one row for each arm and seed, in studies/results/<study>-<budget>.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from checkpointing.atomic import atomic_write
from checkpointing.locks import hold_lock
from errors import UserError

FOLDER = Path(__file__).parent / "results"
WITHOUT_LOCKS = "run a study in one process at a time there."  # advice for file systems that lock no files
State = Literal["finished", "diverged"]


@dataclass(frozen=True)
class Row:
    """What one arm of a study gave with one seed.

    Args:
        arm: its name.
        seed: of the run, or the number of the ensemble.
        state: diverged if a loss was NaN or infinite: that is a result.
        measures: by name, a number or a list of them (a profile over layers, a curve); None where there is none.
        recipe: a digest of the commands that made it: a row of other commands is not skipped.
        test_images: number of test images.
        num_classes: K of the data; a run that diverged counts as guessing among them. 0 if unknown.
        code_version: commit, as the checkpoint has it.
        environment: CPU, threads, torch, as run.json has it.
        seconds: of training and test; 0 for an arm that shares the run of another one.
    """

    arm: str
    seed: int
    state: State
    measures: dict[str, Any]
    recipe: str
    test_images: int = 0
    num_classes: int = 0
    code_version: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def results_path(study: str, budget: str, folder: Path = FOLDER) -> Path:
    """The file of a study's results."""
    return folder / f"{study}-{budget}.json"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if it does not exist.

    Raises:
        UserError: if it holds something else.
    """
    try:
        rows = [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
        for row in rows:
            check_row(row)
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no results of a study ({error}): move it away, or give --results DIR."
        ) from error


def check_row(row: Row) -> None:
    """Raise TypeError for a row whose parts are not of their types."""
    kinds = {"arm": str, "seed": int, "measures": dict, "recipe": str, "environment": dict, "code_version": str}
    kinds |= {"test_images": int, "num_classes": int}
    for name, kind in kinds.items():
        if not isinstance(getattr(row, name), kind):
            raise TypeError(f"{name} is {getattr(row, name)!r}")
    if row.state not in get_args(State) or not isinstance(row.seconds, int | float):
        raise TypeError(f"state is {row.state!r}, seconds {row.seconds!r}")


def write_rows(path: Path, study: str, budget: str, rows: list[Row]) -> None:
    """Write all rows of a file, a line each."""
    lines = ",\n".join("    " + json.dumps(asdict(row)) for row in rows)
    text = f'{{\n  "study": {json.dumps(study)},\n  "budget": {json.dumps(budget)},\n  "rows": [\n{lines}\n  ]\n}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text)


def add_row(path: Path, study: str, budget: str, row: Row, arms: Sequence[str]) -> None:
    """Store a row at once, in the place of an older one of its arm and seed.

    Several processes may add rows to a file: each waits for the others.

    Args:
        path: of the file.
        study, budget: names.
        row: to be stored.
        arms: names of the arms, whose order the rows get; rows of other arms are dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path.with_suffix(".lock"), blocking=True, advice=WITHOUT_LOCKS):
        rows = {(each.arm, each.seed): each for each in read_rows(path)} | {(row.arm, row.seed): row}
        order = {arm: number for number, arm in enumerate(arms)}
        kept = [each for each in rows.values() if each.arm in order]
        write_rows(path, study, budget, sorted(kept, key=lambda each: (order[each.arm], each.seed)))
