"""The vocabulary of a checkpoint, without loading a tokenizer."""

from __future__ import annotations

from pathlib import Path

from quantgate.checkpoint.checks import config_of, read_json
from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import MeasurementError
from quantgate.serving.dialect import Vocabulary

TYPES = "tokenizer.ggml.token_type"
_UNWRITTEN = (2, 3, 5)
"""llama.cpp's numbers of the types unknown, control and unused."""


def vocabulary_of(checkpoint: Path) -> Vocabulary:
    """Return the vocabulary of a GGUF file, or of a folder with config.json and tokenizer.json. Raises AssetError,
    MeasurementError where it does not say."""
    return _of_folder(checkpoint) if checkpoint.is_dir() else _of_gguf(checkpoint)


def _of_gguf(file: Path) -> Vocabulary:
    values = read_header(file, [TYPES]).values
    types = values.get(TYPES)
    if not types:
        raise MeasurementError(f"{file}: has no {TYPES}: its vocabulary cannot be read")
    named = {
        int(value)
        for key, value in values.items()
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
    }
    unwritten = {number for number, kind in enumerate(types) if kind in _UNWRITTEN}
    return Vocabulary(len(types), frozenset(unwritten | named))


def _of_folder(folder: Path) -> Vocabulary:
    size = config_of(folder).get("vocab_size")
    if not isinstance(size, int):
        raise MeasurementError(f"{folder}: config.json has no vocab_size")
    file = folder / "tokenizer.json"
    added = read_json(file).get("added_tokens", []) if file.exists() else []
    return Vocabulary(size, frozenset(token["id"] for token in added if token.get("special")))
