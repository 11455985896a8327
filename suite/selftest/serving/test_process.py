"""A server that is started: on a free port, waited for, its last words in the error, nothing of it left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from quantgate.backends.runtime.served import Served
from quantgate.errors import MeasurementError
from quantgate.paths import import_root
from quantgate.serving.process import ModelServer, filled

from selftest.tiny import TinyModel

FAKE = [sys.executable, "-m", "selftest.serving.fake"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fake server is a module of these tests; and whatever a test starts has to end with it."""
    monkeypatch.setenv("PYTHONPATH", str(import_root()))
    begin = time.time()
    yield
    deadline = time.monotonic() + 5
    while (left := _started(begin)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def _started(begin: float) -> list[psutil.Process]:
    """Return the children that are younger than `begin`: orphans of earlier tests may arrive at any time."""
    left = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.create_time() > begin:
                left.append(child)
    return left


def options(defect: str = "", **further: Any) -> dict[str, Any]:
    words = [*FAKE, "bigrams", "{port}", *([defect] if defect else [])]
    return {"command": words, "dialect": "llama-server", "start_limit": 60.0, "answer_limit": 5.0, **further}


def test_placeholders_are_filled_in_and_other_braces_stay() -> None:
    words = filled(["a", "--port={port}", "{checkpoint}", '{"json": {}}'], {"port": 8, "checkpoint": "/x y"})
    assert words == ["a", "--port=8", "/x y", '{"json": {}}']


def test_a_server_is_started_asked_and_ended(tiny: TinyModel, capfd: pytest.CaptureFixture[str]) -> None:
    served = Served(tiny.gguf, options("slow start"), 1)
    try:
        assert served.facts() == {"server": "llama-server fake", "kernels": "AVX2"}
        assert served.sizes().positions == 510
        assert served.retries == 0, "waiting for a server that is starting is no new try"
        assert served.processor_seconds() > 0.05, "it has imported its libraries"
    finally:
        served.close()
    assert "system_info" in capfd.readouterr().out, "what it prints is in the log of the cell"


@pytest.mark.parametrize(
    ("defect", "further", "says"),
    [
        (
            "refuses to start",
            {},
            "not ready: the server .* has ended with exit status 1; .*cannot load the model$",
        ),
        (
            "never ready",
            {"start_limit": 0.5},
            r"is not ready after 0.5 s \(start_limit .*it printed last: ",
        ),
        ("other model", {}, "the server's model has 999 tokens, and the cell's 512: .* another model$"),
        ("open", {}, r"listens on 0.0.0.0, where others can reach it: .*--host 127.0.0.1"),
    ],
)
def test_a_server_that_cannot_be_asked_is_an_error(
    tiny: TinyModel, defect: str, further: dict[str, Any], says: str
) -> None:
    with pytest.raises(MeasurementError, match=says):
        Served(tiny.gguf, options(defect, **further), 1)


def test_a_program_that_is_not_there_is_an_error(tiny: TinyModel) -> None:
    with pytest.raises(MeasurementError, match="no-such-server is not a program on PATH"):
        Served(tiny.gguf, options() | {"command": ["no-such-server", "{port}"]}, 1)


def test_of_long_last_words_the_end_is_shown(tiny: TinyModel) -> None:
    command = ["bash", "-c", "echo {port} $(printf '%0300d' 0) no such device; exit 1"]
    with pytest.raises(MeasurementError, match=r"its last lines: \.\.\. 0{200,} no such device$") as caught:
        Served(tiny.gguf, options(command=command), 1)
    assert len(str(caught.value)) < 400, "what a report shows of a line"


def test_a_server_that_dies_says_its_last_words(tiny: TinyModel) -> None:
    served = Served(tiny.gguf, options("dies"), 1)
    try:
        with pytest.raises(
            MeasurementError, match=r"POST /tokenize: .*the server .* has ended with exit status 3"
        ):
            served.tokenize("a")
    finally:
        served.close()


def test_a_server_that_dies_under_traffic_says_its_last_words(tiny: TinyModel) -> None:
    served = Served(tiny.gguf, options("dies"), 1)
    try:
        with pytest.raises(
            MeasurementError, match=r"POST /completion: .*; the server .* has ended with exit status 3"
        ):
            served.traffic([(1, [[1, 2], [2, 1]])], 3, lambda _: None)
    finally:
        served.close()


def test_a_server_that_prints_its_key_does_not_reveal_it(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_KEY_OF_MINE", "a-secret")
    command = ["bash", "-c", "echo {port}: the key is $A_KEY_OF_MINE; exit 2"]
    with pytest.raises(MeasurementError, match=r"exit status 2; its last lines: \d+: the key is \*\*\*$"):
        Served(tiny.gguf, options(command=command, key_variable="A_KEY_OF_MINE"), 1)
    assert "a-secret" not in capfd.readouterr().out


def test_what_a_server_starts_ends_with_it(tmp_path: Path) -> None:
    """A launcher that leaves a daemon, as some start scripts do."""
    daemon = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
    start = f"subprocess.run([sys.executable, '-c', {daemon!r}])"
    code = f"import subprocess, sys, time; {start}; print('on', flush=True); time.sleep(600)"
    server = ModelServer([sys.executable, "-c", code, "{port}"], {})
    deadline = time.monotonic() + 20
    while not server.lines and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server.processes()) == 2
    server.close()
    assert not server.processes()
    assert "has ended" in server.why_ended()


def test_where_nobody_serves_a_url_says_so(tiny: TinyModel) -> None:
    with pytest.raises(
        MeasurementError, match=r"http://127.0.0.1:9: no server that is ready: nobody answers"
    ):
        Served(tiny.gguf, {"url": "http://127.0.0.1:9", "dialect": "llama-server"}, 1)
