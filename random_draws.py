"""Random draws of training, made by each process for its own images, or by all of them for the global batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from errors import UserError

# Functions that draw for each image of a tensor [B, ...]
DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
# Names of torch's other functions and methods that draw
DRAWS = {
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "randperm", "normal", "bernoulli"),
    *("multinomial", "poisson", "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "rrelu"),
    *("dropout_", "alpha_dropout_", "feature_dropout_", "feature_alpha_dropout_", "rrelu_", "gumbel_softmax"),
    *("bernoulli_", "uniform_", "normal_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"),
}
LOCAL_DRAWS: AbstractContextManager[object] = nullcontext()  # each process draws for its own images


def draw_per_image(draw: Callable[[int], Tensor], images: int, dim: int = 0) -> Tensor:
    """Draw random numbers for the images of a batch; every draw that differs between images is made by this function.

    Args:
        draw: from a number of images to random numbers, with a dimension of that length.
        images: of this process's batch, B.
        dim: this dimension.

    Returns:
        `draw(images)`; within `GlobalDraws`, this process's part of the draw for the images of all processes.
    """
    active = GlobalDraws.active
    return draw(images) if active is None else active.draw_share(draw, images, dim)


def draw_per_batch(draw: Callable[[], Tensor]) -> Tensor:
    """Draw random numbers that all images of a batch share; within `GlobalDraws` all processes share them too."""
    active = GlobalDraws.active
    return draw() if active is None else active.draw_unchecked(draw)


def current_draws() -> AbstractContextManager[object]:
    """The context of draws that this is called in, for the recomputation of a layer in the backward pass."""
    return GlobalDraws.active or LOCAL_DRAWS


class GlobalDraws(TorchFunctionMode):
    """Within this context all processes draw as one process would that has the whole batch.

    A process has the images rank, rank + world_size, ... of the global batch, as `ExactSampler` shares them out, and
    all processes have equally many. All have seeded their generators with the same number. Each draws for all images
    and takes what belongs to its own: in `draw_per_image`, and in torch's dropouts, whose first dimension is the
    batch. No other draw is allowed, so that none can differ by mistake.

    Args:
        rank: of this process.
        world_size: number of processes.
    """

    active: ClassVar["GlobalDraws | None"] = None  # within the context

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size
        self.is_allowed = False  # within `draw_per_image` and `draw_per_batch`

    def __enter__(self) -> Self:
        assert GlobalDraws.active is None  # within itself it would draw for the processes of each process
        GlobalDraws.active = self
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        GlobalDraws.active = None
        super().__exit__(*exception)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._drop_out(func, *args, **kwargs)
        if getattr(func, "__name__", "") in DRAWS and not self.is_allowed:
            raise UserError(
                f"torch's {func.__name__} is called for the batch of a device, and equal_to_one_process draws for all "
                "devices: call it through random_draws.draw_per_image or draw_per_batch, or leave equal_to_one_process "
                "out."
            )
        return func(*args, **kwargs)

    def draw_share(self, draw: Callable[[int], Tensor], images: int, dim: int) -> Tensor:
        """This process's part of a draw for the images of all processes: see `draw_per_image`."""
        everyone = self.draw_unchecked(lambda: draw(images * self.world_size))
        return everyone.unflatten(dim, (images, self.world_size)).select(dim + 1, self.rank)

    def draw_unchecked(self, draw: Callable[[], Tensor]) -> Tensor:
        """Call a function that draws, without the check that refuses draws for one process alone."""
        self.is_allowed = True
        try:
            return draw()
        finally:
            self.is_allowed = False

    def _drop_out(self, func: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Call a dropout with the batch of all processes, in which the images of the others are zeros."""
        # `cat` keeps the memory format, in whose order a dropout may draw
        batch = torch.cat([torch.zeros_like(input)] * self.world_size)
        batch[self.rank :: self.world_size] = input
        own = func(batch, *args, **kwargs)[self.rank :: self.world_size]
        return torch.empty_like(input).copy_(own)
