"""The file of a study's results."""

import errno
import json

import pytest

from errors import UserError
from studies.results import add_row, read_rows, results_path, write_rows
from tests.studies.made_up import rows_of


def test_rows_come_back_as_they_were(tmp_path):
    rows = rows_of("a/b <c> ü", [0.25, None, float("nan")])
    path = results_path("a study", "5min", tmp_path / "new")
    write_rows(path, "a study", "5min", rows)
    assert repr(read_rows(path)) == repr(rows)
    assert read_rows(tmp_path / "missing.json") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "zero"), ("arm", None), ("measures", None), ("state", "lost"), ("environment", []), ("seconds", None)],
)
def test_a_file_of_something_else_is_refused(name, value, tmp_path):
    path = tmp_path / "study-5min.json"
    write_rows(path, "study", "5min", rows_of("a", [0.25]))
    content = json.loads(path.read_text())
    content["rows"][0][name] = value
    for text in (json.dumps(content), "", "[]", '{"rows": 3}', '{"rows": [null]}', '{"rows": [{"arm": "a"}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="holds no results of a study"):
            read_rows(path)


def test_rows_are_added_where_files_cannot_be_locked(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "study-5min.json"
    for row in rows_of("a", [0.25, 0.5]):
        with pytest.warns(UserWarning, match="its file system has no locks .*: run a study in one process at a time"):
            add_row(path, "study", "5min", row, ["a"])
    assert [row.seed for row in read_rows(path)] == [0, 1]
