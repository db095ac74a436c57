"""What is wrong in the file of a study is said in one sentence, with the file."""

import pytest

from errors import UserError
from studies.study_file import FOLDER, find_study, read_study

GOOD = """
claim: Shortcuts help.
notes: 4 Resnets
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
EXPECTED = "lower: residual, than: plain"
BUDGET = "5min: {seeds: 5}"


@pytest.fixture
def read(tmp_path):
    def read_it(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return read_study(path)

    return read_it


def test_a_study_is_read(read):
    study = read(GOOD)
    assert (study.name, study.claim, list(study.arms)) == ("own", "Shortcuts help.", ["plain", "residual"])
    assert study.arms["plain"].settings == {"model.shortcut": "none"}
    assert (study.expectations[0].arm, study.expectations[0].other) == ("residual", "plain")
    assert study.budget("5min").seeds == 5


def test_a_sweep_makes_an_arm_of_each_value(read):
    study = read(f"{GOOD}sweep: {{model.dropout: [0.1, 0.5]}}".replace(EXPECTED, f"{EXPECTED}, at: 0.5"))
    assert list(study.arms)[:2] == ["plain, dropout 0.1", "plain, dropout 0.5"]
    assert [arm.point for arm in study.arms.values()] == [0.1, 0.5] * 2
    assert study.expectations[0].other == "plain, dropout 0.5"


def test_an_arm_of_a_sweep_starts_from_the_arm_at_its_value(read):
    text = GOOD.replace("residual: {}", "residual: {start_from: plain}").replace(EXPECTED, f"{EXPECTED}, at: 0.5")
    study = read(f"{text}sweep: {{model.dropout: [0.1, 0.5]}}")
    assert [arm.start_from for arm in study.arms.values()][2:] == ["plain, dropout 0.1", "plain, dropout 0.5"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (GOOD, "- a", "holds no study: give it the keys claim"),
        ("claim: Shortcuts help.", "claim: [a, b]", "claim is ['a', 'b']: write a text"),
        ("claim: Shortcuts help.", "claim:", "claim is None: write a text"),
        ("paper: He et al.\n", "", "has no paper: a study needs claim, notes, paper"),
        ("paper: He", "papre: He", "has the key papre: did you mean paper?"),
        ("arms:\n  plain: {model.shortcut: none}\n  residual: {}", "arms:", "has no arms: name at least one."),
        ("arms:\n  plain: {model.shortcut: none}\n  residual: {}", "arms: [plain]", "write keys with values."),
        ("residual: {}", "residual: deep", "the arm residual is deep: write flags"),
        ("residual: {}", "residual: {run_name: x}", "the arm residual has run_name, which is no flag"),
        ("residual: {}", "residual: {model.shortcut: none}", "the arms plain and residual are equal"),
        ("residual: {}", "residual: {members: 2.5}", "members of residual is 2.5"),
        ("residual: {}", "residual: {test: ten_crop}", "test of the arm residual is ten_crop: write flags"),
        (
            "residual: {}",
            "residual: {start_from: plane}",
            "the arm residual starts from plane, which is no arm above it",
        ),
        ("residual: {}", "residual: {start_from: residual}", "which is no arm above it: there are plain."),
        ("[test/top1_error]", "", "measures is empty"),
        (f"  - {{of: test/top1_error, {EXPECTED}}}", "", "supported_if is empty"),
        (BUDGET, "5min:", "the budget 5min is None"),
        (BUDGET, "5min: {seeds: 0}", "the budget 5min has seeds 0"),
        (BUDGET, "5min: {seeds: five}", "the budget 5min has seeds five"),
        (BUDGET, "5/min: {seeds: 5}", "the budget 5/min cannot name files"),
        (EXPECTED, "lower: 1, than: 2", "lower names an arm"),
        (EXPECTED, "lower: plain, than: plain", "compares plain with itself"),
        (EXPECTED, "lower: residual, than: plane", "supported_if names the arm plane: the study has plain, residual"),
        (EXPECTED, "lower: residual", "write of, and lower, higher, not_higher or not_lower with than"),
        (EXPECTED, f"{EXPECTED}, by: much", "by, within and factor are numbers"),
        (EXPECTED, f"{EXPECTED}, by: .nan", "by, within and factor are numbers"),
        (EXPECTED, f"{EXPECTED}, factor: 1", "factor above 1"),
        (EXPECTED, "not_higher: residual, than: plain", "not_higher and not_lower need by, above 0"),
        (EXPECTED, "equal: residual, to: plain", "equal needs within"),
        ("of: test/top1_error", "of: test/loss", "names test/loss, which is not among the measures"),
        ("test/top1_error", "curve:train/loss", "a list of values: compare one, such as train/loss@3"),
        ("base:", "sweep: {model.dropout: []}\nbase:", "write a flag and the list of its values"),
    ],
)
def test_what_is_wrong_is_one_sentence(read, old, new, sentence):
    assert old in GOOD
    with pytest.raises(UserError) as raised:
        read(GOOD.replace(old, new))
    assert sentence in str(raised.value)
    assert "own.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_study_is_found_by_name_or_file(tmp_path):
    assert find_study("residual_against_plain").path == FOLDER / "residual_against_plain.yaml"
    with pytest.raises(UserError, match="There is no study residual_agains_plain: did you mean residual_against_plain"):
        find_study("residual_agains_plain")
    (tmp_path / "residual_against_plain.yaml").write_text(GOOD)
    with pytest.raises(UserError, match="would share its results: rename the file"):
        find_study(str(tmp_path / "residual_against_plain.yaml"))
    with pytest.raises(UserError, match=r"missing\.yaml"):
        find_study(str(tmp_path / "missing.yaml"))
