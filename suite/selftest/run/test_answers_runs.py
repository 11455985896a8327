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
    """Of three tasks the model answers one; the prompts of another are too long for it; one has no data."""
    project = with_tasks
    project.environment["HF_HUB_OFFLINE"] = "1"
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["answers"] = {"tasks": ["copied_colors"], "items": 4, "tokens": 6, "chat": False}
    first = project.update("-k", "copied_colors")  # four items are too few for the gate of all together
    assert first.status == 0, first.output
    tier["cells"].append(Q4)
    tasks = ["copied_colors", "squad_written", "nq_open"]
    tier["answers"] |= {"tasks": tasks, "cells": [F16]}  # no case of the other cell
    result = project.run("-m", "answers")
    assert result.status == 10
    assert result.cases == {
        f"answers[{F16}/copied_colors]": "passed",
        f"answers[{F16}/squad_written]": "failed",
        f"answers[{F16}/nq_open]": "failed",
        f"all_answers[{F16}]": "failed",
    }
    same = result.verdict(F16, "answers/copied_colors/texts/reproduction")
    assert (same.status, same.text) == (Status.PASS, "all 4 texts equal the baseline's, token by token")
    room = result.verdict(F16, "answers/squad_written")
    assert room.status == Status.ERROR
    assert "task 'squad_written': the model has 512 positions, the longest prompt has" in room.text
    for part in ("nq_open", "pooled"):
        verdict = result.verdict(F16, f"answers/{part}")
        assert verdict.status == Status.ERROR
        assert verdict.text.startswith("task 'nq_open': it cannot be loaded")
        assert "where there is no hub, say in [tasks.nq_open] where its rows lie" in verdict.text


def test_a_case_says_what_it_lacks_itself_and_leaves_the_others(project: Project) -> None:
    """A model without a chat template."""
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["generation"] = {"items": 2, "tokens": 4}
    result = project.run("-m", "generation or tokenizer")
    assert result.status == 10, result.output
    assert result.failed() == [f"generation[{F16}]"]
    assert result.cases.keys() == {f"generation[{F16}]", f"tokenizer[{F16}]"}
    assert project.measurement(F16).metrics.keys() >= {"tokenizer/mismatches"}
    verdict = result.verdict(F16, "generation")
    assert verdict.status == Status.ERROR
    assert "prompts 'everyday': the model has no chat template: set chat = false" in verdict.text
    # Without any data no process is started; what could not be had may be there now.
    again = project.run("-m", "generation", "--reuse", "--history", str(project.folder / "history"))
    assert again.status == 10, again.output
    assert again.processes == []
    assert again.cases == {f"generation[{F16}]": "failed"}
    assert [v.text for v in again.verdicts] == [verdict.text]
