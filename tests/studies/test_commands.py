"""The commands of a study: what stands above what, which arms share runs, and what a recipe's digest follows from."""

from pathlib import Path

import pytest

from studies.commands import make_recipes, shown, slug, write_flags
from studies.study import merge
from studies.study_file import read_study
from tests.studies.tiny import write_study

ARMS = """
  ema: {config: configs/overlays/ema.yaml}
  residual: {}
  five: {members: 5}
  crops: {test: {config: configs/overlays/ten_crop.yaml, data.batch_size: 4}}
  schedule: {trainer.max_epochs: 5, config: configs/overlays/smoke.yaml, model.norm: none, checkpoint: best}
"""


@pytest.fixture
def recipes(tmp_path: Path) -> dict:
    study = read_study(Path(write_study(tmp_path, ARMS, seeds=3)))
    return {each.arm.name: each for each in make_recipes(study, study.budget("5min"))}


def test_flags_of_an_arm_stand_above_its_overlays_and_these_above_the_budget(recipes: dict) -> None:
    words = recipes["schedule"].fit
    assert words[0].startswith("--config=") and words[0].endswith("configs/digits/resnet20.yaml")
    assert [word for word in words if "max_epochs" in word] == ["--trainer.max_epochs=5"]  # 2 of budget and overlay
    assert "--trainer.limit_train_batches=3" in words and "--model.norm=none" in words
    assert "--data=datamodules.Synthetic" in words and "--trainer.callbacks.milestones=[1]" in words


def test_what_is_added_to_the_callbacks_stands_behind_flags_of_those_of_the_base(recipes: dict) -> None:
    words = recipes["ema"].fit
    assert words[-1].startswith('--trainer.callbacks+=[{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"')
    merged = merge({"trainer.callbacks+": "A"}, {"trainer.callbacks.x": 1}, {"trainer.callbacks+": ["B"]})
    assert write_flags(merged) == ("--trainer.callbacks.x=1", '--trainer.callbacks+=["A", "B"]')


def test_arms_that_are_trained_alike_share_their_runs(recipes: dict) -> None:
    assert [recipes[name].run_name for name in ("residual", "five", "crops")] == ["tiny/residual"] * 3
    assert recipes["schedule"].run_name == "tiny/schedule"
    assert recipes["crops"].test == ("--data.protocol=ten_crop", "--data.batch_size=4")
    assert list(recipes["five"].run_seeds(2)) == [10, 11, 12, 13, 14] and list(recipes["residual"].run_seeds(2)) == [2]


def test_the_digest_follows_from_all_that_the_results_follow_from(tmp_path: Path, recipes: dict) -> None:
    assert len({each.digest for each in recipes.values()}) == len(recipes)
    path = Path(write_study(tmp_path, ARMS, seeds=3))
    text = path.read_text()
    for old, new, changed in (
        ("claim: A net", "claim: No net", set()),
        ("seeds: 3", "seeds: 9", set()),
        ("data.batch_size: 8", "data.batch_size: 16", set(recipes)),
        ("members: 5", "members: 4", {"five"}),
        ("ten_crop.yaml, data.batch_size: 4", "ten_crop.yaml, data.batch_size: 5", {"crops"}),
        ("checkpoint: best", "checkpoint: last", {"schedule"}),
    ):
        path.write_text(text.replace(old, new))
        study = read_study(path)
        now = {each.arm.name: each.digest for each in make_recipes(study, study.budget("5min"))}
        assert {name for name, digest in now.items() if digest != recipes[name].digest} == changed


CHAIN = """
  plain: {model.shortcut: none}
  same: {model.shortcut: none, start_from: plain}
  residual: {model.depth: 20, start_from: same}
"""


def test_an_arm_starts_from_the_run_of_another_and_its_digest_follows(tmp_path: Path) -> None:
    path = Path(write_study(tmp_path, CHAIN, seeds=3))
    study = read_study(path)
    plain, same, third = make_recipes(study, study.budget("5min"))
    assert third.start == same and third.root == same.root == plain.root == plain
    assert plain.fit == same.fit and [plain.run_name, same.run_name] == ["tiny/plain", "tiny/same"]
    assert len({plain.digest, same.digest, third.digest}) == 3
    words = third.fit_words(2, 2, Path("here"), start=same.checkpoint(Path("here/tiny/same/version_2")))
    assert "--model.init_from=here/tiny/same/version_2/checkpoints/last.ckpt" in words
    path.write_text(path.read_text().replace("plain: {model.shortcut: none}", "plain: {model.shortcut: B}"))
    study = read_study(path)
    now = make_recipes(study, study.budget("5min"))
    assert all(a.digest != b.digest for a, b in zip(now, (plain, same, third), strict=True))


def test_values_are_written_as_flags_read_them() -> None:
    values = {"a.b": 1e-5, "a.c": None, "a.d": True, "a.e": "none", "a.f": "1e-5", "a.g": {"x": [1]}, "a.h": "a b"}
    expected = ("--a.b=1.0e-05", "--a.c=null", "--a.d=true", "--a.e=none", '--a.f="1e-5"', '--a.g={"x": [1]}')
    assert write_flags(values) == (*expected, "--a.h=a b")


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [slug(name) for name in ("batch norm, batch_size 2", "ä/b", "..", "1e-3")] == [
        "batch-norm-batch_size-2",
        "ä-b",
        "arm",
        "1e-3",
    ]
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "x.yaml") == Path("x.yaml") and shown(Path("/y/x.yaml")) == Path("/y/x.yaml")
