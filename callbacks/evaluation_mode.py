"""Other ways to evaluate a trained net than its own, for `test` and `validate`."""

from contextlib import AbstractContextManager, ExitStack

import lightning.pytorch as pl

from datamodules.base import ImageData, image_data
from errors import UserError
from lit_models.classifier import LitClassifier
from trainer_settings import settings


class EvaluationMode(pl.Callback):
    """Changes a net while `test` or `validate` evaluates it; the base class of callbacks that say how.

    Results carry the name of the mode behind that of the protocol, as center_dropout_masks_16: they never replace those
    of the net itself, and reports do not mix them.
    """

    def __init__(self) -> None:
        self.changes = ExitStack()

    def name(self, batch_size: int) -> str:
        """The name in results, of letters, digits and underscores; `batch_size` is that of the data."""
        raise NotImplementedError

    def change(self, model: LitClassifier, data: ImageData) -> AbstractContextManager[object]:
        """Within this context the net is changed; behind it, it is as before.

        Raises:
            UserError: if the net cannot be changed so.
        """
        raise NotImplementedError

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage not in ("test", "validate"):
            raise UserError(
                f"{type(self).__name__} changes how a trained net is evaluated: give it to `main.py test` or "
                "`validate` alone."
            )
        if image_data(trainer) is None or not isinstance(pl_module, LitClassifier):
            raise UserError(
                f"{type(self).__name__} needs a LitClassifier and a data module of this project: leave it out."
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        assert data is not None and isinstance(pl_module, LitClassifier)
        self.changes.enter_context(self.change(pl_module, data))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.changes.close()  # not at the test's end, when other callbacks still ask the model what it has done

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.changes.close()

    on_validation_start = on_test_start


def evaluation_name(trainer: pl.Trainer, data: ImageData | None) -> str:
    """What an evaluation is called in its results: the protocol, and the modes behind it."""
    if data is None:
        return "center"
    modes = [callback for callback in settings(trainer).callbacks if isinstance(callback, EvaluationMode)]
    return "_".join([data.protocol, *(mode.name(data.batch_size) for mode in modes)])
