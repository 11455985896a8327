"""Served cells pass through the gate: measured, accepted, judged; one that fails leaves the others alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from selftest.project import Project, Result


def scheme(defect: str = "", **further: Any) -> dict[str, Any]:
    words = [sys.executable, "-m", "selftest.serving.fake", "{checkpoint}", "{port}"]
    command = [*words, *([defect] if defect else [])]
    return {
        "bits": 16, "ftype": "F16", "dialect": "llama-server", "command": command, "start_limit": 60.0,
        "in_process": "llamacpp/F16-stepwise", **further,
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
        "hanging": scheme("hangs", answer_limit=1.0),
        "refusing": scheme("503"),
        "busy": scheme("503 three times"),
        "mixed": scheme("mixes requests up"),
    }
    stepwise = {"bits": 16, "ftype": "F16", "rounding": "half", "n_ubatch": 1}
    project.matrix["backends"] = {
        "served": {"schemes": schemes},
        "llamacpp": {"schemes": {"F16-stepwise": stepwise}},
    }
    smoke = project.matrix["tiers"]["smoke"]
    smoke["cells"] = [
        "tiny/llamacpp/F16",
        "tiny/llamacpp/F16-stepwise",
        *(f"tiny/served/{name}" for name in schemes),
    ]
    smoke["perplexity"] = smoke["divergence"] = {"text": "boolq", "n_ctx": 32, "windows": 4, "block": 16}
    smoke["traffic"] = {"concurrency": [1, 2], "requests": 3, "prompt": 4, "tokens": 3, "processes": 1}
    smoke["throughput"] = {"prompt": 8, "decode": 4, "first_token": 4, "rounds": 2, "processes": 1}
    smoke["serving"] = {"text": "boolq", "prompts": 4, "context": 8, "tokens": 4}
    del smoke["memory"]
    return project


LOOKED_AT = (
    "right or stepwise or perplexity and (F16 or dead or cut or hanging or refusing or warm)"
    " or serving and (busy or mixed)"
)
"""The cases of the sound server, and one of each defect."""


def fakes() -> list[psutil.Process]:
    """Fake servers that run below this process, or were left by it."""
    mine = os.getpid()
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "selftest.serving.fake" in (one.info["cmdline"] or ())
        and any(parent.pid in (1, mine) for parent in one.parents())
    ]


@pytest.mark.slow
def test_served_cells_are_measured_and_judged_beside_others(served: Project) -> None:
    first = served.update("-k", LOOKED_AT)
    assert first.cases["perplexity[tiny/served/right]"] == "skipped", "no baseline yet"
    for cell, says in (
        ("dead", "has ended with exit status 3"),
        ("cut", "the server evaluated 12"),
        ("hanging", "no answer within 1 s"),
        ("refusing", "the server answers 503 Service Unavailable"),
    ):
        assert first.cases[f"perplexity[tiny/served/{cell}]"] == "failed"
        assert says in first.verdict(f"tiny/served/{cell}", "perplexity").text
    right, process = (
        served.measurement(f"tiny/{cell}") for cell in ("served/right", "llamacpp/F16-stepwise")
    )
    mine, theirs = (cell.metrics["perplexity"] for cell in (right, process))
    assert mine.samples == pytest.approx(theirs.samples, abs=2e-3), "the fake server computes a text at once"
    assert right.environment["server"] == "llama-server fake"
    assert right.metrics["divergence/kl_topk"].value == pytest.approx(0, abs=1e-4)
    assert "divergence/kl_mean" not in right.metrics
    assert right.metrics["traffic/client"].value > 0
    _absolute_gates_judge_at_once(first)
    again = served.run("-k", "served and right")
    gates = (
        "serving/gap",
        "serving/retries",
        "perplexity",
        "perplexity/loss",
        "divergence/kl_topk",
        "divergence/same_top",
        "agreement/in_process",
    )
    for metric in gates:
        assert again.verdict("tiny/served/right", metric).status == "pass"
    for metric in ("scaling", "in_process", "memory"):
        assert again.verdict("tiny/served/right", f"traffic/{metric}").status in ("pass", "inconclusive")
    assert not fakes()


def _absolute_gates_judge_at_once(run: Result) -> None:
    busy = run.verdict("tiny/served/busy", "serving/retries")
    assert busy.status == "error"
    assert "measured 3 requests, expected 0" in busy.text
    mixed = run.verdict("tiny/served/mixed", "serving/gap")
    assert mixed.status == "error"
    assert "of 4 texts differ from those that were written alone" in mixed.text
    warm = run.verdict("tiny/served/warm", "agreement/in_process")
    assert warm.status == "error", "no single reply of it is wrong, and the weights are the same"
    assert "in tiny/llamacpp/F16-stepwise: the server computes something else" in warm.text
