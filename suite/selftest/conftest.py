"""What the end-to-end tests share: the tiny model, a folder with a matrix of it, and real pytest runs there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from suite.selftest.tiny import TEXT, TinyModel, tiny_model

REPO = Path(__file__).parents[2]

Table = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How a run of pytest ended, and all it printed (stderr too)."""

    status: int
    output: str

    def outcomes(self) -> dict[str, str]:
        """PASSED, FAILED, SKIPPED, ERROR by case, `perplexity[tiny/llamacpp/F16]`; needs -v."""
        line = re.compile(r"^(?:\[gw\d+\].*?)?(?:\S+/)?test_\w+\.py::test_(\S+\]) (\w+)", re.MULTILINE)
        turned = re.compile(r"^\[gw\d+\] \[ *\d+%\] (\w+) \S*test_\w+\.py::test_(\S+\])", re.MULTILINE)
        found = {name: outcome for outcome, name in turned.findall(self.output)}
        return found or dict(line.findall(self.output))


@dataclass
class Project:
    """A user's folder: matrix, text, baselines, results."""

    folder: Path
    matrix: Table
    environment: dict[str, str]
    options: list[str] = field(default_factory=list)

    @property
    def baselines(self) -> Path:
        return self.folder / "baselines"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    def write(self) -> None:
        """Put matrix and text in place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "matrix.toml").write_text(tomli_w.dumps(self.matrix))
        if not self.text.exists():
            self.text.write_text(TEXT)

    def command(self, *arguments: str) -> list[str]:
        """pytest as a user starts it, over all cases; no cache of pytest's, one thread."""
        own = {
            "--matrix": self.folder / "matrix.toml",
            "--baselines": self.baselines,
            "--results": self.folder / "results",
            "--text": self.text,
            "--threads": 1,
        }
        defaults = [w for name, value in own.items() if name not in arguments for w in (name, str(value))]
        cases = (
            []
            if any("::" in a for a in arguments)
            else [str(f) for f in sorted((REPO / "suite").glob("test_*.py"))]
        )
        return [
            *(sys.executable, "-m", "pytest", "-c", str(REPO / "pyproject.toml"), "--rootdir", str(REPO)),
            *("-p", "no:cacheprovider"),
            *cases,
            *defaults,
            *arguments,
        ]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start pytest in a session of its own; matrix and text are written first."""
        self.write()
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> Result:
        """pytest to its end."""
        process = self.start(*arguments, **environment)
        try:
            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        return Result(process.returncode, output)

    def update(self, *arguments: str) -> Result:
        """A run that makes its measurements the baselines."""
        return self.run("--update-baselines", "--reason", "selftest", *arguments)

    def measurement(self, cell: str, tier: str = "smoke") -> Any:
        """The record that the latest run left of a cell."""
        return json.loads((self.folder / "results" / tier / f"{cell}.json").read_bytes())

    def copy(self, folder: Path) -> Project:
        """The same with all that runs left, elsewhere."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Project(folder, json.loads(json.dumps(self.matrix)), self.environment)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The tiny model, made once."""
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of each run: a cache and locks of the test session's own, no setting of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "tmp").mkdir()
    foreign = ("PYTEST_", "QUANTGATE_", "GITHUB_", "COV_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return kept | {
        "QUANTGATE_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def tiny_matrix(tiny: TinyModel) -> Table:
    """Two llama.cpp cells in `smoke`; `timed` takes their timings, which a busy machine may spoil."""
    return {
        "models": {
            "tiny": {
                "license": "Apache-2.0",
                "weights": {"path": str(tiny.safetensors)},
                "gguf": {"path": str(tiny.gguf)},
            }
        },
        "tiers": {
            "smoke": {
                "time_limit": 60.0,
                "cells": ["tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"],
                "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 16},
                "memory": {"prompt": 32, "decode": 2},
                "tokenizer": {"text": "boolq", "characters": 300},
            },
            "timed": {
                "time_limit": 60.0,
                "cells": ["tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"],
                "throughput": {"prompt": 64, "decode": 8, "first_token": 8, "rounds": 4, "seconds": 1.0},
            },
        },
    }


@pytest.fixture(scope="session")
def make_project(
    tiny: TinyModel, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Project]:
    """Makes new projects of the tiny model."""
    return lambda: Project(tmp_path_factory.mktemp("project"), tiny_matrix(tiny), environment)


@pytest.fixture
def project(make_project: Callable[[], Project]) -> Project:
    """A new project without baselines."""
    return make_project()


@pytest.fixture(scope="session")
def accepted(make_project: Callable[[], Project]) -> Project:
    """Measured and accepted once; tests work on copies of it (`baselined`)."""
    project = make_project()
    result = project.update()
    assert result.status == 0, result.output
    return project


@pytest.fixture
def baselined(accepted: Project, tmp_path: Path) -> Project:
    """A project with baselines and the measurements they were made from."""
    return accepted.copy(tmp_path / "project")
