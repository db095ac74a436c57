"""Weights from files and by name: whole, or not at all."""

import os
import pickle
import re
from functools import partial

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from errors import UserError
from lit_models import LitDenseNet, LitResNet, LitVGG
from lit_models.weights import read_weights
from tests.conftest import DIGITS, TINY

SGD = partial(torch.optim.SGD, lr=0.1)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.fixture
def saved(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    return state


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_is_loaded_whole(saved, tmp_path, suffix):
    model = LitResNet(1000, depth=18, optimizer=SGD, weights=str(tmp_path / f"w.{suffix}"))
    assert all(torch.equal(value, saved[name]) for name, value in model.net.state_dict().items())
    assert "weights" not in model.hparams


def test_a_head_for_other_classes_starts_anew_and_says_so(saved, tmp_path, caplog):
    model = LitResNet(7, depth=18, optimizer=SGD, weights=str(tmp_path / "w.pth"))
    assert "are for 1000 classes, the data have 7: fc.weight, fc.bias keep their random values" in caplog.text
    assert torch.equal(model.net.layer4[1].conv2.weight, saved["layer4.1.conv2.weight"])
    assert model.net.fc.weight.shape == (7, 512)


def test_never_a_silent_partial_load(saved, tmp_path, caplog):
    path = str(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"do not fit ResNet: .*missing .*of another shape"):
        LitResNet(1000, depth=50, optimizer=SGD, weights=path)
    with pytest.raises(ValueError, match="missing"):
        LitResNet(1000, depth=34, optimizer=SGD, weights=path)
    model = LitResNet(1000, depth=34, optimizer=SGD, weights=path, strict=False)
    assert "Not all of the weights" in caplog.text
    assert torch.equal(model.net.conv1.weight, saved["conv1.weight"])


def test_the_stride_of_published_weights_is_spoken_of(tmp_path, caplog):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "w.pth")
    LitResNet(1000, depth=50, optimizer=SGD, weights=str(tmp_path / "w.pth"))
    assert not caplog.text
    LitResNet(1000, depth=50, optimizer=SGD, weights=str(tmp_path / "w.pth"), stride_in_1x1=True)
    assert "give --model.stride_in_1x1 false" in caplog.text


def test_what_fits_nowhere_is_refused_even_if_not_strict(saved, tmp_path):
    torch.save({"foo": torch.zeros(3)}, tmp_path / "foo.pth")
    for name in ("foo.pth", "w.pth"):
        with pytest.raises(ValueError, match=r"do not fit DenseNet: .*unexpected.* choose those\.$"):
            LitDenseNet(10, depth=40, optimizer=SGD, weights=str(tmp_path / name), strict=False)


def test_only_a_classifier_counts_as_one(saved, tmp_path):
    """The first norm has as many channels as there are classes, and the weights have others."""
    saved["bn1.weight"] = torch.ones(48)
    torch.save(saved, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"do not fit ResNet: 1 of another shape \(bn1.weight\)"):
        LitResNet(64, depth=18, optimizer=SGD, weights=str(tmp_path / "narrow.pth"))


def test_values_that_are_not_finite_are_not_loaded(saved, tmp_path, caplog):
    """torchvision's IMAGENET1K_FEATURES have such a classifier."""
    saved["fc.weight"].fill_(float("nan"))
    torch.save(saved, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"1 not finite \(fc.weight\)"):
        LitResNet(1000, depth=18, optimizer=SGD, weights=str(tmp_path / "nan.pth"))
    model = LitResNet(1000, depth=18, optimizer=SGD, weights=str(tmp_path / "nan.pth"), strict=False)
    assert model.net.fc.weight.isfinite().all() and "1 not finite" in caplog.text
    assert torch.equal(model.net.conv1.weight, saved["conv1.weight"])


@pytest.mark.slow
def test_timms_vgg_keeps_its_classifier_in_convolutions(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("vgg11", num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    ours = LitVGG(10, variant="A", optimizer=SGD, weights=str(tmp_path / "vgg.pth")).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)


def test_surgery_beside_weights_is_refused_unless_not_strict(saved, tmp_path):
    path = str(tmp_path / "w.pth")
    with pytest.raises(ValueError, match="norm is group and weights are given, which were likely trained without it"):
        LitResNet(1000, depth=18, optimizer=SGD, weights=path, norm="group")
    model = LitResNet(1000, depth=18, optimizer=SGD, weights=path, norm="group", strict=False)
    assert torch.equal(model.net.conv1.weight, saved["conv1.weight"])


def test_a_checkpoint_of_ours_gives_its_net(saved, tmp_path):
    model = LitResNet(5, depth=20, optimizer=SGD)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.ckpt")
    again = LitResNet(5, depth=20, optimizer=SGD, weights=str(tmp_path / "last.ckpt"))
    assert torch.equal(model.net.conv1.weight, again.net.conv1.weight)


def test_a_trained_net_needs_its_starting_weights_no_more(run, tiny_run, here):
    """Trained from a file that is gone by the time of the test."""
    start = here / "start.ckpt"
    start.write_bytes((tiny_run / "checkpoints/last.ckpt").read_bytes())
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, "--model.weights", start)
    start.unlink()
    run("test", "--ckpt_path", "runs/digits/resnet20/version_1")


def test_densenets_as_torchvision_has_published_them(tmp_path):
    model = LitDenseNet(10, depth=10, optimizer=SGD)
    old = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", name): value for name, value in model.net.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    again = LitDenseNet(10, depth=10, optimizer=SGD, weights=str(tmp_path / "old.pth"))
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name])


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "cut.safetensors").write_bytes(b"hello")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    for name, message in (
        ("cut.pth", "is not a weights file, or it is truncated or corrupt"),
        ("cut.safetensors", "is not a weights file, or it is truncated or corrupt"),
        ("other.pth", "holds no state dict"),
        ("evil.pth", r"evil\.pth is not loaded: .*save model.state_dict\(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            read_weights(str(tmp_path / name))
    with pytest.raises(UserError, match=r"There is no weights file .*nowhere\.pth"):
        read_weights(str(tmp_path / "nowhere.pth"))


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: give a file in it, such as .*best\.ckpt"):
        read_weights(str(tmp_path))


@pytest.mark.parametrize(("wrap", "prefix"), [(lambda s: {"model": s, "epoch": 3}, ""), (lambda s: s, "module.")])
def test_weights_as_training_scripts_keep_them(saved, tmp_path, wrap, prefix):
    torch.save(wrap({prefix + name: value for name, value in saved.items()}), tmp_path / "w.pth")
    model = LitResNet(1000, depth=18, optimizer=SGD, weights=str(tmp_path / "w.pth"))
    assert torch.equal(model.net.conv1.weight, saved["conv1.weight"])


def test_names_that_nobody_publishes():
    with pytest.raises(ValueError, match="torchvision has no weights ResNet50_Weights.V9"):
        read_weights("ResNet50_Weights.V9")
    with pytest.raises(ValueError, match=r"There are no weights resnet50.nowhere: .*resnet50\."):
        read_weights("resnet50.nowhere")


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"could not be downloaded \(.*\): fetch them where there is a network"):
        read_weights("ResNet18_Weights.IMAGENET1K_V1")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["conv1.weight", "fc.weight", "unexpected", "pre_logits.fc1.weight"])
def test_one_number_that_stands_for_many_is_refused_before_it_is_read(saved, tmp_path, name, strict):
    torch.save(saved | {name: torch.ones(1).expand(2**42)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"w.pth is not loaded: {name} is a Tensor .4398046511104., larger than the"):
        LitResNet(1000, depth=18, optimizer=SGD, weights=str(tmp_path / "w.pth"), strict=strict)


def test_only_values_that_are_loaded_must_be_finite(saved, tmp_path, caplog):
    """The classifier for other classes is left out, whatever it holds."""
    saved["fc.weight"].fill_(float("nan"))
    torch.save(saved, tmp_path / "nan.pth")
    model = LitResNet(7, depth=18, optimizer=SGD, weights=str(tmp_path / "nan.pth"))
    assert model.net.fc.weight.isfinite().all() and "keep their random values" in caplog.text
