"""Sequences of decisions and the cells that they describe."""

import pytest
import torch

from lit_models import LitNASNet
from lit_models.nets.nasbench201 import NASBench201
from lit_models.nets.nasnet_cell import OPERATIONS
from lit_models.nets.nasnet_tables import NORMAL_CELL, REDUCTION_CELL
from studies.search.spaces import NASNET_OPERATIONS, NASBench201Space, NASNetSpace


def test_operations_are_those_of_the_nets():
    assert tuple(OPERATIONS) == NASNET_OPERATIONS


def test_nas_bench_201_has_five_operations_on_six_edges():
    space = NASBench201Space()
    assert space.size == 5**6 == 15_625
    assert space.arguments((3, 0, 2, 1, 4, 3)) == {
        "cell": "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    }
    assert space.describe((3, 0, 2, 1, 4, 3))["1 to 2"] == "nor_conv_1x1"
    assert NASBench201(10, **space.arguments((1,) * 6), repeats=1)(torch.rand(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_nasnets_space_is_as_large_as_its_formula(rows):
    """Each row has two states of those before it, and two of ten operations; two cells are chosen independently."""
    cell = 1
    for row in range(rows):
        cell *= ((row + 2) * 10) ** 2
    space = NASNetSpace(rows)
    assert space.size == cell**2
    assert len(space.decisions) == 2 * 4 * rows
    if rows == 5:
        assert cell == 720**2 * 10**10  # states: 2 * 3 * 4 * 5 * 6


def choices_of(table):
    """The decisions that describe a cell table."""
    rows = [(left_state, right_state, left, right) for left, left_state, right, right_state in table["rows"]]
    return [choice for a, b, x, y in rows for choice in (a, b, NASNET_OPERATIONS.index(x), NASNET_OPERATIONS.index(y))]


def test_nasnet_a_is_in_the_space():
    space = NASNetSpace()
    choices = tuple(choices_of(NORMAL_CELL) + choices_of(REDUCTION_CELL))
    assert space.check(choices) == choices
    normal, reduction = space.tables(choices)
    assert normal["rows"] == NORMAL_CELL["rows"] and reduction["rows"] == REDUCTION_CELL["rows"]
    assert space.describe(choices)["normal cell, row 0"] == "sep_5x5(0) + sep_3x3(1)"


@pytest.mark.parametrize("pick", ["least", "most", "random"])
def test_every_sequence_can_be_built(pick):
    space = NASNetSpace(2)
    torch.manual_seed(0)
    sizes = [decision.size for decision in space.decisions]
    choices = {"least": [0] * len(sizes), "most": [size - 1 for size in sizes]}.get(pick)
    choices = tuple(choices or (int(torch.randint(size, ())) for size in sizes))
    net = LitNASNet(
        3, "cifar", repeats=1, filters=8, aux_weight=0, **space.arguments(choices), optimizer=torch.optim.SGD
    )
    assert net(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def test_the_halves_of_a_row_can_change_places():
    space = NASNetSpace(1)
    assert space.canonical((1, 0, 3, 7, 0, 0, 9, 2)) == (0, 1, 7, 3, 0, 0, 2, 9)
    for choices in ((1, 0, 3, 7, 0, 0, 9, 2), (0, 1, 7, 3, 0, 0, 2, 9)):
        assert space.arguments(space.canonical(choices)) == space.arguments((0, 1, 7, 3, 0, 0, 2, 9))


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ((0,) * 5, "it takes 6 decisions, not 5"),
        ((0, 0, 0, 0, 0, 5), "Decision 5 of a cell of NAS-Bench-201 is 5: the operation is a number from 0 to 4"),
        ((0, -1, 0, 0, 0, 0), "Decision 1 of a cell of NAS-Bench-201 is -1"),
    ],
)
def test_other_sequences_are_refused(choices, says):
    with pytest.raises(ValueError, match="cell") as refused:
        NASBench201Space().check(choices)
    assert says in str(refused.value)


def test_a_cell_has_a_row():
    with pytest.raises(ValueError, match="rows is 0: it must be at least 1"):
        NASNetSpace(0)
