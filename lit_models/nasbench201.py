"""LitNASBench201: Dong and Yang, "NAS-Bench-201", arXiv 2001.00326."""

from typing import Any

from lit_models.classifier import LitClassifier
from lit_models.nets.nasbench201 import RESIDUAL_CELL, NASBench201


class LitNASBench201(LitClassifier):
    """A net of NAS-Bench-201 for images of 32 px: one cell, 3N times, with a residual block between two stages.

    Args:
        num_classes: K; the command line takes it from the data.
        cell: operations on the six edges of the cell, as the paper writes it: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|,
            in quotes in a shell, with none, skip_connect, nor_conv_1x1, nor_conv_3x3 or avg_pool_3x3 for each op; by
            default a residual block of two 3x3 convolutions.
        repeats: N in the paper, cells in each of three stages.
        channels: C in the paper, channels of the first stage, which each further one doubles.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self, num_classes: int, cell: str = RESIDUAL_CELL, repeats: int = 5, channels: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(NASBench201(num_classes, cell, repeats, channels), num_classes, **kwargs)
