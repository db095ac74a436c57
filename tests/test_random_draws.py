"""Random draws for the batch of all processes: each takes the rows that one process would have drawn for its images."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.checkpoint import checkpoint

from callbacks.global_draws import check_equality
from datamodules import ImageNet, Synthetic
from datamodules.augment import Augmentation, random_crop
from errors import UserError
from lit_models import LitResNet
from lit_models.nets.nasnet_cell import drop_path
from lit_models.nets.shake_shake import Shake
from random_draws import LOCAL_DRAWS, GlobalDraws, current_draws, draw_per_batch, draw_per_image

AUGMENTATION = Augmentation(colour=0.4, lighting=0.1, erasing=0.5)
FUNCTIONS = {
    "crop": lambda x: random_crop(x.mul(50).byte(), 2),
    "augmentation": lambda x: AUGMENTATION.apply(x.mul(50).byte(), fill=[127.0] * 3),
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout_of_pixels_last": lambda x: F.dropout(x.to(memory_format=torch.channels_last), 0.3),
    "dropout_in_place": lambda x: nn.Dropout(0.3, inplace=True)(x * 1),
    "dropout_of_channels": lambda x: F.dropout2d(x, 0.3),
    "dropout_in_a_row": lambda x: F.dropout(F.dropout(x.flatten(1), 0.3), 0.5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "alpha_dropout_of_channels": lambda x: F.feature_alpha_dropout(x, 0.3, training=True),
    "drop_path": lambda x: drop_path(x, torch.tensor(0.5)),
    "shake": lambda x: Shake("shake", "shake", "image")(x, 2 * x),
    "shake_of_the_batch": lambda x: Shake("shake", "shake", "batch")(x, 2 * x),
}


def call(function, images):
    """What a function returns for images, and the gradient of its sum of squares by them."""
    torch.manual_seed(3)
    images = images.clone().requires_grad_()
    result = function(images).double()
    if result.requires_grad:
        result.square().sum().backward()
    return result.detach(), torch.tensor(0) if images.grad is None else images.grad


@pytest.mark.parametrize("images", [2, 6, 8])  # one image for each of two processes, and as many as channels
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_process_gets_what_one_process_draws_for_its_images(name, images):
    batch = torch.rand(images, 3, 8, 8)
    result, gradient = call(FUNCTIONS[name], batch)
    for rank in range(2):
        draws = GlobalDraws(rank, 2)

        def within(x, draws=draws):
            with draws:
                return FUNCTIONS[name](x)

        own, own_gradient = call(within, batch[rank::2])
        torch.testing.assert_close(own, result[rank::2])
        torch.testing.assert_close(own_gradient, gradient[rank::2] if gradient.ndim else gradient)
        assert torch.rand(()) == advance(FUNCTIONS[name], batch)  # the next draw is the same one too


def advance(function, batch):
    """The number that is drawn after a function."""
    torch.manual_seed(3)
    function(batch.clone())
    return torch.rand(())


def test_memory_format_is_kept():
    images = torch.rand(3, 4, 8, 8).to(memory_format=torch.channels_last)
    with GlobalDraws(0, 2):
        assert F.dropout(images).stride() == images.stride()


def test_a_draw_that_does_not_say_for_whom_is_refused():
    noise = torch.zeros(2)
    with GlobalDraws(0, 2):
        for draw in (lambda: torch.rand(2), lambda: noise.bernoulli_(0.5), lambda: torch.bernoulli(noise)):
            with pytest.raises(UserError, match="draw_per_image or draw_per_batch"):
                draw()
        assert len(draw_per_image(torch.rand, 2)) == 2 and len(draw_per_batch(lambda: torch.randperm(3))) == 3
        with pytest.raises(ZeroDivisionError):
            draw_per_batch(lambda: torch.zeros(1 // 0))
        with pytest.raises(UserError):
            torch.rand(2)
    assert len(torch.rand(2)) == 2 and GlobalDraws.active is None


def test_a_layer_that_is_recomputed_draws_the_same_again():
    def drop(x):
        return F.dropout(x.sin(), 0.5).cos()

    images, results = torch.rand(4, 3, requires_grad=True), []
    for recomputes in (False, True):
        torch.manual_seed(3)
        with GlobalDraws(1, 2):
            contexts = (LOCAL_DRAWS, current_draws())
            again = partial(checkpoint, drop, use_reentrant=False, context_fn=lambda both=contexts: both)
            result = again(images) if recomputes else drop(images)
        results += torch.autograd.grad(result.sum(), images)
    assert torch.equal(*results)


UNEQUAL = [
    ({}, {"train_size": 9}, "1 image of 9 out of each epoch: give --data.drop_last true"),
    ({"compile": True}, {}, "--model.compile false"),
]


@pytest.mark.parametrize(("model", "data", "message"), UNEQUAL)
def test_what_cannot_be_equal_is_refused(model, data, message):
    noise = Synthetic(6, 16, **{"train_size": 8} | data)
    noise.setup("fit")
    with pytest.raises(UserError, match=message):
        check_equality(noise, LitResNet(6, depth=20, optimizer=torch.optim.SGD, **model), 2)


@pytest.mark.parametrize(("flags", "message"), [({"mixup": 0.2}, "mixup and cutmix"), ({}, "on_bad_image stop")])
def test_mixed_and_skipped_images_are_refused(tmp_path, flags, message):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    data = ImageNet(tmp_path, size=8, val_size=0, on_bad_image="skip", augmentation=Augmentation(**flags))
    data.setup("fit")
    with pytest.raises(UserError, match=message):
        check_equality(data, LitResNet(2, depth=20, optimizer=torch.optim.SGD), 2)
