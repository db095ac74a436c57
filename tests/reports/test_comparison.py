"""What could make a comparison say something wrong: runs that lack a result, broke off, or are not what they seem."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpointing.predictions import predictions_path
from checkpointing.run_facts import read_run_facts
from reports.comparison import Findings, choose_basis, compare
from reports.comparison_notes import notes
from reports.comparison_page import cost_figures
from reports.comparison_tables import main_table, settings_table
from reports.html_page import Section, markdown
from reports.run_sources.local import find_runs, read_run
from reports.verdict import verdict
from tests.reports.run_folders import FACTS, make_config, write_run
from tests.reports.test_compare import HASH, write_group, write_test, wrong


def find(path: Path, checkpoint: str | None = None) -> Findings:
    runs = [read_run(each) for each in find_runs([str(path)])]
    return compare(runs, choose_basis(runs, checkpoint=checkpoint))


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cells(found: Findings, column: str) -> dict[str, str]:
    """A column of the main table, by group."""
    table = main_table(found)
    return {row[0]: row[table.names.index(column)] for row in table.rows}


@pytest.mark.parametrize("error", [-0.5, 1.5, float("nan"), float("inf"), -1e300])
def test_an_error_that_is_none_does_not_win(tmp_path, error):
    write_group(tmp_path, "a", [100])
    write_group(tmp_path, "b", [50])
    change(tmp_path / "digits/b/version_0/test-best-center.json", metrics={"test/top1_error": error})
    found = find(tmp_path)
    assert verdict(found).startswith("digits/a and digits/b are not tested against each other: digits/b has no result")
    assert cells(found, "test error, %") == {"digits/a": "10.00", "digits/b": ""}
    assert "no result of a test" in found.runs[1].reason


def test_a_validation_error_that_is_none_does_not_win(tmp_path):
    for name, error in (("a", "0.2"), ("b", "-3")):
        folder = write_run(tmp_path / f"digits/{name}/version_0", config=make_config(run_name=f"digits/{name}"))
        (folder / "metrics.csv").write_text(f"epoch,step,train/loss,val/top1_error\n19,199,0.1,{error}\n")
    assert [entry.errors for entry in find(tmp_path).entries] == [[0.2], []]


@pytest.mark.parametrize("images", [0, -1])
def test_a_test_of_no_images_is_none(tmp_path, images):
    for name in "ab":
        write_group(tmp_path, name, [100, 101, 102])
        for path in (tmp_path / "digits" / name).glob("*/test-*.json"):
            change(path, images=images)
    assert find(tmp_path).basis.verb == "validate"


def test_predictions_of_another_result_decide_nothing(tmp_path):
    write_group(tmp_path, "a", [100])
    write_group(tmp_path, "b", [300])
    change(tmp_path / "digits/b/version_0/test-best-center.json", metrics={"test/top1_error": 0.01})
    (pair,) = find(tmp_path).pairs
    assert pair.verdict == "not tested" and "predictions of digits/b are missing" in pair.reason


def test_runs_of_a_group_that_broke_off_or_lack_a_test_are_named(tmp_path):
    write_group(tmp_path, "a", [100, 101, 102])
    for seed, outcome in ((3, "running"), (4, "stopped")):
        config = make_config(seed_everything=seed, run_name="digits/a")
        write_run(tmp_path / f"digits/a/version_{seed}", 2, config, outcome=outcome)
    write_test(tmp_path / "digits/a/version_4", wrong(300))
    said = " ".join(notes(find(tmp_path)))
    assert "not in the mean, because they have no test error with center: version_3 (killed)." in said
    assert "did not come to its end: version_4 (stopped)." in said


def test_a_diverged_run_does_not_flatter(tmp_path):
    write_group(tmp_path, "a", [100, 101, 102])
    write_group(tmp_path, "b", [50])
    folder = tmp_path / "digits/b/version_0"
    facts = read_run_facts(folder)
    replace(facts, sessions=[replace(facts.sessions[0], outcome="diverged")]).write(folder)
    found = find(tmp_path)
    assert "digits/b has 5.00 % test error (before it diverged)" in verdict(found)
    assert "version_0 (diverged)" in " ".join(notes(found))
    assert cells(found, "last val., %") == {"digits/a": "16.67", "digits/b": "diverged"}


def test_a_group_of_which_one_run_diverged_is_not_said_to_have_diverged(tmp_path):
    write_group(tmp_path, "a", [100, 101, 102])
    write_group(tmp_path, "b", [50, 51, 52])
    config = make_config(seed_everything=3, run_name="digits/b")
    write_run(tmp_path / "digits/b/version_3", 2, config, outcome="diverged")
    found = find(tmp_path)
    assert verdict(found).endswith("1 of 4 runs of digits/b diverged.")
    assert cells(found, "test error, %")["digits/b"] == "1 of 4 diverged"


def test_runs_of_a_group_with_unknown_or_repeated_seeds_are_not_tested(tmp_path):
    write_group(tmp_path, "a", [100, 101, 102])
    write_group(tmp_path, "b", [50, 51, 52])
    shutil.copytree(tmp_path / "digits/b/version_2", tmp_path / "digits/b/version_3")
    assert "have the same seed" in find(tmp_path).pairs[0].reason
    shutil.rmtree(tmp_path / "digits/b/version_3")
    for path in (tmp_path / "digits/b").glob("*"):
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text("".join(line for line in text.splitlines(True) if "seed" not in line))
    assert find(tmp_path).pairs[0].verdict == "A is better"  # by the seeds of run.json
    for path in (tmp_path / "digits/b").glob("*"):
        (path / "run.json").unlink()
    assert "seeds of some runs of digits/b are unknown" in find(tmp_path).pairs[0].reason


def test_runs_of_one_recipe_on_different_images_are_different_groups(tmp_path):
    write_group(tmp_path, "a", [100, 101, 102, 300, 301])
    for number in range(5):
        (tmp_path / f"digits/a/version_{number}/run.json").unlink()
        if number > 2:
            write_test(tmp_path / f"digits/a/version_{number}", wrong(300), "9" * 64)
    found = find(tmp_path)
    assert [len(entry.errors) for entry in found.entries] == [3, 2] and not found.pairs
    assert [entry.label for entry in found.entries] == [
        "digits/a (1,000 images 333333)",
        "digits/a (1,000 images 999999)",
    ]


def test_errors_on_unknown_images_stand_alone(tmp_path):
    write_group(tmp_path, "a", [100])
    write_group(tmp_path, "b", [50])
    (tmp_path / "digits/b/version_0/run.json").unlink()
    change(tmp_path / "digits/b/version_0/test-best-center.json", data_hash=None)
    found = find(tmp_path)
    assert verdict(found) == "digits/b has 5.00 % test error. digits/a has 10.00 % test error."
    assert "images of these errors are unknown: digits/b." in " ".join(notes(found))
    assert main_table(found).best is None


def test_each_set_of_images_has_its_own_pareto_front(tmp_path):
    write_group(tmp_path, "a", [100])
    write_group(tmp_path, "large", [90])
    change(tmp_path / "digits/large/version_0/run.json", model=asdict(FACTS.model) | {"parameters": 10**6})
    folder = write_run(tmp_path / "cifar10/b/version_0", config=make_config(run_name="cifar10/b"))
    (folder / "run.json").write_text((folder / "run.json").read_text().replace(HASH, "9" * 64))
    write_test(folder, wrong(50), "9" * 64)
    figure, _ = cost_figures(find(tmp_path))
    assert figure.title.startswith("Test error on digits against parameters;")
    assert "digits/large" in json.dumps(figure.spec) and "cifar10/b" not in json.dumps(figure.spec)


def test_versions_of_the_code_are_told(tmp_path):
    write_group(tmp_path, "a", [100, 101])
    path = tmp_path / "digits/a/version_1/run.json"
    path.write_text(path.read_text().replace("0" * 40, "1" * 40 + "-dirty"))
    assert "2 versions of the code trained these runs (000000 and 111111-dirty)" in " ".join(notes(find(tmp_path)))


def test_a_checkpoint_that_was_tested_with_another_protocol_is_found(tmp_path):
    write_group(tmp_path, "a", [100])
    folder = tmp_path / "digits/a/version_0"
    write_test(folder, wrong(80), protocol="ten_crop")
    for path in (folder / "test-best-ten_crop.json", predictions_path(folder / "checkpoints/best.ckpt", "ten_crop")):
        path.rename(path.with_name(path.name.replace("best", "last")))
    change(folder / "test-last-ten_crop.json", checkpoint=str(folder / "checkpoints/last.ckpt"))
    found = find(tmp_path, checkpoint="last")
    assert (found.basis.protocol, found.entries[0].errors) == ("ten_crop", [0.08])


def test_labels_that_look_like_numbered_ones_stay_different(tmp_path):
    for number, name in enumerate(("version_0", "version_0", "version_0 (2)")):  # runs without config
        folder = tmp_path / str(number) / "digits/a" / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("epoch,step\n")
    labels = [entry.label for entry in find(tmp_path).entries]
    assert len(set(labels)) == len(labels) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"trainer__limit_train_batches": -(10**400), "data__init_args__batch_size": 64},
        {"trainer__limit_train_batches": 10**400, "data__init_args__batch_size": -3},
        {"trainer__limit_train_batches": -1.5},
        {"trainer__limit_train_batches": float("nan")},
        {"trainer__max_epochs": 10**400},
    ],
)
def test_odd_numbers_of_a_config_are_no_traceback(tmp_path, values):
    write_group(tmp_path, "a", [100, 101], **values)
    found = find(tmp_path)
    assert len(main_table(found).rows) == len(found.entries) == 1


@pytest.mark.parametrize("count", [-5, 10**30, True, 1.5])
def test_odd_counts_of_run_json_are_no_traceback(tmp_path, count):
    write_group(tmp_path, "a", [100])
    path = tmp_path / "digits/a/version_0/run.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"model": facts["model"] | {"multiply_adds": count}}))
    found = find(tmp_path)
    assert found.runs[0].facts is None and main_table(found).rows


def test_a_page_of_five_equal_groups_names_no_winner():
    """2 of 200 sets may: five groups of five seeds, whose errors on 1,000 images come from one binomial."""
    from reports.significance import Sample, compare_pairs

    rng, said = np.random.default_rng(0), 0
    for _ in range(200):
        groups = [Sample(str(k), rng.binomial(1000, 0.02, 5) / 1000, 1000, HASH, seeds=range(5)) for k in range(5)]
        pairs = [(groups[i], groups[j]) for i in range(5) for j in range(i)]
        said += any("better" in pair.verdict for pair in compare_pairs(pairs))
    assert said <= 4


def test_many_settings_and_huge_values_leave_a_table_legible(tmp_path):
    for number in range(7):
        changes = {f"model__init_args__key{key}": number for key in range(60)}
        write_group(tmp_path, f"n{number}", [100], **changes)
    path = tmp_path / "digits/n0/version_0/metrics.csv"
    path.write_text(
        "epoch,step,train/loss,val/top1_error,train/images_per_s\n0,9,0.1,1e300,nan\n1,19,0.1,1e300,1e-300\n"
    )
    found = find(tmp_path)
    settings = settings_table(found)
    assert len(settings.columns) == 9 and settings.note == "52 more settings differ: --json has them."
    assert all(len(cell) < 20 for row in main_table(found).rows for cell in row)


def test_markdown_holds_no_html_links_or_lines_of_a_strangers_name():
    text = markdown("a", [Section("b", ["<img src=x>\n# c [d](javascript:e)\x1b[31m"])], "<script>")
    assert r"\<img src=x>\n# c [d]\(javascript:e)\x1b[31m" in text and r"**\<script>**" in text
