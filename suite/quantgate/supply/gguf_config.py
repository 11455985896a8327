"""A configuration as llama.cpp's converter reads it, and what llama.cpp does not compute as transformers does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LAYERS = {"linear_attention": "mamba", "full_attention": "attention"}
"""Kinds of layers of hybrid models, by the names of transformers 5."""


def with_old_names(hparams: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what the converter asks for by names that transformers 5 has given up: the share of a
    head that rotates (GPT-NeoX, Cohere 2), the context (GPT-2), the kinds of layers (Granite 4), and how experts are
    chosen (DeepSeek V3)."""
    rope = hparams.get("rope_parameters") or {}
    old = {"rotary_pct": rope.get("partial_rotary_factor", 1.0)}
    if "n_positions" in hparams:
        old["n_ctx"] = hparams["n_positions"]
    kind = hparams.get("model_type")
    if kind == "deepseek_v3":
        old["scoring_func"] = "sigmoid"
    renamed = {}
    if kind == "granitemoehybrid" and hparams.get("layer_types"):
        renamed["layer_types"] = [LAYERS.get(layer, layer) for layer in hparams["layer_types"]]
    return {**old, **hparams, **renamed}


def computed_otherwise(config: Any) -> str:
    """Return what of a model llama.cpp leaves out or fixes without a word, so that its GGUF would be another model;
    empty: nothing. config: of the language model, as transformers reads it."""
    differs = _DIFFERENCES.get(config.model_type, lambda config: "")
    return differs(config)


def _bamba(config: Any) -> str:
    if (config.rope_parameters or {}).get("partial_rotary_factor", 1.0) == 1.0:
        return ""
    return "its converter orders heads as if they rotated as a whole, and here a part does (partial_rotary_factor)"


def _falcon(config: Any) -> str:
    return "it rotates the positions of every Falcon, and this one has ALiBi (alibi)" if config.alibi else ""


def _qwen3_moe(config: Any) -> str:
    if config.norm_topk_prob:
        return ""
    return "it makes the weights of the chosen experts add up to 1, and this model does not (norm_topk_prob)"


def _llama4(config: Any) -> str:
    fixed = {"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}
    for key, value in fixed.items():
        if (actual := getattr(config, key)) != value:
            return f"it takes {key} = {value} for granted, and this model has {actual}"
    return ""


def _gemma3(config: Any) -> str:
    layers, width = config.num_hidden_layers, config.head_dim
    if config.layer_types != ["full_attention" if n % 6 == 5 else "sliding_attention" for n in range(layers)]:
        return "it takes each sixth layer for one without a window, and this model has others (layer_types)"
    if layers != 62 and config.query_pre_attn_scalar != width:
        scale = config.query_pre_attn_scalar
        return f"it scales by a head's {width} numbers, and this model by {scale} (query_pre_attn_scalar)"
    return ""


def _exaone4(config: Any) -> str:
    if config.num_hidden_layers == 64 or "sliding_attention" not in (config.layer_types or ()):
        return ""
    return "it has windows in an EXAONE 4 of 64 layers alone, and this one has others (layer_types)"


_DIFFERENCES: dict[str, Callable[[Any], str]] = {
    "bamba": _bamba,
    "falcon": _falcon,
    "qwen3_moe": _qwen3_moe,
    "llama4_text": _llama4,
    "gemma3_text": _gemma3,
    "exaone4": _exaone4,
}
"""By model type. Each was seen with llama-cpp-python 0.3.36 (selftest/supply/test_architectures.py)."""
