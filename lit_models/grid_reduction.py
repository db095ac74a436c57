"""LitGridReduction: three ways to halve a feature map, Szegedy et al., arXiv 1512.00567, section 5."""

from typing import Any

from lit_models.classifier import LitClassifier
from lit_models.nets.grid_reduction import GridReduction, Reduction


class LitGridReduction(LitClassifier):
    """A small net, of no paper, that differs from its siblings in how it halves feature maps and doubles channels.

    Args:
        num_classes: K; the command line takes it from the data.
        reduction: pool_first (Figure 9, left: cheap, with a representational bottleneck), widen_first (Figure 9, right:
            four times the multiply-adds) or parallel (Figure 10: a convolution and a pooling of stride 2 side by side,
            half the weights and multiply-adds of pool_first).
        width: channels of the first stage; each further stage has twice as many.
        stages: number of stages, with a reduction between two of them.
        depth: 3x3 convolutions in each stage.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        reduction: Reduction = "parallel",
        width: int = 16,
        stages: int = 3,
        depth: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(GridReduction(num_classes, reduction, width, stages, depth), num_classes, **kwargs)
