"""Dropout with a number of masks that are drawn once, in place of a new one for each image: a net for each mask."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from errors import UserError, check_at_least
from lit_models.nets.surgery import find_layers
from random_draws import draw_per_batch


class MaskedDropout(nn.Module):
    """Dropout with one of B masks, the same for all images.

    Args:
        p: probability with which a value is 0 in a mask, in [0, 1).
        count: number of masks, B.
        seed: that the masks are drawn from; state dicts carry it.

    Attributes:
        number: of the mask that is used; None for the identity.
    """

    seed: Tensor

    def __init__(self, p: float, count: int, seed: int) -> None:
        super().__init__()
        self.p, self.count = p, count
        self.number: int | None = None
        self.register_buffer("seed", torch.tensor(seed))
        self.masks = torch.empty(0)  # [B, ...] for inputs [N, ...]; 0 or 1 / (1 - p)
        self.register_load_state_dict_post_hook(forget_masks)

    def forward(self, x: Tensor) -> Tensor:
        if self.number is None:
            return x
        if self.masks.shape[1:] != x.shape[1:] or self.masks.device != x.device:
            self.masks = self.draw_masks(x.shape[1:]).to(x.device)
        return x * self.masks[self.number].to(x.dtype)

    def draw_masks(self, shape: torch.Size) -> Tensor:
        """The masks of inputs [N, *shape]: [B, *shape]."""
        generator = torch.Generator().manual_seed(int(self.seed))
        return (torch.rand(self.count, *shape, generator=generator) >= self.p).float() / (1 - self.p)


def forget_masks(layer: nn.Module, _: object) -> None:
    """Let a layer draw its masks anew, from the seed that was loaded; called by `load_state_dict`."""
    assert isinstance(layer, MaskedDropout)
    layer.masks = torch.empty(0)


class DropoutMasks:
    """The masks of all dropouts of a net, of which every forward pass takes those of one number.

    In training, each batch draws a number from torch's generator. In evaluation it is `number`, which is None at first:
    then dropout is the identity.

    Args:
        net: its dropouts are replaced in place.
        count: number of masks, B.
        seeds: the seed of each dropout, in the order of the net's layers; unset, drawn from torch's generator.

    Raises:
        UserError: if the net has no dropout, or one that does not set values to 0.
    """

    def __init__(self, net: nn.Module, count: int, seeds: list[int] | None = None) -> None:
        check_at_least(1, dropout_masks=count)
        refuse_other_dropouts(net)
        self.count = count
        self.number: int | None = None
        self.net, self.replaced = net, find_layers(net, nn.Dropout)
        seeds = seeds or torch.randint(2**62, (len(self.replaced),)).tolist()
        self.layers = [
            MaskedDropout(layer.p, count, seed) for (_, layer), seed in zip(self.replaced, seeds, strict=True)
        ]
        for (path, _), layer in zip(self.replaced, self.layers, strict=True):
            net.set_submodule(path, layer)
        self.hook = net.register_forward_pre_hook(self)

    def __call__(self, net: nn.Module, inputs: object) -> None:
        """Choose the masks of a forward pass; a forward pre-hook of the net."""
        number = self.number
        if net.training:
            number = int(draw_per_batch(lambda: torch.randint(self.count, ())))
        for layer in self.layers:
            layer.number = number

    def take_turns(self) -> Iterator[int]:
        """The numbers of all masks, each of which is used in evaluation until the next one is asked for."""
        for number in range(self.count):
            self.number = number
            yield number
        self.number = None

    def remove(self) -> None:
        """Put the net's own dropouts back."""
        self.hook.remove()
        for path, layer in self.replaced:
            self.net.set_submodule(path, layer)


def refuse_other_dropouts(net: nn.Module) -> None:
    """Raise UserError for a net without dropout, and for one whose dropouts are not plain ones.

    A layer at several paths is refused as well: it would get a mask for each of them.
    """
    name = type(net).__name__
    if others := [layer for _, layer in find_layers(net, nn.AlphaDropout, nn.Dropout2d, MaskedDropout)]:
        raise UserError(f"{name} has {type(others[0]).__name__}, and masks can take the place of plain dropout alone.")
    if not find_layers(net, nn.Dropout):
        raise UserError(f"{name} has no dropout to draw masks for: give it one with --model.dropout.")
