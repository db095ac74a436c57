"""Made-up studies and results."""

from pathlib import Path

from studies.results import Row
from studies.study import Arm, Budget, Expectation, Study

ERROR, IMAGES, CLASSES = "test/top1_error", 360, 10


def a_study(*expectations, arms=("plain", "residual"), seeds=5, measures=None, sweep=""):
    """A study of arms, or of their names, with one budget of so many seeds and a larger one."""
    arms = [arm if isinstance(arm, Arm) else Arm(arm, (), {"model.arm": arm}, series=arm) for arm in arms]
    budgets = {name: Budget(name, seeds, ("configs/digits/resnet20.yaml",), {}) for name in ("5min", "30min")}
    measures = measures or list(dict.fromkeys(each.measure for each in expectations)) or [ERROR]
    return Study(
        "made_up",
        "Shortcuts help.",
        "4 Resnets",
        "He et al., arXiv 1512.03385, figure 6",
        {arm.name: arm for arm in arms},
        sweep,
        measures,
        list(expectations),
        budgets,
        Path("configs/studies/made_up.yaml"),
    )


def lower(arm="residual", other="plain", measure=ERROR, **limits):
    """That an arm has less of a measure than another one."""
    return Expectation(measure, "lower", arm, other, **limits)


def rows_of(arm, values, measure=ERROR, **facts):
    """A result for each value, with seeds from 0; None is one that diverged."""
    environment = {"device": "Xeon", "threads": "2"}
    facts = {
        "environment": environment,
        "code_version": "0123456789abcdef",
        "test_images": IMAGES,
        "num_classes": CLASSES,
        "recipe": "0",
    } | facts
    return [
        Row(arm, seed, "diverged" if value is None else "finished", {measure: value}, **facts)
        for seed, value in enumerate(values)
    ]


def errors(*counts):
    """Error rates of so many wrong images."""
    return [count / IMAGES for count in counts]
