"""Norms of gradients, weights and updates, beside a plain computation of the same steps."""

import copy
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from batch import Batch
from callbacks import GradientFlow, RunLogger
from checkpointing.gradient_flow import read_gradient_flow
from checkpointing.resume import set_aside_later_results
from datamodules import Synthetic
from errors import UserError
from lit_models import LitGoogLeNet, LitResNet, LitVGG
from lit_models.classifier import LitClassifier
from tests.conftest import DIGITS, STEP_CHECKPOINTS, TINY

LR, MOMENTUM, DECAY, CLIP = 0.1, 0.9, 5e-3, 0.05
SGD = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Spy(pl.Callback):
    """Keeps the net as it was before the first batch, and all batches."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == batch_idx == 0:
            self.net, self.batches = copy.deepcopy(pl_module.net), []
        self.batches.append(Batch(*batch))


class GradientSpy(pl.Callback):
    """The gradient norms of all layers with a weight, computed apart."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = {name: each.grad for name, each in pl_module.net.named_parameters() if each.ndim > 1}
        norms = {name.removesuffix(".weight"): grad.norm().item() for name, grad in grads.items() if grad is not None}
        self.steps.append(norms)


def fit(folder: Path, model: LitClassifier, *callbacks: pl.Callback, size: int = 8, **trainer) -> Path:
    """Train on 10 images in batches of 4, 4 and 2; the run directory."""
    data = Synthetic(classes=4, size=size, train_size=10, val_size=0, test_size=4, batch_size=4)
    logger = RunLogger(save_dir=str(folder), name="net", version="version_0")
    pl.Trainer(callbacks=list(callbacks), logger=logger, log_every_n_steps=1, **QUIET | trainer).fit(model, data)
    return folder / "net" / "version_0"


def replay(spy: Spy) -> list[dict[str, tuple[float, float, float]]]:
    """The norms of each step by autograd and SGD's formula: two batches a step, clipped, with momentum and decay."""
    net, momenta, steps = spy.net, {}, []
    for start in range(0, len(spy.batches), 3):  # an epoch: two batches, then the last one
        for batches in (spy.batches[start : start + 2], spy.batches[start + 2 : start + 3]):
            # Lightning divides by the number of batches that a step usually has
            loss = sum(F.cross_entropy(net(each.images.double()), each.labels) / 2 for each in batches)
            weights = dict(net.named_parameters())
            grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
            total = torch.stack([grad.norm() for grad in grads.values()]).norm()
            factor = min(1.0, CLIP / (total + 1e-6))
            step = {}
            with torch.no_grad():
                for name, weight in weights.items():
                    change = factor * grads[name] + DECAY * weight
                    momenta[name] = MOMENTUM * momenta[name] + change if name in momenta else change
                    update = -LR * momenta[name]
                    layer = name.removesuffix(".weight")
                    step[layer] = (grads[name].norm().item(), weight.norm().item(), update.norm().item())
                    weight += update
            steps.append(step)
    return steps


def test_norms_are_those_of_autograd_and_of_what_the_optimizer_did(tmp_path):
    spy, flow = Spy(), GradientFlow(every_n_steps=1)
    model = LitResNet(4, depth=20, optimizer=SGD)
    trainer = {"max_epochs": 2, "precision": "64-true", "accumulate_grad_batches": 2, "gradient_clip_val": CLIP}
    table = read_gradient_flow(fit(tmp_path, model, flow, spy, **trainer))
    expected = replay(spy)
    assert list(table.steps) == [0, 1, 2, 3] and len(expected) == 4
    assert len(table.layers) == 20 and table.layers[0] == "conv1" and table.layers[-1] == "fc"
    for index, name in enumerate(("gradient", "weight", "update")):
        values = [[step[layer][index] for layer in table.layers] for step in expected]
        np.testing.assert_allclose(getattr(table, name), values, rtol=1e-6, err_msg=name)  # seven digits are written


def test_with_bfloat16_they_are_those_of_the_optimizers_gradients_at_the_steps_that_are_asked_for(tmp_path):
    spy, flow = GradientSpy(), GradientFlow(every_n_steps=4)
    model = LitResNet(4, depth=20, optimizer=SGD)
    table = read_gradient_flow(fit(tmp_path, model, flow, spy, max_epochs=3, precision="bf16-mixed"))
    assert list(table.steps) == [0, 3, 7]
    values = [[spy.steps[step][layer] for layer in table.layers] for step in table.steps]
    np.testing.assert_allclose(table.gradient, values, rtol=1e-5)
    assert (table.update > 0).all() and (table.weight > 0).all()


def test_frozen_layers_have_no_gradient_and_no_update(tmp_path):
    model = LitResNet(4, depth=20, optimizer=SGD)
    model.net.layer1.requires_grad_(False)
    table = read_gradient_flow(fit(tmp_path, model, GradientFlow(), max_epochs=1))
    frozen = [layer.startswith("layer1") for layer in table.layers]
    assert sum(frozen) == 6 and np.isnan(table.gradient[:, frozen]).all() and (table.update[:, frozen] == 0).all()
    assert (table.weight > 0).all() and (table.gradient[:, ~np.array(frozen)] > 0).all()


def test_layers_that_share_a_weight_have_equal_rows_also_in_a_selu_net(tmp_path):
    model = LitVGG(4, variant="A", head="cifar", activation="selu", dropout=0.2, optimizer=SGD)
    layers = [layer for layer in model.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    layers[-1].weight = layers[-2].weight
    table = read_gradient_flow(fit(tmp_path, model, GradientFlow(), max_epochs=1, size=32))
    names = [name for name, layer in model.net.named_modules() if layer in layers[-2:]]
    first, second = (table.layers.index(name) for name in names)
    assert table.gradient[0, first] == table.gradient[0, second] > 0


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_classifier_is_the_last_layer_and_auxiliary_heads_are_none(tmp_path, compiled):
    model = LitGoogLeNet(4, stem="cifar", optimizer=SGD)
    if compiled:
        model.net.compile(backend="eager")
    table = read_gradient_flow(fit(tmp_path, model, GradientFlow(), max_epochs=1, size=32, limit_train_batches=1))
    assert len(table.layers) == 3 + 9 * 6 + 1 and (table.gradient > 0).all()
    assert table.layers[0] == "conv1.conv" and table.layers[-1] == "fc"


def test_nothing_is_measured_where_nothing_is_written_and_a_wrong_interval_is_refused():
    flow, model = GradientFlow(), LitResNet(4, depth=20, optimizer=SGD)
    data = Synthetic(classes=4, size=8, train_size=4, val_size=0, test_size=4, batch_size=4)
    pl.Trainer(max_epochs=1, callbacks=[flow], logger=False, **QUIET).fit(model, data)
    assert not flow.layers and flow.measured is None
    with pytest.raises(UserError, match="every_n_steps is 0: it must be at least 1"):
        GradientFlow(every_n_steps=0)


def test_a_resumed_run_ends_with_the_same_file_and_with_the_weights_of_one_that_measures_nothing(run, here, tiny_runs):
    flow = "\n    - class_path: callbacks.GradientFlow\n      init_args: {every_n_steps: 2}"
    Path("flow.yaml").write_text(f"trainer:\n  callbacks+:{STEP_CHECKPOINTS}{flow}\n")
    run("fit", "--config", DIGITS, *TINY, "--config", "flow.yaml")
    folder = Path("runs/digits/resnet20/version_0")
    whole = (folder / "gradient_flow.csv").read_bytes()
    assert list(read_gradient_flow(folder).steps) == [0, 1, 3, 5, 7, 9, 11]
    cut_off = whole[: whole.index(b"layer2.1.conv2,9,")]  # killed while it wrote the rows of a step
    (folder / "gradient_flow.csv").write_bytes(cut_off)
    run("fit", "--ckpt_path", folder / "checkpoints/step-6.ckpt")
    assert (folder / "gradient_flow.csv").read_bytes() == whole
    assert (folder / "gradient_flow-until_step_9.csv").read_bytes() == cut_off
    ours, others = (
        torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for each in (folder, tiny_runs / "digits/resnet20/version_0")
    )
    assert all(torch.equal(value, others[name]) for name, value in ours.items())


def test_the_overlay_writes_the_file_and_tells_wandb(logged_run):
    table = read_gradient_flow(logged_run)
    assert list(table.steps) == [0] and len(table.layers) == 20 and table.first > 0 and table.first_over_last > 0


def test_rows_after_the_checkpoint_are_kept_beside(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    header, rows = b"epoch,gradient,layer,step,update,weight\r\n", [b"0,1,conv1,%d,0.1,2\r\n" % step for step in (0, 4)]
    (tmp_path / "gradient_flow.csv").write_bytes(header + b"".join(rows))
    set_aside_later_results(tmp_path, 4, [], validates=False)
    assert (tmp_path / "gradient_flow.csv").read_bytes() == header + rows[0]
    assert (tmp_path / "gradient_flow-until_step_4.csv").read_bytes() == header + b"".join(rows)
