"""The budget of a forward pass that is fastest on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quantgate.backends.tree import TokenSequence
from quantgate.measure import scoring, way
from quantgate.measure.metrics import accuracy

from selftest.measure.fakes import Here, choice_task


def test_the_smallest_budget_that_is_nearly_the_fastest_is_taken() -> None:
    assert way.smallest_fast({256: 100.0, 512: 200.0, 1024: 205.0}) == 512
    assert way.smallest_fast({256: 100.0, 512: 200.0, 1024: 210.0}) == 1024
    assert way.smallest_fast({256: 100.0, 512: 90.0, 1024: 80.0}) == 256


def test_a_budget_is_tried_on_this_machine_once(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    choice_task(here)
    tried: list[int] = []
    score = scoring.score

    def counted(backend: Any, groups: Any, budget: int) -> Any:
        tried.append(budget)
        return score(backend, groups, budget)

    monkeypatch.setattr(way, "score", counted)
    options: dict[str, Any] = {"tasks": ["choose"], "items": 4, "budget": "auto"}
    measured = here.measure(accuracy, **options)["accuracy/choose/acc"]
    assert measured.conditions["budget"] in way.BUDGETS, "the number is part of the key"
    tier = accuracy.Options.model_validate(options)
    assert (
        accuracy.as_measured(tier, {"accuracy/choose/acc": measured}).budget == measured.conditions["budget"]
    )
    assert accuracy.as_measured(tier, {"memory": measured}) == tier
    assert tried == [way.BUDGETS[0], *way.BUDGETS], "the first is the warm-up"
    again = here.measure(accuracy, **options)["accuracy/choose/acc"]
    assert (again.raw, again.conditions) == (measured.raw, measured.conditions)
    assert len(tried) == 4, "taken from the cache"
    pinned = here.measure(accuracy, **{**options, "budget": 512})["accuracy/choose/acc"]
    assert pinned.samples == measured.samples
    monkeypatch.setattr(way, "code_hash", lambda *code: "another")
    here.measure(accuracy, **options)
    assert len(tried) == 8, "another way of scoring is tried anew"


def test_a_budget_is_tried_on_the_first_items_alone() -> None:
    groups = [[TokenSequence(tuple(range(11)), 1)] for _ in range(9)]
    assert len(way.first_tokens(groups, 25)) == 3
    assert len(way.first_tokens(groups, 1000)) == 9
