"""Compare the tokenizer of a checkpoint with the model's, line by line."""

from __future__ import annotations

import json
from pathlib import Path

from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import make_lines
from quantgate.supply.model_config import load_config
from quantgate.supply.splitting import encoder_of_gguf


def compare(output: Path, *, report: Report, model: str, checkpoint: str, tokenizer: bool) -> None:
    """Write how many of how many `lines` are `different`, with an `example`, as JSON.

    model, checkpoint: a folder, or a GGUF file; that of a checkpoint is read by llama.cpp, which will compute with it.
    tokenizer: the checkpoint has one; without it, its configuration alone is read. Raises AssetError for what cannot be
    read.
    """
    path = Path(checkpoint)
    lines: list[str] = []
    if tokenizer:
        expected = Encoder(Path(model), add_bos=False)
        encode = encoder_of_gguf(path) if path.is_file() else Encoder(path, add_bos=False).encode
        lines = make_lines(expected.tokenizer, [])
    else:
        load_config(path)
    result: dict[str, object] = {"lines": len(lines), "different": 0, "example": None}
    pairs = [(line, expected.encode(line), encode(line)) for line in lines]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    if different:
        line, there, here = min(different, key=lambda pair: len(pair[0]))
        result["different"] = len(different)
        result["example"] = {"line": line[:80], "model": there, "checkpoint": here}
    with whole(output, folder=False) as work:
        work.write_text(json.dumps(result))
