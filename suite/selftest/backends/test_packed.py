"""GPTQ and AWQ folders, packed here as their formats say, are loaded as they are and compute what they stand for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as library
from quantgate.backends.runtime import transformers

from selftest.packed import GROUP, write_packed, write_plain

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gptqmodel", "optimum")),
    reason="needs gptqmodel and optimum",
)
LINEAR, INPUTS, LAYERS = 73_728, 1_024, 14
OTHERS = 48 * 64 + 5 * 64


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A small Llama."""
    config = library.LlamaConfig(
        vocab_size=48,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize(
    ("method", "further"),
    # GPTQ: the group of each input, and shifts by 0, 4 ... 28 bits, twice in each layer.
    [("gptq", 4 * INPUTS + LAYERS * 64), ("awq", 0)],
)
def test_a_packed_folder_is_loaded_as_it_is(whole: Path, tmp_path: Path, method: str, further: int) -> None:
    meant = write_packed(whole, tmp_path / method, method)
    options: dict[str, Any] = {"bits": 4, "dtype": "float32", "device": "cpu", "as_is": True}
    model = transformers.load(
        tmp_path / method, {**options, "quantization": {"method": method, "bits": 4}}, 1
    )
    weights = model.weights()
    constants = LINEAR // GROUP * 2 + LINEAR // GROUP // 2  # a scale in 2 bytes, a zero point in 4 bits
    assert weights.bytes == LINEAR // 2 + constants + further + 4 * OTHERS
    assert (weights.parameters, weights.quantized_share) == (LINEAR + OTHERS, 1.0)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    plain = transformers.load(write_plain(whole, tmp_path / "plain", meant), {**options, "as_is": False}, 1)
    # The kernels compute in 16 bits.
    assert torch.allclose(model._model(ids).logits, plain._model(ids).logits, atol=0.01)
