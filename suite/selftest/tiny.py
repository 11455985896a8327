"""A tiny Llama with a tokenizer of its own, as safetensors and as GGUF, made in seconds from a seed.

It is trained for a moment on a few sentences: only a model that knows something gets worse when it is broken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.proofs.pocket.bpe import save_tokenizer, train_tokenizer

TEXT = """\
The miller rose before the sun and opened the sluice, and the wheel began to turn. Two sacks of rye stood by the
door; the third was gone. He counted again, for he had been wrong before, and again he found two. Outside, the dog
looked at the road and would not look at him.

A lighthouse keeps no secrets: it says the same word to every ship, all night, at the same pace. In 1887 the keeper
wrote down 214 ships; in 1888 he wrote down 209, and in the margin, in another ink, "five were mine". Nobody asked
him what he meant until the lamp was changed, and then it was too late to ask.

To boil an egg well, put it into boiling water, not into cold, and take it out after six minutes and thirty seconds.
If the yolk runs, it was too short; if it crumbles, it was too long. The egg does not care about your recipe, but it
does care about the height of the mountain on which you boil it: at 3,000 metres water boils at 90 degrees.

She learned the names of the stars from a sailor who could not swim. Vega, he said, is for going home, and Antares
is for going anywhere else. Years later, far from any sea, she still turned her head to Vega when a door was closed
behind her, and those who knew her waited until she had turned it back.

The committee met on Tuesday and decided nothing, and met on Thursday and decided it again. The minutes of both
meetings were read aloud, compared, and found to be equal to the last word, which was "adjourned". A motion to meet
less often was carried by one vote; it will be put into force when the committee next meets.

Rain is measured in millimetres, snow in centimetres, and patience in winters. The old bridge has stood for eleven
of them, and the new bridge for none. When the river froze, both were crossed on foot by the same man, who carried
a ladder and a lamp, and who said that he trusted the ice more than either.
"""
"""What the tokenizer and the model are made from, and what perplexity is taken on."""

VOCABULARY = 512
STEPS = 80
"""Of training: perplexity on the text falls to about 2, and rises by a fifth from Q4_K_M to Q2_K."""


@dataclass(frozen=True)
class TinyModel:
    """safetensors: a folder with weights, config and tokenizer. gguf: the same weights and tokenizer, F32."""

    safetensors: Path
    gguf: Path


def tiny_model(folder: Path) -> TinyModel:
    """Make the model below `folder`; the same bytes each time on one machine."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    model = TinyModel(folder / "safetensors", folder / "tiny.gguf")
    tokenizer = train_tokenizer(TEXT.splitlines(), VOCABULARY)
    llama = _trained(tokenizer.encode(TEXT).ids)
    llama.save_pretrained(model.safetensors)
    save_tokenizer(tokenizer, model.safetensors, context=512)
    write_llama(model.gguf, llama.config, llama.state_dict(), json.loads(tokenizer.to_str()))
    return model


def _trained(ids: list[int]) -> Any:
    """Random weights, then a few steps on the text."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,  # K-quants take blocks of 256
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,  # with the usual 0.02, 4 bits lose nothing that can be seen
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number of threads sums in another order
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            model = transformers.LlamaForCausalLM(config)
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
            for _ in range(STEPS):
                begins = torch.randint(len(ids) - 64, (4,))
                batch = torch.tensor([ids[b : b + 64] for b in begins])
                optimizer.zero_grad()
                loss = model(input_ids=batch, labels=batch).loss
                loss.backward()
                optimizer.step()
        return model.eval()
    finally:
        torch.set_num_threads(threads)


def write_llama(path: Path, config: Any, tensors: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Write a Llama of transformers as an F32 GGUF, as llama.cpp's converter does.

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
    writer.add_tokenizer_pre("gpt-2")
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
