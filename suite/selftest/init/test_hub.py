"""`python -m quantgate.init HUB_ID`, against a server of this machine and without any."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": json.dumps({"model_type": "llama", "max_position_embeddings": 4096}),
    "tokenizer.json": json.dumps({"model": {"vocab": {}}}),
    "tokenizer_config.json": json.dumps(
        {"bos_token": "<s>", "add_bos_token": True, "chat_template": "{{ x }}"}
    ),
    "README.md": "---\nlicense: apache-2.0\n---\n",
}


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub that has one model, `me/mine`, and one of GGUF files, `me/files`."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/models/me/mine":
            size = {"parameters": {"BF16": 7 * 10**9}, "total": 7 * 10**9}
            self._send(self._info("me/mine", [*FILES, "model.safetensors"], safetensors=size))
        elif path == f"/api/models/me/mine/tree/{COMMIT}":
            self._send(json.dumps([_entry(name, text) for name, text in FILES.items()]))
        elif path == "/api/models/me/files":
            self._send(self._info("me/files", ["a-Q4_K_M.gguf"]))
        elif path.startswith(f"/me/mine/resolve/{COMMIT}/") and path.rpartition("/")[2] in FILES:
            self._send(FILES[path.rpartition("/")[2]])
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def _info(self, name: str, files: list[str], **further: object) -> str:
        siblings = [{"rfilename": file} for file in files]
        return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], **further})

    def _send(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _entry(name: str, text: str) -> dict[str, object]:
    return {
        "type": "file",
        "path": name,
        "size": len(text),
        "oid": hashlib.sha256(text.encode()).hexdigest()[:40],
    }


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_port}"
        hub.shutdown()


def init(folder: Path, model: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, "-m", "quantgate.init", model],
        cwd=folder,
        env=kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_model_of_the_hub(server: str, tmp_path: Path) -> None:
    done = init(tmp_path, "me/mine", server)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "quantgate.toml").read_text()
    assert tomllib.loads(text)["models"]["mine"] == {
        "license": "apache-2.0",
        "weights": {"hub": "me/mine", "revision": COMMIT},
        "add_bos": True,
    }
    assert "7,000.0 million parameters" in text
    assert "of the model's 4,096" in text


def test_a_repository_of_gguf_files(server: str, tmp_path: Path) -> None:
    done = init(tmp_path, "me/files", server)
    assert done.returncode == 4
    assert "me/files: holds GGUF files (a-Q4_K_M.gguf) and no safetensors" in done.stderr


@pytest.mark.parametrize("there", [True, False])
def test_no_such_model_and_no_network(there: bool, server: str, tmp_path: Path) -> None:
    done = init(tmp_path, "me/other", server if there else "http://127.0.0.1:9")
    assert done.returncode == 4
    assert done.stderr.startswith("me/other: no such file or folder here, and the hub cannot be asked")
    assert done.stderr.endswith("check the name, the network and HF_TOKEN, or name a local path\n")
    assert done.stderr.count("\n") == 1, done.stderr
