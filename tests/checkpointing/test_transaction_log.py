"""Records of .wandb files are read and written as W&B does both."""

import random

import pytest

from checkpointing.transaction_log import BLOCK, read_records, write_records
from errors import UserError

RECORDS = [
    random.Random(0).randbytes(size) for size in (0, 1, 7, 500, BLOCK - 600, 3, BLOCK - 30, 3 * BLOCK, 12, 90_000)
]


def test_records_are_read_as_they_were_written(tmp_path):
    for number in range(len(RECORDS)):
        write_records(tmp_path / "run.wandb", RECORDS[number:])
        assert list(read_records(tmp_path / "run.wandb")) == RECORDS[number:]


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path):
    path = tmp_path / "run.wandb"
    write_records(path, RECORDS)
    content = path.read_bytes()
    for size in range(7, len(content), 1999):
        path.write_bytes(content[:size])
        found = list(read_records(path))
        assert found == RECORDS[: len(found)] and len(found) < len(RECORDS)
    path.write_bytes(content[:200] + b"\xff" + content[201:])
    assert list(read_records(path)) == RECORDS[:3]


def test_another_file_is_refused(tmp_path):
    for content in (b"", b"PK\x03\x04", b":W&"):
        (tmp_path / "run.wandb").write_bytes(content)
        with pytest.raises(UserError, match="no .wandb file"):
            list(read_records(tmp_path / "run.wandb"))
