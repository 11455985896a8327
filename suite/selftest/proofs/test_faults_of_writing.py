"""Faults of writing, for real: another text comes out, and the gate on texts sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from selftest.plugin.runs import F16
from selftest.proofs.test_faults import prove
from selftest.run.test_as_is_answers import with_tasks

if TYPE_CHECKING:
    from selftest.project import Project

__all__ = ["with_tasks"]

Q8 = "tiny/llamacpp/Q8_0"
NAMES = ("stop-applied-late", "repetition-penalty", "padding-without-mask", "cache-shifted", "sampled")
"""Those that need neither a chat template nor a model that ends its answers."""


@pytest.mark.slow
def test_another_text_turns_its_gate_red_and_none_is_red_without_a_fault(with_tasks: Project) -> None:
    project = with_tasks
    project.matrix["tiers"]["generation"] = {
        "time_limit": 600,
        "cells": [F16, Q8],
        "generation": {"items": 6, "tokens": 48, "written": 3, "chat": False},
        "answers": {"tasks": ["copied_colors"], "items": 4, "tokens": 24, "chat": False},
    }
    made = project.update("--tier", "generation", "-k", "generation and F16 or copied_colors and Q8_0")
    assert made.status == 0, made.output
    status, output, rows = prove(project, "--tier", "generation", "-k", f"^writing ({'|'.join(NAMES)}) ")
    assert status == 0, output
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "none on llamacpp/Q8_0": "clean",
        "none on llamacpp/F16": "clean",
        **dict.fromkeys(NAMES, "caught"),
    }
