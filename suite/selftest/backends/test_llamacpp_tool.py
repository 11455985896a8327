"""Perplexity of the embedded model on WikiText-2, held against what llama.cpp's own tool printed for it elsewhere.

F16 alone: the kernels of quantized types round otherwise on another processor, by more than the bound. On one machine
they are compared by `tox -e peers`, which runs the tool.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.paths import cache_dir
from quantgate.run.inputs import load_matrix

from selftest.project import Project

if TYPE_CHECKING:
    from selftest.project import Table

TEXT = os.environ.get("QUANTGATE_WIKITEXT2", "")
"""Path of the test split of WikiText-2 raw, as one file."""

MODEL = "smollm2-135m"
CELL, PRINTED = f"{MODEL}/llamacpp/F16", 28.6260
"""By `llama-perplexity -c 512 --chunks 20`, on the F16 file made from the embedded model."""


def tool_matrix() -> Table:
    source = load_matrix().models[MODEL]
    assert source.gguf is not None
    return {
        "models": {MODEL: {"license": source.license, "gguf": source.gguf.model_dump(exclude_none=True)}},
        "tiers": {
            "smoke": {
                "time_limit": 3600.0,
                "cells": [CELL],
                "perplexity": {"text": "boolq", "n_ctx": 512, "windows": 20, "protocol": "half"},
            }
        },
    }


@pytest.mark.skipif(
    not TEXT, reason="QUANTGATE_WIKITEXT2 names no file: WikiText-2 raw, test split, as plain text"
)
def test_perplexity_is_what_llamacpps_tool_prints(tmp_path: Path, environment: dict[str, str]) -> None:
    project = Project(
        tmp_path / "p", tool_matrix(), environment | {"QUANTGATE_CACHE": str(cache_dir())}, limit=3600
    )
    project.options |= {"--text": Path(TEXT).resolve(), "--threads": len(os.sched_getaffinity(0))}
    result = project.run()
    assert result.status == 0, result.output
    assert project.measurement(CELL).metrics["perplexity"].value == pytest.approx(PRINTED, rel=2e-4)
