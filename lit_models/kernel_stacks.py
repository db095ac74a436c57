"""LitKernelStacks: stacks of small kernels against a large one, arXiv 1409.1556 (section 2.3) and 1512.00567 (3.2)."""

from typing import Any

from lit_models.classifier import LitClassifier
from lit_models.nets.kernel_stacks import KernelStacks


class LitKernelStacks(LitClassifier):
    """A small net, of no paper, whose stages are stacks of convolutions of given kernels.

    All its layers have the same width: nets whose stacks see as many pixels, such as [3x3, 3x3, 3x3], [7x7] and [7x1,
    1x7], differ in the number of weights and of ReLUs alone.

    Args:
        num_classes: K; the command line takes it from the data.
        kernels: height x width of each convolution of a stack: [3x3, 3x3] sees the pixels of [5x5].
        width: channels of every convolution.
        stages: number of stacks, with a 2x2 max pooling between two of them.
        batch_norm: BatchNorm after each convolution.
        relu_between: a ReLU after every convolution of a stack; false leaves only the one after its last convolution.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        kernels: tuple[str, ...] = ("3x3", "3x3"),
        width: int = 32,
        stages: int = 3,
        batch_norm: bool = False,
        relu_between: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            KernelStacks(num_classes, kernels, width, stages, batch_norm, relu_between), num_classes, **kwargs
        )
        self.limit_sizes(smallest=2 ** (stages - 1))  # a pooling between two stages
