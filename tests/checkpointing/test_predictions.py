"""What a test keeps of every image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datamodules
from batch import Batch
from checkpointing.predictions import Predictions, file_hash, predictions_path, read_tested_hashes
from errors import UserError
from lit_models import LitClassifier
from tests.conftest import DIGITS, HOME, TINY
from tests.test_ddp import TWO, type_it


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of photos of several shapes, train/ and val/, one of them broken."""
    root = tmp_path / "photos"
    for place in range(12):
        path = root / ("train", "val")[place % 2] / ("cat", "dog")[place % 4 // 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + 3 * place, 50), 60).convert("RGB").save(path)
    return root


OF_PHOTOS = ["--data", "datamodules.ImageNet", "--data.size", 32, "--data.batch_size", 6, "--data.num_workers", 0]


def test_predictions_are_those_of_the_net(run, tiny_run):
    run("test", "--ckpt_path", tiny_run)
    kept = Predictions.read(tiny_run / "predictions-best-center.npz")
    checkpoint = tiny_run / "checkpoints/best.ckpt"
    assert predictions_path(checkpoint, "center") == (tiny_run / "predictions-best-center.npz").absolute()
    model = LitClassifier.load_from_checkpoint(checkpoint).eval()
    data = datamodules.Synthetic(classes=6, size=16, train_size=32, val_size=8, test_size=11)
    data.setup("test")
    batch = data.on_after_batch_transfer(Batch(data.test_set.images, data.test_set.labels), 0)
    with torch.no_grad():
        expected = model.log_probabilities(batch.images).numpy()
    assert kept.log_probabilities.dtype == np.float32 and kept.log_probabilities.shape == (11, 6)
    assert np.allclose(kept.log_probabilities, expected, atol=1e-5)
    assert np.allclose(np.exp(kept.log_probabilities).sum(1), 1, atol=1e-6)
    assert kept.labels.tolist() == batch.labels.tolist() and kept.indices.tolist() == list(range(11))
    assert (kept.protocol, kept.views, kept.complete, len(kept.files)) == ("center", 1, True, 0)
    assert kept.checkpoint_hash == file_hash(checkpoint) and kept.checkpoint == str(checkpoint.absolute())
    assert kept.class_names.tolist() == [f"class {k}" for k in range(6)]
    other = Predictions.read(tiny_run / "predictions-best-center.npz")
    run("test", "--ckpt_path", tiny_run, "--data.test_size", 10)
    (path,) = tiny_run.glob("predictions-best-center-*.npz")
    assert (
        Predictions.read(path).data_hash != other.data_hash and path.stem[-6:] == Predictions.read(path).data_hash[:6]
    )
    assert Predictions.read(tiny_run / "predictions-best-center.npz").data_hash == other.data_hash


def test_every_protocol_leaves_its_own_files(run, tiny_run):
    for protocol in ("ten_crop", "dense@24", "dense+multi_crop"):
        run("test", "--ckpt_path", tiny_run, "--data.protocol", protocol)
        result = json.loads((tiny_run / f"test-best-{protocol}.json").read_text())
        kept = Predictions.read(tiny_run / f"predictions-best-{protocol}.npz")
        assert result["protocol"] == kept.protocol == protocol and result["images"] == len(kept.labels) == 11
        error = (kept.log_probabilities.argmax(1) != kept.labels).mean()
        assert result["metrics"]["test/top1_error"] == pytest.approx(error)
    assert kept.views == 156


def test_validation_images_have_files_of_their_own(run, tiny_run):
    run("validate", "--ckpt_path", tiny_run)
    kept = Predictions.read(tiny_run / "val_predictions-best-center.npz")
    assert len(kept.labels) == 8
    assert not list(tiny_run.glob("predictions-*"))


def test_a_part_of_the_set_replaces_no_whole_one(run, tiny_run):
    run("test", "--ckpt_path", tiny_run)
    before = (tiny_run / "predictions-best-center.npz").read_bytes()
    run("test", "--ckpt_path", tiny_run, "--trainer.limit_test_batches", 1)
    assert (tiny_run / "predictions-best-center.npz").read_bytes() == before


@pytest.mark.parametrize("protocol", ["center", "crops_144", "dense"])
def test_files_are_named_and_broken_ones_left_out(run, here, photos, protocol):
    (photos / "val" / "dog" / "3.png").write_bytes(b"broken")
    skip = ["--data.on_bad_image", "skip"]
    run("fit", "--config", DIGITS, *OF_PHOTOS, *skip, "--data.root", photos, "--trainer.max_epochs", 1)
    folder = Path("runs/digits/resnet20/version_0")
    run("test", "--ckpt_path", folder, *skip, "--data.protocol", protocol)
    kept = Predictions.read(folder / f"predictions-best-{protocol}.npz")
    assert kept.files.tolist() == ["cat/1.png", "cat/5.png", "cat/9.png", "dog/11.png", "dog/7.png"]
    assert kept.labels.tolist() == [0, 0, 0, 1, 1] and kept.indices.tolist() == [0, 1, 2, 3, 5]
    assert not kept.complete and json.loads((folder / f"test-best-{protocol}.json").read_text())["partial"]


@pytest.mark.slow
def test_two_processes_leave_the_same_file(run, tiny_run):
    run("test", "--ckpt_path", tiny_run, "--data.protocol", "ten_crop")
    path = tiny_run / "predictions-best-ten_crop.npz"
    alone = Predictions.read(path)
    path.unlink()
    done = type_it("test", "--ckpt_path", tiny_run, "--data.protocol", "ten_crop", *TWO, "--data.batch_size", 2)
    assert done.returncode == 0, done.stderr
    together = Predictions.read(path)
    assert np.allclose(alone.log_probabilities, together.log_probabilities, atol=1e-5)
    for name in ("indices", "labels", "class_names"):
        assert np.array_equal(getattr(alone, name), getattr(together, name))
    assert alone.data_hash == together.data_hash and alone.checkpoint_hash == together.checkpoint_hash


def test_names_of_classes_that_take_no_bytes_are_refused(tmp_path):
    """The header of an array may name any number of empty texts."""
    none, text = np.zeros(0, dtype=np.int64), np.array([], dtype=str)
    names = np.ndarray(2**42, dtype="U0", buffer=b"")
    probabilities = np.ndarray((0, 2**42), dtype=np.float32, buffer=b"")
    predictions = Predictions(none, text, none, probabilities, names, "center", 1, "", "", "", True)
    with pytest.raises(UserError, match="class_names is an array .4398046511104."):
        predictions.check()


def test_a_file_that_is_cut_off_gets_a_sentence(run, tiny_run):
    run("test", "--ckpt_path", tiny_run)
    path = tiny_run / "predictions-best-center.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read as a file of predictions"):
        Predictions.read(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.protocol", "ten_corp"], "There is no protocol ten_corp"),
        (["--data.protocol", "ten_crop@8"], "cut views of 16 px out of images whose shorter side is 8 px"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_sentence(fails, tiny_run, flags, message):
    assert message in fails("test", "--ckpt_path", tiny_run, *flags)
    assert not list(tiny_run.glob("*test-*")) and not list(tiny_run.glob("*.npz"))


def test_tiny_has_no_protocol_in_training(run, here):
    run("fit", "--config", DIGITS, *TINY, "--data.protocol", "ten_crop", "--trainer.max_epochs", 1)
    run("validate", "--ckpt_path", "runs/digits/resnet20")
    assert Path("runs/digits/resnet20/version_0/val_predictions-best-ten_crop.npz").is_file()


PEAK = """
import resource, sys
from cli.command_line import run_cli
run_cli(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""


@pytest.mark.slow
def test_144_crops_of_more_images_take_no_more_memory(run, here, tmp_path):
    """A ResNet-18 at 224 px: what is held is the views of one image, 22 MB of bytes and 87 MB of numbers.

    The peak itself varies by 50 MB from run to run; the views of eight images more would be 176 MB of bytes alone.
    """
    noise = np.random.default_rng(0)
    for place in range(16):
        path = tmp_path / "photos" / ("a", "b")[place % 2] / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(256, size=(375, 500, 3), dtype=np.uint8)).save(path)
    flags = ["--data.root", tmp_path / "photos", "--data.batch_size", 2, "--data.num_workers", 0, "--data.val_size", 10]
    run("fit", "--config", HOME / "configs/imagenet/resnet18.yaml", *flags, "--trainer.max_steps", 1)
    peaks = []
    for limit in (2, 10):
        command = [sys.executable, "-c", PEAK, "test", "--ckpt_path", "runs/imagenet/resnet18"]
        command += ["--data.protocol", "crops_144", "--trainer.limit_test_batches", str(limit)]
        environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "2"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 120, peaks  # MB


def test_the_images_of_earlier_results_are_read_as_far_as_they_can_be(tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    own = {"checkpoint": "/elsewhere/best.ckpt", "is_run_data": True, "data_hash": "a"}
    contents = [own, own | {"is_run_data": False, "data_hash": "b"}, own | {"checkpoint": "best-2.ckpt"}, [1], {}, "x"]
    for number, content in enumerate(contents):
        (tmp_path / f"test-best-{number}.json").write_text(json.dumps(content))
    (tmp_path / "test-best-cut.json").write_text('{"check')
    (tmp_path / "test-best-deep.json").write_text("[" * 10**6)
    (tmp_path / "test-best-folder.json").mkdir()
    assert read_tested_hashes(checkpoint) == {"a"}
