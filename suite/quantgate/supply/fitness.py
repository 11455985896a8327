"""Check that a checkpoint goes with the matrix, from its JSON files, in the parent, before anything is measured. The
header of a GGUF file is checked by the processes that open it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from quantgate.checkpoint.checks import (
    bos_token,
    check_no_adapter,
    check_quantization,
    config_of,
    names_no_bos,
    positions_of,
    put_before,
    tokens_of,
)
from quantgate.checkpoint.gguf_header import gguf_puts_bos, read_header
from quantgate.checkpoint.heads import check_head
from quantgate.checkpoint.kinds import check_folder, check_packed
from quantgate.config.matrix import Cell, Model
from quantgate.errors import AssetError, InputError

BOS = "its bos_token"
"""In messages about a GGUF file, whose header is read without its vocabulary."""


class Length(NamedTuple):
    """The longest text of a metric group whose predictions count. Timings and memory need no positions that the model
    was trained for. keys: options that add up to `tokens`."""

    group: str
    keys: tuple[str, ...]
    tokens: int


def check_model(matrix: Path, name: str, model: Model, lengths: Sequence[Length], folder: Path) -> None:
    """Raise InputError or AssetError where the folder of safetensors does not go with the entry of the model and with
    the tier, whose longest texts are `lengths`."""
    check_no_adapter(folder)
    check_folder(folder)
    check_packed(folder)
    before = put_before(folder)
    if before or names_no_bos(folder):
        check_bos(f"{matrix}: models.{name}.add_bos", model.add_bos, before or (), bos_token(folder), folder)
    config = config_of(folder)
    tokens, rows, positions = tokens_of(folder), config.get("vocab_size"), positions_of(config)
    if tokens is not None and isinstance(rows, int) and tokens > rows:
        raise AssetError(
            f"{folder}: its tokenizer has {tokens:,} tokens, its embedding {rows:,} rows (vocab_size): name the "
            "tokenizer that the model was trained with, or resize the embedding"
        )
    if isinstance(pad := config.get("pad_token_id"), int) and isinstance(rows, int) and pad >= rows:
        raise AssetError(
            f"{folder}/config.json: pad_token_id is {pad:,}, and the embedding has {rows:,} rows (vocab_size), so that "
            "transformers does not load it: remove the key, as nothing is padded here, or resize the embedding"
        )
    for group, keys, length in lengths:
        if positions is not None and length > positions:
            raise InputError(
                f"{matrix}: {group}: {' + '.join(keys)} is {length:,} tokens, {folder} has {positions:,} positions: "
                f"lower {' + '.join(keys)}"
            )


def check_cell(cell: Cell, folder: Path, *, derived: bool) -> None:
    """Raise InputError or AssetError where the weights in the folder are not what the cell would measure. derived:
    the cell loads a GGUF that is made of them."""
    check_quantization(folder, cell.id, {} if cell.checkpoint != "safetensors" else cell.scheme_options)
    check_head(folder, derived=derived)


def check_gguf(matrix: Path, name: str, model: Model, gguf: Path) -> None:
    """Raise InputError or AssetError where the header of a model's only GGUF file does not go with the matrix."""
    if gguf_puts_bos(read_header(gguf).values):
        check_bos(f"{matrix}: models.{name}.add_bos", model.add_bos, (BOS,), BOS, gguf)


def check_bos(key: str, add_bos: bool | None, before: Sequence[str], token: str | None, source: Path) -> None:
    """Raise InputError where the matrix does not say what to do with the beginning-of-sequence token, or asks for one
    that the tokenizer lacks. before: the special tokens that the tokenizer puts before a text by itself."""
    if add_bos and token is None:
        raise InputError(
            f"{key} = true, and the tokenizer of {source} names no bos_token: remove add_bos, or name the token in "
            "tokenizer_config.json"
        )
    if not before or add_bos is False:
        return
    if [*before] != [token]:
        raise InputError(
            f"{key}{' = true' if add_bos else ': is missing'}, and the tokenizer of {source} puts {' '.join(before)} "
            "before each text, and quantgate can put only a bos_token there: write add_bos = false to leave it out"
        )
    if add_bos is None:
        raise InputError(
            f"{key}: is missing, and the tokenizer of {source} puts {token} before each text: write add_bos = true to "
            "have it before each text and context, as the model was trained, or add_bos = false to leave it out"
        )
