"""Residual blocks removed from a trained net: Veit et al., arXiv 1605.06431."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from callbacks.evaluation_mode import EvaluationMode
from datamodules.base import ImageData
from errors import UserError
from lit_models.classifier import LitClassifier

LONGEST_NAME = 60  # characters, of a list of layers


class RemoveLayers(EvaluationMode):
    """Tests a net without some of its layers (arXiv 1605.06431, section 4.1): each is replaced by the identity.

    Of a residual block that changes the shape, the shortcut stays. A plain net's layers can be removed where they keep
    the shape.

    Args:
        layers: their names in the net, such as [layer1.1, layer3.2] of a ResNet.
    """

    def __init__(self, layers: list[str]) -> None:
        super().__init__()
        if not layers:
            raise UserError("RemoveLayers has no layers: name some, such as --trainer.callbacks.layers '[layer1.1]'.")
        self.layers = layers

    def name(self, batch_size: int) -> str:
        names = "_".join(self.layers).replace(".", "_")
        if len(names) > LONGEST_NAME:
            names = f"{len(self.layers)}_layers_{hashlib.sha256(names.encode()).hexdigest()[:6]}"
        return f"without_{names}"

    @contextmanager
    def change(self, model: LitClassifier, data: ImageData) -> Iterator[None]:
        removed = {name: find_layer(model.net, name) for name in self.layers}
        shortcuts = {name: find_shortcut(layer) for name, layer in removed.items()}
        refuse_other_shapes(model, shortcuts, data.preprocessing["crop"])
        for name, shortcut in shortcuts.items():
            model.net.set_submodule(name, shortcut)
        try:
            yield
        finally:
            for name, layer in removed.items():
                model.net.set_submodule(name, layer)


def find_layer(net: nn.Module, name: str) -> nn.Module:
    """A layer of a net by its name.

    Raises:
        UserError: if it has none of this name.
    """
    layers = dict(net.named_modules())
    if not name or name not in layers:
        blocks = [path for path in layers if path and path.count(".") == 1]
        some = f", such as {', '.join(blocks[:6])}" if blocks else ""
        raise UserError(f"{type(net).__name__} has no layer {name}: name one of its layers{some}.")
    return layers[name]


def find_shortcut(layer: nn.Module) -> nn.Module:
    """What is left of a layer: of a residual block that changes the shape its shortcut, or else the identity."""
    if isinstance(layer, BasicBlock | Bottleneck) and layer.downsample is not None:
        return nn.Sequential(layer.downsample, nn.ReLU())
    return nn.Identity()


def refuse_other_shapes(model: LitClassifier, shortcuts: dict[str, nn.Module], size: int) -> None:
    """Refuse to remove a layer whose output has another shape than what is left of it, for images of `size` pixels."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def note(name: str, shortcut: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[name] = (shortcut(inputs[0]).shape, output.shape)

    hooks = [
        model.net.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name, shortcut=shortcut: note(name, shortcut, inputs, output)
        )
        for name, shortcut in shortcuts.items()
    ]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    for name, (left, output) in shapes.items():
        if left != output:
            raise UserError(
                f"{name} cannot be removed from {type(model.net).__name__}: it turns {list(left[1:])} into "
                f"{list(output[1:])} and has no shortcut. Name layers that keep the shape."
            )
