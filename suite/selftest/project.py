"""A user's folder in which the end-to-end tests run pytest, and what a run leaves there."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tomlkit
from quantgate.machine.builds import LLAMA_LIBRARIES
from quantgate.paths import cache_dir
from quantgate.records import Measurement, Verdict

from selftest.forked import Forked, start
from selftest.tiny import TEXT, TinyModel

REPO = Path(__file__).parents[2]

Table = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run left: exit status, all it printed (stderr too), and what it did."""

    status: int
    output: str
    cases: dict[str, str] = field(default_factory=dict)
    """passed, failed or skipped by case: `perplexity[tiny/llamacpp/F16]`."""
    processes: list[str] = field(default_factory=list)
    """What processes were started for, in this order: a cell; `<cell>.2` for its second process; `<cell>.again` for
    a second look; `<cell>.old.1` and `<cell>.new.1` in A/B runs."""
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def measured(self) -> list[str]:
        """The cells that were measured, in this order; `<cell>.again` for a second look."""
        return [name for name in self.processes if not re.search(r"\.\d+$", name)]

    def verdict(self, cell: str, metric: str) -> Verdict:
        """The one on this metric."""
        (verdict,) = (v for v in self.verdicts if (v.cell, v.metric) == (cell, metric))
        return verdict

    def failed(self) -> list[str]:
        """The cases that failed."""
        return [case for case, outcome in self.cases.items() if outcome == "failed"]


@dataclass
class Project:
    """A user's folder: matrix, text, baselines, results. `options` are given where a run does not say otherwise."""

    folder: Path
    matrix: Table
    environment: dict[str, str]
    limit: float = 1800
    """Seconds that a run may take."""
    options: Table = field(init=False)

    def __post_init__(self) -> None:
        self.options = {
            "--matrix": self.matrix_file,
            "--text": self.text,
            "--baselines": self.baselines,
            "--results": self.results,
            "--report": self.folder / "report",
            "--threads": 1,
        }

    @property
    def matrix_file(self) -> Path:
        return self.folder / "matrix.toml"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    @property
    def baselines(self) -> Path:
        return self.folder / "baselines"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def cache(self) -> Path:
        return Path(self.environment["QUANTGATE_CACHE"])

    def write(self) -> None:
        """Put the matrix in place, and the text where there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.matrix_file.write_text(tomlkit.dumps(self.matrix))
        if not self.text.exists():
            self.text.write_text(TEXT)

    def start(self, *arguments: str, **environment: str) -> Forked:
        """Start pytest as a user does, over all cases."""
        spy = self.folder / "spy"
        for old in (spy, self.folder / "report"):
            shutil.rmtree(old, ignore_errors=True)
        spy.mkdir(parents=True)
        (self.folder / "junit.xml").unlink(missing_ok=True)
        options = [w for n, value in self.options.items() if n not in arguments for w in (n, str(value))]
        words = [
            *("-c", str(REPO / "pyproject.toml"), "--rootdir", str(REPO)),
            *(f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest", "anyio")),  # faster
            "-pselftest.spy",
            *(str(file) for file in sorted((REPO / "suite").glob("test_*.py"))),
            f"--junitxml={self.folder / 'junit.xml'}",
            *options,
            *arguments,
        ]
        variables = self.environment | {"QUANTGATE_SPY": str(spy)} | environment
        fresh = not environment.keys().isdisjoint(("PYTHONPATH", LLAMA_LIBRARIES))  # other libraries
        return start("pytest", words, self.folder, variables, fresh=fresh)

    def finish(self, process: Forked) -> Result:
        """Wait for a started run."""
        return self.left(*process.finish(self.limit))

    def left(self, status: int, output: str) -> Result:
        """What the latest run, which ended like this, left in the folder."""
        junit, report = self.folder / "junit.xml", self.folder / "report" / "report.json"
        return Result(
            status=status,
            output=output,
            cases=_cases(junit) if junit.exists() else {},
            processes=self._processes(),
            verdicts=verdicts_of(report) if report.exists() else [],
        )

    def run(self, *arguments: str, **environment: str) -> Result:
        """One run of pytest with the present matrix."""
        self.write()
        return self.finish(self.start(*arguments, **environment))

    def update(self, *arguments: str, **environment: str) -> Result:
        """A run that makes its measurements the baselines."""
        return self.run("--update-baselines", "--reason", "selftest", *arguments, **environment)

    def _processes(self) -> list[str]:
        started = self.folder / "spy" / "started"
        files = [Path(line) for line in started.read_text().splitlines()] if started.exists() else []
        names = [f.relative_to(self.results.resolve()).as_posix().removesuffix("~job.json") for f in files]
        return [name.partition("/")[2].replace("~", ".") for name in names if not name.startswith("logs/")]

    def parent(self) -> Any:
        """What the spy noted of the latest run's pytest process."""
        return json.loads((self.folder / "spy" / "parent.json").read_bytes())

    def measurement(self, cell: str, tier: str = "smoke") -> Measurement:
        """The record that the latest run left of a cell."""
        return Measurement.model_validate_json((self.results / tier / f"{cell}.json").read_bytes())

    def copy(self, folder: Path) -> Project:
        """The same with all that runs left, elsewhere."""
        shutil.copytree(self.folder, folder)
        return Project(folder, deepcopy(self.matrix), dict(self.environment))

    def take_cache(self, folder: Path) -> Path:
        """From now on use a copy of the cache's checkpoints and workloads, which a test may change."""
        for kind in ("checkpoints", "workloads", "entries"):
            shutil.copytree(
                self.cache / kind, folder / kind, ignore=shutil.ignore_patterns(".*", "*.partial")
            )
        self.environment["QUANTGATE_CACHE"] = str(folder)
        return folder


@dataclass(frozen=True)
class Accepted:
    """A project whose measurements were made its baselines, and the run that did."""

    project: Project
    result: Result


def borrow_assets(cache: Path) -> None:
    """Give a cache the assets of whoever runs the tests, with their checksums: without these, they would be thrown away
    and fetched again."""
    for kind in ("assets", "entries/assets"):
        (cache / kind).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (cache / kind).symlink_to(cache_dir() / kind)


def _cases(junit: Path) -> dict[str, str]:
    outcomes = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = case.attrib.get("name", "").removeprefix("test_")  # an interrupted one has none
        outcomes[name] = {"failure": "failed"}.get(kind := kinds.pop(), kind) if kinds else "passed"
    return outcomes


def verdicts_of(report: Path) -> list[Verdict]:
    """The verdicts of a `report.json`."""
    return [Verdict.model_validate(verdict) for verdict in json.loads(report.read_bytes())["verdicts"]]


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def tiny_matrix(tiny: TinyModel) -> Table:
    """Two cells of llama.cpp; timings, which a busy machine may spoil, are in a tier of their own."""
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
                "time_limit": 300.0,
                "cells": ["tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"],
                "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16},
                "memory": {"prompt": 32, "decode": 2, "processes": 2},
                "tokenizer": {"text": "boolq", "characters": 300},
            },
            "timed": {
                "extends": "smoke",
                "throughput": {
                    "prompt": 64,
                    "decode": 8,
                    "first_token": 8,
                    "rounds": 4,
                    "seconds": 1.0,
                    "turns": 0.03,
                },
            },
        },
    }
