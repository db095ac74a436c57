"""Running a study in one process."""

from pathlib import Path

import pytest

from studies.__main__ import main
from studies.results import read_rows
from tests.conftest import TINY

SETTINGS = ", ".join(f"{name.removeprefix('--')}: {value}" for name, value in zip(TINY[::2], TINY[1::2], strict=True))
STUDY = """
claim: A net learns.
notes: "1 Nets"
paper: none
base: configs/digits/resnet20.yaml
settings: {%s}
arms:
  plain: {model.shortcut: none}
  residual: {}
  ten crops: {test.data.protocol: ten_crop}
  both: {members: 2}
measures: [test/top1_error, train/loss@2, "curve:val/loss", parameters]
supported_if: [{of: test/top1_error, lower: residual, than: plain}]
budgets:
  5min: {seeds: 1, trainer.max_epochs: 2, trainer.callbacks.milestones: [1], trainer.limit_train_batches: 2}
""".replace("%s", SETTINGS.replace("data:", "data:").replace("trainer.max_epochs: 3, ", ""))


@pytest.fixture
def study(here: Path) -> str:
    path = here / "tiny.yaml"
    path.write_text(STUDY)
    return str(path)


def run(study: str, *flags: str) -> None:
    main([study, "--runs", "runs", "--results", "results", *flags])


@pytest.mark.slow
def test_a_study_trains_each_recipe_once_and_skips_what_is_stored(study: str, here: Path) -> None:
    run(study)
    rows = {row.arm: row for row in read_rows(here / "results" / "tiny-5min.json")}
    assert [*rows] == ["plain", "residual", "ten crops", "both"]
    assert all(row.state == "finished" and row.test_images == 11 for row in rows.values())
    assert rows["ten crops"].measures["train/loss@2"] == rows["residual"].measures["train/loss@2"]
    assert rows["both"].measures["parameters"] == 2 * rows["residual"].measures["parameters"]
    assert len(rows["plain"].measures["curve:val/loss"]) == 2
    folders = {str(path.relative_to(here / "runs")) for path in here.glob("runs/**/version_*")}
    assert folders == {f"5min/tiny/{name}" for name in ("plain/version_0", "residual/version_0", "residual/version_1")}
    written = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    run(study)
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()} == written
