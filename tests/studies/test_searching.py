"""Studies whose arms are searches for cells: rows, skipping, equality with `studies.search`, and what is refused."""

import json
from pathlib import Path

import pytest

from studies.__main__ import main
from studies.claims import choose_report, read_reports
from studies.results import Row, read_rows
from studies.search.__main__ import main as search_main
from studies.study_file import find_study
from studies.tables import arm_table
from studies.units import format_value, list_axis, measure_name
from tests.conftest import HOME

STUDY = """
claim: Learning helps.
notes: "9 Nasnet"
paper: none
search: {reward: table, evaluations: 25}
arms:
  ppo: {method: ppo}
  random: {method: random}
measures: ["curve:search/val_accuracy", search/val_accuracy, search/test_accuracy]
supported_if:
  - {of: search/val_accuracy, higher: ppo, than: random}
budgets:
  5min: {seeds: 2}
"""


def run(text: str = STUDY, *flags: str) -> dict[tuple[str, int], Row]:
    Path("own.yaml").write_text(text)
    main(["own.yaml", "--runs", "runs", "--results", "results", "--processes", "1", *flags])
    return {(row.arm, row.seed): row for row in read_rows(Path("results/own-5min.json"))}


def test_a_search_is_a_row_and_equals_its_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run()
    assert "[1 of 4] ppo, seed 0: validation accuracy of the best cell " in capsys.readouterr().out
    assert [*rows] == [("ppo", 0), ("ppo", 1), ("random", 0), ("random", 1)]
    for name in ("ppo", "random"):
        flags = ["--reward=table", "--evaluations=25", f"--method={name}", "--seeds", "2", "--json", f"{name}.json"]
        search_main(flags)
        for found in json.loads(Path(f"{name}.json").read_text())["methods"][name]["searches"]:
            measures, best = rows[name, found["seed"]].measures, found["improvements"]
            assert measures["search/val_accuracy"] == pytest.approx(best[-1]["validation"], abs=1e-6)
            assert measures["search/test_accuracy"] == pytest.approx(best[-1]["test"], abs=1e-6)
            curve = [max(e["validation"] for e in best if e["evaluation"] <= n) for n in (10, 20)]
            assert measures["curve:search/val_accuracy"] == pytest.approx(curve, abs=1e-6)
    page = (here / "runs/5min/own-5min.md").read_text()
    assert "python -m studies.search --reward=table --evaluations=25 --method=ppo --first_seed=0" in page


def test_searches_are_stored_skipped_and_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run()
    file = here / "results/own-5min.json"
    written = file.stat().st_mtime_ns
    assert run() == before and file.stat().st_mtime_ns == written
    assert len(run(STUDY, "--seeds", "3")) == 6
    changed = run(STUDY.replace("{method: ppo}", "{method: ppo, learning_rate: 0.02}"))
    assert changed["ppo", 0].recipe != before["ppo", 0].recipe and changed["random", 0] == before["random", 0]
    capsys.readouterr()
    main(["own.yaml", "--print", "--runs", "runs"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].endswith("--reward=table --evaluations=25 --method=random --first_seed=1")


def test_the_document_has_the_numbers_of_the_stored_results() -> None:
    text = (HOME / "docs/search.md").read_text()
    report = choose_report(read_reports(find_study("cell_search")))
    for name, seeds, *cells in arm_table(report).rows:
        assert f"| `{name}` | {' | '.join(cells)} |" in text and seeds == "20"


def test_words_for_readers() -> None:
    assert measure_name("curve:search/val_accuracy") == "validation accuracy of the best cell so far"
    assert list_axis("curve:search/val_accuracy") == ("evaluations", 10) and list_axis("curve:val/loss") == ("epoch", 1)
    assert format_value("search/test_accuracy", 0.8903) == "89.03 %"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("reward: table", "reward: train", "the arm ppo: reward is train: a study searches with table"),
        ("reward: table, ", "", "own.yaml: search has no reward: write {reward: table, evaluations: 500}."),
        ("evaluations: 25", "evaluation: 25", "has the key evaluation: did you mean evaluations?"),
        ("evaluations: 25", "evaluations: 0", "evaluations is 0: it must be at least 1."),
        ("evaluations: 25", "evaluations: 2.5", "evaluations is 2.5: give a whole number."),
        ("evaluations: 25", "evaluations: 25, dataset: mnist", "dataset mnist is not in the table: choose one of"),
        ("arms:", "base: configs/digits/resnet20.yaml\narms:", "trains no net of a config: leave out base."),
        ("{method: random}", "{method: sarsa}", "the arm random: method sarsa is unknown: choose one of reinforce"),
        ("{method: random}", "{}", "the arm random: it has no method: write method: reinforce, ppo"),
        ("{method: random}", "{method: random, clip: 0.1}", "the arm random: --clip is of ppo"),
        ("{method: random}", "{method: ppo, clip: wide}", "the arm random: clip is wide: give a number."),
        ("{method: random}", "{method: ppo, clip: 0.2}", "the arm random: it changes nothing"),
        (
            "{method: random}",
            "{method: random, members: 2}",
            "the arm random is a search, and takes reward, evaluations",
        ),
        ("{method: random}", "{method: random, model.depth: 20}", "the arm random has model.depth: a search takes"),
        ("{seeds: 2}", "{seeds: 2, trainer.max_epochs: 3}", "the budget 5min has trainer.max_epochs: a search takes"),
        ("search/test_accuracy]", "test/loss]", "own.yaml names the measure test/loss: "),
        ("search/test_accuracy]", "search/tst_accuracy]", "did you mean search/test_accuracy?"),
    ],
)
def test_mistakes_are_one_sentence(here: Path, old: str, new: str, sentence: str) -> None:
    assert old in STUDY
    with pytest.raises(SystemExit) as stop:
        run(STUDY.replace(old, new))
    assert sentence in str(stop.value) and "\n" not in str(stop.value)
    assert [path.name for path in here.iterdir()] == ["own.yaml"]
