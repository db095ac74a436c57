"""A run that was moved is uploaded whole: every file that its .wandb files name is found inside it."""

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from PIL import Image

from cli.loggers import stage_inside
from errors import UserError
from reports import wandb_sync
from tests.reports.wandb_server import WandbServer
from tests.wandb_files import local_paths, of_type, parts, read_part


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A run directory in which W&B has logged a table with an image, and a file from outside of it."""
    run_dir = tmp_path_factory.mktemp("runs") / "digits/resnet20/version_0"
    run_dir.mkdir(parents=True)
    secret = tmp_path_factory.mktemp("home") / "id_rsa"
    secret.write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("WANDB_DATA_DIR", raising=False)
        for number, project in enumerate(("lit-classics", "secret")):
            stage_inside(run_dir)
            with wandb.init(dir=str(run_dir), mode="offline", project=project, id=f"abc{number}") as run:
                if number:
                    artifact = wandb.Artifact("secret", "model")
                    artifact.add_file(str(secret), policy="immutable")
                    run.log_artifact(artifact)
                else:
                    image = wandb.Image(Image.new("RGB", (9, 9)))
                    run.log({"table": wandb.Table(["image", "class"], [[image, "a"]])})
    return run_dir


@pytest.fixture
def moved(offline, tmp_path, monkeypatch):
    """The run somewhere else, the old place being gone."""
    old = offline.with_name("gone")
    shutil.copytree(offline, tmp_path / "other/version_3", symlinks=True)
    offline.rename(old)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    yield tmp_path / "other/version_3"
    old.rename(offline)


@pytest.fixture
def synced(monkeypatch):
    """The folders that `wandb sync` was called with; somebody is logged in."""
    calls: list[list[Path]] = []
    monkeypatch.setattr(wandb, "api", SimpleNamespace(api_key="key"))
    monkeypatch.setattr(wandb_sync, "sync", lambda folders: calls.append(folders) or 0)
    return calls


def run_report(*words):
    with pytest.raises(SystemExit) as stop:
        wandb_sync.main([str(word) for word in words])
    return stop.value.code


def test_all_files_of_a_moved_run_are_found(moved, synced):
    part, secret = parts(moved)
    shutil.rmtree(secret)
    before = read_part(part)
    assert not any(os.path.exists(path) for path in local_paths(before).values())
    assert run_report(moved.parent) == 0
    assert synced == [[part]]
    after = read_part(part)
    staged = local_paths(after)
    assert len(staged) == 2 and all(Path(path).is_relative_to(moved) for path in staged.values())
    assert all(os.path.isfile(path) for path in staged.values())
    uploaded = [each["path"] for files in of_type(after, "files") for each in files["files"]]
    assert any(path.startswith("media/table") for path in uploaded)
    assert all((part / "files" / path).is_file() for path in uploaded if path != "requirements.txt")
    rest = [[record for record in records if record["type"] != "artifact"] for records in (before, after)]
    assert rest[0] == rest[1] and len(before) == len(after)
    content = next(part.glob("*.wandb")).read_bytes()
    assert run_report(moved) == 0  # and nothing is left to do
    assert next(part.glob("*.wandb")).read_bytes() == content


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that the user is logged in to."""
    with WandbServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        yield server
        server.shutdown()


@pytest.mark.slow
def test_wandb_sync_uploads_a_moved_run_whole(moved, server):
    part, secret = parts(moved)
    shutil.rmtree(secret)
    staged = local_paths(read_part(part))
    assert run_report(moved) == 0
    for name, path in staged.items():
        content = (moved / "wandb/artifacts/staging" / Path(path).name).read_bytes()
        assert server.uploads[f"artifact/{name}"] == content
    assert any(name.startswith("run/media/table/") for name in server.uploads)
    (row,) = server.rows["wandb-history.jsonl"]
    assert row["table"]["_type"] == "table-file"
    assert next(part.glob("*.wandb.synced")).is_file()


def test_a_missing_file_is_said(moved, synced, capsys):
    shutil.rmtree(parts(moved)[1])
    path = Path(next(iter(local_paths(read_part(parts(moved)[0])).values())))
    (moved / "wandb/artifacts/staging" / path.name).unlink()
    assert run_report(moved) == 0
    assert "1 file of its artifacts cannot be found" in capsys.readouterr().out


def test_a_run_uploads_no_file_of_the_users(moved, synced):
    assert "id_rsa, which lies outside of it" in run_report(moved)
    part, secret = parts(moved)
    shutil.rmtree(secret)
    table = next((part / "files/media/table").glob("*.json"))
    Path("shadow").write_text("secret")
    table.unlink()
    table.symlink_to(os.path.abspath("shadow"))
    assert "shadow, which lies outside of it" in run_report(moved)
    assert not synced


def test_a_run_does_not_decide_who_gets_it(moved):
    log = next(parts(moved)[0].glob("*.wandb"))
    record = wandb_sync.parse_record(next(wandb_sync.read_records(log)), log)
    record.run.entity = "stranger"
    wandb_sync.write_records(log, [record.SerializeToString()])
    with pytest.raises(UserError, match="belongs to stranger on W&B"):
        wandb_sync.prepare(log)


def test_mistakes_are_one_sentence(moved, synced, monkeypatch):
    shutil.rmtree(parts(moved)[1])
    Path("empty").mkdir()
    assert "holds no run that W&B has logged offline" in run_report("empty")
    assert "No runs are given" in run_report()
    monkeypatch.setattr(wandb, "api", SimpleNamespace(api_key=None))
    assert "Nobody is logged in" in run_report(moved)
    Path("wandb").mkdir()
    Path("wandb/settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    assert "wandb/settings, which may have come with a run" in run_report(moved)
    shutil.rmtree("wandb")
    next(parts(moved)[0].glob("*.wandb")).write_bytes(b"else")
    assert "is no .wandb file" in run_report(moved)
    assert not synced
