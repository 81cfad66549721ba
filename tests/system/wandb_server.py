"""A server that Weights & Biases' client takes for its own: it answers what the client asks and keeps what it sends."""

from __future__ import annotations

import gzip
import json
import re
import threading
from base64 import b64encode
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "c0ffee" * 6 + "abcd"


class WandbServer(ThreadingHTTPServer):
    """On loopback, within a ``with`` block. Every other key than ``KEY`` is refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.sent: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """The variables of each mutation, by the name of the operation."""
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """What was streamed, such as the history, by the file it is of."""
        self.files: dict[str, bytes] = {}
        """What was uploaded."""

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        super().__exit__(*error)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What the client reads of the answer to a query."""
        if found := re.search(r"mutation (\w+)", query):
            self.sent[found[1]].append(variables)
        run = {"id": "1", "name": variables.get("name"), "displayName": "", "config": "{}", "sweepName": None}
        project = {"id": "1", "name": variables.get("project"), "entity": {"id": "1", "name": "me"}}
        names = variables.get("files") or []
        artifact = {"id": "1", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
        answers = {
            "viewer": {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}},
            "upsertView": {"view": {"id": "1", "name": variables.get("name")}, "inserted": True},
            "upsertBucket": {"bucket": run | {"project": project, "historyLineCount": 0}, "inserted": True},
            "createRunFiles": {
                "runID": "1",
                "uploadHeaders": [],
                "files": [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in names],
            },
            "project": {"artifact": None},
            "createArtifact": {"artifact": artifact},  # committed: its files are not asked for
            "serverInfo": {"features": []},
            "notifyScriptableRunAlert": {"success": True},
        }
        return {"data": {name: value for name, value in answers.items() if re.search(rf"\b{name}\b", query)}}


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        code = 200
        if self.path.startswith("/upload/"):
            self.server.files[self.path.removeprefix("/upload/")] = body
        elif self.path.startswith("/sdk/"):
            pass  # of the client's own performance
        elif self.headers.get("Authorization") != f"Basic {b64encode(f'api:{KEY}'.encode()).decode()}":
            code, answer = 401, {"errors": [{"message": "invalid api key"}]}
        elif self.path == "/graphql":
            asked = json.loads(body)
            answer = self.server.answer(asked["query"], asked.get("variables") or {})
        elif self.path.endswith("/file_stream"):
            for file, part in (json.loads(body).get("files") or {}).items():
                if file.endswith((".json", ".jsonl")):  # and not the output, which is text
                    self.server.rows[file] += map(json.loads, part["content"])
        self.send_response(code)
        content = json.dumps(answer).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST  # noqa: N815

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client is gone
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass
