"""A search from its first proposal to its page: best so far, resuming, the command line on NAS-Bench-201's table."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from errors import UserError
from studies.search.__main__ import main
from studies.search.charts import mean_interval, proposals_chart, search_chart
from studies.search.report import Findings, count_operations, to_facts, to_sections, verdicts
from studies.search.rewards import Outcome
from studies.search.search import Search
from studies.search.settings import METHODS, choose_settings, make_method
from studies.search.spaces import NASBench201Space
from tests.studies.search.toy import ToyReward, ToySpace

SPACE = ToySpace(4, 3, 4)


def start(name="reinforce", seed=0, **given):
    settings = choose_settings(name, {"batch_size": 3, "hidden_size": 8, "population_size": 4} | given)
    return Search(name, seed, settings), make_method(name, SPACE, seed, settings)


def run(search, method, evaluations, path=None, reward=None):
    list(search.run(method, reward or ToyReward(), evaluations, path))
    return search


def test_the_best_so_far_is_the_first_of_the_best_by_validation():
    values = [(0.3, 0.9), (0.5, 0.1), (0.5, 0.8), (0.4, 0.7), (0.6, 0.2)]
    search = Search("random", 0, {}, [(i,) for i in range(5)], [Outcome(*each) for each in values])
    assert search.best_indices().tolist() == [0, 1, 1, 1, 4]
    assert search.best_so_far().tolist() == [[0.3, 0.9], [0.5, 0.1], [0.5, 0.1], [0.5, 0.1], [0.6, 0.2]]
    assert search.best == ((4,), Outcome(0.6, 0.2))
    assert search.truncated(4).best == ((1,), Outcome(0.5, 0.1))


@pytest.mark.parametrize("name", METHODS)
def test_a_search_that_was_killed_goes_on_to_the_bit(name, tmp_path):
    path = tmp_path / "search.pt"
    straight = run(*start(name), 20)
    reward = ToyReward()
    run(*start(name), 7, path, reward)  # in the middle of a batch
    search, method = start(name)
    search.load(method, path)
    assert len(search.proposals) == 7
    run(search, method, 20, path, reward)
    assert search == straight
    assert sum(map(len, reward.batches)) == 20  # nothing is evaluated twice
    finished, method = start(name)
    finished.load(method, path)
    assert run(finished, method, 20, path, reward) == straight and sum(map(len, reward.batches)) == 20


def test_the_state_of_other_settings_is_refused(tmp_path):
    run(*start(), 3, tmp_path / "search.pt")
    search, method = start(learning_rate=0.5)
    with pytest.raises(UserError, match=r"search.pt holds a search with learning_rate 0.003, not 0.5: give another"):
        search.load(method, tmp_path / "search.pt")
    (tmp_path / "other.pt").write_text("no search")
    with pytest.raises(UserError, match=r"other.pt is no search \(.*Error\): remove it"):
        search.load(method, tmp_path / "other.pt")


def made_up(means, seeds=5, evaluations=4):
    """Searches whose last evaluation has a validation accuracy near the mean of its method."""
    rng = np.random.default_rng(0)
    searches = {}
    for name, mean in means.items():
        searches[name] = [
            Search(
                name,
                seed,
                choose_settings(name, {}),
                [(number % 4, 0, 0) for number in range(evaluations)],
                [Outcome(0.1, 0.1)] * (evaluations - 1) + [Outcome(mean + rng.normal(0, 0.002), mean - 0.1)],
            )
            for seed in range(seeds)
        ]
    return Findings(searches, 25_000, "toys")


def test_the_verdict_follows_from_the_seeds():
    findings = made_up({"reinforce": 0.84, "ppo": 0.8, "evolution": 0.7, "random": 0.8})
    said = verdicts(findings)
    assert said[0].startswith(
        "After 4 evaluations, over 5 seeds: reinforce finds better cells than random search (vali"
    )
    assert "points, 99 % interval +3." in said[0]
    assert "there is no evidence of a difference between ppo and random search" in said[1]
    assert "evolution finds worse cells than random search (validation accuracy -" in said[2]
    assert [each.verdict for each in findings.comparisons] == [
        "A is better",
        "no evidence of a difference",
        "B is better",
    ]
    assert findings.evaluations_to_beat("reinforce") == 4 and findings.evaluations_to_beat("evolution") is None


def test_without_random_search_there_is_nothing_to_compare_with():
    findings = made_up({"ppo": 0.9, "evolution": 0.8})
    assert verdicts(findings) == [] == findings.comparisons
    table = to_sections(findings, SPACE, [])[0].parts[0]
    assert len(table.columns) == 5 == len(table.rows[0])


def test_two_seeds_are_not_compared():
    findings = made_up({"ppo": 0.9, "random": 0.8}, seeds=2)
    assert verdicts(findings) == ["Methods are compared over 3 seeds or more: give --seeds 20."]
    assert not findings.comparisons and not verdicts(made_up({"ppo": 0.9}, seeds=1))


def test_the_page_has_tables_and_curves():
    findings = made_up({"reinforce": 0.84, "random": 0.8}, evaluations=60)
    sections = to_sections(findings, SPACE, ["A note."])
    table, *figures = sections[0].parts
    assert [row[0] for row in table.rows] == ["reinforce", "random"] and table.best == 0
    assert table.rows[0][1] == "5" and table.rows[0][5].startswith("+") and table.rows[1][5] == ""
    assert len(figures) == 3 and all(figure.spec["layer"] for figure in figures)
    facts = json.loads(json.dumps(to_facts(findings, SPACE)))
    first = facts["methods"]["reinforce"]["searches"][0]
    assert [each["evaluation"] for each in first["improvements"]] == [1, 60]


def test_bands_are_students_intervals_within_the_accuracies():
    values = np.array([[0.1, 0.99], [0.2, 1.0], [0.3, 0.5]])
    band = mean_interval(values, 0.99)
    # t of 2 degrees of freedom at 99 %: 9.9248
    half = 9.9248 * 0.1 / 3**0.5
    assert (
        band.mean[0] == pytest.approx(0.2) and band.low[0] == 0 and band.high[0] == pytest.approx(0.2 + half, abs=1e-4)
    )
    assert band.high[1] == 1
    assert mean_interval(values[:2]).low.tolist() == mean_interval(values[:2]).mean.tolist()


def test_a_chart_holds_a_curve_of_each_method():
    spec = search_chart({"a": np.full((3, 500), 0.5), "b": np.full((3, 500), 0.4)}, "accuracy").to_dict()
    rows = spec["data"]["values"]
    assert [row["group"] for row in rows] == ["a", "b"]
    assert rows[0]["x"][0] == 1 and rows[0]["x"][-1] == 500 and len(rows[0]["x"]) <= 160


def test_operations_are_counted_at_each_edge():
    shares = count_operations([(3, 1, 0, 0, 0, 0), (3, 2, 0, 0, 0, 0)], NASBench201Space())
    assert shares["0 to 1"] == {"none": 0, "skip_connect": 0, "nor_conv_1x1": 0, "nor_conv_3x3": 1, "avg_pool_3x3": 0}
    assert shares["0 to 2"]["skip_connect"] == shares["0 to 2"]["nor_conv_1x1"] == 0.5
    spec = proposals_chart({"ppo": shares, "random": shares}).to_dict()
    assert len(spec["data"]["values"]) == 2 * 6 * 5


def test_the_command_searches_the_table_and_writes_a_config(here, capsys):
    main(["--method", "reinforce", "--seeds", "3", "--evaluations", "30", "--markdown", "s.md", "--json", "s.json"])
    said = capsys.readouterr().out
    # Random search costs nothing on the table, and is what the others are compared with
    assert said.count("reinforce, seed") >= 3 and "random, seed 2: best of 30 cells" in said
    assert "After 30 evaluations, over 3 seeds: " in said and "Wrote runs/search/table-cifar10/best.yaml" in said
    best = yaml.safe_load(Path("runs/search/table-cifar10/best.yaml").read_text())
    facts = json.loads(Path("s.json").read_text())
    found = [each for name in facts["methods"] for each in facts["methods"][name]["searches"]]
    most = max(each["improvements"][-1]["validation"] for each in found)
    assert f"{100 * most:.2f} %" in said and best["model"]["class_path"] == "lit_models.LitNASBench201"
    assert "after 12 epochs" in Path("s.md").read_text()


def test_a_seed_gives_the_same_search_again(here, capsys):
    flags = ["--method", "ppo", "evolution", "random", "--evaluations", "25"]
    main([*flags, "--seeds", "2"])
    first = capsys.readouterr().out.splitlines()
    main([*flags, "--first_seed", "1"])
    assert capsys.readouterr().out.splitlines()[:3] == first[3:6]


@pytest.mark.parametrize("data", [pytest.param("digits", marks=pytest.mark.slow), "cifar10"])
def test_the_best_config_trains(run, here, cifar, data, capsys):
    main(["--method", "random", "--evaluations", "5", "--best", "best.yaml"])
    root = ["--data", "datamodules.Digits"] if data == "digits" else ["--data.root", cifar, "--data.val_size", "20"]
    run("fit", "--config", "best.yaml", *root, "--data.batch_size", "4", "--trainer.fast_dev_run", "1")
    assert "train/loss" in capsys.readouterr().out
    header = [line for line in Path("best.yaml").read_text().splitlines() if line.startswith("#")]
    assert "#   python main.py fit --config best.yaml --data.root DIR" in header and max(map(len, header)) <= 120


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--reward", "gold"], "reward gold is unknown: choose one of table, train."),
        (["--method", "sarsa"], "method sarsa is unknown: choose one of reinforce, ppo, random, evolution."),
        (["--evaluations", "0"], "evaluations is 0: it must be at least 1."),
        (["--seeds", "0"], "seeds is 0: it must be at least 1."),
        (["--first_seed", "-1"], "first_seed is -1: it must be at least 0."),
        (["--dataset", "mnist"], "dataset mnist is not in the table: choose one of cifar10, cifar100, imagenet16_120."),
        (["--method", "random", "--clip", "0.1"], "--clip is of ppo: add --method ppo, or leave it out."),
        (["--learning_rate", "-1"], "learning_rate is -1.0: it must be above 0."),
        (["--data.root", "x"], "--data.root is for --reward train, which trains nets: leave it out, or give --reward"),
        (["--rows", "3"], "--rows is for --reward train"),
        (["--processes", "2"], "--processes is for --reward train"),
        (["--reward", "train", "--dataset", "cifar10"], "--dataset is for --reward table: leave it out"),
        (["--reward", "train", "--rows", "0"], "rows is 0: it must be at least 1."),
        (["--reward", "train", "--processes", "0"], "processes is 0: it must be at least 1."),
        (["--reward", "train", "--config", "a.yaml", "--config", "b.yaml"], "--config is given 2 times"),
        (["--evaluation", "3"], "There is no argument --evaluation here. Did you mean --evaluations?"),
        (["--best", "no/best.yaml"], "no/best.yaml cannot be written: there is no folder"),
        (["--html", "no/page.html"], "no/page.html cannot be written: there is no folder"),
    ],
)
def test_mistakes_are_one_sentence(here, flags, says):
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert str(stop.value).startswith("error: ") and says in str(stop.value) and "\n" not in str(stop.value)
    assert not list(here.iterdir())
