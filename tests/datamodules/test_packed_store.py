"""Packed data sets in an object store, for which litdata's `local:` stands in: a folder that it copies chunks from."""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import ImageNet
from datamodules.packed.remote import make_room, parse_size
from datamodules.samplers import CHUNK_WINDOW, ExactSampler, permute_by_chunk
from errors import UserError, address_of
from tests.packing import pack_noise


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return pack_noise(tmp_path_factory.mktemp("store"), images=6, images_per_chunk=3)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MAX_CACHE_SIZE", "1MB")
    pytest.importorskip("litdata")
    return tmp_path / "cache"


def load(root: Path | str, stage: str = "fit", **options: object) -> ImageNet:
    data = ImageNet(Path(root), size=16, batch_size=4, num_workers=0, **options)
    data.setup(stage)
    return data


def test_a_stored_data_set_is_the_local_one(packed, cache):
    stored, local = load(f"local:{packed}"), load(packed)
    assert not list(cache.rglob("*.bin"))  # what is not read is not fetched
    assert stored.fingerprint(stored.train_set) == local.fingerprint(local.train_set)
    items = list(stored.make_sampler(stored.train_set, shuffle=True))
    assert sorted(item.index for item in items) == list(range(12))
    ours, theirs = (data.train_set.__getitems__(items) for data in (stored, local))
    assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    assert len(list(cache.rglob("chunk-*.bin"))) == 4
    assert torch.equal(stored.val_set.__getitems__([3]).images, local.val_set.__getitems__([3]).images)


def test_a_stored_chunk_that_is_gone_or_cut_off_is_an_unreadable_image(packed, cache, tmp_path):
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    data = load(f"local:{copy}")
    first, second = ((data.train_set.chunk_of == chunk).argmax() for chunk in (0, 1))
    (copy / "train/chunk-0-0.bin").unlink()
    path = copy / "train/chunk-0-1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "train/chunk-0-0.bin cannot be fetched (The provided" in data.train_set.check_file(first).reason
    assert "bytes and was written with" in data.train_set.check_file(second).reason
    assert not list(cache.rglob("*.bin"))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def link_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("damage", [cut_off, overwrite, link_nowhere])
def test_a_chunk_that_was_damaged_in_the_cache_is_fetched_again(packed, cache, damage):
    images = load(f"local:{packed}").train_set
    assert not any(map(images.check_file, range(12)))
    for path in cache.rglob("*.bin"):
        damage(path)
    images = load(f"local:{packed}").train_set
    assert not any(map(images.check_file, range(12)))
    assert len(list(cache.rglob("*.bin"))) == 4


def test_a_chunk_of_another_content_in_the_store_is_named_by_its_address(packed, cache, tmp_path):
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    for path in copy.rglob("*.bin"):
        overwrite(path)
    reason = load(f"local:{copy}").train_set.check_file(0).reason
    assert reason.startswith(f"local:{copy}/train/chunk-0-") and "or has another content: copy the data set" in reason
    assert not list(cache.rglob("*.bin"))


def test_the_cache_is_bounded_and_may_be_emptied(packed, cache, monkeypatch):
    data = load(f"local:{packed}")
    size = max(data.train_set.reader.sizes)
    data.train_set.reader.store.cache_size = 2 * size
    for index in range(12):
        assert data.train_set.check_file(index) is None
        assert sum(path.stat().st_size for path in cache.rglob("*.bin")) <= 2 * size
    for path in cache.rglob("*.bin"):
        path.unlink()
    assert data.train_set.check_file(0) is None


def test_the_chunks_that_were_not_read_for_longest_make_room(tmp_path):
    for number in range(4):
        path = tmp_path / "x" / f"chunk-0-{number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (number ^ 1, number ^ 1))
    make_room(tmp_path, 10, 35)
    assert sorted(path.name for path in tmp_path.rglob("*.bin")) == ["chunk-0-2.bin", "chunk-0-3.bin"]


def test_what_is_refused(packed, cache, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"packed.json cannot be fetched \(.*check the address, your access"):
        load(f"local:{tmp_path}/nowhere")
    with pytest.raises(UserError, match="pack a val/ folder too, and leave out val_size"):
        load(f"local:{packed}", val_size=2)
    monkeypatch.setenv("MAX_CACHE_SIZE", "1KB")
    with pytest.raises(UserError, match=r"A cache of 1,000 bytes is too small for chunks of .*MAX_CACHE_SIZE"):
        load(f"local:{packed}")
    monkeypatch.setenv("MAX_CACHE_SIZE", "9" * 400)
    with pytest.raises(UserError, match="MAX_CACHE_SIZE is '9+': it should be a size such as 20GB"):
        load(f"local:{packed}")
    monkeypatch.setenv("MAX_CACHE_SIZE", "much")
    with pytest.raises(UserError, match="MAX_CACHE_SIZE is 'much': it should be a size such as 20GB"):
        load(f"local:{packed}")
    monkeypatch.setitem(sys.modules, "litdata.streaming.downloader", None)
    with pytest.raises(UserError, match=r"s3://bucket/x .* not installed: `pip install 'litdata>=0.2.76'`"):
        load("s3://bucket/x")


@pytest.mark.parametrize("root", ["hf://datasets/x", "http://host/x", "S3://bucket/x", "local:x", "/data/local:"])
def test_the_addresses_that_can_be_read_are_named(root):
    with pytest.raises(
        UserError, match=r"There is no folder .* begin with s3://, gs://, r2:// or azure://, or be local:/"
    ):
        ImageNet(Path(root))


def test_addresses():
    for text in ("s3://bucket/data/x", "gs://b", "local:/mnt/x"):
        assert address_of(text) == address_of(Path(text)) == address_of(text + "/") == text
    for text in ("s3", "/s3:/x", "C:/data", "data/s3:/x", "hf://x", "local:x"):
        assert address_of(text) is None
    assert parse_size("1.5 GB") == 1_500_000_000 and parse_size("20") == 20


def test_chunks_are_read_one_after_the_other():
    chunk_of = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 20))
    order = permute_by_chunk(chunk_of, np.random.default_rng(1))
    assert sorted(order) == list(range(2000))
    seen, open_chunks, most = Counter(), set(), 0
    for index in order:
        open_chunks.add(chunk_of[index])
        seen[chunk_of[index]] += 1
        most = max(most, len(open_chunks))
        open_chunks -= {chunk for chunk in open_chunks if seen[chunk] == 20}
    assert most <= CHUNK_WINDOW + 2
    assert not np.array_equal(order, permute_by_chunk(chunk_of, np.random.default_rng(2)))


def test_global_batches_are_the_same_for_any_number_of_processes():
    chunk_of = np.arange(64) // 4
    for options in ({}, {"chunk_of": chunk_of}):
        alone = list(ExactSampler(64, True, 3, **options))
        two = [list(ExactSampler(64, True, 3, rank, 2, **options)) for rank in range(2)]
        for batch in range(8):
            shared = [part[4 * batch : 4 * batch + 4] for part in two]
            assert sorted([*shared[0], *shared[1]]) == sorted(alone[8 * batch : 8 * batch + 8])
