"""Whole runs over many cells: their time grows with the number of cells, and no faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selftest.conftest import Project

SCHEMES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


def run_of(make_project: Callable[[], Project], cells: int) -> float:
    """Judge stored records of so many cells, reports included; CPU seconds of the whole process."""
    project = make_project()
    [model] = project.matrix["models"].values()
    names = [f"tiny{number}" for number in range(cells // len(SCHEMES))]
    project.matrix["models"] = dict.fromkeys(names, model)
    project.matrix["tiers"]["smoke"] = {
        "time_limit": 60.0,
        "cells": [f"*/llamacpp/{scheme}" for scheme in SCHEMES],
        "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 8, "block": 16},
    }
    project.limit = 600
    written = project.run("--collect-only", "-q", "-p", "selftest.many_cells")
    assert written.status == 0, written.output
    result = project.run("--reuse", "-q", "-p", "no:randomly")
    assert result.status == 0, result.output
    assert (len(result.cases), result.measured) == (cells, [])
    assert result.failed() == []
    seconds: float = project.parent()["cpu_seconds"]
    return seconds


@pytest.mark.slow
def test_twice_as_many_cells_take_twice_as_long(make_project: Callable[[], Project]) -> None:
    assert run_of(make_project, 1000) < 2.3 * run_of(make_project, 500)
