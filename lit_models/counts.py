"""Parameters and multiply-adds of a net, counted without computing anything."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_used(net: nn.Module, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of convolutions and linear layers in one forward pass of one image.

    The pass is one in evaluation mode, so auxiliary heads are left out; biases count as parameters alone.

    The net keeps its weights and its modes; the pass runs on tensors without content.

    Args:
        net: on any device.
        size: pixels per side of the image.
    """
    weights = {name: torch.empty_like(each, device="meta") for name, each in net.state_dict().items()}
    used = {name: weights[name].requires_grad_() for name, _ in net.named_parameters()}
    modes = {module: module.training for module in net.modules()}
    image = torch.empty(1, 3, size, size, device="meta")
    net.eval()
    try:
        with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            with FlopCounterMode(display=False) as counter:
                logits = functional_call(net, weights, (image,))
            gradients = torch.autograd.grad(logits.sum(), list(used.values()), allow_unused=True)
    finally:
        for module, mode in modes.items():
            module.training = mode
    parameters = sum(gradient.numel() for gradient in gradients if gradient is not None)
    return parameters, counter.get_total_flops() // 2
