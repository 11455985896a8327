"""No starter matrix is written for what continues no text, where its configuration says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from quantgate.checkpoint.gguf_kinds import check_gguf_kind
from quantgate.checkpoint.kinds import check_folder
from quantgate.errors import AssetError
from quantgate.init.__main__ import main

from selftest.tiny import TinyModel


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder is true, an encoder with"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "Classification, whose head writes no text"),
        ({"architectures": ["BertForMaskedLM"]}, "architectures is BertForMaskedLM, whose head"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "model_type is clip, an encoder: only"),
        ({"model_type": "roberta", "is_decoder": False}, "model_type is roberta, an encoder"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "the weights are packed by MLX (4 bits), which no"),
        ({"quantization_config": {"group_size": 64, "bits": 8}}, "the weights are packed by MLX (8 bits)"),
    ],
)
def test_a_folder(
    config: dict[str, Any],
    why: str,
    tiny: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.safetensors, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **config}))
    assert main(["m"]) == 4
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not Path("quantgate.toml").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "is_encoder_decoder": False},
        {"model_type": "roberta", "architectures": ["RobertaForCausalLM"], "is_decoder": True},
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
        {"model_type": "qwen2", "architectures": ["Qwen2Model"]},  # its head may be its embeddings
        {"model_type": "new", "architectures": None},
    ],
)
def test_what_may_write_is_left_to_the_measurement(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_folder(tmp_path)


def test_a_gguf(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny.gguf.read_bytes()
    assert data.count(b"llama.")  # the architecture's name is that long
    Path("m.gguf").write_bytes(data.replace(b"llama", b"dream"))
    assert main(["m.gguf"]) == 4
    assert "m.gguf: general.architecture is dream, a diffusion model: only" in capsys.readouterr().err
    assert not Path("quantgate.toml").exists()


@pytest.mark.parametrize("name", ["clip", "nomic-bert-moe", "t5encoder"])
def test_architectures_that_write_nothing(name: str) -> None:
    with pytest.raises(AssetError, match=f"architecture is {name}, "):
        check_gguf_kind(Path("m.gguf"), {"general.architecture": name})
    check_gguf_kind(Path("m.gguf"), {"general.architecture": "llama", "general.type": "model"})


@pytest.mark.parametrize("name", ["adapter", "imatrix"])
def test_what_lies_beside_a_model(name: str) -> None:
    """Both have the architecture of their model."""
    with pytest.raises(AssetError, match=f"general.type is {name}, (.* no model|a LoRA)"):
        check_gguf_kind(Path("m.gguf"), {"general.architecture": "llama", "general.type": name})
