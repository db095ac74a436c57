"""One-switch ablations of any net: another norm, another activation, another dropout, swapped in place.

Only layers that are modules of the net can be swapped. Library nets that call a function instead, or have one layer
inside another, are refused by name rather than changed in part.
"""

import inspect
import re
from typing import Literal, TypeVar, get_args

from torch import Tensor, nn

from errors import UserError, check_probability
from lit_models.nets.layers import BatchNorm, num_groups

Norm = Literal["batch", "group", "none"]
Activation = Literal["relu", "leaky_relu", "selu"]
Layer = TypeVar("Layer", bound=nn.Module)

NORMS = (*get_args(BatchNorm), nn.GroupNorm)
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "selu": nn.SELU}
# A net that calls an activation function in its forward has no module there to swap
FUNCTION_CALL = re.compile(r"\b(F|torch|functional)\.(leaky_)?(relu|selu)_?\(")


def apply_surgery(
    net: nn.Module,
    norm: Norm | None,
    activation: Activation | None,
    dropout: float | None,
    alpha_dropout: bool | None,
    with_weights: bool,
) -> None:
    """Swap norm, activation and dropout of a net in place; None leaves them unchanged.

    Args:
        net: changed in place.
        norm, activation, dropout: see `swap_norm`, `swap_activation` and `swap_dropout`.
        alpha_dropout: whether every dropout is an AlphaDropout; None leaves that to the activation.
        with_weights: whether pretrained weights that must fit are to be loaded.

    Raises:
        UserError: if the net does not allow it, or pretrained weights are to be loaded into a changed net.
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
    if alpha_dropout is not None:
        swap_dropout_kind(net, alpha_dropout)


def swap_norm(net: nn.Module, norm: Norm) -> None:
    """Put another norm in place of every norm of a net; gamma and beta are kept.

    Args:
        net: changed in place.
        norm: batch; group (arXiv 1803.08494, with `layers.num_groups` groups); or none, which removes the norms and
            gives every convolution a bias (of 0) in place of the norm's beta.

    Raises:
        UserError: if the net has no norm, or one that does more than normalise.
    """
    norms = find_layers(net, *NORMS)
    if not norms:
        raise UserError(f"norm is {norm}, but {type(net).__name__} has no norm to swap: leave it out.")
    for _, layer in norms:
        if type(layer) not in (nn.BatchNorm2d, nn.GroupNorm):
            raise UserError(
                f"norm is {norm}, but {type(net).__name__} has {type(layer).__name__}, which is more than a norm and "
                "cannot be swapped: leave it out."
            )
    for path, layer in norms:
        net.set_submodule(path, convert_norm(layer, norm))
    if norm == "none":
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))


def convert_norm(layer: nn.Module, norm: Norm) -> nn.Module:
    """Another norm with the gamma, beta and epsilon of a layer; the layer itself where it is that norm already."""
    if norm == "none":
        return nn.Identity()
    assert isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
    if isinstance(layer, nn.GroupNorm) == (norm == "group"):
        return layer
    channels = len(layer.weight)
    other: nn.BatchNorm2d | nn.GroupNorm = (
        nn.GroupNorm(num_groups(channels), channels, eps=layer.eps)
        if norm == "group"
        else nn.BatchNorm2d(channels, eps=layer.eps)
    )
    other.weight, other.bias = layer.weight, layer.bias
    return other


def swap_activation(net: nn.Module, activation: Activation) -> None:
    """Put another activation in place of every ReLU, LeakyReLU or SELU of a net.

    SELU (arXiv 1706.02515) brings what it needs to normalise by itself: LeCun-normal weights, biases of 0 and
    AlphaDropout.

    Args:
        net: changed in place.
        activation: relu, leaky_relu or selu.

    Raises:
        UserError: if the net has no activation layer, or calls an activation function in a forward of its own.
    """
    for kind in dict.fromkeys(map(type, net.modules())):
        if not kind.__module__.startswith("torch.nn") and FUNCTION_CALL.search(inspect.getsource(kind)):
            raise UserError(
                f"activation is {activation}, but {kind.__name__} in {type(net).__name__} calls a relu inside its "
                "forward, which cannot be swapped: leave it out."
            )
    found = find_layers(net, nn.ReLU, nn.LeakyReLU, nn.SELU)
    if not found:
        raise UserError(f"activation is {activation}, but {type(net).__name__} has none to swap: leave it out.")
    for path, layer in found:
        # In place only where the old one was: branches may share the tensor that they activate
        net.set_submodule(path, ACTIVATIONS[activation](inplace=layer.inplace))
    if activation == "selu":
        prepare_for_selu(net)


def prepare_for_selu(net: nn.Module) -> None:
    """Draw LeCun-normal weights, set biases to 0 and put AlphaDropout in place of dropout (arXiv 1706.02515)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for path, layer in find_layers(net, nn.Dropout):
        net.set_submodule(path, nn.AlphaDropout(layer.p))


def swap_dropout(net: nn.Module, dropout: float) -> None:
    """Set the probability of every dropout of a net; a net without dropout gets one before its classifier.

    Args:
        net: changed in place.
        dropout: probability, in [0, 1).

    Raises:
        UserError: for a probability out of range.
    """
    check_probability(dropout=dropout)
    found = find_layers(net, nn.Dropout, nn.AlphaDropout)
    for _, layer in found:
        layer.p = dropout
    if not found:
        # A part of the classifier, so that the keys of the net's state dict stay the same
        classifier = find_layers(net, nn.Linear)[-1][1]
        classifier.add_module("dropout", (nn.AlphaDropout if find_layers(net, nn.SELU) else nn.Dropout)(dropout))
        classifier.register_forward_pre_hook(drop_input)


def swap_dropout_kind(net: nn.Module, alpha: bool) -> None:
    """Put AlphaDropout (arXiv 1706.02515, section 3), or ordinary dropout, in place of every dropout of a net.

    Args:
        net: changed in place.
        alpha: whether it is AlphaDropout.

    Raises:
        UserError: if the net has no dropout.
    """
    found = find_layers(net, nn.Dropout, nn.AlphaDropout)
    if not found:
        raise UserError(
            f"alpha_dropout is {str(alpha).lower()}, but {type(net).__name__} has no dropout: give it one with "
            "--model.dropout, or leave it out."
        )
    for path, layer in found:
        net.set_submodule(path, (nn.AlphaDropout if alpha else nn.Dropout)(layer.p))


def drop_input(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """The input of a layer behind its own dropout; a forward pre-hook."""
    return layer.get_submodule("dropout")(inputs[0])


def find_layers(net: nn.Module, *kinds: type[Layer]) -> list[tuple[str, Layer]]:
    """All layers of a net that are of some kinds, with their paths; a layer at several paths with each of them."""
    return [item for item in net.named_modules(remove_duplicate=False) if isinstance(item[1], kinds)]
