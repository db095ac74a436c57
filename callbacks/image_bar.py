"""One bar over the images of an evaluation, which moves with every forward pass, however many views it takes."""

from collections.abc import Sized
from typing import Any

from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from batch import Images


class ImageBar:
    """Moves a bar of an evaluation over its images.

    A batch of 144 crops of each image is many forward passes: the bar moves with each of them, by the images whose
    views it has gone through, and with a batch it is at the batch's last image.

    Args:
        bar: of Lightning.
        total: images of this process's share that are evaluated.
        batch_size: images of a batch.
        net: which evaluates; called with [N, 3, H, W] views.
    """

    def __init__(self, bar: Tqdm, total: int, batch_size: int, net: nn.Module) -> None:
        self.bar, self.total, self.batch_size = bar, total, batch_size
        self.first = self.seen = 0  # image of the batch; its views so far
        self.views = 1  # of an image
        bar.reset(self.total)
        bar.unit = " images"
        bar.set_description(bar.desc.partition(" DataLoader")[0], refresh=False)  # there is one
        bar.miniters, bar.dynamic_miniters = 1, False  # the time alone decides when it is drawn
        self.hook = net.register_forward_hook(self._after_forward)

    def start_batch(self, images: Images, batch_idx: int) -> None:
        """A batch begins."""
        self.first, self.seen, self.views = batch_idx * self.batch_size, 0, views_per_image(images)

    def end_batch(self, batch_idx: int) -> None:
        """A batch is done, with images that could not be read."""
        self._move_to((batch_idx + 1) * self.batch_size)

    def close(self) -> None:
        """Draw the last state, and follow the net no more."""
        self.hook.remove()
        self.bar.refresh()

    def _after_forward(self, net: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.seen += len(inputs[0])
        self._move_to(self.first + min(self.seen // self.views, self.batch_size))

    def _move_to(self, image: int) -> None:
        self.bar.update(min(image, self.total) - self.bar.n)


def views_per_image(images: Images | Any) -> int:
    """The views of each image of a batch."""
    sizes = images if isinstance(images, list) else [images]
    return sum(views.shape[1] if isinstance(views, Tensor) and views.ndim == 5 else 1 for views in sizes)


def follow_images(bar: Tqdm, loaders: Any, num_batches: int | float, net: nn.Module) -> ImageBar | None:
    """The bar of one loader of batches of known size; None for others, whose bar counts batches."""
    if not isinstance(loaders, DataLoader) or loaders.batch_size is None or isinstance(num_batches, float):
        return None
    if isinstance(loaders.dataset, IterableDataset) or not isinstance(loaders.sampler, Sized):
        return None  # how many images it gives nobody knows
    return ImageBar(bar, min(len(loaders.sampler), num_batches * loaders.batch_size), loaders.batch_size, net)
