"""Make what quantizers are calibrated with: sequences of tokens, and the mean squares of each linear layer's inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantgate.files import write_atomic
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.encoder import Encoder


def make_sequences(
    output: Path,
    *,
    report: Report,
    tokenizer: str,
    add_bos: bool | None,
    name: str,
    text: dict[str, Any],
    tokens: int,
    length: int,
) -> None:
    """Write the beginning of a text as JSON: lists of `length` token ids, `tokens` in all. Raises InputError if the
    text is too short."""
    report(f"tokenize {name}", 0, 1)
    ids = Encoder(Path(tokenizer), add_bos).text(name, {**text, "tokens": tokens}).ids
    rows = [ids[i : i + length] for i in range(0, tokens, length)]
    write_atomic(output, json.dumps(rows).encode())


def make_mean_squares(
    output: Path, *, report: Report, safetensors: str, sequences: str, threads: int
) -> None:
    """Write as safetensors, for each linear layer, the mean over all tokens of the square of each of its inputs
    [in_features, float32]: what llama.cpp's imatrix tool collects."""
    from safetensors.numpy import save_file

    from quantgate.backends.runtime.transformers import Transformers

    rows = json.loads(Path(sequences).read_bytes())
    model = Transformers(Path(safetensors), {"device": "cpu", "dtype": "float32"}, threads)
    sums: dict[str, NDArray[np.float64]] = {}

    def add(name: str, inputs: NDArray[np.float32]) -> None:
        sums[name] = sums.get(name, 0.0) + np.square(inputs, dtype=np.float64).sum(axis=0)

    for number, ids in enumerate(rows):
        model.inputs(ids, add)
        report("activations", number + 1, len(rows))
    count = sum(map(len, rows))
    with whole(output, folder=False) as work:
        save_file({name: (s / count).astype(np.float32) for name, s in sums.items()}, work)
