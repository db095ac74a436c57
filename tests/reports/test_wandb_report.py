"""A comparison becomes a report on W&B; what stands in the way is one sentence."""

import json
from types import SimpleNamespace

import pytest
import wandb

from errors import UserError
from reports.wandb_report import make_report, publish

GROUPS = {"resnet20": ["abc1", "abc2"], "plain20": ["def1"]}
CONTENT = ("resnet20 against plain20", "resnet20 is better (p = 0.001).", "| model | error |\n|---|---|\n", GROUPS)


@pytest.fixture
def logged_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb, "api", SimpleNamespace(api_key="key"))
    monkeypatch.setattr("reports.wandb_report.login_problem", lambda: "")


@pytest.fixture
def server(logged_in, monkeypatch):
    """What was asked of a server that accepts every report."""
    reports = pytest.importorskip("wandb_workspaces.reports.v2.interface")
    asked = []

    def answer(api, query, variables):
        asked.append(variables)
        if "spec" not in variables:
            return {"project": {"internalId": "1"}}
        names = {"displayName": variables["displayName"], "description": "", "type": "runs", "name": "n", "id": "R1"}
        project = {"name": variables["projectName"], "entityName": variables["entityName"]}
        user = {"username": "me", "name": "me", "userInfo": {}}
        times = {"createdAt": "2025-01-01T00:00:00", "updatedAt": "2025-01-01T00:00:00"}
        return {"upsertView": {"view": names | {"project": project, "user": user, "spec": variables["spec"]} | times}}

    monkeypatch.setattr(reports, "execute_graphql", answer)
    client = SimpleNamespace(app_url="https://wandb.ai")
    api = SimpleNamespace(client=client, projects=lambda entity: [SimpleNamespace(name="lit-classics")])
    monkeypatch.setattr(reports, "_get_api", lambda: api)
    return asked


def test_a_report_holds_verdict_curves_and_tables(server):
    url = publish("me/lit-classics", *CONTENT)
    assert url.startswith("https://wandb.ai/me/lit-classics/reports/resnet20-against-plain20--")
    asked = server[-1]
    assert (asked["entityName"], asked["projectName"], asked["displayName"]) == ("me", "lit-classics", CONTENT[0])
    text = asked["spec"]
    assert CONTENT[1] in text and "| model | error |" in json.dumps(json.loads(text), ensure_ascii=False)
    (grid,) = [block for block in json.loads(text)["blocks"] if block["type"] == "panel-grid"]
    sets = grid["metadata"]["runSets"]
    (chosen,) = sets[0]["filters"]["filters"]
    assert (chosen["key"], chosen["value"]) == ({"section": "run", "name": "name"}, GROUPS["resnet20"])
    assert [each["name"] for each in sets] == ["resnet20", "plain20"]
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert [(curve["metrics"], curve["xAxis"]) for curve in curves] == [
        (["val/top1_error"], "epoch"),
        (["train/loss"], "epoch"),
    ]
    assert any(panel["viewType"] == "Run Comparer" for panel in panels)


def test_runs_are_found_by_their_id():
    pytest.importorskip("wandb_workspaces")
    report = make_report("me", "p", *CONTENT)
    assert [runset.filters for runset in report.blocks[1].runsets] == [
        "Metric(\"ID\") in ['abc1', 'abc2']",
        "Metric(\"ID\") in ['def1']",
    ]


def test_what_stands_in_the_way_is_one_sentence(logged_in, monkeypatch):
    monkeypatch.setattr("reports.wandb_report.make_report", lambda *_: pytest.fail("a report is made"))
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match="needs the package wandb-workspaces"):
            publish("me/p", *CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "api", SimpleNamespace(api_key=None))
        with pytest.raises(UserError, match="not published on W&B: nobody is logged in"):
            publish("me/p", *CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr("reports.wandb_report.login_problem", lambda: "its server does not answer")
        with pytest.raises(UserError, match="not published on W&B: its server does not answer"):
            publish("me/p", *CONTENT)


@pytest.mark.parametrize("error", [wandb.errors.CommError("permission denied\nmore"), ConnectionError("reset")])
def test_a_refusal_of_the_server_is_one_sentence(logged_in, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr("reports.wandb_report.make_report", refuse)
    with pytest.raises(UserError, match="W&B does not take a report in me/p: (permission denied|reset)\\. Name"):
        publish("me/p", *CONTENT)
