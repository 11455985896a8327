"""Paths that libraries cannot take, and files that cannot be written: named with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quantgate.files import path_problem
from quantgate.paths import IMPORT_ROOT, cache_dir, lacks_home


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"plain", ""),
        ("é 中".encode(), ""),
        (b"qe\xe9", r"qe\udce9: is not UTF-8; rename it, or name another folder"),
    ],
)
def test_a_path_that_libraries_cannot_take_is_named(name: bytes, message: str) -> None:
    assert path_problem(Path(os.fsdecode(name))) == message


def test_a_locale_without_the_letters_of_a_path_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from quantgate.files import path_problem as problem\n"
        "print(problem(Path(sys.argv[1])), problem(Path(chr(20013))))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, "é"],
        env={**os.environ, **plain},
        cwd=IMPORT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("set PYTHONUTF8=1 or LC_ALL=C.UTF-8") == 2, done.stderr
    assert done.stdout.isascii()


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a user id that nobody has."""
    for name in ("HOME", "QUANTGATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert lacks_home()
    assert cache_dir().is_absolute()


def test_a_write_that_fails_names_its_file(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from quantgate.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 1000)\n"
        "except OSError as error: print(error.filename)"
    )
    file = tmp_path / "a" / "b.json"
    done = subprocess.run(
        [sys.executable, "-c", code, file], cwd=IMPORT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(file), done.stderr
    assert list(file.parent.iterdir()) == []
