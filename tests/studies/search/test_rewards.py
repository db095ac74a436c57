"""NAS-Bench-201's table: the edges and operations of a cell are read as they are meant."""

import itertools

import numpy as np
import pytest

from errors import UserError
from lit_models.nets.nasbench201 import EDGES, OPERATIONS
from studies.search.rewards import TABLE, VAL_IMAGES, TableReward
from studies.search.spaces import NASBench201Space

SPACE = NASBench201Space()
NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)


@pytest.fixture(scope="module")
def reward():
    return TableReward(SPACE, "cifar10")


@pytest.fixture(scope="module")
def everything(reward):
    """The outcomes of all cells, asked for one by one."""
    cells = list(itertools.product(range(5), repeat=6))
    return dict(zip(cells, reward.evaluate(cells), strict=True))


def test_the_best_cell_is_a_residual_one(everything):
    """84.892 % and 89.03 %, as printed in the file; its convolutions have an identity from input to output."""
    best = max(everything, key=lambda cell: everything[cell].validation)
    assert best == (CONV_3X3, CONV_3X3, CONV_3X3, SKIP, CONV_1X1, CONV_3X3)
    assert everything[best].validation == pytest.approx(0.84892) and everything[best].test == pytest.approx(0.8903)


def reaches_output(cell):
    """Whether a path without `none` leads from node 0 to node 3."""
    reached = {0}
    for (start, end), operation in sorted(zip(EDGES, cell, strict=True)):
        if operation != NONE and start in reached:
            reached.add(end)
    return 3 in reached


def test_cells_whose_output_is_cut_off_guess_and_no_others_do(everything):
    """Only with each edge in its place do these two sets of cells have nothing in common."""
    cut = [outcome.validation for cell, outcome in everything.items() if not reaches_output(cell)]
    others = [outcome.validation for cell, outcome in everything.items() if reaches_output(cell)]
    assert len(cut) == 341 and len(others) == 15_284
    assert max(cut) < 0.1 < 0.27 < min(others)


def test_cells_that_are_mirror_images_are_equally_good(everything):
    """Without the edge 1-2, nodes 1 and 2 can change places: two trainings of one network."""
    pairs = [
        (outcome.validation, everything[b, a, NONE, c, e, d].validation)
        for (a, b, between, c, d, e), outcome in everything.items()
        if between == NONE and (a, d) < (b, e)  # edges 0-1 and 1-3 on one side, 0-2 and 2-3 on the other
    ]
    differences = np.abs(np.diff(pairs, axis=1))
    assert len(pairs) == (5**5 - 5**3) // 2  # those that are their own images have one training
    assert differences.mean() < 0.005 and np.corrcoef(np.transpose(pairs))[0, 1] > 0.998


def test_a_file_in_another_order_is_read_alike(reward, tmp_path):
    table = dict(np.load(TABLE))
    edges, operations, rows = [5, 3, 0, 1, 4, 2], [4, 0, 3, 1, 2], np.random.default_rng(0).permutation(SPACE.size)
    numbers = np.argsort(operations)  # the new number of each operation
    table |= {"edges": table["edges"][edges], "operations": table["operations"][operations]}
    table["cells"] = numbers[table["cells"][rows][:, edges]].astype(np.uint8)
    table |= {name: table[name][rows] for name in table if name.startswith(tuple(VAL_IMAGES))}
    np.savez(tmp_path / "other.npz", **table)
    assert np.array_equal(TableReward(SPACE, "cifar10", tmp_path / "other.npz").outcomes, reward.outcomes)


@pytest.mark.parametrize("dataset", VAL_IMAGES)
def test_accuracies_are_shares_of_the_validation_images(dataset):
    """On CIFAR-10 the mean of two trainings: multiples of half an image."""
    outcomes = TableReward(SPACE, dataset).outcomes
    images = outcomes[:, 0] * VAL_IMAGES[dataset] * (2 if dataset == "cifar10" else 1)
    assert np.abs(images - images.round()).max() < 0.01
    assert outcomes.shape == (15_625, 2) and outcomes[:, 0].max() < 0.9


def broken(**changes):
    return {name: value for name, value in (dict(np.load(TABLE)) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"edges": None}, "it has no edges"),
        ({"edges": np.array(["0-1", "0-2", "1-2", "0-3", "1-3", "2-4"])}, "its edges are 0-1, 0-2, 1-2, 0-3, 1-3, 2-4"),
        ({"operations": np.array(["none", "sep_3x3"])}, "its operations are none, sep_3x3, not none, skip_connect"),
        ({"cells": np.zeros((15_625, 6), np.uint8)}, "cells are missing, or there twice"),
        ({"cells": np.full((15_625, 6), 9, np.uint8)}, "cells are missing, or there twice"),
        ({"cells": np.zeros((4, 6), np.uint8)}, "it has not 15,625 cells of 6 edges"),
        ({"cifar10_val": np.zeros(4)}, "it has not 15,625 cells"),
        ({"cifar10_test": None}, "it has not 15,625 cells"),
        ({"cifar10_val": np.full(15_625, 840.0)}, "accuracies are not between 0 and 100 %"),
        ({"cifar10_val": np.full(15_625, np.nan)}, "accuracies are not between 0 and 100 %"),
    ],
)
def test_the_table_of_another_space_is_refused(tmp_path, changes, says):
    path = tmp_path / "table.npz"
    np.savez(path, **broken(**changes))
    with pytest.raises(UserError) as refused:
        TableReward(SPACE, "cifar10", path)
    assert f"{path} is no table of NAS-Bench-201: {says}" in str(refused.value)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no table")
    for name in ("text.npz", "missing.npz"):
        with pytest.raises(UserError, match=rf"{name} cannot be read \(.*Error\): give an .npz file"):
            TableReward(SPACE, "cifar10", tmp_path / name)
    with pytest.raises(UserError, match="dataset mnist is not in the table: choose one of cifar10, cifar100"):
        TableReward(SPACE, "mnist")


def test_operations_are_in_the_order_of_the_net():
    assert list(np.load(TABLE)["operations"]) == list(OPERATIONS)
