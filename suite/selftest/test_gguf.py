"""GGUF files written from safetensors: what llama.cpp needs is in them, and what cannot be expressed is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from suite.errors import AssetError
from suite.prepare.gguf import gguf_from_safetensors
from suite.selftest.conftest import Project
from suite.selftest.tiny import TinyModel


def quiet(phase: str, done: float, total: float) -> None:
    pass


def test_a_folder_and_the_model_in_memory_make_one_file(tiny: TinyModel, tmp_path: Path) -> None:
    made = tmp_path / "made.gguf"
    gguf_from_safetensors(made, report=quiet, safetensors=str(tiny.safetensors))
    assert made.read_bytes() == tiny.gguf.read_bytes()


def test_all_weights_are_there_in_full(tiny: TinyModel) -> None:
    from safetensors.numpy import load_file

    ours = load_file(tiny.safetensors / "model.safetensors")
    reader = gguf.GGUFReader(tiny.gguf)
    assert {t.tensor_type for t in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    assert sum(t.n_elements for t in reader.tensors) == sum(t.size for t in ours.values())
    (embedding,) = (t for t in reader.tensors if t.name == "token_embd.weight")
    assert np.array_equal(embedding.data, ours["model.embed_tokens.weight"])


Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (
            lambda c, t: c.update(model_type="mistral", architectures=["MistralForCausalLM"]),
            "its model type is 'mistral'",
        ),
        (lambda c, t: c.update(attention_bias=True), "its linear layers have biases"),
        (
            lambda c, t: c["rope_parameters"].update(rope_type="linear", factor=2.0),
            "its rotary embedding is of type 'linear'",
        ),
        (lambda c, t: t.update(pre_tokenizer={"type": "Whitespace"}), "its tokenizer is no byte-level BPE"),
        (lambda c, t: c.update(vocab_size=600), "its tokenizer knows 512 tokens, its embedding 600"),
    ],
)
def test_other_models_are_refused(tiny: TinyModel, tmp_path: Path, edit: Edit, problem: str) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny.safetensors, folder)
    files = [folder / "config.json", folder / "tokenizer.json"]
    config, tokenizer = (json.loads(file.read_text()) for file in files)
    edit(config, tokenizer)
    for file, content in zip(files, (config, tokenizer), strict=True):
        file.write_text(json.dumps(content))
    with pytest.raises(AssetError, match=problem) as caught:
        gguf_from_safetensors(tmp_path / "x.gguf", report=quiet, safetensors=str(folder))
    assert "convert_hf_to_gguf.py" in str(caught.value)
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.slow
def test_a_model_without_gguf_runs_in_llamacpp(project: Project) -> None:
    del project.matrix["models"]["tiny"]["gguf"]
    result = project.run("-k", "F16 and (perplexity or tokenizer)")
    assert result.status == 0, result.output
    metrics = project.measurement("tiny/llamacpp/F16").metrics
    assert metrics["tokenizer/mismatches"].value == 0
    assert metrics["perplexity"].value < 4
