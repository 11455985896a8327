"""The branch `history`: files are added, never changed, and nothing that others pushed is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from selftest.workflows.forge import GITHUB


class Repository:
    """A bare repository, and runs that are recorded there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bare = folder / "r.git"
        self.git("init", "--quiet", "--bare", str(self.bare))

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout

    def record(self, **files: str) -> subprocess.CompletedProcess[str]:
        """Record files `<year>/<name>.jsonl`."""
        run = self.folder / "run"
        subprocess.run(["rm", "-rf", str(run)], check=True)
        for name, text in files.items():
            path = run / "2026" / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (run / "notes.txt").write_text("no run")
        script = str(GITHUB / "scripts" / "record.sh")
        return subprocess.run(
            [script, str(run), f"file://{self.bare}", "nightly"], capture_output=True, text=True, check=False
        )

    def files(self) -> dict[str, str]:
        names = self.git("-C", str(self.bare), "ls-tree", "-r", "--name-only", "history").split()
        return {name: self.git("-C", str(self.bare), "show", f"history:{name}") for name in names}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_runs_are_added_one_after_the_other(repository: Repository) -> None:
    assert repository.record(a="1").returncode == 0
    assert repository.record(b="2", c="3").returncode == 0
    assert repository.files() == {
        "nightly/2026/a.jsonl": "1",
        "nightly/2026/b.jsonl": "2",
        "nightly/2026/c.jsonl": "3",
    }
    log = repository.git("-C", str(repository.bare), "log", "--format=%s", "history").splitlines()
    assert log == ["2 more in the history", "1 more in the history"]


def test_the_same_run_again_adds_nothing(repository: Repository) -> None:
    repository.record(a="1")
    again = repository.record(a="1")
    assert (again.returncode, again.stdout) == (0, "nothing new\n")


def test_a_run_is_never_changed(repository: Repository) -> None:
    repository.record(a="1")
    other = repository.record(a="2", b="3")
    assert other.returncode == 1
    assert "nightly/2026/a.jsonl: is in the history already, with another content" in other.stderr
    assert repository.files() == {"nightly/2026/a.jsonl": "1"}


def test_what_somebody_pushes_meanwhile_is_kept(repository: Repository) -> None:
    """A hook pushes another run between the fetch and the first push."""
    repository.record(a="1")
    other = repository.folder / "other"
    repository.git("clone", "--quiet", "--branch", "history", str(repository.bare), str(other))
    (other / "nightly" / "2026" / "b.jsonl").write_text("2")
    repository.git("-C", str(other), "add", "--all")
    name = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    repository.git("-C", str(other), *name, "commit", "--quiet", "--message", "another run")
    hook = repository.bare / "hooks" / "pre-receive"
    new = repository.git("-C", str(other), "rev-parse", "HEAD").strip()
    repository.git("-C", str(repository.bare), "fetch", "--quiet", str(other), "history:refs/waiting")
    hook.write_text(
        f"#!/bin/sh\nif git rev-parse --quiet --verify refs/waiting; then\n"
        f"  unset GIT_QUARANTINE_PATH\n  git update-ref refs/heads/history {new}\n"
        "  git update-ref -d refs/waiting\nfi\n"
    )
    hook.chmod(0o755)
    done = repository.record(c="3")
    assert done.returncode == 0, done.stderr
    assert "attempt 1: somebody else has pushed to history meanwhile" in done.stderr
    assert repository.files() == {
        "nightly/2026/a.jsonl": "1",
        "nightly/2026/b.jsonl": "2",
        "nightly/2026/c.jsonl": "3",
    }


def test_a_repository_that_cannot_be_reached_is_an_error(repository: Repository) -> None:
    subprocess.run(["rm", "-rf", str(repository.bare)], check=True)
    assert repository.record(a="1").returncode not in (0, 1)
