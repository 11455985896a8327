"""Restore the pre-tokenizer of a GGUF file's tokenizer: transformers reads only its merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def restore_splitting(tokenizer: Any, source: Path) -> None:
    """Give a tokenizer that transformers read from a GGUF file the splitting that the file names
    (`tokenizer.ggml.pre`). Any other name changes nothing."""
    import gguf
    from tokenizers import pre_tokenizers

    field = gguf.GGUFReader(source).get_field("tokenizer.ggml.pre")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splittings = {
        "gpt-2": byte_level,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
    }
    if field is not None and (splitting := splittings.get(field.contents())) is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = splitting
