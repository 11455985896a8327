"""A hub of models on this machine: what huggingface_hub asks of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Hub:
    """repositories: files by name, by repository, all at `COMMIT`. facts: further ones that the hub tells of a
    repository. requests: paths of files that were asked for, in order."""

    repositories: Mapping[str, Mapping[str, bytes]]
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve while the block runs; yields the address."""
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder as a repository."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for name, files in self.hub.repositories.items():
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/{COMMIT}"):
                siblings = [{"rfilename": file} for file in files]
                facts = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": []}
                return self._send(json.dumps({**facts, **self.hub.facts.get(name, {})}).encode())
            if path == f"/api/models/{name}/tree/{COMMIT}":
                return self._send(json.dumps([_entry(*file) for file in files.items()]).encode())
            file = path.removeprefix(f"/{name}/resolve/{COMMIT}/")
            if file != path and file in files:
                if self.command == "GET":
                    self.hub.requests.append(f"{name}/{file}")
                return self._send(files[file])
        return self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _entry(name: str, content: bytes) -> dict[str, object]:
    oid = hashlib.sha256(content).hexdigest()[:40]
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
