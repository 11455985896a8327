"""Compare the tokenizer of a checkpoint with the model's, line by line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from quantgate.checkpoint.gguf_header import gguf_puts_bos, read_header
from quantgate.items import common_length
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import make_lines
from quantgate.supply.model_config import load_config
from quantgate.supply.splitting import encoder_of_gguf

Encoded = tuple[str, list[int], list[int]]
"""A line, and its ids by the tokenizers of the checkpoint and of the model."""


def compare(output: Path, *, report: Report, model: str, checkpoint: str, tokenizer: bool) -> None:
    """Write as JSON how many `lines` were compared, and as `problem` how they differ; empty: they do not.

    model, checkpoint: a folder, or a GGUF file; that of a checkpoint is read by llama.cpp, which will compute with it.
    tokenizer: the checkpoint has one; without it, its configuration alone is read. Raises AssetError for what cannot be
    read.
    """
    path = Path(checkpoint)
    encoded: list[Encoded] = []
    problem = ""
    if tokenizer:
        expected = Encoder(Path(model), add_bos=False)
        if path.is_file():
            encode, puts_bos = encoder_of_gguf(path), gguf_puts_bos(read_header(path).values)
        else:
            mine = Encoder(path, add_bos=False)
            encode, puts_bos = mine.encode, mine.puts_bos
        lines = make_lines(expected.tokenizer, [])
        encoded = [(line, encode(line), expected.encode(line)) for line in lines]
        problem = difference(encoded) or difference_of_bos(puts_bos, expected.puts_bos)
    else:
        load_config(path)
    with whole(output, folder=False) as work:
        work.write_text(json.dumps({"lines": len(encoded), "problem": problem}))


def difference_of_bos(here: bool, there: bool) -> str:
    """Return how the checkpoint's tokenizer and the model's differ in whether they put a beginning-of-sequence token
    before a text by themselves; empty: they do not."""
    if here == there:
        return ""
    words = {True: "puts a beginning-of-sequence token before each text", False: "puts none before a text"}
    return (
        f"its tokenizer {words[here]}, and the model's {words[there]} (add_bos_token): whoever loads it feeds the "
        "model other tokens than are measured; make it with the model's tokenizer, or set its key as the model has it"
    )


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
