"""GGUF files from safetensors: Llama models with byte-level BPE, as llama.cpp's own converter writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.errors import AssetError
from suite.prepare.checkpoints import Report, whole

PRE_TOKENIZER = "gpt-2"
"""llama.cpp's name of the splitting that `tokenizers.pre_tokenizers.ByteLevel` does."""


def gguf_from_safetensors(output: Path, *, report: Report, safetensors: str) -> None:
    """Maker of an F32 GGUF of a folder with config, tokenizer and safetensors."""
    import transformers
    from safetensors.torch import load_file

    folder = Path(safetensors)
    report("write GGUF", 0, 1)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
        tensors = {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}
    except Exception as error:
        raise AssetError(f"{folder}: cannot be read ({type(error).__name__}: {error})") from error
    if problem := unsupported(config, tokenizer):
        raise AssetError(
            f"{folder}: {problem}, and only Llama models with byte-level BPE become GGUF files here: "
            "convert it with llama.cpp's convert_hf_to_gguf.py, and name the file as `gguf` of the model"
        )
    with whole(output, folder=False) as work:
        write_llama(work, config, tensors, tokenizer)


def unsupported(config: Any, tokenizer: Mapping[str, Any]) -> str:
    """What of a model `write_llama` could not express; empty: nothing."""
    if config.model_type != "llama":
        return f"its model type is {config.model_type!r}"
    if config.rope_parameters.get("rope_type", "default") != "default":
        return f"its rotary embedding is of type {config.rope_parameters['rope_type']!r}"
    if config.attention_bias or config.mlp_bias:
        return "its linear layers have biases"
    model, splitting = tokenizer["model"], tokenizer["pre_tokenizer"]
    plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if model["type"] != "BPE" or {k: (splitting or {}).get(k) for k in plain} != plain:
        return "its tokenizer is no byte-level BPE with the splitting of GPT-2"
    known = len({*model["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])})
    if known != config.vocab_size:
        return f"its tokenizer knows {known} tokens, its embedding {config.vocab_size}"
    return ""


def write_llama(path: Path, config: Any, tensors: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Write a Llama of transformers as an F32 GGUF.

    config: `LlamaConfig`. tensors: torch tensors by transformers' names. tokenizer: what `tokenizer.json` holds.
    """
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    special = {t["content"]: t["id"] for t in tokenizer["added_tokens"] if t["special"]}
    vocabulary = sorted({**tokenizer["model"]["vocab"], **special}.items(), key=lambda entry: entry[1])
    types = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token, _ in vocabulary]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for name, tensor in sorted(tensors.items()):  # the same file whatever order they come in
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # without an output tensor llama.cpp takes the embeddings
        value = tensor.detach().float().numpy()
        for suffix, count in heads.items():
            if name.endswith(suffix):
                value = _interleaved(value, count)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: Any, heads: int) -> Any:
    """Rows of each head from transformers' rotary order (two halves) to that of llama.cpp (neighbouring pairs)."""
    rows = weight.reshape(heads, 2, -1, weight.shape[-1])
    return rows.swapaxes(1, 2).reshape(weight.shape)
