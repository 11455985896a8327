"""Where the program of a server is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from quantgate.machine.environment import llama_library_hash
from quantgate.serving.process import ModelServer
from quantgate.serving.programs import program, why_missing


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing on PATH."""
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "cache" / "tools"


def put(folder: Path, age: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    file = folder / "llama-server"
    file.write_text("#!/bin/sh\necho started\n")
    file.chmod(0o755)
    os.utime(file, (1e9 - age, 1e9 - age))
    return file


def test_what_was_built_against_these_libraries_is_taken(cache: Path, tmp_path: Path) -> None:
    put(cache / "llama-server-0123456789ab-x")  # other libraries
    assert program("llama-server") is None
    put(cache / f"llama-server-{llama_library_hash()}-x", age=60)
    newest = put(cache / f"llama-server-{llama_library_hash()}-y")
    assert program("llama-server") == newest
    assert why_missing("llama-server") == ""
    assert program("vllm") is None
    server = ModelServer(["llama-server", "{port}"], {})
    while not server.why_ended():
        pass
    assert list(server.lines) == ["started"]
    server.close()
    mine = put(tmp_path / "bin")
    assert program("llama-server") == mine, "PATH goes first"


def test_what_is_missing_is_named_with_what_to_do(cache: Path) -> None:
    assert "python -m quantgate.supply.llama_server builds it" in why_missing("llama-server")
    assert why_missing("vllm") == "vllm is not a program on PATH"
