"""Tables of a result on W&B: few or many classes, no errors, a net that has diverged, images of every kind."""

import numpy as np
import torch
from PIL import Image

from callbacks.wandb_results import MAX_MISTAKES, make_tables
from checkpointing.predictions import Predictions
from datamodules.crops import CenterCrop
from datamodules.image_files import ImageFiles


def predictions(guesses, classes=3, files=False):
    """Predictions for images of the classes 0, 1, 2, ...; later ones are surer."""
    labels, images = np.arange(len(guesses)) % classes, len(guesses)
    scores = torch.zeros(images, classes)
    scores[torch.arange(images), torch.as_tensor(guesses)] = torch.linspace(1, 9, images)
    return Predictions(
        indices=np.arange(images),
        files=np.array([f"{index}.png" for index in range(images)] if files else [], dtype=str),
        labels=labels,
        log_probabilities=scores.log_softmax(1).numpy(),
        class_names=np.array([f"class {k}" for k in range(classes)]),
        protocol="center",
        views=1,
        checkpoint="best.ckpt",
        checkpoint_hash="",
        data_hash="",
        complete=True,
    )


def test_classes_confusions_and_surest_mistakes():
    tables = make_tables(predictions([0, 0, 2, 0, 1, 1]), None)
    assert tables["classes"].data == [["class 0", 2, 0, 0.0], ["class 1", 2, 1, 0.5], ["class 2", 2, 1, 0.5]]
    cells = {tuple(row[:2]): row[2] for row in tables["confusion"].table.data}
    assert len(cells) == 9 and cells["class 2", "class 1"] == cells["class 1", "class 0"] == 1
    assert [row[:3] for row in tables["mistakes"].data] == [["5", "class 2", "class 1"], ["1", "class 1", "class 0"]]
    assert all(sure > own for *_, sure, own in tables["mistakes"].data)


def test_a_perfect_net_has_no_mistakes():
    tables = make_tables(predictions([0, 1]), None)
    assert tables.keys() == {"classes", "confusion"}
    assert [row[0] for row in tables["classes"].data] == ["class 0", "class 1"]  # those with images


def test_a_thousand_classes_have_no_confusion_matrix():
    tables = make_tables(predictions([0] * 2000, classes=1000, files=True), None)
    assert tables.keys() == {"classes", "mistakes"}
    assert len(tables["classes"].data) == 1000 and len(tables["mistakes"].data) == MAX_MISTAKES
    assert tables["mistakes"].data[0][0] == "1999.png"


def test_a_net_that_has_diverged_is_wrong_everywhere():
    diverged = predictions([0, 1, 2])
    diverged.log_probabilities[:] = np.nan
    tables = make_tables(diverged, None)
    assert [row[2] for row in tables["classes"].data] == [1, 1, 1] and "mistakes" not in tables


def test_mistakes_are_shown_with_their_images(tmp_path):
    Image.new("RGB", (400, 300), "red").save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    names = np.array([b"0.png", b"1.png"])
    files = ImageFiles(tmp_path, names, np.zeros(2, dtype=np.int64), CenterCrop(16, 16))
    shown = {row[1]: row[0] for row in make_tables(predictions([1, 0], files=True), files)["mistakes"].data}
    assert shown["0.png"].image.size == (149, 112) and shown["1.png"] is None
