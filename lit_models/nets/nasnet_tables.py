"""NASNet-A's cells and variants as tables: arXiv 1707.07012, Figure 4 and Tables 1 to 3; see `nasnet`."""

from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from errors import UserError, check_at_least, check_probability
from lit_models.nets.layers import check_choice

VariantName = Literal["large", "mobile", "cifar"]
Row = tuple[str, int, str, int]


class CellTable(TypedDict):
    """A cell in plain types.

    `rows`: [operation, state, operation, state] each: two operations of `nasnet_cell.OPERATIONS`, each applied to one
    hidden state. Their sum is a new hidden state. State 0 is the output of the previous cell, state 1 the output of the
    cell before that, state 2 + i the sum of row i. In a reduction cell, operations on states 0 and 1 have stride 2.

    `output`: the states that are concatenated to the output of the cell; by default all that no row uses.
    """

    rows: list[Row]
    output: NotRequired[list[int]]


# Figure 4. State 1 of the normal cell and state 3 of the reduction cell are in the output though a row uses them.
NORMAL_CELL: CellTable = {
    "rows": [
        ("sep_5x5", 0, "sep_3x3", 1),
        ("sep_5x5", 1, "sep_3x3", 1),
        ("avg_3x3", 0, "identity", 1),
        ("avg_3x3", 1, "avg_3x3", 1),
        ("sep_3x3", 0, "identity", 0),
    ],
    "output": [1, 2, 3, 4, 5, 6],
}
REDUCTION_CELL: CellTable = {
    "rows": [
        ("sep_5x5", 0, "sep_7x7", 1),
        ("max_3x3", 0, "sep_7x7", 1),
        ("avg_3x3", 0, "sep_5x5", 1),
        ("avg_3x3", 2, "identity", 3),
        ("sep_3x3", 2, "max_3x3", 0),
    ],
    "output": [3, 4, 5, 6],
}


class Variant(NamedTuple):
    """The differences between the paper's three nets."""

    repeats: int  # N
    filters: int  # F
    imagenet: bool  # a stem of stride 2 and two reduction cells
    stem_multiplier: int  # channels of the first convolution: times 32 on ImageNet, times F on CIFAR
    skip_reduction_input: bool  # state 1 of the cell after a reduction: not the reduction's state 0, but its state 1
    drop_path: float
    dropout: float
    bn_momentum: float  # torch's: 1 - decay
    bn_epsilon: float
    aux_size: int  # pixels a side after the auxiliary head's pooling, for images of the paper's size
    # timm's average pooling with stride 2 counts the zeros around the image; the authors' does not
    count_include_pad_at_stride_2: bool


# The authors' configurations; drop path and dropout are 1 - the probabilities of keeping. The large net is timm's.
VARIANTS: dict[str, Variant] = {
    "large": Variant(6, 168, True, 3, True, 0.3, 0.5, 0.0003, 1e-3, 6, count_include_pad_at_stride_2=True),
    "mobile": Variant(4, 44, True, 1, False, 0.0, 0.5, 0.0003, 1e-3, 4, count_include_pad_at_stride_2=False),
    "cifar": Variant(6, 32, False, 3, False, 0.4, 0.0, 0.1, 1e-5, 4, count_include_pad_at_stride_2=False),
}


def choose_variant(name: str, **numbers: float | None) -> Variant:
    """A variant of the paper, with other numbers in place of its own where they are not None.

    Raises:
        UserError: for an unknown variant, or numbers out of range.
    """
    check_choice("variant", name, VARIANTS, "no NASNet-A of the paper")
    given: dict[str, Any] = {field: number for field, number in numbers.items() if number is not None}
    variant = VARIANTS[name]._replace(**given)
    check_at_least(1, repeats=variant.repeats)
    check_at_least(8, filters=variant.filters)  # ImageNet's stem begins with a quarter
    check_probability(drop_path=variant.drop_path)
    if not 0 < variant.bn_momentum <= 1:
        raise UserError(f"bn_momentum is {variant.bn_momentum}: it must be in (0, 1].")
    return variant
