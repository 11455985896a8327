"""Cells of transformers' quantization methods, from the file to the verdict."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from quantgate.records import Status

if TYPE_CHECKING:
    from selftest.project import Project

F16 = "tiny/llamacpp/F16"
FP32, FP8, INT8, TWIN = (f"tiny/transformers/{name}" for name in ("fp32", "fp8", "int8", "twin"))


def test_a_method_that_cannot_run_here_is_skipped_and_others_are_judged(project: Project) -> None:
    here = {"bits": 8, "dtype": "float32"}
    project.matrix["backends"] = {
        "transformers": {
            "schemes": {
                "fp8": {**here, "quantization": {"method": "fp8"}},
                "aqlm": {"as_is": True, "dtype": "float32", "quantization": {"method": "aqlm"}},
            }
        }
    }
    project.matrix["tiers"]["smoke"]["cells"] = [F16, FP8, "tiny/transformers/aqlm"]
    project.matrix["models"]["tiny"]["checkpoints"] = {"transformers/aqlm": {"path": str(project.folder)}}
    result = project.run("-m", "perplexity", "-rs")
    assert 'fp8 needs a GPU, and the scheme says device = "cpu"' in result.output
    assert "aqlm is not installed: pip install 'aqlm[cpu,gpu]'" in result.output
    assert result.measured == [F16]
    assert result.verdict(F16, "perplexity").status == Status.NO_BASELINE


def test_an_option_that_the_method_does_not_take_is_a_usage_error(project: Project) -> None:
    wrong = {"bits": 8, "dtype": "float32", "quantization": {"method": "quanto", "weight": "int8"}}
    project.matrix["backends"] = {"transformers": {"schemes": {"int8": wrong}}}
    result = project.run("-m", "perplexity")
    assert result.status == 4
    key = "backends.transformers.schemes.int8.quantization.weight"
    assert f"matrix.toml: {key}: unknown key. Did you mean 'weights'?" in result.output


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
def test_a_torchao_cell_is_measured_and_reproduces(project: Project) -> None:
    quantization = {"method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
    int8 = {"bits": 8, "dtype": "float32", "rounding": "weights", "quantization": quantization}
    project.matrix["backends"] = {"transformers": {"schemes": {"int8": int8, "twin": int8}}}
    tier = project.matrix["tiers"]["smoke"]
    tier |= {"cells": [FP32, INT8, TWIN], "memory": {"prompt": 32, "processes": 1}}
    result = project.update("-m", "perplexity or memory")
    assert result.status == 0, result.output
    record = project.measurement(INT8)
    assert record.environment["torchao"]
    assert record.metrics["memory/quantized_share"].value == 1.0
    perplexity = record.metrics["perplexity"]
    assert perplexity.samples == project.measurement(TWIN).metrics["perplexity"].samples
    plain = project.measurement(FP32).metrics["perplexity"].value
    assert 0 < abs(perplexity.value / plain - 1) < 0.01
    result = project.run("-m", "perplexity or memory", "--reuse")
    assert result.status == 0, result.output
    assert result.verdict(INT8, "perplexity").status == Status.PASS
