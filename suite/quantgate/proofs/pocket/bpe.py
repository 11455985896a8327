"""Byte-level BPE with GPT-2's splitting, which both transformers and llama.cpp know."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

END = "<|endoftext|>"
"""The one special token, between documents; its id is 0."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A `tokenizers.Tokenizer` of `vocabulary` tokens, all bytes among them."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path, context: int) -> None:
    """Put it beside a model's weights, as transformers reads it."""
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=context
    ).save_pretrained(folder)
