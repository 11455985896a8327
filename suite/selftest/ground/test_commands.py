"""What all commands share: they end quietly where nobody reads their output any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import quantgate
from quantgate.commands import CUT_SHORT, run_command
from quantgate.proofs.command import new_console

from selftest.forked import start

PACKAGE = Path(quantgate.__file__).parent
COMMANDS = sorted(
    ".".join(file.parent.relative_to(PACKAGE.parent).parts) for file in PACKAGE.rglob("__main__.py")
)


UNREAD = """\
import os, runpy, sys
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.stdout = open(1, "w")  # with a buffer, whatever PYTHONUNBUFFERED says
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_quietly(command: str, tmp_path: Path) -> None:
    (tmp_path / "unread.py").write_text(UNREAD)
    status, errors = start("unread", [command, "--help"], tmp_path, os.environ).finish(600)
    assert (status, errors) == (CUT_SHORT, "")


def test_all_commands_are_looked_at() -> None:
    assert {"quantgate.history", "quantgate.bisect", "quantgate.proofs.power"} <= set(COMMANDS)


def test_in_a_shell() -> None:
    code = (
        "from quantgate.commands import run_command; run_command(lambda: print('a line\\n' * 100_000) or 1)"
    )
    command = '"$0" -W error -c "$1" | head -1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"a line\n{CUT_SHORT}\n", "")


def test_tables_end_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def table() -> int:
        new_console().print("table")
        return 0

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as end:
            run_command(table)
    assert end.value.code == CUT_SHORT


def test_another_broken_pipe_is_an_error() -> None:
    def main() -> int:
        raise BrokenPipeError("of a measuring process")

    with pytest.raises(BrokenPipeError, match="of a measuring process"):
        run_command(main)


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_that_of_the_command(status: int) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(lambda: status)
    assert end.value.code == status
