"""Tiny models of many architectures, converted to GGUF by llama.cpp's converter: llama.cpp computes what transformers
computes, or the model is refused with the reason.

All of them again: `pytest suite/selftest/supply/test_architectures.py`.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence
from quantgate.errors import AssetError
from quantgate.measure.scoring import score
from quantgate.supply.gguf import gguf_from_safetensors

from selftest.tiny import VOCABULARY, TinyModel

LENGTH, WINDOW = 96, 32
NEAR = 0.02
"""Nats per token, on average: llama.cpp's cache holds half-precision numbers."""
BASE: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SMALL: dict[str, Any] = {
    **BASE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip
OLD: dict[str, Any] = {**BASE, "n_layer": 4, "n_head": 4, "initializer_range": 0.2}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16}
TURNS = ["full_attention", "sliding_attention"] * 2
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
LLAMA4: dict[str, Any] = {
    **SMALL, "head_dim": 16, "intermediate_size_mlp": 128, "num_local_experts": 2, "interleave_moe_layer_step": 1,
}  # fmt: skip
BAMBA: dict[str, Any] = {**SMALL, **MAMBA, "attn_layer_indices": [1, 3]}
WHOLE = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
QWEN3_MOE: dict[str, Any] = {**SMALL, **EXPERTS, "head_dim": 32, "num_experts": 4}
GEMMA3: dict[str, Any] = {
    **SMALL, "num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": WINDOW,
    "tie_word_embeddings": True,
}  # fmt: skip
TEXT: dict[str, Any] = {**SMALL, "head_dim": 16}
EYE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 16}
PICTURE: dict[str, Any] = {**EYE, "num_hidden_layers": 1, "image_size": 32}
THREE_AXES = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
VIDEO: dict[str, Any] = {**EYE, "depth": 1, "num_heads": 2, "out_hidden_size": 64}

FEW: dict[str, tuple[str, dict[str, Any]]] = {
    # name: (configuration, its options): those whose new names in transformers 5 the converter does not have
    "deepseek-v3": (
        "DeepseekV3",
        {
            **SMALL, **EXPERTS, **LATENT, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1,
            "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
        },
    ),
    "granite-hybrid": (
        "GraniteMoeHybrid",
        {
            **SMALL, **MAMBA, "layer_types": ["mamba", "attention"] * 2, "num_local_experts": 4,
            "num_experts_per_tok": 2, "shared_intermediate_size": 64,
        },
    ),
    "gpt-neox": ("GPTNeoX", {**SMALL, "rotary_pct": 0.25}),
    "gpt2": ("GPT2", {**OLD, "n_embd": 64, "n_positions": 512}),
}  # fmt: skip
MANY: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("Apertus", SMALL),
    "bamba": ("Bamba", {**BAMBA, "rope_parameters": WHOLE}),
    "bloom": ("Bloom", {**OLD, "hidden_size": 64}),
    "cohere2": (
        "Cohere2",
        {**SMALL, "sliding_window": WINDOW, "tie_word_embeddings": True, "logit_scale": 1.0},
    ),
    "exaone4": ("Exaone4", {**SMALL, "sliding_window": None, "layer_types": ["full_attention"] * 4}),
    "falcon": ("Falcon", {**SMALL, "num_kv_heads": 2, "alibi": False, "new_decoder_architecture": True}),
    "falcon-h1": ("FalconH1", {**SMALL, **MAMBA, "head_dim": 16, "mamba_d_ssm": 128}),
    "falcon-mamba": ("FalconMamba", {**BASE, "hidden_size": 64, "num_hidden_layers": 4, "state_size": 8}),
    "gemma3": ("Gemma3Text", GEMMA3),
    "gpt-bigcode": ("GPTBigCode", {**OLD, "n_embd": 64, "n_positions": 512}),
    "granite": ("Granite", {**SMALL, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}),
    "hunyuan": ("HunYuanDenseV1", {**SMALL, "head_dim": 16}),
    "lfm2": ("Lfm2", {**SMALL, "layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 16}),
    "llama": ("Llama", {**SMALL, "rope_parameters": YARN}),
    "llama4": ("Llama4Text", {**LLAMA4, "num_experts_per_tok": 1}),
    "mamba": ("Mamba", {**BASE, "hidden_size": 64, "num_hidden_layers": 4, "state_size": 8}),
    "mamba2": (
        "Mamba2",
        {**BASE, "hidden_size": 64, "num_hidden_layers": 4, "num_heads": 8, "head_dim": 16, "n_groups": 1},
    ),
    "mistral": ("Mistral", {**SMALL, "sliding_window": None}),
    "mixtral": ("Mixtral", {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "nemotron-h": (
        "NemotronH",
        {
            **SMALL,
            "head_dim": 16,
            "layers_block_type": ["mamba", "attention"] * 2,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 1,
            "ssm_state_size": 16,
        },
    ),
    "olmo2": ("Olmo2", SMALL),
    "olmo3": ("Olmo3", {**SMALL, "sliding_window": WINDOW}),
    "qwen3": ("Qwen3", {**SMALL, "head_dim": 32}),
    "qwen3-moe": ("Qwen3Moe", {**QWEN3_MOE, "norm_topk_prob": True}),
    "seed-oss": ("SeedOss", {**SMALL, "head_dim": 16}),
    "smollm3": ("SmolLM3", SMALL),
    "llava": (
        "Llava",
        {
            "text_config": {"model_type": "llama", **SMALL},
            "vision_config": {"model_type": "clip_vision_model", **PICTURE},
        },
    ),
    "mistral3": (
        "Mistral3",
        {
            "text_config": {"model_type": "mistral", **TEXT},
            "vision_config": {"model_type": "pixtral", "head_dim": 16, **PICTURE},
            "tie_word_embeddings": False,
        },
    ),
    "qwen2.5-vl": (
        "Qwen2_5_VL",
        {
            "text_config": {**SMALL, "rope_parameters": THREE_AXES},
            "vision_config": {**VIDEO, "fullatt_block_indexes": [0]},
        },
    ),
    "qwen3-vl": (
        "Qwen3VL",
        {
            "text_config": {
                **TEXT,
                "head_dim": 32,
                "rope_parameters": {**THREE_AXES, "mrope_section": [6, 5, 5]},
            },
            "vision_config": {**VIDEO, "deepstack_visual_indexes": [0]},
        },
    ),
    "stablelm": ("StableLm", SMALL),
    "starcoder2": ("Starcoder2", {**SMALL, "sliding_window": 512}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bamba": ("Bamba", BAMBA, r"a part does \(partial_rotary_factor\)"),
    "falcon": ("Falcon", {**SMALL, "alibi": True, "multi_query": False}, r"this one has ALiBi \(alibi\)"),
    "qwen3-moe": ("Qwen3Moe", {**QWEN3_MOE, "norm_topk_prob": False}, "add up to 1, and this model does not"),
    "llama4": (
        "Llama4Text",
        {**LLAMA4, "attention_chunk_size": 32},
        "attention_chunk_size = 8192 for granted, .* has 32",
    ),
    "gemma3": ("Gemma3Text", {**GEMMA3, "layer_types": [*TURNS, *TURNS[:2]]}, "each sixth layer"),
    "gemma3-scaled": ("Gemma3Text", {**GEMMA3, "query_pre_attn_scalar": 256}, "and this model by 256"),
    "exaone4": ("Exaone4", {**SMALL, "sliding_window": WINDOW, "layer_types": TURNS}, "of 64 layers alone"),
}


def written(folder: Path, tiny: TinyModel, kind: str, options: dict[str, Any]) -> Path:
    """A model with random weights that tell tokens and positions apart, and the tiny model's tokenizer."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**options)
        causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        kind_of = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMultimodalLM
        model = kind_of.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and parameter.std() < 0.1 and "conv1d" not in name and "A_log" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
            elif name.endswith("bias") and "dt" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    for file in tiny.safetensors.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def difference(folder: Path, converter: str) -> float:
    """Return the mean difference of a token's log-probability between transformers in fp32 and llama.cpp."""
    from quantgate.backends.runtime import llamacpp, transformers

    file = folder.with_suffix(".gguf")
    gguf_from_safetensors(file, report=lambda *_: None, safetensors=str(folder), converter=converter)
    source = random.Random(0)
    ids = tuple(source.randrange(3, VOCABULARY) for _ in range(LENGTH))
    backends = (
        transformers.load(folder, {"device": "cpu", "dtype": "float32"}, 1),
        llamacpp.load(file, {"device": "cpu"}, 1),
    )
    first, second = (
        score(b, [[TokenSequence(ids, 1)]], LENGTH, way="plain")[0][0].logprobs for b in backends
    )
    assert first.std() > 0.5, "the model tells tokens apart, or this would prove nothing"
    return float(np.abs(first - second).mean())


@pytest.mark.parametrize("name", FEW)
def test_what_transformers_has_renamed_is_converted(
    name: str, tiny: TinyModel, converter: str, tmp_path: Path
) -> None:
    assert difference(written(tmp_path / name, tiny, *FEW[name]), converter) < NEAR


@pytest.mark.parametrize("name", MANY)
def test_a_converted_model_is_the_same(name: str, tiny: TinyModel, converter: str, tmp_path: Path) -> None:
    assert difference(written(tmp_path / name, tiny, *MANY[name]), converter) < NEAR


@pytest.mark.parametrize("name", REFUSED)
def test_what_llamacpp_computes_otherwise_is_refused(
    name: str, tiny: TinyModel, converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it does compute otherwise: without the list the logits say so."""
    kind, options, reason = REFUSED[name]
    folder = written(tmp_path / name, tiny, kind, options)
    with pytest.raises(
        AssetError, match=rf"{name}: llama.cpp would compute another model than this: .*{reason}"
    ):
        difference(folder, converter)
    monkeypatch.setattr("quantgate.supply.gguf.computed_otherwise", lambda config: "")
    with pytest.raises(AssetError, match=COMPUTED):
        difference(folder, converter)


UNLISTED: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Llama", {**SMALL, "hidden_act": "relu"}),
    "scaled": (
        "GPT2",
        {**OLD, "n_embd": 64, "n_positions": 512, "scale_attn_by_inverse_layer_idx": True},
    ),
}
COMPUTED = (
    r"computes another model than transformers: .* differs by [\d.]+ nats .* leave its llamacpp cells out"
)


def test_what_llamacpp_cannot_load_is_told_of_the_folder(
    tiny: TinyModel, converter: str, tmp_path: Path
) -> None:
    """llama.cpp takes no StarCoder2 without the biases of its attention."""
    folder = written(tmp_path / "plain", tiny, "Starcoder2", {**SMALL, "use_bias": False})
    message = (
        r"plain: its converter makes a GGUF, and llama\.cpp cannot load it: .* make its GGUF in another way"
    )
    with pytest.raises(AssetError, match=message):
        difference(folder, converter)


@pytest.mark.parametrize("name", UNLISTED)
def test_what_the_converter_leaves_out_is_seen_in_the_logits(
    name: str, tiny: TinyModel, converter: str, tmp_path: Path
) -> None:
    with pytest.raises(AssetError, match=rf"{name}: llama\.cpp {COMPUTED}"):
        difference(written(tmp_path / name, tiny, *UNLISTED[name]), converter)
