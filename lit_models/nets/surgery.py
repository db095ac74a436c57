"""One-switch ablations of any net: another norm, another activation, another dropout, swapped in place.

What is swapped is what stands in the net as a module. Library nets that call a function instead, or hide one layer
inside another, are refused by name rather than changed in part.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError
from lit_models.nets.layers import groups

Norm = Literal["batch", "group", "none"]
Activation = Literal["relu", "leaky_relu", "selu"]

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.SELU)
DROPOUTS = (nn.Dropout, nn.AlphaDropout)
# A net that calls one of these by itself has no module there to swap
CALLED = re.compile(r"\b(F|torch|functional)\.(leaky_)?(relu|selu)_?\(")
WEIGHTED = (nn.Conv2d, nn.Linear)


def apply_surgery(
    net: nn.Module, norm: Norm | None, activation: Activation | None, dropout: float | None, with_weights: bool
) -> None:
    """Swap norm, activation and dropout as the arguments ask; None leaves them as they are.

    Raises:
        ValueError: if the net cannot have it, or weights that were trained without it are to be loaded.
    """
    for name, value in (("norm", norm), ("activation", activation)):
        if value is not None and with_weights:
            raise UserError(
                f"{name} is {value} and weights are given, which were likely trained without it: leave one of them "
                "out. If they were trained with it, or shall be adapted to it, add --model.strict false."
            )
    if norm is not None:
        swap_norm(net, norm)
    if activation is not None:
        swap_activation(net, activation)
    if dropout is not None:
        swap_dropout(net, dropout)


def swap_norm(net: nn.Module, norm: Norm) -> None:
    """Put another norm in place of every norm of a net; gamma and beta are kept.

    Args:
        net: changed in place.
        norm: batch; group (arXiv 1803.08494, with `layers.groups` groups); or none, which takes the norms away and
            gives every convolution the bias (of 0) that the norm's beta made needless.

    Raises:
        ValueError: if the net has no norm, or one that does more than normalise.
    """
    norms = [place for place in layers(net) if isinstance(place[2], NORMS)]
    if not norms:
        raise UserError(f"norm is {norm}, but {type(net).__name__} has no norm to swap: leave it out.")
    for _, _, layer in norms:
        if type(layer) not in (nn.BatchNorm2d, nn.GroupNorm):
            raise UserError(
                f"norm is {norm}, but {type(net).__name__} has {type(layer).__name__}, which is more than a norm and "
                "cannot be swapped: leave it out."
            )
    for parent, name, layer in norms:
        if norm != kind(layer):
            setattr(parent, name, other_norm(layer, norm))
    if norm == "none":
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))


def kind(layer: nn.Module) -> Norm:
    """What a norm is called here."""
    return "group" if isinstance(layer, nn.GroupNorm) else "batch"


def other_norm(layer: nn.Module, norm: Norm) -> nn.Module:
    """The norm that takes the place of a layer, with its gamma, beta and epsilon."""
    if norm == "none":
        return nn.Identity()
    assert isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
    channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features
    if norm == "group":
        other: nn.BatchNorm2d | nn.GroupNorm = nn.GroupNorm(groups(channels), channels, eps=layer.eps)
    else:
        other = nn.BatchNorm2d(channels, eps=layer.eps)
    other.weight, other.bias = layer.weight, layer.bias
    return other


def swap_activation(net: nn.Module, activation: Activation) -> None:
    """Put another activation in place of every ReLU, LeakyReLU or SELU of a net.

    SELU (arXiv 1706.02515) brings what it needs to normalise by itself: LeCun-normal weights, biases of 0 and
    AlphaDropout.

    Raises:
        ValueError: if the net has no such layer, or calls F.relu somewhere by itself.
    """
    for module in net.modules():
        if not type(module).__module__.startswith("torch.nn") and CALLED.search(inspect.getsource(type(module))):
            raise UserError(
                f"activation is {activation}, but {type(module).__name__} in {type(net).__name__} calls a relu inside "
                "its forward, which cannot be swapped: leave it out."
            )
    found = [place for place in layers(net) if isinstance(place[2], ACTIVATIONS)]
    if not found:
        raise UserError(f"activation is {activation}, but {type(net).__name__} has none to swap: leave it out.")
    make = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "selu": nn.SELU}[activation]
    for parent, name, layer in found:
        setattr(parent, name, make(inplace=layer.inplace))  # not everywhere: branches may share what they activate
    if activation == "selu":
        for module in net.modules():
            if isinstance(module, WEIGHTED):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parent, name, layer in layers(net):
            if type(layer) is nn.Dropout:
                setattr(parent, name, nn.AlphaDropout(layer.p))


def swap_dropout(net: nn.Module, dropout: float) -> None:
    """Set the probability of every dropout of a net; one without any gets it before its classifier.

    Raises:
        ValueError: for a probability outside [0, 1).
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}: it must be in [0, 1).")
    found = [layer for _, _, layer in layers(net) if isinstance(layer, DROPOUTS)]
    for layer in found:
        layer.p = dropout
    if not found:
        parent, name, head = [place for place in layers(net) if isinstance(place[2], nn.Linear)][-1]
        assert isinstance(head, nn.Linear)
        alpha = any(isinstance(module, nn.SELU) for module in net.modules())
        setattr(parent, name, DroppedLinear.of(head, dropout, alpha))


class DroppedLinear(nn.Linear):
    """Dropout or AlphaDropout and a linear layer in one, so that the keys of the net's state dict stay as they are."""

    p: float
    alpha: bool

    @classmethod
    def of(cls, layer: nn.Linear, p: float, alpha: bool) -> "DroppedLinear":
        """Take over the weights of a linear layer."""
        new = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new.weight, new.bias, new.p, new.alpha = layer.weight, layer.bias, p, alpha
        return new

    def forward(self, x: Tensor) -> Tensor:
        drop = F.alpha_dropout if self.alpha else F.dropout
        return super().forward(drop(x, self.p, self.training))


def layers(net: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every place in a net: its parent, the name there, and the layer."""
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            yield parent, name, layer
