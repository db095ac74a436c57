"""The bar over the images of an evaluation."""

import io
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from callbacks import Progress
from callbacks.image_bar import follow_images, views_per_image
from datamodules import Synthetic
from lit_models import LitResNet
from lit_models.view_average import ViewAverage


@pytest.fixture
def bar():
    with Tqdm(desc="Testing DataLoader 0", file=io.StringIO()) as bar:
        yield bar


def test_the_bar_moves_with_every_forward_pass(bar):
    net, average = nn.Flatten(), ViewAverage(images_per_forward=4, keep_batch_size=False)
    images = follow_images(bar, DataLoader(TensorDataset(torch.zeros(5)), batch_size=3), 2, net)
    seen = []
    net.register_forward_hook(lambda *_: seen.append(bar.n))
    for index, size in enumerate((3, 2)):
        views = [torch.zeros(size, 2, 3, 1, 1), torch.zeros(size, 4, 3, 2, 2)]  # six of each image
        images.start_batch(views, index)
        average.log_probabilities(lambda each: net(each)[:, :3], views, None)
        images.end_batch(index)
    # Chunks of 4, 2 and 4, 4, 4 views; then 4 and 4, 4
    assert seen == [0, 1, 1, 2, 3, 3, 4, 5]
    assert (bar.n, bar.total, bar.desc, bar.unit) == (5, 5, "Testing: ", " images")
    images.close()
    net(torch.zeros(3, 3, 1, 1))
    assert bar.n == 5


def test_unreadable_images_and_a_part_of_a_set_leave_no_gap(bar):
    net = nn.Flatten()
    images = follow_images(bar, DataLoader(TensorDataset(torch.zeros(90)), batch_size=4), 2, net)
    images.start_batch(torch.zeros(1, 3, 2, 2), 0)  # three could not be read
    net(torch.zeros(1, 3, 2, 2))
    assert bar.n == 1
    images.end_batch(0)
    assert (bar.n, bar.total) == (4, 8)
    images.close()


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


def test_loaders_whose_images_cannot_be_counted_keep_lightnings_bar(bar):
    known = DataLoader(TensorDataset(torch.zeros(4)), batch_size=2)
    assert follow_images(bar, [known, known], 2, nn.Flatten()) is None
    assert follow_images(bar, known, float("inf"), nn.Flatten()) is None
    assert follow_images(bar, DataLoader(TensorDataset(torch.zeros(4)), batch_size=None), 4, nn.Flatten()) is None
    assert follow_images(bar, DataLoader(Endless(), batch_size=2), 4, nn.Flatten()) is None


def test_views_of_an_image_are_counted():
    assert views_per_image(torch.zeros(2, 3, 4, 4)) == 1
    assert views_per_image(torch.zeros(2, 10, 3, 4, 4)) == 10
    assert views_per_image([torch.zeros(2, 5, 3, 4, 4), torch.zeros(2, 2, 3, 6, 6)]) == 7


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_terminal_gets_one_bar_over_all_images(verb, monkeypatch):
    progress = Progress()
    progress.enable()  # as in a terminal
    totals = []
    close = Tqdm.close
    monkeypatch.setattr(Tqdm, "close", lambda bar: (totals.append((bar.n, bar.total)), close(bar)))
    data = Synthetic(classes=3, size=16, train_size=8, val_size=5, test_size=5, batch_size=2, protocol="ten_crop")
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[progress], enable_model_summary=False)
    getattr(trainer, verb)(LitResNet(3, depth=20, optimizer=partial(torch.optim.SGD, lr=0.1)), data)
    assert totals[0] == (5, 5)
    assert progress.images is None
