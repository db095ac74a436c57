"""What a page shows of a study at one of its sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studies.results import Row
from studies.study import Study
from studies.summary import is_list
from studies.verdict import Verdict, decide


@dataclass(frozen=True)
class Report:
    """What a page shows of a study at one of its sizes.

    Args:
        study: the study.
        budget: name of the size.
        rows: results of the study's arms.
        verdict: that they give.
        commands: of each arm for its first seed.
    """

    study: Study
    budget: str
    rows: list[Row]
    verdict: Verdict
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The claim."""
        return self.study.claim

    @property
    def lead(self) -> str:
        """The verdict."""
        return self.verdict.lead()

    @property
    def scalars(self) -> list[str]:
        """Measures that are no lists."""
        return [measure for measure in self.study.measures if not is_list(self.rows, measure)]


def make_report(
    study: Study,
    budget: str,
    rows: Sequence[Row],
    seeds: int | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """A study's results with their verdict; arguments as of `decide`.

    Args:
        commands: of each arm, for its first seed.
    """
    known = [row for row in rows if row.arm in study.arms]
    return Report(study, budget, known, decide(study, budget, known, seeds), commands or {})
