"""Restore the pre-tokenizer of a GGUF file's tokenizer: transformers reads only its merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.checkpoint.gguf_header import read_header


def restore_splitting(tokenizer: Any, source: Path) -> None:
    """Give a tokenizer that transformers read from a GGUF file the splitting that the file names
    (`tokenizer.ggml.pre`). Any other name changes nothing."""
    from tokenizers import pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splittings = {
        "gpt-2": byte_level,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
    }
    name = read_header(source).values.get("tokenizer.ggml.pre")
    if name in splittings:
        tokenizer.backend_tokenizer.pre_tokenizer = splittings[name]
