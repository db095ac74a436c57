"""The records of a .wandb file, which W&B appends to while a run goes on and uploads from with `wandb sync`.

The file is a log of LevelDB (github.com/google/leveldb, doc/log_format.md) with a header of W&B's. It has blocks of
32 KiB, and in them chunks with a checksum (zlib's CRC-32, where LevelDB has CRC-32C), a length and a kind: a record is
one whole chunk, or a first, middle ones and a last. Each record is a message of W&B's protocol.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from checkpointing.atomic import atomic_write
from errors import UserError

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
CHUNK_HEADER = struct.Struct("<IHB")
BLOCK = 2**15
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file, in their order; those before the first damage, as W&B reads a run that was killed.

    Raises:
        UserError: if it is no .wandb file.
    """
    content = path.read_bytes() if os.path.isfile(path) else b""
    if not content.startswith(HEADER):
        raise UserError(f"{path} is no .wandb file: name a run directory.")
    position, record = len(HEADER), b""
    while True:
        if BLOCK - position % BLOCK < CHUNK_HEADER.size:
            position += -position % BLOCK
        if position + CHUNK_HEADER.size > len(content):
            return
        checksum, length, kind = CHUNK_HEADER.unpack_from(content, position)
        start = position + CHUNK_HEADER.size
        chunk, position = content[start : start + length], start + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or checksum != zlib.crc32(chunk, zlib.crc32(bytes([kind]))):
            return
        record = chunk if kind in (WHOLE, FIRST) else record + chunk
        if kind in (WHOLE, LAST):
            yield record


def parse_record(content: bytes, log: Path) -> Any:
    """A record of a .wandb file, a message of W&B's protocol."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # one of three, by a condition

    record = Record()
    try:
        record.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{log} holds a record that is none of W&B's: it is damaged.") from error
    return record


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Replace a file by one that holds these records."""
    with atomic_write(path, "wb") as file:
        file.write(HEADER)
        for record in records:
            for chunk in split_record(record, file.tell()):
                file.write(chunk)


def split_record(record: bytes, position: int) -> Iterator[bytes]:
    """The chunks of a record that begins at a position of the file, with padding at the end of a block."""
    begin, kinds = True, ((MIDDLE, LAST), (FIRST, WHOLE))
    while begin or record:
        room = BLOCK - position % BLOCK
        if room < CHUNK_HEADER.size:
            yield bytes(room)
            position, room = position + room, BLOCK
        data, record = record[: room - CHUNK_HEADER.size], record[room - CHUNK_HEADER.size :]
        kind = kinds[begin][not record]
        yield CHUNK_HEADER.pack(zlib.crc32(data, zlib.crc32(bytes([kind]))), len(data), kind) + data
        position, begin = position + CHUNK_HEADER.size + len(data), False
