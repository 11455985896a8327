"""Programs that a model writes: prompts of the harness, greedy answers, and a sandbox that holds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.base import Stops
from quantgate.backends.runtime.greedy import continue_greedily
from quantgate.errors import InputError, MeasurementError
from quantgate.items import Program, Programs
from quantgate.measure import sandbox
from quantgate.measure.metrics import code
from quantgate.measure.sandbox import run_program
from quantgate.measure.session import Session
from quantgate.supply.encoder import Encoder
from quantgate.supply.programs import make_programs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from selftest.tiny import TinyModel

HUMANEVAL = {
    "prompt": 'def add(a, b):\n    """Sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    "canonical_solution": "    return a + b\n",
}
MBPP: dict[str, Any] = {
    "text": "Write a function to add.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(5, 1) == 6"],
}


def spec(folder: Path, document: dict[str, Any], items: int = 1) -> dict[str, Any]:
    path = folder / "requests.jsonl"
    path.write_text(json.dumps({"doc": document}) + "\n")
    return {"jsonl": str(path), "documents": "requests", "items": items}


# --- prompts --------------------------------------------------------------------------------------


def test_a_solution_that_is_right_passes_as_the_harness_puts_it_together(
    tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = Encoder(tiny.safetensors, None)
    made = make_programs("humaneval", spec(tmp_path, HUMANEVAL), encoder)
    (item,) = made.items
    assert encoder.tokenizer.decode(item.prompt) == HUMANEVAL["prompt"] == item.begin
    assert code.assembled(item, HUMANEVAL["canonical_solution"]) == (
        f"{HUMANEVAL['prompt']}    return a + b\n\n{HUMANEVAL['test']}\ncheck(add)"
    )
    assert "\ndef" in made.stops
    assert made.ends == encoder.ends
    other = make_programs("mbpp", spec(tmp_path, MBPP), encoder).items[0]
    assert encoder.tokenizer.decode(other.prompt).startswith("You are an expert Python programmer")
    assert code.assembled(other, MBPP["code"]).endswith("\n" + "\n".join(MBPP["test_list"]))
    assert other.begin == ""


def test_tasks_without_programs_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    encoder = Encoder(tiny.safetensors, None)
    with pytest.raises(InputError, match=r"task .gsm8k. does not ask for programs"):
        make_programs("gsm8k", spec(tmp_path, HUMANEVAL), encoder)
    with pytest.raises(InputError, match=r"humaneval. has 1 items, the tier needs 2"):
        make_programs("humaneval", spec(tmp_path, HUMANEVAL, 2), encoder)


# --- answers --------------------------------------------------------------------------------------


class Scripted:
    """A backend that writes given tokens, whatever the prompt."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.decoded: list[int] = []
        self.room = 0

    def reserve(self, tokens: int, sequences: int) -> None:
        self.room = tokens

    def prefill(self, ids: Sequence[int]) -> None:
        self.decoded = []

    def decode(self, ids: Sequence[int]) -> None:
        self.decoded += ids

    def next_logits(self) -> Any:
        logits = np.zeros(1000, np.float32)
        logits[self.tokens[len(self.decoded)]] = 1
        return logits

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        return continue_greedily(self, ids, limit, stops)


class Fixed(Session):
    """A session of that backend."""

    source_hash = "w"

    def __init__(self, backend: Any, programs: Programs, tokenizer: Any, **options: Any) -> None:
        self.backend, self._programs, self.detokenizer, self._options = backend, programs, tokenizer, options

    def programs(self, name: str) -> Programs:
        return self._programs

    def options(self, group: str, model: Any) -> Any:
        return model(tasks=["humaneval"], **self._options)

    def progress(self, done: float, total: float) -> None: ...


def scripted(tiny: TinyModel, text: str, **options: Any) -> Fixed:
    encoder = Encoder(tiny.safetensors, None)
    prompt = str(HUMANEVAL["prompt"])
    item = Program(prompt=encoder.encode(prompt), begin=prompt, test=f"{HUMANEVAL['test']}\ncheck(add)")
    programs = Programs(
        name="humaneval", version="1", stops=["\ndef", "\n#"], ends=[998, 999], items=[item, item],
        data_hash="d", token_hash="t",
    )  # fmt: skip
    written = [*encoder.encode(text), 999]
    return Fixed(Scripted(written), programs, encoder.tokenizer.backend_tokenizer, **options)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("    return a + b\n", "    return a + b\n"),
        ("    return a + b\n\ndef other():\n    pass", "    return a + b\n"),
        ("    return a\n#\ndef", "    return a"),
    ],
)
def test_an_answer_ends_where_it_ends_or_before_the_first_stop(
    written: str, kept: str, tiny: TinyModel
) -> None:
    session: Any = scripted(tiny, written)
    programs = session.programs("humaneval")
    assert code.answer(session, programs, programs.items[0], 128) == kept


def test_an_answer_has_at_most_so_many_tokens(tiny: TinyModel) -> None:
    session: Any = scripted(tiny, "    return a + b\n")
    programs = session.programs("humaneval")
    code.answer(session, programs, programs.items[0], 3)
    assert len(session.backend.decoded) == 2  # nothing follows the third
    assert session.backend.room == len(programs.items[0].prompt) + 3


def test_nothing_is_run_that_the_user_has_not_allowed(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(code.ALLOW, raising=False)
    monkeypatch.setattr(code, "run_program", lambda *_: pytest.fail("a program was run"))
    session: Any = scripted(tiny, "    return a + b\n")
    with pytest.raises(MeasurementError, match="set QUANTGATE_EXECUTE_CODE=1 to allow it"):
        code.measure(session, [])


def test_without_python_in_the_sandbox_there_is_no_score(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(code.ALLOW, "1")
    monkeypatch.setattr(code, "run_program", lambda *_: "failed")
    session: Any = scripted(tiny, "    return a + b\n")
    with pytest.raises(MeasurementError, match="Python does not start in the sandbox: no program was run"):
        code.measure(session, [])


# --- the sandbox ----------------------------------------------------------------------------------


def isolated() -> bool:
    try:
        return run_program("pass") == "passed"
    except MeasurementError:
        return False


needs_sandbox = pytest.mark.skipif(not isolated(), reason="no user namespaces here")


@needs_sandbox
def test_the_share_of_programs_that_pass(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.ALLOW, "1")
    right: Any = scripted(tiny, "    return a + b\n")
    metric = code.measure(right, [])["code/humaneval/pass_at_1"]
    assert (metric.value, metric.samples, metric.raw["outcomes"]) == (1.0, [1.0, 1.0], ["passed", "passed"])
    wrong: Any = scripted(tiny, "    return a - b\n")
    assert code.measure(wrong, [])["code/humaneval/pass_at_1"].samples == [0.0, 0.0]


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "raise ValueError",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "bytearray(2 * 10**9)",
        "open('/tmp/x', 'w')",
        "open('/program.py', 'a')",
        "import os; os.remove('/usr/bin/env')",
        "import os; os.fork()",
        "import os; assert os.path.exists('/etc/passwd')",
        "import os; assert 'HOME' in os.environ",
    ],
)
def test_what_a_program_may_not_do_fails(program: str) -> None:
    assert run_program(program) == "failed"


@needs_sandbox
def test_a_program_reaches_nobody_who_listens_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        socket.create_connection(address, 1).close()
        assert run_program(f"import socket; socket.create_connection({address}, 1)") == "failed"


@needs_sandbox
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_program_that_prints_without_end_fails_and_fills_no_memory(stream: str) -> None:
    tracemalloc.start()
    try:
        program = f"import sys\nwhile True: print('a' * 10**6, file=sys.{stream})"
        assert run_program(program, seconds=2) == "failed"
        assert tracemalloc.get_traced_memory()[1] < 2**22, "the most that was held at once"
    finally:
        tracemalloc.stop()


@needs_sandbox
def test_a_callers_umask_fails_no_program() -> None:
    before = os.umask(0o077)
    try:
        assert run_program("import json") == "passed"
    finally:
        os.umask(before)


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "wall"),
    [("while True: pass", sandbox.WALL), ("import os, time; os.setsid(); time.sleep(600)", 1)],
)
def test_a_program_that_does_not_end_is_ended(
    program: str, wall: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "WALL", wall)
    assert run_program(program, seconds=1) == "timeout"


@needs_sandbox
def test_what_programs_of_the_tasks_import_is_there() -> None:
    assert run_program("import collections, hashlib, heapq, itertools, math, re, typing") == "passed"


def test_without_the_tools_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "unshare" else tool)
    with pytest.raises(MeasurementError, match="no sandbox without unshare"):
        run_program("pass")


def test_a_sandbox_that_cannot_be_set_up_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for the tools here succeeds at everything, and says nothing of a sandbox."""
    monkeypatch.setattr(sandbox, "_command", lambda *_: ["true"])
    with pytest.raises(MeasurementError, match="cannot be set up here, so no program was run"):
        run_program("pass")
