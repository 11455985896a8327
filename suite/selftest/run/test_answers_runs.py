"""Whole runs of a tier with written answers: a case for each task, and a task without data that stops no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from quantgate.records import Status

from selftest.plugin.runs import F16, Q4
from selftest.run.test_as_is_answers import with_tasks

if TYPE_CHECKING:
    from selftest.project import Project

__all__ = ["with_tasks"]


@pytest.mark.slow
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
        assert "where there is no hub, say in [tasks.nq_open] where its rows lie" in verdict.text


@pytest.mark.slow
def test_each_case_says_what_it_lacks_itself_and_leaves_the_others(with_tasks: Project) -> None:
    """A model without a chat template, an answer beyond its positions, a task without data."""
    project = with_tasks
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["generation"] = {"items": 2, "tokens": 4}
    tier["answers"] = {"tasks": ["copied_colors", "nq_open"], "items": 2, "tokens": 600, "chat": False}
    result = project.run("-m", "generation or answers or tokenizer")
    assert result.status == 10, result.output
    outcomes = {case: outcome for case, outcome in result.cases.items() if outcome != "failed"}
    assert outcomes.keys() == {f"tokenizer[{F16}]"}
    assert project.measurement(F16).metrics.keys() >= {"tokenizer/mismatches"}
    asked = result.verdict(F16, "generation")
    assert asked.status == Status.ERROR
    assert "prompts 'everyday': the model has no chat template: set chat = false" in asked.text
    room = result.verdict(F16, "answers/copied_colors").text
    assert "task 'copied_colors': the model has 512 positions, the longest prompt has" in room
    assert "set tokens of the tier's answers to" in room
    assert result.verdict(F16, "answers/nq_open").text.startswith("task 'nq_open': ")
    # Without any data no process is started; what could not be had may be there now.
    select = ("-m", "generation or answers", "-k", "not copied_colors")
    again = project.run(*select, "--reuse", "--history", str(project.folder / "history"))
    assert again.status == 10, again.output
    assert again.processes == []
    assert again.cases == dict.fromkeys(
        (f"generation[{F16}]", f"answers[{F16}/nq_open]", f"all_answers[{F16}]"), "failed"
    )
    assert [v.text for v in again.verdicts] == [result.verdict(F16, v.metric).text for v in again.verdicts]
