"""Callbacks of `test` and `validate` that change a trained net, and one that scales its weights before the training."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from callbacks import BatchNormInTrainingMode, MonteCarloDropout, RemoveLayers, ScaleWeights
from callbacks.scale_weights import scale_convolutions
from checkpointing.predictions import Predictions
from errors import UserError
from lit_models import LitResNet, LitVGG
from lit_models.nets.dropout_masks import MaskedDropout
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.resnet import ResNet
from lit_models.nets.surgery import swap_norm
from tests.conftest import DIGITS, TINY
from tests.lit_models.test_dropout_masks import SGD


def fake_data(batch_size: int = 8) -> SimpleNamespace:
    return SimpleNamespace(batch_size=batch_size, preprocessing={"crop": 32})


def trained_norms(depth: int = 20) -> LitResNet:
    """A ResNet with running statistics of some images."""
    torch.manual_seed(0)
    model = LitResNet(10, depth, optimizer=SGD)
    model(torch.randn(16, 3, 32, 32) * 2 + 1)
    return model.eval()


def test_batch_norm_in_training_mode_normalises_by_the_batch_and_leaves_its_statistics():
    model, images = trained_norms(), torch.randn(8, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad(), BatchNormInTrainingMode().change(model, fake_data()):
        changed = model(images)
        assert not model.net.training and all(norm.training for norm in find_batch_norms(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(norm.training for norm in find_batch_norms(model))
    with torch.no_grad():
        assert not torch.allclose(changed, model(images))
        model.net.train()
        assert torch.allclose(changed, model(images))


def test_batch_norm_in_training_mode_is_refused_where_it_cannot_be():
    model = trained_norms()
    with pytest.raises(UserError, match="A batch of 300 images goes through the net 256 at a time"):
        BatchNormInTrainingMode().change(model, fake_data(300)).__enter__()
    swap_norm(model.net, "group")
    with pytest.raises(UserError, match="ResNet has no BatchNorm: leave BatchNormInTrainingMode out"):
        BatchNormInTrainingMode().change(model, fake_data()).__enter__()


def test_a_removed_block_is_the_identity_or_its_shortcut():
    model, images = trained_norms(), torch.randn(2, 3, 32, 32)
    net = model.net
    with torch.no_grad(), RemoveLayers(["layer1.1", "layer2.0"]).change(model, fake_data()):
        changed = model(images)
    with torch.no_grad():
        x = net.relu(net.bn1(net.conv1(images)))
        x = net.layer1[2](net.layer1[0](x))
        x = torch.relu(net.layer2[0].downsample(x))
        x = net.layer3(net.layer2[2](net.layer2[1](x)))
        assert torch.allclose(changed, net.fc(net.avgpool(x).flatten(1)), atol=1e-6)
        assert not torch.allclose(changed, model(images))  # as before


def test_of_a_plain_net_only_layers_that_keep_the_shape_can_be_removed():
    model = LitResNet(10, 20, shortcut="none", optimizer=SGD).eval()
    with RemoveLayers(["layer1.1"]).change(model, fake_data()):
        assert isinstance(model.net.layer1[1], nn.Identity)
    said = r"layer2.0 cannot be removed from ResNet: it turns \[16, 32, 32\] into \[32, 16, 16\] and has no shortcut"
    with pytest.raises(UserError, match=said):
        RemoveLayers(["layer2.0"]).change(model, fake_data()).__enter__()
    with pytest.raises(UserError, match=r"ResNet has no layer layer9.1: name one of its layers, such as layer1.0, "):
        RemoveLayers(["layer9.1"]).change(model, fake_data()).__enter__()
    with pytest.raises(UserError, match="RemoveLayers has no layers"):
        RemoveLayers([])


def test_results_of_a_mode_are_named_after_it():
    assert BatchNormInTrainingMode(by_class=True).name(8) == "batch_norm_of_8_by_class"
    assert RemoveLayers(["layer1.1", "layer2.0"]).name(8) == "without_layer1_1_layer2_0"
    many = [RemoveLayers([f"layer{k}.{n}" for k in (1, 2, 3)] * 3).name(8) for n in (1, 2)]
    assert many[0].startswith("without_9_layers_") and many[0] != many[1]


def test_sampled_masks_do_not_depend_on_the_batches_and_leave_the_net_as_it_was():
    model, images = LitVGG(10, "A", head="cifar", optimizer=SGD).eval(), torch.randn(6, 3, 32, 32)
    mode = MonteCarloDropout(5)
    with torch.no_grad(), mode.change(model, fake_data()):
        whole = model.log_probabilities(images)
        parts = torch.cat([model.log_probabilities(part) for part in images.split(2)])
        assert sum(isinstance(layer, MaskedDropout) for layer in model.net.modules()) == 2
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(whole.exp().sum(1), torch.ones(6))
    assert model.view_average.masks is None and not any(isinstance(m, MaskedDropout) for m in model.modules())
    with torch.no_grad():
        assert not torch.allclose(whole, model.log_probabilities(images), atol=1e-4)
    fixed = LitVGG(10, "A", head="cifar", fixed_dropout_masks=2, optimizer=SGD)
    with pytest.raises(UserError, match="The net has 2 fixed dropout masks, over which every test averages"):
        mode.change(fixed, fake_data()).__enter__()


def test_the_mean_over_many_masks_of_a_linear_net_is_that_of_the_scaled_weights():
    """Srivastava et al., section 7.5: with many masks, sampling comes to weight scaling; without softmax exactly."""
    layer = MaskedDropout(0.5, count=4000, seed=0)
    x, total = torch.arange(1.0, 6.0)[None], torch.zeros(5)
    for layer.number in range(4000):
        total += layer(x)[0] / 4000
    assert torch.allclose(total, x[0], rtol=0.06)


def test_results_of_modes_lie_beside_those_of_the_net(run, fails, here):
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, "--model.dropout", 0.5)
    run("test", "--ckpt_path", "runs/digits/resnet20")
    mode = ["--trainer.callbacks+=callbacks.MonteCarloDropout", "--trainer.callbacks.masks", 3]
    run("test", "--ckpt_path", "runs/digits/resnet20", *mode)
    order = ["--trainer.callbacks+=callbacks.BatchNormInTrainingMode", "--trainer.callbacks.by_class", "true"]
    run("validate", "--ckpt_path", "runs/digits/resnet20", *order)
    folder = Path("runs/digits/resnet20/version_0")
    plain, sampled = (
        json.loads((folder / f"test-best-center{end}.json").read_text()) for end in ("", "_dropout_masks_3")
    )
    assert (plain["protocol"], sampled["protocol"]) == ("center", "center_dropout_masks_3")
    assert plain["images"] == sampled["images"] and plain["metrics"] != sampled["metrics"]
    predictions = Predictions.read(folder / "predictions-best-center_dropout_masks_3.npz")
    assert (predictions.views, predictions.protocol) == (3, "center_dropout_masks_3")
    by_class = Predictions.read(folder / "val_predictions-best-center_batch_norm_of_8_by_class.npz")
    assert np.array_equal(by_class.indices, np.arange(8)) and not (np.diff(by_class.labels) >= 0).all()
    said = fails("fit", "--config", DIGITS, *TINY, *mode)
    assert "MonteCarloDropout changes how a trained net is evaluated: give it to `main.py test` or `validate`" in said


def test_a_batch_norm_takes_the_scale_out_of_the_weights_before_it():
    """arXiv 1502.03167, section 3.3: BN((aW)u) = BN(Wu), and the gradient is divided by a."""
    nets = [ResNet(10, 20).double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    scale_convolutions(nets[1], 8.0)
    assert torch.equal(nets[1].conv1.weight, nets[0].conv1.weight * 8)
    assert torch.equal(nets[1].fc.weight, nets[0].fc.weight)
    for norm in (norm for net in nets for norm in find_batch_norms(net)):
        norm.eps = 1e-20
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    outputs = [net(images) for net in nets]
    assert torch.allclose(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.allclose(nets[0].conv1.weight.grad, nets[1].conv1.weight.grad * 8)


@pytest.mark.slow
def test_weights_are_scaled_when_a_training_begins_and_not_when_it_is_resumed(run, fails, here):
    flags = ["--config", DIGITS, *TINY, "--trainer.callbacks+=callbacks.ScaleWeights", "--trainer.callbacks.factor"]
    run("fit", *flags, 10, "--model.optimizer.lr", 0, "--trainer.max_epochs", 1)
    run("fit", "--ckpt_path", "runs/digits/resnet20", "--trainer.max_epochs", 2)
    folder = Path("runs/digits/resnet20/version_0/checkpoints")
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == 8
    deviation = state["state_dict"]["net.conv1.weight"].std().item()
    assert deviation == pytest.approx(10 * (2 / (16 * 9)) ** 0.5, rel=0.15)
    assert "factor is -1.0: give a number above 0." in fails("fit", *flags, -1)
    with pytest.raises(UserError, match="factor is nan"):
        ScaleWeights(float("nan"))
