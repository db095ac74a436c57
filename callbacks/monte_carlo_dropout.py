"""Monte Carlo dropout: the mean over sampled masks in place of scaled weights."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from callbacks.evaluation_mode import EvaluationMode
from datamodules.base import ImageData
from datamodules.samplers import mix_seed, run_seed
from errors import UserError, check_at_least
from lit_models.classifier import LitClassifier
from lit_models.nets.dropout_masks import DropoutMasks
from lit_models.nets.surgery import find_layers


class MonteCarloDropout(EvaluationMode):
    """Tests the mean probabilities of nets that sampled dropout masks make of a net (Srivastava et al., JMLR 15, 2014,
    section 7.5).

    Without it, all units are kept and weigh what they weigh on average in training. A mask is the same for all images:
    each of the masks makes one thinned net, drawn by the run's seed (`--seed_everything` draws others), so the result
    does not depend on the batches.

    Args:
        masks: how many, each of which is a forward pass for each view.
    """

    def __init__(self, masks: int = 16) -> None:
        super().__init__()
        check_at_least(1, masks=masks)
        self.masks = masks

    def name(self, batch_size: int) -> str:
        return f"dropout_masks_{self.masks}"

    @contextmanager
    def change(self, model: LitClassifier, data: ImageData) -> Iterator[None]:
        if model.view_average.masks is not None:
            raise UserError(
                f"The net has {model.view_average.masks.count} fixed dropout masks, over which every test averages: "
                "leave MonteCarloDropout out."
            )
        seeds = [mix_seed(run_seed(), layer) for layer in range(len(find_layers(model.net, nn.Dropout)))]
        model.view_average.masks = masks = DropoutMasks(model.net, self.masks, seeds)
        try:
            model.net.eval()
            yield
        finally:
            masks.remove()
            model.view_average.masks = None
