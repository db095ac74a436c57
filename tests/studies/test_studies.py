"""Every study in configs/studies: read, and its commands parsed."""

from dataclasses import replace
from pathlib import Path

import pytest

from studies.commands import make_recipes
from studies.process import resolve
from studies.runner import Runner
from studies.study_file import find_study, list_studies

STUDIES = list_studies()


def test_there_are_studies() -> None:
    assert "residual_against_plain" in STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_read_and_its_first_command_parsed(name: str) -> None:
    study = find_study(name)
    assert "5min" in study.budgets and all(budget.seeds >= 3 or study.count_at for budget in study.budgets.values())
    for budget in study.budgets.values():
        recipes = make_recipes(study, budget)
        assert len({recipe.digest for recipe in recipes}) == len(recipes)
    if not study.is_search:
        resolve(recipes[0].fit_words(0, 0, Path("runs")))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_all_commands_of_a_study_are_parsed(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    for budget in study.budgets:
        Runner(study, budget, None, tmp_path, tmp_path, ["--data.root=x"]).check()


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs(name: str, tmp_path: Path) -> None:
    study = find_study(name)
    budget = study.budget("5min")
    epochs = 6 if name in ("averaging", "swa") else 1  # of which five, or the last quarter, are averaged
    short = {"trainer.max_epochs": epochs, "trainer.limit_train_batches": 2, "trainer.limit_val_batches": 1}
    short = {"evaluations": 20} if study.is_search else short
    study = replace(study, budgets={"5min": replace(budget, settings=budget.settings | short)})
    study = replace(study, measures=[name for name in study.measures if "@" not in name])
    runner = Runner(study, "5min", 1, tmp_path / "runs", tmp_path / "results")
    runner.check()
    rows = list(runner.run())
    assert [row.arm for row in rows] == [*study.arms]
    assert all(row.state == "finished" for row in rows)
