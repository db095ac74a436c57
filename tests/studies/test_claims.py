"""docs/claims.md, its figures and the README's table are what the stored results say."""

import re

import pytest

from errors import UserError
from studies import claims
from studies.claims import choose_report, draws, make_document, read_all, read_reports, update_readme, write_claims
from studies.commands import make_recipes
from studies.results import results_path, write_rows
from studies.study_file import read_study
from tests.conftest import HOME
from tests.studies.made_up import errors, rows_of

MIB = 2**20


STUDY = """
claim: Shortcuts help.
notes: "4 Resnets"
paper: He et al.
base: configs/digits/resnet20.yaml
arms:
  plain: {model.shortcut: none}
  residual: {}
measures: [test/top1_error]
supported_if:
  - {of: test/top1_error, lower: residual, than: plain}
budgets:
  5min: {seeds: 5}
"""
RESULTS = {"residual": [4, 5, 6, 5, 4], "plain": [300, 310, 324, 305, 316]}


def store(folder, counts, digest=None):
    """Write the study into folder/studies, and made-up results into folder/results: wrong images of each arm."""
    path = folder / "studies" / "shortcuts.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(STUDY)
    study = read_study(path)
    rows = [
        row
        for recipe in make_recipes(study, study.budget("5min"))
        for row in rows_of(recipe.arm.name, errors(*counts[recipe.arm.name]), recipe=digest or recipe.digest)
    ]
    write_rows(results_path(study.name, "5min", folder / "results"), study.name, "5min", rows)
    return study


def test_the_documents_are_those_of_the_stored_results():
    everything = read_all()
    assert (HOME / claims.DOCUMENT).read_text() == make_document(everything), "run python -m studies.claims"
    readme = (HOME / claims.README).read_text()
    assert readme == update_readme(readme, everything), "run python -m studies.claims"
    shown = {report.study.name: report for report in map(choose_report, everything) if draws(report)}
    figures = {path.stem: path for path in (HOME / claims.FIGURES).glob("*")}
    assert set(figures) == set(shown), "run python -m studies.claims"
    for name, path in figures.items():
        assert claims.digest_rows(shown[name]) in path.read_text(), f"{name}: run python -m studies.claims"
    assert sum(path.stat().st_size for path in figures.values()) < 2 * MIB


def test_claims_are_written_from_results(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- studies -->\nold\n<!-- end -->\nafter\n")
    store(tmp_path, RESULTS)
    write_claims(tmp_path, tmp_path / "studies", tmp_path / "results")
    document, readme = ((tmp_path / name).read_text() for name in ("docs/claims.md", "README.md"))
    row = "**supported** (5min) | residual 1.33 %, plain 86.39 % |"
    assert row in document
    assert row in readme
    assert "commit 0123456789ab; Xeon, 2 threads." in document
    assert "](docs/claims.md#shortcuts)" in readme
    assert "old" not in readme
    assert readme.startswith("before\n<!-- studies -->\n")
    assert readme.endswith("<!-- end -->\nafter\n")
    link = re.search(r"!\[.*\]\((claims/\S+\.svg)\)", document)[1]
    assert (tmp_path / "docs" / link).read_text().startswith("<svg")
    assert str(tmp_path / "docs/claims.md") in capsys.readouterr().out
    again = update_readme(readme, read_all(tmp_path / "studies", tmp_path / "results"))
    assert again == readme


def test_figures_of_studies_that_have_gone_are_removed(tmp_path):
    (tmp_path / "docs/claims").mkdir(parents=True)
    (tmp_path / "docs/claims/gone.svg").write_text("<svg>")
    (tmp_path / "README.md").write_text("<!-- studies -->\n<!-- end -->\n")
    write_claims(tmp_path, folder=tmp_path / "results")
    assert not (tmp_path / "docs/claims/gone.svg").exists()


def test_results_of_other_recipes_are_left_out(tmp_path):
    study = store(tmp_path, RESULTS, digest="older")
    assert read_reports(study, tmp_path / "results") == []


def test_the_largest_complete_size_is_shown(tmp_path):
    study = store(tmp_path, RESULTS | {"plain": RESULTS["plain"][:2]})
    (report,) = read_reports(study, tmp_path / "results")
    assert not report.verdict.is_complete
    assert "**still running** (5min)" in make_document([[report]])
    store(tmp_path, RESULTS)
    (complete,) = read_reports(study, tmp_path / "results")
    assert choose_report([complete, report]) is complete
    assert choose_report([report, complete]) is complete
    assert choose_report([complete, complete]) is complete
    assert "8 of 10" not in make_document([[complete]])


def test_a_readme_without_a_place_is_refused():
    with pytest.raises(UserError, match="begins with <!-- studies -->"):
        update_readme("nothing", [])
