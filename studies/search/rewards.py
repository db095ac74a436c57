"""What an architecture is worth: its accuracy, from a table or from a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from errors import UserError
from lit_models.nets.layers import check_choice
from lit_models.nets.nasbench201 import EDGES, OPERATIONS
from studies.search.spaces import Choices, Space

TABLE = Path(__file__).parent / "data" / "nasbench201.npz"
# Images behind a validation accuracy: half of CIFAR-10's training images, and half of the other two's test images
VAL_IMAGES = {"cifar10": 25_000, "cifar100": 5_000, "imagenet16_120": 3_000}


class Outcome(NamedTuple):
    """Accuracies of an architecture, in [0, 1]. The validation accuracy is the reward; the test accuracy is shown."""

    validation: float
    test: float


class Reward(Protocol):
    """Evaluates architectures."""

    def evaluate(self, architectures: Sequence[Choices]) -> list[Outcome]:
        """The outcome of each; all of them may be evaluated at the same time."""
        ...


class TableReward:
    """NAS-Bench-201: the accuracies of all 15,625 cells after 12 epochs (Dong and Yang, arXiv 2001.00326).

    On CIFAR-10 the validation accuracy is that of nets trained on one half of the training images and validated on the
    other, the mean of two; the test accuracy is that of the same cell trained on all of them.

    Args:
        space: NAS-Bench-201's.
        dataset: cifar10, cifar100 or imagenet16_120.
        path: of the table, an .npz file.

    Attributes:
        outcomes: [cells, 2] validation and test accuracies of all cells.

    Raises:
        UserError: for an unknown data set, or a file that is no table of the space.
    """

    def __init__(self, space: Space, dataset: str, path: Path = TABLE) -> None:
        check_choice("dataset", dataset, VAL_IMAGES, "not in the table")
        table = read_arrays(path)
        order = read_order(table, path)
        cells = table["cells"]
        accuracies = [table.get(f"{dataset}_{part}", np.empty(0)) for part in ("val", "test")]
        if cells.shape != (space.size, len(EDGES)) or any(column.shape != (space.size,) for column in accuracies):
            raise not_a_table(path, f"it has not {space.size:,} cells of {len(EDGES)} edges with their accuracies")
        # From the file's edges and operations to those of the space
        cells = order.operations[cells.astype(np.int64).clip(0, len(OPERATIONS))][:, order.edges]
        rows = self._row(cells)
        if not np.array_equal(np.sort(rows), np.arange(space.size)):
            raise not_a_table(path, "cells are missing, or there twice")
        self.outcomes = np.empty((space.size, 2))
        self.outcomes[rows] = np.stack(accuracies, axis=1).astype(np.float64) / 100
        if not ((self.outcomes >= 0) & (self.outcomes <= 1)).all():
            raise not_a_table(path, "accuracies are not between 0 and 100 %")

    @staticmethod
    def _row(cells: np.ndarray) -> np.ndarray:
        """The number of each cell: its decisions as the digits of a number."""
        return cells @ len(OPERATIONS) ** np.arange(len(EDGES))

    def evaluate(self, architectures: Sequence[Choices]) -> list[Outcome]:
        return [Outcome(*self.outcomes[row].tolist()) for row in self._row(np.array(architectures))]


class Order(NamedTuple):
    """Where a table's file has the edges and operations of the space.

    Args:
        edges: [6] the column of each edge.
        operations: [6] the space's number of each of the file's operations, and one more for unknown ones.
    """

    edges: np.ndarray
    operations: np.ndarray


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Raises:
        UserError: if it cannot be read, or is of another space.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = dict(file)
    except Exception as error:  # zipfile, zlib and numpy raise what they like for damaged files
        raise UserError(f"The table {path} cannot be read ({type(error).__name__}): give an .npz file.") from error
    if missing := {"operations", "edges", "cells"} - {*arrays}:
        raise not_a_table(path, f"it has no {sorted(missing)[0]}")
    return arrays


def read_order(table: dict[str, np.ndarray], path: Path) -> Order:
    """How a file orders edges and operations.

    Raises:
        UserError: if it has others.
    """
    edges, operations = [str(name) for name in table["edges"]], [str(name) for name in table["operations"]]
    expected = [f"{start}-{end}" for start, end in EDGES]
    if sorted(edges) != sorted(expected):
        raise not_a_table(path, f"its edges are {', '.join(edges)}, not {', '.join(expected)}")
    if sorted(operations) != sorted(OPERATIONS):
        raise not_a_table(path, f"its operations are {', '.join(operations)}, not {', '.join(OPERATIONS)}")
    numbers = [OPERATIONS.index(name) for name in operations]
    return Order(np.array([edges.index(name) for name in expected]), np.array([*numbers, len(OPERATIONS)]))


def not_a_table(path: Path, reason: str) -> UserError:
    """The error for a file of another space."""
    return UserError(
        f"{path} is no table of NAS-Bench-201: {reason}. Give the file of that space, or leave --table out."
    )


def best_row(outcomes: Any) -> int:
    """The index of the best validation accuracy, the first of equal ones."""
    return int(np.argmax(np.asarray(outcomes)[:, 0]))
