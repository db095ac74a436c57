"""As much of W&B's server as `wandb sync` needs to upload a run, on the loopback."""

import gzip
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(ThreadingHTTPServer):
    """A server that accepts everything.

    Attributes:
        uploads: content of the files that were uploaded, by their path in the URL: run/<path> or artifact/<path>.
        rows: lines of the history and of the summary that were streamed, by the file's name.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.uploads: dict[str, bytes] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: WandbServer

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_PUT(self) -> None:
        self.server.uploads[self.path.removeprefix("/upload/")] = self.body()
        self.reply({})

    def do_POST(self) -> None:
        content = json.loads(self.body())
        if not self.path.endswith("/graphql"):
            for name, part in content.get("files", {}).items():
                lines = [json.loads(line) for line in part["content"] if line.startswith("{")]
                self.server.rows.setdefault(name, []).extend(lines)
            self.reply({"exitcode": None, "limits": {}})
            return
        operation = re.search(r"(query|mutation)\s+(\w+)", content["query"])
        self.reply({"data": self.answer(operation[2] if operation else "", content.get("variables", {}))})

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the public server answers, as far as `wandb sync` reads it."""
        project = {"id": "p", "name": "lit-classics", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": given.get("name"), "displayName": "n", "config": "{}", "project": project}
        lines = {"historyLineCount": 4, "logLineCount": 0, "eventsLineCount": 0, "historyTail": '["{\\"_step\\": 3}"]'}
        lines |= {"eventsTail": "[]", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}', "tags": []}
        upload = {"id": "f", "uploadUrl": f"{self.server.url}/upload/manifest", "uploadHeaders": []}
        files = given.get("artifactFiles") or given.get("input", {}).get("artifactFiles", [])
        node = {"id": "f", "uploadHeaders": [], "artifact": {"id": "a"}, "storagePath": None}
        url = f"{self.server.url}/upload/artifact/"
        edges = [
            {"node": node | {"name": f["name"], "displayName": f["name"], "uploadUrl": url + f["name"]}} for f in files
        ]
        run_files = [{"name": n, "uploadUrl": f"{self.server.url}/upload/run/{n}"} for n in given.get("files", [])]
        return {
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "RunResumeStatus": {"model": project | {"bucket": bucket | lines}},
            "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": run_files}},
            "CreateArtifact": {"createArtifact": {"artifact": {"id": "a", "state": "PENDING"}}},
            "CreateArtifactManifest": {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": upload}}},
            "CreateArtifactFiles": {"createArtifactFiles": {"files": {"edges": edges}}},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
        }.get(operation, {})

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(content) if self.headers.get("content-encoding") == "gzip" else content

    def reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
