"""`python -m reports.compare`: which run is better, and is the difference real."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from checkpointing.predictions import predictions_path, result_path
from reports import compare
from reports.comparison import choose_basis
from reports.comparison import compare as compare_runs
from reports.comparison_notes import notes_on_images
from reports.run_sources.local import find_runs, read_run
from reports.verdict import verdict
from tests.handmade import predictions
from tests.reports.run_folders import make_config, write_run

IMAGES = 1000
LABELS = np.arange(IMAGES) % 2
HASH = "3" * 64  # of the test images in run.json


def write_test(folder: Path, wrong: np.ndarray, data_hash: str = HASH, protocol: str = "center") -> Path:
    """What `test` leaves in a run directory, given which of the images its net gets wrong."""
    scores = np.where((LABELS ^ wrong)[:, None] == np.arange(2), 2.0, 0.0)
    checkpoint = folder / "checkpoints" / "best.ckpt"
    result = {"checkpoint": str(checkpoint), "protocol": protocol, "images": len(wrong), "partial": False}
    result |= {"metrics": {"test/top1_error": float(wrong.mean())}, "data_hash": data_hash, "is_run_data": True}
    result_path(checkpoint, protocol).write_text(json.dumps(result | {"selected_on_test": False}))
    found = predictions(scores, LABELS, data_hash=data_hash, protocol=protocol, checkpoint=str(checkpoint))
    found.write(predictions_path(checkpoint, protocol))
    return folder


def wrong(count: int, seed: int = 0) -> np.ndarray:
    """[IMAGES] bool with so many errors."""
    errors = np.zeros(IMAGES, bool)
    errors[np.random.default_rng(seed).choice(IMAGES, count, replace=False)] = True
    return errors


def write_group(runs: Path, name: str, counts: list[int], **changes) -> None:
    """An experiment with a tested run for each number of errors."""
    for seed, count in enumerate(counts):
        config = make_config(seed_everything=seed, run_name=f"digits/{name}", **changes)
        write_test(write_run(runs / "digits" / name / f"version_{seed}", 3, config), wrong(count, seed))


def type_it(*args: object) -> None:
    compare.main([str(arg) for arg in args])


def sentence(capsys, *args: object) -> str:
    with pytest.raises(SystemExit) as stop:
        type_it(*args)
    assert isinstance(stop.value.code, str) and stop.value.code.startswith("error: ")
    return stop.value.code


def test_groups_of_seeds_are_compared_by_welch(tmp_path, capsys):
    write_group(tmp_path, "a", [100, 104, 98])
    write_group(tmp_path, "b", [140, 151, 149], model__init_args__norm="group")
    type_it(tmp_path, "--json", tmp_path / "c.json")
    found = json.loads((tmp_path / "c.json").read_text())
    expected = stats.ttest_ind([0.1, 0.104, 0.098], [0.14, 0.151, 0.149], equal_var=False)
    (test,) = found["tests"]
    assert (test["method"], test["verdict"], test["n"]) == ("Welch", "A is better", [3, 3])
    assert test["p_holm"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert test["interval"] == pytest.approx(list(expected.confidence_interval(0.99)))
    assert [group["name"] for group in found["groups"]] == ["digits/a", "digits/b"]
    assert found["groups"][0]["standard_deviation"] == pytest.approx(np.std([0.1, 0.104, 0.098], ddof=1))
    printed = capsys.readouterr().out
    assert "digits/a is better than digits/b by 4.60 points of error" in " ".join(printed.split())
    assert "model.norm" in printed and "269,722" not in printed


def test_two_single_runs_are_compared_by_mcnemar_on_their_predictions(tmp_path, capsys):
    a, b = wrong(100, 1), wrong(150, 2)
    write_test(write_run(tmp_path / "digits/a/version_0", config=make_config(run_name="digits/a")), a)
    write_test(write_run(tmp_path / "digits/b/version_0", config=make_config(run_name="digits/b")), b)
    type_it(tmp_path, "--json", tmp_path / "c.json")
    (test,) = json.loads((tmp_path / "c.json").read_text())["tests"]
    alone = [int((a & ~b).sum()), int((b & ~a).sum())]
    assert test["method"] == "McNemar" and test["wrong_alone"] == alone
    assert test["p"] == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue)


def test_a_run_in_json_has_its_state_errors_and_differences(tmp_path):
    write_group(tmp_path, "a", [100])
    write_group(tmp_path, "b", [150], model__init_args__norm="group")
    type_it(tmp_path, "--json", tmp_path / "c.json")
    run = json.loads((tmp_path / "c.json").read_text())["runs"][1]
    assert run["run"] == str(tmp_path / "digits/b/version_0") and run["name"] == "digits/b/version_0"
    assert (run["state"], run["seed"], run["parameters"]) == ("finished", 0, 269_722)
    assert run["config_differences"] == {"model.norm": "group"}
    assert run["last"]["val/top1_error"] == pytest.approx(0.5 / 3) and run["best"] == {"val/top1_error": 0.5 / 3}
    assert run["tests"][0]["metrics"] == {"top1_error": 0.15} and run["tests"][0]["images"] == IMAGES


def test_of_many_groups_the_best_ones_pairs_are_corrected_for_all(tmp_path):
    for number in range(6):
        write_group(tmp_path, f"n{number}", [100 + 2 * number])
    found = findings(tmp_path)
    assert [(pair.a, pair.b) for pair in found.pairs] == [("digits/n0", f"digits/n{k}") for k in range(1, 6)]
    worst = min(found.pairs, key=lambda pair: pair.p)
    assert worst.p_holm == pytest.approx(min(1, 15 * worst.p))
    assert verdict(found).startswith("digits/n0 has the lowest test error: 10.00 %. There is no evidence")


def findings(path: Path, **options):
    runs = [read_run(each) for each in find_runs([str(path)])]
    return compare_runs(runs, choose_basis(runs), **options)


def test_a_baseline_is_compared_with_all_others(tmp_path, capsys):
    for number, count in enumerate([100, 120, 300, 310]):
        write_group(tmp_path, f"n{number}", [count])
    for baseline in ("digits/n1", tmp_path / "digits/n1/version_0", "digits/n1/version_0"):
        found = findings(tmp_path, baseline=str(baseline))
        assert {pair.b for pair in found.pairs} == {"digits/n1"} and len(found.pairs) == 3
    text = verdict(found)
    assert "digits/n1 is better than digits/n2 and digits/n3" in text
    assert text.endswith("There is no evidence of a difference between digits/n1 and digits/n0.")
    assert "is none of the groups: give one of digits/n0, " in sentence(capsys, tmp_path, "--baseline", "digits/x")


def test_runs_of_different_data_are_never_compared(tmp_path, capsys):
    write_group(tmp_path, "a", [100])
    folder = write_run(tmp_path / "cifar10/b/version_0", config=make_config(run_name="cifar10/b"), outcome=None)
    write_test(folder, wrong(200), "9" * 64)
    found = findings(tmp_path)
    assert not found.pairs and "2 different sets of test images" in next(notes_on_images(found))
    assert verdict(found) == "digits/a has 10.00 % test error. cifar10/b has 20.00 % test error."


def test_half_written_runs_are_rows_with_their_state(tmp_path, capsys):
    write_group(tmp_path, "a", [100, 104, 98])
    write_run(tmp_path / "digits/killed/version_0", 6, outcome="running")
    write_run(tmp_path / "digits/nan/version_0", 4, outcome="diverged", reason="The training loss is nan at step 31")
    (tmp_path / "digits/nothing/version_0").mkdir(parents=True)
    (tmp_path / "digits/cut/version_0").mkdir(parents=True)
    (tmp_path / "digits/cut/version_0/metrics.csv").write_text("epoch,st")
    type_it(tmp_path, "--json", tmp_path / "c.json", "--markdown", tmp_path / "c.md")
    runs = {run["name"]: run for run in json.loads((tmp_path / "c.json").read_text())["runs"]}
    states = {name.split("/")[1]: run["state"] for name, run in runs.items()}
    assert states["killed"] == "killed" and states["nan"] == "diverged" and states["a"] == "finished"
    assert {states["nothing"], states["cut"]} <= {"empty", "unreadable"}
    assert runs["digits/nan/version_0"]["reason"].startswith("The training loss is nan at step 31")
    page = (tmp_path / "c.md").read_text()
    assert "killed" in page and "The training loss is nan at step 31" in page


def test_a_diverged_run_of_a_group_leaves_the_group_untested(tmp_path):
    write_group(tmp_path, "a", [100, 104, 98])
    write_group(tmp_path, "b", [140, 151, 149], model__init_args__norm="group")
    config = make_config(seed_everything=3, run_name="digits/b", model__init_args__norm="group")
    write_run(tmp_path / "digits/b/version_3", 2, config, outcome="diverged")
    (pair,) = findings(tmp_path).pairs
    assert pair.verdict == "not tested" and "1 run of digits/b of 4 diverged" in pair.reason


def test_without_a_test_validation_at_the_end_counts(tmp_path, capsys):
    for name in ("a", "b"):
        for seed in range(3):
            config = make_config(seed_everything=seed, run_name=f"digits/{name}")
            write_run(tmp_path / f"digits/{name}/version_{seed}", 3 + (name == "b") + seed, config)
    found = findings(tmp_path)
    assert found.basis.name == "validation error" and found.pairs[0].method == "Welch"
    assert found.entries[0].errors == pytest.approx([0.5 / 4, 0.5 / 5, 0.5 / 6])
    assert "No run was tested" in next(notes_on_images(found))
    assert "None of these runs was tested with --data.protocol ten_crop" in sentence(
        capsys, tmp_path, "--protocol", "ten_crop"
    )


def test_a_protocol_and_a_checkpoint_can_be_chosen(tmp_path):
    write_group(tmp_path, "a", [100])
    folder = tmp_path / "digits/a/version_0"
    write_test(folder, wrong(80), protocol="ten_crop")
    run = read_run(folder)
    assert choose_basis([run]).find_result(run).metrics["top1_error"] == 0.1
    assert choose_basis([run], "ten_crop").find_result(run).metrics["top1_error"] == 0.08


def test_every_output_is_written(tmp_path, capsys):
    write_group(tmp_path, "a_&_b", [100, 104, 98])
    write_group(tmp_path, "<i>", [140, 151, 149])
    out = {flag: tmp_path / f"c.{flag}" for flag in ("html", "markdown", "latex", "json")}
    type_it(tmp_path / "digits", *(word for flag, path in out.items() for word in (f"--{flag}", path)))
    assert "<i>/" not in out["html"].read_text() and "&lt;i&gt;" in out["html"].read_text()
    assert "| digits/a_&_b | 3 |" in out["markdown"].read_text()
    assert r"digits/a\_\&\_b" in out["latex"].read_text() and r"\toprule" in out["latex"].read_text()


@pytest.mark.slow
def test_every_figure_is_written_alone(tmp_path):
    write_group(tmp_path, "a", [100, 104, 98])
    write_group(tmp_path, "b", [140, 151, 149])
    type_it(tmp_path / "digits", "--svg", tmp_path / "figures")
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir())[:2] == [".png", ".png"]
    assert (tmp_path / "figures" / "top-1-error-against-epochs.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No runs are given"),
        (["nowhere"], "There is no nowhere"),
        (["runs", "--filters", "{}"], "give --wandb ENTITY/PROJECT too"),
        (["--wandb", "a/b", "--filters", "{"], "is no JSON"),
        (["--wandb", "a/b", "--filters", "[]"], "is no JSON object"),
        (["--wandb", "a/b", "runs"], "give one of the two"),
        (["runs", "--wandb-report"], "give --wandb ENTITY/PROJECT instead of folders"),
        (["runs", "--htm", "x"], "There is no argument --htm here. Did you mean --html?"),
    ],
)
def test_a_mistake_is_one_sentence(here, capsys, arguments, said):
    assert said in sentence(capsys, *arguments)


@pytest.mark.slow
def test_fifty_runs_of_two_hundred_epochs_fit_into_a_page_of_3_mb(tmp_path):
    for number in range(50):
        config = make_config(run_name=f"digits/n{number}", trainer__max_epochs=200, model__init_args__depth=number)
        folder = write_run(tmp_path / f"digits/n{number}/version_0", 200, config)
        write_test(folder, wrong(100 + number, number))
    type_it(tmp_path, "--html", tmp_path / "c.html")
    assert 1e6 < (tmp_path / "c.html").stat().st_size <= 3e6
