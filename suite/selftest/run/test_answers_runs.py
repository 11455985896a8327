"""Whole runs of a tier with written answers: a case for each task, and a task without data that stops no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantgate.records import Status

from selftest.plugin.runs import F16, Q4
from selftest.run.test_as_is_answers import with_tasks

if TYPE_CHECKING:
    from selftest.project import Project

__all__ = ["with_tasks"]


def test_answers_are_judged_task_by_task(with_tasks: Project) -> None:
    project = with_tasks
    project.environment["HF_HUB_OFFLINE"] = "1"
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["answers"] = {"tasks": ["copied_colors"], "items": 4, "tokens": 6, "chat": False}
    first = project.update("-k", "copied_colors")  # four items are too few for the gate of all together
    assert first.status == 0, first.output
    tier["cells"].append(Q4)
    tier["answers"] |= {"tasks": ["copied_colors", "nq_open"], "cells": [F16]}  # no case of the other cell
    result = project.run("-m", "answers")
    assert result.status == 10
    assert result.cases == {
        f"answers[{F16}/copied_colors]": "passed",
        f"answers[{F16}/nq_open]": "failed",
        f"all_answers[{F16}]": "failed",
    }
    same = result.verdict(F16, "answers/copied_colors/texts/reproduction")
    assert (same.status, same.text) == (Status.PASS, "all 4 texts equal the baseline's, token by token")
    for part in ("nq_open", "pooled"):
        verdict = result.verdict(F16, f"answers/{part}")
        assert verdict.status == Status.ERROR
        assert "task 'nq_open': it cannot be loaded" in verdict.text
        assert "add an entry to fixtures/tasks.toml" in verdict.text
