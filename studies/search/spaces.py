"""Search spaces: an architecture as a sequence of categorical decisions.

NASNet's (Zoph et al., arXiv 1707.07012, section 3) and NAS-Bench-201's (Dong and Yang, arXiv 2001.00326, section 2.1).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from errors import UserError, check_at_least
from lit_models.nets.nasbench201 import EDGES, format_cell
from lit_models.nets.nasbench201 import OPERATIONS as BENCHMARK_OPERATIONS
from lit_models.nets.nasnet_tables import CellTable, Row

Choices = tuple[int, ...]  # an index for each decision


class Decision(NamedTuple):
    """One of the decisions that make an architecture.

    Args:
        kind: decisions of one kind have the same choices; a controller has one softmax and one embedding for them.
        size: number of choices.
    """

    kind: str
    size: int


class Space(ABC):
    """All architectures that a sequence of decisions can describe.

    Args:
        name: for reports.
        family: class path of the LightningModule that is built from an architecture.
        decisions: in the order in which they are made.
    """

    def __init__(self, name: str, family: str, decisions: Sequence[Decision]) -> None:
        self.name, self.family, self.decisions = name, family, tuple(decisions)

    @property
    def size(self) -> int:
        """The number of sequences. Some of them describe the same network."""
        return math.prod(decision.size for decision in self.decisions)

    def check(self, choices: Sequence[int]) -> Choices:
        """The choices as a tuple.

        Raises:
            UserError: if they are no architecture of the space.
        """
        if len(choices) != len(self.decisions):
            raise UserError(
                f"{list(choices)} is no cell of {self.name}: it takes {len(self.decisions)} decisions, not "
                f"{len(choices)}."
            )
        for index, (choice, decision) in enumerate(zip(choices, self.decisions, strict=True)):
            if choice not in range(decision.size):
                raise UserError(
                    f"Decision {index} of a cell of {self.name} is {choice}: the {decision.kind} is a number from 0 to "
                    f"{decision.size - 1}."
                )
        return tuple(choices)

    def canonical(self, choices: Choices) -> Choices:
        """The one of the sequences with the same cells that is trained; here, as by default, the sequence itself."""
        return choices

    @abstractmethod
    def arguments(self, choices: Choices) -> dict[str, Any]:
        """The arguments of the family that make the architecture, in plain types."""

    @abstractmethod
    def describe(self, choices: Choices) -> dict[str, str]:
        """The architecture in words, for tables: a text for each of its parts."""


class NASBench201Space(Space):
    """One cell of four nodes: an operation for each of its six edges; 5 ** 6 = 15,625 cells."""

    def __init__(self) -> None:
        size = len(BENCHMARK_OPERATIONS)
        super().__init__("NAS-Bench-201", "lit_models.LitNASBench201", [Decision("operation", size) for _ in EDGES])

    def arguments(self, choices: Choices) -> dict[str, Any]:
        return {"cell": format_cell(tuple(BENCHMARK_OPERATIONS[choice] for choice in choices))}

    def describe(self, choices: Choices) -> dict[str, str]:
        return {
            f"{start} to {end}": BENCHMARK_OPERATIONS[choice]
            for (start, end), choice in zip(EDGES, choices, strict=True)
        }


# In the order of the operations of `nasnet_cell.OPERATIONS`, which a test compares: to import them takes two seconds
NASNET_OPERATIONS = (
    "identity",
    "conv_1x1",
    "conv_3x3",
    "sep_3x3",
    "sep_5x5",
    "sep_7x7",
    "avg_3x3",
    "max_3x3",
    "max_5x5",
    "max_7x7",
)
PER_ROW = 4  # two hidden states and two operations


class NASNetSpace(Space):
    """A normal and a reduction cell of B rows, predicted one after the other, each row by row (section 3).

    A row takes two decisions on hidden states (the outputs of the two previous cells, or an earlier row) and two on the
    operations that are applied to them. Their results are added: the paper's fifth decision, between addition and
    concatenation, is left out, because NASNet-A's cells only add. Operations are those of `LitNASNet`, ten of the
    paper's 13.

    Args:
        rows: B in the paper, which has 5.
    """

    def __init__(self, rows: int = 5) -> None:
        check_at_least(1, rows=rows)
        operation = Decision("operation", len(NASNET_OPERATIONS))
        cell = [
            decision
            for row in range(rows)
            for decision in (*[Decision(f"hidden state of {row + 2}", row + 2)] * 2, operation, operation)
        ]
        super().__init__("NASNet", "lit_models.LitNASNet", [*cell, *cell])
        self.rows = rows

    def canonical(self, choices: Choices) -> Choices:
        """The two halves of each row in ascending order: a sum is the same either way."""
        ordered: list[int] = []
        for start in range(0, len(choices), PER_ROW):
            first, second, first_operation, second_operation = choices[start : start + PER_ROW]
            (a, x), (b, y) = sorted([(first, first_operation), (second, second_operation)])
            ordered += [a, b, x, y]
        return tuple(ordered)

    def arguments(self, choices: Choices) -> dict[str, Any]:
        normal, reduction = self.tables(choices)
        return {"normal_cell": plain(normal), "reduction_cell": plain(reduction)}

    def tables(self, choices: Choices) -> tuple[CellTable, CellTable]:
        """The normal and the reduction cell. All states that no row uses are concatenated to the output (section 3)."""
        rows = [self._row(choices[start : start + PER_ROW]) for start in range(0, len(choices), PER_ROW)]
        return {"rows": rows[: self.rows]}, {"rows": rows[self.rows :]}

    def _row(self, choices: Choices) -> Row:
        first, second, first_operation, second_operation = choices
        return NASNET_OPERATIONS[first_operation], first, NASNET_OPERATIONS[second_operation], second

    def describe(self, choices: Choices) -> dict[str, str]:
        tables = zip(("normal cell", "reduction cell"), self.tables(choices), strict=True)
        return {
            f"{kind}, row {number}": f"{left}({state}) + {right}({other})"
            for kind, table in tables
            for number, (left, state, right, other) in enumerate(table["rows"])
        }


def plain(table: CellTable) -> dict[str, Any]:
    """A cell table of lists, as a YAML file has it."""
    return {"rows": [list(row) for row in table["rows"]]}
