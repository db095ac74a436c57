"""BatchNorm left in training mode, as by a forgotten `model.eval()`."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl

from callbacks.evaluation_mode import EvaluationMode
from datamodules.base import ImageData, image_data
from errors import UserError
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms


class BatchNormInTrainingMode(EvaluationMode):
    """Tests a net whose BatchNorms normalise by the batch that is tested, as by a forgotten `model.eval()`.

    All else is in evaluation mode, and the running statistics stay as they are. What the net says of an image depends
    on the others of its batch, so the error depends on `--data.batch_size` (of several devices, on the share of each),
    and on the order of the images.

    Args:
        by_class: test the images of a class one after the other, so that a batch has one class or two.
    """

    def __init__(self, by_class: bool = False) -> None:
        super().__init__()
        self.by_class = by_class

    def name(self, batch_size: int) -> str:
        return f"batch_norm_of_{batch_size}{'_by_class' if self.by_class else ''}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data = image_data(trainer)
        assert data is not None
        data.evaluates_by_class = self.by_class

    @contextmanager
    def change(self, model: LitClassifier, data: ImageData) -> Iterator[None]:
        norms = [norm for norm in find_batch_norms(model) if norm.track_running_stats]
        if not norms:
            raise UserError(f"{type(model.net).__name__} has no BatchNorm: leave BatchNormInTrainingMode out.")
        largest = model.view_average.images_per_forward
        if data.batch_size > largest:
            raise UserError(
                f"A batch of {data.batch_size} images goes through the net {largest} at a time, by which BatchNorm "
                f"would normalise: give --model.images_per_forward {data.batch_size}."
            )
        for norm in norms:
            norm.training, norm.track_running_stats = True, False  # it reads and writes no running statistics
        try:
            yield
        finally:
            for norm in norms:
                norm.training, norm.track_running_stats = False, True
