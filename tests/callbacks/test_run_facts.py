"""run.json says what a run trained, and how each command on it ended."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Timer

from checkpointing.record import code_version, read_checkpoint
from checkpointing.run_facts import Session, read_run_facts
from tests.callbacks.test_finite_loss import spoil
from tests.callbacks.test_stop_signals import sending, stopped
from tests.conftest import DIGITS, TINY


class EndTime(pl.Callback):
    """Lets the time be up in the second epoch, and reads run.json as a kill at this moment would leave it."""

    session: Session | None = None

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            EndTime.session = last_session()
            next(each for each in trainer.callbacks if isinstance(each, Timer))._duration = 0.0


FIT = ["fit", "--config", DIGITS, *TINY]
RUN = Path("runs/digits/resnet20/version_0")


def last_session() -> Session:
    return read_run_facts(RUN).sessions[-1]


def test_a_finished_run_has_its_numbers(logged_run):
    facts = read_run_facts(logged_run)
    record = read_checkpoint(logged_run / "checkpoints/last.ckpt").record
    assert (facts.seed, facts.model.name, facts.model.input_size) == (0, "LitResNet", 16)
    assert facts.model.parameters == 269_722 - 4 * 65  # six classes instead of ten
    assert facts.model.multiply_adds == 40_551_040 // 4 - 4 * 64 + (640 - 640 // 4)  # 16 px: a quarter of 32 px
    assert (facts.data.name, facts.data.num_classes) == ("Synthetic", 6)
    assert (facts.data.train_images, facts.data.val_images) == (32, 8)
    assert (facts.data.data_hash, facts.data.val_hash) == (record.data_hash, record.val_hash)
    (session,) = facts.sessions
    assert (session.outcome, session.reason, session.code_version) == ("finished", "", code_version())
    assert session.started <= session.ended and session.environment["precision"] == "32-true"


def test_a_stopped_run_that_is_resumed_has_two_sessions(run, here):
    assert stopped(run, *FIT, *sending(5)) == 143
    assert last_session().outcome == "stopped"
    run("fit", "--ckpt_path", RUN, "--allow", "tests.callbacks.test_stop_signals")
    assert [session.outcome for session in read_run_facts(RUN).sessions] == ["stopped", "finished"]


def test_a_run_whose_time_is_up_is_stopped_not_finished(run, here):
    run(*FIT, "--trainer.max_time", "00:01:00:00", "--trainer.callbacks+=tests.callbacks.test_run_facts.EndTime")
    assert (EndTime.session.outcome, EndTime.session.ended) == ("running", "")
    assert last_session().outcome == "stopped"
    assert read_checkpoint(RUN / "checkpoints/last.ckpt").step < 12


def test_a_diverged_run_has_the_sentence(fails, here):
    sentence = fails(*FIT, *spoil(5))
    assert last_session().outcome == "diverged"
    assert sentence == f"error: {last_session().reason}"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"seed": "0"}', '{"seed": 0, "model": {}}', "[" * 10**5])
def test_a_malformed_file_says_nothing(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert read_run_facts(tmp_path) is None
