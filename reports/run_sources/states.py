"""How far a run came, in a word and in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checkpointing.run_facts import RunFacts
from errors import printable
from reports.run import State
from reports.run_sources.curves import Measured, find_divergence

ADVICE = ": this training has diverged. "  # begins what `callbacks.finite_loss` advises
LONGEST_REASON = 300  # characters
STOPPED_BY_SIGNAL = (130, 143, 255)  # exit codes: Ctrl-C and SIGTERM, and W&B's for either


@dataclass(frozen=True)
class Limits:
    """Where a training was to end; None without a limit."""

    epochs: int | None
    steps: int | None

    def are_reached(self, epochs: int, steps: int) -> bool:
        """Whether a training of so many whole epochs and optimizer steps has nothing left to do."""
        return any(limit is not None and done >= limit for limit, done in ((self.epochs, epochs), (self.steps, steps)))

    def locate(self, epochs: float, steps: int) -> str:
        """The position in the training after so many epochs, such as "in epoch 7 of 20"; empty if nothing is known."""
        if self.epochs is not None and epochs >= self.epochs:
            return f"after epoch {self.epochs:,}"
        if self.epochs is not None:
            return f"in epoch {int(epochs + 1e-6) + 1:,} of {self.epochs:,}"
        if self.steps is not None:
            return f"after step {steps:,} of {self.steps:,}"
        return f"in epoch {int(epochs + 1e-6) + 1:,}" if steps else ""


def find_limits(config: Mapping[str, Any]) -> Limits:
    """The limits that a run's config sets, by Lightning's rule for those that are left out."""
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping):
        return Limits(None, None)
    epochs, steps = (read_limit(trainer.get(name)) for name in ("max_epochs", "max_steps"))
    if trainer.get("max_epochs") is None and steps is None and trainer.get("max_time") is None:
        epochs = 1000
    return Limits(epochs, steps)


def read_limit(value: object) -> int | None:
    """A limit in numbers; None for none, which -1 stands for too."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@dataclass(frozen=True)
class Traces:
    """What a run has left, as far as it tells how the run went.

    Args:
        config: of the run; empty if unknown.
        facts: from run.json; None if unknown.
        measured: its curves.
        saved: whole epochs and optimizer steps of its last checkpoint; None without any that can be read.
        is_locked: whether another process trains it now.
        problems: what is missing or damaged, each in a few words.
    """

    config: Mapping[str, Any]
    facts: RunFacts | None
    measured: Measured
    saved: tuple[int, int] | None
    is_locked: bool
    problems: Sequence[str]
    exit_code: int | None = None  # of the process that logged to W&B last


def find_state(traces: Traces) -> tuple[State, str]:
    """The state of a run, and the reason in one sentence, which is empty where the state says it all."""
    state, words = choose_state(traces)
    reason = "; ".join(filter(None, [words, *traces.problems]))
    reason = printable(reason[:LONGEST_REASON] + " ..." * (len(reason) > LONGEST_REASON))
    return state, reason[:1].upper() + reason[1:] if words else reason


def choose_state(traces: Traces) -> tuple[State, str]:
    """The state of a run, and why it is in that state."""
    position = locate_end(traces)
    session = traces.facts.sessions[-1] if traces.facts and traces.facts.sessions else None
    outcome = session.outcome if session and session.outcome != "running" else None
    said = session.reason.strip().removesuffix(".").partition(ADVICE)[0] if session else ""
    divergence = find_divergence(traces.measured.curves)
    if divergence:
        also = ", and training goes on" if traces.is_locked else ""
        return "diverged", (said if outcome == "diverged" and said else divergence) + also
    if traces.is_locked:
        return "running", f"training now, {position}" if position else "training now"
    if outcome == "diverged":
        return "diverged", said or f"diverged {position}".strip()
    if outcome == "finished":
        return "finished", ""
    if outcome == "stopped" or outcome == "failed":
        return outcome, f"{outcome} {position}".strip() + (f": {said}" if said else "")
    if not traces.config and not traces.measured.curves and traces.saved is None and traces.facts is None:
        return "unreadable", ""
    epochs, steps = count_done(traces)
    if find_limits(traces.config).are_reached(epochs, steps):
        return "finished", ""
    if traces.exit_code is not None:
        state: State = "stopped" if traces.exit_code in (0, *STOPPED_BY_SIGNAL) else "failed"
        return state, f"{state} {position}".strip()
    if not epochs and session is None:
        has_begun = traces.measured.epochs is not None or steps
        return "empty", f"no epoch has ended{f': killed {position}' if has_begun else ''}"
    return "killed", f"killed {position or 'before an epoch had ended'}"


def count_done(traces: Traces) -> tuple[int, int]:
    """Whole epochs and optimizer steps of a run, by its last checkpoint and its curves."""
    saved_epochs, saved_steps = traces.saved or (0, 0)
    return max(saved_epochs, traces.measured.ended_epochs), max(saved_steps, traces.measured.steps)


def locate_end(traces: Traces) -> str:
    """Where in its training a run ended, or is now."""
    epochs, steps = count_done(traces)
    return find_limits(traces.config).locate(max(epochs, traces.measured.epochs or 0), steps)
