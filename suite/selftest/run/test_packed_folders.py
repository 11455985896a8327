"""GPTQ and AWQ folders through whole runs: measured as they are, or skipped with what has to be installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from quantgate.records import Status

from selftest.packed import write_packed
from selftest.project import Project
from selftest.run.test_as_is import state
from selftest.tiny import TinyModel

METHODS = ("gptq", "awq")
F16, FP32 = "tiny/llamacpp/F16", "tiny/transformers/fp32"
MISSING = [name for name in ("gptqmodel", "optimum") if importlib.util.find_spec(name) is None]


@pytest.fixture
def packed(project: Project, tiny: TinyModel, tmp_path: Path) -> Project:
    """A project of the tiny model that ships a folder of each method, neither with a tokenizer."""
    project.matrix["models"]["tiny"]["checkpoints"] = {}
    for method in METHODS:
        write_packed(tiny.safetensors, tmp_path / method, method)
        path = {"path": str(tmp_path / method)}
        project.matrix["models"]["tiny"]["checkpoints"][f"transformers/{method}"] = path
    project.matrix["tiers"]["smoke"]["cells"] = [FP32, *(f"tiny/transformers/{m}" for m in METHODS)]
    return project


@pytest.mark.skipif(not MISSING, reason="gptqmodel and optimum are installed")
def test_a_packed_folder_is_skipped_with_what_has_to_be_installed(packed: Project) -> None:
    packed.matrix["tiers"]["smoke"]["cells"][0] = F16
    result = packed.run("-m", "perplexity", "-rs")
    assert result.status == 0, result.output
    for method in METHODS:
        assert result.cases[f"perplexity[tiny/transformers/{method}]"] == "skipped"
    assert len(re.findall(rf"{MISSING[0]} is not installed: pip install \S+", result.output)) >= len(METHODS)
    assert result.measured == [F16]
    assert result.verdict(F16, "perplexity").status == Status.NO_BASELINE


@pytest.mark.skipif(bool(MISSING), reason="needs gptqmodel and optimum")
def test_packed_folders_are_measured_accepted_and_judged(
    packed: Project, tiny: TinyModel, tmp_path: Path
) -> None:
    packed.limit = 1800  # gptqmodel compiles its kernels where they were never used
    folders = tmp_path / "gptq", tmp_path / "awq"
    before = [state(folder) for folder in folders]
    divergence = {"text": "boolq", "n_ctx": 32, "windows": 16, "protocol": "full", "block": 16}
    packed.matrix["tiers"]["smoke"]["divergence"] = divergence
    packed.matrix["tiers"]["smoke"]["time_limit"] = 900.0
    select = ("-m", "perplexity or divergence or memory or tokenizer")
    result = packed.update(*select)
    assert result.status == 0, result.output
    full = packed.measurement(FP32).metrics["perplexity"].value
    for method in METHODS:
        record = packed.measurement(f"tiny/transformers/{method}")
        metrics = record.metrics
        assert metrics["memory/quantized_share"].value == 1
        assert 4 < metrics["memory/bits_per_weight"].value < 16
        assert metrics["tokenizer/mismatches"].value == 0
        assert metrics["perplexity"].value == pytest.approx(full, rel=0.2)
        assert 1e-4 < metrics["divergence/kl_mean"].value < 0.5
        assert record.environment["checkpoint"]
    assert [state(folder) for folder in folders] == before
    again = packed.run(*select)
    assert again.status == 0, again.output
