"""Whole runs over many cells: their time grows with the number of cells, and no faster."""

from __future__ import annotations

from selftest.project import Project

SCHEMES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


def seconds(project: Project, models: int) -> float:
    """Judge the stored records of so many models, reports included; CPU seconds of the whole process."""
    model = next(iter(project.matrix["models"].values()))
    project.matrix["models"] = {f"tiny{number}": model for number in range(models)}
    result = project.run("--reuse", "-q", "-p", "no:randomly")
    assert result.status == 0, result.output
    assert (len(result.cases), result.measured) == (models * len(SCHEMES), [])
    assert set(result.cases.values()) == {"passed"}, result.output[-3000:]
    taken: float = project.parent()["cpu_seconds"]
    return taken


def test_twice_as_many_cells_take_twice_as_long(project: Project) -> None:
    models = 60
    [model] = project.matrix["models"].values()
    project.matrix["models"] = {f"tiny{number}": model for number in range(models)}
    project.matrix["tiers"]["smoke"] = {
        "time_limit": 300.0,
        "cells": [f"*/llamacpp/{scheme}" for scheme in SCHEMES],
        "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 8, "block": 16},
    }
    project.limit = 600
    written = project.run("--collect-only", "-q", "-p", "selftest.many_cells")
    assert written.status == 0, written.output
    assert seconds(project, models) < 2.3 * seconds(project, models // 2)
