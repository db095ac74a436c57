"""Images to predict on."""

import pytest
from PIL import Image

from datamodules import Photos
from tests.conftest import PREPROCESSING


@pytest.mark.parametrize(
    ("batch_size", "given", "workers"),
    [(2, None, 1), (3, None, 0), (8, None, 0), (2, 0, 0), (8, 2, 2)],
)
def test_loader_processes_read_while_the_net_computes(batch_size, given, workers, tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.loading.choose_num_workers", lambda trainer, images: 1)
    for number in range(3):
        Image.new("RGB", (9, 8)).save(tmp_path / f"{number}.png")
    data = Photos(tmp_path, PREPROCESSING, ["a"], batch_size, num_workers=given)
    data.load("predict")
    loader = data.predict_dataloader()
    assert loader.num_workers == workers
    if given is None:
        assert [len(raw.labels) for raw in loader] == ([2, 1] if workers else [3])
