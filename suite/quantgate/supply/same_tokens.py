"""Compare the tokenizer of a checkpoint with the model's, line by line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate.items import common_length
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import make_lines
from quantgate.supply.model_config import import_without_torch, load_config
from quantgate.supply.splitting import encoder_of, llamacpp_puts_bos, vocabulary_of_gguf

UNSAID_BOS = (
    "its tokenizer puts a beginning-of-sequence token before each text, and the model's does not: make it with the "
    "model's tokenizer, or write in [models.NAME] add_bos = false to leave it out, or true to have it in all cells"
)
Encoded = tuple[str, list[int], list[int]]
"""A line, and its ids by the tokenizers of the checkpoint and of the model."""


def main(output: Path, *, model: str, **arguments: Any) -> None:
    """`compare` in a process that does nothing else."""
    if Path(model).is_dir():
        import_without_torch()
    compare(output, model=model, **arguments)


def compare(
    output: Path, *, report: Report, model: str, checkpoint: str, tokenizer: bool, add_bos: bool | None
) -> None:
    """Write as JSON how many `lines` were compared, and as `problem` how they differ; empty: they do not.

    model, checkpoint: a folder, or a GGUF file; that of a checkpoint is read by llama.cpp, which will compute with it.
    tokenizer: the checkpoint has one; without it, its configuration alone is read. add_bos: the model's key. Raises
    AssetError for what cannot be read.
    """
    path = Path(checkpoint)
    encoded: list[Encoded] = []
    problem = ""
    if tokenizer:
        expected = Encoder(Path(model), add_bos=False)
        if path.is_file():
            vocabulary = vocabulary_of_gguf(path)
            encode, puts_bos = encoder_of(vocabulary), llamacpp_puts_bos(vocabulary)
        else:
            mine = Encoder(path, add_bos=False)
            encode, puts_bos = mine.encode, mine.puts_bos
        lines = make_lines(expected.tokenizer, [])
        encoded = [(line, encode(line), expected.encode(line)) for line in lines]
        problem = difference(encoded) or (UNSAID_BOS if puts_bos and add_bos is None else "")
    else:
        load_config(path)
    with whole(output, folder=False) as work:
        work.write_text(json.dumps({"lines": len(encoded), "problem": problem}))


def difference(encoded: Sequence[Encoded]) -> str:
    """Return how two tokenizers differ; empty: they do not."""
    different = [one for one in encoded if one[1] != one[2]]
    if not different:
        return ""
    line, here, there = min(different, key=lambda one: len(one[0]))
    same = common_length(here, there)
    return (
        f"its tokenizer differs from the model's: {len(different):,} of {len(encoded):,} lines differ, for example "
        f"{line[:80]!r}: {_ids(here, same)} here, {_ids(there, same)} there; name a checkpoint of this model, or make "
        "it with the model's tokenizer"
    )


def _ids(ids: list[int], begin: int) -> str:
    """Return some ids from `begin` on."""
    end = begin + 4
    return f"{'... ' if begin else ''}{ids[begin:end]}{' ...' if len(ids) > end else ''}"
