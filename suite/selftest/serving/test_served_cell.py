"""Served cells pass through the gate: measured, accepted, judged; one that fails leaves the others alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from quantgate.paths import import_root

from selftest.project import Project


def scheme(defect: str = "") -> dict[str, Any]:
    words = [sys.executable, "-m", "selftest.serving.fake", "{checkpoint}", "{port}"]
    command = [*words, *([defect] if defect else [])]
    return {"bits": 16, "ftype": "F16", "dialect": "llama-server", "command": command, "start_limit": 60.0}


@pytest.fixture
def served(make_project: Callable[[], Project]) -> Project:
    """Two served cells of the tiny model beside the one in process."""
    project = make_project()
    schemes = {"right": scheme(), "dead": scheme("dies")}
    project.matrix["backends"] = {"served": {"schemes": schemes}}
    smoke = project.matrix["tiers"]["smoke"]
    smoke["cells"] = ["tiny/llamacpp/F16", "tiny/served/right", "tiny/served/dead"]
    del smoke["memory"]
    return project


def fakes() -> list[psutil.Process]:
    """Fake servers that run below this process, or were left by it."""
    mine = os.getpid()
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "selftest.serving.fake" in (one.info["cmdline"] or ())
        and any(parent.pid in (1, mine) for parent in one.parents())
    ]


def test_a_served_cell_is_measured_and_judged_beside_others(served: Project) -> None:
    first = served.update(PYTHONPATH=str(import_root()))
    assert first.cases["perplexity[tiny/served/right]"] == "skipped", "no baseline yet"
    assert first.cases["perplexity[tiny/served/dead]"] == "failed"
    assert "has ended with exit status 3" in first.output
    right, process = (served.measurement(f"tiny/{cell}") for cell in ("served/right", "llamacpp/F16"))
    mine, theirs = right.metrics["perplexity"], process.metrics["perplexity"]
    assert mine.samples == pytest.approx(theirs.samples, abs=2e-4)
    assert right.environment["server"] == "llama-server fake"
    assert "memory" not in " ".join(right.requests)
    again = served.run("-k", "served")
    assert again.verdict("tiny/served/right", "perplexity").status == "pass"
    assert again.verdict("tiny/served/dead", "perplexity").status == "error"
    assert not fakes()
