"""Runs are grouped by their recipe, and the groups told apart."""

from dataclasses import replace
from typing import Any

import pytest

from checkpointing.run_facts import RunFacts
from reports.groups import ABSENT, config_differences, group_runs
from reports.run import Run
from tests.reports.run_folders import CONFIG, FACTS, make_config


def make_run(seed: int = 0, facts: RunFacts | None = FACTS, experiment: str = "digits/resnet20", **changes: Any) -> Run:
    """A run with other values at dotted keys of `CONFIG`."""
    config = make_config(**{"seed_everything": seed, **changes})
    return Run(f"/{experiment}/{seed}", experiment, f"version_{seed}", "finished", config=config, facts=facts)


def labels(*runs: Run) -> list[str]:
    return [group.label for group in group_runs(runs)]


def test_runs_that_differ_in_their_seed_alone_are_a_group():
    runs = [make_run(0), make_run(1), make_run(2, experiment="digits/plain20"), make_run(3)]
    groups = group_runs(runs)
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 3], [2]]
    assert [group.label for group in groups] == ["digits/resnet20", "digits/plain20"]
    assert [group.values for group in groups] == [{}, {}]


@pytest.mark.parametrize(
    "change",
    [
        {"trainer__logger": None},
        {"trainer__log_every_n_steps": 7},
        {"trainer__callbacks": [*CONFIG["trainer"]["callbacks"], {"class_path": "callbacks.GradientFlow"}]},
        {"data__init_args__num_workers": 4},
        {"data__init_args__protocol": "ten_crop"},
        {"data__init_args__root": "/elsewhere"},
        {"model__init_args__num_classes": 10},
        {"model__init_args__argument_of_newer_code": None},
        {"runs": "/elsewhere"},
        {"run_name": "other"},
        {"model__init_args__depth": 20.0},
    ],
)
def test_what_cannot_change_a_result_does_not_part_runs(change):
    assert len(group_runs([make_run(0), make_run(1, **change)])) == 1


@pytest.mark.parametrize(
    ("change", "key", "values", "label"),
    [
        ({"model__init_args__norm": "group"}, "model.norm", [ABSENT, "group"], ["norm=none", "norm=group"]),
        (
            {"model__class_path": "lit_models.LitVGG"},
            "model",
            ["LitResNet", "LitVGG"],
            ["model=LitResNet", "model=LitVGG"],
        ),
        (
            {"model__init_args__optimizer__init_args__lr": 0.05},
            "model.optimizer.lr",
            ["0.1", "0.05"],
            ["lr=0.1", "lr=0.05"],
        ),
        ({"trainer__max_epochs": 40}, "trainer.max_epochs", ["20", "40"], ["max_epochs=20", "max_epochs=40"]),
        ({"trainer__precision": "16"}, "trainer.precision", ["32-true", "16"], ["precision=32-true", "precision=16"]),
        ({"trainer__devices": 2}, "trainer.devices", [ABSENT, "2"], ["devices=none", "devices=2"]),
        ({"data__init_args__batch_size": 128}, "data.batch_size", ["64", "128"], ["batch_size=64", "batch_size=128"]),
    ],
)
def test_everything_else_parts_them(change, key, values, label):
    groups = group_runs([make_run(0), make_run(1, **change)])
    assert config_differences(groups) == {key: values}
    assert [group.values for group in groups] == [{key: value} for value in values]
    assert [group.label for group in groups] == [f"digits/resnet20 {each}" for each in label]


def test_other_images_part_runs_and_are_named():
    other = replace(FACTS, data=replace(FACTS.data, test_hash="9" * 64))
    groups = group_runs([make_run(0), make_run(1, facts=other), make_run(2, facts=None)])
    assert len(groups) == 3
    (values,) = config_differences(groups).values()
    assert values[2] == ABSENT and len({*values}) == 3 and all(len(value) == 6 for value in values[:2])
    assert [group.label for group in groups] == [f"digits/resnet20 data={value}" for value in (*values[:2], "unknown")]


def test_without_hashes_the_folder_of_the_data_counts():
    runs = [make_run(seed, facts=None, data__init_args__root=root) for seed, root in enumerate("aab")]
    assert [len(group.runs) for group in group_runs(runs)] == [2, 1]


def test_the_label_is_the_shortest_that_tells_apart():
    base: dict[str, Any] = {"model__init_args__depth": 56, "trainer__max_epochs": 100}
    runs = [make_run(0), make_run(1, **base), make_run(2, **base | {"model__init_args__norm": "group"})]
    assert labels(*runs[:2]) == ["digits/resnet20 depth=20", "digits/resnet20 depth=56"]
    assert labels(*runs) == [
        "digits/resnet20 depth=20 norm=none",
        "digits/resnet20 depth=56 norm=none",
        "digits/resnet20 depth=56 norm=group",
    ]
    assert list(config_differences(group_runs(runs))) == ["model.depth", "model.norm", "trainer.max_epochs"]


def test_runs_without_config_are_groups_of_their_own():
    bare = [Run(f"/{number}", "digits/resnet20", "version_0", "unreadable") for number in range(2)]
    groups = group_runs([make_run(0), *bare, make_run(1)])
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert [group.label for group in groups] == [
        "digits/resnet20",
        "digits/resnet20/version_0",
        "digits/resnet20/version_0 (2)",
    ]
    assert all(value == ABSENT for group in groups[1:] for value in group.values.values())


def test_a_callback_is_one_difference_beside_its_arguments():
    ema = {
        "class_path": "lightning.pytorch.callbacks.EMAWeightAveraging",
        "init_args": {"decay": 0.999, "device": None},
    }
    groups = group_runs([make_run(0), make_run(1, trainer__callbacks=[*CONFIG["trainer"]["callbacks"], ema])])
    assert config_differences(groups) == {"trainer.callbacks.EMAWeightAveraging": [ABSENT, "decay=0.999"]}


def test_arguments_of_a_class_that_some_lack_stand_behind_it():
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 30}}
    other = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 40}}
    changes = ({}, {"model__init_args__lr_scheduler": schedule}, {"model__init_args__lr_scheduler": other})
    first, second, third = (make_run(index, **change) for index, change in enumerate(changes))
    found = config_differences(group_runs([first, second]))
    assert found == {"model.lr_scheduler": [ABSENT, "StepLR (step_size=30)"]}
    found = config_differences(group_runs([first, second, third]))
    assert found["model.lr_scheduler.step_size"] == [ABSENT, "30", "40"]


def test_values_are_short_and_printable():
    hostile = "\x1b[31m" + "x" * 100
    groups = group_runs([make_run(0), make_run(1, model__init_args__norm=hostile)])
    (value,) = {group.values["model.norm"] for group in groups} - {ABSENT}
    assert len(value) <= 40 and value.isprintable()


def test_copies_of_a_run_are_noticed():
    (group,) = group_runs([make_run(0), make_run(0), make_run(1)])
    assert group.repeated_seeds == [0]


def test_configs_of_any_form_are_taken():
    deep: Any = "end"
    for _ in range(100):
        deep = {"class_path": ["x"], "init_args": deep, "more": [deep]} if isinstance(deep, str) else {"a": deep}
    for config in (
        {"model": 3},
        {"trainer": [1, {"class_path": 2}, []]},
        {"": {"": None}},
        {"data": deep},
        {"x": [[[]]]},
    ):
        groups = group_runs([make_run(0), Run("/x", "digits/resnet20", "version_0", "killed", config=config)])
        assert len(groups) == 2 and groups[0].label != groups[1].label
