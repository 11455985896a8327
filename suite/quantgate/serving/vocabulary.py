"""The vocabulary of a checkpoint: which tokens a server cannot be asked for like others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders

from quantgate.checkpoint.checks import config_of, read_json
from quantgate.checkpoint.gguf_header import read_header
from quantgate.errors import MeasurementError
from quantgate.serving.dialect import Vocabulary

TYPES = "tokenizer.ggml.token_type"
PIECES = "tokenizer.ggml.tokens"
MODEL = "tokenizer.ggml.model"
_UNWRITTEN = (2, 3, 5)
"""llama.cpp's numbers of the types unknown, control and unused."""


def vocabulary_of(checkpoint: Path) -> Vocabulary:
    """Return the vocabulary of a GGUF file, or of a folder with config.json and tokenizer.json. Raises AssetError,
    MeasurementError where it does not say."""
    return _of_folder(checkpoint) if checkpoint.is_dir() else _of_gguf(checkpoint)


def _of_gguf(file: Path) -> Vocabulary:
    values = read_header(file, [TYPES, PIECES]).values
    types = values.get(TYPES)
    if not types:
        raise MeasurementError(f"{file}: has no {TYPES}: its vocabulary cannot be read")
    named = {
        int(value)
        for key, value in values.items()
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
    }
    unwritten = {number for number, kind in enumerate(types) if kind in _UNWRITTEN}
    # Of a byte-level vocabulary each character of a piece stands for a byte; others have pieces such as <0xE2>.
    decoder = decoders.ByteLevel() if values.get(MODEL) == "gpt2" else decoders.ByteFallback()
    texts = [decoder.decode([piece]) for piece in values[PIECES]]
    return Vocabulary(len(types), frozenset(unwritten | named), _incomplete(texts), texts)


def _of_folder(folder: Path) -> Vocabulary:
    size = config_of(folder).get("vocab_size")
    if not isinstance(size, int):
        raise MeasurementError(f"{folder}: config.json has no vocab_size")
    file = folder / "tokenizer.json"
    if not file.exists():
        return Vocabulary(size)
    added = read_json(file).get("added_tokens", [])
    tokenizer = Tokenizer.from_file(str(file))
    count = min(size, tokenizer.get_vocab_size())
    texts = [tokenizer.decode([number], skip_special_tokens=False) for number in range(count)]
    special = frozenset(token["id"] for token in added if token.get("special"))
    return Vocabulary(size, special, _incomplete(texts), [*texts, *[""] * (size - count)])


def _incomplete(texts: Iterable[str]) -> frozenset[int]:
    """Return the ids whose bytes are no UTF-8: decoders put U+FFFD in their place."""
    return frozenset(number for number, text in enumerate(texts) if "\ufffd" in text)
