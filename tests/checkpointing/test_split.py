"""The lists of a run's files."""

import hashlib
import json

import pytest

from checkpointing.split import Split, read_split, split_path
from errors import UserError

WRITTEN = Split(["cat/0.jpg"], {"cat/\udcff.jpg": "9-ab"}, False, {"cat/0.jpg": "8-cd"})
FIELDS = json.loads(WRITTEN.text)


def test_a_split_is_read_as_it_was_written(tmp_path):
    WRITTEN.write(tmp_path)
    assert read_split(tmp_path, WRITTEN.hash) == WRITTEN
    split_path(tmp_path, WRITTEN.hash).unlink()
    assert read_split(tmp_path, WRITTEN.hash) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({name: FIELDS[name] for name in FIELDS if name != "sample"}, "sample is missing"),
        (FIELDS | {"held_back": {"cat/1.jpg": 1029}}, "held_back.0 is a int .1029. and should be a str"),
        (FIELDS | {"trained_on": [1]}, "trained_on.0 is a int"),
        (FIELDS | {"own_folder": None}, "own_folder is a NoneType"),
        ([], "its content is a list"),
        (FIELDS | {"held_back": {"a\0b.jpg": "9-ab"}}, "which no file can be called"),
        (FIELDS | {"held_back": {"\ud800.jpg": "9-ab"}}, "which no file can be called"),
    ],
)
def test_a_malformed_split_is_refused_in_a_sentence(tmp_path, content, said):
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    split_path(tmp_path, digest).write_text(text)
    with pytest.raises(UserError, match=said):
        read_split(tmp_path, digest)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**6])
def test_a_split_that_is_no_json_is_refused_in_a_sentence(tmp_path, text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    split_path(tmp_path, digest).write_text(text)
    with pytest.raises(UserError, match="should be a dict"):
        read_split(tmp_path, digest)
