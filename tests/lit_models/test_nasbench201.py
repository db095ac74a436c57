import pytest
import torch

from lit_models import LitNASBench201
from lit_models.nets.nasbench201 import (
    EDGES,
    OPERATIONS,
    RESIDUAL_CELL,
    Cell,
    NASBench201,
    ReductionBlock,
    format_cell,
    parse_cell,
)

MIXED = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def conv(inputs, outputs, kernel):
    """Weights of a convolution without bias, and gamma and beta of its norm."""
    return inputs * outputs * kernel**2 + 2 * outputs


def by_hand(cell, classes=10, n=5, c=16):
    """The net's parameters, counted from section 2.1."""
    threes, ones = cell.count("nor_conv_3x3"), cell.count("nor_conv_1x1")
    cells = sum(n * (threes * conv(w, w, 3) + ones * conv(w, w, 1)) for w in (c, 2 * c, 4 * c))
    # two 3x3 convolutions with norms, and the shortcut's 1x1 convolution, which has none
    reductions = sum(conv(w, 2 * w, 3) + conv(2 * w, 2 * w, 3) + w * 2 * w for w in (c, 2 * c))
    stem, last_norm, classifier = conv(3, c, 3), 2 * 4 * c, 4 * c * classes + classes
    return stem + cells + reductions + last_norm + classifier


@pytest.mark.parametrize(
    ("cell", "counted"),
    [
        # 464 + 5 (4 * 2,336 + 288) + 5 (4 * 9,280 + 1,088) + 5 (4 * 36,992 + 4,224)
        # + (4,672 + 9,280 + 512) + (18,560 + 36,992 + 2,048) + 128 + 650: the 1.073466 M of the benchmark's own records
        (MIXED, 1_073_466),
        # 464 + 5 * 2 (2,336 + 9,280 + 36,992) + 14,464 + 57,600 + 128 + 650
        (RESIDUAL_CELL, 559_386),
        (format_cell(("skip_connect",) * 6), 73_306),
        (format_cell(("none",) * 6), 73_306),
    ],
)
def test_parameters_are_those_counted_by_hand(cell, counted):
    with torch.device("meta"):
        net = NASBench201(10, cell)
    assert sum(p.numel() for p in net.parameters()) == counted == by_hand(cell)


def test_shapes_follow_the_papers_skeleton():
    net, shapes = NASBench201(7, RESIDUAL_CELL, repeats=2), []
    for block in net.cells:
        block.register_forward_hook(lambda module, _, out: shapes.append((type(module), *out.shape[1:])))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    first, second, third = [(Cell, 16, 32, 32)] * 2, [(Cell, 32, 16, 16)] * 2, [(Cell, 64, 8, 8)] * 2
    halved = [(ReductionBlock, 32, 16, 16)], [(ReductionBlock, 64, 8, 8)]
    assert shapes == [*first, *halved[0], *second, *halved[1], *third]


def cell_output(operations, x):
    torch.manual_seed(0)
    cell = Cell(operations, channels=4).eval()
    return cell, cell(x)


def test_nodes_are_the_sums_of_what_their_edges_bring():
    x = torch.randn(2, 4, 6, 6)
    operations = ("nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "nor_conv_3x3")
    cell, out = cell_output(operations, x)
    by_edge = dict(zip(EDGES, cell.layers, strict=True))
    one = by_edge[0, 1](x)
    two = by_edge[0, 2](x) + by_edge[1, 2](one)
    torch.testing.assert_close(out, x + by_edge[2, 3](two))


@pytest.mark.parametrize(
    ("edge", "operations"),
    [
        ((0, 3), ("none", "none", "none", "skip_connect", "none", "none")),
        ((0, 1), ("skip_connect", "none", "none", "none", "skip_connect", "none")),
        ((0, 2), ("none", "skip_connect", "none", "none", "none", "skip_connect")),
    ],
)
def test_each_path_of_identities_hands_the_input_on(edge, operations):
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(cell_output(operations, x)[1], x), edge
    cut = tuple("none" if at == edge else name for at, name in zip(EDGES, operations, strict=True))
    assert torch.equal(cell_output(cut, x)[1], torch.zeros_like(x))


def test_average_pooling_leaves_the_padding_out():
    x = torch.ones(1, 4, 3, 3)
    out = cell_output(("none", "none", "none", "avg_pool_3x3", "none", "none"), x)[1]
    torch.testing.assert_close(out, x)


def test_layers_that_lead_nowhere_have_gradients_of_zero():
    """Data parallel training waits for the gradient of every parameter."""
    net = NASBench201(3, "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|", 1)
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    lost = net.cells[0].layers[0][1].weight.grad
    assert lost is not None and not lost.any()


def test_a_cells_text_and_its_operations_are_the_same():
    assert parse_cell(MIXED) == (
        "nor_conv_3x3",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "skip_connect",
        "nor_conv_3x3",
        "nor_conv_3x3",
    )
    for name in OPERATIONS:
        assert parse_cell(format_cell((name,) * 6)) == (name,) * 6
    assert format_cell(parse_cell(MIXED)) == MIXED


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("", "cell  is no cell of NAS-Bench-201: write it as |nor_conv_3x3~0|+"),
        ("nor_conv_3x3", "is no cell"),
        (MIXED.replace("~2", "~1"), "is no cell"),
        (MIXED[:-1], "is no cell"),
        ("|none~0|+|none~0|none~1|", "is no cell"),
        (MIXED.replace("skip_connect", "sep_5x5"), "cell has the operation sep_5x5, which NAS-Bench-201 has not"),
    ],
)
def test_other_texts_are_refused(cell, says):
    with pytest.raises(ValueError, match="cell") as refused:
        LitNASBench201(10, cell)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_no_cells_are_refused():
    with pytest.raises(ValueError, match="repeats is 0: it must be at least 1"):
        LitNASBench201(10, repeats=0)
