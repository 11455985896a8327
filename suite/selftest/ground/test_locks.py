"""Locks between processes: who waits learns for whom, and nobody waits for ever in silence."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quantgate import locks
from quantgate.locks import BusyError, holder, locked
from quantgate.paths import IMPORT_ROOT

HOLD = """
import sys, time
from pathlib import Path
from quantgate.locks import locked
with locked(Path(sys.argv[1]), "hold it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_waits_is_told_for_whom_and_gets_the_lock_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT", 0.2)
    path = tmp_path / "a.lock"
    with hold(path, 1.0) as process, locked(path, "do something"):
        assert holder(path).startswith(f"process {os.getpid()} on ")
    (message,) = caplog.messages
    assert message.startswith(f"waiting to do something: process {process.pid} on ")
    assert f"holds {path}" in message


XDIST = """
from pathlib import Path
from quantgate.locks import holder, locked
def test_in_a_process_of_xdist():
    with locked(Path("a.lock"), "hold it"):
        Path("holder").write_text(holder(Path("a.lock")))
"""


def test_a_process_of_xdist_is_named_by_the_command_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(XDIST)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "test_x.py"]
    environment = os.environ | {"PYTHONPATH": str(IMPORT_ROOT)}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
    named = (tmp_path / "holder").read_text()
    assert named.startswith("process ")
    assert named.endswith("pytest -n 1 -p no:cacheprovider test_x.py`)")


def test_a_lock_ends_with_its_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with hold(path, 60) as process:
        with (
            pytest.raises(BusyError, match=rf"process {process.pid} on .* \(since 20.*, `"),
            locked(path, "x", 0.2),
        ):
            pass
        process.kill()
        process.wait()
        with locked(path, "x", 0.0):
            pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"pid": 1', b"[" * 5000])
def test_a_lock_file_of_before_is_in_nobodys_way(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.lock"
    path.write_bytes(content)
    assert holder(path) == "another process"
    with locked(path, "x", 0.0):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_once_and_nobody_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for name in ("a", "b"):
        with locked(tmp_path / f"{name}.lock", "x"):
            pass
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: this file system has no locks (flock: {os.strerror(number)})")


def test_other_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=str(tmp_path / "a.lock")), locked(tmp_path / "a.lock", "x"):
        pass


def test_who_would_wait_for_himself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    itself = pytest.raises(RuntimeError, match="holds this lock already; to measure a would wait for ever")
    with locked(path, "measure a"), itself, locked(path, "measure a"):
        pass
    with locked(path, "measure a", 0.0):
        pass
