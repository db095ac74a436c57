"""The part of W&B's server that its public API asks for runs and their histories, on the loopback."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY, PROJECT, KEY = "somebody", "lit-classics", "0123456789" * 4


@dataclass
class StubRun:
    """A run as the server has it: config and summary as they were logged, rows of its history."""

    id: str
    config: Mapping[str, Any]
    rows: list[Mapping[str, Any]]
    summary: Mapping[str, Any] = field(default_factory=dict)
    state: str = "finished"
    name: str = "digits/resnet20/version_0"
    tags: tuple[str, ...] = ()
    group: str | None = "digits/resnet20"
    job_type: str | None = "fit"

    def node(self) -> dict[str, Any]:
        """The fields that the API asks for."""
        keys = {name: {"typeCounts": [{"type": "number"}]} for row in self.rows for name in row}
        return {
            "projectId": "1",
            "id": f"node-{self.id}",
            "tags": list(self.tags),
            "name": self.id,
            "displayName": self.name,
            "sweepName": None,
            "state": self.state,
            "config": json.dumps({name: {"value": value} for name, value in self.config.items()}),
            "group": self.group,
            "jobType": self.job_type,
            "commit": "0" * 40,
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:01:00",
            "description": None,
            "notes": None,
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(self.summary),
            "historyLineCount": len(self.rows),
            "user": {"name": ENTITY, "username": ENTITY},
            "historyKeys": {"keys": keys, "lastStep": len(self.rows) - 1, "sets": []} if self.rows else None,
        }


class StubServer:
    """Answers the API's queries from `runs`.

    Attributes:
        runs: in the project `PROJECT` of `ENTITY`.
        most_rows: of a history in one answer; of longer ones it is a sample.
        filters: of the last query for runs.
        address: of the server.
    """

    def __init__(self, address: str) -> None:
        self.runs: list[StubRun] = []
        self.most_rows = 10_000
        self.filters: Any = None
        self.address = address

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The `data` of an answer."""
        if "viewer" in query:
            teams: dict[str, Any] = {"edges": []}
            person = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
            return {"viewer": person}
        if (variables.get("entity"), variables.get("project")) != (ENTITY, PROJECT):
            return {"project": None}
        if "query Runs" in query:
            self.filters = json.loads(variables["filters"])
            start = int(variables.get("cursor") or 0)
            shown = self.runs[start : start + variables["perPage"]]
            edges = [{"node": run.node(), "cursor": str(start + number + 1)} for number, run in enumerate(shown)]
            more = start + len(shown) < len(self.runs)
            runs = {"edges": edges, "pageInfo": {"endCursor": str(start + len(shown)), "hasNextPage": more}}
            return {"project": {"internalId": "1", "runCount": len(self.runs), "readOnly": False, "runs": runs}}
        name = variables.get("name") or variables.get("runName")
        (run,) = (each for each in self.runs if each.id == name)
        rows = [{"_step": number, **row} for number, row in enumerate(run.rows)]
        if "historyKeys" in query:
            return {"project": {"run": {"historyKeys": run.node()["historyKeys"]}}}
        if "sampledHistory" in query:
            spec = json.loads(variables["specs"][0])
            chosen = [{key: row[key] for key in spec["keys"]} for row in rows if set(spec["keys"]) <= row.keys()]
            return {"project": {"run": {"sampledHistory": [chosen[: self.most_rows]]}}}
        every = 1 if len(rows) <= self.most_rows else -(-len(rows) // self.most_rows)
        return {"project": {"run": {"history": [json.dumps(row) for row in rows[::every]]}}}


@contextmanager
def serve() -> Iterator[StubServer]:
    """A server that ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != "/graphql":
                self.send_error(404)
                return
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                answer = {"data": stub.answer(asked["query"], asked.get("variables") or {})}
            except Exception as error:  # without an answer the client would ask again for a minute
                answer = {"errors": [{"message": f"{type(error).__name__}: {error}"}]}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = StubServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
