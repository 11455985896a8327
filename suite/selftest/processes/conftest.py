"""Servers for the tests of processes, and modules that they can import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quantgate.machine.environment import WORKER
from quantgate.processes.server import Server


@pytest.fixture(scope="session")
def shared() -> Iterator[Server]:
    """A server for tests that ask nothing of it but processes; it starts again after one that ends it."""
    with Server(WORKER) as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    """A new server."""
    with Server(WORKER) as server:
        yield server


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Writes a module with the code given, which a new server can import; returns what to pass as `modules`."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> list[str]:
        (tmp_path / "imported_first.py").write_text(code)
        return ["imported_first"]

    return write
