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
    return {
        "bits": 16, "ftype": "F16", "dialect": "llama-server", "command": command, "start_limit": 60.0,
        "in_process": "llamacpp/F16",
    }  # fmt: skip


@pytest.fixture
def served(make_project: Callable[[], Project]) -> Project:
    """Served cells of the tiny model beside the one in process."""
    project = make_project()
    schemes = {
        "right": scheme(),
        "dead": scheme("dies"),
        "warm": scheme("tempered"),
        "cut": scheme("context cut"),
    }
    project.matrix["backends"] = {"served": {"schemes": schemes}}
    smoke = project.matrix["tiers"]["smoke"]
    smoke["cells"] = ["tiny/llamacpp/F16", *(f"tiny/served/{name}" for name in schemes)]
    smoke["divergence"] = smoke["perplexity"]
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


def test_served_cells_are_measured_and_judged_beside_others(served: Project) -> None:
    first = served.update(PYTHONPATH=str(import_root()))
    assert first.cases["perplexity[tiny/served/right]"] == "skipped", "no baseline yet"
    for cell, says in (("dead", "has ended with exit status 3"), ("cut", "the server evaluated 12")):
        assert first.cases[f"perplexity[tiny/served/{cell}]"] == "failed"
        assert says in first.verdict(f"tiny/served/{cell}", "perplexity").text
    right, process = (served.measurement(f"tiny/{cell}") for cell in ("served/right", "llamacpp/F16"))
    mine, theirs = (cell.metrics["perplexity"] for cell in (right, process))
    assert mine.samples == pytest.approx(theirs.samples, abs=2e-4)
    assert right.environment["server"] == "llama-server fake"
    assert right.metrics["divergence/kl_topk"].value == pytest.approx(0, abs=1e-4)
    assert "divergence/kl_mean" not in right.metrics
    again = served.run("-k", "served")
    gates = (
        "perplexity",
        "perplexity/loss",
        "divergence/kl_topk",
        "divergence/same_top",
        "agreement/in_process",
    )
    for metric in gates:
        assert again.verdict("tiny/served/right", metric).status == "pass"
    assert again.verdict("tiny/served/dead", "perplexity").status == "error"
    warm = again.verdict("tiny/served/warm", "agreement/in_process")
    assert warm.status == "error", "no single reply of it is wrong, and the weights are the same"
    assert "in tiny/llamacpp/F16: the server computes something else" in warm.text
    assert not fakes()
