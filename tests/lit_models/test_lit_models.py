import inspect
from functools import partial

import lightning
import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from callbacks import Progress, Throughput
from datamodules import Synthetic
from lit_models import LitClassifier, LitGoogLeNet, LitResNet
from lit_models.metrics import MeanLoss, TopKError

SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4)


@pytest.fixture
def model() -> LitResNet:
    torch.manual_seed(0)
    return LitResNet(10, depth=20, optimizer=SGD).eval()


def test_optimizer_has_no_default():
    assert inspect.signature(LitClassifier.__init__).parameters["optimizer"].default is inspect.Parameter.empty


def test_views_count_by_the_mean_of_their_probabilities(model):
    views = torch.randn(3, 5, 3, 32, 32)
    with torch.no_grad():
        expected = torch.stack([model(views[:, v]).softmax(1) for v in range(5)]).mean(0)
        torch.testing.assert_close(model.log_probabilities(views).exp(), expected)
        torch.testing.assert_close(model.log_probabilities([views[:, :2], views[:, 2:]]).exp(), expected)


def test_views_of_several_sizes(model):
    large, small = torch.randn(2, 1, 3, 40, 40), torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        parts = [model(large[:, 0]).softmax(1), *(model(small[:, v]).softmax(1) for v in range(3))]
        torch.testing.assert_close(model.log_probabilities([large, small]).exp(), torch.stack(parts).mean(0))


def test_one_view_equals_the_plain_forward_pass(model):
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.log_probabilities(images), model(images).log_softmax(1))
        torch.testing.assert_close(model.log_probabilities(images[:, None]), model(images).log_softmax(1))


def test_views_go_through_the_net_a_bounded_number_at_a_time(model):
    model.view_average.images_per_forward, sizes = 4, []
    model.net.register_forward_pre_hook(lambda net, args: sizes.append(len(args[0])))
    with torch.no_grad():
        model.log_probabilities(torch.randn(3, 5, 3, 32, 32))
    assert max(sizes) <= 4 and sum(sizes) == 15


def test_no_decay_on_norm_and_bias_as_an_option():
    optimizer = LitResNet(10, depth=20, optimizer=SGD, decay_norm_and_bias=False).configure_optimizers()
    decayed, free = optimizer.param_groups
    assert free["weight_decay"] == 0 and decayed["weight_decay"] == 1e-4
    assert all(p.ndim == 1 for p in free["params"]) and all(p.ndim > 1 for p in decayed["params"])
    assert sum(p.numel() for g in (decayed, free) for p in g["params"]) == 269_722
    assert len(LitResNet(10, depth=20, optimizer=SGD).configure_optimizers().param_groups) == 1


def test_frozen_batch_norm_stays_as_it_is_also_in_training_mode():
    model = LitResNet(10, depth=20, optimizer=SGD, freeze_batch_norm=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "bn" in k}
    optimizer = model.configure_optimizers()
    model.loss(model(torch.randn(4, 3, 32, 32)), torch.tensor([1, 2, 3, 4])).backward()
    optimizer.step()
    assert model.net.training and model.net.conv1.weight.grad is not None
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_label_smoothing_is_in_the_training_loss_only():
    model = LitResNet(10, depth=20, optimizer=SGD, label_smoothing=0.1)
    logits, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    assert model.loss(logits, labels) == nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing is 1.5"):
        LitResNet(10, depth=20, optimizer=SGD, label_smoothing=1.5)


def test_channels_last():
    assert LitResNet(10, depth=20, optimizer=SGD).net.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    plain = LitResNet(10, depth=20, optimizer=SGD, channels_last=False)
    assert plain.net.layer1[0].conv1.weight.is_contiguous()


def test_compiling_keeps_the_keys():
    plain, compiled = (LitResNet(10, depth=20, optimizer=SGD, compile=flag) for flag in (False, True))
    compiled.setup("fit")
    assert list(plain.state_dict()) == list(compiled.state_dict())


def test_hyper_parameters_are_plain_and_a_checkpoint_made_in_python_loads(tmp_path):
    model = LitResNet(7, depth=20, optimizer=SGD, norm="group")
    trainer = lightning.Trainer(logger=False, max_epochs=0, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert "optimizer" not in model.hparams and model.hparams["depth"] == 20
    torch.load(tmp_path / "x.ckpt", weights_only=True)
    again = LitResNet.load_from_checkpoint(tmp_path / "x.ckpt", optimizer=SGD)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_top_k_error_counts_exactly():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    target = torch.tensor([1, 1, 0, 2])
    for k, expected in ((1, 0.75), (2, 0.5), (3, 0.0)):
        metric = TopKError(k)
        metric.update(scores[:3], target[:3])
        metric.update(scores[3:], target[3:])  # a ragged last batch weighs by its size
        assert metric.compute() == expected


def test_mean_loss_weighs_a_ragged_batch_by_its_images():
    metric = MeanLoss()
    metric.update(torch.tensor(2.0), 8)
    metric.update(torch.tensor(4.0), 3)
    assert metric.compute().item() == pytest.approx(28 / 11)


def test_a_net_that_gives_nan_or_constants_is_no_good_net():
    target = torch.arange(10)
    for scores in (torch.full((10, 10), float("nan")), torch.zeros(10, 10)):
        metric = TopKError(1)
        metric.update(scores, target)
        assert metric.compute() >= 0.8


class Reads(pl.Callback):
    """How often each training step reads a number out of a tensor, for which a GPU would have to be waited for."""

    def __init__(self):
        self.counts, calls = [], []

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                if function is torch.ops.aten._local_scalar_dense.default:
                    calls.append(function)
                return function(*args, **(kwargs or {}))

        self.mode, self.calls = Count(), calls

    def on_train_batch_start(self, *_):
        if len(self.counts) == 0:
            self.mode.__enter__()

    def on_train_batch_end(self, *_):
        self.counts.append(len(self.calls))
        self.calls.clear()

    def on_train_end(self, *_):
        self.mode.__exit__(None, None, None)


def test_no_step_waits_for_the_device(tmp_path):
    reads = Reads()
    data = Synthetic(classes=10, size=32, train_size=64, val_size=0, batch_size=4)
    trainer = pl.Trainer(
        max_epochs=1, logger=CSVLogger(tmp_path), callbacks=[reads, Throughput(), Progress()], log_every_n_steps=8,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(LitGoogLeNet(10, stem="cifar", optimizer=partial(torch.optim.SGD, lr=0.1)), data)
    # The 8th is logged, after its end: the 9th finds that read
    assert len(reads.counts) == 16 and reads.counts[8] > 0 and sum(reads.counts) == reads.counts[8]


@pytest.mark.parametrize("labels", ["hard", "mixed"])
def test_binary_cross_entropy_takes_every_class_for_itself(labels):
    torch.manual_seed(0)
    model = LitResNet(
        3, depth=20, loss="binary_cross_entropy", label_smoothing=0.3, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    logits = torch.randn(2, 3)
    shares = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]] if labels == "mixed" else [[0.0, 1, 0], [0, 0, 1]])
    targets = shares * 0.7 + 0.1
    each = -(targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log())
    given = shares if labels == "mixed" else shares.argmax(1)
    torch.testing.assert_close(model.loss(logits, given), each.mean())


def test_a_compiled_net_sees_one_batch_size_in_evaluation():
    sizes = []
    model = LitResNet(10, depth=20, compile=True, optimizer=partial(torch.optim.SGD, lr=0.1)).eval()
    model.net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        whole = model.log_probabilities(images)
        torch.testing.assert_close(model.log_probabilities(images[:2]), whole[:2])
    assert sizes == [6, 6]


def test_optimizers_are_fused_unless_the_user_has_chosen():
    def groups(**arguments):
        make = partial(torch.optim.SGD, lr=0.1, **arguments)
        return LitResNet(10, depth=20, optimizer=make).configure_optimizers().param_groups

    assert groups()[0]["fused"] is True and groups(fused=False)[0]["fused"] is False
    assert not groups(foreach=True)[0]["fused"]


def test_the_base_class_finds_the_family_that_a_checkpoint_names(tiny_run):
    path = tiny_run / "checkpoints" / "best.ckpt"
    model = LitClassifier.load_from_checkpoint(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert type(model) is LitResNet and all(
        torch.equal(saved[name], value) for name, value in model.state_dict().items()
    )
    with pytest.raises(ValueError, match="loaded without an optimizer"):
        model.configure_optimizers()
    assert LitClassifier.load_from_checkpoint(path, optimizer=SGD).configure_optimizers() is not None


def test_a_checkpoint_of_a_class_elsewhere_is_not_looked_for(tiny_run):
    path = tiny_run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["_class_path"] = "os.system"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"names the model class os\.system, which is not one of lit_models"):
        LitClassifier.load_from_checkpoint(path)


@pytest.mark.parametrize("shape", [(4, 7), (4, 1000), (4, 10, 2, 2)])
def test_a_net_that_returns_other_logits_is_refused_in_one_sentence(shape):
    class Net(nn.Module):
        def forward(self, images):
            return torch.zeros(shape)

    with pytest.raises(ValueError, match=r"Net returned logits of shape .* for 4 images of 10 classes: it must return"):
        LitClassifier(Net(), 10, optimizer=SGD)(torch.zeros(4, 3, 8, 8))


def test_a_batch_without_a_readable_image_is_predicted_to_nothing():
    """Whatever the smallest input of the net: the batch has no size of its own."""
    model = LitGoogLeNet(10, stem="cifar", aux_weight=0.0, optimizer=SGD)
    predicted = model.predict_step((torch.empty(0, 3, 1, 1), torch.empty(0, dtype=torch.long)), 0)
    assert predicted["probabilities"].shape == (0, 10) and not len(predicted["indices"])


def test_a_checkpoint_of_another_family_is_refused_in_one_sentence(tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"holds a lit_models\.LitResNet and no LitGoogLeNet: load it with that class"):
        LitGoogLeNet.load_from_checkpoint(tiny_run / "checkpoints" / "best.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    torch.save({"hyper_parameters": {"_class_path": "lit_models.gone.LitGone"}}, tmp_path / "gone.ckpt")
    for name in ("bare", "gone"):
        with pytest.raises(ValueError, match="which is not one of lit_models"):
            LitClassifier.load_from_checkpoint(tmp_path / f"{name}.ckpt")
