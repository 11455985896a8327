"""GPTQ and AWQ folders, packed here as their formats say, are loaded as they are and compute what they stand for."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as library
from quantgate.backends.runtime import transformers
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gptqmodel", "optimum")),
    reason="needs gptqmodel and optimum",
)
GROUP = 32
CONFIGURATIONS = {
    "gptq": {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "checkpoint_format": "gptq"},
    "awq": {"bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs is in which place of an integer."""
LINEAR, INPUTS, LAYERS = 73_728, 1_024, 14
OTHERS = 48 * 64 + 5 * 64


def packed(values: torch.Tensor, order: Sequence[int] = range(8)) -> torch.Tensor:
    """Put each eight values of 4 bits along the last axis into one int32, the first lowest."""
    eights = values.to(torch.int64).unflatten(-1, (-1, 8))
    whole = sum(eights[..., place] << (4 * number) for number, place in enumerate(order))
    return ((whole + 2**31) % 2**32 - 2**31).to(torch.int32).contiguous()


def written(folder: Path, method: str) -> dict[str, torch.Tensor]:
    """Write a small Llama in the method's format; return the weights that it stands for."""
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
        library.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    stored, meant = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = meant[name] = weight
            continue
        groups = weight.unflatten(1, (-1, GROUP))
        scale = (groups.abs().amax(-1) / 7).half().float()
        rounded = (groups / scale[..., None]).round().clamp(-8, 7)
        meant[name] = (rounded * scale[..., None]).flatten(1)
        levels = rounded.flatten(1) + 8  # [outputs, inputs]
        zeros = torch.full((weight.shape[1] // GROUP, weight.shape[0]), 8)
        stem = name.removesuffix("weight")
        stored[f"{stem}scales"] = scale.T.contiguous().half()
        if method == "gptq":  # whose files have zero points less one
            stored[f"{stem}qweight"] = packed(levels).T.contiguous()
            stored[f"{stem}qzeros"] = packed(zeros - 1)
            stored[f"{stem}g_idx"] = (torch.arange(weight.shape[1]) // GROUP).int()
        else:
            stored[f"{stem}qweight"] = packed(levels.T, AWQ_ORDER)
            stored[f"{stem}qzeros"] = packed(zeros, AWQ_ORDER)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    quantization = {"quant_method": method, **CONFIGURATIONS[method]}
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": quantization}))
    return meant


@pytest.mark.parametrize(
    ("method", "further"),
    # GPTQ: the group of each input, and shifts by 0, 4 ... 28 bits, twice in each layer.
    [("gptq", 4 * INPUTS + LAYERS * 64), ("awq", 0)],
)
def test_a_packed_folder_is_loaded_as_it_is(tmp_path: Path, method: str, further: int) -> None:
    meant = written(tmp_path / method, method)
    options: dict[str, Any] = {"bits": 4, "dtype": "float32", "device": "cpu", "as_is": True}
    model = transformers.load(
        tmp_path / method, {**options, "quantization": {"method": method, "bits": 4}}, 1
    )
    weights = model.weights()
    constants = LINEAR // GROUP * 2 + LINEAR // GROUP // 2  # a scale in 2 bytes, a zero point in 4 bits
    assert weights.bytes == LINEAR // 2 + constants + further + 4 * OTHERS
    assert (weights.parameters, weights.quantized_share) == (LINEAR + OTHERS, 1.0)
    folder = shutil.copytree(tmp_path / method, tmp_path / "plain")
    save_file(meant, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    del settings["quantization_config"]
    (folder / "config.json").write_text(json.dumps(settings))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    plain = transformers.load(folder, {**options, "as_is": False}, 1)
    # The kernels compute in 16 bits.
    assert torch.allclose(model._model(ids).logits, plain._model(ids).logits, atol=0.01)
