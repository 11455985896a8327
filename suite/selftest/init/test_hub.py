"""`python -m quantgate.init HUB_ID`, against a server of this machine and without any."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftest.forked import start
from selftest.hub import COMMIT, Hub

FILES = {
    "config.json": json.dumps({"model_type": "llama", "max_position_embeddings": 4096}),
    "tokenizer.json": json.dumps({"model": {"vocab": {}}}),
    "tokenizer_config.json": json.dumps(
        {"bos_token": "<s>", "add_bos_token": True, "chat_template": "{{ x }}"}
    ),
    "README.md": "---\nlicense: apache-2.0\n---\n",
}


SIZE = {"parameters": {"BF16": 7 * 10**9}, "total": 7 * 10**9}


@pytest.fixture
def server() -> Iterator[str]:
    """A hub that has one model, `me/mine`, and one of GGUF files, `me/files`."""
    mine = {name: text.encode() for name, text in FILES.items()}
    repositories = {"me/mine": {**mine, "model.safetensors": b""}, "me/files": {"a-Q4_K_M.gguf": b""}}
    with Hub(repositories, {"me/mine": {"safetensors": SIZE}}).serving() as address:
        yield address


def init(folder: Path, model: str, endpoint: str) -> tuple[int, str]:
    """Its exit status and what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"}
    return start("quantgate.init", [model], folder, kept | hub).finish(120)


def test_a_model_of_the_hub(server: str, tmp_path: Path) -> None:
    status, output = init(tmp_path, "me/mine", server)
    assert status == 0, output
    text = (tmp_path / "quantgate.toml").read_text()
    assert tomllib.loads(text)["models"]["mine"] == {
        "license": "apache-2.0",
        "weights": {"hub": "me/mine", "revision": COMMIT},
        "add_bos": True,
    }
    assert "7,000.0 million parameters" in text
    assert "of the model's 4,096" in text


def test_a_repository_of_gguf_files(server: str, tmp_path: Path) -> None:
    status, output = init(tmp_path, "me/files", server)
    assert status == 4
    assert "me/files: holds GGUF files (a-Q4_K_M.gguf) and no safetensors" in output


@pytest.mark.parametrize("there", [True, False])
def test_no_such_model_and_no_network(there: bool, server: str, tmp_path: Path) -> None:
    status, output = init(tmp_path, "me/other", server if there else "http://127.0.0.1:9")
    assert status == 4
    assert output.startswith("me/other: no such file or folder here, and the hub did not give it (")
    assert output.endswith("check the name, the network and HF_TOKEN, or name a local path\n")
    assert output.count("\n") == 1, output
