"""`make audit` says what is known, and never that all is well where nobody could be asked."""

import json
import runpy
from pathlib import Path

import pytest

from tests.conftest import HOME

SAFE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "sentence"),
    [
        ([SAFE, SAFE], None, "No known vulnerability in the 2 packages"),
        ([SAFE, BAD], 1, "b 2: CVE-1, fixed in 3"),
        ([SKIPPED, BAD], 1, "b 2: CVE-1"),
        ([SKIPPED, SAFE], 2, "Not audited: no source of advisories"),
        ([SKIPPED], 2, "Not audited"),
        ([], 2, "Not audited"),
        (None, 2, "Not audited"),  # no report at all
    ],
)
def test_the_audit_is_as_good_as_its_source(packages, status, sentence, monkeypatch, capsys):
    def pip_audit(command, **_):
        if packages is not None:
            Path(command[command.index("-o") + 1]).write_text(json.dumps({"dependencies": packages}))

    script = runpy.run_path(str(HOME / ".ci" / "audit.py"))
    monkeypatch.setattr("subprocess.run", pip_audit)
    code = None
    try:
        script["main"]()
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert sentence in f"{printed.out}{printed.err}{code}"
    assert (1 if isinstance(code, str) else code) == status
