"""What a scheme of a server may say, and what keeps a cell from being measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from quantgate.backends.served import BACKEND, Options

COMMAND = ["llama-server", "--port", "{port}", "-m", "{checkpoint}"]
GOOD = {"bits": 8, "dialect": "llama-server", "command": COMMAND, "ftype": "Q8_0"}
ELSEWHERE = {"bits": 8, "dialect": "llama-server", "url": "http://127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({**GOOD, "url": "http://127.0.0.1:80"}, "give command, which starts the server, or url"),
        ({"bits": 8, "dialect": "llama-server"}, "give command, which starts the server, or url"),
        ({**GOOD, "command": ["llama-server"]}, r"command has no \{port\}"),
        ({**GOOD, "command": ["llama-server", "{port}"]}, r"command has no \{checkpoint\}: .* another file"),
        ({**GOOD, "command": [*COMMAND, "{prot}"]}, r"command has \{prot\}, and \{checkpoint\}, \{port\}, "),
        (
            {**GOOD, "command": [*COMMAND, "--api-key", "x"]},
            "holds a key: .* name the variable in key_variable",
        ),
        ({**GOOD, "ftype": None}, "ftype is missing"),
        ({**ELSEWHERE, "url": "127.0.0.1:80"}, "is no address: http://127.0.0.1:8080"),
        ({**ELSEWHERE, "url": "http://user:secret@host"}, "url holds a key"),
        ({**ELSEWHERE, "key_variable": "sk-12345"}, "should match pattern"),
        (
            {**ELSEWHERE, "key_variable": "NVIDIA_LOGIN"},
            "NVIDIA_LOGIN is recorded, .* name that ends in _KEY",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Options.model_validate(options)


def test_what_fits_is_taken() -> None:
    assert Options.model_validate(GOOD).command == COMMAND
    assert Options.model_validate({**ELSEWHERE, "key_variable": "MY_KEY"}).key_variable == "MY_KEY"


def test_a_cell_is_skipped_where_its_program_or_its_key_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = {**GOOD, "command": [sys.executable, "{port}", "{checkpoint}"], "key_variable": "A_KEY_OF_MINE"}
    monkeypatch.delenv("A_KEY_OF_MINE", raising=False)
    assert BACKEND.missing(here) == "the environment variable A_KEY_OF_MINE is not set"
    monkeypatch.setenv("A_KEY_OF_MINE", "x")
    assert not BACKEND.missing(here)
    monkeypatch.setenv("PATH", str(tmp_path))
    elsewhere = ["no-server", "{port}", "{checkpoint}"]
    assert BACKEND.missing({**GOOD, "command": elsewhere}) == "no-server is not a program on PATH"


def test_another_build_of_the_program_is_another_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "llama-server"
    program.write_bytes(b"one")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    first = BACKEND.parsed(GOOD).further_libraries()
    assert list(first) == ["server llama-server"]
    program.write_bytes(b"two")
    assert BACKEND.parsed(GOOD).further_libraries() != first
    assert not BACKEND.parsed(ELSEWHERE).further_libraries()
