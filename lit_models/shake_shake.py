"""LitShakeShake: Gastaldi, "Shake-Shake regularization", arXiv 1705.07485."""

from typing import Any, Literal

from lit_models.classifier import LitClassifier
from lit_models.nets.shake_shake import Backward, Forward, Level, Shake, ShakeShake


class LitShakeShake(LitClassifier):
    """A Shake-Shake net of 26 layers for CIFAR: 26 2x32d, 2x64d, 2x96d or 2x112d, and two narrower ones.

    Table 1 names the mixing by forward, backward and level: the default is S-S-I, the best for the wider nets; E-E is
    even, even.

    Args:
        num_classes: K; the command line takes it from the data.
        width: channels of the two branches in the first stage: 32, 64 or 96 (Table 1), 112 (arXiv 1805.09501),
            or 8 or 16 (in no paper, for a CPU).
        forward: weights of the two branches in the forward pass of training: shake is random, even is 0.5 each.
        backward: weights of their gradients: shake is random again, keep is as in the forward pass, even is 0.5 each.
        level: whether each block draws its random weights per image or per batch.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        width: Literal[32, 64, 96, 112, 8, 16] = 32,
        forward: Forward = "shake",
        backward: Backward = "shake",
        level: Level = "image",
        **kwargs: Any,
    ) -> None:
        net = ShakeShake(num_classes, width, Shake(forward, backward, level))
        super().__init__(net, num_classes, **kwargs)
